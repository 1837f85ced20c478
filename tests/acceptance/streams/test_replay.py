"""Replays by the command on two real daemons with one SQLite store: a worker is killed in the middle, and a batch fails."""

import asyncio
import json
import signal
import sys
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Callable
from contextlib import ExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import yaml

from adapters.demo.emulator import ACCOUNT, REGION, clients, credentials, emulator
from adapters.demo.processes import HOST, Running, free_port, plain_environment, running
from tests.acceptance.daemons import Ended, command
from tests.acceptance.streams.replayed_function import FOLDER

pytestmark = pytest.mark.acceptance

TOKEN = "on-call-of-the-test"
LEASE_S = 5.0
START_S_MAX = 40.0
OVER_S_MAX = 90.0
KEYS, EACH = 6, 40
ALL = sorted(f"{key}:{number}" for key in range(KEYS) for number in range(EACH))


@dataclass
class Site:
    """The emulator, the store and the daemons."""

    folder: Path
    endpoint: str
    services: Any
    stack: ExitStack
    ports: dict[str, int] = field(default_factory=dict)
    daemons: dict[str, Running] = field(default_factory=dict)

    async def start(self, name: str) -> None:
        self.ports[name] = port = free_port()
        config = self.folder / f"{name}.yaml"
        config.write_text(yaml.safe_dump(self._settings(name, port)))
        env = plain_environment() | credentials() | {FOLDER: str(self.folder)}
        env |= {"PYTHONPATH": str(Path(__file__).parents[3])}
        words = [sys.executable, "-m", "poller", "run", "--config", str(config)]
        self.daemons[name] = self.stack.enter_context(running(name, words, env, self.folder))
        await self.daemons[name].answers(f"http://{HOST}:{port}/readyz", START_S_MAX)

    def _settings(self, name: str, port: int) -> dict[str, Any]:
        place = "tests.acceptance.streams.replayed_function"
        functions = ("ship", "audit")
        return {
            "region": REGION,
            "endpoint_url": self.endpoint,
            "listen": f"{HOST}:{port}",
            "store": f"sqlite:///{self.folder}/poller.db",
            "worker": name,
            "functions": {each: {"invoker": "python", "handler": f"{place}:{each}"} for each in functions},
            "mappings": [
                {
                    "FunctionName": "ship",
                    "EventSourceArn": f"arn:aws:kinesis:{REGION}:{ACCOUNT}:stream/orders",
                    "StartingPosition": "TRIM_HORIZON",
                    "BatchSize": 5,
                }
            ],
            "api": {"tokens_file": str(self.folder / "tokens.yaml")},
            "tuning": {"lease_s": LEASE_S, "heartbeat_s": 1.0, "idle_poll_s": 0.3},
        }

    async def asked(self, name: str, *words: str) -> Ended:
        env = {"POLLER_TOKEN": TOKEN, "COLUMNS": "200", "NO_COLOR": "1"}
        url = f"http://{HOST}:{self.ports[name]}"
        return await asyncio.to_thread(command, *words, "--url", url, env=env)

    async def over(self, name: str, operation: str) -> Any:
        """The operation when it is over."""
        async with asyncio.timeout(OVER_S_MAX):
            while True:
                found = await self.asked(name, "operations", "show", operation, "--json")
                shown = json.loads(found.out)
                if shown["state"] in {"done", "failed", "cancelled"}:
                    return shown
                await asyncio.sleep(0.5)

    async def positions(self) -> dict[str, str]:
        """Where the mapping is, as the store has it. A replay that runs is not among what is exported."""
        words = ("checkpoints", "export", "--config", str(self.folder / "two.yaml"))
        ended = await asyncio.to_thread(command, *words, env=credentials())
        assert ended.status == 0, ended.err
        lines = [json.loads(each) for each in ended.out.splitlines()]
        assert len({each["mapping"] for each in lines}) == 1, lines
        return {each["shard"]: each["position"] for each in lines if each.get("shard")}

    async def shown(self, name: str) -> int:
        """How many mappings a worker shows."""
        return len(json.loads((await self.asked(name, "status", "--json")).out)["mappings"])

    def journal(self, name: str) -> list[str]:
        path = self.folder / name
        return path.read_text().split() if path.exists() else []

    async def until(self, holds: Callable[[], bool], within_s: float) -> None:
        began = time.monotonic()
        while not holds():
            if time.monotonic() - began > within_s:
                raise AssertionError("\n".join(each.tail() for each in self.daemons.values()))
            await asyncio.sleep(0.05)


@asynccontextmanager
async def site(folder: Path) -> AsyncIterator[Site]:
    (folder / "tokens.yaml").write_text(f"on-call: {{token: {TOKEN}, role: operate}}\n")
    (folder / "tokens.yaml").chmod(0o600)
    async with emulator(folder) as endpoint, clients(endpoint) as services:
        await services["kinesis"].create_stream(StreamName="orders", ShardCount=2)
        with ExitStack() as stack:
            yield Site(folder, endpoint, services, stack)


async def put(place: Site) -> None:
    for number in range(EACH):
        for key in range(KEYS):
            await place.services["kinesis"].put_record(
                StreamName="orders", Data=f"{key}:{number}".encode(), PartitionKey=f"key-{key}"
            )


def in_order(journal: list[str]) -> bool:
    """Whether each record of a key came first behind those before it."""
    seen: dict[str, int] = defaultdict(int)
    for text in journal:
        key, _, number = text.partition(":")
        if int(number) > seen[key]:
            return False
        seen[key] = max(seen[key], int(number) + 1)
    return True


@pytest.mark.timeout(280)
def test_a_replay_outlives_a_killed_worker_and_ends_at_a_batch_that_fails(tmp_path: Path) -> None:
    asyncio.run(_replays(tmp_path))


async def _replays(folder: Path) -> None:
    async with site(folder) as place:
        for name in ("one", "two"):
            await place.start(name)
        await put(place)
        await place.until(lambda: len(place.journal("ship")) >= len(ALL), START_S_MAX)
        await asyncio.sleep(3.0)
        before, shipped = await place.positions(), place.journal("ship")
        words = ("replay", "stream/orders", "--from", "TRIM_HORIZON", "--function", "audit")
        dry = await place.asked("two", *words, "--dry-run")
        assert dry.status == 0, dry.err
        assert "from TRIM_HORIZON to LATEST" in dry.out
        await _killed_in_the_middle(place, words)
        assert place.journal("ship") == shipped
        assert await place.positions() == before
        await _ended_by_a_failed_batch(place, words)
        assert place.journal("ship") == shipped


async def _killed_in_the_middle(place: Site, words: tuple[str, ...]) -> None:
    asked = await place.asked("two", *words, "--yes", "--no-wait", "--json")
    assert asked.status == 0, asked.err
    operation = json.loads(asked.out)["id"]
    await place.until(lambda: len(place.journal("audit")) >= len(ALL) // 3, OVER_S_MAX)
    assert await place.shown("two") == 1
    await place.positions()
    place.daemons["one"].signal(signal.SIGKILL)
    await place.daemons["one"].ended(5.0)
    shown = await place.over("two", operation)
    journal = place.journal("audit")
    assert shown["state"] == "done", (shown, place.daemons["two"].tail())
    assert sorted(set(journal)) == ALL
    assert in_order(journal)
    assert len(journal) < len(ALL) + 60
    assert shown["progress"]["shards"] == shown["progress"]["ended"] == 2


async def _ended_by_a_failed_batch(place: Site, words: tuple[str, ...]) -> None:
    (place.folder / "strict").touch()
    (place.folder / "audit").unlink()
    ended = await place.asked("two", *words, "--yes", "--wait-s", "80")
    assert ended.status == 1, ended.err
    assert ended.out.startswith("replay failed: "), ended.out
    assert "failed (RetryAttemptsExhausted); nothing behind was called" in ended.out
    journal = place.journal("audit")
    assert journal
    assert not any(text.endswith(":33") for text in journal)
    assert in_order(journal)
