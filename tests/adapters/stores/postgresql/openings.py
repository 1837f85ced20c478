"""Owns stores on a PostgreSQL server, each door with connections of its own, as another process has them."""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

from adapters.stores.postgresql.settings import PostgresSettings
from adapters.stores.postgresql.store import PostgresStore, opened_store
from poller.clock import LoopClock
from poller.plugins import Environment
from poller.testing.stores.store_steps import Opening


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
