"""`poller demo` from outside: what it prints, its exit status, and that nothing of it is left."""

import json
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from adapters.demo.processes import plain_environment
from tests.acceptance.daemons import Ended, alive, children, command, interrupt, wait_until

pytestmark = pytest.mark.acceptance

DEMO_S_MAX = 60.0
BREAK_OFF_S_MAX = 15.0


@pytest.fixture(scope="module")
def played() -> tuple[Ended, float]:
    """One demo as a user gets it, but for JSON."""
    began = time.monotonic()
    ended = command("demo", "--json")
    return ended, time.monotonic() - began


@pytest.fixture
def rows(played: tuple[Ended, float]) -> dict[str, Any]:
    """Its account by source."""
    return {row["source"]: row for row in json.loads(played[0].out)["rows"]}


def test_every_record_is_accounted_for_within_a_minute(played: tuple[Ended, float]) -> None:
    ended, took_s = played
    document = json.loads(ended.out)
    assert (ended.status, document["problems"]) == (0, []), ended.err
    assert document["ok"] is True
    assert sum(row["written"] for row in document["rows"]) >= 1000
    assert took_s < DEMO_S_MAX


def test_each_source_has_its_poison_where_poison_goes(rows: dict[str, Any]) -> None:
    assert set(rows) == {"orders", "stock", "mails", "payments"}
    for row in rows.values():
        assert row["buried"]
        assert row["written"] == row["processed"] + len(row["buried"]) + row["filtered"]


def test_streams_gave_up_exactly_one_record_after_their_retries(rows: dict[str, Any]) -> None:
    streams = [rows[source] for source in ("orders", "stock")]
    for row in streams:
        assert row["discarded"] == len(row["buried"]) == 1
        assert row["conditions"] == ["RetryAttemptsExhausted"]
    # On a busy machine one poison may come in a batch of its own, which cannot be halved.
    assert sum(row["bisections"] for row in streams) > 0


def test_progress_is_shown_while_it_runs(played: tuple[Ended, float]) -> None:
    progress = re.findall(r"^orders: \d+ delivered, \d+ filtered, \d+ given up of \d+", played[0].err, re.M)
    assert len(progress) >= 2


def test_what_has_not_settled_in_time_is_explained() -> None:
    ended = command("demo", "--records", "400", "--seed", "3", "--timeout", "1.5")
    assert ended.status == 1
    assert "PROBLEM: not everything had settled after 1.5 s (--timeout)" in ended.out
    assert re.search(
        r"PROBLEM: mails: .*neither processed nor in its dead-letter queue: mails-\d+/\d+", ended.out
    )
    assert "What became" not in ended.err


def test_without_the_emulator_it_names_the_extra() -> None:
    without = "import sys; sys.modules['ministack'] = None; from poller.cli import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", without, "demo"],
        capture_output=True,
        text=True,
        check=False,
        timeout=30,
        env=plain_environment(),
    )
    assert done.returncode == 2
    assert "pip install 'esm-poller[demo]'" in done.stderr
    assert "Traceback" not in done.stderr


def test_keep_leaves_a_configuration_that_can_be_read_again() -> None:
    ended = command("demo", "--records", "80", "--keep")
    assert ended.status == 0, ended.out
    found = re.search(r"journal are in (\S+)", ended.out)
    assert found
    folder = Path(found.group(1))
    names = {path.name for path in folder.iterdir()}
    assert {"poller.yaml", "state.db", "journal.jsonl", "daemon.log", "emulator.log"} <= names
    assert command("check", "--config", str(folder / "poller.yaml")).status == 0
    for path in folder.iterdir():
        path.unlink()
    folder.rmdir()


def test_ctrl_c_ends_everything_that_was_started(tmp_path: Path) -> None:
    with _started(tmp_path) as process:
        out = tmp_path / "out"
        wait_until(lambda: "daemon ready" in out.read_text(), within_s=30)
        started = children(process.pid)
        assert len(started) == 2
        interrupt(process)
        assert process.wait(BREAK_OFF_S_MAX) == 130
    assert not [pid for pid in started if alive(pid)]
    assert "interrupted" in out.read_text()
    assert not list(tmp_path.glob("poller-demo-*"))


@contextmanager
def _started(folder: Path) -> Iterator["subprocess.Popen[str]"]:
    """A demo that writes to the file `out`, and makes its own folder in `folder`."""
    with (
        (folder / "out").open("w") as out,
        subprocess.Popen(
            [sys.executable, "-m", "poller", "demo"],
            stdout=out,
            stderr=subprocess.STDOUT,
            text=True,
            env=plain_environment() | {"TMPDIR": str(folder)},
            # A test run in the background hands down an ignored SIGINT; a person's terminal does not.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
        ) as process,
    ):
        try:
            yield process
        finally:
            process.kill()
