"""Owns the destinations of asynchronous calls: each is opened when a call needs it first, and kept open until the daemon ends."""

import asyncio
from contextlib import AsyncExitStack
from dataclasses import dataclass, field

from poller.call_queue_ports import CallDestination
from poller.config.plugin_specs import destination_spec
from poller.domain.errors import InvalidConfiguration, PortError, ServiceUnavailable
from poller.domain.functions.call_notices import CallNotice
from poller.plugins import Environment, Registry

OPEN_S_MAX = 30.0
"""How long it may take to open a destination."""
SEND_S_MAX = 60.0
"""How long a destination may take to store one notice."""


@dataclass(slots=True, eq=False)
class _Wanted:
    """A destination that is to be opened as an identity, and its plug-in or the error of its opening."""

    destination: str
    identity: str | None
    opened: asyncio.Future[CallDestination] = field(
        default_factory=lambda: asyncio.get_running_loop().create_future()
    )


class HeldDestinations:
    """CallDeliveries of one daemon. One task, `run`, opens all destinations and closes them at its end.

    A destination that cannot be opened is tried again with the next call.
    """

    def __init__(self, registry: Registry, env: Environment) -> None:
        self._registry = registry
        self._env = env
        self._wanted: asyncio.Queue[_Wanted] = asyncio.Queue()
        self._known: dict[tuple[str, str | None], _Wanted] = {}

    async def send(
        self, destination: str, notice: CallNotice, *, dead_letter: bool, identity: str | None
    ) -> None:
        """Returns when the destination, called as `identity`, has stored the notice. Raises PortError."""
        try:
            async with asyncio.timeout(OPEN_S_MAX + SEND_S_MAX):
                port = await asyncio.shield(self._of(destination, identity).opened)
                await port.send_call(notice, dead_letter=dead_letter)
        except TimeoutError:
            raise ServiceUnavailable(f"{destination} has not answered in time") from None

    async def run(self) -> None:
        """Opens what is wanted until it is cancelled."""
        async with AsyncExitStack() as stack:
            try:
                while True:
                    await self._open(await self._wanted.get(), stack)
            finally:
                self._known.clear()

    def _of(self, destination: str, identity: str | None) -> _Wanted:
        known = self._known.get((destination, identity))
        if known is None or (known.opened.done() and known.opened.exception() is not None):
            known = self._known[destination, identity] = _Wanted(destination, identity)
            self._wanted.put_nowait(known)
        return known

    async def _open(self, wanted: _Wanted, stack: AsyncExitStack) -> None:
        try:
            async with asyncio.timeout(OPEN_S_MAX):
                spec = destination_spec(wanted.destination, identity=wanted.identity)
                port = await stack.enter_async_context(spec.opened(self._registry, self._env))
        except TimeoutError:
            found: PortError = ServiceUnavailable(f"not open within {OPEN_S_MAX:g} s")
        except (ValueError, InvalidConfiguration) as error:
            found = ServiceUnavailable(f"the destination cannot be opened: {error}")
        except PortError as error:
            found = error
        else:
            if isinstance(port, CallDestination):
                wanted.opened.set_result(port)
                return
            found = ServiceUnavailable("a destination of this kind takes no asynchronous calls")
        wanted.opened.set_exception(found)
        # Nobody may wait for it any more.
        wanted.opened.exception()
