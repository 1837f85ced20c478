"""Whole daemons on a store in which a row is damaged: its mapping waits and says so, the others go on, and mending it is enough."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, replace

import pytest

from adapters.stores.memory import MemoryStore
from poller.domain.errors import ServiceUnavailable
from poller.domain.records import Epoch, MappingId
from poller.domain.rows import Lease, MappingRow
from poller.runtime.daemon import Daemon
from tests.runtime.daemons import daemon_plan, play
from tests.runtime.test_daemon import FIRST, SECOND, calls, site

ROW = f"the row of mapping {FIRST.mapping} in the store is damaged: document: no JSON; correct it"
SHARD = "the row of shard shardId-0 in the store is damaged: position: no position; correct it"
OLD = MappingId("6f4b8a5e-8b0c-4a56-9c0e-0d7d6b0c2b99")


@dataclass(eq=False)
class Damaged(MemoryStore):
    """A store with a damaged row: that of a mapping, or of one of its shards."""

    mapping: MappingId | None = None
    leases_of: MappingId | None = None

    def __post_init__(self) -> None:
        super().__init__()

    async def create(self, row: MappingRow) -> MappingRow:
        if row.mapping == self.mapping:
            raise ServiceUnavailable(ROW)
        return await super().create(row)

    async def mappings(self) -> Sequence[MappingRow]:
        damaged = [MappingRow(self.mapping, Epoch(0.0), damage=ROW)] if self.mapping else []
        return [*damaged, *(row for row in await super().mappings() if row.mapping != self.mapping)]

    async def leases(self, mapping: MappingId, *, memos: bool = True) -> Sequence[Lease]:
        if mapping == self.leases_of:
            raise ServiceUnavailable(SHARD)
        return await super().leases(mapping, memos=memos)


def said(daemon: Daemon) -> str:
    status = daemon.status()
    return "\n".join((*status.problems, *status.notes, *(each.reason for each in status.mappings)))


@pytest.mark.parametrize(
    ("store", "text"),
    [(Damaged(mapping=FIRST.mapping), ROW), (Damaged(leases_of=FIRST.mapping), SHARD)],
    ids=["of a mapping", "of a shard"],
)
def test_a_damaged_row_holds_up_its_mapping_alone_until_it_is_mended(store: Damaged, text: str) -> None:
    place = site()

    async def script(daemon: Daemon) -> None:
        await asyncio.sleep(60)
        assert calls(place, "writer") == [[1, 2, 3, 4, 5]]
        assert calls(place, "reader") == []
        assert text in said(daemon)
        store.mapping = store.leases_of = None
        await asyncio.sleep(60)
        assert calls(place, "reader") == [[1, 2, 3, 4, 5]]
        assert text not in said(daemon)

    slow = replace(
        daemon_plan().tuning, port_backoff=replace(daemon_plan().tuning.port_backoff, base_s=1.0, cap_s=5.0)
    )
    play(lambda: place.daemon(daemon_plan(FIRST, SECOND, tuning=slow), store=store), script)


def test_a_new_mapping_waits_for_a_row_in_which_it_may_stand() -> None:
    """Begun anew it could skip what the mapping of that row has not read yet."""
    place = site()
    store = Damaged(mapping=OLD)

    async def script(daemon: Daemon) -> None:
        await asyncio.sleep(60)
        assert calls(place, "reader") == []
        assert ROW in said(daemon)
        store.mapping = None
        await asyncio.sleep(60)
        assert calls(place, "reader") == [[1, 2, 3, 4, 5]]

    slow = replace(
        daemon_plan().tuning, port_backoff=replace(daemon_plan().tuning.port_backoff, base_s=1.0, cap_s=5.0)
    )
    play(lambda: place.daemon(daemon_plan(FIRST, tuning=slow), store=store), script)
