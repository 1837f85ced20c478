"""Owns one run of a mapping by one spec: it opens the parts, runs the mapping, and after a failure reports it and tries again."""

import asyncio
import traceback
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from typing import Protocol

from poller.domain.errors import InvalidConfiguration, PortError
from poller.domain.records import MappingId
from poller.domain.status import LaneStatus, ShardStatus
from poller.domain.telemetry.daemon_events import TaskEnded
from poller.domain.telemetry.labels import TaskEnd, TaskKind
from poller.domain.telemetry.observers import Observer
from poller.rules.responses import cut
from poller.rules.workers.sizing.samples import MappingLoad
from poller.runtime.operations.operable import Operable
from poller.runtime.port_failures import failure_reason, report_failure
from poller.runtime.stopping import Reason, Stop, interrupted_by, unless_stopped
from poller.runtime.watched_tasks import TaskFault, reason_of
from poller.runtime.workers.loads import MeasuresLoad

AGAIN_S = 1.0
"""The shortest wait before a mapping that failed is started again."""
STEADY_S = 300.0
"""If a mapping ran at least this long before it failed, its back-off begins again."""


class Runner(Protocol):
    """A running mapping. A stream has shards; a queue has lanes and pollers."""

    @property
    def opened(self) -> bool:
        """Whether source and store answered once, so that the mapping is ready."""
        ...

    @property
    def reason(self) -> str:
        """Why the mapping makes no progress; empty if it does."""
        ...

    @property
    def pollers(self) -> int | None:
        """How many pollers a queue runs; None for a stream."""
        ...

    async def run(self) -> None:
        """Runs the mapping until the scope stops."""
        ...

    def shards(self, *, troubled: bool = False) -> tuple[ShardStatus, ...]:
        """What the shards are doing. With `troubled` only those here that are in trouble, or do not read yet or any more."""
        ...

    def lanes(self) -> tuple[LaneStatus, ...]:
        """What the lanes are doing."""
        ...

    def notes(self) -> tuple[str, ...]:
        """Notes for people that do not prevent progress, one line each."""
        ...


class PartFailed(Exception):
    """A part of a mapping (source, invoker, destination) could not be opened. Try again later."""

    def __init__(self, port: str, error: PortError | InvalidConfiguration) -> None:
        super().__init__(str(error))
        self.port = port
        self.error = error

    @property
    def reason(self) -> str:
        """The reason, as one line for people."""
        return failure_reason(self.error)

    @property
    def problems(self) -> list[str]:
        """The problems, one line each."""
        return self.error.problems if isinstance(self.error, InvalidConfiguration) else [self.error.reason]


class Opener(Protocol):
    """Opens the parts of a mapping into a stack, and returns a function that makes its runner."""

    async def __call__(self, stack: AsyncExitStack, lost: Callable[[], None]) -> Callable[[Stop], Runner]:
        """Raises PartFailed. `lost` is called if a part is gone although nothing closed it."""
        ...


async def contained(work: Awaitable[None]) -> Exception | None:
    """Awaits `work` and returns its error, also if it is a bug. The caller must report the error. Only here is `Exception` caught."""
    try:
        await work
    except Exception as error:  # noqa: BLE001 - see above
        return error
    return None


def _ignored(_operable: Operable) -> None:
    return


class Supervisor:
    """Runs one mapping by one spec until `stop`. It waits for `gate`, which is set when the daemon's start has succeeded.

    `introduce` gets each running mapping before it begins anything.
    """

    def __init__(
        self,
        mapping: MappingId,
        opener: Opener,
        *,
        gate: asyncio.Event,
        observer: Observer,
        wait_s: Callable[[int], float],
        changed: Callable[[], None],
        introduce: Callable[[Operable], None] = _ignored,
    ) -> None:
        self.stop = Stop()
        self.tried = asyncio.Event()
        """It is set after the first try to open the parts, whether it succeeded or not."""
        self.failure: PartFailed | None = None
        self.bug = ""
        self._mapping = mapping
        self._opener = opener
        self._gate = gate
        self._observer = observer
        self._wait_s = wait_s
        self._changed = changed
        self._introduce = introduce
        self._runner: Runner | None = None

    async def run(self) -> None:
        """Runs until a stop is requested and the mapping has drained."""
        tries = 0
        loop = asyncio.get_running_loop()
        while not self.stop.requested:
            began = loop.time()
            with self.stop.child() as stop:
                trouble = await contained(self._once(stop))
            if trouble is not None:
                tries = 0 if loop.time() - began > STEADY_S else tries
                wait_s = self._wait_s(tries) + AGAIN_S
                tries += 1
                self._note(trouble, wait_s)
                await self.stop.sleep(wait_s)
        self.tried.set()

    @property
    def opened(self) -> bool:
        """Whether the mapping runs and its source and the store have answered."""
        return self._runner is not None and self._runner.opened

    @property
    def reason(self) -> str:
        """Why it does not get on; empty when it does."""
        if self.bug or self.failure is not None:
            return self.bug or (self.failure.reason if self.failure is not None else "")
        return self._runner.reason if self._runner is not None else ""

    @property
    def operable(self) -> Operable | None:
        """The running mapping, as operations see it; None while it does not run."""
        runner: object = self._runner
        return runner if isinstance(runner, Operable) else None

    @property
    def load(self) -> MappingLoad | None:
        """The load of the running mapping; None if nothing of it counts."""
        runner: object = self._runner
        return runner.load() if isinstance(runner, MeasuresLoad) else None

    @property
    def pollers(self) -> int | None:
        """How many pollers a queue runs; None for a stream."""
        return self._runner.pollers if self._runner is not None else None

    def shards(self, *, troubled: bool = False) -> tuple[ShardStatus, ...]:
        """What the shards are doing; with `troubled` only those here that are in trouble."""
        return self._runner.shards(troubled=troubled) if self._runner is not None else ()

    def lanes(self) -> tuple[LaneStatus, ...]:
        """What the lanes are doing."""
        return self._runner.lanes() if self._runner is not None else ()

    def notes(self) -> tuple[str, ...]:
        """What people should know although it gets on, one line each."""
        return self._runner.notes() if self._runner is not None else ()

    async def _once(self, stop: Stop) -> None:
        """Opens the parts, runs the mapping until the scope stops, and closes the parts."""
        async with AsyncExitStack() as stack:
            opening = self._opener(stack, lambda: stop.request(Reason.REQUESTED))
            make = await unless_stopped(stop, opening)
            if make is None:
                return
            self.failure, self.bug = None, ""
            self._settled()
            async with interrupted_by(stop):
                await self._gate.wait()
            if stop.requested:
                return
            self._runner = make(stop)
            if (operable := self.operable) is not None:
                self._introduce(operable)
            try:
                await self._runner.run()
            finally:
                self._runner = None
            if not stop.requested:
                raise TaskFault(f"{TaskKind.MAPPING} {self._mapping}", TaskEnd.RETURNED)

    def ended(self, end: TaskEnd, error: BaseException | None) -> None:
        """Takes note that the mapping's task ended although nothing had stopped it."""
        self._note(error or TaskFault(f"{TaskKind.MAPPING} {self._mapping}", end), 0.0)

    def _note(self, trouble: BaseException, wait_s: float) -> None:
        self.failure, self.bug = None, ""
        if isinstance(trouble, PartFailed):
            self.failure = trouble
            report_failure(
                self._observer, trouble.error, mapping=self._mapping, port=trouble.port, wait_s=wait_s
            )
        else:
            self.bug = described(trouble)
            self._emit_ended(trouble)
        self._settled()

    def _emit_ended(self, trouble: BaseException) -> None:
        """Reports an error of the mapping's own task. Errors of inner tasks were reported by their groups."""
        name = f"{TaskKind.MAPPING} {self._mapping}"
        end, reason = TaskEnd.RAISED, reason_of(trouble)
        if isinstance(trouble, TaskFault):
            end, reason = trouble.end, ""
        if isinstance(trouble, BaseExceptionGroup) or (
            isinstance(trouble, TaskFault) and trouble.name != name
        ):
            return
        self._observer.on(
            TaskEnded(
                task=TaskKind.MAPPING,
                name=name,
                end=end,
                mapping=self._mapping,
                reason=reason,
            )
        )

    def _settled(self) -> None:
        self.tried.set()
        self._changed()


def described(bug: BaseException) -> str:
    """One line about a bug: its class, its text and its place in the code."""
    innermost = _innermost(bug)
    place = traceback.extract_tb(innermost.__traceback__)[-1:]
    where = f" at {place[0].name} line {place[0].lineno}" if place else ""
    return cut(f"{type(innermost).__name__}: {innermost}{where}")


def _innermost(bug: BaseException) -> BaseException:
    while isinstance(bug, BaseExceptionGroup):
        bug = bug.exceptions[0]
    return bug
