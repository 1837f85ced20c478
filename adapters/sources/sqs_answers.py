"""Owns how the answers of SQS become messages and results, whatever form they have.

An answer in the documented form is decoded at once. Any other one is read message by message, so that one odd message does
not keep back the others. A message that cannot be read is passed on with the reason: its batch fails, and the queue's redrive
policy decides what becomes of it.
"""

import json
import re
from collections.abc import Mapping
from typing import Annotated

import msgspec

from adapters.sources.odd_answers import json_object
from poller.domain.records import UNKNOWN_GROUP, JsonObject, Message, Monotonic
from poller.domain.untrusted import numbers

VISIBILITY_S_MAX = 43_200
_QUEUE_ARN = re.compile(r"arn:[a-z0-9-]{1,20}:sqs:[a-z0-9-]{1,30}:[0-9]{12}:[A-Za-z0-9_-]{1,80}(\.fifo)?")
MESSAGES_MAX = 1_000_000_000_000
RECEIVES_MAX = 1_000_000
"""AWS allows 1,000; other services may allow more."""


class WireMessage(msgspec.Struct, frozen=True, rename="pascal"):
    """One message as ReceiveMessage returns it."""

    message_id: Annotated[str, msgspec.Meta(min_length=1)]
    receipt_handle: Annotated[str, msgspec.Meta(min_length=1)]
    body: str | None = None
    md5_of_body: str | None = msgspec.field(name="MD5OfBody", default=None)
    attributes: dict[str, str] | None = None
    message_attributes: dict[str, JsonObject | None] | None = None
    md5_of_message_attributes: str | None = msgspec.field(name="MD5OfMessageAttributes", default=None)


class _Received(msgspec.Struct, frozen=True, rename="pascal"):
    """The answer of ReceiveMessage."""

    messages: list[WireMessage] | None = None


_RECEIVED = msgspec.json.Decoder(_Received)


def read_answer(body: bytes, sent: Monotonic, *, fifo: bool) -> list[Message]:
    """Returns the messages of a ReceiveMessage that was sent at `sent`; raises ValueError if `body` is no answer of it."""
    try:
        answer = _RECEIVED.decode(body)
    except msgspec.MsgspecError:
        return _read_singly(body, sent, fifo=fifo)
    return [_message(each, sent, fifo=fifo, answer_bytes=len(body)) for each in answer.messages or ()]


def _read_singly(body: bytes, sent: Monotonic, *, fifo: bool) -> list[Message]:
    """Reads the messages one by one. One that cannot be read has the reason in `unreadable`.

    Nobody deletes such a message, so SQS keeps it and its redrive policy applies.
    """
    wires = json_object(body).get("Messages")
    if not isinstance(wires, list | None):
        raise ValueError("the messages are no list")
    messages: list[Message] = []
    for wire in wires or ():
        try:
            read = msgspec.convert(_without_nulls(wire), type=WireMessage)
        except msgspec.ValidationError as error:
            messages.append(_unreadable(wire, str(error), sent, fifo=fifo))
        else:
            messages.append(_message(read, sent, fifo=fifo, answer_bytes=len(body)))
    return messages


def _without_nulls(wire: object) -> object:
    """Returns a message without the system attributes that are null."""
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


def _message(wire: WireMessage, sent: Monotonic, *, fifo: bool, answer_bytes: int) -> Message:
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
        group=_group(attributes, fifo=fifo) if fifo else None,
        answer_bytes=answer_bytes,
    )


def _group(attributes: Mapping[str, str], *, fifo: bool) -> str | None:
    """Returns the message group on a FIFO queue; on a standard queue MessageGroupId is only a label of a tenant."""
    return attributes.get("MessageGroupId", UNKNOWN_GROUP) if fifo else None


def _attribute(wire: JsonObject) -> JsonObject:
    """Returns a message attribute as functions see it: its one value, if it has one, and two lists that are always empty."""
    shown: JsonObject = {}
    if (binary := wire.get("BinaryValue")) is not None:
        shown["binaryValue"] = binary
    elif (text := wire.get("StringValue")) is not None:
        shown["stringValue"] = text
    return shown | {"stringListValues": [], "binaryListValues": [], "dataType": wire.get("DataType")}


def visibility_seconds(text: str) -> int:
    """Parses a visibility timeout; raises ValueError if no queue can have it."""
    seconds = numbers.whole(text, most=VISIBILITY_S_MAX, default=None)
    if seconds is None:
        raise ValueError("no time that a queue can have")
    return seconds


def dead_letter_arn(policy: str | None) -> str | None:
    """Returns the ARN of the dead-letter queue of a redrive policy; None if it cannot be read."""
    arn = _policy(policy).get("deadLetterTargetArn")
    return arn if isinstance(arn, str) and _QUEUE_ARN.fullmatch(arn) else None


def _policy(text: str | None) -> JsonObject:
    try:
        found = json.loads(text or "{}")
    except (TypeError, ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def receives_max(policy: str | None) -> int | None:
    """Returns the maxReceiveCount of a redrive policy; None if it cannot be read."""
    receives = _policy(policy).get("maxReceiveCount")
    return numbers.whole(receives, most=RECEIVES_MAX, default=None)


def messages(count: str | None) -> int:
    """Parses an approximate number of messages; 0 if it cannot be read."""
    return numbers.whole(count, most=MESSAGES_MAX, default=None) or 0
