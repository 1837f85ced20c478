"""Owns the SQS source: ReceiveMessage, DeleteMessageBatch, ChangeMessageVisibilityBatch, GetQueueAttributes.
Copies for a dead-letter queue are sent by `sqs_dead_letters`.

A receive from a FIFO queue has an attempt id. If only its answer was lost, its messages are in flight and block their groups.
The next receive then repeats the id, and SQS returns the same messages again (aws-behaviour#repeated-fifo-receive).
"""

import asyncio
import itertools
import uuid
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from typing import Annotated, Any, Protocol

import msgspec
from pydantic import AfterValidator, BaseModel, ConfigDict

from adapters.aws.calls import calling, text_of, understood
from adapters.aws.clients import checked_arn, client
from adapters.aws.request_templates import FastOperation, decoded
from adapters.aws.sqs_batches import BATCH_ANSWER, BatchAnswer, undone
from adapters.sources.checks import QueueProbe
from adapters.sources.sqs_answers import (
    dead_letter_arn,
    messages,
    read_answer,
    receives_max,
    visibility_seconds,
)
from adapters.sources.sqs_dead_letters import checked, send_copy
from poller.config.field_types import AS_WHOM, IdentityName
from poller.domain.arns import Arn
from poller.domain.errors import PortError, ResourceMissing
from poller.domain.records import JsonObject, Message, Monotonic, QueueFacts, Undone
from poller.domain.telemetry.labels import SourceCall
from poller.plugins import Environment, Plugin
from poller.ports import Clock
from poller.source_ports.calls import CallCounter, uncounted

BATCH_MAX = 10
"""Messages in one call, AWS's limit."""
WAIT_S_MAX = 20
BATCHES_IN_FLIGHT_MAX = 8
"""Batched calls that one delete or extension has open at once."""
POLLS_MAX = 2_000
"""Long polls that the daemon has open at once. AWS allows 1,250 for one mapping."""
ATTEMPT_S_MAX = 240.0
"""How long a failed FIFO receive may be repeated with its attempt id. AWS knows an id for five minutes
(aws-behaviour#repeated-fifo-receive)."""
ATTEMPTS_MAX = 100


def _queue_arn(text: str) -> str:
    form = "the ARN of an SQS queue; write arn:aws:sqs:REGION:ACCOUNT:NAME"
    return checked_arn(text, service="sqs", resource=r"[A-Za-z0-9_-]{1,80}(\.fifo)?", form=form)


class SqsSettings(BaseModel):
    """Which queue to read."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    arn: Annotated[str, AfterValidator(_queue_arn)]
    identity: IdentityName | None = AS_WHOM


class SqsApi(Protocol):
    """The operations that are used. They return AWS's JSON, with binary values as base64 text."""

    async def get_queue_url(self, **parameters: Any) -> JsonObject:
        """GetQueueUrl."""
        ...

    async def get_queue_attributes(self, **parameters: Any) -> JsonObject:
        """GetQueueAttributes."""
        ...

    async def change_message_visibility_batch(self, **parameters: Any) -> JsonObject:
        """ChangeMessageVisibilityBatch."""
        ...

    async def send_message(self, **parameters: Any) -> JsonObject:
        """SendMessage, to the dead-letter queue."""
        ...


@dataclass(frozen=True, slots=True)
class _Attempt:
    """One FIFO receive that may be repeated: its id, what it asked for, and when it was first sent."""

    attempt_id: str
    messages_max: int
    first_sent: Monotonic


class SqsQueue:
    """QueueSource and MessageMover over one SQS queue, standard or FIFO."""

    def __init__(self, api: SqsApi, polls: object, clock: Clock, *, arn: str) -> None:
        """`polls` is a client of its own: a long poll keeps its connection for 20 s, and other calls must not wait for that."""
        self._api = api
        self._receives = FastOperation(polls, "ReceiveMessage", named="QueueUrl")
        self._deletes = FastOperation(api, "DeleteMessageBatch", named="QueueUrl")
        self._clock = clock
        self._arn = Arn.parse(arn)
        self._fifo = self._arn.resource.endswith(".fifo")
        self._url: str | None = None
        self._asking = asyncio.Lock()
        self._unanswered: list[_Attempt] = []
        self._attempts, self._numbers = str(uuid.uuid4()), itertools.count()
        self._count: CallCounter = uncounted

    def count_calls(self, count: CallCounter) -> None:
        """From now on `count` gets each call as it is sent."""
        self._count = count

    async def receive(self, *, messages_max: int, wait_s: float) -> Sequence[Message]:
        """Receives up to `messages_max` (1 to 10) messages; waits up to `wait_s` (0 to 20, whole seconds) for the first."""
        parameters = {
            "MaxNumberOfMessages": min(messages_max, BATCH_MAX),
            "WaitTimeSeconds": min(int(wait_s), WAIT_S_MAX),
            "MessageSystemAttributeNames": ["All"],
            "MessageAttributeNames": ["All"],
        }
        if not self._fifo:
            return await self._receive(parameters)
        return await self._receive_again(parameters, messages_max)

    async def _receive_again(self, parameters: dict[str, Any], messages_max: int) -> Sequence[Message]:
        """Receives from a FIFO queue with an attempt id, and keeps the id if there is no answer.

        If only the answer was lost, the messages are in flight and their groups are blocked for the whole visibility
        timeout. The next receive repeats the id, and SQS gives the same messages and receipts again, hidden for the whole
        visibility timeout from the repeated call on.
        """
        attempt = self._attempt(messages_max)
        try:
            return await self._receive({**parameters, "ReceiveRequestAttemptId": attempt.attempt_id})
        except PortError:
            if len(self._unanswered) < ATTEMPTS_MAX:
                self._unanswered.append(attempt)
            raise

    def _attempt(self, messages_max: int) -> _Attempt:
        now = self._clock.monotonic()
        if not self._unanswered:
            return _Attempt(self._new_attempt(), messages_max, now)
        recent = [one for one in self._unanswered if now - one.first_sent < ATTEMPT_S_MAX]
        repeated = next((one for one in recent if one.messages_max == messages_max), None)
        self._unanswered = [one for one in recent if one is not repeated]
        return repeated or _Attempt(self._new_attempt(), messages_max, now)

    def _new_attempt(self) -> str:
        return f"{self._attempts}-{next(self._numbers)}"

    async def _receive(self, parameters: Mapping[str, Any]) -> list[Message]:
        sent = self._clock.monotonic()
        body = await self._call_fast(SourceCall.RECEIVE_MESSAGE, self._receives, parameters)
        with understood("sqs ReceiveMessage"):
            return read_answer(body, sent, fifo=self._fifo)

    async def delete(self, receipts: Sequence[str]) -> Sequence[Undone]:
        """Deletes any number of messages, ten per call; returns those that were not deleted.

        Raises only if no call succeeded. A standard queue does not report an expired receipt, but success.
        """
        return await _batched(receipts, self._delete_ten)

    async def _delete_ten(self, receipts: Sequence[str]) -> list[Undone]:
        entries = [{"Id": str(index), "ReceiptHandle": receipt} for index, receipt in enumerate(receipts)]
        body = await self._call_fast(SourceCall.DELETE_MESSAGE_BATCH, self._deletes, {"Entries": entries})
        with understood("sqs DeleteMessageBatch"):
            return undone(receipts, decoded(BATCH_ANSWER, body))

    async def extend(self, receipts: Sequence[str], *, visibility_s: int | Sequence[int]) -> Sequence[Undone]:
        """Hides messages for `visibility_s` from now on, ten per call; returns those left unchanged.

        `visibility_s` is one number for all, or one for each message. Raises only if no call succeeded.
        """
        seconds = [visibility_s] * len(receipts) if isinstance(visibility_s, int) else visibility_s
        by_receipt = dict(zip(receipts, seconds, strict=True))

        async def extend_ten(ten: Sequence[str]) -> list[Undone]:
            return await self._extend_ten(ten, by_receipt)

        return await _batched(receipts, extend_ten)

    async def _extend_ten(self, receipts: Sequence[str], visibility_s: Mapping[str, int]) -> list[Undone]:
        entries = [
            {"Id": str(index), "ReceiptHandle": receipt, "VisibilityTimeout": visibility_s[receipt]}
            for index, receipt in enumerate(receipts)
        ]
        with self._on_queue("sqs ChangeMessageVisibilityBatch"):
            url = await self._queue_url()
            self._count(SourceCall.CHANGE_MESSAGE_VISIBILITY_BATCH)
            reply = await self._api.change_message_visibility_batch(QueueUrl=url, Entries=entries)
        with understood("sqs ChangeMessageVisibilityBatch"):
            return undone(receipts, msgspec.convert(reply, type=BatchAnswer))

    async def describe(self) -> QueueFacts:
        """Returns the queue's own settings. A redrive policy that cannot be read counts as none."""
        with self._on_queue("sqs GetQueueAttributes"):
            # All attributes, since a standard queue refuses a request that names FifoQueue.
            url = await self._queue_url()
            self._count(SourceCall.GET_QUEUE_ATTRIBUTES)
            reply = await self._api.get_queue_attributes(QueueUrl=url, AttributeNames=["All"])
        with understood("sqs GetQueueAttributes"):
            attributes: JsonObject = reply["Attributes"]
            return QueueFacts(
                visibility_timeout_s=visibility_seconds(attributes["VisibilityTimeout"]),
                fifo=attributes.get("FifoQueue") == "true",
                redrive_receives_max=receives_max(attributes.get("RedrivePolicy")),
                dead_letter_arn=dead_letter_arn(attributes.get("RedrivePolicy")),
                hidden=messages(attributes.get("ApproximateNumberOfMessagesNotVisible")),
            )

    async def send_to_dead_letters(self, message: Message) -> str:
        """Sends a copy of the message to the dead-letter queue of the redrive policy; returns that queue's ARN."""
        arn = checked((await self.describe()).dead_letter_arn)
        self._count(SourceCall.SEND_MESSAGE)
        await send_copy(self._api, message, queue_url=await self._queue_url(), dead_letters=arn)
        return arn

    async def _call_fast(self, call: SourceCall, fast: FastOperation, parameters: Mapping[str, Any]) -> bytes:
        """Makes one of the frequent calls; otherwise as `_on_queue`."""
        try:
            with calling(f"sqs {call}"):
                url = self._url or await self._queue_url()
                self._count(call)
                return await fast({"QueueUrl": url, **parameters})
        except ResourceMissing:
            self._url = None
            raise

    async def _queue_url(self) -> str:
        async with self._asking:
            if self._url is None:
                self._count(SourceCall.GET_QUEUE_URL)
                with calling("sqs GetQueueUrl"):
                    reply = await self._api.get_queue_url(
                        QueueName=self._arn.resource, QueueOwnerAWSAccountId=self._arn.account
                    )
                with understood("sqs GetQueueUrl"):
                    self._url = text_of(reply, "QueueUrl")
            return self._url

    @contextmanager
    def _on_queue(self, operation: str) -> Iterator[None]:
        """Maps errors. If the queue does not exist, forgets its URL: a new queue of this name may have another one."""
        try:
            with calling(operation):
                yield
        except ResourceMissing:
            self._url = None
            raise


class _Ten(Protocol):
    async def __call__(self, receipts: Sequence[str], /) -> list[Undone]: ...


async def _batched(receipts: Sequence[str], call: _Ten) -> Sequence[Undone]:
    """Runs `call` for each ten receipts, several at once. A failed call leaves its ten undone."""
    if len(receipts) <= BATCH_MAX:
        return await call(receipts) if receipts else []
    gate = asyncio.Semaphore(BATCHES_IN_FLIGHT_MAX)

    async def one(ten: Sequence[str]) -> list[Undone] | PortError:
        async with gate:
            try:
                return await call(ten)
            except PortError as error:
                return error

    tens = [receipts[start : start + BATCH_MAX] for start in range(0, len(receipts), BATCH_MAX)]
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(one(ten), name=f"batch {index}") for index, ten in enumerate(tens)]
    return _merged(tens, [task.result() for task in tasks])


def _merged(tens: Sequence[Sequence[str]], answers: Sequence[list[Undone] | PortError]) -> Sequence[Undone]:
    """Returns all that was left undone; raises the first error if every call failed."""
    failed = [answer for answer in answers if isinstance(answer, PortError)]
    if failed and len(failed) == len(answers):
        raise failed[0]
    left: list[Undone] = []
    for ten, answer in zip(tens, answers, strict=True):
        if isinstance(answer, PortError):
            left += [Undone(receipt, answer.reason, lapsed=False) for receipt in ten]
        else:
            left += answer
    return left


@asynccontextmanager
async def _open(settings: SqsSettings, env: Environment) -> AsyncIterator[SqsQueue]:
    env, region = env.acting_as(settings.identity), Arn.parse(settings.arn).region
    api: SqsApi = await client(env, "sqs", region)
    polls = await client(env, "sqs", region, purpose="long polls", connections_max=POLLS_MAX)
    yield SqsQueue(api, polls, env.clock, arn=settings.arn)


@asynccontextmanager
async def _look(settings: SqsSettings, env: Environment) -> AsyncIterator[QueueProbe]:
    lambda_client = await client(env.acting_as(settings.identity), "lambda", Arn.parse(settings.arn).region)
    async with _open(settings, env) as queue:
        yield QueueProbe(queue, lambda_client, arn=settings.arn)


plugin = Plugin("sqs", SqsSettings, _open, _look)
