"""Owns the values of a shift: how an alias is moved to another version, by and by, and what became of it."""

from dataclasses import dataclass
from enum import StrEnum

from poller.domain.records import Epoch

SHIFT_S_MAX = 172_800.0
"""A shift may take two days, as CodeDeploy's."""
CALLS_MIN = 10
"""A failure rate counts only from this many calls of the new version on."""


class ShiftState(StrEnum):
    """Where a shift stands."""

    BEFORE = "before"
    """The hook before the traffic has not succeeded yet. All calls go to the old version."""
    SHIFTING = "shifting"
    AFTER = "after"
    """All calls go to the new version. The hook after the traffic has not succeeded yet."""
    DONE = "done"
    ROLLED_BACK = "rolled_back"


ENDED = frozenset({ShiftState.DONE, ShiftState.ROLLED_BACK})


@dataclass(frozen=True, slots=True)
class ShiftStrategy:
    """How the share of the new version grows.

    Canary: `percent` at once, everything after `interval_s`. Linear: `percent` more after each `interval_s`, the first at once.
    All at once: `percent` 100. `name` is CodeDeploy's, or one of the same form.
    """

    name: str
    percent: float = 100.0
    interval_s: float = 0.0
    linear: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Shift:
    """One shift of an alias from version `old` to version `new`.

    `began` is when the first share of the calls went to the new version. `before` and `after` name functions that have to answer
    Succeeded before the traffic moves and after it has moved. With more failed calls of the new version than `failure_rate` (a share of 0 to 1;
    None: any number) the shift is rolled back. `by` and `reason` say who wanted it and why, `ended_because` why it was rolled back.
    """

    shift: str
    old: str
    new: str
    strategy: ShiftStrategy
    state: ShiftState
    accepted: Epoch
    began: Epoch | None = None
    moved: Epoch | None = None
    ended: Epoch | None = None
    before: str | None = None
    after: str | None = None
    failure_rate: float | None = None
    by: str = ""
    reason: str = ""
    ended_because: str = ""
