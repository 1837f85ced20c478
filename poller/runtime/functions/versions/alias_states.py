"""Owns the state of versions and aliases: in the store, and this worker's copy.

It is a part of the function's row (`function:NAME`), beside what else was set through the API. Every write is conditional on the
row's revision, and is decided anew if another worker was faster.

A worker writes a definition of its configuration file once. After that the row counts, also if a worker with another file has changed it:
otherwise two workers with different files would overwrite each other without end.
"""

import asyncio
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

import msgspec

from poller.domain.errors import RowChanged, ServiceThrottled, ServiceUnavailable
from poller.domain.functions.shifts import Shift
from poller.domain.functions.versions import AliasPlan, VersionPlan
from poller.domain.plan import FunctionPlan
from poller.domain.records import MappingId
from poller.domain.rows import FUNCTION_PREFIX, MappingRow
from poller.domain.telemetry.daemon_events import VersionCalled
from poller.domain.telemetry.observers import Observer
from poller.ports import Clock, MappingStore
from poller.rules.functions.aliases.alias_state import (
    AliasState,
    FunctionState,
    Route,
    changed_text,
    fingerprint,
    from_file,
    route,
)
from poller.rules.functions.aliases.shift_steps import too_many_failures
from poller.runtime.functions.versions.call_tallies import CallTallies

TRIES_MAX = 10
STORE_S_MAX = 10.0
NOT_READ = "the store has not been read yet, so that it is not known where the alias leads"
_NONE = FunctionState()


class _Document(msgspec.Struct, frozen=True):
    aliases: dict[str, AliasState] = {}
    versions: dict[str, str] = {}


@dataclass(frozen=True, slots=True)
class _Known:
    """The row of one function."""

    state: FunctionState
    revision: int


class AliasStates:
    """The state of all functions, as this worker last read or wrote it."""

    def __init__(self, store: MappingStore, clock: Clock, observer: Observer) -> None:
        self.read = False
        """Whether the store was read once. Before that nobody knows where aliases lead."""
        self.unread: tuple[str, ...] = ()
        """The problems of rows that could not be read, one line each."""
        self.troubles: dict[tuple[str, str], str] = {}
        """Why versions could not be opened, by function and number."""
        self.tallies = CallTallies()
        self._store = store
        self._clock = clock
        self._observer = observer
        self._known: dict[str, _Known] = {}
        self._adopted: dict[tuple[str, str], AliasPlan] = {}
        """The definitions of this worker's file that the store has or had, by function and alias."""
        self._prints: dict[tuple[str, str], tuple[VersionPlan, str]] = {}
        """The fingerprints of versions, by function and number."""
        self._began = clock.now()
        self._turn = asyncio.Lock()
        self._listeners: list[Callable[[], None]] = []

    def take(self, rows: Iterable[MappingRow]) -> None:
        """Takes over what a listing of the store found. A row that cannot be read leaves its function as it was."""
        unread: list[str] = []
        for row in rows:
            if not row.mapping.startswith(FUNCTION_PREFIX):
                continue
            name = row.mapping.removeprefix(FUNCTION_PREFIX)
            found = None if row.damage else _read(row)
            if found is None:
                unread.append(f"store: the aliases of function {name} cannot be read")
            else:
                self._note(name, found)
        self.unread, self.read = tuple(unread), True

    def knows(self, function: str) -> bool:
        """Whether it is known which aliases a function has in the store, and where they lead."""
        return self.read or function in self._known

    def functions(self) -> frozenset[str]:
        """The names of all functions that the store has something of, also of those that are not configured here."""
        return frozenset(self._known)

    def state(self, function: str) -> FunctionState:
        """What the store has of a function."""
        known = self._known.get(function)
        return _NONE if known is None else known.state

    def made(self, function: str) -> frozenset[str]:
        """The names of the aliases that were made through the API."""
        return frozenset(name for name, each in self.state(function).aliases.items() if each.file is None)

    def alias(self, plan: FunctionPlan, name: str, state: FunctionState | None = None) -> AliasState | None:
        """One alias of a function, as the store is known or by another state of it; None if there is none."""
        stored = (self.state(plan.name) if state is None else state).aliases.get(name)
        defined = plan.aliases.get(name)
        if defined is None:
            return None if stored is None or stored.file is not None else stored
        key = plan.name, name
        if stored is not None and stored.file == defined:
            self._adopted[key] = defined
        if stored is not None and self._adopted.get(key) == defined:
            return stored
        return from_file(plan.name, name, defined, self._began, stored)

    def aliases(self, plan: FunctionPlan) -> dict[str, AliasState]:
        """All aliases of a function, by name."""
        for key in [each for each in self._adopted if each[0] == plan.name and each[1] not in plan.aliases]:
            # If it comes back into the file, that is a change of the file.
            del self._adopted[key]
        names = sorted({*plan.aliases, *self.made(plan.name)})
        return {name: found for name in names if (found := self.alias(plan, name)) is not None}

    def pending(self, plan: FunctionPlan) -> bool:
        """Whether the store has not taken over all aliases of the file yet."""
        stored = self.state(plan.name).aliases
        return any(stored.get(name) != self.alias(plan, name) for name in plan.aliases)

    def way(self, function: str, name: str, alias: AliasState) -> Route:
        """Where the calls of an alias go now.

        This worker sends none to a new version of which it has seen too many failures, also while the store does not take the rollback.
        """
        shift = alias.shifting
        if shift is not None and self._failed(function, name, shift):
            return Route(shift.old, {})
        return route(alias, self._clock.now())

    async def adopt(self, plan: FunctionPlan) -> None:
        """Writes the file's aliases that the store has not taken over yet. Raises PortError."""

        def taken_over(state: FunctionState) -> FunctionState:
            for name, defined in plan.aliases.items():
                before = state.aliases.get(name)
                if before is None or (
                    before.file != defined and self._adopted.get((plan.name, name)) != defined
                ):
                    now = self._clock.now()
                    if before is None:
                        state = state.with_room(plan)
                    state = state.with_alias(name, from_file(plan.name, name, defined, now, before))
            return state

        await self.change(plan.name, taken_over)
        self._adopted |= {(plan.name, name): defined for name, defined in plan.aliases.items()}

    async def refresh(self, function: str) -> None:
        """Reads the row of one function. Raises PortError."""
        await self.change(function, lambda state: state)

    async def change(self, function: str, change: Callable[[FunctionState], FunctionState]) -> FunctionState:
        """Decides and stores a change of what the store has now; `change` may raise. Raises PortError.

        `change` is called again if another worker was faster.
        """
        key = MappingId(FUNCTION_PREFIX + function)
        try:
            async with asyncio.timeout(STORE_S_MAX), self._turn:
                for _ in range(TRIES_MAX):
                    row = await self._store.create(MappingRow(key, fixed=self._clock.now()))
                    found = _read(row)
                    if found is None:
                        raise ServiceUnavailable(f"the row {key} in the store cannot be read")
                    # Also if the write fails, or is refused.
                    self._note(function, found)
                    after = change(found.state)
                    if after == found.state:
                        return after
                    document = {**row.document, **_document(after)}
                    with suppress(RowChanged):
                        await self._store.update(
                            MappingRow(key, row.fixed, document=document, revision=row.revision)
                        )
                        self._note(function, _Known(after, row.revision + 1))
                        return after
        except TimeoutError:
            raise ServiceUnavailable(f"no answer within {STORE_S_MAX:g} s") from None
        raise ServiceThrottled(f"the row {key} in the store changes all the time")

    async def marked(self, plan: FunctionPlan, number: str) -> str:
        """Notes that a version is called. Returns why it may not be, or an empty text. Raises PortError."""
        if number not in self.state(plan.name).ran:
            wanted = self._print(plan, number)
            await self.change(plan.name, lambda state: state.with_run(number, wanted, plan))
        return self.changed_version(plan, number)

    def changed_version(self, plan: FunctionPlan, number: str) -> str:
        """Why a version may not be called, because it has changed; empty if it may."""
        ran = self.state(plan.name).ran.get(number)
        same = ran is None or number not in plan.versions or ran == self._print(plan, number)
        return "" if same else changed_text(plan.name, number)

    def told(self, plan: FunctionPlan, alias: str, version: str, *, failed: bool) -> None:
        """A version was called, by an alias or without one (empty)."""
        self._observer.on(VersionCalled(function=plan.name, alias=alias, version=version, failed=failed))
        state = self.alias(plan, alias) if alias else None
        if state is not None and state.shifting is not None:
            self.tallies.note(plan.name, alias, state.shifting, version, failed=failed)
            if failed:
                self._wake()

    @contextmanager
    def listening(self, changed: Callable[[], None]) -> Iterator[None]:
        """Calls `changed` after changes, and after failed calls of an alias that is being shifted."""
        self._listeners.append(changed)
        try:
            yield
        finally:
            self._listeners.remove(changed)

    def notes(self, plans: Mapping[str, FunctionPlan]) -> list[str]:
        """Notes for people about versions and aliases, one line each."""
        found = [*self.unread]
        for plan in plans.values():
            found += [text for number in plan.versions if (text := self.changed_version(plan, number))]
            for number in plan.versions:
                if trouble := self.troubles.get((plan.name, number)):
                    found.append(f"version {number} of {plan.name} cannot be opened: {trouble}")
            found += self._given_up(plan)
        return found

    def _given_up(self, plan: FunctionPlan) -> Iterator[str]:
        """A note on each shift that this worker has ended for itself, and that is not rolled back in the store yet."""
        for name, alias in self.aliases(plan).items():
            if (shift := alias.shifting) is not None and (because := self._failed(plan.name, name, shift)):
                yield f"alias {name} of {plan.name}: {because}; here all calls go to version {shift.old}, and the store has not taken the rollback yet"

    def _failed(self, function: str, name: str, shift: Shift) -> str:
        """Why this worker sends no calls to the new version of a shift; empty if it does."""
        return too_many_failures(shift, self.tallies.new_calls(function, name, shift))

    def _print(self, plan: FunctionPlan, number: str) -> str:
        version, key = plan.versions[number], (plan.name, number)
        known = self._prints.get(key)
        if known is None or known[0] is not version:
            known = self._prints[key] = version, fingerprint(version)
        return known[1]

    def _note(self, function: str, found: _Known) -> None:
        """Keeps the newer one of what is known and what was found: a listing may have begun before a write."""
        known = self._known.get(function)
        if known is None or known.revision < found.revision:
            self._known[function] = found
            self._wake()

    def _wake(self) -> None:
        for changed in tuple(self._listeners):
            changed()


def _read(row: MappingRow) -> _Known | None:
    try:
        found = msgspec.convert(dict(row.document), _Document)
    except msgspec.ValidationError:
        return None
    return _Known(FunctionState(aliases=found.aliases, ran=found.versions), row.revision)


def _document(state: FunctionState) -> dict[str, Any]:
    aliases: dict[str, Any] = msgspec.to_builtins(dict(state.aliases))
    return {"aliases": aliases, "versions": dict(state.ran)}
