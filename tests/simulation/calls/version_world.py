"""Owns worlds of versions and aliases: calls and batches by versions and aliases, while operators shift, roll back and change aliases.

They are worlds of asynchronous calls, with their crashes, pauses, stops, faults and operators. All workers read one stream by an alias.
"""

import asyncio
import json
from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import msgspec

from poller.domain.functions.alias_control import AliasChange, ShiftRequest
from poller.domain.functions.calls import FunctionCall, NoRoom
from poller.domain.functions.queued_calls import CallId
from poller.domain.functions.shift_strategies import own_strategy
from poller.domain.functions.shifts import ShiftState
from poller.domain.functions.versions import AliasPlan, VersionPlan
from poller.domain.invocations import FunctionError, Invocation, Outcome, Succeeded, TimedOut
from poller.domain.mapping_api import ApiError
from poller.domain.plan import DaemonPlan, FunctionPlan
from poller.domain.policies import BatchPolicy
from poller.domain.rows import FUNCTION_PREFIX, MappingRow
from poller.domain.telemetry.daemon_events import VersionCalled
from poller.domain.telemetry.observers import AnyTelemetryEvent
from poller.rules.functions.aliases.alias_state import AliasState
from poller.rules.functions.naming import qualifier_of
from tests.rules.build import kinesis
from tests.runtime.daemons import FAILED, Site, daemon_plan, now
from tests.runtime.fakes import STREAM_ARN, FakeFunction, FakeStream, Seen, mapping
from tests.simulation.calls.call_world import (
    ACTS,
    DEAD,
    DONE,
    FOR_EVER,
    FUNCTION,
    TUNING,
    Drain,
    World,
    outcome_of,
    run_world,
)
from tests.simulation.calls.doors import Door
from tests.simulation.calls.version_checks import LATEST, VersionLedger
from tests.virtual import EPOCH_BASE

VERSIONS = ("1", "2", "3")
ALIASES = {"live": AliasPlan(version="1"), "trial": AliasPlan(version="1", weights={"2": 0.3})}
CHANGED = ALIASES | {"live": AliasPlan(version="3")}
"""The aliases of a file that somebody has changed."""
CHANGED_S = 45.0
"""From then on workers start with the changed file, in some worlds."""
MADE = "made"
"""An alias that somebody may make through the API."""
QUALIFIERS = ("live", "live", "live", "trial", "trial", MADE, "", LATEST, *VERSIONS)
ARN = f"arn:aws:lambda:eu-west-1:111122223333:function:{FUNCTION}"
ROW = FUNCTION_PREFIX + FUNCTION
HOOK = "hook"
HOOK_OUTCOMES: tuple[Outcome, ...] = (
    *[Succeeded(b'"Succeeded"'), Succeeded(b'{"status":"Succeeded"}')] * 3,
    Succeeded(b'"Failed"'),
    FunctionError("ValueError", "no"),
)
BATCH_RECORDS = 3
MORE_ACTS = {"read": 25, "call": 30, "shift": 8, "roll back": 4, "change": 2, "make": 1}
BAD_FAILS = 0.8
"""How often a version fails that is worse than the others."""


class VersionDoor(Door):
    """The door of a worker that tells the ledger what its worker knows and writes of aliases."""

    versions: VersionLedger

    async def create(self, row: MappingRow) -> MappingRow:
        found = await self.passed(lambda: self.shared.create(row))
        if row.mapping == ROW:
            self.versions.knows(self.worker, found.revision, aliases_of(found))
        return found

    async def update(self, row: MappingRow) -> None:
        async def work() -> None:
            await self.shared.update(row)
            last = self.versions.history[-1].revision if self.versions.history else -1
            if row.mapping == ROW and row.revision + 1 > last:
                self.versions.was_written(self.worker, row.revision + 1, aliases_of(row))

        await self.passed(work)
        if row.mapping == ROW:
            self.versions.knows(self.worker, row.revision + 1, aliases_of(row))


def aliases_of(row: MappingRow) -> dict[str, AliasState]:
    """The aliases in a row of a function."""
    return msgspec.convert(row.document.get("aliases", {}), dict[str, AliasState])


class Told(Seen):
    """The observer of one worker, which tells the ledger of calls by aliases."""

    def __init__(self, worker: str, versions: VersionLedger) -> None:
        super().__init__()
        self._worker = worker
        self._versions = versions

    def on(self, event: AnyTelemetryEvent) -> None:
        if isinstance(event, VersionCalled) and event.alias:
            self._versions.told(self._worker, event.alias, event.version, failed=event.failed)


class VersionTarget(FakeFunction):
    """One version of the function on one worker."""

    def __init__(self, world: "VersionWorld", worker: str, version: str) -> None:
        super().__init__()
        self._world = world
        self._worker = worker
        self._version = version

    async def invoke(self, invocation: Invocation) -> Outcome:
        world, event = self._world, json.loads(invocation.payload)
        numbers = [each["kinesis"]["sequenceNumber"] for each in event.get("Records", ())]
        text = f"record {numbers[0]}" if numbers else invocation.request_id
        call = CallId(invocation.request_id) if "n" in event else None
        world.versions.called(self._worker, text, qualifier_of(invocation.function_arn), self._version)
        if call is not None:
            world.ledger.began(self._worker, call)
            world.ran.setdefault(call, set()).add(self._version)
        outcome = await self._outcome(call)
        if call is not None and isinstance(outcome, Succeeded | FunctionError | TimedOut):
            world.ledger.answered(call, failed=not isinstance(outcome, Succeeded))
        if isinstance(outcome, Succeeded):
            world.read.update(numbers)
        return outcome

    async def _outcome(self, call: CallId | None) -> Outcome:
        world, trouble = self._world, self._world.trouble
        try:
            await asyncio.sleep(0.05 if trouble.over else trouble.rng.uniform(0.0, trouble.slow_s))
        except asyncio.CancelledError:
            if call is not None:
                world.ledger.answered(call, failed=True)
            raise
        if self._version == world.bad and not trouble.over and world.rng.random() < BAD_FAILS:
            return FunctionError("ValueError", "a bad version")
        return outcome_of(trouble)


class Hook(FakeFunction):
    """The hook of all shifts: it succeeds, says no, fails, or takes its time."""

    def __init__(self, world: "VersionWorld") -> None:
        super().__init__()
        self._world = world

    async def invoke(self, invocation: Invocation) -> Outcome:
        world, event = self._world, json.loads(invocation.payload)
        shift, _, state = event["LifecycleEventHookExecutionId"].rpartition(":")
        await asyncio.sleep(world.rng.uniform(0.0, 1.0 if world.trouble.over else 20.0))
        found = world.rng.choice(HOOK_OUTCOMES)
        good = isinstance(found, Succeeded) and b"Succeeded" in found.payload
        world.versions.hooks[shift, ShiftState(state)].add(good)
        return found


class VersionDrain(Drain):
    """A destination that looks which version a document names."""

    world: "VersionWorld"

    async def send_call(self, notice: Any, *, dead_letter: bool) -> None:
        context = json.loads(notice.documents[0]).get("responseContext")
        ran = self.world.ran.get(CallId(notice.call), set())
        self.world.ledger.faults.require(
            context is None or context["executedVersion"] in ran,
            f"the document of {notice.call} says {context}, and it ran on {ran}",
        )
        await super().send_call(notice, dead_letter=dead_letter)


@dataclass(slots=True)
class VersionWorld(World):
    """One run. `seed` decides everything."""

    versions: VersionLedger = field(init=False)
    stream: FakeStream = field(default_factory=FakeStream)
    records: int = 0
    read: set[str] = field(default_factory=set)
    """The records that some version has accepted."""
    ran: dict[CallId, set[str]] = field(default_factory=dict)
    """The versions that each asynchronous call ran on."""
    bad: str = ""
    changed_file: bool = False
    over_at: float = FOR_EVER

    def __post_init__(self) -> None:
        World.__post_init__(self)
        self.versions = VersionLedger(self.ledger.clock, self._healthy, self.ledger.faults, self.ledger.marks)
        self.bad = self.rng.choice(("", *VERSIONS))
        self.changed_file = self.rng.random() < 0.3

    def _healthy(self, worker: str, since: float) -> bool:
        calm = self.trouble.faults == 0 or self.over_at < since
        return calm and self.ledger.gone.get(worker, -FOR_EVER) < since

    def _door(self, name: str) -> Door:
        door = VersionDoor(self.shared, self.trouble, name, self.ledger)
        door.versions = self.versions
        return door

    def _site(self, name: str) -> Site:
        drains = {each: VersionDrain(each, self.trouble, self.ledger) for each in (DONE, FAILED, DEAD)}
        for each in drains.values():
            each.world = self
        numbered = {f"{FUNCTION}:{each}": VersionTarget(self, name, each) for each in VERSIONS}
        return Site(
            sources={STREAM_ARN: self.stream},
            functions={FUNCTION: VersionTarget(self, name, LATEST), HOOK: Hook(self), **numbered},
            destinations={**drains},
            store=self.shared,
            seen=Told(name, self.versions),
        )

    def _plan(self, name: str) -> DaemonPlan:
        aliases = CHANGED if self.changed_file and now() > CHANGED_S else ALIASES
        self.versions.began(name, aliases)
        policies = dict.fromkeys(("", *ALIASES, MADE, *VERSIONS), self.ledger.policy)
        function = FunctionPlan(
            name=FUNCTION,
            invoker="fake",
            async_policies=policies,
            max_concurrency=self.rng.choice((None, 2, 8)),
            versions={
                each: VersionPlan(number=each, invoker="fake", settings={"code": each}) for each in VERSIONS
            },
            aliases=aliases,
        )
        hook = FunctionPlan(name=HOOK, invoker="fake")
        reading = mapping(
            function=FUNCTION, function_arn=f"{ARN}:live", batch=BatchPolicy(records_max=BATCH_RECORDS)
        )
        return daemon_plan(reading, functions={FUNCTION: function, HOOK: hook}, worker=name, tuning=TUNING)

    async def put(self) -> None:
        """Somebody calls the function asynchronously, by some qualifier."""
        worker, qualifier = self.rng.choice(self.workers), self.rng.choice(QUALIFIERS)
        asked = FunctionCall(function=FUNCTION, qualifier=qualifier, payload=b'{"n": 1}')
        with suppress(ApiError, NoRoom):
            self.accepted.add(await worker.daemon.control.calls.enqueue(asked))

    async def step(self, scope: asyncio.TaskGroup) -> None:
        """Something happens."""
        acts = ACTS | MORE_ACTS
        act = self.rng.choices([*acts], [*acts.values()])[0]
        if act in MORE_ACTS:
            scope.create_task(self._more(act), name=act)
        else:
            await self.act(act, scope)

    async def _more(self, act: str) -> None:
        doing: dict[str, Callable[[], Awaitable[object]]] = {
            "read": self._produce,
            "call": self._call,
            "shift": self._shift,
            "roll back": self._roll_back,
            "change": self._change,
            "make": self._make,
        }
        with suppress(ApiError):
            await doing[act]()

    async def _produce(self) -> None:
        for _ in range(self.rng.choice((1, 2, 6))):
            self.records += 1
            self.stream.put(kinesis(self.records, arrived=EPOCH_BASE + now()))

    async def _call(self) -> None:
        worker, qualifier = self.rng.choice(self.workers), self.rng.choice(QUALIFIERS)
        asked = FunctionCall(function=FUNCTION, qualifier=qualifier, payload=b"{}")

        async def one() -> None:
            with suppress(ApiError, NoRoom):
                await worker.daemon.control.calls.call(asked)

        async with asyncio.TaskGroup() as scope:
            for _ in range(self.rng.choice((1, 20))):
                scope.create_task(one(), name="call")

    async def _shift(self) -> None:
        rng, worker, alias = self.rng, self.rng.choice(self.workers), self.rng.choice((*ALIASES, MADE))
        percent, interval_s = rng.choice((10.0, 30.0, 50.0, 100.0)), rng.choice((0.0, 3.0, 8.0, 15.0, 40.0))
        request = ShiftRequest(
            to=rng.choice((*VERSIONS, self.bad or "1")),
            strategy=own_strategy(percent, interval_s, linear=rng.random() < 0.5),
            shift=f"shift-{len(self.versions.shifts)}",
            before=rng.choice((None, None, HOOK)),
            after=rng.choice((None, None, HOOK)),
            failure_rate=rng.choice((None, 0.1, 0.5)),
            by="ann",
        )
        self.versions.shifts[request.shift] = alias, request
        await worker.daemon.control.calls.aliases.shift(FUNCTION, alias, request)

    async def _roll_back(self) -> None:
        worker, alias = self.rng.choice(self.workers), self.rng.choice((*ALIASES, MADE))
        self.versions.rollbacks.add(alias)
        await worker.daemon.control.calls.aliases.roll_back(FUNCTION, alias, by="ann", reason="")

    async def _change(self) -> None:
        worker, alias = self.rng.choice(self.workers), self.rng.choice([*ALIASES])
        change = self._wanted(alias)
        await worker.daemon.control.calls.aliases.update(FUNCTION, alias, change)

    async def _make(self) -> None:
        worker = self.rng.choice(self.workers)
        await worker.daemon.control.calls.aliases.create(FUNCTION, MADE, self._wanted(MADE))

    def _wanted(self, alias: str) -> AliasChange:
        """A change of an alias that somebody asks for."""
        version, other = self.rng.sample(VERSIONS, 2)
        weights = self.rng.choice(({}, {other: 0.2}, {other: 0.7}))
        change = AliasChange(version=version, weights=weights)
        self.versions.changes.append((alias, change))
        return change

    def _left(self) -> list[object]:
        """What has not come to its end."""
        if self.over_at == FOR_EVER:
            self.over_at = self.ledger.clock()
        aliases = self.versions.history[-1].aliases if self.versions.history else {}
        shifting = [
            each.shift for each in aliases.values() if each.shift is not None and each.shift.ended is None
        ]
        unread = [f"records: {self.records - len(self.read)}"] if len(self.read) < self.records else []
        return [*World._left(self), *shifting, *unread]


def run_versions(seed: int) -> Counter[str]:
    """Runs one world of versions; returns what it has seen. Raises CallFault if something does not hold."""
    world = VersionWorld(seed)
    found = run_world(world)
    world.versions.check_end()
    found["records"] += world.records
    return found
