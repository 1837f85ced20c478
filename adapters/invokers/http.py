"""Owns the `http` invoker: a function behind a URL or a Unix socket, a Lambda runtime interface emulator or any other server.

`http_answers` says what an answer means. Redirects are not followed: a POST that is sent to another URL may run the function
twice.

A connection that ends without an answer after the request was sent counts as a function error: the event may have crashed the
server. If that used up no retry, one such record would block its queue for ever. But a server may also close an idle
connection just before the next request arrives, and then has not seen the request. So if a reused connection ends without a
byte, the request is sent once more on a new connection, and that outcome counts. The function may then run twice, which
at-least-once delivery allows. After that, calls use only new connections for a while. Otherwise a server that crashes with every
call and is restarted would look like an idle connection that was closed, again and again.
"""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import aiohttp

from adapters.aws.permission_checks import connected, untried
from adapters.bounded_answers import bounded
from adapters.invokers.cloud_events.answers import with_identifiers
from adapters.invokers.cloud_events.requests import Refused
from adapters.invokers.http_answers import Answer, outcome_of, with_result
from adapters.invokers.http_failures import place_of, refused_by_alert, unanswered, unreached
from adapters.invokers.http_requests import Outgoing, outgoing
from adapters.invokers.http_settings import HttpSettings, OnNoAnswer, misfits
from adapters.invokers.http_signature import Signer, secret_errors
from adapters.invokers.http_tls import Tls, server_refused, shaken, tls_errors
from adapters.invokers.http_unix import listening
from adapters.invokers.outcomes import failed, for_caller
from poller.config_errors.error_messages import FieldError
from poller.domain.findings import Finding, Severity
from poller.domain.invocations import (
    Invocation,
    Outcome,
    Succeeded,
    TimedOut,
    Unreachable,
)
from poller.domain.records import Monotonic
from poller.plugins import Environment, Plugin

CONNECTIONS_MAX = 1000
"""Open at once for all functions of a daemon, and for each that has a Unix socket; a call that finds none free waits within its own time limit."""
KEPT_S = 4.0
"""How long an idle connection is kept: less than the five seconds after which many servers close it."""
FRESH_S = 300.0
"""How long calls use only new connections after a reused one was closed without an answer."""
NO_ANSWER = "Http.NoAnswer"
"""The error type if a connection ended without a complete answer."""


@dataclass(slots=True)
class Progress:
    """How far one request has got."""

    sent: bool = False
    reused: bool = False
    """Whether its connection was used before."""
    begun: bool = False
    """Whether the head of an answer has arrived."""

    def closed_idle(self, error: Exception) -> bool:
        """Whether the server may have closed the connection before it saw the request."""
        if not self.reused or self.begun:
            return False
        if isinstance(error, aiohttp.ServerDisconnectedError):
            # If a part of a head has arrived, the message is that part and not a text.
            return isinstance(error.message, str)
        return isinstance(error, (ConnectionError, aiohttp.ClientOSError))


@dataclass(frozen=True, slots=True)
class Sessions:
    """`kept` reuses connections, `fresh` makes a new one for each request."""

    kept: aiohttp.ClientSession
    fresh: aiohttp.ClientSession


class HttpInvoker:
    """POSTs events to one URL, over TCP or a Unix socket."""

    def __init__(
        self,
        settings: HttpSettings,
        sessions: Sessions,
        *,
        tls: Tls,
        signer: Signer | None,
        env: Environment,
    ) -> None:
        self._settings = settings
        self._place = place_of(settings.url, settings.unix_socket)
        self._sessions = sessions
        self._tls = tls
        self._signer = signer
        self._env = env
        self._timeout = aiohttp.ClientTimeout(total=None, sock_connect=settings.connect_timeout_s)
        self._fresh_until = Monotonic(0.0)

    async def invoke(self, invocation: Invocation) -> Outcome:
        """Posts the event and waits for the answer, for `invocation.timeout_s` at most."""
        request = outgoing(invocation, self._settings, signer=self._signer, now=self._env.clock.now())
        if isinstance(request, Refused):
            return Unreachable(request.reason)
        progress = Progress()
        limit = asyncio.timeout(invocation.timeout_s)
        try:
            async with limit:
                answer = await self._posted(request, progress)
        except TimeoutError:
            if limit.expired() and progress.sent:
                return TimedOut(invocation.timeout_s)
            return Unreachable(f"no connection to {self._place} in time")
        except (aiohttp.ClientError, OSError, UnicodeError) as error:
            # The resolver raises UnicodeError for what can be no name of a host.
            return self._failed(error, progress)
        return for_caller(self._outcome(answer, request), invocation)

    def _outcome(self, answer: Answer, request: Outgoing) -> Outcome:
        now = self._env.clock.now()
        if self._settings.cloud_events is None:
            return outcome_of(answer, self._settings, now)
        outcome = outcome_of(with_result(answer), self._settings, now)
        if isinstance(outcome, Succeeded):
            return Succeeded(with_identifiers(outcome.payload, request.identifiers))
        return outcome

    async def _posted(self, request: Outgoing, progress: Progress) -> Answer:
        """Returns the answer. Sends the request once more if the server may not have seen it."""
        detects_idle_close = self._settings.on_no_answer is OnNoAnswer.FUNCTION_ERROR
        if detects_idle_close and self._env.clock.monotonic() < self._fresh_until:
            return await self._post(request, progress, self._sessions.fresh)
        try:
            return await self._post(request, progress, self._sessions.kept)
        except (aiohttp.ClientError, OSError) as error:
            if not detects_idle_close or not progress.closed_idle(error):
                raise
        self._fresh_until = Monotonic(self._env.clock.monotonic() + FRESH_S)
        progress.sent = progress.reused = False
        return await self._post(request, progress, self._sessions.fresh)

    def _failed(self, error: Exception, progress: Progress) -> Outcome:
        if not progress.sent:
            return Unreachable(unreached(error, self._settings.url, place=self._place))
        if not progress.begun and (alert := server_refused(error)):
            return Unreachable(refused_by_alert(alert, self._place))
        reason = unanswered(error, self._place, begun=progress.begun)
        if self._settings.on_no_answer is OnNoAnswer.UNREACHABLE:
            return Unreachable(reason)
        return failed(NO_ANSWER, reason)

    async def probe(self) -> Sequence[Finding]:
        """Checks whether the server accepts connections, with TLS for https; posts nothing."""
        socket = self._settings.unix_socket
        found = [await listening(socket) if socket else await connected(self._settings.url)]
        if found[0].grade is Severity.OK and self._settings.url.startswith("https:"):
            found.append(await shaken(self._settings.url, self._tls.context()))
        return [*found, *untried(("POST",), "the function would run")]

    async def _post(self, request: Outgoing, progress: Progress, session: aiohttp.ClientSession) -> Answer:
        async with session.post(
            self._settings.url,
            data=request.body,
            headers=request.headers,
            timeout=self._timeout,
            allow_redirects=False,
            ssl=self._tls.context(),
            trace_request_ctx=progress,
        ) as response:
            progress.begun = True
            return Answer(response.status, response.headers, await self._body(response))

    async def _body(self, response: aiohttp.ClientResponse) -> bytes | None:
        length = response.content_length
        if length is not None and length <= self._settings.answer_bytes_max and not _compressed(response):
            return await response.read()
        body = bytearray()
        async for chunk in response.content.iter_any():
            body += chunk
            if len(body) > self._settings.answer_bytes_max:
                response.close()
                return None
        return bytes(body)


def _compressed(response: aiohttp.ClientResponse) -> bool:
    """Whether the body is compressed, although the request did not allow that."""
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


@asynccontextmanager
async def _socket_sessions(path: str) -> AsyncIterator[Sessions]:
    """Sessions of one Unix socket, since a connector has one path."""
    kept = bounded(aiohttp.UnixConnector(path, limit=CONNECTIONS_MAX, keepalive_timeout=KEPT_S))
    fresh = bounded(aiohttp.UnixConnector(path, limit=CONNECTIONS_MAX, force_close=True))
    async with _session(kept) as one, _session(fresh) as other:
        yield Sessions(one, other)


def _session(connector: aiohttp.BaseConnector) -> aiohttp.ClientSession:
    trace = aiohttp.TraceConfig()
    trace.on_request_headers_sent.append(_mark_sent)
    trace.on_connection_reuseconn.append(_mark_reused)
    return aiohttp.ClientSession(
        connector=connector,
        cookie_jar=aiohttp.DummyCookieJar(),
        headers={"User-Agent": "poller"},
        trace_configs=[trace],
    )


def setting_errors(settings: HttpSettings) -> list[FieldError]:
    """Returns what is wrong with the files that the settings name."""
    signature = settings.signature
    return [*tls_errors(settings), *(secret_errors(signature.secret_file) if signature else ())]


@asynccontextmanager
async def open_http(settings: HttpSettings, env: Environment) -> AsyncIterator[HttpInvoker]:
    """Yields the invoker; raises InvalidConfiguration if a file cannot be used. Connects with the first call."""
    tls = Tls(settings)
    signer = Signer(settings.function, settings.signature.secret_file) if settings.signature else None
    if settings.unix_socket:
        async with _socket_sessions(settings.unix_socket) as own:
            yield HttpInvoker(settings, own, tls=tls, signer=signer, env=env)
        return
    sessions = await env.shared.get("invokers.http", _sessions)
    yield HttpInvoker(settings, sessions, tls=tls, signer=signer, env=env)


plugin = Plugin("http", HttpSettings, open_http, check=setting_errors, misfits=misfits)
