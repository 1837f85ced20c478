"""What fails on a queue is remembered until it goes through, or is gone."""

from poller.records import Epoch, Message, Monotonic
from poller.rules.troubles import STALE_S, TROUBLES_MAX, Troubles


def message(name: str, *, group: str = "", receives: int = 1) -> Message:
    attributes = {"ApproximateReceiveCount": str(receives)} | ({"MessageGroupId": group} if group else {})
    return Message(name, "r", "", attributes, {}, "", Monotonic(0.0))


def fail(troubles: Troubles, *messages: Message, now: float = 0.0) -> None:
    troubles.failed(messages, "ValueError: bad", now=Epoch(now), next_try=Epoch(now + 30))


def test_a_failing_group_keeps_the_time_of_its_first_failure() -> None:
    troubles = Troubles()
    fail(troubles, message("m", group="a"), now=10)
    fail(troubles, message("m", group="a", receives=2), now=40)
    (trouble,) = troubles.current(Epoch(41)).values()
    assert (trouble.since, trouble.receives, trouble.next_try) == (Epoch(10), 2, Epoch(70))


def test_a_standard_queues_messages_fail_one_by_one() -> None:
    troubles = Troubles()
    fail(troubles, message("m1"), message("m2"))
    assert list(troubles.current(Epoch(1))) == ["m1", "m2"]


def test_a_group_that_goes_through_is_no_trouble_any_more() -> None:
    troubles = Troubles()
    fail(troubles, message("m1", group="a"))
    troubles.done([message("m1", group="a")])
    assert troubles.current(Epoch(1)) == {}


def test_what_does_not_come_again_is_forgotten() -> None:
    troubles = Troubles()
    fail(troubles, message("m"), now=0)
    assert troubles.current(Epoch(29 + STALE_S))
    assert troubles.current(Epoch(30 + STALE_S)) == {}


def test_no_more_are_remembered_than_the_limit() -> None:
    troubles = Troubles()
    for number in range(TROUBLES_MAX + 5):
        fail(troubles, message(f"m{number}"))
    found = list(troubles.current(Epoch(1)))
    assert (len(found), found[0]) == (TROUBLES_MAX, "m5")
