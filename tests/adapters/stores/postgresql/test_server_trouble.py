"""Owns how the store meets trouble of real PostgreSQL servers: killed, replaced, full, out of connections, slow, locked."""

import asyncio
import time
from collections.abc import Awaitable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial

import psycopg
import pytest

from poller.domain.errors import (
    AccessDenied,
    PortError,
    ResourceMissing,
    ServiceThrottled,
    ServiceUnavailable,
)
from poller.domain.records import Position, ShardId
from poller.domain.rows import Checkpoint, Lease
from poller.testing.stores.store_steps import ANN, LADDER, ONE, ORDERS, only, seeded, taken
from tests.adapters.stores.postgresql.openings import (
    REPEAT_S,
    REPEATS_MAX,
    as_role,
    at,
    role,
    schema_of,
    until_it_succeeds,
)
from tests.postgres import Postgres, postgres, replicated

KILLED_AT = 5
"""How many checkpoints each shard has saved when the server is killed."""


@contextmanager
def locked(server: Postgres, schema: str) -> Iterator[None]:
    """Keeps all leases locked in a transaction that is not ended."""
    with server.connect() as connection:
        connection.execute("BEGIN")
        connection.execute(f"SELECT 1 FROM {schema}.leases FOR UPDATE".encode())
        yield
        connection.execute("ROLLBACK")


def test_what_was_acknowledged_before_the_server_was_killed_is_there_afterwards() -> None:
    async def scenario(server: Postgres) -> None:
        shards = [ShardId(f"shard-{number}") for number in range(20)]
        async with at(server.url()) as store:
            held = [await store.take(ORDERS, each, owner=ANN) for each in await seeded(store, *shards)]
            acknowledged = dict.fromkeys(shards, 0)
            troubles: list[PortError] = []

            async def save(lease: Lease) -> None:
                for number in range(1, 41):
                    checkpoint = Checkpoint(Position.after(str(number)), b"%d" % number)
                    _, errors = await until_it_succeeds(partial(store.save, ORDERS, lease, checkpoint))
                    troubles.extend(errors)
                    acknowledged[lease.shard] = number
                    if min(acknowledged.values()) >= KILLED_AT:
                        busy.set()

            busy = asyncio.Event()

            async def kill() -> None:
                await busy.wait()
                server.kill()
                seen = dict(acknowledged)
                await asyncio.to_thread(server.start)
                stored = {
                    each.shard: int(each.checkpoint.memo or b"0") for each in await store.leases(ORDERS)
                }
                assert all(stored[shard] >= seen[shard] for shard in shards), "a returned write is kept"

            async with asyncio.TaskGroup() as group:
                group.create_task(kill())
                for each in held:
                    group.create_task(save(each))
            assert troubles, "the server was away"
            assert {each.checkpoint.memo for each in await store.leases(ORDERS)} == {b"40"}

    with postgres() as server:
        asyncio.run(scenario(server))


def test_saves_go_on_at_a_promoted_standby_and_lose_nothing() -> None:
    async def scenario(primary: Postgres, standby: Postgres) -> None:
        url = primary.url()
        url = url.replace(f":{primary.port}/", f":{primary.port},127.0.0.1:{standby.port}/")
        async with at(url) as store:
            held = await taken(store)
            await store.save(ORDERS, held, Checkpoint(LADDER[3], b"before"))
            # The former primary takes no writes any more, and connections to it stay open.
            primary.run("ALTER SYSTEM SET default_transaction_read_only = on")
            primary.run("SELECT pg_reload_conf()")
            standby.run("SELECT pg_promote()")
            later = Checkpoint(LADDER[4], b"after")
            _, errors = await until_it_succeeds(lambda: store.save(ORDERS, held, later))
            assert any(isinstance(each, ServiceUnavailable) for each in errors), "the first server refused it"
            assert (await only(store)).checkpoint == later
        schema = schema_of(url)
        assert standby.run(f"SELECT memo FROM {schema}.leases") == [(b"after",)]
        assert primary.run(f"SELECT memo FROM {schema}.leases") == [(b"before",)]

    with replicated() as (primary, standby):
        asyncio.run(scenario(primary, standby))


def test_a_backend_that_is_ended_in_the_middle_of_a_commit_has_written_once() -> None:
    async def scenario(server: Postgres) -> None:
        async with at(server.url(call_timeout_s="30")) as store:
            held = await taken(store)
            wanted = Checkpoint(LADDER[3], b"memo")
            # From now on a commit waits for a standby that never comes.
            server.run("ALTER SYSTEM SET synchronous_standby_names = 'nobody'")
            server.run("SELECT pg_reload_conf()")
            async with asyncio.TaskGroup() as group:
                saving = group.create_task(_refused(store.save(ORDERS, held, wanted)))
                assert await asyncio.to_thread(_end_waiting_commit, server)
            assert isinstance(saving.result(), ServiceUnavailable)
            server.run("ALTER SYSTEM RESET synchronous_standby_names")
            server.run("SELECT pg_reload_conf()")
            assert (await only(store)).checkpoint == wanted, "it was committed, and nobody was told"
            await until_it_succeeds(lambda: store.save(ORDERS, held, wanted))
            await until_it_succeeds(lambda: store.release(ORDERS, held))

    with postgres() as server:
        asyncio.run(scenario(server))


async def _refused(call: Awaitable[object]) -> PortError:
    with pytest.raises(PortError) as refused:
        await call
    return refused.value


def _end_waiting_commit(server: Postgres) -> bool:
    """Ends the first backend that waits for a standby in its commit."""
    for _ in range(REPEATS_MAX):
        ended = server.run(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE wait_event = 'SyncRep'"
        )
        if ended:
            return True
        time.sleep(REPEAT_S)
    return False


def test_a_server_without_free_connections_is_asked_again() -> None:
    async def scenario(server: Postgres) -> None:
        async with at(server.url()) as store:
            held = await taken(store)
        url = server.url()
        with ExitStack() as stack:
            _take_all_connections(server, stack)
            with pytest.raises(ServiceUnavailable, match="too many clients"):
                async with at(url):
                    pass
        async with at(url) as store:
            await until_it_succeeds(lambda: store.beat(ANN, 1, facts={}))
        assert held.owner == ANN

    with postgres(max_connections="8", superuser_reserved_connections="0") as server:
        asyncio.run(scenario(server))


def _take_all_connections(server: Postgres, stack: ExitStack) -> None:
    for _ in range(100):
        try:
            stack.enter_context(server.connect())
        except psycopg.OperationalError:
            return
    raise AssertionError("there were always more")


@pytest.mark.parametrize(
    ("code", "error", "text"),
    [
        ("53100", ServiceUnavailable, "disk is full"),
        ("53200", ServiceUnavailable, "out of memory"),
        ("57P03", ServiceThrottled, "starts or ends"),
        ("40001", ServiceThrottled, "in the way"),
        ("42501", AccessDenied, "lacks a permission"),
        ("42P01", ResourceMissing, "poller store init"),
        ("XX001", ServiceUnavailable, "restore a backup"),
        ("22000", ServiceUnavailable, "the statement failed"),
    ],
)
def test_a_write_that_the_server_refuses_changes_nothing_and_succeeds_later(
    code: str, error: type[PortError], text: str, postgres_server: Postgres
) -> None:
    async def scenario() -> None:
        url = postgres_server.url()
        schema = schema_of(url)
        async with at(url) as store:
            held = await taken(store)
            postgres_server.run(
                f"CREATE FUNCTION {schema}.refuse() RETURNS trigger LANGUAGE plpgsql AS "
                f"$$ BEGIN RAISE EXCEPTION 'no' USING ERRCODE = '{code}', DETAIL = 'a payload'; END $$"
            )
            postgres_server.run(
                f"CREATE TRIGGER refuse BEFORE UPDATE ON {schema}.leases FOR EACH ROW EXECUTE FUNCTION {schema}.refuse()"
            )
            with pytest.raises(error, match=text) as refused:
                await store.save(ORDERS, held, Checkpoint(LADDER[3], b"memo"))
            assert code in refused.value.reason
            assert "a payload" not in refused.value.reason
            assert await only(store) == held
            postgres_server.run(f"DROP TRIGGER refuse ON {schema}.leases")
            await store.save(ORDERS, held, Checkpoint(LADDER[3], b"memo"))

    asyncio.run(scenario())


@pytest.mark.parametrize(
    ("setting", "code"), [("lock_timeout = '200ms'", "55P03"), ("statement_timeout = '200ms'", "57014")]
)
def test_a_row_that_stays_locked_throttles_and_heals(
    setting: str, code: str, postgres_server: Postgres
) -> None:
    async def scenario() -> None:
        url = postgres_server.url()
        async with at(url) as store:
            held = await taken(store)
        name = role(postgres_server, f"slow_{code.lower()}", setting)
        async with at(as_role(url, name)) as store:
            with locked(postgres_server, schema_of(url)):
                with pytest.raises(ServiceThrottled, match=code):
                    await store.save(ORDERS, held, Checkpoint(LADDER[3]))
                # Rows that are not locked are written meanwhile.
                await store.beat(ANN, 1, facts={})
            await store.save(ORDERS, held, Checkpoint(LADDER[3]))

    asyncio.run(scenario())


def test_a_server_that_does_not_answer_costs_the_time_limit_and_no_more(postgres_server: Postgres) -> None:
    async def scenario() -> None:
        url = postgres_server.url(call_timeout_s="0.3")
        async with at(url) as store:
            held = await taken(store)
            began = asyncio.get_running_loop().time()
            with (
                locked(postgres_server, schema_of(url)),
                pytest.raises(ServiceUnavailable, match=r"no answer within 0\.3 s"),
            ):
                await store.save(ORDERS, held, Checkpoint(LADDER[3]))
            assert 0.3 <= asyncio.get_running_loop().time() - began < 5
            await store.save(ORDERS, held, Checkpoint(LADDER[4]))

    asyncio.run(scenario())


def test_a_cancelled_statement_ends_at_once(postgres_server: Postgres) -> None:
    async def scenario() -> None:
        url = postgres_server.url(call_timeout_s="30")
        async with at(url) as store:
            held = await taken(store)
            with locked(postgres_server, schema_of(url)), pytest.raises(TimeoutError):
                async with asyncio.timeout(0.3):
                    await store.release(ORDERS, held)
            await until_it_succeeds(lambda: store.release(ORDERS, held))

    asyncio.run(scenario())


def test_when_all_connections_of_the_process_are_busy_a_call_is_throttled(postgres_server: Postgres) -> None:
    async def scenario() -> None:
        url = postgres_server.url(call_timeout_s="0.4", connections_max="1")
        async with at(url) as store:
            held = await taken(store)
            with locked(postgres_server, schema_of(url)):
                async with asyncio.TaskGroup() as group:
                    first = group.create_task(_refused(store.release(ORDERS, held)))
                    await asyncio.sleep(0.05)
                    others = [group.create_task(_refused(store.release(ORDERS, held))) for _ in range(2)]
            assert "no answer" in first.result().reason
            assert [type(each.result()) for each in others] == [ServiceUnavailable, ServiceThrottled]

    asyncio.run(scenario())


def test_connections_that_the_server_closed_meanwhile_are_not_used(postgres_server: Postgres) -> None:
    async def scenario() -> None:
        async with at(postgres_server.url()) as store:
            (free,) = await seeded(store, ONE)
            postgres_server.run(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'poller'"
            )
            await asyncio.sleep(0.2)
            await store.take(ORDERS, free, owner=ANN)

    asyncio.run(scenario())


def test_nothing_of_a_statement_stays_in_its_connection(postgres_server: Postgres) -> None:
    """So a pooler may give each statement another connection."""

    async def scenario() -> None:
        async with at(postgres_server.url(connections_max="1")) as store:
            held = await taken(store)
            for number in range(1, 21):
                await store.save(ORDERS, held, Checkpoint(Position.after(str(number))))
                await store.workers()
            run = store._database.run
            assert await run("SELECT count(*) FROM pg_prepared_statements") == [(0,)]
            assert await run("SELECT name FROM pg_settings WHERE source = 'session'") == []
            assert await run("SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'") == [(0,)]
            assert await run("SELECT count(*) FROM pg_listening_channels()") == [(0,)]
            assert await run("SELECT count(*) FROM pg_cursors WHERE is_holdable") == [(0,)]

    asyncio.run(scenario())
