"""Owns what sources bring: ids, positions, records and messages, and how they are listed and read."""

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Annotated, Any, NewType, Self

import msgspec
import orjson

from poller.domain.untrusted import numbers
from poller.domain.untrusted.numbers import MOMENT_MAX

MappingId = NewType("MappingId", str)
"""UUID of an event source mapping, lower case, with dashes."""
ShardId = NewType("ShardId", str)
WorkerId = NewType("WorkerId", str)
Cursor = NewType("Cursor", str)
"""A source's own read token (AWS: shard iterator); valid for minutes, never stored."""
Monotonic = NewType("Monotonic", float)
"""Seconds of a clock that never goes back; for waits, windows and leases; never leaves the process."""
Epoch = NewType("Epoch", float)
"""Seconds since 1970-01-01 UTC; for arrival times and ages."""

JsonObject = dict[str, Any]
"""A parsed JSON object whose shape the engine passes through without looking at it."""

SEQUENCE_DIGITS_MAX = 129
"""AWS's limit for sequence numbers."""
_SEQUENCE_DIGITS = 64
_SEQUENCE_MAX = 10**SEQUENCE_DIGITS_MAX - 1
_SINCE_MS_MAX = 253_402_300_800_000
_SHOWN_CHARS_MAX = 80
_SCALE_MS = 1000
_WHOLE_MAX = 10**14
_decode = msgspec.json.Decoder().decode
_NO_KEYS = (b"", b"null")
_PLAIN_KEY = re.compile(rb'\{"[^"\\,\s]+":\{"[SNB]":"[^"\\]*"\}\}')
"""A key of one attribute, compact and without escapes, is its own canonical text."""


class Rank(IntEnum):
    """Where a position stands against positions of the other kinds in the same shard."""

    START = 0
    AFTER = 1
    END = 2


@dataclass(frozen=True, slots=True, order=True)
class Position:
    """A place in a shard up to which everything is settled; positions of one shard are totally ordered.

    `START` positions say where a shard that was never read begins: the trim horizon (`since_ms` is 0) or the
    first record that arrived at `since_ms` or later. `AFTER` is the place behind one sequence number; `digits` is how long
    the service wrote it, since some pad theirs with zeros and know no other form. `END` is behind the last record of a
    closed shard.
    """

    rank: Rank
    sequence: int = 0
    since_ms: int = 0
    digits: int = field(default=0, compare=False)

    @classmethod
    def horizon(cls) -> Self:
        """The oldest record that the source still has."""
        return cls(Rank.START)

    @classmethod
    def at(cls, moment: Epoch) -> Self:
        """The first record that arrived at `moment` or later."""
        return cls(Rank.START, since_ms=max(1, int(moment * _SCALE_MS)))

    @classmethod
    def after(cls, sequence_number: str) -> Self:
        """Behind the record with this sequence number (decimal digits)."""
        return cls(Rank.AFTER, sequence=int(sequence_number), digits=len(sequence_number))

    @classmethod
    def decode(cls, text: str) -> Self:
        """Inverse of `encode`; raises ValueError on any other text."""
        kind, _, number = text.partition(":")
        match kind:
            case "TRIM_HORIZON" if not number:
                return cls.horizon()
            case "AT_TIMESTAMP":
                since_ms = numbers.whole(number, most=_SINCE_MS_MAX, default=None)
                if since_ms is not None:
                    return cls(Rank.START, since_ms=since_ms)
            case "AFTER":
                if numbers.whole(number, most=_SEQUENCE_MAX, default=None) is not None:
                    return cls.after(number)
            case "SHARD_END" if not number:
                return cls(Rank.END)
            case _:
                pass
        raise ValueError(f"not a position: {text[:_SHOWN_CHARS_MAX]!r}")

    def encode(self) -> str:
        """The text that stores keep: TRIM_HORIZON, AT_TIMESTAMP:<ms>, AFTER:<sequence> or SHARD_END."""
        match self.rank:
            case Rank.START:
                return f"AT_TIMESTAMP:{self.since_ms}" if self.since_ms else "TRIM_HORIZON"
            case Rank.AFTER:
                return f"AFTER:{self.sequence_number}"
            case Rank.END:
                return "SHARD_END"

    def sort_key(self) -> str:
        """Text that sorts as positions do, for stores that compare in the database."""
        return f"{int(self.rank)}{self.sequence:0{_SEQUENCE_DIGITS}d}{self.since_ms:015d}"

    @property
    def sequence_number(self) -> str:
        """The sequence number as the service wrote it."""
        return f"{self.sequence:0{self.digits}d}" if self.digits else str(self.sequence)

    @property
    def since(self) -> Epoch | None:
        """Epoch seconds of a position given by time, else None."""
        return Epoch(self.since_ms / _SCALE_MS) if self.since_ms else None


SHARD_END = Position(Rank.END)


type Moment = Annotated[Epoch, msgspec.Meta(ge=0.0, lt=MOMENT_MAX)]


class KinesisRecord(
    msgspec.Struct,
    frozen=True,
    gc=False,
    rename={
        "sequence_number": "SequenceNumber",
        "arrived": "ApproximateArrivalTimestamp",
        "data": "Data",
        "key": "PartitionKey",
    },
):
    """One Kinesis record; `data` is base64 text as the service sent it.

    `key` is the partition key; None in streams that distribute their records themselves (aws-behaviour#records-that-lack-a-key). It has the names of GetRecords,
    so that an answer is decoded straight into records.
    """

    sequence_number: str
    arrived: Moment
    data: str
    key: str | None = None

    def detached(self) -> Self:
        """The record itself, which has nothing of its answer."""
        return self


ABSENT = msgspec.Raw()
"""What stands for a member that is not there, and takes no bytes; a union with None would take nothing but null."""


class DynamoChange(
    msgspec.Struct,
    frozen=True,
    gc=False,
    rename={
        "arrived": "ApproximateCreationDateTime",
        "keys": "Keys",
        "sequence_number": "SequenceNumber",
        "new_image": "NewImage",
        "old_image": "OldImage",
        "size_bytes": "SizeBytes",
        "view_type": "StreamViewType",
    },
):
    """What changed, as GetRecords names it. Keys and images are JSON as the service wrote it; nobody reads them unless asked.

    What the service leaves out is left out for functions too, and what it sends as null is null.
    """

    arrived: Moment
    sequence_number: str
    keys: msgspec.Raw = ABSENT
    new_image: msgspec.Raw = ABSENT
    old_image: msgspec.Raw = ABSENT
    size_bytes: msgspec.Raw = ABSENT
    view_type: str | msgspec.UnsetType | None = msgspec.UNSET


EVENT_VERSION = "1.1"
"""What AWS sends as a DynamoDB record's version."""


class DynamoIdentity(
    msgspec.Struct, frozen=True, gc=False, rename={"type_": "Type", "principal_id": "PrincipalId"}
):
    """Who removed an item whose time to live was over."""

    type_: str | None = None
    principal_id: str | None = None


class DynamoRecord(
    msgspec.Struct,
    frozen=True,
    gc=False,
    rename={
        "event_id": "eventID",
        "event_name": "eventName",
        "change": "dynamodb",
        "event_version": "eventVersion",
        "identity": "userIdentity",
    },
):
    """One DynamoDB stream record, with the names of GetRecords, so that an answer is decoded straight into records.

    Its keys and images may be slices of the answer that it came with, which lives as long as they do.
    """

    change: DynamoChange
    event_id: str | None = None
    event_name: str | None = None
    event_version: str | None = EVENT_VERSION
    identity: DynamoIdentity | None = None

    @property
    def sequence_number(self) -> str:
        """The sequence number, decimal digits."""
        return self.change.sequence_number

    @property
    def arrived(self) -> Epoch:
        """When the item changed, to the second."""
        return self.change.arrived

    @property
    def key(self) -> str | None:
        """The canonical JSON text of the item's `Keys`: the same however the service orders or writes them; None without."""
        keys = bytes(self.change.keys)
        if keys in _NO_KEYS:
            return None
        if _PLAIN_KEY.fullmatch(keys):
            return keys.decode()
        value = json_value(keys)
        try:
            return orjson.dumps(value, option=orjson.OPT_SORT_KEYS).decode()
        except TypeError:
            # A lone surrogate, which UTF-8 cannot carry.
            return json.dumps(value, sort_keys=True, separators=(",", ":"))

    def detached(self) -> Self:
        """The same record, which keeps nothing else of its answer alive."""
        change = self.change
        copied = {
            name: value.copy()
            for name in ("keys", "new_image", "old_image", "size_bytes")
            if (value := getattr(change, name)) is not ABSENT
        }
        return msgspec.structs.replace(self, change=msgspec.structs.replace(change, **copied))


def json_value(text: bytes | msgspec.Raw) -> Any:
    """The value of a JSON text, as the standard library reads it; ValueError if it is none.

    msgspec does that in less than half the time, but refuses lone surrogates and numbers beyond a double.
    """
    try:
        return _decode(text)
    except msgspec.MsgspecError:
        return json.loads(bytes(text))


type Record = KinesisRecord | DynamoRecord


UNKNOWN_GROUP = ""
"""The group of messages of a FIFO queue that name none: one group, whose order is kept."""


class Message(msgspec.Struct, frozen=True, gc=False):
    """One received SQS message; `message_attributes` are in the form that functions see, `attributes` as the queue gave them.

    `received` is when the receive call was sent, so that `received` + visibility timeout is never too late. `group` is the
    message group of a FIFO queue. On a standard queue it is None, whatever `attributes` have under MessageGroupId: there
    that is a tenant's label without any order (aws-behaviour#fair-queues). `unreadable` says why a message cannot be handed to a function.
    """

    message_id: str
    receipt: str
    body: str | None
    attributes: dict[str, str]
    message_attributes: JsonObject
    md5_of_body: str | None
    received: Monotonic
    md5_of_message_attributes: str | None = None
    group: str | None = None
    unreadable: str = ""

    @property
    def receives(self) -> int:
        """How often the message was received; 0 where the queue does not say."""
        return _whole(self.attributes.get("ApproximateReceiveCount", ""))

    @property
    def sent(self) -> Epoch:
        """When the message was sent; 0 where the queue does not say."""
        return Epoch(_whole(self.attributes.get("SentTimestamp", "")) / _SCALE_MS)

    @property
    def first_received(self) -> Epoch:
        """When the message was received for the first time, by whomever; 0 where the queue does not say."""
        return Epoch(_whole(self.attributes.get("ApproximateFirstReceiveTimestamp", "")) / _SCALE_MS)


def _whole(text: str) -> int:
    """A number of decimal digits; 0 for anything else, and for what no count or time can be."""
    return numbers.whole(text, most=_WHOLE_MAX, default=0)


@dataclass(frozen=True, slots=True)
class Shard:
    """One shard of a stream as the source lists it; `closed` when it will get no more records."""

    shard_id: ShardId
    parents: tuple[ShardId, ...] = ()
    closed: bool = False


@dataclass(frozen=True, slots=True)
class Page:
    """What one read returned: records in order, the next cursor (None: the shard may have ended), and how far behind.

    `behind_ms` is None where the source does not say. `ended`: the source says itself that no records follow.
    """

    records: Sequence[Record]
    cursor: Cursor | None
    behind_ms: int | None = None
    ended: bool = False


@dataclass(frozen=True, slots=True)
class QueueFacts:
    """What a queue says of itself; `redrive_receives_max` is None without a redrive policy."""

    visibility_timeout_s: int
    fifo: bool
    redrive_receives_max: int | None = None


@dataclass(frozen=True, slots=True)
class Undone:
    """One message of a batched queue call that did not go through.

    `lapsed` when the receipt is no longer valid (the message is visible again or gone), so that trying again is useless.
    """

    receipt: str
    reason: str
    lapsed: bool
