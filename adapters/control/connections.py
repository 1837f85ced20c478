"""Owns the connections: what one may send, for how long it may be silent, and how it is told that there is too much."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from http import HTTPStatus
from typing import Any, cast

from aiohttp import web
from aiohttp.typedefs import Middleware

from adapters.control.aws_errors import refused
from adapters.control.pressure import Crowd, Guest, LoopShares, Reason, host_of
from adapters.control.responses import HEADERS, Handler

READING = frozenset({"GET", "HEAD"})
SILENT_S = 20.0
"""From a connection's start, or its last answer, until the next request's headers are complete."""
BODY_LEFT_S = 2.0
"""For the rest of a body that nobody reads, before the connection is closed."""
LINE_BYTES_MAX = 8190
"""For the request line and for each header."""
HEADERS_MAX = 64

AHEAD_MAX = 4
"""Requests that a client may send before it has the answer to the first; beyond that nothing more is read."""
RETRY_AFTER_S = 1
FULL_RETRY_AFTER_S = 5


class Connection(web.RequestHandler):
    """One connection whose broken requests are refused in JSON, and without a line in the log for each.

    Nor is there a line for a client that goes away before it has its answer.
    """

    __slots__ = ("_crowd", "_wire", "guest")

    def __init__(self, server: web.Server, crowd: Crowd, **options: Any) -> None:
        super().__init__(server, **options)
        # The library has a limit, but not as an option.
        self._max_msg_queue_size, self._msg_queue_resume_size = AHEAD_MAX, AHEAD_MAX // 2
        self._crowd = crowd
        self.guest: Guest | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Stays, or says why not and goes; on the loop's next turn, as uvloop starts to read when this returns."""
        self._wire = cast("asyncio.Transport", transport)  # uvloop's transports do not derive from asyncio's
        guest = Guest(host_of(transport.get_extra_info("peername")), self._end)
        if self._crowd.enter(guest):
            self.guest = guest
            super().connection_made(transport)
        else:
            asyncio.get_running_loop().call_soon(_turn_away, self._wire)

    def data_received(self, data: bytes) -> None:
        """Takes what was sent, if the connection may stay."""
        if self.guest is not None:
            super().data_received(data)

    def connection_lost(self, exc: BaseException | None) -> None:
        """Makes room."""
        if self.guest is not None:
            self._crowd.leave(self.guest)
            super().connection_lost(exc)

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = HTTPStatus.INTERNAL_SERVER_ERROR,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """The answer to a request that could not be read, or whose handler raised; closes the connection."""
        if status >= HTTPStatus.INTERNAL_SERVER_ERROR and not self._client_is_gone(exc):
            super().handle_error(request, status, exc, message)
        response = refused(request.path, status)
        response.headers.update(HEADERS)
        response.force_close()
        return response

    def _end(self) -> None:
        """Closes at once: a client that reads nothing would keep a connection that is closed in good order."""
        self.force_close()
        self._wire.abort()

    def _client_is_gone(self, exc: BaseException | None) -> bool:
        """Whether a request failed since nobody waits for its answer any more, which is the client's own business."""
        lost = self.transport is None or self.transport.is_closing()
        return lost and isinstance(exc, ConnectionError)


def _turn_away(transport: asyncio.Transport) -> None:
    transport.write(_FULL)
    transport.close()


def _full() -> bytes:
    body = b'{"error":"service_unavailable","message":"too many connections; close some, or try again later"}\r\n'
    head = (
        "HTTP/1.1 503 Service Unavailable\r\nServer: poller\r\nContent-Type: application/json\r\n"
        f"Retry-After: {FULL_RETRY_AFTER_S}\r\nConnection: close\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


_FULL = _full()


class Gate:
    """Makes the protocol of each new connection."""

    def __init__(self, server: web.Server, crowd: Crowd) -> None:
        self._server = server
        self._crowd = crowd

    def __call__(self) -> asyncio.Protocol:
        return Connection(
            self._server,
            self._crowd,
            loop=asyncio.get_running_loop(),
            keepalive_timeout=SILENT_S,
            lingering_time=BODY_LEFT_S,
            max_line_size=LINE_BYTES_MAX,
            max_field_size=LINE_BYTES_MAX,
            max_headers=HEADERS_MAX,
            auto_decompress=False,
            access_log=None,
        )


def _guest(request: web.BaseRequest) -> Guest:
    connection = request.protocol
    assert isinstance(connection, Connection)
    assert connection.guest is not None, "a connection that may not stay reads nothing"
    return connection.guest


def counted(crowd: Crowd) -> Middleware:
    """Tells `crowd` which connections are at work."""

    @web.middleware
    async def count(request: web.Request, handler: Handler) -> web.StreamResponse:
        guest = _guest(request)
        crowd.work(guest)
        try:
            return await handler(request)
        finally:
            crowd.rest(guest)

    return count


def measured(crowd: Crowd) -> Callable[[web.Request, web.StreamResponse], Awaitable[None]]:
    """Tells `crowd` how large an answer is, before it is sent."""

    async def measure(request: web.Request, response: web.StreamResponse) -> None:
        crowd.send(_guest(request), response.content_length or 0)

    return measure


def admitted(crowd: Crowd) -> Middleware:
    """Refuses what is too much, and lets the loop come round before each of the others."""
    shares = LoopShares()

    @web.middleware
    async def admit(request: web.Request, handler: Handler) -> web.StreamResponse:
        reason = crowd.ask(_guest(request), request.path)
        if reason is not None:
            return _refusal(request.path, reason)
        share = shares.of(request.path)
        await share.turn()
        began = time.perf_counter()
        response = await handler(request)
        if request.method in READING:
            # What changes something waits for the store; reading does not wait.
            share.used(time.perf_counter() - began)
        return response

    return admit


def _refusal(path: str, reason: Reason) -> web.Response:
    full = reason is Reason.CONNECTIONS
    response = refused(path, HTTPStatus.SERVICE_UNAVAILABLE if full else HTTPStatus.TOO_MANY_REQUESTS)
    response.headers["Retry-After"] = str(FULL_RETRY_AFTER_S if full else RETRY_AFTER_S)
    response.force_close()
    return response
