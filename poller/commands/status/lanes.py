"""Owns how lanes, message groups and messages in trouble, and pauses, look on a screen."""

from collections.abc import Callable, Iterable, Sequence

from poller.commands.fitting import Mark, ScreenPage
from poller.commands.status.times import moment, span
from poller.domain.records import Epoch
from poller.domain.status import LaneStatus, PauseStatus
from poller.domain.wording.numbers_of import number_of

LANES_SHOWN_MAX = 10
"""Blocked lanes of one shard or queue that are shown, and as many lanes that fail without blocking."""
RECORDS_SHOWN_MAX = 3
NOT_BLOCKED = Epoch(float("inf"))


def add_lanes(
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
        (lane for lane in lanes if lane.blocked_since is not None), key=lambda lane: blocked_since((lane,))
    )
    failing = [lane for lane in lanes if lane.blocked_since is None and lane.last_error]
    for found, noun in ((blocked, "blocked one"), (failing, "failing one")):
        for lane in page.some(found, LANES_SHOWN_MAX):
            _lane(page, lane, now, freeing(lane), depth=depth, several=several)
        page.count_others(found, LANES_SHOWN_MAX, noun, depth=depth)
    paused = [each for each in lanes if each.paused not in (None, *above)]
    for lane in page.some(paused, LANES_SHOWN_MAX):
        page.add(f"{_lane_name(lane, several=several)} is paused", depth=depth, mark=Mark.HELD)
        add_pause(page, lane.paused, now, depth=depth + 1)
    page.count_others(paused, LANES_SHOWN_MAX, "paused one", depth=depth)


def _lane_name(lane: LaneStatus, *, several: bool) -> str:
    name = f"lane {lane.lane}" if lane.lane.isdecimal() and len(lane.lane) <= 3 else lane.lane
    return f"{name} at {lane.worker}" if several and lane.worker else name


def _lane(
    page: ScreenPage, lane: LaneStatus, now: Epoch, commands: Sequence[str], *, depth: int, several: bool
) -> None:
    page.add(f"{_lane_name(lane, several=several)} {_how(lane, now)}", depth=depth, mark=Mark.TROUBLE)
    page.add(_tries(lane, now), depth=depth + 1)
    if lane.last_error:
        page.add(lane.last_error, depth=depth + 1, mark=Mark.TROUBLE)
    named = [record for record in lane.records if record.identifier != lane.lane]
    for record in page.some(named, RECORDS_SHOWN_MAX):
        key = f"key {record.key}" if record.key else "no key"
        age = span(max(0.0, now - record.arrived))
        page.add(f"record {record.identifier}, {age} old, {key}", depth=depth + 1)
    # Of the batch of another worker fewer records are named than are there. A message that names its lane stands above.
    named_above = len(lane.records) - len(named)
    more = max(lane.records_count, len(lane.records)) - named_above - len(page.some(named, RECORDS_SHOWN_MAX))
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


def blocked_since(lanes: Iterable[LaneStatus]) -> Epoch:
    """Since when the longest blocked of some lanes is blocked; NOT_BLOCKED if none is."""
    return min((lane.blocked_since for lane in lanes if lane.blocked_since is not None), default=NOT_BLOCKED)


def add_pause(page: ScreenPage, pause: PauseStatus | None, now: Epoch, *, depth: int) -> None:
    """Adds by whom, since when and why something is paused; nothing if it is not."""
    if pause is not None:
        by = f" by {pause.by}" if pause.by else ""
        reason = f": {pause.reason}" if pause.reason else ""
        text = f"paused{by} for {span(max(0.0, now - pause.since))}, since {moment(pause.since)}{reason}"
        page.add(text, depth=depth, lines_max=3, mark=Mark.HELD)
