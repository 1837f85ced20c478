"""Answers whose body does not end, or comes very slowly: of a service, and of each place that gives out credentials."""

import asyncio
import socket
import time
from collections.abc import Awaitable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from adapters import bounded_answers
from adapters.aws.clients import client, mapped
from adapters.bounded_answers import (
    BODY_BYTES_MAX,
    CREDENTIALS_BYTES_MAX,
    TOO_LONG,
    TOO_SLOW,
    TOO_SLOW_HEAD,
    BoundedAnswers,
)
from poller.domain.errors import PortError, ServiceUnavailable
from poller.plugins import Environment
from tests.adapters.answers import environment
from tests.adapters.test_endless_answers import (
    ANSWER,
    CHUNKED,
    CONTINUE,
    Caller,
    Flood,
    by_hand,
    by_the_library,
    flooding,
)
from tests.virtual import run_virtual

pytestmark = pytest.mark.usefixtures("account")

ENDLESS = Flood(CHUNKED, b"10000\r\n" + b" " * 0x10000 + b"\r\n")
UNTIL_THE_END = Flood(b"HTTP/1.0 200 OK\r\n\r\n", b" " * 0x10000)
PATIENCE_S = 60.0


@dataclass(frozen=True, slots=True)
class Drip(Flood):
    """One byte at a time, which no limit on silence notices."""

    def send(self, sock: socket.socket) -> None:
        sock.sendall(self.begins)
        with suppress(OSError):
            while True:
                sock.sendall(self.repeats)
                time.sleep(0.05)


@dataclass(frozen=True, slots=True)
class Late(Flood):
    """The answer in two pieces, a while after what begins."""

    def send(self, sock: socket.socket) -> None:
        sock.sendall(self.begins)
        time.sleep(0.6)
        sock.sendall(self.repeats[:10])
        time.sleep(0.05)
        sock.sendall(self.repeats[10:])
        # The client ends the connection.
        with suppress(OSError):
            sock.recv(1)


SLOW = Drip(CHUNKED, b"1\r\n \r\n")


def refusal(flood: Flood, caller: Caller) -> PortError:
    """What a call ends with."""

    async def run(url: str) -> PortError:
        async with asyncio.timeout(PATIENCE_S), caller(url) as call:
            with pytest.raises(PortError) as caught:
                await call()
            return caught.value

    with flooding(flood) as url:
        return asyncio.run(run(url))


def causes(error: BaseException | None) -> str:
    """All that an error says, with what it came from."""
    said = []
    while error is not None:
        said.append(str(error))
        error = error.__cause__ or error.__context__
    return "\n".join(said)


@pytest.mark.parametrize("flood", [ENDLESS, UNTIL_THE_END], ids=["chunks", "until the end"])
@pytest.mark.parametrize("caller", [by_the_library, by_hand])
def test_a_body_without_end_is_cut_off(caller: Caller, flood: Flood) -> None:
    error = refusal(flood, caller)
    assert isinstance(error, ServiceUnavailable)
    assert TOO_LONG.format(BODY_BYTES_MAX) in causes(error)


@pytest.mark.parametrize("caller", [by_the_library, by_hand])
def test_a_body_that_comes_too_slowly_is_cut_off(caller: Caller, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bounded_answers, "BODY_S_MAX", 0.5)
    error = refusal(SLOW, caller)
    assert isinstance(error, ServiceUnavailable)
    assert TOO_SLOW.format(0.5) in causes(error)


@pytest.mark.parametrize(
    "slow",
    [
        Drip(b"HTTP/1.1 200 ", b"a"),
        Drip(b"HTTP/1.1 200 OK\r\nX: ", b"a"),
        Drip(CONTINUE + b"HTTP/1.1 200 OK\r\nX: ", b"a"),
        Drip(CHUNKED + b"2;", b"a"),
    ],
    ids=["a status line", "a header", "a header behind an interim answer", "the first chunk's extension"],
)
@pytest.mark.parametrize("caller", [by_the_library, by_hand])
def test_a_head_that_comes_too_slowly_is_cut_off(
    caller: Caller, slow: Drip, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bounded_answers, "BODY_S_MAX", 0.5)
    error = refusal(slow, caller)
    assert isinstance(error, ServiceUnavailable)
    assert TOO_SLOW_HEAD.format(0.5) in causes(error)


@pytest.mark.parametrize("caller", [by_the_library, by_hand])
def test_a_head_may_come_long_after_an_interim_answer(
    caller: Caller, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bounded_answers, "BODY_S_MAX", 0.3)

    async def run(url: str) -> None:
        async with asyncio.timeout(PATIENCE_S), caller(url) as call:
            await call()

    # The head comes in pieces, but not slowly. What it waited for took longer than it may take.
    with flooding(Late(CONTINUE, ANSWER)) as url:
        asyncio.run(run(url))


def settings_of(kind: str, url: str, token: Path) -> dict[str, str]:
    """The variables that make a chain of credentials ask `url`."""
    match kind:
        case "container":
            return {"AWS_CONTAINER_CREDENTIALS_FULL_URI": f"{url}/creds"}
        case "machine":
            return {"AWS_EC2_METADATA_SERVICE_ENDPOINT": url, "AWS_EC2_METADATA_DISABLED": "false"}
        case _:
            return {
                "AWS_ENDPOINT_URL_STS": url,
                "AWS_ROLE_ARN": "arn:aws:iam::123456789012:role/r",
                "AWS_WEB_IDENTITY_TOKEN_FILE": str(token),
            }


@pytest.mark.parametrize("flood", [ENDLESS, SLOW], ids=["without end", "slow"])
@pytest.mark.parametrize("kind", ["container", "machine", "web identity"])
def test_services_that_give_out_credentials_are_cut_off_too(
    kind: str, flood: Flood, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    token = tmp_path / "token"
    token.write_text("a.token")
    monkeypatch.setattr(bounded_answers, "BODY_S_MAX", 0.5)
    monkeypatch.setattr(bounded_answers, "CREDENTIALS_S_MAX", 0.5)
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name, raising=False)
    limits: list[str] = []
    cut_off = bounded_answers.BoundedAnswers._cut_off

    def counted(connection: Any, why: str) -> None:
        limits.append(why)
        cut_off(connection, why)

    monkeypatch.setattr(bounded_answers.BoundedAnswers, "_cut_off", counted)

    async def list_shards(env: Environment) -> None:
        with mapped("kinesis ListShards"):
            aws = await client(env, "kinesis", "eu-west-1")
            await aws.list_shards(StreamName="s")

    async def ask(url: str) -> None:
        for name, value in settings_of(kind, url, token).items():
            monkeypatch.setenv(name, value)
        async with asyncio.timeout(PATIENCE_S), environment(url) as env:
            # Some kinds are asked when the client is made.
            with pytest.raises(PortError):
                await list_shards(env)

    with flooding(flood) as url:
        asyncio.run(ask(url))
    bytes_max = BODY_BYTES_MAX if kind == "web identity" else CREDENTIALS_BYTES_MAX
    # STS at its full size takes longer than the half second of this test on a busy machine.
    assert limits
    assert set(limits) <= {TOO_LONG.format(bytes_max), TOO_SLOW.format(0.5)}


def bounded_connection() -> BoundedAnswers:
    """A connection without a socket."""
    made = BoundedAnswers(asyncio.get_running_loop(), body_bytes_max=BODY_BYTES_MAX, body_s_max=None)
    made.connection_made(asyncio.Transport())
    return made


def asks(connection: BoundedAnswers, *, read_timeout: float | None) -> None:
    """A request is sent."""
    connection.set_response_params(read_timeout=read_timeout)
    connection.start_timeout()


async def silent_for(reading: Awaitable[object]) -> float:
    """Seconds until what is read fails, because the server is silent."""
    began = asyncio.get_running_loop().time()
    with pytest.raises(aiohttp.SocketTimeoutError):
        await reading
    return asyncio.get_running_loop().time() - began


def test_silence_counts_from_the_last_data() -> None:
    async def main() -> None:
        connection = bounded_connection()
        asks(connection, read_timeout=5.0)
        await asyncio.sleep(4.0)
        connection.data_received(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n")
        await asyncio.sleep(4.0)
        connection.data_received(b"{")
        _, body = await connection.read()
        assert await silent_for(body.read()) == 5.0

    run_virtual(main())


def test_a_request_with_a_shorter_limit_does_not_wait_for_the_timer_of_an_earlier_one() -> None:
    async def main() -> None:
        connection = bounded_connection()
        asks(connection, read_timeout=60.0)
        connection.data_received(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}")
        await connection.read()
        asks(connection, read_timeout=2.0)
        assert await silent_for(connection.read()) == 2.0

    run_virtual(main())


@pytest.mark.parametrize("read_timeout", [None, 0.0, 1.0])
def test_an_idle_connection_is_not_silent(read_timeout: float | None) -> None:
    async def main() -> None:
        connection = bounded_connection()
        asks(connection, read_timeout=read_timeout)
        connection.data_received(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}")
        await connection.read()
        await asyncio.sleep(100.0)
        assert connection.exception() is None
        assert not connection.should_close

    run_virtual(main())
