"""Owns the destinations of asynchronous calls: each is opened when a call needs it first, and closed when none did for a while.

Each destination has a task of its own and a number of sends of its own. So one that hangs, when it is opened or later, holds up no
other: calls that come while too many of its sends have not ended are refused at once, and tried again later.
"""

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from poller.call_queue_ports import CallDestination
from poller.config.plugin_specs import destination_spec
from poller.domain.errors import InvalidConfiguration, PortError, ServiceUnavailable
from poller.domain.functions.call_notices import CallNotice
from poller.domain.untrusted.texts import line_of
from poller.plugins import Environment, Registry
from poller.runtime.foreign_calls import isolated
from poller.runtime.stopping import wait_until
from poller.runtime.watched_tasks import reason_of

OPEN_S_MAX = 30.0
"""How long it may take to open a destination."""
SEND_S_MAX = 60.0
"""How long a destination may take to store one notice."""
SENDS_MAX = 32
"""Notices that are sent to one destination at once."""
SLOW_S = 5.0
"""While one of so many sends takes longer than this, calls do not wait for their turn."""
IDLE_S = 600.0
"""A destination that no call needed for this long is closed."""
HELD_MAX = 1_000
"""Destinations that are open at once."""
NAME_CHARS_MAX = 350


class HeldDestination:
    """One destination that is to be opened as an identity, its plug-in or the error of its opening, and its sends."""

    def __init__(self, destination: str, identity: str | None) -> None:
        self.destination = destination
        self.identity = identity
        self.opened: asyncio.Future[CallDestination] = asyncio.get_running_loop().create_future()
        self._sends: dict[object, float] = {}
        """When each send that has not ended began, the first one first."""
        self._changed = asyncio.Event()

    @contextmanager
    def used(self) -> Iterator[None]:
        """A send, inside the block. It keeps the destination open."""
        send = object()
        self._sends[send] = asyncio.get_running_loop().time()
        self._changed.set()
        try:
            yield
        finally:
            del self._sends[send]
            self._changed.set()

    async def turn(self) -> None:
        """Waits until there is room for a send. Raises ServiceUnavailable if sends that began long ago take it."""
        while len(self._sends) >= SENDS_MAX:
            first = next(iter(self._sends.values()))
            left_s = first + SLOW_S - asyncio.get_running_loop().time()
            if left_s <= 0.0:
                raise ServiceUnavailable(f"{len(self._sends)} deliveries to it have not ended")
            self._changed.clear()
            await wait_until(self._changed, left_s)

    async def unused(self) -> None:
        """Returns when there was no send for IDLE_S."""
        while True:
            self._changed.clear()
            if not await wait_until(self._changed, IDLE_S) and not self._sends:
                return

    def failed(self, error: PortError) -> None:
        """The destination cannot be opened, or is not open any more."""
        if not self.opened.done():
            self.opened.set_exception(error)
            # Nobody may wait for it any more.
            self.opened.exception()


class HeldDestinations:
    """CallDeliveries of one daemon. `run` opens all destinations, each in a task of its own, and closes them at its end.

    A destination that cannot be opened is tried again with the next call.
    """

    def __init__(self, registry: Registry, env: Environment) -> None:
        self._registry = registry
        self._env = env
        self._wanted: asyncio.Queue[HeldDestination] = asyncio.Queue()
        self._known: dict[tuple[str, str | None], HeldDestination] = {}

    async def send(
        self,
        destination: str,
        notice: CallNotice,
        *,
        dead_letter: bool,
        identity: str | None,
        begun: Callable[[], None],
    ) -> None:
        """Returns when the destination, called as `identity`, has stored the notice. Raises PortError."""
        held = self._of(destination, identity)
        await held.turn()
        with held.used():
            begun()
            try:
                async with asyncio.timeout(OPEN_S_MAX + SEND_S_MAX):
                    port = await asyncio.shield(held.opened)
                    await _sent(port, notice, dead_letter=dead_letter)
            except TimeoutError:
                raise ServiceUnavailable(f"{destination} has not answered in time") from None

    async def run(self) -> None:
        """Opens what is wanted until it is cancelled."""
        try:
            async with asyncio.TaskGroup() as group:
                while True:
                    held = await self._wanted.get()
                    group.create_task(self._hold(held), name=f"destination {held.destination}")
        finally:
            for held in self._known.values():
                held.failed(ServiceUnavailable("the destinations are closed"))
            self._known.clear()

    def _of(self, destination: str, identity: str | None) -> HeldDestination:
        known = self._known.get((destination, identity))
        if known is None:
            if len(self._known) >= HELD_MAX:
                raise ServiceUnavailable(f"{HELD_MAX} destinations are open; try again later")
            known = self._known[destination, identity] = HeldDestination(destination, identity)
            self._wanted.put_nowait(known)
        return known

    async def _hold(self, held: HeldDestination) -> None:
        """Keeps a destination open until no call needs it."""
        try:
            await self._opened(held)
        except TimeoutError:
            held.failed(ServiceUnavailable(f"not open within {OPEN_S_MAX:g} s"))
        except PortError as error:
            held.failed(error)
        except Exception as error:  # noqa: BLE001 - the code of a plug-in may raise anything
            held.failed(ServiceUnavailable(f"the destination cannot be opened: {reason_of(error)}"))
        finally:
            self._forget(held)

    async def _opened(self, held: HeldDestination) -> None:
        async with asyncio.timeout(OPEN_S_MAX) as limit:
            try:
                spec = destination_spec(held.destination, identity=held.identity)
                opening = spec.opened(self._registry, self._env)
            except (ValueError, InvalidConfiguration) as error:
                raise ServiceUnavailable(f"the destination cannot be opened: {_told(error)}") from error
            async with opening as port:
                if not isinstance(port, CallDestination):
                    raise ServiceUnavailable("a destination of this kind takes no asynchronous calls")
                limit.reschedule(None)
                held.opened.set_result(port)
                await held.unused()
                self._forget(held)

    def _forget(self, held: HeldDestination) -> None:
        key = held.destination, held.identity
        if self._known.get(key) is held:
            del self._known[key]


async def _sent(port: CallDestination, notice: CallNotice, *, dead_letter: bool) -> None:
    """Sends in a task of its own. A send that does not end when it is cancelled is left running: a notice may arrive twice."""

    async def send(given: CallNotice) -> None:
        await port.send_call(given, dead_letter=dead_letter)

    try:
        await isolated(send, notice, name="notice of a call", left_behind=_leave)
    except (PortError, TimeoutError):
        raise
    except Exception as error:
        # A plug-in may raise any exception. The call waits for its notice in any case.
        raise ServiceUnavailable(f"the destination failed: {reason_of(error)}") from error


def _leave(_: asyncio.Task[None]) -> None:
    """Does nothing: nothing waits for a send that does not end."""


def _told(error: Exception) -> str:
    return line_of(str(error), chars_max=NAME_CHARS_MAX)
