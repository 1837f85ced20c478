"""Owns how the status of all workers looks on a screen: blocked mappings first, each with its UUID, its shards and its failures.

What the answering worker has not heard for longer than usual is marked as out of date, with its age.

A page can be read at 80 columns. Commands to be copied are one line each, however long. Long texts are cut; `--json` shows them whole. Stack traces are only in `--json` and in the log.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime
from functools import partial

from poller.commands.fitting import ScreenPage
from poller.commands.operations.naming import close_command
from poller.commands.operations.progress import progress
from poller.commands.operations.several_workers import newest
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
    PauseStatus,
    RateStatus,
    ShardStatus,
    WorkerBreaker,
    WorkerState,
    WorkerStatus,
)
from poller.domain.telemetry.labels import BreakerState
from poller.domain.wording.numbers_of import number_of

MAPPINGS_SHOWN_MAX = 200
SECOND_MS = 1000
SHARDS_SHOWN_MAX = 50
"""Shards of one mapping that are shown. The blocked ones come first."""
LANES_SHOWN_MAX = 10
"""Blocked lanes of one shard or queue that are shown, and as many lanes that fail without blocking."""
RECORDS_SHOWN_MAX = 3
NOTES_SHOWN_MAX = 20
WORKERS_SHOWN_MAX = 20
"""Workers that are shown with what is the matter with them, in all and of one mapping."""
FUNCTIONS_SHOWN_MAX = 50
"""Functions with a rate or a breaker that are shown."""
OPERATIONS_SHOWN_MAX = 10
"""Running operations of one mapping that are shown."""
NOT_BLOCKED = Epoch(float("inf"))
WHOLE = "poller status --json has all of what is cut or left out, and stack traces"


type Freeing = Callable[[MappingStatus, ShardStatus | None, LaneStatus | None], Sequence[str]]
"""Returns the commands that free something that is blocked; without a lane, what makes a shard that cannot be read be read now."""


def status_page(
    status: DaemonStatus,
    now: Epoch,
    width: int,
    freeing: Freeing | None = None,
    running: Sequence[OperationView] = (),
    more: str = "",
) -> ScreenPage:
    """The page for one status. Below what is blocked it shows the commands that free it, if `freeing` names any.

    `running` are operations that take long. Each is a line of its mapping. `more` is added to the commands that close breakers.
    """
    page = ScreenPage(width)
    ready = "ready" if status.ready else "not ready"
    alive = "" if status.alive else ", not alive"
    page.add(f"worker {status.worker}: {ready}{alive}")
    _notes(page, status.problems)
    _notes(page, [f"note: {note}" for note in status.notes])
    _workers(page, status)
    for function in status.functions[:FUNCTIONS_SHOWN_MAX]:
        _function(page, function, now, more, several=len(status.workers) > 1)
    if len(status.functions) > FUNCTIONS_SHOWN_MAX:
        page.left_out(f"and {number_of(len(status.functions) - FUNCTIONS_SHOWN_MAX, 'more function')}")
    mappings = sorted(status.mappings, key=lambda each: (_mapping_since(each), each.function, each.mapping))
    for mapping in mappings[:MAPPINGS_SHOWN_MAX]:
        page.line("")
        mine = [each for each in running if each.mapping == mapping.mapping]
        _mapping(page, mapping, now, freeing or _no_commands, several=len(status.workers) > 1, running=mine)
    if len(mappings) > MAPPINGS_SHOWN_MAX:
        page.line("")
        page.left_out(f"and {number_of(len(mappings) - MAPPINGS_SHOWN_MAX, 'more mapping')}")
    if page.shortened or any(lane.error is not None for lane in _all_lanes(status)):
        page.line("")
        page.add(WHOLE)
    return page


def _notes(page: ScreenPage, notes: Sequence[str]) -> None:
    for note in notes[:NOTES_SHOWN_MAX]:
        page.add(note, depth=1, lines_max=3)
    if len(notes) > NOTES_SHOWN_MAX:
        page.left_out(f"and {len(notes) - NOTES_SHOWN_MAX} more", depth=1)


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
    page.add(f"function {function.function}: {', '.join(facts)}", lines_max=3)
    if function.code is not None and function.code.refused:
        page.add(function.code.refused, depth=1, lines_max=3)
    odd.sort(key=lambda each: (each.breaker.since, each.worker))
    for each in odd[:WORKERS_SHOWN_MAX]:
        depth = 1
        if several:
            page.add(f"at {each.worker}: {_breaker(each, now)}", depth=1)
            depth = 2
        page.add(each.breaker.reason, depth=depth, lines_max=3)
    if len(odd) > WORKERS_SHOWN_MAX:
        page.left_out(f"and {number_of(len(odd) - WORKERS_SHOWN_MAX, 'more such worker')}", depth=1)
    if odd:
        page.command(close_command(function.function, more), depth=1)


def _rate(rate: RateStatus) -> str:
    limits = {"invocations": rate.invocations_per_s, "records": rate.records_per_s}
    said = " and ".join(f"{per_s:g} {unit}/s" for unit, per_s in limits.items() if per_s is not None)
    waiting = f", {rate.waiting} waiting" if rate.waiting else ""
    return f"{said}, {rate.share:.0%} of it here{waiting}"


def _code(code: CodeStatus, now: Epoch) -> str:
    refused = ", a change is refused" if code.refused else ""
    return f"code of {span(max(0.0, now - code.since))} ago, changes taken up: {code.taken_up}{refused}"


def _breaker(at: WorkerBreaker, now: Epoch) -> str:
    return _breaker_state(at.breaker, now) + _age(at.age_s, out_of_date=at.out_of_date)


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
    for worker in odd[:WORKERS_SHOWN_MAX]:
        page.add(_worker(worker), depth=1, lines_max=3)
    if len(odd) > WORKERS_SHOWN_MAX:
        page.left_out(f"and {number_of(len(odd) - WORKERS_SHOWN_MAX, 'more such worker')}", depth=1)


def _worker(worker: WorkerStatus) -> str:
    note = f"; {worker.note}" if worker.note else ""
    return f"worker {worker.worker}: {worker.state}{_age(worker.age_s, out_of_date=worker.out_of_date)}{note}"


def _age(age_s: float | None, *, out_of_date: bool) -> str:
    """Says how old news is that is out of date; empty for other news."""
    if not out_of_date:
        return ""
    return ", out of date: " + ("nothing was heard" if age_s is None else f"last heard {span(age_s)} ago")


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
    page.add(f"{mapping.function} ← {source.service} {source.resource}" if source else mapping.function)
    page.line(mapping.mapping, depth=1)
    reason = f": {mapping.reason}" if mapping.reason else ""
    facts = [f"{mapping.state}{reason}"]
    if mapping.pollers is not None:
        facts.append(number_of(mapping.pollers, "poller"))
    if mapping.state is MappingState.ENABLED and mapping.blocked:
        facts.append("blocked")
    page.add(", ".join(facts), depth=1, lines_max=3)
    _paused(page, mapping.paused, now, depth=1)
    _mapping_workers(page, mapping)
    for operation in running[:OPERATIONS_SHOWN_MAX]:
        page.line(f"{operation.action} {progress(operation)}", depth=1)
    if len(running) > OPERATIONS_SHOWN_MAX:
        page.left_out(f"and {number_of(len(running) - OPERATIONS_SHOWN_MAX, 'more operation')}", depth=1)
    _lanes(
        page,
        newest(mapping.lanes),
        now,
        partial(freeing, mapping, None),
        depth=1,
        above=(mapping.paused,),
        several=several,
    )
    shards = sorted(mapping.shards, key=lambda each: _since(each.lanes))
    for shard in shards[:SHARDS_SHOWN_MAX]:
        _shard(page, shard, now, partial(freeing, mapping, shard), whole=mapping.paused, several=several)
    more = Counter(shard.state for shard in shards[SHARDS_SHOWN_MAX:])
    if more:
        states = ", ".join(f"{count} {state}" for state, count in sorted(more.items()))
        page.left_out(f"and {number_of(more.total(), 'more shard')}: {states}", depth=1)


def _paused(page: ScreenPage, pause: PauseStatus | None, now: Epoch, *, depth: int) -> None:
    if pause is not None:
        by = f" by {pause.by}" if pause.by else ""
        reason = f": {pause.reason}" if pause.reason else ""
        text = f"paused{by} for {span(max(0.0, now - pause.since))}, since {moment(pause.since)}{reason}"
        page.add(text, depth=depth, lines_max=3)


def _mapping_workers(page: ScreenPage, mapping: MappingStatus) -> None:
    """Adds the workers on which the mapping is not as in all, or of which not everything is shown."""
    odd = [
        each for each in mapping.workers if each.out_of_date or each.left_out or each.state != mapping.state
    ]
    for worker in odd[:WORKERS_SHOWN_MAX]:
        page.add(_mapping_worker(worker), depth=1)
    if len(odd) > WORKERS_SHOWN_MAX:
        page.left_out(f"and {number_of(len(odd) - WORKERS_SHOWN_MAX, 'more such worker')}", depth=1)


def _mapping_worker(worker: MappingWorker) -> str:
    facts = [f"{worker.blocked} blocked"] if worker.blocked else []
    facts += [f"{worker.left_out} in trouble not shown, ask it"] if worker.left_out else []
    said = ", ".join([str(worker.state), *facts])
    return f"at {worker.worker}: {said}{_age(worker.age_s, out_of_date=worker.out_of_date)}"


def _shard(
    page: ScreenPage,
    shard: ShardStatus,
    now: Epoch,
    freeing: Callable[[LaneStatus | None], Sequence[str]],
    *,
    whole: PauseStatus | None,
    several: bool,
) -> None:
    where = f" at {shard.owner}" if shard.owner and (several or shard.state == "elsewhere") else ""
    reason = f": {shard.reason}" if shard.reason else ""
    age = _age(shard.age_s, out_of_date=shard.out_of_date)
    page.add(f"{shard.shard} {shard.state}{where}{reason}{_behind(shard)}{age}", depth=1)
    if shard.position:
        page.line(shard.position, depth=2)
    if shard.paused != whole:
        _paused(page, shard.paused, now, depth=2)
    if shard.state == "failing" and not shard.blocked:
        for command in freeing(None):
            page.command(command, depth=2)
    _lanes(page, shard.lanes, now, freeing, depth=2, above=(whole, shard.paused))


def _behind(shard: ShardStatus) -> str:
    """How far reading is behind the end of the shard. A blocked shard is not shown as up to date, even if it was read to its end."""
    if shard.behind_ms is None or (shard.state == "blocked" and shard.behind_ms < SECOND_MS):
        return ""
    return f", {span(shard.behind_ms / SECOND_MS)} behind"


def _lanes(
    page: ScreenPage,
    lanes: tuple[LaneStatus, ...],
    now: Epoch,
    freeing: Callable[[LaneStatus | None], Sequence[str]],
    *,
    depth: int,
    above: tuple[PauseStatus | None, ...] = (),
    several: bool = False,
) -> None:
    """Adds blocked lanes, then lanes that fail without blocking, which are messages of a standard queue, then paused ones.

    `above` are the pauses that are shown for the shard and the mapping already.
    """
    blocked = sorted(
        (lane for lane in lanes if lane.blocked_since is not None), key=lambda lane: _since((lane,))
    )
    failing = [lane for lane in lanes if lane.blocked_since is None and lane.last_error]
    for found, what in ((blocked, "that are blocked"), (failing, "that fail")):
        for lane in found[:LANES_SHOWN_MAX]:
            _lane(page, lane, now, freeing(lane), depth=depth, several=several)
        if len(found) > LANES_SHOWN_MAX:
            page.left_out(f"and {len(found) - LANES_SHOWN_MAX} more {what}", depth=depth)
    for lane in [each for each in lanes if each.paused not in (None, *above)][:LANES_SHOWN_MAX]:
        page.add(f"{_lane_name(lane, several=several)} is paused", depth=depth)
        _paused(page, lane.paused, now, depth=depth + 1)


def _lane_name(lane: LaneStatus, *, several: bool) -> str:
    name = f"lane {lane.lane}" if lane.lane.isdecimal() and len(lane.lane) <= 3 else lane.lane
    return f"{name} at {lane.worker}" if several and lane.worker else name


def _lane(
    page: ScreenPage, lane: LaneStatus, now: Epoch, commands: Sequence[str], *, depth: int, several: bool
) -> None:
    page.add(f"{_lane_name(lane, several=several)} {_how(lane, now)}", depth=depth)
    page.add(_tries(lane, now), depth=depth + 1)
    if lane.last_error:
        page.add(lane.last_error, depth=depth + 1)
    named = [record for record in lane.records if record.identifier != lane.lane]
    for record in named[:RECORDS_SHOWN_MAX]:
        key = f"key {record.key}" if record.key else "no key"
        age = span(max(0.0, now - record.arrived))
        page.add(f"record {record.identifier}, {age} old, {key}", depth=depth + 1)
    # Of the batch of another worker fewer records are named than are there. A message that names its lane stands above.
    named_above = len(lane.records) - len(named)
    more = max(lane.records_count, len(lane.records)) - named_above - len(named[:RECORDS_SHOWN_MAX])
    if more > 0:
        page.left_out(f"and {number_of(more, 'more record')}", depth=depth + 1)
    for command in commands:
        page.command(command, depth=depth + 1)


def _how(lane: LaneStatus, now: Epoch) -> str:
    since = _trouble_since(lane)
    word = "failing" if lane.blocked_since is None else "blocked"
    return word if since is None else f"{word} for {span(max(0.0, now - since))}"


def _tries(lane: LaneStatus, now: Epoch) -> str:
    """How long a lane has failed, how often it was tried, and what comes next. A message at its last receive is not tried again."""
    since, most = _trouble_since(lane), lane.attempts_max
    said = [] if since is None else [f"since {moment(since)}"]
    said.append(f"attempt {lane.attempts}" if most is None else f"receive {lane.attempts} of {most}")
    if lane.next_try is not None:
        wait_s = lane.next_try - now
        last = most is not None and lane.attempts >= most
        what = "to the dead-letter queue" if last else "next try"
        said.append(f"{what} in {span(wait_s)}" if wait_s > 0 else f"{what} now")
    return ", ".join(said)


def _trouble_since(lane: LaneStatus) -> Epoch | None:
    return lane.failing_since if lane.blocked_since is None else lane.blocked_since


def _since(lanes: Iterable[LaneStatus]) -> Epoch:
    return min((lane.blocked_since for lane in lanes if lane.blocked_since is not None), default=NOT_BLOCKED)


def _mapping_since(mapping: MappingStatus) -> Epoch:
    return _since(_mapping_lanes(mapping))


def _mapping_lanes(mapping: MappingStatus) -> Iterable[LaneStatus]:
    yield from mapping.lanes
    for shard in mapping.shards:
        yield from shard.lanes


def _all_lanes(status: DaemonStatus) -> Iterable[LaneStatus]:
    return (lane for mapping in status.mappings for lane in _mapping_lanes(mapping))


def moment(when: Epoch) -> str:
    """`when` as ISO text in UTC. A moment outside the calendar is shown as a number of seconds."""
    try:
        return datetime.fromtimestamp(when, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    except (ValueError, OverflowError, OSError):
        return f"{when:g}"


def span(seconds: float) -> str:
    """A duration in short form: 0.4 s, 12 s, 5 min, 3 h, 2 d."""
    for unit, length in (("d", 86_400), ("h", 3_600), ("min", 60)):
        if seconds >= length:
            return f"{seconds / length:.0f} {unit}"
    return f"{seconds:.0f} s" if seconds >= 1 else f"{seconds:.1f} s"
