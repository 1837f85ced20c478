"""Owns what contract tests on emulators share: one loop, one account and one set of clients per test module.

To make a client takes longer than most scenarios run.
"""

import asyncio
import uuid
from collections.abc import Coroutine
from typing import Any

from adapters.aws import clients
from poller.clock import LoopClock
from poller.plugins import Environment
from tests.conftest import REGION


class NoPacer:
    """Paces nothing."""

    async def pace(self, key: str) -> None:
        """Returns at once."""


class EmulatorWorld:
    """Runs scenarios one after the other on one loop; `account` owns all they make."""

    def __init__(self, runner: asyncio.Runner, account: str) -> None:
        self.account = account
        self._runner = runner
        self._environments: dict[str, Environment] = {}

    def run(self, main: Coroutine[Any, Any, None]) -> None:
        """Runs one scenario to its end."""
        self._runner.run(main)

    def environment(self, url: str) -> Environment:
        """The environment of one emulator."""
        return self._environments.setdefault(url, Environment(LoopClock(), endpoint_url=url))

    async def client(self, url: str, service: str) -> Any:
        """The client of one service on one emulator."""
        return await clients.client(self.environment(url), service, REGION)

    def close(self) -> None:
        """Closes every client."""
        for environment in self._environments.values():
            self._runner.run(environment.shared.close())


def fresh_name() -> str:
    """A name that no other test has."""
    return f"orders-{uuid.uuid4().hex[:12]}"
