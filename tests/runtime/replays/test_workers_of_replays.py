"""Replays on several workers: shared shards, workers that come, leave and die, reshardings, and a store that does not answer."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Any

import pytest

from adapters.stores.memory import MemoryStore
from poller.domain.errors import AccessDenied, ServiceUnavailable
from poller.domain.invocations import FunctionError, Outcome, Succeeded
from poller.domain.operations import Operation, OperationState
from poller.domain.plan import MappingPlan
from poller.domain.records import Epoch, MappingId, Shard, ShardId
from poller.domain.rows import REPLAY_PREFIX, Lease, MappingRow
from poller.domain.telemetry.daemon_events import TaskEnded
from tests.runtime.daemons import now
from tests.runtime.fakes import STREAM_ARN, FakeFunction, FakeStream, mapping
from tests.runtime.queues.queue_fakes import Service
from tests.runtime.replays.stage import CANCELLED, DONE, FAILED, Stage, TimedStream, fill, flat, perform
from tests.virtual import EPOCH_BASE, run_virtual

SHARDS = [ShardId(f"shardId-{number:012d}") for number in range(4)]
LEFT, RIGHT = ShardId("shardId-000000000010"), ShardId("shardId-000000000011")
ONE_EACH = replace(mapping().batch, records_max=1)


def plan(**changes: Any) -> MappingPlan:
    return mapping(batch=ONE_EACH, **changes)


def wide(audit: FakeFunction | None = None, records: int = 30) -> Stage:
    """A stage with four shards of so many records each; the numbers of a shard begin with its own thousand."""
    stream = TimedStream(held={shard: [] for shard in SHARDS})
    stage = Stage(stream=stream, audit=audit or FakeFunction(takes_s=0.2), plan=plan())
    for place, shard in enumerate(SHARDS):
        fill(stage, *range(1000 * place + 1, 1000 * place + 1 + records), shard=shard)
    return stage


def everything(records: int = 30) -> list[int]:
    return [1000 * place + number for place in range(len(SHARDS)) for number in range(1, records + 1)]


def in_order(calls: list[list[int]]) -> bool:
    """Whether no record of a shard came before an earlier one was called once."""
    seen: dict[int, int] = {}
    for number in flat(calls):
        place, number = divmod(number, 1000)
        if number > seen.get(place, 0) + 1:
            return False
        seen[place] = max(seen.get(place, 0), number)
    return True


class Hanging(MemoryStore):
    """A store that does not answer for a time: calls wait until then."""

    until = 0.0

    async def leases(self, mapping: MappingId, *, memos: bool = True) -> Sequence[Lease]:
        await asyncio.sleep(self.until - now())
        return await super().leases(mapping, memos=memos)

    async def operations(self, *, over: bool = False) -> Sequence[Operation]:
        await asyncio.sleep(self.until - now())
        return await super().operations(over=over)


@pytest.mark.parametrize("hangs_s", [4.0, 12.0, 40.0])
def test_a_store_that_hangs_delays_a_replay_and_is_no_fault_of_the_worker(hangs_s: float) -> None:
    stage = wide()
    store = Hanging()
    stage.site.store = store

    async def play(stage: Stage) -> None:
        asked = await stage.replay(function="audit", records_per_s=20)
        await asyncio.sleep(2)
        store.until = now() + hangs_s
        await asyncio.sleep(hangs_s)
        assert (await stage.over(asked)).state is DONE
        assert set(flat(stage.audit.calls)) == set(everything())
        assert stage.site.seen.of(TaskEnded) == []

    perform(stage, play, workers=2)


def test_workers_share_the_shards_of_a_replay() -> None:
    stage = wide()

    async def play(stage: Stage) -> None:
        began = now()
        over = await stage.over(await stage.replay(function="audit"))
        assert over.state is DONE
        assert sorted(flat(stage.audit.calls)) == everything()
        assert in_order(stage.audit.calls)
        assert stage.audit.in_flight_max >= 3
        assert over.progress["records"] == 120
        assert over.progress["shards"] == over.progress["ended"] == 4
        assert len(over.notes["workers"]) >= 2
        assert now() - began < 40

    perform(stage, play, workers=3)


def test_a_rate_is_kept_by_all_workers_together() -> None:
    stage = wide(FakeFunction(), records=25)

    async def play(stage: Stage) -> None:
        await stage.over(await stage.replay(function="audit", records_per_s=10))
        times = sorted(
            time for time, call in zip(stage.audit.times, stage.audit.calls, strict=True) for _ in call
        )
        assert len(times) == 100
        for begin in (times[0], times[30], times[60]):
            assert sum(begin <= each < begin + 3 for each in times) <= 45
        assert 8 < times[-1] - times[0] < 30

    perform(stage, play, workers=3)


def test_another_worker_goes_on_when_one_is_killed() -> None:
    stage = wide()

    async def play(stage: Stage) -> None:
        operation = await stage.replay(function="audit")
        await asyncio.sleep(4)
        stage.kill("worker-1")
        over = await stage.over(operation)
        assert over.state is DONE
        calls = flat(stage.audit.calls)
        assert set(calls) == set(everything())
        assert in_order(stage.audit.calls)
        assert len(calls) < 120 + 20

    perform(stage, play, workers=2)


def test_a_replay_goes_on_where_it_was_when_its_only_worker_is_killed_and_started_again() -> None:
    stage = wide()

    async def main() -> None:
        async with asyncio.TaskGroup() as scope:
            stage.start(scope, "worker-1")
            await asyncio.sleep(5)
            operation = await stage.replay(function="audit")
            await asyncio.sleep(4)
            stage.kill("worker-1")
            before = len(flat(stage.audit.calls))
            await asyncio.sleep(10)
            stage.start(scope, "worker-1")
            await asyncio.sleep(5)
            over = await stage.over(operation)
            assert over.state is DONE
            assert set(flat(stage.audit.calls)) == set(everything())
            assert in_order(stage.audit.calls)
            assert before > 20
            assert len(flat(stage.audit.calls)) < 120 + 15
            stage.worker.stop()

    run_virtual(main())


def test_a_worker_that_joins_takes_shards_of_a_replay_and_one_that_leaves_gives_them_back() -> None:
    stage = wide(records=60)

    async def main() -> None:
        async with asyncio.TaskGroup() as scope:
            stage.start(scope, "worker-2")
            await asyncio.sleep(5)
            operation = await stage.replay(function="audit")
            await asyncio.sleep(4)
            stage.start(scope, "worker-1")
            await asyncio.sleep(4)
            owners = {
                lease.owner
                for name in await stage.hidden()
                for lease in await stage.site.store.leases(MappingId(name))
            }
            assert owners == {"worker-1", "worker-2"}
            stage.daemons.pop("worker-2").stop()
            over = await stage.over(operation)
            assert over.state is DONE
            calls = flat(stage.audit.calls)
            assert sorted(calls) == everything(60), "a handover in peace repeats nothing"
            assert in_order(stage.audit.calls)
            stage.worker.stop()

    run_virtual(main())


def test_a_cancel_through_another_worker_stops_all_of_them() -> None:
    stage = wide(records=200)

    async def play(stage: Stage) -> None:
        operation = await stage.replay(function="audit")
        await asyncio.sleep(6)
        over = await stage.daemons["worker-3"].operations.cancel(operation.operation, by="bob")
        assert over.state is CANCELLED
        await asyncio.sleep(3)
        calls = len(stage.audit.calls)
        await asyncio.sleep(30)
        assert len(stage.audit.calls) == calls
        assert await stage.hidden() == []

    perform(stage, play, workers=3)


def test_a_failed_batch_stops_the_other_workers_too() -> None:
    def answer(batch: list[int]) -> Outcome:
        return FunctionError("ValueError", "no") if 2005 in batch else Succeeded(b"")

    stage = wide(FakeFunction(answer, takes_s=0.2), records=200)

    async def play(stage: Stage) -> None:
        over = await stage.over(await stage.replay(function="audit"))
        assert over.state is FAILED
        assert over.result.startswith(f"record 2005 of shard {SHARDS[2]} failed")
        await asyncio.sleep(3)
        calls = len(stage.audit.calls)
        await asyncio.sleep(30)
        assert len(stage.audit.calls) == calls
        assert max(number for number in flat(stage.audit.calls) if 2000 < number < 3000) == 2005
        assert await stage.hidden() == []

    perform(stage, play, workers=2)


def test_children_inside_the_range_come_behind_their_parents() -> None:
    parent = SHARDS[0]
    stream = TimedStream(
        held={parent: [], LEFT: [], RIGHT: []},
        ended={parent},
        parents={LEFT: (parent,), RIGHT: (parent,)},
    )
    stage = Stage(stream=stream, audit=FakeFunction(takes_s=0.2), plan=plan())
    fill(stage, *range(1, 21), shard=parent, age_s=100)
    fill(stage, *range(101, 111), shard=LEFT, age_s=60)
    fill(stage, *range(201, 211), shard=RIGHT, age_s=60)

    async def play(stage: Stage) -> None:
        over = await stage.over(
            await stage.replay(since=EPOCH_BASE - 95, until=EPOCH_BASE - 55, function="audit")
        )
        assert over.state is DONE
        calls = flat(stage.audit.calls)
        assert calls[:15] == list(range(6, 21))
        assert [each for each in calls if 100 < each < 200] == [101, 102, 103, 104, 105, 106]
        assert [each for each in calls if 200 < each < 300] == [201, 202, 203, 204, 205, 206]
        assert over.progress["shards"] == 3

    perform(stage, play, workers=2)


def test_a_split_while_a_replay_runs_adds_its_children_to_it() -> None:
    parent = SHARDS[0]
    stream = TimedStream(held={parent: []})
    stage = Stage(stream=stream, audit=FakeFunction(takes_s=0.2), plan=plan())
    fill(stage, *range(1, 31), shard=parent, age_s=100)

    async def play(stage: Stage) -> None:
        operation = await stage.replay(until=EPOCH_BASE + 20, function="audit")
        await asyncio.sleep(3)
        stream.held |= {LEFT: [], RIGHT: []}
        stream.parents |= {LEFT: (parent,), RIGHT: (parent,)}
        stream.ended.add(parent)
        fill(stage, 101, 102, shard=LEFT, age_s=-9)
        fill(stage, 201, shard=RIGHT, age_s=-9)
        fill(stage, 202, shard=RIGHT, age_s=-30)
        over = await stage.over(operation)
        assert over.state is DONE
        calls = flat(stage.audit.calls)
        assert calls[:30] == list(range(1, 31))
        assert sorted(calls[30:]) == [101, 102, 201]

    perform(stage, play, workers=2)


@dataclass
class Gate:
    """A store that can be closed for one worker or for all."""

    store: MemoryStore = field(default_factory=MemoryStore)
    closed: bool = False

    def __getattr__(self, name: str) -> Any:
        async def call(*given: Any, **more: Any) -> Any:
            if self.closed:
                raise ServiceUnavailable("the store does not answer")
            return await getattr(self.store, name)(*given, **more)

        return call


def test_a_replay_outlasts_a_store_that_does_not_answer() -> None:
    stage = wide(records=40)
    gate = Gate(stage.site.store)

    async def main() -> None:
        async with asyncio.TaskGroup() as scope:
            daemon = stage.site.daemon
            stage.site.daemon = lambda plan, **more: daemon(plan, store=gate, **more)  # type: ignore[method-assign] # a gate
            for name in ("worker-1", "worker-2"):
                stage.start(scope, name)
            await asyncio.sleep(5)
            operation = await stage.replay(function="audit")
            await asyncio.sleep(3)
            gate.closed = True
            await asyncio.sleep(8)
            calls = len(stage.audit.calls)
            await asyncio.sleep(8)
            assert len(stage.audit.calls) == calls, "leases do not hold without the store"
            gate.closed = False
            await asyncio.sleep(5)
            over = await stage.over(operation)
            assert over.state is DONE
            assert set(flat(stage.audit.calls)) == set(everything(40))
            assert in_order(stage.audit.calls)
            for each in stage.daemons.values():
                each.stop()

    run_virtual(main())


def test_a_failed_batch_is_stored_when_the_store_answers_again() -> None:
    def answer(batch: list[int]) -> Outcome:
        if 5 in batch:
            gate.closed = True
            return FunctionError("ValueError", "no")
        return Succeeded(b"")

    stage = Stage(audit=FakeFunction(answer), plan=plan(retry=replace(mapping().retry, retries_max=0)))
    gate = Gate(stage.site.store)
    fill(stage, *range(1, 11))

    async def main() -> None:
        async with asyncio.TaskGroup() as scope:
            daemon = stage.site.daemon
            stage.site.daemon = lambda plan, **more: daemon(plan, store=gate, **more)  # type: ignore[method-assign] # a gate
            stage.start(scope, "worker-1")
            await asyncio.sleep(5)
            operation = await stage.replay(function="audit")
            await asyncio.sleep(2.5)
            gate.closed = False
            over = await stage.over(operation)
            assert over.state is FAILED
            assert max(flat(stage.audit.calls)) == 5
            stage.worker.stop()

    run_virtual(main())


@dataclass
class Unlisted(TimedStream):
    """A stream whose shards cannot be listed while that is `denied`."""

    denied: bool = False

    async def shards(self) -> Sequence[Shard]:
        if self.denied:
            raise AccessDenied("no kinesis:ListShards")
        return await super().shards()


@pytest.mark.parametrize("denied", [1, 2])
def test_a_replay_that_is_read_ends_although_the_first_workers_cannot_list_the_stream(denied: int) -> None:
    stage = wide(records=20)
    stream = Unlisted(held=stage.stream.held)
    shared = stage.site

    async def main() -> None:
        async with asyncio.TaskGroup() as scope:
            for number in range(1, 4):
                own: dict[str, FakeStream | Service] = {STREAM_ARN: stream}
                stage.site = replace(shared, sources=own if number <= denied else shared.sources)
                stage.start(scope, f"worker-{number}")
            await asyncio.sleep(5)
            operation = await stage.daemons["worker-3"].operations.submit(
                stage.plan.mapping,
                {"action": "replay", "from": "TRIM_HORIZON", "to": "LATEST", "function": "audit"},
                by="ann",
            )
            await asyncio.sleep(2)
            stream.denied = True
            over = await stage.over(operation, within_s=60)
            assert over.state is DONE
            assert over.result.startswith("80 records replayed")
            for each in stage.daemons.values():
                each.stop()

    run_virtual(main())


def test_a_deleted_mapping_ends_its_replay_as_failed() -> None:
    stage = wide(records=200)

    async def play(stage: Stage) -> None:
        control = stage.worker.control
        created = await control.create(
            {
                "FunctionName": "audit",
                "EventSourceArn": stage.plan.source_arn,
                "StartingPosition": "LATEST",
                "BatchSize": 1,
            }
        )
        await asyncio.sleep(8)
        request = {"action": "replay", "from": "TRIM_HORIZON", "to": "LATEST", "function": "audit"}
        operation = await stage.worker.operations.submit(created.mapping, request, by="ann")
        await asyncio.sleep(5)
        assert stage.audit.calls
        await control.delete(created.mapping)
        over = await stage.over(operation)
        assert (over.state, over.result) == (FAILED, "the mapping was deleted")
        await asyncio.sleep(5)
        calls = len(stage.audit.calls)
        await asyncio.sleep(20)
        assert len(stage.audit.calls) == calls
        assert await stage.hidden() == []

    perform(stage, play)


def test_what_a_dead_worker_left_of_a_replay_is_removed_later() -> None:
    stage = wide()

    async def play(stage: Stage) -> None:
        left = MappingId(f"{REPLAY_PREFIX}4a1f")
        await stage.site.store.create(MappingRow(left, fixed=Epoch(EPOCH_BASE)))
        assert await stage.hidden() == [left]
        await asyncio.sleep(60)
        assert await stage.hidden() == []

    perform(stage, play)


@pytest.mark.parametrize("workers", [1, 2, 3])
def test_progress_only_grows_and_says_where_the_replay_is_in_time(workers: int) -> None:
    stage = wide(FakeFunction(takes_s=0.5), records=40)
    seen: list[Operation] = []

    async def play(stage: Stage) -> None:
        operation = await stage.replay(function="audit")
        while True:
            found = await stage.found(operation)
            seen.append(found)
            if found.state.over:
                break
            await asyncio.sleep(1)
        assert seen[-1].state is OperationState.DONE
        counts = [each.progress.get("records", 0) for each in seen]
        assert all(before <= after for before, after in pairwise(counts))
        assert counts[-1] == 160
        places = [each.progress["at"] for each in seen if "at" in each.progress]
        assert places
        assert all(EPOCH_BASE - 101 <= each <= EPOCH_BASE for each in places)

    perform(stage, play, workers=workers)
