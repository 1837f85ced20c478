"""Owns the supervisor: it starts the processes, starts ended ones again, passes questions and answers on, and ends all of them.

The first process starts alone. If it cannot start as configured, the others could not either, and the error is told once. When it
has begun to work, the others follow.

Exactly one process is the front, which serves the port. The listening socket belongs to the supervisor, so clients that connect
while the front is replaced wait for a moment and are not refused.
"""

import asyncio
import logging
import signal
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from poller.commands.run.early_signals import INTERRUPTED
from poller.commands.run.ending import LAST_RESORT_S
from poller.commands.supervise.children import Child, Slot
from poller.commands.supervise.frames import BrokenFrame, Frame, frames
from poller.domain.records import WorkerId
from poller.output.log_fields import EVENT
from poller.rules.backoff import Chance
from poller.rules.supervision.restarts import WRONG_CONFIGURATION, Beginning, after_end, gives_up

log = logging.getLogger("poller.supervisor")

FIRST_S_MAX = 60.0
"""If the first process is still opening what it needs after so long, the others start all the same."""
LATE_S = 5.0
"""A process ends by itself within its grace time and LAST_RESORT_S. So much later it is killed."""
CUT_SHORT_S_MAX = 15.0
"""How long a process may take to end after a second signal."""
LOOK_S = 0.2

type StartProcess = Callable[[Slot], Awaitable[Child]]
"""Starts the process of a slot; raises OSError."""


class ProcessSupervisor:
    """The processes of one daemon. `grace_s` is how long running invocations may take after a stop."""

    def __init__(self, start: StartProcess, workers: Sequence[str], *, grace_s: float, rng: Chance) -> None:
        self._start = start
        self._grace_s = grace_s
        self._rng = rng
        self._slots = [Slot(index, WorkerId(name)) for index, name in enumerate(workers)]
        self._front: Slot | None = None
        self._beginning = Beginning()
        self._others_may = asyncio.Event()
        self._stopping = asyncio.Event()
        self._gave_up: int | None = None

    async def run(self) -> int:
        """Runs until all processes have ended after a signal, or none can start. Returns the exit status of the daemon."""
        async with asyncio.TaskGroup() as tasks:
            killing = tasks.create_task(self._kill_late(), name="late processes")
            keepers = [
                tasks.create_task(self._keep(each), name=f"process {each.index}") for each in self._slots
            ]
            await asyncio.wait(keepers)
            killing.cancel()
        if self._gave_up is not None:
            return self._gave_up
        return max(each.status if each.status >= 0 else INTERRUPTED for each in self._slots)

    def on_signal(self, name: str) -> None:
        """Takes SIGTERM or SIGINT: the first one drains all processes, each further one cuts them short."""
        if self._stopping.is_set():
            self._cut_short()
        else:
            self._stop()

    def _stop(self) -> None:
        self._stopping.set()
        self._others_may.set()
        for child in self._children():
            self._drain(child)

    def _drain(self, child: Child) -> None:
        """A real signal works at any moment: before the process reads from its connection, and while its loop is blocked."""
        child.kill_at = self._after(self._grace_s + LAST_RESORT_S + LATE_S)
        _signal(child, signal.SIGTERM)

    def _cut_short(self) -> None:
        for child in self._children():
            child.kill_at = self._after(CUT_SHORT_S_MAX)
            if child.begun:
                child.send("end")

    def _children(self) -> list[Child]:
        return [each.child for each in self._slots if each.child is not None]

    def _after(self, delay_s: float) -> float:
        return asyncio.get_running_loop().time() + delay_s

    async def _keep(self, slot: Slot) -> None:
        """Keeps the process of a slot running until the daemon stops."""
        if slot.index > 0:
            await self._others_may.wait()
        loop = asyncio.get_running_loop()
        while not self._stopping.is_set():
            began = loop.time()
            slot.status = await self._run(slot)
            if self._stopping.is_set():
                return
            self._beginning = self._beginning.ended()
            if gives_up(self._beginning, slot.status):
                self._give_up(slot)
                return
            await self._wait_to_restart(slot, ran_s=loop.time() - began)

    async def _wait_to_restart(self, slot: Slot, *, ran_s: float) -> None:
        slot.restarts, delay_s = after_end(slot.restarts, ran_s=ran_s, rng=self._rng)
        slot.ended = (
            f"it has ended ({_how(slot.status)}) after {ran_s:.0f} s; it is started again in {delay_s:.1f} s"
        )
        log.warning(
            "process %d: %s",
            slot.index,
            slot.ended,
            extra={EVENT: "process_ended", "worker": slot.worker, "restarts": slot.restarts.count},
        )
        self._tell()
        await _set_within(self._stopping, delay_s)

    def _give_up(self, slot: Slot) -> None:
        wrong = slot.status == WRONG_CONFIGURATION
        self._gave_up = WRONG_CONFIGURATION if wrong else INTERRUPTED
        if not wrong:
            log.error(
                "no process could begin its work: %d have ended, the last one with %s; their own lines say why",
                self._beginning.failed,
                _how(slot.status),
                extra={EVENT: "processes_given_up"},
            )
        self._stop()

    async def _run(self, slot: Slot) -> int:
        """Runs one process to its end; returns its exit status, or the negative number of the signal that ended it."""
        try:
            child = await self._start(slot)
        except OSError as error:
            log.error("process %d cannot be started: %s", slot.index, error, extra={EVENT: "process_failed"})
            return INTERRUPTED
        slot.child, slot.ended = child, ""
        self._tell()
        if self._stopping.is_set():
            self._drain(child)
        try:
            async with asyncio.TaskGroup() as tasks:
                hearing = tasks.create_task(self._hear(slot, child), name=f"process {slot.index} heard")
                status = await child.process.wait()
                hearing.cancel()
        finally:
            slot.child = None
            child.writer.close()
            if self._front is slot:
                self._front = None
        self._tell()
        # A process whose interpreter was still starting had no handler for the signal yet, and had begun nothing.
        unstarted = self._stopping.is_set() and not child.begun and status == -signal.SIGTERM
        return 0 if unstarted else status

    async def _hear(self, slot: Slot, child: Child) -> None:
        try:
            async for frame in frames(child.reader):
                await self._take(slot, child, frame)
        except BrokenFrame as error:
            log.error(
                "process %d: its connection broke (%s); it is ended",
                slot.index,
                error,
                extra={EVENT: "process_failed"},
            )
            self._drain(child)

    async def _take(self, slot: Slot, child: Child, frame: Frame) -> None:
        match frame.members["kind"]:
            case "begun":
                child.begun = True
                asyncio.get_running_loop().call_later(FIRST_S_MAX, self._let_others_start, slot, child)
                self._tell()
            case "working":
                self._beginning = self._beginning.begun()
                self._others_may.set()
            case "draining" if child.kill_at is not None:
                child.kill_at = self._after(frame.members["grace_s"] + LAST_RESORT_S + LATE_S)
            case "ask":
                self._ask_others(slot, frame.members)
            case "answer":
                await self._pass_answer(slot, frame)
            case _:
                pass

    def _let_others_start(self, slot: Slot, child: Child) -> None:
        if slot.child is child:
            self._others_may.set()

    def _ask_others(self, slot: Slot, asked: Mapping[str, Any]) -> None:
        for each in self._slots:
            if each is not slot and each.child is not None and each.child.reads:
                each.child.send("ask", ask=asked["ask"], question=asked["question"], to=slot.index)

    async def _pass_answer(self, slot: Slot, frame: Frame) -> None:
        asker = self._slots[frame.members["to"]].child
        if asker is not None:
            asker.send("answer", frame.body, ask=frame.members["ask"], index=slot.index)
            try:
                await asker.writer.drain()
            except ConnectionError:
                # The front has ended; the next one asks anew.
                return

    def _tell(self) -> None:
        """Tells all processes the states of all, and one of them that it is the front."""
        states = [asdict(each.state) for each in self._slots]
        for child in self._children():
            if child.reads:
                child.send("states", states=states)
        if self._front is None:
            self._front = next((each for each in self._slots if each.child and each.child.begun), None)
            if self._front is not None and self._front.child is not None:
                self._front.child.send("front")

    async def _kill_late(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(LOOK_S)
            for slot in self._slots:
                child = slot.child
                if child is not None and child.kill_at is not None and loop.time() >= child.kill_at:
                    child.kill_at = None
                    log.error(
                        "process %d does not end, and is killed", slot.index, extra={EVENT: "process_killed"}
                    )
                    _signal(child, signal.SIGKILL)


def _signal(child: Child, number: signal.Signals) -> None:
    try:
        child.process.send_signal(number)
    except ProcessLookupError:
        # It has just ended.
        return


def _how(status: int) -> str:
    if status >= 0:
        return f"exit status {status}"
    try:
        return signal.Signals(-status).name
    except ValueError:
        return f"signal {-status}"


async def _set_within(event: asyncio.Event, time_s: float) -> None:
    try:
        async with asyncio.timeout(time_s):
            await event.wait()
    except TimeoutError:
        return
