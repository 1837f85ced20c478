"""The view of all workers on virtual time: three daemons on one store, and what each of them shows of the others."""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import pytest

from adapters.stores.memory import MemoryStore
from poller.domain.errors import ServiceUnavailable
from poller.domain.invocations import FunctionError, Outcome, Succeeded
from poller.domain.operations import OperationId, OperationTarget, OperatorPause
from poller.domain.plan import Tuning
from poller.domain.policies import BatchPolicy, RetryPolicy
from poller.domain.records import Epoch, MappingId, ShardId, WorkerId
from poller.domain.rows import DigestRow, Lease, MappingState
from poller.domain.status import (
    MappingStatus,
    ShardStatus,
    UnknownWorker,
    WorkerState,
    pause_status,
)
from poller.domain.telemetry.daemon_events import StoreFailed, TaskEnded
from poller.domain.telemetry.labels import TaskEnd, TaskKind
from poller.runtime.daemon import Daemon
from poller.runtime.workers.fleet_sizing import LOOK_S
from poller.runtime.workers.status_digests import PRUNE_S, REWRITE_S
from tests.runtime.daemons import STEADY, Site, daemon_plan, until
from tests.runtime.fakes import STREAM_ARN, FakeFunction, FakeStream, mapping, records
from tests.virtual import run_virtual

ANN, BOB, CID = "ann", "bob", "cid"
SHARDS = tuple(ShardId(f"shard-{n}") for n in range(6))
FAILING = 104
"""The record that the function never accepts. It is in the last shard."""
STREAM = mapping(batch=BatchPolicy(1), retry=RetryPolicy())


class Doors(MemoryStore):
    """One store for all workers, which counts calls."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: Counter[str] = Counter()


class Door:
    """One worker's way to the store, which takes no digests. `away` and `hangs` say that the store cannot be reached."""

    def __init__(self, store: Doors) -> None:
        self.store = store
        self.away = False
        self.hangs = False

    def __getattr__(self, name: str) -> Any:
        async def through(*given: Any, **named: Any) -> Any:
            self.store.calls[name] += 1
            if self.hangs:
                await asyncio.sleep(10_000)
            if self.away:
                raise ServiceUnavailable("no route")
            return await getattr(self.store, name)(*given, **named)

        return through


class DigestDoor(Door):
    """The same for a store that takes digests."""

    async def put_digest(self, worker: WorkerId, content: bytes) -> None:
        await self.__getattr__("put_digest")(worker, content)

    async def digests(self) -> Sequence[DigestRow]:
        found: Sequence[DigestRow] = await self.__getattr__("digests")()
        return found


class Fleet:
    """Three daemons on one stream of six shards, the last of which has a record that fails."""

    def __init__(self, *names: str, digests: bool = True, tuning: Tuning = STEADY) -> None:
        stream = FakeStream(held={shard: [] for shard in SHARDS})
        for number, shard in enumerate(SHARDS):
            stream.put(*records(*range(number * 20 + 1, number * 20 + 6)), shard=shard)
        self.store = Doors()
        self.bad = {FAILING}
        self.site = Site(sources={STREAM_ARN: stream}, functions={"reader": FakeFunction(self._answer)})
        self.doors = {name: (DigestDoor if digests else Door)(self.store) for name in names}
        self.daemons = {
            name: self.site.daemon(daemon_plan(STREAM, worker=name, tuning=tuning), store=door)
            for name, door in self.doors.items()
        }
        self.tasks: dict[str, asyncio.Task[None]] = {}

    def _answer(self, batch: list[int]) -> Outcome:
        return FunctionError("ValueError", "poison") if self.bad & set(batch) else Succeeded(b"")

    async def even(self) -> None:
        """Waits until each worker has as many shards as the others."""
        part = len(SHARDS) // len(self.daemons)
        await until(lambda: all(len(own(each)) == part for each in self.daemons.values()))
        await asyncio.sleep(5.0)


def own(daemon: Daemon) -> list[ShardId]:
    """The shards that a daemon runs itself."""
    name = daemon.status().worker
    return [shard.shard for each in daemon.status().mappings for shard in each.shards if shard.owner == name]


def blocked_here(daemon: Daemon) -> int:
    """How many of the shards that a daemon runs itself are blocked."""
    return sum(shard.blocked for each in daemon.status().mappings for shard in each.shards)


def play(fleet: Fleet, script: Callable[[Fleet], Awaitable[None]]) -> None:
    """Runs all daemons until the script has ended."""

    async def main() -> None:
        async with asyncio.TaskGroup() as scope:
            for name, each in fleet.daemons.items():
                fleet.tasks[name] = scope.create_task(each.run(), name=name)
            await script(fleet)
            for door in fleet.doors.values():
                door.away = door.hangs = False
            for each in fleet.daemons.values():
                each.stop()

    run_virtual(main())


async def only_mapping(daemon: Daemon, **given: Any) -> MappingStatus:
    (found,) = (await daemon.fleet(**given)).mappings
    return found


def by_name(status: MappingStatus) -> dict[ShardId, ShardStatus]:
    return {each.shard: each for each in status.shards}


def test_every_worker_shows_every_shard_with_owner_position_and_state() -> None:
    fleet = Fleet(ANN, BOB, CID)

    async def script(fleet: Fleet) -> None:
        await fleet.even()
        owners = {shard: name for name, each in fleet.daemons.items() for shard in own(each)}
        for daemon in fleet.daemons.values():
            status = await daemon.fleet()
            assert [(each.worker, each.state, each.note) for each in status.workers] == [
                (name, WorkerState.ALIVE, "") for name in (ANN, BOB, CID)
            ]
            (found,) = status.mappings
            shards = by_name(found)
            assert {shard: each.owner for shard, each in shards.items()} == owners
            assert [shards[each].state for each in SHARDS] == ["reading"] * 5 + ["blocked"]
            assert [shards[each].position for each in SHARDS] == [
                *(f"AFTER:{number * 20 + 5}" for number in range(5)),
                f"AFTER:{FAILING - 1}",
            ]
            (lane,) = [each for each in shards[SHARDS[-1]].lanes if each.blocked_since is not None]
            assert (lane.last_error, [each.identifier for each in lane.records]) == (
                "ValueError: poison",
                [str(FAILING)],
            )
            assert lane.next_try is not None
            assert not any(each.out_of_date for each in shards.values())
            assert not any(each.out_of_date for each in status.workers)
            assert max(each.age_s or 0.0 for each in shards.values()) <= 5.0
            assert found.last_result == "PROBLEM: Function call failed"

    play(fleet, script)


def test_a_change_is_seen_through_every_worker_within_five_seconds() -> None:
    fleet = Fleet(ANN, BOB, CID)

    async def script(fleet: Fleet) -> None:
        await fleet.even()
        stream = fleet.site.sources[STREAM_ARN]
        assert isinstance(stream, FakeStream)
        fleet.bad |= set(range(200))
        for number, shard in enumerate(SHARDS):
            stream.put(*records(number * 20 + 10), shard=shard)
        await until(lambda: all(blocked_here(each) == 2 for each in fleet.daemons.values()))
        await asyncio.sleep(5.0)
        for daemon in fleet.daemons.values():
            assert {each.state for each in (await only_mapping(daemon)).shards} == {"blocked"}

    play(fleet, script)


def test_a_worker_that_is_not_heard_is_marked_with_its_age_and_its_shards_too() -> None:
    fleet = Fleet(ANN, BOB, CID)

    async def script(fleet: Fleet) -> None:
        await fleet.even()
        bob = set(own(fleet.daemons[BOB]))
        fleet.doors[BOB].hangs = True
        await asyncio.sleep(7.0)
        for name in (ANN, CID):
            status = await fleet.daemons[name].fleet()
            (seen,) = [each for each in status.workers if each.worker == BOB]
            assert (seen.state, seen.out_of_date) == (WorkerState.SILENT, True)
            assert 6.0 <= (seen.age_s or 0.0) <= 9.0
            (found,) = status.mappings
            old = {each.shard for each in found.shards if each.out_of_date}
            assert old == bob
            assert all((each.age_s or 0) > 5 for each in found.shards if each.shard in old)
        await asyncio.sleep(8.0)
        status = await fleet.daemons[ANN].fleet()
        (seen,) = [each for each in status.workers if each.worker == BOB]
        assert seen.state is WorkerState.DEAD
        assert not {each.owner for each in status.mappings[0].shards} & {BOB}, "the others have taken them"

    play(fleet, script)


def test_a_worker_that_cannot_reach_the_store_answers_and_marks_all_others() -> None:
    fleet = Fleet(ANN, BOB, CID)

    async def script(fleet: Fleet) -> None:
        await fleet.even()
        await fleet.daemons[ANN].fleet()
        fleet.doors[ANN].hangs = True
        await asyncio.sleep(6.0)
        began = asyncio.get_running_loop().time()
        status = await fleet.daemons[ANN].fleet()
        assert asyncio.get_running_loop().time() - began <= 2.0
        assert [(each.worker, each.out_of_date) for each in status.workers] == [
            (ANN, False),
            (BOB, True),
            (CID, True),
        ]
        assert {each.out_of_date for each in status.mappings[0].shards if each.owner != ANN} == {True}
        await fleet.daemons[ANN].fleet()
        assert asyncio.get_running_loop().time() - began <= 2.0, "the store is not asked again at once"

    play(fleet, script)


def test_what_is_known_is_shown_at_once_without_a_question_to_the_store() -> None:
    fleet = Fleet(ANN, BOB, CID)

    async def script(fleet: Fleet) -> None:
        await fleet.even()
        asked = await fleet.daemons[ANN].fleet()
        fleet.doors[ANN].hangs = True
        began = asyncio.get_running_loop().time()
        known = await fleet.daemons[ANN].fleet(ask=False)
        assert asyncio.get_running_loop().time() == began
        assert [each.worker for each in known.workers] == [ANN, BOB, CID]
        assert [each.owner for each in known.mappings[0].shards] == [
            each.owner for each in asked.mappings[0].shards
        ]

    play(fleet, script)


def test_one_worker_alone_is_shown_through_any_other() -> None:
    fleet = Fleet(ANN, BOB, CID)

    async def script(fleet: Fleet) -> None:
        await fleet.even()
        for name in (ANN, CID):
            status = await fleet.daemons[name].fleet(only=BOB)
            assert (status.worker, status.only, [each.worker for each in status.workers]) == (
                name,
                BOB,
                [BOB],
            )
            (found,) = status.mappings
            assert {each.shard for each in found.shards} == set(own(fleet.daemons[BOB]))
        with pytest.raises(UnknownWorker, match="workers: ann, bob, cid"):
            await fleet.daemons[ANN].fleet(only="dan")

    play(fleet, script)


def test_a_worker_shows_itself_alone_without_asking_the_store() -> None:
    fleet = Fleet(ANN, BOB)

    async def script(fleet: Fleet) -> None:
        await fleet.even()
        fleet.store.calls.clear()
        for _ in range(10):
            await fleet.daemons[ANN].fleet(only=ANN)
        assert not fleet.store.calls["digests"] + fleet.store.calls["leases"]

    play(fleet, script)


def test_state_and_last_result_of_lambdas_api_are_those_of_all_workers() -> None:
    fleet = Fleet(ANN, BOB, CID)

    async def script(fleet: Fleet) -> None:
        await fleet.even()
        for daemon in fleet.daemons.values():
            await daemon.refresh()
            (view,) = daemon.control.views()
            assert (view.state, view.last_result) == (MappingState.ENABLED, "PROBLEM: Function call failed")

    play(fleet, script)


def test_readiness_and_status_stay_a_matter_of_the_worker_itself() -> None:
    fleet = Fleet(ANN, BOB)

    async def script(fleet: Fleet) -> None:
        await fleet.even()
        status = fleet.daemons[ANN].status()
        assert (status.workers, status.mappings[0].workers) == ((), ())
        assert Counter(each.state for each in status.mappings[0].shards)["elsewhere"] == 3
        fleet.doors[BOB].hangs = True
        await asyncio.sleep(8.0)
        assert (await fleet.daemons[ANN].fleet()).ready

    play(fleet, script)


def test_a_store_that_takes_no_digests_shows_owners_and_positions() -> None:
    fleet = Fleet(ANN, BOB, digests=False)

    async def script(fleet: Fleet) -> None:
        await fleet.even()
        status = await fleet.daemons[ANN].fleet()
        assert ["writes no digest" in each.note for each in status.workers] == [False, True]
        (found,) = status.mappings
        assert Counter((each.owner, each.state == "elsewhere") for each in found.shards) == {
            (ANN, False): 3,
            (BOB, True): 3,
        }
        assert all(each.position for each in found.shards)

    play(fleet, script)


def test_it_costs_little_while_nobody_looks_and_while_many_do() -> None:
    fleet = Fleet(ANN, BOB)

    async def script(fleet: Fleet) -> None:
        await fleet.even()
        await asyncio.sleep(30.0)
        fleet.bad.clear()
        await asyncio.sleep(120.0)
        fleet.store.calls.clear()
        await asyncio.sleep(10 * REWRITE_S)
        assert fleet.store.calls["put_digest"] <= 2 * 11
        pruned, looked = 10 * REWRITE_S // PRUNE_S, 10 * REWRITE_S // LOOK_S
        assert fleet.store.calls["digests"] <= 2 * (1 + pruned + looked)
        fleet.store.calls.clear()
        for _ in range(100):
            await asyncio.gather(*(fleet.daemons[ANN].fleet() for _ in range(5)))
            await asyncio.sleep(0.1)
        assert fleet.store.calls["digests"] <= 11
        assert fleet.store.calls["leases"] <= 7

    play(fleet, script)


def test_a_worker_alone_writes_no_digest() -> None:
    fleet = Fleet(ANN)

    async def script(fleet: Fleet) -> None:
        await fleet.even()
        await asyncio.sleep(100.0)
        (found,) = (await fleet.daemons[ANN].fleet()).mappings
        assert [each.worker for each in found.workers] == [ANN]
        assert not fleet.store.calls["put_digest"] + fleet.store.calls["digests"]

    play(fleet, script)


def test_digests_of_workers_that_are_gone_are_removed() -> None:
    fleet = Fleet(ANN, BOB)

    async def script(fleet: Fleet) -> None:
        await fleet.store.put_digest(WorkerId("gone"), b"x")
        await fleet.even()
        assert {row.worker for row in await fleet.store.digests()} == {ANN, BOB, "gone"}
        fleet.daemons[BOB].stop()
        await asyncio.sleep(10.0)
        assert {row.worker for row in await fleet.store.digests()} == {ANN, "gone"}, "who leaves removes it"

    play(fleet, script)
    assert asyncio.run(_listed(fleet.store)) == {"gone"}


async def _listed(store: MemoryStore) -> set[str]:
    return {row.worker for row in await store.digests()}


def test_a_digest_without_a_worker_is_removed_by_another_one_in_time() -> None:
    fleet = Fleet(ANN, BOB)

    async def script(fleet: Fleet) -> None:
        await fleet.store.put_digest(WorkerId("gone"), b"x")
        await fleet.even()
        await asyncio.sleep(PRUNE_S + 5.0)
        assert {row.worker for row in await fleet.store.digests()} == {ANN, BOB}

    play(fleet, script)


def test_a_digest_that_cannot_be_written_is_reported_once_and_changes_nothing_else() -> None:
    fleet = Fleet(ANN, BOB)

    async def refused(worker: WorkerId, content: bytes) -> None:
        raise ServiceUnavailable("no digests today")

    async def script(fleet: Fleet) -> None:
        fleet.store.put_digest = refused  # type: ignore[method-assign]  # only in this test
        await fleet.even()
        await asyncio.sleep(60.0)
        told = [each for each in fleet.site.seen.of(StoreFailed) if each.reason == "no digests today"]
        assert len(told) == 2, "one of each worker"
        assert all(daemon.status().ready for daemon in fleet.daemons.values())
        (found,) = (await fleet.daemons[ANN].fleet()).mappings
        assert Counter(each.owner for each in found.shards) == {ANN: 3, BOB: 3}

    play(fleet, script)


def test_what_operators_paused_is_shown_on_every_worker() -> None:
    fleet = Fleet(ANN, BOB)
    target = OperationTarget(shard=SHARDS[0])
    pause = OperatorPause(
        operation=OperationId("op"), target=target, by="ann@x", since=Epoch(1.0), reason="deploy"
    )

    async def script(fleet: Fleet) -> None:
        await fleet.even()
        for daemon in fleet.daemons.values():
            parts = daemon._open_parts
            assert parts is not None
            parts.fleet.pauses = lambda _: [pause]
            found = by_name(await only_mapping(daemon))
            assert [found[each].paused for each in SHARDS[:2]] == [pause_status(pause), None]
            own_status = by_name(daemon.status().mappings[0])
            assert [own_status[each].paused for each in SHARDS[:2]] == [pause_status(pause), None]

    play(fleet, script)


def test_a_task_that_ends_while_leases_are_read_is_reported_and_the_question_answered() -> None:
    fleet = Fleet(ANN, BOB)

    async def broken(mapping: MappingId, *, memos: bool = True) -> Sequence[Lease]:
        raise RuntimeError("a bug")

    async def script(fleet: Fleet) -> None:
        await fleet.even()
        await fleet.daemons[ANN].fleet()
        await asyncio.sleep(3.0)
        whole, fleet.store.leases = fleet.store.leases, broken  # type: ignore[method-assign]  # only for a moment
        found = await only_mapping(fleet.daemons[ANN])
        fleet.store.leases = whole  # type: ignore[method-assign]  # as above
        assert len(found.shards) == len(SHARDS)
        assert [(told.task, told.end) for told in fleet.site.seen.of(TaskEnded)] == [
            (TaskKind.FLEET, TaskEnd.RAISED)
        ]

    play(fleet, script)
