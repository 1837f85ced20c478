"""A daemon that is killed over and over loses nothing and keeps the order."""

import asyncio
import time
from pathlib import Path
from random import Random

import pytest

from adapters.demo.daemon import Daemon
from adapters.demo.journal import Reader
from adapters.demo.load import load
from adapters.demo.report import make_report
from adapters.demo.scenario import Scene, scene
from tests.acceptance.daemons import drained, kill, open_requests, settled

pytestmark = pytest.mark.acceptance

KILLS = 20
RECORDS = 4500
LOAD_S = 50.0
"""Over which the load is written; the kills fall into it."""
EARLY = 0.2
"""Share of kills that fall into a daemon's first moments."""
START_S_MAX = 1.5
WORK_S_MAX = 1.5
"""For how long a daemon that was ready is let alone."""
PAUSE_S = 0.2
BATCH_SIZE = 10
"""Small and slow batches: a daemon that runs always has some at work, and some read beyond those."""
CUTS_MIN = 8
"""Kills that must have hit running invocations; fewer would show nothing."""
RECEIVES_MAX = 6
SETTLE_S_MAX = 90.0


@pytest.mark.timeout(240)
def test_sigkill_at_random_moments_loses_nothing_and_keeps_order(tmp_path: Path) -> None:
    seed = Random().randrange(2**32)
    print(f"seed {seed}")
    asyncio.run(_killed_over_and_over(tmp_path, seed))


async def _killed_over_and_over(folder: Path, seed: int) -> None:
    rng = Random(seed)
    items = load(RECORDS, seed)
    async with scene(folder, items, receives_max=RECEIVES_MAX) as stage:
        launcher = stage.launcher()
        began = time.monotonic()
        async with asyncio.TaskGroup() as scope:
            for source, its in items.items():
                scope.create_task(stage.writer().write(its, over_s=LOAD_S), name=f"write {source}")
            cuts = 0
            reader = Reader(launcher.journal)
            for _ in range(KILLS):
                with launcher.launched(pause_s=PAUSE_S, batch_size=BATCH_SIZE) as daemon:
                    await _at_a_random_moment(daemon, rng)
                    await kill(daemon)
                cuts += bool(open_requests(list(reader.fresh())))
                await stage.look()
        print(f"killed {KILLS} times in {time.monotonic() - began:.1f} s, {cuts} of them while functions ran")
        with launcher.launched() as daemon:
            await settled(stage, within_s=SETTLE_S_MAX)
            assert await drained(daemon, within_s=15.0) == 0
        await stage.look()
        print(f"all over after {time.monotonic() - began:.1f} s")
        _judge(stage, seed)
        assert cuts >= CUTS_MIN, f"seed {seed}"


async def _at_a_random_moment(daemon: Daemon, rng: Random) -> None:
    if rng.random() < EARLY:
        await asyncio.sleep(rng.uniform(0.0, START_S_MAX))
        return
    await daemon.ready()
    await asyncio.sleep(rng.uniform(0.0, WORK_S_MAX))


def _judge(stage: Scene, seed: int) -> None:
    found = make_report(stage.evidence, lenient=True)
    print(*found.rows, sep="\n")
    assert not found.problems, f"seed {seed}: {found.problems}"
    assert sum(row.written for row in found.rows) >= RECORDS
    # A queue's deletes follow at once, so that few kills fall between; a stream's checkpoints follow within a second.
    for row in (row for row in found.rows if row.source.stream):
        assert row.repeated > 0, f"seed {seed}: no kill cut off any work on {row.source}, which shows nothing"
