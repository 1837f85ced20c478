"""Owns which values PostgreSQL keeps as they are, which are refused before they are sent, and what becomes of rows that people edit."""

import asyncio
from collections.abc import Awaitable

import pytest

from poller.domain.errors import LeaseLost, PortError, ServiceUnavailable
from poller.domain.functions.queued_calls import CallId
from poller.domain.records import Epoch, MappingId, ShardId, WorkerId
from poller.domain.rows import Checkpoint, MappingRow
from poller.testing.stores.store_steps import ANN, LADDER, ONE, ORDERS, TWO, lease, seeded
from tests.adapters.stores.postgresql.openings import at, schema_of
from tests.postgres import Postgres

NOT_STORABLE = ["a\0b", "a\ud800b"]


@pytest.mark.parametrize("text", NOT_STORABLE, ids=["null character", "half of a pair"])
def test_a_name_that_the_server_cannot_keep_is_refused_and_harms_no_other(
    text: str, postgres_server: Postgres
) -> None:
    async def scenario() -> None:
        async with at(postgres_server.url()) as store:
            first, second = await seeded(store, ONE, TWO)
            bad = WorkerId(text)
            async with asyncio.TaskGroup() as group:
                refused = group.create_task(_error(store.take(ORDERS, first, owner=bad)))
                taken = group.create_task(store.take(ORDERS, second, owner=ANN))
            assert isinstance(refused.result(), ServiceUnavailable)
            assert "cannot be stored" in refused.result().reason
            assert taken.result().owner == ANN
            for call in (
                store.beat(bad, 1, facts={}),
                store.seed(ORDERS, [lease(ShardId(text))]),
                store.create(MappingRow(MappingId(text), Epoch(1.0))),
                store.call_queue.find(text, CallId("c")),
            ):
                assert "cannot be stored" in (await _error(call)).reason

    asyncio.run(scenario())


@pytest.mark.parametrize(
    "text", [*NOT_STORABLE, "ÿ", "\U0001f600", "a'; DROP TABLE leases; --", "%s %(a)s {schema}"]
)
def test_texts_within_documents_and_reports_are_kept_as_they_are(
    text: str, postgres_server: Postgres
) -> None:
    async def scenario() -> None:
        async with at(postgres_server.url()) as store:
            row = MappingRow(ORDERS, Epoch(1_700_000_000.123456), document={text: [text, 0.1, 1 << 52]})
            assert await store.create(row) == row
            await store.beat(ANN, (1 << 53) - 1, facts={"text": text})
            ((worker,), (mapping,)) = await store.workers(), await store.mappings()
            assert (worker.counter, worker.facts, mapping) == ((1 << 53) - 1, {"text": text}, row)

    asyncio.run(scenario())


@pytest.mark.parametrize(
    "damage", ["position = 'x'", "position_key = 'x'", "parents = '{'", "epoch = -1", "shard = ''"]
)
def test_a_damaged_lease_is_named_and_not_written_over(damage: str, postgres_server: Postgres) -> None:
    async def scenario() -> None:
        url = postgres_server.url()
        async with at(url) as store:
            (free,) = await seeded(store, ONE)
            postgres_server.run(f"UPDATE {schema_of(url)}.leases SET {damage}")
            before = postgres_server.run(f"SELECT * FROM {schema_of(url)}.leases")
            assert "is damaged" in (await _error(store.leases(ORDERS))).reason
            wanted = Checkpoint(LADDER[3])
            with pytest.raises(LeaseLost if "shard" in damage else PortError):
                await store.save(ORDERS, free, wanted)
            assert postgres_server.run(f"SELECT * FROM {schema_of(url)}.leases") == before

    asyncio.run(scenario())


def test_a_damaged_mapping_does_not_hide_the_others(postgres_server: Postgres) -> None:
    async def scenario() -> None:
        url = postgres_server.url()
        async with at(url) as store:
            rows = [MappingRow(MappingId(name), Epoch(1.0)) for name in ("a", "b")]
            for row in rows:
                await store.create(row)
            postgres_server.run(f"UPDATE {schema_of(url)}.mappings SET document = '[' WHERE mapping = 'a'")
            damaged, fine = await store.mappings()
            assert "document" in damaged.damage
            assert fine == rows[1]
            assert "is damaged" in (await _error(store.create(rows[0]))).reason

    asyncio.run(scenario())


async def _error(call: Awaitable[object]) -> PortError:
    with pytest.raises(PortError) as refused:
        await call
    return refused.value
