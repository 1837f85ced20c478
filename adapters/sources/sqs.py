"""Owns the SQS source: ReceiveMessage, DeleteMessageBatch, ChangeMessageVisibilityBatch, GetQueueAttributes."""

import asyncio
import itertools
import json
import uuid
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from typing import Annotated, Any, Protocol

import msgspec
from pydantic import AfterValidator, BaseModel, ConfigDict

from adapters.aws import Arn, bare, checked_arn, client
from adapters.hot import Hot, decoded
from adapters.sources.probing import QueueProbe
from adapters.sources.wire import calling, understood
from poller.errors import PortError, ResourceMissing
from poller.plugins import Environment, Plugin
from poller.ports import Clock
from poller.records import JsonObject, Message, Monotonic, QueueFacts, Undone

BATCH_MAX = 10
"""Messages in one call, AWS's limit."""
WAIT_S_MAX = 20
BATCHES_IN_FLIGHT_MAX = 8
"""Batched deletes and extensions that one caller has on the way at once."""
POLLS_MAX = 2_000
"""Long polls open at once in the daemon; AWS's ceiling is 1,250 for one mapping."""
ATTEMPT_S_MAX = 240.0
"""How long a failed FIFO receive may be repeated under its attempt id; AWS knows the id for five minutes."""
ATTEMPTS_MAX = 100
SYSTEM_ATTRIBUTES = (
    "ApproximateReceiveCount",
    "AWSTraceHeader",
    "SentTimestamp",
    "SequenceNumber",
    "MessageGroupId",
    "SenderId",
    "MessageDeduplicationId",
    "ApproximateFirstReceiveTimestamp",
)
"""In the order of events (spec 1.3): a standard queue's are those that remain when FIFO's are left out."""
LAPSED_CODES = frozenset(
    {
        "ReceiptHandleIsInvalid",
        "InvalidParameterValue",
        "InvalidParameterValueException",
        "MessageNotInflight",
    }
)
"""What SQS answers for one message whose receipt is not good any more; a FIFO queue's expired one is InvalidParameterValue."""


def _queue_arn(text: str) -> str:
    form = "the ARN of an SQS queue; write arn:aws:sqs:REGION:ACCOUNT:NAME"
    return checked_arn(text, service="sqs", resource=r"[A-Za-z0-9_-]{1,80}(\.fifo)?", form=form)


class SqsSettings(BaseModel):
    """Which queue to read."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    arn: Annotated[str, AfterValidator(_queue_arn)]


class SqsApi(Protocol):
    """The operations, answered as AWS's JSON with binary values as base64 text."""

    async def get_queue_url(self, **parameters: Any) -> JsonObject:
        """GetQueueUrl."""
        ...

    async def get_queue_attributes(self, **parameters: Any) -> JsonObject:
        """GetQueueAttributes."""
        ...

    async def change_message_visibility_batch(self, **parameters: Any) -> JsonObject:
        """ChangeMessageVisibilityBatch."""
        ...


class _Wire(msgspec.Struct, frozen=True, rename="pascal"):
    message_id: str
    receipt_handle: str
    body: str
    md5_of_body: str = msgspec.field(name="MD5OfBody")
    attributes: dict[str, str] | None = None
    message_attributes: dict[str, JsonObject] | None = None
    md5_of_message_attributes: str | None = msgspec.field(name="MD5OfMessageAttributes", default=None)


class _Received(msgspec.Struct, frozen=True, rename="pascal"):
    """What ReceiveMessage answers."""

    messages: list[_Wire] | None = None


class _Done(msgspec.Struct, frozen=True, rename="pascal"):
    id: str


class _Refused(msgspec.Struct, frozen=True, rename="pascal"):
    id: str
    code: str = "Unknown"


class _Batch(msgspec.Struct, frozen=True, rename="pascal"):
    """What a batched call answers."""

    successful: list[_Done] | None = None
    failed: list[_Refused] | None = None


_RECEIVED = msgspec.json.Decoder(_Received)
_BATCH = msgspec.json.Decoder(_Batch)


@dataclass(frozen=True, slots=True)
class _Attempt:
    """One FIFO receive that may be repeated: its id, what it asked for, and when it was first sent."""

    attempt_id: str
    messages_max: int
    sent: Monotonic


class SqsQueue:
    """QueueSource over one SQS queue, standard or FIFO."""

    def __init__(self, api: SqsApi, polls: object, clock: Clock, *, arn: str) -> None:
        """`polls` is a client apart: long polls hold their connections for 20 s, and nothing may wait behind them."""
        self._api = api
        self._receives = Hot(polls, "ReceiveMessage", named="QueueUrl")
        self._deletes = Hot(api, "DeleteMessageBatch", named="QueueUrl")
        self._clock = clock
        self._arn = Arn.of(arn)
        self._url: str | None = None
        self._asking = asyncio.Lock()
        self._unanswered: list[_Attempt] = []
        self._attempts, self._count = str(uuid.uuid4()), itertools.count()

    async def receive(self, *, messages_max: int, wait_s: float) -> Sequence[Message]:
        """Up to `messages_max` (1 to 10) messages, waiting up to `wait_s` (0 to 20, whole seconds) for the first."""
        parameters = {
            "MaxNumberOfMessages": min(messages_max, BATCH_MAX),
            "WaitTimeSeconds": min(int(wait_s), WAIT_S_MAX),
            "MessageSystemAttributeNames": list(SYSTEM_ATTRIBUTES),
            "MessageAttributeNames": ["All"],
        }
        if not self._arn.resource.endswith(".fifo"):
            return await self._receive(parameters, self._clock.monotonic())
        return await self._receive_again(parameters, messages_max)

    async def _receive_again(self, parameters: dict[str, Any], messages_max: int) -> Sequence[Message]:
        """A FIFO receive under an attempt id, which is kept while the receive has no answer.

        When only the answer was lost, the messages are in flight and their groups are blocked for the whole visibility
        timeout. The next receive repeats the id, and SQS gives the same messages and receipts again.
        """
        attempt = self._attempt(messages_max)
        try:
            return await self._receive(
                {**parameters, "ReceiveRequestAttemptId": attempt.attempt_id}, attempt.sent
            )
        except PortError:
            if len(self._unanswered) < ATTEMPTS_MAX:
                self._unanswered.append(attempt)
            raise

    def _attempt(self, messages_max: int) -> _Attempt:
        now = self._clock.monotonic()
        if not self._unanswered:
            return _Attempt(self._new_attempt(), messages_max, now)
        recent = [one for one in self._unanswered if now - one.sent < ATTEMPT_S_MAX]
        repeated = next((one for one in recent if one.messages_max == messages_max), None)
        self._unanswered = [one for one in recent if one is not repeated]
        # A repeated receive keeps the time of the first: SQS may count the visibility timeout from there.
        return repeated or _Attempt(self._new_attempt(), messages_max, now)

    def _new_attempt(self) -> str:
        return f"{self._attempts}-{next(self._count)}"

    async def _receive(self, parameters: Mapping[str, Any], sent: Monotonic) -> list[Message]:
        body = await self._asked("sqs ReceiveMessage", self._receives, parameters)
        with understood("sqs ReceiveMessage"):
            return [_message(each, sent) for each in decoded(_RECEIVED, body).messages or ()]

    async def delete(self, receipts: Sequence[str]) -> Sequence[Undone]:
        """Deletes any number of messages, ten a call; returns those that were not deleted.

        Raises only when no call went through. A standard queue says nothing of a lapsed receipt: it answers success.
        """
        return await _batched(receipts, self._delete_ten)

    async def _delete_ten(self, receipts: Sequence[str]) -> list[Undone]:
        entries = [{"Id": str(index), "ReceiptHandle": receipt} for index, receipt in enumerate(receipts)]
        body = await self._asked("sqs DeleteMessageBatch", self._deletes, {"Entries": entries})
        with understood("sqs DeleteMessageBatch"):
            return _undone(receipts, decoded(_BATCH, body))

    async def extend(self, receipts: Sequence[str], *, visibility_s: int) -> Sequence[Undone]:
        """Hides messages for `visibility_s` from now on, ten a call; returns those left unchanged.

        Raises only when no call went through.
        """

        async def extend_ten(ten: Sequence[str]) -> list[Undone]:
            return await self._extend_ten(ten, visibility_s)

        return await _batched(receipts, extend_ten)

    async def _extend_ten(self, receipts: Sequence[str], visibility_s: int) -> list[Undone]:
        entries = [
            {"Id": str(index), "ReceiptHandle": receipt, "VisibilityTimeout": visibility_s}
            for index, receipt in enumerate(receipts)
        ]
        with self._on_queue("sqs ChangeMessageVisibilityBatch"):
            url = await self._queue_url()
            reply = await self._api.change_message_visibility_batch(QueueUrl=url, Entries=entries)
        with understood("sqs ChangeMessageVisibilityBatch"):
            return _undone(receipts, msgspec.convert(reply, type=_Batch))

    async def describe(self) -> QueueFacts:
        """The queue's own settings; a redrive policy that cannot be read counts as none."""
        with self._on_queue("sqs GetQueueAttributes"):
            # All of them: a standard queue refuses to be asked for FifoQueue by name.
            reply = await self._api.get_queue_attributes(
                QueueUrl=await self._queue_url(), AttributeNames=["All"]
            )
        with understood("sqs GetQueueAttributes"):
            attributes: JsonObject = reply["Attributes"]
            return QueueFacts(
                visibility_timeout_s=int(attributes["VisibilityTimeout"]),
                fifo=attributes.get("FifoQueue") == "true",
                redrive_receives_max=_receives_max(attributes.get("RedrivePolicy")),
            )

    async def _asked(self, operation: str, hot: Hot, parameters: Mapping[str, Any]) -> bytes:
        """`_on_queue` for the operations that run all the time."""
        try:
            with calling(operation):
                return await hot({"QueueUrl": self._url or await self._queue_url(), **parameters})
        except ResourceMissing:
            self._url = None
            raise

    async def _queue_url(self) -> str:
        async with self._asking:
            if self._url is None:
                with calling("sqs GetQueueUrl"):
                    reply = await self._api.get_queue_url(
                        QueueName=self._arn.resource, QueueOwnerAWSAccountId=self._arn.account
                    )
                with understood("sqs GetQueueUrl"):
                    self._url = str(reply["QueueUrl"])
            return self._url

    @contextmanager
    def _on_queue(self, operation: str) -> Iterator[None]:
        """Maps errors; forgets the URL of a queue that is gone, since a new one of its name may have another."""
        try:
            with calling(operation):
                yield
        except ResourceMissing:
            self._url = None
            raise


class _Ten(Protocol):
    async def __call__(self, receipts: Sequence[str], /) -> list[Undone]: ...


async def _batched(receipts: Sequence[str], call: _Ten) -> Sequence[Undone]:
    """Runs `call` on each ten receipts, some at once; a failed call leaves its ten undone."""
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
    """All that was left undone; raises the first error when every call failed."""
    failed = [answer for answer in answers if isinstance(answer, PortError)]
    if failed and len(failed) == len(answers):
        raise failed[0]
    undone: list[Undone] = []
    for ten, answer in zip(tens, answers, strict=True):
        if isinstance(answer, PortError):
            undone += [Undone(receipt, answer.reason, lapsed=False) for receipt in ten]
        else:
            undone += answer
    return undone


def _undone(receipts: Sequence[str], reply: _Batch) -> list[Undone]:
    """What a batch reply leaves undone: entries that failed, and entries it does not mention at all."""
    done = {entry.id for entry in reply.successful or ()}
    failed = {entry.id: bare(entry.code) for entry in reply.failed or ()}
    return [
        Undone(receipt, code := failed.get(str(index), "no answer"), lapsed=code in LAPSED_CODES)
        for index, receipt in enumerate(receipts)
        if str(index) not in done
    ]


def _message(wire: _Wire, sent: Monotonic) -> Message:
    given = wire.attributes or {}
    return Message(
        message_id=wire.message_id,
        receipt=wire.receipt_handle,
        body=wire.body,
        attributes={name: given[name] for name in SYSTEM_ATTRIBUTES if name in given},
        message_attributes={
            name: _attribute(value) for name, value in (wire.message_attributes or {}).items()
        },
        md5_of_body=wire.md5_of_body,
        received=sent,
        md5_of_message_attributes=wire.md5_of_message_attributes,
    )


def _attribute(wire: JsonObject) -> JsonObject:
    """A message attribute as functions see it: the scalar that it has, and two lists that are always empty."""
    scalar = (
        {"binaryValue": wire["BinaryValue"]}
        if "BinaryValue" in wire
        else {"stringValue": wire["StringValue"]}
    )
    return scalar | {"stringListValues": [], "binaryListValues": [], "dataType": wire["DataType"]}


def _receives_max(policy: str | None) -> int | None:
    try:
        return int(json.loads(policy or "{}")["maxReceiveCount"])
    except (KeyError, TypeError, ValueError, RecursionError):
        return None


@asynccontextmanager
async def _open(settings: SqsSettings, env: Environment) -> AsyncIterator[SqsQueue]:
    region = Arn.of(settings.arn).region
    api: SqsApi = await client(env, "sqs", region)
    polls = await client(env, "sqs", region, purpose="long polls", connections_max=POLLS_MAX)
    yield SqsQueue(api, polls, env.clock, arn=settings.arn)


@asynccontextmanager
async def _look(settings: SqsSettings, env: Environment) -> AsyncIterator[QueueProbe]:
    lambda_client = await client(env, "lambda", Arn.of(settings.arn).region)
    async with _open(settings, env) as queue:
        yield QueueProbe(queue, lambda_client, arn=settings.arn)


plugin = Plugin("sqs", SqsSettings, _open, _look)
