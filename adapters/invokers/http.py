"""Owns the `http` invoker: a function behind a URL, a Lambda runtime interface emulator or any other server.

What an answer means is a table (`outcome_of`). Redirects are not followed: a POST that is repeated elsewhere may run
twice.

A connection that ends after the request was sent, without an answer, is the function's failure: as far as anybody can
know, this event killed the server. If it used up no retry, one such record would hold up its queue for ever. But
a server may also close a connection that was kept open just before the next request comes, and has then seen nothing of it. So when a kept
connection ends without a byte, the request is sent once more on a new one, and whatever happens there counts. The function may run
twice then, which at-least-once delivery allows. For a while after that, calls use new connections only: a
server that dies and is started again between two tries would otherwise look like that each time.
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

from adapters.aws.permission_checks import connected, untried
from adapters.bounded_answers import bounded
from adapters.invokers.http_failures import excerpt, place_of, unanswered, unreached
from adapters.invokers.outcomes import ANSWER_BYTES_MAX, error_document, failed, retry_after_s, too_large
from poller.config_errors.error_messages import FieldError, refused
from poller.domain.errors import InvalidConfiguration
from poller.domain.findings import Finding
from poller.domain.invocations import (
    FunctionError,
    Invocation,
    Outcome,
    Succeeded,
    Throttled,
    TimedOut,
    Unreachable,
)
from poller.domain.records import Epoch, Monotonic
from poller.domain.untrusted import numbers
from poller.plugins import Environment, Plugin

CONNECTIONS_MAX = 1000
"""Open at once for all functions of a daemon; a call that finds none free waits within its own time limit."""
CONNECT_TIMEOUT_S = 5.0
KEPT_S = 4.0
"""How long a connection is kept that nobody uses: less than the five seconds after which many servers close theirs."""
FRESH_S = 300.0
"""How long calls use new connections after a kept one was closed without an answer."""
NO_ANSWER = "Http.NoAnswer"
"""The error's type where a connection ended without a whole answer."""
ANSWER_BYTES_LIMIT = 64 * 1024 * 1024
HEADERS_MAX = 50
TIMED_OUT_S_MAX = 10.0**6
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
    try:
        parts = urlsplit(value)
        port = parts.port
    except ValueError as error:
        raise ValueError(f"is not a URL ({error}); write http://host:port/path or https://…") from None
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError("is not a URL; write http://host:port/path or https://…")
    if parts.username is not None or parts.password is not None:
        raise ValueError("a URL must not hold a user or password; put them into headers")
    if port == 0:
        raise ValueError("port 0 is nobody's; name the port that the server listens on")
    return value


class OnNoAnswer(StrEnum):
    """What it means that a connection ended after the request was sent and before the answer was complete."""

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
    """Added to every request; values never appear in logs or errors."""
    style: Style = Style.RUNTIME_INTERFACE
    connect_timeout_s: float = Field(default=CONNECT_TIMEOUT_S, gt=0, le=60)
    answer_bytes_max: int = Field(default=ANSWER_BYTES_MAX, ge=1, le=ANSWER_BYTES_LIMIT)
    throttled_statuses: frozenset[int] = frozenset({429})
    unreachable_statuses: frozenset[int] = frozenset({502, 503, 504})
    on_no_answer: OnNoAnswer = OnNoAnswer.FUNCTION_ERROR
    """`unreachable`: the call is repeated without using up a retry, for as long as it takes."""
    ca_file: str | None = None
    """PEM file with the authorities to trust instead of the system's."""
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
        return Throttled(_status(answer), retry_after_s(answer.headers.get("Retry-After"), now))
    document = (
        error_document(answer.body) if answer.body and settings.style is Style.RUNTIME_INTERFACE else None
    )
    died = answer.status == HTTPStatus.BAD_GATEWAY and document is not None
    if answer.status in settings.unreachable_statuses and not died:
        return Unreachable(_status(answer), retry_after_s(answer.headers.get("Retry-After"), now))
    if answer.body is None:
        return too_large(settings.answer_bytes_max)
    if 200 <= answer.status <= 299 and "x-amz-function-error" not in answer.headers and document is None:
        return _success(answer.body, settings)
    return _failure(answer, document)


def _success(body: bytes, settings: HttpSettings) -> Outcome:
    emulator = settings.style is Style.RUNTIME_INTERFACE
    if emulator and (timed_out := _EMULATOR_TIMED_OUT.fullmatch(body)):
        return TimedOut(numbers.number(timed_out[1], most=TIMED_OUT_S_MAX, default=TIMED_OUT_S_MAX))
    return Succeeded(body)


def _failure(answer: Answer, document: FunctionError | None) -> Outcome:
    flagged = answer.headers.get("x-amz-function-error")
    named = document or error_document(answer.body or b"")
    if named is not None:
        return named
    if flagged is not None:
        said = excerpt(answer.body)
        how = f": {said}" if said else " and did not say how"
        return failed(flagged, f"the function failed{how}")
    return failed(f"Http.{answer.status}", _status(answer))


def _status(answer: Answer) -> str:
    status = answer.status
    phrase = HTTPStatus(status).phrase if status in HTTPStatus else "unknown status"
    said = excerpt(answer.body)
    return f"the function's URL answered {status} {phrase}" + (f": {said}" if said else "")


@dataclass(slots=True)
class Progress:
    """How far one request has come."""

    sent: bool = False
    reused: bool = False
    """Whether its connection had been used before."""
    begun: bool = False
    """Whether there is the head of an answer."""

    def lapsed(self, error: Exception) -> bool:
        """Whether the server may have closed the connection before it saw the request."""
        if not self.reused or self.begun:
            return False
        if isinstance(error, aiohttp.ServerDisconnectedError):
            # Its message is the head of an answer as far as that came.
            return isinstance(error.message, str)
        return isinstance(error, (ConnectionError, aiohttp.ClientOSError))


@dataclass(frozen=True, slots=True)
class Sessions:
    """`kept` keeps connections for further requests, `fresh` makes a new one for each."""

    kept: aiohttp.ClientSession
    fresh: aiohttp.ClientSession


class HttpInvoker:
    """POSTs events to one URL."""

    def __init__(
        self,
        settings: HttpSettings,
        sessions: Sessions,
        *,
        tls: ssl.SSLContext | bool,
        env: Environment,
    ) -> None:
        self._settings = settings
        self._sessions = sessions
        self._tls = tls
        self._env = env
        self._timeout = aiohttp.ClientTimeout(total=None, sock_connect=settings.connect_timeout_s)
        self._fixed = {name: value.get_secret_value() for name, value in settings.headers.items()}
        self._fresh_until = Monotonic(0.0)

    async def invoke(self, invocation: Invocation) -> Outcome:
        """Posts the event and waits for the answer, `invocation.timeout_s` at most."""
        progress = Progress()
        limit = asyncio.timeout(invocation.timeout_s)
        try:
            async with limit:
                answer = await self._posted(invocation, progress)
        except TimeoutError:
            if limit.expired() and progress.sent:
                return TimedOut(invocation.timeout_s)
            return Unreachable(f"no connection to {place_of(self._settings.url)} in time")
        except (aiohttp.ClientError, OSError) as error:
            return self._failed(error, progress)
        return outcome_of(answer, self._settings, self._env.clock.now())

    async def _posted(self, invocation: Invocation, progress: Progress) -> Answer:
        """The answer; asks once more where the server may not have seen the request."""
        wary = self._settings.on_no_answer is OnNoAnswer.FUNCTION_ERROR
        if wary and self._env.clock.monotonic() < self._fresh_until:
            return await self._post(invocation, progress, self._sessions.fresh)
        try:
            return await self._post(invocation, progress, self._sessions.kept)
        except (aiohttp.ClientError, OSError) as error:
            if not wary or not progress.lapsed(error):
                raise
        self._fresh_until = Monotonic(self._env.clock.monotonic() + FRESH_S)
        progress.sent = progress.reused = False
        return await self._post(invocation, progress, self._sessions.fresh)

    def _failed(self, error: Exception, progress: Progress) -> Outcome:
        url = self._settings.url
        if not progress.sent:
            return Unreachable(unreached(error, url))
        reason = unanswered(error, url, begun=progress.begun)
        if self._settings.on_no_answer is OnNoAnswer.UNREACHABLE:
            return Unreachable(reason)
        return failed(NO_ANSWER, reason)

    async def probe(self) -> Sequence[Finding]:
        """Whether somebody takes connections there; posts nothing."""
        return [await connected(self._settings.url), *untried(("POST",), "the function would run")]

    async def _post(
        self, invocation: Invocation, progress: Progress, session: aiohttp.ClientSession
    ) -> Answer:
        async with session.post(
            self._settings.url,
            data=invocation.payload,
            headers=self._headers(invocation),
            timeout=self._timeout,
            allow_redirects=False,
            ssl=self._tls,
            trace_request_ctx=progress,
        ) as response:
            progress.begun = True
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
    context.trace_request_ctx.sent = True


async def _mark_reused(_session: aiohttp.ClientSession, context: SimpleNamespace, _params: Any) -> None:
    context.trace_request_ctx.reused = True


@asynccontextmanager
async def _sessions() -> AsyncIterator[Sessions]:
    kept = bounded(aiohttp.TCPConnector(limit=CONNECTIONS_MAX, keepalive_timeout=KEPT_S))
    fresh = bounded(aiohttp.TCPConnector(limit=CONNECTIONS_MAX, force_close=True))
    async with _session(kept) as one, _session(fresh) as other:
        yield Sessions(one, other)


def _session(connector: aiohttp.TCPConnector) -> aiohttp.ClientSession:
    trace = aiohttp.TraceConfig()
    trace.on_request_headers_sent.append(_mark_sent)
    trace.on_connection_reuseconn.append(_mark_reused)
    return aiohttp.ClientSession(
        connector=connector,
        cookie_jar=aiohttp.DummyCookieJar(),
        headers={"User-Agent": "poller"},
        trace_configs=[trace],
    )


def _tls(settings: HttpSettings) -> ssl.SSLContext | bool:
    if not settings.verify_tls:
        return False
    if settings.ca_file is None:
        return True
    return ssl.create_default_context(cafile=settings.ca_file)


def objections(settings: HttpSettings) -> list[FieldError]:
    """Whether the certificates can be read."""
    try:
        _tls(settings)
    except (OSError, ValueError) as error:
        # A file that is read and holds none is wrong everywhere.
        here = not isinstance(error, ssl.SSLError)
        wrong, remedy = type(error).__name__, "name a readable PEM file of certificates"
        return [FieldError("ca_file", wrong, remedy, here=here)]
    return []


@asynccontextmanager
async def open_http(settings: HttpSettings, env: Environment) -> AsyncIterator[HttpInvoker]:
    """Yields the invoker; raises InvalidConfiguration when the certificates cannot be read. Connects with the first call."""
    found = objections(settings)
    if found:
        place = f"functions.{settings.function}.ca_file: {settings.ca_file!r}"
        raise InvalidConfiguration([f"{place}: {each.wrong}; {each.remedy}" for each in found])
    tls = _tls(settings)
    sessions = await env.shared.get("invokers.http", _sessions)
    yield HttpInvoker(settings, sessions, tls=tls, env=env)


plugin = Plugin("http", HttpSettings, open_http, check=objections)
