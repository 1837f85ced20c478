"""Requests written by ourselves fare as the library's: same errors, same connections, same answers."""

import asyncio
import gc
import socket
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import aiohttp
import pytest
from aiobotocore.httpsession import AIOHTTPSession
from botocore.exceptions import (
    BotoCoreError,
    ConnectionClosedError,
    ConnectTimeoutError,
    EndpointConnectionError,
    HTTPClientError,
    ReadTimeoutError,
)

from adapters.aws import raw_http
from adapters.aws.clients import client
from adapters.aws.request_templates import FastOperation
from tests.adapters.answers import environment, on_a_loop
from tests.adapters.aws.test_request_templates import ARN, without_the_library

pytestmark = pytest.mark.usefixtures("account")

PARAMETERS = {"StreamARN": ARN, "ShardIterator": "here", "Limit": 10}
READ_S = 0.3


@dataclass(frozen=True, slots=True)
class Reply:
    """Bytes to send, in pieces, and what happens to the connection then: keep, close, reset."""

    pieces: tuple[bytes, ...]
    then: str = "keep"


def whole(body: bytes, *, status: str = "200 OK", headers: str = "", then: str = "keep") -> Reply:
    """An answer with its length."""
    head = f"HTTP/1.1 {status}\r\n{headers}Content-Length: {len(body)}\r\n\r\n"
    return Reply((head.encode() + body,), then)


OK = whole(b'{"Records":[]}')


@dataclass(slots=True)
class Scripted:
    """A server that gives replies in order, the last one for ever, and counts its connections."""

    replies: list[Reply]
    url: str = ""
    connections: int = 0
    heads: list[str] = field(default_factory=list)
    gone: asyncio.Event = field(default_factory=asyncio.Event)
    writer: asyncio.StreamWriter | None = None

    @property
    def sending(self) -> int:
        """Bytes that the latest client has not taken yet, beside what the kernel has."""
        return self.writer.transport.get_write_buffer_size() if self.writer is not None else 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self.writer = writer
        try:
            while await self._once(reader, writer):
                pass
        except (asyncio.IncompleteReadError, ConnectionError):
            self.gone.set()
        writer.close()

    async def _once(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        self.heads.append(head)
        length = next(line for line in head.split("\r\n") if line.lower().startswith("content-length:"))
        await reader.readexactly(int(length.partition(":")[2]))
        reply = self.replies.pop(0) if len(self.replies) > 1 else self.replies[0]
        for piece in reply.pieces:
            writer.write(piece)
            await writer.drain()
            await asyncio.sleep(0.01)
        if reply.then == "reset":
            linger = struct.pack("ii", 1, 0)
            writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        return reply.then == "keep"


@asynccontextmanager
async def scripted(*replies: Reply) -> AsyncIterator[Scripted]:
    """A running server."""
    found = Scripted(list(replies))
    server = await asyncio.start_server(found.serve, "127.0.0.1", 0)
    found.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    try:
        yield found
    finally:
        server.close()


@asynccontextmanager
async def learnt(url: str, *, connections_max: int = 10) -> AsyncIterator[tuple[FastOperation, Any]]:
    """A hot operation that has seen its first request go by the library, and its client."""
    async with environment(url) as env:
        aws = await client(env, "kinesis", "eu-west-1", read_s_max=READ_S, connections_max=connections_max)
        hot = FastOperation(aws, "GetRecords", named="StreamARN")
        await hot(PARAMETERS)
        yield hot, aws


@pytest.mark.parametrize(
    ("reply", "kind"),
    [
        (Reply((), "close"), ConnectionClosedError),
        (Reply((), "reset"), EndpointConnectionError),
        (Reply((b"HTTP/1.1 200 OK\r\nContent-Length: 90\r\n\r\n{",), "close"), ConnectionClosedError),
        (Reply((b"HTTP/1.1 200 OK\r\nContent-Length: 90\r\n\r\n{",), "reset"), ConnectionClosedError),
        (
            Reply((b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n{", b""), "close"),
            ConnectionClosedError,
        ),
        (Reply((b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",)), HTTPClientError),
        (Reply((b"220 mail.example ready\r\n\r\n",)), HTTPClientError),
        (Reply((b"HTTP/1.1 200 OK\r\nX: " + b"x" * 9_000 + b"\r\n\r\n",)), HTTPClientError),
        (Reply(()), ReadTimeoutError),
        (Reply((b"HTTP/1.1 200 OK\r\nContent-Length: 90\r\n\r\n{",)), ReadTimeoutError),
    ],
    ids=[
        "no answer",
        "reset",
        "cut",
        "cut by a reset",
        "cut chunks",
        "broken chunks",
        "no HTTP",
        "a long header",
        "silence",
        "silence within",
    ],
)
@on_a_loop
async def test_a_broken_answer_raises_what_the_library_raises(
    reply: Reply, kind: type[BotoCoreError]
) -> None:
    async with scripted(OK, reply) as server, learnt(server.url) as (hot, aws):
        with without_the_library(), pytest.raises(BotoCoreError) as ours:
            await hot(PARAMETERS)
        with pytest.raises(BotoCoreError) as theirs:
            await aws.get_records(**PARAMETERS)
        assert type(ours.value) is type(theirs.value) is kind
        assert ours.value.kwargs.get("endpoint_url") == theirs.value.kwargs.get("endpoint_url")


@on_a_loop
async def test_a_refused_connection_raises_what_the_library_raises() -> None:
    found = Scripted([whole(b"{}", then="close")])
    server = await asyncio.start_server(found.serve, "127.0.0.1", 0)
    async with learnt(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}") as (hot, aws):
        server.close()
        await server.wait_closed()
        await asyncio.sleep(0.05)
        with without_the_library(), pytest.raises(EndpointConnectionError):
            await hot(PARAMETERS)
        with pytest.raises(EndpointConnectionError):
            await aws.get_records(**PARAMETERS)


@on_a_loop
async def test_a_connection_that_is_not_made_in_time_raises_what_the_library_raises() -> None:
    async def never(*_: object, **__: object) -> None:
        raise TimeoutError

    async with scripted(whole(b"{}", then="close")) as server, learnt(server.url) as (hot, aws):
        await asyncio.sleep(0.05)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(aiohttp.TCPConnector, "_create_connection", never)
            with without_the_library(), pytest.raises(ConnectTimeoutError):
                await hot(PARAMETERS)
            with pytest.raises(ConnectTimeoutError):
                await aws.get_records(**PARAMETERS)


@on_a_loop
async def test_a_connection_serves_one_request_after_the_other() -> None:
    async with scripted(OK) as server, learnt(server.url) as (hot, _):
        with without_the_library():
            for _ in range(3):
                await hot(PARAMETERS)
        assert (server.connections, len(server.heads)) == (1, 4)


@pytest.mark.parametrize("headers", ["", "Connection: close\r\n"])
@on_a_loop
async def test_a_connection_that_the_server_closed_is_not_used_again(headers: str) -> None:
    async with (
        scripted(OK, whole(b"{}", headers=headers, then="close"), OK) as server,
        learnt(server.url) as (hot, _),
    ):
        with without_the_library():
            await hot(PARAMETERS)
            await asyncio.sleep(0.05)
            assert await hot(PARAMETERS) == b'{"Records":[]}'
        assert server.connections == 2


@on_a_loop
async def test_a_cancelled_request_closes_its_connection() -> None:
    async with scripted(OK, Reply(()), OK) as server, learnt(server.url) as (hot, _):
        with without_the_library():
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.05):
                    await hot(PARAMETERS)
            async with asyncio.timeout(5):
                await server.gone.wait()
            assert await hot(PARAMETERS) == b'{"Records":[]}'
        assert server.connections == 2


@pytest.mark.parametrize(
    "pieces",
    [
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", b"2\r\n{}\r\n", b"1\r\n \r\n0\r\n\r\n"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n", b"{", b"} "),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nContent-Encoding: gzip\r\n\r\n{} ",),
        (b"HTTP/1.1 103 Early Hints\r\n\r\n", b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n{} "),
    ],
    ids=["chunks", "pieces", "encoded", "interim answer"],
)
@on_a_loop
async def test_an_answer_comes_as_it_was_sent(pieces: tuple[bytes, ...]) -> None:
    async with scripted(OK, Reply(pieces)) as server, learnt(server.url) as (hot, _):
        with without_the_library():
            assert [await hot(PARAMETERS), await hot(PARAMETERS)] == [b"{} "] * 2
        assert server.connections == 1


@on_a_loop
async def test_an_answer_without_a_length_ends_with_its_connection() -> None:
    reply = Reply((b"HTTP/1.1 200 OK\r\n\r\n{", b"}"), "close")
    async with scripted(OK, reply) as server, learnt(server.url) as (hot, _):
        with without_the_library():
            assert await hot(PARAMETERS) == b"{}"


@on_a_loop
async def test_a_long_answer_is_read_to_its_end() -> None:
    body = b'{"Records":[' + b" " * 3_000_000 + b"]}"
    async with scripted(OK, whole(body)) as server, learnt(server.url) as (hot, _):
        with without_the_library():
            assert [await hot(PARAMETERS), await hot(PARAMETERS)] == [body, body]
        assert server.connections == 1


@on_a_loop
async def test_a_redirection_is_followed_by_the_library() -> None:
    away = whole(b"", status="307 Temporary Redirect", headers="Location: /other\r\n")
    async with scripted(OK, away, away, OK) as server, learnt(server.url) as (hot, _):
        assert await hot(PARAMETERS) == b'{"Records":[]}'
    assert [head.split(" ")[1] for head in server.heads] == ["/", "/", "/", "/other"]


@on_a_loop
async def test_cookies_are_given_back_as_the_library_does() -> None:
    crumb = whole(b"{}", headers="Set-Cookie: node=7\r\n")
    async with (
        scripted(OK, crumb, OK) as server,
        learnt(server.url.replace("127.0.0.1", "localhost")) as (hot, _),
    ):
        for _ in range(2):
            await hot(PARAMETERS)
    assert ["Cookie: node=7" in head for head in server.heads] == [False, False, True]


@on_a_loop
async def test_another_release_of_aiohttp_is_left_to_the_library() -> None:
    assert aiohttp.__version__.startswith(raw_http.AIOHTTP), (
        "the connections of this release are to be looked at"
    )
    sent: list[object] = []
    send = AIOHTTPSession.send

    async def seen(http: AIOHTTPSession, request: Any) -> Any:
        sent.append(request)
        return await send(http, request)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(raw_http, "AIOHTTP", "2.")
        patch.setattr(AIOHTTPSession, "send", seen)
        async with scripted(OK) as server, learnt(server.url) as (hot, _):
            assert await hot(PARAMETERS) == b'{"Records":[]}'
    assert len(sent) == len(server.heads) == 2


@on_a_loop
async def test_the_library_gets_a_kept_connection_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(raw_http, "SPARE_S", 0.05)
    async with scripted(OK) as server, learnt(server.url) as (hot, aws):
        with without_the_library():
            await hot(PARAMETERS)
        await asyncio.sleep(0.2)
        await aws.get_records(**PARAMETERS)
        assert (server.connections, len(server.heads)) == (1, 3)


@on_a_loop
async def test_a_client_that_is_closed_closes_kept_connections_too(recwarn: pytest.WarningsRecorder) -> None:
    async with scripted(OK) as server:
        async with learnt(server.url) as (hot, _):
            with without_the_library():
                await hot(PARAMETERS)
            assert not server.gone.is_set()
        async with asyncio.timeout(5.0):
            await server.gone.wait()
    gc.collect()
    assert [str(each.message) for each in recwarn] == []


@on_a_loop
async def test_calls_side_by_side_share_the_connections_with_the_library() -> None:
    async with scripted(OK) as server, learnt(server.url, connections_max=3) as (hot, aws):
        for _ in range(3):
            async with asyncio.timeout(raw_http.SPARE_S / 2), asyncio.TaskGroup() as group:
                for number in range(12):
                    call = aws.get_records(**PARAMETERS) if number % 4 == 0 else hot(PARAMETERS)
                    group.create_task(call, name=f"call {number}")
        assert server.connections <= 3
        assert len(server.heads) == 1 + 3 * 12
