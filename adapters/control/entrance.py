"""Owns how connections come in: a few in each pass of the loop, and those that may not stay are turned away at little cost.

A loop's own listener takes all connections that wait at once and builds everything for each of them, also for those that are
refused. Clients that come again as soon as they are sent away then keep the loop busy; the system's queue of new connections
overflows, and whoever is dropped there tries again after a second at the earliest. Probes are dropped like all others.
"""

import asyncio
import socket
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress

from adapters.control.pressure import Crowd, Guest, host_of
from poller.loop_turns import TURN_S

BACKLOG = 1024
"""Connections that the operating system holds until the loop comes round; the system may hold fewer."""
SYSTEM_FULL_S = 0.5
"""Until connections are taken again when the system has none to give, as it has no descriptor left."""
FULL_RETRY_AFTER_S = 5


def _full() -> bytes:
    body = b'{"error":"service_unavailable","message":"too many connections; close some, or try again later"}\r\n'
    head = (
        "HTTP/1.1 503 Service Unavailable\r\nServer: poller\r\nContent-Type: application/json\r\n"
        f"Retry-After: {FULL_RETRY_AFTER_S}\r\nConnection: close\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


_FULL = _full()

type MakeProtocol = Callable[[Guest], asyncio.Protocol]
"""Makes the protocol of a connection that may stay."""


class Entrance:
    """Takes connections from a socket that listens."""

    def __init__(
        self, sock: socket.socket, crowd: Crowd, make: MakeProtocol, *, tasks: asyncio.TaskGroup
    ) -> None:
        self._sock = sock
        self._crowd = crowd
        self._make = make
        self._tasks = tasks
        self._loop = asyncio.get_running_loop()
        self._later: asyncio.TimerHandle | None = None

    def open(self) -> None:
        """Takes connections from now on."""
        self._later = None
        self._loop.add_reader(self._sock, self._take)

    def close(self) -> None:
        """Takes no more."""
        self._loop.remove_reader(self._sock)
        if self._later is not None:
            self._later.cancel()

    def _take(self) -> None:
        """Takes connections for some milliseconds; the loop calls again as long as more wait."""
        ends = time.perf_counter() + TURN_S
        while True:
            try:
                connection, peer = self._sock.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError:
                self._loop.remove_reader(self._sock)
                self._later = self._loop.call_later(SYSTEM_FULL_S, self.open)
                return
            connection.setblocking(False)
            self._welcome(connection, peer)
            if time.perf_counter() >= ends:
                return

    def _welcome(self, connection: socket.socket, peer: object) -> None:
        # One that is ended before its protocol is made goes as soon as there is one.
        guest = Guest(host_of(peer), lambda: None)
        if self._crowd.enter(guest):
            self._tasks.create_task(self._let_in(connection, guest), name="control connection")
        else:
            _turn_away(connection)

    async def _let_in(self, connection: socket.socket, guest: Guest) -> None:
        try:
            await self._loop.connect_accepted_socket(lambda: self._make(guest), connection)
        except OSError:
            # The client has gone already.
            connection.close()
            self._crowd.leave(guest)


def _turn_away(connection: socket.socket) -> None:
    """Says why, and closes; what the client has sent by now is taken, since the system would reset the connection else."""
    with suppress(OSError):
        connection.send(_FULL)
        connection.shutdown(socket.SHUT_WR)
        connection.recv(1 << 16)
    connection.close()


@asynccontextmanager
async def entering(sock: socket.socket, crowd: Crowd, make: MakeProtocol) -> AsyncIterator[None]:
    """Takes connections from `sock` within the context."""
    async with asyncio.TaskGroup() as tasks:
        entrance = Entrance(sock, crowd, make, tasks=tasks)
        entrance.open()
        try:
            yield
        finally:
            entrance.close()
