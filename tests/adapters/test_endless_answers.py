"""Servers that never come to their answer, or bring it in very small pieces: each call ends, and no step of the loop is long."""

import asyncio
import socket
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass, replace
from typing import Any

import pytest

from adapters.aws.clients import client, mapped
from adapters.aws.request_templates import FastOperation
from adapters.bounded_answers import INTERIM_MAX, PIECE_BYTES, TOO_MANY, TOO_MUCH
from adapters.destinations import http as webhook
from adapters.invokers.http import open_http
from adapters.invokers.http_settings import HttpSettings
from poller.domain.errors import ServiceUnavailable
from poller.domain.invocations import FunctionError, Outcome, Succeeded, TimedOut
from poller.testing.destination import notice
from poller.testing.invoker import invocation
from tests.adapters.answers import environment
from tests.adapters.aws.test_request_templates import ARN, without_the_library
from tests.bounds.loop_steps import longest_step

pytestmark = pytest.mark.usefixtures("account")

STEP_S_MAX = 0.05
TRIES = 3
"""A step that is really long is long each time."""
TIMEOUT_S = 10.0
PATIENCE_S = 20.0
CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
HINTS = b"HTTP/1.1 103 Early Hints\r\nLink: </a>; rel=preload\r\n\r\n"
SHORT = b"HTTP/1.1 199\r\n\r\n"
LEARNS = b"learns"
LEARNT = b'HTTP/1.1 200 OK\r\nContent-Length: 14\r\n\r\n{"Records":[]}'
ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}"
CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"


@dataclass(frozen=True, slots=True)
class Flood:
    """What a server sends: a beginning, then something again and again, for so many times or without end, then an end."""

    begins: bytes
    repeats: bytes
    times: int | None = None
    ends: bytes = b""
    pause_s: float = 0.0

    def send(self, sock: socket.socket) -> None:
        """Sends it until the client is gone."""
        sock.sendall(self.begins)
        # The client has seen the beginning when the rest comes.
        time.sleep(self.pause_s)
        many = 1 + 1_000_000 // len(self.repeats)
        if self.times is not None:
            sock.sendall(self.repeats * self.times + self.ends)
            return
        while True:
            sock.sendall(self.repeats * many)


INTERIM: dict[str, Flood] = {
    "continue without end": Flood(b"", CONTINUE),
    "hints without end": Flood(b"", HINTS),
    "the shortest without end": Flood(b"", SHORT),
    "continue and hints in turn": Flood(b"", CONTINUE + HINTS),
    "a hundred thousand in one go": Flood(b"", CONTINUE, 100_000, ANSWER),
    "one too many": Flood(b"", CONTINUE, INTERIM_MAX + 1, ANSWER),
}
BROKEN: dict[str, Flood] = {
    "blank lines before the head": Flood(b"", b"\r\n"),
    "one reason": Flood(b"HTTP/1.1 200 ", b"a"),
    "one header's name": Flood(b"HTTP/1.1 200 OK\r\n", b"a"),
    "one header's value": Flood(b"HTTP/1.1 200 OK\r\nX: ", b"a"),
    "headers": Flood(b"HTTP/1.1 200 OK\r\n", b"a:\r\n"),
    "long headers": Flood(b"HTTP/1.1 200 OK\r\n", b"a: " + b"b" * 8000 + b"\r\n"),
    "headers of an interim answer": Flood(b"HTTP/1.1 103 Early Hints\r\n", b"a:\r\n"),
    "trailers": Flood(CHUNKED + b"2\r\n{}\r\n0\r\n", b"a:\r\n"),
    "one trailer": Flood(CHUNKED + b"2\r\n{}\r\n0\r\na: ", b"a"),
    "a chunk's size": Flood(CHUNKED, b"0"),
    "a chunk's extension": Flood(CHUNKED + b"2;", b"a"),
    "a chunk's extensions": Flood(CHUNKED + b"2", b";a=b"),
    "a chunk's quoted extension": Flood(CHUNKED + b'2;a="', b"a"),
}
BROKEN |= {f"{name}, later": replace(each, pause_s=0.1) for name, each in BROKEN.items() if each.begins}
SMALL: dict[str, Flood] = {
    "chunks of one byte": Flood(CHUNKED, b"1\r\n{\r\n", 100_000, b"0\r\n\r\n"),
    "chunks with extensions": Flood(CHUNKED, b"1;a=b;c=d\r\n{\r\n", 100_000, b"0\r\n\r\n"),
    "answers": Flood(b"", ANSWER),
    "empty answers": Flood(b"", b"HTTP/1.1 204\r\n\r\n"),
}
FINE: dict[str, Flood] = {
    "as many interim answers as may be": Flood(b"", CONTINUE, INTERIM_MAX, ANSWER),
    "an answer in chunks of one byte": Flood(CHUNKED, b"1\r\n{\r\n", 50_000, b"0\r\n\r\n"),
    "one long chunk": Flood(CHUNKED + b"%x\r\n" % 3_000_000, b"{", 3_000_000, b"\r\n0\r\n\r\n"),
    "a long answer": Flood(b"HTTP/1.1 200 OK\r\nContent-Length: 3000000\r\n\r\n", b"{", 3_000_000),
    "an answer of one piece": Flood(
        b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % PIECE_BYTES, b"{", PIECE_BYTES
    ),
    "an answer until the connection ends": Flood(b"HTTP/1.0 200 OK\r\n\r\n", b"{", 3_000_000),
}


def read(sock: socket.socket) -> bytes:
    """A request with its body."""
    request = b""
    while b"\r\n\r\n" not in request:
        request += sock.recv(65536) or b"\r\n\r\n"
    head, _, body = request.partition(b"\r\n\r\n")
    length = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0] or 0)
    while len(body) < length:
        body += sock.recv(65536) or b" " * length
    return head + body


@contextmanager
def flooding(flood: Flood) -> Iterator[str]:
    """A server in a thread that sends `flood` to whatever is asked, and closes; yields its URL."""
    over = threading.Event()

    def serve(sock: socket.socket) -> None:
        with suppress(OSError), sock:
            sock.settimeout(PATIENCE_S)
            while LEARNS in read(sock):
                sock.sendall(LEARNT)
            flood.send(sock)

    def accept() -> None:
        while not over.is_set():
            with suppress(TimeoutError):
                found, _ = listener.accept()
                threads.append(threading.Thread(target=serve, args=(found,)))
                threads[-1].start()

    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(0.05)
        threads = [threading.Thread(target=accept)]
        threads[0].start()
        try:
            yield "http://127.0.0.1:{}".format(*listener.getsockname()[1:])
        finally:
            over.set()
            for each in threads:
                each.join()


@asynccontextmanager
async def function(url: str) -> AsyncIterator[Callable[[], Awaitable[Outcome]]]:
    """Calls a function there."""
    settings = HttpSettings(function="orders", url=url)
    async with environment(None) as env, open_http(settings, env) as invoker:
        yield lambda: invoker.invoke(invocation({}, timeout_s=TIMEOUT_S))


@asynccontextmanager
async def destination(url: str) -> AsyncIterator[Callable[[], Awaitable[None]]]:
    """Delivers a notice there."""
    async with environment(None) as env, webhook.open_http(webhook.HttpSettings(arn=url), env) as found:
        yield lambda: found.send(notice())


@asynccontextmanager
async def by_the_library(url: str) -> AsyncIterator[Callable[[], Awaitable[Any]]]:
    """Asks AWS there."""

    async def ask() -> None:
        with mapped("kinesis ListShards"):
            await aws.list_shards(StreamName="s")

    async with environment(url) as env:
        aws = await client(env, "kinesis", "eu-west-1", read_s_max=TIMEOUT_S)
        yield ask


@asynccontextmanager
async def by_hand(url: str) -> AsyncIterator[Callable[[], Awaitable[Any]]]:
    """Asks AWS there by a request that is written out already."""

    async def ask(iterator: str = "here") -> None:
        with mapped("kinesis GetRecords"):
            await hot({"StreamARN": ARN, "ShardIterator": iterator, "Limit": 10})

    async with environment(url) as env:
        aws = await client(env, "kinesis", "eu-west-1", read_s_max=TIMEOUT_S)
        hot = FastOperation(aws, "GetRecords", named="StreamARN")
        # The first request goes by the library, and learns.
        await ask(LEARNS.decode())
        with without_the_library():
            yield ask


type Caller = Callable[[str], Any]
CALLERS: dict[str, Caller] = {
    "function": function,
    "destination": destination,
    "AWS": by_the_library,
    "AWS by hand": by_hand,
}


@dataclass(frozen=True, slots=True)
class Told:
    """How a call ended, in how long, and its longest step."""

    result: object
    seconds: float
    step_s: float


def told(flood: Flood, caller: Caller) -> Told:
    """One call."""

    async def run(url: str) -> tuple[object, float]:
        async with asyncio.timeout(PATIENCE_S), caller(url) as call:
            began = time.monotonic()
            try:
                return await call(), time.monotonic() - began
            except ServiceUnavailable as error:
                return error, time.monotonic() - began

    with flooding(flood) as url, longest_step() as longest:
        result, seconds = asyncio.run(run(url))
    return Told(result, seconds, longest.seconds)


def in_short_steps(flood: Flood, caller: Caller) -> Told:
    """One call, none of whose steps is long."""
    tries = [told(flood, caller)]
    while tries[-1].step_s >= STEP_S_MAX:
        assert len(tries) < TRIES, f"steps of {[round(each.step_s, 3) for each in tries]} s"
        tries.append(told(flood, caller))
    return tries[-1]


@pytest.mark.parametrize("flood", (INTERIM | BROKEN).values(), ids=INTERIM | BROKEN)
@pytest.mark.parametrize("caller", CALLERS.values(), ids=CALLERS)
def test_a_server_that_does_not_come_to_its_answer_has_not_answered(caller: Caller, flood: Flood) -> None:
    found = in_short_steps(flood, caller)
    if caller is destination and found.result is None:
        # Its status is the answer, whatever comes behind.
        assert flood in BODIES
    elif caller is function:
        assert isinstance(found.result, FunctionError)
        assert found.result.error_type == "Http.NoAnswer"
        assert flood not in INTERIM.values() or found.result.message.endswith(TOO_MANY)
    else:
        assert isinstance(found.result, ServiceUnavailable)
    assert found.seconds < TIMEOUT_S


BODIES = [each for each in BROKEN.values() if each.begins.startswith(CHUNKED)]


def test_blank_lines_are_reported() -> None:
    found = in_short_steps(BROKEN["blank lines before the head"], function)
    assert isinstance(found.result, FunctionError)
    assert found.result.message.endswith(TOO_MUCH)


@pytest.mark.parametrize("flood", SMALL.values(), ids=SMALL)
@pytest.mark.parametrize("caller", CALLERS.values(), ids=CALLERS)
def test_small_pieces_are_read_in_short_steps(caller: Caller, flood: Flood) -> None:
    found = in_short_steps(flood, caller)
    assert not isinstance(found.result, TimedOut)


@pytest.mark.parametrize("flood", FINE.values(), ids=FINE)
def test_what_is_an_answer_is_taken_as_one(flood: Flood) -> None:
    found = in_short_steps(flood, function)
    count = flood.times if not flood.repeats.startswith(CONTINUE) else None
    assert found.result == Succeeded(b"{" * count if count else b"{}")
