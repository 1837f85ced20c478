"""Owns where a dry run begins: it copies rows and positions of the daemon's store into a store in memory.

The daemon's store is opened only by its read-only view (`Plugin.look`), so that nothing is written and no lease is taken. The copy
has no owners and no workers, so that the dry run is alone.
"""

import asyncio
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field, replace

from poller.config.plugin_specs import store_of
from poller.domain.errors import PortError, ServiceUnavailable
from poller.domain.plan import DaemonPlan, MappingPlan, SourceKind
from poller.domain.rows import API_PREFIX, FUNCTION_PREFIX, REPLAY_PREFIX, Lease, MappingRow
from poller.plugins import Environment, Registry, validated
from poller.ports import LeaseList, LeaseStore, MappingList, MappingStore
from poller.rules.continued_mapping import connection_of

READ_S_MAX = 60.0
"""How long the whole reading of the store may take."""
FRESH = "to begin at each StartingPosition without the store, add --fresh"
NO_VIEW = "its plug-in cannot read it without opening it for writing"


class StoreUnread(Exception):
    """The store's positions could not be read, so that it is not known where the daemon stands. `reason` is one line."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = f"store: {reason}; {FRESH}"


@dataclass(frozen=True, slots=True)
class StoredPositions:
    """Rows of mappings, each with its leases."""

    rows: Sequence[tuple[MappingRow, Sequence[Lease]]] = field(default_factory=tuple)

    async def copy_into(self, mappings: MappingStore, leases: LeaseStore) -> None:
        """Adds the rows and leases to an empty store. No lease has an owner there."""
        for row, found in self.rows:
            await mappings.create(row)
            await leases.seed(row.mapping, [replace(lease, owner=None) for lease in found])


async def stored_positions(
    plan: DaemonPlan, chosen: Sequence[MappingPlan], registry: Registry, env: Environment
) -> StoredPositions:
    """What the daemon's store has about the streams of `chosen`. Raises StoreUnread, and InvalidConfiguration for wrong settings."""
    streams = {each.source_arn for each in chosen if each.kind is not SourceKind.SQS}
    if not streams:
        return StoredPositions()
    spec = store_of(plan)
    plugin = registry.plugin(spec.kind, spec.name)
    settings = validated(plugin, spec.settings(plugin.settings), place="store")
    if plugin.look is None:
        raise StoreUnread(NO_VIEW)
    try:
        async with asyncio.timeout(READ_S_MAX), plugin.look(settings, env) as view:
            if not isinstance(view, MappingList) or not isinstance(view, LeaseList):
                raise StoreUnread(NO_VIEW)
            rows = _needed(await view.mappings(), chosen, streams)
            return StoredPositions([(row, await view.leases(row.mapping)) for row in rows])
    except TimeoutError as error:
        raise StoreUnread(f"no answer within {READ_S_MAX:g} s") from error
    except PortError as error:
        raise StoreUnread(error.reason) from error


def _needed(
    rows: Sequence[MappingRow], chosen: Sequence[MappingPlan], streams: Collection[str]
) -> list[MappingRow]:
    """The rows of the chosen mappings and of all mappings of the same streams. Raises ServiceUnavailable for damaged rows."""
    mappings = {each.mapping for each in chosen}
    found = [row for row in rows if not row.mapping.startswith((API_PREFIX, FUNCTION_PREFIX, REPLAY_PREFIX))]
    for row in found:
        if row.damage and row.mapping in mappings:
            raise ServiceUnavailable(row.damage)
    return [row for row in found if not row.damage and (row.mapping in mappings or _reads(row, streams))]


def _reads(row: MappingRow, streams: Collection[str]) -> bool:
    known = connection_of(row)
    return known is not None and known.source in streams
