"""Owns how many connections there may be, what one may send, and for how long it may be silent."""

import asyncio
from http import HTTPStatus
from typing import cast

from aiohttp import web

from adapters.control.answers import HEADERS
from adapters.control.faults import refused

CONNECTIONS_MAX = 256
SILENT_S = 20.0
"""From a connection's start, or its last answer, until the next request's headers are complete."""
BODY_LEFT_S = 2.0
"""For the rest of a body that nobody reads, before the connection is closed."""
LINE_BYTES_MAX = 8190
"""For the request line and for each header."""
HEADERS_MAX = 64

_FULL = (
    b"HTTP/1.1 503 Service Unavailable\r\nServer: poller\r\nContent-Type: application/json\r\n"
    b"Retry-After: 5\r\nConnection: close\r\nContent-Length: 66\r\n\r\n"
    b'{"error":"service_unavailable","message":"too many connections"}\r\n'
)


class Connection(web.RequestHandler):
    """One connection whose broken requests are refused in JSON, and without a line in the log for each."""

    __slots__ = ()

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = HTTPStatus.INTERNAL_SERVER_ERROR,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """The answer to a request that could not be read, or whose handler raised; closes the connection."""
        if status >= HTTPStatus.INTERNAL_SERVER_ERROR:
            super().handle_error(request, status, exc, message)
        response = refused(request.path, status)
        response.headers.update(HEADERS)
        response.force_close()
        return response


class Full(asyncio.Protocol):
    """The answer to a connection that is one too many."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Says so and closes; on the loop's next turn, as uvloop starts to read when this returns."""
        asyncio.get_running_loop().call_soon(_refuse, transport)


def _refuse(transport: asyncio.BaseTransport) -> None:
    stream = cast("asyncio.Transport", transport)  # uvloop's transports do not derive from asyncio's
    stream.write(_FULL)
    stream.close()


class Gate:
    """Makes the protocol of each new connection."""

    def __init__(self, server: web.Server, *, connections_max: int = CONNECTIONS_MAX) -> None:
        self._server = server
        self._connections_max = connections_max

    def __call__(self) -> asyncio.Protocol:
        if len(self._server.connections) >= self._connections_max:
            return Full()
        return Connection(
            self._server,
            loop=asyncio.get_running_loop(),
            keepalive_timeout=SILENT_S,
            lingering_time=BODY_LEFT_S,
            max_line_size=LINE_BYTES_MAX,
            max_field_size=LINE_BYTES_MAX,
            max_headers=HEADERS_MAX,
            auto_decompress=False,
            access_log=None,  # type: ignore[arg-type]  # None is how the library spells no access log
        )
