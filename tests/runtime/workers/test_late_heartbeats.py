"""A worker whose heartbeats stop getting through while it takes leases."""

import asyncio
from dataclasses import dataclass, field

import pytest

from poller.domain.records import MappingId, WorkerId
from poller.domain.rows import Lease
from poller.runtime.streams.stream_mapping import TAKES_AT_ONCE
from tests.runtime.workers.test_leases import HEARTBEAT_S, LEASE_S, MAPPING, Flaky, Scene, play
from tests.virtual import virtual_clock


@dataclass(eq=False)
class SlowStore(Flaky):
    """A store whose first takes need `takes_s`, and which loses heartbeats from then on."""

    takes_s: float
    takes: list[float] = field(default_factory=list)
    looks: list[float] = field(default_factory=list)

    def __post_init__(self) -> None:
        super().__init__()

    async def leases(self, mapping: MappingId, *, memos: bool = True) -> list[Lease]:
        self.looks.append(virtual_clock().monotonic())
        return list(await super().leases(mapping, memos=memos))

    async def take(self, mapping: MappingId, lease: Lease, *, owner: WorkerId) -> Lease:
        self.takes.append(virtual_clock().monotonic())
        if len(self.takes) <= TAKES_AT_ONCE:
            self.away = True
            await asyncio.sleep(self.takes_s)
        return await super().take(mapping, lease, owner=owner)


@pytest.mark.parametrize("late_s", [0.5, 5.0])
def test_a_worker_asks_for_no_lease_before_its_next_heartbeat_got_through(late_s: float) -> None:
    store = SlowStore(takes_s=LEASE_S + 1.0)

    async def script(place: Scene) -> None:
        worker = place.start("ann")
        await asyncio.sleep(LEASE_S + 1.0 + late_s)
        assert store.away
        assert len(store.takes) == TAKES_AT_ONCE, "the last lease is not asked for"
        assert [shard for shard in worker.runner.shards() if shard.owner] == [], (
            "what was taken meanwhile does not hold"
        )
        assert len(store.looks) <= 2 + late_s / HEARTBEAT_S, "it waits between two looks"
        store.away, healed = False, virtual_clock().monotonic()
        await asyncio.sleep(3.0)
        again = store.takes[TAKES_AT_ONCE:]
        assert len(again) == TAKES_AT_ONCE + 1
        assert all(healed <= at <= healed + 2 * HEARTBEAT_S for at in again)
        assert {lease.owner for lease in await store.leases(MAPPING)} == {"ann"}
        assert len(worker.runner.shards()) == TAKES_AT_ONCE + 1

    play(lambda: Scene(TAKES_AT_ONCE + 1, store=store), script)
