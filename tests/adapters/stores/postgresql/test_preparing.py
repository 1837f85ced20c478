"""Owns how a database is prepared, migrated and checked, by `poller store` and by opening the store."""

import asyncio
import re
from pathlib import Path

import pytest

from adapters.stores.postgresql import schema
from poller.commands.store import command
from poller.domain.errors import AccessDenied, InvalidConfiguration, ServiceUnavailable
from poller.testing.stores.store_steps import ANN
from tests.adapters.stores.postgresql.openings import as_role, at, role, schema_of
from tests.postgres import Postgres

COMMANDS = {"init": command.init, "migrate": command.migrate, "check": command.check}


def poller_store(word: str, url: str) -> int:
    """What `poller store` does; returns its exit status."""
    return COMMANDS[word](url, region=None)


def test_init_makes_the_tables_once(
    postgres_server: Postgres, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    url = postgres_server.url(create="false")
    assert poller_store("check", url) == 2
    assert "run poller store init" in capsys.readouterr().err
    assert poller_store("init", url) == 0
    assert "it is ready, with version 1" in capsys.readouterr().out
    assert poller_store("init", url) == 0
    assert "it was ready before" in capsys.readouterr().out
    assert poller_store("migrate", url) == 0
    assert "it had version 1 before" in capsys.readouterr().out
    assert poller_store("check", url) == 0
    assert "connection, server, tables: ok" in capsys.readouterr().out


def test_a_schema_that_is_not_there_is_not_migrated(
    postgres_server: Postgres, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert poller_store("migrate", postgres_server.url()) == 2
    assert "run poller store init, or correct the URL" in capsys.readouterr().err


@pytest.mark.parametrize("word", ["init", "migrate", "check"])
def test_each_command_names_what_is_wrong_with_a_url(
    word: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert poller_store(word, "postgresql://u:geheim@h/d") == 2
    said = capsys.readouterr().err
    assert "password_file" in said
    assert "geheim" not in said
    assert poller_store(word, "redis://h") == 2
    assert "known schemes" in capsys.readouterr().err


def test_the_other_stores_are_prepared_and_checked_by_the_same_commands(
    tmp_path: object, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for url in (f"sqlite://{tmp_path}/state.db", "memory://"):
        for word in ("init", "migrate", "check"):
            assert poller_store(word, url) == 0, capsys.readouterr().err


def test_tables_of_an_earlier_version_are_migrated_in_one_step(
    postgres_server: Postgres, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    url = postgres_server.url(create="false")
    name = schema_of(url)
    assert poller_store("init", url) == 0
    later = (*schema.VERSIONS, "ALTER TABLE {schema}.workers ADD COLUMN place text; SELECT 1")
    monkeypatch.setattr(schema, "VERSIONS", later)
    assert poller_store("init", url) == 2
    with pytest.raises(InvalidConfiguration, match=re.escape("run poller store migrate URL")):
        asyncio.run(_opened(url))
    assert poller_store("migrate", url) == 0
    assert "from version 1 to 2" in capsys.readouterr().out
    assert postgres_server.run(f"SELECT version FROM {name}.schema_version ORDER BY 1") == [(1,), (2,)]
    asyncio.run(_opened(url))
    monkeypatch.setattr(schema, "VERSIONS", later[:1])
    with pytest.raises(InvalidConfiguration, match="run the newer poller"):
        asyncio.run(_opened(url))


def test_a_migration_that_fails_changes_nothing(
    postgres_server: Postgres, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = postgres_server.url(create="false")
    assert poller_store("init", url) == 0
    broken = "ALTER TABLE {schema}.workers ADD COLUMN place text; SELECT 1 / 0"
    monkeypatch.setattr(schema, "VERSIONS", (*schema.VERSIONS, broken))
    assert poller_store("migrate", url) == 2
    name = schema_of(url)
    assert postgres_server.run(f"SELECT max(version) FROM {name}.schema_version") == [(1,)]
    columns = (
        "SELECT count(*) FROM information_schema.columns WHERE table_schema = %s AND column_name = 'place'"
    )
    assert postgres_server.run(columns, name) == [(0,)]


def test_workers_that_begin_at_the_same_time_make_the_tables_once(postgres_server: Postgres) -> None:
    async def scenario() -> None:
        url = postgres_server.url()
        async with asyncio.TaskGroup() as group:
            for _ in range(6):
                group.create_task(_opened(url))

    asyncio.run(scenario())


def test_a_role_without_rights_is_told_which(
    postgres_server: Postgres, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    url = postgres_server.url()
    asyncio.run(_opened(url))
    name = schema_of(url)
    postgres_server.run("CREATE ROLE reader LOGIN")
    postgres_server.run(f"GRANT USAGE ON SCHEMA {name} TO reader")
    postgres_server.run(f"GRANT SELECT ON ALL TABLES IN SCHEMA {name} TO reader")
    assert poller_store("check", as_role(url, "reader")) == 2
    said = capsys.readouterr().err
    assert f"the role lacks INSERT, UPDATE, DELETE on {name}.leases" in said

    async def scenario() -> None:
        async with at(as_role(url, "reader")) as store:
            with pytest.raises(AccessDenied, match="42501"):
                await store.beat(ANN, 1, facts={})

    asyncio.run(scenario())


def test_a_role_that_may_use_the_tables_needs_no_more(
    postgres_server: Postgres, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = postgres_server.url()
    asyncio.run(_opened(url))
    name = schema_of(url)
    postgres_server.run("CREATE ROLE least LOGIN")
    postgres_server.run(f"GRANT USAGE ON SCHEMA {name} TO least")
    postgres_server.run(f"GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA {name} TO least")
    assert poller_store("check", as_role(url, "least")) == 0


@pytest.mark.parametrize(
    ("setting", "remedy"),
    [
        ("synchronous_commit = off", "synchronous_commit is off"),
    ],
)
def test_a_role_whose_commits_may_be_lost_is_refused(
    setting: str, remedy: str, postgres_server: Postgres, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = postgres_server.url()
    asyncio.run(_opened(url))
    hasty = as_role(url, role(postgres_server, "hasty", setting))
    postgres_server.run(f"GRANT USAGE ON SCHEMA {schema_of(url)} TO hasty")
    with pytest.raises(InvalidConfiguration, match=remedy):
        asyncio.run(_opened(hasty))
    assert poller_store("check", hasty) == 2


def test_a_server_that_takes_no_writes_is_looked_at_and_named(
    postgres_server: Postgres, capsys: pytest.CaptureFixture[str]
) -> None:
    url = postgres_server.url()
    asyncio.run(_opened(url))
    reading = as_role(url, role(postgres_server, "reading", "default_transaction_read_only = on"))
    postgres_server.run(f"GRANT USAGE ON SCHEMA {schema_of(url)} TO reading")
    assert poller_store("check", reading) == 2
    assert "it takes no writes of this role" in capsys.readouterr().err
    with pytest.raises(ServiceUnavailable, match="read-only"):
        asyncio.run(_opened(reading))


def test_what_keeps_the_commands_from_the_database_is_said_once_with_a_remedy(
    postgres_server: Postgres, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    url = postgres_server.url(create="false")
    missing = f"{url}&password_file={tmp_path}/none"
    for word, wrong, remedy in (
        ("check", url.replace("/postgres?", "/absent?"), "correct server, port, database, role or password"),
        ("init", url.replace("/postgres?", "/absent?"), "correct the URL, or what the role or user may do"),
        ("check", missing, "correct its path or permissions"),
        ("init", missing, "correct its path or permissions"),
    ):
        assert poller_store(word, wrong) == 2
        said = capsys.readouterr().err
        assert remedy in said
        assert said.count("store:") == 1


def test_a_role_that_may_not_use_the_schema_is_told_to_get_grants(
    postgres_server: Postgres, capsys: pytest.CaptureFixture[str]
) -> None:
    url = postgres_server.url()
    asyncio.run(_opened(url))
    postgres_server.run("CREATE ROLE stranger LOGIN")
    assert poller_store("check", as_role(url, "stranger")) == 2
    assert "GRANT the role what docs/operate/stores.md#postgresql says" in capsys.readouterr().err


async def _opened(url: str) -> None:
    async with at(url):
        return
