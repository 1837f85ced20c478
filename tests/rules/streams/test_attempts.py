"""A lane's batch is retried, split and discarded in AWS's order (aws-behaviour#failed-batch)."""

from collections.abc import Callable, Iterator
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from poller.domain.invocations import Condition, Ended
from poller.domain.policies import Backoff, RetryPolicy
from poller.domain.records import Epoch, Monotonic
from poller.rules.responses import Accepted, Deferred, Partial, Rejected, Response, Verdict, oversized
from poller.rules.streams.attempts import (
    Advance,
    BatchState,
    Discard,
    Invoke,
    Retry,
    Split,
    Wait,
    drop,
    expires_at,
    finish,
    halve,
    interpose,
    resume,
    settle,
    start,
    step,
)
from tests.rules.build import BASE, entries, entry, ids, numbers_of

FAILED = Rejected(Ended.FUNCTION_ERROR, "E: no", Response("$LATEST", "Unhandled"))
REPORT = Response("$LATEST", None)
NEVER = Epoch(0.0)
"""A part whose age no operator has reset."""
type Answer = Callable[[list[int]], Verdict]


class History:
    """Runs a batch to its end under a policy and writes down what happened."""

    def __init__(self, policy: RetryPolicy, *, seconds_per_call: float = 0.0) -> None:
        self.policy = policy
        self.invoked: list[list[int]] = []
        self.ids: list[str] = []
        self.settled: list[int] = []
        self.discards: list[Discard] = []
        self.effects: list[object] = []
        self.now = 0.0
        self._seconds_per_call = seconds_per_call
        self._new_id = ids()
        self._rng = Random(7)

    def run(self, work: BatchState | None, answer: Answer, *, steps_max: int = 1000) -> "History":
        while work is not None and steps_max:
            steps_max -= 1
            work = self._advance(work, answer)
        assert steps_max, "never settled"
        return self

    def start(self, *numbers: int, arrived: float = BASE) -> BatchState:
        return start(
            entries(*numbers, arrived=arrived), new_id=self._new_id, now=Monotonic(self.now), epoch=Epoch(0.0)
        )

    def _advance(self, work: BatchState, answer: Answer) -> BatchState | None:
        now = Monotonic(self.now)
        match step(work, self.policy, now=now, epoch=Epoch(BASE + self.now)):
            case Wait(until):
                self.now = float(until)
                return work
            case Discard() as discard:
                self.discards.append(discard)
                left, advance = drop(work, discard, new_id=self._new_id, now=now)
                self.settled += numbers_of(advance.entries)
                return left
            case Invoke(part):
                self.now += self._seconds_per_call
                self.invoked.append(numbers_of(part.entries))
                self.ids.append(part.request_id)
                left, effects = settle(
                    work,
                    answer(self.invoked[-1]),
                    self.policy,
                    new_id=self._new_id,
                    now=Monotonic(self.now),
                    rng=self._rng,
                )
                self.effects += effects
                for effect in effects:
                    if isinstance(effect, Advance):
                        self.settled += numbers_of(effect.entries)
                return left


def _poison(number: int) -> Answer:
    return lambda batch: FAILED if number in batch else Accepted()


def _reports(number: int) -> Answer:
    def answer(batch: list[int]) -> Verdict:
        return Partial(frozenset({batch.index(number)}), REPORT) if number in batch else Accepted()

    return answer


def test_success_settles_the_batch_with_one_call() -> None:
    history = History(RetryPolicy())
    history.run(history.start(1, 2, 3), lambda _: Accepted())
    assert history.invoked == [[1, 2, 3]]
    assert history.settled == [1, 2, 3]


@pytest.mark.parametrize("retries", [0, 1, 2, 3])
def test_retries_max_gives_that_many_more_deliveries_then_discards_all(retries: int) -> None:
    history = History(RetryPolicy(retries_max=retries))
    history.run(history.start(1, 2), _poison(2))
    assert history.invoked == [[1, 2]] * (retries + 1)
    (discard,) = history.discards
    assert discard.condition is Condition.RETRIES
    assert discard.invoke_count == retries + 1
    assert discard.response == FAILED.response
    assert history.settled == [1, 2]


def test_repeated_tries_of_an_unchanged_batch_keep_their_request_id() -> None:
    history = History(RetryPolicy(retries_max=2))
    history.run(history.start(1), _poison(1))
    assert history.ids == ["id-1"] * 3
    assert history.discards[0].request_id == "id-1"


def test_a_bisect_finds_the_poison_record() -> None:
    history = History(RetryPolicy(retries_max=1, bisect=True))
    history.run(history.start(1, 2, 3, 4), _poison(2))
    assert history.invoked == [[1, 2, 3, 4], [1, 2], [1], [2], [2], [3, 4]]
    assert [(numbers_of(each.entries), each.invoke_count) for each in history.discards] == [([2], 2)]
    assert history.settled == [1, 2, 3, 4]


def test_a_bisect_with_reports_starts_at_the_reported_record() -> None:
    history = History(RetryPolicy(retries_max=1, bisect=True, report_failures=True))
    history.run(history.start(1, 2, 3, 4), _reports(2))
    assert history.invoked == [[1, 2, 3, 4], [2, 3, 4], [2], [2], [3, 4]]
    assert [numbers_of(each.entries) for each in history.discards] == [[2]]


def test_without_bisect_an_exhausted_suffix_is_discarded_whole() -> None:
    history = History(RetryPolicy(retries_max=1, report_failures=True))
    history.run(history.start(1, 2, 3, 4), _reports(2))
    assert history.invoked == [[1, 2, 3, 4], [2, 3, 4], [2, 3, 4]]
    (discard,) = history.discards
    assert numbers_of(discard.entries) == [2, 3, 4]
    assert discard.invoke_count == 2
    assert discard.response == REPORT


def test_progress_gives_a_fresh_budget_and_a_new_request_id() -> None:
    history = History(RetryPolicy(retries_max=3, report_failures=True))
    history.run(history.start(3, 4, 5), _reports(5))
    assert history.invoked == [[3, 4, 5], *[[5]] * 4]
    assert history.discards[0].invoke_count == 4
    assert history.ids == ["id-1", *["id-2"] * 4]


def test_halves_and_suffixes_get_new_request_ids() -> None:
    history = History(RetryPolicy(retries_max=0, bisect=True))
    history.run(history.start(1, 2), _poison(2))
    assert len(set(history.ids)) == 3


def test_throttles_use_up_nothing() -> None:
    answers: Iterator[Verdict] = iter([*[Deferred(Ended.THROTTLED, "busy")] * 50, FAILED])
    history = History(RetryPolicy(retries_max=0))
    history.run(history.start(1), lambda _: next(answers))
    assert len(history.invoked) == 51
    assert history.discards[0].invoke_count == 1


def test_a_function_may_say_how_long_to_wait() -> None:
    answers: Iterator[Verdict] = iter([Deferred(Ended.THROTTLED, "busy", 7.5), Accepted()])
    history = History(RetryPolicy(backoff=Backoff(0.1, 1.0)))
    history.run(history.start(1), lambda _: next(answers))
    assert history.now == 7.5


def test_only_the_expired_prefix_goes() -> None:
    history = History(RetryPolicy(age_max_s=60))
    expired = entry(1, arrived=BASE - 61)
    work = start((expired, *entries(2, 3)), new_id=ids(), now=Monotonic(0), epoch=Epoch(0.0))
    history.run(work, lambda _: Accepted())
    assert history.invoked == [[2, 3]]
    (discard,) = history.discards
    assert numbers_of(discard.entries) == [1]
    assert (discard.condition, discard.invoke_count, discard.response) == (Condition.AGE, 1, None)


def test_age_ends_endless_retries_and_reports_the_invocations() -> None:
    history = History(RetryPolicy(age_max_s=60, backoff=Backoff(8.0, 8.0)))
    history.run(history.start(1), _poison(1))
    (discard,) = history.discards
    assert discard.condition is Condition.AGE
    assert discard.invoke_count == len(history.invoked) > 1
    assert discard.response is None


def test_a_record_is_not_expired_at_exactly_its_age() -> None:
    work = start(entries(1), new_id=ids(), now=Monotonic(0), epoch=Epoch(0.0))
    policy = RetryPolicy(age_max_s=60)
    assert isinstance(step(work, policy, now=Monotonic(0), epoch=Epoch(BASE + 60)), Invoke)
    assert isinstance(step(work, policy, now=Monotonic(0), epoch=Epoch(BASE + 60.001)), Discard)


def test_used_up_retries_come_before_age() -> None:
    history = History(RetryPolicy(retries_max=0, age_max_s=60), seconds_per_call=10.0)
    old, young = entry(1, arrived=BASE - 55), entry(2)
    history.run(start((old, young), new_id=ids(), now=Monotonic(0), epoch=Epoch(0.0)), _poison(1))
    (discard,) = history.discards
    assert numbers_of(discard.entries) == [1, 2]
    assert discard.condition is Condition.RETRIES


def test_retention_ends_endless_retries_in_its_own_name() -> None:
    history = History(RetryPolicy(retention_s=3600, age_max_s=None, backoff=Backoff(600, 600)))
    history.run(history.start(1), _poison(1))
    assert [each.condition for each in history.discards] == [Condition.RETENTION]


def test_an_oversized_record_goes_through_its_retries_without_a_response() -> None:
    history = History(RetryPolicy(retries_max=2))
    history.run(history.start(1), lambda _: oversized(7_000_000, 6_000_000))
    (discard,) = history.discards
    assert (discard.condition, discard.invoke_count, discard.response) == (Condition.RETRIES, 3, None)


def test_work_left_behind_goes_on_with_its_parts_and_failures() -> None:
    work = resume(
        [(entries(1, 2), 0, NEVER), (entries(3), 2, NEVER), ((), 5, NEVER)],
        new_id=ids(),
        now=Monotonic(0),
        epoch=Epoch(0.0),
    )
    assert work is not None
    assert [(numbers_of(part.entries), part.failures) for part in work.parts] == [([1, 2], 0), ([3], 2)]
    assert resume([((), 1, NEVER)], new_id=ids(), now=Monotonic(0), epoch=Epoch(0.0)) is None


def test_expiry_is_the_first_limit_that_counts() -> None:
    work = start(entries(1), new_id=ids(), now=Monotonic(0), epoch=Epoch(0.0))
    assert expires_at(work, RetryPolicy()) is None
    assert expires_at(work, RetryPolicy(age_max_s=60, retention_s=3600)) == BASE + 60
    assert expires_at(work, RetryPolicy(age_max_s=6000, retention_s=3600)) == BASE + 3600


def test_effects_name_retries_and_splits() -> None:
    history = History(RetryPolicy(retries_max=1, bisect=True))
    history.run(history.start(1, 2), _poison(2))
    kinds = [type(effect) for effect in history.effects]
    assert kinds == [Split, Advance, Retry]


VERDICTS = st.sampled_from(["ok", "fail", "defer", "partial"])


@given(
    size=st.integers(1, 12),
    script=st.lists(VERDICTS, max_size=60),
    retries=st.none() | st.integers(0, 3),
    bisect=st.booleans(),
    age=st.none() | st.integers(60, 120),
    seed=st.integers(0, 1000),
)
def test_every_record_is_settled_once_and_in_order(
    size: int,
    script: list[str],
    retries: int | None,
    bisect: bool,
    age: int | None,
    seed: int,
) -> None:
    rng, left = Random(seed), list(script)

    def answer(batch: list[int]) -> Verdict:
        match left.pop() if left else "ok":
            case "fail":
                return FAILED
            case "defer":
                return Deferred(Ended.UNREACHABLE, "down")
            case "partial":
                return Partial(frozenset({rng.randrange(len(batch))}), REPORT)
            case _:
                return Accepted()

    history = History(
        RetryPolicy(retries_max=retries, age_max_s=age, bisect=bisect, report_failures=True),
        seconds_per_call=1.0,
    )
    history.run(history.start(*range(size)), answer)
    assert history.settled == list(range(size))
    for batch in history.invoked:
        assert batch == sorted(batch)
    if retries is not None:
        budget = [each for each in history.discards if each.condition is Condition.RETRIES]
        assert all(each.invoke_count == retries + 1 for each in budget)


def test_an_event_of_several_records_that_is_too_big_is_split_free_of_charge() -> None:
    history = History(RetryPolicy(retries_max=0))
    left, effects = halve(history.start(1, 2, 3), new_id=ids(), now=Monotonic(5.0))
    assert [[numbers_of(part.entries), part.failures] for part in left.parts] == [[[1], 0], [[2, 3], 0]]
    assert left.resume_at == 5.0
    assert effects == [Split(3)]


def test_a_batch_of_an_earlier_run_is_tried_once_more_before_it_is_given_up() -> None:
    """Its settings may be others since then; and what is told of its end is what the function said."""
    history = History(RetryPolicy(retries_max=2))
    work = resume([(entries(1, 2), 8, NEVER)], new_id=ids(), now=Monotonic(0), epoch=Epoch(0.0))
    assert work is not None
    history.run(work, _poison(1))
    assert history.invoked == [[1, 2]]
    (discard,) = history.discards
    assert (numbers_of(discard.entries), discard.condition, discard.invoke_count) == (
        [1, 2],
        Condition.RETRIES,
        3,
    )
    assert discard.response is not None


def test_bisect_that_is_switched_on_saves_the_records_beside_a_poison_that_failed_long_before() -> None:
    history = History(RetryPolicy(retries_max=0, bisect=True))
    work = resume([(entries(1, 2, 3), 8, NEVER)], new_id=ids(), now=Monotonic(0), epoch=Epoch(0.0))
    assert work is not None
    history.run(work, _poison(1))
    assert history.invoked == [[1, 2, 3], [1], [2, 3]]
    assert [numbers_of(discard.entries) for discard in history.discards] == [[1]]


def test_failures_of_an_earlier_run_count_within_the_present_settings() -> None:
    history = History(RetryPolicy(retries_max=3))
    work = resume([(entries(1), 2, NEVER)], new_id=ids(), now=Monotonic(0), epoch=Epoch(0.0))
    assert work is not None
    history.run(work, _poison(1))
    assert history.invoked == [[1], [1]]


ENDS = Epoch(BASE + 10)
"""When the time of the window is over that ends early."""


def _behind_early_end(history: History, *numbers: int) -> BatchState:
    """A batch with these records behind a call that ends its window early."""
    return interpose(history.start(*numbers), ends=ENDS, new_id=lambda: "id-early")


def test_an_early_end_goes_in_front_and_leaves_the_batch_as_it_was() -> None:
    left = resume(
        [(entries(1, 2), 0, NEVER), (entries(3), 2, NEVER)],
        new_id=ids(),
        now=Monotonic(5.0),
        epoch=Epoch(0.0),
    )
    assert left is not None
    work = interpose(left, ends=ENDS, new_id=lambda: "id-early")
    early = work.parts[0]
    assert (early.entries, early.request_id, early.failures) == ((), "id-early", 0)
    assert early.final
    assert early.early
    assert work.parts[1:] == left.parts
    assert work.resume_at == 5.0


def test_the_batch_comes_after_an_early_end_under_its_own_request_id() -> None:
    history = History(RetryPolicy())
    history.run(_behind_early_end(history, 1, 2), lambda _: Accepted())
    assert history.invoked == [[], [1, 2]]
    assert history.ids == ["id-early", "id-1"]
    assert history.settled == [1, 2]


@pytest.mark.parametrize("bisect", [False, True])
def test_an_early_end_that_fails_keeps_the_batch_waiting_and_uses_up_nothing_of_it(bisect: bool) -> None:
    history = History(RetryPolicy(retries_max=1, bisect=bisect))
    answers: Iterator[Verdict] = iter([FAILED, Accepted()])
    history.run(_behind_early_end(history, 1), lambda batch: FAILED if batch else next(answers))
    assert history.invoked == [[], [], [1], [1]]
    assert history.ids == ["id-early"] * 2 + ["id-1"] * 2
    assert [numbers_of(each.entries) for each in history.discards] == [[1]]


def test_an_early_end_that_fails_for_good_is_given_up_without_the_batch() -> None:
    history = History(RetryPolicy(retries_max=2, bisect=True))
    history.run(_behind_early_end(history, 1, 2), lambda batch: Accepted() if batch else FAILED)
    assert history.invoked == [[], [], [], [1, 2]]
    (discard,) = history.discards
    assert (discard.entries, discard.condition, discard.invoke_count) == ((), Condition.RETRIES, 3)
    assert (discard.request_id, discard.response) == ("id-early", FAILED.response)
    assert history.settled == [1, 2]


def test_throttles_of_an_early_end_use_up_nothing() -> None:
    answers: Iterator[Verdict] = iter([*[Deferred(Ended.THROTTLED, "busy")] * 5, Accepted()])
    history = History(RetryPolicy(retries_max=0))
    history.run(_behind_early_end(history, 1), lambda batch: Accepted() if batch else next(answers))
    assert history.invoked == [[]] * 6 + [[1]]
    assert history.discards == []


def test_a_record_that_gets_too_old_behind_an_early_end_goes_after_it() -> None:
    policy = RetryPolicy(age_max_s=60)
    old = entry(1, arrived=BASE - 61)
    batch = start((old, *entries(2)), new_id=ids(), now=Monotonic(0), epoch=Epoch(0.0))
    work = interpose(batch, ends=ENDS, new_id=ids())
    assert expires_at(work, policy) is None
    history = History(policy).run(work, lambda _: Accepted())
    assert history.invoked == [[], [2]]
    assert [numbers_of(each.entries) for each in history.discards] == [[1]]
    assert history.settled == [1, 2]


@pytest.mark.parametrize(
    ("policy", "condition"),
    [(RetryPolicy(age_max_s=60), Condition.AGE), (RetryPolicy(retention_s=60.0), Condition.RETENTION)],
)
def test_a_call_that_closes_a_window_is_given_up_when_its_window_ended_too_long_ago(
    policy: RetryPolicy, condition: Condition
) -> None:
    work: BatchState | None = finish(early=False, ends=ENDS, new_id=ids(), now=Monotonic(0))
    assert work is not None
    assert expires_at(work, policy) is None
    late = Epoch(ENDS + 61)
    assert isinstance(step(work, policy, now=Monotonic(0), epoch=late), Invoke)
    work, _ = settle(work, FAILED, policy, new_id=ids(), now=Monotonic(0), rng=Random(1))
    assert work is not None
    assert expires_at(work, policy) == ENDS + 60
    assert isinstance(step(work, policy, now=Monotonic(0), epoch=Epoch(ENDS + 59)), Wait)
    discard = step(work, policy, now=Monotonic(0), epoch=late)
    assert isinstance(discard, Discard)
    assert (discard.entries, discard.condition, discard.invoke_count) == ((), condition, 1)
    left, _ = drop(work, discard, new_id=ids(), now=Monotonic(0))
    assert left is None
