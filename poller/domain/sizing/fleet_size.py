"""Owns the values of the recommendation how many workers there should be, as the API answers it and as workers tell it each other."""

from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol, runtime_checkable

COUNT_MAX = 1_000_000
"""Larger counts in another worker's row are cut to this."""


class Pressure(StrEnum):
    """How a worker gets on with its work."""

    BUSY = "busy"
    """It falls behind, and more workers could help."""
    STEADY = "steady"
    """It has the right amount of work, or it is not known yet."""
    CALM = "calm"
    """It has had little to do for a while."""
    LONG_CALM = "long_calm"
    """It has had little to do for a long while."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FleetSize:
    """A recommendation. `change` counts the recommendations so far. `too_few` is the last number that was too small, or 0."""

    change: int
    workers: int
    too_few: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerLoad:
    """What one worker tells the others. It changes seldom, since each change is a write.

    `pressure` is a word of Pressure; a worker of another version may have others. It was measured while there were `workers`.
    `shards` counts the shards that it reads and that get on. `calls` is how many calls the queues with a maximum may have on all
    workers together, and `unbounded` says that there is a queue without one. `reason` is one line for people, if it is busy.
    `size` is the newest recommendation that it knows.
    """

    pressure: str
    workers: int
    shards: int = 0
    calls: int = 0
    unbounded: bool = False
    reason: str = ""
    size: FleetSize | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerPressure:
    """One live worker in an answer. `known` is false if it tells nothing, or nothing about the present number of workers."""

    worker: str
    pressure: Pressure
    shards: int
    reason: str = ""
    known: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class FleetScaling:
    """How many workers there should be: `wanted_workers`.

    `workers` are alive and do not leave. `workers_max` is how many could have work at the same time; None if there is no such
    limit, or if it is not known. `complete` is false while something of a worker is not known or not new; then fewer workers are
    not recommended. `reason` is one line for people.
    """

    wanted_workers: int
    workers: int
    workers_max: int | None
    complete: bool
    reason: str
    pressures: tuple[WorkerPressure, ...] = ()


@runtime_checkable
class ShowsFleetSize(Protocol):
    """Knows how many workers there should be."""

    async def fleet_size(self) -> FleetScaling | None:
        """The recommendation. Asks the store for what is not new, for 2 s at most. None: none is known yet."""
        ...
