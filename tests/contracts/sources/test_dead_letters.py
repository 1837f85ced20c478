"""Owns the run of the dead-letter suite on the SQS source, over an emulator."""

import json
import uuid
from collections.abc import Sequence
from typing import Any

import pytest

from adapters.sources.sqs import SqsQueue
from poller.clock import LoopClock
from poller.domain.records import Message
from poller.testing.queue_source import MOVING, MOVING_FIFO, QueueScenario, receive_all
from tests.conftest import REGION
from tests.contracts.sources.test_queue_sources import SqsWorld
from tests.contracts.worlds import EmulatorWorld, fresh_name
from tests.emulators import Emulator

VISIBILITY_S = 30


class WorldWithDeadLetters(SqsWorld):
    """An SQS queue with a dead-letter queue."""

    visibility_s = VISIBILITY_S

    def __init__(self, api: Any, *, url: str, account: str, names: tuple[str, str, str], queue: str) -> None:
        super().__init__(api, url=url, account=account, name=names[0], queue=queue)
        self._dead = SqsQueue(api, api, LoopClock(), arn=f"{self._arn}:{names[1]}")
        self._plain = SqsQueue(api, api, LoopClock(), arn=f"{self._arn}:{names[2]}")

    @property
    def letters(self) -> SqsQueue:
        return self.source

    def without_dead_letters(self) -> SqsQueue:
        return self._plain

    async def dead(self, count: int) -> Sequence[Message]:
        found: list[Message] = []
        for _ in range(count):
            found += await self._dead.receive(messages_max=10, wait_s=1)
        return found

    async def send_with(self, body: str, attributes: dict[str, Any], trace: str) -> None:
        fifo = {"MessageGroupId": "g", "MessageDeduplicationId": uuid.uuid4().hex} if self.fifo else {}
        header = {"AWSTraceHeader": {"DataType": "String", "StringValue": trace}}
        await self._api.send_message(
            QueueUrl=self._queue,
            MessageBody=body,
            MessageAttributes=attributes,
            MessageSystemAttributes=header,
            **fifo,
        )


async def a_copy_has_all_attributes(world: WorldWithDeadLetters) -> None:
    given = {
        "text": {"DataType": "String", "StringValue": "ä\n"},
        "count": {"DataType": "Number.int", "StringValue": "12"},
        "bytes": {"DataType": "Binary.png", "BinaryValue": bytes(range(256))},
    }
    trace = "Root=1-5759e988-bd862e3fe1be46a994272793;Sampled=1"
    await world.send_with("a", given, trace)
    (message,) = await receive_all(world, 1)
    await world.letters.send_to_dead_letters(message)
    (copy,) = await world.dead(1)
    assert copy.message_attributes == message.message_attributes
    assert set(copy.message_attributes) == set(given)
    assert copy.md5_of_message_attributes == message.md5_of_message_attributes
    assert copy.attributes.get("AWSTraceHeader") == message.attributes.get("AWSTraceHeader")


async def on_sqs(laboratory: EmulatorWorld, url: str, scenario: QueueScenario, *, fifo: bool) -> None:
    api = await laboratory.client(url, "sqs")
    more = {"FifoQueue": "true"} if fifo else {}
    end = ".fifo" if fifo else ""
    names = (fresh_name() + end, fresh_name() + end, fresh_name() + end)
    for name in names[1:]:
        await api.create_queue(QueueName=name, Attributes=more)
    arn = f"arn:aws:sqs:{REGION}:{laboratory.account}:{names[1]}"
    policy = json.dumps({"deadLetterTargetArn": arn, "maxReceiveCount": "9"})
    attributes = {"VisibilityTimeout": str(VISIBILITY_S), "RedrivePolicy": policy} | more
    made = await api.create_queue(QueueName=names[0], Attributes=attributes)
    world = WorldWithDeadLetters(
        api, url=url, account=laboratory.account, names=names, queue=made["QueueUrl"]
    )
    await scenario(world)


def each(*groups: tuple[QueueScenario, ...]) -> pytest.MarkDecorator:
    """One test for each scenario."""
    scenarios = [scenario for group in groups for scenario in group]
    return pytest.mark.parametrize("scenario", scenarios, ids=lambda scenario: scenario.__name__)


@each(MOVING, (a_copy_has_all_attributes,))
def test_a_standard_queue_moves_messages(
    scenario: QueueScenario, ministack: Emulator, laboratory: EmulatorWorld
) -> None:
    laboratory.run(on_sqs(laboratory, ministack.url, scenario, fifo=False))


@each(MOVING, MOVING_FIFO, (a_copy_has_all_attributes,))
def test_a_fifo_queue_moves_messages(
    scenario: QueueScenario, ministack: Emulator, laboratory: EmulatorWorld
) -> None:
    laboratory.run(on_sqs(laboratory, ministack.url, scenario, fifo=True))
