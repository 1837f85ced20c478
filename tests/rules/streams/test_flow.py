"""One shard's records are delivered in order per lane, settled once, and remembered across a restart."""

import json
import sys
from collections.abc import Sequence
from random import Random
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from poller.domain.invocations import Ended
from poller.domain.policies import BatchPolicy, RetryPolicy
from poller.domain.records import SHARD_END, DynamoRecord, Epoch, Monotonic, Position, Record, ShardId
from poller.domain.rows import Checkpoint
from poller.rules.responses import Accepted, Partial, Rejected, Response, Verdict
from poller.rules.streams.attempts import Advance
from poller.rules.streams.checkpoint_memo import Memo, PartMemo
from poller.rules.streams.flow import ShardFlow
from poller.rules.streams.lanes import DiscardPart, InvokePart, LaneCommand, LaneEffect, WaitUntil, lane_of
from poller.rules.streams.tracking import SETTLED_THROUGH_STEP_S, PageIntake
from poller.rules.streams.windowed_batches import WindowedBatches, Windowing
from poller.rules.streams.windows import STATE_BYTES_MAX, WindowMemo
from tests.rules.build import BASE, Plain, ids, kinesis

FAR = Monotonic(1e6)
START = Checkpoint(Position.horizon())
FAILED = Rejected(Ended.FUNCTION_ERROR, "no", Response("$LATEST", "Unhandled"))


def _flow(
    checkpoint: Checkpoint = START,
    *,
    lanes: int = 1,
    records_max: int = 10,
    look_ahead: int = 1000,
    retry: RetryPolicy | None = None,
    windowing: Windowing | None = None,
) -> ShardFlow:
    return ShardFlow(
        checkpoint,
        batch=BatchPolicy(records_max=records_max),
        retry=retry or RetryPolicy(),
        lanes=lanes,
        look_ahead_records_max=look_ahead,
        encoder=Plain(),
        new_id=ids(),
        rng=Random(1),
        windowing=windowing,
    )


def _accept(flow: ShardFlow, records: Sequence[Record], passing: Sequence[bool] | None = None) -> PageIntake:
    return flow.accept(records, caught_up=False, asked=Epoch(BASE), passing=passing)


def _keyed(lane: int, lanes: int) -> str:
    return next(key for key in map(str, range(1000)) if lane_of(key, lanes) == lane)


def _invoked(flow: ShardFlow, lane: int = 0) -> InvokePart | None:
    """What the lane invokes once every wait is over; None when it has nothing to invoke."""
    command = _next(flow, lane)
    return command if isinstance(command, InvokePart) else None


def _next(flow: ShardFlow, lane: int = 0) -> LaneCommand:
    """What the lane does once its wait is over."""
    command, _ = flow.next(lane, now=FAR, epoch=Epoch(BASE))
    if isinstance(command, WaitUntil):
        command, _ = flow.next(lane, now=command.until, epoch=Epoch(BASE))
    return command


def _answer(flow: ShardFlow, verdict: Verdict, lane: int = 0) -> Sequence[LaneEffect]:
    return flow.answered(lane, verdict, now=FAR, epoch=Epoch(BASE))


def _settle(flow: ShardFlow, lane: int = 0) -> list[int]:
    """The lane's next part is invoked and accepted."""
    numbers = _numbers(_invoked(flow, lane))
    assert numbers
    _answer(flow, Accepted(), lane)
    return numbers


def _fail(flow: ShardFlow) -> list[int]:
    """The next part is invoked and fails."""
    numbers = _numbers(_invoked(flow))
    assert numbers
    _answer(flow, FAILED)
    return numbers


def _numbers(command: InvokePart | None) -> list[int]:
    if command is None:
        return []
    return [int(each.record.sequence_number) for each in command.part.entries]


def _memo(flow: ShardFlow) -> Memo:
    return msgspec.json.decode(flow.checkpoint().memo, type=Memo)


def test_filtered_records_advance_the_position_by_themselves() -> None:
    flow = _flow()
    intake = _accept(
        flow, [kinesis(1), kinesis(2), kinesis(3), kinesis(4)], passing=[False, False, True, False]
    )
    assert (intake.taken, intake.filtered) == (1, 3)
    assert flow.position == Position.after("2")


def test_a_source_that_goes_back_is_not_believed() -> None:
    flow = _flow()
    _accept(flow, [kinesis(1), kinesis(2)])
    intake = _accept(flow, [kinesis(1), kinesis(2), kinesis(3)])
    assert (intake.taken, intake.repeated) == (1, 2)
    again = _accept(_flow(Checkpoint(Position.after("5"))), [kinesis(5), kinesis(6)])
    assert (again.taken, again.repeated) == (1, 1)


def test_a_full_lane_is_not_hungry() -> None:
    flow = _flow(records_max=2)
    assert flow.hungry
    _accept(flow, [kinesis(1)])
    assert flow.hungry
    _accept(flow, [kinesis(2)])
    assert not flow.hungry


def test_a_blocked_lane_lets_the_others_read_on_up_to_the_look_ahead() -> None:
    flow = _flow(lanes=2, records_max=1, look_ahead=6)
    blocked, free = _keyed(0, 2), _keyed(1, 2)
    _accept(flow, [kinesis(1, key=blocked)])
    assert _invoked(flow, 0) is not None
    for number in range(2, 7):
        assert flow.hungry
        _accept(flow, [kinesis(number, key=free)])
        assert _settle(flow, 1) == [number]
    assert flow.position == Position.horizon()
    assert not flow.hungry


def test_what_is_settled_beyond_the_position_is_not_delivered_again_after_a_restart() -> None:
    flow = _flow(lanes=2)
    blocked, free = _keyed(0, 2), _keyed(1, 2)
    records = [kinesis(1, key=blocked), kinesis(2, key=free), kinesis(3, key=free), kinesis(4, key=blocked)]
    _accept(flow, records)
    assert _settle(flow, 1) == [2, 3]
    again = _flow(flow.checkpoint(), lanes=2)
    assert again.position == Position.horizon()
    intake = _accept(again, records)
    assert (intake.taken, intake.skipped) == (2, 2)
    assert _numbers(_invoked(again, 0)) == [1, 4]


@pytest.mark.parametrize("read_again", [0, 1, 2, 3, 4])
@pytest.mark.parametrize("lanes", [1, 2])
def test_a_run_that_ends_before_it_read_all_again_passes_on_what_was_settled(
    read_again: int, lanes: int
) -> None:
    """Otherwise the run after it takes settled records into a batch, and may give them up as failed."""
    flow = _flow(lanes=2)
    blocked, free = _keyed(0, 2), _keyed(1, 2)
    records = [kinesis(1, key=blocked), kinesis(2, key=free), kinesis(3, key=free), kinesis(4, key=blocked)]
    _accept(flow, records)
    assert _settle(flow, 1) == [2, 3]
    short = _flow(flow.checkpoint(), lanes=lanes)
    _accept(short, records[:read_again])
    again = _flow(short.checkpoint(), lanes=lanes)
    intake = _accept(again, records)
    assert (intake.taken, intake.skipped) == (2, 2)


def test_a_bisect_goes_on_after_a_restart_where_it_was() -> None:
    policy = RetryPolicy(bisect=True)
    flow = _flow(retry=policy)
    records = [kinesis(number) for number in range(1, 7)]
    _accept(flow, records)
    assert [_fail(flow), _fail(flow)] == [[1, 2, 3, 4, 5, 6], [1, 2, 3]]
    assert _memo(flow).lanes == {0: (PartMemo("1", 0), PartMemo("3", 0), PartMemo("6", 0))}
    assert _fail(flow) == [1]
    parts = {0: (PartMemo("1", 1), PartMemo("3", 0), PartMemo("6", 0))}
    assert _memo(flow).lanes == parts
    again = _flow(flow.checkpoint(), retry=policy)
    _accept(again, records[:4])
    assert _invoked(again) is None
    assert again.hungry
    assert _memo(again).lanes == parts
    _accept(again, [*records[4:], kinesis(7)])
    resumed = _invoked(again)
    assert resumed is not None
    assert resumed.part.failures == 1
    assert _memo(again).lanes == parts
    assert [_settle(again) for _ in range(4)] == [[1], [2, 3], [4, 5, 6], [7]]


def test_a_resumed_batch_whose_records_are_gone_does_not_block_the_lane() -> None:
    flow = _flow(retry=RetryPolicy(bisect=True))
    _accept(flow, [kinesis(1), kinesis(2)])
    assert _fail(flow) == [1, 2]
    again = _flow(flow.checkpoint())
    _accept(again, [kinesis(5)])
    assert _numbers(_invoked(again)) == [5]


def test_a_resumed_batch_comes_back_even_beyond_a_smaller_look_ahead() -> None:
    flow = _flow()
    _accept(flow, [kinesis(number) for number in range(1, 6)])
    assert _fail(flow) == [1, 2, 3, 4, 5]
    again = _flow(flow.checkpoint(), look_ahead=1, records_max=1)
    _accept(again, [kinesis(1), kinesis(2)])
    assert again.hungry


@pytest.mark.parametrize(
    ("numbers", "caught_up", "restored"), [([7], False, False), ([7], True, True), ([7, 9], True, False)]
)
def test_a_batch_of_an_earlier_run_is_awaited_until_the_source_has_nothing_more_of_it(
    numbers: list[int], caught_up: bool, restored: bool
) -> None:
    memo = msgspec.json.encode(Memo(1, lanes={0: (PartMemo("9", 1),)}))
    flow = _flow(Checkpoint(Position.after("5"), memo))
    flow.accept(list(map(kinesis, numbers)), caught_up=caught_up, asked=Epoch(BASE))
    assert flow.operator.restored == restored
    if not restored and caught_up:
        assert _invoked(flow) is not None
        assert flow.operator.restored


def test_a_memo_for_another_number_of_lanes_keeps_what_is_settled_and_forgets_the_batches() -> None:
    flow = _flow(retry=RetryPolicy(bisect=True))
    _accept(flow, [kinesis(1), kinesis(2)])
    assert _fail(flow) == [1, 2]
    again = _flow(flow.checkpoint(), lanes=2)
    _accept(again, [kinesis(1), kinesis(2)])
    assert [1, 2] in [_numbers(_invoked(again, lane)) for lane in again.lanes]


def test_a_memo_that_cannot_be_read_is_as_good_as_none() -> None:
    flow = _flow(Checkpoint(Position.after("1"), b"{broken"))
    _accept(flow, [kinesis(2)])
    assert _numbers(_invoked(flow)) == [2]


def test_the_end_is_reached_when_the_last_record_is_settled() -> None:
    flow = _flow()
    _accept(flow, [kinesis(1)])
    assert _invoked(flow) is not None
    flow.end()
    assert not flow.finished(0)
    assert _settle(flow) == [1]
    assert flow.finished(0)
    assert flow.checkpoint() == Checkpoint(SHARD_END)


def test_a_checkpoint_reports_up_to_when_everything_is_settled_and_never_too_late() -> None:
    flow = _flow()
    flow.accept([kinesis(1, arrived=BASE + 700)], caught_up=True, asked=Epoch(BASE + 5000))
    assert not flow.settled_through
    assert _settle(flow) == [1]
    assert flow.settled_through == Epoch(BASE + 700)
    flow.accept([], caught_up=True, asked=Epoch(BASE + 9000))
    assert flow.settled_through == Epoch(BASE + 9000)
    kept = _flow(flow.checkpoint()).settled_through
    assert kept is not None
    assert BASE + 9000 - SETTLED_THROUGH_STEP_S < kept <= BASE + 9000


@given(st.data())
def test_the_moment_of_a_read_is_no_time_up_to_which_everything_is_settled(data: st.DataObject) -> None:
    """Records arrive one a second, and all are read long after that. Some have no time of their own, others are filtered."""
    count, read_at = 20, BASE + 9000
    dated = data.draw(st.lists(st.booleans(), min_size=count, max_size=count))
    passing = data.draw(st.none() | st.lists(st.booleans(), min_size=count, max_size=count))
    found = [
        kinesis(at + 1, arrived=BASE + at if dated[at] else read_at, dated=dated[at]) for at in range(count)
    ]
    flow = _flow(records_max=data.draw(st.integers(1, 5)))
    cut = data.draw(st.integers(0, count))
    for first, last in ((0, cut), (cut, count)):
        part = None if passing is None else passing[first:last]
        flow.accept(found[first:last], passing=part, caught_up=False, asked=Epoch(read_at))
        while True:
            position = flow.checkpoint().position
            settled = 0 if position == Position.horizon() else position.sequence
            if flow.settled_through is not None:
                assert flow.settled_through <= BASE + settled - 1
            if _invoked(flow) is None:
                break
            _settle(flow)


@given(
    lanes=st.integers(1, 4),
    keys=st.lists(st.none() | st.integers(0, 6), min_size=1, max_size=40),
    records_max=st.integers(1, 5),
    bisect=st.booleans(),
    seed=st.integers(0, 10_000),
)
def test_crashes_never_lose_or_reorder_a_record(
    lanes: int, keys: list[int | None], records_max: int, bisect: bool, seed: int
) -> None:
    rng = Random(seed)
    records: list[Record] = [
        kinesis(number + 1, key=None if key is None else f"key-{key}") for number, key in enumerate(keys)
    ]
    policy = RetryPolicy(retries_max=2, bisect=bisect)
    settled: list[int] = []
    stored = START
    for _ in range(2000):
        flow = _flow(stored, lanes=lanes, records_max=records_max, retry=policy)
        stored = _run_until_crash(flow, records, rng, settled)
        if stored.position == SHARD_END:
            break
    assert stored.position == SHARD_END
    # A record without a key has no other beside which it must stand.
    places = [each.key or each.sequence_number for each in records]
    by_key: dict[str, list[int]] = {}
    for number in settled:
        by_key.setdefault(places[number - 1], []).append(number)
    assert by_key.keys() == set(places)
    for key, numbers in by_key.items():
        first_seen = list(dict.fromkeys(numbers))
        assert first_seen == [number for number, place in enumerate(places, 1) if place == key]


def _run_until_crash(flow: ShardFlow, records: list[Record], rng: Random, settled: list[int]) -> Checkpoint:
    """Works until the end or a crash at a random moment; returns the last checkpoint that was written."""
    stored = flow.checkpoint()
    for _ in range(rng.randint(1, 60)):
        _read_some(flow, records, rng)
        lane = rng.choice(list(flow.lanes))
        _one_step(flow, lane, rng, settled)
        if rng.random() < 0.5 or flow.done:
            stored = flow.checkpoint()
        if flow.done:
            break
    return stored


def _read_some(flow: ShardFlow, records: list[Record], rng: Random) -> None:
    if not flow.hungry:
        return
    ahead = [each for each in records if Position.after(each.sequence_number) > flow.read_to]
    page = ahead[: rng.randint(0, 4)]
    _accept(flow, page)
    if len(page) == len(ahead):
        flow.end()


def _one_step(flow: ShardFlow, lane: int, rng: Random, settled: list[int]) -> None:
    effects: Sequence[LaneEffect] = ()
    match _next(flow, lane):
        case InvokePart():
            effects = _answer(flow, Accepted() if rng.random() < 0.5 else FAILED, lane)
        case DiscardPart():
            effects = flow.discarded(lane, now=FAR)
        case WaitUntil():
            raise AssertionError("nothing waits at the end of time")
    for effect in effects:
        if isinstance(effect, Advance):
            settled += [int(each.record.sequence_number) for each in effect.entries]


@pytest.mark.parametrize(("lanes", "kept"), [(1, True), (2, False)])
def test_records_that_may_wait_long_in_a_blocked_lane_do_not_keep_the_answer_that_they_came_with(
    lanes: int, kept: bool
) -> None:
    answer = bytes(
        bytearray(
            b'[{"eventID":"1","eventName":"INSERT","dynamodb":{"ApproximateCreationDateTime":1767225600,'
            b'"SequenceNumber":"7","Keys":{"pk":{"S":"a"}},"NewImage":{"pk":{"S":"a"}},"SizeBytes":9}}]'
        )
    )
    alone = sys.getrefcount(answer)
    flow = _flow(lanes=lanes)
    _accept(flow, msgspec.json.decode(answer, type=list[DynamoRecord]))
    assert (sys.getrefcount(answer) > alone) is kept
    work = [command for lane in flow.lanes if (command := _invoked(flow, lane)) is not None]
    (record,) = [entry.record for each in work for entry in each.part.entries]
    assert isinstance(record, DynamoRecord)
    assert bytes(record.change.new_image) == b'{"pk":{"S":"a"}}'


WINDOWS = Windowing(10, ShardId("shardId-000000000000"), "arn:stream", 1.0)
HUGE = b'{"x":"' + b"x" * STATE_BYTES_MAX + b'"}'


def _reported(flow: ShardFlow, state: bytes) -> None:
    """Of a batch of three the function reports the second record, with this state."""
    _accept(flow, [kinesis(1), kinesis(2), kinesis(3)])
    command = _invoked(flow)
    assert command is not None
    effects = _answer(flow, Partial(frozenset({1}), Response("$LATEST", None), state))
    assert effects == [Advance(command.part.entries[:1])]


def _closing(command: InvokePart | None) -> tuple[bool, bool]:
    """Whether the part is a window's last call, and an early one."""
    assert command is not None
    return command.part.final, command.part.early


@pytest.mark.parametrize(("windowing", "state"), [(None, HUGE), (WINDOWS, b"{}")])
def test_a_batch_goes_on_as_it_is_without_windows_or_with_a_small_state(
    windowing: Windowing | None, state: bytes
) -> None:
    flow = _flow(windowing=windowing)
    _reported(flow, state)
    command = _invoked(flow)
    assert (_numbers(command), _closing(command)) == ([2, 3], (False, False))


def test_what_is_left_of_a_batch_waits_behind_one_early_end() -> None:
    flow = _flow(windowing=WINDOWS)
    _reported(flow, HUGE)
    for _ in range(2):
        command = _invoked(flow)
        assert (_numbers(command), _closing(command)) == ([], (True, True))
    _answer(flow, Accepted(b"{}"))
    command = _invoked(flow)
    assert (_numbers(command), _closing(command)) == ([2, 3], (False, False))


def test_nothing_stands_in_front_of_nothing() -> None:
    overgrown = WindowedBatches(WINDOWS, WindowMemo(10, int(BASE), msgspec.Raw(HUGE)))
    assert overgrown.with_early_end(None, new_id=ids()) is None


@pytest.mark.parametrize("given_up", [False, True])
def test_an_early_end_that_is_settled_or_given_up_is_not_put_in_front_again(given_up: bool) -> None:
    flow = _flow(windowing=WINDOWS, retry=RetryPolicy(retries_max=0))
    _reported(flow, HUGE)
    assert _closing(_invoked(flow)) == (True, True)
    if given_up:
        _answer(flow, FAILED)
        assert isinstance(_next(flow), DiscardPart)
        flow.discarded(0, now=FAR)
    else:
        _answer(flow, Accepted(HUGE))
    command = _invoked(flow)
    assert (_numbers(command), _closing(command)) == ([2, 3], (False, False))


def test_a_checkpoint_remembers_what_is_left_behind_an_early_end_and_the_state_that_calls_for_it() -> None:
    flow = _flow(windowing=WINDOWS)
    _reported(flow, HUGE)
    checkpoint = flow.checkpoint()
    assert checkpoint.position == Position.after("1")
    memo = msgspec.json.decode(checkpoint.memo, type=Memo)
    assert memo.lanes == {0: (PartMemo("3", 0),)}
    assert memo.window is not None
    assert bytes(memo.window.state) == HUGE


def test_an_early_end_of_an_earlier_run_comes_once_what_is_left_behind_it_was_read_again() -> None:
    flow = _flow(windowing=WINDOWS)
    _reported(flow, HUGE)
    again = _flow(flow.checkpoint(), windowing=WINDOWS)
    _accept(again, [kinesis(2)])
    assert _invoked(again) is None
    assert again.hungry
    _accept(again, [kinesis(3), kinesis(4)])
    resumed = _invoked(again)
    assert resumed is not None
    assert (_numbers(resumed), _closing(resumed)) == ([], (True, True))
    assert again.view(0).part is resumed.part
    assert _memo(again).lanes == {0: (PartMemo("3", 0),)}
    _answer(again, Accepted(b"{}"))
    assert _numbers(_invoked(again)) == [2, 3]


def test_an_early_end_is_reported_with_the_whole_state_and_its_window() -> None:
    flow = _flow(windowing=WINDOWS)
    _reported(flow, HUGE)
    event = _event(flow)
    assert (event["isFinalInvokeForWindow"], event["isWindowTerminatedEarly"]) == (True, True)
    assert (event["window"]["start"], event["state"]) == ("2026-01-01T00:00:00Z", json.loads(HUGE))
    _answer(flow, Accepted(b"{}"))
    event = _event(flow)
    assert (event["isFinalInvokeForWindow"], event["isWindowTerminatedEarly"]) == (False, False)
    assert (event["window"]["start"], event["state"]) == ("2026-01-01T00:00:00Z", {})


def _event(flow: ShardFlow) -> Any:
    command = _invoked(flow)
    assert command is not None
    return json.loads(command.event.encoded())
