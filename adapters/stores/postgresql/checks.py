"""Owns the checks of a database before a daemon uses it. Nothing in it is made or changed."""

from collections.abc import AsyncGenerator, Iterator, Sequence
from contextlib import asynccontextmanager

from adapters.stores.postgresql import schema
from adapters.stores.postgresql.connections import Connections, connections
from adapters.stores.postgresql.credentials import Passwords
from adapters.stores.postgresql.settings import PostgresSettings
from adapters.stores.postgresql.store import PostgresStore
from poller.domain.errors import AccessDenied, PortError
from poller.domain.findings import Finding, Severity
from poller.domain.records import MappingId
from poller.domain.rows import Lease, MappingRow
from poller.plugins import Environment

_RIGHTS = """
    SELECT name, string_agg(lacking, ', ' ORDER BY place) FROM unnest(%s::text[]) AS tables (name),
        unnest(ARRAY['SELECT', 'INSERT', 'UPDATE', 'DELETE']) WITH ORDINALITY AS rights (lacking, place)
    WHERE NOT has_table_privilege(%s || '.' || name, lacking) GROUP BY name ORDER BY name
"""
_PAGE = "docs/operate/stores.md#postgresql"
_MAY_CREATE = "SELECT has_database_privilege(current_database(), 'CREATE')"


class DatabaseProbe:
    """A Probe, MappingList, LeaseList and StoreVersion of a database. With `create` the daemon would make missing tables."""

    def __init__(self, database: Connections, schema_name: str, *, create: bool) -> None:
        self._database = database
        self._schema = schema_name
        self._create = create

    async def probe(self) -> list[Finding]:
        """Connects, and looks at the server, the tables and what the role may do. Every problem is a finding."""
        try:
            return [Finding("connection", Severity.OK), *await self._server(), *await self._tables()]
        except PortError as error:
            return [_unreached(error)]

    async def mappings(self) -> Sequence[MappingRow]:
        """Returns all rows; none if there are no tables. Raises port errors."""
        if not await schema.version_of(self._database, self._schema):
            return []
        return await PostgresStore(self._database, self._schema).mappings()

    async def leases(self, mapping: MappingId) -> Sequence[Lease]:
        """Returns all leases of one mapping; none if there are no tables. Raises port errors."""
        if not await schema.version_of(self._database, self._schema):
            return []
        return await PostgresStore(self._database, self._schema).leases(mapping)

    async def versions(self) -> tuple[int, int]:
        """Returns the version of the tables, 0 without tables, and the one that is needed. Raises port errors."""
        return await schema.version_of(self._database, self._schema), len(schema.VERSIONS)

    async def _server(self) -> list[Finding]:
        number, encoding, commit, fsync, read_only = await schema.facts(self._database)
        return list(_judged(number, encoding, commit, fsync=fsync, read_only=read_only))

    async def _tables(self) -> list[Finding]:
        check = "tables"
        version = await schema.version_of(self._database, self._schema)
        if version > len(schema.VERSIONS):
            known = f"schema {self._schema} has version {version}, this poller knows {len(schema.VERSIONS)}"
            return [Finding(check, Severity.PROBLEM, known, "run the newer poller or use another schema")]
        if version < len(schema.VERSIONS):
            if not self._create:
                wrong, _, remedy = schema.outdated(self._schema, version).partition("; ")
                return [Finding(check, Severity.PROBLEM, wrong, remedy)]
            return [await self._may_create(version)]
        lacking = await self._database.run(_RIGHTS, (list(schema.TABLES), self._schema))
        return [Finding(check, Severity.OK), *(_lacks(self._schema, *each) for each in lacking)]

    async def _may_create(self, version: int) -> Finding:
        ((may,),) = await self._database.run(_MAY_CREATE)
        if version == 0 and not may:
            text, remedy = "the role may not create a schema", "run poller store init URL as one that may"
            return Finding("tables", Severity.PROBLEM, text, remedy)
        return Finding("tables", Severity.OK)


def _unreached(error: PortError) -> Finding:
    """Returns the problem with the remedy that the error names, or else with what to look at."""
    text, _, remedy = error.reason.removeprefix("store: ").partition("; ")
    if isinstance(error, AccessDenied):
        usual = f"GRANT the role what {_PAGE} says"
    else:
        usual = f"correct server, port, database, role or password; see {_PAGE}"
    return Finding("connection", Severity.PROBLEM, text, remedy or usual)


def _judged(number: int, encoding: str, commit: str, *, fsync: str, read_only: str) -> Iterator[Finding]:
    check = "server"
    wrong = list(schema.unfit(number, encoding, commit))
    for problem in wrong:
        text, _, remedy = problem.partition("; ")
        yield Finding(check, Severity.PROBLEM, text, remedy)
    if fsync == "off":
        text = "fsync is off, so that the server's machine may lose everything when it fails"
        yield Finding(check, Severity.WARNING, text, "switch it on in postgresql.conf")
    if read_only == "on":
        text = "it takes no writes of this role: it is a standby, or default_transaction_read_only is on"
        remedy = "name the primary, or ALTER ROLE … SET default_transaction_read_only = off"
        yield Finding(check, Severity.PROBLEM, text, remedy)
    if not wrong and read_only == "off":
        yield Finding(check, Severity.OK)


def _lacks(schema_name: str, table: str, rights: str) -> Finding:
    text = f"the role lacks {rights} on {schema_name}.{table}"
    remedy = f"GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA {schema_name} TO it"
    return Finding("permissions", Severity.PROBLEM, text, remedy)


@asynccontextmanager
async def opened_probe(settings: PostgresSettings, env: Environment) -> AsyncGenerator[DatabaseProbe]:
    """Yields the probe. It connects when it is first asked."""
    async with connections(settings, Passwords(settings, env), view=True) as database:
        yield DatabaseProbe(database, settings.table_schema, create=settings.create)
