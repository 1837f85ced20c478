"""Owns what tests of replays on whole daemons need: a stream that begins at a time, and workers that can be killed."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field, replace
from typing import Any

from poller.domain.errors import PositionTrimmed
from poller.domain.operations import Operation, OperationState
from poller.domain.plan import FunctionPlan, MappingPlan, Tuning
from poller.domain.policies import Backoff
from poller.domain.records import Cursor, Page, Position, ShardId
from poller.domain.rows import REPLAY_PREFIX
from poller.runtime.daemon import Daemon
from tests.rules.build import kinesis
from tests.runtime.daemons import Site, daemon_plan
from tests.runtime.fakes import STREAM_ARN, FakeFunction, FakeStream, mapping
from tests.virtual import EPOCH_BASE, run_virtual

ORDERS = mapping().mapping
QUICK = Tuning(port_backoff=Backoff(base_s=0.2, cap_s=1.0), heartbeat_s=0.5, lease_s=4.0, discovery_s=5.0)
OTHER = "audit"
STARTED_S = 5.0
"""Scripts begin so long after the workers."""


SLOW = 100


@dataclass
class TimedStream(FakeStream):
    """A stream whose positions may be times. It refuses the next slow read, which is that of a replay with a rate, if `trims`."""

    trims: bool = False

    async def read(self, shard: ShardId, cursor: Cursor, *, records_max: int) -> Page:
        if self.trims and records_max < SLOW:
            self.trims = False
            raise PositionTrimmed("gone")
        return await super().read(shard, cursor, records_max=records_max)

    async def cursor(self, shard: ShardId, position: Position) -> Cursor:
        if position.since is None:
            return await super().cursor(shard, position)
        self.cursors.append(position)
        records = self.held[shard]
        found = (at for at, record in enumerate(records) if record.arrived >= (position.since or 0.0))
        return Cursor(str(next(found, len(records))))


@dataclass
class Stage:
    """Daemons on one store, one stream and two functions: `reader`, which the mapping calls, and `audit`."""

    stream: TimedStream = field(default_factory=TimedStream)
    reader: FakeFunction = field(default_factory=FakeFunction)
    audit: FakeFunction = field(default_factory=FakeFunction)
    plan: MappingPlan = field(default_factory=mapping)
    tuning: Tuning = QUICK
    site: Site = field(default_factory=Site)
    daemons: dict[str, Daemon] = field(default_factory=dict)
    tasks: dict[str, asyncio.Task[None]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.site.sources[STREAM_ARN] = self.stream
        self.site.functions = {"reader": self.reader, OTHER: self.audit}

    def start(self, scope: asyncio.TaskGroup, name: str, **changes: Any) -> Daemon:
        """Starts a worker."""
        functions = {OTHER: FunctionPlan(name=OTHER, invoker="fake", timeout_s=30.0)}
        plan = daemon_plan(self.plan, functions=functions, worker=name, tuning=self.tuning)
        self.daemons[name] = daemon = self.site.daemon(replace(plan, **changes), seed=len(self.daemons))
        self.tasks[name] = scope.create_task(daemon.run(), name=name)
        return daemon

    def kill(self, name: str) -> None:
        """A process that is killed writes nothing more."""
        self.tasks[name].cancel()
        del self.daemons[name], self.tasks[name]

    @property
    def worker(self) -> Daemon:
        """The first of the workers."""
        return next(iter(self.daemons.values()))

    async def replay(
        self, *, since: Any = "TRIM_HORIZON", until: Any = "LATEST", **members: Any
    ) -> Operation:
        """Asks for a replay."""
        request = {"action": "replay", "from": since, "to": until, **members}
        return await self.worker.operations.submit(self.plan.mapping, request, by="ann")

    async def found(self, operation: Operation) -> Operation:
        """The operation as it is now."""
        return await self.worker.operations.operation(operation.operation)

    async def over(self, operation: Operation, *, within_s: float = 120.0) -> Operation:
        """Waits until an operation is over."""
        async with asyncio.timeout(within_s):
            while True:
                found = await self.found(operation)
                if found.state.over:
                    return found
                await asyncio.sleep(0.1)

    async def hidden(self) -> list[str]:
        """The hidden mappings that the store has."""
        rows = await self.site.store.mappings()
        return [row.mapping for row in rows if row.mapping.startswith(REPLAY_PREFIX)]

    async def positions(self) -> dict[ShardId, str]:
        """Where the mapping itself is."""
        leases = await self.site.store.leases(self.plan.mapping)
        return {each.shard: each.checkpoint.position.encode() for each in leases}


type Play = Callable[[Stage], Awaitable[None]]


def perform(stage: Stage, play: Play, *, workers: int = 1) -> None:
    """Runs so many workers and the script on virtual time, then drains the workers."""

    async def main() -> None:
        async with asyncio.TaskGroup() as scope:
            for number in range(workers):
                stage.start(scope, f"worker-{number + 1}")
            await asyncio.sleep(STARTED_S)
            await play(stage)
            for each in stage.daemons.values():
                each.stop()

    run_virtual(main())


def fill(
    stage: Stage, *numbers: int, shard: ShardId | None = None, age_s: float = 100.0, key: str = "k"
) -> None:
    """Puts records with these numbers, which arrived one second apart, the first `age_s` before virtual time 0."""
    for place, number in enumerate(numbers):
        record = kinesis(number, key=key, arrived=EPOCH_BASE - age_s + place)
        stage.stream.held.setdefault(shard or next(iter(stage.stream.held)), []).append(record)


def flat(calls: list[list[int]]) -> list[int]:
    """The records of all calls, in order."""
    return [number for call in calls for number in call]


__all__ = ["DONE", "FAILED", "Stage", "fill", "flat", "perform"]
DONE, FAILED, CANCELLED = OperationState.DONE, OperationState.FAILED, OperationState.CANCELLED
