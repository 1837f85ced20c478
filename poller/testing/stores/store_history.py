"""Owns tests of stores with random histories: a state machine makes the same calls on a store and on a small model of it."""

import asyncio
from abc import abstractmethod
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from poller.domain.errors import LeaseLost, ResourceMissing, RowChanged
from poller.domain.operations import Operation, OperationId, OperationState
from poller.domain.records import Epoch, ShardId, WorkerId
from poller.domain.rows import Checkpoint, Lease, MappingRow
from poller.ports import Store
from poller.testing.stores.store_operations import asked
from poller.testing.stores.store_steps import ANN, AUDIT, BOB, LADDER, ORDERS, Opening, by_shard

OPERATION_NAMES = ("a", "b", "c")
OPERATIONS = st.sampled_from(OPERATION_NAMES)
STATES = st.sampled_from(list(OperationState))
SHARDS = st.sampled_from([ShardId("a"), ShardId("b"), ShardId("c")])
OWNERS = st.sampled_from([ANN, BOB])
RUNGS = st.integers(0, len(LADDER) - 1)
DOORS = st.integers(0, 1)
BEHIND = st.sampled_from([0, 0, 0, 1, 2])
"""How many epochs a caller is behind the stored one; mostly 0."""


@dataclass
class Row:
    """The model's lease. `rung` is an index into LADDER, the sorted positions."""

    owner: WorkerId | None = None
    epoch: int = 0
    rung: int = 0
    memo: bytes = b""

    def lease(self, shard: ShardId) -> Lease:
        """The lease as a store returns it."""
        return Lease(shard, (), Checkpoint(LADDER[self.rung], self.memo), self.owner, self.epoch)


class StoreMachine(RuleBasedStateMachine):
    """Each call uses one of two openings (`doors`) of the same state. A subclass makes the store."""

    def __init__(self) -> None:
        super().__init__()
        self.opening = self.fresh()
        self.runner = asyncio.Runner()
        self.rooms = AsyncExitStack()
        self.doors: list[Store] = []
        self.known: dict[str, tuple[bool, int]] = {}
        """The model's mapping: whether it is seeded, and its revision."""
        self.rows: dict[ShardId, Row] = {}
        self.operations: dict[OperationId, Operation] = {}

    @abstractmethod
    def fresh(self) -> Opening:
        """An opening of an empty store."""

    @initialize()
    def open(self) -> None:
        for _ in range(2):
            self.doors.append(self.runner.run(self.rooms.enter_async_context(self.opening())))

    def teardown(self) -> None:
        self.runner.run(self.rooms.aclose())
        self.runner.close()

    @rule(door=DOORS, seeded=st.booleans())
    def create(self, door: int, *, seeded: bool) -> None:
        kept = self.runner.run(self.doors[door].create(MappingRow(ORDERS, Epoch(1), seeded=seeded)))
        assert (kept.seeded, kept.revision) == self.known.setdefault(ORDERS, (seeded, 0))

    @rule(door=DOORS, seeded=st.booleans(), behind=BEHIND)
    def update(self, door: int, behind: int, *, seeded: bool) -> None:
        stored = self.known.get(ORDERS)
        revision = (stored[1] if stored else 0) - behind
        row = MappingRow(ORDERS, Epoch(1), seeded=seeded, revision=revision)
        try:
            self.runner.run(self.doors[door].update(row))
        except ResourceMissing:
            assert stored is None
        except RowChanged:
            assert stored is not None
            assert behind
            assert stored != (seeded, revision + 1)
        else:
            assert stored is not None
            assert not behind or stored == (seeded, revision + 1)
            self.known[ORDERS] = seeded, revision + 1

    @rule(door=DOORS)
    def forget(self, door: int) -> None:
        self.runner.run(self.doors[door].forget(ORDERS))
        self.known.clear()
        self.rows.clear()

    @rule(door=DOORS, shards=st.lists(SHARDS, unique=True), rung=RUNGS)
    def seed(self, door: int, shards: list[ShardId], rung: int) -> None:
        leases = [Row(rung=rung).lease(shard) for shard in shards]
        self.runner.run(self.doors[door].seed(ORDERS, leases))
        for shard in shards:
            self.rows.setdefault(shard, Row(rung=rung))

    @rule(door=DOORS, shard=SHARDS, owner=OWNERS, behind=BEHIND)
    def take(self, door: int, shard: ShardId, owner: WorkerId, behind: int) -> None:
        row = self.rows.get(shard)
        epoch = (row.epoch if row else 0) - behind
        asked = Lease(shard, (), Checkpoint(LADDER[0]), None, epoch)
        try:
            got = self.runner.run(self.doors[door].take(ORDERS, asked, owner=owner))
        except LeaseLost:
            assert row is None or (epoch != row.epoch and (row.owner, row.epoch) != (owner, epoch + 1))
        else:
            assert row is not None
            assert epoch == row.epoch or (row.owner, row.epoch) == (owner, epoch + 1)
            row.owner, row.epoch = owner, epoch + 1
            assert got == row.lease(shard)

    @rule(door=DOORS, shard=SHARDS, owner=OWNERS, behind=BEHIND)
    def release(self, door: int, shard: ShardId, owner: WorkerId, behind: int) -> None:
        row, held = self._held(shard, owner, behind)
        try:
            self.runner.run(self.doors[door].release(ORDERS, held))
        except LeaseLost:
            assert row is None or row.epoch != held.epoch or row.owner not in (owner, None)
        else:
            assert row is not None
            assert row.epoch == held.epoch
            assert row.owner in (owner, None)
            row.owner = None

    @rule(door=DOORS, shard=SHARDS, owner=OWNERS, behind=BEHIND, rung=RUNGS, memo=st.binary(max_size=4))
    def save(
        self, door: int, shard: ShardId, owner: WorkerId, *, behind: int, rung: int, memo: bytes
    ) -> None:
        row, held = self._held(shard, owner, behind)
        try:
            self.runner.run(self.doors[door].save(ORDERS, held, Checkpoint(LADDER[rung], memo)))
        except LeaseLost:
            assert row is None or (row.owner, row.epoch) != (owner, held.epoch) or rung < row.rung
        else:
            assert row is not None
            assert (row.owner, row.epoch) == (owner, held.epoch)
            assert rung >= row.rung
            row.rung, row.memo = rung, memo

    @rule(door=DOORS, shard=SHARDS, owner=OWNERS, behind=BEHIND)
    def drop(self, door: int, shard: ShardId, owner: WorkerId, behind: int) -> None:
        row, held = self._held(shard, owner, behind)
        try:
            self.runner.run(self.doors[door].drop(ORDERS, held))
        except LeaseLost:
            assert row is not None
            assert row.epoch != held.epoch
        else:
            assert row is None or row.epoch == held.epoch
            self.rows.pop(shard, None)

    @rule(door=DOORS, name=OPERATIONS, state=STATES)
    def add(self, door: int, name: str, state: OperationState) -> None:
        wanted = replace(asked(name), state=state)
        stored = self.runner.run(self.doors[door].add(wanted))
        assert stored == self.operations.setdefault(wanted.operation, wanted)

    @rule(door=DOORS, name=OPERATIONS, state=STATES, behind=BEHIND)
    def change(self, door: int, name: str, state: OperationState, behind: int) -> None:
        stored = self.operations.get(OperationId(name))
        revision = (stored.revision if stored else 0) - behind
        wanted = replace(asked(name), state=state, revision=revision)
        after = replace(wanted, revision=revision + 1)
        try:
            changed = self.runner.run(self.doors[door].change(wanted))
        except ResourceMissing:
            assert stored is None
        except RowChanged:
            assert stored is not None
            assert stored.state.over or behind
            assert stored != after
        else:
            assert stored is not None
            assert stored == after or not (behind or stored.state.over)
            assert changed == after
            self.operations[wanted.operation] = after

    @rule(door=DOORS, names=st.lists(OPERATIONS, max_size=3))
    def prune(self, door: int, names: list[str]) -> None:
        self.runner.run(self.doors[door].prune([OperationId(name) for name in names]))
        kept = {key: each for key, each in self.operations.items() if key not in names or not each.state.over}
        self.operations = kept

    @invariant()
    def each_operation_is_listed_once(self) -> None:
        wanted = [self.operations[name] for name in sorted(self.operations)]
        for store in self.doors:
            for over in (False, True):
                found = self.runner.run(store.operations(over=over))
                assert found == [each for each in wanted if each.state.over == over]
            for name in OPERATION_NAMES:
                stored = self.runner.run(store.operation(OperationId(name)))
                assert stored == self.operations.get(OperationId(name))
            counted = sorted(each.operation for each in self.runner.run(store.ended()))
            assert counted == [each.operation for each in wanted if each.state.over]

    @invariant()
    def what_is_stored_is_what_the_model_has(self) -> None:
        wanted = by_shard([row.lease(shard) for shard, row in self.rows.items()])
        bare = [replace(each, checkpoint=Checkpoint(each.checkpoint.position)) for each in wanted]
        for store in self.doors:
            assert by_shard(self.runner.run(store.leases(ORDERS))) == wanted
            assert by_shard(self.runner.run(store.leases(ORDERS, memos=False))) == bare
            assert self.runner.run(store.leases(AUDIT)) == []
            rows = self.runner.run(store.mappings())
            assert {row.mapping: (row.seeded, row.revision) for row in rows} == self.known

    def _held(self, shard: ShardId, owner: WorkerId, behind: int) -> tuple[Row | None, Lease]:
        row = self.rows.get(shard)
        epoch = (row.epoch if row else 0) - behind
        return row, Lease(shard, (), Checkpoint(LADDER[0]), owner, epoch)
