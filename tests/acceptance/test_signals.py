"""Signals at any moment of a daemon's life, and changes of its file while it starts: real processes."""

import json
import os
import random
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from adapters.demo.processes import free_port
from tests.acceptance.daemons import wait_until
from tests.conftest import give_credentials

pytestmark = pytest.mark.acceptance

ROUNDS = 8
LIFE_S = 4.0
CAUGHT = 1 << (signal.SIGTERM - 1)
SLOW = "import time\ntime.sleep(1.5)\ndef take(event, context): pass\n"


def _configuration(folder: Path, *, port: int, functions: int = 1) -> Path:
    (folder / "slow_module.py").write_text(SLOW)
    lines = [f"listen: 127.0.0.1:{port}", f"store: sqlite://{folder}/state.db", "region: eu-west-1"]
    lines += ["endpoint_url: http://127.0.0.1:9", "functions:"]
    names = [f"f{number}" for number in range(functions)]
    lines += [f"  {name}: {{invoker: python, handler: 'slow_module:take'}}" for name in names]
    arn = "arn:aws:kinesis:eu-west-1:000000000000:stream"
    lines += ["mappings:"]
    lines += [
        f"- {{FunctionName: {name}, EventSourceArn: '{arn}/{name}', StartingPosition: LATEST}}"
        for name in names
    ]
    path = folder / "poller.yaml"
    path.write_text("\n".join(lines))
    return path


@contextmanager
def _started(folder: Path, path: Path) -> Iterator[subprocess.Popen[bytes]]:
    with (folder / "daemon.log").open("ab") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "poller", "run", "--config", str(path)],
            cwd=folder,
            env=os.environ | {"PYTHONPATH": f"{Path(__file__).parents[2]}:{folder}"},
            stderr=log,
        )
    try:
        yield process
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()


def _catches(process: subprocess.Popen[bytes]) -> bool:
    """Whether the process has a handler for SIGTERM, that is, whether its own code runs at all."""
    for line in Path(f"/proc/{process.pid}/status").read_text().splitlines():
        if line.startswith("SigCgt:"):
            return bool(int(line.split()[1], 16) & CAUGHT)
    return False


@pytest.fixture(autouse=True)
def _credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    give_credentials(monkeypatch, "000000000000")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_at_any_moment_ends_the_daemon_with_status_0(number: signal.Signals, tmp_path: Path) -> None:
    rng = random.Random(number)
    path = _configuration(tmp_path, port=free_port())
    for turn in range(ROUNDS):
        with _started(tmp_path, path) as process:
            wait_until(lambda process=process: _catches(process), within_s=30)  # type: ignore[misc] # bound at once
            after_s = rng.uniform(0.0, LIFE_S) if turn else 0.0
            time.sleep(after_s)
            process.send_signal(number)
            assert process.wait(40) == 0, f"{after_s:.3f} s after its start"


def test_two_signals_end_it_with_a_status_of_its_own(tmp_path: Path) -> None:
    rng = random.Random(2)
    path = _configuration(tmp_path, port=free_port())
    for _ in range(ROUNDS // 2):
        with _started(tmp_path, path) as process:
            wait_until(lambda process=process: _catches(process), within_s=30)  # type: ignore[misc] # bound at once
            time.sleep(rng.uniform(0.0, LIFE_S))
            process.send_signal(signal.SIGTERM)
            time.sleep(rng.choice((0.0, 0.001, 0.01, 0.1)))
            process.send_signal(signal.SIGTERM)
            assert process.wait(40) in (0, 1)


def test_signals_are_taken_before_anything_heavy_is_imported() -> None:
    program = (
        "import sys; sys.argv = ['poller', 'run']; import poller.__main__, poller.commands.run.early_signals; "
        "poller.commands.run.early_signals.install(); "
        "print([name for name in ('typer', 'yaml', 'pydantic', 'uvloop', 'asyncio') if name in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout == "[]\n"


@pytest.mark.parametrize("how", ["rename", "write", "link"])
def test_a_change_of_the_file_while_the_daemon_starts_is_taken_over(how: str, tmp_path: Path) -> None:
    port = free_port()
    path = _configuration(tmp_path, port=port, functions=2)
    after = path.read_bytes()
    before = _configuration(tmp_path, port=port).read_bytes()
    path.unlink()
    (tmp_path / "..one").mkdir()
    (tmp_path / "..two").mkdir()
    (tmp_path / "..one" / "poller.yaml").write_bytes(before)
    (tmp_path / "..two" / "poller.yaml").write_bytes(after)
    if how == "link":
        (tmp_path / "..data").symlink_to("..one")
        path.symlink_to("..data/poller.yaml")
    else:
        path.write_bytes(before)
    with _started(tmp_path, path) as process:
        # Its handlers and a function's module take seconds; the file was read when the store's file is there.
        wait_until((tmp_path / "state.db").exists, within_s=60)
        match how:
            case "rename":
                (tmp_path / "..two" / "poller.yaml").rename(path)
            case "write":
                path.write_bytes(after)
            case _:
                (tmp_path / "..tmp").symlink_to("..two")
                (tmp_path / "..tmp").rename(tmp_path / "..data")
        wait_until(lambda: _mappings(port) == {"f0", "f1"}, within_s=60)
        process.send_signal(signal.SIGTERM)
        assert process.wait(40) == 0


def _mappings(port: int) -> set[str]:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/v1/mappings", timeout=2) as answer:
            return {each["function"] for each in json.load(answer)["mappings"]}
    except OSError:
        return set()
