"""Owns the connections of clients: what one may send, how long it may be silent, and how requests beyond a limit are refused."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from http import HTTPStatus
from typing import Any, Final, cast

from aiohttp import ClientConnectionResetError, HttpVersion10, HttpVersion11, web
from aiohttp.http import RawRequestMessage
from aiohttp.typedefs import Middleware
from multidict import CIMultiDict, CIMultiDictProxy

from adapters.control.aws_errors import refused
from adapters.control.entrance import FULL_RETRY_AFTER_S
from adapters.control.pressure import ClientConnection, ClientConnections, LoopShares, Reason
from adapters.control.responses import HEADERS, Handler

READING = frozenset({"GET", "HEAD"})
SILENT_S = 20.0
"""The time from a connection's start, or from its last answer, until the headers of its next request must be complete."""
BODY_LEFT_S = 2.0
"""How long the rest of an unread body may take to arrive before the connection is closed."""
LINE_BYTES_MAX = 8190
"""The limit of the request line and of each header."""
HEADERS_MAX = 64

AHEAD_MAX = 4
"""Requests that a client may send before it has the answer to the first. No more are read until then."""
RETRY_AFTER_S = 1
VERSIONS = frozenset({HttpVersion10, HttpVersion11})
ODD: Final = web.RequestKey("odd", HTTPStatus)
"""Why a request is refused that the library would answer in a form that is not ours."""


class Connection(web.RequestHandler):
    """One connection. Malformed requests are answered in JSON, and are not logged.

    A client that disconnects before it has its answer is not logged either. One that only ends its own side gets its answers.
    """

    __slots__ = ("_all_asked", "_clients", "_make_request", "_wire", "client")

    def __init__(
        self, server: web.Server, clients: ClientConnections, client: ClientConnection, **options: Any
    ) -> None:
        super().__init__(server, **options)
        # The library has these limits, but no options for them.
        self._max_msg_queue_size, self._msg_queue_resume_size = AHEAD_MAX, AHEAD_MAX // 2
        self._clients = clients
        self.client = client
        self._wire: asyncio.Transport | None = None
        self._all_asked = False
        self._make_request = self._request_factory
        self._request_factory = self._read

    def _read(self, message: RawRequestMessage, *rest: Any) -> web.BaseRequest:
        """Makes the request of a message. What is odd about it is left for the middleware `refuse_odd`."""
        assert self._make_request is not None
        odd = _odd(message)
        if odd is None:
            return self._make_request(message, *rest)
        # The library would answer with the version that it was sent, and what is expected in plain text.
        headers = CIMultiDict(message.headers)
        headers.popall("Expect", None)
        plain = message._replace(version=HttpVersion11, headers=CIMultiDictProxy(headers), should_close=True)
        request = self._make_request(plain, *rest)
        request[ODD] = odd
        return request

    def eof_received(self) -> bool:  # type: ignore[override]  # asyncio lets it return whether the connection stays
        """Keeps the connection for answers to complete requests that a client has sent before it ended its side."""
        current = self._current_request
        asked = self._messages[-1][1] if self._messages else current.content if current is not None else None
        if asked is None or not asked.is_eof():
            # There is nothing to answer, or the body broke off.
            return False
        self._all_asked = True
        self.answering()
        return True

    def answering(self) -> None:
        """Ends the connection after the present answer, if its client has sent all its requests and this is the last one."""
        if self._all_asked and not self._messages:
            self.close()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Serves the connection, unless it was ended for another one meanwhile."""
        self._wire = cast("asyncio.Transport", transport)  # uvloop's transports do not derive from asyncio's
        super().connection_made(transport)
        if self._clients.has(self.client):
            self.client.end = self._end
        else:
            # uvloop starts to read when this returns.
            asyncio.get_running_loop().call_soon(self._end)

    def connection_lost(self, exc: BaseException | None) -> None:
        """Makes room, and removes references back to the connection.

        Reference cycles of thousands of closed connections would otherwise block the loop for some hundred milliseconds when
        Python's garbage collector finds them.
        """
        self._clients.leave(self.client)
        super().connection_lost(exc)
        self._messages.clear()
        self._make_request = None
        self._keepalive_handle = None
        self.client.end = _nothing
        self._wire = None

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = HTTPStatus.INTERNAL_SERVER_ERROR,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """Answers a request that could not be read or whose handler raised; closes the connection."""
        if status >= HTTPStatus.INTERNAL_SERVER_ERROR and not self._client_is_gone(exc):
            super().handle_error(request, status, exc, message)
        response = refused(request.path, status)
        response.headers.update(HEADERS)
        response.force_close()
        return response

    def _end(self) -> None:
        """Closes the connection at once. A regular close would wait for a client that reads nothing."""
        self.force_close()
        if self._wire is not None:
            self._wire.abort()

    def _client_is_gone(self, exc: BaseException | None) -> bool:
        """Whether a request failed only because its client has disconnected, which is no error of the server."""
        # The transport may not know yet that its connection is closed; no handler raises this error.
        if isinstance(exc, ClientConnectionResetError):
            return True
        lost = self.transport is None or self.transport.is_closing()
        return lost and isinstance(exc, ConnectionError)


def _nothing() -> None:
    return


class Gate:
    """Makes the protocol of each new connection."""

    def __init__(self, server: web.Server, clients: ClientConnections) -> None:
        self._server = server
        self._clients = clients

    def __call__(self, client: ClientConnection) -> asyncio.Protocol:
        return Connection(
            self._server,
            self._clients,
            client,
            loop=asyncio.get_running_loop(),
            keepalive_timeout=SILENT_S,
            lingering_time=BODY_LEFT_S,
            max_line_size=LINE_BYTES_MAX,
            max_field_size=LINE_BYTES_MAX,
            max_headers=HEADERS_MAX,
            auto_decompress=False,
            access_log=None,
        )


def _odd(message: RawRequestMessage) -> HTTPStatus | None:
    """Returns the status with which a message is refused; None if it is HTTP/1 and expects what can be met."""
    if message.version not in VERSIONS:
        return HTTPStatus.HTTP_VERSION_NOT_SUPPORTED
    if "Expect" not in message.headers:
        return None
    met = all(each.lower() in {"", "100-continue"} for each in message.headers.getall("Expect"))
    return None if met else HTTPStatus.EXPECTATION_FAILED


def _connection(request: web.BaseRequest) -> Connection:
    connection = request.protocol
    assert isinstance(connection, Connection)
    return connection


def _client(request: web.BaseRequest) -> ClientConnection:
    return _connection(request).client


def count_requests(clients: ClientConnections) -> Middleware:
    """Makes a middleware that marks connections as busy and as idle."""

    @web.middleware
    async def count(request: web.Request, handler: Handler) -> web.StreamResponse:
        connection = _connection(request)
        client = connection.client
        clients.work(client)
        connection.answering()
        try:
            return await handler(request)
        finally:
            clients.rest(client)

    return count


def measure_answers(
    clients: ClientConnections,
) -> Callable[[web.Request, web.StreamResponse], Awaitable[None]]:
    """Makes a hook that counts the bytes of an answer before it is sent."""

    async def measure(request: web.Request, response: web.StreamResponse) -> None:
        clients.send(_client(request), response.content_length or 0)

    return measure


def admit_requests(clients: ClientConnections) -> Middleware:
    """Makes a middleware that refuses requests beyond a limit, and lets the loop do other work before each other one."""
    shares = LoopShares()

    @web.middleware
    async def admit(request: web.Request, handler: Handler) -> web.StreamResponse:
        client = _client(request)
        reason = clients.ask(client, request.path)
        if reason is not None:
            return _refusal(request.path, reason)
        share = shares.of(request.path)
        await share.turn(client.host)
        began = time.perf_counter()
        response = await handler(request)
        if request.method in READING:
            # A change mostly waits for the store, so its duration is not time of the loop.
            share.used(time.perf_counter() - began)
        return response

    return admit


@web.middleware
async def refuse_odd(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Refuses requests of other versions of HTTP, and those that expect what cannot be met."""
    odd = request.get(ODD)
    if odd is None:
        return await handler(request)
    response = refused(request.path, odd)
    response.force_close()
    return response


def _refusal(path: str, reason: Reason) -> web.Response:
    full = reason is Reason.CONNECTIONS
    response = refused(path, HTTPStatus.SERVICE_UNAVAILABLE if full else HTTPStatus.TOO_MANY_REQUESTS)
    response.headers["Retry-After"] = str(FULL_RETRY_AFTER_S if full else RETRY_AFTER_S)
    response.force_close()
    return response
