"""Owns the records of SQS messages in events, with the same members and order as on AWS (aws-behaviour#sqs-event)."""

from typing import final

from poller.domain.records import JsonObject, Message, Monotonic
from poller.rules.events import encode_json

SYSTEM_ATTRIBUTES = (
    "DeadLetterQueueSourceArn",
    "ApproximateReceiveCount",
    "AWSTraceHeader",
    "SentTimestamp",
    "SequenceNumber",
    "MessageGroupId",
    "SenderId",
    "MessageDeduplicationId",
    "ApproximateFirstReceiveTimestamp",
)
"""SQS's own attributes of a message, in the order of events. Unknown ones follow in the order in which SQS gives them."""
_NOT_SHOWN = "SqsManagedSseEnabled"
"""An attribute of queues that some emulators add to messages. On AWS no function sees it."""
_PLACES = {name: place for place, name in enumerate(SYSTEM_ATTRIBUTES)}
CHAR_BYTES_MAX = 12
"""Bytes of one character in JSON at most: two escapes, beside half of a surrogate pair."""
ATTRIBUTE_BYTES = len('"":"",')
_ORDERS_MAX = 64
"""Combinations of attribute names whose order is cached."""


@final
class MessageEncoder:
    """Encodes SQS messages (aws-behaviour#sqs-event). With a batching window, an absent attribute digest is written as null."""

    def __init__(self, *, source_arn: str, region: str, windowed: bool) -> None:
        self._arn = source_arn
        self._region = region
        self._windowed = windowed
        self._orders: dict[tuple[str, ...], list[str] | None] = {}
        """The order of attribute names, by the names as they came, which are nearly always the same. None: they came in order."""
        empty = Message("", "", None, {}, {}, None, Monotonic(0.0), md5_of_message_attributes="")
        self._constant_bytes = len(self.encode(empty))

    def view(self, message: Message) -> JsonObject:
        """The record as functions and filters see it."""
        view: JsonObject = {
            "messageId": message.message_id,
            "receiptHandle": message.receipt,
            "body": message.body,
            "attributes": self._attributes(message),
            "messageAttributes": message.message_attributes,
        }
        if message.md5_of_message_attributes is not None or self._windowed:
            view["md5OfMessageAttributes"] = message.md5_of_message_attributes
        view["md5OfBody"] = message.md5_of_body
        view["eventSource"] = "aws:sqs"
        view["eventSourceARN"] = self._arn
        view["awsRegion"] = self._region
        return view

    def encode(self, message: Message) -> bytes:
        """The message encoded as in the event's `Records` array."""
        return encode_json(self.view(message))

    def bytes_max(self, message: Message) -> int:
        """An upper bound of the length of `encode`. It encodes only messages with attributes of their own."""
        if message.message_attributes:
            return len(self.encode(message))
        attributes = message.attributes
        chars = len(message.body or "") + len(message.receipt) + len(message.message_id)
        chars += len(message.md5_of_body or "") + len(message.md5_of_message_attributes or "")
        chars += len("".join(attributes)) + len("".join(attributes.values()))
        return self._constant_bytes + CHAR_BYTES_MAX * chars + ATTRIBUTE_BYTES * len(attributes)

    def bytes_max_of_any(self, answer_bytes: int) -> int:
        """An upper bound for each message of an answer of this length: it is JSON too, with all texts of the message."""
        return self._constant_bytes + CHAR_BYTES_MAX * answer_bytes

    def _attributes(self, message: Message) -> dict[str, str]:
        attributes = message.attributes
        names = tuple(attributes)
        try:
            order = self._orders[names]
        except KeyError:
            order = self._ordered(names)
        return attributes.copy() if order is None else {name: attributes[name] for name in order}

    def _ordered(self, names: tuple[str, ...]) -> list[str] | None:
        shown = [name for name in names if name != _NOT_SHOWN]
        order = sorted(shown, key=lambda name: _PLACES.get(name, len(_PLACES)))
        given = None if tuple(order) == names else order
        if len(self._orders) < _ORDERS_MAX:
            self._orders[names] = given
        return given
