"""Owns what a replay is made of when it is accepted: its range, and the plan of the hidden mapping that carries it out.

The plan is that of the mapping at this moment, with these differences: it begins at `from`, record age does not matter, and what
fails is handled as `on_failure` says. It is noted in the operation, so that the replay goes on with it when the mapping is
changed. How the source is reached (`source_settings`) is not noted: each worker has its own, and operations are shown to people.
"""

import uuid
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import msgspec

from poller.domain.operations import Operation, OperationId
from poller.domain.plan import DiscardPolicy, MappingPlan, OnDestinationFailure, Start, destination_plugin
from poller.domain.records import Epoch, MappingId
from poller.domain.rows import REPLAY_PREFIX
from poller.domain.streams.places import is_name
from poller.domain.untrusted.numbers import date_of, iso_moment
from poller.domain.untrusted.texts import line_of
from poller.rules.filtering import InvalidPattern, compile_pattern
from poller.rules.operations.reading import OperationRefused

AHEAD_S_MAX = 86_400.0
"""How far ahead the end of a replay may be. Until then it follows the stream as a second mapping does."""
RETRIES_MAX = 2
"""Retries of a failing batch where the mapping's own retries have no limit: such a batch would hold the replay forever."""
STOP, SKIP = "stop", "skip"
"""What may happen to a batch that fails: the replay ends, or the batch is dropped. Otherwise its notice goes to a destination."""
SHOWN_CHARS_MAX = 100
_HORIZON, _LATEST = "TRIM_HORIZON", "LATEST"
_PLAN = "plan"


@dataclass(frozen=True, slots=True)
class ReplayRange:
    """The records of a replay: those that arrived from `since` (None: the oldest that there are) to `until`, both included."""

    since: Epoch | None
    until: Epoch

    def __str__(self) -> str:
        return f"{_HORIZON if self.since is None else shown(self.since)} to {shown(self.until)}"


def replay_mapping(operation: OperationId) -> MappingId:
    """The id of the hidden mapping of a replay. Every worker computes the same one."""
    return MappingId(REPLAY_PREFIX + str(uuid.uuid5(uuid.NAMESPACE_URL, operation)))


def range_of(members: Mapping[str, Any], *, created: Epoch) -> ReplayRange:
    """The range that `from` and `to` name; `created` is the moment that LATEST stands for. Raises OperationRefused."""
    since = _moment("from", members["from"])
    until = _moment("to", members["to"])
    if since == _LATEST:
        raise OperationRefused(
            "from", f"there is nothing behind {_LATEST} to replay; write {_HORIZON} or a time"
        )
    if until == _HORIZON:
        raise OperationRefused("to", f"there is nothing before {_HORIZON}; write {_LATEST} or a time")
    begin = None if isinstance(since, str) else Epoch(since)
    end = created if isinstance(until, str) else Epoch(until)
    if begin is not None and begin >= created:
        raise OperationRefused(
            "from", f"{shown(begin)} is not in the past; write {_HORIZON} or an earlier time"
        )
    if begin is not None and begin >= end:
        raise OperationRefused(
            "to", f"{shown(end)} is not after from, which is {shown(begin)}; write a later time"
        )
    if end > created + AHEAD_S_MAX:
        raise OperationRefused(
            "to", f"{shown(end)} is more than a day ahead; write {_LATEST} or an earlier time"
        )
    return ReplayRange(begin, end)


def prepared(operation: Operation, plan: MappingPlan) -> Operation:
    """The operation with the plan of its hidden mapping noted. Raises OperationRefused for members that this mapping cannot have.

    `plan` is that of the mapping, with the function that the replay calls.
    """
    members = operation.request.members
    found = range_of(members, created=operation.created)
    pattern = members.get("filter")
    if pattern is not None:
        _check_filter(pattern, plan)
    on_failure = members.get("on_failure", STOP)
    retries_max = RETRIES_MAX if plan.retry.retries_max is None else plan.retry.retries_max
    wanted = replace(
        plan,
        mapping=replay_mapping(operation.operation),
        enabled=True,
        retry=replace(plan.retry, retries_max=retries_max, age_max_s=None),
        stream=replace(plan.stream, start=Start(since=found.since)),
        discard=_discard(plan.discard, on_failure),
        filters=plan.filters if pattern is None else (pattern,),
        source_settings={},
    )
    return replace(operation, notes={**operation.notes, _PLAN: msgspec.to_builtins(wanted)})


def planned(operation: Operation, *, source_settings: Mapping[str, Any]) -> MappingPlan:
    """The plan of the hidden mapping, as it was noted. Raises ValueError if this version cannot read it."""
    try:
        found = msgspec.convert(operation.notes.get(_PLAN), MappingPlan)
    except msgspec.ValidationError as error:
        raise ValueError(f"the plan of the replay does not fit this version: {error}") from None
    return replace(found, source_settings=source_settings)


def stops_at_failure(operation: Operation) -> bool:
    """Whether a batch that fails ends the replay."""
    return bool(operation.request.members.get("on_failure", STOP) == STOP)


def shown(moment: Epoch) -> str:
    """A moment for people, to the second, or to the millisecond if it is not a whole second."""
    text = date_of(moment).isoformat(timespec="seconds" if float(moment).is_integer() else "milliseconds")
    return text.replace("+00:00", "Z")


def _moment(member: str, value: str | float) -> str | float:
    """A time, TRIM_HORIZON or LATEST."""
    if value in (_HORIZON, _LATEST):
        return value
    if isinstance(value, str) and is_name(value):
        text = "a sequence number belongs to one shard, and a replay reads all shards; write a time"
        raise OperationRefused(member, text)
    found = value if isinstance(value, int | float) else iso_moment(value, default=None)
    if found is None:
        named = line_of(str(value), chars_max=SHOWN_CHARS_MAX)
        raise OperationRefused(member, f"{named!r} is no time; write one such as 2026-01-31T08:00:00Z")
    return float(found)


def _check_filter(pattern: str, plan: MappingPlan) -> None:
    if plan.stream.tumbling_window_s:
        text = "a mapping with tumbling windows has no filter, because windows need all records; leave it out"
        raise OperationRefused("filter", text)
    try:
        compile_pattern(pattern)
    except InvalidPattern as error:
        raise OperationRefused("filter", f"the pattern cannot be used: {error.reason}") from error


def _discard(policy: DiscardPolicy, on_failure: str) -> DiscardPolicy:
    if on_failure in (STOP, SKIP):
        return DiscardPolicy()
    try:
        destination_plugin(on_failure)
    except ValueError as error:
        remedy = f"write {STOP}, {SKIP}, or the ARN or URL of a destination"
        named = line_of(on_failure, chars_max=SHOWN_CHARS_MAX)
        raise OperationRefused("on_failure", f"{named!r} is no destination; {remedy}") from error
    return replace(policy, destination=on_failure, on_destination_failure=OnDestinationFailure.KEEP)
