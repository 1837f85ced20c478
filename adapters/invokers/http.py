"""Owns the `http` invoker: a function behind a URL, a Lambda runtime interface emulator or any other server.

What an answer means is a table (`outcome_of`). Redirects are not followed: a POST that is repeated elsewhere may run
twice. A connection that breaks after the request was sent is Unreachable too: the function may have run, and calling it
again is what at-least-once delivery asks for, without using up one of its retries.
"""

import asyncio
import re
import ssl
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from enum import StrEnum
from http import HTTPStatus
from types import SimpleNamespace
from typing import Annotated, Any
from urllib.parse import urlsplit

import aiohttp
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, SecretStr, field_validator

from adapters.invokers.answers import ANSWER_BYTES_MAX, error_document, failed, retry_after_s, too_large
from adapters.probing import connected, untried
from poller.errors import InvalidConfiguration
from poller.findings import Finding
from poller.invocations import Invocation, Outcome, Succeeded, Throttled, TimedOut, Unreachable
from poller.plugins import Environment, Plugin
from poller.records import Epoch

CONNECTIONS_MAX = 1000
"""Open at once for all functions of a daemon; a call that finds none free waits within its own time limit."""
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
"""What a user may not set: it would be sent twice."""

_EMULATOR_TIMED_OUT = re.compile(rb"Task timed out after (\d{1,6}\.\d{2}) seconds\s*")
_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")


class Style(StrEnum):
    """Whose answers they are: a Lambda runtime's, where a body can say that the function failed, or anybody's."""

    RUNTIME_INTERFACE = "runtime-interface"
    PLAIN = "plain"


def _usable_url(value: str) -> str:
    parts = urlsplit(value)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        shown = value.rpartition("@")[2]
        raise ValueError(f"{shown!r} is not a URL; write http://host:port/path or https://…")
    if parts.username is not None or parts.password is not None:
        raise ValueError("a URL must not hold a user or password; put them into headers: {Authorization: …}")
    if parts.port == 0:
        raise ValueError("port 0 is nobody's; name the port that the server listens on")
    return value


class HttpSettings(BaseModel):
    """Settings of one function behind a URL."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    function: str
    url: Annotated[str, AfterValidator(_usable_url)]
    headers: dict[str, SecretStr] = Field(default_factory=dict, max_length=HEADERS_MAX)
    """Added to every request; values never appear in logs or errors."""
    style: Style = Style.RUNTIME_INTERFACE
    connect_timeout_s: float = Field(default=CONNECT_TIMEOUT_S, gt=0, le=60)
    answer_bytes_max: int = Field(default=ANSWER_BYTES_MAX, ge=1, le=ANSWER_BYTES_LIMIT)
    throttled_statuses: frozenset[int] = frozenset({429})
    unreachable_statuses: frozenset[int] = frozenset({502, 503, 504})
    ca_file: str | None = None
    """PEM file with the authorities to trust instead of the system's."""
    verify_tls: bool = True

    @field_validator("headers")
    @classmethod
    def _writable_headers(cls, headers: dict[str, SecretStr]) -> dict[str, SecretStr]:
        for name, value in headers.items():
            text = value.get_secret_value()
            if name.lower() in OWN_HEADERS:
                raise ValueError(f"{name!r} is the invoker's own; remove it")
            if not _TOKEN.fullmatch(name):
                raise ValueError(f"{name!r} is no header name; use letters, digits and dashes")
            if not text.isascii() or not text.isprintable():
                raise ValueError(
                    f"the value of {name!r} has line breaks or characters outside ASCII; remove them"
                )
        return headers

    @field_validator("throttled_statuses", "unreachable_statuses")
    @classmethod
    def _statuses(cls, statuses: frozenset[int]) -> frozenset[int]:
        if wrong := sorted(status for status in statuses if not 300 <= status <= 599):
            raise ValueError(f"{wrong[0]} is no status of a failure; name statuses from 300 to 599")
        return statuses


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back, read to its end; `body` is None when it was larger than allowed."""

    status: int
    headers: Mapping[str, str]
    body: bytes | None


def outcome_of(answer: Answer, settings: HttpSettings, now: Epoch) -> Outcome:
    """What an answer means.

    429: throttled. 502, 503, 504: unreachable. 2xx with `x-amz-function-error`, or with an error document as body
    (style runtime-interface): function error. Other 2xx: success. Everything else: function error.

    Of a runtime interface emulator two more things are known: it answers 502 with an error document when the
    function's process died, which is the function's failure, and 200 with a fixed line of text when it timed out.
    """
    if answer.status in settings.throttled_statuses:
        return Throttled(_status(answer.status), retry_after_s(answer.headers.get("Retry-After"), now))
    document = (
        error_document(answer.body) if answer.body and settings.style is Style.RUNTIME_INTERFACE else None
    )
    died = answer.status == HTTPStatus.BAD_GATEWAY and document is not None
    if answer.status in settings.unreachable_statuses and not died:
        return Unreachable(_status(answer.status), retry_after_s(answer.headers.get("Retry-After"), now))
    if answer.body is None:
        return too_large(settings.answer_bytes_max)
    if 200 <= answer.status <= 299 and "x-amz-function-error" not in answer.headers and document is None:
        return _success(answer.body, settings)
    return _failure(answer, document)


def _success(body: bytes, settings: HttpSettings) -> Outcome:
    emulator = settings.style is Style.RUNTIME_INTERFACE
    if emulator and (timed_out := _EMULATOR_TIMED_OUT.fullmatch(body)):
        return TimedOut(float(timed_out[1]))
    return Succeeded(body)


def _failure(answer: Answer, document: tuple[str, str] | None) -> Outcome:
    flagged = answer.headers.get("x-amz-function-error")
    named = document or error_document(answer.body or b"")
    if named is not None:
        return failed(*named)
    if flagged is not None:
        return failed(flagged, "the function failed and did not say how")
    return failed(f"Http.{answer.status}", _status(answer.status))


def _status(status: int) -> str:
    phrase = HTTPStatus(status).phrase if status in HTTPStatus else "unknown status"
    return f"the function's URL answered {status} {phrase}"


class HttpInvoker:
    """POSTs events to one URL."""

    def __init__(
        self,
        settings: HttpSettings,
        session: aiohttp.ClientSession,
        *,
        tls: ssl.SSLContext | bool,
        env: Environment,
    ) -> None:
        self._settings = settings
        self._session = session
        self._tls = tls
        self._env = env
        self._timeout = aiohttp.ClientTimeout(total=None, sock_connect=settings.connect_timeout_s)
        self._fixed = {name: value.get_secret_value() for name, value in settings.headers.items()}

    async def invoke(self, invocation: Invocation) -> Outcome:
        """Posts the event and waits for the answer, `invocation.timeout_s` at most."""
        sent = SimpleNamespace(request=False)
        limit = asyncio.timeout(invocation.timeout_s)
        try:
            async with limit:
                answer = await self._post(invocation, sent)
        except TimeoutError:
            if limit.expired() and sent.request:
                return TimedOut(invocation.timeout_s)
            return Unreachable("no connection to the function's URL in time")
        except (aiohttp.ClientError, OSError) as error:
            when = "after the request was sent" if sent.request else "before the request was sent"
            return Unreachable(f"the connection to the function's URL failed {when} ({type(error).__name__})")
        return outcome_of(answer, self._settings, self._env.clock.now())

    async def probe(self) -> Sequence[Finding]:
        """Whether somebody takes connections there; posts nothing."""
        return [await connected(self._settings.url), *untried(("POST",), "the function would run")]

    async def _post(self, invocation: Invocation, sent: SimpleNamespace) -> Answer:
        async with self._session.post(
            self._settings.url,
            data=invocation.payload,
            headers=self._headers(invocation),
            timeout=self._timeout,
            allow_redirects=False,
            ssl=self._tls,
            trace_request_ctx=sent,
        ) as response:
            return Answer(response.status, response.headers, await self._body(response))

    async def _body(self, response: aiohttp.ClientResponse) -> bytes | None:
        length = response.content_length
        if length is not None and length <= self._settings.answer_bytes_max and not _packed(response):
            return await response.read()
        body = bytearray()
        async for chunk in response.content.iter_any():
            body += chunk
            if len(body) > self._settings.answer_bytes_max:
                response.close()
                return None
        return bytes(body)

    def _headers(self, invocation: Invocation) -> dict[str, str]:
        deadline = self._env.clock.now() + invocation.timeout_s
        return {
            "Accept-Encoding": "identity",
            **self._fixed,
            "Content-Type": "application/json",
            "x-amzn-requestid": invocation.request_id,
            "x-amz-invoked-function-arn": invocation.function_arn,
            "x-amz-deadline-ms": str(int(deadline * 1000)),
        }


def _packed(response: aiohttp.ClientResponse) -> bool:
    """Whether the body is longer than it was on the wire, although nobody asked for that."""
    return response.headers.get("Content-Encoding", "identity") != "identity"


async def _mark_sent(_session: aiohttp.ClientSession, context: SimpleNamespace, _params: Any) -> None:
    context.trace_request_ctx.request = True


@asynccontextmanager
async def _session() -> AsyncIterator[aiohttp.ClientSession]:
    trace = aiohttp.TraceConfig()
    trace.on_request_headers_sent.append(_mark_sent)
    async with aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=CONNECTIONS_MAX),
        cookie_jar=aiohttp.DummyCookieJar(),
        headers={"User-Agent": "poller"},
        trace_configs=[trace],
    ) as session:
        yield session


def _tls(settings: HttpSettings) -> ssl.SSLContext | bool:
    if not settings.verify_tls:
        return False
    if settings.ca_file is None:
        return True
    try:
        return ssl.create_default_context(cafile=settings.ca_file)
    except OSError as error:
        place = f"functions.{settings.function}.ca_file"
        remedy = "name a readable PEM file of certificates"
        raise InvalidConfiguration(
            [f"{place}: {settings.ca_file!r}: {type(error).__name__}; {remedy}"]
        ) from error


@asynccontextmanager
async def open_http(settings: HttpSettings, env: Environment) -> AsyncIterator[HttpInvoker]:
    """Yields the invoker; raises InvalidConfiguration when the certificates cannot be read. Connects with the first call."""
    tls = _tls(settings)
    session = await env.shared.get("invokers.http", _session)
    yield HttpInvoker(settings, session, tls=tls, env=env)


plugin = Plugin("http", HttpSettings, open_http)
