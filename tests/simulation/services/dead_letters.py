"""Owns how a worker's redrive reaches a fake dead-letter queue."""

from collections.abc import Sequence
from dataclasses import replace

from poller.domain.records import Message, QueueFacts, Undone
from tests.simulation.services.fake_plugins import SimQueue
from tests.simulation.services.faults import Line, epoch
from tests.simulation.services.notices import REDRIVING, InWork, Reader, RedriveWitness
from tests.simulation.services.queues import FakeQueue

KIND = "message of a dead-letter queue"


class SimDeadLetters(SimQueue):
    """QueueSource over a dead-letter queue. One is opened for each redrive."""

    def __init__(self, queue: FakeQueue, reader: Reader, witness: RedriveWitness) -> None:
        super().__init__(
            queue, reader.line, DeadLetterWitness(queue, reader, witness), source_arn=reader.place
        )
        self._reader = reader

    async def receive(self, *, messages_max: int, wait_s: float) -> Sequence[Message]:
        """Up to `messages_max` messages."""
        REDRIVING.set(self._reader)
        messages = await super().receive(messages_max=messages_max, wait_s=wait_s)
        if messages:
            message_id = messages[-1].message_id
            self._reader.work = InWork(message_id, (message_id,), None, KIND)
        return messages

    async def describe(self) -> QueueFacts:
        """The queue's settings, and how many of its messages are hidden now."""
        return replace(await super().describe(), hidden=self._queue.hidden(epoch()))


class DeadLetterWitness:
    """Tells the judge of redrives what happens to a dead-letter queue."""

    def __init__(self, queue: FakeQueue, reader: Reader, witness: RedriveWitness) -> None:
        self._queue = queue
        self._reader = reader
        self._witness = witness

    def receives(
        self,
        line: Line,
        source_arn: str,
        messages: Sequence[Message],
        troubles: int,
        *,
        abandoned: bool = False,
    ) -> None:
        """Messages were handed out."""

    def arrives(self, line: Line, source_arn: str, messages: Sequence[Message]) -> None:
        """A worker has them."""

    def abandons(self, line: Line, source_arn: str) -> None:
        """A receive is given up, which a redrive may do at any time."""

    def waits_for_room(self, messages: Sequence[Message], source_arn: str) -> None:
        """Messages wait until the worker has room."""

    def reply_lost(self, line: Line, source_arn: str, messages: Sequence[Message]) -> None:
        """Messages were handed out and never arrived."""

    def deletes(
        self, line: Line, source_arn: str, receipts: Sequence[str], undone: Sequence[Undone], asked: float
    ) -> None:
        """Messages were deleted."""
        left = {each.receipt for each in undone}
        for receipt in receipts:
            if receipt not in left:
                self._witness.removes(self._reader, self._queue.owner_of(receipt).message_id)

    def delete_failed(self, line: Line, source_arn: str, receipts: Sequence[str]) -> None:
        """A delete failed."""

    def extends(
        self, line: Line, source_arn: str, receipts: Sequence[str], visibility_s: int, asked: float
    ) -> None:
        """Messages are hidden, or shown."""
