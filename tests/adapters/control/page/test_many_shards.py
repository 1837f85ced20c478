"""A thousand shards: an update touches the rows of what has changed, and rows that nobody has opened are not there."""

from typing import Any

import pytest

from tests.adapters.control.page.scenes import Room, Scene, Stage, blocked_lane, play, shard, status, stream

pytestmark = pytest.mark.acceptance

SHARDS = 1000
OPEN_LIST = "document.querySelector('#mappings details.list').open = true"
ROWS = "document.querySelectorAll('.shards > li').length"
# The rows in which anything was changed since the last call.
WATCH = """
globalThis.touched = new Set();
new MutationObserver((changes) => {
  for (const { target } of changes) {
    const at = target.nodeType === Node.TEXT_NODE ? target.parentElement : target;
    const row = at?.closest('.shards > li');
    if (row) globalThis.touched.add(row.querySelector('.name').textContent);
    if (at?.matches('.shards')) globalThis.touched.add('the order');
  }
}).observe(document.querySelector('main'), { subtree: true, childList: true, characterData: true, attributes: true });
undefined
"""
TOUCHED = "Array.from(globalThis.touched)"


def many(**odd: Any) -> Any:
    """A thousand shards that get on; number 500 has other facts."""
    shards = [shard(number) for number in range(SHARDS)]
    shards[500] = shard(500, **odd)
    return status(stream(shards))


def test_an_update_of_one_shard_touches_one_row_of_a_thousand(room: Room) -> None:
    async def use(scene: Scene) -> list[str]:
        page = scene.page
        await page.sees("1,000 shards: 1,000 reading")
        assert await page.evaluate(ROWS) == 0
        await page.evaluate(OPEN_LIST)
        await page.comes_true(f"{ROWS} === {SHARDS}")
        await page.evaluate(WATCH)
        scene.view.now = many(behind_ms=7_200_000)
        await page.comes_true("document.querySelector('.shards').textContent.includes('2 h behind')")
        return list(await page.evaluate(TOUCHED))

    stage = Stage(room, status=many(), token="")
    assert play(use, stage) == ["shardId-000000000500"]


def test_a_shard_that_is_blocked_comes_to_the_top_and_no_other_row_is_touched(room: Room) -> None:
    async def use(scene: Scene) -> tuple[list[str], str]:
        page = scene.page
        await page.sees("1,000 shards: 1,000 reading")
        await page.evaluate(OPEN_LIST)
        await page.comes_true(f"{ROWS} === {SHARDS}")
        await page.evaluate(WATCH)
        scene.view.now = many(state="blocked", lanes=(blocked_lane(),))
        await page.sees("no stock for this")
        await page.sees("1,000 shards: 1 blocked, 999 reading")
        return list(await page.evaluate(TOUCHED)), await page.text(".shards > li .name")

    touched, first = play(use, Stage(room, status=many(), token=""))
    assert set(touched) == {"shardId-000000000500", "the order"}
    assert first == "shardId-000000000500"


def test_rows_that_are_not_in_view_are_not_laid_out(room: Room) -> None:
    async def use(scene: Scene) -> tuple[int, int]:
        page = scene.page
        await page.sees("1,000 shards: 1,000 reading")
        await page.evaluate(OPEN_LIST)
        await page.comes_true(f"{ROWS} === {SHARDS}")
        await page.comes_true(
            "new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(() => done(true))))"
        )
        visible = (
            "Array.from(document.querySelectorAll('.shards .name')).filter((it) => "
            "it.checkVisibility({ contentVisibilityAuto: true })).length"
        )
        return int(await page.evaluate(ROWS)), int(await page.evaluate(visible))

    rows, laid_out = play(use, Stage(room, status=many(), token=""))
    assert rows == SHARDS
    assert 0 < laid_out < SHARDS / 5
