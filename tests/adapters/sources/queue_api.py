"""Owns SQS's API as the library's client has it, over a fake queue on virtual time."""

import asyncio
from types import SimpleNamespace
from typing import Any, cast

from botocore.exceptions import ConnectionClosedError

from poller.domain.records import Message, QueueFacts, Undone
from tests.runtime.queues.queue_fakes import epoch
from tests.simulation.services.queues import Delete, Extend, FakeQueue, Receive


class QueueApi:
    """A client of one queue. `down` holds the times from and to which no call is answered; `lost` is how many receives lose their answer."""

    def __init__(self, queue: FakeQueue, *, down: tuple[float, float] = (0.0, 0.0), lost: int = 0) -> None:
        self.meta = SimpleNamespace(
            service_model=SimpleNamespace(service_id=SimpleNamespace(hyphenize=lambda: "sqs")),
            events=SimpleNamespace(register=_ignored, register_last=_ignored),
        )
        self.sent: list[dict[str, Any]] = []
        """What was sent to the dead-letter queue."""
        self._queue = queue
        self._down = down
        self._lost = lost

    async def get_queue_url(self, **_: Any) -> dict[str, Any]:
        return {"QueueUrl": "https://queue/1"}

    async def get_queue_attributes(self, **_: Any) -> dict[str, Any]:
        facts: QueueFacts = self._queue.facts
        fifo = {"FifoQueue": "true"} if facts.fifo else {}
        return {"Attributes": {"VisibilityTimeout": str(facts.visibility_timeout_s), **fifo}}

    async def send_message(self, **given: Any) -> dict[str, Any]:
        self.sent.append(given)
        return {}

    async def receive_message(self, **given: Any) -> dict[str, Any]:
        ends_at = epoch() + given["WaitTimeSeconds"]
        while True:
            self._answer()
            request = Receive(given["MaxNumberOfMessages"], given.get("ReceiveRequestAttemptId"))
            found = cast("tuple[Message, ...]", self._queue.apply(epoch(), request))
            if found and self._lost:
                self._lost -= 1
                raise ConnectionClosedError(endpoint_url="https://queue")
            if found or epoch() >= ends_at:
                return {"Messages": [_wire(each) for each in found]}
            await asyncio.sleep(min(1.0, ends_at - epoch()))

    async def delete_message_batch(self, **given: Any) -> dict[str, Any]:
        self._answer()
        entries = given["Entries"]
        return self._batch(entries, Delete(tuple(each["ReceiptHandle"] for each in entries)))

    async def change_message_visibility_batch(self, **given: Any) -> dict[str, Any]:
        self._answer()
        entries = given["Entries"]
        receipts = tuple(each["ReceiptHandle"] for each in entries)
        return self._batch(entries, Extend(receipts, entries[0]["VisibilityTimeout"]))

    def _batch(self, entries: list[dict[str, Any]], request: Delete | Extend) -> dict[str, Any]:
        undone = {each.receipt for each in cast("tuple[Undone, ...]", self._queue.apply(epoch(), request))}
        failed = [each for each in entries if each["ReceiptHandle"] in undone]
        return {
            "Successful": [{"Id": each["Id"]} for each in entries if each not in failed],
            "Failed": [{"Id": each["Id"], "Code": "InvalidParameterValue"} for each in failed],
        }

    def _answer(self) -> None:
        first, last = self._down
        if first <= asyncio.get_running_loop().time() < last:
            raise ConnectionClosedError(endpoint_url="https://queue")


def _wire(message: Message) -> dict[str, Any]:
    return {
        "MessageId": message.message_id,
        "ReceiptHandle": message.receipt,
        "Body": message.body,
        "MD5OfBody": message.md5_of_body,
        "Attributes": dict(message.attributes),
    }


def _ignored(*_: Any) -> None:
    return
