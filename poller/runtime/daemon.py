"""Owns the daemon: it opens the store, keeps the running mappings equal to the desired ones, and drains."""

import asyncio
from collections.abc import Sequence
from contextlib import AsyncExitStack, nullcontext
from dataclasses import dataclass, field, replace
from functools import partial
from random import Random

from poller.config.plugin_specs import store_of
from poller.domain.errors import InvalidConfiguration, PortError, ServiceThrottled, ServiceUnavailable
from poller.domain.plan import DaemonPlan
from poller.domain.records import MappingId, Monotonic
from poller.domain.sizing.fleet_size import FleetScaling
from poller.domain.status import DaemonStatus, idle_note
from poller.domain.telemetry.daemon_events import StoreFailed
from poller.domain.telemetry.labels import TaskKind
from poller.domain.telemetry.observers import Observer, Observers
from poller.plugins import Environment, Registry
from poller.ports import Store
from poller.rules.backoff import wait_s
from poller.rules.plan_changes import plan_changes
from poller.runtime.functions.open_call_queues import open_call_queues
from poller.runtime.functions.versions.alias_states import AliasStates
from poller.runtime.functions.versions.open_aliases import open_aliases
from poller.runtime.mappings.components import DaemonContext
from poller.runtime.mappings.definitions import Definitions
from poller.runtime.mappings.desired import DesiredMappings
from poller.runtime.mappings.fleet import FleetReader, alone
from poller.runtime.mappings.function_service import function_statuses
from poller.runtime.mappings.last_result import LastResults
from poller.runtime.mappings.mapping_service import MappingService
from poller.runtime.mappings.operated import PluginOpener, follow_operations
from poller.runtime.mappings.running import RunningMappings
from poller.runtime.open_parts import OpenParts
from poller.runtime.operations.operation_service import OperationService
from poller.runtime.resources.open_resources import following_resources, opened_resources
from poller.runtime.stop_tally import StopTally
from poller.runtime.stopping import Reason, Stop, interrupted_by, wait_until
from poller.runtime.streams.places import Places
from poller.runtime.watched_tasks import WatchedTasks
from poller.runtime.workers.heartbeat import Heartbeat
from poller.runtime.workers.status_digests import writing

RECONCILE_S = 3.0
"""The interval at which the store is read for mappings that other replicas have changed."""
READ_S_MAX = 10.0
"""How long reading the mappings may take before it counts as failed."""
DELETION_SEEN_S = 2 * RECONCILE_S
"""After this time every other worker has read that a mapping was deleted. Until then another worker may still start it."""
FORGET_S = 30.0
"""How long the removal of a deleted mapping waits for other workers to release its shards."""


@dataclass(frozen=True, slots=True)
class Controls:
    """What takes requests for changes and for operations while the daemon runs."""

    mappings: MappingService = field(default_factory=MappingService)
    operations: OperationService = field(default_factory=OperationService)


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
        self._controls = Controls()
        self.note = ""
        """One line for people, which the status shows: a problem that does not belong to a mapping."""
        self._plan = plan
        self._registry = registry
        self._env = env
        self._tally = StopTally()
        self._results = LastResults(env.clock)
        self._observer = Observers((self._results, observer, self._tally))
        self._rng = rng
        self._stop = Stop()
        self._woken = asyncio.Event()
        self._open_parts: OpenParts | None = None
        self._store_problem = ""
        self._looked = False
        self._deleted: dict[MappingId, Monotonic] = {}

    @property
    def control(self) -> MappingService:
        """Changes mappings while they run."""
        return self._controls.mappings

    @property
    def operations(self) -> OperationService:
        """Takes operations on what runs."""
        return self._controls.operations

    async def run(self) -> None:
        """Opens the parts and runs until `stop` was called and everything has drained, or the grace time is over.

        If a part cannot be opened as configured, it raises InvalidConfiguration before anything is read. If the store cannot be
        opened, it raises AccessDenied or ResourceMissing.
        """
        problems: list[str] = []
        async with AsyncExitStack() as stack:
            store = await self._open_store(stack)
            if store is None:
                return
            feed = await stack.enter_async_context(opened_resources(self._plan, self._registry, self._env))
            heartbeat = self._heartbeat(store)
            stack.callback(self._emit_cut_short)
            async with heartbeat.run(self._stop), WatchedTasks(self._observer) as scope:
                parts = self._parts_with(store, heartbeat, scope)
                parts.follow(feed, self._plan, self._stop, woken=self._woken.set)
                following = scope.kept(
                    TaskKind.OPERATIONS, parts.follower.run, over=lambda: self._stop.requested
                )
                calling = nullcontext() if parts.calls is None else parts.calls.running(scope, self._stop)
                shifting = parts.aliases.running(scope, self._stop)
                counting = self._tally.counting(parts.running.components.calls)
                writes, sizes = writing(parts.digests(), scope), parts.sizing.running(scope)
                follows = following_resources(parts.resources, scope)
                with counting, writes, sizes, calling, shifting, follows:
                    problems = await self._work(parts, scope)
                # It ends by itself when the mappings have drained, unless something of an operation goes on for too long.
                following.cancel()
        if problems:
            raise InvalidConfiguration(problems)

    async def _work(self, parts: OpenParts, scope: WatchedTasks) -> list[str]:
        """Runs all mappings until the end. Returns the problems of the configuration that prevented a start."""
        problems = await self._start(parts)
        if problems:
            self.stop()
        parts.running.gate.set()
        self.operations.open(parts.operations)
        with self._stop.waking(self._woken):
            keeping = scope.kept(
                TaskKind.RECONCILER, partial(self._reconcile, parts), over=lambda: self._stop.requested
            )
            await keeping.wait()
        self.control.close()
        self.operations.close()
        await self._drain(parts)
        return problems

    @property
    def grace_s(self) -> float:
        """How long running invocations may take after `stop`."""
        return self._plan.tuning.grace_s

    def stop(self) -> None:
        """Begins to drain: nothing new is taken, running invocations finish within the grace time, and checkpoints are saved."""
        self._tally.begin()
        self._stop.request(Reason.REQUESTED, within_s=self.grace_s)

    async def rehearse(self, plan: DaemonPlan) -> list[str]:
        """Tries the parts of another configuration; returns their problems, one line each. Changes nothing."""
        parts = self._open_parts
        if parts is None:
            return []
        entries = DesiredMappings(plan, parts.definitions, now=self._env.clock.now()).entries()
        known = {entry.mapping: entry.spec for entry in parts.desired.entries()}
        problems: list[str] = []
        for entry in entries:
            if entry.from_file and entry.enabled and known.get(entry.mapping) != entry.spec:
                problems += await parts.running.components.rehearse(entry.spec)
        return list(dict.fromkeys(problems))

    def replan(self, plan: DaemonPlan) -> tuple[str, ...]:
        """Takes over another configuration: changed mappings drain and start again, the others go on.

        The worker's name and the store stay the same. Returns the changes, one line each.
        """
        changes = plan_changes(self._plan, plan)
        self._plan = plan
        if self._open_parts is not None:
            self._open_parts.desired.replan(plan, now=self._env.clock.now())
            self._open_parts.places.changed()
        self._woken.set()
        return changes

    def status(self) -> DaemonStatus:
        """What runs in this daemon now."""
        parts = self._open_parts
        problems, notes = parts.running.problems() if parts is not None else ([], [])
        opened = parts is not None and parts.running.gate.is_set()
        if not opened:
            problems.insert(0, "not everything is open yet")
        if self._stop.requested:
            problems.insert(0, "draining")
        if parts is not None:
            notes += parts.notes(self._plan.functions)
            problems += parts.problems()
        mappings = parts.fleet.with_all_pauses(parts.running.statuses()) if parts is not None else ()
        notes += [idle_note(mappings)] if opened and self._looked else []
        return DaemonStatus(
            worker=str(self._plan.worker),
            mappings=mappings,
            ready=not problems,
            alive=True,
            problems=tuple(problems),
            notes=tuple(filter(None, (self.note, self._store_problem, *notes, *self._results.ended_notes()))),
            complete=opened and self._looked and not self._stop.requested,
            functions=function_statuses(parts.running.components) if parts is not None else (),
            calls=() if parts is None or parts.calls is None else parts.calls.looks.statuses(),
        )

    async def fleet(
        self, *, only: str = "", mapping: MappingId | None = None, ask: bool = True
    ) -> DaemonStatus:
        """What runs on all workers; with `ask`, asks the store for what is not known or not new. Raises UnknownWorker."""
        parts = self._open_parts
        if parts is not None and ask and only != self._plan.worker:
            await parts.fleet.refresh(parts.running.summaries(), only=mapping)
        if parts is not None and parts.calls is not None and ask and mapping is None:
            await parts.calls.looks.refresh()
        own = self.status()
        return alone(own, only=only) if parts is None else parts.fleet.view(own, only=only)

    async def refresh(self) -> None:
        """Reads what the other workers have written, so that `control.views` shows it."""
        if self._open_parts is not None:
            await self._open_parts.fleet.refresh(None)

    async def fleet_size(self) -> FleetScaling | None:
        """How many workers there should be; None while that is not known."""
        return None if self._open_parts is None else await self._open_parts.sizing.look()

    async def _open_store(self, stack: AsyncExitStack) -> Store | None:
        """Opens the store; None if a stop came first. Repeats the try while the store throttles or does not answer."""
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

    def _heartbeat(self, store: Store) -> Heartbeat:
        return Heartbeat(
            store,
            self._plan.worker,
            clock=self._env.clock,
            tuning=self._plan.tuning,
            observer=self._observer,
            process=self._env.process,
        )

    def _parts_with(self, store: Store, heartbeat: Heartbeat, scope: WatchedTasks) -> OpenParts:
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
            workers=heartbeat,
            observer=self._observer,
            rng=self._rng,
            port_backoff=self._plan.tuning.port_backoff,
            places=places,
            sharing=heartbeat.functions,
            aliases=AliasStates(store, self._env.clock, self._observer),
        )
        desired = DesiredMappings(self._plan, definitions, now=self._env.clock.now())
        running = RunningMappings(tools, scope, self._stop, results=self._results, woken=self._woken.set)
        follower, operations = follow_operations(
            tools, desired, running, heartbeat, self._stop, refresh=definitions.refresh
        )
        running.pauses = follower
        fleet = FleetReader(tools, heartbeat, tuning=self._plan.tuning)
        fleet.pauses = follower.pauses
        callers, stop, opener = self.control.calls, self._stop, PluginOpener(tools)
        calls = open_call_queues(
            tools, running.held, heartbeat, lambda: self._plan, callers.named, scope, stop, opener=opener
        )
        aliases = open_aliases(tools, heartbeat, lambda: self._plan.functions, callers, scope, stop)
        definitions.beside = (aliases.states.take, *(() if calls is None else (calls.configs.take,)))
        if calls is not None:
            follower.beside, operations = calls.operations, replace(operations, functions=calls.known)
        sizing = fleet.sizing(running.loads, leaves=lambda: self._stop.requested)
        shared = store, heartbeat, places
        self._open_parts = OpenParts(
            definitions, desired, running, *shared, follower, operations, fleet, calls, aliases, sizing, tools
        )
        return self._open_parts

    async def _start(self, parts: OpenParts) -> list[str]:
        """Opens the parts of all mappings of the file; returns the problems of their configuration."""
        await self._read_mappings(parts, 0)
        entries = parts.desired.entries()
        parts.running.apply(entries)
        problems: list[str] = []
        for entry in entries:
            supervisor = parts.running.supervisor(entry.mapping)
            if not entry.from_file or supervisor is None:
                continue
            await supervisor.tried.wait()
            if supervisor.failure is not None and isinstance(supervisor.failure.error, InvalidConfiguration):
                problems += supervisor.failure.problems
        return list(dict.fromkeys(problems))

    async def _reconcile(self, parts: OpenParts) -> None:
        """Reconciles desired and running mappings after each change, and every few seconds."""
        context = parts.service_context(
            self._registry, self._env, rng=self._rng, observer=self._observer, woken=self._woken.set
        )
        self.control.open(context)
        clock = self._env.clock
        due, tries = clock.monotonic() + RECONCILE_S, 0
        while not self._stop.requested:
            self._woken.clear()
            if clock.monotonic() >= due:
                tries = 0 if await self._read_mappings(parts, tries) else tries + 1
                due = clock.monotonic() + RECONCILE_S
            await self._forget(parts, parts.running.apply(parts.desired.entries()))
            parts.running.held.keep(self._plan.functions)
            await wait_until(self._woken, max(0.0, due - clock.monotonic()))

    async def _read_mappings(self, parts: OpenParts, tries: int) -> bool:
        """Reads the mappings made through the API. Returns whether that succeeded; if not, the known ones stay."""
        before = {each.mapping for each in parts.definitions.known()}
        try:
            async with interrupted_by(self._stop), asyncio.timeout(READ_S_MAX):
                await parts.definitions.refresh()
        except TimeoutError:
            self._store_failed(ServiceUnavailable(f"no answer within {READ_S_MAX:g} s"), tries)
            return False
        except PortError as error:
            self._store_failed(error, tries)
            return False
        self._store_problem = ""
        self._looked = True
        gone = before - {each.mapping for each in parts.definitions.known()}
        # Another worker has removed these mappings. Rows that this worker has written since are removed when it has drained.
        self._deleted |= dict.fromkeys(gone, self._env.clock.monotonic())
        return True

    async def _forget(self, parts: OpenParts, done: Sequence[MappingId]) -> None:
        """Removes deleted mappings that no worker runs any more. A failed removal is tried again the next time."""
        now = self._env.clock.monotonic()
        for mapping in done:
            self._deleted.setdefault(mapping, now)
        for mapping, since in list(self._deleted.items()):
            if parts.running.supervisor(mapping) is None:
                await self._forget_one(parts, mapping, for_s=now - since)

    async def _forget_one(self, parts: OpenParts, mapping: MappingId, *, for_s: float) -> None:
        if parts.heartbeat.others().alive and for_s < DELETION_SEEN_S:
            return
        try:
            async with interrupted_by(self._stop), asyncio.timeout(READ_S_MAX):
                if for_s < FORGET_S and await self._held_elsewhere(parts, mapping):
                    return
                await parts.follower.delete(mapping)
                await parts.definitions.forget(mapping)
                del self._deleted[mapping]
                self._woken.set()
        except TimeoutError:
            self._store_failed(ServiceUnavailable(f"no answer within {READ_S_MAX:g} s"), 0)
        except PortError as error:
            self._store_failed(error, 0)

    async def _held_elsewhere(self, parts: OpenParts, mapping: MappingId) -> bool:
        leases = await parts.store.leases(mapping, memos=False)
        return any(lease.owner not in {None, self._plan.worker} for lease in leases)

    async def _drain(self, parts: OpenParts) -> None:
        """Waits until all mappings have drained and all calls have ended. After the grace time the rest is cancelled."""
        queued = set() if parts.calls is None else parts.calls.queues.tasks
        if not (tasks := parts.running.tasks | parts.running.held.tasks | queued):
            return
        _, late = await asyncio.wait(tasks, timeout=self._stop.left_s)
        for task in late:
            task.cancel()

    def _emit_cut_short(self) -> None:
        """Emits an event about what was left unfinished, after everything has ended."""
        if (event := self._tally.cut_short(self.grace_s)) is not None:
            self._observer.on(event)

    def _store_failed(self, error: PortError, tries: int) -> float:
        delay_s = wait_s(self._plan.tuning.port_backoff, tries, self._rng)
        self._store_problem = f"store: {error.reason}"
        self._observer.on(StoreFailed(error=type(error).__name__, reason=error.reason, wait_s=delay_s))
        return delay_s
