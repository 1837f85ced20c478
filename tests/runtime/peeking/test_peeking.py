"""Peeking at shards of a running daemon: what is shown from where, and that nothing moves."""

import asyncio
from base64 import b64encode
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any

import pytest

from poller.domain.errors import (
    AccessDenied,
    PortError,
    PositionTrimmed,
    RecordUnreadable,
    ResourceMissing,
    ServiceThrottled,
    ServiceUnavailable,
)
from poller.domain.invocations import FunctionError, Outcome, Succeeded
from poller.domain.mapping_api import ApiError, ApiErrorType
from poller.domain.peeking.answers import FilterVerdict, PeekAnswer, PeekRequest
from poller.domain.policies import Backoff, BatchPolicy, RetryPolicy
from poller.domain.records import Cursor, MappingId, Page, Position, ShardId
from poller.domain.rows import Checkpoint, Lease
from poller.rules.streams.lanes import lane_of
from poller.runtime.daemon import Daemon
from poller.runtime.peeking.shard_reads import READS_MAX
from tests.rules.build import kinesis
from tests.runtime.daemons import Site, daemon_plan, play, until
from tests.runtime.fakes import SHARD, STREAM_ARN, FakeFunction, FakeStream, mapping, records
from tests.runtime.queues.queue_fakes import STANDARD, Handler, standard
from tests.virtual import EPOCH_BASE

MAPPING = MappingId("0f4b8a5e-8b0c-4a56-9c0e-0d7d6b0c2b11")
PATIENT = RetryPolicy(backoff=Backoff(base_s=1000.0, cap_s=1000.0))
PAID = '{"data": {"state": ["paid"]}}'

type Peek = Callable[..., Awaitable[PeekAnswer]]


def site(*numbers: int, answer: Callable[[list[int]], Outcome] | None = None) -> Site:
    stream = FakeStream()
    stream.put(*records(*numbers))
    return Site(sources={STREAM_ARN: stream}, functions={"reader": FakeFunction(answer)})


def stream_of(place: Site) -> FakeStream:
    found = place.sources[STREAM_ARN]
    assert isinstance(found, FakeStream)
    return found


def peeking(
    place: Site,
    script: Callable[[Peek, Daemon], Awaitable[None]],
    *,
    ready: Callable[[Daemon], bool] = lambda daemon: daemon.status().ready,
    **changes: Any,
) -> None:
    """Runs the script against a daemon with one mapping."""

    async def main(daemon: Daemon) -> None:
        await until(lambda: ready(daemon))

        async def peek(start: str = "", *, name: str = "reader", **given: Any) -> PeekAnswer:
            return await daemon.control.peek(name, PeekRequest(start=start, **given))

        await script(peek, daemon)

    play(lambda: place.daemon(daemon_plan(mapping(**changes))), main)


def numbers(answer: PeekAnswer) -> list[int]:
    return [int(record.sequence_number) for record in answer.records]


async def refused(peek: Awaitable[PeekAnswer]) -> tuple[ApiErrorType, str]:
    with pytest.raises(ApiError) as caught:
        await peek
    return caught.value.fault, caught.value.text


def blocked(daemon: Daemon) -> bool:
    """Whether a lane is blocked and its checkpoint has had time to be written."""
    return any(shard.blocked for each in daemon.status().mappings for shard in each.shards)


def fails(number: int) -> Callable[[list[int]], Outcome]:
    """Fails every batch that has this record."""
    return lambda batch: FunctionError("ValueError", "no") if number in batch else Succeeded(b"")


def test_records_are_shown_from_each_place_and_nothing_moves() -> None:
    place = site()
    stream_of(place).put(*(kinesis(n, arrived=EPOCH_BASE + n) for n in range(1, 31)))

    async def script(peek: Peek, daemon: Daemon) -> None:
        await until(lambda: daemon.status().mappings[0].shards[0].position == "AFTER:30")
        await asyncio.sleep(3)
        leases = await place.store.leases(MAPPING)
        calls = len(place.functions["reader"].calls)  # type: ignore[union-attr] # it is a FakeFunction
        assert numbers(await peek("TRIM_HORIZON")) == list(range(1, 11))
        assert numbers(await peek("AT:25")) == [25, 26, 27, 28, 29, 30]
        assert numbers(await peek("AFTER:25", limit=3)) == [26, 27, 28]
        assert numbers(await peek("position")) == []
        latest = await peek("LATEST")
        assert (numbers(latest), latest.next) == ([], "")
        assert "nothing is there yet" in latest.notes[0]
        assert await place.store.leases(MAPPING) == leases
        assert len(place.functions["reader"].calls) == calls  # type: ignore[union-attr]

    peeking(place, script)
    assert place.open_now == []


def test_a_time_to_come_has_nothing_yet_and_the_source_is_not_asked() -> None:
    place = site(1, 2, 3)

    async def script(peek: Peek, _: Daemon) -> None:
        async def refuses(shard: ShardId, position: Position) -> Cursor:
            raise ServiceUnavailable("InvalidArgumentException")

        stream_of(place).cursor = refuses  # type: ignore[method-assign] # a source that knows no such time
        for start in (f"{EPOCH_BASE + 4000:.0f}", "2099-01-01T00:00:00Z", "99999999999"):
            found = await peek(start)
            assert (numbers(found), found.next) == ([], "")
            assert "is in the future, so nothing is there yet" in found.notes[0]
        fault, __ = await refused(peek(f"{EPOCH_BASE - 4000:.0f}"))
        assert fault is ApiErrorType.SERVICE

    peeking(place, script)


def test_an_answer_says_where_to_go_on_until_nothing_more_is_there() -> None:
    place = site(*range(1, 8))

    async def script(peek: Peek, _: Daemon) -> None:
        answer = await peek("TRIM_HORIZON", limit=3)
        seen = numbers(answer)
        while answer.more:
            answer = await peek(answer.next, limit=3)
            seen += numbers(answer)
        assert seen == [1, 2, 3, 4, 5, 6, 7]

    peeking(place, script)


def test_a_closed_shard_is_shown_as_ended() -> None:
    place = site(1, 2)
    stream_of(place).ended.add(SHARD)

    async def script(peek: Peek, daemon: Daemon) -> None:
        answer = await peek("TRIM_HORIZON")
        assert (numbers(answer), answer.ended, answer.next) == ([1, 2], True, "")
        await until(lambda: daemon.status().mappings[0].shards == ())
        stored = await peek(shard=SHARD)
        assert (numbers(stored), stored.ended, stored.start) == ([], True, "SHARD_END")
        assert "settled to its end" in stored.notes[0]

    peeking(place, script)


def test_the_batch_at_fault_is_shown_where_a_lane_is_blocked() -> None:
    place = site(*range(1, 10), answer=fails(5))

    async def script(peek: Peek, daemon: Daemon) -> None:
        await asyncio.sleep(3)
        for start in ("", "fault"):
            answer = await peek(start)
            assert numbers(answer) == [4, 5, 6]
            assert answer.fault is not None
            assert (answer.fault.first, answer.fault.last, answer.fault.lane) == ("4", "6", 0)
            assert answer.fault.failures == 1
            assert answer.fault.since == pytest.approx(EPOCH_BASE, abs=2)
            assert answer.next == ""
        assert numbers(await peek("", limit=2)) == [4, 5]
        assert (await peek("", limit=2)).next == "AFTER:5"

    peeking(place, script, ready=blocked, batch=BatchPolicy(records_max=3), retry=PATIENT)


def test_only_records_of_the_lane_that_the_filters_let_through_are_in_the_batch_at_fault() -> None:
    place = site(answer=fails(5))
    keys = [next(f"k{n}" for n in range(99) if lane_of(f"k{n}", 2) == lane) for lane in range(2)]
    paid, open_ = (b64encode(b'{"state": "%s"}' % state).decode() for state in (b"paid", b"open"))
    stream_of(place).put(
        *(kinesis(n, key=keys[n % 2], data=open_ if n in {7, 8} else paid) for n in range(1, 12))
    )

    async def script(peek: Peek, daemon: Daemon) -> None:
        await asyncio.sleep(3)
        answer = await peek()
        assert numbers(answer) == [1, 3, 5, 9, 11]
        assert {record.lane for record in answer.records} == {answer.fault.lane if answer.fault else None}
        assert all(record.verdict is FilterVerdict.PASSES for record in answer.records)

    peeking(place, script, ready=blocked, lanes=2, filters=(PAID,), retry=PATIENT)


def test_a_batch_that_another_worker_has_is_shown_from_the_store() -> None:
    place = site(*range(1, 10), answer=fails(2))

    async def script(_: Peek, daemon: Daemon) -> None:
        await asyncio.sleep(3)
        other = place.daemon(daemon_plan(mapping(retry=PATIENT), worker="worker-2"))
        async with asyncio.TaskGroup() as scope:
            running = scope.create_task(other.run())
            await until(lambda: other.status().ready)
            assert not blocked(other)
            answer = await other.control.peek(MAPPING, PeekRequest())
            assert numbers(answer) == list(range(1, 10))
            assert answer.fault is not None
            other.stop()
            await running

    peeking(place, script, ready=blocked, retry=PATIENT)


def test_a_disabled_mapping_can_be_peeked_at() -> None:
    place = site(1, 2, 3)

    async def script(peek: Peek, _: Daemon) -> None:
        answer = await peek(payloads=True)
        assert numbers(answer) == [1, 2, 3]
        assert answer.start == "TRIM_HORIZON"
        assert "no position of this shard yet" in answer.notes[0]
        assert answer.records[0].payload is not None
        assert answer.records[0].payload.text == "hello"

    peeking(place, script, ready=lambda daemon: daemon.status().complete, enabled=False)


def test_fault_is_refused_where_nothing_is_blocked() -> None:
    async def script(peek: Peek, _: Daemon) -> None:
        fault, text = await refused(peek("fault"))
        assert fault is ApiErrorType.CONFLICT
        assert f"no batch of shard {SHARD} blocks it" in text

    peeking(site(1), script)


def test_a_batch_whose_first_record_is_gone_is_named_without_records() -> None:
    place = site(*range(1, 10), answer=fails(2))

    async def script(peek: Peek, _: Daemon) -> None:
        await asyncio.sleep(3)
        stream_of(place).held[SHARD] = list(records(7, 8, 9))
        answer = await peek()
        assert (numbers(answer), answer.fault.first if answer.fault else "") == ([], "1")
        assert "no longer has record 1" in answer.notes[0]

    peeking(place, script, ready=blocked, retry=PATIENT)


def test_the_end_of_a_window_at_fault_has_no_records() -> None:
    place = site(1)

    async def script(peek: Peek, _: Daemon) -> None:
        leases = await place.store.leases(MAPPING)
        memo = b'{"blocked": [["", 1767225600]]}'
        held = replace(leases[0], checkpoint=Checkpoint(Position.after("1"), memo))
        await place.store.save(MAPPING, held, held.checkpoint)
        answer = await peek()
        assert (numbers(answer), answer.start) == ([], "fault")
        assert "closes a tumbling window" in answer.notes[0]

    peeking(place, script)


def test_a_record_that_is_not_there_is_noted_and_the_next_ones_are_shown() -> None:
    async def script(peek: Peek, _: Daemon) -> None:
        answer = await peek("AT:4")
        assert numbers(answer) == [5, 6]
        assert "has no record 4" in answer.notes[0]

    peeking(site(1, 2, 5, 6), script)


class Refusing(FakeStream):
    """A stream that refuses every sequence number."""

    async def cursor(self, shard: ShardId, position: Position) -> Cursor:
        if position > Position.horizon():
            raise PositionTrimmed("gone")
        return await super().cursor(shard, position)


def test_a_sequence_number_that_the_source_refuses_is_refused_with_the_remedy() -> None:
    stream = Refusing()
    stream.put(*records(7, 8))
    place = Site(sources={STREAM_ARN: stream}, functions={"reader": FakeFunction()})

    async def script(peek: Peek, _: Daemon) -> None:
        for start in ("AT:4", "AFTER:4"):
            fault, text = await refused(peek(start))
            assert fault is ApiErrorType.PARAMETER
            assert "refuses sequence number 4" in text
            assert "TRIM_HORIZON" in text
        await asyncio.sleep(3)
        answer = await peek()
        assert numbers(answer) == [7, 8]
        assert "no longer has the records behind AFTER:8" in answer.notes[0]

    peeking(place, script)


class Sparse(FakeStream):
    """A stream whose reads find nothing although it is far behind."""

    async def read(self, shard: ShardId, cursor: Cursor, *, records_max: int) -> Page:
        page = await super().read(shard, cursor, records_max=records_max)
        return Page((), page.cursor, 90_000)


def test_a_few_reads_without_records_end_with_the_time_to_go_on_at() -> None:
    stream = Sparse()
    place = Site(sources={STREAM_ARN: stream}, functions={"reader": FakeFunction()})

    async def script(peek: Peek, _: Daemon) -> None:
        before = len(stream.reads)
        answer = await peek("TRIM_HORIZON")
        assert len(stream.reads) - before == READS_MAX
        assert answer.behind_ms == 90_000
        assert answer.next.startswith("AT_TIMESTAMP:")
        assert "found nothing" in answer.notes[0]

    peeking(place, script, enabled=False, ready=lambda daemon: daemon.status().complete)


def test_a_record_that_cannot_be_read_ends_the_answer_with_a_note() -> None:
    place = site(1, 2)

    async def script(peek: Peek, _: Daemon) -> None:
        stream_of(place).trouble = [RecordUnreadable("record 3 cannot be read: no base64")]
        answer = await peek("TRIM_HORIZON")
        assert answer.notes == ("the next record cannot be read: record 3 cannot be read: no base64",)

    peeking(place, script, enabled=False, ready=lambda daemon: daemon.status().complete)


@pytest.mark.parametrize(
    ("trouble", "fault"),
    [
        (ServiceThrottled("kinesis GetRecords: slow down"), ApiErrorType.THROTTLED),
        (ServiceUnavailable("kinesis GetRecords: down"), ApiErrorType.SERVICE),
        (AccessDenied("kinesis GetRecords: not allowed"), ApiErrorType.SERVICE),
        (ResourceMissing("kinesis GetRecords: no stream"), ApiErrorType.MISSING),
    ],
)
def test_trouble_of_the_source_is_named(trouble: PortError, fault: ApiErrorType) -> None:
    place = site(1)

    async def script(peek: Peek, _: Daemon) -> None:
        stream_of(place).trouble = [trouble]
        found, text = await refused(peek("TRIM_HORIZON"))
        assert found is fault
        assert trouble.reason in text

    peeking(place, script, enabled=False, ready=lambda daemon: daemon.status().complete)


def test_a_source_that_does_not_answer_is_given_up_in_time() -> None:
    class Silent(FakeStream):
        async def read(self, shard: ShardId, cursor: Cursor, *, records_max: int) -> Page:
            await asyncio.sleep(1000)
            raise AssertionError

    place = Site(sources={STREAM_ARN: Silent()}, functions={"reader": FakeFunction()})

    async def script(peek: Peek, _: Daemon) -> None:
        began = asyncio.get_running_loop().time()
        asked = [asyncio.ensure_future(refused(peek("TRIM_HORIZON"))) for _ in range(5)]
        answers = [await each for each in asked]
        assert asyncio.get_running_loop().time() - began == pytest.approx(8.0, abs=0.1)
        assert {fault for fault, _ in answers} == {ApiErrorType.SERVICE}

    peeking(place, script, enabled=False, ready=lambda daemon: daemon.status().complete)


def test_a_shard_is_named_in_part_and_one_that_does_not_exist_is_refused_with_those_that_do() -> None:
    place = site(1)
    other = ShardId("shardId-000000000017")
    stream_of(place).held[other] = list(records(70))

    async def script(peek: Peek, _: Daemon) -> None:
        assert numbers(await peek("TRIM_HORIZON", shard="17")) == [70]
        assert numbers(await peek("TRIM_HORIZON", shard=SHARD)) == [1]
        for shard in ("", "18"):
            fault, text = await refused(peek("TRIM_HORIZON", shard=shard))
            assert fault is ApiErrorType.MISSING
            assert SHARD in text
            assert other in text

    peeking(place, script)


def test_without_a_shard_the_only_blocked_one_is_meant() -> None:
    place = site(1, 2, answer=fails(2))
    stream_of(place).held[ShardId("shardId-000000000017")] = list(records(70))

    async def script(peek: Peek, _: Daemon) -> None:
        await asyncio.sleep(3)
        assert (await peek()).shard == SHARD
        fault, _text = await refused(peek("TRIM_HORIZON"))
        assert fault is ApiErrorType.MISSING

    peeking(place, script, ready=blocked, retry=PATIENT)


def test_mappings_are_found_by_id_and_name_and_an_unknown_one_is_refused_with_all() -> None:
    async def script(peek: Peek, _: Daemon) -> None:
        for name in (MAPPING, "stream/readings", "readings", "function/reader", STREAM_ARN):
            assert (await peek("LATEST", name=name)).mapping == MAPPING
        fault, text = await refused(peek("LATEST", name="orders"))
        assert fault is ApiErrorType.MISSING
        assert f"{MAPPING} (function/reader, stream/readings)" in text

    peeking(site(1), script)


def test_a_place_or_a_limit_that_is_wrong_is_refused() -> None:
    async def script(peek: Peek, _: Daemon) -> None:
        fault, text = await refused(peek("yesterday"))
        assert fault is ApiErrorType.PARAMETER
        assert text.startswith("from: 'yesterday' is no place in a shard")
        for limit in (0, 101):
            assert (await refused(peek(limit=limit)))[1] == "limit: is not 1 to 100"

    peeking(site(1), script)


def test_a_queue_is_refused_because_looking_would_use_up_receives() -> None:
    place = Site(sources={STANDARD: standard(30)}, functions={"worker": Handler()})

    async def main(daemon: Daemon) -> None:
        await until(lambda: daemon.status().ready)
        created = await daemon.control.create({"FunctionName": "worker", "EventSourceArn": STANDARD})
        fault, text = await refused(daemon.control.peek(created.mapping, PeekRequest()))
        assert fault is ApiErrorType.CONFLICT
        assert f"poller dry-run --config FILE --mapping {created.mapping} --receive`" in text

    functions = {"worker": daemon_plan().functions["reader"]}
    named = {name: replace(plan, name=name) for name, plan in functions.items()}
    play(lambda: place.daemon(daemon_plan(functions=named)), main)


def test_a_daemon_that_is_not_open_says_so() -> None:
    place = site(1)
    daemon = place.daemon(daemon_plan(mapping()))

    async def main(_: Daemon) -> None:
        fault, text = await refused(daemon.control.peek(MAPPING, PeekRequest()))
        assert fault is ApiErrorType.SERVICE
        assert "starting or stopping" in text

    play(lambda: place.daemon(daemon_plan(mapping())), main)


def test_the_lease_of_a_peeked_shard_stays_with_its_owner() -> None:
    place = site(1)

    async def script(peek: Peek, _: Daemon) -> None:
        await asyncio.sleep(2)
        before: list[Lease] = list(await place.store.leases(MAPPING))
        for _each in range(5):
            await peek("TRIM_HORIZON")
        await asyncio.sleep(5)
        assert list(await place.store.leases(MAPPING)) == before
        assert before[0].owner == "worker-1"

    peeking(place, script)
