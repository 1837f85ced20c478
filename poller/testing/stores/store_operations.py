"""Owns the contract of stores about operations."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest

from poller.domain.errors import ResourceMissing, RowChanged
from poller.domain.operations import (
    Action,
    Operation,
    OperationId,
    OperationRequest,
    OperationState,
    OperationTarget,
    PartResult,
)
from poller.domain.records import Epoch, MappingId, ShardId
from poller.domain.rows import MappingRow
from poller.ports import Store
from poller.testing.stores.store_steps import AUDIT, ONE, ORDERS, TWO, Opening, both

DONE, RUNNING = OperationState.DONE, OperationState.RUNNING
FULL = Operation(
    operation=OperationId("deploy-1:a.b_c"),
    mapping=ORDERS,
    request=OperationRequest(
        action=Action.SKIP,
        target=OperationTarget(shard=ONE, lane=3),
        members={"records": ["1", "2"], "send": True, "from": None, "rate": 0.5, "deep": {"a": [1, {}]}},
        reason='größer "now"\\ \U0001f600',
    ),
    by="ann",
    created=Epoch(1_700_000_000.123456),
    state=RUNNING,
    wanted=(ONE, TWO),
    parts={ONE: PartResult(state=DONE, result="größe"), TWO: PartResult(state=RUNNING)},
    progress={"records": 2**40},
    notes={"records": ["1", "2"], "more": {"x": None}},
)
"""An operation in which every field but those of an end has a value."""


def asked(name: str = "op-1", *, created: float = 1.5, mapping: MappingId = ORDERS) -> Operation:
    """A retry that was just accepted."""
    request = OperationRequest(action=Action.RETRY)
    return Operation(
        operation=OperationId(name), mapping=mapping, request=request, created=Epoch(created), wanted=(ONE,)
    )


def ended(operation: Operation, *, at: float = 9.25) -> Operation:
    """The operation as it is done."""
    return replace(operation, state=DONE, ended=Epoch(at), result="done")


async def changed(store: Store, operation: Operation) -> bool:
    """Changes an operation; returns whether it was written."""
    try:
        await store.change(operation)
    except RowChanged:
        return False
    return True


async def listed(store: Store) -> tuple[Sequence[Operation], Sequence[Operation]]:
    """The operations that are not over, and those that are."""
    return await store.operations(), await store.operations(over=True)


async def an_added_operation_is_listed_with_every_field(opening: Opening) -> None:
    bare = replace(asked("bare"), wanted=(), request=OperationRequest(action=Action.PAUSE))
    async with opening() as store:
        assert await listed(store) == ([], [])
        assert await store.add(FULL) == FULL
        assert await store.add(bare) == bare
    async with opening() as store:
        assert await listed(store) == ([bare, FULL], [])


async def an_operation_is_added_once(opening: Opening) -> None:
    async with opening() as store, opening() as other:
        first = await store.add(asked())
        again = replace(asked(created=7.0), by="bob", mapping=AUDIT)
        assert await other.add(again) == first
        newer = await store.change(ended(first))
        assert await other.add(first) == newer
        assert await listed(other) == ([], [newer])


async def of_two_that_add_one_operation_both_see_the_same(opening: Opening) -> None:
    async with opening() as store, opening() as other:
        mine, theirs = await both(
            store.add(replace(asked(), by="ann")), other.add(replace(asked(), by="bob"))
        )
        assert mine == theirs
        assert await listed(store) == ([mine], [])


async def a_change_replaces_the_operation(opening: Opening) -> None:
    async with opening() as store, opening() as other:
        first = await store.add(asked())
        second = await other.change(replace(first, state=RUNNING, notes={"records": ["7"]}))
        assert second == replace(first, state=RUNNING, notes={"records": ["7"]}, revision=1)
        third = await store.change(replace(second, progress={"records": 3}, notes={}))
        assert third == replace(first, state=RUNNING, progress={"records": 3}, revision=2)
        assert await listed(other) == ([third], [])


async def a_change_at_another_revision_is_refused(opening: Opening) -> None:
    async with opening() as store, opening() as other:
        first = await store.add(asked())
        second = await other.change(replace(first, state=RUNNING))
        for revision in (0, 2, 7):
            with pytest.raises(RowChanged, match="revision 1"):
                await store.change(replace(first, by="late", revision=revision))
        assert await listed(store) == ([second], [])


async def the_same_change_again_finds_its_work_done(opening: Opening) -> None:
    async with opening() as store:
        await store.add(FULL)
        wanted = replace(FULL, notes={"b": (1.5, None), "a": {"größe": "ü"}})
        once = await store.change(wanted)
        assert await store.change(wanted) == once
        over = await store.change(ended(once))
        assert await store.change(ended(once)) == over
        assert await listed(store) == ([], [over])


async def of_two_changes_of_one_revision_exactly_one_wins(opening: Opening) -> None:
    async with opening() as store, opening() as other:
        first = await store.add(asked())
        wanted = [replace(first, result="ann"), ended(first)]
        won = await both(changed(store, wanted[0]), changed(other, wanted[1]))
        assert sorted(won) == [False, True]
        there = replace(wanted[won.index(True)], revision=1)
        assert await listed(store) == (([there], []) if won[0] else ([], [there]))


async def an_operation_that_is_over_never_changes(opening: Opening) -> None:
    async with opening() as store, opening() as other:
        over = await store.change(ended(await store.add(asked())))
        for late in (replace(over, state=RUNNING), replace(over, result="other"), asked()):
            with pytest.raises(RowChanged, match="is done at revision 1"):
                await other.change(late)
        assert await listed(other) == ([], [over])


async def what_is_over_leaves_the_open_operations(opening: Opening) -> None:
    async with opening() as store, opening() as other:
        operations = [await store.add(asked(f"op-{number}", created=number)) for number in range(40)]
        over = [await store.change(ended(each, at=100.0)) for each in operations[::2]]
        assert await listed(other) == (operations[1::2], over)


async def an_operation_that_was_over_when_it_was_added_is_history(opening: Opening) -> None:
    async with opening() as store:
        refused = await store.add(ended(asked()))
        assert await listed(store) == ([], [refused])


async def an_operation_of_an_unknown_id_is_not_changed(opening: Opening) -> None:
    async with opening() as store:
        with pytest.raises(ResourceMissing, match="op-1 is not in the store"):
            await store.change(asked())
        assert await listed(store) == ([], [])


async def open_operations_are_listed_oldest_first(opening: Opening) -> None:
    async with opening() as store:
        for name, created in (("c", 2.0), ("b", 1.0), ("a", 2.0), ("d", 0.5)):
            await store.add(asked(name, created=created))
        assert [each.operation for each in await store.operations()] == ["d", "b", "a", "c"]


async def only_what_is_over_is_pruned(opening: Opening) -> None:
    async with opening() as store, opening() as other:
        running = await store.add(asked("running"))
        kept = await store.change(ended(await store.add(asked("kept"))))
        await store.change(ended(await store.add(asked("old"))))
        for _ in range(2):
            await other.prune([OperationId(each) for each in ("old", "running", "unknown")])
            assert await listed(store) == ([running], [kept])
        await store.prune([])
        again = await other.add(asked("old", created=3.0))
        assert await store.operations() == [running, again]


async def an_operation_is_found_by_its_id(opening: Opening) -> None:
    async with opening() as store, opening() as other:
        assert await store.operation(FULL.operation) is None
        first = await store.add(FULL)
        running = await store.add(asked())
        assert await other.operation(FULL.operation) == first
        second = await store.change(replace(first, progress={"records": 1}))
        assert await other.operation(FULL.operation) == second
        over = await other.change(ended(second))
        assert await store.operation(FULL.operation) == over
        assert await store.operation(running.operation) == running
        await store.prune([FULL.operation])
        assert await other.operation(FULL.operation) is None


async def the_history_counts_what_is_over(opening: Opening) -> None:
    async with opening() as store, opening() as other:
        await store.add(asked("running"))
        assert await store.ended() == []
        short = await store.change(ended(await store.add(asked("short")), at=8.5))
        wanted = tuple(f"shard-{number * 7919}" for number in range(500))
        long = await store.change(ended(replace(await store.add(asked("long")), wanted=wanted), at=9.25))
        found = {each.operation: each for each in await other.ended()}
        assert {name: each.ended for name, each in found.items()} == {"short": 8.5, "long": 9.25}
        assert 0 < found[short.operation].stored_bytes < found[long.operation].stored_bytes
        await other.prune([long.operation])
        assert [each.operation for each in await store.ended()] == ["short"]


async def each_look_shows_what_was_changed_before_it(opening: Opening) -> None:
    async with opening() as store, opening() as other:
        there = {
            each: await store.add(asked(each, created=float(number))) for number, each in enumerate("abcd")
        }
        for step in range(1, 6):
            for name, writer in (("a", store), ("b", other), ("c", store)):
                there[name] = await writer.change(replace(there[name], notes={"records": [f"{step}"]}))
                for reader in (store, other):
                    assert await reader.operations() == list(there.values())
        for name, writer in (("a", other), ("d", store)):
            await writer.change(ended(there.pop(name)))
            for reader in (other, store):
                assert await reader.operations() == list(there.values())


async def what_two_workers_add_at_the_same_time_both_see(opening: Opening) -> None:
    async def add(store: Store, by: str) -> list[Operation]:
        found = []
        for number in range(12):
            # Every third id is that of a request that came to both.
            name = f"op-{number}" if number % 3 == 0 else f"{by}-{number}"
            found.append(await store.add(replace(asked(name, created=float(number)), by=by)))
            assert found[-1] in await store.operations()
        return found

    async with opening() as store, opening() as other:
        mine, theirs = await both(add(store, "ann"), add(other, "bob"))
        assert mine[::3] == theirs[::3]
        every = {each.operation: each for each in (*mine, *theirs)}
        for reader in (store, other):
            assert {each.operation: each for each in await reader.operations()} == every


async def what_a_caller_changes_later_is_not_in_an_operation(opening: Opening) -> None:
    notes: dict[str, Any] = {"records": ["1"]}
    async with opening() as store:
        added = await store.add(replace(asked(), notes=notes))
        notes["records"].append("2")
        added.notes["records"].append("3")
        ((there,), _) = await listed(store)
        there.notes["records"].append("4")
        ((there,), _) = await listed(store)
        assert there.notes == {"records": ["1"]}


async def a_long_operation_is_kept_as_it_is(opening: Opening) -> None:
    shards = tuple(ShardId(f"shardId-{number:012}") for number in range(1000))
    numbers = [f"4959033827149025660855969253836157109592157598913{number:07}" for number in range(10_000)]
    long = replace(
        FULL,
        wanted=shards,
        parts={shard: PartResult(state=DONE, result="ü" * 20) for shard in shards},
        notes={"records": numbers},
    )
    async with opening() as store:
        assert await store.add(long) == long
        over = await store.change(ended(long))
        assert over == replace(ended(long), revision=1)
        assert await listed(store) == ([], [over])


async def forgetting_a_mapping_keeps_its_operations(opening: Opening) -> None:
    async with opening() as store:
        await store.create(MappingRow(ORDERS, Epoch(1)))
        running = await store.add(asked("running"))
        over = await store.change(ended(await store.add(asked("over"))))
        await store.forget(ORDERS)
        assert await listed(store) == ([running], [over])


async def workers_that_finish_their_parts_at_the_same_time_lose_none(opening: Opening) -> None:
    async def finish(store: Store, parts: Sequence[str]) -> None:
        for part in parts:
            while True:
                (there,) = await store.operations()
                results = {**there.parts, part: PartResult(state=DONE, result=part)}
                if await changed(store, replace(there, state=RUNNING, parts=results)):
                    break

    async with opening() as store, opening() as other:
        await store.add(asked())
        mine, theirs = ([f"{name}-{number}" for number in range(5)] for name in ("ann", "bob"))
        await both(finish(store, mine), finish(other, theirs))
        (there,) = await store.operations()
        assert set(there.parts) == {*mine, *theirs}
        assert there.revision == 10
