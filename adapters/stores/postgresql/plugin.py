"""Owns the `postgresql` store as a plug-in. It imports psycopg only when it is opened, since that is an extra."""

from collections.abc import AsyncGenerator, Iterator
from contextlib import asynccontextmanager
from importlib import import_module

from adapters.stores.postgresql.settings import PostgresSettings
from poller.config_errors.error_messages import FieldError
from poller.domain.errors import InvalidConfiguration
from poller.plugins import Environment, Plugin
from poller.ports import Store

NEEDS = "needs psycopg, which cannot be imported"
REMEDY = "install it with: pip install 'esm-poller[postgresql]'"


def setting_errors(_: PostgresSettings) -> Iterator[FieldError]:
    """What keeps the daemon from using such a store on this machine."""
    if (error := _obstacle()) is not None:
        yield FieldError("url", f"{NEEDS} ({error})", REMEDY, here=True)


@asynccontextmanager
async def open_postgresql(settings: PostgresSettings, env: Environment) -> AsyncGenerator[Store]:
    """Yields the store; raises what `opened_store` raises, and InvalidConfiguration without psycopg."""
    _check_installed()
    from adapters.stores.postgresql.store import opened_store

    async with opened_store(settings, env) as store:
        yield store


@asynccontextmanager
async def look_postgresql(settings: PostgresSettings, env: Environment) -> AsyncGenerator[object]:
    """Yields a check of the database, in which nothing is made."""
    _check_installed()
    from adapters.stores.postgresql.checks import opened_probe

    async with opened_probe(settings, env) as probe:
        yield probe


def _check_installed() -> None:
    if (error := _obstacle()) is not None:
        raise InvalidConfiguration([f"store: {NEEDS} ({error}); {REMEDY}"]) from error


def _obstacle() -> ImportError | None:
    try:
        import_module("psycopg")
    except ImportError as error:
        return error
    return None


plugin = Plugin("postgresql", PostgresSettings, open_postgresql, look_postgresql, check=setting_errors)
