"""Owns a proxy in front of a PostgreSQL server that loses answers and holds statements back."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field

from tests.emulators import HOST

CHUNK_BYTES = 64 * 1024


@dataclass(slots=True)
class Cutting:
    """What the proxy does with connections; changes count for what comes next."""

    port: int = 0
    lose_answers: int = 0
    """How many answers are still to be lost. Each ends its connection, after the server has sent it, so that its statement was committed."""
    hold: asyncio.Event | None = None
    """The next statement waits for this event before the server gets it; then it is None again."""
    lost: int = 0
    answered: asyncio.Event = field(default_factory=asyncio.Event)
    """Set when the server has answered something."""

    async def deliver(self, held: asyncio.Event) -> None:
        """Gives the server a statement that was held back; returns when it has answered, and so has committed it."""
        self.answered.clear()
        held.set()
        await self.answered.wait()


@asynccontextmanager
async def cutting(upstream: int) -> AsyncGenerator[Cutting]:
    """A proxy to a server on this port of the loopback address."""
    state, writers = Cutting(), set[asyncio.StreamWriter]()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        to_server = None
        try:
            from_server, to_server = await asyncio.open_connection(HOST, upstream)
            writers.update((writer, to_server))
            async with asyncio.TaskGroup() as group:
                group.create_task(_statements(state, reader, to_server))
                group.create_task(_answers(state, from_server, writer))
        except* (OSError, EOFError):
            pass
        finally:
            for each in (writer, to_server):
                if each is not None:
                    each.close()

    async with await asyncio.start_server(serve, HOST, 0) as listening:
        state.port = listening.sockets[0].getsockname()[1]
        try:
            yield state
        finally:
            listening.close()
            for each in writers:
                each.close()


async def _statements(state: Cutting, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while True:
        chunk = await reader.read(CHUNK_BYTES)
        if state.hold is not None and chunk:
            # The client gives up meanwhile. The statement is on its way all the same.
            until, state.hold = state.hold, None
            await until.wait()
            writer.write(chunk)
            await writer.drain()
            await state.answered.wait()
            continue
        if not chunk:
            raise EOFError
        writer.write(chunk)
        await writer.drain()


async def _answers(state: Cutting, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while chunk := await reader.read(CHUNK_BYTES):
        state.answered.set()
        if state.lose_answers:
            state.lose_answers -= 1
            state.lost += 1
            break
        with suppress(ConnectionError):
            writer.write(chunk)
            await writer.drain()
    raise EOFError
