"""Owns who may connect to the Runtime API of a function process: that process, its session and its descendants.

A connection is checked once, when it is made. If no such process has its other end, it is closed before a byte is read. To
check only the user would not be enough, since all functions run as the same user.
"""

import asyncio
import os
import time
from collections.abc import Callable, Iterable
from http import HTTPStatus
from typing import cast

from aiohttp import web

from adapters.invokers.function_processes.peers import (
    SUPPORTED,
    Endpoint,
    PeerSocket,
    descends,
    holds,
    session,
    socket_of,
    tree,
)
from adapters.request_targets import host_of_target
from poller.domain.telemetry.labels import Listener, RefusedFor
from poller.refused_requests import Strangers

STRANGERS_PER_SECOND_MAX = 20
"""How often in a second all processes of the machine are searched for a stranger. Beyond that, only the process and its children
are searched."""

_BODY = b'{"errorType":"AccessDenied","errorMessage":"only the process of the function may speak here"}'
_REFUSED = (
    b"HTTP/1.1 403 Forbidden\r\nContent-Type: application/json\r\nConnection: close\r\n"
    b"Content-Length: %d\r\n\r\n%b" % (len(_BODY), _BODY)
)


class ConnectionGuard:
    """Admits one process at a time, with all that it started, and counts refused connections."""

    def __init__(self, function: str, strangers: Strangers) -> None:
        self.function = function
        self._strangers = strangers
        self._leader: int | None = None
        self._last_admitted: int | None = None
        self._second = 0
        self._searches = 0

    def expect(self, leader: int | None) -> None:
        """Admits the process `leader` from now on, which leads a session of its own; None admits nobody."""
        self._leader = leader
        self._last_admitted = None

    def admits(self, peer: Endpoint, own: Endpoint) -> bool:
        """Whether an admitted process has the socket at `peer`, the other end of a connection to `own`."""
        if not SUPPORTED:
            return True
        peer_socket = socket_of(peer, own)
        if peer_socket is None:
            # The process has already ended, for example because it was just killed.
            return False
        if self._leader is not None and self._is_admitted(peer_socket, self._leader):
            return True
        if socket_of(peer, own) is None:
            # It has ended while it was looked for.
            return False
        self.refused(RefusedFor.PEER, peer_socket.uid)
        return False

    def refused(self, reason: RefusedFor, uid: int | None = None) -> None:
        """Counts a request or connection that was refused."""
        self._strangers.refused(Listener.RUNTIME_API, reason, function=self.function, uid=uid)

    def refused_for(self, request: web.Request, address: str) -> RefusedFor | None:
        """Returns what shows that a web page sent a request to `address`, through a browser that the process runs; else None."""
        target = host_of_target(request.raw_path)
        if request.headers.getall("Host", [address]) != [address] or target not in {None, address}:
            return RefusedFor.HOST
        foreign = request.headers.get("Sec-Fetch-Site") in {"cross-site", "same-site"}
        return RefusedFor.ORIGIN if foreign or "Origin" in request.headers else None

    def _is_admitted(self, peer_socket: PeerSocket, leader: int) -> bool:
        if os.geteuid() != 0 and peer_socket.uid != os.geteuid():
            # Without root, a process that we started cannot belong to another user.
            return False
        if (
            self._last_admitted is not None
            and holds(self._last_admitted, peer_socket.inode)
            and descends(self._last_admitted, leader)
        ):
            # Not every kernel lists children, so the last process that connected is remembered and checked first.
            return True
        holder = _holder(tree(leader), peer_socket.inode)
        if holder is None and self._may_search():
            holder = _holder(session(leader), peer_socket.inode)
        self._last_admitted = holder or self._last_admitted
        return holder is not None

    def _may_search(self) -> bool:
        second = int(time.monotonic())
        if second != self._second:
            self._second, self._searches = second, 0
        self._searches += 1
        return self._searches <= STRANGERS_PER_SECOND_MAX


def _holder(pids: Iterable[int], inode: int) -> int | None:
    return next((pid for pid in pids if holds(pid, inode)), None)


class Entrance(asyncio.Protocol):
    """A connection before its process is checked. Then it is passed to the server, or closed."""

    def __init__(self, guard: ConnectionGuard, serve: Callable[[], asyncio.Protocol]) -> None:
        self._guard = guard
        self._serve = serve

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Checks which process connected."""
        stream = cast("asyncio.Transport", transport)  # uvloop's transports do not derive from asyncio's
        peer, own = (stream.get_extra_info(name) for name in ("peername", "sockname"))
        if peer and own and self._guard.admits(peer[:2], own[:2]):
            served = self._serve()
            stream.set_protocol(served)
            served.connection_made(stream)
        else:
            # On the next turn of the loop, since uvloop starts to read only when this returns.
            asyncio.get_running_loop().call_soon(_refuse, stream)


def _refuse(stream: asyncio.Transport) -> None:
    stream.write(_REFUSED)
    stream.close()


def refusal(reason: RefusedFor, address: str) -> web.Response:
    """Returns the answer to a request with a wrong Host header, or from a web page."""
    if reason is RefusedFor.HOST:
        message = f"the header Host is not the address of this entrance; send Host: {address}, as AWS_LAMBDA_RUNTIME_API has it"
    else:
        message = "requests of web pages are not answered here; send neither Origin nor Sec-Fetch-Site"
    document = {"errorType": "AccessDenied", "errorMessage": message}
    return web.json_response(document, status=HTTPStatus.FORBIDDEN)
