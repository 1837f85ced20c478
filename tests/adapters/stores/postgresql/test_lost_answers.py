"""Owns what only a network can do to writes in PostgreSQL: answers that are lost after the commit, and statements that come late."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any

import pytest

from poller.domain.errors import LeaseLost, RowChanged, ServiceUnavailable
from poller.domain.functions.queued_calls import CallId, QueuedCall
from poller.domain.operations import Action, Operation, OperationId, OperationRequest, OperationState
from poller.domain.records import Epoch
from poller.domain.rows import Checkpoint, MappingRow
from poller.testing.stores.store_steps import ANN, BOB, LADDER, MEMO, ONE, ORDERS, TWO, lease, only, seeded
from tests.adapters.stores.postgresql.cutting import Cutting, cutting
from tests.adapters.stores.postgresql.openings import at
from tests.postgres import Postgres

NOW = Epoch(1_700_000_000.0)


async def twice[T](proxy: Cutting, call: Callable[[], Awaitable[T]]) -> T:
    """Makes a call whose answer is lost after the commit, and makes it again."""
    before, proxy.lose_answers = proxy.lost, 1
    with pytest.raises(ServiceUnavailable, match="connection was lost"):
        await call()
    assert proxy.lost == before + 1, "the server has answered"
    return await call()


def test_writes_whose_answers_were_lost_may_be_sent_again(postgres_server: Postgres) -> None:
    async def scenario() -> None:
        async with (
            cutting(postgres_server.port) as proxy,
            at(postgres_server.url(port=proxy.port)) as store,
        ):
            row = MappingRow(ORDERS, NOW, document={"a": 1})
            assert await twice(proxy, lambda: store.create(row)) == row
            await twice(proxy, lambda: store.update(replace(row, seeded=True)))
            assert await store.mappings() == [replace(row, seeded=True, revision=1)]
            await twice(proxy, lambda: store.seed(ORDERS, [lease(ONE), lease(TWO)]))
            free, other = await store.leases(ORDERS)
            held = await twice(proxy, lambda: store.take(ORDERS, free, owner=ANN))
            assert (held.owner, held.epoch) == (ANN, 1)
            await twice(proxy, lambda: store.save(ORDERS, held, Checkpoint(LADDER[3], MEMO)))
            await twice(proxy, lambda: store.release(ORDERS, held))
            moved = await twice(proxy, lambda: store.move(ORDERS, held, LADDER[1]))
            assert (moved.owner, moved.epoch, moved.checkpoint) == (None, 2, Checkpoint(LADDER[1]))
            await twice(proxy, lambda: store.drop(ORDERS, other))
            await twice(proxy, lambda: store.beat(ANN, 7, facts={"x": 1}))
            await twice(proxy, lambda: store.retire(ANN))
            await twice(proxy, lambda: store.put_digest(ANN, b"digest"))
            assert [each.content for each in await store.digests()] == [b"digest"]
            await twice(proxy, lambda: store.put_digest(ANN, b""))
            assert (await store.workers(), await store.digests()) == ([], [])
            await twice(proxy, lambda: store.forget(ORDERS))
            assert (await store.mappings(), await store.leases(ORDERS)) == ([], [])

    asyncio.run(scenario())


def test_writes_of_operations_whose_answers_were_lost_may_be_sent_again(postgres_server: Postgres) -> None:
    async def scenario() -> None:
        async with (
            cutting(postgres_server.port) as proxy,
            at(postgres_server.url(port=proxy.port)) as store,
        ):
            asked = Operation(
                operation=OperationId("one"),
                mapping=ORDERS,
                request=OperationRequest(action=Action.SKIP, reason="\0 poison"),
                created=NOW,
            )
            assert await twice(proxy, lambda: store.add(asked)) == asked
            begun = replace(asked, state=OperationState.RUNNING, notes={"worker": ANN})
            running = await twice(proxy, lambda: store.change(begun))
            assert running == replace(begun, revision=1)
            done = replace(running, state=OperationState.DONE, ended=NOW)
            over = await twice(proxy, lambda: store.change(done))
            assert over == replace(done, revision=2)
            # What somebody else changed meanwhile is not taken for the write whose answer was lost.
            with pytest.raises(RowChanged):
                await store.change(begun)
            assert await store.operations(over=True) == [over]
            await twice(proxy, lambda: store.prune([over.operation]))
            assert await store.operation(over.operation) is None

    asyncio.run(scenario())


def test_a_lost_answer_is_not_taken_for_success_when_another_wrote_in_between(
    postgres_server: Postgres,
) -> None:
    async def scenario() -> None:
        url = postgres_server.url()
        through = url.replace(f":{postgres_server.port}/", ":{port}/")
        async with (
            cutting(postgres_server.port) as proxy,
            at(url) as other,
            at(through.format(port=proxy.port)) as store,
        ):
            row = await other.create(MappingRow(ORDERS, NOW))
            free, second = await seeded(other, ONE, TWO)
            held = await other.take(ORDERS, second, owner=ANN)

            async def lost(call: Callable[[], Awaitable[object]]) -> None:
                proxy.lose_answers = 1
                with pytest.raises(ServiceUnavailable):
                    await call()

            await lost(lambda: store.update(replace(row, seeded=True)))
            await other.update(replace(row, seeded=False, revision=1))
            with pytest.raises(RowChanged):
                await store.update(replace(row, seeded=True))
            await lost(lambda: store.take(ORDERS, free, owner=ANN))
            await other.take(ORDERS, replace(free, owner=ANN, epoch=1), owner=BOB)
            with pytest.raises(LeaseLost):
                await store.take(ORDERS, free, owner=ANN)
            await lost(lambda: store.release(ORDERS, held))
            await other.take(ORDERS, replace(held, owner=None), owner=BOB)
            with pytest.raises(LeaseLost):
                await store.release(ORDERS, held)
            await lost(lambda: store.move(ORDERS, replace(held, owner=BOB, epoch=2), LADDER[1]))
            await other.move(ORDERS, replace(held, owner=None, epoch=3), LADDER[2])
            with pytest.raises(LeaseLost):
                await store.move(ORDERS, replace(held, owner=BOB, epoch=2), LADDER[1])
            await lost(lambda: store.drop(ORDERS, replace(held, epoch=4)))
            await other.seed(ORDERS, [lease(TWO)])
            with pytest.raises(LeaseLost):
                await store.drop(ORDERS, replace(held, epoch=4))

    asyncio.run(scenario())


def test_writes_of_calls_whose_answers_were_lost_may_be_sent_again(postgres_server: Postgres) -> None:
    async def scenario() -> None:
        async with (
            cutting(postgres_server.port) as proxy,
            at(postgres_server.url(port=proxy.port)) as store,
        ):
            queue = store.call_queue
            call = QueuedCall(
                call=CallId("one"), function="f", arn="arn", payload=b"{}", accepted=NOW, due=NOW
            )
            await twice(proxy, lambda: queue.put(call))
            claimed: Any = await twice(
                proxy,
                lambda: queue.claim("f", now=NOW, owner=ANN, gone=(), held=(), calls_max=5),
            )
            (mine,) = claimed
            assert mine.owner == ANN
            later = await twice(proxy, lambda: queue.replace(replace(mine, attempts=1)))
            assert later.revision == mine.revision + 1
            await twice(proxy, lambda: queue.remove(later))
            assert await queue.backlogs() == []

    asyncio.run(scenario())


def test_a_checkpoint_that_comes_late_replaces_no_later_one(postgres_server: Postgres) -> None:
    async def scenario() -> None:
        async with (
            cutting(postgres_server.port) as proxy,
            at(postgres_server.url(port=proxy.port, call_timeout_s="0.5")) as store,
        ):
            (free,) = await seeded(store, ONE)
            held = await store.take(ORDERS, free, owner=ANN)
            arrives = proxy.hold = asyncio.Event()
            with pytest.raises(ServiceUnavailable, match="no answer within"):
                await store.save(ORDERS, held, Checkpoint(LADDER[3], b"early"))
            await store.save(ORDERS, held, Checkpoint(LADDER[3], b"later"))
            await proxy.deliver(arrives)
            assert (await only(store)).checkpoint == Checkpoint(LADDER[3], b"later")

    asyncio.run(scenario())


def test_a_checkpoint_that_comes_after_another_took_the_shard_is_refused(postgres_server: Postgres) -> None:
    async def scenario() -> None:
        async with (
            cutting(postgres_server.port) as proxy,
            at(postgres_server.url(port=proxy.port, call_timeout_s="0.5")) as store,
        ):
            (free,) = await seeded(store, ONE)
            held = await store.take(ORDERS, free, owner=ANN)
            arrives = proxy.hold = asyncio.Event()
            with pytest.raises(ServiceUnavailable):
                await store.save(ORDERS, held, Checkpoint(LADDER[4], b"late"))
            taken = await store.take(ORDERS, held, owner=BOB)
            await proxy.deliver(arrives)
            assert await only(store) == taken
            with pytest.raises(LeaseLost):
                await store.save(ORDERS, held, Checkpoint(LADDER[4], b"late"))

    asyncio.run(scenario())
