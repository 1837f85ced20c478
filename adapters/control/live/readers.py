"""Owns the readers of the updates: how many there may be, and what each of them has still to get.

Each event is encoded once, and all readers share its bytes. A reader that is too far behind is ended; it can come back and begins again.
"""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable

READERS_MAX = 32
CONNECTIONS_SHARE = 4
"""One connection of so many may be a reader's, where the process may open few files."""
WAITING_MAX = 30
"""Events that wait for one reader. One comes each second, so that a reader may be half a minute behind."""
PIECE_BYTES_MAX = 64 * 1024
"""Bytes that are handed to a connection at once. More would be copied into its buffer while the client reads slowly."""
TAKE_S = 20.0
"""The time in which a client must take a piece."""
COMMENT_S = 10.0
"""After so long without an event a comment shows that the connection lives."""
CHECK_S = 30.0
"""How often it is checked that the reader may still read."""
COMMENT = b":\n\n"


def readers_max(connections_max: int) -> int:
    """How many readers there may be, if the port takes so many connections."""
    return max(1, min(READERS_MAX, connections_max // CONNECTIONS_SHARE))


class Reader:
    """One reader. `abort` breaks its connection off. It gets the event `first` before all others."""

    def __init__(self, abort: Callable[[], None], first: bytes) -> None:
        self._abort = abort
        self._waiting = deque([first])
        self._woken = asyncio.Event()
        self._writing = False
        self._ended = False

    def offer(self, event: bytes) -> None:
        """Adds an event. Ends the reader if too many wait."""
        if len(self._waiting) >= WAITING_MAX:
            self.end()
        elif not self._ended:
            self._waiting.append(event)
            self._woken.set()

    def end(self) -> None:
        """Ends the reader at once, also while its client takes nothing."""
        self._ended = True
        self._waiting.clear()
        self._woken.set()
        if self._writing:
            self._abort()

    async def send(self, write: Callable[[bytes], Awaitable[None]], check: Callable[[], bool]) -> None:
        """Writes what comes, until the reader is ended or `check` returns that it may not read any more.

        Raises TimeoutError if the client does not take a piece in time.
        """
        loop = asyncio.get_running_loop()
        checked = loop.time()
        while True:
            event = await self._next()
            if self._ended:
                return
            if loop.time() - checked >= CHECK_S:
                checked = loop.time()
                if not check():
                    return
            await self._write(event, write)

    async def _next(self) -> bytes:
        """The next event, or a comment if none comes for a while."""
        try:
            async with asyncio.timeout(COMMENT_S):
                while not self._waiting and not self._ended:
                    self._woken.clear()
                    await self._woken.wait()
        except TimeoutError:
            return COMMENT
        return self._waiting.popleft() if self._waiting else COMMENT

    async def _write(self, event: bytes, write: Callable[[bytes], Awaitable[None]]) -> None:
        self._writing = True
        try:
            for first in range(0, len(event), PIECE_BYTES_MAX):
                async with asyncio.timeout(TAKE_S):
                    await write(event[first : first + PIECE_BYTES_MAX])
        finally:
            self._writing = False


class Readers:
    """All readers, `most` at most. Those that are new wait for the first events."""

    def __init__(self, most: int = READERS_MAX) -> None:
        self._most = most
        self.woken = asyncio.Event()
        """It is set when a reader has come, and when the last has gone."""
        self._known: list[Reader] = []
        self._new: list[Reader] = []
        self._closed = False

    @property
    def count(self) -> int:
        """How many there are."""
        return len(self._known) + len(self._new)

    def enter(self, abort: Callable[[], None], first: bytes) -> Reader | None:
        """Adds a reader, which gets the event `first` before all others; None if there are too many, or if the server ends."""
        if self.count >= self._most or self._closed:
            return None
        reader = Reader(abort, first)
        self._new.append(reader)
        self.woken.set()
        return reader

    def leave(self, reader: Reader) -> None:
        """Removes a reader."""
        for readers in (self._known, self._new):
            if reader in readers:
                readers.remove(reader)
        if not self.count:
            self.woken.set()

    def take_new(self) -> list[Reader]:
        """The readers that have come since the last call. From now on they get what all get."""
        new, self._new = self._new, []
        self._known += new
        return new

    def offer(self, event: bytes) -> None:
        """Adds an event for all who have their first events."""
        for reader in list(self._known):
            reader.offer(event)

    def close(self) -> None:
        """Ends all readers, and admits no more."""
        self._closed = True
        self.end_all()

    def end_all(self) -> None:
        """Ends all readers. They may come back."""
        for reader in [*self._known, *self._new]:
            reader.end()
