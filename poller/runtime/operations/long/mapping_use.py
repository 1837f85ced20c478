"""Owns who uses the parts of a running mapping beside the mapping itself: operations that take long call its function, too.

When a mapping ends, or starts again with other settings, its function and its source are closed. An operation that went on with them would
call a function that is closed, with settings that do not hold any more, and in addition to the calls of the new run. So each run of a
mapping waits for the operations that use it, and they end with it. They go on with the next run.
"""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager

from poller.runtime.stopping import Reason, Stop


class MappingUse:
    """The use of one run of a mapping."""

    def __init__(self) -> None:
        self._stop = Stop()
        self._users = 0
        self._unused = asyncio.Event()

    @contextmanager
    def entered(self) -> Iterator[Stop]:
        """An operation uses the mapping inside the block. It gets what asks it to leave: it begins no further call then.

        If that is requested already, it must not use the mapping at all.
        """
        self._users += 1
        try:
            yield self._stop
        finally:
            self._users -= 1
            if not self._users:
                self._unused.set()

    @asynccontextmanager
    async def until_left(self, stop: Stop) -> AsyncIterator[None]:
        """Runs the mapping inside the block. Asks operations to leave at `stop` or at the end of the block, and then waits for them.

        It does not wait if the mapping is cancelled, because its time is over then.
        """
        with stop.passing_to(self._stop):
            try:
                yield
            except asyncio.CancelledError:
                self._stop.request(Reason.REQUESTED)
                raise
            except BaseException:
                await self._left()
                raise
            await self._left()

    async def _left(self) -> None:
        self._stop.request(Reason.REQUESTED)
        while self._users:
            self._unused.clear()
            await self._unused.wait()
