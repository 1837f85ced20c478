"""Who sees which buttons, and where the token is kept."""

import pytest

from tests.adapters.control.page.scenes import TOKENS, Room, Scene, Stage, play

pytestmark = pytest.mark.acceptance

BUTTONS = "Array.from(document.querySelectorAll('main button[data-action]'), (it) => it.dataset.action)"
LOOKING = {"records"}
OPERATING = {"retry", "reset", "skip", "pause", "resume", "seek", "replay", "redrive"}
CHANGING = {"disable"}
OPEN_ALL = "document.querySelectorAll('main details').forEach((it) => { it.open = true })"


@pytest.mark.parametrize(
    ("token", "says", "buttons"),
    [
        ("", "You look without a token. To act, enter a token", LOOKING),
        (TOKENS["view"], "You look as vera, role view. To act, enter a token", LOOKING),
        (TOKENS["operate"], "You are oscar, role operate.", LOOKING | OPERATING),
        (TOKENS["admin"], "You are alice, role admin.", LOOKING | OPERATING | CHANGING),
    ],
    ids=["none", "view", "operate", "admin"],
)
def test_there_are_buttons_for_what_the_token_may_do(
    token: str, says: str, buttons: set[str], room: Room
) -> None:
    async def use(scene: Scene) -> set[str]:
        if token:
            await scene.sign_in(token)
        await scene.page.sees(says)
        await scene.page.evaluate(OPEN_ALL)
        await scene.page.comes_true("document.querySelector('.shards [data-action=records]') !== null")
        return set(await scene.page.evaluate(BUTTONS))

    assert play(use, Stage(room, token="")) == buttons


def test_a_daemon_whose_reads_need_a_token_asks_for_it(room: Room) -> None:
    async def use(scene: Scene) -> None:
        page = scene.page
        assert await page.texts("#mappings li") == []
        await page.fill("Token", "no such token")
        await page.click("Use it")
        await page.sees("A token is one word")
        await page.fill("Token", "wrong")
        await page.click("Use it")
        await page.sees("The daemon does not know this token.")
        await page.fill("Token", TOKENS["view"])
        await page.click("Use it")
        await page.sees("You look as vera, role view.")
        await page.sees("mails ← sqs mails.fifo")

    play(use, Stage(room, token="", api={"reads": "token"}, first="Who you are"))


def test_the_token_is_kept_in_the_tab_alone_and_can_be_forgotten(room: Room) -> None:
    async def use(scene: Scene) -> None:
        page = scene.page
        kept = "[JSON.stringify({...sessionStorage}), localStorage.length, document.cookie, location.href.includes('all-3')]"
        assert await page.evaluate(kept) == ['{"poller.token":"all-3"}', 0, "", False]
        await page.ask("reload")
        await page.sees("You are alice, role admin.")
        await page.click("Enter a token")
        await page.click("Forget the token")
        await page.sees("You look without a token.")
        assert await page.evaluate("sessionStorage.length") == 0

    play(use, Stage(room))


def test_a_page_that_is_turned_off_is_not_there(room: Room) -> None:
    async def use(scene: Scene) -> list[int]:
        paths = ("/", "/page/main.js", "/page/page.css", "/v1/updates")
        return [(await scene.run.get(path))[0] for path in paths]

    assert play(use, Stage(room, api={"page": False}, token="", first="", answers=404)) == [404] * 4
