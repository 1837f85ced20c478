"""Owns what a running queue mapping has beside what every mapping has."""

from dataclasses import dataclass

from poller.ports import QueueSource
from poller.runtime.context import MappingContext


@dataclass(frozen=True, slots=True, kw_only=True)
class QueueContext(MappingContext):
    """A queue mapping's parts."""

    source: QueueSource
