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

from adapters.aws.calls import calling, text_of, understood
from adapters.aws.clients import bare, checked_arn, client
from adapters.aws.request_templates import FastOperation, decoded
from adapters.sources.checks import QueueProbe
from adapters.sources.odd_answers import json_object
from poller.domain.arns import Arn
from poller.domain.errors import PortError, ResourceMissing
from poller.domain.records import UNKNOWN_GROUP, JsonObject, Message, Monotonic, QueueFacts, Undone
from poller.domain.untrusted import numbers
from poller.plugins import Environment, Plugin
from poller.ports import Clock

BATCH_MAX = 10
"""Messages in one call, AWS's limit."""
WAIT_S_MAX = 20
VISIBILITY_S_MAX = 43_200
RECEIVES_MAX = 1_000_000
"""AWS takes 1,000; others may take more."""
BATCHES_IN_FLIGHT_MAX = 8
"""Batched deletes and extensions that one caller has on the way at once."""
POLLS_MAX = 2_000
"""Long polls open at once in the daemon; AWS's ceiling is 1,250 for one mapping."""
ATTEMPT_S_MAX = 240.0
"""How long after its first try a failed FIFO receive may be repeated under its attempt id; AWS knows the id for five
minutes (aws-behaviour#repeated-fifo-receive)."""
ATTEMPTS_MAX = 100
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
    message_id: Annotated[str, msgspec.Meta(min_length=1)]
    receipt_handle: Annotated[str, msgspec.Meta(min_length=1)]
    body: str | None = None
    md5_of_body: str | None = msgspec.field(name="MD5OfBody", default=None)
    attributes: dict[str, str] | None = None
    message_attributes: dict[str, JsonObject | None] | None = None
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
    first_sent: Monotonic


class SqsQueue:
    """QueueSource over one SQS queue, standard or FIFO."""

    def __init__(self, api: SqsApi, polls: object, clock: Clock, *, arn: str) -> None:
        """`polls` is a client apart: long polls hold their connections for 20 s, and nothing may wait behind them."""
        self._api = api
        self._receives = FastOperation(polls, "ReceiveMessage", named="QueueUrl")
        self._deletes = FastOperation(api, "DeleteMessageBatch", named="QueueUrl")
        self._clock = clock
        self._arn = Arn.parse(arn)
        self._fifo = self._arn.resource.endswith(".fifo")
        self._url: str | None = None
        self._asking = asyncio.Lock()
        self._unanswered: list[_Attempt] = []
        self._attempts, self._count = str(uuid.uuid4()), itertools.count()

    async def receive(self, *, messages_max: int, wait_s: float) -> Sequence[Message]:
        """Up to `messages_max` (1 to 10) messages, waiting up to `wait_s` (0 to 20, whole seconds) for the first."""
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
        """A FIFO receive under an attempt id, which is kept while the receive has no answer.

        When only the answer was lost, the messages are in flight and their groups are blocked for the whole visibility
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
        return f"{self._attempts}-{next(self._count)}"

    async def _receive(self, parameters: Mapping[str, Any]) -> list[Message]:
        sent = self._clock.monotonic()
        body = await self._asked("sqs ReceiveMessage", self._receives, parameters)
        with understood("sqs ReceiveMessage"):
            return read_answer(body, sent, fifo=self._fifo)

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
                visibility_timeout_s=_seconds(attributes["VisibilityTimeout"]),
                fifo=attributes.get("FifoQueue") == "true",
                redrive_receives_max=_receives_max(attributes.get("RedrivePolicy")),
            )

    async def _asked(self, operation: str, hot: FastOperation, parameters: Mapping[str, Any]) -> bytes:
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
                    self._url = text_of(reply, "QueueUrl")
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


def read_answer(body: bytes, sent: Monotonic, *, fifo: bool) -> list[Message]:
    """The messages of a ReceiveMessage that was sent at `sent`; raises ValueError when it is no answer."""
    try:
        answer = _RECEIVED.decode(body)
    except msgspec.MsgspecError:
        return _read_singly(body, sent, fifo=fifo)
    return [_message(each, sent, fifo=fifo) for each in answer.messages or ()]


def _read_singly(body: bytes, sent: Monotonic, *, fifo: bool) -> list[Message]:
    """Messages of an answer in which something is not as documented; one that cannot be read says why.

    SQS keeps a message that nobody deletes, and its redrive policy is the way out for one that can never be read.
    """
    wires = json_object(body).get("Messages")
    if not isinstance(wires, list | None):
        raise ValueError("the messages are no list")
    messages: list[Message] = []
    for wire in wires or ():
        try:
            read = msgspec.convert(_without_nulls(wire), type=_Wire)
        except msgspec.ValidationError as error:
            messages.append(_unreadable(wire, str(error), sent, fifo=fifo))
        else:
            messages.append(_message(read, sent, fifo=fifo))
    return messages


def _without_nulls(wire: object) -> object:
    """A message whose system attributes leave out those that are null."""
    attributes = wire.get("Attributes") if isinstance(wire, dict) else None
    if not isinstance(wire, dict) or not isinstance(attributes, dict):
        return wire
    return wire | {"Attributes": {name: each for name, each in attributes.items() if each is not None}}


def _unreadable(wire: object, why: str, sent: Monotonic, *, fifo: bool) -> Message:
    members = wire if isinstance(wire, dict) else {}
    attributes = members.get("Attributes")
    known = attributes if isinstance(attributes, dict) else {}
    texts = {name: each for name, each in known.items() if isinstance(each, str)}
    message_id, receipt = (
        each if isinstance(each := members.get(name), str) else "" for name in ("MessageId", "ReceiptHandle")
    )
    return Message(
        message_id=message_id,
        receipt=receipt,
        body=None,
        attributes=texts,
        message_attributes={},
        md5_of_body=None,
        received=sent,
        group=_group(texts, fifo=fifo),
        unreadable=why,
    )


def _message(wire: _Wire, sent: Monotonic, *, fifo: bool) -> Message:
    attributes = wire.attributes or {}
    given = wire.message_attributes
    return Message(
        message_id=wire.message_id,
        receipt=wire.receipt_handle,
        body=wire.body,
        attributes=attributes,
        message_attributes={name: _attribute(value or {}) for name, value in given.items()} if given else {},
        md5_of_body=wire.md5_of_body,
        received=sent,
        md5_of_message_attributes=wire.md5_of_message_attributes,
        group=_group(attributes, fifo=fifo),
    )


def _group(attributes: Mapping[str, str], *, fifo: bool) -> str | None:
    """The message group of a FIFO queue; on a standard queue MessageGroupId is a tenant's label."""
    return attributes.get("MessageGroupId", UNKNOWN_GROUP) if fifo else None


def _attribute(wire: JsonObject) -> JsonObject:
    """A message attribute as functions see it: the scalar that it has, if any, and two lists that are always empty."""
    shown: JsonObject = {}
    if (binary := wire.get("BinaryValue")) is not None:
        shown["binaryValue"] = binary
    elif (text := wire.get("StringValue")) is not None:
        shown["stringValue"] = text
    return shown | {"stringListValues": [], "binaryListValues": [], "dataType": wire.get("DataType")}


def _seconds(text: str) -> int:
    seconds = numbers.whole(text, most=VISIBILITY_S_MAX, default=None)
    if seconds is None:
        raise ValueError("no time that a queue can have")
    return seconds


def _receives_max(policy: str | None) -> int | None:
    try:
        found = json.loads(policy or "{}")
    except (TypeError, ValueError, RecursionError):
        return None
    receives = found.get("maxReceiveCount") if isinstance(found, dict) else None
    return numbers.whole(receives, most=RECEIVES_MAX, default=None)


@asynccontextmanager
async def _open(settings: SqsSettings, env: Environment) -> AsyncIterator[SqsQueue]:
    region = Arn.parse(settings.arn).region
    api: SqsApi = await client(env, "sqs", region)
    polls = await client(env, "sqs", region, purpose="long polls", connections_max=POLLS_MAX)
    yield SqsQueue(api, polls, env.clock, arn=settings.arn)


@asynccontextmanager
async def _look(settings: SqsSettings, env: Environment) -> AsyncIterator[QueueProbe]:
    lambda_client = await client(env, "lambda", Arn.parse(settings.arn).region)
    async with _open(settings, env) as queue:
        yield QueueProbe(queue, lambda_client, arn=settings.arn)


plugin = Plugin("sqs", SqsSettings, _open, _look)
