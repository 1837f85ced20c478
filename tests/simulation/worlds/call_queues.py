"""Owns worlds of asynchronous calls: workers that crash, pause and stop, a store with faults, functions and destinations in trouble, operators.

The workers share one store in memory, each through a door of its own, which may be slow, fail before or after the effect, hang or be
shut. After some minutes all trouble ends, and every call must come to its end.
"""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Collection, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from random import Random
from typing import Any

from adapters.stores.memory import MemoryStore
from adapters.stores.memory_calls import MemoryCallQueue
from poller.domain.errors import ServiceThrottled, ServiceUnavailable
from poller.domain.functions.call_notices import CallNotice
from poller.domain.functions.calls import FunctionCall, NoRoom
from poller.domain.functions.queued_calls import AsyncPolicy, CallBacklog, CallId, CallPlace, QueuedCall
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
from poller.domain.operations import Operation, OperationId, function_target
from poller.domain.plan import DaemonPlan, FunctionPlan, Tuning
from poller.domain.policies import Backoff
from poller.domain.records import Epoch, WorkerId
from poller.runtime.daemon import Daemon
from tests.runtime.daemons import FAILED, Site, daemon_plan, now, until
from tests.runtime.fakes import STREAM_ARN, FakeDestination, FakeFunction, FakeStream, mapping
from tests.simulation.checks.call_checks import CallLedger
from tests.virtual import run_virtual

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
SETTLED_S = 23_000.0
"""By then every call is over: an age of six hours, and the waits of destinations."""
FUNCTION = "alone"


@dataclass(slots=True)
class Trouble:
    """What is wrong now, for all workers."""

    rng: Random
    faults: float
    """How often a call of the store fails."""
    throttles: float
    fails: float
    slow_s: float
    destinations_down: bool = False
    over: bool = False


class Shut(Exception):
    """The worker has crashed: nothing that it does reaches the store any more."""


class Door:
    """The shared store as one worker reaches it."""

    def __init__(self, shared: MemoryStore, trouble: Trouble, worker: str, ledger: CallLedger) -> None:
        self._shared = shared
        self.trouble = trouble
        self.worker = worker
        self.crashed = False
        self.open = asyncio.Event()
        self.open.set()
        queue = shared.call_queue
        assert isinstance(queue, MemoryCallQueue)
        self.call_queue = DoorQueue(self, queue, ledger)

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._shared, name)
        if not asyncio.iscoroutinefunction(found):
            return found

        async def called(*given: Any, **more: Any) -> Any:
            return await self.passed(lambda: found(*given, **more))

        return called

    async def passed[T](self, work: Callable[[], Awaitable[T]]) -> T:
        """Carries a call out, unless something comes between; its answer may be lost."""
        await self._between()
        found = await work()
        await self._between()
        return found

    async def _between(self) -> None:
        if self.crashed:
            raise ServiceUnavailable("the worker has crashed")
        trouble = self.trouble
        if not trouble.over:
            await asyncio.sleep(trouble.rng.uniform(0.0, 0.2))
            if trouble.rng.random() < trouble.faults:
                raise trouble.rng.choice((ServiceUnavailable, ServiceThrottled))("no answer")
        await self.open.wait()
        if self.crashed:
            raise ServiceUnavailable("the worker has crashed")


class DoorQueue:
    """The shared queue as one worker reaches it. The ledger is told what has happened at the moment of the effect."""

    def __init__(self, door: Door, queue: MemoryCallQueue, ledger: CallLedger) -> None:
        self._door = door
        self._queue = queue
        self._ledger = ledger

    async def put(self, call: QueuedCall) -> None:
        async def work() -> None:
            await self._queue.put(call)
            self._ledger.was_put(call)

        await self._door.passed(work)

    async def backlogs(self) -> Sequence[CallBacklog]:
        return await self._door.passed(self._queue.backlogs)

    async def claim(
        self,
        function: str,
        *,
        now: Epoch,
        owner: WorkerId,
        gone: Collection[WorkerId],
        held: Collection[CallId],
        calls_max: int,
    ) -> Sequence[QueuedCall]:
        async def work() -> Sequence[QueuedCall]:
            found = await self._queue.claim(
                function, now=now, owner=owner, gone=gone, held=held, calls_max=calls_max
            )
            for call in found:
                self._ledger.was_claimed(self._door.worker, call)
            return found

        return await self._door.passed(work)

    async def replace(self, call: QueuedCall) -> QueuedCall:
        async def work() -> QueuedCall:
            before = self._ledger.stored.get(call.call)
            written = await self._queue.replace(call)
            if before is not None and before.revision == call.revision:
                self._ledger.was_replaced(self._door.worker, written)
            return written

        return await self._door.passed(work)

    async def remove(self, call: QueuedCall) -> None:
        async def work() -> None:
            there = call.call in self._ledger.stored
            await self._queue.remove(call)
            if there:
                self._ledger.was_removed(self._door.worker, call)

        await self._door.passed(work)

    async def calls(
        self, function: str, *, calls_max: int, after: CallPlace | None = None
    ) -> Sequence[QueuedCall]:
        return await self._door.passed(lambda: self._queue.calls(function, calls_max=calls_max, after=after))

    async def find(self, function: str, call: CallId) -> QueuedCall | None:
        return await self._door.passed(lambda: self._queue.find(function, call))


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
        await asyncio.sleep(0.05 if trouble.over else trouble.rng.uniform(0.0, trouble.slow_s))
        if trouble.over:
            return Succeeded(b'"ok"')
        odds = trouble.rng.random()
        if odds < trouble.throttles:
            return trouble.rng.choice((Throttled("no room"), Unreachable("refused"), Throttled("later", 4.0)))
        if odds < trouble.throttles + trouble.fails:
            self._ledger.failures[call] += 1
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

    def __post_init__(self) -> None:
        rng = self.rng = Random(self.seed)
        self.trouble = Trouble(
            rng,
            faults=rng.choice((0.0, 0.02, 0.15)),
            throttles=rng.choice((0.0, 0.3, 0.9)),
            fails=rng.choice((0.0, 0.3, 0.7)),
            slow_s=rng.choice((0.3, 5.0, 40.0)),
        )
        self.ledger = CallLedger(rng.choice(POLICIES))

    async def start(self, scope: asyncio.TaskGroup) -> None:
        """Starts one more worker."""
        self.started += 1
        name = f"worker-{self.started}"
        door = Door(self.shared, self.trouble, name, self.ledger)
        site = Site(
            sources={STREAM_ARN: FakeStream()},
            functions={"reader": FakeFunction(), FUNCTION: Target(self.trouble, self.ledger, name)},
            destinations={each: Drain(each, self.trouble, self.ledger) for each in (DONE, FAILED, DEAD)},
            store=self.shared,
        )
        daemon = site.daemon(self._plan(name), store=door, seed=self.rng.randrange(10**6))
        task = scope.create_task(daemon.run(), name=name)
        self.workers.append(Worker(daemon, door, task))

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
            await worker.daemon.control.calls.enqueue(FunctionCall(function=FUNCTION, payload=b'{"n": 1}'))

    async def operate(self) -> None:
        """Somebody asks for an operation on some calls, or all; sometimes it is cancelled."""
        rng, worker = self.rng, self.rng.choice(self.workers)
        there = sorted(self.ledger.put)
        chosen = "all" if rng.random() < 0.3 or not there else rng.sample(there, min(len(there), 3))
        action = rng.choice(("retry", "retry", "skip"))
        request: dict[str, Any] = {"action": action, "calls": chosen, "id": f"op-{len(self.asked)}"}
        if action == "skip":
            discard = request["discard"] = rng.random() < 0.5
            # It may be accepted although its answer is lost.
            asked_at = Epoch(now() + 60.0)
            calls = () if chosen == "all" else tuple(chosen)
            self.ledger.skips[request["id"]] = discard, self._epoch(worker) + asked_at - now(), calls
        self.asked.append(OperationId(request["id"]))
        with suppress(ApiError):
            await worker.daemon.operations.submit(function_target(FUNCTION), request, by="ann")
            if rng.random() < 0.2:
                await asyncio.sleep(rng.uniform(0.0, 6.0))
                await worker.daemon.operations.cancel(self.asked[-1], by="ann")

    @staticmethod
    def _epoch(worker: Worker) -> float:
        return float(worker.daemon._env.clock.now())

    def crash(self, worker: Worker) -> None:
        """A worker ends without a word."""
        worker.door.crashed = True
        worker.door.open.set()
        self.ledger.gone.add(worker.door.worker)
        worker.task.cancel()
        self.workers.remove(worker)

    async def pause(self, worker: Worker) -> None:
        """The store does not answer a worker for a while. Its calls of the function go on."""
        worker.door.open.clear()
        # Others may hold it for dead, and it may learn late that it has lost what it had.
        self.ledger.gone.add(worker.door.worker)
        await asyncio.sleep(self.rng.uniform(*PAUSE_S))
        worker.door.open.set()

    async def step(self, scope: asyncio.TaskGroup) -> None:
        """Something happens."""
        rng, trouble = self.rng, self.trouble
        match rng.choices(
            ("put", "operate", "crash", "stop", "start", "pause", "down", "up"), (40, 12, 2, 2, 4, 3, 2, 4)
        )[0]:
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
                worker = rng.choice(self.workers)
                self.workers.remove(worker)
                # It gives back what it can, and others take the rest when it is gone.
                self.ledger.gone.add(worker.door.worker)
                worker.daemon.stop()
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
            self.trouble.over = True
            self.trouble.destinations_down = False
            await asyncio.sleep(2 * PAUSE_S[1])
            await until(lambda: not self.ledger.stored, within_s=SETTLED_S, step_s=5.0)
            await until(lambda: not self._open(), within_s=600, step_s=5.0)
            found = {each.operation: each for each in await self.shared.operations(over=True)}
            for worker in self.workers:
                worker.daemon.stop()
        self.ledger.check_end({each: found[each] for each in self.asked if each in found})

    def _open(self) -> list[Operation]:
        """The operations that are not over."""
        return list(self.shared._open.values())


def run_calls(seed: int) -> Counter[str]:
    """Runs one world; returns what it has seen. Raises CallFault if something does not hold."""

    async def whole() -> Counter[str]:
        world = World(seed)
        try:
            await world.run()
        except* Exception as group:
            errors = [*_leaves(group)]
            raise errors[0] from group
        marks = world.ledger.marks
        marks["calls"] += len(world.ledger.put)
        return marks

    found: Counter[str] = run_virtual(whole())
    return found


def _leaves(group: BaseExceptionGroup[BaseException]) -> list[BaseException]:
    return [
        leaf
        for each in group.exceptions
        for leaf in (_leaves(each) if isinstance(each, BaseExceptionGroup) else [each])
    ]
