"""The checkers see what an engine does wrong with what operators asked for, and let the right through."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from msgspec import Raw, json

from poller.domain.invocations import Condition
from poller.domain.operations import (
    Action,
    Operation,
    OperationId,
    OperationRequest,
    OperationState,
    PartResult,
)
from poller.domain.records import Epoch, Position
from poller.rules.streams.checkpoint_memo import Memo
from poller.rules.streams.operations.on_batch import closing_id
from poller.rules.streams.windows import WindowMemo
from tests.simulation.histories.bench import FIRST, HUGE, MAPPING, WINDOW_S, StreamBench, WindowBench
from tests.simulation.services.faults import epoch
from tests.simulation.services.streams import Held
from tests.virtual import EPOCH_BASE, run_virtual

DESTINATION = "arn:aws:sqs:eu-west-1:111122223333:failed"
type Case = Callable[[], Awaitable[StreamBench]]


def stored(
    bench: StreamBench, action: Action, state: OperationState = OperationState.RUNNING, **given: Any
) -> None:
    """A worker stores an operation on the whole mapping."""
    operation = Operation(
        operation=OperationId("op"),
        mapping=MAPPING,
        request=OperationRequest(action=action, members=given.get("members", {})),
        created=Epoch(epoch()),
        state=state,
        wanted=(FIRST,),
        parts=given.get("parts", {}),
        notes=given.get("notes", {}),
    )
    bench.court.operates(bench.ann, operation)


def asked(
    bench: StreamBench,
    records: list[Held],
    *,
    send: bool = True,
    state: OperationState = OperationState.RUNNING,
) -> None:
    """A skip of these records is stored."""
    notes = {"records": [str(each.sequence) for each in records]}
    stored(bench, Action.SKIP, state, members={"send": send}, notes=notes)


def started(**options: Any) -> StreamBench:
    bench = StreamBench(destination=DESTINATION, **options)
    bench.take(bench.ann)
    return bench


async def what_was_asked_for_is_skipped_with_a_notice() -> StreamBench:
    bench = started()
    asked(bench, records := bench.put(2))
    bench.notify(records, Condition.SKIPPED)
    return bench


async def what_was_asked_for_is_dropped() -> StreamBench:
    bench = started()
    asked(bench, records := bench.put(2), send=False)
    bench.dropped(records)
    return bench


async def a_lane_is_called_when_its_pause_is_over() -> StreamBench:
    bench = started()
    pause(bench)
    await asyncio.sleep(1.0)
    pause(bench, paused=False)
    await asyncio.sleep(1.0)
    bench.call(bench.put(1))
    return bench


async def grown(early_end_is_skipped: str = "by who read it") -> tuple[WindowBench, list[Held]]:
    """A window of three records grows too large with the first one, and the call that ends it early is skipped."""
    bench, state = WindowBench(destination=DESTINATION), {"numbers": [1], **HUGE}
    bench.take(bench.ann)
    records = bench.put(3)
    bench.tumble(records[:1], state)
    if early_end_is_skipped == "by the next owner":
        window = WindowMemo(WINDOW_S, int(EPOCH_BASE), Raw(json.encode(state)))
        position = Position.after(str(records[0].sequence))
        bench.take(bench.ann, epoch=2, position=position, memo=json.encode(Memo(window=window)))
    notes = {"records": [closing_id(Epoch(EPOCH_BASE + WINDOW_S), str(records[0].sequence))]}
    stored(bench, Action.SKIP, members={"send": False}, notes=notes)
    bench.dropped([])
    return bench, records


async def a_window_begins_anew_when_its_early_end_was_skipped(by: str = "by who read it") -> StreamBench:
    bench, records = await grown(by)
    bench.tumble(records[1:], {"numbers": [2, 3]})
    bench.tumble([], {}, state={"numbers": [2, 3]}, final=True)
    return bench


async def a_window_begins_anew_when_the_next_owner_skipped_its_early_end() -> StreamBench:
    return await a_window_begins_anew_when_its_early_end_was_skipped("by the next owner")


async def a_window_that_begins_anew_lacks_a_record() -> StreamBench:
    bench, records = await grown()
    bench.tumble(records[1:2], {"numbers": [2]})
    bench.hand([], state={"numbers": [2]}, final=True)
    return bench


async def a_window_that_begins_anew_has_the_state_of_before() -> StreamBench:
    bench, records = await grown()
    bench.hand(records[1:], state={"sum": 1})
    return bench


async def another_record_is_skipped() -> StreamBench:
    bench = started()
    first, second = bench.put(2)
    asked(bench, [first])
    bench.notify([second], Condition.SKIPPED)
    return bench


async def a_record_is_dropped_that_was_to_be_sent() -> StreamBench:
    bench = started()
    asked(bench, records := bench.put(1))
    bench.dropped(records)
    return bench


async def a_record_is_called_whose_skip_was_done() -> StreamBench:
    bench = started()
    asked(bench, records := bench.put(1))
    bench.notify(records, Condition.SKIPPED)
    asked(bench, records, state=OperationState.DONE)
    bench.call(records)
    return bench


async def a_closing_call_is_skipped_unasked() -> StreamBench:
    bench = started(tumbling_window_s=10)
    bench.dropped([])
    return bench


async def a_paused_lane_is_called() -> StreamBench:
    bench = started()
    pause(bench)
    await asyncio.sleep(1.0)
    bench.call(bench.put(1))
    return bench


def pause(bench: StreamBench, *, paused: bool = True) -> None:
    """The worker stores that a pause is applied, or that it is over."""
    state = OperationState.RUNNING if paused else OperationState.DONE
    stored(bench, Action.PAUSE, state, parts={FIRST: PartResult(state=OperationState.DONE)})


@pytest.mark.parametrize(
    "history",
    [
        what_was_asked_for_is_skipped_with_a_notice,
        what_was_asked_for_is_dropped,
        a_lane_is_called_when_its_pause_is_over,
        a_window_begins_anew_when_its_early_end_was_skipped,
        a_window_begins_anew_when_the_next_owner_skipped_its_early_end,
    ],
)
def test_a_right_history_breaks_no_rule(history: Case) -> None:
    assert run_virtual(_run(history)).broken == []


@pytest.mark.parametrize(
    ("history", "rule", "words"),
    [
        (another_record_is_skipped, "skip", "nobody has asked for it"),
        (a_record_is_dropped_that_was_to_be_sent, "skip", "nobody has asked for it"),
        (a_record_is_called_whose_skip_was_done, "skip", "called again"),
        (a_closing_call_is_skipped_unasked, "skip", "nobody has asked for it"),
        (a_paused_lane_is_called, "pause", "in a paused lane"),
        (a_window_that_begins_anew_lacks_a_record, "window", "the final state lacks [3]"),
        (a_window_that_begins_anew_has_the_state_of_before, "window", "not what the function returned last"),
    ],
)
def test_a_wrong_history_breaks_its_rule(history: Case, rule: str, words: str) -> None:
    assert run_virtual(_run(history)).broke(rule, words)


async def _run(history: Case) -> StreamBench:
    return await history()
