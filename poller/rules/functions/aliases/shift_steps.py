"""Owns how a shift goes on: the share of the new version at a time, and the next state.

A shift begins in BEFORE if it has a hook before the traffic, otherwise in SHIFTING. Every worker computes the share of the new version by its
clock. When the share has become 1, the shift waits for the hook after the traffic in AFTER, or is DONE. It is ROLLED_BACK by hand, by
a hook that did not succeed, or by too many failures. What has ended does not change any more. Steps that are asked for again with the same
input give the same shift.
"""

from dataclasses import dataclass, replace

from poller.domain.functions.shift_strategies import intervals
from poller.domain.functions.shifts import CALLS_MIN, ENDED, Shift, ShiftState
from poller.domain.records import Epoch

HOOK_S_MAX = 3600.0
"""A hook that has not answered in this time has failed, as with CodeDeploy."""


@dataclass(frozen=True, slots=True)
class HookAnswer:
    """What the hook of one state answered. `reason` says why it did not succeed."""

    state: ShiftState
    succeeded: bool
    reason: str = ""


@dataclass(frozen=True, slots=True)
class NewCalls:
    """How many calls the new version had since the shift began, and how many of them failed."""

    calls: int = 0
    failed: int = 0


def share(shift: Shift, now: Epoch) -> float:
    """The share of the calls that go to the new version: 0 to 1."""
    match shift.state:
        case ShiftState.AFTER | ShiftState.DONE:
            return 1.0
        case ShiftState.SHIFTING if shift.began is not None:
            return _growing(shift, max(0.0, now - shift.began))
        case _:
            return 0.0


def begun(shift: Shift) -> Shift:
    """A shift that was just accepted: it waits for its first hook, or moves at once."""
    if shift.before is not None:
        return replace(shift, state=ShiftState.BEFORE)
    return replace(shift, state=ShiftState.SHIFTING, began=shift.accepted)


def stepped(
    shift: Shift, now: Epoch, *, answer: HookAnswer | None = None, calls: NewCalls | None = None
) -> Shift:
    """The shift after what happened until `now`. An answer counts for its own state only."""
    calls = calls or NewCalls()
    while (found := _step(shift, now, answer, calls)) is not shift:
        shift = found
    return shift


def rolled_back(shift: Shift, now: Epoch, because: str) -> Shift:
    """The shift ended; all calls go to the old version."""
    if shift.state in ENDED:
        return shift
    return replace(shift, state=ShiftState.ROLLED_BACK, ended=now, ended_because=because)


def waits_for(shift: Shift) -> str | None:
    """The function whose answer the shift waits for now; None if it waits for none."""
    match shift.state:
        case ShiftState.BEFORE:
            return shift.before
        case ShiftState.AFTER:
            return shift.after
        case _:
            return None


def _growing(shift: Shift, for_s: float) -> float:
    strategy, last = shift.strategy, intervals(shift.strategy)
    if strategy.interval_s <= 0 or for_s >= strategy.interval_s * last:
        return 1.0
    passed = int(for_s // strategy.interval_s)
    percent = strategy.percent * (passed + 1) if strategy.linear else strategy.percent
    return min(1.0, percent / 100.0)


def _step(shift: Shift, now: Epoch, answer: HookAnswer | None, calls: NewCalls) -> Shift:
    match shift.state:
        case ShiftState.BEFORE:
            return _after_hook(shift, now, answer, since=shift.accepted)
        case ShiftState.SHIFTING:
            if reason := too_many_failures(shift, calls):
                return rolled_back(shift, now, reason)
            return _moved(shift, now) if share(shift, now) >= 1.0 else shift
        case ShiftState.AFTER:
            if reason := too_many_failures(shift, calls):
                return rolled_back(shift, now, reason)
            return _after_hook(
                shift, now, answer, since=shift.accepted if shift.moved is None else shift.moved
            )
        case _:
            return shift


def too_many_failures(shift: Shift, calls: NewCalls) -> str:
    """Why the calls of the new version end the shift; empty if they do not."""
    if shift.failure_rate is None or calls.calls < CALLS_MIN:
        return ""
    rate = calls.failed / calls.calls
    if rate <= shift.failure_rate:
        return ""
    return f"{calls.failed} of {calls.calls} calls of version {shift.new} failed, more than the share {shift.failure_rate:g}"


def _moved(shift: Shift, now: Epoch) -> Shift:
    if shift.after is not None:
        return replace(shift, state=ShiftState.AFTER, moved=now)
    return replace(shift, state=ShiftState.DONE, moved=now, ended=now)


def _after_hook(shift: Shift, now: Epoch, answer: HookAnswer | None, *, since: Epoch) -> Shift:
    """The shift after its hook has answered, or did not answer in time."""
    hook = waits_for(shift)
    if hook is None or (answer is not None and answer.state is shift.state and answer.succeeded):
        if shift.state is ShiftState.BEFORE:
            return replace(shift, state=ShiftState.SHIFTING, began=now)
        return replace(shift, state=ShiftState.DONE, ended=now)
    if answer is not None and answer.state is shift.state:
        return rolled_back(shift, now, f"the hook {hook} did not succeed: {answer.reason}")
    if now - since >= HOOK_S_MAX:
        return rolled_back(shift, now, f"the hook {hook} has not answered within {HOOK_S_MAX:g} s")
    return shift
