"""Owns the daemon: opens the store, keeps what runs equal to what is wanted, drains."""

import asyncio
from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from functools import partial
from random import Random

from poller.config.plugin_specs import store_of
from poller.domain.errors import InvalidConfiguration, PortError, ServiceThrottled, ServiceUnavailable
from poller.domain.plan import DaemonPlan
from poller.domain.records import MappingId, Monotonic
from poller.domain.status import DaemonStatus, idle_note
from poller.domain.telemetry import Observer, StoreFailed, TaskKind
from poller.plugins import Environment, Registry
from poller.ports import Store
from poller.rules.backoff import wait_s
from poller.rules.plan_changes import plan_changes
from poller.runtime.mappings.components import DaemonContext
from poller.runtime.mappings.definitions import Definitions
from poller.runtime.mappings.desired import DesiredMappings
from poller.runtime.mappings.last_result import LastResults
from poller.runtime.mappings.mapping_service import MappingService, ServiceContext
from poller.runtime.mappings.preflight import Preflight
from poller.runtime.mappings.running import RunningMappings
from poller.runtime.stop_tally import StopTally
from poller.runtime.stopping import Reason, Stop, interrupted_by, wait_until
from poller.runtime.streams.places import Places
from poller.runtime.watched_tasks import WatchedTasks, ended_note
from poller.runtime.workers.heartbeat import Heartbeat

RECONCILE_S = 3.0
"""Between two looks at the store for mappings that other replicas have changed."""
LOOK_S_MAX = 10.0
"""How long one look may take before it counts as failed."""
NEWS_S = 2 * RECONCILE_S
"""After which every other worker has surely seen that a mapping is deleted; before, it would begin it anew."""
ENDED_SHOWN_S = 300.0
"""For how long a task that ended by itself is shown."""
FORGET_S = 30.0
"""How long a deleted mapping waits for other workers to give its shards up before it is forgotten all the same."""


@dataclass(frozen=True, slots=True)
class Works:
    """What there is once the store is open."""

    definitions: Definitions
    catalog: DesiredMappings
    fleet: RunningMappings
    store: Store
    heart: Heartbeat
    places: Places


class Daemon:
    """One daemon. `run` once; `stop`, `status` and `replan` at any time from the same loop."""

    def __init__(
        self,
        plan: DaemonPlan,
        *,
        registry: Registry,
        env: Environment,
        observer: Observer,
        rng: Random,
    ) -> None:
        self.control = MappingService()
        """Who changes mappings while they run."""
        self.note = ""
        """One line for people, shown with the status: what is wrong beside the mappings."""
        self._plan = plan
        self._registry = registry
        self._env = env
        self._tally = StopTally()
        self._results = LastResults(observer, self._tally, clock=env.clock)
        self._rng = rng
        self._stop = Stop()
        self._woken = asyncio.Event()
        self._works: Works | None = None
        self._store_problem = ""
        self._looked = False
        self._deleted: dict[MappingId, Monotonic] = {}

    async def run(self) -> None:
        """Opens the parts and runs until `stop` was called and everything has drained, or the grace is over.

        Raises InvalidConfiguration, before anything is read, when a part cannot be opened as configured; AccessDenied or
        ResourceMissing when the store cannot be.
        """
        problems: list[str] = []
        async with AsyncExitStack() as stack:
            store = await self._open_store(stack)
            if store is None:
                return
            heart = self._heart(store)
            stack.callback(self._emit_cut_short)
            async with heart.beating(self._stop), WatchedTasks(self._results) as scope:
                works = self._work_with(store, heart, scope)
                with self._tally.counting(works.fleet.workshop.calls):
                    problems = await self._work(works, scope)
        if problems:
            raise InvalidConfiguration(problems)

    async def _work(self, works: Works, scope: WatchedTasks) -> list[str]:
        """From the start to the end of all mappings; returns what was wrong with the configuration."""
        problems = await self._start(works)
        if problems:
            self.stop()
        works.fleet.gate.set()
        with self._stop.waking(self._woken):
            keeping = scope.kept(
                TaskKind.RECONCILER, partial(self._keep, works), over=lambda: self._stop.requested
            )
            await keeping.wait()
        self.control.close()
        await self._drain(works)
        return problems

    @property
    def grace_s(self) -> float:
        """How long running invocations have after `stop`."""
        return self._plan.tuning.grace_s

    def stop(self) -> None:
        """Drains: nothing new is taken, running invocations finish within the grace, checkpoints are saved."""
        self._tally.begin()
        self._stop.request(Reason.REQUESTED, within_s=self.grace_s)

    async def rehearse(self, plan: DaemonPlan) -> list[str]:
        """What is wrong with the parts that another configuration would open, one line each; changes nothing."""
        works = self._works
        if works is None:
            return []
        entries = DesiredMappings(plan, works.definitions, now=self._env.clock.now()).entries()
        known = {entry.mapping: entry.design for entry in works.catalog.entries()}
        problems: list[str] = []
        for entry in entries:
            if entry.from_file and entry.enabled and known.get(entry.mapping) != entry.design:
                problems += await works.fleet.workshop.rehearse(entry.design)
        return list(dict.fromkeys(problems))

    def replan(self, plan: DaemonPlan) -> tuple[str, ...]:
        """Takes another configuration: mappings that it changes drain and start anew, the others go on.

        Worker and store stay what they are. Returns what changes, one line each.
        """
        changes = plan_changes(self._plan, plan)
        self._plan = plan
        if self._works is not None:
            self._works.catalog.replan(plan, now=self._env.clock.now())
            self._works.places.changed()
        self._woken.set()
        return changes

    def status(self) -> DaemonStatus:
        """What runs here now."""
        works = self._works
        problems, notes = works.fleet.problems() if works is not None else ([], [])
        opened = works is not None and works.fleet.gate.is_set()
        if not opened:
            problems.insert(0, "not everything is open yet")
        if self._stop.requested:
            problems.insert(0, "draining")
        notes += (*works.catalog.notes(), *works.fleet.workshop.notes()) if works is not None else ()
        mappings = works.fleet.statuses() if works is not None else ()
        notes += [idle_note(mappings)] if opened and self._looked else []
        return DaemonStatus(
            worker=str(self._plan.worker),
            mappings=mappings,
            ready=not problems,
            alive=True,
            problems=tuple(problems),
            notes=tuple(note for note in (self.note, self._store_problem, *notes, *self._ended()) if note),
            complete=opened and self._looked and not self._stop.requested,
        )

    def _ended(self) -> list[str]:
        """The tasks that ended by themselves not long ago."""
        now = self._env.clock.monotonic()
        return [ended_note(event, now - at) for at, event in self._results.ended if now - at < ENDED_SHOWN_S]

    async def _open_store(self, stack: AsyncExitStack) -> Store | None:
        """The store; None when a stop came first. Waits for one that has no room or does not answer."""
        tries = 0
        while not self._stop.requested:
            context = store_of(self._plan).opened(self._registry, self._env)
            try:
                async with interrupted_by(self._stop):
                    store: Store = await stack.enter_async_context(context)
                    self._store_problem = ""
                    return store
            except (ServiceThrottled, ServiceUnavailable) as error:
                await self._stop.sleep(self._store_failed(error, tries))
                tries += 1
        return None

    def _heart(self, store: Store) -> Heartbeat:
        return Heartbeat(
            store,
            self._plan.worker,
            clock=self._env.clock,
            tuning=self._plan.tuning,
            observer=self._results,
            process=self._env.process,
        )

    def _work_with(self, store: Store, heart: Heartbeat, scope: WatchedTasks) -> Works:
        definitions = Definitions(store)
        places = Places(
            lambda: self._plan.mappings,
            made=lambda mapping: definitions.get(mapping) is not None,
        )
        tools = DaemonContext(
            registry=self._registry,
            env=self._env,
            worker=self._plan.worker,
            store=store,
            workers=heart,
            observer=self._results,
            rng=self._rng,
            places=places,
        )
        catalog = DesiredMappings(self._plan, definitions, now=self._env.clock.now())
        fleet = RunningMappings(tools, scope, self._stop, results=self._results, woken=self._woken.set)
        self._works = Works(definitions, catalog, fleet, store, heart, places)
        return self._works

    async def _start(self, works: Works) -> list[str]:
        """Opens the parts of all mappings of the file; returns what is wrong with their configuration."""
        await self._look(works, 0)
        entries = works.catalog.entries()
        works.fleet.apply(entries)
        problems: list[str] = []
        for entry in entries:
            supervisor = works.fleet.supervisor(entry.mapping)
            if not entry.from_file or supervisor is None:
                continue
            await supervisor.tried.wait()
            if supervisor.failure is not None and isinstance(supervisor.failure.error, InvalidConfiguration):
                problems += supervisor.failure.problems
        return list(dict.fromkeys(problems))

    async def _keep(self, works: Works) -> None:
        """Compares what is wanted with what runs, whenever something has changed and every few seconds."""
        self.control.open(self._desk(works))
        clock = self._env.clock
        due, tries = clock.monotonic() + RECONCILE_S, 0
        while not self._stop.requested:
            self._woken.clear()
            if clock.monotonic() >= due:
                tries = 0 if await self._look(works, tries) else tries + 1
                due = clock.monotonic() + RECONCILE_S
            await self._forget(works, works.fleet.apply(works.catalog.entries()))
            await wait_until(self._woken, max(0.0, due - clock.monotonic()))

    def _desk(self, works: Works) -> ServiceContext:
        return ServiceContext(
            catalog=works.catalog,
            definitions=works.definitions,
            fleet=works.fleet,
            inspector=Preflight(self._registry, self._env),
            results=self._results,
            clock=self._env.clock,
            rng=self._rng,
            woken=self._woken.set,
        )

    async def _look(self, works: Works, tries: int) -> bool:
        """Reads the mappings made through the API; whether that went well. What is known stays otherwise."""
        before = {each.mapping for each in works.definitions.known()}
        try:
            async with interrupted_by(self._stop), asyncio.timeout(LOOK_S_MAX):
                await works.definitions.refresh()
        except TimeoutError:
            self._store_failed(ServiceUnavailable(f"no answer within {LOOK_S_MAX:g} s"), tries)
            return False
        except PortError as error:
            self._store_failed(error, tries)
            return False
        self._store_problem = ""
        self._looked = True
        gone = before - {each.mapping for each in works.definitions.known()}
        # Another worker has forgotten them; what this one wrote for them since goes once it has drained.
        self._deleted |= dict.fromkeys(gone, self._env.clock.monotonic())
        return True

    async def _forget(self, works: Works, done: Sequence[MappingId]) -> None:
        """Forgets deleted mappings that nobody works at any more; what fails is tried again with the next look."""
        now = self._env.clock.monotonic()
        for mapping in done:
            self._deleted.setdefault(mapping, now)
        for mapping, since in list(self._deleted.items()):
            if works.fleet.supervisor(mapping) is None:
                await self._forget_one(works, mapping, for_s=now - since)

    async def _forget_one(self, works: Works, mapping: MappingId, *, for_s: float) -> None:
        if works.heart.accompanied and for_s < NEWS_S:
            return
        try:
            async with interrupted_by(self._stop), asyncio.timeout(LOOK_S_MAX):
                if for_s < FORGET_S and await self._held_elsewhere(works, mapping):
                    return
                await works.definitions.forget(mapping)
                del self._deleted[mapping]
                self._woken.set()
        except TimeoutError:
            self._store_failed(ServiceUnavailable(f"no answer within {LOOK_S_MAX:g} s"), 0)
        except PortError as error:
            self._store_failed(error, 0)

    async def _held_elsewhere(self, works: Works, mapping: MappingId) -> bool:
        leases = await works.store.leases(mapping, memos=False)
        return any(lease.owner not in {None, self._plan.worker} for lease in leases)

    async def _drain(self, works: Works) -> None:
        """Waits for all mappings, the grace at most; what is late then is cancelled."""
        tasks = set(works.fleet.tasks)
        if not tasks:
            return
        _, late = await asyncio.wait(tasks, timeout=self._stop.left_s)
        for task in late:
            task.cancel()

    def _emit_cut_short(self) -> None:
        """Tells what the end left undone, when all has ended."""
        if (told := self._tally.cut_short(self.grace_s)) is not None:
            self._results.on(told)

    def _store_failed(self, error: PortError, tries: int) -> float:
        delay_s = wait_s(self._plan.tuning.port_backoff, tries, self._rng)
        self._store_problem = f"store: {error.reason}"
        self._results.on(StoreFailed(error=type(error).__name__, reason=error.reason, wait_s=delay_s))
        return delay_s
