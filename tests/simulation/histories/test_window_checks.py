"""The checker of tumbling windows finds every wrong history that it is there for, and lets the right ones pass."""

import asyncio
from collections.abc import Awaitable, Callable

import pytest
from msgspec import Raw, json

from poller.domain.invocations import Condition
from poller.domain.plan import OnDestinationFailure
from poller.domain.policies import RetryPolicy
from poller.domain.records import Position
from poller.domain.telemetry.mapping_events import Discarded
from poller.rules.streams.checkpoint_memo import Memo
from poller.rules.streams.windows import WindowMemo
from tests.simulation.histories.bench import FIRST, HUGE, MAPPING, WINDOW_S, WindowBench, worker
from tests.simulation.services.streams import Held
from tests.virtual import EPOCH_BASE, run_virtual

type Told = Callable[[], Awaitable[WindowBench]]


def after(held: Held) -> Position:
    return Position.after(str(held.sequence))


async def begun(**options: object) -> WindowBench:
    bench = WindowBench(**options)
    bench.take(bench.ann)
    return bench


async def two_windows_are_counted_and_closed() -> WindowBench:
    bench = WindowBench()
    lease, first = bench.take(bench.ann), bench.put(3)
    bench.tumble(first[:2], {"numbers": [1, 2]})
    bench.tumble(first[2:], None, state={"numbers": [1, 2]})
    bench.tumble(first[2:], {"numbers": [1, 2, 3]}, state={"numbers": [1, 2]})
    await asyncio.sleep(12)
    second = bench.put(1)
    bench.tumble([], {}, state={"numbers": [1, 2, 3]}, final=True)
    bench.tumble(second, {"numbers": [4]}, start=10)
    bench.tumble([], {}, start=10, state={"numbers": [4]}, final=True)
    bench.save(lease, after(second[0]))
    return bench


async def a_window_ends_early_and_begins_anew() -> WindowBench:
    bench = WindowBench()
    lease, records = bench.take(bench.ann), bench.put(3)
    bench.tumble(records[:2], {"numbers": [1, 2], **HUGE})
    bench.tumble([], {}, state={"numbers": [1, 2], **HUGE}, final=True, early=True)
    bench.tumble(records[2:], {"numbers": [3]})
    bench.tumble([], {}, state={"numbers": [3]}, final=True)
    bench.save(lease, after(records[2]))
    return bench


async def a_crash_repeats_calls_with_the_state_of_the_checkpoint() -> WindowBench:
    bench, bob = WindowBench(), worker("bob")
    records = bench.put(2)
    bench.take(bench.ann)
    bench.tumble(records[:1], {"numbers": [1]})
    bench.tumble(records[1:], {"numbers": [1, 2]}, state={"numbers": [1]})
    window = WindowMemo(WINDOW_S, int(EPOCH_BASE), Raw(json.encode({"numbers": [1]})))
    memo = json.encode(Memo(window=window))
    lease = bench.take(bob, epoch=2, position=after(records[0]), memo=memo)
    bench.tumble(records[1:], {"numbers": [1, 2]}, state={"numbers": [1]}, line=bob)
    bench.tumble([], {}, state={"numbers": [1, 2]}, final=True, line=bob)
    bench.save(lease, after(records[1]), bob)
    return bench


async def a_final_call_that_is_given_up_closes_its_window() -> WindowBench:
    bench = WindowBench(retry=RetryPolicy(retries_max=0), on_destination_failure=OnDestinationFailure.DROP)
    lease, records = bench.take(bench.ann), bench.put(1)
    bench.tumble(records, {"numbers": [1]})
    bench.tumble([], None, state={"numbers": [1]}, final=True)
    bench.court.hears(bench.ann, final_dropped())
    bench.save(lease, after(records[0]))
    return bench


def final_dropped() -> Discarded:
    return Discarded(
        mapping=MAPPING,
        shard=FIRST,
        records=0,
        condition=Condition.RETRIES,
        delivered=False,
        destination=False,
    )


RIGHT: list[Told] = [
    two_windows_are_counted_and_closed,
    a_window_ends_early_and_begins_anew,
    a_crash_repeats_calls_with_the_state_of_the_checkpoint,
    a_final_call_that_is_given_up_closes_its_window,
]


async def a_record_is_put_into_an_earlier_window() -> WindowBench:
    bench = await begun()
    await asyncio.sleep(12)
    bench.hand(bench.put(1), start=0)
    return bench


async def a_window_begins_at_an_odd_second() -> WindowBench:
    bench = await begun()
    bench.hand(bench.put(1), start=-3)
    return bench


async def a_window_has_another_length() -> WindowBench:
    bench = await begun()
    bench.hand(bench.put(1), length_s=20)
    return bench


async def a_record_is_in_the_state_before_its_call() -> WindowBench:
    bench = await begun()
    bench.hand(bench.put(1), state={"numbers": [1]})
    return bench


async def a_state_has_a_record_twice() -> WindowBench:
    bench = await begun()
    records = bench.put(2)
    bench.tumble(records[:1], {"numbers": [1, 1]})
    bench.hand(records[1:], state={"numbers": [1, 1]})
    return bench


async def a_window_begins_with_the_state_of_another() -> WindowBench:
    bench = await begun()
    bench.tumble(bench.put(1), {"numbers": [1]})
    await asyncio.sleep(12)
    bench.hand(bench.put(1), start=10, state={"numbers": [1]})
    return bench


async def a_window_closes_without_one_of_its_records() -> WindowBench:
    bench = await begun()
    records = bench.put(2)
    bench.tumble(records[:1], {"numbers": [1]})
    bench.hand([], state={"numbers": [1]}, final=True)
    return bench


async def a_window_closes_without_what_came_before_it_ended_early() -> WindowBench:
    bench = await begun()
    records = bench.put(3)
    bench.tumble(records[:1], HUGE)
    bench.tumble([], {}, state=HUGE, final=True, early=True)
    bench.tumble(records[1:], {"numbers": [2, 3]})
    bench.hand([], state={"numbers": [2, 3]}, final=True)
    return bench


async def a_call_has_lost_the_state() -> WindowBench:
    bench = await begun()
    records = bench.put(2)
    bench.tumble(records[:1], {"numbers": [1], "sum": 7})
    bench.hand(records[1:], state={"numbers": [1]})
    return bench


async def the_state_of_the_checkpoint_is_lost() -> WindowBench:
    bench = await begun()
    records = bench.put(2)
    bench.tumble(records[:1], {"numbers": [1]})
    window = WindowMemo(WINDOW_S, int(EPOCH_BASE), Raw(json.encode({"numbers": [1]})))
    bench.take(worker("bob"), epoch=2, position=after(records[0]), memo=json.encode(Memo(window=window)))
    bench.hand(records[1:], line=worker("bob"))
    return bench


async def a_window_begins_before_the_last_one_is_closed() -> WindowBench:
    bench = await begun()
    bench.tumble(bench.put(1), {})
    await asyncio.sleep(12)
    bench.hand(bench.put(1), start=10)
    return bench


async def a_failed_call_has_changed_the_state() -> WindowBench:
    bench = await begun()
    records = bench.put(2)
    bench.tumble(records[:1], {"numbers": [1]})
    bench.tumble(records[1:], None, state={"numbers": [1]})
    bench.hand(records[1:], state={})
    return bench


async def a_closed_window_leaves_its_state_to_the_next() -> WindowBench:
    bench = await begun()
    bench.tumble(bench.put(1), {"numbers": [1], "sum": 7})
    bench.tumble([], {}, state={"numbers": [1], "sum": 7}, final=True)
    await asyncio.sleep(12)
    bench.hand(bench.put(1), start=10, state={"sum": 7})
    return bench


async def a_window_goes_on_with_a_huge_state() -> WindowBench:
    bench = await begun()
    records = bench.put(2)
    bench.tumble(records[:1], {"numbers": [1], **HUGE})
    bench.hand(records[1:], state={"numbers": [1], **HUGE})
    return bench


async def a_window_with_a_huge_state_closes_as_any_other() -> WindowBench:
    bench = await begun()
    bench.tumble(bench.put(1), {"numbers": [1], **HUGE})
    bench.hand([], state={"numbers": [1], **HUGE}, final=True)
    return bench


async def a_window_ends_early_for_nothing() -> WindowBench:
    bench = await begun()
    bench.tumble(bench.put(1), {"numbers": [1]})
    bench.hand([], state={"numbers": [1]}, final=True, early=True)
    return bench


async def a_window_ends_early_with_records() -> WindowBench:
    bench = await begun()
    records = bench.put(2)
    bench.tumble(records[:1], {"numbers": [1], **HUGE})
    bench.hand(records[1:], state={"numbers": [1], **HUGE}, final=True, early=True)
    return bench


async def a_window_ends_early_with_a_call_that_is_not_final() -> WindowBench:
    bench = await begun()
    bench.tumble(bench.put(1), {"numbers": [1], **HUGE})
    bench.hand([], state={"numbers": [1], **HUGE}, early=True)
    return bench


WRONG: list[tuple[Told, str]] = [
    (a_record_is_put_into_an_earlier_window, "do not belong to the window"),
    (a_window_begins_at_an_odd_second, "no window of 10 s"),
    (a_window_has_another_length, "no window of 10 s"),
    (a_record_is_in_the_state_before_its_call, "counted twice"),
    (a_state_has_a_record_twice, "counted twice"),
    (a_window_begins_with_the_state_of_another, "of another window"),
    (a_window_closes_without_one_of_its_records, "the final state lacks [2]"),
    (a_window_closes_without_what_came_before_it_ended_early, "the final state lacks [1]"),
    (a_call_has_lost_the_state, "not what the function returned last"),
    (the_state_of_the_checkpoint_is_lost, "not what the function returned last"),
    (a_window_begins_before_the_last_one_is_closed, "were never closed"),
    (a_failed_call_has_changed_the_state, "not what the function returned last"),
    (a_closed_window_leaves_its_state_to_the_next, "not what the function returned last"),
    (a_window_goes_on_with_a_huge_state, "goes on with a state of more than 1 MB"),
    (a_window_with_a_huge_state_closes_as_any_other, "goes on with a state of more than 1 MB"),
    (a_window_ends_early_for_nothing, "ends early, its state is not too large"),
    (a_window_ends_early_with_records, "not its final one"),
    (a_window_ends_early_with_a_call_that_is_not_final, "not its final one"),
]


def told(history: Told) -> WindowBench:
    async def main() -> WindowBench:
        return await history()

    return run_virtual(main())


@pytest.mark.parametrize("history", RIGHT, ids=lambda history: history.__name__)
def test_a_right_history_passes(history: Told) -> None:
    bench = told(history)
    assert bench.court.violations == []
    assert bench.court.unsettled() == []


@pytest.mark.parametrize(("history", "words"), WRONG, ids=lambda part: getattr(part, "__name__", ""))
def test_a_wrong_history_is_found(history: Told, words: str) -> None:
    bench = told(history)
    assert bench.broke("window", words), bench.court.violations


async def a_window_stays_open() -> WindowBench:
    bench = WindowBench()
    lease, records = bench.take(bench.ann), bench.put(1)
    bench.tumble(records, {"numbers": [1]})
    bench.save(lease, after(records[0]))
    return bench


async def the_final_call_fails() -> WindowBench:
    bench = await a_window_stays_open()
    bench.tumble([], None, state={"numbers": [1]}, final=True)
    return bench


async def a_window_that_began_anew_stays_open() -> WindowBench:
    bench = WindowBench()
    lease, records = bench.take(bench.ann), bench.put(2)
    bench.tumble(records[:1], {"numbers": [1], **HUGE})
    bench.tumble([], {}, state={"numbers": [1], **HUGE}, final=True, early=True)
    bench.tumble(records[1:], {"numbers": [2]})
    bench.save(lease, after(records[1]))
    return bench


@pytest.mark.parametrize(
    "history",
    [a_window_stays_open, the_final_call_fails, a_window_that_began_anew_stays_open],
    ids=lambda history: history.__name__,
)
def test_a_window_that_was_never_closed_is_listed(history: Told) -> None:
    bench = told(history)
    assert bench.court.violations == []
    assert [line.startswith(f"{MAPPING}: the windows") for line in bench.court.unsettled()] == [True]


def test_a_window_that_ended_early_is_marked() -> None:
    marks = told(a_window_ends_early_and_begins_anew).court.streams[MAPPING].marks
    assert (marks["window ended early"], marks["window begun anew"], marks["window closed"]) == (1, 1, 2)
