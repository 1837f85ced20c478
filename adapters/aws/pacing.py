"""Owns the Pacer of real time, over asyncio-throttle, and how all mappings of a daemon share it."""

from collections import OrderedDict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Protocol

from asyncio_throttle.throttler import Throttler

from poller.plugins import Environment
from poller.ports import Pacer

READ_PERIOD_S = 0.225
"""Between two calls on one shard. At most five arrive in any second (aws-behaviour#read-limits), even if one is delayed by an eighth of a second."""
RETRY_S = 0.025
"""How often a waiting call looks again; a wait is too long by this much at worst."""
KEYS_MAX = 20_000
"""Throttlers kept. The one used longest ago goes first: it was idle for longer than its period, so nothing is forgotten."""


class _Gate(Protocol):
    """As much of a Throttler as is used here; the library has no annotations."""

    async def acquire(self) -> None: ...


class ThrottledPacer:
    """Lets one call pass per key and `period_s`; calls on different keys do not wait for each other."""

    def __init__(self, period_s: float = READ_PERIOD_S, *, keys_max: int = KEYS_MAX) -> None:
        self._period_s = period_s
        self._keys_max = keys_max
        self._throttlers: OrderedDict[str, _Gate] = OrderedDict()

    async def pace(self, key: str) -> None:
        """Returns when the next call on `key` may be sent."""
        await self._throttler(key).acquire()

    def _throttler(self, key: str) -> _Gate:
        found = self._throttlers.get(key)
        if found is None:
            found = Throttler(rate_limit=1, period=self._period_s, retry_interval=RETRY_S)
            self._throttlers[key] = found
        self._throttlers.move_to_end(key)
        if len(self._throttlers) > self._keys_max:
            self._throttlers.popitem(last=False)
        return found


async def shared_pacer(env: Environment) -> Pacer:
    """The daemon's pacer, one for all mappings: those on one stream share its budget."""
    return await env.shared.get("pacer", _pacer)


@asynccontextmanager
async def _pacer() -> AsyncIterator[Pacer]:
    yield ThrottledPacer()
