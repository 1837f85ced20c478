"""Owns the promises about the end of a queue mapping: what was received is tried while there is time, and nothing begins too late."""

from dataclasses import dataclass, field

from poller.domain.rows import MappingState
from poller.runtime.queues.message_batch import PERMIT_AFTER_STOP_S
from poller.runtime.stopping import SLACK_S
from tests.simulation.checks.ledger import Violation
from tests.simulation.services.faults import Line, Marks


@dataclass(frozen=True, slots=True)
class StopChecks:
    """The ends of one mapping, whose function takes `longest_s` at most; None where that changes as time goes by.

    `held`: the function has a rate or a circuit breaker, whose permit a stop waits for only for a short time.
    """

    marks: Marks
    longest_s: float | None
    held: bool = False
    changing: dict[str, float] = field(default_factory=dict, init=False)
    """The workers at which the mapping ends its run to begin another, each with the time since when."""

    def changes(self, worker: str, state: MappingState, now: float) -> None:
        """A worker says the state of the mapping there."""
        if state is MappingState.UPDATING:
            self.changing.setdefault(worker, now)
        else:
            self.changing.pop(worker, None)

    def gives_back_untried(self, line: Line, message_id: str, now: float) -> None:
        """A worker shows a message that no function has seen since its receive, and that nothing blocks."""
        stopped_at = self.changing.get(line.name) if line.stopped_at is None else line.stopped_at
        if self.held and stopped_at is not None and now - stopped_at >= PERMIT_AFTER_STOP_S:
            self.marks.saw("given back for want of a permit")
            return
        if line.ends_at is None:
            raise Violation("hand back", f"{message_id} was given back untried, and nobody was in a hurry")
        if self.longest_s is not None and now + self.longest_s < line.ends_at:
            left_s = line.ends_at - now
            raise Violation("hand back", f"{message_id} was given back untried {left_s:.1f} s before the end")
        self.marks.saw("given back for want of time")

    def begins(self, line: Line, issued: float, *, since_stop: bool) -> None:
        """A worker that was asked to stop calls the function; `since_stop`: with what it received since."""
        if line.ends_at is None or line.stopped_at is None or issued <= line.stopped_at:
            return
        if since_stop:
            self.marks.saw("run after a stop")
        if self.longest_s is not None and issued + self.longest_s > line.ends_at + SLACK_S:
            raise Violation("grace", f"a call begins {line.ends_at - issued:.1f} s before the end")
