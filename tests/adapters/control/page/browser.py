"""Owns a headless Chromium that tests look at the page with. It is driven by playwright-core, in a Node.js process beside it."""

import asyncio
import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from subprocess import PIPE, Popen
from typing import Any

from tests.emulators import NPM, NotReady, installed, node

PROGRAM = "POLLER_TEST_CHROMIUM"
"""The environment variable that names another Chromium than the one of the PATH."""
MISSING = (
    "the tests of the page need a Chromium: install it (on Debian: apt-get install --no-install-recommends chromium), "
    f"or name one in {PROGRAM}"
)
END_S_MAX = 10.0
NARROW, WIDE = 360, 1600
HEIGHT = 900


class PageError(Exception):
    """What was looked for is not on the page, or cannot be used."""


@dataclass
class Browser:
    """One page in a browser. Things are found by role and name, as people and screen readers find them.

    `where` may be `role` and `name`, `label`, or `css`, each `within` a CSS selector, if need be of an element with a `text`.
    """

    process: Popen[bytes]
    version: str = ""

    async def open(
        self,
        url: str,
        *,
        width: int = WIDE,
        height: int = HEIGHT,
        dark: bool = False,
        javascript: bool = True,
    ) -> int:
        """Opens a fresh page without any memory; returns the status of the answer."""
        status = await self.ask("open", url=url, width=width, height=height, dark=dark, javascript=javascript)
        return int(status)

    async def tab(self, url: str) -> None:
        """Opens another tab of the same browser, which is the page from now on."""
        await self.ask("tab", url=url)

    async def turn(self, number: int) -> None:
        """Looks at the tab with this number, counted from 0."""
        await self.ask("turn", number=number)

    async def leave(self) -> None:
        """Closes the page, with all tabs."""
        await self.ask("leave")

    async def click(self, name: str, *, role: str = "button", **where: Any) -> None:
        """Presses a button, or something with another role."""
        await self.ask("click", role=role, name=name, **where)

    async def fill(self, label: str, value: str, **where: Any) -> None:
        """Writes into the field with this label."""
        await self.ask("fill", label=label, value=value, **where)

    async def check(self, label: str) -> None:
        """Ticks a box."""
        await self.ask("check", label=label)

    async def choose(self, label: str, value: str) -> None:
        """Chooses a value of a list."""
        await self.ask("choose", label=label, value=value)

    async def press(self, *keys: str) -> None:
        """Presses keys, one after the other."""
        await self.ask("press", keys=keys)

    async def sees(self, text: str, *, within: str | None = None) -> None:
        """Waits until a text is seen."""
        await self.ask("wait_text", text=text, within=within)

    async def wait(self, *, gone: bool = False, **where: Any) -> None:
        """Waits until something is seen, or no longer."""
        await self.ask("wait", gone=gone, **where)

    async def text(self, css: str, **where: Any) -> str:
        """The text of the first such element, as it is seen."""
        return str(await self.ask("text", css=css, **where))

    async def texts(self, css: str, **where: Any) -> list[str]:
        """The texts of all such elements, as they are seen."""
        found = await self.ask("texts", css=css, **where)
        return [str(each) for each in found]

    async def count(self, **where: Any) -> int:
        """How many such elements are seen."""
        return int(await self.ask("count", **where))

    async def evaluate(self, expression: str) -> Any:
        """The value of an expression of JavaScript."""
        return await self.ask("evaluate", expression=expression)

    async def comes_true(self, expression: str) -> None:
        """Waits until an expression of JavaScript is true."""
        await self.ask("wait_for", expression=expression)

    async def axe(self) -> list[Any]:
        """The findings of axe-core."""
        return list(await self.ask("axe"))

    async def seen(self) -> list[str]:
        """Errors, warnings of the browser, dialogs, and requests to other places, since the page was opened."""
        return list(await self.ask("seen"))

    async def ask(self, what: str, **rest: Any) -> Any:
        """The value of a command; raises PageError."""
        given = {name: value for name, value in rest.items() if value is not None}
        return await asyncio.to_thread(self.answer, {"do": what, **given})

    def answer(self, command: Any = None) -> Any:
        """The answer to a command, or the first line of the driver; raises PageError."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        if command is not None:
            self.process.stdin.write(json.dumps(command).encode() + b"\n")
            self.process.stdin.flush()
        line = self.process.stdout.readline()
        if not line:
            raise PageError("the browser has ended; its last words are in the output of the test")
        found = json.loads(line)
        if "error" in found:
            raise PageError(found["error"])
        return found["value"]


@contextmanager
def browser() -> Iterator[Browser]:
    """A browser that ends with the block. Raises NotReady, with the remedy, where there is none."""
    installed("playwright-core")
    installed("axe-core")
    command = [node()[0], str(NPM.parent / "browser.mjs"), chromium()]
    with Popen(command, stdin=PIPE, stdout=PIPE) as process:
        try:
            found = Browser(process)
            found.version = str(found.answer())
            yield found
        finally:
            _end(process)


def chromium() -> str:
    """The path of the browser."""
    found = os.environ.get(PROGRAM) or shutil.which("chromium")
    if not found:
        raise NotReady(MISSING)
    return found


def _end(process: Popen[bytes]) -> None:
    """Closes the input, at which the driver ends the browser; ends it by force when it does not go."""
    assert process.stdin is not None
    process.stdin.close()
    try:
        process.wait(END_S_MAX)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
