"""Owns the history of the last hour, as the API shows it: for each mapping a few numbers for every step of time.

It is what one worker has seen: its own invocations, its own pollers, and the lag of the shards that it reads.
"""

from collections.abc import Generator, Mapping
from dataclasses import dataclass, field
from typing import Protocol

from poller.domain.records import Epoch, MappingId

STEP_S = 15.0
STEPS_MAX = 240
"""Steps that are kept: one hour."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MappingHistory:
    """One mapping: a number for each step, oldest first. None is a step in which the number was not known.

    All series have the same length. One that never had a number is None.
    """

    lag_ms: tuple[int | None, ...] | None = None
    """How far the worst shard was behind at the end of the step, or how old its oldest record was that could not be processed."""
    records_per_s: tuple[float | None, ...] = ()
    """Records that the function has processed."""
    failures: tuple[int | None, ...] = ()
    """Invocations after which records were not processed."""
    pollers: tuple[int | None, ...] | None = None
    """Pollers of a queue at the end of the step."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RecentHistory:
    """The history of this worker's mappings. `now` is when its newest step ended."""

    worker: str = ""
    step_s: float = STEP_S
    now: Epoch
    mappings: Mapping[MappingId, MappingHistory] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class MappingPoint:
    """The numbers of one mapping in one step. None: not known."""

    lag_ms: int | None = None
    records_per_s: float | None = None
    failures: int | None = None
    pollers: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class HistoryPoint:
    """The newest step of all mappings that the history has."""

    now: Epoch
    mappings: Mapping[MappingId, MappingPoint] = field(default_factory=dict)


class HistorySource(Protocol):
    """Gives the history of this worker."""

    def steps(self) -> int:
        """How many steps have ended since the start."""
        ...

    def point(self) -> HistoryPoint:
        """The newest step that has ended; empty before the first."""
        ...

    def slices(self, mapping: MappingId | None = None) -> Generator[None, None, RecentHistory]:
        """Builds the history of one mapping or of all, a few milliseconds of work in each step."""
        ...
