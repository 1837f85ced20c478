"""Owns the context of a running queue mapping: what it has in addition to other mappings."""

from dataclasses import dataclass

from poller.ports import QueueSource
from poller.runtime.context import MappingContext


@dataclass(frozen=True, slots=True, kw_only=True)
class QueueContext(MappingContext):
    """The context of a queue mapping."""

    source: QueueSource
