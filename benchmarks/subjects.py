"""Owns the processes of a measurement: the stub on one core, one subject at a time on another."""

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Protocol
from urllib.request import urlopen

import yaml

from adapters.demo.processes import free_port
from benchmarks.loops import QUEUE_ARN, STREAM_ARN, TABLE_ARN
from benchmarks.signed_calls import REGION

READY_S_MAX = 180.0
"""On a machine that others use too, a start may take long."""
END_S_MAX = 20.0
LOOK_S = 0.05
TAIL_CHARS = 4_000
TICKS_PER_S = os.sysconf("SC_CLK_TCK")
SOURCES = {
    "kinesis": STREAM_ARN,
    "consumer": f"{STREAM_ARN}/consumer/orders:1700000000",
    "dynamodb": TABLE_ARN,
    "sqs": QUEUE_ARN,
    "fifo": f"{QUEUE_ARN}.fifo",
}
"""What a mapping reads. A consumer is pushed the stream's records."""
STREAMS = ("kinesis", "consumer", "dynamodb")
PATTERNS = {
    "kinesis": '{"data": {"kind": ["alarm"]}}',
    "dynamodb": '{"dynamodb": {"NewImage": {"kind": {"S": ["alarm"]}}}}',
    "sqs": '{"body": {"kind": ["alarm"]}}',
    "fifo": '{"body": {"kind": ["alarm"]}}',
}


class Cores:
    """Which cores run what. `apart`: the subject has one of its own, where there are two."""

    def __init__(self, *, apart: bool = True) -> None:
        available = sorted(os.sched_getaffinity(0))
        self.subject = {available[0]} if apart else set(available)
        self.stub = {available[-1]}

    @contextmanager
    def children_on(self, cores: set[int]) -> Iterator[None]:
        """Processes that are started inside run on these cores."""
        before = os.sched_getaffinity(0)
        os.sched_setaffinity(0, cores)
        try:
            yield
        finally:
            os.sched_setaffinity(0, before)


class Subject(Protocol):
    """A running process that counts records."""

    @property
    def pid(self) -> int:
        """Its id."""
        ...

    async def count(self) -> int:
        """Records so far."""
        ...


@dataclass(frozen=True, slots=True)
class Loop:
    """A process that prints its counts on SIGUSR1, records first, as a plain or bare loop does."""

    process: subprocess.Popen[bytes]
    output: IO[bytes]

    @property
    def pid(self) -> int:
        """Its id."""
        return self.process.pid

    async def count(self) -> int:
        """Records so far."""
        return self.counts()[0]

    def counts(self) -> list[int]:
        """All that it counts."""
        self.process.send_signal(signal.SIGUSR1)
        found: list[int] = json.loads(self.output.readline())
        return found


@dataclass(frozen=True, slots=True)
class Daemon:
    """The daemon as a user runs it."""

    process: subprocess.Popen[bytes]
    url: str
    metric: str

    @property
    def pid(self) -> int:
        """Its id."""
        return self.process.pid

    async def count(self) -> int:
        """Records so far."""
        return int(await self.figure(self.metric))

    async def figure(self, metric: str) -> float:
        """The sum of a metric's series."""
        (found,) = await self.figures(metric)
        return found

    async def figures(self, *metrics: str) -> list[float]:
        """The same for some metrics at one moment."""
        lines = (await asyncio.to_thread(get, f"{self.url}/metrics")).splitlines()
        return [
            sum(
                float(line.rpartition(" ")[2]) for line in lines if line.startswith((f"{each}{{", f"{each} "))
            )
            for each in metrics
        ]

    async def reads(self, shards: int) -> None:
        """Returns when so many shards are read."""
        until = time.monotonic() + READY_S_MAX
        while await self.figure("poller_shards") < shards:
            assert time.monotonic() < until, "not all shards are read"
            await asyncio.sleep(LOOK_S)


def get(url: str, *, post: bool = False) -> str:
    """The text that an HTTP server answers."""
    with urlopen(url, b"" if post else None, timeout=READY_S_MAX) as answer:
        text: str = answer.read().decode()
    return text


@contextmanager
def stub(cores: Cores, kind: str, *arguments: str) -> Iterator[str]:
    """A running stub; yields its URL."""
    command = [sys.executable, "-m", "benchmarks.stub", kind, *arguments]
    with (
        cores.children_on(cores.stub),
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process,
    ):
        assert process.stdout is not None
        assert process.stdin is not None
        try:
            yield f"http://127.0.0.1:{int(process.stdout.readline())}"
        finally:
            process.stdin.close()


def environment() -> dict[str, str]:
    """What a subject's process may see: no AWS settings of this host."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("AWS_", "POLLER_"))}
    return kept | {
        "AWS_ACCESS_KEY_ID": "AKIDEXAMPLE",
        "AWS_SECRET_ACCESS_KEY": "not-a-secret",
        "AWS_CONFIG_FILE": os.devnull,
        "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
        "AWS_EC2_METADATA_DISABLED": "true",
    }


@asynccontextmanager
async def loop(cores: Cores, subject: str, kind: str, url: str, *, workers: int) -> AsyncIterator[Loop]:
    """A running loop."""
    words = ["-m", "benchmarks.loops", subject, kind, url, "--workers", str(workers)]
    async with counting(cores, [sys.executable, *words]) as found:
        yield found


@asynccontextmanager
async def counting(cores: Cores, command: Sequence[str]) -> AsyncIterator[Loop]:
    """A running process that prints `ready` and then its counts on SIGUSR1."""
    process = _started(cores, command, subprocess.PIPE)
    with _ended(process):
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        yield Loop(process, process.stdout)


def configuration(
    folder: Path,
    url: str,
    listen: str,
    mappings: Sequence[Mapping[str, object]],
    settings: Mapping[str, object],
) -> Path:
    """The file of a daemon with a function that does nothing."""
    function = {"invoker": "python", "handler": "benchmarks.function:nothing"}
    path = folder / "poller.yaml"
    document = {
        "region": REGION,
        "endpoint_url": url,
        "listen": listen,
        "store": f"sqlite://{folder / 'state.db'}",
        "functions": {"orders": function},
        "mappings": list(mappings),
        **settings,
    }
    path.write_text(yaml.safe_dump(document))
    return path


def mapping(kind: str, *, filtered: bool = False) -> dict[str, object]:
    """One mapping with AWS's defaults."""
    found: dict[str, object] = {"FunctionName": "orders", "EventSourceArn": SOURCES[kind]}
    if kind in STREAMS:
        found["StartingPosition"] = "TRIM_HORIZON"
    if filtered:
        found["FilterCriteria"] = {"Filters": [{"Pattern": PATTERNS[kind]}]}
    return found


@asynccontextmanager
async def daemon(
    cores: Cores,
    folder: Path,
    url: str,
    mappings: Sequence[Mapping[str, object]],
    *,
    metric: str = "poller_records_processed_total",
    python: Sequence[str] = (),
    settings: Mapping[str, object] | None = None,
) -> AsyncIterator[Daemon]:
    """A running daemon that is ready; its log is `daemon.log` in `folder`."""
    listen = f"127.0.0.1:{free_port()}"
    config = configuration(folder, url, listen, mappings, settings or {})
    command = [sys.executable, *python, "-m", "poller", "run", "--config", str(config)]
    log = folder / "daemon.log"
    with log.open("wb") as output:
        process = _started(cores, command, output, subprocess.STDOUT)
    with _ended(process):
        found = Daemon(process, f"http://{listen}", metric)
        await _ready(found, log)
        yield found


async def _ready(found: Daemon, log: Path) -> None:
    until = time.monotonic() + READY_S_MAX
    while time.monotonic() < until and found.process.poll() is None:
        try:
            await asyncio.to_thread(get, f"{found.url}/readyz")
        except OSError:
            await asyncio.sleep(LOOK_S)
        else:
            return
    raise RuntimeError(f"the daemon did not become ready:\n{_tail(log)}")


def _tail(log: Path) -> str:
    return log.read_text()[-TAIL_CHARS:]


def _started(
    cores: Cores, command: Sequence[str], output: int | IO[bytes], stderr: int | None = None
) -> subprocess.Popen[bytes]:
    with cores.children_on(cores.subject):
        return subprocess.Popen(command, stdout=output, stderr=stderr, env=environment())


@contextmanager
def _ended(process: subprocess.Popen[bytes]) -> Iterator[None]:
    try:
        yield
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(END_S_MAX)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        if process.stdout is not None:
            process.stdout.close()


def cpu_s(pid: int) -> float:
    """CPU seconds that a process has used so far, all its threads."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS_PER_S


def exact_cpu_s(pid: int) -> float:
    """The same to the microsecond, without threads that have ended."""
    spent_ns = 0
    for each in Path(f"/proc/{pid}/task").glob("*/schedstat"):
        spent_ns += int(each.read_text().split()[0])
    return spent_ns / 1e9


def peak_mb(pid: int) -> float:
    """The most resident memory that a process has had."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) / 1024
    raise AssertionError("/proc has no VmHWM")
