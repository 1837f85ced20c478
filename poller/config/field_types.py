"""Owns the types of single settings: addresses, URLs, names, ARNs, numbers.

Each function returns the value or raises ValueError. The text of the error is the problem, a semicolon and the remedy.
"""

import ipaddress
import re
import uuid
from dataclasses import dataclass
from importlib.metadata import entry_points
from pathlib import Path
from typing import Annotated, Any, Self
from urllib.parse import unquote, urlsplit

from pydantic import AfterValidator, BeforeValidator, Field, StringConstraints

from poller.config.mapping import Whole
from poller.domain.arns import BARE_NAME_CHARS_MAX, BUCKET, Arn, FunctionName
from poller.plugins import GROUPS

SECONDS_MAX = 86_400
WAITS_MAX = 10
"""The most waits that a list of waits may have."""
COUNT_MAX = 1_000_000
PER_SECOND_MIN = 0.001
"""A slower rate than one in a thousand seconds is more likely a mistake."""
PER_SECOND_MAX = 1_000_000
SERVICES = ("dynamodb", "dynamodbstreams", "events", "kinesis", "lambda", "s3", "sns", "sqs", "sts")
"""The services of `endpoint_urls`, by their names in AWS's clients."""
STORES = ("dynamodb", "memory", "postgresql", "sqlite")
_PORT_MAX = 65_535
HOST_CHARS_MAX = 255
PREFIX_CHARS_MAX = 512
"""S3 takes keys of 1,024 bytes. What follows a prefix in the key of a notice has less than 300."""
_OBJECT_PREFIX = re.compile(rf"s3://({BUCKET})(?:/(.*))?")
_PREFIX_CHARACTERS = re.compile(r"[A-Za-z0-9!_.*'()=+@:,/-]*")
_HOST = re.compile(r"((?!-)[A-Za-z0-9-]{1,63}(?<!-)\.)*(?!-)[A-Za-z0-9-]{1,63}(?<!-)\.?")
_HOST_NAME = re.compile(r"(?!-)(?:[A-Za-z0-9_-]{1,63}\.)*[A-Za-z0-9_-]{1,63}\.?")
_IGNORED = re.compile(
    "[\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f\u202a-\u202e\u2060-\u206f\u3164\ufe00-\ufe0f\ufeff\uffa0"
    "\ufff0-\ufff8\U0001bca0-\U0001bca3\U0001d173-\U0001d17a\U000e0000-\U000e0fff]"
)
"""Characters that do not show. IDNA leaves most of them out, so that a name would not be what it seems; HTTP clients refuse them."""
_LABELS = "write an IP address, or a name whose parts between dots have 1 to 63 letters, digits and dashes"
_WEB_FORM = "write http://host:port/path or https://…"


def number(value: object) -> object:
    if isinstance(value, bool):
        raise ValueError("not a number; write digits, without unit")
    return value


def http_url(text: str) -> str:
    remedy = "write http://HOST:PORT or https://HOST"
    try:
        parts = urlsplit(text)
        host, _ = parts.hostname, parts.port
    except ValueError:
        raise ValueError(f"not a URL; {remedy}") from None
    if parts.scheme not in {"http", "https"} or not host:
        raise ValueError(f"not an HTTP URL; {remedy}")
    if not _is_host(host) or not text.isprintable() or " " in text:
        raise ValueError(
            "its host is none that AWS's clients take; write an IP address, or a name of letters, digits, dashes and dots"
        )
    if parts.username or parts.password:
        raise ValueError(
            "a URL with user or password; leave them out, credentials come from the AWS variables"
        )
    return text


@dataclass(frozen=True, slots=True)
class Address:
    """An address to listen on: a name or an IP address, and a port (0: any free port)."""

    host: str
    port: int

    @classmethod
    def parse(cls, text: str) -> Self:
        """Parses `HOST:PORT` or `[IPV6]:PORT`; raises ValueError."""
        host, colon, port = text.rpartition(":")
        bracketed = host.startswith("[") and host.endswith("]")
        bare = host[1:-1] if bracketed else host
        if not colon or not bare or (not bracketed and re.search(r"[\s:/\[\]]", bare)):
            raise ValueError("not HOST:PORT; write 127.0.0.1:8080, 0.0.0.0:8080 or [::1]:8080")
        if not bracketed and not is_host(bare):
            raise ValueError(f"what stands before the port is no host; {_LABELS}")
        if bracketed:
            try:
                ipaddress.IPv6Address(bare)
            except ValueError:
                raise ValueError("no IPv6 address in the brackets; write [::1]:8080") from None
        if not re.fullmatch(r"[0-9]{1,5}", port) or int(port) > _PORT_MAX:
            raise ValueError(f"no port behind the colon; write 0 to {_PORT_MAX}")
        return cls(bare, int(port))

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @property
    def loopback(self) -> bool:
        """Whether only this machine can reach the address, as far as its text shows."""
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return self.host == "localhost"


@dataclass(frozen=True, slots=True)
class ObjectPrefix:
    """A place for objects: a bucket, and what their keys begin with, which is empty or ends with a slash."""

    bucket: str
    prefix: str

    @classmethod
    def parse(cls, text: str) -> Self:
        """Parses `s3://BUCKET/PREFIX` or `s3://BUCKET`; raises ValueError."""
        arn = Arn.read(text)
        if arn is not None and arn.service == "s3":
            raise ValueError(f"is an ARN; write s3://{arn.resource}")
        found = _OBJECT_PREFIX.fullmatch(text)
        if found is None:
            raise ValueError("not the URL of a place in a bucket; write s3://BUCKET/PREFIX")
        behind = found[2] or ""
        prefix = behind.removesuffix("/")
        if not _PREFIX_CHARACTERS.fullmatch(prefix):
            raise ValueError(
                "has characters that a key should not have; write letters, digits and !_.*'()=+@:,-"
            )
        if behind and not {"", ".", ".."}.isdisjoint(prefix.split("/")):
            raise ValueError("has an empty part, . or .. between slashes; write s3://BUCKET/PREFIX")
        if len(prefix) > PREFIX_CHARS_MAX:
            raise ValueError(f"has a prefix of more than {PREFIX_CHARS_MAX} characters; write a shorter one")
        return cls(found[1], f"{prefix}/" if prefix else "")


def object_prefix(text: str) -> str:
    ObjectPrefix.parse(text)
    return text


def listen_address(text: str) -> str:
    Address.parse(text)
    return text


def no_port_alone(value: object) -> object:
    """Refuses a port without a host, which YAML reads as a number. Raises ValueError."""
    if isinstance(value, int | float):
        raise ValueError("not HOST:PORT; write 127.0.0.1:8080, 0.0.0.0:8080 or [::1]:8080")
    return value


def host_name(text: str) -> str:
    """A name or an IP address as in a `Host` header, without port and brackets. International names have their ASCII form there."""
    if not text.isascii() or not is_host(text):
        raise ValueError("no host name; write a name or an IP address, without scheme and port")
    return text


def is_host(text: str) -> bool:
    """Whether a text is an IP address, or a name that can be looked up. Looking up any other name raises UnicodeError or is refused.

    A name has labels of 1 to 63 characters. Underscores are taken, since some container networks have them in names, and letters
    beyond ASCII if IDNA has a form for them.
    """
    if _is_address(text):
        return True
    if len(text) > HOST_CHARS_MAX or not text.isprintable() or _IGNORED.search(text):
        return False
    try:
        name = text.encode("idna").decode("ascii")
    except UnicodeError:
        return False
    return len(name) <= HOST_CHARS_MAX and _HOST_NAME.fullmatch(name) is not None


def web_url(text: str, *, credentials: str) -> str:
    """A URL that requests are posted to, with any path. Raises ValueError.

    `credentials` is the remedy for a URL with a user or a password.
    """
    try:
        parts = urlsplit(text)
        host, port = parts.hostname, parts.port
    except ValueError as error:
        raise ValueError(f"is not a URL ({error}); {_WEB_FORM}") from None
    if parts.scheme not in ("http", "https") or not host:
        raise ValueError(f"is not a URL; {_WEB_FORM}")
    if not text.isprintable() or text != text.strip():
        raise ValueError("has blanks around it, or characters that do not show; remove them")
    if parts.username is not None or parts.password is not None:
        raise ValueError(f"a URL must not hold a user or password; {credentials}")
    if not is_host(host) or _is_numeric(host):
        raise ValueError(f"its host is neither an address nor a name; {_LABELS}")
    if port == 0:
        raise ValueError("port 0 is nobody's; name the port that the server listens on")
    return text


def _is_numeric(host: str) -> bool:
    """Whether a host is no IP address, but would be taken for one by its last part: HTTP clients refuse `1.2.3` and `256.1.1.1`."""
    last = host.removesuffix(".").rpartition(".")[2]
    return last.isdecimal() and ":" not in host and not _is_address(host)


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def _is_host(host: str) -> bool:
    """Whether AWS's clients accept this host. They refuse names with an underscore, which some container networks use."""
    if _is_address(host):
        return "%" not in host
    return len(host) <= HOST_CHARS_MAX and _HOST.fullmatch(host) is not None


def directory_url(text: str) -> str:
    """The URL of a directory, `file:///path`. Raises ValueError if it is none."""
    wrong = ValueError("names no directory; write file:///path/of/directory")
    try:
        parts = urlsplit(text)
    except ValueError:
        raise wrong from None
    path = unquote(parts.path)
    if parts.query or parts.fragment:
        raise ValueError("has a ? or #, which do not belong to a path; write %3F or %23")
    if parts.scheme != "file" or parts.netloc or not path.startswith("/") or "\0" in path:
        raise wrong
    return text


def directory_of(url: str) -> Path:
    """The directory that a `directory_url` names."""
    return Path(unquote(urlsplit(url).path))


def store_name(url: str) -> str:
    """The name of the store plug-in for a URL: the URL's scheme. Raises ValueError."""
    examples = "sqlite:///var/lib/poller/state.db, memory://, dynamodb://TABLE or postgresql://HOST/DATABASE"
    name, separator, rest = url.partition(":")
    place = rest.removeprefix("//").partition("?")[0]
    if not separator or (name not in STORES and name not in _installed_stores()):
        known = ", ".join(sorted({*STORES, *_installed_stores()}))
        raise ValueError(f"not the URL of a store; write {examples} (known schemes: {known})")
    if name == "sqlite" and not place.strip("/"):
        raise ValueError("no file behind sqlite:; write sqlite:///var/lib/poller/state.db")
    if name == "dynamodb" and not re.fullmatch(r"[A-Za-z0-9_.-]{3,255}", place):
        raise ValueError("no table name behind dynamodb:; write dynamodb://TABLE")
    if name == "memory" and rest != "//":
        raise ValueError("memory:// takes nothing behind it; write memory://")
    return name


def _installed_stores() -> set[str]:
    return {point.name for point in entry_points(group=GROUPS["stores"])}


def store_url(url: str) -> str:
    store_name(url)
    return url


def aws_service(name: str) -> str:
    if name not in SERVICES:
        raise ValueError(f"no service that poller calls; write one of {', '.join(SERVICES)}")
    return name


def function_key(name: str) -> str:
    if not re.fullmatch(rf"[A-Za-z0-9_-]{{1,{BARE_NAME_CHARS_MAX}}}", name):
        raise ValueError(
            f"not a function's bare name; write letters, digits, - and _, {BARE_NAME_CHARS_MAX} at most"
        )
    return name


def bare_function_arn(text: str) -> str:
    try:
        name = FunctionName.parse(text)
    except ValueError:
        name = FunctionName("")
    if not name.partition:
        raise ValueError("not a function's ARN; write arn:aws:lambda:REGION:ACCOUNT:function:NAME")
    if name.qualifier:
        raise ValueError("has a qualifier; write it behind the mapping's FunctionName")
    return text


def role_arn(text: str) -> str:
    try:
        role = Arn.parse(text).service == "iam"
    except ValueError:
        role = False
    if not role:
        raise ValueError("not a role's ARN; write arn:aws:iam::ACCOUNT:role/NAME")
    return text


def assumable_role(text: str) -> str:
    role = Arn.read(text)
    if (
        role is None
        or role.service != "iam"
        or not re.fullmatch(r"role/[\w+=,.@/-]{1,576}", role.resource, re.ASCII)
    ):
        raise ValueError("not a role's ARN; write arn:aws:iam::ACCOUNT:role/NAME")
    return text


def uuid_text(text: str) -> str:
    try:
        return str(uuid.UUID(text))
    except ValueError:
        raise ValueError(
            "not a UUID; write one, or leave it out and it is made from source and function"
        ) from None


type Seconds = Annotated[float, BeforeValidator(number), Field(gt=0, le=SECONDS_MAX, allow_inf_nan=False)]
type PerSecond = Annotated[
    float, BeforeValidator(number), Field(ge=PER_SECOND_MIN, le=PER_SECOND_MAX, allow_inf_nan=False)
]
type SecondsFrom1 = Annotated[
    float, BeforeValidator(number), Field(ge=1, le=SECONDS_MAX, allow_inf_nan=False)
]
type Fraction = Annotated[float, BeforeValidator(number), Field(gt=0, le=1, allow_inf_nan=False)]
type Count = Annotated[Whole, Field(ge=1, le=COUNT_MAX)]
type ObjectPrefixUrl = Annotated[str, AfterValidator(object_prefix)]
type Url = Annotated[str, AfterValidator(http_url)]
type IdentityName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_-]{1,64}$")]
"""The name of an entry below `identities`."""
AS_WHOM: Any = Field(
    default=None,
    description="As whom AWS is called: an entry below identities. Default: the process's own credentials.",
)
"""What the settings of plug-ins that call AWS say of `identity`."""
type PlugInName = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9_-]{0,63}$")]
type FilePath = Annotated[str, StringConstraints(min_length=1, max_length=4096)]
