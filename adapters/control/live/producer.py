"""Owns the one producer of updates for all readers: it looks at what runs once a second, and sends what differs.

It runs only while somebody reads. A reader that comes gets the whole status first, as all others have it. What costs more comes more
seldom: after a look that kept the loop busy the next one waits for many times as long, a large list of operations waits until its size allows
it, and the store is asked about other workers every few seconds at most, and about each mapping's leases even less often.
"""

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any

from adapters.control.live.alias_looks import AliasLooks
from adapters.control.live.differences import SentStatus
from adapters.control.live.events import OperationEvents, event, newest
from adapters.control.live.readers import Reader, Readers
from poller.domain.functions.calls import FunctionCaller
from poller.domain.mapping_api import ApiError
from poller.domain.operations import KnownOperations, Operation, OperationControl
from poller.domain.records import Epoch
from poller.domain.status import DaemonStatus, StatusView
from poller.domain.telemetry.history import HistorySource, RecentHistory
from poller.loop_turns import LoopTurns
from poller.output.log_fields import EVENT

LOOK_S = 1.0
"""The shortest time between two updates."""
LOOK_FACTOR = 20.0
"""After a look that took so long, the next one waits for so many times as long: one part in twenty of the loop's time."""
LOOK_S_MAX = 10.0
WORKERS_S = 2.0
"""How often the store is asked what other workers have written. What is older than five seconds would be shown as out of date."""
LEASES_S = 4.0
LEASES_PER_S = 50.0
"""How often the leases are read, and how many mappings' leases a second at most."""
OPERATIONS_BYTES_PER_S = 250_000
"""How fast the list of operations is sent to each reader at most, while it changes all the time."""
ENDED_S = 300.0
"""How often the store is asked for operations that are over, if none is known to have ended."""
ENDED_AGAIN_S = 5.0
"""After so long at the earliest the store is asked for them again."""


log = logging.getLogger("poller.control")


class Operations:
    """What is known of operations: the open ones as this worker knows them now, and those that ended, which the store is asked for."""

    def __init__(self, control: OperationControl | None) -> None:
        self._control = control
        given: object = control
        self._known = given if isinstance(given, KnownOperations) else None
        self._events = OperationEvents()
        self._open: dict[str, int] = {}
        self._last: Sequence[Operation] = ()
        self._ended: Sequence[Operation] = ()
        self._asked = float("-inf")
        self._due = float("-inf")
        self._sent: Any = None
        self._not_before = float("-inf")
        self.event = b""
        """The event as it was made last."""

    async def follow(self, now: Callable[[], float]) -> None:
        """Asks for the operations that are over, whenever one has ended."""
        if self._control is None or now() < max(self._due, self._asked + ENDED_AGAIN_S):
            return
        self._asked, self._due = now(), now() + ENDED_S
        try:
            self._ended = newest(await self._control.operations())
        except ApiError:
            # The store does not answer, or the daemon drains: what is known stays, and it is asked again.
            self._due = now()

    def changed(self, now: float) -> bool:
        """Makes the event if something differs. Returns whether it has to be sent."""
        known = None if self._known is None else self._known.known_open()
        if known is None:
            # The daemon drains: what was known stays.
            known = self._last
        self._last = known
        found = {each.operation: each for each in known}
        if self._open.keys() - found.keys():
            self._due = now
        self._open = {name: each.revision for name, each in found.items()}
        ended = [each for each in self._ended if each.operation not in found]
        state = self._open, [(each.operation, each.revision) for each in ended]
        if state == self._sent or now < self._not_before:
            return False
        self._sent = state
        self.event = self._events.event(found.values(), ended)
        self._not_before = now + len(self.event) / OPERATIONS_BYTES_PER_S
        return True


class Look:
    """What the last look at the status has found, and what the readers have of it."""

    def __init__(self, status: DaemonStatus) -> None:
        self._status = status
        self._sent = SentStatus(status)
        self._whole: bytes | None = None

    def events(self, status: DaemonStatus) -> list[bytes]:
        """What to send to those who have what the looks before have found."""
        self._status, self._whole = status, None
        changes = self._sent.changes(status)
        if changes is None:
            self._sent = SentStatus(status)
            return [self.whole()]
        return [event("changed", changes)] if changes else []

    def whole(self) -> bytes:
        """The event of the whole status."""
        if self._whole is None:
            self._whole = event("status", self._status)
        return self._whole


class UpdateProducer:
    """Sends updates to all readers. `run` once."""

    def __init__(
        self,
        readers: Readers,
        view: StatusView,
        operations: OperationControl | None,
        history: HistorySource | None,
        calls: FunctionCaller | None = None,
    ) -> None:
        self._readers = readers
        self._calls = calls
        self._view = view
        self._control = operations
        self._history = history
        self._turns = LoopTurns()
        self._now = asyncio.get_running_loop().time

    async def run(self) -> None:
        """Waits for readers, and sends them updates while there are any; until it is cancelled."""
        while True:
            while not self._readers.count:
                self._readers.woken.clear()
                await self._readers.woken.wait()
            try:
                await self._serve()
            except Exception:
                # A bug in one look must not end the port, which has probes and metrics too.
                log.error("updates broke off", exc_info=True, extra={EVENT: "updates_failed"})
                self._readers.end_all()
                await asyncio.sleep(LOOK_S)

    async def _serve(self) -> None:
        """Sends updates until the last reader has gone."""
        operations = Operations(self._control)
        async with asyncio.TaskGroup() as tasks:
            following = [
                tasks.create_task(self._ask_for_ended(operations), name="updates: operations that are over"),
                tasks.create_task(self._ask_for_workers(), name="updates: other workers"),
            ]
            try:
                await self._send_while_read(operations)
            finally:
                for each in following:
                    each.cancel()

    async def _send_while_read(self, operations: Operations) -> None:
        look, aliases = Look(await self._view.fleet(ask=False)), AliasLooks(self._calls)
        operations.changed(self._now())
        aliases.changed(self._now())
        steps = self._history.steps() if self._history is not None else 0
        due = self._now() + LOOK_S
        while self._readers.count:
            if self._now() >= due:
                began = time.perf_counter()
                for each in look.events(await self._view.fleet(ask=False)):
                    self._readers.offer(each)
                if operations.changed(self._now()):
                    self._readers.offer(operations.event)
                if aliases.changed(self._now()):
                    self._readers.offer(aliases.event)
                steps = await self._send_steps(steps)
                took_s = time.perf_counter() - began
                due = self._now() + min(LOOK_S_MAX, max(LOOK_S, LOOK_FACTOR * took_s))
            if new := self._readers.take_new():
                await self._welcome(new, [look.whole(), operations.event, *filter(None, [aliases.event])])
            await self._wait(due)

    async def _wait(self, due: float) -> None:
        """Waits until it is time for the next look, or a reader comes."""
        self._readers.woken.clear()
        try:
            async with asyncio.timeout_at(due):
                await self._readers.woken.wait()
        except TimeoutError:
            return

    async def _welcome(self, new: Sequence[Reader], events: Sequence[bytes]) -> None:
        """Sends the first events to readers that have come: these, and the history."""
        first = [*events, event("history", await self._whole_history())]
        for reader in new:
            for each in first:
                reader.offer(each)

    async def _whole_history(self) -> RecentHistory:
        if self._history is None:
            return RecentHistory(now=Epoch(time.time()))
        return await self._turns.slices(self._history.slices())

    async def _send_steps(self, steps: int) -> int:
        """Sends the newest step of the history if it has just ended. Returns how many have ended."""
        if self._history is None:
            return 0
        ended = self._history.steps()
        if ended == steps + 1:
            self._readers.offer(event("point", self._history.point()))
        elif ended != steps:
            self._readers.offer(event("history", await self._whole_history()))
        return ended

    async def _ask_for_ended(self, operations: Operations) -> None:
        while True:
            await operations.follow(self._now)
            await asyncio.sleep(LOOK_S)

    async def _ask_for_workers(self) -> None:
        """Reads what other workers have written, so that looks have it; nothing if this worker is alone."""
        leases_due = self._now()
        while True:
            if self._now() >= leases_due:
                status = await self._view.fleet()
                leases_due = self._now() + max(LEASES_S, len(status.mappings) / LEASES_PER_S)
            else:
                await self._view.refresh()
            await asyncio.sleep(WORKERS_S)


@asynccontextmanager
async def producing(producer: UpdateProducer) -> AsyncIterator[None]:
    """Sends updates while the context is open."""
    async with asyncio.TaskGroup() as tasks:
        running = tasks.create_task(producer.run(), name="updates")
        try:
            yield
        finally:
            running.cancel()
