"""Owns how much those who ask may take of the server: connections, requests, turns of the loop, answers on their way.

One loop does everything, so that nobody who asks may have it for long, and nobody may keep others away from it:

- A connection more than there may be is not refused while another one is idle: the longest idle one goes. One address has a
  share of the connections, and its own idle ones go first.
- Each address may open so many connections a second. One that comes again as soon as it is sent away would keep the loop busy
  with nothing else.
- Where every connection is busy, some more are taken for probes and metrics alone.
- Requests are answered one at a time, and between two of them the loop has five times as long for everything else as the
  first one took. Probes wait for probes only, and metrics for metrics. Addresses take turns.
- Each address has so many requests a second; probes and metrics are not counted, they have their share of the loop.

Nothing here waits or writes but `LoopShare`; `Crowd` decides, the connection and the middleware do.
"""

import asyncio
import ipaddress
import time
from collections import Counter, OrderedDict, deque
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import StrEnum

PROBES = frozenset({"/healthz", "/readyz"})
VITAL = PROBES | {"/metrics"}
"""Paths that are answered as long as anything is."""
REST = 5.0
REST_S_MAX = 0.25
ADDRESSES_MAX = 1024
"""Addresses without a connection whose last requests are remembered."""
IPV6_PREFIX_BITS = 64
"""What one host has of IPv6 addresses."""


@dataclass(frozen=True, slots=True)
class Limits:
    """How much there may be of everything."""

    connections_max: int = 256
    connections_of_address_max: int = 64
    vital_connections_max: int = 32
    """Beside all others, for paths that are vital."""
    connections_per_s: float = 100.0
    """New ones of an address; what it opens beyond that may ask for what is vital only."""
    connections_at_once: float = 500.0
    """How many an address may open at once after it was quiet."""
    requests_per_s: float = 100.0
    requests_at_once: float = 200.0
    """What an address may ask at once after it was quiet."""
    unsent_bytes_max: int = 64 * 1024 * 1024
    """Of answers that clients have not taken yet."""


class Reason(StrEnum):
    """Why a connection or a request was refused."""

    CONNECTIONS = "connections"
    ADDRESS_CONNECTIONS = "address_connections"
    CONNECTION_RATE = "connection_rate"
    REQUEST_RATE = "request_rate"
    UNSENT = "unsent_answers"


@dataclass(slots=True)
class Bucket:
    """So many a second, and some at once after a pause."""

    tokens: float
    at: float

    def take(self, now: float, *, per_s: float, at_once: float) -> bool:
        """Whether there is one more now."""
        self.tokens = min(at_once, self.tokens + (now - self.at) * per_s)
        self.at = now
        if self.tokens < 1.0:
            return False
        self.tokens -= 1.0
        return True


@dataclass(eq=False, slots=True)
class Guest:
    """A connection as it counts here; `end` closes it."""

    host: str
    end: Callable[[], None]
    vital: bool = False
    """It is one too many, and may ask for what is vital only."""
    unsent: int = 0
    """Bytes of the answer that is on its way."""


@dataclass(slots=True)
class _Address:
    opened: Bucket
    asked: Bucket
    guests: int = 0
    vital: int = 0
    """Of these."""
    idle: OrderedDict[Guest, None] = field(default_factory=OrderedDict)
    """Those that are not vital."""


class Crowd:
    """All connections and what their addresses have asked for lately."""

    def __init__(self, limits: Limits, now: Callable[[], float]) -> None:
        self.limits = limits
        self.refused: Counter[Reason] = Counter()
        self.closed_idle = 0
        self._now = now
        self._addresses: OrderedDict[str, _Address] = OrderedDict()
        self._idle: OrderedDict[Guest, None] = OrderedDict()
        self._idle_vital: OrderedDict[Guest, None] = OrderedDict()
        """They make room for each other only: without one of them there is no more room for others."""
        self._guests: set[Guest] = set()
        self._vital = 0
        self.unsent = 0
        """Bytes of all answers that are on their way."""

    @property
    def connections(self) -> int:
        """How many there are."""
        return len(self._guests)

    @property
    def addresses(self) -> int:
        """How many are remembered."""
        return len(self._addresses)

    def has(self, guest: Guest) -> bool:
        """Whether a connection has entered and neither left nor been ended."""
        return guest in self._guests

    def enter(self, guest: Guest) -> bool:
        """Whether a new connection may stay; the longest idle one is ended for it where there is no room."""
        address = self._address(guest.host)
        limits = self.limits
        reason: Reason | None = None
        if not address.opened.take(
            self._now(), per_s=limits.connections_per_s, at_once=limits.connections_at_once
        ):
            reason = Reason.CONNECTION_RATE
        elif address.guests - address.vital >= limits.connections_of_address_max and not self._end_first(
            address.idle
        ):
            reason = Reason.ADDRESS_CONNECTIONS
        elif len(self._guests) - self._vital >= limits.connections_max and not self._end_first(self._idle):
            reason = Reason.CONNECTIONS
        if reason is not None:
            # One that comes too fast takes nobody's place: to end one and let another in is what keeps the loop busy.
            idle = OrderedDict() if reason is Reason.CONNECTION_RATE else self._idle_vital
            if self._vital >= limits.vital_connections_max and not self._end_first(idle):
                self.refused[reason] += 1
                return False
            guest.vital = True
            self._vital += 1
            address.vital += 1
        self._guests.add(guest)
        address.guests += 1
        self.rest(guest)
        return True

    def end(self) -> None:
        """Ends all connections that are left."""
        for guest in list(self._guests):
            guest.end()

    def leave(self, guest: Guest) -> None:
        """The connection is gone, or is on its way to be."""
        if guest not in self._guests:
            return
        self.work(guest)
        self._sent(guest)
        self._guests.discard(guest)
        self._vital -= guest.vital
        address = self._addresses[guest.host]
        address.guests -= 1
        address.vital -= guest.vital
        self._addresses.move_to_end(guest.host)
        for _ in range(len(self._addresses) - ADDRESSES_MAX):
            host = next((host for host, each in self._addresses.items() if not each.guests), None)
            if host is None:
                break
            del self._addresses[host]

    def work(self, guest: Guest) -> None:
        """A request of this connection is being answered."""
        if guest in self._guests:
            self._idle_of(guest).pop(guest, None)
            self._addresses[guest.host].idle.pop(guest, None)

    def rest(self, guest: Guest) -> None:
        """The connection waits for its next request."""
        self._sent(guest)
        if guest in self._guests:
            self._idle_of(guest)[guest] = None
            if not guest.vital:
                self._addresses[guest.host].idle[guest] = None

    def ask(self, guest: Guest, path: str) -> Reason | None:
        """Why a request is refused; None when it may be answered."""
        reason = self._objection(guest, path)
        if reason is not None:
            self.refused[reason] += 1
        return reason

    def send(self, guest: Guest, size: int) -> None:
        """An answer of so many bytes is on its way, until the connection rests or leaves."""
        if guest in self._guests:
            self.unsent += size - guest.unsent
            guest.unsent = size

    def _sent(self, guest: Guest) -> None:
        self.unsent -= guest.unsent
        guest.unsent = 0

    def _objection(self, guest: Guest, path: str) -> Reason | None:
        if path not in VITAL:
            if guest.vital:
                return Reason.CONNECTIONS
            limits = self.limits
            asked = self._address(guest.host).asked
            if not asked.take(self._now(), per_s=limits.requests_per_s, at_once=limits.requests_at_once):
                return Reason.REQUEST_RATE
        if path not in PROBES and self.unsent > self.limits.unsent_bytes_max:
            return Reason.UNSENT
        return None

    def _address(self, host: str) -> _Address:
        found = self._addresses.get(host)
        if found is None:
            limits, now = self.limits, self._now()
            found = self._addresses[host] = _Address(
                Bucket(limits.connections_at_once, now), Bucket(limits.requests_at_once, now)
            )
        return found

    def _idle_of(self, guest: Guest) -> OrderedDict[Guest, None]:
        return self._idle_vital if guest.vital else self._idle

    def _end_first(self, idle: OrderedDict[Guest, None]) -> bool:
        if not idle:
            return False
        first = next(iter(idle))
        self.leave(first)
        self.closed_idle += 1
        first.end()
        return True


class LoopShare:
    """Turns of the loop for requests: one at a time, and a rest behind each that had much to do.

    Addresses take turns, however many requests each of them has waiting.
    """

    def __init__(self) -> None:
        self._waiting: OrderedDict[str, deque[asyncio.Future[None]]] = OrderedDict()
        self._free_at = 0.0
        self._taken = False

    async def turn(self, host: str) -> None:
        """Returns when a request of this address may be answered; the loop has come round since the one before."""
        if self._taken:
            await self._wait(host)
        self._taken = True
        try:
            await asyncio.sleep(max(0.0, self._free_at - time.monotonic()))
        finally:
            self._next()

    def used(self, took_s: float) -> None:
        """The loop was busy with a request for so long."""
        self._free_at = time.monotonic() + min(REST_S_MAX, REST * took_s)

    async def _wait(self, host: str) -> None:
        mine: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(host, deque()).append(mine)
        try:
            await mine
        except asyncio.CancelledError:
            if mine.done() and not mine.cancelled():
                # The turn came at the same time; it is for the next one.
                self._next()
            raise

    def _next(self) -> None:
        """Hands the turn on to the address that has waited longest since its last one."""
        while self._waiting:
            host, waiting = self._waiting.popitem(last=False)
            first = waiting.popleft()
            if waiting:
                self._waiting[host] = waiting
            if not first.done():
                first.set_result(None)
                return
        self._taken = False


class LoopShares:
    """A share for probes, one for metrics, one for everything else."""

    def __init__(self) -> None:
        self._probes, self._metrics, self._others = LoopShare(), LoopShare(), LoopShare()

    def of(self, path: str) -> LoopShare:
        """That of a request."""
        if path in PROBES:
            return self._probes
        return self._metrics if path in VITAL else self._others


def host_of(peer: object) -> str:
    """What counts as one address: a host, however it is written, and of IPv6 the network that one host has."""
    name = str(peer[0]) if isinstance(peer, tuple) and peer else ""
    try:
        found = ipaddress.ip_address(name.partition("%")[0])
    except ValueError:
        return name
    if isinstance(found, ipaddress.IPv4Address):
        return str(found)
    if found.ipv4_mapped is not None:
        return str(found.ipv4_mapped)
    return str(ipaddress.ip_network((found, IPV6_PREFIX_BITS), strict=False))
