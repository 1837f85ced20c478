"""The digest of a worker's status: what is in it, what it leaves out, and that nothing blocked is lost in silence."""

import zlib
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from poller.domain.records import Epoch, MappingId, ShardId
from poller.domain.rows import MappingState
from poller.domain.sizing.fleet_size import COUNT_MAX, FleetSize, WorkerLoad
from poller.domain.status import (
    ErrorDocument,
    FaultyRecord,
    LaneStatus,
    MappingStatus,
    PauseStatus,
    ShardStatus,
)
from poller.rules.workers.status_digest import (
    DIGEST_BYTES_MAX,
    ENTRIES_MAX,
    KEY_CHARS_MAX,
    LANES_MAX,
    PLAIN_BYTES_MAX,
    TEXT_CHARS_MAX,
    StatusDigest,
    decode,
    digest_of,
    encode,
)
from tests.hostile_texts import HOSTILE

STREAM = "arn:aws:kinesis:eu-west-1:111122223333:stream/orders"
SINCE = Epoch(1_767_225_600.0)


def lane(**fields: object) -> LaneStatus:
    given = {"lane": "0", "state": "waiting", "blocked_since": SINCE, "last_error": "ValueError: no"} | fields
    return LaneStatus(**given)  # type: ignore[arg-type]  # a test's own fields


def shard(name: str, state: str = "reading", *lanes: LaneStatus, **fields: object) -> ShardStatus:
    return ShardStatus(shard=ShardId(name), state=state, position="AFTER:7", lanes=lanes, **fields)  # type: ignore[arg-type]  # as above


def mapping(*shards: ShardStatus, name: str = "orders", **fields: object) -> MappingStatus:
    return MappingStatus(
        mapping=MappingId(name),
        function="f",
        source_arn=STREAM,
        state=MappingState.ENABLED,
        shards=shards,
        **fields,  # type: ignore[arg-type]  # as above
    )


def through_a_store(*statuses: MappingStatus) -> StatusDigest:
    content = encode(digest_of(statuses))
    assert len(content) <= DIGEST_BYTES_MAX
    found = decode(content)
    assert found is not None
    return found


def test_a_healthy_shard_needs_no_word() -> None:
    (found,) = through_a_store(mapping(*(shard(f"s{n}") for n in range(1000)))).mappings
    assert (found.status.shards, found.blocked, found.left_out) == ((), 0, 0)


@pytest.mark.parametrize(
    "state", ["starting", "blocked", "failing", "draining", "ended", "paused", "elsewhere"]
)
def test_a_shard_in_any_other_state_is_named(state: str) -> None:
    (found,) = through_a_store(mapping(shard("a"), shard("b", state, reason="no access"))).mappings
    assert [(each.shard, each.state, each.reason) for each in found.status.shards] == [
        ("b", state, "no access")
    ]


def test_of_a_blocked_shard_the_record_at_fault_the_error_and_the_next_try_are_named() -> None:
    record = FaultyRecord(identifier="8", key="k", arrived=SINCE)
    bad = lane(
        attempts=12,
        next_try=Epoch(SINCE + 9),
        error=ErrorDocument(errorType="E", errorMessage="m" * 200, stackTrace=("x",) * 20),
        records=(record, replace(record, identifier="9")),
        records_count=2,
        retained_until=Epoch(SINCE + 99),
    )
    given = shard("a", "blocked", lane(blocked_since=None, last_error=""), bad, behind_ms=5, owner="w")
    (found,) = through_a_store(mapping(given)).mappings
    assert found.blocked == 1
    (named,) = found.status.shards
    assert named == replace(
        given, behind_ms=None, owner="", lanes=(replace(bad, error=None, records=(record,)),)
    )


def test_of_a_queue_what_fails_is_named_and_what_works_is_not() -> None:
    group, message = lane(lane="g"), lane(lane="m", blocked_since=None, failing_since=SINCE)
    working = LaneStatus(lane="poller 1", state="invoking")
    (found,) = through_a_store(replace(mapping(), lanes=(group, message, working), pollers=3)).mappings
    assert (found.status.lanes, found.status.pollers, found.blocked) == ((group, message), 3, 1)


def test_the_time_of_the_last_result_changes_once_a_minute() -> None:
    digests = {
        encode(digest_of([mapping(last_result="OK", result_at=Epoch(SINCE + s))])) for s in (0, 1, 30, 59.9)
    }
    assert len(digests) == 1
    later = digest_of([mapping(last_result="OK", result_at=Epoch(SINCE + 60))])
    assert encode(later) not in digests


def test_blocked_lanes_beyond_those_of_one_shard_are_counted() -> None:
    lanes = tuple(lane(lane=str(n), blocked_since=Epoch(SINCE + n)) for n in range(LANES_MAX + 3))
    (found,) = through_a_store(mapping(shard("a", "blocked", *lanes))).mappings
    assert [each.lane for each in found.status.shards[0].lanes] == [str(n) for n in range(LANES_MAX)]
    assert (found.blocked, found.left_out) == (1, 3)


def test_the_shards_that_are_blocked_longest_stay_when_there_are_too_many() -> None:
    many = [shard(f"s{n}", "blocked", lane(blocked_since=Epoch(SINCE - n))) for n in range(ENTRIES_MAX + 50)]
    (found,) = through_a_store(mapping(shard("new", "starting"), *many)).mappings
    kept = {each.shard for each in found.status.shards}
    assert (found.blocked, found.left_out + len(kept)) == (ENTRIES_MAX + 50, ENTRIES_MAX + 51)
    assert kept == {f"s{n}" for n in range(ENTRIES_MAX + 50 - len(kept), ENTRIES_MAX + 50)}


def test_a_digest_of_very_many_mappings_is_within_its_limit_and_counts_the_rest() -> None:
    names = [f"{n:032x}-{n * 7919:064x}" for n in range(4000)]
    bad = shard("s", "blocked", lane())
    found = through_a_store(*(mapping(*([bad] if n % 2 else []), name=name) for n, name in enumerate(names)))
    assert len(found.mappings) + found.mappings_left_out == 4000
    assert sum(each.blocked for each in found.mappings) + found.blocked_left_out == 2000
    assert all(each.blocked for each in found.mappings), "mappings in trouble stay longest"


@pytest.mark.parametrize("name", HOSTILE)
def test_any_text_is_cleaned_and_cut_before_it_is_stored(name: str) -> None:
    text = HOSTILE[name] * 3 + "x" * 5000
    bad = lane(lane=text, last_error=text, records=(FaultyRecord(identifier=text, key=text, arrived=SINCE),))
    (found,) = through_a_store(mapping(shard("s", "blocked", bad, reason=text), reason=text)).mappings
    (named,) = found.status.shards
    texts = [found.status.reason, named.reason, named.lanes[0].last_error]
    keys = [named.lanes[0].lane, named.lanes[0].records[0].identifier, named.lanes[0].records[0].key]
    assert max(map(len, texts)) <= TEXT_CHARS_MAX
    assert max(map(len, keys)) <= KEY_CHARS_MAX
    assert not any(bad in each for each in texts + keys for bad in "\x1b\n\r\x00\u202e")


@pytest.mark.parametrize(
    "content",
    [b"", b"{}", b"\x00" * 100, encode(StatusDigest())[:-3], b"x\x9c" + b"\xff" * 50],
    ids=["empty", "plain", "zeros", "cut", "broken"],
)
def test_a_digest_that_cannot_be_read_is_none(content: bytes) -> None:
    assert decode(content) is None


def test_a_digest_that_unpacks_to_too_much_is_not_read() -> None:
    plain = b'{"mappings_left_out":1' + b" " * PLAIN_BYTES_MAX + b"}"
    assert decode(zlib.compress(plain)) is None
    assert decode(zlib.compress(b'{"mappings_left_out":1,"tomorrow":[1]}')) == StatusDigest(
        mappings_left_out=1
    )


def test_an_unknown_state_of_a_mapping_is_one_of_another_version() -> None:
    plain = zlib.decompress(encode(digest_of([mapping()]))).replace(b'"Enabled"', b'"Tomorrow"')
    assert decode(zlib.compress(plain)) is None


TEXTS = st.sampled_from(sorted(HOSTILE.values())) | st.text(max_size=400)
MOMENTS = st.floats(0, 4e9).map(Epoch)
LANES = st.builds(
    LaneStatus,
    lane=TEXTS,
    state=TEXTS,
    attempts=st.integers(0, 10**9),
    blocked_since=st.none() | MOMENTS,
    next_try=st.none() | MOMENTS,
    last_error=TEXTS,
    records=st.lists(st.builds(FaultyRecord, identifier=TEXTS, key=TEXTS, arrived=MOMENTS), max_size=3).map(
        tuple
    ),
)
STATES = st.sampled_from(["reading", "reading", "blocked", "failing", "draining"])
SHARDS = st.builds(
    ShardStatus,
    shard=st.uuids().map(str),
    state=STATES,
    position=TEXTS,
    reason=TEXTS,
    lanes=st.lists(LANES, max_size=3).map(tuple),
)
MAPPINGS = st.lists(
    st.builds(
        MappingStatus,
        mapping=st.uuids().map(str),
        function=TEXTS,
        source_arn=TEXTS,
        state=st.sampled_from(MappingState),
        reason=TEXTS,
        shards=st.lists(SHARDS, max_size=4).map(tuple),
        lanes=st.lists(LANES, max_size=4).map(tuple),
    ),
    max_size=6,
    unique_by=lambda each: each.mapping,
)


@settings(max_examples=60, deadline=None)
@given(statuses=MAPPINGS, copies=st.sampled_from([1, 1, 40]))
def test_nothing_blocked_is_lost_in_silence_and_the_limit_holds(
    statuses: list[MappingStatus], copies: int
) -> None:
    many = [
        replace(
            each,
            mapping=MappingId(f"{each.mapping}-{n}"),
            shards=tuple(replace(shard, shard=ShardId(f"{shard.shard}-{n}")) for shard in each.shards),
        )
        for each in statuses
        for n in range(copies)
    ]
    found = through_a_store(*many)
    blocked = sum(
        sum(each.blocked for each in status.shards)
        + sum(each.blocked_since is not None for each in status.lanes)
        for status in many
    )
    assert sum(each.blocked for each in found.mappings) + found.blocked_left_out == blocked
    assert len(found.mappings) + found.mappings_left_out == len(many)
    given_shards = {each.mapping: each for each in many}
    for each in found.mappings:
        status = given_shards[each.status.mapping]
        troubled = [shard for shard in status.shards if shard.state != "reading" or shard.blocked]
        failing = [lane for lane in status.lanes if lane.blocked_since is not None or lane.last_error]
        named = len(each.status.shards) + len(each.status.lanes)
        assert named + each.left_out >= len(troubled) + len(failing)
    assert decode(encode(found)) == found, "what was written can be written again"


def test_what_is_paused_is_named_with_who_paused_it() -> None:
    pause = PauseStatus(operation="op", by="ann", since=SINCE, reason="deploy")
    idle = lane(blocked_since=None, last_error="", paused=pause)
    given = mapping(shard("a", "paused", idle, paused=pause), shard("b", "reading", idle), shard("c"))
    group = lane(lane="g", blocked_since=None, last_error="", paused=pause)
    (found,) = through_a_store(replace(given, lanes=(group,), paused=pause)).mappings
    assert found.status == replace(given, lanes=(group,), paused=pause, shards=given.shards[:2])


def test_what_a_worker_tells_of_its_load_comes_through_a_store() -> None:
    load = WorkerLoad(
        pressure="busy",
        workers=3,
        shards=4,
        calls=5,
        unbounded=True,
        reason="a shard of mapping one is behind",
        size=FleetSize(change=7, workers=4, too_few=3),
    )
    found = decode(encode(digest_of([mapping()], load=load)))
    assert found is not None
    assert found.load == load
    without = decode(encode(digest_of([mapping()])))
    assert without is not None
    assert without.load is None


@pytest.mark.parametrize("count", [-1, 0, 2**40, -(2**62)])
def test_what_another_worker_tells_of_its_load_is_cut(count: int) -> None:
    """Counts are computed with, and the reason is shown to people."""
    size = FleetSize(change=count, workers=count, too_few=count)
    reason = "red\x1b[31m\nforged " * 40
    load = WorkerLoad(pressure="?", workers=count, shards=count, calls=count, reason=reason, size=size)
    found = decode(encode(digest_of([mapping()], load=load)))
    assert found is not None
    kept = found.load
    assert kept is not None
    assert kept.size is not None
    counts = (kept.workers, kept.shards, kept.calls, kept.size.change, kept.size.too_few)
    assert set(counts) == {min(max(0, count), COUNT_MAX)}
    assert kept.size.workers == min(max(1, count), COUNT_MAX)
    assert len(kept.reason) <= TEXT_CHARS_MAX
    assert kept.reason.isprintable()
