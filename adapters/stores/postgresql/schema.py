"""Owns the tables: their names, their versions, and how a database is prepared and checked.

Texts are of collation C, so that they sort as Python's do. JSON is kept as text: the server's own JSON types take no null
characters and change numbers. Times are epoch seconds.
"""

from collections.abc import Iterator, Sequence
from typing import Any

from adapters.stores.postgresql.connections import Connections
from poller.domain.errors import InvalidConfiguration, PortError

VERSIONS = (
    """
    CREATE TABLE {schema}.mappings (
        mapping text COLLATE "C" PRIMARY KEY, fixed double precision NOT NULL, seeded boolean NOT NULL,
        document text NOT NULL, revision bigint NOT NULL
    );
    CREATE TABLE {schema}.leases (
        mapping text COLLATE "C" NOT NULL, shard text COLLATE "C" NOT NULL, parents text NOT NULL, owner text COLLATE "C",
        epoch bigint NOT NULL, position text NOT NULL, position_key text COLLATE "C" NOT NULL, memo bytea NOT NULL,
        turn bigint NOT NULL DEFAULT 0, PRIMARY KEY (mapping, shard)
    ) WITH (fillfactor = 50, autovacuum_vacuum_scale_factor = 0.05);
    CREATE TABLE {schema}.workers (
        worker text COLLATE "C" PRIMARY KEY, counter bigint NOT NULL, facts text NOT NULL
    ) WITH (fillfactor = 50, autovacuum_vacuum_scale_factor = 0.05);
    CREATE TABLE {schema}.digests (worker text COLLATE "C" PRIMARY KEY, content bytea NOT NULL);
    CREATE TABLE {schema}.operations (
        operation text COLLATE "C" PRIMARY KEY, over boolean NOT NULL, created double precision NOT NULL,
        ended double precision, revision bigint NOT NULL, content text NOT NULL
    );
    CREATE INDEX open_operations ON {schema}.operations (created, operation) WHERE NOT over;
    CREATE TABLE {schema}.calls (
        call text COLLATE "C" PRIMARY KEY, function text COLLATE "C" NOT NULL, accepted double precision NOT NULL,
        due double precision NOT NULL, owner text COLLATE "C", takeovers bigint NOT NULL, revision bigint NOT NULL,
        content text NOT NULL, payload bytea NOT NULL, answer bytea NOT NULL
    ) WITH (autovacuum_vacuum_scale_factor = 0.05);
    CREATE INDEX due_calls ON {schema}.calls (function, due, call, owner, accepted)
    """,
)
"""The statements that lead from each version of the schema to the next. The table `schema_version` counts those that were run."""
SERVER_MIN = 130_000
"""The oldest version of PostgreSQL that is supported, 13, as the server gives its number."""
TABLES = ("mappings", "leases", "workers", "digests", "operations", "calls")
_LOCK = 0x45534D50
"""Identifies the lock that only one preparation has at a time. It ends with its transaction."""
_ENCODING = "UTF8"
_FACTS = """
    SELECT current_setting('server_version_num')::int, current_setting('server_encoding'),
        current_setting('synchronous_commit'), current_setting('fsync'), current_setting('transaction_read_only')
"""


async def version_of(connections: Connections, schema: str) -> int:
    """Returns the version of the schema; 0 if there are no tables. Raises port errors."""
    ((there,),) = await connections.run("SELECT to_regclass(%s) IS NOT NULL", (f"{schema}.schema_version",))
    if not there:
        return 0
    ((version,),) = await connections.run(f"SELECT coalesce(max(version), 0) FROM {schema}.schema_version")
    return int(version)


async def prepare(connections: Connections, schema: str) -> tuple[int, int]:
    """Makes or migrates the tables in one transaction; returns the version before and now. Others that do the same wait.

    Raises InvalidConfiguration for a database that cannot be used, and port errors.
    """
    for problem in await problems(connections):
        raise InvalidConfiguration([f"store: {connections.place}: {problem}"])
    before = await version_of(connections, schema)
    _check_known(connections, schema, before)
    if before == len(VERSIONS):
        return before, before
    ((exists,),) = await connections.run("SELECT to_regnamespace(%s) IS NOT NULL", (schema,))
    # A role that may make tables in a schema need not be allowed to make schemas.
    making = [] if exists else [(f"CREATE SCHEMA IF NOT EXISTS {schema}", ())]
    statements: list[tuple[str, Sequence[Any]]] = [
        ("SELECT pg_advisory_xact_lock(%s)", (_LOCK,)),
        *making,
        (f"CREATE TABLE IF NOT EXISTS {schema}.schema_version (version int PRIMARY KEY)", ()),
        *_steps(schema, before),
    ]
    try:
        await connections.run_all(statements)
    except PortError:
        # Another process has done the same meanwhile, or the answer to the commit was lost.
        if await version_of(connections, schema) < len(VERSIONS):
            raise
    return before, len(VERSIONS)


async def check(connections: Connections, schema: str) -> None:
    """Raises InvalidConfiguration unless the tables have the version that this poller knows; raises port errors."""
    for problem in await problems(connections):
        raise InvalidConfiguration([f"store: {connections.place}: {problem}"])
    version = await version_of(connections, schema)
    _check_known(connections, schema, version)
    if version < len(VERSIONS):
        raise InvalidConfiguration([f"store: {connections.place}: {outdated(schema, version)}"])


def outdated(schema: str, version: int) -> str:
    """Says that the tables are missing or of an earlier version, with the remedy."""
    if version == 0:
        return f"there are no tables in schema {schema}; run poller store init URL, or add create=true to the URL"
    known = f"schema {schema} has version {version}, this poller needs {len(VERSIONS)}"
    return f"{known}; run poller store migrate URL, or add create=true to the URL"


async def problems(connections: Connections) -> Sequence[str]:
    """Returns what keeps this server from being a store, with remedies; raises port errors."""
    ((number, encoding, commit, _, _),) = await connections.run(_FACTS)
    return list(unfit(number, encoding, commit))


async def facts(connections: Connections) -> tuple[Any, ...]:
    """Returns the server's version number, encoding, synchronous_commit, fsync, and whether it is read-only; raises port errors."""
    (found,) = await connections.run(_FACTS)
    return found


def unfit(number: int, encoding: str, commit: str) -> Iterator[str]:
    """Yields what keeps a server with this version, encoding and synchronous_commit from being a store, with remedies."""
    if number < SERVER_MIN:
        yield f"the server is PostgreSQL {number // 10_000}; this store needs 13 or newer"
    if encoding != _ENCODING:
        yield f"its encoding is {encoding}; create it with ENCODING 'UTF8' TEMPLATE template0"
    if commit == "off":
        yield "synchronous_commit is off, so that a crash loses writes that were acknowledged; ALTER ROLE … SET synchronous_commit = on"


def _check_known(connections: Connections, schema: str, version: int) -> None:
    if version > len(VERSIONS):
        known = f"schema {schema} has version {version}, this poller knows {len(VERSIONS)}"
        raise InvalidConfiguration(
            [f"store: {connections.place}: {known}; run the newer poller or use another schema"]
        )


def _steps(schema: str, before: int) -> Iterator[tuple[str, Sequence[Any]]]:
    """Yields the statements of each version that is missing. A version that another process has added meanwhile is an error."""
    for number, script in enumerate(VERSIONS[before:], before + 1):
        yield f"INSERT INTO {schema}.schema_version VALUES (%s)", (number,)
        for statement in script.format(schema=schema).split(";"):
            yield statement, ()
