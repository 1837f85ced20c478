"""Owns how connections are accepted: a few in each turn of the loop, and with little work for those that are refused.

The event loop's own listener would accept all waiting connections at once, and make a protocol for each, even for those that are
refused. Clients that reconnect as soon as they are refused would then keep the loop busy. The system's queue of new connections
would overflow, and a client that is dropped there tries again after a second at the earliest. Probes would be dropped too.

Without a file descriptor nothing can be accepted, and those who wait get no answer at all. Then idle connections are ended.
"""

import asyncio
import errno
import logging
import socket
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress

from adapters.control.pressure import ClientConnection, ClientConnections, host_of
from poller.loop_turns import TURN_S
from poller.output.log_fields import EVENT

log = logging.getLogger("poller.control")

BACKLOG = 1024
"""Connections that the operating system keeps until the loop accepts them. The system may keep fewer."""
SYSTEM_FULL_S = 0.5
"""How long no connection is accepted after the system could give none, if there was no idle connection to end."""
ROOM_S = 0.005
"""How long ended connections have to give back their descriptors before others are accepted."""
LOGGED_AGAIN_S = 600.0
"""Within this time the log has one line about missing descriptors."""
LACKING = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})
"""Errors of a process or system that has no descriptor, or no memory for one, left."""
FULL_RETRY_AFTER_S = 5


def _full() -> bytes:
    body = b'{"error":"service_unavailable","message":"too many connections; close some, or try again later"}\r\n'
    head = (
        "HTTP/1.1 503 Service Unavailable\r\nServer: poller\r\nContent-Type: application/json\r\n"
        f"Retry-After: {FULL_RETRY_AFTER_S}\r\nConnection: close\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


_FULL = _full()

type MakeProtocol = Callable[[ClientConnection], asyncio.Protocol]
"""Makes the protocol of an accepted connection."""


class Entrance:
    """Accepts connections from a listening socket."""

    def __init__(
        self, sock: socket.socket, clients: ClientConnections, make: MakeProtocol, *, tasks: asyncio.TaskGroup
    ) -> None:
        self._sock = sock
        self._clients = clients
        self._make = make
        self._tasks = tasks
        self._loop = asyncio.get_running_loop()
        self._reopening: asyncio.TimerHandle | None = None
        self._logged_at: float | None = None

    def open(self) -> None:
        """Accepts connections from now on."""
        self._reopening = None
        self._loop.add_reader(self._sock, self._accept)

    def close(self) -> None:
        """Accepts no more connections."""
        self._loop.remove_reader(self._sock)
        if self._reopening is not None:
            self._reopening.cancel()

    def _accept(self) -> None:
        """Accepts connections for some milliseconds. The loop calls again while more are waiting."""
        ends = time.perf_counter() + TURN_S
        while True:
            try:
                connection, peer = self._sock.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError as error:
                ended = self._make_room(error) if error.errno in LACKING else 0
                self._loop.remove_reader(self._sock)
                self._reopening = self._loop.call_later(ROOM_S if ended else SYSTEM_FULL_S, self.open)
                return
            connection.setblocking(False)
            self._admit(connection, peer)
            if time.perf_counter() >= ends:
                return

    def _make_room(self, error: OSError) -> int:
        """Ends idle connections, and logs that no descriptor is left. Returns how many were ended."""
        ended = self._clients.make_room()
        now = self._loop.time()
        if self._logged_at is None or now - self._logged_at >= LOGGED_AGAIN_S:
            self._logged_at = now
            log.warning(
                "the port can accept no connection (%s); those that have been idle longest are closed to make room; "
                "raise the limit of open files (ulimit -n, LimitNOFILE=), or find out who holds so many connections",
                error.strerror,
                extra={EVENT: "port_without_descriptor", "connections": self._clients.connections},
            )
        return ended

    def _admit(self, connection: socket.socket, peer: object) -> None:
        # A connection that is ended before it has a protocol is closed as soon as it has one.
        client = ClientConnection(host_of(peer), lambda: None)
        if self._clients.enter(client):
            task = self._tasks.create_task(self._serve(connection, client), name="control connection")
            # A task that is cancelled before its first step runs no code of its own.
            task.add_done_callback(lambda ended: connection.close() if ended.cancelled() else None)
        else:
            _refuse(connection)

    async def _serve(self, connection: socket.socket, client: ClientConnection) -> None:
        try:
            await self._loop.connect_accepted_socket(lambda: self._make(client), connection)
        except OSError:
            # The client has already disconnected.
            connection.close()
            self._clients.leave(client)


def _refuse(connection: socket.socket) -> None:
    """Sends the reason and closes. Reads what the client has sent, since the system would otherwise reset the connection."""
    with suppress(OSError):
        connection.send(_FULL)
        connection.shutdown(socket.SHUT_WR)
        connection.recv(1 << 16)
    connection.close()


@asynccontextmanager
async def entering(
    sock: socket.socket, clients: ClientConnections, make: MakeProtocol
) -> AsyncIterator[None]:
    """Accepts connections from `sock` while the context is open."""
    async with asyncio.TaskGroup() as tasks:
        entrance = Entrance(sock, clients, make, tasks=tasks)
        entrance.open()
        try:
            yield
        finally:
            entrance.close()
