"""What a world looks at besides single effects is found when it is wrong: settling, draining, leases, checkpoints, losses."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import pytest

from poller.domain.invocations import Outcome, Succeeded, TimedOut
from poller.domain.plan import FunctionPlan, MappingPlan, SourceKind, Tuning
from poller.domain.records import MappingId, Position, QueueFacts, WorkerId
from poller.domain.rows import Checkpoint
from tests.simulation.checks.ledger import Violation, done_by
from tests.simulation.histories.bench import BAD, GOOD
from tests.simulation.services.contents import Content, Kind
from tests.simulation.services.fake_plugins import at_once
from tests.simulation.services.faults import FaultPlan, History, Marks, epoch
from tests.simulation.services.functions import Delivered, Delivery, Script
from tests.simulation.worlds import world as worlds
from tests.simulation.worlds.replicas import ReplicaWorld
from tests.simulation.worlds.scenario import Put, Restart, Scenario, Setup
from tests.simulation.worlds.world import Failed, World, run_world
from tests.virtual import EPOCH_BASE

STREAM = "arn:aws:kinesis:eu-west-1:111122223333:stream/readings"
QUEUE = "arn:aws:sqs:eu-west-1:111122223333:readings"
MAPPING = MappingId("00000000-0000-4000-8000-000000000000")


def scenario(arn: str = STREAM, *, kind: Kind = Kind.OK, workers: int = 1) -> Scenario:
    """Three records and no faults."""
    plan = MappingPlan(
        mapping=MAPPING,
        kind=SourceKind.SQS if arn == QUEUE else SourceKind.KINESIS,
        source_arn=arn,
        function="reader",
        function_arn="arn:aws:lambda:eu-west-1:111122223333:function:reader",
    )
    facts = QueueFacts(30, False) if arn == QUEUE else None
    setup = Setup(
        plan, FunctionPlan(name="reader", invoker="sim", timeout_s=5.0), Script(), facts=facts, shards=2
    )
    puts = tuple(Put(1.0, arn, f"key-{number}", Content(number, kind)) for number in range(3))
    return Scenario(1, (setup,), FaultPlan(heals_at=EPOCH_BASE + 5.0), puts, Tuning(), workers)


def reason(make: Callable[..., World], drawn: Scenario) -> str:
    """Why a world fails."""
    with pytest.raises(Failed) as failed:
        run_world(partial(make, drawn), 1)
    return failed.value.reason


@pytest.mark.parametrize("arn", [STREAM, QUEUE])
def test_a_world_in_which_all_goes_well_passes(arn: str) -> None:
    assert run_world(partial(World, scenario(arn)), 1).virtual_s > 5.0


def test_a_record_that_is_never_settled_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worlds, "SETTLE_S_MAX", 20.0)
    assert reason(World, scenario(kind=Kind.POISON)).startswith("settled: not settled 20 s after healing")


class Deaf:
    """A daemon that does not hear that it has to stop."""

    def stop(self) -> None:
        """Nothing."""


@dataclass(slots=True)
class DeafWorld(World):
    """A world whose workers cannot be stopped."""

    async def _drained(self) -> set[str]:
        for worker in self._workers:
            worker.daemon = Deaf()  # type: ignore[assignment] # sabotage
        return await World._drained(self)


def test_a_worker_that_does_not_stop_is_found() -> None:
    assert reason(DeafWorld, scenario()) == "drain: still running 120 s after stop"


def test_a_worker_that_does_not_stop_when_it_is_replaced_is_found() -> None:
    drawn = scenario()
    restart = replace(drawn, actions=(*drawn.actions, Restart(2.0)))
    assert reason(DeafFromTheStart, restart) == "drain: worker-1 does not stop"


@dataclass(slots=True)
class DeafFromTheStart(World):
    """A world whose workers cannot be stopped, not even to be replaced."""

    def _start(self, scope: asyncio.TaskGroup) -> None:
        World._start(self, scope)
        self._workers[-1].daemon = Deaf()  # type: ignore[assignment] # sabotage


class Clumsy:
    """A daemon that fails when it is asked to stop."""

    def __init__(self, fail: Callable[[], None]) -> None:
        self.stop = fail


@dataclass(slots=True)
class ClumsyWorld(World):
    """A world in which a worker fails while it drains."""

    async def _drained(self) -> set[str]:
        worker = self._workers[0]
        asked = asyncio.Event()

        async def fails() -> None:
            await asked.wait()
            raise ValueError("a bug")

        worker.task.cancel()
        worker.task = asyncio.get_running_loop().create_task(fails())
        worker.daemon = Clumsy(asked.set)  # type: ignore[assignment] # sabotage
        return await World._drained(self)


def test_a_worker_that_fails_while_it_drains_is_found() -> None:
    assert reason(ClumsyWorld, scenario()).startswith("bug: worker-1 failed while draining: ValueError")


@dataclass(slots=True)
class BrokenWorld(World):
    """A world in which a worker ends though nobody asked it to."""

    async def _all_settled(self) -> None:
        async def fails() -> None:
            raise ValueError("a bug")

        task = asyncio.get_running_loop().create_task(fails())
        self._workers[0].task.cancel()
        self._workers[0].task = task
        await asyncio.sleep(1.0)
        await World._all_settled(self)


def test_a_worker_that_ends_by_itself_is_found() -> None:
    assert reason(BrokenWorld, scenario()).startswith("bug: worker-1 ended by itself: ValueError")


@dataclass(slots=True)
class GreedyWorld(World):
    """A world whose workers keep a lease when they leave."""

    async def _drained(self) -> set[str]:
        drained = await World._drained(self)
        lease = at_once(self.store.leases(MAPPING))[0]
        at_once(self.store.take(MAPPING, lease, owner=WorkerId("worker-1")))
        self.court.kept.add(("worker-1", MAPPING, lease.shard))
        return drained


def test_a_lease_that_a_worker_takes_with_it_is_found() -> None:
    assert reason(GreedyWorld, scenario()).startswith("leases: held by workers that left in peace")


@dataclass(slots=True)
class ForgetfulWorld(World):
    """A world in which the last checkpoint is undone."""

    async def _drained(self) -> set[str]:
        drained = await World._drained(self)
        for checks in self.court.streams.values():
            checks.saved.update(dict.fromkeys(checks.saved, Checkpoint(Position.horizon())))
        return drained


def test_a_checkpoint_behind_what_is_settled_is_found_at_the_end() -> None:
    assert reason(ForgetfulWorld, scenario()).startswith("checkpoint: ")


@dataclass(slots=True)
class LeakyWorld(World):
    """A world in which a message vanishes from its queue."""

    async def _drained(self) -> set[str]:
        drained = await World._drained(self)
        for queue in self.court.queues.values():
            queue.settled.clear()
        return drained


def test_a_message_that_vanished_is_found_at_the_end() -> None:
    assert reason(LeakyWorld, scenario(QUEUE)).startswith("delete: ['message-000000'")


@dataclass(slots=True)
class SilentWorld(World):
    """A world in which a message was deleted when others might have had it, and nobody said so."""

    async def _drained(self) -> set[str]:
        drained = await World._drained(self)
        for queue in self.court.queues.values():
            receipt = queue.queue.letters["message-000000"].receipt
            queue.visibility.deletes("worker-1", [receipt], epoch() + 60.0)
        return drained


def test_a_late_delete_that_nobody_reports_is_found_at_the_end() -> None:
    told = "['message-000000'] were deleted too late, and nobody said so"
    assert reason(SilentWorld, scenario(QUEUE)) == f"visibility: {told}"


@dataclass(slots=True)
class LopsidedWorld(ReplicaWorld):
    """A world in which one worker has all leases in the end."""

    def _uneven(self) -> str:
        for lease in self.open_leases(MAPPING):
            if lease.owner != "worker-1":
                at_once(self.store.take(MAPPING, lease, owner=WorkerId("worker-1")))
        return ReplicaWorld._uneven(self)


def test_workers_that_do_not_share_are_found() -> None:
    drawn = scenario(workers=2)
    assert reason(LopsidedWorld, drawn).startswith(f"even: {MAPPING}: ")


def delivery(count: int) -> Delivery:
    return Delivery(STREAM, tuple(Delivered(str(number), Content(number)) for number in range(count)), {})


def reported(*identifiers: Any) -> Succeeded:
    items = ",".join(f'{{"itemIdentifier":"{each}"}}' for each in identifiers)
    return Succeeded(f'{{"batchItemFailures":[{items}]}}'.encode())


@pytest.mark.parametrize(
    ("outcome", "reports", "stream", "done"),
    [
        (GOOD, True, True, "0123"),
        (Succeeded(b"null"), True, False, "0123"),
        (reported(), True, False, "0123"),
        (reported(2, 1), True, True, "0"),
        (reported(0), True, True, ""),
        (reported(2, 1), True, False, "03"),
        (reported(2, 1), False, False, "0123"),
        (reported("nobody", 1), True, False, ""),
        (Succeeded(b'{"batchItemFailures":[{"foo":1}]}'), True, True, ""),
        (BAD, True, True, ""),
        (TimedOut(5.0), False, False, ""),
    ],
)
def test_what_an_answer_settles_follows_the_table_of_aws(
    outcome: Outcome, reports: bool, stream: bool, done: str
) -> None:
    assert "".join(done_by(outcome, delivery(4), reports=reports, stream=stream)) == done


def test_a_world_fails_with_the_first_broken_promise() -> None:
    drawn = scenario()

    def make(marks: Marks, history: History) -> World:
        world = World(drawn, marks, history)
        world.court.violations += [Violation("order", "2 before 1"), Violation("once", "2 again")]
        return world

    with pytest.raises(Failed) as failed:
        run_world(make, 1)
    assert failed.value.reason == "order: 2 before 1"
