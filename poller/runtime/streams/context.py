"""Owns the context of a stream mapping: what it works with in addition to what every mapping has."""

from dataclasses import dataclass, field

from poller.domain.records import Monotonic
from poller.ports import Destination, StreamSource
from poller.runtime.context import MappingContext
from poller.runtime.streams.places import Places
from poller.runtime.streams.shared_reads.shared_stream import SharedSource


@dataclass(slots=True)
class Retention:
    """How long a source keeps records, as it last said; None when it does not say. The stream's owner may change it any time."""

    seconds: float | None = None
    due: Monotonic = Monotonic(0.0)
    """When the source is to be asked again."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamContext(MappingContext):
    """What a stream mapping works with."""

    source: StreamSource
    shared: SharedSource | None = None
    """The stream for the readers of shards, who share reads with other mappings of the daemon; None if they use `source`."""
    destination: Destination | None
    places: Places = field(default_factory=Places)
    retention: Retention = field(default_factory=Retention)
