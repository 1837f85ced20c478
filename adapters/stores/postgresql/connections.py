"""Owns the connections to the database: how they are made, given to statements, and given up.

Each statement is a transaction of its own. Nothing is kept in a connection between two statements: no settings, no prepared
statements, no locks. So any connection may carry out any statement, also behind a pooler that gives out a connection for a
transaction (PgBouncer's transaction mode).

A statement that is not answered in time, or whose caller is cancelled, ends its connection. It may still take effect, as after
any lost answer; every write is conditional and may be repeated.
"""

import asyncio
import math
import os
import select
import ssl
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from itertools import product
from pathlib import Path
from typing import Any, override

import psycopg
from psycopg import waiting
from psycopg.abc import RV, PQGen

from adapters.stores.postgresql.credentials import Passwords
from adapters.stores.postgresql.errors import READ_ONLY, mapped, unconnected
from adapters.stores.postgresql.settings import SYSTEM, PostgresSettings, Server
from poller.domain.errors import PortError, ServiceThrottled, ServiceUnavailable
from poller.start_folder import from_start_folder

KEEP_ALIVE = {"keepalives": 1, "keepalives_idle": 60, "keepalives_interval": 15, "keepalives_count": 4}
"""A silent connection is probed after a minute, and given up when the other side has not answered for another one."""
WAIT_S = 0.1
"""How often a waiting connection is looked at without a sign from its socket, as the library does by itself."""
AUTHORITIES = ("/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt", "/etc/ssl/cert.pem")
"""Where Linux distributions keep the authorities that they trust, if Python does not know."""
LIBRARY_CONNECT_S_MIN = 2
"""libpq takes no shorter time limit for a connection."""


class Connection(psycopg.AsyncConnection[tuple[Any, ...]]):
    """A connection that ends at once when a statement on it is cancelled. The library would ask the server and wait."""

    @override
    async def wait(self, gen: PQGen[RV], interval: float = WAIT_S, timeout: float | None = None) -> RV:
        """Waits for the server; raises as the library does."""
        try:
            return await waiting.wait_async(gen, self.pgconn.socket, interval=interval, timeout=timeout)
        except asyncio.CancelledError:
            await self.close()
            raise


class Connections:
    """Connections that statements share, at most `connections_max` of them.

    Those of a view are for statements that only read: if no server takes writes, they go to one that does not.
    """

    def __init__(self, settings: PostgresSettings, passwords: Passwords, *, view: bool = False) -> None:
        self._settings = settings
        self._sessions = ("read-write", "any") if view else ("read-write",)
        self._passwords = passwords
        self.place = str(settings.place)
        self._room = asyncio.Semaphore(settings.connections_max)
        self._idle: list[Connection] = []
        self._closed = False

    async def run(self, statement: str, parameters: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        """Carries out one statement in a transaction of its own; returns its rows. Raises port errors."""
        async with self._connection() as connection:
            return await self._answered(connection, statement, parameters)

    async def run_all(self, statements: Sequence[tuple[str, Sequence[Any]]]) -> list[list[tuple[Any, ...]]]:
        """Carries out several statements in one transaction. Raises port errors, and then nothing was changed or an answer was lost."""
        async with self._connection() as connection:
            results = []
            await self._answered(connection, "BEGIN", ())
            for statement, parameters in statements:
                results.append(await self._answered(connection, statement, parameters))
            await self._answered(connection, "COMMIT", ())
            return results

    async def close(self) -> None:
        """Closes the connections. Statements that come later are refused."""
        self._closed = True
        await self._drop_idle()

    @asynccontextmanager
    async def _connection(self) -> AsyncGenerator[Connection]:
        """Yields a connection that nobody else uses meanwhile. One on which a statement failed is not used again."""
        if self._closed:
            raise ServiceUnavailable(f"{self.place} is closed")
        try:
            async with asyncio.timeout(self._settings.call_timeout_s):
                await self._room.acquire()
        except TimeoutError:
            raise ServiceThrottled(f"{self.place}: all connections of this process are busy") from None
        try:
            connection = await self._reusable() or await self._connected()
            try:
                yield connection
            except BaseException:
                await connection.close()
                raise
            await self._keep(connection)
        finally:
            self._room.release()

    async def _answered(
        self, connection: Connection, statement: str, parameters: Sequence[Any]
    ) -> list[tuple[Any, ...]]:
        try:
            async with asyncio.timeout(self._settings.call_timeout_s):
                cursor = connection.cursor(binary=True)
                await cursor.execute(statement.encode(), parameters, prepare=False)
                return await cursor.fetchall() if cursor.description is not None else []
        except TimeoutError:
            said = f"no answer within {self._settings.call_timeout_s:g} s"
            raise ServiceUnavailable(f"{self.place}: {said}") from None
        except psycopg.Error as error:
            if error.sqlstate == READ_ONLY or error.sqlstate is None:
                # The others lead to the same server.
                await self._drop_idle()
            raise mapped(error, self.place) from error

    async def _keep(self, connection: Connection) -> None:
        if self._closed:
            await connection.close()
        else:
            self._idle.append(connection)

    async def _reusable(self) -> Connection | None:
        while self._idle:
            connection = self._idle.pop()
            if not _ended(connection):
                return connection
            await connection.close()
        return None

    async def _drop_idle(self) -> None:
        while self._idle:
            await self._idle.pop().close()

    async def _connected(self) -> Connection:
        """Connects to the first server that can be written, or for a view to the first one; raises port errors."""
        trouble: PortError | None = None
        for session, server in product(self._sessions, self._settings.place.servers):
            try:
                return await self._connect(server, session)
            except PortError as error:
                trouble = error
        assert trouble is not None, "a URL names one server at least"
        raise trouble

    async def _connect(self, server: Server, session: str) -> Connection:
        password = await self._passwords.password(server)
        given: dict[str, Any] = _given(self._settings, server) | KEEP_ALIVE
        given["target_session_attrs"] = session
        if password is not None:
            given["password"] = password
        try:
            async with asyncio.timeout(self._settings.call_timeout_s):
                return await Connection.connect(autocommit=True, prepare_threshold=None, **given)
        except TimeoutError:
            said = f"no connection to {server} within {self._settings.call_timeout_s:g} s"
            raise ServiceUnavailable(f"{self.place}: {said}") from None
        except psycopg.Error as error:
            raise unconnected(error, self.place) from None


def _given(settings: PostgresSettings, server: Server) -> dict[str, Any]:
    """Returns libpq's parameters without the password. What is absent comes from libpq's variables and defaults."""
    place = settings.place
    options: dict[str, Any] = {
        "host": server.host,
        "port": server.port,
        "dbname": place.database,
        "user": place.user or None,
        "sslmode": settings.sslmode or _default_sslmode(settings),
        "client_encoding": "utf8",
        "application_name": "poller",
        "connect_timeout": max(LIBRARY_CONNECT_S_MIN, math.ceil(settings.call_timeout_s)),
    }
    files = {name: getattr(settings, name) for name in ("sslrootcert", "sslcert", "sslkey")}
    options |= {name: _file(path) for name, path in files.items() if path is not None}
    return {name: value for name, value in options.items() if value is not None}


def _file(path: str) -> str:
    return authorities_of_the_system() if path == SYSTEM else str(from_start_folder(path))


def authorities_of_the_system() -> str:
    """Returns the file with the authorities that this machine trusts.

    The library's own OpenSSL looks for them in a folder that only its build machine has.
    """
    known = ssl.get_default_verify_paths().cafile
    return next((each for each in (known, *AUTHORITIES) if each and Path(each).is_file()), SYSTEM)


def _default_sslmode(settings: PostgresSettings) -> str | None:
    if not settings.iam and os.environ.get("PGSSLMODE"):
        return None
    return "prefer" if all(each.local for each in settings.place.servers) and not settings.iam else "require"


def _ended(connection: Connection) -> bool:
    """Whether the server has closed an idle connection. It sends nothing else on one, apart from notices, which are rare."""
    if connection.closed:
        return True
    waiter = select.poll()
    waiter.register(connection.pgconn.socket, select.POLLIN)
    return bool(waiter.poll(0))


@asynccontextmanager
async def connections(
    settings: PostgresSettings, passwords: Passwords, *, view: bool = False
) -> AsyncGenerator[Connections]:
    """Yields connections, none of which is made yet."""
    made = Connections(settings, passwords, view=view)
    try:
        yield made
    finally:
        await made.close()
