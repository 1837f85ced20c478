"""Four real processes share sixteen shards while they are killed, stopped, drained and the stream is resharded under load."""

import asyncio
import json
import signal
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import yaml

from adapters.demo.emulator import ACCOUNT, REGION, clients, credentials
from adapters.demo.processes import HOST, Running, free_port, plain_environment, running
from adapters.stores.dynamodb.store import DynamoStore
from poller.domain.records import SHARD_END, MappingId, ShardId
from poller.domain.rows import Lease
from tests.acceptance.streams.lease_looks import Look, certainly_without_lease
from tests.acceptance.streams.replica_function import JOURNAL, NAME
from tests.emulators import kinesis_local, ministack

pytestmark = pytest.mark.acceptance

STREAM = "readings"
TABLE = "replicas"
MAPPING = MappingId("5d1f3a52-7f0e-4b52-9d9f-0c1c8a1b6a01")
WORKERS = ("w1", "w2", "w3", "w4")
SHARDS = 16
KEYS = 64
PUT_EVERY_S = 0.5
LOAD_S = 185.0
LEASE_S = 10.0
FAILOVER_S_MAX = LEASE_S + 2.0
SLACK_S = 3.0
"""For emulators and eight processes on two cores. Where a daemon's start takes longer than START_S, it is longer in the same measure."""
START_S = 5.0
JOIN_S_MAX = 10.0
STOPPED_S = 20.0
SETTLE_S_MAX = 180.0
LOOK_S = 0.1
READY_S_MAX = 180.0


@dataclass(frozen=True, slots=True)
class Line:
    """One line of the journal."""

    at: float
    worker: str
    began: bool
    shard: str
    items: tuple[tuple[str, int], ...]


@dataclass(slots=True)
class Site:
    """The emulators, the processes and what was seen of them."""

    folder: Path
    kinesis: Any
    dynamo: Any
    store: DynamoStore
    endpoints: dict[str, str]
    stack: AsyncExitStack
    workers: dict[str, Running] = field(default_factory=dict)
    written: Counter[str] = field(default_factory=Counter)
    looks: list[Look] = field(default_factory=list)
    starts: int = 0
    slack_s: float = SLACK_S
    troubled: bool = True

    @property
    def journal(self) -> Path:
        """What the functions wrote down."""
        return self.folder / "journal.jsonl"

    def start(self, name: str) -> Running:
        """A daemon; each start has a name of its own, as a new process in a cluster has."""
        self.starts += 1
        port = free_port()
        config = self.folder / f"{name}-{self.starts}.yaml"
        config.write_text(yaml.safe_dump(self._configuration(f"{name}-{self.starts}", port)))
        env = (
            plain_environment() | credentials() | {JOURNAL: str(self.journal), NAME: f"{name}-{self.starts}"}
        )
        env |= {"PYTHONPATH": str(Path(__file__).parents[3])}
        command = [sys.executable, "-m", "poller", "run", "--config", str(config)]
        process = self.stack.enter_context(running(f"{name}-{self.starts}", command, env, self.folder))
        self.workers[name] = process
        return process

    def _configuration(self, worker: str, port: int) -> dict[str, Any]:
        return {
            "region": REGION,
            "endpoint_urls": self.endpoints,
            "listen": f"{HOST}:{port}",
            "store": f"dynamodb://{TABLE}?create=true",
            "worker": worker,
            "functions": {
                "record": {"invoker": "python", "handler": "tests.acceptance.streams.replica_function:record"}
            },
            "mappings": [
                {
                    "UUID": MAPPING,
                    "FunctionName": "record",
                    "EventSourceArn": f"arn:aws:kinesis:{REGION}:{ACCOUNT}:stream/{STREAM}",
                    "StartingPosition": "TRIM_HORIZON",
                    "BatchSize": 50,
                }
            ],
            "tuning": {"idle_poll_s": 0.5, "discovery_s": 10.0, "grace_s": 10.0},
        }

    async def leases(self) -> list[Lease]:
        """Leases of shards that are not done. Writes down who owns what."""
        began = time.time()
        found = await self.store.leases(MAPPING)
        owners = {each.shard: (each.owner, each.epoch) for each in found}
        self.looks.append(Look(began, time.time(), owners))
        return [each for each in found if each.checkpoint.position != SHARD_END]

    async def watch(self) -> None:
        """Looks who owns what, over and over."""
        while True:
            await self.leases()
            await asyncio.sleep(LOOK_S)

    async def until(self, holds: Any, within_s: float, what: str) -> float:
        """Waits until `holds(leases)`; returns how long that took."""
        began = time.monotonic()
        while not holds(await self.leases()):
            if time.monotonic() - began > within_s:
                raise AssertionError(f"{what}: not within {within_s:g} s: {counts(await self.leases())}")
            await asyncio.sleep(LOOK_S)
        return time.monotonic() - began

    def lines(self) -> list[Line]:
        """The whole journal."""
        found = [json.loads(text) for text in self.journal.read_text().splitlines()]
        return [
            Line(at, worker, what == "began", shard, tuple((key, n) for key, n in items))
            for at, worker, what, shard, items in found
        ]

    async def load(self) -> None:
        """Writes one record of every key at a time, so that the order within a key is certain, until the troubles are over."""
        ends = time.monotonic() + LOAD_S
        while self.troubled or time.monotonic() < ends:
            left = [f"key-{number}" for number in range(KEYS)]
            while left:
                left = await self._put(left)
            await asyncio.sleep(PUT_EVERY_S)

    async def _put(self, keys: list[str]) -> list[str]:
        """Writes the next record of each key; returns the keys whose record was refused."""
        records = [
            {"PartitionKey": key, "Data": json.dumps({"key": key, "n": self.written[key]}).encode()}
            for key in keys
        ]
        answer = await self.kinesis.put_records(StreamName=STREAM, Records=records)
        done = [key for key, each in zip(keys, answer["Records"], strict=True) if "ErrorCode" not in each]
        self.written.update(done)
        return [key for key in keys if key not in done]


def counts(leases: Sequence[Lease]) -> dict[str | None, int]:
    """How many leases everybody has."""
    return dict(Counter(each.owner for each in leases))


def owned_by(*workers: Running, shards: int = SHARDS) -> Any:
    """Whether these workers have the leases of so many shards, evenly."""
    names = {each.name for each in workers}

    def holds(leases: Sequence[Lease]) -> bool:
        found = counts(leases)
        if found.keys() != names or len(leases) != shards:
            return False
        return max(found.values()) - min(found.values()) <= 1

    return holds


def none_of(name: str) -> Any:
    """Whether a worker's leases all belong to others."""
    return lambda leases: all(each.owner not in (None, name) for each in leases)


@asynccontextmanager
async def site(folder: Path) -> AsyncIterator[Site]:
    """Emulators with a stream, and a store to look into."""
    async with AsyncExitStack() as stack:
        kinesis_url = stack.enter_context(kinesis_local(folder)).url
        dynamo_url = stack.enter_context(ministack(folder)).url
        kinesis = (await stack.enter_async_context(clients(kinesis_url)))["kinesis"]
        dynamo = (await stack.enter_async_context(clients(dynamo_url)))["dynamodb"]
        await kinesis.create_stream(StreamName=STREAM, ShardCount=SHARDS)
        await _active(kinesis)
        endpoints = {"kinesis": kinesis_url, "dynamodb": dynamo_url}
        store = DynamoStore(dynamo, TABLE, call_timeout_s=10.0)
        yield Site(folder, kinesis, dynamo, store, endpoints, stack)


async def _active(kinesis: Any) -> None:
    async with asyncio.timeout(READY_S_MAX):
        while True:
            answer = await kinesis.describe_stream_summary(StreamName=STREAM)
            if answer["StreamDescriptionSummary"]["StreamStatus"] == "ACTIVE":
                return
            await asyncio.sleep(LOOK_S)


@pytest.mark.timeout(900)
def test_nothing_is_lost_and_no_key_out_of_order_whatever_happens_to_the_workers(tmp_path: Path) -> None:
    asyncio.run(_story(tmp_path))


async def _story(folder: Path) -> None:
    async with site(folder) as place:
        began = await _begun(place.start("w1"))
        place.slack_s = SLACK_S * max(1.0, began / START_S)
        await _table(place)
        for name in WORKERS[1:]:
            place.start(name)
        took = await place.until(owned_by(*place.workers.values()), READY_S_MAX, "the start")
        print(f"four workers share {SHARDS} shards {took:.1f} s after they were started")
        async with asyncio.TaskGroup() as scope:
            watching = scope.create_task(place.watch(), name="watch")
            loading = scope.create_task(place.load(), name="load")
            paused = await _troubles(place)
            place.troubled = False
            await loading
            await _settled(place)
            watching.cancel()
        for process in place.workers.values():
            process.signal(signal.SIGTERM)
        assert [await each.ended(20.0) for each in place.workers.values()] == [0] * len(WORKERS)
    _judge(place, paused)


async def _table(place: Site) -> None:
    """Waits for the table, which the first worker makes."""
    async with asyncio.timeout(READY_S_MAX):
        while TABLE not in (await place.dynamo.list_tables())["TableNames"]:
            await asyncio.sleep(LOOK_S)


@dataclass(frozen=True, slots=True)
class Paused:
    """A worker that was stopped, and when it woke."""

    worker: str
    stopped: float
    woken: float


async def _troubles(place: Site) -> Paused:
    await asyncio.sleep(8)
    await _killed(place)
    paused = await _stopped(place)
    await _drained(place)
    await _resharded(place)
    return paused


async def _killed(place: Site) -> None:
    victim = place.workers["w1"]
    victim.signal(signal.SIGKILL)
    took = await place.until(
        none_of(victim.name), FAILOVER_S_MAX + place.slack_s, "the failover after SIGKILL"
    )
    print(f"SIGKILL: its shards are taken {took:.1f} s later")
    joined = place.start("w1")
    began = await _begun(joined)
    took = await place.until(
        lambda leases: counts(leases).get(joined.name, 0) > 0,
        JOIN_S_MAX + place.slack_s,
        "work for a new worker",
    )
    even = await place.until(owned_by(*place.workers.values()), READY_S_MAX, "evenness after a join")
    print(
        f"a new worker has imported its modules after {began:.1f} s, has its first shard {took:.1f} s later, "
        f"its share {even + took:.1f} s later"
    )


async def _begun(process: Running) -> float:
    """Waits for the daemon's first log line. How long Python takes to import is the machine's business."""
    started = time.monotonic()
    async with asyncio.timeout(READY_S_MAX):
        while "daemon_starting" not in process.log.read_text():
            await asyncio.sleep(LOOK_S)
    return time.monotonic() - started


async def _stopped(place: Site) -> Paused:
    victim = place.workers["w2"]
    victim.signal(signal.SIGSTOP)
    stopped = time.time()
    took = await place.until(
        none_of(victim.name), FAILOVER_S_MAX + place.slack_s, "the failover after SIGSTOP"
    )
    print(f"SIGSTOP: its shards are taken {took:.1f} s later")
    await asyncio.sleep(max(0.0, stopped + STOPPED_S - time.time()))
    woken = time.time()
    victim.signal(signal.SIGCONT)
    took = await place.until(owned_by(*place.workers.values()), READY_S_MAX, "evenness after SIGCONT")
    print(f"SIGCONT: it has its share {took:.1f} s later")
    return Paused(victim.name, stopped, woken)


async def _drained(place: Site) -> None:
    leaver = place.workers["w3"]
    leaver.signal(signal.SIGTERM)
    took = await place.until(
        none_of(leaver.name), FAILOVER_S_MAX + place.slack_s - SLACK_S, "the handover after SIGTERM"
    )
    assert await leaver.ended(20.0) == 0
    print(f"SIGTERM: its shards are taken {took:.1f} s later")
    place.start("w3")
    took = await place.until(owned_by(*place.workers.values()), READY_S_MAX, "evenness after a restart")
    print(f"restarted: it has its share {took:.1f} s after its start")


async def _resharded(place: Site) -> None:
    for number in (0, 3, 6, 9):
        await _split(place, number)
        await asyncio.sleep(2)
    more = owned_by(*place.workers.values(), shards=SHARDS + 4)
    took = await place.until(more, READY_S_MAX, "evenness after splits")
    print(f"four splits: even {took:.1f} s after the last one")
    await _merge(place)
    fewer = owned_by(*place.workers.values(), shards=SHARDS + 3)
    took = await place.until(fewer, READY_S_MAX, "evenness after a merge")
    print(f"a merge: even {took:.1f} s later")


async def _open_shards(place: Site) -> list[Any]:
    """Open shards in the order of their hash keys."""
    shards = (await place.kinesis.list_shards(StreamName=STREAM))["Shards"]
    found = [each for each in shards if "EndingSequenceNumber" not in each["SequenceNumberRange"]]
    return sorted(found, key=lambda each: int(each["HashKeyRange"]["StartingHashKey"]))


async def _merge(place: Site) -> None:
    left, right = (await _open_shards(place))[:2]
    await place.kinesis.merge_shards(
        StreamName=STREAM, ShardToMerge=left["ShardId"], AdjacentShardToMerge=right["ShardId"]
    )
    await _active(place.kinesis)


async def _split(place: Site, number: int) -> None:
    found = await _open_shards(place)
    keys = {name: int(text) for name, text in found[number]["HashKeyRange"].items()}
    middle = (keys["StartingHashKey"] + keys["EndingHashKey"]) // 2
    await place.kinesis.split_shard(
        StreamName=STREAM, ShardToSplit=found[number]["ShardId"], NewStartingHashKey=str(middle)
    )
    await _active(place.kinesis)


async def _settled(place: Site) -> None:
    """Returns when every record was processed to the end."""
    deadline = time.monotonic() + SETTLE_S_MAX
    while missing := _missing(place):
        assert time.monotonic() < deadline, f"lost: {missing[:10]} and {len(missing)} in all"
        await asyncio.sleep(1.0)


def _missing(place: Site) -> list[tuple[str, int]]:
    done = {item for line in place.lines() if not line.began for item in line.items}
    return [(key, n) for key, count in place.written.items() for n in range(count) if (key, n) not in done]


def _judge(place: Site, paused: Paused) -> None:
    lines = place.lines()
    runs = [line for line in lines if line.began]
    delivered = sum(len(line.items) for line in runs)
    total = sum(place.written.values())
    print(f"{total} records, {delivered} deliveries, {delivered - total} of them again")
    assert total > KEYS * LOAD_S / 4
    for key, numbers in _deliveries(runs).items():
        _in_order(key, numbers)
    late = [line for line in runs if line.worker == paused.worker and line.at > paused.woken]
    wrong = [
        line
        for line in late
        if certainly_without_lease(place.looks, line.worker, ShardId(line.shard), line.at)
    ]
    assert not wrong, f"worked without a lease after it woke: {wrong[:3]}"
    assert delivered - total < total / 4


def _deliveries(runs: Sequence[Line]) -> dict[str, list[int]]:
    found: dict[str, list[int]] = {}
    for line in runs:
        for key, number in line.items:
            found.setdefault(key, []).append(number)
    return found


def _in_order(key: str, numbers: Sequence[int]) -> None:
    """Each record follows the one before it, or a run begins again further back; nothing is passed over."""
    highest = -1
    for before, number in _pairs(numbers):
        assert number == before + 1 or number <= before, f"{key}: {number} after {before}"
        assert number <= highest + 1, f"{key}: {number} before {highest + 1}"
        highest = max(highest, number)


def _pairs(numbers: Sequence[int]) -> Iterator[tuple[int, int]]:
    yield from zip([-1, *numbers], numbers, strict=False)
