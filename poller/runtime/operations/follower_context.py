"""Owns what following operations works with."""

from dataclasses import dataclass
from random import Random

from poller.domain.policies import Backoff
from poller.domain.records import WorkerId
from poller.domain.telemetry.observers import Observer
from poller.ports import Clock, Store
from poller.runtime.operations.long.long_run import PlaceOpener
from poller.runtime.operations.operable_mappings import Peers
from poller.runtime.replays.replay_host import ReplayHost


@dataclass(frozen=True, slots=True, kw_only=True)
class FollowerContext:
    """What the follower works with."""

    worker: WorkerId
    store: Store
    peers: Peers
    clock: Clock
    rng: Random
    observer: Observer
    port_backoff: Backoff
    """The back-off after failed calls of the store."""
    opener: PlaceOpener
    """Opens places that operations name."""
    replays: ReplayHost | None = None
    """Carries out replays; None: they are not carried out here."""
