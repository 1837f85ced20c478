"""Owns how the shards of a mapping look on a screen: those with something to say first, the others as a table."""

from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial

from poller.commands.fitting import Mark, ScreenPage
from poller.commands.status.lanes import add_lanes, add_pause, blocked_since
from poller.commands.status.times import SECOND_MS, span
from poller.domain.records import Epoch
from poller.domain.status import LaneStatus, PauseStatus, ShardStatus
from poller.domain.wording.numbers_of import inflected, number_of

SHARDS_SHOWN_MAX = 50
"""Shards of one mapping that are shown."""
FAILING = "failing"
"""The state of a shard that cannot be read."""

type FreeingShard = Callable[[ShardStatus, LaneStatus | None], Sequence[str]]
"""Returns the commands that free a lane of a shard; without a lane, what makes the shard be read now."""


def add_shards(
    page: ScreenPage,
    shards: Sequence[ShardStatus],
    now: Epoch,
    freeing: FreeingShard,
    *,
    whole: PauseStatus | None,
    several: bool,
) -> None:
    """Adds the shards of a mapping: blocked ones, those that cannot be read, paused ones, then all others. `whole` is the mapping's own pause."""
    ordered = sorted(shards, key=lambda each: _place(each, whole))
    shown = page.some(ordered, SHARDS_SHOWN_MAX)
    calm = [each for each in shown if _is_calm(each, whole)]
    for shard in shown[: len(shown) - len(calm)]:
        _shard(page, shard, now, freeing, whole=whole, several=several)
    page.table([_cells(each, several=several) for each in calm], depth=1)
    others = Counter(shard.state for shard in ordered[len(shown) :])
    if not others:
        return
    counted = number_of(others.total(), "more shard")
    states = ", ".join(f"{count} {state}" for state, count in sorted(others.items()))
    if len(others) == 1:
        states = f"all {next(iter(others))}" if others.total() > 1 else next(iter(others))
    page.left_out(f"and {counted}, {states}; --all shows {inflected(others.total(), 'it', 'them')}", depth=1)


def _place(shard: ShardStatus, whole: PauseStatus | None) -> tuple[float, bool, bool, bool]:
    return (
        blocked_since(shard.lanes),
        shard.state != FAILING,
        shard.paused in (None, whole) and not any(lane.paused not in (None, whole) for lane in shard.lanes),
        _is_calm(shard, whole),
    )


def _is_calm(shard: ShardStatus, whole: PauseStatus | None) -> bool:
    """Whether a line says all of a shard."""
    lanes = any(
        lane.blocked_since is not None or lane.last_error or lane.paused not in (None, whole, shard.paused)
        for lane in shard.lanes
    )
    return not (
        lanes or shard.blocked or shard.reason or shard.out_of_date or shard.state in ("blocked", FAILING)
    ) and (shard.paused in (None, whole))


def _cells(shard: ShardStatus, *, several: bool) -> tuple[str, ...]:
    return (shard.shard, f"{shard.state}{_where(shard, several=several)}", _behind(shard), shard.position)


def _where(shard: ShardStatus, *, several: bool) -> str:
    return f" at {shard.owner}" if shard.owner and (several or shard.state == "elsewhere") else ""


def age(age_s: float | None, *, out_of_date: bool) -> str:
    """Says how old news is that is out of date; empty for other news."""
    if not out_of_date:
        return ""
    return ", out of date: " + ("nothing was heard" if age_s is None else f"last heard {span(age_s)} ago")


def _shard(
    page: ScreenPage,
    shard: ShardStatus,
    now: Epoch,
    freeing: FreeingShard,
    *,
    whole: PauseStatus | None,
    several: bool,
) -> None:
    reason = f": {shard.reason}" if shard.reason else ""
    behind = f", {text}" if (text := _behind(shard)) else ""
    old = age(shard.age_s, out_of_date=shard.out_of_date)
    text = f"{shard.shard} {shard.state}{_where(shard, several=several)}{reason}{behind}{old}"
    trouble = shard.blocked or shard.state in ("blocked", FAILING)
    page.identifier(text, depth=1, mark=Mark.TROUBLE if trouble else Mark.NONE)
    if shard.position:
        page.identifier(shard.position, depth=2)
    if shard.paused != whole:
        add_pause(page, shard.paused, now, depth=2)
    if shard.state == FAILING and not shard.blocked:
        for command in freeing(shard, None):
            page.command(command, depth=2)
    add_lanes(page, shard.lanes, now, partial(freeing, shard), depth=2, above=(whole, shard.paused))


def _behind(shard: ShardStatus) -> str:
    """How far reading is behind the end of the shard. A blocked shard is not shown as up to date, even if it was read to its end."""
    if shard.behind_ms is None or (shard.state == "blocked" and shard.behind_ms < SECOND_MS):
        return ""
    return f"{span(shard.behind_ms / SECOND_MS)} behind"
