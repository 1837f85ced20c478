"""The checker of redrives finds wrong histories: other batches, what is removed unsettled, what is called in vain, and what is left."""

from collections.abc import Callable
from random import Random
from typing import Any

import pytest

from poller.domain.invocations import FunctionError, Outcome, Succeeded
from poller.domain.operations import Action, Operation, OperationId, OperationRequest, OperationState
from poller.domain.records import Epoch, MappingId, QueueFacts
from tests.simulation.checks.ledger import Flight, Violation
from tests.simulation.checks.redrive_checks import RedriveChecks
from tests.simulation.histories.bench import worker
from tests.simulation.services.contents import Content
from tests.simulation.services.dead_letters import KIND
from tests.simulation.services.faults import Marks
from tests.simulation.services.functions import Delivered, Delivery
from tests.simulation.services.notices import Form, InWork, Kept, NoticePlace, Reader
from tests.simulation.services.queues import FakeQueue

MAPPING = MappingId("m")
PLACE, DEAD = "arn:place", "arn:dead"
GOOD = Succeeded(b"")


class Redrives:
    """The checks of one place with one notice, about the records 1 and 2, and of one dead-letter queue."""

    def __init__(self, *, paused: bool = False, fifo: bool = False) -> None:
        self.notices = NoticePlace(rng=Random(1))
        self.notices.kept["n"] = Kept("n", b"", Form.PAYLOAD, None, arrived=1.0)
        self.dead = FakeQueue(QueueFacts(30, fifo))
        self.checks = RedriveChecks(
            Marks(), lambda _worker, _mapping, _at: paused, self.notices, {DEAD: self.dead}
        )
        self._calls = 0

    def reader(self, name: str = "ann", place: str = PLACE) -> Reader:
        work = InWork("n", ("1", "2"), b"event", Form.PAYLOAD)
        return Reader(worker(name), place, MAPPING, work)

    def begin(self, reader: Reader, *called: str, payload: bytes = b"event") -> int:
        self._calls += 1
        records = tuple(Delivered(each, Content(1)) for each in called or ("1", "2"))
        delivery, orders = Delivery("arn", records, {}), frozenset[str]()
        name = reader.line.name
        flight = Flight(self._calls, name, "f", MAPPING, delivery, "r", 0.0, orders, 0.0)
        self.checks.begins(flight, reader, payload)
        return self._calls

    def call(self, reader: Reader, outcome: Outcome | None = GOOD) -> None:
        assert self.checks.ends(self.begin(reader), outcome, reports=False)

    def stored(self, state: OperationState, *, settled: int = 0, place: str = PLACE, **members: Any) -> None:
        request = OperationRequest(action=Action.REDRIVE, members={"from": place, **members})
        progress = {"settled": settled}
        operation = Operation(
            operation=OperationId("op"),
            mapping=MAPPING,
            request=request,
            created=Epoch(2.0),
            state=state,
            progress=progress,
        )
        self.checks.stored(operation)

    def letter(self, number: int, *, group: str | None = None) -> Reader:
        letter = self.dead.send(1.0, Content(number), group=group)
        work = InWork(letter.message_id, (letter.message_id,), None, KIND)
        return Reader(worker(), DEAD, MAPPING, work)


def settled_and_removed(redrives: Redrives) -> None:
    reader = redrives.reader()
    redrives.call(reader)
    redrives.checks.removes(reader, "n")
    redrives.notices.kept["n"].removed = True
    redrives.stored(OperationState.DONE, settled=1)


def failed_and_left(redrives: Redrives) -> None:
    redrives.call(redrives.reader(), FunctionError("ValueError", "bad"))
    redrives.stored(OperationState.FAILED)


def called_again_after_a_crash(redrives: Redrives) -> None:
    reader = redrives.reader()
    redrives.call(reader)
    reader.line.crash()
    redrives.call(redrives.reader("bob"))


def called_again_after_a_fault(redrives: Redrives) -> None:
    reader = redrives.reader()
    redrives.call(reader)
    reader.line.stumble()
    redrives.call(redrives.reader("bob"))


def called_beside_a_worker_that_was_stopped(redrives: Redrives) -> None:
    reader = redrives.reader()
    redrives.begin(reader)
    reader.line.stumble()
    redrives.begin(redrives.reader("bob"))


def left_by_a_limit(redrives: Redrives) -> None:
    redrives.stored(OperationState.DONE, limit=1)
    redrives.stored(OperationState.DONE, dry_run=True)


def a_group_in_order(redrives: Redrives) -> None:
    first, second = redrives.letter(1, group="g"), redrives.letter(2, group="g")
    redrives.begin(first, "message-000001")
    redrives.dead.letters["message-000001"].deleted = True
    redrives.begin(second, "message-000002")


@pytest.mark.parametrize(
    "history",
    [
        settled_and_removed,
        failed_and_left,
        called_again_after_a_crash,
        called_again_after_a_fault,
        called_beside_a_worker_that_was_stopped,
        left_by_a_limit,
    ],
    ids=lambda each: each.__name__,
)
def test_a_right_redrive_passes(history: Callable[[Redrives], None]) -> None:
    history(Redrives())


def test_a_group_of_a_dead_letter_queue_passes_in_its_order() -> None:
    a_group_in_order(Redrives(fifo=True))


def nothing_was_read(redrives: Redrives) -> None:
    reader = redrives.reader()
    reader.work = None
    redrives.begin(reader)


def a_part_is_called(redrives: Redrives) -> None:
    redrives.begin(redrives.reader(), "1")


def another_event_is_called(redrives: Redrives) -> None:
    redrives.begin(redrives.reader(), payload=b"other")


def a_failed_batch_is_removed(redrives: Redrives) -> None:
    reader = redrives.reader()
    redrives.call(reader, FunctionError("ValueError", "bad"))
    redrives.checks.removes(reader, "n")


def a_batch_without_an_outcome_is_removed(redrives: Redrives) -> None:
    reader = redrives.reader()
    redrives.call(reader, None)
    redrives.checks.removes(reader, "n")


def an_accepted_batch_is_called_again(redrives: Redrives) -> None:
    reader = redrives.reader()
    redrives.call(reader)
    redrives.call(reader)


def another_calls_again_without_need(redrives: Redrives) -> None:
    redrives.call(redrives.reader())
    redrives.call(redrives.reader("bob"))


def two_call_at_once(redrives: Redrives) -> None:
    redrives.begin(redrives.reader())
    redrives.begin(redrives.reader("bob"))


def more_is_counted_than_was_removed(redrives: Redrives) -> None:
    redrives.stored(OperationState.RUNNING, settled=1)


def a_notice_is_left(redrives: Redrives) -> None:
    redrives.stored(OperationState.DONE)


def a_dead_letter_is_left(redrives: Redrives) -> None:
    redrives.letter(1)
    redrives.stored(OperationState.DONE, place=DEAD)


@pytest.mark.parametrize(
    ("history", "words"),
    [
        (nothing_was_read, "has read nothing"),
        (a_part_is_called, "called for n of"),
        (another_event_is_called, "another event"),
        (a_failed_batch_is_removed, "is not settled"),
        (a_batch_without_an_outcome_is_removed, "is not settled"),
        (an_accepted_batch_is_called_again, "it was accepted"),
        (another_calls_again_without_need, "nothing kept it"),
        (two_call_at_once, "twice at once"),
        (more_is_counted_than_was_removed, "1 are said to be settled, 0 were removed"),
        (a_notice_is_left, "are left"),
        (a_dead_letter_is_left, "are left"),
    ],
    ids=lambda each: getattr(each, "__name__", ""),
)
def test_a_wrong_redrive_is_found(history: Callable[[Redrives], None], words: str) -> None:
    with pytest.raises(Violation, match=words):
        history(Redrives())


def test_a_group_of_a_dead_letter_queue_out_of_order_is_found() -> None:
    redrives = Redrives(fifo=True)
    redrives.letter(1, group="g")
    second = redrives.letter(2, group="g")
    with pytest.raises(Violation, match="before message-000001"):
        redrives.begin(second, "message-000002")


def test_a_redrive_in_a_pause_is_found() -> None:
    redrives = Redrives(paused=True)
    with pytest.raises(Violation, match="its mapping is paused"):
        redrives.begin(redrives.reader())
