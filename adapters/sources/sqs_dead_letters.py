"""Owns the copy of a message that is sent to a dead-letter queue, when an operator skips the message: SendMessage.

The copy has the body, the message attributes, the group and the trace header of the message. Its message id, its time and its receive count
are new. On a FIFO queue its deduplication id is the id of the message. So a copy that is sent again within five minutes, after a
crash, is not a second message.
"""

import base64
import binascii
from typing import Any, Protocol

from adapters.aws.calls import calling
from poller.domain.arns import Arn
from poller.domain.errors import RecordUnreadable, ResourceMissing
from poller.domain.records import JsonObject, Message

TRACE_HEADER = "AWSTraceHeader"
"""The only system attribute that a sender may give."""
FIFO = ".fifo"


class SendApi(Protocol):
    """The operation that is used."""

    async def send_message(self, **parameters: Any) -> JsonObject:
        """SendMessage."""
        ...


async def send_copy(api: SendApi, message: Message, *, queue_url: str, dead_letters: str) -> None:
    """Sends a copy of `message`, which came from the queue `queue_url`, to the queue with the ARN `dead_letters`.

    Raises RecordUnreadable if the message cannot be sent as it is.
    """
    # A dead-letter queue is in the account and region of its queue. To ask SQS for its URL would need another permission.
    name = Arn.parse(dead_letters).resource
    parameters = copy_of(message, fifo=name.endswith(FIFO))
    with calling(f"sqs SendMessage to {dead_letters}"):
        await api.send_message(QueueUrl=f"{queue_url.rpartition('/')[0]}/{name}", **parameters)


def copy_of(message: Message, *, fifo: bool) -> JsonObject:
    """The parameters of SendMessage for a copy; raises RecordUnreadable if there can be none."""
    if message.unreadable or message.body is None:
        raise RecordUnreadable(message.unreadable or "the message has no body")
    parameters: JsonObject = {"MessageBody": message.body}
    if message.message_attributes:
        parameters["MessageAttributes"] = {
            name: _attribute(name, value) for name, value in message.message_attributes.items()
        }
    if (trace := message.attributes.get(TRACE_HEADER)) is not None:
        header = {"DataType": "String", "StringValue": trace}
        parameters["MessageSystemAttributes"] = {TRACE_HEADER: header}
    if group := message.attributes.get("MessageGroupId"):
        parameters["MessageGroupId"] = group
    if fifo:
        parameters["MessageDeduplicationId"] = message.message_id
        if not group:
            raise RecordUnreadable("the message has no MessageGroupId")
    return parameters


def _attribute(name: str, shown: JsonObject) -> JsonObject:
    """A message attribute as SQS takes it, from its form for functions."""
    wire: JsonObject = {"DataType": shown.get("dataType")}
    if isinstance(text := shown.get("stringValue"), str):
        wire["StringValue"] = text
    elif isinstance(binary := shown.get("binaryValue"), str):
        try:
            wire["BinaryValue"] = base64.b64decode(binary, validate=True)
        except binascii.Error as error:
            raise RecordUnreadable(f"the binary value of the attribute {name} is not base64") from error
    if len(wire) == 1 or not isinstance(wire["DataType"], str):
        raise RecordUnreadable(f"the attribute {name} has no type or no value")
    return wire


def checked(dead_letters: str | None) -> str:
    """The ARN of the dead-letter queue; raises ResourceMissing if the queue has none."""
    if dead_letters is None:
        raise ResourceMissing("the queue has no dead-letter queue (no RedrivePolicy)")
    return dead_letters
