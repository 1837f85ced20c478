"""The checkers know what a seek may do to windows, skips and failures, and see what an engine does beyond that."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any

import pytest
from msgspec import Raw, json

from poller.domain.invocations import Condition
from poller.domain.operations import Action, Operation, OperationId, OperationRequest, OperationState
from poller.domain.policies import RetryPolicy
from poller.domain.records import Epoch, Position
from poller.domain.rows import Lease
from poller.rules.streams.checkpoint_memo import Memo
from poller.rules.streams.operations.on_batch import closing_id
from poller.rules.streams.windows import WindowMemo
from tests.simulation.histories.bench import BAD, FIRST, HUGE, MAPPING, WINDOW_S, StreamBench, WindowBench
from tests.simulation.services.faults import epoch
from tests.simulation.services.streams import Held
from tests.virtual import EPOCH_BASE, run_virtual

HORIZON = Position.horizon()
DESTINATION = "arn:aws:sqs:eu-west-1:111122223333:failed"
type Told[B: StreamBench] = Callable[[], Awaitable[B]]


def after(held: Held) -> Position:
    return Position.after(str(held.sequence))


def operation(action: Action, *, over: bool, notes: dict[str, Any], **members: Any) -> Operation:
    return Operation(
        operation=OperationId(action.value),
        mapping=MAPPING,
        request=OperationRequest(action=action, members=members),
        created=Epoch(epoch()),
        state=OperationState.DONE if over else OperationState.RUNNING,
        wanted=(FIRST,),
        notes=notes,
    )


def seek(bench: StreamBench, lease: Lease, to: Position, *, memo: bytes = b"") -> Lease:
    """Somebody seeks, the shard is moved, and taken again with this memo."""
    moves = {FIRST: [HORIZON.encode(), to.encode()]}
    bench.court.operates(bench.ann, operation(Action.SEEK, over=False, notes={"moves": moves}, skip=True))
    moved = replace(lease, epoch=lease.epoch + 1, owner=None)
    bench.court.releases(bench.ann, MAPPING, lease)
    bench.court.moves(bench.ann, MAPPING, moved, to)
    return bench.take(bench.ann, epoch=lease.epoch + 2, position=to, memo=memo)


def skip(bench: StreamBench, records: list[str], *, over: bool = False) -> None:
    """A skip without a notice is stored."""
    stored = operation(Action.SKIP, over=over, notes={"records": records}, send=False)
    bench.court.operates(bench.ann, stored)


def closed_window() -> tuple[WindowBench, Lease, list[Held]]:
    """A window of three records is counted and closed."""
    bench = WindowBench(destination=DESTINATION)
    lease, records = bench.take(bench.ann), bench.put(3)
    bench.tumble(records, {"numbers": [1, 2, 3]})
    bench.tumble([], {}, state={"numbers": [1, 2, 3]}, final=True)
    bench.save(lease, after(records[2]))
    return bench, lease, records


def open_window(state: dict[str, Any] | None = None) -> tuple[WindowBench, Lease, list[Held]]:
    """A window of three records is open; two of them are counted."""
    bench = WindowBench(destination=DESTINATION, retry=RetryPolicy(retries_max=0))
    lease, records = bench.take(bench.ann), bench.put(3)
    bench.tumble(records[:2], state or {"numbers": [1, 2]})
    return bench, lease, records


async def what_is_taken_up_again_is_counted_from_nothing() -> WindowBench:
    bench, lease, records = closed_window()
    lease = seek(bench, lease, HORIZON)
    bench.tumble(records, {"numbers": [1, 2, 3]})
    bench.tumble([], {}, state={"numbers": [1, 2, 3]}, final=True)
    bench.save(lease, after(records[2]))
    return bench


async def a_part_of_a_window_is_counted_again() -> WindowBench:
    bench, lease, records = closed_window()
    lease = seek(bench, lease, after(records[0]))
    bench.tumble(records[1:], {"numbers": [2, 3]})
    bench.tumble([], {}, state={"numbers": [2, 3]}, final=True)
    bench.save(lease, after(records[2]))
    return bench


async def an_open_window_is_dropped() -> WindowBench:
    bench, lease, records = open_window()
    seek(bench, lease, after(records[2]))
    return bench


async def a_window_that_ended_early_is_counted_again() -> WindowBench:
    bench, lease, records = open_window(state := {"numbers": [1, 2], **HUGE})
    bench.tumble([], {}, state=state, final=True, early=True)
    lease = seek(bench, lease, HORIZON)
    bench.tumble(records, {"numbers": [1, 2, 3]})
    bench.tumble([], {}, state={"numbers": [1, 2, 3]}, final=True)
    bench.save(lease, after(records[2]))
    return bench


RIGHT: list[Told[WindowBench]] = [
    what_is_taken_up_again_is_counted_from_nothing,
    a_part_of_a_window_is_counted_again,
    an_open_window_is_dropped,
    a_window_that_ended_early_is_counted_again,
]


async def a_state_is_carried_over_a_seek() -> WindowBench:
    bench, lease, records = open_window()
    seek(bench, lease, after(records[1]))
    bench.hand(records[2:], state={"numbers": [1, 2]})
    return bench


async def a_shard_is_taken_with_the_window_of_before_its_seek() -> WindowBench:
    bench, lease, records = open_window()
    window = WindowMemo(WINDOW_S, int(EPOCH_BASE), Raw(json.encode({"numbers": [1, 2]})))
    seek(bench, lease, after(records[1]), memo=json.encode(Memo(window=window)))
    return bench


async def what_is_settled_ahead_is_kept_over_a_seek() -> WindowBench:
    bench, lease, records = closed_window()
    ahead = ((str(records[1].sequence), str(records[2].sequence)),)
    seek(bench, lease, HORIZON, memo=json.encode(Memo(settled_ahead=ahead)))
    return bench


async def a_window_closes_without_what_was_counted_before_its_seek() -> WindowBench:
    bench, lease, records = open_window()
    seek(bench, lease, HORIZON)
    bench.tumble(records, {"numbers": [3]})
    bench.hand([], state={"numbers": [3]}, final=True)
    return bench


async def a_window_closes_without_what_ended_early_before_its_seek() -> WindowBench:
    bench, lease, records = open_window(state := {"numbers": [1, 2], **HUGE})
    bench.tumble([], {}, state=state, final=True, early=True)
    seek(bench, lease, HORIZON)
    bench.tumble(records[:2], {"numbers": [2]})
    bench.hand([], state={"numbers": [2]}, final=True)
    return bench


async def a_window_is_left_open_for_the_next_one() -> WindowBench:
    bench, lease, records = closed_window()
    await asyncio.sleep(12)
    late = bench.put(1)
    seek(bench, lease, HORIZON)
    bench.tumble(records, {})
    bench.hand(late, start=10)
    return bench


async def a_closing_call_is_skipped_by_an_operator_of_before_the_seek() -> WindowBench:
    bench, lease, records = open_window()
    skip(bench, [closing := closing_id(Epoch(EPOCH_BASE + WINDOW_S), str(records[1].sequence))])
    bench.dropped([])
    skip(bench, [closing], over=True)
    seek(bench, lease, HORIZON)
    bench.tumble(records, {"numbers": [1, 2, 3]})
    bench.dropped([])
    return bench


async def records_are_skipped_by_an_operator_of_before_the_seek() -> WindowBench:
    bench, lease, records = open_window()
    for over in (False, True):
        skip(bench, [str(records[2].sequence)], over=over)
        if not over:
            bench.dropped(records[2:])
    seek(bench, lease, HORIZON)
    bench.dropped(records[2:])
    return bench


async def records_are_given_up_for_failures_of_before_the_seek() -> StreamBench:
    bench = StreamBench(destination=DESTINATION, retry=RetryPolicy(retries_max=0))
    lease, records = bench.take(bench.ann), bench.put(2)
    bench.call(records, BAD)
    seek(bench, lease, HORIZON)
    bench.notify(records, Condition.RETRIES)
    return bench


async def records_are_called_that_the_seek_left_out() -> StreamBench:
    bench = StreamBench(destination=DESTINATION)
    lease, records = bench.take(bench.ann), bench.put(2)
    await asyncio.sleep(5.0)
    seek(bench, lease, Position.at(Epoch(epoch())))
    bench.call(records)
    return bench


WRONG: list[tuple[Told[Any], str, str]] = [
    (a_state_is_carried_over_a_seek, "window", "from before its seek"),
    (a_shard_is_taken_with_the_window_of_before_its_seek, "seek", "it was moved to"),
    (what_is_settled_ahead_is_kept_over_a_seek, "seek", "it was moved to"),
    (a_window_closes_without_what_was_counted_before_its_seek, "window", "the final state lacks [1, 2]"),
    (a_window_closes_without_what_ended_early_before_its_seek, "window", "the final state lacks [1, 3]"),
    (a_window_is_left_open_for_the_next_one, "window", "were never closed"),
    (a_closing_call_is_skipped_by_an_operator_of_before_the_seek, "skip", "nobody has asked for it"),
    (records_are_skipped_by_an_operator_of_before_the_seek, "skip", "nobody has asked for it"),
    (records_are_given_up_for_failures_of_before_the_seek, "discard", "[] failed last"),
    (records_are_called_that_the_seek_left_out, "seek", "left them out"),
]


def told[B: StreamBench](history: Told[B]) -> B:
    async def main() -> B:
        return await history()

    return run_virtual(main())


@pytest.mark.parametrize("history", RIGHT, ids=lambda history: history.__name__)
def test_what_a_seek_may_do_passes(history: Told[WindowBench]) -> None:
    bench = told(history)
    assert bench.court.violations == []
    assert bench.court.unsettled() == []


@pytest.mark.parametrize(("history", "rule", "words"), WRONG, ids=lambda part: getattr(part, "__name__", ""))
def test_what_goes_beyond_a_seek_is_found(history: Told[StreamBench], rule: str, words: str) -> None:
    bench = told(history)
    assert [each.rule for each in bench.court.violations] == [rule]
    assert bench.broke(rule, words), bench.court.violations


def test_a_window_that_is_not_closed_again_after_a_seek_is_listed() -> None:
    async def history() -> WindowBench:
        bench, lease, records = closed_window()
        lease = seek(bench, lease, HORIZON)
        bench.tumble(records, {"numbers": [1, 2, 3]})
        bench.save(lease, after(records[2]))
        return bench

    assert [line.startswith(f"{MAPPING}: the windows") for line in told(history).court.unsettled()] == [True]


def test_windows_that_a_seek_drops_and_repeats_are_marked() -> None:
    marks = told(a_part_of_a_window_is_counted_again).court.streams[MAPPING].marks
    assert (marks["seek: window closed again"], marks["seek: open window dropped"]) == (1, 0)
    assert told(an_open_window_is_dropped).court.streams[MAPPING].marks["seek: open window dropped"] == 1
