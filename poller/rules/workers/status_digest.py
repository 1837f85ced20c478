"""Owns the digest of a worker's status: what it writes for the other workers, so that each of them can show all shards and queues.

A healthy shard needs no word: its owner and position are in its lease. So a digest has one summary for each mapping, and only the
shards and lanes that are in trouble or do not read (starting, draining). Texts are cut, of a batch at fault only the first
record is named, and no payload is in it.

A digest has a size limit, because a store charges by size. What does not fit is left out, blocked shards last, and is counted:
the counts always stay. So a blocked shard is either in the digest or in a count.
"""

import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence, Set
from dataclasses import dataclass, replace

import msgspec

from poller.domain.records import Epoch, MappingId, ShardId
from poller.domain.sizing.fleet_size import COUNT_MAX, FleetSize, WorkerLoad
from poller.domain.status import (
    BreakerStatus,
    FaultyRecord,
    FunctionStatus,
    LaneStatus,
    MappingStatus,
    PauseStatus,
    ShardStatus,
)
from poller.domain.telemetry.labels import BreakerState
from poller.domain.untrusted.texts import line_of

DIGEST_BYTES_MAX = 16 * 1024
"""Compressed size of a digest. DynamoDB charges one write unit for each KiB."""
PLAIN_BYTES_MAX = 512 * 1024
"""Size of a digest before it is compressed. A longer one is not read."""
ENTRIES_MAX = 200
"""Shards and lanes in trouble of one worker that its digest names."""
LANES_MAX = 10
"""Blocked lanes of one shard."""
TEXT_CHARS_MAX = 256
KEY_CHARS_MAX = 128
ARN_CHARS_MAX = 512
RESULT_STEP_S = 60
"""Times of last results are rounded down to this, so that a digest of a calm worker changes once a minute at most."""
BREAKERS_MAX, BREAKERS_MIN = 50, 8
"""Breakers of one worker that its digest names: so many at most, and so many also where there is little room."""
KEPT_STEPS = 64
"""If a digest is too long, the number of entries that fit is found to within this part of all."""


class MappingDigest(msgspec.Struct, frozen=True, omit_defaults=True):
    """One mapping on one worker.

    `status` has only the shards and lanes that are named. `blocked` counts the blocked shards of a stream, or the blocked lanes of
    a queue, named or not. `left_out` counts shards and lanes that should be named and are not.
    """

    status: MappingStatus
    blocked: int = 0
    left_out: int = 0


class BreakerDigest(msgspec.Struct, frozen=True, omit_defaults=True):
    """The breaker of a function on one worker, with times in whole seconds. What a closed one counts now is left out."""

    function: str
    breaker: BreakerStatus


class StatusDigest(msgspec.Struct, frozen=True, omit_defaults=True):
    """The status of one worker. Mappings that are left out are counted, with the blocked shards and lanes in them.

    So are breakers. Those that are not closed are named first. A digest of an earlier version has none.
    """

    mappings: tuple[MappingDigest, ...] = ()
    mappings_left_out: int = 0
    blocked_left_out: int = 0
    breakers: tuple[BreakerDigest, ...] = ()
    breakers_left_out: int = 0
    load: WorkerLoad | None = None


@dataclass(frozen=True, slots=True)
class _Entry:
    """A mapping's summary (`item` None), or one of its shards or lanes. Entries with a smaller rank stay longer."""

    mapping: int
    item: ShardStatus | LaneStatus | None
    rank: tuple[int, float]


def digest_of(
    statuses: Iterable[MappingStatus],
    functions: Iterable[FunctionStatus] = (),
    load: WorkerLoad | None = None,
) -> StatusDigest:
    """The digest of a worker's own status, with ENTRIES_MAX shards and lanes at most. `encode` cuts it and applies the size limit.

    It is made once a second to find out whether something has changed, so it does no work on texts.
    """
    found = (BreakerDigest(each.function, _calm(each.breaker)) for each in functions if each.breaker)
    breakers = sorted(found, key=_breaker_rank)
    whole = StatusDigest(
        tuple(_summary(status) for status in statuses),
        breakers=tuple(breakers[:BREAKERS_MAX]),
        breakers_left_out=max(0, len(breakers) - BREAKERS_MAX),
        load=load,
    )
    entries = _by_importance(whole)
    named = [each for each in entries if each.item is not None]
    if len(named) > ENTRIES_MAX:
        summaries = [each for each in entries if each.item is None]
        whole = _keeping(whole, [*summaries, *named[:ENTRIES_MAX]])
    return _with_statuses(whole, _stripped)


def encode(digest: StatusDigest) -> bytes:
    """The digest as a store keeps it, DIGEST_BYTES_MAX at most: texts are cut, and what does not fit is left out and counted."""
    whole = msgspec.structs.replace(
        _with_statuses(digest, _cut), breakers=tuple(_cut_breaker(each) for each in digest.breakers)
    )
    content = _fitting(whole)
    if content is not None:
        return content
    whole = _with_few_breakers(whole)
    entries = _by_importance(whole)
    content, fits, too_many = _fitting(_keeping(whole, ())), 0, len(entries)
    assert content is not None, "counts alone always fit"
    while too_many - fits > max(1, len(entries) // KEPT_STEPS):
        keep = (fits + too_many) // 2
        found = _fitting(_keeping(whole, entries[:keep]))
        if found is None:
            too_many = keep
        else:
            content, fits = found, keep
    return content


def _fitting(digest: StatusDigest) -> bytes | None:
    """The content of a digest; None if it is too long."""
    plain = msgspec.json.encode(digest)
    content = zlib.compress(plain)
    return content if len(content) <= DIGEST_BYTES_MAX and len(plain) <= PLAIN_BYTES_MAX else None


def decode(content: bytes) -> StatusDigest | None:
    """The digest in a store's row; None if it cannot be read, as of another version. Its texts are cleaned and cut again."""
    try:
        unpacked = zlib.decompressobj()
        plain = unpacked.decompress(content, PLAIN_BYTES_MAX)
        if unpacked.unconsumed_tail or not unpacked.eof:
            return None
        found = msgspec.json.decode(plain, type=StatusDigest)
    except (zlib.error, msgspec.MsgspecError, RecursionError, UnicodeError):
        return None
    read = (
        MappingDigest(_cut(each.status), max(each.blocked, _blocked(each.status)), max(0, each.left_out))
        for each in found.mappings
    )
    return StatusDigest(
        tuple(read),
        max(0, found.mappings_left_out),
        max(0, found.blocked_left_out),
        tuple(_cut_breaker(each) for each in found.breakers[:BREAKERS_MAX]),
        max(0, found.breakers_left_out),
        None if found.load is None else _cut_load(found.load),
    )


def _cut_load(load: WorkerLoad) -> WorkerLoad:
    """The load with counts that can be computed with, and a reason of one line."""
    size = load.size
    return replace(
        load,
        workers=_count(load.workers),
        shards=_count(load.shards),
        calls=_count(load.calls),
        reason=line_of(load.reason, chars_max=TEXT_CHARS_MAX),
        size=None
        if size is None
        else FleetSize(
            change=_count(size.change), workers=max(1, _count(size.workers)), too_few=_count(size.too_few)
        ),
    )


def _count(number: int) -> int:
    return min(max(0, number), COUNT_MAX)


def in_trouble(shard: ShardStatus) -> bool:
    """Whether a digest names this shard: it is blocked, failing or paused, or it does not read yet or any more."""
    return shard.state != "reading" or shard.blocked or any(lane.paused is not None for lane in shard.lanes)


def _calm(breaker: BreakerStatus) -> BreakerStatus:
    """The breaker without what changes with each call, and with times that do not depend on when it is asked."""
    closed = breaker.state == BreakerState.CLOSED
    return replace(
        breaker,
        since=Epoch(round(breaker.since)),
        next_try=None if breaker.next_try is None else Epoch(round(breaker.next_try)),
        calls=0 if closed else breaker.calls,
        failed=0 if closed else breaker.failed,
    )


def _breaker_rank(digest: BreakerDigest) -> tuple[bool, float, str]:
    """Those that are not closed come first, the oldest of them first."""
    closed = digest.breaker.state == BreakerState.CLOSED
    return (closed, 0.0 if closed else digest.breaker.since, digest.function)


def _with_few_breakers(digest: StatusDigest) -> StatusDigest:
    kept = digest.breakers[:BREAKERS_MIN]
    left_out = digest.breakers_left_out + len(digest.breakers) - len(kept)
    return msgspec.structs.replace(digest, breakers=kept, breakers_left_out=left_out)


def _summary(status: MappingStatus) -> MappingDigest:
    """A mapping with all shards and lanes that should be named."""
    shards = tuple(shard for shard in status.shards if in_trouble(shard))
    lanes = tuple(
        lane for lane in status.lanes if lane.blocked_since is not None or lane.last_error or lane.paused
    )
    hidden = sum(max(0, len(_blocked_lanes(shard.lanes)) - LANES_MAX) for shard in shards)
    at = status.result_at
    named = replace(
        status,
        shards=shards,
        lanes=lanes,
        workers=(),
        result_at=None if at is None else Epoch(at // RESULT_STEP_S * RESULT_STEP_S),
    )
    return MappingDigest(named, _blocked(status), hidden)


def _with_statuses(digest: StatusDigest, change: Callable[[MappingStatus], MappingStatus]) -> StatusDigest:
    changed = (MappingDigest(change(each.status), each.blocked, each.left_out) for each in digest.mappings)
    return msgspec.structs.replace(digest, mappings=tuple(changed))


def _stripped(status: MappingStatus) -> MappingStatus:
    """The mapping without what changes all the time, what every worker knows from elsewhere, and what takes much room."""
    if not status.shards and not status.lanes:
        return status
    return replace(
        status,
        shards=tuple(_stripped_shard(shard) for shard in status.shards),
        lanes=tuple(_stripped_lane(lane) for lane in status.lanes),
    )


def _stripped_shard(shard: ShardStatus) -> ShardStatus:
    blocked = _blocked_lanes(shard.lanes)
    paused = [lane for lane in shard.lanes if lane.paused is not None and lane.blocked_since is None]
    lanes = [*blocked, *paused][:LANES_MAX]
    return replace(
        shard,
        owner="",
        behind_ms=None,
        lanes=tuple(_stripped_lane(lane) for lane in lanes),
        age_s=0.0,
        out_of_date=False,
    )


def _stripped_lane(lane: LaneStatus) -> LaneStatus:
    return replace(lane, error=None, records=lane.records[:1], worker="")


def _blocked(status: MappingStatus) -> int:
    return sum(shard.blocked for shard in status.shards) + len(_blocked_lanes(status.lanes))


def _blocked_lanes(lanes: Iterable[LaneStatus]) -> list[LaneStatus]:
    return sorted((lane for lane in lanes if lane.blocked_since is not None), key=_lane_since)


def _lane_since(lane: LaneStatus) -> tuple[float, str]:
    return (lane.blocked_since if lane.blocked_since is not None else float("inf"), lane.lane)


def _cut(status: MappingStatus) -> MappingStatus:
    return replace(
        status,
        mapping=MappingId(_line(status.mapping)),
        function=_line(status.function),
        source_arn=line_of(status.source_arn, chars_max=ARN_CHARS_MAX),
        reason=_line(status.reason),
        last_result=_line(status.last_result),
        paused=_cut_pause(status.paused),
        destination=line_of(status.destination, chars_max=ARN_CHARS_MAX),
        shards=tuple(_cut_shard(shard) for shard in status.shards),
        lanes=tuple(_cut_lane(lane) for lane in status.lanes),
    )


def _cut_shard(shard: ShardStatus) -> ShardStatus:
    return replace(
        shard,
        shard=ShardId(_line(shard.shard)),
        state=_line(shard.state),
        position=_line(shard.position),
        reason=_line(shard.reason),
        lanes=tuple(_cut_lane(lane) for lane in shard.lanes),
        paused=_cut_pause(shard.paused),
    )


def _cut_pause(pause: PauseStatus | None) -> PauseStatus | None:
    if pause is None:
        return None
    return replace(
        pause,
        operation=line_of(pause.operation, chars_max=KEY_CHARS_MAX),
        by=line_of(pause.by, chars_max=KEY_CHARS_MAX),
        reason=_line(pause.reason),
    )


def _cut_breaker(digest: BreakerDigest) -> BreakerDigest:
    breaker = replace(digest.breaker, state=_line(digest.breaker.state), reason=_line(digest.breaker.reason))
    return BreakerDigest(_line(digest.function), breaker)


def _cut_lane(lane: LaneStatus) -> LaneStatus:
    return replace(
        lane,
        lane=line_of(lane.lane, chars_max=KEY_CHARS_MAX),
        state=_line(lane.state),
        last_error=_line(lane.last_error),
        records=tuple(_cut_record(record) for record in lane.records[:1]),
        paused=_cut_pause(lane.paused),
    )


def _cut_record(record: FaultyRecord) -> FaultyRecord:
    return replace(
        record,
        identifier=line_of(record.identifier, chars_max=KEY_CHARS_MAX),
        key=line_of(record.key, chars_max=KEY_CHARS_MAX),
    )


def _line(text: str) -> str:
    return line_of(text, chars_max=TEXT_CHARS_MAX)


def _by_importance(digest: StatusDigest) -> list[_Entry]:
    """All entries: mappings in trouble, what is blocked, other mappings, the rest. A mapping comes before what is in it."""
    return sorted(_entries(digest), key=lambda each: (each.rank, each.mapping))


def _entries(digest: StatusDigest) -> Iterator[_Entry]:
    for number, each in enumerate(digest.mappings):
        status = each.status
        troubled = each.blocked or each.left_out or status.shards or status.lanes or status.reason
        yield _Entry(number, None, (0, -each.blocked) if troubled else (2, 0.0))
        items: list[ShardStatus | LaneStatus] = [*status.shards, *status.lanes]
        for item in items:
            yield _Entry(number, item, _rank(item))


def _rank(item: ShardStatus | LaneStatus) -> tuple[int, float]:
    lanes = item.lanes if isinstance(item, ShardStatus) else (item,)
    since = min((lane.blocked_since for lane in lanes if lane.blocked_since is not None), default=None)
    if since is not None:
        return (1, since)
    failing = isinstance(item, LaneStatus) or item.state == "failing"
    return (3, 0.0) if failing else (4, 0.0)


def _keeping(digest: StatusDigest, kept: Sequence[_Entry]) -> StatusDigest:
    """The digest with these entries only; everything else is counted."""
    summaries = {each.mapping for each in kept if each.item is None}
    named = {id(each.item) for each in kept if each.item is not None}
    gone = [each for number, each in enumerate(digest.mappings) if number not in summaries]
    kept_mappings = (each for number, each in enumerate(digest.mappings) if number in summaries)
    return msgspec.structs.replace(
        digest,
        mappings=tuple(_naming(each, named) for each in kept_mappings),
        mappings_left_out=digest.mappings_left_out + len(gone),
        blocked_left_out=digest.blocked_left_out + sum(each.blocked for each in gone),
    )


def _naming(digest: MappingDigest, named: Set[int]) -> MappingDigest:
    """The mapping with those of its shards and lanes whose identities are in `named`, in the same order."""
    status = digest.status
    shards = tuple(each for each in status.shards if id(each) in named)
    lanes = tuple(each for each in status.lanes if id(each) in named)
    fewer = len(status.shards) + len(status.lanes) - len(shards) - len(lanes)
    return MappingDigest(replace(status, shards=shards, lanes=lanes), digest.blocked, digest.left_out + fewer)
