"""Owns the pacer of virtual time."""

import asyncio


class FakePacer:
    """A CallPacer: of each key, one passes per period."""

    def __init__(self) -> None:
        self._last: dict[str, float] = {}

    async def pace(self, key: str, period_s: float) -> None:
        """Returns when the period is over; at once for a new key."""
        loop = asyncio.get_running_loop()
        if key in self._last:
            await asyncio.sleep(max(0.0, self._last[key] + period_s - loop.time()))
        self._last[key] = loop.time()
