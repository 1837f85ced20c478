"""Owns stores on a PostgreSQL server, each door with connections of its own, as another process has them, and roles for them."""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager

from adapters.stores.postgresql.settings import PostgresSettings
from adapters.stores.postgresql.store import PostgresStore, opened_store
from poller.clock import LoopClock
from poller.domain.errors import LeaseLost, PortError
from poller.plugins import Environment
from poller.testing.stores.store_steps import Opening
from tests.postgres import Postgres

REPEATS_MAX = 600
REPEAT_S = 0.05


def opening(url: str) -> Opening:
    """An opening of the store with this URL."""

    @asynccontextmanager
    async def open_one() -> AsyncGenerator[PostgresStore]:
        async with at(url) as store:
            yield store

    return open_one


@asynccontextmanager
async def at(url: str) -> AsyncGenerator[PostgresStore]:
    """The store with this URL."""
    async with opened_store(PostgresSettings.model_validate({"url": url}), Environment(LoopClock())) as store:
        yield store


async def until_it_succeeds[T](call: Callable[[], Awaitable[T]]) -> tuple[T, list[PortError]]:
    """Repeats a call as the engine does; returns its result and the errors before it."""
    errors: list[PortError] = []
    for _ in range(REPEATS_MAX):
        try:
            return await call(), errors
        except LeaseLost:
            raise
        except PortError as error:
            errors.append(error)
            await asyncio.sleep(REPEAT_S)
    raise AssertionError(f"no success in {REPEATS_MAX} attempts: {errors[-1]}")


def role(server: Postgres, name: str, *settings: str) -> str:
    """Makes a role with settings of its own that may use the tables of every schema; returns its name."""
    server.run(f"CREATE ROLE {name} LOGIN")
    server.run(f"GRANT pg_read_all_data, pg_write_all_data TO {name}")
    for setting in settings:
        server.run(f"ALTER ROLE {name} SET {setting}")
    return name


def schema_of(url: str) -> str:
    """The schema that a URL of the tests names."""
    return url.partition("schema=")[2].partition("&")[0]


def as_role(url: str, name: str) -> str:
    """The URL of the same store for another role, which makes no tables."""
    return url.replace("postgres@", f"{name}@").replace("create=true", "create=false")
