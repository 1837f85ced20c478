"""Four real workers keep their state in PostgreSQL while they are killed and stopped, and the server is killed and replaced."""

import signal
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from poller.domain.records import SHARD_END
from tests.acceptance.operations.fleet import MAPPING, Fleet, fleet, in_order, until
from tests.emulators import Emulator
from tests.postgres import Postgres, replicated

pytestmark = pytest.mark.acceptance

STREAM = "readings"
SHARDS = 8
KEYS = [f"key-{number}" for number in range(32)]
ROUNDS = 15
"""How many records of each key are written while it is watched that they are taken and saved."""
PUT_EVERY_S = 0.1
WORKERS = ("w1", "w2", "w3", "w4")
LEASE_S = 6
STOPPED_S = 8.0
"""Longer than a lease, so that others take the shards of a worker that is stopped."""
AWAY_S = 2.0
S_MAX = 180.0
"""For each wait. On an idle machine none takes more than ten seconds."""


@dataclass(slots=True)
class Load:
    """Writes the next record of every key, over and over."""

    kinesis: Any
    written: Counter[str] = field(default_factory=lambda: Counter(dict.fromkeys(KEYS, 0)))
    over: threading.Event = field(default_factory=threading.Event)

    def run(self) -> None:
        """Returns when `over` is set. A record that was refused is written before the next one of its key."""
        while not self.over.wait(PUT_EVERY_S):
            left = list(KEYS)
            while left:
                left = self._put(left)

    def texts(self) -> set[str]:
        """All that was written."""
        return {f"{key}:{number}" for key, count in self.written.items() for number in range(count)}

    def _put(self, keys: list[str]) -> list[str]:
        records = [{"PartitionKey": key, "Data": f"{key}:{self.written[key]}".encode()} for key in keys]
        answers = self.kinesis.put_records(StreamName=STREAM, Records=records)["Records"]
        done = [key for key, each in zip(keys, answers, strict=True) if "ErrorCode" not in each]
        self.written.update(done)
        return [key for key in keys if key not in done]


@contextmanager
def loaded(kinesis: Any) -> Iterator[Load]:
    """A load that lasts as long as the block."""
    load = Load(kinesis)
    with ThreadPoolExecutor(1) as pool:
        writing = pool.submit(load.run)
        try:
            yield load
        finally:
            load.over.set()
        writing.result()


def goes_on(found: Fleet, load: Load, store: Postgres, what: str) -> None:
    """Waits until records that are written from now on are taken, and until each shard has a later checkpoint."""
    before, least = positions(store), min(load.written.values()) + ROUNDS
    until(lambda: min(load.written.values()) >= least, within_s=S_MAX)
    took = all_taken(found, load)
    later = until(lambda: all_differ(before, positions(store)), within_s=S_MAX, told=found.tails)
    print(
        f"{what}: {ROUNDS * len(KEYS)} records more are taken {took:.1f} s later, and saved {later:.1f} s later"
    )


def all_taken(found: Fleet, load: Load) -> float:
    """Waits until everything that is written by now was taken; returns how long that took."""
    wanted = load.texts()
    return until(lambda: wanted <= set(found.taken()), within_s=S_MAX, told=found.tails)


def positions(server: Postgres) -> dict[str, str]:
    """The position of each shard."""
    return dict(server.run("SELECT shard, position FROM poller.leases"))


def all_differ(before: dict[str, str], now: dict[str, str]) -> bool:
    """Whether each shard has another position."""
    return before.keys() == now.keys() and all(before[shard] != now[shard] for shard in before)


def owners(server: Postgres) -> Counter[str | None]:
    """How many shards each worker has, as the database says."""
    rows = server.run(
        f"SELECT owner, count(*) FROM poller.leases WHERE position <> '{SHARD_END.encode()}' GROUP BY 1"
    )
    return Counter(dict(rows))


@pytest.mark.timeout(600)
def test_nothing_is_lost_or_out_of_order_when_workers_and_the_database_are_killed(
    tmp_path: Path, ministack: Emulator
) -> None:
    with (
        replicated() as (primary, standby),
        fleet(
            tmp_path,
            {"kinesis": ministack.url},
            store=f"postgresql://postgres@127.0.0.1:{primary.port},127.0.0.1:{standby.port}/postgres"
            "?create=true&call_timeout_s=2",
            tuning={"lease_s": LEASE_S, "heartbeat_s": 1},
            takes_s=0.02,
        ) as found,
    ):
        kinesis = found.aws("kinesis")
        kinesis.create_stream(StreamName=STREAM, ShardCount=SHARDS)
        kinesis.get_waiter("stream_exists").wait(
            StreamName=STREAM, WaiterConfig={"Delay": 1, "MaxAttempts": 30}
        )
        found.mapping = {
            "EventSourceArn": found.arn("kinesis", f"stream/{STREAM}"),
            "StartingPosition": "TRIM_HORIZON",
            "BatchSize": 50,
        }
        with ThreadPoolExecutor(len(WORKERS)) as pool:
            list(pool.map(found.start, WORKERS))
        until(lambda: owners(primary).keys() == set(WORKERS), within_s=S_MAX, told=found.tails)
        with loaded(kinesis) as load:
            _troubles(found, load, primary, standby)
        all_taken(found, load)
        _judge(found, load, standby)


def _troubles(found: Fleet, load: Load, primary: Postgres, standby: Postgres) -> None:
    goes_on(found, load, primary, "four workers")
    found.kill("w1")
    found.workers["w2"].signal(signal.SIGSTOP)
    stopped = time.monotonic()
    primary.kill()
    time.sleep(AWAY_S)
    primary.start()
    until(lambda: not owners(primary).keys() & {"w1", "w2"}, within_s=S_MAX, told=found.tails)
    print(
        f"SIGKILL, SIGSTOP and a killed server: others have the shards {time.monotonic() - stopped:.1f} s later"
    )
    goes_on(found, load, primary, "two workers")
    time.sleep(max(0.0, stopped + STOPPED_S - time.monotonic()))
    found.workers["w2"].signal(signal.SIGCONT)
    found.start("w1")
    until(lambda: owners(primary).keys() == set(WORKERS), within_s=S_MAX, told=found.tails)
    until(lambda: standby_follows(primary), within_s=S_MAX)
    # Whoever replaces a primary ends it first.
    primary.kill()
    time.sleep(AWAY_S)
    standby.run("SELECT pg_promote()")
    goes_on(found, load, standby, "a new primary")
    assert owners(standby).keys() == set(WORKERS), "nobody lost a lease by it"


def standby_follows(primary: Postgres) -> bool:
    """Whether nothing can be acknowledged that the standby does not have."""
    return primary.run("SELECT sync_state FROM pg_stat_replication") == [("sync",)]


def _judge(found: Fleet, load: Load, store: Postgres) -> None:
    counts = found.counts()
    assert set(counts) == load.texts()
    repeated = counts.total() - len(counts)
    print(f"{len(counts)} records, {repeated} of them again")
    assert repeated < len(counts) / 2
    assert not in_order(
        found.taken(),
        key=lambda text: text.partition(":")[0],
        number=lambda text: int(text.partition(":")[2]),
    )
    for each in found.workers.values():
        each.signal(signal.SIGTERM)
    until(lambda: all(each.exit_status is not None for each in found.workers.values()), within_s=S_MAX)
    assert {name: each.exit_status for name, each in found.workers.items()} == dict.fromkeys(WORKERS, 0)
    assert owners(store) == {None: SHARDS}, "each lease was given back"
    assert store.run("SELECT count(*) FROM poller.leases WHERE mapping <> %s", MAPPING) == [(0,)]
