"""Owns the settings of the `http` invoker, and the checks of its URL, headers and statuses."""

import re
from collections.abc import Iterator
from enum import StrEnum
from typing import Annotated, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    SecretStr,
    field_validator,
    model_validator,
)

from adapters.invokers.cloud_events.requests import Mode
from adapters.invokers.http_unix import usable_socket
from adapters.invokers.outcomes import ANSWER_BYTES_MAX
from poller.config.field_types import web_url
from poller.config_errors.error_messages import FieldError, refused
from poller.domain.plan import EventContent

CONNECT_TIMEOUT_S = 5.0
ANSWER_BYTES_LIMIT = 64 * 1024 * 1024
HEADERS_MAX = 50
STATUS_MIN = 300
STATUS_MAX = 599
OWN_HEADERS = frozenset(
    {
        "content-length",
        "content-type",
        "transfer-encoding",
        "x-amz-deadline-ms",
        "x-amz-invoked-function-arn",
        "x-amzn-requestid",
    }
)
"""Headers that a user may not set, since the invoker sends them itself."""
EVENT_HEADERS = frozenset(
    {
        "ce-datacontenttype",
        "ce-dynamodboperation",
        "ce-id",
        "ce-partitionkey",
        "ce-source",
        "ce-specversion",
        "ce-subject",
        "ce-time",
        "ce-type",
    }
)
"""Headers that a user may not set beside `cloud_events`. Other attributes, `ce-` and a name, may be the user's."""
SIGNATURE_HEADERS = frozenset({"webhook-id", "webhook-signature", "webhook-timestamp"})
"""Headers that a user may not set beside `signature`."""

_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")


class Style(StrEnum):
    """The kind of server: a Lambda runtime, whose body can say that the function failed, or any other server."""

    RUNTIME_INTERFACE = "runtime-interface"
    PLAIN = "plain"


def _usable_url(value: str) -> str:
    return web_url(value, credentials="put them into headers")


class OnNoAnswer(StrEnum):
    """The outcome if a connection ends after the request was sent and before the answer is complete."""

    FUNCTION_ERROR = "function_error"
    UNREACHABLE = "unreachable"


def _unwritable(name: str, text: str) -> FieldError | None:
    if name.lower() in OWN_HEADERS:
        return FieldError("", f"{name!r} is the invoker's own", "remove it")
    if not _TOKEN.fullmatch(name):
        return FieldError("", f"{name!r} is no header name", "use letters, digits and dashes")
    if not text.isascii() or not text.isprintable():
        wrong = f"the value of {name!r} has line breaks or characters outside ASCII"
        return FieldError("", wrong, "remove them")
    return None


type Status = Annotated[int, Field(json_schema_extra={"minimum": STATUS_MIN, "maximum": STATUS_MAX})]
"""A status of a failure. The range is for editors; `HttpSettings` refuses others with one text for the list."""


class Signature(BaseModel):
    """How requests are signed."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    secret_file: str = Field(
        description="A file with a secret on a line, or with two while one replaces the other. Read again when it changes.",
        examples=["/etc/poller/orders.secret"],
    )


ONE_RECORD = "write BatchSize: 1, or cloud_events: batched at functions.{name}"
NO_STATE = "remove it, or cloud_events at functions.{name}"


class HttpSettings(BaseModel):
    """Settings of one function behind a URL."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    function: str
    url: Annotated[str, AfterValidator(_usable_url)] = Field(
        description="Where events are posted to. Without user and password: put them into headers.",
        examples=["http://invoices.default.svc/2015-03-31/functions/function/invocations"],
    )
    unix_socket: Annotated[str, AfterValidator(usable_socket)] | None = Field(
        default=None,
        description="The absolute path of a Unix socket, 107 bytes at most, that takes the place of the URL's host and port. "
        "Not with https.",
        examples=["/run/functions/invoices.sock"],
    )
    headers: dict[str, SecretStr] = Field(
        default_factory=dict,
        max_length=HEADERS_MAX,
        description="Added to every request. Values never appear in logs or errors.",
    )
    cloud_events: Mode | None = Field(
        default=None,
        description="Sends records as CloudEvents 1.0. binary and structured send one record in a request (BatchSize: 1), "
        "batched any number.",
    )
    style: Style = Field(
        default=Style.RUNTIME_INTERFACE,
        description="runtime-interface: the body can say that the function failed, as a Lambda runtime does.",
    )
    signature: Signature | None = Field(
        default=None,
        description="Signs requests by the Standard Webhooks specification, with HMAC-SHA256.",
    )
    connect_timeout_s: float = Field(
        default=CONNECT_TIMEOUT_S, gt=0, le=60, description="Seconds until there must be a connection."
    )
    answer_bytes_max: int = Field(
        default=ANSWER_BYTES_MAX, ge=1, le=ANSWER_BYTES_LIMIT, description="A longer answer is an error."
    )
    throttled_statuses: frozenset[Status] = Field(
        default=frozenset({429}), description="Statuses that say that there is no room."
    )
    unreachable_statuses: frozenset[Status] = Field(
        default=frozenset({502, 503, 504}), description="Statuses that say that it could not be called."
    )
    on_no_answer: OnNoAnswer = Field(
        default=OnNoAnswer.FUNCTION_ERROR,
        description="unreachable: a call without an answer is repeated without using up a retry, without a limit.",
    )
    ca_file: str | None = Field(
        default=None, description="A PEM file with the authorities to trust instead of the system's."
    )
    client_cert_file: str | None = Field(
        default=None,
        description="A PEM file with the certificate that the daemon shows, and those between it and its authority. "
        "Read again when it changes.",
        examples=["/etc/poller/client/tls.crt"],
    )
    client_key_file: str | None = Field(
        default=None,
        description="A PEM file with the key of client_cert_file, without a pass phrase. Default: it is in the same file.",
        examples=["/etc/poller/client/tls.key"],
    )
    verify_tls: bool = Field(default=True, description="Whether the server's certificate is checked.")

    @field_validator("headers")
    @classmethod
    def _writable_headers(cls, headers: dict[str, SecretStr]) -> dict[str, SecretStr]:
        found = [_unwritable(name, value.get_secret_value()) for name, value in headers.items()]
        wrong = [each for each in found if each is not None]
        if wrong:
            raise refused(wrong)
        return headers

    @model_validator(mode="after")
    def _plain_socket(self) -> Self:
        if self.unix_socket and self.url and self.url.lower().startswith("https:"):
            wrong, remedy = "a socket of this machine has no TLS", "write http:// in url, or remove it"
            raise refused([FieldError("unix_socket", wrong, remedy, reads=("url",))])
        return self

    @model_validator(mode="after")
    def _certificate(self) -> Self:
        found = []
        if self.client_key_file and not self.client_cert_file:
            wrong, remedy = "is the key of no certificate", "name its certificate in client_cert_file"
            found.append(FieldError("client_key_file", wrong, remedy, reads=("client_cert_file",)))
        # A partial check may have no URL.
        if self.client_cert_file and self.url and not self.url.lower().startswith("https:"):
            wrong, remedy = "is never shown to a server without TLS", "write https:// in url, or remove it"
            found.append(FieldError("client_cert_file", wrong, remedy, reads=("url",)))
        if found:
            raise refused(found)
        return self

    @model_validator(mode="after")
    def _headers_of_others(self) -> Self:
        taken = {
            "an attribute of the CloudEvent": EVENT_HEADERS if self.cloud_events else (),
            "a part of the signature": SIGNATURE_HEADERS if self.signature else (),
        }
        found = [
            FieldError("headers", f"{name!r} is {what}", "remove it", reads=("headers",))
            for name in self.headers
            for what, names in taken.items()
            if name.lower() in names
        ]
        if found:
            raise refused(found)
        return self

    @field_validator("throttled_statuses", "unreachable_statuses")
    @classmethod
    def _statuses(cls, statuses: frozenset[int]) -> frozenset[int]:
        if wrong := sorted(status for status in statuses if not STATUS_MIN <= status <= STATUS_MAX):
            remedy = f"name statuses from {STATUS_MIN} to {STATUS_MAX}"
            raise ValueError(f"{wrong[0]} is no status of a failure; {remedy}")
        return statuses


def misfits(settings: HttpSettings, content: EventContent) -> Iterator[FieldError]:
    """What keeps a mapping with such events from calling this function, by members of the mapping."""
    name, mode = settings.function, settings.cloud_events
    if mode is None:
        return
    if content.tumbling:
        wrong = f"a CloudEvent has no place for the state of a window, and {name} has cloud_events: {mode}"
        yield FieldError("TumblingWindowInSeconds", wrong, NO_STATE.format(name=name))
    if mode is not Mode.BATCHED and not content.single:
        wrong = (
            f"{name} takes one record in a request (cloud_events: {mode}), and a larger batch is never sent"
        )
        yield FieldError("BatchSize", wrong, ONE_RECORD.format(name=name))
