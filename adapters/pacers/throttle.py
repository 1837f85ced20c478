"""Owns the pacer of functions' rates, over asyncio-throttle."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Protocol

from asyncio_throttle.throttler import Throttler
from pydantic import BaseModel, ConfigDict

from poller.plugins import Environment, Plugin

LATE_FRACTION = 0.02
"""A wait is too long by this fraction of the period at worst, because the throttler looks again only so often."""
LOOK_S_MIN = 0.001
LOOK_S_MAX = 0.05


class _Throttler(Protocol):
    """As much of a Throttler as is used here; the library has no annotations."""

    period: float
    retry_interval: float

    async def acquire(self) -> None: ...


class ThrottlePacerSettings(BaseModel):
    """It has no settings."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class ThrottlePacer:
    """A CallPacer: of each key, one passes per period."""

    def __init__(self) -> None:
        self._throttlers: dict[str, _Throttler] = {}

    async def pace(self, key: str, period_s: float) -> None:
        """Returns when `period_s` have passed since the last return for this key, or at once if it is the first."""
        throttler = self._throttlers.get(key)
        if throttler is None:
            throttler = self._throttlers[key] = Throttler(rate_limit=1)
        throttler.period = period_s
        throttler.retry_interval = min(LOOK_S_MAX, max(LOOK_S_MIN, period_s * LATE_FRACTION))
        await throttler.acquire()


@asynccontextmanager
async def open_pacer(settings: ThrottlePacerSettings, env: Environment) -> AsyncIterator[ThrottlePacer]:
    """Yields the pacer of one function."""
    yield ThrottlePacer()


plugin = Plugin("throttle", ThrottlePacerSettings, open_pacer)
