"""Owns one simulated world: services, workers that come and go, and what must be true at the end."""

import asyncio
import random
from collections.abc import Callable, Coroutine, Iterator
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import pairwise
from typing import Any

from adapters.stores.memory import MemoryStore
from poller.domain.invocations import Notice
from poller.domain.mapping_api import ApiError
from poller.domain.plan import DaemonPlan, SourceKind
from poller.domain.records import SHARD_END, WorkerId
from poller.plugins import Environment
from poller.ports import Clock
from poller.runtime.daemon import Daemon
from tests.simulation.checks.checker import Checker
from tests.simulation.checks.ledger import Violation
from tests.simulation.pushing.service import FakeConsumers
from tests.simulation.services.fake_plugins import at_once, registry, seeded
from tests.simulation.services.faults import History, Line, Marks, epoch
from tests.simulation.services.functions import FakeFunction
from tests.simulation.services.queues import FakeQueue
from tests.simulation.services.streams import FakeStream, ShardState
from tests.simulation.services.wires import Writer
from tests.simulation.worlds.calling import call, called
from tests.simulation.worlds.operating import Operators
from tests.simulation.worlds.redriving import Redrivers
from tests.simulation.worlds.scenario import (
    Action,
    CallFunction,
    CloseBreaker,
    Crash,
    EndTask,
    Join,
    Operate,
    Pause,
    Put,
    Redrive,
    Remake,
    RemoveConsumer,
    Reshard,
    Restart,
    Scenario,
    Seek,
    Setup,
    Update,
)
from tests.simulation.worlds.seeking import Seekers
from tests.simulation.worlds.streaming import consumers_of, opening
from tests.simulation.worlds.variations import draw
from tests.virtual import (
    EPOCH_BASE,
    Deadlock,
    LimitPassed,
    VirtualLoop,
    in_scope,
    run_virtual,
    tasks_in_scope,
    virtual_clock,
)

SETTLE_S_MAX = 3600.0
"""After everything healed, this long until all is settled."""
DRAIN_S_MAX = 120.0
LIMIT_S = 8000.0
STEPS_MAX = 2_000_000
LOOK_S = 0.5
LINGER_S = 5.0
FOREIGN = ("call of", "notice")
"""Names of tasks in which the engine calls foreign code."""
LARGE_BYTES = 300_000
"""A record that is larger is as large as its service takes."""


class Failed(Exception):
    """A seed failed; the message is for people, `history` is the readable account if it was kept."""

    def __init__(self, seed: int, reason: str, history: list[str]) -> None:
        super().__init__(f"seed {seed}: {reason}\nreplay: python -m tests.simulation --seed {seed} --trace")
        self.seed = seed
        self.reason = reason
        self.history = history


@dataclass(frozen=True, slots=True)
class Report:
    """What a seed showed."""

    seed: int
    marks: Marks
    history: list[str]
    virtual_s: float


@dataclass(slots=True)
class Worker:
    """One incarnation of a worker."""

    line: Line
    daemon: Daemon
    task: asyncio.Task[None]
    calls: set[asyncio.Task[None]] = field(default_factory=set)
    """The calls of clients, which end with it."""


@dataclass(slots=True)
class World:
    """Services that outlive every worker, and the workers."""

    scenario: Scenario
    marks: Marks
    history: History
    store: MemoryStore = field(default_factory=MemoryStore)
    notices: list[Notice] = field(default_factory=list)
    sources: dict[str, FakeStream | FakeQueue] = field(init=False)
    consumers: dict[str, FakeConsumers] = field(init=False)
    functions: dict[str, FakeFunction] = field(init=False)
    court: Checker = field(init=False)
    operators: Operators = field(init=False)
    redrivers: Redrivers = field(init=False)
    _workers: list[Worker] = field(default_factory=list)
    _ever: list[Worker] = field(default_factory=list)
    _acting: list[asyncio.Task[None]] = field(default_factory=list)
    _started: int = 0
    _updates: int = 0

    def __post_init__(self) -> None:
        seed = self.scenario.seed
        self.sources = {
            each.plan.source_arn: _service(each, seed, self.marks) for each in self.scenario.setups
        }
        self.consumers = consumers_of(self.scenario.setups, self.sources, seed)
        self.functions = {
            each.function.name: FakeFunction(each.script, seeded(seed, each.function.name))
            for each in self.scenario.setups
        }
        plans = [each.plan for each in self.scenario.setups]
        caps = {each.function.name: each.function for each in self.scenario.setups}
        self.court = Checker(
            plans, self.sources, caps, called=called(self.scenario), marks=self.marks, history=self.history
        )
        self.operators = Operators(
            self.court.streams,
            self.store,
            rng=seeded(seed, "operators at work"),
            daemons=lambda: [each.daemon for each in self._workers],
            marks=self.marks,
            history=self.history,
        )
        self.redrivers = Redrivers(
            self.scenario, self.sources, self.functions, self.court, self.operators, self.marks
        )

    async def run(self) -> None:
        """The whole life of the world; raises the first Violation."""
        async with asyncio.TaskGroup() as scope:
            try:
                await self._live(scope)
            finally:
                for worker in self._ever:
                    self._kill(worker)

    async def _live(self, scope: asyncio.TaskGroup) -> None:
        early = [each for each in self.scenario.actions if each.at < 0]
        for action in early:
            self._do(action, scope)
        for _ in range(self.scenario.workers):
            self._start(scope)
        for action in self.scenario.actions[len(early) :]:
            await self._until(action.at)
            self._do(action, scope)
        await self._until(self.scenario.faults.heals_at - EPOCH_BASE)
        while not all(each.done() for each in self._acting):
            await self._until(epoch() - EPOCH_BASE + LOOK_S)
        await self.operators.end()
        await self._all_settled()
        await self.redrivers.finish(self._judge)
        asked = epoch()
        self._checked_at_the_end(await self._drained(), asked)

    async def _until(self, at: float) -> None:
        """Waits, and looks often whether a promise was broken."""
        while (left_s := at - (epoch() - EPOCH_BASE)) > 0:
            self._judge()
            await asyncio.sleep(min(left_s, LOOK_S))
        self._judge()

    def _judge(self) -> None:
        if self.court.violations:
            raise self.court.violations[0]
        for worker in self._workers:
            if worker.task.done() and not worker.task.cancelled():
                error = worker.task.exception()
                raise Violation("bug", f"{worker.line.name} ended by itself: {error!r}") from error

    async def _all_settled(self) -> None:
        deadline = epoch() + SETTLE_S_MAX
        while left := self.court.unsettled() + self.operators.unfinished():
            self._judge()
            if epoch() > deadline:
                raise Violation(
                    "settled", f"not settled {SETTLE_S_MAX:.0f} s after healing: {'; '.join(left)}"
                )
            await asyncio.sleep(LOOK_S)
        self._judge()

    async def _drained(self) -> set[str]:
        """Every worker stops when it is asked to; returns who did."""
        for worker in self._workers:
            worker.line.stop(self.scenario.tuning.grace_s)
            worker.daemon.stop()
        tasks = [worker.task for worker in self._workers]
        _, late = await asyncio.wait(tasks, timeout=DRAIN_S_MAX)
        if late:
            raise Violation("drain", f"still running {DRAIN_S_MAX:.0f} s after stop")
        workers, self._workers = self._workers, []
        for worker in workers:
            if (error := worker.task.exception()) is not None:
                raise Violation("bug", f"{worker.line.name} failed while draining: {error!r}") from error
        self._judge()
        return {worker.line.name for worker in workers}

    def _checked_at_the_end(self, drained: set[str], asked: float) -> None:
        """`drained`: the workers that have ended, which were asked to at `asked`."""
        self.operators.check()
        for mapping, checks in self.court.streams.items():
            leases = at_once(self.store.leases(mapping))
            # The lease of a shard that ended is of no more use; nobody has to give it up.
            kept = [each for each in leases if each.checkpoint.position != SHARD_END]
            known = [each for each in kept if (each.owner, mapping, each.shard) in self.court.kept]
            held = [f"{each.shard} by {each.owner}" for each in known if each.owner in drained]
            if held:
                raise Violation("leases", f"held by workers that left in peace: {held}")
            # A seek may be cancelled while the store moves a shard. Nobody reads that any more, if the workers stop then.
            if behind := [each for each in checks.behind() if checks.seeks.moved_at.get(each, 0.0) < asked]:
                raise Violation("checkpoint", f"{behind} are behind what is settled")
            if any(each.checkpoint.position == SHARD_END for each in leases):
                self.marks.saw("end saved")
        for queue in self.court.queues.values():
            if untold := queue.visibility.untold(drained):
                raise Violation("visibility", f"{untold} were deleted too late, and nobody said so")
            if lost := queue.lost():
                raise Violation("delete", f"{lost} are gone and were never done")
            if queue.queue.dead:
                self.marks.saw("dead letter")

    def _start(self, scope: asyncio.TaskGroup) -> None:
        self._started += 1
        seed, name = self.scenario.seed, f"worker-{self._started}"
        line = self._line(name)
        plugins = registry(
            sources=self.sources,
            functions=self.functions,
            notices=self.notices,
            store=self.store,
            line=line,
            witness=self.court,
            places=self.redrivers.places(),
            opening=opening(
                self.scenario.setups,
                self.consumers,
                line,
                self.court,
                rng=partial(seeded, seed, name, "listings"),
            ),
        )
        daemon = Daemon(
            self._plan(WorkerId(name)),
            registry=plugins,
            env=Environment(clock=self._clock(name)),
            observer=self.court.observer(line),
            rng=seeded(seed, name, "daemon"),
        )
        self.history.tell("world", lambda: f"{name} starts")
        task = scope.create_task(daemon.run(), name=name, context=in_scope(name))
        worker = Worker(line, daemon, task)
        self._workers.append(worker)
        self._ever.append(worker)

    def _line(self, name: str) -> Line:
        """The way of a worker to all services."""
        rng = seeded(self.scenario.seed, name, "line")
        return Line(name, self.scenario.faults, rng=rng, marks=self.marks, history=self.history)

    def _clock(self, name: str) -> Clock:
        """The clocks of a worker."""
        return virtual_clock()

    def _update(self, update: Update) -> None:
        """Only the plans change, not what they stand for."""
        if not self._workers:
            return
        worker = self._workers[int(update.pick * len(self._workers))]
        self._updates += 1
        change = {"change": self._updates}
        plan = self._plan(WorkerId(worker.line.name))
        changed = tuple(
            replace(each, source_settings={**each.source_settings, **change})
            if each.kind is SourceKind.SQS
            else each
            for each in plan.mappings
        )
        self.history.tell("world", lambda: f"the queues of {worker.line.name} are changed")
        self.marks.saw("update")
        worker.daemon.replan(replace(plan, mappings=changed))

    def _plan(self, worker: WorkerId) -> DaemonPlan:
        return DaemonPlan(
            worker=worker,
            store="sim",
            functions={each.function.name: each.function for each in self.scenario.setups},
            mappings=tuple(each.plan for each in self.scenario.setups),
            tuning=self.scenario.tuning,
        )

    def _do(self, action: Action, scope: asyncio.TaskGroup) -> None:
        match action:
            case Put():
                self._put(action)
            case Reshard():
                self._reshard(action)
            case Remake():
                self._remake(action)
            case RemoveConsumer():
                self._remove_consumer(action)
            case Join():
                self.marks.saw("join")
                self._start(scope)
            case Update():
                self._update(action)
            case Crash():
                self._act(scope, self._crash(action, scope))
            case Pause():
                self._act(scope, self._pause(action, scope))
            case Restart():
                self._act(scope, self._restart(action, scope))
            case EndTask():
                self._end_task(action)
            case Operate():
                self._act(scope, self.operators.ask(action))
            case CallFunction():
                self._call(action, scope)
            case CloseBreaker():
                self._act(scope, self._close_breaker(action))
            case Seek():
                self._act(scope, Seekers(self.operators, self.scenario).ask(action))
            case Redrive():
                self._act(scope, self.redrivers.ask(action))

    def _act(self, scope: asyncio.TaskGroup, act: Coroutine[Any, Any, None]) -> None:
        self._acting.append(scope.create_task(act, name="act"))

    def _put(self, put: Put) -> None:
        source, now = self.sources[put.source], EPOCH_BASE + put.at
        if put.content.pad > LARGE_BYTES:
            self.marks.saw("record at its largest")
        if put.key.rstrip("0123456789") != "key-":
            self.marks.saw("odd key")
        if isinstance(source, FakeStream) and put.inside:
            shard, parts = source.put_aggregated(now, ((put.key, put.content), *put.inside))
            self.marks.saw("aggregated record")
            self.history.tell(
                "world",
                lambda: f"put {shard} {parts[0].sequence}: {[(each.key, each.content) for each in parts]}",
            )
        elif isinstance(source, FakeStream):
            shard, held = source.put(now, put.key, put.content)
            self.history.tell("world", lambda: f"put {shard} {held.sequence} {put.key} {put.content}")
        else:
            grouped = source.facts.fifo or source.tenants
            if source.tenants:
                self.marks.saw("tenant of a standard queue")
            source.send(now, put.content, group=put.key if grouped else None)
            self.history.tell("world", lambda: f"send {put.key} {put.content}")

    def _reshard(self, reshard: Reshard) -> None:
        stream = self.sources[reshard.source]
        assert isinstance(stream, FakeStream)
        shards = stream.open_shards()
        picked = shards[int(reshard.pick * len(shards))]
        match reshard.how:
            case "split":
                stream.split(epoch(), picked.shard_id)
            case "merge" if (pair := _neighbours(shards, reshard.pick)) is not None:
                stream.merge(epoch(), *(each.shard_id for each in pair))
            case _:
                stream.roll(epoch(), picked.shard_id)
        self.marks.saw(f"reshard: {reshard.how}")
        self.history.tell(
            "world", lambda: f"{reshard.how} -> {[each.shard_id for each in stream.open_shards()]}"
        )

    def _remake(self, remake: Remake) -> None:
        stream = self.sources[remake.source]
        assert isinstance(stream, FakeStream)
        stream.remake(epoch(), remake.shards)
        self.court.remakes(remake.source)
        self.marks.saw("stream made again")
        self.history.tell("world", lambda: f"{remake.source} is made again")

    def _remove_consumer(self, action: RemoveConsumer) -> None:
        consumers = self.consumers[action.source]
        names = consumers.names()
        if not names:
            return
        name = names[int(action.pick * len(names))]
        consumers.remove(epoch(), name)
        self.marks.saw("push: consumer removed")
        self.history.tell("world", lambda: f"the consumer {name} is removed")

    def _end_task(self, action: EndTask) -> None:
        """Cancels a task of the engine from inside; calls of foreign code have tasks of their own, and are no such tasks."""
        if not self._workers:
            return
        worker = self._workers[int(action.pick * len(self._workers))]
        tasks = [
            task
            for task in tasks_in_scope(worker.line.name)
            if task is not worker.task and not task.get_name().startswith(FOREIGN)
        ]
        if not tasks:
            return
        task = tasks[int(action.task_pick * len(tasks))]
        kind = task.get_name().split(" ")[0]
        self.marks.saw("task cancelled from inside")
        self.history.tell("world", lambda: f"{worker.line.name}: {task.get_name()} is cancelled from inside")
        self.court.ends_task(worker.line, kind)
        self.court.begin_anew(worker.line)
        task.cancel()

    def _call(self, action: CallFunction, scope: asyncio.TaskGroup) -> None:
        if self._workers:
            worker = self._workers[int(action.pick * len(self._workers))]
            work = call(action, worker.daemon, worker.line, self.court, self.marks)
            name = f"call of {action.function} beside its mappings"
            task = scope.create_task(work, name=name, context=in_scope(worker.line.name))
            worker.calls.add(task)
            task.add_done_callback(worker.calls.discard)

    async def _close_breaker(self, action: CloseBreaker) -> None:
        """A daemon that starts or stops refuses, which is no fault."""
        if not self._workers:
            return
        worker = self._workers[int(action.pick * len(self._workers))]
        self.history.tell(
            "world", lambda: f"the breaker of {action.function} is closed at {worker.line.name}"
        )
        with suppress(ApiError):
            await worker.daemon.control.functions.close_breaker(
                action.function, by="operator", reason="repaired"
            )

    async def _crash(self, crash: Crash, scope: asyncio.TaskGroup) -> None:
        worker = self._take_out(crash.pick)
        if worker is not None:
            self.marks.saw("crash")
            self.history.tell("world", lambda: f"{worker.line.name} crashes")
            self._kill(worker)
            await asyncio.wait([worker.task])
        await asyncio.sleep(crash.back_s)
        self._start(scope)

    async def _pause(self, pause: Pause, scope: asyncio.TaskGroup) -> None:
        worker = self._take_out(pause.pick)
        if worker is None:
            return
        self.marks.saw("pause")
        self.history.tell("world", lambda: f"{worker.line.name} is paused")
        worker.line.stumble()
        _loop().freeze(worker.line.name)
        if pause.replaced_s is not None:
            await asyncio.sleep(pause.replaced_s)
            self._start(scope)
        await asyncio.sleep(pause.for_s - (pause.replaced_s or 0.0))
        self.history.tell("world", lambda: f"{worker.line.name} goes on")
        _loop().thaw(worker.line.name)
        if pause.replaced_s is None:
            self._workers.append(worker)
        else:
            # It gets time to act on what it thinks it holds before it is asked to leave.
            await asyncio.sleep(LINGER_S)
            await self._stopped(worker)

    async def _restart(self, restart: Restart, scope: asyncio.TaskGroup) -> None:
        worker = self._take_out(restart.pick)
        if worker is not None:
            self.marks.saw("restart")
            await self._stopped(worker)
        self._start(scope)

    async def _stopped(self, worker: Worker) -> None:
        self.history.tell("world", lambda: f"{worker.line.name} is asked to stop")
        worker.line.stop(self.scenario.tuning.grace_s)
        worker.daemon.stop()
        await asyncio.wait([worker.task], timeout=DRAIN_S_MAX)
        if not worker.task.done():
            self.court.violations.append(Violation("drain", f"{worker.line.name} does not stop"))
            self._kill(worker)

    def _take_out(self, pick: float) -> Worker | None:
        """Something happens to one of the workers, and nothing else meanwhile; None if there is none."""
        if not self._workers:
            return None
        return self._workers.pop(int(pick * len(self._workers)))

    def _kill(self, worker: Worker) -> None:
        """Its gate to the services shuts first, so that nothing it does while it is cancelled has an effect."""
        worker.line.crash()
        for task in (worker.task, *worker.calls):
            task.cancel()
        _loop().thaw(worker.line.name)


def run_seed(seed: int, *, trace: bool = False) -> Report:
    """Runs one seed; raises Failed."""
    return run_scenario(draw(seed), trace=trace)


def run_scenario(scenario: Scenario, *, trace: bool = False) -> Report:
    """Runs one scenario; raises Failed."""
    return run_world(partial(World, scenario), scenario.seed, trace=trace)


def run_world(make: Callable[[Marks, History], World], seed: int, *, trace: bool = False) -> Report:
    """Runs a world to its end; raises Failed."""
    history, marks = History(kept=trace), Marks()
    # The real listings draw their waits from it.
    random.seed(seed)

    async def main() -> float:
        await make(marks, history).run()
        return asyncio.get_running_loop().time()

    try:
        virtual_s = run_virtual(main(), limit_s=LIMIT_S, steps_max=STEPS_MAX)
    except (Deadlock, LimitPassed) as error:
        reason = "\n".join([f"{type(error).__name__}: {error}", *getattr(error, "__notes__", [])])
        raise Failed(seed, reason, history.lines) from error
    except BaseExceptionGroup as group:
        raise Failed(seed, _first_reason(group), history.lines) from group
    return Report(seed, marks, history.lines, virtual_s)


def _first_reason(group: BaseExceptionGroup[BaseException]) -> str:
    """The violation if there is one, else the first error."""
    errors = list(_flat(group))
    violations = [each for each in errors if isinstance(each, Violation)]
    return "; ".join(str(each) for each in violations) or f"{errors[0]!r}"


def _flat(error: BaseException) -> Iterator[BaseException]:
    if isinstance(error, BaseExceptionGroup):
        for each in error.exceptions:
            yield from _flat(each)
    else:
        yield error


def _loop() -> VirtualLoop:
    loop = asyncio.get_running_loop()
    assert isinstance(loop, VirtualLoop)
    return loop


def _service(setup: Setup, seed: int, marks: Marks) -> FakeStream | FakeQueue:
    writer = Writer(setup.shapes, seed=seed, saw=marks.saw)
    if setup.plan.kind is SourceKind.SQS:
        assert setup.facts is not None
        return FakeQueue(setup.facts, seed=seed, duplicates=setup.duplicates, writer=writer)
    return FakeStream(
        setup.plan.kind,
        shards=setup.shards,
        retention_s=setup.retention_s,
        writer=writer,
        listing_lag_s=setup.listing_lag_s,
    )


def _neighbours(shards: list[ShardState], pick: float) -> tuple[ShardState, ShardState] | None:
    pairs = list(pairwise(shards))
    return pairs[int(pick * len(pairs))] if pairs else None
