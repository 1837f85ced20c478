"""What becomes of a page that stays open: other tabs, another daemon behind it, and what somebody does while something goes on."""

import asyncio
import json
from dataclasses import replace
from typing import Any

import pytest

from poller.domain.mapping_api import ApiError, ApiErrorType
from tests.adapters.control.operation_control import OperationModel
from tests.adapters.control.page.scenes import (
    PATIENCE_S,
    Room,
    Scene,
    Stage,
    blocked_lane,
    pause,
    play,
    shard,
    status,
    stream,
)

pytestmark = pytest.mark.acceptance

ORDERS = {"within": '[role=group][aria-label="orders"]'}
TABS = 8
FOCUSED = "document.activeElement.textContent"


def test_any_number_of_tabs_can_be_open_and_the_one_that_is_looked_at_reads(room: Room) -> None:
    """A browser makes six connections to a daemon. Without any left no page loads, and no operation is asked for."""

    async def use(scene: Scene) -> None:
        page = scene.page
        for _ in range(TABS - 1):
            await page.tab(scene.run.url)
            await page.sees("Live.")
        await page.turn(0)
        await page.sees("Live.")
        await page.click("Pause", **ORDERS)
        await page.click("Pause", within="dialog")
        await page.sees("Accepted: ")
        await page.turn(1)
        await page.sees("Live.")
        titles = [await page.evaluate("document.title")]
        for number in (4, 5):
            await page.ask("turn", number=number, quietly=True)
            await page.sees("Other tabs of this browser read instead.")
            await page.sees("What is shown is ")
            titles.append(await page.evaluate("document.title"))
        assert [each.startswith("Not up to date: ") for each in titles] == [False, True, True]

    play(use, Stage(room))


def feeding(*events: tuple[str, Any]) -> str:
    """An expression that makes the page read these events, from now on, in place of those of the daemon."""
    text = "".join(f"event: {name}\ndata: {json.dumps(data)}\n\n" for name, data in events)
    return (
        "window.addEventListener('error', (event) => event.preventDefault());"
        f"window.fetch = async () => new Response(new Blob([{json.dumps(text)}]).stream());"
        "window.dispatchEvent(new Event('online'))"
    )


def caller(page: str) -> tuple[str, Any]:
    """The event that says who reads."""
    return "caller", {"name": "alice", "role": "admin", "writes": True, "page": page}


FOREIGN: dict[str, list[tuple[str, Any]]] = {
    "another version of the page": [caller("another")],
    "a status without shards": [("status", {"worker": "ann", "mappings": [{"mapping": "m"}]})],
    "a function that no view can show": [
        ("changed", {"functions": [{"function": None}], "workers": [], "notes": ["seen all the same"]})
    ],
    "operations that are no lists": [("operations", {"open": {}, "ended": {}})],
    "points of nothing": [("point", {"now": 1.0})],
}


@pytest.mark.parametrize("what", FOREIGN)
def test_a_page_that_does_not_fit_the_daemon_any_more_says_so(what: str, room: Room) -> None:
    async def use(scene: Scene) -> None:
        page = scene.page
        assert not await page.count(role="button", name="Load it again")
        await page.evaluate(feeding(*FOREIGN[what]))
        await page.sees("This page does not fit the daemon any more.")
        if "view" in what:
            await page.sees("seen all the same")
        await page.click("Load it again")
        await page.sees("Live.")
        assert await page.text("#outdated") == ""

    play(use, Stage(room))


def paused(*, whole: bool, lanes: int = 1) -> Any:
    """One mapping with blocked lanes, which is paused or not."""
    found = tuple(blocked_lane(lane=str(number)) for number in range(lanes))
    mapping = stream([shard(0, state="blocked", lanes=found)], paused=pause() if whole else None)
    return status(mapping)


def test_what_has_the_focus_and_goes_hands_it_over_to_what_is_near(room: Room) -> None:
    async def use(scene: Scene) -> list[str]:
        page, focused = scene.page, []
        await page.evaluate("document.querySelector('.mapping > .buttons [data-action=pause]').focus()")
        scene.view.now = paused(whole=True)
        await page.wait(css=".mapping > .buttons [data-action=resume]")
        focused.append(await page.evaluate(FOCUSED))
        await page.evaluate("[...document.querySelectorAll('.trouble [data-action=skip]')].at(-1).focus()")
        scene.view.now = paused(whole=True, lanes=0)
        await page.wait(css=".trouble [data-action=skip]", gone=True)
        focused.append(await page.evaluate(FOCUSED))
        scene.view.now = status()
        await page.sees("There are no mappings.")
        focused.append(await page.evaluate(FOCUSED))
        return focused

    assert play(use, Stage(room, status=paused(whole=False))) == ["Resume", "Resume", "Mappings"]


def test_what_is_refused_after_its_dialog_was_closed_is_said(room: Room) -> None:
    answered = asyncio.Event()

    class Slow(OperationModel):
        async def submit(self, mapping: Any, request: Any, *, by: str) -> Any:
            await asyncio.wait_for(answered.wait(), PATIENCE_S)
            raise ApiError(ApiErrorType.CONFLICT, "shard: nobody holds it")

    async def use(scene: Scene) -> None:
        page = scene.page
        await page.click("Pause", **ORDERS)
        await page.click("Pause", within="dialog")
        await page.press("Escape")
        await page.wait(css="dialog", gone=True)
        answered.set()
        await page.sees("Not accepted: pause of orders")
        await page.sees("shard: nobody holds it")

    play(use, Stage(room, operations=Slow()))


def test_records_that_are_asked_for_while_others_come_are_shown_alone(room: Room) -> None:
    async def use(scene: Scene) -> None:
        page = scene.page
        await page.click("Look at records", within=".trouble", text="Lane 0")
        await page.comes_true("document.querySelectorAll('dialog li').length > 0")
        await page.choose("From", "TRIM_HORIZON")
        await page.comes_true("document.querySelectorAll('dialog li').length > 0")
        once = await page.count(css="dialog li")
        await page.evaluate(
            "(() => { const from = document.getElementById('from');"
            "for (let turn = 0; turn < 5; turn += 1) from.dispatchEvent(new Event('change')); })()"
        )
        await asyncio.sleep(0.5)
        await page.comes_true("document.querySelectorAll('dialog li').length > 0")
        assert await page.count(css="dialog li") == once

    play(use, Stage(room))


def test_a_browser_that_keeps_nothing_for_pages_can_still_look_and_act(room: Room) -> None:
    async def use(scene: Scene) -> list[Any]:
        page = scene.page
        await page.evaluate(
            "Object.defineProperty(window, 'sessionStorage', { get() { throw new DOMException('no', 'SecurityError'); } });"
            "window.dispatchEvent(new Event('online'))"
        )
        await page.sees("You look without a token.")
        await scene.sign_in("all-3")
        await page.sees("You are alice")
        await page.click("Pause", **ORDERS)
        await page.click("Pause", within="dialog")
        await page.sees("Accepted: ")
        return scene.asked()

    assert len(play(use, Stage(room, token=""))) == 1


def test_the_ages_follow_the_daemon_when_the_clock_of_the_browser_is_set(room: Room) -> None:
    async def use(scene: Scene) -> None:
        page = scene.page
        await page.evaluate("(() => { const now = Date.now; Date.now = () => now() + 7_200_000; })()")
        await page.sees("2 h, since ")
        scene.history.ended += 1
        await page.comes_true("!document.querySelector('.trouble').textContent.includes('2 h, since')")

    play(use, Stage(room, status=replace(paused(whole=False), ready=True)))
