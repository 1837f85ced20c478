"""Since when a shard is blocked: over restarts, handovers, and changes of its mapping."""

import asyncio
from dataclasses import dataclass, field
from itertools import takewhile
from typing import Any

import pytest

from adapters.observers.metrics import Figures
from adapters.stores.memory import MemoryStore
from poller.domain.invocations import FunctionError, Throttled
from poller.domain.plan import MappingPlan
from poller.domain.policies import Backoff, BatchPolicy, RetryPolicy
from poller.domain.status import LaneStatus
from poller.domain.telemetry.mapping_events import Blocked, CheckpointSaved, ShardStopped
from poller.runtime.stopping import Reason, Stop
from poller.runtime.streams.stream_mapping import StreamMapping
from tests.runtime.fakes import (
    SHARD,
    Answer,
    FakeFunction,
    FakeStream,
    Seen,
    mapping,
    poison,
    records,
    stream_parts,
)
from tests.virtual import EPOCH_BASE, run_virtual, virtual_clock

RUN_S = 600.0


@dataclass
class Deploys:
    """A mapping that runs ten minutes at a time, by another plan and at another worker each time."""

    stream: FakeStream = field(default_factory=FakeStream)
    store: MemoryStore = field(default_factory=MemoryStore)
    runs: int = 0

    async def run(
        self, answer: Answer, *, look_at_s: float = RUN_S - 1, **changes: Any
    ) -> tuple[list[LaneStatus], Seen]:
        """One run; what its lanes say after a while."""
        self.runs += 1
        seen, stop = Seen(), Stop()
        parts = stream_parts(
            self.stream,
            FakeFunction(answer),
            plan=plan(**changes),
            store=self.store,
            seen=seen,
            worker=f"worker-{self.runs}",
        )
        runner = StreamMapping(parts, stop)
        async with asyncio.TaskGroup() as scope:
            scope.create_task(runner.run())
            await asyncio.sleep(look_at_s)
            (shard,) = runner.shards()
            assert (shard.state == "blocked") is shard.blocked
            await asyncio.sleep(RUN_S - look_at_s)
            stop.request(Reason.REQUESTED)
        return [lane for lane in shard.lanes if lane.blocked_since is not None], seen


def plan(**changes: Any) -> MappingPlan:
    return mapping(**({"batch": BatchPolicy(10), "retry": RetryPolicy(backoff=Backoff(5.0, 50.0))} | changes))


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"lanes": 4},
        {"batch": BatchPolicy(1)},
        {"retry": RetryPolicy(bisect=True)},
        {"filters": ('{"partitionKey":["k"]}',)},
    ],
    ids=["as before", "more lanes", "smaller batches", "bisected", "filtered"],
)
@pytest.mark.parametrize(
    "answer", [poison(1), lambda _: Throttled("no room")], ids=["the function fails", "it has no room"]
)
def test_a_shard_is_blocked_since_its_first_failure_however_often_it_starts_again(
    changes: dict[str, Any], answer: Answer
) -> None:
    async def main() -> None:
        deploys = Deploys()
        deploys.stream.put(*records(*range(1, 31)))
        for number in range(5):
            found, _ = await deploys.run(answer, **({} if number % 2 == 0 else changes))
            assert len(found) == 1
            assert found[0].blocked_since is not None
            assert int(found[0].blocked_since) == int(EPOCH_BASE), f"run {number}"

    run_virtual(main())


def test_it_shows_from_the_start_and_the_metric_has_it() -> None:
    async def main() -> None:
        deploys = Deploys()
        deploys.stream.put(*records(1))
        await deploys.run(poison(1))
        found, seen = await deploys.run(poison(1), look_at_s=0.01)
        assert [int(lane.blocked_since or 0) for lane in found] == [int(EPOCH_BASE)]
        figures = Figures(virtual_clock())
        for event in takewhile(lambda each: not isinstance(each, ShardStopped), seen.events):
            figures.on(event)
        ((shard, since),) = figures.mappings[plan().mapping].running.blocked_shards().items()
        assert (shard, int(since)) == (SHARD, int(EPOCH_BASE))

    run_virtual(main())


def test_a_shard_that_got_through_is_blocked_again_when_it_fails_again() -> None:
    async def main() -> None:
        deploys = Deploys()
        deploys.stream.put(*records(1))
        await deploys.run(poison(1))
        found, seen = await deploys.run(poison(2))
        assert found == []
        assert [event.blocked for event in seen.of(Blocked)] == [True, False]
        deploys.stream.put(*records(2))
        found, _ = await deploys.run(poison(2))
        assert [int(lane.blocked_since or 0) for lane in found] == [int(EPOCH_BASE + 2 * RUN_S)]

    run_virtual(main())


def test_a_function_without_room_costs_one_checkpoint_and_not_one_a_try() -> None:
    async def main() -> int:
        deploys = Deploys()
        deploys.stream.put(*records(1))
        _, seen = await deploys.run(lambda _: Throttled("no room"))
        return len(seen.of(CheckpointSaved))

    assert run_virtual(main()) <= 2


def test_a_lane_that_recovers_within_the_save_interval_is_not_remembered() -> None:
    async def main() -> None:
        deploys = Deploys()
        deploys.stream.put(*records(1))
        tries: list[int] = []

        def once(batch: list[int]) -> Any:
            tries.append(1)
            return FunctionError("ValueError", "once") if len(tries) == 1 else poison(99)(batch)

        found, _ = await deploys.run(once)
        assert found == []
        (lease,) = await deploys.store.leases(plan().mapping)
        assert b"blocked" not in lease.checkpoint.memo

    run_virtual(main())
