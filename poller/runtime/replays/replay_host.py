"""Owns what replays need of the daemon that they run on."""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from poller.domain.operations import OperatorPause
from poller.domain.plan import MappingPlan
from poller.domain.status import ShardStatus
from poller.domain.telemetry.observers import Observer
from poller.ports import Destination, StreamSource
from poller.runtime.stopping import Stop

type Wrap = Callable[[StreamSource], StreamSource]


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplayParts:
    """How the hidden mapping of a replay differs from other mappings.

    `wrap` makes its source of the stream, and `destined` its destination of that of its plan. `observer` gets its events.
    """

    wrap: Wrap
    destined: Callable[[Destination | None], Destination | None]
    observer: Observer


class ReplayMapping(Protocol):
    """The hidden mapping of a replay on this worker."""

    @property
    def stop(self) -> Stop:
        """Ends it."""
        ...

    @property
    def reason(self) -> str:
        """Why it does not get on; empty when it does."""
        ...

    async def run(self) -> None:
        """Runs until a stop is requested and it has drained. Repeats what fails."""
        ...

    def shards(self) -> Sequence[ShardStatus]:
        """What the shards are doing: those that run here, those of other workers, and those that wait."""
        ...

    def apply_pauses(self, pauses: Sequence[OperatorPause] | None, *, again: bool = False) -> None:
        """Takes the pauses that hold all of it. `again`: it waits for them, also if they have not changed."""
        ...


class ReplayHost(Protocol):
    """What a daemon offers to replays."""

    def current(self, plan: MappingPlan) -> object:
        """What a replay with this plan runs with besides, such as the settings of its function. If it changes, the replay is restarted."""
        ...

    def make(self, plan: MappingPlan, parts: ReplayParts) -> ReplayMapping:
        """The hidden mapping of a replay, which does not run yet."""
        ...

    def track(self, task: asyncio.Task[None]) -> None:
        """The daemon waits for this task when it drains, and cancels it after the time of grace."""
        ...

    async def with_function(self, plan: MappingPlan, function: str | None) -> MappingPlan:
        """The plan with another function (None: its own). Raises OperationRefused if there is no such function, and ApiError."""
        ...

    def problems(self, plan: MappingPlan) -> Sequence[str]:
        """What is wrong with the destination of a plan, one line each. Nothing is opened."""
        ...
