"""A daemon that is killed over and over loses nothing and keeps the order."""

import asyncio
from pathlib import Path
from random import Random

import pytest

from adapters.demo.account import account
from adapters.demo.load import load
from adapters.demo.story import Scene, scene
from tests.acceptance.daemons import drained, kill, settled

pytestmark = pytest.mark.acceptance

KILLS = 22
RECORDS = 2400
LOAD_S = 60.0
"""Over which the load is written; the kills fall into it."""
UP_S_MAX = 3.5
"""For how long a daemon is let alone; it is ready after about one."""
PAUSE_S = 0.05
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
        async with asyncio.TaskGroup() as scope:
            for source, its in items.items():
                scope.create_task(stage.writer().write(its, over_s=LOAD_S), name=f"write {source}")
            for _ in range(KILLS):
                with launcher.launched(pause_s=PAUSE_S) as daemon:
                    await asyncio.sleep(rng.uniform(0.0, UP_S_MAX))
                    await kill(daemon)
                await stage.look()
        with launcher.launched() as daemon:
            await settled(stage, within_s=SETTLE_S_MAX)
            assert await drained(daemon, within_s=15.0) == 0
        await stage.look()
        _judge(stage, seed)


def _judge(stage: Scene, seed: int) -> None:
    found = account(stage.evidence, lenient=True)
    assert not found.problems, f"seed {seed}: {found.problems}"
    assert sum(row.written for row in found.rows) >= RECORDS
    repeated = sum(row.repeated for row in found.rows)
    assert repeated > 0, f"seed {seed}: no kill cut off any work, which shows nothing"
