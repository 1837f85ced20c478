"""Owns the fake stream services, Kinesis and DynamoDB Streams: pure state, asked by `apply(now, request)`."""

import base64
import hashlib
from collections import deque
from dataclasses import dataclass, field

from poller.errors import CursorExpired, PositionTrimmed, ResourceMissing, ServiceThrottled
from poller.plan import SourceKind
from poller.records import Cursor, Epoch, KinesisRecord, Page, Position, Rank, Record, Shard, ShardId
from tests.records import dynamo_record
from tests.simulation.contents import Content

HASH_KEYS = 1 << 16
CURSOR_LIFE_S = 300.0
CALLS_PER_S = 5
PAGE_BYTES_MAX = 10 * 1024 * 1024
RETENTION_S = 86_400.0
_SEQUENCE_BASE = {
    SourceKind.KINESIS: 49_650_000 * 10**48,
    SourceKind.DYNAMODB: 2_400_000_000_000_000_000_000,
}
_SEQUENCE_STEP = {SourceKind.KINESIS: 16_777_259, SourceKind.DYNAMODB: 131}


@dataclass(frozen=True, slots=True)
class ListShards:
    """Asks for all shards."""


@dataclass(frozen=True, slots=True)
class GetCursor:
    """Asks for a read token for the first record behind `position`."""

    shard: ShardId
    position: Position


@dataclass(frozen=True, slots=True)
class Read:
    """Asks for records; with `records_max` 0 the page is empty though there may be records, as AWS's sometimes are."""

    shard: ShardId
    cursor: Cursor
    records_max: int


@dataclass(frozen=True, slots=True)
class Held:
    """One record in a shard, with what the world knows of it."""

    sequence: int
    key: str
    arrived: float
    content: Content
    record: Record


@dataclass(slots=True)
class ShardState:
    """One shard; `records` keeps also those that were trimmed, `trimmed` counts them from the front."""

    shard_id: ShardId
    low: int
    high: int
    parents: tuple[ShardId, ...] = ()
    records: list[Held] = field(default_factory=list)
    trimmed: int = 0
    closed_at: float | None = None
    calls: deque[float] = field(default_factory=deque)

    @property
    def closed(self) -> bool:
        """Whether it gets no more records."""
        return self.closed_at is not None


class FakeStream:
    """A stream of `shards` equal shards. `trim` follows retention; `put`, `split`, `merge`, `roll` are the writers' side."""

    def __init__(self, kind: SourceKind, *, shards: int = 1, retention_s: float = RETENTION_S) -> None:
        self.kind = kind
        self.retention_s = retention_s
        self.shards: dict[ShardId, ShardState] = {}
        self.missing = False
        """Whether somebody has deleted the stream."""
        self._forgotten: set[ShardId] = set()
        self._sequence = _SEQUENCE_BASE[kind]
        for number in range(shards):
            self._open(HASH_KEYS * number // shards, HASH_KEYS * (number + 1) // shards, ())

    def apply(self, now: float, request: ListShards | GetCursor | Read) -> tuple[Shard, ...] | Cursor | Page:
        """One call of the service; raises ServiceThrottled, ResourceMissing, CursorExpired, PositionTrimmed."""
        if self.missing:
            raise ResourceMissing("no such stream")
        self.trim(now)
        match request:
            case ListShards():
                return self._list()
            case GetCursor(shard, position):
                return self._cursor(now, self._shard(shard), position)
            case Read(shard, cursor, records_max):
                return self._read(now, self._shard(shard), cursor, records_max)

    def put(self, now: float, key: str, content: Content) -> tuple[ShardId, Held]:
        """Writes a record into the open shard of its key."""
        place = int.from_bytes(hashlib.md5(key.encode(), usedforsecurity=False).digest()[:2])
        state = next(each for each in self.open_shards() if each.low <= place < each.high)
        sequence = self._next_sequence()
        held = _held(self.kind, key, sequence, arrived=now, content=content)
        state.records.append(held)
        return state.shard_id, held

    def open_shards(self) -> list[ShardState]:
        """Shards that take records, by hash key."""
        return sorted((each for each in self.shards.values() if not each.closed), key=lambda each: each.low)

    def split(self, now: float, shard: ShardId) -> tuple[ShardId, ...]:
        """Closes a shard; two children share its keys. A shard of one hash key is left as it is."""
        state = self.shards[shard]
        middle = (state.low + state.high) // 2
        if middle == state.low:
            return ()
        state.closed_at = now
        parents = (state.shard_id,)
        return self._open(state.low, middle, parents), self._open(middle, state.high, parents)

    def merge(self, now: float, first: ShardId, second: ShardId) -> ShardId:
        """Closes two neighbours; one child has both as parents."""
        left, right = sorted((self.shards[first], self.shards[second]), key=lambda each: each.low)
        assert left.high == right.low, "only neighbours can merge"
        left.closed_at = right.closed_at = now
        return self._open(left.low, right.high, (left.shard_id, right.shard_id))

    def roll(self, now: float, shard: ShardId) -> ShardId:
        """Closes a shard; one child goes on with its keys, as DynamoDB does every few hours."""
        state = self.shards[shard]
        state.closed_at = now
        return self._open(state.low, state.high, (state.shard_id,))

    def trim(self, now: float) -> None:
        """Drops what is older than the retention; closed shards go with their last record."""
        horizon = now - self.retention_s
        for state in self.shards.values():
            while state.trimmed < len(state.records) and state.records[state.trimmed].arrived < horizon:
                state.trimmed += 1
            gone = state.trimmed == len(state.records)
            if gone and state.closed_at is not None and state.closed_at < horizon:
                self._forgotten.add(state.shard_id)

    def _open(self, low: int, high: int, parents: tuple[ShardId, ...]) -> ShardId:
        shard = ShardId(f"shardId-{len(self.shards):012d}")
        self.shards[shard] = ShardState(shard, low, high, parents)
        self._next_sequence()
        return shard

    def _next_sequence(self) -> int:
        self._sequence += _SEQUENCE_STEP[self.kind]
        return self._sequence

    def _shard(self, shard: ShardId) -> ShardState:
        if shard not in self.shards or shard in self._forgotten:
            raise ResourceMissing(f"no shard {shard}")
        return self.shards[shard]

    def _list(self) -> tuple[Shard, ...]:
        return tuple(
            Shard(state.shard_id, state.parents, state.closed)
            for state in self.shards.values()
            if state.shard_id not in self._forgotten
        )

    def _cursor(self, now: float, state: ShardState, position: Position) -> Cursor:
        match position.rank:
            case Rank.START:
                return _token(state, now, _first_since(state, self._since(position)))
            case Rank.AFTER:
                index = sum(1 for each in state.records if each.sequence <= position.sequence)
                if index < state.trimmed:
                    raise PositionTrimmed(f"records behind {position.sequence} are gone")
                return _token(state, now, index)
            case Rank.END:
                return _token(state, now, len(state.records))

    def _since(self, position: Position) -> float:
        """DynamoDB tells arrival times in whole seconds, so a start by time begins with its whole second."""
        since = position.since or 0.0
        return float(int(since)) if self.kind is SourceKind.DYNAMODB else since

    def _read(self, now: float, state: ShardState, cursor: Cursor, records_max: int) -> Page:
        _count_call(state, now)
        shard, issued, place = cursor.split("/")
        assert shard == state.shard_id, f"cursor {cursor} used on {state.shard_id}"
        if now - float(issued) > CURSOR_LIFE_S:
            raise CursorExpired(f"cursor is {now - float(issued):.0f} s old")
        index = self._retained(state, int(place))
        taken = _within_page(state.records[index : index + records_max])
        following = index + len(taken)
        return Page(
            [held.record for held in taken],
            _following(state, now, following, records_max=records_max, taken=len(taken)),
            self._behind_ms(state, now, following),
        )

    def _retained(self, state: ShardState, index: int) -> int:
        """DynamoDB says when records under a cursor are gone; Kinesis goes on at the horizon without a word."""
        if index < state.trimmed and self.kind is SourceKind.DYNAMODB:
            raise PositionTrimmed("records under the cursor are gone")
        return max(index, state.trimmed)

    def _behind_ms(self, state: ShardState, now: float, following: int) -> int | None:
        if self.kind is SourceKind.DYNAMODB:
            return None
        if following >= len(state.records):
            return 0
        return int((now - state.records[following].arrived) * 1000)


def _token(state: ShardState, now: float, index: int) -> Cursor:
    return Cursor(f"{state.shard_id}/{now}/{index}")


def _following(state: ShardState, now: float, index: int, *, records_max: int, taken: int) -> Cursor | None:
    """A closed shard ends with its last page when that was cut short by the end, else with an empty page."""
    done = state.closed and index >= len(state.records) and taken < records_max
    return None if done else _token(state, now, index)


def _first_since(state: ShardState, since: float) -> int:
    older = (index for index, held in enumerate(state.records) if held.arrived >= since)
    return max(state.trimmed, next(older, len(state.records)))


def _within_page(records: list[Held]) -> list[Held]:
    size = 0
    for count, held in enumerate(records):
        size += held.content.pad + 200
        if size > PAGE_BYTES_MAX and count:
            return records[:count]
    return records


def _count_call(state: ShardState, now: float) -> None:
    while state.calls and state.calls[0] <= now - 1.0:
        state.calls.popleft()
    if len(state.calls) >= CALLS_PER_S:
        raise ServiceThrottled("more than 5 reads a second")
    state.calls.append(now)


def _held(kind: SourceKind, key: str, sequence: int, *, arrived: float, content: Content) -> Held:
    if kind is SourceKind.KINESIS:
        moment = Epoch(round(arrived, 3))
        data = base64.b64encode(content.text().encode()).decode()
        return Held(sequence, key, moment, content, KinesisRecord(str(sequence), key, moment, data))
    return _held_dynamo(key, sequence, arrived=Epoch(float(int(arrived))), content=content)


def _held_dynamo(key: str, sequence: int, *, arrived: Epoch, content: Content) -> Held:
    keys = {"pk": {"S": key}}
    image = {**keys, "body": {"S": content.text()}, "keep": {"S": "yes" if content.keep else "no"}}
    event = {
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
    record = dynamo_record(event)
    return Held(sequence, key, arrived, content, record)
