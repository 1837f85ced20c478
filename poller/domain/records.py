"""Owns the values that sources return: ids, positions, records, messages, shards and pages."""

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Annotated, Any, NewType, Self

import msgspec
import orjson

from poller.domain.streams.places import PART_BITS, WHOLE, end_of, sequence_of
from poller.domain.untrusted import numbers
from poller.domain.untrusted.json_values import json_value
from poller.domain.untrusted.numbers import MOMENT_MAX

MappingId = NewType("MappingId", str)
"""UUID of an event source mapping, lower case, with dashes."""
ShardId = NewType("ShardId", str)
WorkerId = NewType("WorkerId", str)
Cursor = NewType("Cursor", str)
"""A read token of a source (AWS: shard iterator). It is valid for minutes and is never stored."""
Monotonic = NewType("Monotonic", float)
"""Seconds of a clock that never goes back, for waits, windows and leases. It has no meaning outside the process."""
Epoch = NewType("Epoch", float)
"""Seconds since 1970-01-01 UTC, for arrival times and ages."""

JsonObject = dict[str, Any]
"""A parsed JSON object that the engine passes on without interpreting it."""

SEQUENCE_DIGITS_MAX = 129
"""AWS's limit for sequence numbers."""
_SEQUENCE_DIGITS = 64
_SEQUENCE_MAX = 10**SEQUENCE_DIGITS_MAX - 1
_SINCE_MS_MAX = 253_402_300_800_000
_SHOWN_CHARS_MAX = 80
_SCALE_MS = 1000
_WHOLE_MAX = 10**14
_FEW = {str(count): count for count in range(1, 101)}
"""Receive counts of nearly all messages, by their texts. To look one up takes a tenth of the time of reading it."""
_NO_KEYS = (b"", b"null")
_PLAIN_KEY = re.compile(rb'\{"[^"\\,\s]+":\{"[SNB]":"[^"\\]*"\}\}')
"""Matches a key of one attribute in compact form without escapes. Its text is canonical as it is."""


class Rank(IntEnum):
    """The kind of a position. Positions of one shard are ordered by kind first."""

    START = 0
    AFTER = 1
    END = 2


@dataclass(frozen=True, slots=True, order=True)
class Position:
    """A place in a shard up to which everything is settled; positions of one shard are totally ordered.

    A `START` position says where to begin in a shard that was never read: at the trim horizon (`since_ms` is 0) or at the
    first record that arrived at `since_ms` or later. An `AFTER` position is behind one sequence number. `digits` is the number
    of digits in which the service wrote it: some services pad with zeros and accept no other form. An `END` position is behind
    the last record of a closed shard. A position inside of an aggregated record is behind one `part` of it.
    """

    rank: Rank
    sequence: int = 0
    since_ms: int = 0
    part: int = WHOLE
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
    def after(cls, place: str) -> Self:
        """Behind the record at this place: a sequence number (decimal digits), or a part of an aggregated record."""
        sequence_number = sequence_of(place)
        part = end_of(place) & WHOLE if len(sequence_number) < len(place) else WHOLE
        return cls(Rank.AFTER, sequence=int(sequence_number), part=part, digits=len(sequence_number))

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
                sequence, colon, part = number.partition(":")
                whole = numbers.whole(sequence, most=_SEQUENCE_MAX, default=None) is not None
                if whole and (not colon or numbers.whole(part, most=WHOLE - 1, default=None) is not None):
                    return cls.after(number)
            case "SHARD_END" if not number:
                return cls(Rank.END)
            case _:
                pass
        raise ValueError(f"not a position: {text[:_SHOWN_CHARS_MAX]!r}")

    def encode(self) -> str:
        """The text for stores: TRIM_HORIZON, AT_TIMESTAMP:<ms>, AFTER:<sequence>, AFTER:<sequence>:<part> or SHARD_END."""
        match self.rank:
            case Rank.START:
                return f"AT_TIMESTAMP:{self.since_ms}" if self.since_ms else "TRIM_HORIZON"
            case Rank.AFTER:
                return f"AFTER:{self.sequence_number}" + (f":{self.part}" if self.partial else "")
            case Rank.END:
                return "SHARD_END"

    def sort_key(self) -> str:
        """A text that sorts as positions do, for stores that compare positions inside the database."""
        # A record is not settled before all of its parts are. So a part sorts behind the record before, and before the whole one.
        sequence, part = (self.sequence - 1, f":{self.part:07d}") if self.partial else (self.sequence, "")
        return f"{int(self.rank)}{sequence:0{_SEQUENCE_DIGITS}d}{self.since_ms:015d}{part}"

    @property
    def partial(self) -> bool:
        """Whether the position is inside of an aggregated record."""
        return self.part != WHOLE

    @property
    def end(self) -> int:
        """The end of the place that the position is behind (see `places`); 0 if it is behind none."""
        return self.sequence << PART_BITS | self.part if self.rank is Rank.AFTER else 0

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

    `key` is the partition key; None in streams that distribute their records themselves (aws-behaviour#records-that-lack-a-key). The
    fields have the names of GetRecords, so that an answer is decoded straight into records. `dated` is no member of it.
    """

    sequence_number: str
    arrived: Moment
    data: str
    key: str | None = None
    dated: bool = True
    """Whether the service gave a time of arrival. Otherwise `arrived` is the moment of the read, and the record is older."""

    def detached(self) -> Self:
        """The record itself. It refers to nothing else of the answer that it came in."""
        return self

    @property
    def outer(self) -> str:
        """The sequence number, as functions and filters see it."""
        return sequence_of(self.sequence_number)


class AggregatedPart(KinesisRecord, frozen=True, gc=False):
    """One user record of an aggregated record. Its `sequence_number` is its place (see `places`), since several share the number."""


ABSENT = msgspec.Raw()
"""The value of an absent member. A union of Raw and None does not work: msgspec would accept only null for it."""


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
    """The `dynamodb` member of a stream record, with the names of GetRecords. Keys and images are the service's JSON, parsed on demand.

    A member that the service leaves out is left out for functions too. A member that it sends as null stays null. `dated` is no
    member of it.
    """

    arrived: Moment
    sequence_number: str
    keys: msgspec.Raw = ABSENT
    new_image: msgspec.Raw = ABSENT
    old_image: msgspec.Raw = ABSENT
    size_bytes: msgspec.Raw = ABSENT
    view_type: str | msgspec.UnsetType | None = msgspec.UNSET
    dated: bool = True
    """Whether the service gave a time of the change. Otherwise `arrived` is the moment of the read, and the change is older."""


EVENT_VERSION = "1.1"
"""The `eventVersion` of DynamoDB records on AWS."""


class DynamoIdentity(
    msgspec.Struct, frozen=True, gc=False, rename={"type_": "Type", "principal_id": "PrincipalId"}
):
    """The `userIdentity` of a record: it is present when DynamoDB removed an item whose time to live was over."""

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

    Keys and images may be slices of the answer that the record came in. They keep the whole answer in memory.
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
    def dated(self) -> bool:
        """Whether the service gave the time of the change. Otherwise `arrived` is the moment of the read."""
        return self.change.dated

    @property
    def key(self) -> str | None:
        """The canonical JSON text of the item's `Keys`, equal for every order and spelling of them; None if there are none."""
        keys = bytes(self.change.keys)
        if keys in _NO_KEYS:
            return None
        if _PLAIN_KEY.fullmatch(keys):
            return keys.decode()
        value = json_value(keys)
        try:
            return orjson.dumps(value, option=orjson.OPT_SORT_KEYS).decode()
        except TypeError:
            # The text has a lone surrogate, which cannot be encoded in UTF-8.
            return json.dumps(value, sort_keys=True, separators=(",", ":"))

    def detached(self) -> Self:
        """A copy of the record that does not keep the rest of its answer in memory."""
        change = self.change
        copied = {
            name: value.copy()
            for name in ("keys", "new_image", "old_image", "size_bytes")
            if (value := getattr(change, name)) is not ABSENT
        }
        return msgspec.structs.replace(self, change=msgspec.structs.replace(change, **copied))


type Record = KinesisRecord | DynamoRecord


UNKNOWN_GROUP = ""
"""The group of FIFO messages that have no MessageGroupId. They form one group and are kept in order."""


class Message(msgspec.Struct, frozen=True, gc=False):
    """One received SQS message. `message_attributes` have the form that functions see, `attributes` are as the queue gave them.

    `received` is when the receive call was sent: `received` + visibility timeout is never later than the real end. `group` is
    the message group of a FIFO queue. It is None on a standard queue, where MessageGroupId is only the label of a tenant and
    no order is kept (aws-behaviour#fair-queues). `unreadable` says why the message cannot be given to a function. `answer_bytes` is
    the length of the answer that brought the message, as JSON; None if that is not known.
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
    answer_bytes: int | None = None

    @property
    def receives(self) -> int:
        """How often the message was received; 0 where the queue does not say."""
        text = self.attributes.get("ApproximateReceiveCount", "")
        count = _FEW.get(text) if type(text) is str else None
        return _whole(text) if count is None else count

    @property
    def sent(self) -> Epoch:
        """When the message was sent; 0 where the queue does not say."""
        return Epoch(_whole(self.attributes.get("SentTimestamp", "")) / _SCALE_MS)

    @property
    def first_received(self) -> Epoch:
        """When the message was received for the first time, by any consumer; 0 where the queue does not say."""
        return Epoch(_whole(self.attributes.get("ApproximateFirstReceiveTimestamp", "")) / _SCALE_MS)


def _whole(text: str) -> int:
    """The number in a text of decimal digits; 0 for any other text, and for numbers too large for a count or a time."""
    return numbers.whole(text, most=_WHOLE_MAX, default=0)


@dataclass(frozen=True, slots=True)
class Shard:
    """One shard of a stream as the source lists it. A `closed` shard gets no more records."""

    shard_id: ShardId
    parents: tuple[ShardId, ...] = ()
    closed: bool = False


@dataclass(frozen=True, slots=True)
class Page:
    """The result of one read: records in order, the next cursor (None: the shard may have ended), and how far behind it is.

    `behind_ms` is None where the source does not say. `ended`: the source said that no records follow. `waited`: the read waited for
    records, so that the next one needs no pause.
    """

    records: Sequence[Record]
    cursor: Cursor | None
    behind_ms: int | None = None
    ended: bool = False
    waited: bool = False


@dataclass(frozen=True, slots=True)
class QueueFacts:
    """The settings of a queue. `redrive_receives_max` and `dead_letter_arn` are None if the queue has no redrive policy.

    `hidden` is about how many messages readers hide now.
    """

    visibility_timeout_s: int
    fifo: bool
    redrive_receives_max: int | None = None
    dead_letter_arn: str | None = None
    hidden: int = 0


@dataclass(frozen=True, slots=True)
class Undone:
    """One message of a batched queue call that did not go through.

    `lapsed`: the receipt is no longer valid, because the message is visible again or gone. Another try is useless.
    """

    receipt: str
    reason: str
    lapsed: bool
