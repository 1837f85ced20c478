"""The body of a source's answer stays on its socket until there is room for it, whoever sends the request."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from enum import StrEnum

import pytest
from botocore.exceptions import ConnectionClosedError

from adapters.aws import raw_http
from adapters.aws.clients import client
from adapters.aws.request_templates import FastOperation
from poller.memory.answers import AnswerTooLarge, answering
from tests.adapters.answers import environment, on_a_loop
from tests.adapters.aws.test_raw_http import OK, PARAMETERS, READ_S, Reply, Scripted, scripted, whole

pytestmark = pytest.mark.usefixtures("account")

LONG = b'{"Records":[' + b" " * 20_000_000 + b"]}"
READ = b'{"Records":[]}'
"""What both answers mean."""


class Sender(StrEnum):
    """Who sends a request."""

    FIRST = "the library, since nobody has seen such a request"
    LEARNT = "the daemon, over a connection of the library"
    SIGNED_ONLY = "the library, what the daemon has signed"


@dataclass(slots=True)
class Room:
    """Room that is given or refused when a test says so."""

    asked: list[int] = field(default_factory=list)
    open: asyncio.Event = field(default_factory=asyncio.Event)
    refuses: bool = False

    async def make(self, answer_bytes: int) -> None:
        """As `AnswerRoom.make`."""
        self.asked.append(answer_bytes)
        await self.open.wait()
        if self.refuses:
            raise AnswerTooLarge(answer_bytes, 1)

    def spare(self) -> None:
        """As `AnswerRoom.spare`."""


@contextmanager
def sending(sender: Sender, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Requests are sent by this one."""
    with monkeypatch.context() as patched:
        if sender is Sender.SIGNED_ONLY:
            patched.setattr(raw_http, "AIOHTTP", "another release")
        yield


def operation(sender: Sender, server: Scripted) -> AbstractAsyncContextManager[FastOperation]:
    """GetRecords, whose next request is sent by this one. The server's first reply is for the one that is learnt."""

    @asynccontextmanager
    async def made() -> AsyncIterator[FastOperation]:
        async with environment(server.url) as env:
            aws = await client(env, "kinesis", "eu-west-1", read_s_max=READ_S, connections_max=10)
            made = FastOperation(aws, "GetRecords", named="StreamARN")
            if sender is not Sender.FIRST:
                await made(PARAMETERS)
            yield made

    return made()


def before(sender: Sender) -> tuple[Reply, ...]:
    """What the server has to answer before the request that matters."""
    return () if sender is Sender.FIRST else (OK,)


@pytest.mark.parametrize("sender", Sender)
@on_a_loop
async def test_a_body_is_not_read_before_there_is_room(
    sender: Sender, monkeypatch: pytest.MonkeyPatch
) -> None:
    room = Room()
    async with scripted(*before(sender), whole(LONG), OK) as server:
        with sending(sender, monkeypatch):
            async with operation(sender, server) as get, asyncio.TaskGroup() as group:
                with answering(room):
                    reading = group.create_task(get(PARAMETERS), name="read")
                # Longer than a connection may be silent: nobody reads from it, so its silence says nothing.
                await asyncio.sleep(2 * READ_S)
                assert room.asked == [len(LONG)]
                assert server.sending > 10_000_000, "most of it is still with the service"
                room.open.set()
                assert (await reading).replace(b" ", b"") == READ
                assert await get(PARAMETERS) == READ
            assert server.connections == 1
            assert room.asked == [len(LONG)], "nobody is asked outside of a source's call"


@pytest.mark.parametrize("sender", Sender)
@on_a_loop
async def test_an_answer_without_room_is_abandoned_with_its_connection(
    sender: Sender, monkeypatch: pytest.MonkeyPatch
) -> None:
    room = Room(refuses=True)
    room.open.set()
    async with scripted(*before(sender), whole(LONG), OK) as server:
        with sending(sender, monkeypatch):
            async with operation(sender, server) as get:
                with answering(room), pytest.raises(AnswerTooLarge) as refused:
                    await get(PARAMETERS)
                assert refused.value.needed == len(LONG)
                async with asyncio.timeout(5):
                    await server.gone.wait()
                assert await get(PARAMETERS) == READ
        assert server.connections == 2
        assert len(server.heads) == len(before(sender)) + 2, "an answer without room is not asked for again"


@pytest.mark.parametrize("sender", Sender)
@on_a_loop
async def test_a_call_that_is_cancelled_while_its_answer_waits_closes_its_connection(
    sender: Sender, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with scripted(*before(sender), whole(LONG), OK) as server:
        with sending(sender, monkeypatch):
            async with operation(sender, server) as get:
                with answering(Room()), pytest.raises(TimeoutError):
                    async with asyncio.timeout(READ_S):
                        await get(PARAMETERS)
                async with asyncio.timeout(5):
                    await server.gone.wait()


@pytest.mark.parametrize("sender", Sender)
@on_a_loop
async def test_an_answer_that_is_cut_behind_its_head_raises_what_the_library_raises(
    sender: Sender, monkeypatch: pytest.MonkeyPatch
) -> None:
    room = Room()
    room.open.set()
    cut = Reply((b"HTTP/1.1 200 OK\r\nContent-Length: 90\r\n\r\n{",), "close")
    async with scripted(*before(sender), *[cut] * 10) as server:
        with sending(sender, monkeypatch):
            async with operation(sender, server) as get:
                with answering(room), pytest.raises(ConnectionClosedError):
                    await get(PARAMETERS)
        assert room.asked == [90], "a call that asks again would need room for each of its answers"
        assert len(server.heads) == len(before(sender)) + 1


@pytest.mark.parametrize("others", [1, 4])
@on_a_loop
async def test_a_request_of_one_mapping_is_sent_once_however_many_share_its_client(others: int) -> None:
    room = Room()
    room.open.set()
    async with scripted(whole(LONG), OK) as server, environment(server.url) as env:
        aws = await client(env, "kinesis", "eu-west-1", read_s_max=READ_S, connections_max=10)
        other, get, *_ = (FastOperation(aws, "GetRecords", named="StreamARN") for _ in range(1 + others))
        with answering(room):
            assert (await get(PARAMETERS)).replace(b" ", b"") == READ
        assert len(server.heads) == 1
        assert room.asked == [len(LONG)]
        with answering(room):
            assert await other(PARAMETERS) == READ
        assert len(server.heads) == 2
