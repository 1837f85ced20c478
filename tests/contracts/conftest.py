"""Owns the fixtures of contract tests on emulators."""

import asyncio
from collections.abc import Iterator

import pytest

from tests.conftest import fresh_account, give_credentials
from tests.contracts.worlds import EmulatorWorld


@pytest.fixture(scope="module")
def laboratory() -> Iterator[EmulatorWorld]:
    """One loop, account and set of clients for the scenarios of a module."""
    account = fresh_account()
    with pytest.MonkeyPatch.context() as patch, asyncio.Runner() as runner:
        give_credentials(patch, account)
        made = EmulatorWorld(runner, account)
        yield made
        made.close()
