"""Owns the store suite on a PostgreSQL server: the scenarios, random histories, and how settings are read."""

import asyncio
import re

import pytest
from hypothesis import settings
from hypothesis.stateful import run_state_machine_as_test

from adapters.stores.postgresql.settings import Place, PostgresSettings, Server
from poller.clock import LoopClock
from poller.domain.errors import InvalidConfiguration
from poller.plugins import Environment, InstalledPlugins, opened
from poller.testing.store import DIGEST_SCENARIOS, SCENARIOS
from poller.testing.stores.store_history import StoreMachine
from poller.testing.stores.store_steps import Opening, Scenario
from tests.adapters.stores.postgresql.openings import opening
from tests.postgres import Postgres


@pytest.mark.parametrize("scenario", SCENARIOS + DIGEST_SCENARIOS, ids=lambda scenario: scenario.__name__)
def test_in_a_database(scenario: Scenario, postgres_server: Postgres) -> None:
    asyncio.run(scenario(opening(postgres_server.url())))


@pytest.mark.parametrize("connections_max", [1, 4])
def test_random_histories_in_a_database_follow_the_model(
    connections_max: int, postgres_server: Postgres
) -> None:
    class Machine(StoreMachine):
        def fresh(self) -> Opening:
            return opening(postgres_server.url(connections_max=str(connections_max)))

    bounds = settings(max_examples=10, stateful_step_count=30, deadline=None)
    run_state_machine_as_test(Machine, settings=bounds)


def test_the_store_opens_by_its_name_and_url(postgres_server: Postgres) -> None:
    async def scenario() -> None:
        given = {"url": postgres_server.url()}
        env = Environment(LoopClock())
        async with opened(InstalledPlugins(), "stores", "postgresql", given, env) as store:
            assert await store.mappings() == []

    asyncio.run(scenario())


@pytest.mark.parametrize(
    ("given", "remedy"),
    [
        ({"url": "postgres://u@h/d"}, "write postgresql://HOST:PORT/DATABASE"),
        ({"url": "postgresql://u:secret@h/d"}, "name a file in password_file, or set PGPASSWORD"),
        ({"url": "postgresql://h"}, "write postgresql://HOST:PORT/DATABASE"),
        ({"url": "postgresql:///d"}, "write postgresql://HOST:PORT/DATABASE"),
        ({"url": "postgresql://h:99999/d"}, "no host with a port"),
        ({"url": "postgresql://h,,g/d"}, "no host with a port"),
        ({"url": "postgresql://u@h/d?iam=true&password_file=p"}, "keep one"),
        ({"url": "postgresql://h/d?iam=true"}, "iam needs a user"),
        ({"url": "postgresql://u@h/d?iam=true&sslmode=prefer"}, "sslmode=require or verify-full"),
        ({"url": "postgresql://u@h/d?sslcert=c"}, "write both"),
        ({"url": "postgresql://u@h/d?sslmode=on"}, "sslmode"),
        ({"url": "postgresql://u@h/d?table_schema=Poller-1"}, "table_schema"),
        ({"url": "postgresql://u@h/d?passwd=1"}, "passwd"),
        ({"url": "postgresql://u@h/d#x"}, "write postgresql://HOST:PORT/DATABASE"),
        ({"url": "postgresql://u@h/d?sslrootcert=system"}, "write sslmode=verify-full with it"),
    ],
)
def test_wrong_settings_are_refused_with_a_remedy(given: dict[str, str], remedy: str) -> None:
    with pytest.raises(InvalidConfiguration, match=re.escape(remedy)) as refused:
        opened(InstalledPlugins(), "stores", "postgresql", given, Environment(LoopClock()))
    assert "secret" not in str(refused.value)


@pytest.mark.parametrize(
    ("url", "place"),
    [
        ("postgresql://db/poller", Place((Server("db", 5432),), "", "poller")),
        ("postgresql://me%40x@db:6432/p%20q", Place((Server("db", 6432),), "me@x", "p q")),
        ("postgresql://a,b:1/d", Place((Server("a", 5432), Server("b", 1)), "", "d")),
        ("postgresql://[::1]:7,[fe80::2]/d", Place((Server("::1", 7), Server("fe80::2", 5432)), "", "d")),
        ("postgresql://a,[fe80::2]:7/d", Place((Server("a", 5432), Server("fe80::2", 7)), "", "d")),
        ("postgresql://%2Fvar%2Frun/d", Place((Server("/var/run", 5432),), "", "d")),
    ],
)
def test_a_url_names_servers_user_and_database(url: str, place: Place) -> None:
    assert PostgresSettings(url=url).place == place
