"""Lines of functions in the daemon's log: their form, their number in a second, and that no text breaks a line."""

import asyncio
import io
import json
import logging
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adapters.observers.function_lines import LINES_PER_SECOND_MAX, FunctionLines
from adapters.observers.logs import LogSettings, open_logs
from poller.output.function_log import LINE_CHARS_MAX, FunctionLine, FunctionLog
from poller.output.log_fields import CHARS_MAX, TEXT_CHARS_MAX, fields_of
from poller.plugins import Environment
from poller.testing.telemetry_events import SetClock
from tests.hostile_texts import HOSTILE


def logged(use: Callable[[FunctionLog], None], monkeypatch: pytest.MonkeyPatch, **settings: Any) -> list[str]:
    """The lines of a log into which `use` writes."""
    stream = io.StringIO()
    monkeypatch.setattr(sys, "stderr", stream)

    async def run() -> None:
        env = Environment(clock=SetClock())
        async with open_logs(LogSettings.model_validate(settings), env):
            use(env.function_log)

    asyncio.run(run())
    return stream.getvalue().splitlines()


def test_a_function_s_line_is_a_line_of_the_log(monkeypatch: pytest.MonkeyPatch) -> None:
    [line] = logged(
        lambda log: log.write("orders", "hello", level=logging.WARNING, request_id="r-1", logger="shop"),
        monkeypatch,
    )
    assert json.loads(line) == {
        "timestamp": "2023-11-14T22:13:20.000Z",
        "level": "warning",
        "event": "function_log",
        "function": "orders",
        "request_id": "r-1",
        "logger": "shop",
        "message": "hello",
    }


def test_a_line_outside_of_a_call_has_no_request_id(monkeypatch: pytest.MonkeyPatch) -> None:
    [line] = logged(lambda log: log.write("orders", "starting"), monkeypatch)
    assert json.loads(line).keys() == {"timestamp", "level", "event", "function", "message"}


def test_on_a_console_a_text_of_several_lines_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    [line] = logged(lambda log: log.write("orders", "a\nb"), monkeypatch, format="console")
    assert "function=orders message='a\\nb'" in line


@pytest.mark.parametrize(
    ("level", "name"),
    [
        (5, "debug"),
        (10, "debug"),
        (25, "info"),
        (35, "warning"),
        (45, "error"),
        (50, "critical"),
        (99, "critical"),
    ],
)
def test_a_level_of_its_own_is_reported_at_the_next_one_below(
    level: int, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    [line] = logged(lambda log: log.write("orders", "x", level=level), monkeypatch)
    assert json.loads(line)["level"] == name


@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE.keys())
@pytest.mark.parametrize("form", ["json", "console"])
def test_no_text_breaks_the_lines_of_the_log(text: str, form: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def use(log: FunctionLog) -> None:
        log.write("orders", text)
        log.write("orders", "after")

    lines = logged(use, monkeypatch, format=form)
    "\n".join(lines).encode()
    assert max(map(len, lines)) < 2 * LINE_CHARS_MAX + 200
    if form == "json":
        messages = [json.loads(line)["message"] for line in lines]
        assert messages[-1] == "after"
        assert len(messages) <= 2
    else:
        assert all(line.startswith("2023-11-14T") for line in lines)


@dataclass
class Told:
    """Lines that were written, on a set clock, and what was asked to be called later."""

    clock: SetClock = field(default_factory=SetClock)
    lines: list[tuple[str, Any]] = field(default_factory=list)
    later: list[tuple[float, Callable[[], None]]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.receiver = FunctionLines(
            lambda _level, word, more: self.lines.append((word, more.get("message", more.get("lines")))),
            self.clock,
            later=lambda after_s, call: self.later.append((after_s, call)),
        )

    def flood(self, count: int, function: str = "orders") -> None:
        for number in range(count):
            self.receiver.line(FunctionLine(function, str(number), logging.INFO))


def test_what_is_too_much_for_a_second_is_dropped_and_reported_when_it_is_over() -> None:
    told = Told()
    told.flood(LINES_PER_SECOND_MAX + 7)
    assert len(told.lines) == LINES_PER_SECOND_MAX
    [(after_s, call)] = told.later
    told.clock.at += after_s
    call()
    assert told.lines[LINES_PER_SECOND_MAX:] == [("function_log_dropped", 7)]


def test_the_next_line_reports_what_was_dropped_before_it() -> None:
    told = Told()
    told.flood(LINES_PER_SECOND_MAX + 1)
    told.clock.at += 1
    told.flood(1)
    assert told.lines[LINES_PER_SECOND_MAX:] == [("function_log_dropped", 1), ("function_log", "0")]


def test_the_end_reports_what_was_dropped() -> None:
    told = Told()
    told.flood(LINES_PER_SECOND_MAX + 3)
    told.receiver.close()
    assert told.lines[-1] == ("function_log_dropped", 3)


def test_one_function_s_flood_drops_no_other_function_s_line() -> None:
    told = Told()
    told.flood(2 * LINES_PER_SECOND_MAX)
    told.flood(1, "invoices")
    assert told.lines[-1] == ("function_log", "0")


def test_lines_written_by_threads_are_all_written_or_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    def use(log: FunctionLog) -> None:
        def flood() -> None:
            for number in range(400):
                log.write("orders", f"line {number}")

        threads = [threading.Thread(target=flood) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    lines = [json.loads(line) for line in logged(use, monkeypatch)]
    written = sum(line["event"] == "function_log" for line in lines)
    dropped = sum(line["lines"] for line in lines if line["event"] == "function_log_dropped")
    assert written == LINES_PER_SECOND_MAX
    assert written + dropped == 3200


texts = st.sampled_from(list(HOSTILE.values())) | st.integers(0, CHARS_MAX).map(
    lambda chars: "x" * (chars % TEXT_CHARS_MAX)
)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text() | texts,
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


@given(given=st.dictionaries(st.text(), VALUES))
def test_fields_that_were_cleaned_are_clean(given: dict[str, Any]) -> None:
    once = fields_of(given)
    assert fields_of(json.loads(json.dumps(once, ensure_ascii=False))) == once


def test_of_names_that_are_the_same_once_clean_the_first_stays() -> None:
    assert fields_of({"a\x00b": 1, "a b": 2, "m": {"c\x00d": 1, "c d": 2}}) == {"a b": 1, "m": {"c d": 1}}
