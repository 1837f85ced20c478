"""Owns what a stream mapping offers to operations that take long."""

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager

from poller.runtime.operations.long.long_run import OpenPlace, PlaceOpener
from poller.runtime.operations.long.mapping_use import MappingUse
from poller.runtime.streams.context import StreamContext
from poller.runtime.streams.operations.redriving import opened_notices
from poller.runtime.streams.operations.seeking import StreamSeek


class StreamLongOperable:
    """One stream mapping. `changed` is called when other shards are held back than before."""

    def __init__(self, parts: StreamContext, changed: Callable[[], None]) -> None:
        self.use = MappingUse()
        self.seekable = StreamSeek(parts, changed)
        self._parts = parts

    def opened_place(
        self, place: str, opener: PlaceOpener, *, hold_s: float, look: bool
    ) -> AbstractAsyncContextManager[OpenPlace]:
        """Opens a place of notices. Raises InvalidConfiguration and PortError."""
        return opened_notices(self._parts, place, opener, hold_s=hold_s, look=look)

    def longest_s(self) -> float:
        """How long one call of the function takes at most."""
        return self._parts.longest_s
