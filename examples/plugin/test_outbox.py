"""The destination passes poller's suite."""

import asyncio
import json
import sqlite3
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

import pytest
from poller_example.outbox import OutboxSettings, open_outbox

from poller.clock import LoopClock
from poller.domain.errors import PortError, ResourceMissing, ServiceThrottled, ServiceUnavailable
from poller.domain.records import JsonObject
from poller.plugins import Environment
from poller.ports import Destination
from poller.testing.destination import DELIVERING, FAILING, DestinationScenario


class OutboxWorld:
    """An outbox in a directory that can be taken away, locked or spoiled."""

    with_payload = True
    errors = (ResourceMissing, ServiceThrottled, ServiceUnavailable)

    def __init__(self, destination: Destination, path: Path) -> None:
        self.destination = destination
        self._path = path
        self._away = path.parent.with_name("away")
        self._other = sqlite3.connect(":memory:")

    async def arrived(self, at_least: int) -> Sequence[JsonObject]:
        del at_least
        with closing(sqlite3.connect(self._path)) as connection:
            return [json.loads(row[0]) for row in connection.execute("SELECT document FROM notices")]

    async def fail(self, error: type[PortError]) -> None:
        if error is ServiceThrottled:
            self._other = sqlite3.connect(self._path, isolation_level=None)
            self._other.execute("BEGIN EXCLUSIVE")
            return
        self._path.parent.rename(self._away)
        if error is ServiceUnavailable:
            self._path.parent.mkdir()
            self._path.write_text("This is no database.\n" * 100)

    async def heal(self) -> None:
        self._other.close()
        if self._away.exists():
            self._path.unlink(missing_ok=True)
            if self._path.parent.exists():
                self._path.parent.rmdir()
            self._away.rename(self._path.parent)


@pytest.mark.parametrize("scenario", DELIVERING + FAILING, ids=lambda scenario: scenario.__name__)
def test_an_outbox_is_a_destination(scenario: DestinationScenario, tmp_path: Path) -> None:
    path = tmp_path / "failed" / "orders.db"
    path.parent.mkdir()

    async def run() -> None:
        given = OutboxSettings(arn=f"outbox://{path}")
        async with open_outbox(given, Environment(LoopClock())) as destination:
            world = OutboxWorld(destination, path)
            await scenario(world)
            await world.heal()

    asyncio.run(run())
