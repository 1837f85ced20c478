"""Owns who may connect to the Runtime API of a function process: that process, its session and its descendants.

A connection is looked at once, when it is made, and closed at once when nobody of the process holds its other end: no byte
of a stranger is read. The daemon's user alone would say too little, as all functions run as the same.
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
from poller.domain.telemetry import Listener, RefusedFor
from poller.refused_requests import Strangers

STRANGERS_PER_SECOND_MAX = 20
"""Of so many strangers a second all processes of the machine are looked at; of more, only the process and its children."""

_BODY = b'{"errorType":"AccessDenied","errorMessage":"only the process of the function may speak here"}'
_REFUSED = (
    b"HTTP/1.1 403 Forbidden\r\nContent-Type: application/json\r\nConnection: close\r\n"
    b"Content-Length: %d\r\n\r\n%b" % (len(_BODY), _BODY)
)


class Doorkeeper:
    """Lets one process at a time in, with all that it started, and counts the others."""

    def __init__(self, function: str, strangers: Strangers) -> None:
        self._function = function
        self._strangers = strangers
        self._leader: int | None = None
        self._spoke: int | None = None
        self._second = 0
        self._searches = 0

    def expect(self, leader: int | None) -> None:
        """From now on the process `leader`, which leads a session of its own, may connect; None: nobody may."""
        self._leader = leader
        self._spoke = None

    def admits(self, peer: Endpoint, own: Endpoint) -> bool:
        """Whether somebody who may speak is at `peer`, the other end of a connection to `own`."""
        if not SUPPORTED:
            return True
        found = socket_of(peer, own)
        if found is None:
            # Who connected is gone already, like a process that was just killed.
            return False
        if self._leader is not None and self._ours(found, self._leader):
            return True
        self.refused(RefusedFor.PEER, found.uid)
        return False

    def refused(self, reason: RefusedFor, uid: int | None = None) -> None:
        """Counts a request or connection that was refused."""
        self._strangers.refused(Listener.RUNTIME_API, reason, function=self._function, uid=uid)

    def trouble(self, request: web.Request, address: str) -> RefusedFor | None:
        """What shows that a web page sent a request to `address`, by way of a browser that the process itself runs."""
        if request.headers.getall("Host", [address]) != [address]:
            return RefusedFor.HOST
        foreign = request.headers.get("Sec-Fetch-Site") in {"cross-site", "same-site"}
        return RefusedFor.ORIGIN if foreign or "Origin" in request.headers else None

    def _ours(self, found: PeerSocket, leader: int) -> bool:
        if os.geteuid() != 0 and found.uid != os.geteuid():
            # Without root's rights no process of ours is another user's.
            return False
        if self._spoke is not None and holds(self._spoke, found.inode) and descends(self._spoke, leader):
            # Not every kernel lists children, so that who has spoken would have to be searched for again.
            return True
        holder = _holder(tree(leader), found.inode)
        if holder is None and self._may_search():
            holder = _holder(session(leader), found.inode)
        self._spoke = holder or self._spoke
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
    """A connection until it is known whose it is; then it is the server's, or closed."""

    def __init__(self, keeper: Doorkeeper, serve: Callable[[], asyncio.Protocol]) -> None:
        self._keeper = keeper
        self._serve = serve

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Looks who it is."""
        stream = cast("asyncio.Transport", transport)  # uvloop's transports do not derive from asyncio's
        peer, own = (stream.get_extra_info(name) for name in ("peername", "sockname"))
        if peer and own and self._keeper.admits(peer[:2], own[:2]):
            served = self._serve()
            stream.set_protocol(served)
            served.connection_made(stream)
        else:
            # On the next turn, as uvloop starts to read when this returns.
            asyncio.get_running_loop().call_soon(_refuse, stream)


def _refuse(stream: asyncio.Transport) -> None:
    stream.write(_REFUSED)
    stream.close()


def refusal(reason: RefusedFor, address: str) -> web.Response:
    """The answer to a request that does not name this entrance's `address`, or that a web page sent."""
    if reason is RefusedFor.HOST:
        message = f"the header Host is not the address of this entrance; send Host: {address}, as AWS_LAMBDA_RUNTIME_API has it"
    else:
        message = "requests of web pages are not answered here; send neither Origin nor Sec-Fetch-Site"
    document = {"errorType": "AccessDenied", "errorMessage": message}
    return web.json_response(document, status=HTTPStatus.FORBIDDEN)
