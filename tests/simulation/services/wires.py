"""Owns how the fake services write down what they hold: plainly, or in any form that AWS's service model allows."""

import base64
import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from random import Random
from typing import Any

from poller.domain.records import Epoch, JsonObject
from tests.shapes import CHANGE_RECORD, MESSAGE, RECORD, SYSTEM_ATTRIBUTE_NAMES, Shaper
from tests.simulation.services.contents import Content

_KEPT_OF_RECORD = frozenset({"SequenceNumber", "Data", "PartitionKey", "ApproximateArrivalTimestamp"})
_KEPT_OF_CHANGE = frozenset(
    {
        "dynamodb",
        "dynamodb.SequenceNumber",
        "dynamodb.Keys",
        "dynamodb.NewImage",
        "dynamodb.ApproximateCreationDateTime",
    }
)
_KEPT_OF_MESSAGE = frozenset({"MessageId", "ReceiptHandle", "Body"})
_TIMES = frozenset({"ApproximateArrivalTimestamp", "dynamodb.ApproximateCreationDateTime"})
_KEYS = frozenset({"PartitionKey", "dynamodb.Keys"})
_DEAD_LETTERS = "DeadLetterQueueSourceArn"
_ALWAYS = frozenset(
    {"ApproximateReceiveCount", "SentTimestamp", "SenderId", "ApproximateFirstReceiveTimestamp"}
)
UNREADABLE_S = 5.0
"""How long a record that nobody can read stays so."""


@dataclass(frozen=True, slots=True)
class Shapes:
    """What is odd about one source. The chances are for each record or message; `odd` for each optional member of it."""

    odd: float = 0.0
    keyless: float = 0.0
    unreadable: float = 0.0
    undated: bool = False
    """Whether times may be absent, too."""
    tenants: bool = False
    """Whether messages of a standard queue have a MessageGroupId."""
    dead_letters: bool = False
    """Whether the queue is another one's dead-letter queue."""


PLAIN = Shapes()


def unseen(_: str) -> None:
    """Nobody keeps marks."""


class Writer:
    """Writes records and messages of one source; tells `saw` what it made odd."""

    def __init__(self, shapes: Shapes = PLAIN, *, seed: int = 0, saw: Callable[[str], None] = unseen) -> None:
        self.shapes = shapes
        self._rng = Random(seed)
        self._saw = saw

    def drawn(self, chance: float, mark: str) -> bool:
        """Whether something happens that has this chance."""
        if not chance or self._rng.random() >= chance:
            return False
        self._saw(mark)
        return True

    def record(self, sequence: int, key: str | None, *, arrived: Epoch, content: Content) -> JsonObject:
        """A Kinesis record."""
        values = {
            "SequenceNumber": str(sequence),
            "ApproximateArrivalTimestamp": arrived,
            "Data": base64.b64encode(content.text().encode()).decode(),
            "PartitionKey": key,
        }
        if not self.shapes.odd:
            return {name: value for name, value in values.items() if value is not None}
        with_key = self._structure(RECORD, values, _KEPT_OF_RECORD)
        return with_key if key is not None else self._without(with_key, "PartitionKey")

    def change(self, sequence: int, key: str | None, *, arrived: Epoch, content: Content) -> JsonObject:
        """A DynamoDB stream record."""
        keys = {"pk": {"S": key or "unknown"}}
        image = {**keys, "body": {"S": content.text()}, "keep": {"S": "yes" if content.keep else "no"}}
        values: JsonObject = {
            "eventID": f"{content.number:032x}",
            "eventName": "INSERT",
            "eventVersion": "1.1",
            "eventSource": "aws:dynamodb",
            "awsRegion": "eu-west-1",
            "dynamodb": {
                "ApproximateCreationDateTime": arrived,
                "Keys": keys,
                "NewImage": image,
                "SequenceNumber": str(sequence),
                "SizeBytes": len(content.text()) + 20,
                "StreamViewType": "NEW_AND_OLD_IMAGES",
            },
        }
        wire = self._structure(CHANGE_RECORD, values, _KEPT_OF_CHANGE) if self.shapes.odd else values
        if key is None:
            wire |= {"dynamodb": self._without(wire["dynamodb"], "Keys")}
        return wire

    def message(self, values: JsonObject, attributes: Mapping[str, str], *, fifo: bool) -> JsonObject:
        """An SQS message; its MD5 is made here."""
        body = values["Body"]
        digest = hashlib.md5(str(body).encode(), usedforsecurity=False).hexdigest()
        given = values | {"MD5OfBody": digest, "Attributes": self._attributes(attributes, fifo=fifo)}
        if not self.shapes.odd:
            return given
        return self._structure(
            MESSAGE, given, _KEPT_OF_MESSAGE | ({"Attributes"} if fifo else frozenset[str]())
        )

    def _attributes(self, known: Mapping[str, str], *, fifo: bool) -> dict[str, str]:
        """SQS's own attributes of a message, in any order; those of FIFO queues now and then on standard ones."""
        shapes, rng = self.shapes, self._rng
        shown = {name: known[name] for name in SYSTEM_ATTRIBUTE_NAMES if name in known}
        if shapes.dead_letters:
            self._saw("message of a dead-letter queue")
            shown[_DEAD_LETTERS] = "arn:aws:sqs:eu-west-1:111122223333:first"
        if not shapes.odd:
            return shown
        names = [name for name in SYSTEM_ATTRIBUTE_NAMES if name != _DEAD_LETTERS or shapes.dead_letters]
        others = [name for name in names if name not in known and name != "MessageGroupId"]
        shown |= {name: "odd" for name in others if rng.random() < shapes.odd}
        needed = {"MessageGroupId"} if fifo else set[str]()
        kept = [name for name in shown if name in needed or rng.random() >= shapes.odd]
        rng.shuffle(kept)
        if not _ALWAYS.issubset(kept):
            self._saw("attribute absent")
        return {name: shown[name] for name in kept} | (
            {"MadeLater": "x"} if rng.random() < shapes.odd else {}
        )

    def _structure(self, shape: Any, values: Mapping[str, Any], kept: frozenset[str]) -> JsonObject:
        if self.shapes.undated:
            kept -= _TIMES
        shaper = Shaper(self._rng, self.shapes.odd, kept)
        wire = shaper.structure(shape, values)
        for each in shaper.seen:
            member, _, what = each.partition(" ")
            self._saw("time absent" if member in _TIMES else f"member {what}")
        return wire

    def _without(self, wire: JsonObject, name: str) -> JsonObject:
        """The object with this member null or absent."""
        rest = {each: value for each, value in wire.items() if each != name}
        return rest if self._rng.random() < 0.5 else {**rest, name: None}


def answer(wires: list[bytes]) -> bytes:
    """An answer of GetRecords."""
    return b'{"Records":[%b],"NextShardIterator":"next"}' % b",".join(wires)


def written(wire: JsonObject) -> bytes:
    """As the service sends it."""
    return json.dumps(wire, separators=(",", ":")).encode()
