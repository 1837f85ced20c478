"""Owns the HTTP server: where it listens, what it serves, and how it starts and ends."""

import asyncio
import resource
import socket
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

from aiohttp import web

from adapters.control import functions_api, lambda_api, operations_api, records_api, v1_api
from adapters.control.access.audit import Audit
from adapters.control.access.authentication import Guard, file_setting_errors, guard
from adapters.control.access.browser_requests import Names, names_of, no_web_pages
from adapters.control.aliases import alias_api, v1_aliases
from adapters.control.aws_errors import refused
from adapters.control.calls import calls_api
from adapters.control.connections import Gate, admit_requests, count_requests, measure_answers, refuse_odd
from adapters.control.entrance import BACKLOG, entering
from adapters.control.invoke import invoke_api, invoke_config_api
from adapters.control.live import page_files, updates_api
from adapters.control.live.producer import UpdateProducer, producing
from adapters.control.live.readers import Readers, readers_max
from adapters.control.pressure import ClientConnections, Limits
from adapters.control.pressure_metrics import PressureFigures
from adapters.control.processes.gathered import ProcessProbes
from adapters.control.responses import application
from adapters.control.settings import OPEN_CHANGES, ServerSettings, doubts
from adapters.control.sizing import scaling_api
from poller.config.field_types import Address
from poller.config_errors.error_messages import FieldError
from poller.domain.errors import InvalidConfiguration
from poller.domain.functions.calls import FunctionCaller
from poller.domain.mapping_api import FunctionControl, MappingControl, TagControl
from poller.domain.operations import OperationControl
from poller.domain.peeking.answers import PeekControl
from poller.domain.status import StatusView
from poller.domain.supervision.processes import Processes
from poller.domain.telemetry.history import HistorySource
from poller.domain.telemetry.observers import Observer
from poller.forked_copies import close_in_copies
from poller.plugins import Environment, Plugin
from poller.ports import Exposition
from poller.refused_requests import Strangers

CLOSE_S = 2.0
"""The time that running requests have to finish when the server ends."""


class ControlServer:
    """Serves on a socket that is already bound, so that a port in use is noticed before anything else starts."""

    def __init__(
        self,
        sock: socket.socket,
        guard: Guard,
        names: Names,
        strangers: Strangers,
        *,
        show_payloads: bool = False,
        page: bool = True,
    ) -> None:
        self._sock = sock
        self._guard = guard
        self._no_web_pages = no_web_pages(names, strangers, everybody=guard.everybody)
        self._show_payloads = show_payloads
        self._page_files = page_files.page_files() if page else []
        self._ready = asyncio.Event()
        host, port = sock.getsockname()[:2]
        self.address = Address(host, port)
        # Below this limit, clients would take the descriptors that the daemon needs for its own work.
        self.limits = Limits().within(descriptors_max())

    @property
    def descriptor(self) -> int:
        """The descriptor of the socket that listens."""
        return self._sock.fileno()

    async def bound(self) -> Address:
        """Waits until requests are answered; returns the address."""
        await self._ready.wait()
        return self.address

    async def serve(
        self,
        view: StatusView,
        expositions: Sequence[Exposition],
        control: MappingControl | None = None,
        tags: TagControl | None = None,
        observer: Observer | None = None,
        operations: OperationControl | None = None,
        *,
        peeking: PeekControl | None = None,
        functions: FunctionControl | None = None,
        calls: FunctionCaller | None = None,
        history: HistorySource | None = None,
        processes: Processes | None = None,
    ) -> None:
        """Answers requests until it is cancelled. Running requests then have a short time to finish.

        Without `control`, `tags` and `operations` nothing can be changed, and Lambda's API answers that it is not served.
        With `processes` it begins when this process is the front, and answers probes and scrapes for all of them.
        """
        loop = asyncio.get_running_loop()
        clients = ClientConnections(self.limits, loop.time)
        expositions = [*expositions, PressureFigures(clients)]
        audit = Audit(observer)
        readers = Readers(readers_max(self.limits.connections_max))
        producer = UpdateProducer(readers, view, operations, history, calls)
        probes = v1_api.Probes(view, expositions)
        vital = probes if processes is None else ProcessProbes(probes, processes)
        table = [
            *v1_api.read_routes(self._guard, view, vital),
            *scaling_api.routes(self._guard, view),
            *lambda_api.routes(self._guard, view, control, tags, audit),
            *v1_api.change_routes(self._guard, control, audit),
            *operations_api.routes(self._guard, operations, audit),
            *records_api.routes(self._guard, peeking, observer, show_payloads=self._show_payloads),
            *functions_api.routes(self._guard, functions, audit),
            *calls_api.routes(self._guard, calls, observer, show_payloads=self._show_payloads),
            *invoke_api.routes(self._guard, calls, audit),
            *invoke_config_api.routes(self._guard, calls, audit),
            *alias_api.routes(self._guard, calls, audit),
            *v1_aliases.routes(self._guard, calls, audit),
            *page_files.routes(self._page_files),
            *updates_api.routes(self._guard, readers, history, page=page_files.version(self._page_files)),
        ]
        inner = [admit_requests(clients), refuse_odd]
        app = application(table, refused, outer=[count_requests(clients)], inner=inner)
        app.middlewares.append(self._no_web_pages)
        app.on_response_prepare.append(measure_answers(clients))
        runner = web.AppRunner(app, shutdown_timeout=CLOSE_S)
        await runner.setup()
        assert runner.server is not None
        try:
            if processes is not None:
                await processes.front()
            # The listener closes its socket; the port stays ours, so that a server that was ended by something starts again.
            with self._sock.dup() as sock:
                gate = Gate(runner.server, clients)
                async with producing(producer), entering(close_in_copies(sock), clients, gate):
                    self._ready.set()
                    await loop.create_future()
        finally:
            self._ready.clear()
            readers.close()
            await runner.cleanup()
            clients.end()


def descriptors_max() -> int:
    """Returns how many file descriptors this process may have open."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return sys.maxsize if soft == resource.RLIM_INFINITY else soft


async def listening(address: Address) -> socket.socket:
    """Makes a socket that listens at `address`; raises InvalidConfiguration with the remedy."""
    loop = asyncio.get_running_loop()
    try:
        found = await loop.getaddrinfo(
            address.host, address.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )
    except (OSError, UnicodeError) as error:
        # UnicodeError: the text can be no name at all.
        why = error.strerror if isinstance(error, OSError) else "no name has this form"
        raise InvalidConfiguration(
            [f"listen: {address}: the name {address.host!r} has no address ({why}); write an IP address"]
        ) from error
    family, kind, protocol, _, where = found[0]
    sock = close_in_copies(socket.socket(family, kind, protocol))
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


def inherited(descriptor: int) -> socket.socket:
    """Returns the socket that listens already and that this process has inherited."""
    sock = close_in_copies(socket.socket(fileno=descriptor))
    sock.setblocking(False)
    return sock


@asynccontextmanager
async def open_server(settings: ServerSettings, env: Environment) -> AsyncIterator[ControlServer]:
    """Yields a server that has bound its port; raises InvalidConfiguration if it cannot, or for a wrong credential file."""
    sock = await listening(settings.address) if settings.listening is None else inherited(settings.listening)
    with sock:
        bound = Address(*sock.getsockname()[:2])
        if settings.api.allow_unauthenticated and not bound.loopback:
            raise InvalidConfiguration(
                [f"listen: {settings.listen} is {bound}; api.allow_unauthenticated {OPEN_CHANGES}"]
            )
        allowed = guard(settings.api, env.clock, env.strangers, loopback=bound.loopback)
        names = names_of(bound, settings.address, settings.api.allowed_hosts)
        yield ControlServer(
            sock,
            allowed,
            names,
            env.strangers,
            show_payloads=settings.api.show_payloads,
            page=settings.api.page,
        )


def setting_errors(settings: ServerSettings) -> list[FieldError]:
    """Returns what is wrong with the files of secrets, and what may be a mistake."""
    return [*file_setting_errors(settings.api), *doubts(settings)]


plugin = Plugin("http", ServerSettings, open_server, check=setting_errors)
