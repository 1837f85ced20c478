"""Owns the sentence that says what an operation will do, before anybody agrees to it."""

from collections.abc import Mapping
from typing import Any, assert_never

from poller.commands.operations.targets import Target
from poller.commands.status.times import span
from poller.domain.operations import Action
from poller.domain.records import Epoch
from poller.domain.status import LaneStatus
from poller.domain.untrusted.texts import line_of
from poller.domain.wording.numbers_of import number_of
from poller.rules.operations.members import FIRST

TEXT_CHARS_MAX = 200
RECORDS_SHOWN_MAX = 3


def sentence(action: Action, target: Target, members: Mapping[str, Any], *, now: Epoch) -> str:
    """What will happen, in one sentence."""
    of = f"{target.described()} of {target.mapping.function} ({target.mapping.mapping})"
    match action:
        case Action.RETRY:
            text = f"The next try of {of} is made now{_tried(target, now)}; no attempt is used up"
        case Action.RESET:
            text = f"Attempts and age of what fails in {of} count from now{_tried(target, now)}"
        case Action.PAUSE:
            text = f"No call begins for {of} until somebody resumes it; a call that runs finishes and counts"
        case Action.RESUME:
            text = f"The pauses of {of} end, and what waits goes on"
        case Action.SKIP:
            what, many = _records(target, members["records"], now)
            if target.shard is None and target.group is None:
                # The records are named, or are those of the only group that fails.
                of = f"{target.mapping.function} ({target.mapping.mapping})"
            text = f"{what} of {of} {_fate(target, many=many, discard=bool(members.get('discard')))}"
        case Action.REPLAY:
            text = _replay(of, members)
        case Action.SEEK:
            text = _seek(of, target, members)
        case Action.REDRIVE:
            at_most = f", {members['limit']} at most," if "limit" in members else ""
            text = f"The batches{at_most} whose notices are in {members['from']} are called again for {of}; the notice of each that succeeds is removed"
        case _:
            assert_never(action)
    return line_of(text, chars_max=2_000) + "."


def _replay(of: str, members: Mapping[str, Any]) -> str:
    function = members.get("function")
    by = f"by {function}" if function else "by its function"
    rate = f", {members['records_per_s']:g} a second at most" if "records_per_s" in members else ""
    chosen = " that match the filter" if "filter" in members else ""
    match members["on_failure"]:
        case "stop":
            failure = "a batch that fails ends it"
        case "skip":
            failure = "a batch that fails is given up and lost"
        case destination:
            failure = f"the notice of a batch that fails goes to {destination}"
    records = f"The records{chosen} of {of} from {members['from']} to {members['to']}"
    return (
        f"{records} are processed once more {by}{rate}; {failure}; the mapping's own position does not move"
    )


def _seek(of: str, target: Target, members: Mapping[str, Any]) -> str:
    if shards := members.get("shards"):
        shown = ", ".join(shards[:RECORDS_SHOWN_MAX])
        more = len(shards) - RECORDS_SHOWN_MAX
        named = f"shard{'s' if len(shards) > 1 else ''} {shown}" + (f" and {more} more" if more > 0 else "")
        of = f"{named} of {target.mapping.function} ({target.mapping.mapping})"
    left_out = (
        "records before that place that were not processed are left out"
        if members.get("skip")
        else "no record that was not processed is left out"
    )
    return f"All workers let go of {of}, which goes on at {members['to']}: what is behind that place is processed, also if it was before; {left_out}"


def _tried(target: Target, now: Epoch) -> str:
    lanes = target.lanes()
    if not lanes:
        return ""
    first = lanes[0]
    since = first.blocked_since or first.failing_since
    for_s = "" if since is None else f" for {span(max(0.0, now - since))}"
    error = f": {line_of(first.last_error, chars_max=TEXT_CHARS_MAX)}" if first.last_error else ""
    return f" (it has failed{for_s}, {_attempts(first)}{error})"


def _attempts(lane: LaneStatus) -> str:
    return number_of(lane.attempts, "attempt" if lane.attempts_max is None else "receive")


def _records(target: Target, records: str | list[str], now: Epoch) -> tuple[str, bool]:
    """Which records are meant, and whether they are several."""
    if isinstance(records, list):
        shown = ", ".join(records[:RECORDS_SHOWN_MAX])
        more = len(records) - RECORDS_SHOWN_MAX
        if len(records) == 1:
            return f"Record {shown}", False
        return f"{number_of(len(records), 'record')}, {shown}" + (
            f" and {more} more," if more > 0 else ","
        ), True
    lane = target.at_fault()
    if lane is None:
        # Another worker knows it, or nobody: the operation then says what there is.
        return (
            ("The first record of the batch at fault", False)
            if records == FIRST
            else ("The batch at fault", False)
        )
    first = lane.records[0]
    key = f"key {first.key}, " if first.key else ""
    facts = f"{key}{span(max(0.0, now - first.arrived))} old, {_attempts(lane)}"
    if records == FIRST or lane.records_count <= 1:
        of_several = (
            f"the first of {lane.records_count} that fail together, " if lane.records_count > 1 else ""
        )
        return f"Record {first.identifier} ({of_several}{facts})", False
    return (
        f"All {number_of(lane.records_count, 'record')} of the batch at fault, from {first.identifier} on ({facts}),",
        True,
    )


def _fate(target: Target, *, many: bool, discard: bool) -> str:
    are = "are" if many else "is"
    if discard:
        return f"{are} given up and lost: no notice is sent"
    if target.mapping.pollers is not None:
        return f"{are} moved to the queue's dead-letter queue"
    if target.mapping.destination:
        return f"{are} given up, and the notice goes to {target.mapping.destination}"
    return f"{are} given up if the mapping has an on-failure destination for the notice"
