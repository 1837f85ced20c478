"""The fake queues keep the promises of the real ones that the engine depends on."""

from collections.abc import Sequence

from poller.domain.records import Message, QueueFacts, Undone
from tests.simulation.services.contents import Content
from tests.simulation.services.queues import Delete, Extend, FakeQueue, Receive
from tests.virtual import EPOCH_BASE

T = EPOCH_BASE


def standard(*, count: int = 0, redrive: int | None = None, duplicates: float = 0.0) -> FakeQueue:
    queue = FakeQueue(QueueFacts(30, False, redrive), seed=1, duplicates=duplicates)
    for number in range(count):
        queue.send(T, Content(number))
    return queue


def fifo(*groups: str, redrive: int | None = None) -> FakeQueue:
    queue = FakeQueue(QueueFacts(30, True, redrive), seed=1)
    for number, group in enumerate(groups):
        queue.send(T, Content(number), group=group)
    return queue


def receive(queue: FakeQueue, now: float, most: int = 10) -> list[Message]:
    found = queue.apply(now, Receive(most))
    assert isinstance(found, tuple)
    return [each for each in found if isinstance(each, Message)]


def undone(found: object) -> list[tuple[str, bool]]:
    assert isinstance(found, tuple)
    return [(each.receipt, each.lapsed) for each in found if isinstance(each, Undone)]


def numbers(messages: Sequence[Message]) -> list[int]:
    return [int(each.message_id.removeprefix("message-")) for each in messages]


def test_a_received_message_is_hidden_for_its_visibility_timeout() -> None:
    queue = standard(count=1)
    assert len(receive(queue, T)) == 1
    assert receive(queue, T + 29.9) == []
    assert [each.attributes["ApproximateReceiveCount"] for each in receive(queue, T + 30)] == ["2"]


def test_a_standard_queue_mixes_the_order() -> None:
    assert numbers(receive(standard(count=10), T)) != list(range(10))


def test_a_receive_hands_out_no_more_than_asked() -> None:
    queue = standard(count=12)
    assert len(receive(queue, T, 4)) == 4
    assert len(receive(queue, T)) == 8


def test_some_messages_of_a_standard_queue_come_twice() -> None:
    queue = standard(count=20, duplicates=0.5)
    first = receive(queue, T) + receive(queue, T)
    again = set(numbers(receive(queue, T + 1))) & set(numbers(first))
    assert again
    assert all(queue.letters[f"message-{number:06d}"].early for number in again)


def test_a_deleted_message_never_comes_again() -> None:
    queue = standard(count=1)
    receipt = receive(queue, T)[0].receipt
    assert queue.apply(T + 1, Delete((receipt,))) == ()
    assert receive(queue, T + 100) == []


def test_deleting_twice_is_no_error() -> None:
    queue = standard(count=1)
    receipt = receive(queue, T)[0].receipt
    queue.apply(T + 1, Delete((receipt,)))
    assert queue.apply(T + 2, Delete((receipt,))) == ()


def test_an_old_receipt_has_lapsed_once_the_message_came_again() -> None:
    queue = standard(count=1)
    old = receive(queue, T)[0].receipt
    receive(queue, T + 31)
    assert undone(queue.apply(T + 32, Delete((old,)))) == [(old, True)]
    assert len(receive(queue, T + 62)) == 1


def test_a_standard_queue_deletes_by_the_latest_receipt_after_the_timeout() -> None:
    queue = standard(count=1)
    receipt = receive(queue, T)[0].receipt
    assert queue.apply(T + 40, Delete((receipt,))) == ()


def test_a_fifo_queue_does_not() -> None:
    queue = fifo("a")
    receipt = receive(queue, T)[0].receipt
    assert undone(queue.apply(T + 40, Delete((receipt,)))) == [(receipt, True)]


def test_extending_hides_a_message_from_now_on() -> None:
    queue = standard(count=1)
    receipt = receive(queue, T)[0].receipt
    assert queue.apply(T + 20, Extend((receipt,), 60)) == ()
    assert receive(queue, T + 79) == []
    assert len(receive(queue, T + 80)) == 1


def test_extending_by_nothing_shows_the_message_at_once() -> None:
    queue = standard(count=1)
    receipt = receive(queue, T)[0].receipt
    queue.apply(T + 1, Extend((receipt,), 0))
    assert len(receive(queue, T + 1)) == 1


def test_a_message_that_is_not_in_flight_cannot_be_extended() -> None:
    queue = standard(count=1)
    receipt = receive(queue, T)[0].receipt
    assert undone(queue.apply(T + 31, Extend((receipt,), 60))) == [(receipt, True)]


def test_a_group_is_locked_while_an_earlier_message_is_hidden() -> None:
    queue = fifo("a", "b", "a", "b")
    assert numbers(receive(queue, T, 1)) == [0]
    assert numbers(receive(queue, T + 1)) == [1, 3]
    assert receive(queue, T + 2) == []


def test_one_receive_may_hold_several_messages_of_a_group_in_order() -> None:
    assert numbers(receive(fifo("a", "b", "a", "a"), T)) == [0, 1, 2, 3]


def test_a_group_is_free_again_when_its_messages_are_deleted() -> None:
    queue = fifo("a", "a")
    first = receive(queue, T, 1)[0]
    queue.apply(T + 1, Delete((first.receipt,)))
    assert numbers(receive(queue, T + 1)) == [1]


def test_a_message_that_came_too_often_goes_to_the_dead_letters() -> None:
    queue = standard(count=1, redrive=2)
    for moment in (T, T + 31):
        assert len(receive(queue, moment)) == 1
    assert receive(queue, T + 62) == []
    assert [letter.content.number for letter in queue.dead] == [0]


def test_a_redriven_message_frees_its_group() -> None:
    queue = fifo("a", "a", redrive=1)
    assert numbers(receive(queue, T, 1)) == [0]
    assert numbers(receive(queue, T + 31)) == [1]


def test_fifo_messages_name_their_group_and_sequence() -> None:
    attributes = receive(fifo("a"), T)[0].attributes
    assert attributes["MessageGroupId"] == "a"
    assert attributes["SequenceNumber"].isdigit()
    assert receive(standard(count=1), T)[0].group is None


def test_the_next_message_to_show_is_known() -> None:
    queue = standard(count=1)
    assert queue.next_visible(T) is None
    receive(queue, T)
    assert queue.next_visible(T + 1) == T + 30


def attempt(queue: FakeQueue, now: float, attempt_id: str = "a") -> list[tuple[str, str]]:
    found = queue.apply(now, Receive(10, attempt_id))
    assert isinstance(found, tuple)
    messages = [each for each in found if isinstance(each, Message)]
    return [(each.receipt, each.attributes["ApproximateReceiveCount"]) for each in messages]


def test_a_repeated_attempt_is_given_the_same_receipts_and_hides_them_again() -> None:
    queue = fifo("a", "a")
    first = attempt(queue, T)
    assert len(first) == 2
    assert attempt(queue, T + 20) == first
    assert attempt(queue, T + 45, "another") == [], "hidden for 30 s from the repeated call on"
    assert [receives for _, receives in attempt(queue, T + 50, "another")] == ["2", "2"]


def test_an_attempt_is_not_repeated_once_its_messages_have_changed() -> None:
    queue = fifo("a", "b")
    first = attempt(queue, T)
    queue.apply(T + 1, Delete((first[0][0],)))
    assert attempt(queue, T + 2) == []
