"""Owns the store behind PgBouncer in transaction mode, where each statement may get another connection of the server."""

import asyncio
from collections.abc import Iterator
from functools import partial
from typing import Any

import psycopg
import pytest

from poller.domain.records import Position, ShardId, WorkerId
from poller.domain.rows import Checkpoint, Lease
from poller.testing.store import DIGEST_SCENARIOS, SCENARIOS
from poller.testing.stores.store_steps import ANN, LADDER, ORDERS, Scenario, only, seeded, taken
from tests.adapters.stores.postgresql import pooling
from tests.adapters.stores.postgresql.openings import at, opening, until_it_succeeds
from tests.adapters.stores.postgresql.pooling import Pooler, pgbouncer, program
from tests.emulators import NotReady
from tests.postgres import Postgres, postgres

CONNECTIONS = 2
"""Fewer than one worker would have, so that its statements share them."""


@pytest.fixture(scope="module")
def pooler(postgres_server: Postgres) -> Iterator[Pooler]:
    """One PgBouncer for this module."""
    with pgbouncer(postgres_server, connections=CONNECTIONS) as running:
        yield running


@pytest.mark.parametrize("scenario", SCENARIOS + DIGEST_SCENARIOS, ids=lambda scenario: scenario.__name__)
def test_behind_a_pooler(scenario: Scenario, postgres_server: Postgres, pooler: Pooler) -> None:
    asyncio.run(scenario(opening(postgres_server.url(port=pooler.port))))


def test_statements_of_many_workers_share_the_few_connections_of_a_pooler(
    postgres_server: Postgres, pooler: Pooler
) -> None:
    async def scenario() -> None:
        url = postgres_server.url(port=pooler.port)
        shards = [ShardId(f"shard-{number}") for number in range(12)]
        backends: set[int] = set()

        async def worker(name: WorkerId, free: list[Lease]) -> None:
            async with at(url) as store:
                for each in free:
                    held = await store.take(ORDERS, each, owner=name)
                    for number in range(1, 6):
                        await store.save(ORDERS, held, Checkpoint(Position.after(str(number))))
                        ((backend,),) = await store._database.run("SELECT pg_backend_pid()")
                        backends.add(backend)

        async with at(url) as store:
            free = await seeded(store, *shards)
            async with asyncio.TaskGroup() as group:
                for number in range(6):
                    group.create_task(worker(WorkerId(f"w{number}"), free[number::6]))
            stored = await store.leases(ORDERS)
        assert {each.checkpoint.position for each in stored} == {Position.after("5")}
        assert all(each.epoch == 1 for each in stored)
        assert len(backends) == CONNECTIONS

    asyncio.run(scenario())


def test_one_connection_to_the_pooler_gets_several_of_the_server(pooler: Pooler) -> None:
    """Without this the tests above would say nothing of transaction mode."""

    def backend(connection: psycopg.Connection[Any]) -> int:
        ((found,),) = connection.execute("SELECT pg_backend_pid()").fetchall()
        return int(found)

    with pooler.connect() as ours, pooler.connect() as other:
        first = backend(ours)
        other.execute("BEGIN")
        assert backend(other) == first, "it was free again after the statement"
        assert backend(ours) != first
        other.execute("COMMIT")


def test_saves_go_on_when_the_pooler_and_then_the_server_behind_it_were_killed() -> None:
    async def scenario(server: Postgres, pooler: Pooler) -> None:
        async with at(server.url(port=pooler.port)) as store:
            held = await taken(store)
            for step, kill in ((3, pooler), (4, server)):
                await store.save(ORDERS, held, Checkpoint(LADDER[step], b"before"))
                kill.kill()
                later = Checkpoint(LADDER[step], b"after")
                async with asyncio.TaskGroup() as group:
                    saving = group.create_task(until_it_succeeds(partial(store.save, ORDERS, held, later)))
                    await asyncio.sleep(0.2)
                    await asyncio.to_thread(kill.start)
                _, errors = saving.result()
                # While the server is away, a pooler may let statements wait.
                assert errors or kill is server
                assert await only(store) == Lease(held.shard, held.parents, later, ANN, held.epoch)

    with postgres() as server, pgbouncer(server, connections=CONNECTIONS) as pooler:
        asyncio.run(scenario(server, pooler))


def test_a_machine_without_a_pooler_is_told_how_to_get_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pooling, "SYSTEM_PATH", "")
    monkeypatch.setenv("PATH", "")
    monkeypatch.delenv(pooling.PROGRAM, raising=False)
    with pytest.raises(NotReady, match="apt-get install"):
        program()
