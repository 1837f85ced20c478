"""Aliases on the page: the shares of versions, the shift, who may shift and roll back, and texts that are hostile."""

import asyncio
from dataclasses import replace

import pytest

from poller.domain.functions.alias_control import AliasChange, AliasView, ShiftRequest
from poller.domain.functions.shift_strategies import strategy
from poller.domain.functions.shifts import ShiftState
from tests.adapters.control.invoke.callers import CallerModel
from tests.adapters.control.page.scenes import TOKENS, Room, Scene, Stage, play
from tests.adapters.control.page.test_hostile_texts import MARKUP

pytestmark = pytest.mark.acceptance

REASON = "Reason, for others to read"
BUTTONS = "Array.from(document.querySelectorAll('#aliases button'), (it) => it.textContent)"
FOREIGN = "document.querySelectorAll('#aliases :is(img, script, b, a, object, [style], [onerror])').length"


def caller(*, shifting: bool = False) -> CallerModel:
    async def make() -> CallerModel:
        found = CallerModel(versions=("1", "2"))
        await found.aliases.create("orders", "live", AliasChange(version="1"))
        if shifting:
            canary = ShiftRequest(
                to="2", strategy=strategy("Canary10Percent5Minutes"), by="ann", reason="release 2"
            )
            await found.aliases.shift("orders", "live", canary)
        return found

    return asyncio.run(make())


def test_an_alias_is_shifted_and_rolled_back_by_buttons(room: Room) -> None:
    model = caller()

    async def use(scene: Scene) -> None:
        page = scene.page
        await page.sees("orders:live", within="#aliases")
        assert await page.evaluate(BUTTONS) == ["Shift"]
        await page.click("Shift", within="#aliases")
        await page.fill("To version", "2")
        await page.fill("Roll back at a greater share of failed calls", "0.05")
        await page.fill(REASON, "release 2")
        assert await page.text("dialog .what") == (
            "The calls of orders:live move from version 1 to version 2, Canary10Percent5Minutes."
        )
        await page.click("Begin the shift", within="dialog")
        await page.sees("version 1 90 %, version 2 10 %", within="#aliases")
        (asked,) = model.alias_model.asked
        assert (asked.to, asked.failure_rate, asked.by, asked.reason) == ("2", 0.05, "oscar", "release 2")
        assert asked.shift.startswith("page-")
        await page.click("Roll back", within="#aliases")
        assert await page.text("dialog .what") == (
            "All calls of orders:live go to version 1 at once, and the shift to version 2 ends."
        )
        await page.fill(REASON, "errors")
        await page.click("Roll back now", within="dialog")
        await page.sees("rolled back", within="#aliases")
        await page.sees("by oscar: errors", within="#aliases")
        assert model.aliases.alias("orders", "live").weights == {}

    play(use, Stage(room, calls=model, token=TOKENS["operate"]))


def test_what_the_daemon_refuses_stays_open_and_who_only_looks_has_no_button(room: Room) -> None:
    model = caller()

    async def use(scene: Scene) -> None:
        page = scene.page
        await page.click("Shift", within="#aliases")
        await page.fill("To version", "9")
        await page.click("Begin the shift", within="dialog")
        await page.sees("Function not found: ", within="dialog")
        await page.click("Close", within="dialog")
        await scene.sign_in(TOKENS["view"])
        await page.sees("You look as vera, role view.")
        await page.sees("orders:live", within="#aliases")
        assert await page.evaluate(BUTTONS) == []

    play(use, Stage(room, calls=model, token=TOKENS["operate"]))
    assert model.alias_model.asked == []


def test_hostile_texts_of_a_shift_stay_texts(room: Room) -> None:
    model = caller(shifting=True)
    ((key, view),) = model.alias_model.kept.items()
    model.alias_model.kept[key] = hostile(view)

    async def use(scene: Scene) -> None:
        await scene.page.sees("rolled back", within="#aliases")
        await scene.page.sees(MARKUP, within="#aliases")
        assert await scene.page.evaluate(FOREIGN) == 0

    play(use, Stage(room, calls=model))


def hostile(view: AliasView) -> AliasView:
    """The alias with a text of markup wherever somebody may write one."""
    assert view.shift is not None
    named = replace(view.shift.strategy, name=MARKUP)
    shift = replace(
        view.shift,
        state=ShiftState.ROLLED_BACK,
        old=MARKUP,
        new="__proto__",
        strategy=named,
        by=MARKUP,
        reason=MARKUP,
        ended_because=MARKUP,
    )
    return replace(view, description=MARKUP, version=MARKUP, weights={"__proto__": 0.5}, shift=shift)
