"""`poller run` as a process: how it drains, how it is cancelled, what it says of a wrong configuration."""

import asyncio
import re
import signal
import time
from pathlib import Path

import pytest

from adapters.demo.daemon import Daemon, Launcher
from adapters.demo.journal import Line, Reader
from adapters.demo.load import Source, load
from adapters.demo.report import make_report
from adapters.demo.scenario import Scene, scene
from tests.acceptance.daemons import command, drained, open_requests, settled, until

pytestmark = pytest.mark.acceptance

RECORDS = 400
SEED = 7
PAUSE_S = 1.5
LONG_PAUSE_S = 8.0
BUSY_S_MAX = 30.0
SIGNAL_S_MAX = 0.5
"""After which a signal has surely been seen."""


def test_sigterm_lets_running_invocations_finish_and_takes_nothing_new(tmp_path: Path) -> None:
    asyncio.run(_drains(tmp_path))


async def _drains(folder: Path) -> None:
    async with scene(folder, load(RECORDS, SEED)) as stage:
        await _write(stage)
        lines: list[Line] = []
        launcher = stage.launcher()
        with launcher.launched(pause_s=PAUSE_S) as daemon:
            reader = await _busy(launcher, daemon, lines)
            daemon.running.signal(signal.SIGTERM)
            await asyncio.sleep(SIGNAL_S_MAX)
            lines += reader.fresh()
            assert open_requests(lines), "nothing ran any more: the test shows nothing"
            assert await daemon.running.ended(15.0) == 0, daemon.running.tail()
            later = list(reader.fresh())
        assert not [line for line in later if line.began]
        assert not open_requests(lines + later)
        await _goes_on(stage, launcher)


async def _goes_on(stage: Scene, launcher: Launcher) -> None:
    """The next daemon goes on where the drained one stood, and repeats nothing."""
    with launcher.launched() as daemon:
        await settled(stage, within_s=60.0)
        assert await drained(daemon, within_s=15.0) == 0
    found = make_report(stage.evidence)
    assert not found.problems
    assert [row.repeated for row in found.rows] == [0, 0, 0, 0]


def test_a_second_sigterm_cancels_running_invocations(tmp_path: Path) -> None:
    asyncio.run(_cancelled(tmp_path))


async def _cancelled(folder: Path) -> None:
    async with scene(folder, load(RECORDS, SEED)) as stage:
        await _write(stage)
        lines: list[Line] = []
        launcher = stage.launcher()
        with launcher.launched(pause_s=LONG_PAUSE_S) as daemon:
            await _busy(launcher, daemon, lines)
            daemon.running.signal(signal.SIGTERM)
            await asyncio.sleep(SIGNAL_S_MAX)
            daemon.running.signal(signal.SIGTERM)
            began = time.monotonic()
            assert await daemon.running.ended(15.0) == 1, daemon.running.tail()
        assert time.monotonic() - began < LONG_PAUSE_S - SIGNAL_S_MAX, "it waited for what it had to cancel"


async def _write(stage: Scene) -> None:
    for items in stage.evidence.load.values():
        await stage.writer().write(items)


async def _busy(launcher: Launcher, daemon: Daemon, lines: list[Line]) -> Reader:
    """Waits until every function is at work at the same time; returns a reader that stands behind `lines`."""
    await daemon.ready()
    reader = Reader(launcher.journal)

    def all_at_work(seen: list[Line]) -> bool:
        running = open_requests(seen)
        return {line.source for line in seen if line.request in running} == set(Source)

    await until(reader, lines, all_at_work, BUSY_S_MAX)
    return reader


def test_a_wrong_configuration_names_file_field_value_and_remedy(tmp_path: Path) -> None:
    config = tmp_path / "wrong.yaml"
    config.write_text(
        "listen: 127.0.0.1:0\n"
        "store: memory://\n"
        "functions: {orders: {invoker: python, handler: 'adapters.demo.functions:orders'}}\n"
        "mappings:\n"
        "  - FunctionName: orders\n"
        "    EventSourceArn: arn:aws:kinesis:eu-west-1:111122223333:stream/orders\n"
        "    StartingPosition: TRIM_HORIZON\n"
        "    BatchSize: 10001\n"
    )
    ended = command("run", "--config", str(config))
    assert ended.status == 2
    assert ended.out == ""
    assert str(config) in ended.err
    assert "mappings[0].BatchSize" in ended.err
    assert "10001" in ended.err
    assert "10000" in ended.err


def test_a_handler_that_is_not_there_is_refused_before_anything_is_read(tmp_path: Path) -> None:
    config = tmp_path / "wrong.yaml"
    config.write_text(
        "listen: 127.0.0.1:0\n"
        "store: memory://\n"
        "functions: {orders: {invoker: python, handler: 'nowhere.at_all:orders'}}\n"
        "mappings:\n"
        "  - FunctionName: orders\n"
        "    EventSourceArn: arn:aws:kinesis:eu-west-1:111122223333:stream/orders\n"
        "    StartingPosition: TRIM_HORIZON\n"
    )
    ended = command("run", "--config", str(config))
    assert ended.status == 2
    for part in (str(config), "functions.orders.handler", "nowhere.at_all:orders", "install it"):
        assert part in ended.err


def test_the_readme_has_a_configuration_that_works(tmp_path: Path) -> None:
    root = Path(__file__).parents[2]
    blocks = re.findall(r"^```yaml\n(.*?)^```$", (root / "README.md").read_text(), re.M | re.S)
    config = tmp_path / "mine.yaml"
    config.write_text(blocks[0])
    ended = command("check", "--config", str(config), cwd=root / "examples")
    assert ended.status == 0, ended.err
    assert len(blocks) == 1


def test_every_document_that_the_readme_names_is_there() -> None:
    root = Path(__file__).parents[2]
    links = re.findall(r"\]\(([^)#:]+)\)", (root / "README.md").read_text())
    assert links
    assert [link for link in links if not (root / link).exists()] == []
