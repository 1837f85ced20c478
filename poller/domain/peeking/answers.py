"""Owns the request for records of a shard, the answer, and the interface between the API and the daemon for it.

Peeking only reads: it takes no lease, moves no position, and calls no function.
"""

from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

from poller.domain.records import Epoch, MappingId, ShardId

LIMIT_DEFAULT = 10
LIMIT_MAX = 100
"""Records of one answer."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PeekRequest:
    """What is asked for, as an operator wrote it."""

    shard: str = ""
    """The shard's id or a readable part of it. Empty: the only one, or the only one that is blocked."""
    start: str = ""
    """Where to begin. Empty: at the batch at fault if the shard is blocked, else where the mapping goes on."""
    limit: int = LIMIT_DEFAULT
    payloads: bool = False
    """Whether the sender may see payloads."""


class PayloadForm(StrEnum):
    """What a payload is."""

    JSON = "json"
    TEXT = "text"
    """UTF-8 that is no JSON, or is too long to tell."""
    BASE64 = "base64"
    """Bytes that are no UTF-8. `text` is their base64."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ShownPayload:
    """A payload, or its beginning. `text` is exactly what is in the record: it may contain anything."""

    form: PayloadForm
    text: str
    full_bytes: int | None
    """The size of the whole content, unpacked. None if it is packed and too large to be unpacked to its end."""
    cut: bool = False
    """Whether `text` is only the beginning."""
    gzip: bool = False
    """Whether the content was packed with gzip."""


@dataclass(frozen=True, slots=True, kw_only=True)
class UserRecord:
    """One of the records that a producer library has packed into a Kinesis record."""

    key: str
    payload: ShownPayload


class FilterVerdict(StrEnum):
    """What the mapping's filters say of a record."""

    PASSES = "passes"
    FILTERED = "filtered"


@dataclass(frozen=True, slots=True, kw_only=True)
class PeekedRecord:
    """One record of a shard. The members of the payload are empty without the permission to see payloads."""

    sequence_number: str
    key: str
    """Partition key or item key, cleaned and cut to 256 characters; empty if there is none."""
    arrived: Epoch
    size_bytes: int
    lane: int
    """The lane of the shard that processes it."""
    verdict: FilterVerdict
    pattern: int | None = None
    """The first pattern that it matches, counted from 1. None if it matches none, or if there are no patterns."""
    reasons: tuple[str, ...] = ()
    """Why it matches no pattern: conditions that fail. Values of the record are not named."""
    event_name: str = ""
    """INSERT, MODIFY or REMOVE for a change of a DynamoDB table."""
    payload: ShownPayload | None = None
    """The data of a Kinesis record. None if it is in `user_records`."""
    user_records: tuple[UserRecord, ...] = ()
    user_records_count: int | None = None
    """How many records a producer library has packed into this one. More than are shown if they are too many or too large."""
    keys: ShownPayload | None = None
    """The item's key in DynamoDB's JSON."""
    new_image: ShownPayload | None = None
    old_image: ShownPayload | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchAtFault:
    """The batch that blocks a lane, as the store knows it."""

    first: str
    """The sequence number of its first record. Empty for a call that closes a window, which has no records."""
    last: str
    """The sequence number of its last record; empty if the store does not know it."""
    lane: int | None
    failures: int
    since: Epoch


@dataclass(frozen=True, slots=True, kw_only=True)
class PeekAnswer:
    """Records of a shard from a position on. They stay where they are."""

    mapping: MappingId
    function: str
    source_arn: str
    shard: ShardId
    start: str
    """Where the answer begins."""
    records: tuple[PeekedRecord, ...]
    fault: BatchAtFault | None = None
    """The batch at fault, if the answer shows it."""
    next: str = ""
    """The position (`from`) at which to go on; empty if nothing more is there now."""
    behind_ms: int | None = None
    """How far the last read was behind the end of the shard; None if the source does not say."""
    ended: bool = False
    """Whether the shard was closed and the last record was read."""
    payloads: bool = False
    """Whether payloads are shown."""
    missing: str = ""
    """What would have to be set or sent to see payloads; empty if they are shown."""
    notes: tuple[str, ...] = ()
    """What else should be known, one line each."""

    @property
    def more(self) -> bool:
        """Whether there may be more records behind the last one."""
        return bool(self.next)


class PeekControl(Protocol):
    """Shows records of a mapping's source."""

    async def peek(self, mapping: str, request: PeekRequest) -> PeekAnswer:
        """Reads a few records. `mapping` is an id or a readable name. Raises ApiError."""
        ...
