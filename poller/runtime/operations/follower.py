"""Owns how a worker follows the operations of the store: it reads those that are not over every two seconds, and at once when asked here.

After each read the mappings get their pauses, what is due here is carried out, and what nobody can carry out any more is closed.
While the store is in trouble, pauses stay as they were read last, and nothing new begins.
"""

import asyncio
from collections.abc import Callable, Sequence
from typing import Protocol

from poller.domain.errors import PortError
from poller.domain.operations import OperatorPause
from poller.domain.records import MappingId, Monotonic
from poller.domain.telemetry.daemon_events import StoreFailed
from poller.rules.backoff import wait_s
from poller.runtime.operations.carrying import Carrier
from poller.runtime.operations.closing import OperationCloser
from poller.runtime.operations.follower_context import FollowerContext
from poller.runtime.operations.long.long_running import LongRunning
from poller.runtime.operations.open_operations import OpenOperations
from poller.runtime.operations.operable import Operable
from poller.runtime.operations.operable_mappings import OperableMappings
from poller.runtime.operations.pausing import Pausing
from poller.runtime.replays.replay_run import ReplayContext
from poller.runtime.replays.replays import Replays
from poller.runtime.stopping import Stop, interrupted_by, wait_until
from poller.runtime.watched_tasks import WatchedTasks

READ_S = 2.0
"""The interval at which the open operations are read."""
READ_TROUBLED_S = 10.0
"""The longest interval while the store is in trouble. A request to this worker is followed at once even then."""
PRUNE_S = 600.0
PRUNE_FIRST_S = 60.0
PRUNE_ENDED_MAX = 100
"""The history is pruned so often, and also after so many operations have ended by this worker."""


class Followed(Protocol):
    """What else carries out operations, beside those on mappings."""

    def follow(self) -> None:
        """Begins what is due here, and stops what is over. It is called after each read of the operations."""
        ...


class Follower:
    """Follows the operations of the store on one worker."""

    def __init__(
        self,
        operations: OpenOperations,
        running: OperableMappings,
        stop: Stop,
        context: FollowerContext,
    ) -> None:
        self.beside: Callable[[OpenOperations, WatchedTasks, Stop], Followed] | None = None
        """Makes what carries out operations on asynchronous calls; None if the store keeps none."""
        self._operations = operations
        self._pausing = Pausing(operations, clock=context.clock, observer=context.observer)
        self._running = running
        self._stop = stop
        self._context = context
        self._woken = asyncio.Event()
        self._trouble = ""
        self._prune_due = Monotonic(context.clock.monotonic() + PRUNE_FIRST_S)
        self._pruned_at = 0
        self._closer = OperationCloser(
            operations,
            running,
            worker=context.worker,
            store=context.store,
            peers=context.peers,
            clock=context.clock,
        )

    def introduce(self, mapping: MappingId, operable: Operable) -> None:
        """Gives a mapping its pauses before it begins anything."""
        self._pausing.introduce(mapping, operable, troubled=bool(self._trouble))
        self.wake()

    def read_again(self, mapping: MappingId) -> None:
        """Gives a mapping the pauses of a read that begins after this call, also if they are the same as before."""
        self._pausing.read_again(mapping)
        self.wake()

    def pauses(self, mapping: MappingId) -> tuple[OperatorPause, ...] | None:
        """The pauses of a mapping that are in force; None while they are not known."""
        return self._pausing.of(mapping)

    def wake(self) -> None:
        """Reads the operations at once."""
        self._woken.set()

    def notes(self) -> Sequence[str]:
        """Notes for people, one line each."""
        if not self._trouble:
            return ()
        meanwhile = (
            "no pause is known yet, so nothing is called"
            if self._operations.known is None
            else "pauses stay as they are, other operations wait"
        )
        return (f"operations cannot be read: {self._trouble}; {meanwhile}",)

    async def delete(self, mapping: MappingId) -> None:
        """Ends the operations of a mapping that was deleted; raises PortError."""
        await self._closer.delete(mapping)

    async def run(self) -> None:
        """Follows the operations until the daemon stops, then waits for what is carried out here."""
        context, tries = self._context, 0
        async with WatchedTasks(context.observer) as scope:
            carrier = Carrier(
                self._operations,
                self._running,
                scope,
                self._stop,
                clock=context.clock,
                rng=context.rng,
                port_backoff=context.port_backoff,
            )
            long_running = LongRunning(
                self._operations, self._running, self._pausing, scope, self._stop, context=context
            )
            replays = self._replays(scope)
            followed: list[Followed] = [carrier, long_running, *self._others(scope)]
            with self._stop.waking(self._woken):
                while not self._stop.requested:
                    self._woken.clear()
                    try:
                        async with interrupted_by(self._stop):
                            await self._round(followed, replays)
                    except PortError as error:
                        delay_s = self._delay_s(tries)
                        self._failed(error, delay_s, first=not tries)
                        tries += 1
                        await wait_until(self._woken, delay_s)
                    else:
                        tries, self._trouble = 0, ""
                        await wait_until(self._woken, READ_S)
            carrier.end()

    def _replays(self, scope: WatchedTasks) -> Replays | None:
        context = self._context
        if context.replays is None:
            return None
        working_with = ReplayContext(
            worker=context.worker,
            operations=self._operations,
            host=context.replays,
            store=context.store,
            peers=context.peers,
            clock=context.clock,
            rng=context.rng,
            observer=context.observer,
            port_backoff=context.port_backoff,
        )
        return Replays(self._running, self._pausing, scope, self._stop, working_with)

    def _others(self, scope: WatchedTasks) -> list[Followed]:
        return [] if self.beside is None else [self.beside(self._operations, scope, self._stop)]

    async def _round(self, followed: Sequence[Followed], replays: Replays | None) -> None:
        """Reads the operations once, and does what follows; raises PortError."""
        await self._operations.read()
        self._trouble = ""
        self._pausing.apply(self._running)
        for each in followed:
            each.follow()
        if replays is not None:
            replays.follow()
        await self._pausing.confirm(self._running)
        await self._closer.close()
        await self._operations.look_up()
        self._pausing.apply(self._running)
        if replays is not None:
            await replays.tidy()
        await self._prune()

    async def _prune(self) -> None:
        """Prunes the history now and then. All workers do; the first one leaves nothing to the others."""
        now, ended = self._context.clock.monotonic(), self._operations.ended
        if now < self._prune_due and ended - self._pruned_at < PRUNE_ENDED_MAX:
            return
        # If it fails, operations are followed all the same until the next try.
        self._prune_due, self._pruned_at = Monotonic(now + PRUNE_FIRST_S), ended
        await self._operations.prune()
        self._prune_due = Monotonic(now + PRUNE_S)

    def _delay_s(self, tries: int) -> float:
        backoff_s = wait_s(self._context.port_backoff, tries, self._context.rng)
        return min(max(READ_S, backoff_s), READ_TROUBLED_S)

    def _failed(self, error: PortError, delay_s: float, *, first: bool) -> None:
        self._trouble = error.reason
        if first:
            event = StoreFailed(error=type(error).__name__, reason=error.reason, wait_s=delay_s)
            self._context.observer.on(event)
