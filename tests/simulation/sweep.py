"""Owns sweeps over many seeds: what they must have seen, and how they are spread over processes."""

from collections.abc import Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field

from poller.domain.operations import OperationState
from tests.simulation.checks.redrive_checks import REASONS
from tests.simulation.services.faults import Marks
from tests.simulation.worlds.world import Failed, run_seed

CHUNK = 25

ACTIONS = ("retry", "reset", "skip", "pause", "resume", "seek", "redrive")
"""What operators do in these worlds. Replays have worlds of their own."""
SOMETIMES = (
    "bisect",
    "retry",
    "free retry",
    "ended: partial",
    "ended: rejected",
    "ended: timed_out",
    "discard: RetryAttemptsExhausted",
    "discard: RecordAgeExceeded",
    "notice",
    "destination: outage",
    "expired cursor",
    "lost iterator",
    "trimmed",
    "crash",
    "pause",
    "restart",
    "task cancelled from inside",
    "mapping started again after a task ended",
    "join",
    "resumed",
    "memo saved",
    "lease taken over",
    "lease lost",
    "zombie write refused",
    "merge child",
    "split child",
    "end saved",
    "bisect across a restart",
    "window closed",
    "window across a restart",
    "closed by count",
    "closed by bytes",
    "closed by time",
    "throttled batch of a queue",
    "message delivered again",
    "lapsed receipt",
    "dead letter",
    "filtered message deleted",
    "mixed groups",
    "source: lost reply",
    "store: lost reply",
    "function: lost reply",
    "source: denied",
    "source: allowed again",
    "window ended early",
    "window begun anew",
    "visibility extended",
    "visibility extended once",
    "several messages of one group",
    "groups side by side",
    "followers held back",
    "partial report of a queue",
    "report that does not count",
    "retry put off",
    "retry after its wait",
    "retry asked for",
    "wait that is none",
    "group that waits as one",
    "queue at its maximum",
    "aggregated record",
    "call beside a mapping",
    "call finds all slots in polls",
    "call without room",
    "workers share a maximum",
    "provisioned pollers",
    "more pollers than at first",
    "update",
    "abandoned poll",
    "received after a stop",
    "given back at a stop",
    "run after a stop",
    "batch filled in a window",
    "run longer than the usual limit",
    "run longer than the limit that was known",
    "unseen settings of a function",
    "tenant of a standard queue",
    "message of a dead-letter queue",
    "record without key",
    "record that cannot be read",
    "message that cannot be read",
    "record at its largest",
    "odd key",
    "member absent",
    "member null",
    "member unknown value",
    "member new",
    "time absent",
    "attribute absent",
    *(
        f"operator: {action} while {state}"
        for action in ("retry", "reset", "skip", "pause")
        for state in ("idle", "gathering", "invoking", "waiting", "paused")
    ),
    "operator: skip while discarding",
    *(
        f"operator: {action} while {state}"
        for action in ("retry", "skip", "resume", "seek", "redrive")
        for state in ("moving", "blocked")
    ),
    "operator: reset while moving",
    "operator: pause while moving",
    "operator: pause while blocked",
    "operator: skip while ended",
    *(f"operator: resume while {state}" for state in ("idle", "invoking", "paused", "ended")),
    *(f"operator: seek while {state}" for state in ("idle", "invoking", "waiting", "paused", "gathering")),
    "operator: seek while discarding",
    *(f"operator: redrive while {state}" for state in ("idle", "invoking", "waiting", "discarding")),
    *(f"operation: {action} accepted" for action in ACTIONS),
    *(f"operation: {action} done" for action in ACTIONS),
    *(f"operation: {action} running" for action in ("reset", "skip", "pause", "seek", "redrive")),
    *(f"operation: {action} failed" for action in ("skip", "seek", "redrive")),
    *(f"operation: {action} cancelled" for action in ("seek", "redrive")),
    *(
        f"{source}: redrive {state}"
        for source in ("stream", "standard queue", "FIFO queue")
        for state in OperationState
    ),
    "operator: skipped with a notice",
    "operator: without a notice",
    "operator: settled before",
    "operator: refused",
    "discard: SkippedByOperator",
    "function called at its rate",
    "breaker opened",
    "breaker opened again",
    "breaker let one batch try",
    "breaker closed by a try",
    "breaker closed by hand",
    "breaker closed at another worker",
    "seek: planned",
    "seek: draining",
    "seek: done",
    "seek: cancelled",
    "seek: dry run",
    "seek: refused to leave records out",
    "seek: left out",
    "seek: processed again",
    "seek: taken up again",
    "seek: open window dropped",
    "seek: window closed again",
    "redrive: read again from the stream",
    "redrive: event in the notice",
    "redrive: event in an object",
    "redrive: message of a dead-letter queue",
    "redrive: settled",
    "redrive: failed again",
    "redrive: done",
    "redrive: failed",
    "redrive: cancelled",
    "redrive: dry run",
    "redrive: claimed by another",
    "push: registered",
    "push: subscribed",
    "push: event",
    "push: event before it was asked for",
    "push: cut between events",
    "push: cut in an event",
    "push: cut in an event with records",
    "push: silent connection",
    "push: ended by the service",
    "push: renewed before its five minutes were over",
    "push: ResourceInUseException",
    "push: ResourceNotFoundException",
    "push: consumer removed",
    "push: registered again",
    "push: polled meanwhile",
    "push: pushed again",
    "push: last event with 1 child shards",
    "push: last event with 2 child shards",
    "push: closed by a stop",
    "listing of another mapping",
    "later page of a listing",
    "token of a listing expired",
    "throttled listing",
    "children told",
    "children not told",
)
"""A sweep of some hundred seeds that never saw one of these is too kind."""
SELDOM = (
    "push: cut by an outage",
    "push: ended its own subscription",
    "push: ended another worker's subscription",
    "push: heard that another subscription has ended this one",
    "seek: partly moved",
    "seek: claimed by another",
    "seek: moved from a dead worker",
    "given back for want of time",
    *(f"operator: {action} while discarding" for action in ("retry", "reset", "pause")),
    *(f"operator: {action} while restored" for action in ("retry", "reset", "skip", "pause")),
    *(f"operator: {action} while ended" for action in ("retry", "reset", "pause", "seek", "redrive")),
    "operator: reset while blocked",
    "operator: resume while waiting",
    "operator: redrive while gathering",
    "operator: redrive while paused",
    "operator: has ended",
    "operator: closes the window",
    "operator: gone",
    "operator: batch that was agreed to",
    "window skipped",
    "redrive: call without an outcome",
    "redrive: called again",
    *(f"redrive: {each}" for each in REASONS),
)
"""A sweep of SELDOM_SEEDS seeds that never saw one of these is too kind: one seed in some hundred shows it."""
SELDOM_SEEDS = 5000


@dataclass(slots=True)
class Swept:
    """What a range of seeds showed; `failed` maps a seed to its reason."""

    seeds: int = 0
    virtual_s: float = 0.0
    marks: Marks = field(default_factory=Marks)
    failed: dict[int, str] = field(default_factory=dict)

    def add(self, other: "Swept") -> None:
        """Takes another range in."""
        self.seeds += other.seeds
        self.virtual_s += other.virtual_s
        self.marks.update(other.marks)
        self.failed.update(other.failed)

    def never(self) -> list[str]:
        """What should have been seen and was not."""
        seldom = SELDOM if self.seeds >= SELDOM_SEEDS else ()
        return [mark for mark in (*SOMETIMES, *seldom) if not self.marks[mark]]


def sweep(seeds: Iterable[int]) -> Swept:
    """Runs seeds one after the other; failures are collected."""
    swept = Swept()
    for seed in seeds:
        swept.seeds += 1
        try:
            report = run_seed(seed)
        except Failed as failure:
            swept.failed[seed] = failure.reason
        else:
            swept.virtual_s += report.virtual_s
            swept.marks.update(report.marks)
    return swept


def spread(seeds: range, jobs: int) -> Iterator[Swept]:
    """Runs seeds in `jobs` processes, and yields each chunk as it is done."""
    chunks = [seeds[start : start + CHUNK] for start in range(0, len(seeds), CHUNK)]
    if jobs == 1:
        yield from map(sweep, chunks)
        return
    with ProcessPoolExecutor(jobs) as pool:
        yield from pool.map(sweep, chunks)
