"""The page for everybody: found without fault by axe-core, usable by keyboard alone, and quiet for those who listen to it."""

from dataclasses import replace
from typing import Any

import pytest

from poller.domain.operations import Action, OperationState
from poller.domain.records import Epoch
from tests.adapters.control.operation_control import OperationModel
from tests.adapters.control.page.browser import NARROW, WIDE, Browser
from tests.adapters.control.page.scenes import (
    Room,
    Scene,
    Stage,
    ago,
    everything,
    operation,
    play,
    shard,
    status,
    stream,
)

pytestmark = pytest.mark.acceptance

OPEN_ALL = "document.querySelectorAll('main details').forEach((it) => { it.open = true })"
FOCUSED = "document.activeElement.getAttribute('aria-label') ?? document.activeElement.innerText"
TABS_MAX = 200


def busy() -> OperationModel:
    """Operations that run, and one that has ended."""
    model = OperationModel()
    replay = operation(
        "replay-1", Action.REPLAY, wanted=(), parts={}, progress={"shards": 4, "ended": 1, "records": 1200}
    )
    over = operation(
        "skip-1",
        Action.SKIP,
        state=OperationState.FAILED,
        ended=Epoch(ago(5)),
        result="1 record settled before",
    )
    model.known = {each.operation: each for each in (replay, operation("pause-1"), over)}
    return model


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("width", [NARROW, WIDE])
def test_axe_finds_nothing(width: int, dark: bool, room: Room) -> None:
    async def use(scene: Scene) -> list[Any]:
        page = scene.page
        await page.sees("mails ← sqs mails.fifo")
        closed = await page.axe()
        await page.evaluate(OPEN_ALL)
        opened = await page.axe()
        await page.click("Skip", within=".trouble", text="Lane 0")
        await page.check("Drop them without a notice")
        acting = await page.axe()
        await page.press("Escape")
        await page.click("Look at records", within=".trouble", text="Lane 0")
        await page.sees("4959033827149")
        looking = await page.axe()
        await page.press("Escape")
        await page.click("Enter a token")
        return [*closed, *opened, *acting, *looking, *await page.axe()]

    assert play(use, Stage(room, operations=busy(), width=width, dark=dark)) == []


@pytest.mark.parametrize("width", [NARROW, WIDE])
def test_nothing_has_to_be_scrolled_sideways(width: int, room: Room) -> None:
    async def use(scene: Scene) -> int:
        await scene.page.sees("mails ← sqs mails.fifo")
        await scene.page.evaluate(OPEN_ALL)
        overflow = "document.documentElement.scrollWidth - document.documentElement.clientWidth"
        return int(await scene.page.evaluate(overflow))

    assert play(use, Stage(room, operations=busy(), width=width)) == 0


async def tab_to(page: Browser, name: str) -> None:
    """Presses the tabulator until something has the focus."""
    for _ in range(TABS_MAX):
        await page.press("Tab")
        if await page.evaluate(FOCUSED) == name:
            return
    raise AssertionError(f"{name} is not reached")


def test_a_shard_is_retried_by_keyboard_alone(room: Room) -> None:
    async def use(scene: Scene) -> list[Any]:
        page = scene.page
        await page.ask("reload")
        await page.sees("You are ")
        await page.sees("no stock for this")
        await page.press("Tab")
        assert await page.evaluate(FOCUSED) == "Go to the mappings"
        await page.press("Enter")
        await tab_to(page, "Retry")
        await page.press("Enter")
        await page.wait(css="dialog")
        await page.press("Tab")
        await page.ask("type", text="ticket 4711")
        await page.press("Enter")
        await page.wait(css="dialog", gone=True)
        assert await page.evaluate(FOCUSED) == "Retry"
        return scene.asked()

    stream_only = replace(everything(), mappings=everything().mappings[3:])
    [(_, request)] = play(use, Stage(room, status=stream_only))
    assert request == {"action": "retry", "shard": "shardId-000000000000", "reason": "ticket 4711"}


def test_the_focus_stays_where_it_is_while_mappings_change_their_places(room: Room) -> None:
    async def use(scene: Scene) -> list[str]:
        page = scene.page
        await page.sees("mails ← sqs mails.fifo")
        await page.evaluate(
            "document.querySelector('[role=group][aria-label=audit] [data-action=seek]').focus()"
        )
        well, held, mails, orders = everything().mappings
        ended = replace(orders, shards=(shard(0), shard(1)))
        moved = replace(well, shards=(shard(1, state="failing", reason="cannot be read"),))
        scene.view.now = replace(everything(), mappings=(moved, held, mails, ended))
        await page.sees("cannot be read")
        place = "document.activeElement.closest('[role=group]').getAttribute('aria-label')"
        return [await page.evaluate(each) for each in (place, FOCUSED)]

    assert play(use, Stage(room)) == ["audit", "Seek"]


def test_only_what_is_new_is_read_aloud(room: Room) -> None:
    async def use(scene: Scene) -> list[Any]:
        page = scene.page
        await page.sees("1 shard: 1 reading")
        await page.evaluate(
            "globalThis.spoken = []; const heard = new MutationObserver(() => globalThis.spoken.push("
            "document.getElementById('summary').textContent)); document.querySelectorAll('[role=status]').forEach((it) => "
            "heard.observe(it, {childList: true, characterData: true, subtree: true})); undefined"
        )
        for ms in (61_000, 122_000, 183_000):
            scene.view.now = status(stream([shard(0, behind_ms=ms)]))
            await page.sees(f"{ms // 61_000} min behind")
        scene.view.now = status(stream([shard(0, state="failing", reason="cannot be read")]))
        await page.sees("cannot be read")
        return list(await page.evaluate("globalThis.spoken"))

    stage = Stage(room, status=status(stream([shard(0)])), token="")
    assert play(use, stage) == ["1 failing of 1 mapping"]
