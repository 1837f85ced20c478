"""Operations on a queue mapping, on an emulator of SQS: failed messages are retried, skipped and moved, and a paused group waits in order."""

import asyncio
import json
import uuid
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import replace
from random import Random
from typing import Any

import pytest

from adapters.sources.sqs import SqsQueue
from adapters.stores.memory import MemoryStore
from poller.clock import LoopClock
from poller.domain.invocations import FunctionError, Invocation, Outcome, Succeeded
from poller.domain.operations import (
    Action,
    Operation,
    OperationId,
    OperationRequest,
    OperationState,
    OperationTarget,
    OperatorPause,
    PartResult,
)
from poller.domain.plan import FunctionPlan, MappingPlan, SourceKind, Tuning
from poller.domain.policies import QueuePolicy
from poller.domain.records import Epoch, MappingId, WorkerId
from poller.runtime.invoking import Function
from poller.runtime.operations.operable import ResolvedRecords, SettledRecords
from poller.runtime.queues.context import QueueContext
from poller.runtime.queues.queue_mapping import QueueMapping
from poller.runtime.stopping import Reason, Stop
from tests.conftest import REGION, fresh_account, give_credentials
from tests.contracts.worlds import EmulatorWorld, fresh_name
from tests.emulators import Emulator
from tests.runtime.fakes import Seen

pytestmark = pytest.mark.acceptance

WORKER = WorkerId("worker-1")
WAIT_S_MAX = 30.0
LOOK_S = 0.05
VISIBILITY_S = 600


@pytest.fixture
def world() -> Iterator[EmulatorWorld]:
    """A loop and an account of its own."""
    account = fresh_account()
    with pytest.MonkeyPatch.context() as patch, asyncio.Runner() as runner:
        give_credentials(patch, account)
        made = EmulatorWorld(runner, account)
        yield made
        made.close()


class Handler:
    """The function. It fails events that have a body in `bad`."""

    def __init__(self) -> None:
        self.bad: set[str] = set()
        self.done: list[str] = []
        self.calls = 0

    async def invoke(self, invocation: Invocation) -> Outcome:
        """Calls it."""
        self.calls += 1
        bodies = [each["body"] for each in json.loads(invocation.payload)["Records"]]
        if self.bad & set(bodies):
            return FunctionError("ValueError", "bad")
        self.done += bodies
        return Succeeded(b"")


class Queue:
    """A FIFO queue with a dead-letter queue on the emulator."""

    def __init__(self, api: Any, url: str, arn: str, dead: str) -> None:
        self._api, self._url, self.arn, self._dead = api, url, arn, dead

    async def send(self, *bodies: str, group: str) -> None:
        """Sends messages to a group, all at once."""
        entries = [
            {
                "Id": body,
                "MessageBody": body,
                "MessageGroupId": group,
                "MessageDeduplicationId": uuid.uuid4().hex,
                "MessageAttributes": {"k": {"DataType": "Binary", "BinaryValue": b"\x00\xff"}},
            }
            for body in bodies
        ]
        await self._api.send_message_batch(QueueUrl=self._url, Entries=entries)

    async def dead(self) -> list[tuple[str, str]]:
        """Bodies and groups of the messages in the dead-letter queue."""
        reply = await self._api.receive_message(
            QueueUrl=self._dead, MaxNumberOfMessages=10, MessageSystemAttributeNames=["All"]
        )
        return [(each["Body"], each["Attributes"]["MessageGroupId"]) for each in reply.get("Messages", ())]

    async def left(self) -> int:
        """How many messages the queue has, hidden ones too."""
        reply = await self._api.get_queue_attributes(QueueUrl=self._url, AttributeNames=["All"])
        names = ("ApproximateNumberOfMessages", "ApproximateNumberOfMessagesNotVisible")
        return sum(int(reply["Attributes"][name]) for name in names)


async def made(world: EmulatorWorld, url: str) -> tuple[Any, Queue]:
    """A client and a new queue."""
    api = await world.client(url, "sqs")
    name, dead = f"{fresh_name()}.fifo", f"{fresh_name()}.fifo"
    arns = f"arn:aws:sqs:{REGION}:{world.account}"
    fifo = {"FifoQueue": "true"}
    dead_url = (await api.create_queue(QueueName=dead, Attributes=fifo))["QueueUrl"]
    policy = json.dumps({"deadLetterTargetArn": f"{arns}:{dead}", "maxReceiveCount": "9"})
    attributes = fifo | {"VisibilityTimeout": str(VISIBILITY_S), "RedrivePolicy": policy}
    queue_url = (await api.create_queue(QueueName=name, Attributes=attributes))["QueueUrl"]
    return api, Queue(api, queue_url, f"{arns}:{name}", dead_url)


@asynccontextmanager
async def running(api: Any, queue: Queue, handler: Handler) -> AsyncIterator[QueueMapping]:
    """A mapping that consumes the queue."""
    entry = FunctionPlan(name="reader", invoker="fake", timeout_s=5.0, max_concurrency=None)
    plan = MappingPlan(
        mapping=MappingId(str(uuid.uuid4())),
        kind=SourceKind.SQS,
        source_arn=queue.arn,
        function="reader",
        function_arn=f"arn:aws:lambda:{REGION}:111122223333:function:reader",
        queue=QueuePolicy(one_group_per_batch=True),
    )
    clock = LoopClock()
    context = QueueContext(
        plan=plan,
        worker=WORKER,
        function=Function(entry, handler, Seen()),
        store=MemoryStore(),
        clock=clock,
        rng=Random(1),
        observer=Seen(),
        tuning=Tuning(),
        source=SqsQueue(api, api, clock, arn=queue.arn),
    )
    stop = Stop()
    mapping = QueueMapping(context, stop)
    async with asyncio.TaskGroup() as scope:
        scope.create_task(mapping.run(), name="mapping")
        yield mapping
        stop.request(Reason.REQUESTED, within_s=5.0)


def asked(action: Action, group: str, **members: Any) -> Operation:
    """An operation on a group."""
    return Operation(
        operation=OperationId("op-1"),
        mapping=MappingId("m"),
        request=OperationRequest(action=action, target=OperationTarget(group=group), members=members),
        created=Epoch(0.0),
        wanted=(WORKER,),
    )


async def carried_out(mapping: QueueMapping, operation: Operation) -> PartResult:
    """The result of an operation, as the daemon's follower would get it."""
    async with asyncio.timeout(WAIT_S_MAX):
        while True:
            match await mapping.carry_out(WORKER, operation):
                case PartResult() as result:
                    return result
                case ResolvedRecords(records):
                    operation = replace(operation, notes={"records": list(records)})
                case SettledRecords(records, line):
                    notes = {**operation.notes, "settled": list(records), "results": [line]}
                    operation = replace(operation, notes=notes)
                case None:
                    await asyncio.sleep(LOOK_S)


async def until(happened: Any) -> None:
    """Waits until a function says yes."""
    async with asyncio.timeout(WAIT_S_MAX):
        while not happened():
            await asyncio.sleep(LOOK_S)


async def fails_and_is_retried_and_skipped(world: EmulatorWorld, url: str) -> None:
    api, queue = await made(world, url)
    handler = Handler()
    handler.bad = {"a1"}
    async with running(api, queue, handler) as mapping:
        await queue.send("a1", "a2", "a3", group="a")
        await queue.send("b1", group="b")
        await until(lambda: handler.done == ["b1"] and any(each.last_error for each in mapping.lanes()))
        result = await carried_out(mapping, asked(Action.RETRY, "a"))
        assert result.state is OperationState.DONE
        await until(lambda: handler.calls == 3 and any(each.attempts == 2 for each in mapping.lanes()))
        # The event fails because of its first message, which is given up.
        result = await carried_out(mapping, asked(Action.SKIP, "a", records="first"))
        assert result.state is OperationState.DONE, result
        assert "moved to" in result.result
        await until(lambda: handler.done == ["b1", "a2", "a3"])
        async with asyncio.timeout(WAIT_S_MAX):
            while await queue.left():
                await asyncio.sleep(LOOK_S)
        assert await queue.dead() == [("a1", "a")]


async def is_paused_and_resumed(world: EmulatorWorld, url: str) -> None:
    api, queue = await made(world, url)
    handler = Handler()
    async with running(api, queue, handler) as mapping:
        paused = OperatorPause(
            operation=OperationId("p"),
            target=OperationTarget(group="a"),
            by="ann",
            since=Epoch(1.0),
            reason="",
        )
        mapping.apply_pauses([paused])
        await queue.send("a1", "a2", group="a")
        await queue.send("b1", group="b")
        await until(lambda: handler.done == ["b1"])
        await until(lambda: any(each.state == "paused" and each.records_count for each in mapping.lanes()))
        await asyncio.sleep(1.0)
        assert handler.done == ["b1"]
        mapping.apply_pauses([])
        await until(lambda: handler.done == ["b1", "a1", "a2"])


def test_a_group_that_fails_is_retried_and_its_first_message_is_skipped(
    ministack: Emulator, world: EmulatorWorld
) -> None:
    world.run(fails_and_is_retried_and_skipped(world, ministack.url))


def test_a_paused_group_waits_in_order_while_others_go_on(ministack: Emulator, world: EmulatorWorld) -> None:
    world.run(is_paused_and_resumed(world, ministack.url))
