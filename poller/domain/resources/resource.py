"""Owns a custom resource as its cluster shows it, and what is written to it: status, conditions and events."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from poller.domain.records import Epoch

SPEC_BYTES_MAX = 64 * 1024
"""The size of a spec as JSON. A larger one is refused: AWS's own limits for a mapping add up to less."""
MESSAGE_CHARS_MAX = 1024
"""The length of a condition's message and of an event's note, which is the limit that Kubernetes has for the latter."""


class ConditionType(StrEnum):
    """The conditions of a resource. STALLED is there only while the spec cannot be carried out, as kstatus expects."""

    READY = "Ready"
    BLOCKED = "Blocked"
    PAUSED = "Paused"
    DEGRADED = "Degraded"
    STALLED = "Stalled"


@dataclass(frozen=True, slots=True, kw_only=True)
class ResourceCondition:
    """One condition. `since` is when `holds` last changed. `generation` is that of the spec that it is about."""

    type: str
    holds: bool
    reason: str
    message: str
    since: Epoch
    generation: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ResourceOrigin:
    """The resource of which a mapping was made, at which generation of its spec. `own` has the file's own fields of the spec.

    `namespace_uid` tells its namespace from one of the same name in another cluster, and from one that was there before.
    `selected` is false while the resource is there and no longer selected: the mapping rests and keeps its positions.
    """

    namespace: str
    namespace_uid: str
    name: str
    uid: str
    generation: int
    own: Mapping[str, Any] = field(default_factory=dict)
    selected: bool = True

    @property
    def text(self) -> str:
        """Its name for people."""
        return f"{self.namespace}/{self.name}"


@dataclass(frozen=True, slots=True, kw_only=True)
class ResourceStatus:
    """What the daemon writes to a resource.

    `shards` counts those of a stream that are not finished; None for a queue. `lag_s` is how far the last known of them is behind, in
    whole seconds; None while that is not known. `uuid` is empty while there is no mapping.
    """

    generation: int
    conditions: tuple[ResourceCondition, ...]
    uuid: str = ""
    state: str = ""
    last_result: str = ""
    shards: int | None = None
    lag_s: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class MappingResource:
    """A resource as it was last read. `version` changes with every write to it, `generation` with every change of its spec.

    `deleting`: somebody has asked for its deletion, and a finalizer of somebody else still keeps it.
    `written` is its status as far as it can be read; None if it has none.
    """

    namespace: str
    name: str
    uid: str
    generation: int
    version: str
    spec: Mapping[str, Any]
    created: Epoch = Epoch(0.0)
    written: ResourceStatus | None = None
    deleting: bool = False

    def condition(self, type_: ConditionType) -> ResourceCondition | None:
        """The condition of this type."""
        conditions = () if self.written is None else self.written.conditions
        return next((each for each in conditions if each.type == type_), None)


@dataclass(frozen=True, slots=True, kw_only=True)
class ResourceEvent:
    """Something that happened to a resource. The same event has the same `key`, whichever worker tells it."""

    key: str
    reason: str
    note: str
    warning: bool
    at: Epoch
