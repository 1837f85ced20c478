"""Owns what a running stream mapping has beside what every mapping has."""

from dataclasses import dataclass, field

from poller.ports import Destination, StreamSource
from poller.runtime.context import MappingContext
from poller.runtime.streams.places import Places


@dataclass(slots=True)
class Retention:
    """How long a source keeps records, as it last said; None when it does not say. Its owner may change it any time."""

    seconds: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamContext(MappingContext):
    """A stream mapping's parts."""

    source: StreamSource
    destination: Destination | None
    places: Places = field(default_factory=Places)
    retention: Retention = field(default_factory=Retention)
