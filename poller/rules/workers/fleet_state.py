"""Owns `State` and `LastProcessingResult` of Lambda's API, which are one value for all workers. Only workers that are not out of date count.

- State: a change on its way on any worker shows (Deleting, Disabling, Updating). So does Enabled on another worker where this one
  is Disabled already: the mapping is Disabling. Creating and Enabling show until one worker is Enabled. Broken shows if it is broken
  on any worker.
- Result: a problem of a worker on which the mapping is in trouble now; else the most recent result. Times are known to the minute,
  and within a minute a problem is shown rather than a success.
"""

from collections.abc import Collection, Iterable
from dataclasses import dataclass

from poller.domain.records import Epoch
from poller.domain.rows import MappingState
from poller.rules.reconciling import FINE, NOTHING_YET
from poller.rules.workers.status_digest import RESULT_STEP_S

_ON_THE_WAY = (MappingState.DELETING, MappingState.DISABLING, MappingState.UPDATING)


@dataclass(frozen=True, slots=True)
class WorkerResult:
    """The last result of a mapping on one worker, when it came, and whether the mapping is in trouble there now."""

    text: str
    at: Epoch | None
    troubled: bool


def fleet_state(own: MappingState | None, others: Collection[MappingState]) -> MappingState:
    """The state of a mapping on all workers. `own` is None if this worker does not know the mapping."""
    states = {*others} | ({own} if own is not None else set())
    assert states, "a mapping that some worker knows"
    for state in _ON_THE_WAY:
        if state in states:
            return state
    if MappingState.BROKEN in states:
        return MappingState.BROKEN
    if MappingState.ENABLED in states:
        return MappingState.DISABLING if own is MappingState.DISABLED else MappingState.ENABLED
    return own if own is not None else min(states)


def fleet_result(results: Iterable[WorkerResult]) -> str:
    """The last result on all workers. Empty texts, as of queues, do not count; it is empty if there is no other."""
    given = [each for each in results if each.text]
    known = [each for each in given if each.text != NOTHING_YET]
    if not known:
        return NOTHING_YET if given else ""
    troubled = [each for each in known if each.troubled and each.text != FINE]
    return max(troubled or known, key=_recent).text


def _recent(result: WorkerResult) -> tuple[float, bool, str]:
    return ((result.at or 0.0) // RESULT_STEP_S, result.text != FINE, result.text)
