"""Owns the running mappings: it starts and drains them as the desired mappings require, and reports the state of each."""

import asyncio
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from functools import partial
from typing import assert_never

from poller.domain.operations import OperationTarget
from poller.domain.records import MappingId
from poller.domain.rows import MappingState
from poller.domain.status import MappingStatus, PauseStatus, pause_status
from poller.domain.telemetry.labels import TaskEnd, TaskKind
from poller.domain.telemetry.mapping_events import MappingChanged
from poller.domain.untrusted.credentials import hide_path
from poller.rules.backoff import wait_s
from poller.rules.reconciling import Drain, Forget, RunningMapping, StartMapping, reconcile, shown
from poller.rules.workers.sizing.samples import MappingLoad
from poller.runtime.functions.held_functions import HeldFunctions
from poller.runtime.mappings.components import ComponentFactory, DaemonContext, MappingSpec
from poller.runtime.mappings.desired import DesiredMapping
from poller.runtime.mappings.last_result import LastResults
from poller.runtime.mappings.supervisor import AGAIN_S, Supervisor
from poller.runtime.operations.operable import Operable
from poller.runtime.operations.operable_mappings import PauseSource
from poller.runtime.stopping import Reason, Stop
from poller.runtime.watched_tasks import WatchedTasks

STOPPING = "stopping with the daemon: what runs finishes"
STOPPED = "stopped with the daemon"


class RunningMappings:
    """The supervisors of one daemon, each in a task of `scope`. `woken` is called after each change."""

    def __init__(
        self,
        tools: DaemonContext,
        scope: WatchedTasks,
        stop: Stop,
        *,
        results: LastResults,
        woken: Callable[[], None],
    ) -> None:
        self.gate = asyncio.Event()
        """It is set when the daemon's start has succeeded. Nothing is read before."""
        self.pauses: PauseSource | None = None
        """Gets each mapping before it begins anything. None: no operator can pause anything."""
        self.tasks: set[asyncio.Task[None]] = set()
        self.components = ComponentFactory(tools, scope, read_pauses=self._read_pauses)
        self.held = HeldFunctions(self.components.functions, scope, stop)
        """The functions that are open for calls."""
        self._tools = tools
        self._scope = scope
        self._stop = stop
        self._results = results
        self._woken = woken
        self._entries: dict[MappingId, DesiredMapping] = {}
        self._supervisors: dict[MappingId, tuple[MappingSpec, Supervisor]] = {}
        self._told: dict[MappingId, tuple[DesiredMapping, MappingState, str]] = {}
        self._once_open: set[MappingId] = set()

    def apply(self, entries: Sequence[DesiredMapping]) -> list[MappingId]:
        """Starts and drains mappings so that they match `entries`. Returns the deleted mappings that no longer run here."""
        given = {entry.mapping: entry for entry in entries}
        leaving = {
            mapping: replace(entry, deleting=True)
            for mapping, entry in self._entries.items()
            if mapping not in given and mapping in self._supervisors
        }
        self._entries = given | leaving
        wanted = {mapping: entry.wanted() for mapping, entry in self._entries.items()}
        done: list[MappingId] = []
        for command in () if self._stop.requested else reconcile(wanted, self._running()):
            match command:
                case StartMapping(mapping, spec):
                    assert isinstance(spec, MappingSpec)
                    self._start(mapping, spec)
                case Drain(mapping):
                    self._supervisors[mapping][1].stop.request(Reason.REQUESTED)
                case Forget(mapping):
                    done.append(mapping)
                case _:
                    assert_never(command)
        self._emit_changes()
        return done

    def supervisor(self, mapping: MappingId) -> Supervisor | None:
        """The supervisor of a mapping; None if it does not run."""
        found = self._supervisors.get(mapping)
        return found[1] if found is not None else None

    def operables(self) -> dict[MappingId, Operable]:
        """The mappings that run here now, as operations see them."""
        found = ((mapping, supervisor.operable) for mapping, (_, supervisor) in self._supervisors.items())
        return {mapping: operable for mapping, operable in found if operable is not None}

    def state(self, entry: DesiredMapping) -> MappingState:
        """The state of a mapping."""
        return shown(entry.wanted(), self._running_one(entry.mapping), ending=self._stop.requested)

    def statuses(self) -> tuple[MappingStatus, ...]:
        """The status of every mapping."""
        return tuple(self._status(entry) for entry in self._entries.values())

    def summaries(self, entries: Iterable[DesiredMapping] | None = None) -> tuple[MappingStatus, ...]:
        """The status of every mapping, of its shards only those here that are in trouble or do not read. This costs less.

        With `entries`, the states say how far these are, which may be newer than what was applied.
        """
        given = self._entries.values() if entries is None else entries
        return tuple(self._status(entry, whole=False) for entry in given)

    def loads(self) -> dict[MappingId, MappingLoad]:
        """The loads of the mappings that run here, as far as they count."""
        found = ((mapping, supervisor.load) for mapping, (_, supervisor) in self._supervisors.items())
        return {mapping: load for mapping, load in found if load is not None}

    def problems(self) -> tuple[list[str], list[str]]:
        """The reasons why the daemon is not ready, and further notes for people.

        A mapping of the file must have been open once. Later problems, and those of mappings made through the API, are only notes.
        """
        problems: list[str] = []
        notes: list[str] = []
        for entry in self._entries.values():
            # A daemon that drains does not open anything, and is not ready anyway.
            runs = entry.wanted().runs and not self._stop.requested
            text = self._problem(entry) if runs else ""
            broken = self.state(entry) is MappingState.BROKEN
            vital = entry.from_file and (broken or entry.mapping not in self._once_open)
            if text:
                (problems if vital else notes).append(text)
            supervisor = self.supervisor(entry.mapping)
            notes += supervisor.notes() if supervisor is not None else ()
            if place := self._tools.places.notes.get(entry.mapping):
                notes.append(f"mapping {entry.mapping}: {place.reason}")
        return problems, notes

    def _running(self) -> dict[MappingId, RunningMapping]:
        return {
            mapping: run for mapping in self._supervisors if (run := self._running_one(mapping)) is not None
        }

    def _running_one(self, mapping: MappingId) -> RunningMapping | None:
        found = self._supervisors.get(mapping)
        if found is None:
            return None
        spec, supervisor = found
        return RunningMapping(
            spec=spec,
            tried=supervisor.tried.is_set(),
            stopping=supervisor.stop.requested,
            broken=bool(supervisor.bug),
        )

    def _start(self, mapping: MappingId, spec: MappingSpec) -> None:
        supervisor = Supervisor(
            mapping,
            partial(self.components.open, spec),
            gate=self.gate,
            observer=self._tools.observer,
            wait_s=lambda tries: wait_s(spec.tuning.port_backoff, tries, self._tools.rng),
            changed=self._woken,
            introduce=partial(self._introduce, mapping),
        )
        self._supervisors[mapping] = spec, supervisor
        name, ended = f"{TaskKind.MAPPING} {mapping}", partial(self._ended, mapping, supervisor)
        task = self._scope.spawn(self._run(supervisor), name, ended)
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)

    async def _run(self, supervisor: Supervisor) -> None:
        def stop() -> None:
            supervisor.stop.request(Reason.REQUESTED, within_s=self._stop.left_s)

        with self._stop.listening(stop):
            await supervisor.run()

    def _ended(
        self, mapping: MappingId, supervisor: Supervisor, end: TaskEnd, error: BaseException | None
    ) -> None:
        """Removes a supervisor that ended, so that the mapping can be started again. If nothing stopped it, it is shown as broken until then."""
        if error is not None or not (supervisor.stop.requested or self._scope.ending):
            supervisor.ended(end, error)
        if supervisor.stop.requested or self._scope.ending:
            self._forget(mapping)
            return
        asyncio.get_running_loop().call_later(AGAIN_S, self._forget, mapping)

    def _introduce(self, mapping: MappingId, operable: Operable) -> None:
        if self.pauses is not None:
            self.pauses.introduce(mapping, operable)

    def _read_pauses(self, mapping: MappingId) -> None:
        if self.pauses is not None:
            self.pauses.read_again(mapping)

    def _paused(self, mapping: MappingId) -> PauseStatus | None:
        """The oldest pause of the whole mapping, if there is one."""
        pauses = (self.pauses.pauses(mapping) if self.pauses is not None else None) or ()
        return next((pause_status(each) for each in pauses if each.target == OperationTarget()), None)

    def _forget(self, mapping: MappingId) -> None:
        del self._supervisors[mapping]
        self._woken()

    def _status(self, entry: DesiredMapping, *, whole: bool = True) -> MappingStatus:
        plan, supervisor = entry.spec.plan, self.supervisor(entry.mapping)
        reason = supervisor.reason if supervisor is not None else entry.obstacle
        if self._stop.requested and entry.wanted().runs:
            reason = reason or (STOPPED if supervisor is None else STOPPING)
        status = partial(
            MappingStatus,
            mapping=entry.mapping,
            function=plan.function,
            source_arn=plan.source_arn,
            state=self.state(entry),
            reason=reason,
            last_result="" if entry.queue else self._results.of(entry.mapping),
            paused=self._paused(entry.mapping),
            destination=hide_path(plan.discard.destination or ""),
            result_at=None if entry.queue else self._results.at(entry.mapping),
        )
        if supervisor is None:
            return status()
        shards = supervisor.shards(troubled=not whole)
        return status(shards=shards, lanes=supervisor.lanes(), pollers=supervisor.pollers)

    def _problem(self, entry: DesiredMapping) -> str:
        supervisor, where = self.supervisor(entry.mapping), entry.spec.plan.source_arn
        if supervisor is None or not supervisor.opened:
            bug = supervisor.bug if supervisor is not None else ""
            reason = supervisor.reason if supervisor is not None else ""
            if bug:
                return f"mapping {entry.mapping}: broken: {bug}"
            return f"mapping {entry.mapping} ({where}): {reason or 'not open yet'}"
        self._once_open.add(entry.mapping)
        return ""

    def _emit_changes(self) -> None:
        """Emits MappingChanged for every mapping whose state has changed."""
        for mapping in self._told.keys() - self._entries.keys():
            self._emit_gone(mapping)
        for entry in self._entries.values():
            supervisor = self.supervisor(entry.mapping)
            troubled = supervisor is not None and (supervisor.bug or supervisor.failure is not None)
            reason = supervisor.reason if supervisor is not None and troubled else entry.obstacle
            now = self.state(entry), reason
            if self._told.get(entry.mapping, (None,))[1:] != now:
                self._told[entry.mapping] = entry, *now
                self._tools.observer.on(_changed(entry, *now))

    def _emit_gone(self, mapping: MappingId) -> None:
        entry, state, _ = self._told.pop(mapping)
        if state is not MappingState.DELETING:
            self._tools.observer.on(_changed(entry, MappingState.DELETING, ""))
        self._once_open.discard(mapping)
        self._results.forget(mapping)


def _changed(entry: DesiredMapping, state: MappingState, reason: str) -> MappingChanged:
    plan = entry.spec.plan
    return MappingChanged(
        mapping=entry.mapping,
        function=plan.function,
        source_arn=plan.source_arn,
        state=state,
        reason=reason,
    )
