"""Owns the settings of the `http` invoker, and the checks of its URL, headers and statuses."""

import re
from enum import StrEnum
from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, SecretStr, field_validator

from adapters.invokers.outcomes import ANSWER_BYTES_MAX
from poller.config.field_types import web_url
from poller.config_errors.error_messages import FieldError, refused

CONNECT_TIMEOUT_S = 5.0
ANSWER_BYTES_LIMIT = 64 * 1024 * 1024
HEADERS_MAX = 50
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


class HttpSettings(BaseModel):
    """Settings of one function behind a URL."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    function: str
    url: Annotated[str, AfterValidator(_usable_url)]
    headers: dict[str, SecretStr] = Field(default_factory=dict, max_length=HEADERS_MAX)
    """Added to every request. Values never appear in logs or errors."""
    style: Style = Style.RUNTIME_INTERFACE
    connect_timeout_s: float = Field(default=CONNECT_TIMEOUT_S, gt=0, le=60)
    answer_bytes_max: int = Field(default=ANSWER_BYTES_MAX, ge=1, le=ANSWER_BYTES_LIMIT)
    throttled_statuses: frozenset[int] = frozenset({429})
    unreachable_statuses: frozenset[int] = frozenset({502, 503, 504})
    on_no_answer: OnNoAnswer = OnNoAnswer.FUNCTION_ERROR
    """`unreachable`: the call is repeated without using up a retry, without a limit."""
    ca_file: str | None = None
    """A PEM file with the certificate authorities to trust instead of the system's."""
    verify_tls: bool = True

    @field_validator("headers")
    @classmethod
    def _writable_headers(cls, headers: dict[str, SecretStr]) -> dict[str, SecretStr]:
        found = [_unwritable(name, value.get_secret_value()) for name, value in headers.items()]
        wrong = [each for each in found if each is not None]
        if wrong:
            raise refused(wrong)
        return headers

    @field_validator("throttled_statuses", "unreachable_statuses")
    @classmethod
    def _statuses(cls, statuses: frozenset[int]) -> frozenset[int]:
        if wrong := sorted(status for status in statuses if not 300 <= status <= 599):
            raise ValueError(f"{wrong[0]} is no status of a failure; name statuses from 300 to 599")
        return statuses
