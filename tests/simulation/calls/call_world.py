"""Owns worlds of asynchronous calls: workers that crash, pause and stop, a store with faults, functions and destinations in trouble, operators.

After some minutes all trouble ends, and every call must come to its end.
"""

import asyncio
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, field
from random import Random
from typing import Any

from adapters.stores.memory import MemoryStore
from poller.domain.errors import ServiceUnavailable
from poller.domain.functions.call_notices import CallNotice
from poller.domain.functions.calls import FunctionCall, NoRoom
from poller.domain.functions.queued_calls import AsyncPolicy, CallId
from poller.domain.invocations import (
    FunctionError,
    Invocation,
    Outcome,
    Succeeded,
    Throttled,
    TimedOut,
    Unreachable,
)
from poller.domain.mapping_api import ApiError
from poller.domain.operations import Action, Operation, OperationId, function_target
from poller.domain.plan import DaemonPlan, FunctionPlan, Tuning
from poller.domain.policies import Backoff
from poller.runtime.daemon import Daemon
from tests.runtime.daemons import FAILED, Site, daemon_plan, now, until
from tests.runtime.fakes import STREAM_ARN, FakeDestination, FakeFunction, FakeStream, mapping
from tests.simulation.calls.call_checks import AskedOperation, CallFault, CallLedger
from tests.simulation.calls.doors import Door, Trouble
from tests.virtual import EPOCH_BASE, run_virtual, virtual_clock

DONE = FAILED.replace("failed", "done")
DEAD = FAILED.replace("failed", "dead")
POLICIES = (
    AsyncPolicy(on_success=DONE, on_failure=FAILED, dead_letter=DEAD),
    AsyncPolicy(on_failure=FAILED, age_s_max=300),
    AsyncPolicy(dead_letter=DEAD, retries_max=0),
    AsyncPolicy(on_success=DONE, retries_max=1),
    AsyncPolicy(),
)
TUNING = Tuning(port_backoff=Backoff(base_s=0.2, cap_s=3.0))
TROUBLE_S = 90.0
"""How long there is trouble."""
PAUSE_S = (2.0, 45.0)
KNOWN_ALIVE_S = 10.0
"""So long after a pause or a slow answer all workers know again that a worker lives."""
ASKED_S = 60.0
"""An operation may be accepted so long after it was asked for."""
SETTLED_S = 2_000.0
"""So long after the trouble every call is over: the longest waits are five minutes."""
FUNCTION = "alone"
FOR_EVER = float("inf")
ACTS = {"put": 40, "operate": 12, "crash": 2, "stop": 2, "start": 4, "pause": 3, "down": 2, "up": 4}
"""What happens, and how often."""


class Target(FakeFunction):
    """The function on one worker."""

    def __init__(self, trouble: Trouble, ledger: CallLedger, worker: str) -> None:
        super().__init__()
        self._trouble = trouble
        self._ledger = ledger
        self._worker = worker

    async def invoke(self, invocation: Invocation) -> Outcome:
        call, trouble = CallId(invocation.request_id), self._trouble
        self._ledger.began(self._worker, call)
        try:
            await asyncio.sleep(0.05 if trouble.over else trouble.rng.uniform(0.0, trouble.slow_s))
        except asyncio.CancelledError:
            # It took too long.
            self._ledger.answered(call, failed=True)
            raise
        outcome = outcome_of(trouble)
        if isinstance(outcome, Succeeded | FunctionError | TimedOut):
            self._ledger.answered(call, failed=not isinstance(outcome, Succeeded))
        return outcome


def outcome_of(trouble: Trouble) -> Outcome:
    """How a call of a function ends now."""
    odds = FOR_EVER if trouble.over else trouble.rng.random()
    if odds < trouble.throttles:
        return trouble.rng.choice((Throttled("no room"), Unreachable("refused"), Throttled("later", 4.0)))
    if odds < trouble.throttles + trouble.fails:
        return trouble.rng.choice((FunctionError("ValueError", "no"), TimedOut(3.0)))
    return Succeeded(b'"ok"')


class Drain(FakeDestination):
    """A destination of all workers."""

    def __init__(self, arn: str, trouble: Trouble, ledger: CallLedger) -> None:
        super().__init__()
        self._arn = arn
        self._wrong = trouble
        self._ledger = ledger

    async def send_call(self, notice: CallNotice, *, dead_letter: bool) -> None:
        trouble = self._wrong
        if not trouble.over:
            await asyncio.sleep(trouble.rng.uniform(0.0, 0.5))
            if trouble.destinations_down or trouble.rng.random() < 0.1:
                raise ServiceUnavailable("connection refused")
        self._ledger.delivered.setdefault(CallId(notice.call), set()).add(self._arn)
        if not trouble.over and trouble.rng.random() < 0.05:
            raise ServiceUnavailable("the answer was lost")


@dataclass(slots=True, eq=False)
class Worker:
    """One daemon of the world."""

    daemon: Daemon
    door: Door
    task: asyncio.Task[None]


@dataclass(slots=True)
class World:
    """One run. `seed` decides everything."""

    seed: int
    rng: Random = field(init=False)
    trouble: Trouble = field(init=False)
    ledger: CallLedger = field(init=False)
    shared: MemoryStore = field(default_factory=MemoryStore)
    workers: list[Worker] = field(default_factory=list)
    started: int = 0
    asked: list[OperationId] = field(default_factory=list)
    accepted: set[str] = field(default_factory=set)
    """The request ids that callers were told."""

    def __post_init__(self) -> None:
        rng = self.rng = Random(self.seed)
        self.trouble = Trouble(
            rng,
            faults=rng.choice((0.0, 0.02, 0.15)),
            throttles=rng.choice((0.0, 0.3, 0.9)),
            fails=rng.choice((0.0, 0.3, 0.7)),
            slow_s=rng.choice((0.3, 5.0, 40.0)),
        )
        self.ledger = CallLedger(rng.choice(POLICIES), lambda: EPOCH_BASE + now())

    async def start(self, scope: asyncio.TaskGroup) -> None:
        """Starts one more worker."""
        self.started += 1
        name = f"worker-{self.started}"
        plan = self._plan(name)
        door = self._door(name)
        daemon = self._site(name).daemon(plan, store=door, seed=self.rng.randrange(10**6))
        task = scope.create_task(daemon.run(), name=name)
        self.workers.append(Worker(daemon, door, task))

    def _door(self, name: str) -> Door:
        return Door(self.shared, self.trouble, name, self.ledger)

    def _site(self, name: str) -> Site:
        return Site(
            sources={STREAM_ARN: FakeStream()},
            functions={"reader": FakeFunction(), FUNCTION: Target(self.trouble, self.ledger, name)},
            destinations={each: Drain(each, self.trouble, self.ledger) for each in (DONE, FAILED, DEAD)},
            store=self.shared,
        )

    def _plan(self, name: str) -> DaemonPlan:
        function = FunctionPlan(
            name=FUNCTION,
            invoker="fake",
            async_policies={"": self.ledger.policy},
            max_concurrency=self.rng.choice((None, 1, 4)),
        )
        return daemon_plan(mapping(), functions={FUNCTION: function}, worker=name, tuning=TUNING)

    async def put(self) -> None:
        """Somebody calls the function."""
        worker = self.rng.choice(self.workers)
        with suppress(ApiError, NoRoom):
            asked = FunctionCall(function=FUNCTION, payload=b'{"n": 1}')
            self.accepted.add(await worker.daemon.control.calls.enqueue(asked))

    async def operate(self) -> None:
        """Somebody asks for an operation on some calls, or all; sometimes it is cancelled."""
        rng, worker = self.rng, self.rng.choice(self.workers)
        there = sorted(self.ledger.put)
        chosen = "all" if rng.random() < 0.3 or not there else rng.sample(there, min(len(there), 3))
        action = rng.choice((Action.RETRY, Action.RETRY, Action.SKIP))
        request: dict[str, Any] = {"action": action, "calls": chosen, "id": f"op-{len(self.asked)}"}
        if action is Action.SKIP:
            request["discard"] = rng.random() < 0.5
        self.ledger.asked[request["id"]] = AskedOperation(
            action,
            () if chosen == "all" else tuple(chosen),
            virtual_clock().now() + ASKED_S,
            drops=request.get("discard", False),
        )
        self.asked.append(OperationId(request["id"]))
        with suppress(ApiError):
            await worker.daemon.operations.submit(function_target(FUNCTION), request, by="ann")
            if rng.random() < 0.2:
                await asyncio.sleep(rng.uniform(0.0, 6.0))
                await worker.daemon.operations.cancel(OperationId(request["id"]), by="ann")

    def crash(self, worker: Worker) -> None:
        """A worker ends without a word."""
        worker.door.crashed = True
        worker.door.open.set()
        self._gone(worker)
        worker.task.cancel()
        self.workers.remove(worker)

    def stop(self, worker: Worker) -> None:
        """A worker is asked to stop: it gives back what it can, and others take the rest when it is gone."""
        self._gone(worker)
        self.workers.remove(worker)
        worker.daemon.stop()

    async def pause(self, worker: Worker) -> None:
        """The store does not answer a worker for a while. Its calls of the function go on."""
        worker.door.open.clear()
        # Others may hold it for dead, and it may learn late that it has lost what it had.
        self._gone(worker)
        await asyncio.sleep(self.rng.uniform(*PAUSE_S))
        worker.door.open.set()
        if worker in self.workers:
            self._gone(worker, until=virtual_clock().now() + KNOWN_ALIVE_S)

    def _gone(self, worker: Worker, *, until: float = FOR_EVER) -> None:
        self.ledger.gone[worker.door.worker] = until

    async def step(self, scope: asyncio.TaskGroup) -> None:
        """Something happens."""
        await self.act(self.rng.choices([*ACTS], [*ACTS.values()])[0], scope)

    async def act(self, act: str, scope: asyncio.TaskGroup) -> None:
        """Carries one of ACTS out."""
        rng, trouble = self.rng, self.trouble
        match act:
            case "put":
                for _ in range(rng.choice((1, 1, 1, 8))):
                    scope.create_task(self.put(), name="put")
            case "operate":
                scope.create_task(self.operate(), name="operate")
            case "crash" if len(self.workers) > 1:
                self.ledger.marks["crash"] += 1
                self.crash(rng.choice(self.workers))
            case "stop" if len(self.workers) > 1:
                self.ledger.marks["stop"] += 1
                self.stop(rng.choice(self.workers))
            case "start" if len(self.workers) < 4:
                await self.start(scope)
            case "pause":
                self.ledger.marks["pause"] += 1
                scope.create_task(self.pause(rng.choice(self.workers)), name="pause")
            case "down" | "up" as state:
                trouble.destinations_down = state == "down"

    async def run(self) -> None:
        """Runs the world to its end."""
        async with asyncio.TaskGroup() as scope:
            for _ in range(self.rng.randint(1, 4)):
                await self.start(scope)
            while now() < TROUBLE_S:
                await self.step(scope)
                await asyncio.sleep(self.rng.expovariate(1.0))
                self._fail_early()
            self.trouble.over = True
            self.trouble.destinations_down = False
            await asyncio.sleep(2 * PAUSE_S[1])
            await self._until_settled()
            found = {each.operation: each for each in await self.shared.operations(over=True)}
            for worker in self.workers:
                worker.daemon.stop()
        self._fail_early()
        self.ledger.faults.require(self.accepted <= set(self.ledger.put), "an accepted call was not stored")
        self.ledger.check_end({each: found[each] for each in self.asked if each in found})

    async def _until_settled(self) -> None:
        """Waits until nothing is left to be done."""

        with suppress(AssertionError):
            await until(self._settled, within_s=SETTLED_S, step_s=5.0)
        self._fail_early()
        left = self._left()
        self.ledger.faults.require(not left, f"left in the end: {left[:3]}")

    def _settled(self) -> bool:
        return bool(self.ledger.faults.found) or not self._left()

    def _left(self) -> list[object]:
        """What has not come to its end."""
        return [*self.ledger.stored, *self._open()]

    def _fail_early(self) -> None:
        if self.ledger.faults.found:
            raise self.ledger.faults.found[0]

    def _open(self) -> list[Operation]:
        """The operations that are not over."""
        return list(self.shared._open.values())


def run_calls(seed: int) -> Counter[str]:
    """Runs one world; returns what it has seen. Raises CallFault if something does not hold."""
    return run_world(World(seed))


def run_world(world: World) -> Counter[str]:
    """Runs a world on virtual time; returns what it has seen. Raises CallFault if something does not hold."""

    async def whole() -> Counter[str]:
        try:
            await world.run()
        except* Exception as group:
            found = (world.ledger.faults.found or _leaves(group))[0]
            raise found if isinstance(found, CallFault) else CallFault(repr(found)) from group
        world.ledger.marks["calls"] += len(world.ledger.put)
        return world.ledger.marks

    found: Counter[str] = run_virtual(whole())
    return found


def _leaves(group: BaseExceptionGroup[BaseException]) -> list[BaseException]:
    return [
        leaf
        for each in group.exceptions
        for leaf in (_leaves(each) if isinstance(each, BaseExceptionGroup) else [each])
    ]
