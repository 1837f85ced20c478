"""Owns what of a status is sent to somebody who has an earlier one: what differs, and of it first what matters.

A state, an owner, a pause or an error is sent as soon as it differs. Positions, lags and counts of what runs well differ all the time. Of these a
limited number is sent with each update, those first that have waited longest, so that an update of a thousand busy shards stays small. An
age alone is no difference, since the ages of workers, which are always sent, say as much.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields, replace
from operator import attrgetter
from typing import Any

from poller.domain.functions.waiting_calls import CallsStatus
from poller.domain.status import (
    DaemonStatus,
    FunctionStatus,
    LaneStatus,
    MappingStatus,
    MappingWorker,
    ShardStatus,
    WorkerBreaker,
    WorkerStatus,
)

MINOR_MAX = 200
"""Shards, mappings and lanes of queues that are sent with one update although only a position, a lag or a count differs."""
FUNCTIONS_EVERY = 5
"""Only each so many updates has functions, or their asynchronous calls, of which nothing but counts differs."""

type _Key = Callable[[Any], Any]


def _members(kind: type, *without: str) -> _Key:
    """Takes the members of a value, without some of them."""
    return attrgetter(*(each.name for each in fields(kind) if each.name not in without))


HEAD = tuple(each.name for each in fields(MappingStatus) if each.name not in {"shards", "lanes"})
_head = _members(MappingStatus, "shards", "lanes", "workers")
_calm_head = _members(MappingStatus, "shards", "lanes", "workers", "result_at")
_mapping_worker = _members(MappingWorker, "age_s")
_shard = _members(ShardStatus, "age_s")
_calm_shard = _members(ShardStatus, "age_s", "position", "behind_ms", "lanes")
_calm_lane = attrgetter("lane", "blocked_since", "failing_since", "last_error", "paused", "worker")
_breaker_of = _members(WorkerBreaker, "age_s")


def _same(value: Any) -> Any:
    return value


def _of_head(mapping: MappingStatus) -> Any:
    return _head(mapping), tuple(map(_mapping_worker, mapping.workers))


def _calm_of_head(mapping: MappingStatus) -> Any:
    return _calm_head(mapping), tuple(map(_mapping_worker, mapping.workers))


def _calm_of_shard(shard: ShardStatus) -> Any:
    return _calm_shard(shard), _calm_of_lanes(shard.lanes)


def _calm_of_lanes(lanes: tuple[LaneStatus, ...]) -> Any:
    return tuple(map(_calm_lane, lanes))


def _of_functions(functions: tuple[FunctionStatus, ...]) -> Any:
    return [
        (each.function, each.rate, each.breaker, each.code, *map(_breaker_of, each.breakers))
        for each in functions
    ]


def _calm_of_functions(functions: tuple[FunctionStatus, ...]) -> Any:
    return [
        (
            each.function,
            each.breaker and (each.breaker.state, each.breaker.since, each.breaker.next_try),
            each.code,
            [(one.worker, one.breaker.state, one.breaker.since, one.out_of_date) for one in each.breakers],
        )
        for each in functions
    ]


def _calm_of_calls(calls: tuple[CallsStatus, ...]) -> Any:
    return [(each.function, each.last_error, each.undelivered > 0) for each in calls]


@dataclass(slots=True)
class _Sent:
    """An item as it was sent, and with which update."""

    item: Any
    update: int


@dataclass(frozen=True, slots=True)
class _Item:
    """Something that is sent as a whole. `weight` says how much of MINOR_MAX it takes."""

    key: tuple[str, ...]
    value: Any
    exact: _Key
    calm: _Key
    weight: int = 1


def structure(status: DaemonStatus) -> Any:
    """What there is. If it differs, somebody who has an earlier status needs the whole one."""
    return (
        status.worker,
        status.only,
        [(each.mapping, frozenset(shard.shard for shard in each.shards)) for each in status.mappings],
        [each.function for each in status.functions],
        [each.worker for each in status.workers],
    )


class SentStatus:
    """The status as its readers have it, after all that was sent."""

    def __init__(self, status: DaemonStatus) -> None:
        self._structure = structure(status)
        self._update = 0
        self._items = {item.key: _Sent(item.value, 0) for item in _items(status)}
        self._whole = _whole_members(status)
        self._functions = status.functions
        self._calls = status.calls

    def changes(self, status: DaemonStatus) -> dict[str, Any] | None:
        """What to send to a reader; empty if nothing. None: the whole status has to be sent, because something came or went."""
        if structure(status) != self._structure:
            return None
        self._update += 1
        found = self._changed_items(status) | self._changed_functions(status) | self._changed_calls(status)
        whole = _whole_members(status)
        found |= {name: value for name, value in whole.items() if value != self._whole[name]}
        self._whole = whole
        return found

    def _changed_items(self, status: DaemonStatus) -> dict[str, Any]:
        major: list[_Item] = []
        minor: list[_Item] = []
        for item in _items(status):
            before = self._items[item.key].item
            if item.exact(before) != item.exact(item.value):
                (minor if item.calm(before) == item.calm(item.value) else major).append(item)
        minor.sort(key=lambda item: self._items[item.key].update)
        room = MINOR_MAX
        for item in minor:
            if room <= 0:
                break
            room -= item.weight
            major.append(item)
        mappings, shards, lanes = list[Any](), dict[str, list[Any]](), dict[str, Any]()
        for item in major:
            self._items[item.key] = _Sent(item.value, self._update)
            match item.key:
                case ("mapping", _):
                    mappings.append({name: getattr(item.value, name) for name in HEAD})
                case ("lanes", mapping):
                    lanes[mapping] = item.value
                case (_, mapping, _):
                    shards.setdefault(mapping, []).append(item.value)
        found = {"mappings": mappings, "shards": shards, "lanes": lanes}
        return {name: value for name, value in found.items() if value}

    def _changed_functions(self, status: DaemonStatus) -> dict[str, Any]:
        before, now = self._functions, status.functions
        if _of_functions(before) == _of_functions(now):
            return {}
        if self._update % FUNCTIONS_EVERY and _calm_of_functions(before) == _calm_of_functions(now):
            return {}
        self._functions = now
        return {"functions": now}

    def _changed_calls(self, status: DaemonStatus) -> dict[str, Any]:
        before, now = self._calls, status.calls
        if before == now or (
            self._update % FUNCTIONS_EVERY and _calm_of_calls(before) == _calm_of_calls(now)
        ):
            return {}
        self._calls = now
        return {"calls": now}


def _items(status: DaemonStatus) -> Iterator[_Item]:
    for mapping in status.mappings:
        name = str(mapping.mapping)
        yield _Item(("mapping", name), mapping, _of_head, _calm_of_head)
        yield _Item(("lanes", name), mapping.lanes, _same, _calm_of_lanes, max(1, len(mapping.lanes)))
        for shard in mapping.shards:
            yield _Item(("shard", name, str(shard.shard)), shard, _shard, _calm_of_shard)


def _whole_members(status: DaemonStatus) -> dict[str, Any]:
    """The members that are sent as a whole when they differ."""
    return {
        "workers": tuple(map(_rounded, status.workers)),
        "problems": status.problems,
        "notes": status.notes,
        "ready": status.ready,
        "alive": status.alive,
        "complete": status.complete,
    }


def _rounded(worker: WorkerStatus) -> WorkerStatus:
    return worker if worker.age_s is None else replace(worker, age_s=round(worker.age_s))
