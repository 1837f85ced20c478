"""What people see of the commands in a real terminal: widths, folded lists, colours, names in any writing; and what a pipe gets."""

import re
from collections.abc import Sequence
from dataclasses import replace

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from wcwidth import wcwidth

from poller.commands.fitting import Screen, ScreenPage
from poller.commands.status.page import status_page
from poller.domain.records import Epoch, MappingId, ShardId
from poller.domain.rows import MappingState
from poller.domain.status import DaemonStatus, LaneStatus, MappingStatus, PauseStatus, ShardStatus
from poller.output.terminal import cells, columns_of, printable
from tests.commands.test_status import NOW, QUEUE, STREAM, UUIDS, daemon
from tests.hostile_texts import HOSTILE
from tests.terminals import drawn, in_terminal

COLUMNS = (80, 120, 200)
POSITION = "AFTER:49590338271490256608559692538361571095921575989136588898"
SHARDS = 1000
NAMES = (
    "orders",
    "注文と返品のためのとても長い名前の関数" * 2,
    "👩‍👩‍👧‍👦 family 🇩🇪 ❤️ 👍🏽",
    "e\u0301a\u0300o\u0308" * 20,
    "\x1b[2J\x1b[31mred\x07\u202egnp.exe\r\n\tend",
    "Ελληνικά עברית العربية ไทย हिन्दी",
)


def shards() -> tuple[ShardStatus, ...]:
    """A thousand shards: one paused, one that cannot be read, and one blocked, among those that read."""
    found = [
        ShardStatus(
            shard=ShardId(f"shardId-{number:012}"),
            state="reading",
            position=POSITION,
            behind_ms=400,
            owner="ann",
        )
        for number in range(SHARDS)
    ]
    found[300] = replace(
        found[300], paused=PauseStatus(operation="op", since=Epoch(NOW - 60), by="carol", reason="")
    )
    found[600] = replace(found[600], state="failing", reason="ServiceThrottled: slow down")
    stuck = LaneStatus(
        lane="0",
        state="waiting",
        attempts=4,
        blocked_since=Epoch(NOW - 300),
        last_error="ValueError: no stock for this " * 8,
    )
    found[900] = replace(found[900], state="blocked", lanes=(stuck,))
    return tuple(found)


def status(*functions: str) -> DaemonStatus:
    """What a daemon answers that has a mapping of a thousand shards, and a queue for each of `functions`."""
    stream = MappingStatus(
        mapping=MappingId(UUIDS[0]),
        function="orders",
        source_arn=STREAM,
        state=MappingState.ENABLED,
        shards=shards(),
    )
    queues = [
        MappingStatus(
            mapping=MappingId(UUIDS[1]),
            function=name,
            source_arn=QUEUE,
            state=MappingState.ENABLED,
            pollers=2,
        )
        for name in functions
    ]
    return DaemonStatus(worker="ann", mappings=(stream, *queues), ready=True, alive=True)


BODY = msgspec.json.encode(status(*NAMES))


@pytest.mark.parametrize("columns", COLUMNS)
def test_a_thousand_shards_are_readable_at_any_width(columns: int) -> None:
    with daemon(BODY) as url:
        seen = in_terminal(["status", "--url", url], columns=columns)
    assert seen.status == 0
    lines = [line for line in seen.lines if line]
    last = max(at for at, line in enumerate(seen.lines) if line)
    assert seen.written.count(b"\n") == last + 1, "the terminal wrapped a line"
    order = [seen.text.index(f"shardId-{number:012} ") for number in (900, 600, 300, 0, 1)]
    assert order == sorted(order), "blocked, failing, paused, then all others"
    assert "  and 950 more shards, all reading; --all shows them" in lines
    row = next(at for at, line in enumerate(lines) if line.startswith("  shardId-000000000001"))
    assert lines[row].startswith("  shardId-000000000001  reading  0.4 s behind")
    assert lines[row].endswith(POSITION) == (columns > 80), "at 80 the row is folded over two lines"
    assert columns > 80 or lines[row + 1] == f"    {POSITION}"
    assert "poller retry stream/orders --shard shardId-000000000900" in re.sub(r" \\\n +", " ", seen.text)


def test_all_shows_every_shard() -> None:
    with daemon(BODY) as url:
        seen = in_terminal(["status", "--all", "--url", url], columns=120, lines=2000)
    assert all(f"shardId-{number:012}" in seen.text for number in range(SHARDS))
    assert "--all" not in seen.text


def test_a_pipe_gets_a_line_for_each_thing_and_all_of_them() -> None:
    with daemon(BODY) as url:
        seen = in_terminal(["status", "--url", url], stdout_piped=True, columns=80)
    lines = seen.stdout.decode().splitlines()
    assert b"\x1b" not in seen.stdout
    for number in range(SHARDS):
        (found,) = [line for line in lines if line.startswith(f"  shardId-{number:012} ")]
        assert number in (300, 600, 900) or found.endswith(POSITION)
    assert f"      {'ValueError: no stock for this ' * 8}".rstrip() in lines, "no text is folded"
    assert any(
        line.strip() == f"poller retry stream/orders --shard shardId-000000000900 --url {url}"
        for line in lines
    )


def test_columns_folds_what_a_pipe_gets() -> None:
    with daemon(BODY) as url:
        seen = in_terminal(["status", "--url", url], stdout_piped=True, environ={"COLUMNS": "60"})
    assert max(map(cells, seen.stdout.decode().splitlines())) <= 60
    assert "and 950 more shards" in seen.stdout.decode()


@pytest.mark.parametrize(
    ("environ", "piped", "coloured"),
    [
        ({}, False, True),
        ({"NO_COLOR": "1"}, False, False),
        ({"NO_COLOR": "yes", "FORCE_COLOR": "1"}, False, False),
        ({"NO_COLOR": ""}, False, True),
        ({"TERM": "dumb"}, False, False),
        ({}, True, False),
        ({"FORCE_COLOR": "1"}, True, True),
    ],
    ids=str,
)
def test_colours_are_for_terminals_that_want_them(
    environ: dict[str, str], piped: bool, coloured: bool
) -> None:
    with daemon(BODY) as url:
        seen = in_terminal(["status", "--url", url], environ=environ, stdout_piped=piped)
    out = seen.stdout if piped else seen.written
    assert (b"\x1b[" in out) == coloured
    if coloured and not piped:
        blocked = next(at for at, line in enumerate(seen.lines) if "shardId-000000000900 blocked" in line)
        assert seen.cells[blocked][2].fg == "red"
        calm = next(at for at, line in enumerate(seen.lines) if "shardId-000000000001" in line)
        assert seen.cells[calm][2].fg == "default"


def test_a_locale_without_the_characters_of_names_shows_their_codes() -> None:
    environ = {"PYTHONIOENCODING": "iso-8859-1"}
    with daemon(BODY) as url:
        seen = in_terminal(["status", "--url", url], environ=environ, encoding="iso-8859-1")
    assert seen.status == 0
    assert "orders <- kinesis stream/orders" in seen.text
    assert "\\u6ce8\\u6587" in seen.text
    assert max(map(len, seen.lines)) <= 80


def test_a_watched_status_fits_the_window_with_what_is_blocked_on_top() -> None:
    with daemon(BODY) as url:
        seen = in_terminal(
            ["status", "--watch", "--url", url],
            columns=80,
            lines=24,
            until=lambda written: b"whole page" in written,
        )
    assert seen.status == 0
    assert seen.lines[0] == "worker ann: ready"
    assert any("shardId-000000000900 blocked" in line for line in seen.lines)
    assert any(line.endswith("more lines; --all shows the whole page") for line in seen.lines)


def test_no_character_takes_more_cells_than_are_reckoned() -> None:
    wider = [
        chr(code)
        for code in range(0x20, 0x110000)
        if chr(code).isprintable() and wcwidth(chr(code)) > cells(chr(code))
    ]
    assert wider == []


WRITINGS = st.text(
    st.characters(codec="utf-8", categories=("L", "M", "N", "P", "S", "Zs", "Cc", "Cf")),
    min_size=1,
    max_size=60,
)


@settings(max_examples=60)
@given(names=st.lists(WRITINGS | st.sampled_from(NAMES), min_size=1, max_size=4), width=st.integers(40, 200))
def test_no_line_is_wider_than_the_terminal_and_each_shard_is_found_again(
    names: list[str], width: int
) -> None:
    rows = [
        ShardStatus(shard=ShardId(name), state="reading", position=POSITION, behind_ms=10, owner="w")
        for name in names
    ]
    mapping = replace(status().mappings[0], function=names[0], shards=tuple(rows))
    page = status_page(replace(status(), mappings=(mapping,)), NOW, width)
    window = drawn("\r\n".join(page.lines), columns=width, lines=len(page.lines) + 5)
    assert window.cursor.y == len(page.lines) - 1, "the terminal wrapped a line"
    shown = squeezed(page.lines)
    for name in names:
        assert squeezed([printable(name)]) in shown
    assert shown.count(POSITION) == len(names)


@given(text=st.text(max_size=80) | st.sampled_from(sorted(HOSTILE.values(), key=len)[:-6]))
def test_a_screen_gets_no_control_character(text: str) -> None:
    for encoding in ("utf-8", "ascii", "iso-8859-1", "shift_jis"):
        page = ScreenPage(Screen(50, encoding))
        page.add(text, lines_max=5)
        page.identifier(text)
        page.table([[text, "x"], ["y", text]])
        for line in page.lines:
            line.encode(encoding)
            assert not re.search(r"[\x00-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]", line)
            assert cells(line) <= 50


def test_columns_that_are_no_number_do_not_count() -> None:
    with open("/dev/null", encoding="utf-8") as nothing:
        found = [columns_of(nothing, {"COLUMNS": text}) for text in ("", "0", "-3", "x", "9" * 30, "७", "77")]
    assert found == [None, None, None, None, None, None, 77]


def squeezed(lines: Sequence[str]) -> str:
    """The text of some lines without its blanks, where lines are folded."""
    return re.sub(r"\s+", "", "".join(lines))
