"""Owns how shifts go on while the daemon runs: hooks, transitions, and what observers are told of aliases.

Every worker applies the share of the new version by its own clock. One worker calls the hooks and writes the transitions: the one
that took the shift in, because it has the versions and hooks in its file. When it has gone, the first worker that notices and has the alias takes
over, and notes that in the row. Any worker rolls a shift back by its own counts of failures. A write is conditional on what the store has, so that two workers
do not take over at once. A hook runs again if the worker that called it has gone.
"""

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from random import Random
from typing import Protocol

from poller.domain.errors import PortError
from poller.domain.functions.calls import FunctionAnswer, FunctionCall, NoRoom
from poller.domain.functions.shifts import Shift, ShiftState
from poller.domain.invocations import Throttled
from poller.domain.mapping_api import ApiError, ApiErrorType
from poller.domain.plan import FunctionPlan
from poller.domain.policies import Backoff
from poller.domain.records import WorkerId
from poller.domain.telemetry.daemon_events import AliasWeight, ShiftChanged, StoreFailed
from poller.domain.telemetry.labels import TaskEnd, TaskKind
from poller.domain.telemetry.observers import Observer
from poller.ports import Clock
from poller.rules import backoff
from poller.rules.functions.aliases.alias_state import AliasState, FunctionState, with_shift
from poller.rules.functions.aliases.hooks import answer_of, payload
from poller.rules.functions.aliases.shift_steps import (
    HookAnswer,
    NewCalls,
    stepped,
    too_many_failures,
    waits_for,
)
from poller.rules.workers.worker_group import KnownWorkers
from poller.runtime.context import uuid_text
from poller.runtime.functions.versions.alias_states import AliasStates
from poller.runtime.stopping import Stop, interrupted_by, wait_until
from poller.runtime.watched_tasks import WatchedTasks, reason_of

LOOK_S = 1.0
"""The interval at which the rows of aliases are read that are being shifted."""
IDLE_LOOK_S = 3.0
"""The same while none is. The store is read by the usual listing then."""
HOOK_AGAIN_S = 5.0
"""The wait before a hook is called again that could not be called."""

type _HookKey = tuple[str, str, str, ShiftState]


class Caller(Protocol):
    """Calls functions like the Invoke API."""

    async def call(self, call: FunctionCall) -> FunctionAnswer:
        """Calls a function and waits for its answer. Raises ApiError, and NoRoom if it was not called."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class ShiftContext:
    """The parts of the daemon that shifts need. `others` is what is known of the other workers, `holding` whether this one is in time."""

    states: AliasStates
    plans: Callable[[], Mapping[str, FunctionPlan]]
    caller: Caller
    me: WorkerId
    others: Callable[[], KnownWorkers]
    holding: Callable[[], bool]
    clock: Clock
    rng: Random
    observer: Observer
    port_backoff: Backoff


@dataclass(slots=True)
class _Told:
    """What observers were told of one alias."""

    weights: dict[str, float] = field(default_factory=dict)
    shift: tuple[str, ShiftState] | None = None


@dataclass(frozen=True, slots=True)
class _Held:
    """A function whose row could not be read or written: how often in a row, and until when it is left alone."""

    tries: int
    until: float


class ShiftDriver:
    """Drives the shifts of one worker. `scope` has a task for each hook that runs."""

    def __init__(self, context: ShiftContext, scope: WatchedTasks, stop: Stop) -> None:
        self._context = context
        self._scope = scope
        self._stop = stop
        self._woken = asyncio.Event()
        self._hooks: dict[_HookKey, asyncio.Task[None]] = {}
        self._answers: dict[_HookKey, HookAnswer] = {}
        self._told: dict[tuple[str, str], _Told] = {}
        self._held: dict[str, _Held] = {}

    async def run(self) -> None:
        """Takes the file's aliases over and drives shifts, until a stop."""
        with self._stop.waking(self._woken), self._context.states.listening(self._woken.set):
            try:
                while not self._stop.requested:
                    self._woken.clear()
                    wait_s = LOOK_S
                    async with interrupted_by(self._stop):
                        wait_s = await self._round()
                    await wait_until(self._woken, wait_s)
            finally:
                for task in self._hooks.values():
                    task.cancel()

    async def _round(self) -> float:
        """Does what is due, and returns the seconds until the next round."""
        context = self._context
        if not context.states.read:
            return LOOK_S
        running = False
        plans = dict(context.plans())
        for name in [*plans, *(context.states.functions() - plans.keys())]:
            held = self._held.get(name)
            if held is not None and held.until > context.clock.monotonic():
                running = True
                continue
            try:
                running = await self._looked_after(name, plans.get(name)) or running
            except PortError as error:
                self._failed(name, error)
                running = True
            else:
                self._held.pop(name, None)
        self._tell()
        return LOOK_S if running else IDLE_LOOK_S

    async def _looked_after(self, function: str, plan: FunctionPlan | None) -> bool:
        """Does what is due for one function, or for one that is not configured (None). Returns whether a shift of it runs."""
        await self._given_up(function, plan)
        if plan is None:
            return False
        if self._context.states.pending(plan):
            await self._context.states.adopt(plan)
        return await self._driven(plan)

    async def _driven(self, plan: FunctionPlan) -> bool:
        """Drives the shifts of one function. Returns whether one runs."""
        states = self._context.states
        if not any(each.shifting for each in states.aliases(plan).values()):
            return False
        await states.refresh(plan.name)
        for name, alias in states.aliases(plan).items():
            if alias.shifting is not None:
                await self._step(plan, name, alias, alias.shifting)
        return any(each.shifting for each in states.aliases(plan).values())

    async def _step(self, plan: FunctionPlan, name: str, alias: AliasState, shift: Shift) -> None:
        context, key = self._context, (plan.name, name, shift.shift, shift.state)
        calls = context.states.tallies.new_calls(plan.name, name, shift)
        mine = await self._mine(plan, name, alias, shift)
        if mine and waits_for(shift) is not None:
            self._call_hook(key, shift)
        answer = self._answers.get(key) if mine else None
        after = stepped(shift, context.clock.now(), answer=answer, calls=calls)
        if after == shift or not (mine or too_many_failures(shift, calls)):
            return
        await self._written(plan, name, shift, answer, calls)

    async def _written(
        self, plan: FunctionPlan, name: str, shift: Shift, answer: HookAnswer | None, calls: NewCalls
    ) -> None:
        """Stores the next state of a shift, unless another worker has changed it meanwhile."""
        now = self._context.clock.now()
        revision = uuid_text(self._context.rng.getrandbits(128))

        def change(state: FunctionState) -> FunctionState:
            found = state.aliases.get(name)
            if found is None or found.shift != shift:
                return state
            after = stepped(shift, now, answer=answer, calls=calls)
            return state.with_alias(name, with_shift(found, after, now, revision))

        await self._context.states.change(plan.name, change)
        self._woken.set()

    async def _mine(self, plan: FunctionPlan, name: str, alias: AliasState, shift: Shift) -> bool:
        """Whether this worker carries the shift on. It takes over what no live worker carries on."""
        context = self._context
        if not context.holding() or context.others().listed is None:
            return False
        if not self._free(alias):
            return alias.driver == context.me

        def taken(state: FunctionState) -> FunctionState:
            found = state.aliases.get(name)
            if found is None or found.shift != shift or not self._free(found):
                return state
            return state.with_alias(name, replace(found, driver=context.me))

        after = (await context.states.change(plan.name, taken)).aliases.get(name)
        return after is not None and after.shift == shift and after.driver == context.me

    def _free(self, alias: AliasState) -> bool:
        return alias.driver != self._context.me and alias.driver not in self._context.others().alive

    async def _given_up(self, function: str, plan: FunctionPlan | None) -> None:
        """Leaves shifts to other workers whose aliases this worker does not have any more."""
        context = self._context

        def change(state: FunctionState) -> FunctionState:
            for name, found in state.aliases.items():
                mine = found.shifting is not None and found.driver == context.me
                if mine and (plan is None or context.states.alias(plan, name, state) is None):
                    state = state.with_alias(name, replace(found, driver=""))
            return state

        found = context.states.state(function)
        if change(found) != found:
            await context.states.change(function, change)

    def _call_hook(self, key: _HookKey, shift: Shift) -> None:
        if key in self._hooks or key in self._answers:
            return
        name = f"{TaskKind.SHIFT_HOOK} {key[0]}:{key[1]} {shift.state}"
        self._hooks[key] = self._scope.spawn(
            self._hooked(key, shift), name, partial(self._hook_ended, key, name)
        )

    async def _hooked(self, key: _HookKey, shift: Shift) -> None:
        """Calls a hook until it was called, or the shift waits for it no more."""
        hook = waits_for(shift)
        assert hook is not None, "a shift that waits for no hook"
        while key not in self._answers and self._waits(key):
            try:
                found = await self._context.caller.call(FunctionCall(function=hook, payload=payload(shift)))
            except NoRoom:
                await asyncio.sleep(HOOK_AGAIN_S)
            except ApiError as error:
                if error.fault is not ApiErrorType.SERVICE:
                    self._answers[key] = HookAnswer(shift.state, succeeded=False, reason=error.text)
                else:
                    await asyncio.sleep(HOOK_AGAIN_S)
            else:
                if isinstance(found.outcome, Throttled):
                    await asyncio.sleep(HOOK_AGAIN_S)
                else:
                    self._answers[key] = answer_of(shift, found.outcome)

    def _waits(self, key: _HookKey) -> bool:
        """Whether the shift is still in the state of this hook."""
        found = self._context.states.state(key[0]).aliases.get(key[1])
        shift = None if found is None else found.shift
        return shift is not None and (shift.shift, shift.state) == key[2:]

    def _hook_ended(self, key: _HookKey, name: str, end: TaskEnd, error: BaseException | None) -> None:
        """The next round calls a hook again whose task ended without an answer."""
        del self._hooks[key]
        self._woken.set()
        if error is not None or (end is TaskEnd.CANCELLED and not self._stop.requested):
            self._scope.report_end(TaskKind.SHIFT_HOOK, name, end, "" if error is None else reason_of(error))

    def _tell(self) -> None:
        """Tells observers what has changed, and forgets what has gone."""
        context = self._context
        found = {
            (plan.name, name): alias
            for plan in context.plans().values()
            for name, alias in context.states.aliases(plan).items()
        }
        for key in self._told.keys() - found.keys():
            self._tell_weights(key, self._told.pop(key), {})
        for key, alias in found.items():
            told, way = self._told.setdefault(key, _Told()), context.states.way(*key, alias)
            rest = max(0.0, 1.0 - sum(way.weights.values()))
            self._tell_weights(key, told, {way.version: rest, **way.weights})
            self._tell_shift(key, told, alias.shift)
        context.states.tallies.keep(set(found))
        running = {(*key, each.shift.shift) for key, each in found.items() if each.shift is not None}
        self._answers = {key: answer for key, answer in self._answers.items() if key[:3] in running}

    def _tell_weights(self, key: tuple[str, str], told: _Told, weights: Mapping[str, float]) -> None:
        gone = dict.fromkeys(told.weights.keys() - weights.keys(), 0.0)
        for version, weight in {**gone, **weights}.items():
            if told.weights.get(version) != weight:
                event = AliasWeight(function=key[0], alias=key[1], version=version, weight=weight)
                self._context.observer.on(event)
        told.weights = dict(weights)

    def _tell_shift(self, key: tuple[str, str], told: _Told, shift: Shift | None) -> None:
        now = None if shift is None else (shift.shift, shift.state)
        if shift is None or told.shift == now:
            return
        told.shift = now
        self._context.observer.on(
            ShiftChanged(
                function=key[0],
                alias=key[1],
                old=shift.old,
                new=shift.new,
                state=shift.state,
                reason=shift.ended_because,
            )
        )

    def _failed(self, function: str, error: PortError) -> None:
        """Leaves one function alone for a while; the others go on."""
        context, held = self._context, self._held.get(function)
        tries = 0 if held is None else held.tries
        wait_s = backoff.wait_s(context.port_backoff, tries, context.rng)
        self._held[function] = _Held(tries + 1, context.clock.monotonic() + wait_s)
        context.observer.on(StoreFailed(error=type(error).__name__, reason=error.reason, wait_s=wait_s))
