"""Owns the run of the queue suite on the SQS source, over emulators."""

import asyncio
import json
import uuid
from typing import Any

import pytest

from adapters.sources.sqs import SqsQueue
from poller.clock import LoopClock
from poller.domain.errors import PortError
from poller.rules.queues.message_encoder import MessageEncoder
from poller.testing.queue_source import EVERY, FAILING, FIFO, QueueScenario
from tests.conftest import REGION
from tests.contracts.sources.proxied import answer_with, let_through
from tests.contracts.worlds import EmulatorWorld, fresh_name
from tests.emulators import Emulator

VISIBILITY_S = 2
LAPSE_S = 2.2


class SqsWorld:
    """An SQS queue on an emulator, perhaps behind a proxy."""

    visibility_s = VISIBILITY_S

    def __init__(self, api: Any, *, url: str, account: str, name: str, queue: str) -> None:
        self._api = api
        self._url = url
        self._queue = queue
        self._arn = f"arn:aws:sqs:{REGION}:{account}"
        self.fifo = name.endswith(".fifo")
        self.source = SqsQueue(api, api, LoopClock(), arn=f"{self._arn}:{name}")

    def stranger(self) -> SqsQueue:
        return SqsQueue(self._api, self._api, LoopClock(), arn=f"{self._arn}:nobody")

    async def send(self, body: str, *, group: str = "g", tenant: str | None = None) -> None:
        standard = {} if tenant is None else {"MessageGroupId": tenant}
        fifo = {"MessageGroupId": group, "MessageDeduplicationId": uuid.uuid4().hex}
        more = fifo if self.fifo else standard
        await self._api.send_message(QueueUrl=self._queue, MessageBody=body, **more)

    async def lapse(self) -> None:
        await asyncio.sleep(LAPSE_S)

    async def fail(self, error: type[PortError]) -> None:
        await answer_with(self._url, "sqs", error)

    async def heal(self) -> None:
        await let_through(self._url)


async def on_sqs(laboratory: EmulatorWorld, url: str, scenario: QueueScenario, *, fifo: bool) -> None:
    api = await laboratory.client(url, "sqs")
    name = fresh_name() + (".fifo" if fifo else "")
    attributes = {"VisibilityTimeout": str(VISIBILITY_S)} | ({"FifoQueue": "true"} if fifo else {})
    made = await api.create_queue(QueueName=name, Attributes=attributes)
    queue = made["QueueUrl"]
    await scenario(SqsWorld(api, url=url, account=laboratory.account, name=name, queue=queue))
    await api.delete_queue(QueueUrl=queue)


def each(*groups: tuple[QueueScenario, ...]) -> pytest.MarkDecorator:
    """One test for each scenario."""
    scenarios = [scenario for group in groups for scenario in group]
    return pytest.mark.parametrize("scenario", scenarios, ids=lambda scenario: scenario.__name__)


async def from_dead_letters(laboratory: EmulatorWorld, url: str) -> None:
    """A message that came too often, received from the queue to which SQS has moved it."""
    api = await laboratory.client(url, "sqs")
    arns = f"arn:aws:sqs:{REGION}:{laboratory.account}"
    first, dead = fresh_name(), fresh_name()
    policy = json.dumps({"deadLetterTargetArn": f"{arns}:{dead}", "maxReceiveCount": "1"})
    await api.create_queue(QueueName=dead)
    attributes = {"VisibilityTimeout": "0", "RedrivePolicy": policy}
    queue = (await api.create_queue(QueueName=first, Attributes=attributes))["QueueUrl"]
    await api.send_message(QueueUrl=queue, MessageBody="bad")
    for _ in range(2):
        await api.receive_message(QueueUrl=queue)
    source = SqsQueue(api, api, LoopClock(), arn=f"{arns}:{dead}")
    (message,) = await source.receive(messages_max=10, wait_s=5)
    encoder = MessageEncoder(source_arn=f"{arns}:{dead}", region=REGION, windowed=False)
    shown = encoder.view(message)["attributes"]
    assert next(iter(shown.items())) == ("DeadLetterQueueSourceArn", f"{arns}:{first}")


def test_a_dead_letter_queue_says_first_where_its_message_came_from(
    ministack: Emulator, laboratory: EmulatorWorld
) -> None:
    laboratory.run(from_dead_letters(laboratory, ministack.url))


@each(EVERY)
def test_a_standard_queue(scenario: QueueScenario, ministack: Emulator, laboratory: EmulatorWorld) -> None:
    laboratory.run(on_sqs(laboratory, ministack.url, scenario, fifo=False))


@each(EVERY, FIFO)
def test_a_fifo_queue(scenario: QueueScenario, ministack: Emulator, laboratory: EmulatorWorld) -> None:
    laboratory.run(on_sqs(laboratory, ministack.url, scenario, fifo=True))


@each(FAILING)
@pytest.mark.parametrize("fifo", [False, True], ids=["standard", "fifo"])
def test_a_queue_behind_a_failing_proxy(
    scenario: QueueScenario, microburst: Emulator, laboratory: EmulatorWorld, *, fifo: bool
) -> None:
    laboratory.run(on_sqs(laboratory, microburst.url, scenario, fifo=fifo))
