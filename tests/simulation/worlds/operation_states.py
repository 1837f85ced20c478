"""Owns worlds in which operations meet each state on purpose, such as a cancel before any worker has begun.

In the drawn worlds operations are carried out so fast that a cancel hardly ever meets a retry, a reset, a skip or a resume. Here the
worker that has the target stands still or does not reach the store, or the worker that was asked dies behind its answer. Each world is of
one mapping and two workers. Something fails in it from the first second on, and is repaired late, so that there is something to operate
on for some minutes. A story asks for one operation, and says what must have come of it; the court judges everything else as always.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Any

from poller.domain.mapping_api import ApiError
from poller.domain.operations import Action, Operation, OperationId, OperationState
from poller.domain.plan import DaemonPlan, DiscardPolicy, FunctionPlan, MappingPlan, SourceKind, Tuning
from poller.domain.policies import Backoff, BatchPolicy, RetryPolicy, ScalingPolicy
from poller.domain.records import MappingId, QueueFacts, WorkerId
from tests.simulation.checks.ledger import Violation
from tests.simulation.services.contents import Content, Kind
from tests.simulation.services.fake_plugins import at_once, seeded
from tests.simulation.services.faults import FaultPlan, History, Line, Marks, Port, epoch
from tests.simulation.services.functions import Script
from tests.simulation.services.queues import FakeQueue, Letter
from tests.simulation.worlds.operated_queue_checks import OperatedQueueChecks
from tests.simulation.worlds.operating import Place
from tests.simulation.worlds.replicas import CutLine
from tests.simulation.worlds.scenario import ACCOUNT, DESTINATION, Put, Scenario, Setup
from tests.simulation.worlds.world import Report, Worker, World, _loop, run_world
from tests.virtual import EPOCH_BASE

MAPPING = MappingId("00000000-0000-4000-8000-000000000000")
CALM_S = 5.0
"""Everything is written by then. What fails is repaired when the story is told."""
READY_S_MAX = 120.0
"""So long until each of the two workers waits with something that failed."""
AHEAD_S = 8.0
"""A failed batch or message that is operated on waits for so much longer by itself."""
KNOWN_S = 4.0
"""Every worker has read the operations again after this time."""
SHORT_S = 3.0
"""A worker stands still for this time and keeps its leases."""
OVER_S_MAX = 60.0
KEYS = 12


class Source(StrEnum):
    """What the mapping reads."""

    STREAM = "stream"
    STANDARD = "standard queue"
    FIFO = "FIFO queue"


class Way(StrEnum):
    """How the operation of a world ends."""

    DONE = "is carried out"
    FAILED = "cannot be carried out"
    UNTAKEN = "is cancelled before anybody has begun"
    BEGUN = "is cancelled when a part of it is done"


class Obstacle(StrEnum):
    """What keeps an operation from being taken."""

    STANDS_STILL = "the owner stands still"
    CUT_OFF = "the owner does not reach the store"
    DIES = "the worker that was asked dies"


@dataclass(frozen=True, slots=True)
class Case:
    """One world. `obstacle` counts where the way is to be cancelled before anybody has begun."""

    source: Source
    action: Action
    way: Way
    obstacle: Obstacle = Obstacle.DIES
    seed: int = 1

    def __str__(self) -> str:
        why = f", {self.obstacle}" if self.way is Way.UNTAKEN else ""
        return f"{self.action} of a {self.source} {self.way}{why}"


@dataclass(slots=True)
class StatesWorld(World):
    """The world of one case."""

    case: Case = Case(Source.STREAM, Action.RETRY, Way.DONE)
    story: "Story | None" = None
    lines: dict[str, CutLine] = field(default_factory=dict)
    enabled: dict[str, bool] = field(default_factory=dict)
    """Whether the mapping is enabled in the configuration of each worker; it is where nothing is said."""
    over: dict[OperationId, Operation] = field(default_factory=dict)
    """Operations that have ended, as they were then."""
    _scope: asyncio.TaskGroup | None = None

    def __post_init__(self) -> None:
        World.__post_init__(self)
        judge = self.court.operates
        for mapping, checks in tuple(self.court.queues.items()):
            self.court.queues[mapping] = OperatedQueueChecks.instead_of(checks)

        def operates(line: Line, operation: Operation) -> None:
            self._ends_once(operation)
            for queue in self.court.queues.values():
                assert isinstance(queue, OperatedQueueChecks)
                queue.stored(line.name, operation, epoch())
            judge(line, operation)

        self.court.operates = operates  # type: ignore[method-assign] # a wire tap

    def _ends_once(self, operation: Operation) -> None:
        """What is over stays as it is: for all workers, whatever they had begun."""
        known = self.over.setdefault(operation.operation, operation) if operation.state.over else None
        if operation.operation in self.over and known != operation:
            self.court.violations.append(Violation("operation", f"{operation} is over, and is changed"))
        if any(each.state is OperationState.RUNNING for each in operation.parts.values()) and known:
            self.court.violations.append(Violation("operation", f"{operation} is over, and a part runs"))

    def _line(self, name: str) -> Line:
        rng = seeded(self.scenario.seed, name, "line")
        self.lines[name] = CutLine(
            name, self.scenario.faults, rng=rng, marks=self.marks, history=self.history
        )
        return self.lines[name]

    def _plan(self, worker: WorkerId) -> DaemonPlan:
        plan = World._plan(self, worker)
        (mapping,) = plan.mappings
        return replaced(plan, mappings=(replaced(mapping, enabled=self.enabled.get(worker, True)),))

    async def _live(self, scope: asyncio.TaskGroup) -> None:
        self._scope = scope
        self._act(scope, self._told())
        await World._live(self, scope)

    async def _told(self) -> None:
        """The story, and the repair of what fails behind it."""
        assert self.story is not None
        await self.story(self)
        self.repair()

    def repair(self) -> None:
        """The function takes everything from now on."""
        (function,) = self.functions.values()
        function.script = replace(function.script, poison_heals_at=epoch())

    # What stories are made of.

    @property
    def asked(self) -> Worker:
        """The worker that is asked."""
        return self._workers[0]

    @property
    def other(self) -> Worker:
        """The worker that has the target."""
        return self._workers[1]

    @property
    def queue(self) -> FakeQueue:
        """The queue of a world that has one."""
        (source,) = self.sources.values()
        assert isinstance(source, FakeQueue)
        return source

    async def ask(self, action: Action, **members: Any) -> OperationId:
        """Asks the first worker; returns the id."""
        document = {"action": action.value, **members}
        self.history.tell("operator", lambda: f"{document}")
        return (await self.asked.daemon.operations.submit(MAPPING, document, by="me")).operation

    async def cancel(self, operation: OperationId, *, of: Worker) -> Operation:
        """Cancels it through a worker; returns it as it is stored, also if it was over before."""
        try:
            return await of.daemon.operations.cancel(operation, by="me")
        except ApiError:
            self.marks.saw("the cancel came too late")
            return self.stored(operation)

    def stored(self, operation: OperationId) -> Operation:
        """An operation as the store has it."""
        found = at_once(self.store.operation(operation))
        assert found is not None
        return found

    async def until(self, holds: Callable[[], object], what: str, *, within_s: float = OVER_S_MAX) -> None:
        """Waits; raises Violation if it does not come true."""
        deadline = epoch() + within_s
        while not holds():
            if epoch() > deadline:
                raise Violation("story", f"{self.case}: {what} does not come true")
            await asyncio.sleep(0.1)

    async def end_pause(self, pause: OperationId) -> None:
        """Ends a pause, and looks what came of it."""
        ended = await self.cancel(pause, of=self._workers[-1])
        assert (ended.state, ended.result) == (OperationState.DONE, "resumed by me"), ended

    async def is_over(self, operation: OperationId) -> Operation:
        """The operation once it is over."""
        await self.until(lambda: self.stored(operation).state.over, f"the end of {operation}")
        return self.stored(operation)

    def kill(self, worker: Worker) -> None:
        """The worker dies; nobody replaces it yet."""
        self.history.tell("world", lambda: f"{worker.line.name} is killed")
        self._workers.remove(worker)
        self._kill(worker)

    def start(self) -> None:
        """One more worker starts."""
        assert self._scope is not None
        self._start(self._scope)

    def enable(self, worker: Worker, *, enabled: bool) -> None:
        """The mapping is enabled or disabled in the configuration of a worker."""
        self.enabled[worker.line.name] = enabled
        worker.daemon.replan(self._plan(WorkerId(worker.line.name)))

    @asynccontextmanager
    async def standing_still(self, worker: Worker) -> AsyncIterator[None]:
        """The worker stands still, as a process does that was stopped."""
        worker.line.stumble()
        _loop().freeze(worker.line.name)
        yield
        _loop().thaw(worker.line.name)

    @asynccontextmanager
    async def cut_off(self, worker: Worker, port: Port) -> AsyncIterator[None]:
        """The worker does not reach a service."""
        self.lines[worker.line.name].cut = port
        yield
        self.lines[worker.line.name].cut = None

    def failing(self, worker: Worker) -> list[Place]:
        """The lanes of a worker that wait for their next try for a while."""
        return [
            each
            for each in self.operators._places(worker.daemon)
            if each.lane.state == "waiting"
            and each.lane.next_try is not None
            and each.lane.next_try - epoch() > AHEAD_S
        ]

    def hidden(self, worker: Worker) -> list[Letter]:
        """The messages that failed at a worker, and are hidden for a while."""
        checks, now = self.court.queues[MAPPING], epoch()
        return [
            letter
            for message_id, letter in self.queue.letters.items()
            if letter.here
            and message_id in checks.failed
            and checks._handed[message_id].worker == worker.line.name
            and message_id not in checks._running(worker.line.name)
            and letter.visible_at - now > AHEAD_S
        ]

    def waiting(self, worker: Worker) -> Sequence[Place | Letter]:
        """What waits at a worker with something that failed."""
        return self.failing(worker) if self.case.source is Source.STREAM else self.hidden(worker)

    async def ready(self) -> None:
        """All is written, and each of both workers waits with something that failed."""
        await asyncio.sleep(CALM_S)
        there = lambda: len(self._workers) > 1 and all(map(self.waiting, self._workers))  # noqa: E731 # a condition
        await self.until(there, "two workers with failures", within_s=READY_S_MAX)


type Story = Callable[[StatesWorld], Coroutine[Any, Any, None]]
"""What happens in a world beside its drawn life."""


def replaced[T](value: T, **changes: Any) -> T:
    """A slotted value with other members."""
    return type(value)(**{name: getattr(value, name) for name in value.__slots__} | changes)  # type: ignore[attr-defined]


def scenario_of(case: Case) -> Scenario:
    """Two workers, a dozen keys or groups, of each of which the first record fails until everything is repaired."""
    plan, facts = _plan(case.source)
    function = FunctionPlan(name="reader", invoker="sim", timeout_s=10.0)
    setup = Setup(plan, function, Script(), facts=facts, shards=4)
    puts = [
        Put(number / 10, plan.source_arn, f"key-{number % KEYS}", Content(number, kind))
        for number in range(3 * KEYS)
        for kind in [Kind.POISON if number < KEYS else Kind.OK]
    ]
    return Scenario(case.seed, (setup,), FaultPlan(heals_at=EPOCH_BASE + CALM_S), tuple(puts), Tuning(), 2)


def _plan(source: Source) -> tuple[MappingPlan, QueueFacts | None]:
    common: dict[str, Any] = {
        "mapping": MAPPING,
        "function": "reader",
        "function_arn": f"arn:aws:lambda:{ACCOUNT}:function:reader",
        "batch": BatchPolicy(1),
    }
    if source is Source.STREAM:
        return MappingPlan(
            **common,
            kind=SourceKind.KINESIS,
            source_arn=f"arn:aws:kinesis:{ACCOUNT}:stream/orders",
            retry=RetryPolicy(backoff=Backoff(base_s=30.0, cap_s=30.0)),
            discard=DiscardPolicy(DESTINATION),
        ), None
    fifo = source is Source.FIFO
    name = f"arn:aws:sqs:{ACCOUNT}:orders{'.fifo' if fifo else ''}"
    plan = MappingPlan(
        **common, kind=SourceKind.SQS, source_arn=name, scaling=ScalingPolicy(concurrency_max=2)
    )
    return plan, QueueFacts(20, fifo)


def run_case(case: Case, story: Story, *, trace: bool = False) -> Report:
    """Runs the world of a case to its end; raises Failed."""

    def make(marks: Marks, history: History) -> StatesWorld:
        return StatesWorld(scenario_of(case), marks, history, case=case, story=story)

    return run_world(make, case.seed, trace=trace)
