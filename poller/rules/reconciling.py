"""Owns the comparison of the mappings that should run with those that do run, and the states of mappings (aws-behaviour#states)."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from poller.domain.invocations import Ended
from poller.domain.records import MappingId
from poller.domain.rows import MappingState


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """A mapping as it should be.

    `design` is all that a run is made of: another design is another run. `change` is what the last change is called
    until it is applied (Creating, Enabling, Updating).
    """

    design: object
    enabled: bool = True
    deleting: bool = False
    change: MappingState = MappingState.CREATING

    @property
    def runs(self) -> bool:
        """Whether it should be at work."""
        return self.enabled and not self.deleting


@dataclass(frozen=True, slots=True, kw_only=True)
class RunningMapping:
    """A mapping as it is at work; `tried` once its parts were opened or could not be, `broken` after a bug."""

    design: object
    tried: bool = True
    stopping: bool = False
    broken: bool = False


@dataclass(frozen=True, slots=True)
class StartMapping:
    """Begin the mapping by this design."""

    mapping: MappingId
    design: object


@dataclass(frozen=True, slots=True)
class Drain:
    """Let the mapping finish what is in flight, and take nothing new (aws-behaviour#stopping-a-mapping)."""

    mapping: MappingId


@dataclass(frozen=True, slots=True)
class Forget:
    """The mapping is deleted and at work no more: remove it and its positions."""

    mapping: MappingId


type Command = StartMapping | Drain | Forget


def reconcile(
    wanted: Mapping[MappingId, Wanted], running: Mapping[MappingId, RunningMapping]
) -> Sequence[Command]:
    """What to do now. A mapping never has two runs: the next one starts when the one before has drained."""
    drains = [
        Drain(mapping)
        for mapping, run in running.items()
        if not run.stopping and not _fits(wanted.get(mapping), run)
    ]
    starts = [
        StartMapping(mapping, each.design)
        for mapping, each in wanted.items()
        if each.runs and mapping not in running
    ]
    forgets = [
        Forget(mapping) for mapping, each in wanted.items() if each.deleting and mapping not in running
    ]
    return [*drains, *starts, *forgets]


def _fits(wanted: Wanted | None, run: RunningMapping) -> bool:
    return wanted is not None and wanted.runs and wanted.design == run.design


def shown(wanted: Wanted, run: RunningMapping | None, *, ending: bool = False) -> MappingState:
    """The state that a mapping is in: on its way to what is wanted, or there.

    `ending`: the daemon drains, which changes nothing of the mapping: it is as enabled as before, and others may work at it.
    """
    match wanted, run:
        case Wanted(deleting=True), _:
            return MappingState.DELETING
        case Wanted(enabled=False), None:
            return MappingState.DISABLED
        case Wanted(enabled=False), _:
            return MappingState.DISABLING
        case _, None:
            return MappingState.ENABLED if ending else wanted.change
        case _, RunningMapping(stopping=True) if not ending:
            return MappingState.UPDATING
        case _, RunningMapping() if run.design != wanted.design:
            return MappingState.UPDATING
        case _, RunningMapping(broken=True):
            return MappingState.BROKEN
        case _, RunningMapping(tried=False) if not ending:
            return wanted.change
        case _:
            return MappingState.ENABLED


BUSY = frozenset(
    {
        MappingState.CREATING,
        MappingState.ENABLING,
        MappingState.DISABLING,
        MappingState.UPDATING,
        MappingState.DELETING,
    }
)
"""States in which changes are refused, because the last one is not applied yet (aws-behaviour#changes-take-time)."""


def created(*, enabled: bool, queue: bool) -> MappingState:
    """The state in the answer to a create request; a disabled queue mapping has nothing to settle to."""
    return MappingState.DISABLED if queue and not enabled else MappingState.CREATING


def updated(*, before: bool, enabled: bool, queue: bool) -> MappingState:
    """The state in the answer to an update request of a mapping that was enabled (`before`) or not."""
    match before, enabled:
        case True, False:
            return MappingState.DISABLING
        case False, True:
            return MappingState.ENABLING
        case False, False if queue:
            return MappingState.DISABLED
        case _:
            return MappingState.UPDATING


def change_of(answered: MappingState) -> MappingState:
    """What a change is called until it is applied; one that only disables has no name of its own."""
    known = {MappingState.CREATING, MappingState.ENABLING, MappingState.UPDATING}
    return answered if answered in known else MappingState.CREATING


NOTHING_YET = "No records processed"
FINE = "OK"
FUNCTION_FAILED = "PROBLEM: Function call failed"


def result_of(ended: Ended) -> str:
    """LastProcessingResult after an invocation; a valid partial report is OK (aws-behaviour#last-processing-result)."""
    return FINE if ended in {Ended.SUCCESS, Ended.PARTIAL} else FUNCTION_FAILED


def problem_of(reason: str) -> str:
    """LastProcessingResult while the source, or anything else before the function, does not work."""
    return f"PROBLEM: {reason}"
