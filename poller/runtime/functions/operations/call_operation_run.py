"""Owns the run of one operation on asynchronous calls: it writes one call after the other, and stores how far it is.

Each write is on condition that nobody has written the call since it was read. So whatever workers do meanwhile, no call is changed
that somebody has claimed. A run may end at any moment: whoever goes on begins again, and finds done what was done.
"""

from collections import Counter
from collections.abc import Awaitable, Callable, Collection, Iterable
from dataclasses import dataclass
from functools import partial
from random import Random
from typing import assert_never

from poller.call_queue_ports import CallQueue
from poller.domain.errors import PortError, ResourceMissing, RowChanged
from poller.domain.functions.queued_calls import AsyncPolicy, CallEnd, CallId, QueuedCall
from poller.domain.operations import Action, Operation, PartResult, function_of
from poller.domain.policies import Backoff
from poller.domain.records import WorkerId
from poller.domain.telemetry.daemon_events import QueuedCallEnded
from poller.domain.telemetry.observers import Observer
from poller.domain.wording.numbers_of import inflected, number_of
from poller.ports import Clock
from poller.rules.backoff import wait_s
from poller.rules.functions.naming import NamedFunction
from poller.rules.functions.waiting_calls import place_behind
from poller.rules.operations import lifecycle
from poller.rules.operations.claims import claimed_by
from poller.rules.operations.members import ALL
from poller.rules.operations.on_calls import (
    CallStep,
    CallWord,
    LeaveAlone,
    Remove,
    Rewrite,
    retried,
    retry_result,
    skip_result,
    skipped,
)
from poller.runtime.functions.operations.call_redrive import CallRedrive, RedrivableCalls
from poller.runtime.operations.long.long_run import WAITING, PlaceOpener, noted
from poller.runtime.operations.open_operations import OpenOperations, OperationChange
from poller.runtime.stopping import Stop

SHOW_S = 1.0
"""How often the counts are stored."""
LOOK_S = 1.0
"""How often is looked whether calls that run have ended."""
PAGE_CALLS = 200
"""Calls that are listed at once."""
WRITES_MAX = 20
"""Tries of one call that others write all the time. Then it is looked at again later."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CallOperationContext:
    """What operations on calls work with. `gone` says which of these owners of calls are gone, `policy` how calls of an ARN are tried.

    `claimable` says whether this worker claims calls of a function. `wake` makes it look for calls that are due. `named` resolves a
    function's qualifier, `put` stores a new call, and `opener` opens the queues that a redrive reads.
    """

    worker: WorkerId
    store: CallQueue
    gone: Callable[[Collection[WorkerId]], Collection[WorkerId]]
    policy: Callable[[str, str], AsyncPolicy]
    claimable: Callable[[str], bool]
    wake: Callable[[], None]
    named: Callable[[str, str], NamedFunction]
    put: Callable[[QueuedCall], Awaitable[None]]
    opener: PlaceOpener
    clock: Clock
    rng: Random
    observer: Observer
    port_backoff: Backoff


class CallOperationRun:
    """One operation that this worker has claimed. `stop` is asked to stop when the worker stops, or it is over or another's."""

    def __init__(
        self, context: CallOperationContext, operations: OpenOperations, operation: Operation, stop: Stop
    ) -> None:
        function = function_of(operation.mapping)
        assert function is not None, "an operation on a mapping is no operation on calls"
        self._context = context
        self._operations = operations
        self._operation = operation
        self._function = function
        self._stop = stop
        self._tally: Counter[str] = Counter()
        self._handled: set[CallId] = set()
        """The calls that are counted. The store may be in trouble in the middle, and they are gone through again."""
        self._show_due = context.clock.monotonic() + SHOW_S

    async def run(self) -> PartResult | None:
        """Carries the operation out, and returns what came of it. None: a stop came first, or it is over or another's."""
        if self._operation.request.action is Action.REDRIVE:
            return await self._redriven()
        members, tries = self._operation.request.members, 0
        chosen = members["calls"]
        # The ids of all are not kept: what a worker before this one has done is known by its counts alone.
        self._tally = Counter(self._operation.progress if chosen == ALL else {})
        self._tally -= Counter({CallWord.RUNNING: self._tally[CallWord.RUNNING]})
        left: list[CallId] = [] if chosen == ALL else [CallId(each) for each in chosen]
        listed = chosen != ALL
        while self._current() is not None and not self._stopping():
            try:
                if not listed:
                    left = await self._all()
                    listed = True
                left = await self._some(left)
            except PortError as error:
                await self._waits(f"the store is in trouble: {error.reason}")
                await self._stop.sleep(max(LOOK_S, self._delay_s(tries)))
                tries += 1
                continue
            self._context.wake()
            if not left:
                return None if self._stopping() else self._result()
            await self._waits(f"{number_of(len(left), 'call')} {inflected(len(left), 'runs', 'run')}")
            await self._stop.sleep(LOOK_S)
        return None

    async def _redriven(self) -> PartResult | None:
        """Takes calls back from a queue."""
        context, members = self._context, self._operation.request.members
        calls = RedrivableCalls(
            self._function, members["from"], named=context.named, put=context.put, clock=context.clock
        )
        redrive = CallRedrive(
            self._operation,
            calls,
            context.opener,
            stop=self._stop,
            clock=context.clock,
            wait_s=self._delay_s,
            current=self._current,
            change=self.change,
            waits=self._waits,
        )
        try:
            return await redrive.run()
        finally:
            self._tally = Counter(redrive.tally.progress())

    async def change(self, rule: OperationChange) -> None:
        """Changes the operation, and repeats that while the store is in trouble, until a stop."""
        tries = 0
        while not self._stop.requested and (operation := self._current()) is not None:
            try:
                await self._operations.change(operation, rule)
            except PortError:
                await self._stop.sleep(max(LOOK_S, self._delay_s(tries)))
                tries += 1
            else:
                return

    async def _all(self) -> list[CallId]:
        """Goes through the calls that were accepted before the operation. Returns those that run and are waited for."""
        after, waiting = None, []
        while not self._stopping():
            calls = await self._context.store.calls(self._function, calls_max=PAGE_CALLS, after=after)
            if not calls:
                break
            after = place_behind(calls)
            for call in calls:
                if call.accepted <= self._operation.created and not await self._one(call.call, call):
                    waiting.append(call.call)
                if self._stopping():
                    break
        return waiting

    async def _some(self, chosen: Iterable[CallId]) -> list[CallId]:
        """Goes through chosen calls. Returns those that run and are waited for."""
        waiting = []
        for name in chosen:
            if self._stop.requested or not await self._one(name, None):
                waiting.append(name)
        return waiting

    async def _one(self, name: CallId, listed: QueuedCall | None) -> bool:
        """Carries the operation out on one call. Returns False if it is to be looked at again. Raises PortError."""
        if name in self._handled:
            return True
        call = listed
        for _ in range(WRITES_MAX):
            if call is None or call.ended is not None:
                # A listed call has no answer, which its destinations need.
                call = await self._context.store.find(self._function, name)
            word = await self._carried_out(call)
            if word is CallWord.RUNNING and self._operation.request.action is Action.SKIP:
                return False
            if word is not None:
                self._tally[word] += 1
                self._handled.add(name)
                await self._show()
                return True
            call = None
        return False

    def _step(self, call: QueuedCall) -> CallStep:
        context, request, now = self._context, self._operation.request, self._context.clock.now()
        running = self._runs(call)
        if request.action is Action.RETRY:
            return retried(call, now, running=running)
        policy = context.policy(call.function, call.arn)
        discard = bool(request.members["discard"])
        return skipped(call, policy, now, running=running, discard=discard, reason=request.reason)

    def _runs(self, call: QueuedCall) -> bool:
        """Whether somebody may work on the call now. What this worker has claimed may not be known as running yet."""
        owner = call.owner
        if owner is None:
            return False
        if owner == self._context.worker:
            return self._context.claimable(call.function)
        return owner not in self._context.gone({owner})

    async def _carried_out(self, call: QueuedCall | None) -> CallWord | None:
        """Writes what is to be done to one call. None: the call has changed meanwhile."""
        if call is None:
            return CallWord.GONE
        store, step = self._context.store, self._step(call)
        match step:
            case LeaveAlone(word):
                return word
            case Rewrite(wanted):
                return await _written(store.replace(wanted))
            case Remove(ended):
                removed = await _written(store.remove(ended))
                if removed is CallWord.DONE:
                    self._emit_dropped(ended)
                return removed
            case _:
                assert_never(step)

    def _emit_dropped(self, call: QueuedCall) -> None:
        now = self._context.clock.now()
        self._context.observer.on(
            QueuedCallEnded(
                function=call.function,
                request_id=call.call,
                end=CallEnd.SKIPPED,
                attempts=call.attempts,
                age_s=max(0.0, now - call.accepted),
                error=call.last_error,
            )
        )

    async def _show(self) -> None:
        """Stores the counts once a second at most."""
        now = self._context.clock.monotonic()
        if now >= self._show_due:
            self._show_due = now + SHOW_S
            await self.change(partial(lifecycle.count, progress=dict(self._tally)))

    async def _waits(self, why: str) -> None:
        """Notes what the operation waits for, for people."""
        operation = self._current()
        if operation is not None and operation.notes.get(WAITING) != [why]:
            await self.change(partial(noted, waiting=[why]))

    def _result(self) -> PartResult:
        if self._operation.request.action is Action.RETRY:
            return retry_result(self._tally)
        return skip_result(self._tally, discard=bool(self._operation.request.members["discard"]))

    @property
    def progress(self) -> dict[str, int]:
        """The counts so far."""
        return dict(self._tally)

    def _stopping(self) -> bool:
        return self._stop.requested

    def _current(self) -> Operation | None:
        found = self._operations.get(self._operation.operation)
        return found if found is not None and claimed_by(found) == self._context.worker else None

    def _delay_s(self, tries: int) -> float:
        return wait_s(self._context.port_backoff, tries, self._context.rng)


async def _written(write: Awaitable[object]) -> CallWord | None:
    try:
        await write
    except RowChanged:
        return None
    except ResourceMissing:
        return CallWord.GONE
    return CallWord.DONE
