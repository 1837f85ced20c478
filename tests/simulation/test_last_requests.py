"""What operators must get in the end they get, also from workers that have just started, and a world in which no worker accepts it fails."""

import asyncio
from functools import partial

import pytest

from poller.domain.plan import DiscardPolicy, FunctionPlan, MappingPlan, SourceKind, Tuning
from poller.domain.policies import BatchPolicy, RetryPolicy
from poller.domain.records import MappingId
from tests.simulation.services.contents import Content, Kind
from tests.simulation.services.faults import FaultPlan
from tests.simulation.services.functions import Script
from tests.simulation.worlds.scenario import (
    DESTINATION,
    HEALED_S,
    Action,
    Crash,
    Put,
    Redrive,
    Scenario,
    Setup,
)
from tests.simulation.worlds.world import Failed, World, run_scenario, run_world
from tests.virtual import EPOCH_BASE

ARN = "arn:aws:kinesis:eu-west-1:111122223333:stream/orders"
MAPPING = MappingId("00000000-0000-4000-8000-000000000000")
PAUSE = {"action": "pause"}


def world_of(*actions: Action) -> Scenario:
    """One worker, and one record that its function never accepts, so that a notice of it is left."""
    plan = MappingPlan(
        mapping=MAPPING,
        kind=SourceKind.KINESIS,
        source_arn=ARN,
        function="reader",
        function_arn="arn:aws:lambda:eu-west-1:111122223333:function:reader",
        batch=BatchPolicy(1),
        retry=RetryPolicy(retries_max=0),
        discard=DiscardPolicy(destination=DESTINATION),
    )
    function = FunctionPlan(name="reader", invoker="sim", timeout_s=10.0)
    faults = FaultPlan(heals_at=EPOCH_BASE + HEALED_S)
    record = Put(1.0, ARN, "key-0", Content(0, Kind.POISON))
    return Scenario(1, (Setup(plan, function, Script()),), faults, (record, *actions), Tuning())


@pytest.mark.parametrize("back_s", [1.5, 2.0, 9.0, 30.0])
def test_everything_is_redriven_also_if_the_only_worker_starts_at_that_moment(back_s: float) -> None:
    looked = Redrive(at=5.0, setup=0, limit=None, per_s=None, dry_run=True)
    report = run_scenario(world_of(looked, Crash(HEALED_S - 1.0, back_s)), trace=True)
    assert [line for line in report.history if "refused: the daemon is starting" in line]
    assert report.marks["redrive: done"] == 1


def test_a_request_that_no_worker_accepts_fails_its_world_and_says_why() -> None:
    class Asked(World):
        async def _live(self, scope: asyncio.TaskGroup) -> None:
            self._start(scope)
            await self.operators.insist(MappingId("another"), PAUSE)

    with pytest.raises(Failed, match=r"operator: no worker accepts .*pause.*: no mapping has this id"):
        run_world(partial(Asked, world_of()), 1)


def test_pauses_are_ended_also_if_the_only_worker_starts_at_that_moment() -> None:
    left: list[str] = []

    class Paused(World):
        async def _live(self, scope: asyncio.TaskGroup) -> None:
            self._start(scope)
            await self.operators.insist(MAPPING, PAUSE)
            await self._crash(Crash(0.0, back_s=0.0), scope)
            left.extend(self.operators.unfinished())
            await self.operators.end()
            left.extend(self.operators.unfinished())

    report = run_world(partial(Paused, world_of()), 1, trace=True)
    assert [line for line in report.history if "cancel of op-" in line and "starting" in line]
    assert len(left) == 1
