"""Owns how operations see the mappings of one daemon."""

from collections.abc import Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager
from typing import Any

from poller.domain.records import MappingId
from poller.plugins import validated
from poller.runtime.mappings.components import DaemonContext
from poller.runtime.mappings.desired import DesiredMappings
from poller.runtime.mappings.replayed import DaemonReplays
from poller.runtime.mappings.running import RunningMappings
from poller.runtime.operations.follower import Follower
from poller.runtime.operations.follower_context import FollowerContext
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


class PluginOpener:
    """Opens the plug-ins of places that operations name."""

    def __init__(self, tools: DaemonContext) -> None:
        self._registry = tools.registry
        self._env = tools.env

    def __call__(
        self, kind: str, name: str, settings: Mapping[str, Any], *, look: bool = False
    ) -> AbstractAsyncContextManager[Any]:
        """Opens one plug-in of this kind; raises InvalidConfiguration and PortError. With `look` it changes nothing outside."""
        plugin = self._registry.plugin(kind, name)
        checked = validated(plugin, settings, place=f"{kind} {name}")
        return plugin.look(checked, self._env) if look and plugin.look else plugin.open(checked, self._env)


def follow_operations(
    tools: DaemonContext,
    desired: DesiredMappings,
    running: RunningMappings,
    peers: Peers,
    stop: Stop,
    *,
    refresh: Callable[[], Awaitable[bool]],
) -> tuple[Follower, OperationContext]:
    """Makes the follower of a daemon, and what its service for operations needs. `refresh` reads the mappings made through the API."""
    clock, rng, store = tools.env.clock, tools.rng, tools.store
    mappings, replays = OperatedMappings(desired, running), DaemonReplays(tools, desired, running)
    operations = OpenOperations(store, store, clock=clock, observer=tools.observer, rng=rng)
    context = FollowerContext(
        worker=tools.worker,
        store=store,
        peers=peers,
        clock=clock,
        rng=rng,
        observer=tools.observer,
        port_backoff=tools.port_backoff,
        opener=PluginOpener(tools),
        replays=replays,
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
        replays=replays,
        wake=follower.wake,
    )
    return follower, asking
