"""Owns the run of the store suite on every store that needs no server."""

import asyncio
import re
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from itertools import count
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis.stateful import run_state_machine_as_test

from adapters.stores.memory import MemoryStore
from adapters.stores.sqlite import store as sqlite
from poller.clock import LoopClock
from poller.domain.errors import InvalidConfiguration
from poller.plugins import Environment, InstalledPlugins, opened
from poller.ports import Store
from poller.testing.store import DIGEST_SCENARIOS, SCENARIOS
from poller.testing.stores.store_history import StoreMachine
from poller.testing.stores.store_steps import Opening, Scenario


def memory_opening() -> Opening:
    """One MemoryStore behind all doors."""
    store = MemoryStore()

    @asynccontextmanager
    async def open_one() -> AsyncGenerator[Store]:
        yield store

    return open_one


def sqlite_opening(path: Path) -> Opening:
    """One file; each door has its own connections, as another process would."""
    env = Environment(LoopClock())

    @asynccontextmanager
    async def open_one() -> AsyncGenerator[Store]:
        async with sqlite.plugin.open(
            sqlite.SqliteSettings(url=f"sqlite://{path}", synchronous="normal"), env
        ) as store:
            yield store

    return open_one


@pytest.mark.parametrize("scenario", SCENARIOS + DIGEST_SCENARIOS, ids=lambda scenario: scenario.__name__)
def test_in_memory(scenario: Scenario) -> None:
    asyncio.run(scenario(memory_opening()))


@pytest.mark.parametrize("scenario", SCENARIOS + DIGEST_SCENARIOS, ids=lambda scenario: scenario.__name__)
def test_in_a_file(scenario: Scenario, tmp_path: Path) -> None:
    asyncio.run(scenario(sqlite_opening(tmp_path / "state.db")))


def test_random_histories_in_memory_follow_the_model() -> None:
    class Machine(StoreMachine):
        def fresh(self) -> Opening:
            return memory_opening()

    bounds = settings(max_examples=150, stateful_step_count=40, deadline=None)
    run_state_machine_as_test(Machine, settings=bounds)


def test_random_histories_in_a_file_follow_the_model(tmp_path: Path) -> None:
    numbers = count()

    class Machine(StoreMachine):
        def fresh(self) -> Opening:
            return sqlite_opening(tmp_path / f"{next(numbers)}.db")

    bounds = settings(max_examples=15, stateful_step_count=30, deadline=None)
    run_state_machine_as_test(Machine, settings=bounds)


@pytest.mark.parametrize(("name", "url"), [("memory", "memory://"), ("sqlite", "sqlite://{path}/state.db")])
def test_each_store_opens_by_its_name_and_url(name: str, url: str, tmp_path: Path) -> None:
    async def scenario() -> None:
        given = {"url": url.format(path=tmp_path)}
        async with opened(InstalledPlugins(), "stores", name, given, Environment(LoopClock())) as store:
            assert await store.mappings() == []

    asyncio.run(scenario())


@pytest.mark.parametrize(
    ("name", "given", "remedy"),
    [
        ("memory", {"url": "memory://x"}, "memory://"),
        ("sqlite", {"url": "sqlite://relative/path"}, "sqlite:///absolute/path/to/file"),
        ("sqlite", {"url": "sqlite:///"}, "sqlite:///absolute/path/to/file"),
        ("sqlite", {"url": "sqlite:///x?mode=ro"}, "mode"),
        ("sqlite", {"url": "sqlite:///x?synchronous=off"}, "'full' or 'normal'"),
        ("sqlite", {"url": "sqlite:///x?synchronous=full", "synchronous": "full"}, "given twice"),
        ("sqlite", {"url": "sqlite:///x?busy_timeout_s"}, "busy_timeout_s"),
        ("sqlite", {}, "url"),
    ],
)
def test_wrong_settings_are_refused_with_a_remedy(name: str, given: dict[str, str], remedy: str) -> None:
    with pytest.raises(InvalidConfiguration, match=re.escape(remedy)):
        opened(InstalledPlugins(), "stores", name, given, Environment(LoopClock()))


def test_options_in_the_url_are_settings() -> None:
    read = sqlite.SqliteSettings.model_validate(
        {"url": "sqlite:///a%20b/c.db?synchronous=normal&busy_timeout_s=2.5"}
    )
    assert (read.path, read.synchronous, read.busy_timeout_s) == (Path("/a b/c.db"), "normal", 2.5)
