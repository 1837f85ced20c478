"""Owns the asynchronous calls of this worker: it puts new ones into the store, claims those that are due, and runs them.

All workers of a store share its calls. Each looks for calls that are due, at once after it has put one itself, otherwise every few
seconds. A function is never claimed more calls for than it can have at once here, so that the others get their part.
"""

import asyncio
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

from poller.domain.errors import PortError
from poller.domain.functions.calls import NoRoom, ThrottleReason
from poller.domain.functions.queued_calls import CallBacklog, CallId, QueuedCall
from poller.domain.plan import FunctionPlan
from poller.domain.policies import Backoff
from poller.domain.records import Epoch, WorkerId
from poller.domain.telemetry.daemon_events import CallsWaiting, StoreFailed
from poller.domain.telemetry.labels import TaskEnd, TaskKind
from poller.rules import backoff
from poller.rules.functions.call_owners import CallOwners
from poller.rules.functions.queued_calls import reclaimed
from poller.rules.workers.worker_group import KnownWorkers
from poller.runtime.functions.queued_call_run import CallRunContext, QueuedCallRun
from poller.runtime.stopping import Stop, interrupted_by, wait_until
from poller.runtime.watched_tasks import WatchedTasks, reason_of

LOOK_S = 2.0
"""The longest time between two looks at the store while it has calls."""
IDLE_LOOK_S = 5.0
"""The same while it has none."""
IN_VAIN_S_MAX = 60.0
"""The longest time between two claims of a function of which nothing that is due can be claimed, such as damaged calls."""
LISTED_MAX = 50
"""Calls that are read then to see when the next one is due."""
CLAIMS_MAX = 64
"""Calls of one function that one worker has claimed at once."""
FAULTS = Backoff(base_s=1.0, cap_s=300.0)
"""The waits before a call is made again whose run was ended by a fault."""
RESTING_MAX = 1_000
"""Such calls that are remembered."""
CALLS_MAX = 100_000
"""Calls that the store keeps for one function. Beyond it, new ones are refused."""


@dataclass(slots=True)
class _Running:
    """A call that this worker has claimed. While it is `delivering`, its function is done with it, and it takes no room there."""

    function: str
    delivering: bool = False


@dataclass(frozen=True, slots=True)
class _Rest:
    """A call whose run was ended by a fault, `faults` times in a row. It is not claimed here before `until`."""

    function: str
    faults: int
    until: Epoch


@dataclass(frozen=True, slots=True, kw_only=True)
class CallWorkers:
    """This worker, what it knows of the others, and whether its heartbeats are in time."""

    me: WorkerId
    others: Callable[[], KnownWorkers]
    holding: Callable[[], bool]


@dataclass(frozen=True, slots=True)
class VainClaim:
    """A claim of calls that are due brought none: what was known of them, and when it is of use to claim again.

    `left` are the owners whose calls were free. Damaged calls stay due for ever, and hide when the next call behind them is due.
    """

    backlog: CallBacklog
    left: frozenset[WorkerId]
    until: Epoch

    def holds(self, backlog: CallBacklog, left: frozenset[WorkerId], now: Epoch) -> bool:
        """Whether another claim would bring nothing, because nothing has changed since."""
        return now < self.until and (self.backlog, self.left) == (backlog, left)


class CallQueues:
    """The asynchronous calls of one daemon. `scope` has a task for each call that runs here."""

    def __init__(
        self, context: CallRunContext, workers: CallWorkers, scope: WatchedTasks, stop: Stop
    ) -> None:
        self.tasks: set[asyncio.Task[None]] = set()
        """They end when the daemon is asked to stop and the calls that run have ended."""
        self._context = context
        self._workers = workers
        self._scope = scope
        self._stop = stop
        self._woken = asyncio.Event()
        self._owners = CallOwners()
        self._running: dict[CallId, _Running] = {}
        """The calls that this worker has claimed."""
        self._resting: dict[CallId, _Rest] = {}
        self._backlogs: Mapping[str, CallBacklog] = {}
        self._put: Counter[str] = Counter()
        """Calls that were put since the backlogs were read."""
        self._tries = 0
        self._lost_claims: Counter[str] = Counter()
        """Claims of each function that failed since the last one that did not. The store may have carried them out."""
        self._in_vain: dict[str, VainClaim] = {}
        """Functions of which nothing that is due could be claimed."""

    @property
    def backlogs(self) -> Sequence[CallBacklog]:
        """The calls that wait or run, by function, as they were last read."""
        return [self._backlogs[name] for name in sorted(self._backlogs)]

    async def put(self, call: QueuedCall) -> None:
        """Stores a call. Raises NoRoom if the function has too many, and PortError if the store may not have it."""
        kept = self._backlogs.get(call.function)
        if (0 if kept is None else kept.calls) + self._put[call.function] >= CALLS_MAX:
            raise NoRoom(
                ThrottleReason.CALLER, f"{CALLS_MAX} asynchronous calls of {call.function} wait already"
            )
        await self._context.store.put(call)
        self._put[call.function] += 1
        self._woken.set()

    def wake(self) -> None:
        """Looks at once for calls that are due, also where nothing could be claimed just now."""
        self._in_vain.clear()
        self._woken.set()

    async def run(self) -> None:
        """Claims calls that are due and runs them, until a stop."""
        with self._stop.waking(self._woken):
            while not self._stop.requested:
                self._woken.clear()
                wait_s = IDLE_LOOK_S
                async with interrupted_by(self._stop):
                    wait_s = await self._look()
                await wait_until(self._woken, wait_s)

    async def _look(self) -> float:
        """Claims what is due, and returns the seconds until the next look."""
        try:
            backlogs = await self._context.store.backlogs()
            self._note(backlogs)
            claimed = [await self._claim(each) for each in backlogs]
        except PortError as error:
            wait_s = backoff.wait_s(self._context.port_backoff, self._tries, self._context.rng)
            self._tries += 1
            self._context.observer.on(
                StoreFailed(error=type(error).__name__, reason=error.reason, wait_s=wait_s)
            )
            return wait_s
        self._tries = 0
        if any(claimed):
            # There may be more that is due.
            return 0.0
        now = self._context.clock.now()
        waits = [max(0.0, each.next_due - now) for each in backlogs if each.next_due > now]
        return min([LOOK_S if backlogs else IDLE_LOOK_S, *waits])

    def _note(self, backlogs: Sequence[CallBacklog]) -> None:
        gone = self._backlogs.keys() - {each.function for each in backlogs}
        self._backlogs = {each.function: each for each in backlogs}
        self._put.clear()
        now = self._context.clock.now()
        for each in backlogs:
            age_s = max(0.0, now - each.oldest)
            self._context.observer.on(CallsWaiting(function=each.function, calls=each.calls, oldest_s=age_s))
        for function in gone:
            self._context.observer.on(CallsWaiting(function=function, calls=0, oldest_s=0.0))

    async def _claim(self, backlog: CallBacklog) -> bool:
        """Claims calls of a function as far as there is room for them. Returns whether it has claimed as many as it could."""
        plan = self._context.plans().get(backlog.function)
        now = self._context.clock.now()
        if plan is None or not self._context.ready(plan.name) or not self._workers.holding():
            return False
        self._owners, gone = self._owners.seen(
            backlog.owners, self._workers.others(), me=self._workers.me, now=self._context.clock.monotonic()
        )
        running = (each for each in self._running.values() if each.function == backlog.function)
        room = _room(plan) - sum(not each.delivering for each in running)
        # Calls of this worker's own name that do not run here were left by an earlier process, or could not be written back.
        left = backlog.owners & (gone | {self._workers.me})
        vain = self._in_vain.get(backlog.function)
        if room <= 0 or (backlog.next_due > now and not left) or (vain and vain.holds(backlog, left, now)):
            return False
        try:
            calls = await self._context.store.claim(
                backlog.function,
                now=now,
                owner=self._workers.me,
                gone=gone,
                held=frozenset(self._running) | self._at_rest(now),
                calls_max=room,
            )
        except PortError:
            self._lost_claims[backlog.function] += 1
            raise
        lost = self._lost_claims.pop(backlog.function, 0)
        for call in calls:
            self._start(reclaimed(call, lost))
        self._in_vain.pop(backlog.function, None)
        if not calls:
            until = await self._claimable_at(backlog, now)
            self._in_vain[backlog.function] = VainClaim(backlog, left, until)
        return len(calls) == room

    async def _claimable_at(self, backlog: CallBacklog, now: Epoch) -> Epoch:
        """When the first of the calls that can be read is due, if what is due now cannot be claimed."""
        calls = await self._context.store.calls(backlog.function, calls_max=LISTED_MAX)
        free = [each.due for each in calls if each.owner is None]
        free += [each.until for each in self._resting.values() if each.function == backlog.function]
        last = now + (LOOK_S if len(calls) == LISTED_MAX else IN_VAIN_S_MAX)
        return Epoch(max(now + LOOK_S, min([*free, last])))

    def _at_rest(self, now: Epoch) -> frozenset[CallId]:
        return frozenset(call for call, rest in self._resting.items() if now < rest.until)

    def _start(self, call: QueuedCall) -> None:
        running = self._running[call.call] = _Running(call.function)

        def delivers() -> None:
            running.delivering = True
            self._woken.set()

        run = QueuedCallRun(self._context, call, self._stop, delivers=delivers)
        name = f"{TaskKind.QUEUED_CALL} {call.call}"
        task = self._scope.spawn(run.run(), name, partial(self._ended, call.call, name))
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)

    def _ended(self, call: CallId, name: str, end: TaskEnd, error: BaseException | None) -> None:
        """A call that was not written back is claimed again, by this worker or another one; after a fault not at once."""
        running = self._running.pop(call)
        rest = self._resting.pop(call, None)
        if error is not None or (end is TaskEnd.CANCELLED and not self._stop.requested):
            self._scope.report_end(TaskKind.QUEUED_CALL, name, end, "" if error is None else reason_of(error))
            self._rest(call, running.function, 0 if rest is None else rest.faults)
        self._woken.set()

    def _rest(self, call: CallId, function: str, faults: int) -> None:
        if len(self._resting) >= RESTING_MAX:
            del self._resting[next(iter(self._resting))]
        wait_s = backoff.retry_wait_s(FAULTS, faults, self._context.rng)
        until = Epoch(self._context.clock.now() + wait_s)
        self._resting[call] = _Rest(function, faults + 1, until)
        self._in_vain.pop(function, None)


def _room(plan: FunctionPlan) -> int:
    """How many calls of a function this worker may have claimed at once."""
    return CLAIMS_MAX if plan.max_concurrency is None else min(plan.max_concurrency, CLAIMS_MAX)
