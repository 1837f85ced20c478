"""Dry runs on virtual time: what would be called, when they end, and that nothing outside changes."""

import asyncio
import base64
import json
from collections.abc import Sequence
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from adapters.stores.memory import MemoryStore
from poller.commands.dry_run.positions import StoreUnread
from poller.domain.errors import AccessDenied, InvalidConfiguration, RecordUnreadable, ServiceUnavailable
from poller.domain.plan import MappingPlan
from poller.domain.policies import BatchPolicy, RetryPolicy
from poller.domain.records import Cursor, Epoch, MappingId, Page, Position, Shard, ShardId, WorkerId
from poller.domain.rows import Checkpoint, Lease, MappingRow
from poller.rules.continued_mapping import described
from poller.runtime.daemon import Daemon
from poller.runtime.streams.places import connection
from tests.commands.dry_run.sites import DrySite, play
from tests.rules.build import kinesis
from tests.runtime import daemons
from tests.runtime.fakes import SHARD, STREAM_ARN, FakeFunction, FakeStream, mapping, records
from tests.runtime.queues.queue_fakes import FIFO, STANDARD, Service, fifo, plan, standard
from tests.virtual import EPOCH_BASE

OTHER = MappingId("7d0a5e0b-8b0c-4a56-9c0e-0d7d6b0c2b22")
FAILED = "arn:aws:sqs:eu-west-1:111122223333:failed"
CREATED = Epoch(EPOCH_BASE)
CHILD = ShardId("shardId-000000000001")


def stream(*numbers: int) -> FakeStream:
    found = FakeStream()
    found.put(*records(*numbers))
    return found


def batches(records_max: int, window_s: float = 0.0) -> BatchPolicy:
    return BatchPolicy(records_max=records_max, window_s=window_s)


def site_of(source: FakeStream | Service, arn: str = STREAM_ARN) -> DrySite:
    return DrySite({arn: source})


async def _stored(store: MemoryStore, row: MappingRow, *leases: Lease) -> None:
    await store.create(row)
    await store.seed(row.mapping, leases)
    await store.beat(WorkerId("daemon"), 7, facts={})


def stored(store: MemoryStore, row: MappingRow, *leases: Lease) -> None:
    """Puts what a daemon keeps into its store."""
    asyncio.run(_stored(store, row, *leases))


async def _content(store: MemoryStore, row: MappingRow) -> object:
    return await store.mappings(), await store.leases(row.mapping), await store.workers()


def test_batches_are_those_of_the_engine_and_the_run_ends_when_all_is_read() -> None:
    found = play(site_of(stream(1, 2, 3, 4, 5)), mapping(batch=batches(2)))
    assert found.status == 0
    assert found.calls == [(2, "1", "2"), (2, "3", "4"), (1, "5", "5")]
    (end,) = found.of("summary")
    assert (end["ended"], end["ok"], end["sources"][0]["begins"]) == ("caught_up", True, "TRIM_HORIZON")
    assert found.seconds < 3.0


def invoked(source: FakeStream, plan_: MappingPlan, count: int) -> list[tuple[int, str, str]]:
    """The calls that a daemon makes of this stream, in the form of `Played.calls`."""
    function = FakeFunction()
    world = daemons.Site(sources={STREAM_ARN: source}, functions={"reader": function})

    async def script(_: Daemon) -> None:
        await daemons.until(lambda: sum(len(call) for call in function.calls) == count)

    daemons.play(lambda: world.daemon(daemons.daemon_plan(plan_)), script)
    return [(len(call), str(call[0]), str(call[-1])) for call in function.calls]


def keyed(keys: list[str], page_max: int) -> FakeStream:
    """A stream with a record of each key."""
    found = FakeStream(page_max=page_max)
    found.put(*(kinesis(number, key=key) for number, key in enumerate(keys, 1)))
    return found


@settings(max_examples=25)
@given(
    keys=st.lists(st.sampled_from("abcde"), min_size=1, max_size=30),
    page_max=st.integers(1, 12),
    records_max=st.integers(1, 8),
    lanes=st.integers(1, 3),
    window_s=st.sampled_from([0.0, 3.0]),
)
def test_its_calls_are_those_that_the_daemon_makes(
    keys: list[str], page_max: int, records_max: int, lanes: int, window_s: float
) -> None:
    # Without a window it depends on how long calls take which pages share a batch. One page has all records then.
    pages = page_max if window_s else 100
    plan_ = mapping(batch=batches(records_max, window_s), lanes=lanes)
    dry = play(site_of(keyed(keys, pages)), plan_).calls
    assert sorted(dry) == sorted(invoked(keyed(keys, pages), plan_, len(keys)))


@settings(max_examples=25)
@given(count=st.integers(1, 30), page_max=st.integers(1, 12), records_max=st.integers(1, 8))
def test_every_record_is_in_one_call_in_order(count: int, page_max: int, records_max: int) -> None:
    found = play(site_of(keyed(["k"] * count, page_max)), mapping(batch=batches(records_max)))
    numbers = [number for _, first, last in found.calls for number in range(int(first), int(last) + 1)]
    assert numbers == list(range(1, count + 1))
    assert all(records <= records_max for records, _, _ in found.calls)


def test_it_begins_where_the_daemon_stands_and_its_store_stays_as_it_is() -> None:
    site, plan_ = site_of(stream(1, 2, 3, 4)), mapping()
    row = MappingRow(plan_.mapping, CREATED, seeded=True, document=described(connection(plan_)), revision=3)
    lease = Lease(SHARD, (), Checkpoint(Position.after("2")), owner=WorkerId("daemon"), epoch=5)
    stored(site.store, row, lease)
    before = asyncio.run(_content(site.store, row))
    found = play(site, plan_)
    assert found.calls == [(2, "3", "4")]
    assert found.of("summary")[0]["sources"][0]["begins"] == "AFTER:2"
    assert found.seconds < 3.0, "it waited for the lease of the daemon"
    assert asyncio.run(_content(site.store, row)) == before
    assert play(site, plan_, fresh=True).calls == [(4, "1", "4")]


def test_a_mapping_that_is_new_to_the_store_goes_on_where_the_one_it_continues_stands() -> None:
    site, new = site_of(stream(1, 2, 3)), mapping()
    old = replace(new, mapping=OTHER, function_arn=f"{new.function_arn}:live")
    row = MappingRow(OTHER, CREATED, seeded=True, document=described(connection(old)))
    stored(site.store, row, Lease(SHARD, (), Checkpoint(Position.after("2"))))
    found = play(site, new)
    assert found.calls == [(1, "3", "3")]
    assert "goes on where" in found.of("note")[0]["text"]


def test_filtered_records_are_counted_with_the_call_that_follows() -> None:
    source = FakeStream()
    good, bad = (base64.b64encode(text).decode() for text in (b'{"n":1}', b'{"n":2}'))
    source.put(*(kinesis(number, data=bad if number < 4 else good) for number in range(1, 6)))
    found = play(site_of(source), mapping(filters=('{"data":{"n":[1]}}',)))
    assert [(each["records"], each["filtered"]) for each in found.of("call")] == [(2, 3)]


def test_a_filter_that_drops_all_leaves_no_call_and_status_zero() -> None:
    found = play(site_of(stream(1, 2, 3)), mapping(filters=('{"partitionKey":["none"]}',)))
    assert (found.status, found.calls) == (0, [])
    (source,) = found.of("summary")[0]["sources"]
    assert (source["read"], source["filtered"], source["caught_up"]) == (3, 3, True)


def test_a_batching_window_is_waited_for() -> None:
    found = play(site_of(stream(1, 2)), mapping(batch=batches(10, window_s=20.0)))
    assert found.calls == [(2, "1", "2")]
    assert 20.0 < found.seconds < 24.0


def test_an_open_tumbling_window_is_not_waited_for_and_its_state_is_empty() -> None:
    source = FakeStream()
    source.put(*records(1, 2, age_s=200.0), *records(3))
    found = play(site_of(source), mapping(tumbling_window_s=60, batch=batches(1)), events=True)
    windows = [(each["records"], each["window"]["final"]) for each in found.of("call")]
    assert windows == [(1, False), (1, False), (0, True), (1, False)]
    assert [each["event"]["state"] for each in found.of("call")] == [{}, {}, {}, {}]
    assert found.seconds < 5.0


def test_children_are_read_behind_their_parents() -> None:
    source = FakeStream({SHARD: list(records(1, 2)), CHILD: list(records(3))}, ended={SHARD})
    source.parents = {CHILD: (SHARD,)}
    found = play(site_of(source), mapping())
    assert [(each["shard"], each["first"]) for each in found.of("call")] == [(SHARD, "1"), (CHILD, "3")]


def test_partial_batch_reports_change_nothing_because_all_succeeds() -> None:
    found = play(site_of(stream(1, 2)), mapping(retry=RetryPolicy(report_failures=True)))
    assert found.calls == [(2, "1", "2")]


def test_records_that_are_too_old_are_given_up_without_a_notice() -> None:
    source = FakeStream()
    source.put(*records(1, 2, age_s=500.0), *records(3))
    found = play(site_of(source), mapping(retry=RetryPolicy(age_max_s=60.0), destination=FAILED))
    discards = [(each["records"], each["condition"], each["last"]) for each in found.of("discard")]
    assert discards == [(2, "RecordAgeExceeded", "2")]
    assert found.calls == [(1, "3", "3")]


def test_a_record_that_is_too_large_is_told_and_does_not_keep_the_run_from_its_end() -> None:
    found = play(site_of(stream(1, 2)), mapping(batch=BatchPolicy(records_max=1, payload_bytes_max=100)))
    assert found.status == 0
    (note,) = found.of("note")
    assert "would fail without a call" in note["text"]
    assert found.seconds < 10.0


def test_the_limit_counts_calls_exactly() -> None:
    found = play(site_of(stream(*range(1, 50))), mapping(batch=batches(3)), calls_max=4)
    assert len(found.calls) == 4
    assert found.of("summary")[0]["ended"] == "limit"


def test_the_time_limit_ends_a_run_that_waits() -> None:
    found = play(site_of(stream(1)), mapping(batch=batches(10, window_s=300.0)), seconds_max=5.0)
    assert (found.status, found.calls, found.of("summary")[0]["ended"]) == (0, [], "time")
    assert found.seconds < 6.0


def test_a_signal_ends_a_run_at_once_with_status_zero() -> None:
    site = site_of(stream(1))
    source = site.sources[STREAM_ARN]
    assert isinstance(source, FakeStream)
    read = source.read

    async def interrupting(shard: ShardId, cursor: object, *, records_max: int) -> object:
        site.runs[0].interrupt()
        return await read(shard, cursor, records_max=records_max)  # type: ignore[arg-type]

    source.read = interrupting  # type: ignore[assignment,method-assign]
    found = play(site, mapping(batch=batches(10, window_s=300.0)))
    assert (found.status, found.of("summary")[0]["ended"]) == (0, "signal")
    assert found.seconds < 1.0


def test_a_record_that_cannot_be_read_is_named_and_other_mappings_go_on() -> None:
    other = mapping(mapping=OTHER, source_arn=f"{STREAM_ARN}-two")
    bad = stream()
    bad.trouble = [RecordUnreadable("sequence 7: no JSON")] * 9
    found = play(DrySite({STREAM_ARN: bad, other.source_arn: stream(1)}), mapping(), other)
    assert (found.status, found.calls) == (1, [(1, "1", "1")])
    (problem,) = found.of("problem")
    assert problem["shard"] == SHARD
    assert problem["text"] == "sequence 7: no JSON; `poller run` would wait at this record, too"
    assert not found.of("summary")[0]["ok"]


@pytest.mark.parametrize(
    ("error", "remedy"),
    [(AccessDenied("no"), "check --live"), (ServiceUnavailable("no route"), "is the endpoint right and reachable?")],
)  # fmt: skip
def test_a_source_that_cannot_be_listed_ends_the_run_with_one(error: AccessDenied, remedy: str) -> None:
    source = stream(1)
    source.listing_trouble = [error] * 99
    found = play(site_of(source), mapping())
    assert found.status == 1
    assert remedy in found.of("problem")[0]["text"]
    assert found.seconds < 15.0


class SilentListing(FakeStream):
    """A stream whose listing is never answered."""

    async def shards(self) -> Sequence[Shard]:
        await asyncio.sleep(1e5)
        return ()


class SilentReads(FakeStream):
    """A stream whose reads are never answered."""

    async def read(self, shard: ShardId, cursor: Cursor, *, records_max: int) -> Page:
        await asyncio.sleep(1e5)
        return Page((), None)


@pytest.mark.parametrize("source", [SilentListing(), SilentReads()], ids=["listing", "reads"])
def test_a_source_that_never_answers_is_a_problem_when_the_time_is_over(source: FakeStream) -> None:
    found = play(site_of(source), mapping(), seconds_max=5.0)
    assert (found.status, found.of("summary")[0]["ended"]) == (1, "time")
    (problem,) = found.of("problem")
    assert problem["text"].startswith("it did not answer in time; ")
    assert found.seconds < 6.0


def test_trouble_that_passes_is_no_problem() -> None:
    source = stream(1)
    source.listing_trouble = [ServiceUnavailable("a moment")] * 2
    source.trouble = [ServiceUnavailable("a moment")] * 2
    found = play(site_of(source), mapping())
    assert (found.status, found.calls) == (0, [(1, "1", "1")])


def test_settings_that_a_source_refuses_end_the_run_before_it_reads() -> None:
    site = site_of(stream(1))
    site.opening = [InvalidConfiguration(["mappings[0].source: no region"])]
    with pytest.raises(ExceptionGroup) as raised:
        play(site, mapping())
    assert isinstance(raised.value.exceptions[0], InvalidConfiguration)


def test_a_store_without_a_read_only_view_is_refused_with_the_remedy() -> None:
    site = site_of(stream(1))
    site.view = object()
    with pytest.raises(StoreUnread) as raised:
        play(site, mapping())
    assert raised.value.reason.endswith("without the store, add --fresh")
    assert play(site, mapping(), fresh=True).calls == [(1, "1", "1")]


def test_a_damaged_row_of_the_mapping_is_not_taken_for_a_new_beginning() -> None:
    class Damaged:
        async def mappings(self) -> list[MappingRow]:
            return [MappingRow(mapping().mapping, CREATED, damage="row is damaged")]

        async def leases(self, mapping: MappingId) -> list[Lease]:
            return []

    site = site_of(stream(1))
    site.view = Damaged()
    with pytest.raises(StoreUnread, match="row is damaged"):
        play(site, mapping())


def queue_plan(service: Service, **changes: object) -> MappingPlan:
    return plan(service, **changes)


def test_messages_are_shown_once_and_are_all_back_at_the_end() -> None:
    service = standard()
    service.send(*range(25))
    found = play(site_of(service, STANDARD), queue_plan(service, batch=batches(10)), receive=True)
    assert found.status == 0
    assert sum(records for records, _, _ in found.calls) == 25
    assert found.of("summary")[0]["sources"][0]["shard"] is None
    assert service.deletes == []
    assert sorted(service.left) == list(range(25))
    assert all(letter.visible_at <= EPOCH_BASE + found.seconds for letter in service.queue.letters.values())
    assert found.seconds < 6.0


def test_messages_that_no_filter_matches_are_not_deleted() -> None:
    service = standard()
    service.send(1, 2)
    filters = ('{"body":{"none":[1]}}',)
    found = play(site_of(service, STANDARD), queue_plan(service, filters=filters), receive=True)
    assert (found.calls, found.of("summary")[0]["sources"][0]["filtered"]) == ([], 2)
    assert (service.deletes, sorted(service.left)) == ([], [1, 2])


def test_a_fifo_queue_gives_every_message_back() -> None:
    service = fifo()
    service.send(1, 2, 3, group="a")
    found = play(site_of(service, FIFO), queue_plan(service), receive=True)
    assert sum(records for records, _, _ in found.calls) == 3
    assert sorted(service.left) == [1, 2, 3]


@pytest.mark.parametrize(("redrive", "status"), [(1, 1), (2, 0), (None, 0)])
def test_a_queue_whose_messages_have_one_try_is_not_received_from(redrive: int | None, status: int) -> None:
    service = standard(redrive=redrive)
    service.send(1)
    found = play(site_of(service, STANDARD), queue_plan(service), receive=True)
    assert (found.status, len(found.calls), bool(service.receives)) == (status, 1 - status, not status)
    if status:
        assert "raise maxReceiveCount" in found.of("problem")[0]["text"]


@pytest.mark.parametrize("visibility_s", [1, 5])
def test_no_message_is_received_twice_although_its_visibility_ends_during_the_run(visibility_s: int) -> None:
    service = standard(visibility_s)
    service.send(1, 2, 3)
    waiting = queue_plan(service, batch=batches(10, window_s=20.0))
    found = play(site_of(service, STANDARD), waiting, receive=True)
    assert (found.status, sum(records for records, _, _ in found.calls)) == (0, 3)
    assert found.seconds > 20.0
    assert service.received == {1: 1, 2: 1, 3: 1}
    assert service.extensions == [], "another consumer may have the message by now"


def test_a_queue_that_hides_nothing_is_received_from_once() -> None:
    service = standard(0)
    service.send(1, 2, 3)
    found = play(site_of(service, STANDARD), queue_plan(service), receive=True)
    assert (found.status, found.calls[0][0]) == (0, 3)
    assert service.received == {1: 1, 2: 1, 3: 1}


def test_an_empty_queue_is_asked_once_and_the_run_ends() -> None:
    service = standard()
    found = play(site_of(service, STANDARD), queue_plan(service), receive=True)
    assert (found.status, found.calls) == (0, [])
    assert found.seconds < 5.0


def test_a_queue_gives_messages_back_after_a_limit_too() -> None:
    service = standard()
    service.send(*range(40))
    found = play(
        site_of(service, STANDARD), queue_plan(service, batch=batches(10)), receive=True, calls_max=1
    )
    assert len(found.calls) == 1
    assert all(letter.visible_at <= EPOCH_BASE + found.seconds for letter in service.queue.letters.values())


def test_a_give_back_that_fails_is_told() -> None:
    service = standard()
    service.send(1)
    service.trouble["extend"] = [ServiceUnavailable("no route")]
    found = play(site_of(service, STANDARD), queue_plan(service), receive=True)
    (note,) = found.of("note")
    assert "not given back (no route): 1 of 1 message; it comes back" in note["text"]


def test_what_people_see_names_mapping_shard_records_and_sequence_numbers(
    capsys: pytest.CaptureFixture[str],
) -> None:
    found = play(site_of(stream(1, 2)), mapping(), as_json=False)
    assert found.lines[0].startswith(f"call 1: reader from stream/readings, {SHARD}: 2 records, ")
    assert found.lines[1:3] == ["  first 1", "  last  2"]
    assert found.lines[-1].endswith("all that was there was read; nothing was invoked or written")
    assert capsys.readouterr().err == ""


def test_payloads_are_printed_only_when_they_are_asked_for() -> None:
    secret = base64.b64encode(b"secret").decode()
    source = FakeStream()
    source.put(kinesis(1, data=secret))
    assert secret not in "".join(play(site_of(source), mapping()).lines)
    (call,) = play(site_of(source), mapping(), events=True).of("call")
    assert call["event"]["Records"][0]["kinesis"]["data"] == secret


def test_texts_of_records_cannot_control_a_terminal() -> None:
    source = FakeStream()
    source.put(kinesis(1, key="\x1b[2J\x07\u202e\u2028key"))
    for as_json in (True, False):
        found = play(site_of(source), mapping(), events=True, as_json=as_json)
        assert all(line.isascii() and line.isprintable() for line in found.lines)
    (call,) = play(site_of(source), mapping(), events=True).of("call")
    assert call["event"]["Records"][0]["kinesis"]["partitionKey"] == "\x1b[2J\x07\u202e\u2028key"


def test_a_json_line_is_one_document() -> None:
    for line in play(site_of(stream(1)), mapping(), events=True).lines:
        assert isinstance(json.loads(line), dict)
