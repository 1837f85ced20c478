"""Owns how aliases and shifts are said to people."""

from collections.abc import Mapping

from poller.commands.status.times import moment, span
from poller.domain.functions.alias_control import AliasView, VersionView
from poller.domain.functions.shifts import ENDED, Shift, ShiftState, ShiftStrategy
from poller.domain.untrusted.texts import line_of
from poller.domain.wording.numbers_of import number_of

TEXT_CHARS_MAX = 500
NAME_CHARS_MAX = 300
WHOLE_PERCENT = 100.0
STATES: Mapping[ShiftState, str] = {
    ShiftState.BEFORE: "waits for the function before",
    ShiftState.SHIFTING: "shifting",
    ShiftState.AFTER: "all calls moved, waits for the function after",
    ShiftState.DONE: "done",
    ShiftState.ROLLED_BACK: "rolled back",
}


def running(view: AliasView) -> Shift | None:
    """The shift that runs; None if none does."""
    return view.shift if view.shift is not None and view.shift.state not in ENDED else None


def named(view: AliasView) -> str:
    """`alias live of function orders`."""
    return f"alias {shown(view.name)} of function {shown(view.function)}"


def shares(view: AliasView) -> str:
    """Which version gets how many of the calls: `version 1 90 %, version 2 10 %`."""
    others = {number: weight for number, weight in view.weights.items() if weight > 0}
    if not others:
        return f"version {shown(view.version)}"
    rest = 1.0 - sum(others.values())
    return ", ".join(
        f"version {shown(number)} {percent(share)}"
        for number, share in [(view.version, rest), *others.items()]
    )


def origin(view: AliasView) -> str:
    """Where the alias comes from, if that is the file, and whether it leads where a shift has moved it."""
    if not view.from_file:
        return ""
    moved = view.shift is not None and view.shift.state is ShiftState.DONE and view.shift.new == view.version
    return ", of the configuration file" + (", moved by the shift" if moved else "")


def percent(share: float) -> str:
    """A share of 0 to 1 in percent, with one digit behind the point at most."""
    return f"{round(share * WHOLE_PERCENT, 1):g} %"


def course(strategy: ShiftStrategy) -> str:
    """How the calls move: `10 % at once, the rest after 5 min`."""
    if strategy.percent >= WHOLE_PERCENT:
        return "all at once"
    first = f"{strategy.percent:g} %"
    after = span(strategy.interval_s)
    return (
        f"{first} at once and {first} more every {after}"
        if strategy.linear
        else f"{first} at once, the rest after {after}"
    )


def shift_sentence(
    view: AliasView,
    *,
    to: str,
    strategy: ShiftStrategy,
    before: str | None,
    after: str | None,
    failure_rate: float | None,
) -> str:
    """What a shift will do."""
    parts = [
        f"move the calls of {named(view)} from version {shown(view.version)} to version {shown(to)}: {course(strategy)}"
    ]
    if before is not None:
        parts.append(f"before it begins, function {shown(before)} has to answer Succeeded")
    if after is not None:
        parts.append(f"after it, function {shown(after)} has to answer Succeeded")
    if failure_rate is not None:
        parts.append(f"more than {percent(failure_rate)} failed calls of version {shown(to)} roll it back")
    return "; ".join(parts)


def rollback_sentence(view: AliasView, shift: Shift) -> str:
    """What a rollback will do."""
    share = view.weights.get(shift.new, 0.0)
    if shift.state is ShiftState.AFTER or view.version == shift.new:
        share = 1.0
    return (
        f"send all calls of {named(view)} to version {shown(shift.old)} at once; version {shown(shift.new)} gets {percent(share)} of "
        "them now"
    )


def shift_line(shift: Shift) -> str:
    """What a shift is and how it stands, in one line."""
    parts = [
        f"shift from version {shown(shift.old)} to {shown(shift.new)}: {STATES[shift.state]}",
        shown(shift.strategy.name),
        f"since {moment(shift.began or shift.accepted)}",
    ]
    if shift.ended is not None:
        parts.append(f"ended {moment(shift.ended)}")
    if shift.by:
        parts.append(f"by {shown(shift.by)}")
    reason = f": {shown(shift.reason)}" if shift.reason else ""
    because = f"; because: {shown(shift.ended_because)}" if shift.ended_because else ""
    return line_of(", ".join(parts) + reason + because, chars_max=TEXT_CHARS_MAX)


def calls_line(view: AliasView) -> str:
    """How many calls of each version failed at the asked worker; empty if none was counted."""
    counts = [
        f"version {shown(number)}: {number_of(failed, 'call', of=calls)} failed"
        for number, (calls, failed) in sorted(view.calls.items())
        if calls
    ]
    return f"here {', '.join(counts)}" if counts else ""


def version_line(version: VersionView) -> str:
    """What a version is, in one line."""
    description = f", {shown(version.description)}" if version.description else ""
    handler = f" {shown(version.handler)}" if version.handler else ""
    ran = ", has run" if version.ran else ""
    trouble = f"; cannot be called: {shown(version.trouble)}" if version.trouble else ""
    return f"version {shown(version.number)}: {shown(version.invoker)}{handler}{description}{ran}{trouble}"


def shown(text: str) -> str:
    """A text from outside on one line."""
    return line_of(text, chars_max=NAME_CHARS_MAX)
