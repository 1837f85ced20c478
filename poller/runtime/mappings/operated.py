"""Owns how operations see the mappings of one daemon."""

from collections.abc import Awaitable, Callable, Mapping

from poller.domain.records import MappingId
from poller.runtime.mappings.components import DaemonContext
from poller.runtime.mappings.desired import DesiredMappings
from poller.runtime.mappings.running import RunningMappings
from poller.runtime.operations.follower import Follower, FollowerContext
from poller.runtime.operations.open_operations import OpenOperations
from poller.runtime.operations.operable import Operable
from poller.runtime.operations.operable_mappings import KnownMapping, Peers
from poller.runtime.operations.operation_service import OperationContext
from poller.runtime.stopping import Stop


class OperatedMappings:
    """The running mappings, and what is known of those that should run."""

    def __init__(self, desired: DesiredMappings, running: RunningMappings) -> None:
        self._desired = desired
        self._running = running

    def operables(self) -> Mapping[MappingId, Operable]:
        """The mappings that run here now."""
        return self._running.operables()

    def known(self, mapping: MappingId) -> KnownMapping | None:
        """A mapping of the file or of the API; None if this worker knows none with this id."""
        entry = self._desired.get(mapping)
        if entry is None:
            return None
        return KnownMapping(plan=entry.spec.plan, runs=entry.wanted().runs, deleting=entry.deleting)


def follow_operations(
    tools: DaemonContext,
    mappings: OperatedMappings,
    peers: Peers,
    stop: Stop,
    *,
    refresh: Callable[[], Awaitable[bool]],
) -> tuple[Follower, OperationContext]:
    """Makes the follower of a daemon, and what its service for operations needs. `refresh` reads the mappings made through the API."""
    clock, rng, store = tools.env.clock, tools.rng, tools.store
    operations = OpenOperations(store, clock=clock, observer=tools.observer, rng=rng)
    context = FollowerContext(
        worker=tools.worker,
        store=store,
        peers=peers,
        clock=clock,
        rng=rng,
        observer=tools.observer,
        port_backoff=tools.port_backoff,
    )
    follower = Follower(operations, mappings, stop, context)
    asking = OperationContext(
        operations=operations,
        running=mappings,
        peers=peers,
        store=store,
        clock=clock,
        rng=rng,
        refresh=refresh,
        wake=follower.wake,
    )
    return follower, asking
