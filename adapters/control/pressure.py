"""Owns how much of the server clients may use: connections, requests, time of the event loop, and answers that are being sent.

One event loop does all work of the daemon. So no client may use it for long, and none may keep others away from it:

- If all connections are in use, a new one replaces the one that has been idle for longest. Each address has a share of the
  connections, and beyond it a new connection replaces an idle one of the same address.
- Each address may open a limited number of connections a second. Otherwise a client that reconnects as soon as it is refused
  would keep the loop busy.
- If every connection is busy, a few more are accepted for probes and metrics only.
- At least half of the process's file descriptors are left for the daemon's own work. If none is left all the same, the connections
  that have been idle for longest are ended.
- Requests are answered one at a time. After each one the loop has five times as long for other work as the request took.
  Probes wait only for probes, and metrics only for metrics. Addresses take turns.
- Each address may send a limited number of requests a second. Probes and metrics do not count, since they have their own share
  of the loop.

`ClientConnections` decides, and connection and middleware carry out. Only `LoopShare` waits.
"""

import asyncio
import ipaddress
import time
from collections import Counter, OrderedDict, deque
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from enum import StrEnum

PROBES = frozenset({"/healthz", "/readyz"})
VITAL = PROBES | {"/metrics"}
"""Paths that are answered even if all others are refused."""
PAUSE_FACTOR = 5.0
PAUSE_S_MAX = 0.25
ADDRESSES_MAX = 1024
"""Addresses without a connection whose last requests are remembered."""
IPV6_PREFIX_BITS = 64
"""The network of IPv6 addresses that counts as one host."""
PORT_SHARE = 2
"""One descriptor of so many may be a connection to the port."""
VITAL_SHARE = 8
"""One connection of so many is for vital paths, if there are too few descriptors for all."""
ADDRESS_SHARE = 4
"""One address may have one connection of so many."""
ROOM_SHARE = 8
"""One idle connection of so many is ended when there is no descriptor left."""


@dataclass(frozen=True, slots=True)
class Limits:
    """The limits of connections, requests and unsent answers."""

    connections_max: int = 256
    connections_of_address_max: int = 64
    vital_connections_max: int = 32
    """Connections in addition to all others, for vital paths only."""
    connections_per_s: float = 100.0
    """New connections of one address. Those beyond the limit may request vital paths only."""
    connections_at_once: float = 500.0
    """How many connections an address may open at once after a quiet time."""
    requests_per_s: float = 100.0
    requests_at_once: float = 200.0
    """How many requests an address may send at once after a quiet time."""
    unsent_bytes_max: int = 64 * 1024 * 1024
    """Bytes of answers that clients have not received yet."""

    def within(self, descriptors: int) -> "Limits":
        """Returns limits that leave at least half of so many file descriptors for other uses, and some connections anyway."""
        share = descriptors // PORT_SHARE
        if share >= self.connections_max + self.vital_connections_max:
            return self
        vital = min(self.vital_connections_max, max(1, share // VITAL_SHARE))
        connections = min(self.connections_max, max(1, share - vital))
        of_address = min(self.connections_of_address_max, max(1, connections // ADDRESS_SHARE))
        return replace(
            self,
            connections_max=connections,
            connections_of_address_max=of_address,
            vital_connections_max=vital,
        )


class Reason(StrEnum):
    """Why a connection or a request was refused."""

    CONNECTIONS = "connections"
    ADDRESS_CONNECTIONS = "address_connections"
    CONNECTION_RATE = "connection_rate"
    REQUEST_RATE = "request_rate"
    UNSENT = "unsent_answers"


@dataclass(slots=True)
class Bucket:
    """A token bucket: a number of tokens a second, and more at once after a pause."""

    tokens: float
    at: float

    def take(self, now: float, *, per_s: float, at_once: float) -> bool:
        """Takes a token; returns False if there is none."""
        self.tokens = min(at_once, self.tokens + (now - self.at) * per_s)
        self.at = now
        if self.tokens < 1.0:
            return False
        self.tokens -= 1.0
        return True


@dataclass(eq=False, slots=True)
class ClientConnection:
    """A client's connection; `end` closes it."""

    host: str
    end: Callable[[], None]
    vital: bool = False
    """It is beyond a limit, and may request vital paths only."""
    unsent: int = 0
    """Bytes of the answer that is being sent."""


@dataclass(slots=True)
class _Address:
    opened: Bucket
    asked: Bucket
    connections: int = 0
    vital: int = 0
    """Of these."""
    idle: OrderedDict[ClientConnection, None] = field(default_factory=OrderedDict)
    """Those that are not vital."""


class ClientConnections:
    """All connections, and what their addresses have opened and requested lately."""

    def __init__(self, limits: Limits, now: Callable[[], float]) -> None:
        self.limits = limits
        self.refused: Counter[Reason] = Counter()
        self.closed_idle = 0
        self.without_descriptor = 0
        """How often a connection could not be accepted because no file descriptor was left."""
        self._now = now
        self._addresses: OrderedDict[str, _Address] = OrderedDict()
        self._idle: OrderedDict[ClientConnection, None] = OrderedDict()
        self._idle_vital: OrderedDict[ClientConnection, None] = OrderedDict()
        """Idle vital connections. They make room only for each other, since to end one makes no room for other connections."""
        self._open: set[ClientConnection] = set()
        self._vital = 0
        self.unsent = 0
        """Bytes of all answers that are being sent."""

    @property
    def connections(self) -> int:
        """The number of connections."""
        return len(self._open)

    @property
    def addresses(self) -> int:
        """The number of addresses that are remembered."""
        return len(self._addresses)

    def has(self, client: ClientConnection) -> bool:
        """Whether a connection is open: it has entered, and has neither left nor been ended."""
        return client in self._open

    def enter(self, client: ClientConnection) -> bool:
        """Adds a new connection; ends the longest idle one if there is no room. Returns False if the new one is refused."""
        address = self._address(client.host)
        limits = self.limits
        reason: Reason | None = None
        if not address.opened.take(
            self._now(), per_s=limits.connections_per_s, at_once=limits.connections_at_once
        ):
            reason = Reason.CONNECTION_RATE
        elif address.connections - address.vital >= limits.connections_of_address_max and not self._end_first(
            address.idle
        ):
            reason = Reason.ADDRESS_CONNECTIONS
        elif len(self._open) - self._vital >= limits.connections_max and not self._end_first(self._idle):
            reason = Reason.CONNECTIONS
        if reason is not None:
            # A connection beyond the rate does not replace another one: replacing connections is what keeps the loop busy.
            idle = OrderedDict() if reason is Reason.CONNECTION_RATE else self._idle_vital
            if self._vital >= limits.vital_connections_max and not self._end_first(idle):
                self.refused[reason] += 1
                return False
            client.vital = True
            self._vital += 1
            address.vital += 1
        self._open.add(client)
        address.connections += 1
        self.rest(client)
        return True

    def make_room(self) -> int:
        """Ends some of the connections that are idle, the longest idle first, since no descriptor is left. Returns how many."""
        self.without_descriptor += 1
        count = -(-(len(self._idle) + len(self._idle_vital)) // ROOM_SHARE)
        for _ in range(count):
            if not self._end_first(self._idle):
                self._end_first(self._idle_vital)
        return count

    def end(self) -> None:
        """Ends all open connections."""
        for client in list(self._open):
            client.end()

    def leave(self, client: ClientConnection) -> None:
        """Removes a connection that is closed or being closed."""
        if client not in self._open:
            return
        self.work(client)
        self._sent(client)
        self._open.discard(client)
        self._vital -= client.vital
        address = self._addresses[client.host]
        address.connections -= 1
        address.vital -= client.vital
        self._addresses.move_to_end(client.host)
        for _ in range(len(self._addresses) - ADDRESSES_MAX):
            host = next((host for host, each in self._addresses.items() if not each.connections), None)
            if host is None:
                break
            del self._addresses[host]

    def work(self, client: ClientConnection) -> None:
        """Marks a connection as busy: one of its requests is being answered."""
        if client in self._open:
            self._idle_of(client).pop(client, None)
            self._addresses[client.host].idle.pop(client, None)

    def rest(self, client: ClientConnection) -> None:
        """Marks a connection as idle: it waits for its next request."""
        self._sent(client)
        if client in self._open:
            self._idle_of(client)[client] = None
            if not client.vital:
                self._addresses[client.host].idle[client] = None

    def ask(self, client: ClientConnection, path: str) -> Reason | None:
        """Returns why a request is refused; None if it may be answered."""
        reason = self._refusal_reason(client, path)
        if reason is not None:
            self.refused[reason] += 1
        return reason

    def send(self, client: ClientConnection, size: int) -> None:
        """Counts an answer of `size` bytes as unsent, until the connection is idle or closed."""
        if client in self._open:
            self.unsent += size - client.unsent
            client.unsent = size

    def _sent(self, client: ClientConnection) -> None:
        self.unsent -= client.unsent
        client.unsent = 0

    def _refusal_reason(self, client: ClientConnection, path: str) -> Reason | None:
        if path not in VITAL:
            if client.vital:
                return Reason.CONNECTIONS
            limits = self.limits
            asked = self._address(client.host).asked
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

    def _idle_of(self, client: ClientConnection) -> OrderedDict[ClientConnection, None]:
        return self._idle_vital if client.vital else self._idle

    def _end_first(self, idle: OrderedDict[ClientConnection, None]) -> bool:
        if not idle:
            return False
        first = next(iter(idle))
        self.leave(first)
        self.closed_idle += 1
        first.end()
        return True


class LoopShare:
    """Turns of the event loop for requests: one at a time, with a pause after each that depends on how long it took.

    Addresses take turns, however many requests of each are waiting.
    """

    def __init__(self) -> None:
        self._waiting: OrderedDict[str, deque[asyncio.Future[None]]] = OrderedDict()
        self._free_at = 0.0
        self._taken = False

    async def turn(self, host: str) -> None:
        """Waits until a request of this address may be answered. At least one turn of the loop lies between two requests."""
        if self._taken:
            await self._wait(host)
        self._taken = True
        try:
            await asyncio.sleep(max(0.0, self._free_at - time.monotonic()))
        finally:
            self._next()

    def used(self, took_s: float) -> None:
        """Records that a request kept the loop busy for `took_s`."""
        self._free_at = time.monotonic() + min(PAUSE_S_MAX, PAUSE_FACTOR * took_s)

    async def _wait(self, host: str) -> None:
        mine: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(host, deque()).append(mine)
        try:
            await mine
        except asyncio.CancelledError:
            if mine.done() and not mine.cancelled():
                # The turn was given at the same moment, so it is passed on.
                self._next()
            raise

    def _next(self) -> None:
        """Gives the turn to the address that has waited longest since its last one."""
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
    """Three shares of the loop: for probes, for metrics, and for everything else."""

    def __init__(self) -> None:
        self._probes, self._metrics, self._others = LoopShare(), LoopShare(), LoopShare()

    def of(self, path: str) -> LoopShare:
        """Returns the share to which a path belongs."""
        if path in PROBES:
            return self._probes
        return self._metrics if path in VITAL else self._others


def host_of(peer: object) -> str:
    """Returns what counts as one address: an IPv4 address in its usual form, or the IPv6 network of a host."""
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
