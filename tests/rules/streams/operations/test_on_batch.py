"""What an operator's action changes in one lane's batch, and what a checkpoint keeps of it."""

from copy import replace

import msgspec
import pytest

from poller.domain.invocations import Condition, Ended
from poller.domain.operations import OperationId, OperationTarget, OperatorPause
from poller.domain.policies import Backoff, RetryPolicy
from poller.domain.records import Epoch, Monotonic, ShardId
from poller.domain.streams.places import begin_of
from poller.rules.responses import Partial, Rejected, Response
from poller.rules.streams import attempts, checkpoint_memo
from poller.rules.streams.attempts import BatchPart, BatchState, Discard, Invoke, Retry, Wait
from poller.rules.streams.checkpoint_memo import Memo, PartMemo
from poller.rules.streams.lanes import lane_of
from poller.rules.streams.operations.interventions import by_lane, skip_id
from poller.rules.streams.operations.on_batch import (
    Chosen,
    closing_id,
    ids_of,
    leads,
    may_close,
    reset,
    retried,
    skipped,
    without,
)
from tests.rules.build import BASE, entries, ids, numbers_of

FAILED = Rejected(Ended.FUNCTION_ERROR, "no", Response("$LATEST", "Unhandled"))
BACKOFF = Backoff(base_s=1.0, cap_s=1000.0)
NOW, EPOCH = Monotonic(50.0), Epoch(BASE + 50.0)
SHARD = ShardId("shardId-000000000000")
UNTRIED = BatchPart(entries(1, 2, 3), "request", response=FAILED.response)
TRIED = replace(UNTRIED, failures=6, deferrals=2)
FINAL = BatchPart((), "request", failures=2, final=True, ends=Epoch(BASE))


class Most:
    """Takes the longest wait."""

    def uniform(self, a: float, b: float, /) -> float:
        return b


def among(numbers: set[int]) -> Chosen:
    """Whether an id is that of a record with one of these sequence numbers."""
    return {begin_of(str(each)) for each in numbers}.__contains__


def work(*parts: BatchPart, resume_at: float = 100.0) -> BatchState:
    return BatchState(parts, Monotonic(resume_at))


def test_a_retry_is_due_now_and_keeps_the_failures() -> None:
    again = retried(work(TRIED, UNTRIED), now=NOW)
    assert attempts.step(again, RetryPolicy(), now=NOW, epoch=EPOCH) == Invoke(again.parts[0])
    assert (again.parts[0].failures, again.parts[0].deferrals, again.parts[1]) == (6, 0, UNTRIED)


def test_the_back_off_after_a_retry_is_that_after_a_first_failure() -> None:
    policy = RetryPolicy(backoff=BACKOFF)
    left, [effect] = attempts.settle(
        retried(work(TRIED), now=NOW), FAILED, policy, new_id=ids(), now=NOW, rng=Most()
    )
    assert effect == Retry(7, 1.0, free=False)
    assert left is not None
    _, [then] = attempts.settle(left, FAILED, policy, new_id=ids(), now=NOW, rng=Most())
    assert then == Retry(8, 2.0, free=False)


def test_a_retry_gives_no_attempt_back() -> None:
    policy = RetryPolicy(retries_max=6, backoff=BACKOFF)
    left, _ = attempts.settle(
        retried(work(TRIED), now=NOW), FAILED, policy, new_id=ids(), now=NOW, rng=Most()
    )
    assert left is not None
    step = attempts.step(left, policy, now=NOW, epoch=EPOCH)
    assert isinstance(step, Discard)
    assert (step.condition, step.invoke_count) == (Condition.RETRIES, 7)


@pytest.mark.parametrize(("resume_at", "then"), [(50.2, 50.2), (100.0, 51.0), (40.0, 40.0)])
def test_a_reset_waits_no_longer_than_after_a_first_failure(resume_at: float, then: float) -> None:
    again = reset(work(TRIED, TRIED, resume_at=resume_at), BACKOFF, now=NOW, epoch=EPOCH)
    assert again.resume_at == then
    assert {(each.failures, each.deferrals, each.since) for each in again.parts} == {(0, 0, EPOCH)}


def test_a_reset_makes_the_age_count_from_then() -> None:
    policy = RetryPolicy(age_max_s=60.0, retention_s=1000.0)
    again = reset(work(UNTRIED, resume_at=1e9), Backoff(1e9, 1e9), now=NOW, epoch=EPOCH)
    assert attempts.expires_at(again, policy) == EPOCH + 60.0
    assert isinstance(attempts.step(again, policy, now=NOW, epoch=Epoch(EPOCH + 60.0)), Wait)
    step = attempts.step(again, policy, now=NOW, epoch=Epoch(EPOCH + 60.1))
    assert isinstance(step, Discard)
    assert (step.condition, numbers_of(step.entries)) == (Condition.AGE, [1, 2, 3])


def test_a_reset_does_not_change_what_the_source_keeps() -> None:
    policy = RetryPolicy(retention_s=60.0)
    again = reset(work(UNTRIED), BACKOFF, now=NOW, epoch=EPOCH)
    step = attempts.step(again, policy, now=NOW, epoch=Epoch(BASE + 61.0))
    assert isinstance(step, Discard)
    assert step.condition is Condition.RETENTION


def test_a_call_that_closes_a_window_counts_its_age_from_the_reset_too() -> None:
    policy = RetryPolicy(age_max_s=60.0)
    again = replace(reset(work(FINAL), BACKOFF, now=NOW, epoch=EPOCH).parts[0], failures=1)
    assert isinstance(attempts.step(work(again), policy, now=NOW, epoch=Epoch(EPOCH + 59.0)), Wait)
    assert isinstance(attempts.step(work(again), policy, now=NOW, epoch=Epoch(EPOCH + 61.0)), Discard)


@pytest.mark.parametrize("verdict", [FAILED, Partial(frozenset({1}), Response("$LATEST", None))])
def test_parts_of_a_reset_part_keep_its_moment(verdict: Rejected | Partial) -> None:
    policy = RetryPolicy(bisect=True, backoff=BACKOFF)
    again = reset(work(UNTRIED), BACKOFF, now=NOW, epoch=EPOCH)
    left, _ = attempts.settle(again, verdict, policy, new_id=ids(), now=NOW, rng=Most())
    assert left is not None
    assert {each.since for each in left.parts} == {EPOCH}


@pytest.mark.parametrize(
    ("chosen", "dropped"),
    [({1, 3}, [[1, 3]]), ({1, 2, 3, 5}, [[1, 2, 3], [5]]), ({3, 4, 6}, [[3], [4, 6]]), ({9}, [])],
)
def test_a_skip_without_notices_takes_all_that_it_means_of_a_part_at_once(
    chosen: set[int], dropped: list[list[int]]
) -> None:
    """One after the other, a thousand of them would hold up the loop for seconds."""
    left: BatchState | None = work(TRIED, replace(UNTRIED, entries=entries(4, 5, 6)))
    found = []
    while left is not None and (discard := skipped(left, among(chosen), in_runs=False)) is not None:
        found.append(numbers_of(discard.entries))
        left, advance = without(left, discard, new_id=ids(), now=NOW)
        assert advance.entries == discard.entries
    assert found == dropped


@pytest.mark.parametrize(
    ("chosen", "runs"),
    [
        ({1}, [[1]]),
        ({2}, [[2]]),
        ({1, 2, 3}, [[1, 2, 3]]),
        ({1, 3}, [[1], [3]]),
        ({3, 4, 6}, [[3], [4], [6]]),
        ({5}, [[5]]),
        ({9}, []),
    ],
)
def test_a_skip_takes_run_after_run_of_neighbours_from_any_part(
    chosen: set[int], runs: list[list[int]]
) -> None:
    left: BatchState | None = work(TRIED, replace(UNTRIED, entries=entries(4, 5, 6)))
    found = []
    while left is not None and (discard := skipped(left, among(chosen), in_runs=True)) is not None:
        assert discard.condition is Condition.SKIPPED
        assert leads(left, discard) is (discard.entries[0] == left.parts[0].entries[0])
        found.append(numbers_of(discard.entries))
        left, advance = without(left, discard, new_id=ids(), now=NOW)
        assert advance.entries == discard.entries
    assert found == runs
    rest = [number for part in left.parts for number in numbers_of(part.entries)] if left else []
    assert rest == [number for number in range(1, 7) if number not in chosen]


def test_what_is_left_around_a_skip_is_given_up_run_by_run_after_one_call() -> None:
    """A notice names a range: over a gap, a redrive could not tell which records of it the batch had."""
    policy = RetryPolicy(retries_max=0, backoff=BACKOFF)
    discard = skipped(work(TRIED), among({2}), in_runs=True)
    assert discard is not None
    left, _ = without(work(TRIED), discard, new_id=ids(), now=NOW)
    assert left is not None
    left, _ = attempts.settle(left, FAILED, policy, new_id=ids(), now=NOW, rng=Most())
    runs = []
    while left is not None:
        step = attempts.step(left, policy, now=NOW, epoch=EPOCH)
        assert isinstance(step, Discard)
        run = attempts.first_run(step)
        runs.append((numbers_of(run.entries), run.request_id, run.response))
        left, _ = attempts.drop(left, run, new_id=ids(), now=NOW)
    assert runs == [([1], "id-1", FAILED.response), ([3], "id-1", FAILED.response)]


def test_a_later_skip_of_both_sides_of_a_gap_is_in_two_runs() -> None:
    discard = skipped(work(TRIED), among({2}), in_runs=True)
    assert discard is not None
    left, _ = without(work(TRIED), discard, new_id=ids(), now=NOW)
    assert left is not None
    for in_runs, first in ((True, [1]), (False, [1, 3])):
        found = skipped(left, among({1, 3}), in_runs=in_runs)
        assert found is not None
        assert numbers_of(found.entries) == first


def test_the_rest_is_tried_at_once_and_once_at_least() -> None:
    """Its attempts stay counted, but what failed before had the skipped record."""
    policy = RetryPolicy(retries_max=3, backoff=BACKOFF)
    discard = skipped(work(TRIED), among({2}), in_runs=True)
    assert discard is not None
    assert (discard.invoke_count, discard.request_id, discard.response) == (6, "request", FAILED.response)
    left, _ = without(work(TRIED), discard, new_id=ids(), now=NOW)
    assert left is not None
    step = attempts.step(left, policy, now=NOW, epoch=EPOCH)
    assert isinstance(step, Invoke)
    assert (numbers_of(step.part.entries), step.part.request_id) == ([1, 3], "id-1")
    again, _ = attempts.settle(left, FAILED, policy, new_id=ids(), now=NOW, rng=Most())
    assert again is not None
    assert isinstance(attempts.step(again, policy, now=NOW, epoch=EPOCH), Discard)


def test_a_call_that_closes_a_window_has_an_id_of_its_own() -> None:
    assert ids_of(FINAL) == (closing_id(Epoch(BASE), ""),)
    discard = skipped(work(FINAL, UNTRIED), {closing_id(Epoch(BASE), "")}.__contains__, in_runs=True)
    assert discard is not None
    assert discard.entries == ()
    assert without(work(FINAL, UNTRIED), discard, new_id=ids(), now=NOW)[0] == work(UNTRIED, resume_at=NOW)
    assert skipped(work(FINAL), among({1}), in_runs=True) is None


@pytest.mark.parametrize(
    ("ends", "counted", "may"),
    [
        (BASE, "20", True),
        (BASE, "7", True),
        (BASE, "", True),
        (BASE, "21", False),
        (BASE + 10, "20", False),
    ],
    ids=[
        "as it was",
        "counting again after a crash",
        "begun again",
        "begun anew after an early end",
        "the next",
    ],
)
def test_the_call_that_closes_a_window_is_known_by_the_last_record_in_its_state(
    ends: float, counted: str, may: bool
) -> None:
    assert may_close(closing_id(Epoch(BASE), "20"), ends=Epoch(ends), counted=counted) is may


@pytest.mark.parametrize("closing", ["window:", "window:x:20", "window::", "window:60", "window:60:²"])
def test_an_id_of_a_damaged_row_closes_no_window(closing: str) -> None:
    assert not may_close(closing, ends=Epoch(60.0), counted="1")


def test_workers_of_the_version_before_read_the_memo() -> None:
    class Old(msgspec.Struct, frozen=True, array_like=True):
        last: str
        failures: int

    class OldMemo(msgspec.Struct, frozen=True):
        lanes: dict[int, tuple[Old, ...]]

    written = msgspec.json.encode(Memo(lanes={0: (PartMemo("4", 1, 1_767_225_700),)}))
    assert msgspec.json.decode(written, type=OldMemo).lanes == {0: (Old("4", 1),)}
    theirs = b'{"lanes":{"0":[["4",1]]}}'
    assert checkpoint_memo.read(theirs).lanes == {0: (PartMemo("4", 1, 0),)}


@pytest.mark.parametrize(
    ("text", "found"),
    [("17", begin_of("17")), ("017", begin_of("17")), ("17:3", begin_of("17") + 3), ("17:", None), ("17:3/4", None), ("window:60", "window:60"), ("x", None), ("", None), ("-1", None), ("¹", None), ("9" * 500, None)],
)  # fmt: skip
def test_an_id_is_a_sequence_number_or_that_of_a_closing_call(text: str, found: int | str | None) -> None:
    assert skip_id(text) == found


def test_the_oldest_pause_that_covers_a_lane_holds_it() -> None:
    def pause(name: str, since: float, **target: object) -> OperatorPause:
        return OperatorPause(
            operation=OperationId(name),
            target=OperationTarget(**target),  # type: ignore[arg-type]
            by="me",
            since=Epoch(since),
            reason="",
        )

    lane, whole = pause("lane", 1.0, shard=SHARD, lane=1), pause("whole", 2.0)
    other = pause("other", 0.0, shard=ShardId("another"))
    assert by_lane((other, lane, whole), SHARD, range(3)) == {0: whole, 1: lane, 2: whole}
    assert by_lane((other, lane), SHARD, range(3)) == {1: lane}
    assert by_lane((), SHARD, range(3)) == {}
    assert by_lane(None, SHARD, range(2)) == {0: None, 1: None}


@pytest.mark.parametrize("had", range(1, 11))
@pytest.mark.parametrize("has", range(1, 11))
def test_the_keys_of_a_paused_lane_stay_paused_when_the_number_of_lanes_changes(had: int, has: int) -> None:
    keys = [f"key-{each}" for each in range(200)]
    target = OperationTarget(shard=SHARD, lane=had - 1)
    pause = OperatorPause(
        operation=OperationId("op"), target=target, by="", since=Epoch(0.0), reason="", lanes=had
    )
    paused = by_lane((pause,), SHARD, range(has))
    assert all(lane_of(key, has) in paused for key in keys if lane_of(key, had) == had - 1)
    # The same number of lanes pauses no other keys.
    assert had != has or set(paused) == {had - 1}
