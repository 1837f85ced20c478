"""Owns the recommendation how many workers there should be, at this worker: it measures this worker, looks at the others, and answers.

It looks at the others' digests every LOOK_S, and when somebody asks. Without an answer of the store, the recommendation stays.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

from poller.domain.records import MappingId, Monotonic, WorkerId
from poller.domain.sizing.fleet_size import FleetScaling, FleetSize, WorkerLoad
from poller.domain.telemetry.daemon_events import FleetSized
from poller.domain.telemetry.labels import TaskKind
from poller.domain.telemetry.observers import Observer
from poller.ports import Clock
from poller.rules.workers.sizing import recommendation
from poller.rules.workers.sizing.meter import PressureMeter
from poller.rules.workers.sizing.samples import LoadSample, MappingLoad, sample_of
from poller.runtime.watched_tasks import WatchedTasks

SAMPLE_S = 5.0
"""The interval at which this worker measures itself."""
LOOK_S = 30.0
"""The interval at which the digests of the other workers are read."""
SETTLE_S = 60.0
"""A worker that has just come makes no recommendation of its own before this: others may come at the same time."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HeardLoads:
    """What is known of the other live workers that do not leave: their loads (None: not known). `fresh`: it was read just now."""

    loads: Mapping[WorkerId, WorkerLoad | None]
    fresh: bool


class FleetSizing:
    """The recommendation at one worker. `loads` gives the load of each mapping here.

    `refresh` reads the others' digests if they are not new, and `heard` gives what is known of them. `leaves` says whether this
    worker was asked to stop. Then it is not one of those that it counts, and leaves it to them to recommend.
    """

    def __init__(
        self,
        worker: WorkerId,
        *,
        loads: Callable[[], Mapping[MappingId, MappingLoad]],
        refresh: Callable[[], Awaitable[None]],
        heard: Callable[[], HeardLoads],
        leaves: Callable[[], bool],
        clock: Clock,
        observer: Observer,
    ) -> None:
        self._worker = worker
        self._loads = loads
        self._refresh = refresh
        self._heard = heard
        self._leaves = leaves
        self._clock = clock
        self._observer = observer
        self._began = clock.monotonic()
        self._look_at = Monotonic(self._began + LOOK_S)
        self._meter = PressureMeter()
        self._sample = LoadSample()
        self._size: FleetSize | None = None
        self._told: tuple[int, int] | None = None

    @contextmanager
    def running(self, scope: WatchedTasks) -> Iterator[None]:
        """Measures and looks until the block ends."""
        task = scope.kept(TaskKind.FLEET_SIZING, self._run)
        try:
            yield
        finally:
            task.cancel()

    def own(self) -> WorkerLoad:
        """What this worker tells the others."""
        sample, pressure = self._sample, self._meter.pressure(self._clock.monotonic())
        return WorkerLoad(
            pressure=pressure.value,
            workers=self._meter.workers,
            shards=sample.shards,
            calls=sample.calls,
            unbounded=sample.unbounded,
            reason=self._meter.reason,
            size=self._size,
        )

    async def look(self) -> FleetScaling | None:
        """Looks at the other workers and answers; None while no recommendation is known."""
        await self._refresh()
        self._look_at = Monotonic(self._clock.monotonic() + LOOK_S)
        heard, own, leaves = self._heard(), self.own(), self._leaves()
        known = (own, *heard.loads.values())
        self._size = recommendation.newest(load.size for load in known if load is not None)
        loads = heard.loads if leaves else {**heard.loads, self._worker: own}
        settled = self._clock.monotonic() - self._began >= SETTLE_S
        if heard.fresh and not leaves and (self._size is not None or settled):
            self._size = recommendation.decided(self._size, loads)
        if self._size is None:
            return None
        answer = recommendation.scaling_of(self._size, loads, fresh=heard.fresh)
        self._tell(answer)
        return answer

    async def _run(self) -> None:
        while True:
            self._measure()
            if self._clock.monotonic() >= self._look_at:
                await self.look()
            await asyncio.sleep(SAMPLE_S)

    def _measure(self) -> None:
        workers = len(self._heard().loads) + 1
        self._sample = sample_of(self._loads())
        self._meter = self._meter.observed(self._sample, workers=workers, now=self._clock.monotonic())

    def _tell(self, answer: FleetScaling) -> None:
        told = answer.wanted_workers, answer.workers
        if told != self._told:
            self._told = told
            self._observer.on(FleetSized(wanted=told[0], workers=told[1], reason=answer.reason))
