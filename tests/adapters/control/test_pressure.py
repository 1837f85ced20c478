"""The daemon's own port under pressure: clients that send too much, too little or nothing, and what others notice of it."""

import asyncio
import gc
import json
import os
import re
import resource
import socket
import ssl
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

import pytest
import uvloop
from hypothesis import given, settings
from hypothesis import strategies as st

from adapters.control import server
from adapters.control.connections import HEADERS_MAX, LINE_BYTES_MAX
from adapters.control.entrance import Entrance
from adapters.control.pressure import (
    ADDRESSES_MAX,
    VITAL,
    ClientConnection,
    ClientConnections,
    Limits,
    LoopShare,
    Reason,
    host_of,
)
from adapters.control.settings import ApiSettings
from poller.config.field_types import Address
from poller.domain.status import DaemonStatus
from poller.output.log_fields import EVENT
from tests.adapters.control.mapping_control import MappingModel
from tests.adapters.control.serving import (
    LoopFactory,
    Page,
    Running,
    Setting,
    View,
    on_both_loops,
    on_loop,
    serving,
    validate,
)


@pytest.fixture(autouse=True)
def quick_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """Clients that take no answer hold up the end of the server for its whole patience."""
    monkeypatch.setattr(server, "CLOSE_S", 0.05)


GET = b"GET %s HTTP/1.1\r\nHost: h\r\n\r\n"
PROBE = GET % b"/healthz"
CLOSING = b"GET %s HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n"
ASK = GET % b"/v1/mappings"
FREE = Limits(requests_per_s=1e9, requests_at_once=1e9)
SMALL = Limits(connections_max=8, connections_of_address_max=6, vital_connections_max=2)


@dataclass
class Passes(View):
    """A view that counts how often it is asked in one pass of the loop."""

    most: int = 0
    asked: int = 0
    _in_this: int = 0

    def status(self) -> DaemonStatus:
        if not self._in_this:
            asyncio.get_running_loop().call_soon(self._over)
        self._in_this += 1
        self.asked += 1
        self.most = max(self.most, self._in_this)
        return self.now

    def _over(self) -> None:
        self._in_this = 0


@on_both_loops
def test_between_two_requests_the_loop_comes_round(loop_factory: LoopFactory) -> None:
    count = 300
    view = Passes()

    async def pipeline(run: Running) -> list[int]:
        async def one() -> int:
            reader, writer = await asyncio.open_connection(run.server.address.host, run.server.address.port)
            writer.write(
                ASK * count + GET.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n") % b"/readyz"
            )
            answers = (await reader.read()).count(b"HTTP/1.1 200 ")
            writer.close()
            return answers

        async with asyncio.TaskGroup() as tasks:
            asked = [tasks.create_task(one(), name=f"client {n}") for n in range(3)]
        return [task.result() for task in asked]

    assert serving(pipeline, Setting(view, loop_factory=loop_factory, limits=FREE)) == [count + 1] * 3
    assert view.asked == 3 * (count + 1)
    # One that asks for the status, and one probe.
    assert view.most <= 2


@on_both_loops
def test_behind_an_expensive_answer_the_loop_is_free_for_five_times_as_long(
    loop_factory: LoopFactory,
) -> None:
    class Slow(View):
        """A status that takes long to make."""

        def status(self) -> DaemonStatus:
            time.sleep(0.02)
            return self.now

    async def ask(run: Running) -> float:
        began = time.monotonic()
        await run.raw(ASK * 4 + GET.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n") % b"/v1/mappings")
        return time.monotonic() - began

    assert serving(ask, Setting(Slow(), loop_factory=loop_factory)) >= 5 * 0.02 + 4 * 0.1


@on_both_loops
@pytest.mark.parametrize("path", [b"/v1/mappings", b"/2015-03-31/event-source-mappings/", b"/nothing"])
def test_an_address_that_asks_too_much_gets_the_reason_and_its_connection_closed(
    loop_factory: LoopFactory, path: bytes
) -> None:
    async def ask(run: Running) -> tuple[bytes, int, int, bytes]:
        answers = await run.raw(GET % path * 20)
        # Probes and metrics are not counted.
        others = [(await run.get(other))[0] for other in ("/readyz", "/v1/openapi.json")]
        _, metrics, _ = await run.get("/metrics")
        return answers, *others, metrics

    limits = Limits(requests_per_s=0.001, requests_at_once=5)
    answers, probe, other, metrics = serving(ask, Setting(loop_factory=loop_factory, limits=limits))
    *_, last = answers.split(b"HTTP/1.1 ")[1:]
    assert answers.count(b"HTTP/1.1 ") == 6
    head, _, body = last.partition(b"\r\n\r\n")
    assert head.startswith(b"429 ")
    assert b"Retry-After: 1\r\n" in head
    assert b"Connection: close\r\n" in head
    message = json.loads(body)
    assert "Retry-After" in str(message)
    if not path.startswith(b"/2015"):
        validate(message, "Error")
    assert (probe, other) == (200, 429)
    assert b'poller_http_refused_total{limit="request_rate"} 2.0\n' in metrics


def test_an_address_may_ask_again_when_a_second_is_over() -> None:
    now = 0.0
    clients = ClientConnections(Limits(requests_per_s=10, requests_at_once=5), lambda: now)
    client = ClientConnection("a", lambda: None)
    assert clients.enter(client)
    first = [clients.ask(client, "/v1/mappings") for _ in range(6)]
    now = 0.25
    later = [clients.ask(client, "/v1/mappings") for _ in range(3)]
    assert first == [None] * 5 + [Reason.REQUEST_RATE]
    assert later == [None, None, Reason.REQUEST_RATE]


@on_both_loops
def test_three_hundred_silent_connections_lock_nobody_out(loop_factory: LoopFactory) -> None:
    async def use(run: Running) -> tuple[list[int], bytes]:
        host, port = run.server.address.host, run.server.address.port
        with ExitStack() as stack:
            for _ in range(300):
                silent = stack.enter_context(socket.socket())
                silent.setblocking(False)
                await asyncio.get_running_loop().sock_connect(silent, (host, port))
            found = [(await run.get(path))[0] for path in ("/healthz", "/readyz", "/v1/mappings")]
            return found, (await run.get("/metrics"))[1]

    found, metrics = serving(use, Setting(loop_factory=loop_factory))
    assert found == [200, 200, 200]
    # Of one address there are no more; the client's own is the last.
    assert b"poller_http_connections 64.0\n" in metrics
    assert b"poller_http_idle_closed_total 237.0\n" in metrics


@contextmanager
def descriptors_left(count: int) -> Iterator[None]:
    """This process may open so many more descriptors, and no further ones."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    lowest = os.dup(0)
    os.close(lowest)
    resource.setrlimit(resource.RLIMIT_NOFILE, (lowest + count, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@on_both_loops
@pytest.mark.parametrize("left", [2, 10])
def test_without_descriptors_the_longest_idle_connections_make_room_for_probes(
    loop_factory: LoopFactory, left: int, caplog: pytest.LogCaptureFixture
) -> None:
    async def use(run: Running) -> tuple[list[bytes], bytes]:
        loop = asyncio.get_running_loop()
        where = (run.server.address.host, run.server.address.port)
        await run.raw(CLOSING % b"/healthz")
        with ExitStack() as stack:
            sockets = [stack.enter_context(socket.socket()) for _ in range(60)]
            for each in sockets:
                each.setblocking(False)
            probes = [sockets.pop() for _ in range(3)]
            found = []
            with descriptors_left(left):
                for each in sockets:
                    await loop.sock_connect(each, where)
                for each in probes:
                    async with asyncio.timeout(5):
                        await loop.sock_connect(each, where)
                        await loop.sock_sendall(each, CLOSING % b"/healthz")
                        found.append((await loop.sock_recv(each, 4096))[:13])
        return found, (await run.get("/metrics"))[1]

    found, metrics = serving(use, Setting(loop_factory=loop_factory))
    assert found == [b"HTTP/1.1 200 "] * 3
    times = re.search(rb"\npoller_http_without_descriptor_total ([0-9.]+)\n", metrics)
    assert times is not None
    assert float(times[1]) >= 2
    lines = [each for each in caplog.records if getattr(each, EVENT, "") == "port_without_descriptor"]
    assert len(lines) == 1
    assert "Too many open files" in lines[0].getMessage()


@given(st.integers(0, 5_000))
def test_the_port_leaves_half_of_the_descriptors_to_the_daemon(count: int) -> None:
    most, found = Limits(), Limits().within(count)
    connections, vital = found.connections_max, found.vital_connections_max
    assert connections + vital <= max(2, count // 2)
    assert 1 <= connections <= most.connections_max
    assert 1 <= vital <= most.vital_connections_max
    # Four addresses at least share them.
    assert 1 <= found.connections_of_address_max <= max(1, connections // 4)
    assert (found == most) == (count // 2 >= most.connections_max + most.vital_connections_max)
    more = Limits().within(count + 1)
    assert more.connections_max + more.vital_connections_max >= connections + vital


type Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


async def answered(streams: Streams) -> bool:
    """Whether a probe over this connection is answered, which is then idle again."""
    reader, writer = streams
    try:
        writer.write(PROBE)
        head = await reader.readuntil(b"\r\n\r\n")
        await reader.readexactly(int(head.lower().partition(b"content-length: ")[2].split()[0]))
    except (OSError, asyncio.IncompleteReadError):
        return False
    return head.startswith(b"HTTP/1.1 200 ")


@on_both_loops
def test_the_longest_idle_connection_goes_first(loop_factory: LoopFactory) -> None:
    async def use(run: Running) -> list[bool]:
        where = (run.server.address.host, run.server.address.port)
        # The third stays silent; the second has its answer before the first.
        held = [await asyncio.open_connection(*where) for _ in range(3)]
        assert await answered(held[1])
        assert await answered(held[0])
        held += [await asyncio.open_connection(*where) for _ in range(2)]
        found = [await answered(each) for each in held]
        for _, writer in held:
            writer.close()
        return found

    limits = Limits(connections_max=3)
    found = serving(use, Setting(loop_factory=loop_factory, limits=limits))
    assert found == [True, False, False, True, True]


LARGE = (Page(b"a" * 6_000_000),)
"""More than the operating system keeps for a client."""


class Busy:
    """Connections that take no answer, so that they stay busy."""

    def __init__(self, address: Address, count: int) -> None:
        self._address = address
        self._count = count
        self._stack = ExitStack()

    async def __aenter__(self) -> None:
        for _ in range(self._count):
            sock = self._stack.enter_context(socket.socket())
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            sock.connect((self._address.host, self._address.port))
            sock.sendall(GET % b"/metrics" * 2)
        await asyncio.sleep(0.3)

    async def __aexit__(self, *_: object) -> None:
        self._stack.close()


@on_both_loops
def test_where_all_connections_are_busy_there_is_room_for_probes_and_nothing_else(
    loop_factory: LoopFactory,
) -> None:
    async def use(run: Running) -> tuple[list[int], bytes, bytes]:
        async with Busy(run.server.address, 5):
            vital = [(await run.get(path, headers={"Connection": "close"}))[0] for path in sorted(VITAL)]
            refused = await run.raw(ASK)
            return vital, refused, (await run.get("/metrics"))[1]

    limits = Limits(connections_max=5, vital_connections_max=1)
    setting = Setting(loop_factory=loop_factory, limits=limits, expositions=LARGE)
    vital, refused, metrics = serving(use, setting)
    assert vital == [200, 200, 200]
    head, _, body = refused.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 503 ")
    assert b"Retry-After: 5" in head
    validate(json.loads(body), "Error")
    assert b'poller_http_refused_total{limit="connections"} 1.0\n' in metrics


@on_both_loops
@pytest.mark.parametrize(
    "limits",
    [
        Limits(connections_of_address_max=4, vital_connections_max=0),
        Limits(connections_max=4, vital_connections_max=0),
    ],
)
def test_one_connection_too_many_gets_the_reason_and_the_others_go_on(
    loop_factory: LoopFactory, limits: Limits
) -> None:
    async def use(run: Running) -> tuple[bytes, bytes]:
        where = (run.server.address.host, run.server.address.port)
        async with Busy(run.server.address, 4):
            refused = await run.raw(b"")
        await asyncio.sleep(0.1)
        reader, writer = await asyncio.open_connection(*where)
        writer.write(PROBE)
        line = await reader.readline()
        writer.close()
        return refused, line

    refused, line = serving(use, Setting(loop_factory=loop_factory, limits=limits, expositions=LARGE))
    head, _, body = refused.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 503 ")
    assert f"Content-Length: {len(body)}".encode() in head
    validate(json.loads(body), "Error")
    assert line.startswith(b"HTTP/1.1 200 ")


@on_both_loops
def test_answers_that_nobody_takes_have_a_bound_in_all(loop_factory: LoopFactory) -> None:
    page = Page(b"a" * 3_000_000)

    async def use(run: Running) -> tuple[list[int], int]:
        host, port = run.server.address.host, run.server.address.port
        with ExitStack() as stack:
            for _ in range(8):
                sock = stack.enter_context(socket.socket())
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
                sock.connect((host, port))
                sock.sendall(GET % b"/metrics")
            await asyncio.sleep(0.5)
            found = [(await run.get(path))[0] for path in ("/healthz", "/metrics", "/v1/mappings")]
        await asyncio.sleep(0.2)
        return found, (await run.get("/v1/mappings"))[0]

    limits = Limits(unsent_bytes_max=5_000_000)
    found, after = serving(use, Setting(loop_factory=loop_factory, expositions=(page,), limits=limits))
    assert found == [200, 429, 429]
    assert after == 200


def test_an_address_that_opens_connections_too_fast_is_turned_away_until_time_has_passed() -> None:
    now = 0.0
    clients = ClientConnections(
        Limits(connections_per_s=10, connections_at_once=5, vital_connections_max=2), lambda: now
    )

    def come(host: str = "a") -> str:
        client = ClientConnection(host, lambda: None)
        if not clients.enter(client):
            return "refused"
        kind = "vital" if client.vital else "in"
        clients.work(client)
        if not client.vital:
            clients.leave(client)
        return kind

    first = [come() for _ in range(8)]
    other = come("b")
    now = 0.25
    later = [come() for _ in range(3)]
    assert first == ["in"] * 5 + ["vital"] * 2 + ["refused"]
    assert other == "in"
    assert later == ["in", "in", "refused"]
    assert clients.refused == {Reason.CONNECTION_RATE: 2}


@pytest.mark.parametrize("loop_factory", [asyncio.SelectorEventLoop])
def test_the_loop_takes_new_connections_in_parts(
    loop_factory: LoopFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A hundred that come at once, each as expensive as a millisecond, are not taken in one step."""
    steps: list[int] = []
    make = Entrance._admit
    take = Entrance._accept

    def welcome(entrance: Entrance, connection: socket.socket, peer: object) -> None:
        began = time.perf_counter()
        make(entrance, connection, peer)
        while time.perf_counter() - began < 0.001:
            pass
        steps[-1] += 1

    def counted(entrance: Entrance) -> None:
        steps.append(0)
        take(entrance)

    monkeypatch.setattr(Entrance, "_admit", welcome)
    monkeypatch.setattr(Entrance, "_accept", counted)

    async def use(run: Running) -> int:
        with ExitStack() as stack:
            for _ in range(100):
                client = stack.enter_context(socket.socket())
                client.connect((run.server.address.host, run.server.address.port))
            status, _, _ = await run.get("/healthz")
        return status

    assert serving(use, Setting(loop_factory=loop_factory)) == 200
    assert sum(steps) == 101
    assert max(steps) <= 5


@on_both_loops
@pytest.mark.parametrize("request_bytes", [b"", PROBE, ASK * 20], ids=["silent", "one", "pipelined"])
def test_a_connection_leaves_no_circles_behind(loop_factory: LoopFactory, request_bytes: bytes) -> None:
    """Those of thousands of connections would stop the loop for long when Python collects them."""

    async def use(run: Running) -> list[str]:
        async def come() -> None:
            reader, writer = await asyncio.open_connection(run.server.address.host, run.server.address.port)
            writer.write(request_bytes)
            if request_bytes:
                await reader.readline()
            writer.transport.abort()

        await come()
        await asyncio.sleep(0.1)
        gc.collect()
        gc.disable()
        try:
            for _ in range(10):
                await come()
            await asyncio.sleep(0.2)
            gc.set_debug(gc.DEBUG_SAVEALL)
            gc.collect()
            left = [type(each).__name__ for each in gc.garbage]
        finally:
            gc.set_debug(0)
            gc.garbage.clear()
            gc.enable()
        return [name for name in left if name in {"Connection", "ClientConnection", "RawRequestMessage"}]

    assert serving(use, Setting(loop_factory=loop_factory)) == []


type Misbehave = Callable[[socket.socket], None]


def says(text: bytes) -> Misbehave:
    """Says this and nothing more, and reads nothing."""
    return lambda sock: sock.sendall(text)


def bit_by_bit(sock: socket.socket) -> None:
    """Sends a request a byte at a time."""
    for byte in PROBE:
        sock.sendall(bytes([byte]))
        time.sleep(0.05)


def at_once_away(sock: socket.socket) -> None:
    """Is gone before it has said anything, and resets the connection."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0")
    sock.close()


def pipelines(sock: socket.socket) -> None:
    """Asks as fast as it can, and takes the answers."""

    def read() -> None:
        with suppress(OSError):
            while sock.recv(1 << 16):
                pass

    reading = threading.Thread(target=read)
    reading.start()
    with suppress(OSError):
        for _ in range(200):
            sock.sendall(ASK * 100)
    with suppress(OSError):
        sock.shutdown(socket.SHUT_RDWR)
    reading.join()


def shakes_hands(sock: socket.socket) -> None:
    """Begins TLS, of which this port has none."""
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).wrap_bio(incoming, outgoing, server_hostname="h")
    with suppress(ssl.SSLWantReadError):
        tls.do_handshake()
    sock.sendall(outgoing.read())


LONG_HEADER = b"X: " + b"a" * (LINE_BYTES_MAX - 100) + b"\r\n"
CLIENTS: dict[str, Misbehave] = {
    "silent": says(b""),
    "half a line": says(b"GET /hea"),
    "half the headers": says(PROBE[:-2]),
    "no end of headers": says(PROBE[:-2] + LONG_HEADER * (HEADERS_MAX - 2)),
    "too many headers": says(PROBE[:-2] + b"X: y\r\n" * 10_000),
    "a line without end": says(b"GET /" + b"a" * 1_000_000),
    "many requests with long headers": says((PROBE[:-2] + LONG_HEADER * 20 + b"\r\n") * 20),
    "half a body": says(b"POST /v1/mappings/x/state HTTP/1.1\r\nHost: h\r\nContent-Length: 100\r\n\r\n{"),
    "half a chunk": says(
        b"POST /v1/mappings HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n100000\r\nab"
    ),
    "reads nothing": says(GET % b"/v1/openapi.json" * 40),
    "not HTTP": says(bytes(range(256)) * 100),
    "a byte at a time": bit_by_bit,
    "away at once": at_once_away,
    "pipelines": pipelines,
    "TLS": shakes_hands,
}


@contextmanager
def besieged(address: Address, misbehave: Misbehave, count: int) -> Iterator[None]:
    """So many clients of another address that come again as soon as they are sent away, each in a thread."""
    where = (address.host, address.port)
    over = threading.Event()

    def client() -> None:
        while not over.is_set():
            with (
                suppress(OSError),
                socket.create_connection(where, timeout=0.3, source_address=("127.0.0.2", 0)) as sock,
            ):
                misbehave(sock)
                with suppress(ValueError):
                    over.wait(0.05)
                    while not over.is_set() and sock.fileno() >= 0 and _is_open(sock):
                        over.wait(0.05)

    threads = [threading.Thread(target=client) for _ in range(count)]
    for each in threads:
        each.start()
    try:
        yield
    finally:
        over.set()
        for each in threads:
            each.join()


def _is_open(sock: socket.socket) -> bool:
    """Looks without taking anything out of the socket."""
    try:
        return sock.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT) != b""
    except BlockingIOError:
        return True


@pytest.mark.parametrize("kind", CLIENTS)
def test_probes_are_answered_beside_any_clients(kind: str) -> None:
    def descriptors() -> int:
        return len(os.listdir("/proc/self/fd"))

    async def use(run: Running) -> tuple[list[int], int, int]:
        async def probe(path: str) -> int:
            reader, writer = await asyncio.open_connection(run.server.address.host, run.server.address.port)
            writer.write(GET % path.encode())
            line = await reader.readline()
            writer.close()
            return int(line.split()[1]) if line else 0

        # uvloop opens a descriptor for itself with the first connection.
        assert await probe("/healthz") == 200
        before = descriptors()
        with besieged(run.server.address, CLIENTS[kind], 10):
            await asyncio.sleep(0.2)
            found = []
            for path in ("/healthz", "/readyz", "/metrics"):
                async with asyncio.timeout(20.0):
                    found.append(await probe(path))
            most = descriptors() - before
        # All of the clients have gone.
        for _ in range(500):
            if descriptors() <= before:
                break
            await asyncio.sleep(0.01)
        return found, most, descriptors() - before

    # More come than their address may have, so that they are in each other's way.
    limits = Limits(connections_max=12, connections_of_address_max=6, vital_connections_max=4)
    found, most, left = serving(use, Setting(loop_factory=uvloop.new_event_loop, limits=limits))
    assert found == [200, 200, 200]
    # Ten clients, the server's side of them and of the probe, and what is on its way out.
    assert most <= 50
    assert left <= 0


def test_addresses_take_turns_however_many_requests_one_of_them_has() -> None:
    async def use() -> list[str]:
        share = LoopShare()
        served: list[str] = []

        async def ask(host: str) -> None:
            await share.turn(host)
            served.append(host)

        async with asyncio.TaskGroup() as tasks:
            many = [tasks.create_task(ask("many"), name="many") for _ in range(50)]
            tasks.create_task(ask("one"), name="one")
            tasks.create_task(ask("two"), name="two")
            # Some give up while they wait.
            await asyncio.sleep(0)
            for each in many[10:20]:
                each.cancel()
        return served

    served = on_loop(asyncio.SelectorEventLoop, use())
    assert served[:4] in (["many", "many", "one", "two"], ["many", "one", "two", "many"])
    assert len(served) == 42


@contextmanager
def bad_clients(address: Address, count: int) -> Iterator[None]:
    """So many clients of each of four kinds, in a process of their own."""
    given = [address.host, str(address.port), str(count)]
    with subprocess.Popen(
        [sys.executable, "-m", "tests.adapters.control.bad_clients", *given],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as process:
        assert process.stdout is not None
        try:
            assert process.stdout.readline() == b"begun\n"
            yield
        finally:
            process.kill()


PROBE_S_MAX = 1.0
"""Ten times what a probe takes beside bad clients on a machine that has nothing else to do."""
TRIES = 3
"""Other processes make probes slower at times. A queue of connections that overflows does so in each try."""


def test_probes_are_answered_while_clients_of_four_kinds_come_again_and_again() -> None:
    """The queue of new connections does not overflow: a probe that is dropped there comes again after a second at the earliest."""

    async def use(run: Running) -> tuple[list[bytes], list[float]]:
        found, took = [], []
        with bad_clients(run.server.address, 40):
            await asyncio.sleep(1.0)
            for path in ("/healthz", "/readyz", "/metrics") * 7:
                began = time.monotonic()
                found.append((await run.raw(CLOSING % path.encode()))[:13])
                took.append(time.monotonic() - began)
        return found, took

    setting = Setting(
        loop_factory=uvloop.new_event_loop, expositions=(Page(b"a 1\n" * 20_000),), patience_s=60.0
    )
    medians: list[float] = []
    while len(medians) < TRIES and min(medians, default=PROBE_S_MAX) >= PROBE_S_MAX:
        found, took = serving(use, setting)
        assert found == [b"HTTP/1.1 200 "] * 21
        medians.append(statistics.median(took))
    assert min(medians) < PROBE_S_MAX, medians


@dataclass
class Model:
    """What `ClientConnections` is to do, in the plainest way."""

    limits: Limits
    clients: ClientConnections = field(init=False)
    ended: list[ClientConnection] = field(default_factory=list)
    idle: list[ClientConnection] = field(default_factory=list)
    busy: list[ClientConnection] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.clients = ClientConnections(self.limits, lambda: 0.0)

    def enter(self, host: str) -> None:
        client = ClientConnection(host, lambda: self.ended.append(client))
        of_host = [each for each in self.idle + self.busy if each.host == host and not each.vital]
        ordinary = [each for each in self.idle + self.busy if not each.vital]
        expected: list[ClientConnection] = []
        full = False
        if len(of_host) >= self.limits.connections_of_address_max:
            expected = [each for each in self.idle if each.host == host and not each.vital][:1]
            full = not expected
        left = [each for each in ordinary if each not in expected]
        if not full and len(left) >= self.limits.connections_max:
            more = [each for each in self.idle if each not in expected and not each.vital][:1]
            full = not more
            expected += more
        vital = sum(each.vital for each in self.idle + self.busy if each not in expected)
        refused = full and vital >= self.limits.vital_connections_max
        # The clock stands still, so that no address comes too fast.
        if refused and (first := [each for each in self.idle if each.vital][:1]):
            # One that is for probes makes room for another such only.
            expected += first
            refused = False
        before = len(self.ended)
        assert self.clients.enter(client) is not refused
        assert self.ended[before:] == expected
        for each in expected:
            self.idle.remove(each)
        assert client.vital is (full and not refused)
        if not refused:
            self.idle.append(client)


STEPS = st.lists(
    st.tuples(
        st.sampled_from(["enter", "enter", "work", "work", "rest", "leave", "send"]), st.integers(0, 9)
    ),
    max_size=60,
)


@given(STEPS)
@settings(max_examples=100, deadline=None)
def test_whoever_comes_finds_room_as_long_as_somebody_is_idle(steps: Sequence[tuple[str, int]]) -> None:
    limits = Limits(connections_max=4, connections_of_address_max=3, vital_connections_max=2)
    model = Model(limits)
    clients = model.clients
    for what, number in steps:
        match what:
            case "enter":
                model.enter(f"host {number % 3}")
            case "work" if model.idle:
                client = model.idle.pop(number % len(model.idle))
                model.busy.append(client)
                clients.work(client)
            case "rest" if model.busy:
                client = model.busy.pop(number % len(model.busy))
                model.idle.append(client)
                clients.rest(client)
            case "send" if model.busy:
                clients.send(model.busy[number % len(model.busy)], number)
            case "leave" if model.idle or model.busy:
                of = model.idle or model.busy
                clients.leave(of.pop(number % len(of)))
        assert clients.connections == len(model.idle) + len(model.busy)
        ordinary = [each for each in model.idle + model.busy if not each.vital]
        assert len(ordinary) <= limits.connections_max
        assert clients.connections - len(ordinary) <= limits.vital_connections_max
        for host in {each.host for each in ordinary}:
            assert sum(each.host == host for each in ordinary) <= limits.connections_of_address_max
    for client in (*model.idle, *model.busy, *model.ended):
        clients.leave(client)
        clients.rest(client)
    assert (clients.connections, clients.unsent) == (0, 0)


def test_addresses_that_have_gone_are_forgotten_at_a_limit() -> None:
    clients = ClientConnections(Limits(), lambda: 0.0)
    for number in range(3 * ADDRESSES_MAX):
        client = ClientConnection(f"10.0.{number >> 8}.{number & 255}", lambda: None)
        assert clients.enter(client)
        assert clients.ask(client, "/") is None
        clients.leave(client)
    assert clients.addresses <= ADDRESSES_MAX


@pytest.mark.parametrize(
    ("peer", "host"),
    [
        (("10.1.2.3", 80), "10.1.2.3"),
        (("::ffff:10.1.2.3", 80, 0, 0), "10.1.2.3"),
        (("2001:db8:1:2:3:4:5:6", 80, 0, 0), "2001:db8:1:2::/64"),
        (("2001:db8:1:2:ffff::1", 80, 0, 0), "2001:db8:1:2::/64"),
        (("fe80::1%eth0", 80, 0, 2), "fe80::/64"),
        (("::1", 80, 0, 0), "::/64"),
        ("", ""),
        (None, ""),
    ],
)
def test_one_host_is_one_address(peer: Any, host: str) -> None:
    assert host_of(peer) == host


LENGTHS: dict[str, tuple[bytes, int]] = {
    "one byte too many": (b"Content-Length: 1048577", 413),
    "a hundred terabytes": (b"Content-Length: 99999999999999", 413),
    "the largest that can be": (b"Content-Length: 18446744073709551615", 413),
    "more than can be": (b"Content-Length: 18446744073709551616", 400),
    "a thousand digits": (b"Content-Length: " + b"9" * 1000, 400),
    "negative": (b"Content-Length: -1", 400),
    "with a sign": (b"Content-Length: +1", 400),
    "no number": (b"Content-Length: ten", 400),
    "hexadecimal": (b"Content-Length: 0x10", 400),
    "a fraction": (b"Content-Length: 1.5", 400),
    "empty": (b"Content-Length:", 400),
    "two numbers": (b"Content-Length: 1, 2", 400),
    "one number twice": (b"Content-Length: 1, 1", 400),
    "twice": (b"Content-Length: 5\r\nContent-Length: 5", 400),
    "twice, and different": (b"Content-Length: 5\r\nContent-Length: 6", 400),
    "beside chunks": (b"Content-Length: 5\r\nTransfer-Encoding: chunked", 400),
    "a chunk that is too long": (b"Transfer-Encoding: chunked\r\n\r\nffffffffffffffffff", 400),
}


@pytest.mark.parametrize(
    "target", [b"PUT /2015-03-31/event-source-mappings/x", b"POST /v1/mappings/x/enable"]
)
@pytest.mark.parametrize(("length", "status"), LENGTHS.values(), ids=LENGTHS)
def test_a_body_that_cannot_be_is_refused_before_it_comes(length: bytes, status: int, target: bytes) -> None:
    async def use(run: Running) -> bytes:
        reader, writer = await asyncio.open_connection(run.server.address.host, run.server.address.port)
        writer.write(target + b" HTTP/1.1\r\nHost: h\r\n" + length + b"\r\n\r\n")
        head = await reader.readuntil(b"\r\n\r\n")
        writer.close()
        return head

    api = ApiSettings(allow_unauthenticated=True, allowed_hosts=("h",))
    head = serving(use, Setting(api=api, control=MappingModel(), patience_s=60.0))
    version, found, *_ = head.split()
    # A server that waits for such a body answers 503 in the end.
    assert int(found) == status
    # What cannot be read at all is answered as HTTP/1.0, which closes by itself.
    assert version == b"HTTP/1.0" or b"Connection: close\r\n" in head
