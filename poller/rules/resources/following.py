"""Owns what becomes of the mapping of a custom resource: it is made, changed, laid to rest or deleted.

Every worker decides for itself, from the resource and from the mapping in the store, and writes with the store's condition on the
revision. The generation of a spec only grows, and a mapping remembers of which generation it was made. So a worker that sees the
cluster late never puts an older spec in the place of a newer one, and no leader is needed.
"""

from dataclasses import dataclass
from enum import Enum, auto

from poller.domain.resources.resource import MappingResource, ResourceOrigin

FIXED = ("EventSourceArn", "StartingPosition", "StartingPositionTimestamp")
"""Members whose change would be another mapping."""


class Presence(Enum):
    """What the cluster says of the resource of which a mapping was made."""

    SELECTED = auto()
    UNSELECTED = auto()
    """It exists, and the daemon's selector does not choose it any more."""
    GONE = auto()
    """It does not exist, or another resource has its name."""


class ResourceStep(Enum):
    """What to do with the mapping of a resource now."""

    NOTHING = auto()
    CREATE = auto()
    CHANGE = auto()
    DELETE = auto()
    REST = auto()
    """Disable it and keep its positions."""
    CONFLICT = auto()
    """The id of the mapping belongs to another one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MadeMapping:
    """The mapping with the id of a resource, as the store has it. `origin` is None if it was made in another way."""

    origin: ResourceOrigin | None
    deleting: bool = False


def step_for(resource: MappingResource, known: MadeMapping | None, *, valid: bool) -> ResourceStep:
    """What a resource asks for. `valid`: its spec is one that a mapping can be made of.

    A spec that is not valid changes nothing: the mapping goes on as it was made of the last valid one.
    """
    if known is None:
        return ResourceStep.CREATE if valid and not resource.deleting else ResourceStep.NOTHING
    if known.origin is None or known.origin.uid != resource.uid:
        return ResourceStep.NOTHING if resource.deleting else ResourceStep.CONFLICT
    if known.deleting:
        return ResourceStep.NOTHING
    if resource.deleting:
        return ResourceStep.DELETE
    newer = resource.generation > known.origin.generation or not known.origin.selected
    return ResourceStep.CHANGE if newer and valid else ResourceStep.NOTHING


def step_without(known: MadeMapping, presence: Presence) -> ResourceStep:
    """What becomes of a mapping whose resource is not among the selected ones."""
    if known.origin is None or known.deleting or presence is Presence.SELECTED:
        return ResourceStep.NOTHING
    if presence is Presence.GONE:
        return ResourceStep.DELETE
    return ResourceStep.REST if known.origin.selected else ResourceStep.NOTHING
