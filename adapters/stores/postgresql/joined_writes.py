"""Owns how writes are joined: those that wait while a statement runs are carried out together by the next one.

One write alone is sent at once. With many shards, one statement carries many checkpoints, and the server writes its log once.
"""

import asyncio
from collections.abc import Awaitable, Callable, Hashable, Sequence
from typing import Protocol, cast

from poller.domain.errors import PortError, ServiceUnavailable

ROWS_MAX = 512
"""Rows that one statement writes."""
BYTES_MAX = 8 * 1024 * 1024
"""Bytes of memos that one statement writes. A single memo may have more."""


class Joined(Protocol):
    """A write that can share one statement with others that are for other rows."""

    @property
    def row(self) -> Hashable:
        """The row that it writes."""
        ...

    @property
    def size(self) -> int:
        """About how many bytes it sends."""
        ...


class JoinedWrites[WriteT: Joined, ResultT]:
    """Writes of one kind. One statement of them runs at a time."""

    def __init__(
        self, together: Callable[[Sequence[WriteT]], Awaitable[Sequence[ResultT | PortError]]]
    ) -> None:
        """`together` carries out writes of different rows, and returns a result for each; raises port errors for all of them."""
        self._together = together
        self._waiting: dict[asyncio.Future[ResultT], WriteT] = {}
        self._running: asyncio.Future[None] | None = None
        self._closed = False

    async def write(self, write: WriteT) -> ResultT:
        """Returns the result of a write once it is committed; raises its error. A write that has begun goes on if its caller is cancelled."""
        if self._closed:
            raise ServiceUnavailable("the store is closed")
        answer: asyncio.Future[ResultT] = asyncio.get_running_loop().create_future()
        self._waiting[answer] = write
        self._advance()
        try:
            return await answer
        finally:
            self._waiting.pop(answer, None)

    async def close(self) -> None:
        """Refuses new writes, and returns when all waiting ones are written."""
        self._closed = True
        while self._running is not None:
            await asyncio.wait([self._running])

    def _advance(self) -> None:
        """Begins the next statement, unless one is running or nothing waits."""
        if self._running is None and self._waiting:
            self._running = asyncio.ensure_future(self._carry_out(self._next()))
            self._running.add_done_callback(self._go_on)

    def _go_on(self, _: asyncio.Future[None]) -> None:
        self._running = None
        self._advance()

    def _next(self) -> dict[asyncio.Future[ResultT], WriteT]:
        """Takes the next writes, of different rows, in their order."""
        chosen: dict[asyncio.Future[ResultT], WriteT] = {}
        rows: set[Hashable] = set()
        size = 0
        for answer, write in self._waiting.items():
            if len(chosen) == ROWS_MAX or (chosen and size + write.size > BYTES_MAX):
                break
            if write.row in rows:
                # The first of two writes of a row has to be written first.
                continue
            rows.add(write.row)
            size += write.size
            chosen[answer] = write
        for answer in chosen:
            del self._waiting[answer]
        return chosen

    async def _carry_out(self, writes: dict[asyncio.Future[ResultT], WriteT]) -> None:
        """Gives each writer its result. Whatever is no port error is a bug, and every writer of the statement gets it."""
        results: Sequence[ResultT | BaseException]
        try:
            results = await self._together(list(writes.values()))
        except PortError as refused:
            # Raising an exception adds a traceback, so the writers cannot share one.
            results = [type(refused)(refused.reason) for _ in writes]
        except Exception as bug:  # noqa: BLE001 - the writers raise it
            results = [bug for _ in writes]
        for answer, result in zip(writes, results, strict=True):
            if answer.done():
                continue
            if isinstance(result, Exception):
                answer.set_exception(result)
            else:
                answer.set_result(cast("ResultT", result))
