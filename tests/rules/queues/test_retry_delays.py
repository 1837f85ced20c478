"""Failed messages wait as long as their function or their mapping says, a group as one, and never beyond what SQS hides."""

import math
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from poller.domain.invocations import Ended
from poller.domain.policies import BatchPolicy, RetryBackoff
from poller.domain.records import Epoch, Message, Monotonic, Undone
from poller.rules.queues.in_flight import InFlightTracker
from poller.rules.queues.receive_batch import QueueItem
from poller.rules.queues.retry_delays import DELAYS_MAX, DelayCall, RetryDelays, backoff_s, waits_of
from poller.rules.queues.visibility import VISIBILITY_S_MAX, InFlightMessage, VisibilityPolicy
from poller.rules.responses import Partial, Rejected, Response, Verdict
from poller.rules.retry_after import RetryAfter
from tests.rules.build import ENCODER

TEN = RetryBackoff(10.0, 2.0, 60.0)
ANSWER = Response("1", None)
POLICIES = st.builds(
    lambda base_s, factor, more_s: RetryBackoff(base_s, factor, min(base_s + more_s, VISIBILITY_S_MAX)),
    st.floats(0.001, VISIBILITY_S_MAX),
    st.floats(1, 100),
    st.floats(0, VISIBILITY_S_MAX),
)
WAITS = st.floats(0, 999_999_999) | st.integers(0, 100)


def message(name: str, receives: int = 1, *, at: float = 0.0) -> Message:
    """The first character is the group; a name of digits has none."""
    group = name[0] if name[0].isalpha() else None
    attributes = {"ApproximateReceiveCount": str(receives)} if receives else {}
    return Message(name, f"{name}#{receives}", "", attributes, {}, "", Monotonic(at), group=group)


@pytest.mark.parametrize(
    ("policy", "receives", "wait_s"),
    [
        (TEN, 0, 10.0),
        (TEN, 1, 10.0),
        (TEN, 2, 20.0),
        (TEN, 3, 40.0),
        (TEN, 4, 60.0),
        (TEN, 1_000_000, 60.0),
        (RetryBackoff(0.5), 1, 0.5),
        (RetryBackoff(0.5), 11, 512.0),
        (RetryBackoff(0.5), 12, 900.0),
        (RetryBackoff(30.0, 1.0, 30.0), 10**9, 30.0),
        (RetryBackoff(1.0, 100.0, 43_200.0), 10**9, 43_200.0),
    ],
)
def test_the_wait_grows_with_the_receives_up_to_the_cap(
    policy: RetryBackoff, receives: int, wait_s: float
) -> None:
    assert backoff_s(policy, receives) == wait_s


@given(POLICIES, st.lists(st.integers(0, 2**40), min_size=2, max_size=5).map(sorted))
def test_the_wait_never_shrinks_and_stays_between_zero_and_the_cap(
    policy: RetryBackoff, receives: list[int]
) -> None:
    waits = [backoff_s(policy, each) for each in receives]
    assert all(before <= after for before, after in pairwise(waits))
    assert all(0 <= each <= policy.cap_s <= VISIBILITY_S_MAX for each in waits)
    assert backoff_s(policy, 1) == policy.base_s


@pytest.mark.parametrize(
    ("messages", "asked", "policy", "receives_max", "waits"),
    [
        # Without a policy only what the function asked for is put off.
        ([("1", 1), ("2", 1)], {}, None, None, {}),
        ([("1", 1), ("2", 1)], {1: 7.0}, None, None, {1: 7.0}),
        # What the function asked for wins, be it shorter or longer.
        ([("1", 3), ("2", 1)], {0: 0.0}, TEN, None, {0: 0.0, 1: 10.0}),
        ([("1", 1)], {0: 500.0}, TEN, None, {0: 500.0}),
        ([("1", 1)], {0: 50_000.0}, TEN, None, {0: 43_200.0}),
        # A group waits as one, as long as its longest.
        ([("a1", 2), ("b1", 1), ("a2", 1)], {}, TEN, None, {0: 20.0, 1: 10.0, 2: 20.0}),
        ([("a1", 1), ("a2", 1)], {1: 90.0}, TEN, None, {0: 90.0, 1: 90.0}),
        ([("a1", 1), ("a2", 1), ("b1", 1)], {0: 5.0}, None, None, {0: 5.0, 1: 5.0}),
        # The last receive has no next try.
        ([("1", 2), ("2", 3), ("3", 4)], {}, TEN, 3, {0: 20.0}),
        ([("1", 3)], {0: 90.0}, TEN, 3, {}),
        ([("a1", 3), ("a2", 1)], {0: 90.0}, TEN, 3, {1: 10.0}),
        ([("a1", 1), ("a2", 3)], {}, TEN, 3, {0: 10.0}),
        ([("1", 0)], {}, TEN, 1, {0: 10.0}),
    ],
)
def test_who_waits_how_long(
    messages: list[tuple[str, int]],
    asked: dict[int, float],
    policy: RetryBackoff | None,
    receives_max: int | None,
    waits: dict[int, float],
) -> None:
    given_messages = [message(name, receives) for name, receives in messages]
    assert waits_of(given_messages, asked, policy, receives_max=receives_max) == waits


MESSAGES = st.lists(
    st.tuples(st.sampled_from(["a", "b", "0"]), st.integers(0, 6)), min_size=1, max_size=12
).map(lambda each: [message(f"{group}{place}", receives) for place, (group, receives) in enumerate(each)])


@given(MESSAGES, st.data(), st.none() | POLICIES, st.none() | st.integers(1, 6))
def test_no_message_waits_less_than_its_own_time_and_a_group_waits_as_one(
    messages: list[Message], data: st.DataObject, policy: RetryBackoff | None, receives_max: int | None
) -> None:
    asked = data.draw(st.dictionaries(st.integers(0, len(messages) - 1), WAITS))
    waits = waits_of(messages, asked, policy, receives_max=receives_max)
    assert all(0 <= each <= VISIBILITY_S_MAX for each in waits.values())
    by_group: dict[str, set[float]] = {}
    for place, each in enumerate(messages):
        last = receives_max is not None and each.receives >= receives_max
        own = asked.get(place, None if policy is None else backoff_s(policy, each.receives))
        if last:
            assert place not in waits
        elif own is not None:
            assert waits[place] >= min(own, VISIBILITY_S_MAX)
            if each.group is None:
                assert waits[place] == min(own, VISIBILITY_S_MAX)
        if each.group is not None and place in waits:
            by_group.setdefault(each.group, set()).add(waits[place])
    assert all(len(found) == 1 for found in by_group.values())


def held(each: Message, *, taken: float = 0.0, until: float = 30.0) -> InFlightMessage:
    return InFlightMessage(each.message_id, each.receipt, each.receives, Monotonic(taken), Monotonic(until))


def at(seconds: float) -> Monotonic:
    return Monotonic(seconds)


def shown(calls: list[DelayCall]) -> list[list[tuple[str, int]]]:
    return [
        [
            (each.message.message_id, seconds)
            for each, seconds in zip(call.delays, call.visibility_s, strict=True)
        ]
        for call in calls
    ]


def test_ten_messages_share_a_call_whatever_their_waits() -> None:
    delays = RetryDelays(TEN, None)
    messages = [message(str(number), 1 + number % 3) for number in range(23)]
    delays.failed(messages[:5], [held(each) for each in messages[:5]], {}, now=at(1))
    delays.failed(messages[5:], [held(each) for each in messages[5:]], {0: 3.5}, now=at(1))
    assert len(delays) == 23
    calls = delays.take(at(1))
    assert [len(call.delays) for call in calls] == [DELAYS_MAX, DELAYS_MAX, 3]
    assert shown(calls)[0][:6] == [("0", 10), ("1", 20), ("2", 40), ("3", 10), ("4", 20), ("5", 4)]
    assert calls[0].receipts[:2] == ["0#1", "1#2"]
    assert (len(delays), delays.take(at(1))) == (0, [])


def test_a_wait_counts_from_the_failure_and_is_rounded_up() -> None:
    delays = RetryDelays(None, None)
    delays.failed([message("1")], [held(message("1"))], {0: 5.0}, now=at(1))
    assert shown(delays.take(at(1.02))) == [[("1", 5)]]
    delays.failed([message("1")], [held(message("1"))], {0: 5.0}, now=at(1))
    assert shown(delays.take(at(2.5))) == [[("1", 4)]]
    delays.failed([message("1")], [held(message("1"))], {0: 0.0}, now=at(1))
    assert shown(delays.take(at(1.02))) == [[("1", 0)]]


def test_a_message_that_others_may_have_is_left_alone() -> None:
    delays = RetryDelays(TEN, None)
    messages = [message("1"), message("2"), message("3")]
    entries = [None, held(messages[1], until=5.0), held(messages[2], until=6.0)]
    delays.failed(messages, entries, {}, now=at(5))
    assert len(delays) == 1
    assert delays.take(at(6)) == []


def test_a_message_waits_for_its_running_extension() -> None:
    delays = RetryDelays(TEN, None)
    entry = held(message("1"))
    entry.extending = True
    delays.failed([message("1")], [entry], {}, now=at(20))
    assert (delays.take(at(20)), len(delays)) == ([], 1)
    entry.extending, entry.until = False, at(60)
    assert shown(delays.take(at(35))) == [[("1", 0)]], "its time is over meanwhile"


def test_messages_are_not_shown_while_running_polls_could_catch_them() -> None:
    delays = RetryDelays(TEN, None)
    messages = [message("1", 1), message("2", 3)]
    delays.failed(messages, [held(each) for each in messages], {}, now=at(0))
    assert shown(delays.take(at(0), hidden_s_min=21.5)) == [[("1", 22), ("2", 40)]]


def test_a_queue_whose_redrive_policy_changes_is_followed() -> None:
    delays = RetryDelays(TEN, 1)
    delays.failed([message("1")], [held(message("1"))], {}, now=at(0))
    assert not delays
    delays.follow_queue(None)
    delays.failed([message("1")], [held(message("1"))], {}, now=at(0))
    assert len(delays) == 1


@given(
    taken=st.floats(0, 50_000),
    ran_s=st.floats(0, VISIBILITY_S_MAX + 100),
    linger_s=st.floats(0, 40),
    wait_s=WAITS,
    hidden_s_min=st.floats(0, 60),
)
def test_no_timeout_is_negative_or_ends_beyond_twelve_hours(
    taken: float, ran_s: float, linger_s: float, wait_s: float, hidden_s_min: float
) -> None:
    delays, each = RetryDelays(None, None), message("1")
    failed_at, sent = taken + ran_s, taken + ran_s + linger_s
    delays.failed([each], [held(each, taken=taken, until=sent + 1)], {0: wait_s}, now=at(failed_at))
    calls = delays.take(at(sent), hidden_s_min=hidden_s_min)
    if not calls:
        assert sent - taken > VISIBILITY_S_MAX - 7
        return
    ((seconds,),) = [call.visibility_s for call in calls]
    assert isinstance(seconds, int)
    assert seconds >= 0
    assert sent + seconds <= taken + VISIBILITY_S_MAX
    cut = sent + seconds >= taken + VISIBILITY_S_MAX - 7
    assert cut or sent + seconds >= failed_at + wait_s - 0.001, "it is not tried before its time"
    assert seconds <= math.ceil(max(wait_s - linger_s, hidden_s_min)) + 1


class Machine:
    """A tracker of messages in flight; each event is the whole receive."""

    def __init__(self, retry_backoff: RetryBackoff | None, receives_max: int | None = None) -> None:
        policy = VisibilityPolicy(visibility_s=30, extend=False, window_s=0.0, timeout_s=3.0)
        self.tracker = InFlightTracker(
            policy,
            BatchPolicy(10),
            one_group=False,
            retry_backoff=retry_backoff,
            receives_max=receives_max,
        )
        self.now = at(0)

    def run(self, verdict: Verdict, *messages: Message) -> list[DelayCall]:
        """Receives, runs, answers; returns the calls that put messages off."""
        reception = self.tracker.received(
            messages, asked=10, timeout_s=3.0, now=self.now, epoch=Epoch(1_000 + self.now)
        )
        items = [QueueItem.encoded_as(b"{}", each, ENCODER) for each in reception.fresh]
        receive_id = self.tracker.begin(items)
        chunk = self.tracker.choose(receive_id, items, now=self.now).chunk
        self.now = at(self.now + 1)
        self.tracker.answered(receive_id, chunk, verdict, now=self.now, epoch=Epoch(1_000 + self.now))
        return self.tracker.delays.take(self.now)

    def delayed(self, call: DelayCall, *refused: str, sent: float | None = None) -> int:
        undone = [Undone(each, "no", lapsed=True) for each in refused]
        start = self.now if sent is None else at(sent)
        return self.tracker.delayed(call, undone, sent=start, now=self.now, epoch=Epoch(1_000 + self.now))

    def next_tries(self) -> dict[str, float]:
        found = self.tracker.failing(Epoch(1_000 + self.now), receives_max=None)
        return {key: each.next_try - 1_000 for key, each in found.items()}


def test_a_failed_call_puts_off_all_and_a_report_what_it_names() -> None:
    machine = Machine(TEN)
    failure = Rejected(Ended.FUNCTION_ERROR, "bad", ANSWER)
    assert shown(machine.run(failure, message("1"), message("2", 2))) == [[("1", 10), ("2", 20)]]
    report = Partial(frozenset({0, 2}), ANSWER, retry_after=RetryAfter({2: 3.0}))
    assert shown(machine.run(report, message("3", 2), message("4"), message("5"))) == [[("3", 20), ("5", 3)]]


def test_an_event_that_was_too_large_to_send_puts_off_nothing() -> None:
    assert Machine(TEN).run(Rejected(Ended.OVERSIZED, "too large", None), message("1")) == []


def test_without_a_policy_a_failure_changes_nothing() -> None:
    machine = Machine(None)
    assert machine.run(Rejected(Ended.FUNCTION_ERROR, "bad", ANSWER), message("1")) == []
    assert machine.run(Partial(frozenset({0}), ANSWER), message("2")) == []


def test_the_next_try_is_known_when_the_call_went_through_and_is_the_old_one_before() -> None:
    machine = Machine(RetryBackoff(100.0))
    (call,) = machine.run(Rejected(Ended.FUNCTION_ERROR, "bad", ANSWER), message("1"), message("2"))
    assert machine.next_tries() == {"1": 30, "2": 30}
    machine.now = at(1.5)
    assert machine.delayed(call, "2#1", sent=1.25) == 1
    assert machine.next_tries() == {"1": 101.25, "2": 30}


def test_an_answer_that_comes_late_does_not_change_a_newer_failure() -> None:
    machine = Machine(RetryBackoff(5.0))
    failure = Rejected(Ended.FUNCTION_ERROR, "bad", ANSWER)
    (late,) = machine.run(failure, message("1"))
    machine.now = at(31)
    machine.run(failure, message("1", 2, at=31))
    machine.delayed(late)
    assert machine.next_tries() == {"1": 61}
