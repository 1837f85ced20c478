"""Owns where the database is and how it is reached: the URL and its options."""

import ipaddress
import re
from dataclasses import dataclass
from typing import Annotated, Any, Literal
from urllib.parse import unquote

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from adapters.stores import url_options
from poller.config.field_types import AS_WHOM, FilePath, IdentityName, is_host

PORT = 5432
_PORT_MAX = 65_535
HOSTS_MAX = 16
"""Servers that one URL may name. Each is asked in turn for the one that can be written."""
SCHEMA = "poller"
SYSTEM = "system"
"""Stands in `sslrootcert` for the authorities that the machine trusts, as in libpq."""
_FORM = (
    "write postgresql://HOST:PORT/DATABASE, with USER@ before the host and a comma between several servers"
)
_NO_PASSWORD = "a URL is shown and logged, so it must not hold a password; name a file in password_file, or set PGPASSWORD"
_NAME = re.compile(r"[^\x00-\x1f\x7f]{1,63}")

type SchemaName = Annotated[str, Field(pattern=r"^[a-z_][a-z0-9_]{0,62}$")]
type SslMode = Literal["disable", "allow", "prefer", "require", "verify-ca", "verify-full"]


@dataclass(frozen=True, slots=True)
class Server:
    """One server of the URL: a name, an IP address, or the directory of a Unix socket."""

    host: str
    port: int

    @property
    def local(self) -> bool:
        """Whether nothing leaves this machine on the way to it."""
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return self.host.startswith("/") or self.host == "localhost"

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


@dataclass(frozen=True, slots=True)
class Place:
    """What the URL names: servers, user (empty: PGUSER, or the user of the process) and database."""

    servers: tuple[Server, ...]
    user: str
    database: str

    @classmethod
    def parse(cls, url: str) -> "Place":
        """Parses the URL without its options; raises ValueError."""
        scheme, _, rest = url.partition("://")
        where, _, path = rest.partition("/")
        credentials, _, hosts = where.rpartition("@")
        if ":" in credentials:
            raise ValueError(_NO_PASSWORD)
        database, user = unquote(path), unquote(credentials)
        if scheme != "postgresql" or not hosts or "#" in url or not _NAME.fullmatch(database):
            raise ValueError(_FORM)
        if user and not _NAME.fullmatch(user):
            raise ValueError(f"its user is no name; {_FORM}")
        servers = tuple(_server(each) for each in hosts.split(","))
        if len(servers) > HOSTS_MAX:
            raise ValueError(f"names more than {HOSTS_MAX} servers")
        return cls(servers, user, database)

    def __str__(self) -> str:
        return f"database {self.database} at {', '.join(map(str, self.servers))}"


def _server(text: str) -> Server:
    found = re.fullmatch(r"(\[[0-9A-Fa-f:.]+\]|[^\[\]:]*)(?::([0-9]{1,5}))?", text)
    if found is None:
        raise ValueError(f"{text!r} is no host with a port; {_FORM}")
    host = unquote(found[1].strip("[]"))
    port = int(found[2]) if found[2] else PORT
    if not 0 < port <= _PORT_MAX or not (is_host(host) or (host.startswith("/") and host.isprintable())):
        raise ValueError(f"{text!r} is no host with a port; {_FORM}")
    return Server(host, port)


def _names_a_database(url: str) -> str:
    Place.parse(url)
    return url


class PostgresSettings(BaseModel):
    """The database. The other keys may also be options of the URL.

    `create`: opening the store makes or migrates its tables. `sslmode` None: PGSSLMODE, else `require`, and `prefer` if all
    servers are on this machine. `iam`: the password is a token of RDS by the credentials of `identity`, a new one for each
    connection. `password_file` is read for each connection. Without both, libpq looks for PGPASSWORD and PGPASSFILE.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    url: Annotated[str, AfterValidator(_names_a_database)]
    create: bool = False
    table_schema: SchemaName = SCHEMA
    sslmode: SslMode | None = None
    sslrootcert: FilePath | None = None
    sslcert: FilePath | None = None
    sslkey: FilePath | None = None
    password_file: FilePath | None = None
    iam: bool = False
    region: str | None = None
    identity: IdentityName | None = AS_WHOM
    connections_max: int = Field(default=8, ge=1, le=100)
    call_timeout_s: float = Field(default=5.0, gt=0, le=60)

    _spread = model_validator(mode="before")(url_options.spread)

    @model_validator(mode="after")
    def _one_password(self) -> Any:
        if self.iam and self.password_file is not None:
            raise ValueError("iam and password_file both give the password; keep one")
        if self.iam and not self.place.user:
            raise ValueError("iam needs a user in the URL; write USER@ before the host")
        if self.iam and self.sslmode in ("disable", "allow", "prefer"):
            raise ValueError("iam sends its token over TLS alone; write sslmode=require or verify-full")
        if self.sslrootcert == SYSTEM and self.sslmode != "verify-full":
            raise ValueError("sslrootcert=system trusts many servers; write sslmode=verify-full with it")
        if (self.sslcert is None) != (self.sslkey is None):
            raise ValueError("sslcert and sslkey belong together; write both")
        return self

    @property
    def place(self) -> Place:
        """What the URL names."""
        return Place.parse(self.url)
