"""Owns the context of a stream mapping: what it works with in addition to what every mapping has."""

from dataclasses import dataclass, field

from poller.ports import Destination, StreamSource
from poller.runtime.context import MappingContext
from poller.runtime.streams.places import Places


@dataclass(slots=True)
class Retention:
    """How long a source keeps records, as it last said; None when it does not say. The stream's owner may change it any time."""

    seconds: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamContext(MappingContext):
    """What a stream mapping works with."""

    source: StreamSource
    destination: Destination | None
    places: Places = field(default_factory=Places)
    retention: Retention = field(default_factory=Retention)
