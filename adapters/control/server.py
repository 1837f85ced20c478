"""Owns the HTTP server: where it listens, what it serves, how it starts and ends."""

import asyncio
import socket
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

from aiohttp import web

from adapters.control import changes, lambda_api, reads
from adapters.control.answers import application
from adapters.control.connections import Gate
from adapters.control.faults import refused
from adapters.control.guard import Guard, guard
from adapters.control.settings import OPEN_CHANGES, ServerSettings
from poller.control import MappingControl, TagControl
from poller.errors import InvalidConfiguration
from poller.fields import Address
from poller.plugins import Environment, Plugin
from poller.ports import Exposition
from poller.status import StatusView

BACKLOG = 128
CLOSE_S = 2.0
"""For running requests at the end, before they are cut."""


class ControlServer:
    """Serves on a socket that is bound already, so that a taken port is known before anything runs."""

    def __init__(self, sock: socket.socket, guard: Guard) -> None:
        self._sock = sock
        self._guard = guard
        self._ready = asyncio.Event()
        host, port = sock.getsockname()[:2]
        self.address = Address(host, port)

    async def bound(self) -> Address:
        """Waits until requests are answered; returns where."""
        await self._ready.wait()
        return self.address

    async def serve(
        self,
        view: StatusView,
        expositions: Sequence[Exposition],
        control: MappingControl | None = None,
        tags: TagControl | None = None,
    ) -> None:
        """Answers requests until cancelled; then running ones get a short time to finish.

        Without `control` and `tags` nothing can be changed, and Lambda's API answers that it is not there.
        """
        loop = asyncio.get_running_loop()
        table = [
            *reads.routes(view, expositions, everybody=self._guard.everybody),
            *lambda_api.routes(self._guard, view, control, tags),
            *changes.routes(self._guard, control),
        ]
        runner = web.AppRunner(application(table, refused), shutdown_timeout=CLOSE_S)
        await runner.setup()
        assert runner.server is not None
        try:
            listener = await loop.create_server(Gate(runner.server), sock=self._sock, backlog=BACKLOG)
            self._ready.set()
            try:
                await loop.create_future()
            finally:
                listener.close()
        finally:
            self._ready.clear()
            await runner.cleanup()


async def listening(address: Address) -> socket.socket:
    """A socket that listens at `address`; raises InvalidConfiguration with the remedy."""
    loop = asyncio.get_running_loop()
    try:
        found = await loop.getaddrinfo(
            address.host, address.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )
    except OSError as error:
        raise InvalidConfiguration(
            [
                f"listen: {address}: the name {address.host!r} has no address ({error.strerror}); write an IP address"
            ]
        ) from error
    family, kind, protocol, _, where = found[0]
    sock = socket.socket(family, kind, protocol)
    try:
        sock.setblocking(False)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        sock.bind(where)
        sock.listen(BACKLOG)
    except OSError as error:
        sock.close()
        raise InvalidConfiguration(
            [
                f"listen: {address}: {error.strerror}; choose another address or port, or end what listens there"
            ]
        ) from error
    return sock


@asynccontextmanager
async def open_server(settings: ServerSettings, env: Environment) -> AsyncIterator[ControlServer]:
    """A server that has its port; raises InvalidConfiguration if it cannot have it, or if a file of secrets is no good."""
    allowed = guard(settings.api, env.clock)
    sock = await listening(settings.address)
    with sock:
        server = ControlServer(sock, allowed)
        if settings.api.allow_unauthenticated and not server.address.loopback:
            raise InvalidConfiguration([f"listen: {settings.listen} is {server.address}; api.{OPEN_CHANGES}"])
        yield server


plugin = Plugin("http", ServerSettings, open_server)
