"""Owns how the store proves who it is, and knows the server: passwords from files, tokens of RDS, TLS."""

import asyncio
import os
import ssl
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from botocore import auth, signers
from botocore.session import get_session

from adapters.stores.postgresql.credentials import Passwords, read_password
from adapters.stores.postgresql.settings import PostgresSettings, Server
from poller.clock import LoopClock
from poller.domain.errors import AccessDenied, InvalidConfiguration, PortError, ServiceUnavailable
from poller.plugins import Environment
from tests.adapters.stores.postgresql.openings import at
from tests.adapters.tls import certificate_in
from tests.conftest import give_credentials
from tests.postgres import NOBODY, Postgres, made

SECRET = "correct horse battery"


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Postgres, Path]]:
    """A server that wants passwords and TLS of everybody but its superuser, and its certificate."""
    certificate = certificate_in(tmp_path_factory.mktemp("tls"))
    with made() as server:
        own = server.data / "tls.pem"
        own.write_bytes(certificate.read_bytes())
        own.chmod(0o600)
        if os.geteuid() == 0:
            os.chown(own, NOBODY, NOBODY)
        rules = ["host all postgres 127.0.0.1/32 trust", "hostssl all all 127.0.0.1/32 scram-sha-256"]
        (server.data / "pg_hba.conf").write_text("".join(f"{each}\n" for each in rules))
        server.settings |= {"ssl": "on", "ssl_cert_file": str(own), "ssl_key_file": str(own)}
        server.start()
        server.run(f"CREATE ROLE poller LOGIN PASSWORD '{SECRET}'")
        server.run("GRANT CREATE ON DATABASE postgres TO poller")
        yield server, certificate


@pytest.fixture(autouse=True)
def _no_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in os.environ:
        if name.startswith("PG"):
            monkeypatch.delenv(name)


def opened(url: str) -> None:
    """Opens the store with this URL, makes its tables and closes it."""

    async def whole() -> None:
        async with at(url) as store:
            assert await store.mappings() == []

    asyncio.run(whole())


def refusal(url: str) -> PortError:
    """Why the store with this URL cannot be opened."""
    with pytest.raises(PortError) as refused:
        opened(url)
    assert SECRET not in str(refused.value)
    return refused.value


def test_a_password_comes_from_its_file_and_is_read_anew(
    guarded: tuple[Postgres, Path], tmp_path: Path
) -> None:
    server, _ = guarded
    file = tmp_path / "password"
    file.write_text(f"{SECRET}\nnot this\n")
    url = server.url(user="poller", sslmode="require", password_file=str(file))
    opened(url)
    file.write_text("wrong")
    said = refusal(url)
    assert "password authentication failed" in said.reason
    assert "wrong" not in said.reason
    file.write_text(f"{SECRET}\r\n")
    opened(url)


def test_a_password_comes_from_the_environment(
    guarded: tuple[Postgres, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    server, _ = guarded
    url = server.url(user="poller", sslmode="require")
    assert "password" in refusal(url).reason
    monkeypatch.setenv("PGPASSWORD", SECRET)
    opened(url)


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"", "its first line is no password"),
        (b"\n", "its first line"),
        (b"\xff\xfe", "not UTF-8"),
        (None, "No such file"),
    ],
)
def test_a_file_without_a_password_is_named(content: bytes | None, why: str, tmp_path: Path) -> None:
    file = tmp_path / "password"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(AccessDenied, match=why) as refused:
        read_password(file)
    assert str(file) in refused.value.reason


def test_a_server_is_known_by_its_certificate(guarded: tuple[Postgres, Path], tmp_path: Path) -> None:
    server, certificate = guarded
    file = tmp_path / "password"
    file.write_text(SECRET)
    given: dict[str, Any] = {"user": "poller", "password_file": str(file), "sslmode": "verify-full"}
    opened(server.url(**given, sslrootcert=str(certificate)))
    (other := tmp_path / "other").mkdir()
    said = refusal(server.url(**given, sslrootcert=str(certificate_in(other))))
    assert "certificate verify failed" in said.reason


def test_the_authorities_of_the_system_are_those_that_python_trusts(
    guarded: tuple[Postgres, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server, certificate = guarded
    file = tmp_path / "password"
    file.write_text(SECRET)
    url = server.url(user="poller", password_file=str(file), sslmode="verify-full", sslrootcert="system")
    assert "certificate verify failed" in refusal(url).reason
    known = ssl.get_default_verify_paths()._replace(cafile=str(certificate))
    monkeypatch.setattr(ssl, "get_default_verify_paths", lambda: known)
    opened(url)


def test_a_server_without_tls_gets_no_password_unless_tls_is_switched_off(
    postgres_server: Postgres, tmp_path: Path
) -> None:
    file = tmp_path / "password"
    file.write_text(SECRET)
    said = refusal(postgres_server.url(sslmode="require", password_file=str(file)))
    assert "SSL" in said.reason


def settings(**options: str) -> PostgresSettings:
    """The settings of a store in RDS."""
    return PostgresSettings.model_validate(
        {"url": "postgresql://app@db.example.com:5433/poller", "iam": True, **options}
    )


def test_a_token_of_rds_is_the_one_that_aws_makes(monkeypatch: pytest.MonkeyPatch) -> None:
    give_credentials(monkeypatch, "111122223333")
    now = datetime(2026, 3, 1, 12, tzinfo=UTC)
    monkeypatch.setattr(auth, "get_current_datetime", lambda: now)

    async def token() -> str | None:
        env = Environment(LoopClock(), region="eu-west-1")
        try:
            return await Passwords(settings(), env).password(Server("db.example.com", 5433))
        finally:
            await env.shared.close()

    client = get_session().create_client("rds", region_name="eu-west-1")
    wanted = signers.generate_db_auth_token(client, "db.example.com", 5433, "app")
    assert asyncio.run(token()) == wanted


def test_each_connection_gets_a_new_token(monkeypatch: pytest.MonkeyPatch) -> None:
    give_credentials(monkeypatch, "111122223333")
    moments = iter(datetime(2026, 3, 1, 12, minute, tzinfo=UTC) for minute in range(60))
    monkeypatch.setattr(auth, "get_current_datetime", lambda: next(moments))

    async def tokens() -> list[str | None]:
        env = Environment(LoopClock(), region="eu-west-1")
        passwords = Passwords(settings(), env)
        try:
            return [await passwords.password(Server("db.example.com", 5433)) for _ in range(2)]
        finally:
            await env.shared.close()

    first, second = asyncio.run(tokens())
    assert first != second


def test_a_token_needs_a_region_and_credentials(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    give_credentials(monkeypatch, "111122223333")
    for name in ("AWS_REGION", "AWS_DEFAULT_REGION"):
        monkeypatch.delenv(name, raising=False)
    for name in ("AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE"):
        monkeypatch.setenv(name, str(tmp_path / "none"))

    async def token(**options: Any) -> None:
        env = Environment(LoopClock(), **options)
        try:
            await Passwords(settings(), env).password(Server("db.example.com", 5433))
        finally:
            await env.shared.close()

    with pytest.raises(InvalidConfiguration, match="region=REGION"):
        asyncio.run(token())
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    with pytest.raises((AccessDenied, ServiceUnavailable), match="credentials"):
        asyncio.run(token(region="eu-west-1"))
