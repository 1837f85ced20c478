"""The page of real daemons: it reads and acts, loses its daemon and finds it again, and shows two workers."""

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.acceptance.operations.fleet import Fleet, fleet
from tests.adapters.control.page.browser import Browser, browser
from tests.adapters.control.test_access import write
from tests.emulators import Emulator

pytestmark = pytest.mark.acceptance

STREAM, SHARDS = "watched", 4
TOKEN = "do-what-is-needed"
REASON = "Reason, for others to read"
OPEN_ALL = "document.querySelectorAll('main details').forEach((it) => { it.open = true })"
MORE_MS = 120_000
"""How long a worker may take to notice that another one is dead."""


@contextmanager
def watched(folder: Path, kinesis_local: Emulator) -> Iterator[Fleet]:
    """Daemons that read a stream of four shards, whose changes need a token."""
    write(folder / "tokens.yaml", f"carol: {{token: {TOKEN}, role: operate}}\n")
    api = {"tokens_file": str(folder / "tokens.yaml")}
    with fleet(folder, {"kinesis": kinesis_local.url}, api=api) as found:
        kinesis = found.aws("kinesis")
        kinesis.create_stream(StreamName=STREAM, ShardCount=SHARDS)
        kinesis.get_waiter("stream_exists").wait(
            StreamName=STREAM, WaiterConfig={"Delay": 1, "MaxAttempts": 10}
        )
        summary = kinesis.describe_stream_summary(StreamName=STREAM)["StreamDescriptionSummary"]
        found.mapping = {
            "EventSourceArn": summary["StreamARN"],
            "StartingPosition": "TRIM_HORIZON",
            "MaximumRetryAttempts": -1,
        }
        yield found


def put(found: Fleet, *texts: str) -> None:
    """One record for each text."""
    records = [{"Data": text.encode(), "PartitionKey": text} for text in texts]
    assert found.aws("kinesis").put_records(StreamName=STREAM, Records=records)["FailedRecordCount"] == 0


def looking(use: Callable[[Browser], Awaitable[None]], url: str) -> None:
    """Runs `use` with the page of a daemon open and a token entered; fails if the browser complained of anything."""

    async def run(page: Browser) -> None:
        assert await page.open(url) == 200
        await page.sees("Live.")
        await page.click("Enter a token")
        await page.fill("Token", TOKEN)
        await page.click("Use it")
        await page.sees("You are carol, role operate.")
        await use(page)
        assert await page.seen() == []

    with browser() as page:
        asyncio.run(run(page))


def test_a_blocked_shard_is_seen_and_freed(tmp_path: Path, kinesis_local: Emulator) -> None:
    async def use(page: Browser) -> None:
        await page.sees("ValueError: not now")
        await page.sees("1 blocked of 1 mapping")
        await page.click("Pause", within=".trouble")
        await page.fill(REASON, "look first")
        await page.click("Pause", within="dialog")
        await page.sees("pause of taker", within="#running")
        await page.sees("look first", within="#mappings")
        found.fail(False)
        await page.click("Resume", within="#mappings")
        await page.click("Resume", within="dialog")
        await page.sees("1 mapping, nothing in trouble")
        await page.sees("resume of taker", within="#ended")

    with watched(tmp_path, kinesis_local) as found:
        found.fail(True)
        url = found.start("ann")
        put(found, "one")
        looking(use, url)
        assert found.taken() == ["one"]


def test_the_page_finds_its_daemon_again(tmp_path: Path, kinesis_local: Emulator) -> None:
    async def use(page: Browser) -> None:
        await page.sees(f"{SHARDS} shards: {SHARDS} reading")
        found.kill("ann")
        await page.sees("Connection lost: ")
        await page.sees("What is shown is ")
        assert await page.count(css=".shards > li") == SHARDS, "what was known stays"
        found.fail(True)
        put(found, "two")
        await asyncio.to_thread(found.start, "ann")
        await page.ask("wait_text", text="Live.", patience_ms=MORE_MS)
        await page.ask("wait_text", text="ValueError: not now", patience_ms=MORE_MS)
        await page.sees("You are carol, role operate.")
        assert await page.count(css="#age") == 0

    with watched(tmp_path, kinesis_local) as found:
        looking(use, found.start("ann"))


def test_two_workers_are_shown_and_what_they_hold(tmp_path: Path, kinesis_local: Emulator) -> None:
    half = f"taker ← kinesis stream/{STREAM}: {SHARDS // 2} shards"

    async def use(page: Browser) -> None:
        await page.ask("wait", css="#workers > ul > li:nth-child(2)", patience_ms=MORE_MS)
        await page.evaluate(OPEN_ALL)
        for place in (1, 2):
            within = f"#workers > ul > li:nth-child({place})"
            await page.ask("wait_text", text=half, within=within, patience_ms=MORE_MS)
        found.kill("bob")
        await page.ask(
            "wait_text",
            text=f"taker ← kinesis stream/{STREAM}: {SHARDS} shards",
            within="#workers",
            patience_ms=MORE_MS,
        )
        await page.wait(gone=True, css="#workers > ul > li:nth-child(2)")

    with watched(tmp_path, kinesis_local) as found:
        url = found.start("ann")
        found.start("bob")
        looking(use, url)
