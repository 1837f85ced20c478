"""Replays beside a mapping, at any moment, while workers come and go, streams are resharded and ports fail.

The replay calls a function of its own, so that the court can judge both: the mapping as always, and the replay as a mapping whose
range has an end. Each record of the range is called at least once, in order per key, none beyond the range, and the mapping's
own deliveries and positions are as without a replay.
"""

import asyncio
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from functools import cache
from random import Random
from typing import Any

import pytest

from poller.domain.mapping_api import ApiError
from poller.domain.operations import Action as OperatorAction
from poller.domain.operations import Operation, OperationId, OperationRequest, OperationState
from poller.domain.plan import DaemonPlan, FunctionPlan, MappingPlan, SourceKind, StreamPolicy, Tuning
from poller.domain.policies import Backoff, BatchPolicy, RetryPolicy
from poller.domain.records import Epoch, MappingId, ShardId, WorkerId
from poller.domain.rows import REPLAY_PREFIX, Checkpoint
from poller.rules.replays.asking import planned, prepared, replay_mapping
from tests.simulation.checks.ledger import Flight, Tenure, Violation
from tests.simulation.checks.stream_checks import StreamChecks
from tests.simulation.services.contents import Content, Kind
from tests.simulation.services.fake_plugins import at_once, seeded
from tests.simulation.services.faults import FaultPlan, History, Marks, Port, epoch
from tests.simulation.services.functions import FakeFunction, Script
from tests.simulation.services.streams import FakeStream, Held
from tests.simulation.services.wires import Shapes
from tests.simulation.worlds.scenario import (
    DESTINATION,
    WRITING_S,
    Action,
    Crash,
    Join,
    Pause,
    Put,
    Reshard,
    Restart,
    Scenario,
    Setup,
)
from tests.simulation.worlds.world import World, run_world
from tests.virtual import EPOCH_BASE

ARN = "arn:aws:kinesis:eu-west-1:111122223333:stream/orders"
ORDERS = MappingId("00000000-0000-4000-8000-000000000000")
REPLAY = OperationId("replay-1")
HIDDEN = replay_mapping(REPLAY)
HEALED_S = 60.0
OVER_S_MAX = 300.0
"""After everything healed and the mapping has settled, this long until the replay is over."""
REMOVED_S_MAX = 60.0
SEEDS = range(60)
SOMETIMES = (
    "replay: done",
    "replay: failed",
    "replay: cancelled",
    "replay of records",
    "replay killed in the middle",
    "replay across a split",
    "replay with a rate",
    "replay past a record without time",
    "replay whose first worker cannot list the stream",
    *(f"operation: replay {each}" for each in OperationState),
    *(f"operator: replay while {each}" for each in ("idle", "invoking", "moving", "ended")),
    "lease taken over",
    "notice",
    "crash",
    "pause",
    "restart",
    "join",
    "store: lost reply",
)
"""What some of these worlds must show, or they are too kind."""


@dataclass(slots=True)
class ReplayChecks(StreamChecks):
    """The truth about a replay: nothing is required behind its end, and its shards may end although the stream's are open."""

    until: float = float("inf")
    given_up: bool = False
    """It was cancelled, or has failed: nothing more is required of it."""

    def begins(self, flight: Flight, shard: ShardId, records: Any, tenure: Tenure | None) -> None:
        """A batch of the replay is handed to its function."""
        late = [each.sequence for each in records if each.arrived > self.until and has_time(each)]
        if any(not has_time(each) for each in records):
            self.marks.saw("replay past a record without time")
        if late:
            raise Violation("bound", f"{late} of {shard} arrived behind the end of the replay")
        self.marks.saw("replay of records")
        StreamChecks.begins(self, flight, shard, records, tenure)

    def saves(self, shard: ShardId, checkpoint: Checkpoint) -> None:
        """A checkpoint was accepted. It covers settled records only, and records behind the end."""
        self._index()
        before, first = self.saved.get(shard), self._first_unsettled(shard)
        if before is not None and checkpoint.position < before.position:
            raise Violation("checkpoint", f"{shard} of the replay goes back")
        self.saved[shard] = checkpoint
        if first is not None and not self.given_up and checkpoint.position.encode() == "SHARD_END":
            raise Violation("checkpoint", f"the end of {shard} covers {first.sequence}")

    def behind(self) -> list[ShardId]:
        """Nothing: when the replay is over, its checkpoints are removed."""
        return []

    def _required(self, held: Held) -> bool:
        return not self.given_up and held.arrived <= self.until and StreamChecks._required(self, held)


def has_time(held: Held) -> bool:
    """Whether the service sends this record with a time of arrival."""
    return held.record.dated


@dataclass(slots=True)
class ReplayWorld(World):
    """A world in which somebody asks for a replay `at` a moment, and may cancel it `cancel_s` later."""

    at: float = 10.0
    members: dict[str, Any] = field(default_factory=dict)
    cancel_s: float | None = None
    audit: Script = Script()
    pick: float = 0.0
    unlisted: bool = False
    """The first worker by name may not list the stream any more once the replay has been accepted."""

    def __post_init__(self) -> None:
        World.__post_init__(self)
        self.functions["audit"] = FakeFunction(self.audit, seeded(self.scenario.seed, "audit"))
        self.court.alone.functions = {**self.court.alone.functions, "audit": AUDIT}

    def _plan(self, worker: WorkerId) -> DaemonPlan:
        plan = World._plan(self, worker)
        return DaemonPlan(
            worker=plan.worker,
            store=plan.store,
            functions={**plan.functions, "audit": AUDIT},
            mappings=plan.mappings,
            tuning=plan.tuning,
        )

    async def _live(self, scope: asyncio.TaskGroup) -> None:
        self._act(scope, self._replay())
        await World._live(self, scope)

    async def _replay(self) -> None:
        await asyncio.sleep(self.at)
        checks = self._judged()
        self.operators.look(OperatorAction.REPLAY, ORDERS)
        request = {"action": "replay", "id": REPLAY, **self.members}
        operation = await self._asked(lambda worker: worker.operations.submit(ORDERS, request, by="ann"))
        if self.members["to"] == "LATEST":
            checks.until = operation.created
        self.history.tell("world", lambda: f"replay {self.members} is accepted")
        if "records_per_s" in self.members:
            self.marks.saw("replay with a rate")
        if self.unlisted and self._workers:
            min(self._workers, key=lambda each: each.line.name).line.forbidden = frozenset({"list"})
        if self.cancel_s is not None:
            await asyncio.sleep(self.cancel_s)
            try:
                await self._asked(lambda worker: worker.operations.cancel(REPLAY, by="bob"))
            except ApiError:
                # It is over already.
                return

    def _judged(self) -> ReplayChecks:
        """Makes the court judge the replay."""
        plan = self.scenario.setups[0].plan
        arn = plan.function_arn.replace(plan.function, "audit")
        request = OperationRequest(action=OperatorAction.REPLAY, members=self.members)
        asked = Operation(operation=REPLAY, mapping=ORDERS, request=request, created=Epoch(epoch() + 60))
        hidden = planned(prepared(asked, _calling(plan, arn)), source_settings={})
        stream = self.sources[ARN]
        assert isinstance(stream, FakeStream)
        checks = ReplayChecks(hidden, stream, self.marks)
        if self.members["to"] != "LATEST":
            checks.until = self.members["to"]
        self.court.streams[HIDDEN] = checks
        self.court._by_call[ARN, "audit"] = hidden
        return checks

    async def _asked(self, ask: Any) -> Operation:
        """Asks one worker after the other until one answers. Raises ApiError if the operation is over."""
        for number in range(1000):
            if self._workers:
                worker = self._workers[(int(self.pick * 100) + number) % len(self._workers)].daemon
                try:
                    async with asyncio.timeout(30):
                        found: Operation = await ask(worker)
                        return found
                except ApiError as error:
                    if "is over" in error.text or "no operation has this id" in error.text:
                        raise
                    self._tell(f"asked in vain: {error.text}")
                except TimeoutError:
                    pass
            await asyncio.sleep(0.5)
        raise Violation("replay", "nobody takes it")

    def _tell(self, text: str) -> None:
        self.history.tell("world", lambda: text)

    def _stored(self) -> Operation | None:
        found = [*at_once(self.store.operations()), *at_once(self.store.operations(over=True))]
        return next((each for each in found if each.operation == REPLAY), None)

    async def _until(self, at: float) -> None:
        self._look()
        await World._until(self, at)

    def _judge(self) -> None:
        self._look()
        World._judge(self)

    def _look(self) -> None:
        checks, operation = self.court.streams.get(HIDDEN), self._stored()
        if isinstance(checks, ReplayChecks) and operation is not None:
            if operation.state in {OperationState.CANCELLED, OperationState.FAILED}:
                checks.given_up = True
            if operation.state is OperationState.DONE and (left := checks.unsettled()):
                raise Violation("replay", f"done, and {len(left)} are not settled: {left[0].sequence}")

    def _kill(self, worker: Any) -> None:
        operation = self._stored()
        if operation is not None and operation.progress.get("records") and not operation.state.over:
            self.marks.saw("replay killed in the middle")
        World._kill(self, worker)

    async def _all_settled(self) -> None:
        lines = [each.line for each in self._workers]
        if all(each.forbidden for each in lines):
            # Nobody else could do it.
            lines[0].forbidden = frozenset()
        await World._all_settled(self)
        deadline = epoch() + OVER_S_MAX
        while (operation := self._stored()) is None or not operation.state.over:
            self._judge()
            if epoch() > deadline:
                raise Violation("replay", f"not over: {operation}")
            await asyncio.sleep(0.5)
        self._judge()
        self.marks.saw(f"replay: {operation.state}")
        if lines and min(lines, key=lambda each: each.name).forbidden:
            self.marks.saw("replay whose first worker cannot list the stream")
        if operation.state is OperationState.FAILED and not self.members.get("on_failure", "stop") == "stop":
            raise Violation("replay", f"failed although failures go elsewhere: {operation.result}")
        if operation.progress.get("shards", 0) > self.scenario.setups[0].shards:
            self.marks.saw("replay across a split")
        deadline = epoch() + REMOVED_S_MAX
        while any(row.mapping.startswith(REPLAY_PREFIX) for row in at_once(self.store.mappings())):
            self._judge()
            if epoch() > deadline:
                raise Violation("replay", "its hidden mapping is still in the store")
            await asyncio.sleep(0.5)


AUDIT = FunctionPlan(name="audit", invoker="sim", timeout_s=10.0)


def _calling(plan: MappingPlan, arn: str) -> MappingPlan:
    return MappingPlan(
        **{name: getattr(plan, name) for name in plan.__slots__} | {"function": "audit", "function_arn": arn}
    )


def run(seed: int, *, trace: bool = False) -> Marks:
    """Runs the world of a seed to its end; raises Failed."""
    rng = seeded(seed, "replays")
    scenario = drawn(rng, seed)
    at = rng.uniform(3.0, WRITING_S)
    members: dict[str, Any] = {
        "from": rng.choice(("TRIM_HORIZON", EPOCH_BASE - 1.0, EPOCH_BASE + rng.uniform(0, at - 2.0))),
        "to": rng.choice(("LATEST", "LATEST", EPOCH_BASE + at + rng.uniform(-0.5, 25.0))),
        "function": "audit",
        "on_failure": rng.choice(("stop", DESTINATION, DESTINATION)),
    }
    if rng.random() < 0.4:
        members["records_per_s"] = rng.choice((2.0, 5.0, 50.0))
    audit = Script(error_chance=rng.choice((0.0, 0.1, 0.3)), heals_at=EPOCH_BASE + HEALED_S)
    cancel_s = rng.uniform(0.5, 20.0) if rng.random() < 0.2 else None
    pick = rng.random()
    unlisted = seeded(seed, "lists of a replay's first worker").random() < 0.4

    def make(marks: Marks, history: History) -> ReplayWorld:
        return ReplayWorld(
            scenario,
            marks,
            history,
            at=at,
            members=members,
            cancel_s=cancel_s,
            audit=audit,
            pick=pick,
            unlisted=unlisted,
        )

    report = run_world(make, seed, trace=trace)
    return report.marks


cached = cache(run)


def drawn(rng: Random, seed: int) -> Scenario:
    """The scenario of a seed."""
    plan = MappingPlan(
        mapping=ORDERS,
        kind=SourceKind.KINESIS,
        source_arn=ARN,
        function="reader",
        function_arn="arn:aws:lambda:eu-west-1:111122223333:function:reader",
        batch=BatchPolicy(rng.choice((1, 3, 10))),
        retry=RetryPolicy(
            retries_max=rng.choice((None, 0, 3)), bisect=rng.random() < 0.5, backoff=Backoff(cap_s=2.0)
        ),
        stream=StreamPolicy(lanes=rng.choice((1, 1, 3))),
        filters=rng.choice(((), (), ('{"data":{"keep":["yes"]}}',))),
    )
    function = FunctionPlan(name="reader", invoker="sim", timeout_s=10.0)
    setup = Setup(plan, function, Script(error_chance=0.0), shards=rng.choice((1, 2, 3)))
    odd = seeded(seed, "times of replayed records")
    if odd.random() < 0.5:
        setup = replace(setup, shapes=Shapes(odd=odd.choice((0.1, 0.4, 1.0)), undated=True))
    chance = rng.choice((0.0, 0.02, 0.05))
    faults = FaultPlan(
        latency_s=rng.choice(((0.001, 0.03), (0.01, 0.5))),
        unavailable={Port.STORE: chance, Port.SOURCE: chance},
        lost_reply={Port.STORE: chance},
        expired_cursor=rng.choice((0.0, 0.02)),
        empty_page=rng.choice((0.0, 0.1)),
        heals_at=EPOCH_BASE + HEALED_S,
    )
    actions = tuple(sorted(happens(rng), key=lambda each: each.at))
    tuning = Tuning(
        discovery_s=rng.choice((0.5, 5.0, 30.0)),
        checkpoint_s=rng.choice((0.5, 1.0, 5.0)),
        read_records_max=rng.choice((5, 100, 10_000)),
        port_backoff=Backoff(base_s=0.2, cap_s=2.0),
    )
    return Scenario(seed, (setup,), faults, actions, tuning, rng.choice((1, 2, 2, 3)))


def happens(rng: Random) -> Iterator[Action]:
    """What is written, how the stream changes, and who comes and goes."""
    for number in range(rng.randint(20, 80)):
        at = rng.choice((-2.0, rng.uniform(0.0, WRITING_S)))
        keep = rng.random() < 0.8
        kind = Kind.SLOW if rng.random() < 0.05 else Kind.OK
        yield Put(at, ARN, f"key-{rng.randrange(8)}", Content(number, kind, keep=keep))
    for _ in range(rng.choice((0, 1, 3))):
        yield Reshard(rng.uniform(0.0, WRITING_S), ARN, rng.choice(("split", "merge", "roll")), rng.random())
    for _ in range(rng.choice((0, 1, 2, 3))):
        at, pick = rng.uniform(5.0, HEALED_S - 10.0), rng.random()
        match rng.choice(("crash", "crash", "pause", "restart", "join")):
            case "crash":
                yield Crash(at, rng.choice((0.5, 5.0, 20.0)), pick)
            case "pause":
                yield Pause(at, rng.uniform(8.0, 30.0), rng.choice((None, 3.0)), pick)
            case "restart":
                yield Restart(at, pick)
            case _:
                yield Join(at)


@pytest.mark.parametrize("seed", SEEDS)
def test_a_replay_is_whole_ordered_and_bounded_and_its_mapping_does_not_notice(seed: int) -> None:
    assert cached(seed)["crash"] >= 0


def test_some_of_these_worlds_show_all_that_they_are_for() -> None:
    seen = Marks()
    for seed in SEEDS:
        seen.update(cached(seed))
    assert [mark for mark in SOMETIMES if not seen[mark]] == []
