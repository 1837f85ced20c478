"""The read-only view of each store gives rows and leases as the store does, and leaves everything as it is."""

import asyncio
from collections.abc import Mapping
from pathlib import Path

import pytest

from adapters.aws import clients
from adapters.stores import memory
from adapters.stores.dynamodb import store as dynamodb
from adapters.stores.postgresql.plugin import look_postgresql, open_postgresql
from adapters.stores.postgresql.schema import TABLES as TABLES_OF_A_DATABASE
from adapters.stores.postgresql.settings import PostgresSettings
from adapters.stores.sqlite import store as sqlite
from poller.clock import LoopClock
from poller.domain.records import SHARD_END, Epoch, MappingId, Position, ShardId, WorkerId
from poller.domain.rows import Checkpoint, Lease, MappingRow
from poller.plugins import Environment
from poller.ports import LeaseList, MappingList, Store
from tests.adapters.stores.dynamo import TABLES, environment
from tests.adapters.stores.postgresql.openings import as_role, schema_of
from tests.conftest import REGION
from tests.emulators import Emulator
from tests.postgres import Postgres

MAPPING = MappingId("0f4b8a5e-8b0c-4a56-9c0e-0d7d6b0c2b11")
ME = WorkerId("me")
ROW = MappingRow(MAPPING, Epoch(1_700_000_000.5), seeded=True, document={"a": {"b": [1]}})
LEASES = [
    Lease(ShardId("shardId-0"), (), Checkpoint(SHARD_END)),
    Lease(
        ShardId("shardId-1"), (ShardId("shardId-0"),), Checkpoint(Position.after("495"), b'{"lane_count":1}')
    ),
]


async def filled(store: Store) -> list[Lease]:
    """Puts rows in; returns the leases, one of which is taken."""
    await store.create(ROW)
    await store.seed(MAPPING, LEASES)
    await store.take(MAPPING, LEASES[1], owner=ME)
    found = list(await store.leases(MAPPING))
    assert [each.owner for each in found] == [None, ME]
    assert found[1].checkpoint.memo
    return found


async def seen(view: object) -> tuple[list[MappingRow], list[Lease]]:
    assert isinstance(view, MappingList)
    assert isinstance(view, LeaseList)
    return list(await view.mappings()), list(await view.leases(MAPPING))


def bytes_of(path: Path) -> Mapping[str, bytes]:
    """The content of a database and of the log beside it. The index of the log holds locks of readers."""
    return {
        each.name: each.read_bytes()
        for each in path.parent.glob(f"{path.name}*")
        if not each.name.endswith("-shm")
    }


def test_the_view_of_a_sqlite_file_in_use_and_at_rest(tmp_path: Path) -> None:
    path = tmp_path / "state.db"
    settings = sqlite.SqliteSettings(url=f"sqlite://{path}")
    env = Environment(LoopClock())

    async def main() -> None:
        async with sqlite.look_sqlite(settings, env) as view:
            assert await seen(view) == ([], [])
            assert not path.exists()
            async with sqlite.open_sqlite(settings, env) as store:
                expected = await filled(store)
                before = bytes_of(path)
                assert await seen(view) == ([ROW], expected)
                assert bytes_of(path) == before
                assert await store.leases(MAPPING) == expected
            before = bytes_of(path)
            assert await seen(view) == ([ROW], expected)
            assert bytes_of(path) == before

    asyncio.run(main())


@pytest.mark.usefixtures("account")
def test_the_view_of_a_table(ministack: Emulator) -> None:
    table = f"viewed-{next(TABLES)}"
    env = environment(ministack.url)
    settings = dynamodb.DynamoSettings(url=f"dynamodb://{table}", create=True)

    async def main() -> None:
        try:
            client = await clients.client(env, "dynamodb", REGION)
            async with dynamodb.look_dynamodb(settings, env) as view:
                assert await seen(view) == ([], [])
                assert (await client.list_tables())["TableNames"] == []
                async with dynamodb.open_dynamodb(settings, env) as store:
                    expected = await filled(store)
                    before = (await client.scan(TableName=table))["Items"]
                    assert await seen(view) == ([ROW], expected)
                    assert (await client.scan(TableName=table))["Items"] == before
        finally:
            await env.shared.close()

    asyncio.run(main())


def test_the_view_of_a_database_needs_no_right_to_write(postgres_server: Postgres) -> None:
    url = postgres_server.url()
    schema = schema_of(url)
    settings = PostgresSettings(url=url)
    dump = [f"SELECT {table}::text FROM {schema}.{table} ORDER BY 1" for table in TABLES_OF_A_DATABASE]

    async def main() -> None:
        async with look_postgresql(settings, Environment(LoopClock())) as view:
            assert await seen(view) == ([], [])
            assert postgres_server.run("SELECT to_regnamespace(%s)", schema) == [(None,)]
        async with open_postgresql(settings, Environment(LoopClock())) as store:
            expected = await filled(store)
        # It may read alone, and the server refuses whatever else it tries.
        postgres_server.run("CREATE ROLE viewer LOGIN")
        postgres_server.run("ALTER ROLE viewer SET default_transaction_read_only = on")
        postgres_server.run(f"GRANT USAGE ON SCHEMA {schema} TO viewer")
        postgres_server.run(f"GRANT SELECT ON ALL TABLES IN SCHEMA {schema} TO viewer")
        before = [postgres_server.run(each) for each in dump]
        reading = PostgresSettings(url=as_role(url, "viewer"))
        async with look_postgresql(reading, Environment(LoopClock())) as view:
            assert await seen(view) == ([ROW], expected)
        assert [postgres_server.run(each) for each in dump] == before

    asyncio.run(main())


def test_the_view_of_a_store_in_memory_is_empty() -> None:
    async def main() -> None:
        plugin = memory.plugin
        assert plugin.look is not None
        async with plugin.look(memory.MemorySettings(), Environment(LoopClock())) as view:
            assert await seen(view) == ([], [])

    asyncio.run(main())
