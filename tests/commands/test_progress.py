"""How far a command is: on a terminal a line that is written over, elsewhere a line now and then, and none for programs."""

import asyncio
import io
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from poller.output.progress_line import (
    AGAIN_S,
    PLAIN_EVERY_S,
    SHOWN_AFTER_S,
    ProgressLine,
    ticking,
    ticking_by_timer,
)
from tests.hostile_texts import HOSTILE
from tests.terminals import drawn


class Terminal(io.StringIO):
    """A stream that says that it is a terminal."""

    encoding = "utf-8"

    def isatty(self) -> bool:
        return True


class Clock:
    """A clock that is set by hand."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture(autouse=True)
def _window(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "80")


def test_a_terminal_gets_one_line_that_is_written_over_and_removed() -> None:
    stream, clock = Terminal(), Clock()
    with ProgressLine(stream, now=clock) as progress:
        progress.say("looked at 1 of 9")
        assert stream.getvalue() == "", "what is over at once shows nothing"
        clock.now += SHOWN_AFTER_S
        progress.say("looked at 2 of 9")
        clock.now += 4
        progress.say("looked at 3 of 9")
        assert drawn(stream.getvalue(), columns=80).display[0].rstrip() == "poller: looked at 3 of 9, 5 s"
    window = drawn(stream.getvalue(), columns=80)
    assert {line.strip() for line in window.display} == {""}
    assert "\n" not in stream.getvalue()
    progress.say("late")
    assert "late" not in stream.getvalue()


def test_something_else_is_printed_in_the_place_of_the_line() -> None:
    stream, clock = Terminal(), Clock()
    progress = ProgressLine(stream, now=clock)
    clock.now += 2
    progress.say("reading")
    progress.clear()
    stream.write("call 1\r\n")
    clock.now += 2
    progress.tick()
    assert [line.rstrip() for line in drawn(stream.getvalue(), columns=80).display][:2] == [
        "call 1",
        "poller: reading, 4 s",
    ]


@pytest.mark.parametrize("term", ["dumb", "", None])
@pytest.mark.parametrize("stream", [io.StringIO, Terminal])
def test_what_cannot_write_over_a_line_gets_one_every_ten_seconds(
    stream: type[io.StringIO], term: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    if term is None:
        monkeypatch.delenv("TERM")
    else:
        monkeypatch.setenv("TERM", term)
    out, clock = stream(), Clock()
    with ProgressLine(out, now=clock) as progress:
        for step in range(280):
            progress.say(f"step {step}")
            clock.now += 0.125
    assert out.getvalue() == "poller: step 80, 10 s\npoller: step 160, 20 s\npoller: step 240, 30 s\n"


def test_a_terminal_is_not_flooded() -> None:
    out, clock = Terminal(), Clock()
    with ProgressLine(out, now=clock) as progress:
        for step in range(100_000):
            progress.say(f"step {step}")
            clock.now += 0.0001
    assert out.getvalue().count("step") <= 1 + 10 / AGAIN_S


def test_programs_get_none() -> None:
    for stream in (io.StringIO(), Terminal()):
        clock = Clock()
        with ProgressLine(stream, quiet=True, now=clock) as progress:
            for _ in range(100):
                clock.now += PLAIN_EVERY_S
                progress.say("step")
        assert stream.getvalue() == ""


@given(
    text=st.text(max_size=200) | st.sampled_from(sorted(HOSTILE.values(), key=len)[:-6]),
    columns=st.integers(10, 200),
)
def test_the_line_is_one_line_of_any_window(text: str, columns: int) -> None:
    stream, clock = Terminal(), Clock()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("COLUMNS", str(columns))
        progress = ProgressLine(stream, now=clock)
        clock.now += 3
        progress.say(text or "x")
    window = drawn(stream.getvalue(), columns=columns)
    assert [line for line in window.display[1:] if line.strip()] == []
    assert window.cursor.y == 0
    assert window.display[0].startswith("poller:"[: max(columns - 8, 1)])


def test_a_stream_that_cannot_be_written_ends_nothing() -> None:
    stream, clock = Terminal(), Clock()
    progress = ProgressLine(stream, now=clock)
    stream.close()
    clock.now += 3
    progress.say("step")
    progress.clear()


def test_the_loop_writes_while_a_command_awaits() -> None:
    stream = Terminal()

    async def command() -> None:
        with ProgressLine(stream) as progress, ticking(progress):
            progress.say("waits")
            await asyncio.sleep(2.2)

    asyncio.run(command())
    assert stream.getvalue().count("poller: waits") >= 2


def test_a_timer_writes_while_a_command_computes() -> None:
    stream = Terminal()
    with ProgressLine(stream) as progress, ticking_by_timer(progress):
        progress.say("computes")
        until = time.monotonic() + 2.2
        while time.monotonic() < until:
            pass
    assert stream.getvalue().count("poller: computes") >= 2
