"""Owns what a running mapping is made of: its plan, its open ports, and the daemon's clock, chance and observer."""

from dataclasses import dataclass, field, fields
from random import Random
from typing import Any
from uuid import UUID

from poller.plan import MappingPlan, Tuning
from poller.ports import Clock, Destination, QueueSource, Store, StreamSource
from poller.records import WorkerId
from poller.rules.backoff import wait_s
from poller.runtime.invoking import Function
from poller.runtime.workers import Alone, Workers
from poller.telemetry import Observer


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """What streams and queues have in common."""

    plan: MappingPlan
    worker: WorkerId
    function: Function
    store: Store
    clock: Clock
    rng: Random
    observer: Observer
    tuning: Tuning
    workers: Workers | None = None
    """Who shares the mapping's work; None: nobody."""

    @property
    def crew(self) -> Workers:
        """Who shares the mapping's work."""
        return self.workers or Alone(self.worker)

    def new_id(self) -> str:
        """A random UUID; a request id or the id of a notice."""
        return str(UUID(int=self.rng.getrandbits(128), version=4))

    def port_wait_s(self, tries: int) -> float:
        """Seconds to wait after `tries` failed calls of a port in a row."""
        return wait_s(self.tuning.port_backoff, tries, self.rng)


@dataclass(slots=True)
class Retention:
    """How long a source keeps records, as it last said; None when it does not say. Its owner may change it any time."""

    seconds: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamParts(Parts):
    """A stream mapping's parts."""

    source: StreamSource
    destination: Destination | None
    retention: Retention = field(default_factory=Retention)


@dataclass(frozen=True, slots=True, kw_only=True)
class QueueParts(Parts):
    """A queue mapping's parts."""

    source: QueueSource


def common(parts: Parts) -> dict[str, Any]:
    """The fields of `parts` by name, to make the parts of a stream or a queue from."""
    return {each.name: getattr(parts, each.name) for each in fields(Parts)}
