"""Owns requests that are written out already, sent over the AWS library's own connections.

The library builds a request anew on each call, which costs more than all else about it. Here it is built once for an
address; each call writes bytes to a connection of the library's pool and reads the answer with its parser. The
pool with its limits, the TLS contexts and authorities, and all time limits are the library's, and what fails
raises what the library raises. Whatever is out of the ordinary (a proxy, cookies, a redirection, another release of
aiohttp) is left to the library: `RawEndpoint.to` or `RawEndpoint.post` returns None.
"""

import asyncio
from collections import deque
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any, NamedTuple, Self

import aiohttp
from aiobotocore.httpsession import AIOHTTPSession
from aiohttp.client_proto import ResponseHandler
from aiohttp.client_reqrep import ClientRequest, ConnectionKey
from aiohttp.http_exceptions import HttpProcessingError
from botocore import exceptions as boto
from yarl import URL

from poller.domain.untrusted import numbers
from poller.memory.answers import make_room

AIOHTTP = "3.14."
"""The release whose connections are known here; with any other one the library sends."""
LENGTH_MAX = 64 * 1024 * 1024
"""An answer that says it is longer is taken for one of this length. AWS's have ten megabytes of records at most."""
FAILURE = 300
"""From this status on the library takes an answer for an error."""
TAKEN_AT_ONCE_BYTES = 16 * 1024
"""What the kernel takes of an idle connection's message whatever its peer does: the smallest usual send buffer."""
SPARE_S = 1.0
"""How long a connection is kept for the next call before the pool gets it back. That saves the pool's work for most calls."""
SPARE_MAX = 200
"""How many connections of a pool without a limit count as its limit: half of the limit is kept at most."""
_SPARE = "_spare_connections"
"""The attribute of a pool that has its spare connections."""
_REDIRECTIONS = frozenset({301, 302, 303, 307, 308})
EXPECTED = (aiohttp.ClientError, HttpProcessingError, OSError)
"""What a connection raises; a TimeoutError is an OSError."""


class Answer(NamedTuple):
    """One answer; `body` is its beginning when it was not read `whole`, because it was longer than it may be."""

    status: int
    raw_headers: Sequence[tuple[bytes, bytes]]
    body: bytes
    whole: bool = True

    @property
    def headers(self) -> Mapping[str, str]:
        """Names in lower case, as the library has them."""
        return {name.decode().lower(): value.decode() for name, value in self.raw_headers}


class _Request(ClientRequest):
    """A request whose key in the pool of connections is made once."""

    @cached_property
    def connection_key(self) -> ConnectionKey:
        """What connections of the pool are kept apart by."""
        return super().connection_key


class SpareConnections:
    """Connections to one address that the next calls use at once. The pool counts them as in use, and gets them back soon."""

    def __init__(self, connector: aiohttp.BaseConnector, key: ConnectionKey) -> None:
        self._connector = connector
        self._key = key
        self._spare: deque[tuple[ResponseHandler, float]] = deque()
        """With the times of their last use, the latest last."""
        self._spare_max = (connector.limit or SPARE_MAX) // 2
        self._returning: asyncio.TimerHandle | None = None

    @classmethod
    def of(cls, connector: aiohttp.BaseConnector, key: ConnectionKey) -> Self:
        """Returns those of a pool's address. All calls of a client share them, so that no call keeps connections from another one."""
        found: dict[ConnectionKey, Self] | None = getattr(connector, _SPARE, None)
        if found is None:
            found = {}
            setattr(connector, _SPARE, found)
        if key not in found:
            found[key] = cls(connector, key)
        return found[key]

    def take(self) -> ResponseHandler | None:
        """Returns the connection that was used last; None if there is none."""
        while self._spare:
            protocol, _ = self._spare.pop()
            if protocol.is_connected():
                return protocol
            self.close(protocol)
        return None

    def keep(self, protocol: ResponseHandler) -> None:
        """Keeps a connection for the next call, or gives it back if the pool needs it."""
        if protocol.should_close or self._connector._waiters or len(self._spare) >= self._spare_max:
            self._connector._release(self._key, protocol)
            return
        loop = asyncio.get_running_loop()
        self._spare.append((protocol, loop.time()))
        if self._returning is None:
            self._returning = loop.call_later(SPARE_S, self._give_back)

    def close(self, protocol: ResponseHandler) -> None:
        """Closes a connection, which the pool then no longer counts."""
        self._connector._release(self._key, protocol, should_close=True)

    def _give_back(self) -> None:
        """Gives back the connections that were not used for a while."""
        loop = asyncio.get_running_loop()
        used_since = loop.time() - SPARE_S
        while self._spare and self._spare[0][1] <= used_since:
            self._connector._release(self._key, self._spare.popleft()[0])
        self._returning = loop.call_later(SPARE_S, self._give_back) if self._spare else None


class RawEndpoint:
    """The way to one address."""

    def __init__(self, session: aiohttp.ClientSession, request: ClientRequest) -> None:
        """For `to`. `request` stands for all requests to its address, for the pool as for headers."""
        assert session.connector is not None
        self._jar = session.cookie_jar
        self._connector = session.connector
        self._timeout = session.timeout
        self._request = request
        self._spare = SpareConnections.of(session.connector, request.connection_key)
        self._reading: dict[str, Any] = {
            "read_until_eof": True,
            "auto_decompress": session.auto_decompress,
            "read_timeout": session.timeout.sock_read,
            "read_bufsize": session._read_bufsize,
            "timeout_ceil_threshold": session.connector._timeout_ceil_threshold,
            "max_line_size": session._max_line_size,
            "max_field_size": session._max_field_size,
            "max_headers": session._max_headers,
        }

    @classmethod
    async def to(cls, http: object, method: str, url: str, headers: Mapping[str, str]) -> Self | None:
        """The way to `url` over the connections of a client's HTTP session; None where only the library knows it."""
        if not isinstance(http, AIOHTTPSession) or not aiohttp.__version__.startswith(AIOHTTP):
            return None
        # Neither has a public name, nor a type.
        proxies, opened = getattr(http, "_proxy_config", None), getattr(http, "_get_session", None)
        if proxies is None or opened is None or proxies.proxy_url_for(url) is not None:
            return None
        session: aiohttp.ClientSession = await opened(None)
        assert session.connector is not None
        if session.trust_env or session.trace_configs or session.connector.force_close:
            return None
        if session.timeout.total is not None or not all(map(str.isprintable, headers.values())):
            return None
        where = URL(url, encoded=True)
        if where.raw_user is not None:
            return None
        request = _Request(
            method,
            where,
            headers=headers,
            skip_auto_headers=session.skip_auto_headers,
            loop=asyncio.get_running_loop(),
            session=session,
        )
        # As the library asks for answers.
        request.headers["Accept-Encoding"] = "identity"
        # This one has no body; each message says how long its own is.
        del request.headers["Content-Length"]
        return cls(session, request)

    @property
    def head(self) -> str:
        """The request line, and the headers that all requests have."""
        request = self._request
        lines = [f"{name}: {value}\r\n" for name, value in request.headers.items()]
        return f"{request.method} {request.url.raw_path_qs} HTTP/1.1\r\n{''.join(lines)}"

    async def post(self, message: bytes, *, bytes_max: int | None = None) -> Answer | None:
        """Sends a message, head and body, and reads the answer. None: it had no effect, and the library is to send it.

        Of an answer with more than `bytes_max` bytes (None: any) no more is read. Raises what the library's HTTP session raises.
        """
        if len(self._jar):
            return None
        try:
            return await self._exchange(message, bytes_max)
        except EXPECTED as error:
            raise raised(error, str(self._request.url)) from error

    async def _exchange(self, message: bytes, bytes_max: int | None) -> Answer | None:
        protocol = self._spare.take()
        if protocol is None:
            protocol = await self._connect()
        try:
            answer = await self._ask(protocol, message, bytes_max)
        except BaseException:
            # An answer may still come: the connection is of no more use.
            self._spare.close(protocol)
            raise
        if (answer is None or answer.whole) and _sent(protocol, message, answer):
            self._spare.keep(protocol)
        else:
            self._spare.close(protocol)
        return answer

    async def _connect(self) -> ResponseHandler:
        """A connection of the pool, or a new one."""
        try:
            connection = await self._connector.connect(self._request, traces=[], timeout=self._timeout)
        except TimeoutError as error:
            raise aiohttp.ConnectionTimeoutError(f"Connection timeout to host {self._request.url}") from error
        protocol = connection.protocol
        assert protocol is not None
        # The pool's handle would give the connection back when it is collected. Here `SpareConnections` does that.
        connection._protocol = None
        return protocol

    async def _ask(self, protocol: ResponseHandler, message: bytes, bytes_max: int | None) -> Answer | None:
        protocol.set_response_params(**self._reading)
        _write(protocol, message)
        protocol.start_timeout()
        head, payload = await protocol.read()
        while 100 <= head.code <= 199 and head.code != 101:
            head, payload = await protocol.read()
        if payload.is_eof():
            body = payload.read_nowait()
        else:
            await make_room(answer_length(head.headers))
            body = await (payload.read() if bytes_max is None else _bounded(payload, bytes_max))
        if "Set-Cookie" in head.headers:
            self._jar.update_cookies_from_headers(head.headers.getall("Set-Cookie"), self._request.url)
        if head.code in _REDIRECTIONS:
            return None
        return Answer(head.code, head.raw_headers, body, bytes_max is None or len(body) <= bytes_max)


def answer_length(headers: Mapping[str, str]) -> int:
    """The length of an answer's body as its header says; 0 where it says nothing that can be read."""
    return numbers.whole(headers.get("Content-Length"), most=LENGTH_MAX, default=0, clamp=True)


async def _bounded(payload: aiohttp.StreamReader, bytes_max: int) -> bytes:
    """A body, or a beginning of it that is longer than `bytes_max`."""
    body = bytearray()
    while len(body) <= bytes_max and (piece := await payload.readany()):
        body += piece
    return bytes(body)


def _write(protocol: ResponseHandler, message: bytes) -> None:
    transport = protocol.transport
    if transport is None or transport.is_closing():
        raise aiohttp.ClientConnectionResetError("Cannot write to closing transport")
    transport.write(message)


def _sent(protocol: ResponseHandler, message: bytes, answer: Answer | None) -> bool:
    """Whether all of a message is on its way, so that the next one has not to wait behind it.

    A service may refuse a request before it has read it, and what is left below TLS or in the kernel cannot be seen: a
    long one that was refused counts as left.
    """
    refused = answer is None or answer.status >= FAILURE
    if refused and len(message) > TAKEN_AT_ONCE_BYTES:
        return False
    transport = protocol.transport
    return transport is None or not transport.get_write_buffer_size()


def raised(error: Exception, url: str) -> boto.BotoCoreError:
    """What the library's HTTP session makes of an error of a connection without a proxy."""
    match error:
        case aiohttp.ClientSSLError():
            return boto.SSLError(endpoint_url=url, error=error)
        case aiohttp.ServerDisconnectedError() | aiohttp.ClientPayloadError():
            return boto.ConnectionClosedError(endpoint_url=url, error=error)
        case aiohttp.ConnectionTimeoutError():
            return boto.ConnectTimeoutError(endpoint_url=url, error=error)
        case aiohttp.ServerTimeoutError():
            return boto.ReadTimeoutError(endpoint_url=url, error=error)
        case aiohttp.ClientConnectionError():
            return boto.EndpointConnectionError(endpoint_url=url, error=error)
        case TimeoutError():
            return boto.ReadTimeoutError(endpoint_url=url, error=error)
        case OSError():
            return boto.EndpointConnectionError(endpoint_url=url, error=error)
        case _:
            return boto.HTTPClientError(error=error)
