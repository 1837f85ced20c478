"""Received messages stay ours until their deadline, and no longer."""

import tracemalloc
from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from poller.domain.records import Message, Monotonic, Undone
from poller.rules.queues.visibility import (
    VISIBILITY_S_MAX,
    Extend,
    InFlightMessage,
    VisibilityPolicy,
    VisibilityTracker,
)


def policy(
    visibility_s: int = 30, *, extend: bool = True, window_s: float = 0.0, timeout_s: float = 30.0
) -> VisibilityPolicy:
    return VisibilityPolicy(visibility_s=visibility_s, extend=extend, window_s=window_s, timeout_s=timeout_s)


def message(name: str = "m", *, received: float = 0.0, receives: int = 1) -> Message:
    attributes = {"ApproximateReceiveCount": str(receives)}
    return Message(name, f"{name}#{receives}", "", attributes, {}, "", Monotonic(received))


def at(moment: float) -> Monotonic:
    return Monotonic(moment)


def names(extensions: list[Extend]) -> list[tuple[list[str], int]]:
    return [([held.message_id for held in each.held], each.visibility_s) for each in extensions]


@pytest.mark.parametrize(
    ("visibility_s", "hold_s"),
    [(0, 5), (1, 5), (5, 5), (30, 30), (43_200, 43_200), (50_000, 43_200)],
)
def test_an_extension_lasts_as_long_as_the_visibility_timeout(visibility_s: int, hold_s: int) -> None:
    assert policy(visibility_s).hold_s == hold_s


@pytest.mark.parametrize(
    ("visibility_s", "window_s", "timeout_s", "extend", "first_s"),
    [
        (30, 0.0, 60.0, False, None),
        (30, 5.0, 25.0, False, None),
        (30, 5.0, 26.0, False, 61),
        (60, 300.0, 900.0, False, 1230),
        (30, 5.0, 26.0, True, None),
    ],
)
def test_aws_extends_once_when_window_and_timeout_need_it(
    visibility_s: int, window_s: float, timeout_s: float, extend: bool, first_s: int | None
) -> None:
    assert policy(visibility_s, extend=extend, window_s=window_s, timeout_s=timeout_s).first_s == first_s


def test_a_message_is_due_when_a_third_of_its_time_is_left() -> None:
    holds = VisibilityTracker(policy(30))
    holds.admit([message()], now=at(1.0))
    assert holds.next_due == 20.0
    assert holds.due(at(19.9)) == []
    assert names(holds.due(at(20.0))) == [(["m"], 30)]


def test_an_extended_message_is_due_again() -> None:
    holds = VisibilityTracker(policy(30))
    holds.admit([message()], now=at(0.0))
    (extension,) = holds.due(at(20.0))
    holds.extended(extension.held, until=at(50.0))
    assert holds.until("m") == 50.0
    assert holds.next_due == 40.0


def test_a_message_is_hidden_for_twelve_hours_at_most() -> None:
    holds = VisibilityTracker(policy(VISIBILITY_S_MAX))
    holds.admit([message()], now=at(0.0))
    (extension,) = holds.due(at(28_800.0))
    assert extension.visibility_s == VISIBILITY_S_MAX - 28_800
    holds.extended(extension.held, until=at(43_200.0))
    assert holds.due(at(43_200.0)) == []
    assert holds.lapsed_of(["m"], now=at(43_200.0)) == {"m"}


def test_a_deleted_message_is_not_extended() -> None:
    holds = VisibilityTracker(policy())
    holds.admit([message("a"), message("b")], now=at(0.0))
    holds.forget(["a"])
    assert names(holds.due(at(20.0))) == [(["b"], 30)]


def test_the_aws_way_extends_once_and_at_once() -> None:
    holds = VisibilityTracker(policy(30, extend=False, window_s=10.0, timeout_s=30.0))
    holds.admit([message()], now=at(0.5))
    (extension,) = holds.due(at(0.5))
    assert extension.visibility_s == 70
    holds.extended(extension.held, until=at(70.5))
    assert holds.next_due is None
    assert not holds.lapsed_of(["m"], now=at(70.4))
    assert holds.lapsed_of(["m"], now=at(70.5)) == {"m"}


def test_without_extension_a_message_lapses_with_its_visibility_timeout() -> None:
    holds = VisibilityTracker(policy(30, extend=False))
    holds.admit([message()], now=at(0.0))
    assert holds.next_due is None
    assert holds.lapsed_of(["m"], now=at(30.0)) == {"m"}


def test_a_failed_extension_is_due_again_while_the_message_is_ours() -> None:
    holds = VisibilityTracker(policy(30))
    holds.admit([message()], now=at(0.0))
    (extension,) = holds.due(at(20.0))
    holds.postponed(extension.held, now=at(20.5), wait_s=0.1)
    assert holds.next_due == 21.5
    (extension,) = holds.due(at(21.5))
    holds.postponed(extension.held, now=at(29.9), wait_s=5.0)
    assert holds.next_due is None


@pytest.mark.parametrize(
    ("failed_at", "wait_s", "due"),
    [(20.5, 0.1, 21.5), (20.5, 3.0, 23.5), (20.5, 60.0, 25.25), (29.0, 60.0, 29.5), (29.7, 60.0, 29.9)],
)
def test_a_failed_extension_leaves_half_of_the_time_to_the_next_try(
    failed_at: float, wait_s: float, due: float
) -> None:
    holds = VisibilityTracker(policy(30))
    holds.admit([message()], now=at(0.0))
    (extension,) = holds.due(at(20.0))
    holds.postponed(extension.held, now=at(failed_at), wait_s=wait_s)
    assert holds.next_due == pytest.approx(due)


@pytest.mark.parametrize("result", ["extended", "postponed"])
def test_a_message_that_was_deleted_during_its_extension_is_not_planned_again(result: str) -> None:
    holds = VisibilityTracker(policy(30))
    holds.admit([message()], now=at(0.0))
    (extension,) = holds.due(at(20.0))
    holds.forget(["m"])
    if result == "extended":
        holds.extended(extension.held, until=at(50.0))
    else:
        holds.postponed(extension.held, now=at(20.0), wait_s=1.0)
    assert holds.next_due is None


def test_a_message_at_its_twelve_hours_is_not_extended_again_and_again() -> None:
    holds = VisibilityTracker(policy(1_800))
    holds.admit([message()], now=at(0.0))
    calls = []
    while (due := holds.next_due) is not None:
        for extension in holds.due(due):
            calls.append(due)
            holds.extended(extension.held, until=at(due + extension.visibility_s))
    assert len(calls) == 35
    assert holds.until("m") == pytest.approx(VISIBILITY_S_MAX)


def test_a_message_whose_receipt_is_gone_has_lapsed() -> None:
    holds = VisibilityTracker(policy(30))
    holds.admit([message()], now=at(0.0))
    (extension,) = holds.due(at(20.0))
    holds.gone(extension.held, now=at(20.1))
    assert holds.lapsed_of(["m"], now=at(20.1)) == {"m"}
    assert holds.due(at(100.0)) == []


def test_a_message_that_comes_late_is_not_taken() -> None:
    holds = VisibilityTracker(policy(30))
    admission = holds.admit([message(received=0.0)], now=at(30.0))
    assert (admission.fresh, admission.late) == ((), 1)
    assert len(holds) == 0


def test_a_very_short_timeout_counts_from_arrival() -> None:
    holds = VisibilityTracker(policy(2))
    assert len(holds.admit([message(received=0.0)], now=at(1.9)).fresh) == 1
    assert holds.until("m") == 3.9


def test_a_repeated_message_renews_the_hold_and_is_not_run_again() -> None:
    holds = VisibilityTracker(policy(30))
    holds.admit([message(receives=1)], now=at(0.0))
    again = holds.admit([message(receives=2, received=31.0)], now=at(31.0))
    assert (again.fresh, again.repeated) == ((), 1)
    assert holds.receipt("m") == "m#2"
    assert holds.until("m") == 61.0


def test_an_older_receipt_renews_nothing() -> None:
    holds = VisibilityTracker(policy(30))
    holds.admit([message(receives=3, received=5.0)], now=at(5.0))
    holds.admit([message(receives=2, received=6.0)], now=at(6.0))
    assert holds.receipt("m") == "m#3"
    assert holds.until("m") == 35.0


def test_without_a_receive_count_the_later_receive_has_the_newer_receipt() -> None:
    holds = VisibilityTracker(policy(30))
    for receipt, received in (("one", 0.0), ("two", 20.0), ("late", 10.0)):
        uncounted = Message("m", receipt, "", {}, {}, "", Monotonic(received))
        holds.admit([uncounted], now=at(20.0))
    assert holds.receipt("m") == "two"
    assert holds.until("m") == 50.0


@dataclass
class Queue:
    """When each message really becomes visible."""

    until: dict[str, float]


@given(
    visibility_s=st.integers(3, 120),
    arrivals=st.lists(st.tuples(st.floats(0, 300), st.floats(0, 2)), min_size=1, max_size=20),
    latency_s=st.floats(0, 0.5),
)
def test_no_message_lapses_while_extensions_go_through(
    visibility_s: int, arrivals: list[tuple[float, float]], latency_s: float
) -> None:
    holds = VisibilityTracker(policy(visibility_s))
    queue = Queue({})
    waiting = sorted((sent, delay, f"m{index}") for index, (sent, delay) in enumerate(arrivals))
    now = 0.0
    while now < 600.0:
        while waiting and waiting[0][0] + waiting[0][1] <= now:
            sent, delay, name = waiting.pop(0)
            queue.until[name] = sent + delay + visibility_s
            holds.admit([message(name, received=sent)], now=at(sent + delay))
        for extension in holds.due(at(now)):
            for held in extension.held:
                assert now < queue.until[held.message_id]
                queue.until[held.message_id] = now + latency_s + extension.visibility_s
            holds.extended(extension.held, until=at(now + extension.visibility_s))
        for name, until in queue.until.items():
            assert now < until
            ours = holds.until(name)
            assert ours is not None
            assert ours <= until
        due = holds.next_due
        arrival = waiting[0][0] + waiting[0][1] if waiting else 600.0
        now = min(600.0, arrival, due if due is not None else 600.0)


def test_holds_of_the_same_moment_are_extended_together() -> None:
    holds = VisibilityTracker(policy(30))
    holds.admit([message("a"), message("b")], now=at(0.0))
    holds.admit([message("c")], now=at(0.0))
    extensions = holds.due(at(20.0))
    assert names(extensions) == [(["a", "b", "c"], 30)]
    assert all(isinstance(held, InFlightMessage) for held in extensions[0].held)


def test_messages_that_are_gone_take_no_memory_until_their_extension_would_have_been_due() -> None:
    holds = VisibilityTracker(policy(visibility_s=43_200, extend=True))
    kept = [message(f"kept-{number}") for number in range(10)]
    holds.admit(kept, now=at(0))
    tracemalloc.start()
    try:
        for turn in range(5_000):
            some = [message(f"{turn}-{number}", received=turn / 100) for number in range(10)]
            holds.admit(some, now=at(turn / 100))
            for each in some:
                holds.forget([each.message_id])
        held_bytes, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert held_bytes < 2_000_000, "50,000 messages would take 20 MB"
    (extension,) = holds.due(at(43_200 * 2 / 3))
    assert [each.message_id for each in extension.held] == [each.message_id for each in kept]


@pytest.mark.parametrize(
    ("answer", "renewed", "until", "next_due"),
    [
        (None, False, 51.0, 41.0),
        (True, False, 22.0, None),
        (False, False, 30.0, 23.0),
        (None, True, 52.0, 42.0),
        (True, True, 52.0, 42.0),
    ],
    ids=["extended", "lapsed", "refused", "extended, but received again", "lapsed, but received again"],
)
def test_each_answer_to_an_extension_has_one_meaning(
    answer: bool | None, renewed: bool, until: float, next_due: float | None
) -> None:
    holds = VisibilityTracker(policy(30))
    holds.admit([message()], now=at(0.0))
    (extension,) = holds.due(at(20.0))
    receipts = [held.receipt for held in extension.held]
    if renewed:
        holds.admit([message(received=22.0, receives=2)], now=at(22.0))
    undone = [] if answer is None else [Undone("m#1", "why", answer)]
    holds.answered(extension, receipts, undone, sent=at(21.0), now=at(22.0))
    assert (holds.until("m"), holds.next_due) == (until, next_due)


def test_a_new_time_limit_counts_for_what_is_received_from_then_on() -> None:
    holds = VisibilityTracker(policy(30, extend=False, window_s=5.0, timeout_s=10.0))
    holds.admit([message("a")], now=at(0.0))
    assert holds.next_due is None
    holds.follow_limit(60.0)
    holds.admit([message("b")], now=at(0.0))
    assert names(holds.due(at(0.0))) == [(["b"], 95)]
