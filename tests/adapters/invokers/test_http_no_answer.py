"""Servers that take a request and do not answer it: the function's failure, unless a kept connection had just been closed."""

import asyncio
import json
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest

from adapters.demo.processes import free_port
from adapters.invokers.http import HttpInvoker, open_http
from adapters.invokers.http_settings import HttpSettings
from poller.domain.invocations import FunctionError, Outcome, Succeeded, TimedOut, Unreachable
from poller.testing.invoker import invocation
from tests.contracts.invokers import environment
from tests.hostile_texts import fit

FINE = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"

type Act = Callable[["Server", asyncio.StreamWriter, int], Awaitable[bool]]
"""What a server does with a poison; gets the request's number on its connection; whether the connection goes on."""


@dataclass
class Server:
    """Answers requests, keeps connections, and does something else with an event that is a poison."""

    poisoned: Act
    port: int = field(default_factory=free_port)
    seen: list[str] = field(default_factory=list)
    """What each request did, and the number that it had on its connection."""
    _server: asyncio.Server | None = None
    _writers: set[asyncio.StreamWriter] = field(default_factory=set)

    async def start(self) -> None:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self.port)

    async def die(self) -> None:
        """Takes no more connections, and drops those that there are."""
        assert self._server is not None
        self._server.close()
        for writer in self._writers:
            writer.transport.abort()
        self._writers.clear()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.add(writer)
        number = 0
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                number += 1
                length = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
                event = json.loads(await reader.readexactly(length))
                self.seen.append(f"{event['do']} {number}")
                if event["do"] == "fine":
                    writer.write(FINE)
                elif not await self.poisoned(self, writer, number):
                    break
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()


@asynccontextmanager
async def serving(poisoned: Act, **given: Any) -> AsyncIterator[tuple[Server, HttpInvoker]]:
    """A server that runs, and an invoker for it."""
    server = Server(poisoned)
    await server.start()
    settings = HttpSettings.model_validate(
        {"function": "orders", "url": f"http://127.0.0.1:{server.port}/secret?key=secret", **given}
    )
    async with environment() as env, open_http(settings, env) as invoker:
        try:
            yield server, invoker
        finally:
            await server.die()


def played(
    poisoned: Act, *calls: str, timeout_s: float = 5.0, **given: Any
) -> tuple[list[Outcome], list[str]]:
    """The outcomes of calls one after another, and what the server saw."""

    async def run() -> tuple[list[Outcome], list[str]]:
        async with serving(poisoned, **given) as (server, invoker):
            outcomes = [await invoker.invoke(invocation({"do": each}, timeout_s=timeout_s)) for each in calls]
        return outcomes, server.seen

    return asyncio.run(run())


def sends(data: bytes, *, reset: bool = False) -> Act:
    """Sends `data`, and ends the connection."""

    async def act(server: Server, writer: asyncio.StreamWriter, number: int) -> bool:
        writer.write(data)
        await writer.drain()
        if reset:
            writer.transport.abort()
        return False

    return act


BROKEN: dict[str, tuple[Act, str]] = {
    "nothing": (sends(b""), "the connection was closed without an answer"),
    "reset": (sends(b"", reset=True), "the connection "),
    "half a head": (sends(b"HTTP/1.1 200 OK\r\nContent-"), "the connection was closed without an answer"),
    "cut": (
        sends(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf"),
        "the answer broke off or cannot be read",
    ),
    "reset in the middle": (
        sends(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf", reset=True),
        "the ",
    ),
    "cut chunk": (
        sends(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhal"),
        "the answer broke off or cannot be read",
    ),
    "broken chunk": (
        sends(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nnonsense\r\n"),
        "the answer is no HTTP: ",
    ),
    "broken encoding": (
        sends(b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 4\r\n\r\nhalf"),
        "the answer broke off or cannot be read",
    ),
    "another protocol": (sends(b"SSH-2.0-OpenSSH\r\n"), "the answer is no HTTP: "),
    "control characters": (sends(b"\x1b[31m\xff\0\r\n\r\n"), "the answer is no HTTP: "),
}
every = pytest.mark.parametrize(("act", "how"), BROKEN.values(), ids=BROKEN.keys())


@every
def test_a_server_that_takes_a_request_and_does_not_answer_has_failed(act: Act, how: str) -> None:
    [outcome], seen = played(act, "poison")
    assert isinstance(outcome, FunctionError)
    assert outcome.error_type == "Http.NoAnswer"
    assert outcome.message.startswith("after the request was sent to 127.0.0.1:")
    assert how in outcome.message
    assert "secret" not in outcome.message
    assert fit(outcome.message)
    # The library's parser points at a place with a line of its own.
    assert not outcome.message.endswith("^")
    assert seen == ["poison 1"]


@every
def test_a_setting_makes_it_unreachable(act: Act, how: str) -> None:
    outcomes, seen = played(act, "fine", "poison", on_no_answer="unreachable")
    assert isinstance(outcomes[1], Unreachable)
    assert how in outcomes[1].reason
    assert seen == ["fine 1", "poison 2"]


async def closes_kept(server: Server, writer: asyncio.StreamWriter, number: int) -> bool:
    """Closes a connection that was kept; answers on a new one."""
    if number == 1:
        writer.write(FINE)
    return number == 1


async def resets_kept(server: Server, writer: asyncio.StreamWriter, number: int) -> bool:
    """Like `closes_kept`, with a reset."""
    if number > 1:
        writer.transport.abort()
        return False
    writer.write(FINE)
    return True


@pytest.mark.parametrize("act", [closes_kept, resets_kept])
def test_a_kept_connection_that_had_just_been_closed_is_no_failure(act: Act) -> None:
    outcomes, seen = played(act, "fine", "poison", "fine")
    assert outcomes == [Succeeded(b"ok")] * 3
    assert seen == ["fine 1", "poison 2", "poison 1", "fine 1"]


@every
def test_on_a_kept_connection_a_poison_is_sent_twice_at_most(act: Act, how: str) -> None:
    outcomes, seen = played(act, "fine", "poison")
    assert outcomes[0] == Succeeded(b"ok")
    assert isinstance(outcomes[1], FunctionError)
    assert seen[:2] == ["fine 1", "poison 2"]
    assert seen[2:] in ([], ["poison 1"])


def test_a_poison_that_kills_a_server_which_is_started_again_uses_up_retries() -> None:
    async def kills(server: Server, writer: asyncio.StreamWriter, number: int) -> bool:
        await server.die()
        return False

    async def run() -> list[list[type[Outcome]]]:
        rounds: list[list[type[Outcome]]] = []
        async with serving(kills) as (server, invoker):
            for _ in range(3):
                calls = [{"do": "fine"}, {"do": "poison"}, {"do": "fine"}]
                rounds.append([type(await invoker.invoke(invocation(each))) for each in calls])
                await server.start()
        return rounds

    first, *others = asyncio.run(run())
    assert first == [Succeeded, Unreachable, Unreachable]
    assert others == [[Succeeded, FunctionError, Unreachable]] * 2


def test_a_server_that_is_silent_on_a_kept_connection_has_timed_out() -> None:
    async def waits(server: Server, writer: asyncio.StreamWriter, number: int) -> bool:
        await asyncio.sleep(5)
        return False

    outcomes, seen = played(waits, "fine", "poison", timeout_s=1.0)
    assert outcomes == [Succeeded(b"ok"), TimedOut(1.0)]
    assert seen == ["fine 1", "poison 2"]


def test_the_second_request_has_what_is_left_of_the_time() -> None:
    async def slowly(server: Server, writer: asyncio.StreamWriter, number: int) -> bool:
        await asyncio.sleep(0.3)
        if number > 1:
            return False
        await asyncio.sleep(9)
        return False

    outcomes, seen = played(slowly, "fine", "poison", timeout_s=1.5)
    assert outcomes[1] == TimedOut(1.5)
    assert seen == ["fine 1", "poison 2", "poison 1"]


@pytest.mark.parametrize("seed", range(60))
def test_whatever_a_server_sends_is_an_outcome(seed: int) -> None:
    rng = random.Random(seed)
    whole = rng.choice(
        [
            b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
            b"HTTP/1.0 500 No\r\nContent-Type: text/html\r\n\r\n<b>no</b>",
            b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
            b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n",
            b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nSet-Cookie: a=b\r\nRetry-After: \xff\r\n\r\nx",
        ]
    )
    data = bytearray(whole)
    for _ in range(rng.randrange(6)):
        place = rng.randrange(len(data))
        match rng.randrange(4):
            case 0:
                data[place] = rng.randrange(256)
            case 1:
                del data[place : place + rng.randrange(8)]
            case 2:
                data[place:place] = rng.randbytes(rng.randrange(20))
            case _:
                data[place:place] = rng.choice([b"\r\n", b"\r\n\r\n", b"\0", b"9" * 30, b": "])
        if not data:
            break
    outcomes, _ = played(sends(bytes(data), reset=rng.random() < 0.3), "fine", "poison", timeout_s=3.0)
    assert outcomes[0] == Succeeded(b"ok")
    assert isinstance(outcomes[1], (Succeeded, FunctionError, Unreachable, TimedOut))
