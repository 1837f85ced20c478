"""Owns one mapping's life: runs it, and when a bug breaks it, says so and starts it again later."""

import traceback
from collections.abc import Callable
from typing import Protocol

from poller.plan import MappingPlan
from poller.rules.responses import cut
from poller.runtime.parts import Parts
from poller.runtime.stopping import Stop
from poller.status import LaneStatus, MappingStatus, ShardStatus
from poller.telemetry import MappingChanged, MappingState, Observer


class Runner(Protocol):
    """A mapping at work: a stream has shards, a queue has lanes and pollers."""

    @property
    def opened(self) -> bool:
        """Whether source and store answered once, so that the mapping is ready."""
        ...

    @property
    def reason(self) -> str:
        """Why it does not get on; empty when it does."""
        ...

    @property
    def pollers(self) -> int | None:
        """How many pollers a queue runs; None for a stream."""
        ...

    async def run(self) -> None:
        """Until the scope stops."""
        ...

    def shards(self) -> tuple[ShardStatus, ...]:
        """What the shards are doing."""
        ...

    def lanes(self) -> tuple[LaneStatus, ...]:
        """What the lanes are doing."""
        ...


class Supervisor:
    """Runs one mapping. `make` gives a fresh runner for each start; the parts stay open between starts."""

    def __init__(self, plan: MappingPlan, make: Callable[[Stop], Runner], parts: Parts, stop: Stop) -> None:
        self.plan = plan
        self._make = make
        self._parts = parts
        self._stop = stop
        self._runner: Runner | None = None
        self._state = MappingState.CREATING
        self._reason = ""

    @property
    def observer(self) -> Observer:
        """Where this mapping's events go."""
        return self._parts.observer

    async def run(self) -> None:
        """Until the scope stops and the mapping has drained."""
        tries = 0
        while not self._stop.requested:
            with self._stop.child() as stop:
                self._runner = self._make(stop)
                self._enter(MappingState.ENABLED)
                try:
                    await self._runner.run()
                except Exception as bug:  # noqa: BLE001 - the one place where a bug is contained
                    self._break(bug)
            if self._state is MappingState.BROKEN:
                await self._stop.sleep(self._parts.port_wait_s(tries) + 1.0)
                tries += 1

    def status(self) -> MappingStatus:
        """What the mapping is doing."""
        runner = self._runner
        return MappingStatus(
            mapping=self.plan.mapping,
            function=self.plan.function,
            source_arn=self.plan.source_arn,
            state=self._state,
            reason=self._reason or (runner.reason if runner is not None else ""),
            shards=runner.shards() if runner is not None else (),
            lanes=runner.lanes() if runner is not None else (),
            pollers=runner.pollers if runner is not None else None,
        )

    def problem(self) -> str:
        """Why the mapping is not ready; empty when it is."""
        if self._state is MappingState.BROKEN:
            return f"mapping {self.plan.mapping}: broken: {self._reason}"
        runner = self._runner
        if runner is None or not runner.opened:
            detail = runner.reason if runner is not None and runner.reason else "not open yet"
            return f"mapping {self.plan.mapping} ({self.plan.source_arn}): {detail}"
        return ""

    def _enter(self, state: MappingState, reason: str = "") -> None:
        self._state, self._reason = state, reason
        self.observer.on(
            MappingChanged(
                mapping=self.plan.mapping,
                function=self.plan.function,
                source_arn=self.plan.source_arn,
                state=state,
                reason=reason,
            )
        )

    def _break(self, bug: Exception) -> None:
        innermost = _innermost(bug)
        place = traceback.extract_tb(innermost.__traceback__)[-1:]
        where = f" at {place[0].name} line {place[0].lineno}" if place else ""
        self._enter(MappingState.BROKEN, cut(f"{type(innermost).__name__}: {innermost}{where}"))


def _innermost(bug: BaseException) -> BaseException:
    while isinstance(bug, BaseExceptionGroup):
        bug = bug.exceptions[0]
    return bug
