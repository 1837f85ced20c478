"""Owns the comparison of the mappings that should run with those that do run, and the states of mappings (aws-behaviour#states)."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from poller.domain.invocations import Ended
from poller.domain.records import MappingId
from poller.domain.rows import MappingState


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """A mapping as it should be.

    `spec` is everything that a run is made of. A mapping with another spec needs a new run. `change` is the state that is
    shown until the last change is applied (Creating, Enabling, Updating).
    """

    spec: object
    enabled: bool = True
    deleting: bool = False
    change: MappingState = MappingState.CREATING

    @property
    def runs(self) -> bool:
        """Whether it should run."""
        return self.enabled and not self.deleting


@dataclass(frozen=True, slots=True, kw_only=True)
class RunningMapping:
    """A mapping as it runs. `tried`: the first try to open its parts is over. `broken`: a bug stopped it."""

    spec: object
    tried: bool = True
    stopping: bool = False
    broken: bool = False


@dataclass(frozen=True, slots=True)
class StartMapping:
    """Start the mapping with this spec."""

    mapping: MappingId
    spec: object


@dataclass(frozen=True, slots=True)
class Drain:
    """Let the mapping finish what is in flight, and take nothing new (aws-behaviour#stopping-a-mapping)."""

    mapping: MappingId


@dataclass(frozen=True, slots=True)
class Forget:
    """The mapping was deleted and no longer runs: remove it and its positions."""

    mapping: MappingId


type Command = StartMapping | Drain | Forget


def reconcile(
    wanted: Mapping[MappingId, Wanted], running: Mapping[MappingId, RunningMapping]
) -> Sequence[Command]:
    """What to do now. A mapping never has two runs at the same time: a new run starts when the earlier one has drained."""
    drains = [
        Drain(mapping)
        for mapping, run in running.items()
        if not run.stopping and not _fits(wanted.get(mapping), run)
    ]
    starts = [
        StartMapping(mapping, each.spec)
        for mapping, each in wanted.items()
        if each.runs and mapping not in running
    ]
    forgets = [
        Forget(mapping) for mapping, each in wanted.items() if each.deleting and mapping not in running
    ]
    return [*drains, *starts, *forgets]


def _fits(wanted: Wanted | None, run: RunningMapping) -> bool:
    return wanted is not None and wanted.runs and wanted.spec == run.spec


def shown(wanted: Wanted, run: RunningMapping | None, *, ending: bool = False) -> MappingState:
    """The state of a mapping: the wanted state, or the one on the way to it.

    `ending`: the daemon drains. This does not change the mapping: it stays enabled, and other workers may run it.
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
        case _, RunningMapping() if run.spec != wanted.spec:
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
    """The state in the answer to a create request. A disabled queue mapping is Disabled at once."""
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
    """The state that is shown until a change is applied. A change that only disables a mapping has no such state."""
    known = {MappingState.CREATING, MappingState.ENABLING, MappingState.UPDATING}
    return answered if answered in known else MappingState.CREATING


NOTHING_YET = "No records processed"
FINE = "OK"
FUNCTION_FAILED = "PROBLEM: Function call failed"


def result_of(ended: Ended) -> str:
    """LastProcessingResult after an invocation. A valid partial report counts as OK (aws-behaviour#last-processing-result)."""
    return FINE if ended in {Ended.SUCCESS, Ended.PARTIAL} else FUNCTION_FAILED


def problem_of(reason: str) -> str:
    """LastProcessingResult while the source or another step before the function fails."""
    return f"PROBLEM: {reason}"
