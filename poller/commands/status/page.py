"""Owns how the status of all workers looks on a screen: blocked mappings first, each with its UUID, its shards and its failures.

What the answering worker has not heard for longer than usual is marked as out of date, with its age.

A page can be read at 80 columns. Commands to be copied are folded as a shell takes them. Long texts are cut; `--json` shows them whole. Stack traces are only in `--json` and in the log.
"""

from collections.abc import Callable, Iterable, Sequence
from functools import partial

from poller.commands.fitting import Mark, Screen, ScreenPage
from poller.commands.operations.naming import close_command
from poller.commands.operations.progress import progress
from poller.commands.operations.several_workers import newest
from poller.commands.status.calls import add_calls
from poller.commands.status.lanes import add_lanes, add_pause, blocked_since
from poller.commands.status.shards import add_shards, age
from poller.commands.status.times import moment, span
from poller.domain.arns import Arn
from poller.domain.operations import OperationView
from poller.domain.records import Epoch
from poller.domain.rows import MappingState
from poller.domain.status import (
    BreakerStatus,
    CodeStatus,
    DaemonStatus,
    FunctionStatus,
    LaneStatus,
    MappingStatus,
    MappingWorker,
    RateStatus,
    ShardStatus,
    WorkerBreaker,
    WorkerState,
    WorkerStatus,
)
from poller.domain.telemetry.labels import BreakerState
from poller.domain.wording.numbers_of import number_of

MAPPINGS_SHOWN_MAX = 200
NOTES_SHOWN_MAX = 20
WORKERS_SHOWN_MAX = 20
"""Workers that are shown with what is the matter with them, in all and of one mapping."""
FUNCTIONS_SHOWN_MAX = 50
"""Functions with a rate or a breaker that are shown, and functions with asynchronous calls."""
OPERATIONS_SHOWN_MAX = 10
"""Running operations of one mapping that are shown."""
WHOLE = "poller status --json has all of what is cut or left out, and stack traces"


type Freeing = Callable[[MappingStatus, ShardStatus | None, LaneStatus | None], Sequence[str]]
"""Returns the commands that free something that is blocked; without a lane, what makes a shard that cannot be read be read now."""


def status_page(
    status: DaemonStatus,
    now: Epoch,
    screen: Screen | int,
    freeing: Freeing | None = None,
    running: Sequence[OperationView] = (),
    more: str = "",
) -> ScreenPage:
    """The page for one status. Below what is blocked it shows the commands that free it, if `freeing` names any.

    `running` are operations that take long. Each is a line of its mapping. `more` is added to the commands that close breakers.
    """
    page = ScreenPage(screen)
    ready = "ready" if status.ready else "not ready"
    alive = "" if status.alive else ", not alive"
    well = status.ready and status.alive
    page.add(f"worker {status.worker}: {ready}{alive}", mark=Mark.NONE if well else Mark.TROUBLE)
    _notes(page, status.problems)
    _notes(page, [f"note: {note}" for note in status.notes])
    _workers(page, status)
    for function in page.some(status.functions, FUNCTIONS_SHOWN_MAX):
        _function(page, function, now, more, several=len(status.workers) > 1)
    page.count_others(status.functions, FUNCTIONS_SHOWN_MAX, "function")
    waiting = sorted(status.calls, key=lambda each: (each.oldest, each.function))
    for calls in page.some(waiting, FUNCTIONS_SHOWN_MAX):
        add_calls(page, calls, now, more)
    page.count_others(waiting, FUNCTIONS_SHOWN_MAX, "function")
    mappings = sorted(status.mappings, key=lambda each: (_mapping_since(each), each.function, each.mapping))
    for mapping in page.some(mappings, MAPPINGS_SHOWN_MAX):
        page.line("")
        mine = [each for each in running if each.mapping == mapping.mapping]
        _mapping(page, mapping, now, freeing or _no_commands, several=len(status.workers) > 1, running=mine)
    if len(mappings) > len(page.some(mappings, MAPPINGS_SHOWN_MAX)):
        page.line("")
    page.count_others(mappings, MAPPINGS_SHOWN_MAX, "mapping")
    if page.shortened or any(lane.error is not None for lane in _all_lanes(status)):
        page.line("")
        page.add(WHOLE)
    return page


def _notes(page: ScreenPage, notes: Sequence[str]) -> None:
    for note in page.some(notes, NOTES_SHOWN_MAX):
        page.add(note, depth=1, lines_max=3, mark=Mark.HELD)
    page.count_others(notes, NOTES_SHOWN_MAX, "note", depth=1)


def _function(page: ScreenPage, function: FunctionStatus, now: Epoch, more: str, *, several: bool) -> None:
    """Adds the rate, the breaker and the code of a function; for breakers that are not closed also where, why, and the command that closes them."""
    facts = [_rate(function.rate)] if function.rate is not None else []
    breakers = function.breakers
    if not breakers and function.breaker is not None:
        breakers = (WorkerBreaker(worker="", breaker=function.breaker),)
    odd = [each for each in breakers if each.breaker.state != BreakerState.CLOSED]
    if odd and several:
        where = number_of(len(odd), "worker", of=len(breakers)) if len(breakers) > 1 else odd[0].worker
        facts.append(f"breaker open at {where}")
    elif breakers:
        facts.append(_breaker((odd or list(breakers))[0], now))
    if function.code is not None:
        facts.append(_code(function.code, now))
    page.add(
        f"function {function.function}: {', '.join(facts)}",
        lines_max=3,
        mark=Mark.TROUBLE if odd else Mark.NONE,
    )
    if function.code is not None and function.code.refused:
        page.add(function.code.refused, depth=1, lines_max=3, mark=Mark.TROUBLE)
    odd.sort(key=lambda each: (each.breaker.since, each.worker))
    for each in page.some(odd, WORKERS_SHOWN_MAX):
        depth = 1
        if several:
            page.add(f"at {each.worker}: {_breaker(each, now)}", depth=1)
            depth = 2
        page.add(each.breaker.reason, depth=depth, lines_max=3)
    page.count_others(odd, WORKERS_SHOWN_MAX, "such worker", depth=1)
    if odd:
        page.command(close_command(function.function, more), depth=1)


def _code(code: CodeStatus, now: Epoch) -> str:
    refused = ", a change is refused" if code.refused else ""
    return f"code of {span(max(0.0, now - code.since))} ago, changes taken up: {code.taken_up}{refused}"


def _rate(rate: RateStatus) -> str:
    limits = {"invocations": rate.invocations_per_s, "records": rate.records_per_s}
    said = " and ".join(f"{per_s:g} {unit}/s" for unit, per_s in limits.items() if per_s is not None)
    waiting = f", {rate.waiting} waiting" if rate.waiting else ""
    return f"{said}, {rate.share:.0%} of it here{waiting}"


def _breaker(at: WorkerBreaker, now: Epoch) -> str:
    return _breaker_state(at.breaker, now) + age(at.age_s, out_of_date=at.out_of_date)


def _breaker_state(breaker: BreakerStatus, now: Epoch) -> str:
    if breaker.state == BreakerState.CLOSED:
        return "breaker closed"
    since = f"for {span(max(0.0, now - breaker.since))}, since {moment(breaker.since)}"
    if breaker.state == BreakerState.HALF_OPEN:
        return f"breaker open {since}, one batch may try now"
    wait_s = (breaker.next_try or now) - now
    return f"breaker open {since}, next try {f'in {span(wait_s)}' if wait_s > 0 else 'now'}"


def _no_commands(
    _mapping: MappingStatus, _shard: ShardStatus | None, _lane: LaneStatus | None
) -> Sequence[str]:
    return ()


def _workers(page: ScreenPage, status: DaemonStatus) -> None:
    """Adds the names of all workers, then those with which something is the matter."""
    if status.only:
        page.add(f"only worker {status.only} is shown", depth=1)
    elif len(status.workers) > 1:
        names = ", ".join(each.worker for each in status.workers)
        page.add(f"{number_of(len(status.workers), 'worker')}: {names}", depth=1, lines_max=3)
    odd = [each for each in status.workers if each.state is not WorkerState.ALIVE or each.note]
    for worker in page.some(odd, WORKERS_SHOWN_MAX):
        page.add(_worker(worker), depth=1, lines_max=3)
    page.count_others(odd, WORKERS_SHOWN_MAX, "such worker", depth=1)


def _worker(worker: WorkerStatus) -> str:
    note = f"; {worker.note}" if worker.note else ""
    return f"worker {worker.worker}: {worker.state}{age(worker.age_s, out_of_date=worker.out_of_date)}{note}"


def _mapping(
    page: ScreenPage,
    mapping: MappingStatus,
    now: Epoch,
    freeing: Freeing,
    *,
    several: bool,
    running: Sequence[OperationView],
) -> None:
    source = Arn.read(mapping.source_arn)
    name = f"{mapping.function} ← {source.service} {source.resource}" if source else mapping.function
    page.add(name, mark=Mark.TITLE)
    page.line(mapping.mapping, depth=1)
    reason = f": {mapping.reason}" if mapping.reason else ""
    facts = [f"{mapping.state}{reason}"]
    if mapping.pollers is not None:
        facts.append(number_of(mapping.pollers, "poller"))
    if mapping.state is MappingState.ENABLED and mapping.blocked:
        facts.append("blocked")
    trouble = mapping.state is MappingState.BROKEN or (
        mapping.state is MappingState.ENABLED and mapping.blocked
    )
    page.add(", ".join(facts), depth=1, lines_max=3, mark=Mark.TROUBLE if trouble else Mark.NONE)
    add_pause(page, mapping.paused, now, depth=1)
    _mapping_workers(page, mapping)
    for operation in page.some(running, OPERATIONS_SHOWN_MAX):
        page.line(f"{operation.action} {progress(operation)}", depth=1)
    page.count_others(running, OPERATIONS_SHOWN_MAX, "operation", depth=1)
    add_lanes(
        page,
        newest(mapping.lanes),
        now,
        partial(freeing, mapping, None),
        depth=1,
        above=(mapping.paused,),
        several=several,
    )
    add_shards(page, mapping.shards, now, partial(freeing, mapping), whole=mapping.paused, several=several)


def _mapping_workers(page: ScreenPage, mapping: MappingStatus) -> None:
    """Adds the workers on which the mapping is not as in all, or of which not everything is shown."""
    odd = [
        each for each in mapping.workers if each.out_of_date or each.left_out or each.state != mapping.state
    ]
    for worker in page.some(odd, WORKERS_SHOWN_MAX):
        page.add(_mapping_worker(worker), depth=1)
    page.count_others(odd, WORKERS_SHOWN_MAX, "such worker", depth=1)


def _mapping_worker(worker: MappingWorker) -> str:
    facts = [f"{worker.blocked} blocked"] if worker.blocked else []
    facts += [f"{worker.left_out} in trouble not shown, ask it"] if worker.left_out else []
    said = ", ".join([str(worker.state), *facts])
    return f"at {worker.worker}: {said}{age(worker.age_s, out_of_date=worker.out_of_date)}"


def _mapping_since(mapping: MappingStatus) -> Epoch:
    return blocked_since(_mapping_lanes(mapping))


def _mapping_lanes(mapping: MappingStatus) -> Iterable[LaneStatus]:
    yield from mapping.lanes
    for shard in mapping.shards:
        yield from shard.lanes


def _all_lanes(status: DaemonStatus) -> Iterable[LaneStatus]:
    return (lane for mapping in status.mappings for lane in _mapping_lanes(mapping))
