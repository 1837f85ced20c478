"""Owns the conditions of a custom resource: what its mapping is like, in the words that Kubernetes' tools read.

Ready: the mapping runs as the spec says, or rests because the spec says so. Blocked: records wait behind a batch that fails.
Paused: the function is not called, because an operator or the spec wants that. Degraded: it runs, and something of it does not.
Stalled is there only with a spec that cannot be carried out; Argo CD and kstatus take the resource for failed then.

`since` is carried over from the conditions that the resource has, as long as the status stays the same. So it does not matter
which worker writes, and a worker that starts changes nothing.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime

from poller.domain.records import Epoch
from poller.domain.resources.resource import (
    MESSAGE_CHARS_MAX,
    ConditionType,
    MappingResource,
    ResourceCondition,
    ResourceEvent,
    ResourceStatus,
)
from poller.domain.rows import MappingState
from poller.domain.status import LaneStatus, MappingStatus
from poller.domain.untrusted.texts import cut, line_of
from poller.domain.wording.numbers_of import number_of

LAG_WRITE_S = 30.0
"""A status that differs in nothing but the lag is written at most so often."""
_PROBLEM = "PROBLEM"
_BUSY = {
    MappingState.CREATING: "the mapping is being created",
    MappingState.ENABLING: "the mapping is being enabled",
    MappingState.DISABLING: "running invocations finish",
    MappingState.UPDATING: "running invocations finish before the changed mapping starts",
    MappingState.DELETING: "running invocations finish before the mapping is removed",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class ResourceFacts:
    """What is known of a resource's mapping. `invalid` is why the spec is refused, `conflict` why another mapping is in its way.

    `mapping` is its status on all workers; None if there is no mapping.
    """

    invalid: str = ""
    conflict: str = ""
    mapping: MappingStatus | None = None


@dataclass(frozen=True, slots=True)
class _Word:
    """What one condition says."""

    holds: bool
    reason: str
    message: str = ""


def status_of(resource: MappingResource, facts: ResourceFacts, *, now: Epoch) -> ResourceStatus:
    """The status that the resource should have now."""
    mapping = facts.mapping
    words = {
        ConditionType.READY: _ready(resource, facts),
        ConditionType.BLOCKED: _blocked(mapping),
        ConditionType.PAUSED: _paused(mapping),
        ConditionType.DEGRADED: _degraded(mapping),
    }
    if facts.invalid or facts.conflict:
        ready = words[ConditionType.READY]
        words[ConditionType.STALLED] = _Word(holds=True, reason=ready.reason, message=ready.message)
    lags = (
        [] if mapping is None else [each.behind_ms for each in mapping.shards if each.behind_ms is not None]
    )
    queue = mapping is None or mapping.pollers is not None
    return ResourceStatus(
        generation=resource.generation,
        conditions=tuple(_condition(resource, type_, word, now) for type_, word in words.items()),
        uuid="" if mapping is None else mapping.mapping,
        state="" if mapping is None else mapping.state.value,
        last_result="" if mapping is None else cut(mapping.last_result, MESSAGE_CHARS_MAX),
        shards=None if queue or mapping is None else sum(each.state != "ended" for each in mapping.shards),
        lag_s=max(lags) // 1000 if lags else None,
    )


def _condition(resource: MappingResource, type_: ConditionType, word: _Word, now: Epoch) -> ResourceCondition:
    before = resource.condition(type_)
    since = before.since if before is not None and before.holds == word.holds else Epoch(float(int(now)))
    return ResourceCondition(
        type=type_.value,
        holds=word.holds,
        reason=word.reason,
        # An empty text would be refused by old API servers, which make null of it when it is applied.
        message=line_of(word.message or word.reason, chars_max=MESSAGE_CHARS_MAX),
        since=since,
        generation=resource.generation,
    )


def _ready(resource: MappingResource, facts: ResourceFacts) -> _Word:
    mapping = facts.mapping
    if resource.deleting:
        return _Word(holds=False, reason="Deleting", message=_BUSY[MappingState.DELETING])
    if facts.invalid:
        goes_on = "; the mapping goes on as before the change" if mapping is not None else ""
        return _Word(
            holds=False,
            reason="Invalid",
            message=cut(facts.invalid, MESSAGE_CHARS_MAX - len(goes_on)) + goes_on,
        )
    if facts.conflict:
        return _Word(holds=False, reason="Conflict", message=facts.conflict)
    if mapping is None:
        return _Word(holds=False, reason="Creating", message=_BUSY[MappingState.CREATING])
    match mapping.state:
        case MappingState.BROKEN:
            return _Word(holds=False, reason="Broken", message=mapping.reason)
        case MappingState.DISABLED:
            return _Word(holds=True, reason="Disabled", message="disabled by its spec")
        case MappingState.ENABLED if mapping.reason:
            return _Word(holds=False, reason="NotOpen", message=mapping.reason)
        case MappingState.ENABLED:
            return _Word(holds=True, reason="Running", message="the mapping runs")
        case state:
            return _Word(holds=False, reason=state.value, message=mapping.reason or _BUSY[state])


def _blocked(mapping: MappingStatus | None) -> _Word:
    found = [] if mapping is None else list(_blocked_lanes(mapping))
    elsewhere = 0 if mapping is None else sum(each.blocked for each in mapping.workers)
    count = max(len({place for place, _ in found}), elsewhere)
    if not count:
        return _Word(holds=False, reason="NotBlocked")
    more = f" (and {number_of(count - 1, 'other')})" if count > 1 else ""
    if not found:
        return _Word(
            holds=True,
            reason="BatchFails",
            message=f"{number_of(count, 'shard or lane', 'shards or lanes')} blocked",
        )
    place, lane = min(found, key=lambda each: (each[1].blocked_since or 0.0, each[0]))
    since = f" since {_moment(lane.blocked_since)}" if lane.blocked_since is not None else ""
    tries = f", {number_of(lane.attempts, 'attempt')}" if lane.attempts else ""
    error = f": {lane.last_error}" if lane.last_error else ""
    return _Word(holds=True, reason="BatchFails", message=f"{place}{more} is blocked{since}{tries}{error}")


def _blocked_lanes(mapping: MappingStatus) -> Iterator[tuple[str, LaneStatus]]:
    for shard in mapping.shards:
        yield from ((f"shard {shard.shard}", lane) for lane in shard.lanes if lane.blocked_since is not None)
    yield from ((f"group {each.lane}", each) for each in mapping.lanes if each.blocked_since is not None)


def _paused(mapping: MappingStatus | None) -> _Word:
    if mapping is not None and mapping.paused is not None:
        pause = mapping.paused
        why = f": {pause.reason}" if pause.reason else ""
        return _Word(
            holds=True, reason="ByOperator", message=f"paused by {pause.by} since {_moment(pause.since)}{why}"
        )
    if mapping is not None and mapping.state is MappingState.DISABLED:
        return _Word(holds=True, reason="Disabled", message="disabled by its spec")
    return _Word(holds=False, reason="NotPaused")


def _degraded(mapping: MappingStatus | None) -> _Word:
    if mapping is None or mapping.state is MappingState.DISABLED:
        return _Word(holds=False, reason="AsExpected")
    if mapping.state is MappingState.BROKEN:
        return _Word(holds=True, reason="Broken", message=mapping.reason)
    unread = [each for each in mapping.shards if each.state == "failing"]
    if unread:
        text = f"shard {unread[0].shard} cannot be read: {unread[0].reason}"
        return _Word(holds=True, reason="ShardNotRead", message=text)
    failing = [each for each in mapping.lanes if each.failing_since is not None]
    if failing:
        text = f"{number_of(len(failing), 'message')} failing: {failing[0].last_error}"
        return _Word(holds=True, reason="MessagesFail", message=text)
    lost = sum(each.losses for each in mapping.shards)
    if lost:
        text = f"records were lost {number_of(lost, 'time')} before they could be read"
        return _Word(holds=True, reason="RecordsLost", message=text)
    if mapping.last_result.startswith(_PROBLEM):
        return _Word(holds=True, reason="LastResult", message=mapping.last_result)
    return _Word(holds=False, reason="AsExpected")


def _moment(at: Epoch | None) -> str:
    return datetime.fromtimestamp(at or 0.0, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def worth_writing(new: ResourceStatus, written: ResourceStatus | None, *, since_s: float) -> bool:
    """Whether a status is to be written. `written` is the one that the resource has, and `since_s` how long this worker has seen it so.

    The lag of a shard changes all the time. If nothing else has changed, the status is written every LAG_WRITE_S at most.
    """
    if written is None or replace(new, lag_s=None) != replace(written, lag_s=None):
        return True
    return new.lag_s != written.lag_s and since_s >= LAG_WRITE_S


_TOLD: dict[ConditionType, tuple[str, str]] = {
    ConditionType.BLOCKED: ("Blocked", "Freed"),
    ConditionType.PAUSED: ("Paused", "Resumed"),
}


def events_of(resource: MappingResource, status: ResourceStatus) -> tuple[ResourceEvent, ...]:
    """The events of the change from the conditions that the resource has to those of `status`: blocked, freed, paused, resumed, refused.

    Each change makes one event. Its key is made of the moment of the change, so two workers that tell it tell the same event.
    """
    now = {each.type: each for each in status.conditions}
    found = []
    for type_, (begun, ended) in _TOLD.items():
        before, after = resource.condition(type_), now[type_]
        if after.holds == (before is not None and before.holds):
            continue
        reason = begun if after.holds else ended
        warning = type_ is ConditionType.BLOCKED and after.holds
        note = after.message if after.holds or before is None else before.message
        found.append(_event(resource, after, reason, note=_ended_note(reason, note), warning=warning))
    stalled, was = now.get(ConditionType.STALLED), resource.condition(ConditionType.STALLED)
    if stalled is not None and (was is None or was.generation != stalled.generation):
        found.append(_event(resource, stalled, stalled.reason, note=stalled.message, warning=True))
    return tuple(found)


def _ended_note(reason: str, note: str) -> str:
    words: dict[str, Callable[[str], str]] = {
        "Freed": lambda text: f"no longer blocked; before: {text}",
        "Resumed": lambda text: f"no longer paused; before: {text}",
    }
    return cut(words.get(reason, str)(note), MESSAGE_CHARS_MAX)


def _event(
    resource: MappingResource, condition: ResourceCondition, reason: str, *, note: str, warning: bool
) -> ResourceEvent:
    # Several refused specs may follow each other while Stalled holds; each generation tells its own.
    key = f"{resource.uid}/{reason}/{condition.since:.0f}/{resource.generation}"
    return ResourceEvent(key=key, reason=reason, note=note, warning=warning, at=condition.since)


def writer_of(uid: str, workers: Sequence[str], rank: Callable[[str], int]) -> str:
    """The one of `workers` that writes the status of a resource: another one for each resource, and the same for every worker that asks.

    When a worker comes or goes, only the resources that it gets or had change their writer. `rank` makes a number of a text.
    """
    return max(workers, key=lambda worker: (rank(f"{uid} {worker}"), worker))
