"""Owns the fake stream services, Kinesis and DynamoDB Streams: pure state, asked by `apply(now, request)`."""

import hashlib
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from math import inf

from adapters.sources import dynamodb_streams
from adapters.sources.kinesis import stream as kinesis
from adapters.sources.odd_answers import Read as ReadAnswer
from poller.domain.errors import CursorExpired, PositionTrimmed, ResourceMissing, ServiceThrottled
from poller.domain.plan import SourceKind
from poller.domain.records import (
    AggregatedPart,
    Cursor,
    DynamoRecord,
    Epoch,
    KinesisRecord,
    Page,
    Position,
    Rank,
    Record,
    Shard,
    ShardId,
)
from poller.domain.streams.places import place_of_part
from tests.simulation.services.contents import Content, name_of
from tests.simulation.services.wires import UNREADABLE_S, Writer, answer, written
from tests.virtual import EPOCH_BASE

HASH_KEYS = 1 << 16
CURSOR_LIFE_S = 300.0
CALLS_PER_S = 5
PAGE_BYTES_MAX = 10 * 1024 * 1024
RETENTION_S = 86_400.0
BORN = EPOCH_BASE - 1000.0
"""When a stream was created that was never made again."""
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
    """Asks for a read token for the first record behind `position`. `recorded`: the position is that of a record."""

    shard: ShardId
    position: Position
    recorded: bool = True


@dataclass(frozen=True, slots=True)
class Read:
    """Asks for records; with `records_max` 0 the page is empty though there may be records, as AWS's sometimes are."""

    shard: ShardId
    cursor: Cursor
    records_max: int


@dataclass(frozen=True, slots=True)
class Starting:
    """Where a subscription begins: at the first record with this sequence number or a later one, and from this time on."""

    first: int = 0
    since: float = 0.0


@dataclass(frozen=True, slots=True)
class Held:
    """One record in a shard, or one part of an aggregated record, with what the world knows of it.

    The `sequence` of a part is that of the whole record and its own number, which is less than what lies between two records.
    """

    sequence: int
    key: str
    arrived: float
    content: Content
    wire: bytes
    """As the service sends it."""
    odd: bytes = b""
    """As the service sends it before `readable_at`, in a form that nobody can read."""
    readable_at: float = 0.0
    parts: int = 1
    """How many parts the whole record has."""

    @property
    def part(self) -> int:
        """Which part it is."""
        return self.content.part or 0

    @property
    def outer(self) -> int:
        """The sequence number of the whole record."""
        return self.sequence - self.part

    @property
    def name(self) -> str:
        """What functions and people call it."""
        return name_of(str(self.outer), self.content)

    def up_to(self, position: Position) -> bool:
        """Whether a position behind a record is behind this one."""
        if position.sequence != self.outer:
            return self.outer < position.sequence
        return not position.partial or self.part <= position.part

    def sent(self, now: float) -> bytes:
        """As the service sends it now."""
        return self.odd if now < self.readable_at else self.wire

    @property
    def record(self) -> Record:
        """As it is read."""
        read = dynamodb_streams.read_answer if self.wire.startswith(b'{"event') else kinesis.read_answer
        return read(answer([self.wire]), Epoch(self.arrived)).records[0]


@dataclass(slots=True)
class ShardState:
    """One shard; `records` keeps also those that were trimmed, `trimmed` counts them from the front."""

    shard_id: ShardId
    low: int
    high: int
    parents: tuple[ShardId, ...] = ()
    opened_at: float = 0.0
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

    def __init__(
        self,
        kind: SourceKind,
        *,
        shards: int = 1,
        retention_s: float = RETENTION_S,
        writer: Writer | None = None,
        listing_lag_s: float = 0.0,
    ) -> None:
        self.listing_lag_s = listing_lag_s
        self._writer = writer or Writer()
        self.kind = kind
        self.retention_s = retention_s
        self.shards: dict[ShardId, ShardState] = {}
        self.missing = False
        """Whether somebody has deleted the stream."""
        self.created_at = BORN
        """When it was created; somebody may delete it and make it again."""
        self.first = 0
        """Sequence numbers below are those of a stream that had the name before."""
        self.former: frozenset[ShardId] = frozenset()
        """Names of shards of streams that had the name before."""
        self.undated_for: frozenset[str] | None = None
        """Workers that may not ask when it was created; None: nobody asks."""
        self._forgotten: set[ShardId] = set()
        self._sequence = _SEQUENCE_BASE[kind]
        self._open_all(-inf, shards)

    @property
    def times_absent(self) -> bool:
        """Whether records may lack their time of arrival."""
        return self._writer.shapes.undated

    def apply(self, now: float, request: ListShards | GetCursor | Read) -> tuple[Shard, ...] | Cursor | Page:
        """One call of the service; raises ServiceThrottled, ResourceMissing, CursorExpired, PositionTrimmed."""
        if self.missing:
            raise ResourceMissing("no such stream")
        self.trim(now)
        match request:
            case ListShards():
                return self._list(now - self.listing_lag_s)
            case GetCursor(shard, position, recorded):
                state = self._shard(shard)
                if recorded and self._looks_lost(state, position):
                    raise PositionTrimmed(f"no record is at {position.sequence}, and there are later ones")
                return self._cursor(now, state, position)
            case Read(shard, cursor, records_max):
                return self._read(now, self._shard(shard), cursor, records_max)

    @property
    def latest(self) -> int:
        """A sequence number that no record has yet, or the last one has. Those of later records are larger."""
        return self._sequence

    def place(self, now: float, shard: ShardId, starting: Starting) -> int:
        """How many records of a shard are before a subscription's start. As Kinesis does, it goes on at the horizon without a word."""
        if self.missing:
            raise ResourceMissing("no such stream")
        self.trim(now)
        state = self._shard(shard)
        before = (each.outer < starting.first or each.arrived < starting.since for each in state.records)
        return max(
            state.trimmed,
            next((at for at, is_before in enumerate(before) if not is_before), len(state.records)),
        )

    def pushed(
        self, now: float, shard: ShardId, place: int, records_max: int
    ) -> tuple[Sequence[Held], int, int, bool]:
        """What a subscription is sent next, of what was there at `now`: records, the place behind them, the lag in ms, whether the shard ends."""
        state = self.shards[shard]
        place = max(place, state.trimmed)
        taken = _whole(state.records, place, _within_page(state.records[place : place + records_max]))
        while taken and taken[-1].arrived > now + 0.001:
            taken = [each for each in taken if each.outer != taken[-1].outer]
        following = place + len(taken)
        ended = state.closed_at is not None and state.closed_at <= now and following == len(state.records)
        return taken, following, self._behind_ms(state, now, following) or 0, ended

    def listed_at(self, now: float, as_of: float) -> tuple[Shard, ...]:
        """The shards as a listing showed them that was made at `as_of`."""
        if self.missing:
            raise ResourceMissing("no such stream")
        self.trim(now)
        return self._list(max(as_of, self.created_at))

    def put(self, now: float, key: str, content: Content) -> tuple[ShardId, Held]:
        """Writes a record into the open shard of its key."""
        bare = self._writer.drawn(self._writer.shapes.keyless, "record without key")
        # The service distributes what has no key.
        spread = str(content.number) if bare else key
        digest = hashlib.md5(spread.encode("utf-8", "surrogatepass"), usedforsecurity=False).digest()
        place = int.from_bytes(digest[:2])
        state = next(each for each in self.open_shards() if each.low <= place < each.high)
        sequence = self._next_sequence()
        held = self._held(None if bare else key, sequence, now=now, content=content)
        state.records.append(held)
        return state.shard_id, held

    def put_aggregated(self, now: float, inside: Sequence[tuple[str, Content]]) -> tuple[ShardId, list[Held]]:
        """Writes an aggregated record of several user records into the open shard of the first one's key."""
        shard, first = self.put(now, *inside[0])
        state = self.shards[shard]
        state.records.pop()
        parts = [
            self._part(first, key, replace(content, part=part), len(inside))
            for part, (key, content) in enumerate(inside)
        ]
        state.records += parts
        return shard, parts

    def _part(self, whole: Held, key: str, content: Content, parts: int) -> Held:
        wire = self._writer.record(whole.sequence, key, arrived=Epoch(whole.arrived), content=content)
        assert content.part is not None
        return Held(whole.sequence + content.part, key, whole.arrived, content, written(wire), parts=parts)

    def _held(self, key: str | None, sequence: int, *, now: float, content: Content) -> Held:
        if self.kind is SourceKind.KINESIS:
            arrived, write = Epoch(round(now, 3)), self._writer.record
        else:
            arrived, write = Epoch(float(int(now))), self._writer.change
        wire = write(sequence, key, arrived=arrived, content=content)
        # A record without a key stands beside no other.
        named = f"record {sequence}" if key is None else key
        if not self._writer.drawn(self._writer.shapes.unreadable, "record that cannot be read"):
            return Held(sequence, named, arrived, content, written(wire))
        odd = {**wire, "Data": None, "dynamodb": "gone"}
        return Held(sequence, named, arrived, content, written(wire), written(odd), now + UNREADABLE_S)

    def remake(self, now: float, shards: int) -> None:
        """Deletes the stream and makes it again under its name: its first shards have the names of before."""
        self.created_at, self.first = now, self._next_sequence()
        self.former |= self.shards.keys()
        self.shards, self._forgotten = {}, set()
        self._open_all(now, shards)

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
        return self._open(now, state.low, middle, parents), self._open(now, middle, state.high, parents)

    def merge(self, now: float, first: ShardId, second: ShardId) -> ShardId:
        """Closes two neighbours; one child has both as parents."""
        left, right = sorted((self.shards[first], self.shards[second]), key=lambda each: each.low)
        assert left.high == right.low, "only neighbours can merge"
        left.closed_at = right.closed_at = now
        return self._open(now, left.low, right.high, (left.shard_id, right.shard_id))

    def roll(self, now: float, shard: ShardId) -> ShardId:
        """Closes a shard; one child goes on with its keys, as DynamoDB does every few hours."""
        state = self.shards[shard]
        state.closed_at = now
        return self._open(now, state.low, state.high, (state.shard_id,))

    def trim(self, now: float) -> None:
        """Drops what is older than the retention; closed shards go with their last record."""
        horizon = now - self.retention_s
        for state in self.shards.values():
            while state.trimmed < len(state.records) and state.records[state.trimmed].arrived < horizon:
                state.trimmed += 1
            gone = state.trimmed == len(state.records)
            if gone and state.closed_at is not None and state.closed_at < horizon:
                self._forgotten.add(state.shard_id)

    def _open_all(self, now: float, shards: int) -> None:
        for number in range(shards):
            self._open(now, HASH_KEYS * number // shards, HASH_KEYS * (number + 1) // shards, ())

    def _open(self, now: float, low: int, high: int, parents: tuple[ShardId, ...]) -> ShardId:
        shard = ShardId(f"shardId-{len(self.shards):012d}")
        self.shards[shard] = ShardState(shard, low, high, parents, now)
        self._next_sequence()
        return shard

    def _next_sequence(self) -> int:
        self._sequence += _SEQUENCE_STEP[self.kind]
        return self._sequence

    def _shard(self, shard: ShardId) -> ShardState:
        if shard not in self.shards or shard in self._forgotten:
            raise ResourceMissing(f"no shard {shard}")
        return self.shards[shard]

    def _list(self, as_of: float) -> tuple[Shard, ...]:
        return tuple(
            Shard(state.shard_id, state.parents, state.closed_at is not None and state.closed_at <= as_of)
            for state in self.shards.values()
            if state.shard_id not in self._forgotten and state.opened_at <= as_of
        )

    def _cursor(self, now: float, state: ShardState, position: Position) -> Cursor:
        match position.rank:
            case Rank.START:
                return _token(state, now, _first_since(state, self._since(position)))
            case Rank.AFTER if position.sequence < self.first:
                raise PositionTrimmed(f"{position.sequence} did not come from this stream")
            case Rank.AFTER:
                index = sum(1 for each in state.records if each.up_to(position))
                if index < state.trimmed:
                    raise PositionTrimmed(f"records behind {position.sequence} are gone")
                return _token(state, now, index)
            case Rank.END:
                return _token(state, now, len(state.records))

    def _looks_lost(self, state: ShardState, position: Position) -> bool:
        """Whether a later record is where that of a position should be. The source of Kinesis takes that for a loss."""
        if self.kind is not SourceKind.KINESIS or position.rank is not Rank.AFTER:
            return False
        at = next(
            (each.outer for each in state.records if each.outer >= position.sequence), position.sequence
        )
        return at != position.sequence

    def _since(self, position: Position) -> float:
        """DynamoDB tells arrival times in whole seconds, so a start by time begins with its whole second."""
        since = position.since or 0.0
        return float(int(since)) if self.kind is SourceKind.DYNAMODB else since

    def _read(self, now: float, state: ShardState, cursor: Cursor, records_max: int) -> Page:
        _count_call(state, now)
        shard, issued, place = cursor.split("/")
        assert shard == state.shard_id, f"cursor {cursor} used on {state.shard_id}"
        if float(issued) < self.created_at:
            raise ResourceMissing("the cursor is of a stream that is gone")
        if now - float(issued) > CURSOR_LIFE_S:
            raise CursorExpired(f"cursor is {now - float(issued):.0f} s old")
        index = self._retained(state, int(place))
        taken = _whole(state.records, index, _within_page(state.records[index : index + records_max]))
        read = self._read_answer(answer([held.sent(now) for held in taken]), Epoch(now))
        read.check("GetRecords")
        taken = taken[: len(read.records)]
        following = index + len(taken)
        after = _following(state, now, following, records_max=records_max, taken=len(taken))
        # Kinesis names the children in the last answer.
        ended = after is None and self.kind is SourceKind.KINESIS
        found: Sequence[Record] = read.records
        records = [_apart(held, record) for held, record in zip(taken, found, strict=True)]
        return Page(records, after, self._behind_ms(state, now, following), ended)

    def _read_answer(self, body: bytes, now: Epoch) -> ReadAnswer[KinesisRecord] | ReadAnswer[DynamoRecord]:
        """As the source of this kind reads it."""
        if self.kind is SourceKind.KINESIS:
            return kinesis.read_answer(body, now)
        return dynamodb_streams.read_answer(body, now)

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


def _whole(records: list[Held], index: int, taken: list[Held]) -> list[Held]:
    """What is taken, to the end of its last aggregated record."""
    end = index + len(taken)
    while taken and end < len(records) and records[end].outer == records[end - 1].outer:
        end += 1
    return records[index:end]


def _apart(held: Held, record: Record) -> Record:
    """The record as a source gives it that takes aggregated records apart."""
    if held.parts == 1 or not isinstance(record, KinesisRecord):
        return record
    place = place_of_part(record.sequence_number, held.part, held.parts)
    return AggregatedPart(place, record.arrived, record.data, record.key, record.dated)


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
