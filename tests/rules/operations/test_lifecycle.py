"""How operations go on and end."""

from collections.abc import Callable
from dataclasses import replace
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from poller.domain.operations import (
    Action,
    EndedOperation,
    Operation,
    OperationId,
    OperationState,
    PartResult,
)
from poller.domain.records import Epoch, ShardId
from poller.rules.operations import lifecycle, pauses
from tests.rules.operations.build import ANN, BOB, FIFO, NOW, ONE, ORDERS, QUEUE, STREAM, THREE, TWO, accepted

DONE, FAILED = OperationState.DONE, OperationState.FAILED
LATER = Epoch(NOW + 60)
RETRY = accepted({"action": "retry"})
PAUSE = accepted({"action": "pause"})
SKIP = accepted({"action": "skip", "shard": "1", "records": "first"})


def part(state: OperationState = DONE, text: str = "") -> PartResult:
    return PartResult(state=state, result=text)


def finished(operation: Operation, **states: OperationState) -> Operation:
    for name, state in states.items():
        operation = lifecycle.finish_part(
            operation, {"one": ONE, "two": TWO}[name], part(state, name), now=LATER
        )
    return operation


def test_an_operation_is_done_when_all_of_its_parts_are() -> None:
    half = finished(RETRY, two=DONE)
    assert (half.state, half.ended, lifecycle.missing(half)) == (OperationState.RUNNING, None, (ONE,))
    whole = finished(half, one=DONE)
    assert (whole.state, whole.ended, whole.result) == (DONE, LATER, f"{ONE}: one; {TWO}: two")


def test_one_part_that_failed_makes_the_operation_fail() -> None:
    whole = finished(RETRY, one=DONE, two=FAILED)
    assert (whole.state, whole.result) == (FAILED, f"1 of 2 parts failed; {TWO}: two; {ONE}: one")


def test_the_only_part_speaks_for_the_operation() -> None:
    ended = lifecycle.finish_part(SKIP, ONE, part(FAILED, "no batch is failing"), now=LATER)
    assert (ended.state, ended.result) == (FAILED, "no batch is failing")


def test_the_first_result_of_a_part_is_kept() -> None:
    half = finished(RETRY, one=DONE)
    assert lifecycle.finish_part(half, ONE, part(FAILED), now=LATER) is half
    assert lifecycle.begin(half, ONE) is half
    assert lifecycle.finish_part(half, THREE, part(), now=LATER) is half


def test_a_holder_carries_out_the_parts_that_have_no_result() -> None:
    assert lifecycle.due(RETRY, [TWO, ONE, THREE]) == (ONE, TWO)
    begun = lifecycle.begin(finished(RETRY, one=DONE), TWO, "waits for a call")
    assert begun.parts[TWO] == part(OperationState.RUNNING, "waits for a call")
    assert lifecycle.due(begun, [ONE, TWO]) == (TWO,)
    assert lifecycle.due(finished(begun, two=DONE), [ONE, TWO]) == ()


def test_the_records_of_a_skip_are_fixed_once() -> None:
    first = lifecycle.resolve(SKIP, ["5", "6", "5"], part=ONE, now=LATER)
    assert (first.state, first.notes) == (OperationState.RUNNING, {"records": ["5", "6"]})
    assert lifecycle.resolve(first, ["7"], part=ONE, now=LATER) is first


@pytest.mark.parametrize("records", [[str(number) for number in range(10_001)], ["1" * 129]])
def test_records_that_cannot_be_named_fail_the_part(records: list[str]) -> None:
    refused = lifecycle.resolve(SKIP, records, part=ONE, now=LATER)
    assert (refused.state, refused.notes) == (FAILED, {})
    assert "write the ids of fewer" in refused.result


BATCH = accepted({"action": "skip", "shard": "1", "records": "batch", "batch_first": "5", "batch_count": 2})


def test_a_skip_of_a_certain_batch_means_that_batch() -> None:
    assert lifecycle.resolve(BATCH, ["5", "6"], part=ONE, now=LATER).notes == {"records": ["5", "6"]}


@pytest.mark.parametrize(
    ("records", "there"),
    [
        (["6", "7"], "2 records from 6 on"),
        (["5"], "1 record from 5 on"),
        (["5", "6", "7"], "3 records from 5 on"),
        (["window:17:6"], "1 record from window:17:6 on"),
        ([], "one without records"),
    ],
)
def test_a_skip_of_another_batch_than_the_one_that_is_meant_fails(records: list[str], there: str) -> None:
    refused = lifecycle.resolve(BATCH, records, part=ONE, now=LATER)
    assert (refused.state, refused.notes) == (FAILED, {})
    assert refused.result == f"another batch is at fault by now: {there}; look at it, then ask again"


def test_cancelling_says_how_much_was_done() -> None:
    cancelled = lifecycle.cancel(finished(RETRY, one=DONE), by="dave", now=LATER)
    assert cancelled.state is OperationState.CANCELLED
    assert cancelled.result == "cancelled by dave after 1 of 2 parts"
    assert cancelled.parts[ONE].state is DONE


@pytest.mark.parametrize(
    ("operation", "end", "state"),
    [
        (SKIP, lambda each: lifecycle.cancel(each, by="dave", now=LATER), OperationState.CANCELLED),
        (PAUSE, lambda each: lifecycle.cancel(each, by="dave", now=LATER), OperationState.CANCELLED),
        (SKIP, lambda each: lifecycle.mapping_deleted(each, now=LATER), FAILED),
        (SKIP, lambda each: lifecycle.mapping_disabled(each, now=LATER), FAILED),
    ],
)
def test_no_part_runs_or_waits_in_an_operation_that_is_over(
    operation: Operation, end: Callable[[Operation], Operation], state: OperationState
) -> None:
    over = end(lifecycle.begin(operation, ONE, "waits until the destination takes the notice"))
    assert over.state.over
    assert over.parts[ONE] == part(state, "it was begun and not finished")


def test_cancelling_a_pause_is_resuming_it() -> None:
    ended = lifecycle.cancel(PAUSE, by="dave", now=LATER)
    assert ended == lifecycle.end_pause(PAUSE, by="dave", now=LATER)
    assert (ended.state, ended.result) == (DONE, "resumed by dave")


def test_a_pause_lasts_although_all_of_its_parts_know_of_it() -> None:
    known = PAUSE
    for name in PAUSE.wanted:
        known = lifecycle.finish_part(known, name, part(text="paused"), now=LATER)
    assert lifecycle.missing(known) == ()
    assert known.state is OperationState.RUNNING


@pytest.mark.parametrize(("action", "state"), [(PAUSE, DONE), (RETRY, FAILED), (SKIP, FAILED)])
def test_nothing_outlives_its_mapping(action: Operation, state: OperationState) -> None:
    ended = lifecycle.mapping_deleted(action, now=LATER)
    assert (ended.state, ended.result) == (state, "the mapping was deleted")


def test_a_disabled_mapping_keeps_its_pauses_and_fails_the_rest() -> None:
    assert lifecycle.mapping_disabled(PAUSE, now=LATER) is PAUSE
    assert "enable it" in lifecycle.mapping_disabled(RETRY, now=LATER).result


def test_shards_that_ended_have_nothing_left_to_do() -> None:
    closed = lifecycle.close_ended_shards(finished(RETRY, one=FAILED), {ONE, TWO, THREE}, now=LATER)
    assert closed.parts[ONE].state is FAILED
    assert closed.parts[TWO] == part(DONE, "the shard has ended: all of its records are settled")
    assert lifecycle.close_ended_shards(RETRY, {THREE}, now=LATER) is RETRY


def test_the_pause_of_a_shard_ends_with_it_and_that_of_a_mapping_does_not() -> None:
    mine = accepted({"action": "pause", "shard": "1"})
    assert lifecycle.close_ended_shards(mine, {ONE}, now=LATER).state is DONE
    assert lifecycle.close_ended_shards(mine, {TWO}, now=LATER) is mine
    assert not lifecycle.close_ended_shards(PAUSE, {ONE, TWO, THREE}, now=LATER).state.over


def test_messages_of_a_worker_that_is_gone_are_left_to_the_others() -> None:
    skip = accepted({"action": "skip", "records": ["m-1", "m-2"]}, QUEUE)
    half = lifecycle.close_gone_workers(skip, {ANN}, now=LATER)
    assert (half.state, half.parts[ANN].state) == (OperationState.RUNNING, DONE)
    assert lifecycle.close_gone_workers(half, {ANN}, now=LATER) is half
    assert lifecycle.close_gone_workers(half, {BOB}, now=LATER).state is FAILED
    assert lifecycle.close_gone_workers(skip, {ANN, BOB}, now=LATER).state is FAILED
    settled = lifecycle.settle(half, ["m-2", "m-1"])
    assert lifecycle.close_gone_workers(settled, {BOB}, now=LATER).state is DONE
    retry = accepted({"action": "retry"}, QUEUE)
    assert lifecycle.close_gone_workers(retry, {ANN, BOB}, now=LATER).state is DONE


def test_a_skip_whose_workers_are_gone_is_taken_over_by_those_that_came_since() -> None:
    skip = accepted({"action": "skip", "records": ["m-1", "m-2"]}, QUEUE)
    half = lifecycle.finish_part(skip, ANN, part(DONE, "x"), now=LATER)
    taken = lifecycle.close_gone_workers(half, {BOB}, {ANN, "w-8", "w-7"}, now=LATER)
    assert (taken.state, taken.wanted, taken.parts[ANN]) == (
        OperationState.RUNNING, (ANN, "w-7", "w-8"), half.parts[ANN],
    )  # fmt: skip
    assert lifecycle.missing(taken) == ("w-7", "w-8")
    # They have a day for it, as whoever has begun.
    assert lifecycle.expire(taken, open_s=lifecycle.BEGIN_S_MAX, now=LATER) is taken
    assert lifecycle.close_gone_workers(taken, {"w-7", "w-8"}, {ANN}, now=LATER).state is FAILED
    again = lifecycle.close_gone_workers(skip, {ANN, BOB}, {"w-7"}, now=LATER)
    assert again.wanted == ("w-7",)
    assert lifecycle.finish_part(again, "w-7", part(DONE, "all"), now=LATER).state is DONE
    # As long as a worker of the skip is there, nobody else is needed.
    assert lifecycle.close_gone_workers(skip, {ANN}, {BOB, "w-7"}, now=LATER).wanted == skip.wanted


def test_a_skip_of_what_only_a_lost_worker_knew_has_failed() -> None:
    skip = accepted({"action": "skip", "records": "first", "group": "g"}, replace(QUEUE, fifo=True))
    found = lifecycle.close_gone_workers(skip, {ANN, BOB}, {"w-7"}, now=LATER)
    assert found.state is FAILED
    assert found.result.count("ask again when they have come back") == 2


def test_no_more_workers_take_over_a_skip_than_an_operation_may_have() -> None:
    skip = accepted({"action": "skip", "records": ["m-1"]}, QUEUE)
    many = {f"w-{number:05}" for number in range(lifecycle.PARTS_MAX + 9)}
    found = lifecycle.close_gone_workers(skip, {ANN, BOB}, many, now=LATER)
    assert len(found.wanted) == lifecycle.PARTS_MAX


def test_several_workers_settle_the_records_of_one_skip() -> None:
    skip = accepted({"action": "skip", "records": ["m-1", "m-2"]}, QUEUE)
    one = lifecycle.settle(skip, ["m-2", "m-9"], "m-2 is in the dead-letter queue")
    assert lifecycle.settled(one) == ["m-2"]
    assert lifecycle.settle(one, ["m-2"], "again") is one
    both = lifecycle.settle(one, ["m-1", "m-2"], "m-1 was deleted")
    assert both.notes == {
        "records": ["m-1", "m-2"],
        "settled": ["m-2", "m-1"],
        "results": ["m-2 is in the dead-letter queue", "m-1 was deleted"],
    }


def test_a_part_that_nobody_begins_fails_after_ten_minutes_and_a_begun_one_after_a_day() -> None:
    begun = lifecycle.begin(RETRY, ONE)
    assert lifecycle.expire(begun, open_s=599.0, now=NOW) is begun
    late = lifecycle.expire(begun, open_s=600.0, now=NOW)
    assert (late.parts[TWO].state, late.parts[ONE].state) == (FAILED, OperationState.RUNNING)
    assert lifecycle.expire(late, open_s=86_399.0, now=NOW) is late
    assert lifecycle.expire(late, open_s=86_400.0, now=NOW).state is FAILED


def test_the_age_of_an_operation_counts_only_where_no_difference_of_clocks_explains_it() -> None:
    for apart_s in (-1e9, -86_400.0, 3_600.0, 86_400.0 + 599.0):
        assert lifecycle.expire(RETRY, open_s=0.0, now=Epoch(NOW + apart_s)) is RETRY
    assert lifecycle.expire(RETRY, open_s=0.0, now=Epoch(NOW + 87_000.0)).state is FAILED


def test_a_pause_never_expires() -> None:
    assert lifecycle.expire(PAUSE, open_s=1e9, now=Epoch(NOW + 1e9)) is PAUSE


def test_a_result_is_short_when_there_are_many_parts() -> None:
    many = replace(STREAM, shards={ShardId(f"s-{number:04}"): ANN for number in range(1000)})
    operation = accepted({"action": "retry"}, many)
    for name in operation.wanted:
        operation = lifecycle.finish_part(operation, name, part(text="ü" * 900), now=LATER)
    assert operation.state is DONE
    assert sum(len(each.result.encode()) for each in operation.parts.values()) <= lifecycle.PARTS_BYTES
    assert len(operation.result) <= lifecycle.RESULT_CHARS_MAX
    alone = lifecycle.finish_part(SKIP, ONE, part(text="x" * 900), now=LATER)
    assert 490 < len(alone.parts[ONE].result) <= 500


def over(number: int, ended: float, stored_bytes: int = 1_000) -> EndedOperation:
    return EndedOperation(
        operation=OperationId(f"op-{number:04}"), ended=Epoch(ended), stored_bytes=stored_bytes
    )


def test_the_history_has_an_end() -> None:
    old = over(1, NOW - lifecycle.HISTORY_S_MAX)
    young = over(2, NOW - lifecycle.HISTORY_S_MAX + 1)
    assert lifecycle.prunable([young, old], now=NOW) == (old.operation,)
    many = [over(number, NOW + number) for number in range(1005)]
    assert lifecycle.prunable(many, now=NOW) == tuple(f"op-{number:04}" for number in range(5))
    large = [over(number, NOW + number, lifecycle.HISTORY_BYTES_MAX // 4) for number in range(6)]
    assert lifecycle.prunable(large, now=NOW) == ("op-0000", "op-0001")


STATES = st.sampled_from([DONE, FAILED])
ANY = st.sampled_from(
    [RETRY, PAUSE, SKIP, accepted({"action": "retry"}, FIFO), accepted({"action": "resume"}, others=(PAUSE,))]
)
type Step = Callable[[Operation], Operation]


@st.composite
def steps(draw: st.DrawFn) -> Step:
    """Anything that may happen to an operation."""
    name = draw(st.sampled_from([ONE, TWO, THREE, ANN, BOB, ""]))
    now = Epoch(NOW + draw(st.sampled_from([0.0, 60.0, 700.0, 90_000.0])))
    result = part(draw(STATES), draw(st.text(max_size=3)))
    made: list[Step] = [
        lambda it: lifecycle.begin(it, name, "waits"),
        lambda it: lifecycle.finish_part(it, name, result, now=now),
        lambda it: lifecycle.resolve(it, ["1", "2"], part=name, now=now),
        lambda it: lifecycle.settle(it, ["2"], "settled"),
        lambda it: lifecycle.count(it, {"records": 3}),
        lambda it: lifecycle.close_ended_shards(it, {name}, now=now),
        lambda it: lifecycle.close_gone_workers(it, {name}, now=now),
        lambda it: lifecycle.close_gone_workers(it, {name}, {"w-7"}, now=now),
        lambda it: lifecycle.expire(it, open_s=now - NOW, now=now),
        lambda it: lifecycle.cancel(it, by="dave", now=now),
        lambda it: lifecycle.mapping_deleted(it, now=now),
        lambda it: lifecycle.mapping_disabled(it, now=now),
        lambda it: lifecycle.finish(it, failed=False, text="done", now=now),
    ]
    return draw(st.sampled_from(made))


@given(ANY, st.lists(steps(), max_size=12))
def test_what_is_over_never_changes_and_each_step_may_be_repeated(
    operation: Operation, happens: list[Step]
) -> None:
    for step in happens:
        after = step(operation)
        if operation.state.over:
            assert after is operation
        assert step(after) is after
        assert (after.ended is not None) == after.state.over
        kept = {name: each for name, each in operation.parts.items() if each.state.over}
        assert kept.items() <= after.parts.items()
        assert (after.operation, after.request, after.wanted, after.created, after.revision) == (
            operation.operation, operation.request, operation.wanted, operation.created, operation.revision
        )  # fmt: skip
        assert after.state is not OperationState.ACCEPTED or after is operation
        operation = after


@given(ANY, st.lists(steps(), max_size=12))
def test_a_pause_is_in_force_from_its_acceptance_to_its_end(
    operation: Operation, happens: list[Step]
) -> None:
    for step in happens:
        operation = step(operation)
        found = pauses.in_force([operation], operation.mapping)
        assert bool(found) == (operation.request.action is Action.PAUSE and operation.ended is None)


@given(st.lists(STATES, min_size=1, max_size=8), st.randoms(use_true_random=False))
def test_parts_in_any_order_give_the_same_end(states: list[OperationState], random: Random) -> None:
    facts = replace(STREAM, shards={ShardId(f"s-{number}"): ANN for number in range(len(states))})
    operation = accepted({"action": "retry"}, facts)
    assert operation.mapping == ORDERS
    results = list(zip(operation.wanted, states, strict=True))
    ends = []
    for _ in range(2):
        random.shuffle(results)
        end = operation
        for place, (name, state) in enumerate(results):
            assert not end.state.over
            assert len(lifecycle.missing(end)) == len(results) - place
            end = lifecycle.finish_part(end, name, part(state, f"{name} {state}"), now=LATER)
        ends.append(end)
    assert ends[0] == ends[1]
    assert ends[0].state is (FAILED if FAILED in states else DONE)
    assert lifecycle.missing(ends[0]) == ()


@given(st.lists(st.tuples(st.floats(0, 5e6), st.integers(0, 4_000_000)), max_size=40), st.floats(0, 1e7))
def test_the_history_keeps_the_newest_that_fit(rows: list[tuple[float, int]], now: float) -> None:
    there = [over(number, ended, size) for number, (ended, size) in enumerate(rows)]
    lost = set(lifecycle.prunable(there, now=Epoch(now)))
    kept = [each for each in there if each.operation not in lost]
    assert sum(each.stored_bytes for each in kept) <= lifecycle.HISTORY_BYTES_MAX
    assert all(now - each.ended < lifecycle.HISTORY_S_MAX for each in kept)
    gone = [each for each in there if each.operation in lost]
    assert max((each.ended for each in gone), default=0.0) <= min((each.ended for each in kept), default=5e6)
