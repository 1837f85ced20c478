"""What fails on a queue is remembered until it goes through, or is gone."""

import pytest

from poller.domain.records import Epoch, Message, Monotonic
from poller.rules.queues.failing import EXTRA_REMOVED, ITEMS_MAX, STALE_S, FailureLog, waiting_since


def message(name: str, *, group: str = "", receives: int = 1, first: str = "") -> Message:
    attributes = {"ApproximateReceiveCount": str(receives), "ApproximateFirstReceiveTimestamp": first}
    return Message(name, "r", "", attributes, {}, "", Monotonic(0.0), group=group or None)


def fail(troubles: FailureLog, *messages: Message, now: float = 0.0) -> None:
    troubles.failed(messages, "ValueError: bad", now=Epoch(now), next_try=Epoch(now + 30))


def test_a_failing_group_keeps_the_time_of_its_first_failure() -> None:
    troubles = FailureLog()
    fail(troubles, message("m", group="a"), now=10)
    fail(troubles, message("m", group="a", receives=2), now=40)
    (trouble,) = troubles.current(Epoch(41)).values()
    assert (trouble.since, trouble.receives, trouble.next_try) == (Epoch(10), 2, Epoch(70))


def test_a_group_that_failed_before_a_restart_has_been_failing_since_its_first_receive() -> None:
    troubles = FailureLog()
    fail(troubles, message("m", group="a", receives=480, first="10000"), now=14_410)
    (trouble,) = troubles.current(Epoch(14_411)).values()
    assert trouble.since == Epoch(10)
    fail(troubles, message("n", group="a", first="14420000"), now=14_430)
    (trouble,) = troubles.current(Epoch(14_431)).values()
    assert trouble.since == Epoch(10), "the group was never free meanwhile"


def came(name: str, *, receives: int) -> Message:
    """A message of group `a` that came with the others at second 10 for the first time."""
    return message(name, group="a", receives=receives, first="10000")


@pytest.mark.parametrize(
    ("leaves", "since"),
    [("nothing", 10), ("skipped", 25), ("behind it", 10), ("settled elsewhere", 40), ("dead letters", 40)],
)
def test_a_group_that_got_on_has_been_failing_since_then(leaves: str, since: float) -> None:
    troubles = FailureLog()
    fail(troubles, came("m", receives=3), came("n", receives=2), came("o", receives=2), now=10)
    match leaves:
        case "skipped":
            assert troubles.gone("a", {"m"}, Epoch(25)) is not None
        case "behind it":
            assert troubles.gone("a", {"n"}, Epoch(25)) is not None
        case "dead letters":
            assert troubles.current(Epoch(41), receives_max=3)["a"].since == Epoch(40)
    first = ["m"] if leaves in {"nothing", "behind it"} else []
    for now in (41, 80, 120):
        fail(troubles, *[came(name, receives=3) for name in [*first, "n", "o"]], now=now)
        assert troubles.current(Epoch(now))["a"].since == since


@pytest.mark.parametrize(
    ("first", "since"),
    [
        (["5000", "7000"], 5.0),
        (["", "7000"], 7.0),
        (["0"], 9.0),
        (["-5"], 9.0),
        (["soon"], 9.0),
        (["9001"], 9.0),
    ],
)
def test_a_time_that_nobody_can_mean_does_not_count(first: list[str], since: float) -> None:
    found = waiting_since([message("m", first=each) for each in first], Epoch(9.0))
    assert found == Epoch(since)


def test_a_standard_queues_messages_fail_one_by_one() -> None:
    troubles = FailureLog()
    fail(troubles, message("m1"), message("m2"))
    assert list(troubles.current(Epoch(1))) == ["m1", "m2"]


def test_a_group_that_goes_through_is_no_trouble_any_more() -> None:
    troubles = FailureLog()
    fail(troubles, message("m1", group="a"))
    troubles.done([message("m1", group="a")])
    assert troubles.current(Epoch(1)) == {}


def test_what_does_not_come_again_is_forgotten() -> None:
    troubles = FailureLog()
    fail(troubles, message("m"), now=0)
    assert troubles.current(Epoch(29 + STALE_S))
    assert troubles.current(Epoch(30 + STALE_S)) == {}


def test_what_came_again_is_remembered_as_long_as_it_is_tried() -> None:
    troubles = FailureLog()
    fail(troubles, message("m"), message("n"), now=0)
    assert list(troubles.current(Epoch(31 + STALE_S), lambda message_id: message_id == "m")) == ["m"]


def test_of_too_many_those_that_fail_for_longest_are_remembered() -> None:
    troubles = FailureLog()
    for number in range(3 * ITEMS_MAX):
        fail(troubles, message("m", group=f"g{number}"), now=number / 1000)
        assert len(troubles.current(Epoch(4))) <= ITEMS_MAX
    shown = list(troubles.current(Epoch(4)))
    assert len(shown) >= ITEMS_MAX - EXTRA_REMOVED
    assert shown[: ITEMS_MAX - EXTRA_REMOVED] == [f"g{number}" for number in range(ITEMS_MAX - EXTRA_REMOVED)]


def test_what_a_message_holds_is_not_kept() -> None:
    troubles = FailureLog()
    large = Message("m", "r", "x" * 10_000, {"SentTimestamp": "1"}, {"a": {}}, "", Monotonic(0.0), group="g")
    fail(troubles, large)
    (trouble,) = troubles.current(Epoch(1)).values()
    (kept,) = trouble.messages
    assert (kept.message_id, kept.group, kept.sent) == ("m", "g", 0.001)
    assert (kept.body, kept.message_attributes) == (None, {})
