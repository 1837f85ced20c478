"""What Python functions log and print: lines of the log at their level, with function and request id, in every way there is."""

import asyncio
import io
import json
import logging
import sys
from collections.abc import Coroutine, Iterator
from importlib.util import find_spec
from typing import Any

import pytest

from adapters.invokers.printed_levels import Levels, level_of
from adapters.invokers.python import PythonSettings, open_python
from adapters.observers.logs import LogSettings, open_logs
from poller.domain.errors import InvalidConfiguration
from poller.domain.invocations import EncodedEvent, FunctionError, Invocation, Outcome
from poller.plugins import Environment
from poller.testing.invoker import ARN
from tests.adapters.invokers.functions import talking
from tests.contracts.invokers import environment
from tests.hostile_texts import HOSTILE

FUNCTIONS = "tests.adapters.invokers.functions.talking"
both = pytest.mark.parametrize("handler", ["talk", "talk_on_loop"])


class Streams:
    """Where the daemon's log and its standard output go."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.out, self.err = io.StringIO(), io.StringIO()
        self._monkeypatch = monkeypatch

    def run[T](self, main: Coroutine[Any, Any, T]) -> T:
        """Runs `main` while they go here."""
        self._monkeypatch.setattr(sys, "stdout", self.out)
        self._monkeypatch.setattr(sys, "stderr", self.err)
        return asyncio.run(main)

    def talked(self, handler: str, *calls: Invocation, **settings: Any) -> list[Outcome]:
        """The outcomes of calls, with a log as the daemon has it."""

        async def run() -> list[Outcome]:
            async with environment() as env, open_logs(LogSettings(), env):
                return await called(env, handler, *calls, **settings)

        return self.run(run())

    def lines(self) -> list[dict[str, Any]]:
        """The log; every line of it is JSON."""
        return [json.loads(line) for line in self.err.getvalue().splitlines()]

    def said(self) -> list[dict[str, Any]]:
        """The lines of functions."""
        return [line for line in self.lines() if line["event"] == "function_log"]


@pytest.fixture
def streams(monkeypatch: pytest.MonkeyPatch) -> Iterator[Streams]:
    root = logging.getLogger()
    level, handlers = root.level, list(root.handlers)
    yield Streams(monkeypatch)
    root.setLevel(level)
    root.handlers[:] = handlers
    for logger in root.manager.loggerDict.values():
        if isinstance(logger, logging.Logger):
            logger.disabled = False
    talking.logger.setLevel(logging.NOTSET)


def call(event: Any, request_id: str = "r-1") -> Invocation:
    return Invocation(ARN, request_id, EncodedEvent(json.dumps(event).encode()), 20.0)


async def called(env: Environment, handler: str, *calls: Invocation, **settings: Any) -> list[Outcome]:
    """The outcomes of calls that begin together."""
    settings = {"workers": 4, **settings}
    given = PythonSettings(function="orders", handler=f"{FUNCTIONS}:{handler}", **settings)
    async with open_python(given, env) as invoker, asyncio.TaskGroup() as tasks:
        running = [tasks.create_task(invoker.invoke(each)) for each in calls]
    return [task.result() for task in running]


def ways(*names: str) -> list[Any]:
    """Ways as parameters; those that need what is not installed are skipped."""
    lacking = pytest.mark.skipif(find_spec("aws_lambda_powertools") is None, reason="needs Powertools")
    return [pytest.param(name, marks=[lacking] if name == "powertools" else []) for name in names]


LEVELS = {"warning": "warning", "root": "error", "exception": "error", "own root handler": "warning"} | {
    "powertools": "warning"
}
"""Levels of ways that do not say INFO."""


@both
@pytest.mark.parametrize("way", ways(*talking.WAYS, "context"))
def test_what_a_function_says_is_one_line_of_the_log(handler: str, way: str, streams: Streams) -> None:
    streams.talked(handler, call({"way": way, "text": "hello from here"}))
    [line] = [line for line in streams.said() if "hello from here" in line["message"]]
    assert line["function"] == "orders"
    assert line["request_id"] == "r-1"
    assert line["level"] == LEVELS.get(way, "info")
    assert streams.out.getvalue() == ""
    assert len(streams.said()) == 1


@both
@pytest.mark.parametrize("way", ["info", "print", "stdout bytes", "exception", "stderr", "thread"])
@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE.keys())
def test_no_text_breaks_the_log(handler: str, way: str, text: str, streams: Streams) -> None:
    streams.talked(handler, call({"way": way, "text": text}), call({"way": "print", "text": "after"}, "r-2"))
    flood = any(line["event"] == "function_log_dropped" for line in streams.lines())
    assert flood or "after" in [line["message"] for line in streams.said()]
    streams.err.getvalue().encode()


@pytest.mark.parametrize("handler", ["chat", "chat_on_loop"])
def test_every_line_has_the_request_id_of_its_own_call(handler: str, streams: Streams) -> None:
    streams.talked(handler, *(call({}, f"r-{number}") for number in range(16)), workers=16)
    said = streams.said()
    assert {line["request_id"] for line in said} == {f"r-{number}" for number in range(16)}
    assert [line for line in said if line["message"].split()[0] != line["request_id"]] == []
    assert len(said) == 16 * (45 if handler == "chat" else 23)


def test_debug_lines_are_reported_where_the_settings_say_so(streams: Streams) -> None:
    event = {"way": "silently", "text": "x"}
    streams.talked("talk", call(event))
    assert streams.said() == []
    streams.talked("talk", call(event), log_level="debug")
    assert [line["level"] for line in streams.said()] == ["debug"]


def test_a_level_of_the_settings_keeps_back_what_is_below_it(streams: Streams) -> None:
    streams.talked(
        "talk", call({"way": "info", "text": "x"}), call({"way": "print", "text": "y"}), log_level="error"
    )
    assert [line["message"] for line in streams.said()] == ["y"]


def test_a_logger_s_own_level_wins_over_the_settings(
    streams: Streams, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(talking.logger, "level", logging.DEBUG)
    talking.logger.manager._clear_cache()  # type: ignore[attr-defined]
    streams.talked("talk", call({"way": "silently", "text": "x"}))
    talking.logger.manager._clear_cache()  # type: ignore[attr-defined]
    assert [line["level"] for line in streams.said()] == ["debug"]


@pytest.mark.parametrize(
    "way",
    ways(
        "own root handler",
        "dictConfig",
        "dictConfig that disables",
        "disabled",
        "shutdown",
        "structlog",
        "powertools",
    ),
)
def test_what_one_function_does_to_logging_changes_nothing_for_others(way: str, streams: Streams) -> None:
    async def run() -> None:
        async with environment() as env, open_logs(LogSettings(), env):
            mine = PythonSettings(function="orders", handler=f"{FUNCTIONS}:talk")
            other = PythonSettings(function="invoices", handler=f"{FUNCTIONS}:talk_on_loop")
            async with open_python(mine, env) as orders, open_python(other, env) as invoices:
                await orders.invoke(call({"way": way, "text": "first"}))
                await invoices.invoke(call({"way": "info", "text": "second"}, "r-2"))
                logging.getLogger("asyncio").warning("of a library")

    streams.run(run())
    assert [(line["function"], line["message"]) for line in streams.said()][1:] == [("invoices", "second")]
    assert [line["message"] for line in streams.lines() if line["event"] == "library"] == ["of a library"]


def test_everything_is_as_it_was_when_the_functions_are_closed(streams: Streams) -> None:
    root = logging.getLogger()
    before = (root.level, list(root.handlers))
    streams.talked("talk", call({"way": "own root handler", "text": "x"}))
    assert sys.stdout is streams.out
    assert sys.stderr is streams.err
    assert root.level == before[0]


def test_what_the_daemon_prints_itself_stays_where_it_is(streams: Streams) -> None:
    async def run() -> None:
        async with environment() as env, open_logs(LogSettings(), env):
            given = PythonSettings(function="orders", handler=f"{FUNCTIONS}:talk")
            async with open_python(given, env):
                print("of the daemon")

    streams.run(run())
    assert streams.out.getvalue() == "of the daemon\n"


@pytest.mark.parametrize(
    ("line", "level"),
    [
        ("plain", logging.INFO),
        ("[ERROR] 2026 no", logging.ERROR),
        ("[WARNING]\t2026-01-01T00:00:00Z\tid\ttext", logging.WARNING),
        ("DEBUG:root:x", logging.DEBUG),
        ("CRITICAL - x", logging.CRITICAL),
        ("ERRORS are rare", logging.INFO),
        ("information", logging.INFO),
        ('{"level": "WARN", "message": "x"}', logging.WARNING),
        ('{"severity": "critical"}', logging.CRITICAL),
        ('{"level": 30}', logging.INFO),
        ('{"level": "loud"}', logging.INFO),
        ('{"level": "ERROR"', logging.INFO),
        ('{"a":' * 1000, logging.INFO),
    ],
)
def test_a_printed_line_is_reported_at_the_level_that_it_claims(line: str, level: int) -> None:
    assert level_of(line) == level


INFO, WARN, ERR = logging.INFO, logging.WARNING, logging.ERROR
TRACE = ["Traceback (most recent call last):", '  File "a.py", line 1, in b', "    raise E", "E: no"]


def test_where_an_import_failed_is_in_the_log(streams: Streams) -> None:
    async def run() -> None:
        given = PythonSettings(function="orders", handler="tests.adapters.invokers.functions.broken_module:x")
        async with environment() as env, open_logs(LogSettings(), env):
            with pytest.raises(InvalidConfiguration):
                async with open_python(given, env):
                    pass

    streams.run(run())
    [line] = streams.said()
    assert (line["function"], line["level"]) == ("orders", "error")
    where, source, error = line["message"].splitlines()[1:]
    assert where.endswith('broken_module.py", line 3, in <module>')
    assert (source.strip(), error) == ('raise RuntimeError("on purpose")', "RuntimeError: on purpose")


@pytest.mark.parametrize(
    ("lines", "levels"),
    [
        (["a", *TRACE, "b"], [INFO, ERR, ERR, ERR, ERR, INFO]),
        (["[WARNING] a", *TRACE, "b"], [WARN, WARN, WARN, WARN, WARN, INFO]),
        (
            [*TRACE, "", "During handling of the above exception:", "", *TRACE, "b"],
            [ERR] * 4 + [INFO] * 3 + [ERR] * 4 + [INFO],
        ),
        ([*TRACE[:3], "[WARNING] b", "c"], [ERR, ERR, ERR, WARN, INFO]),
        (["  indented"], [INFO]),
    ],
)
def test_a_printed_traceback_has_the_level_of_what_it_belongs_to(lines: list[str], levels: list[int]) -> None:
    told = Levels()
    assert [told.of(line, level_of(line)) for line in lines] == levels


@pytest.mark.parametrize("handler", ["deep", "deep_on_loop"])
def test_an_error_has_the_frames_of_the_function_and_nothing_else(handler: str, streams: Streams) -> None:
    [outcome] = streams.talked(handler, call({"depth": 1}))
    assert isinstance(outcome, FunctionError)
    names = [line.rpartition(" in ")[2] for line in outcome.stack_trace if line.startswith("  File ")]
    assert names == [handler, "_deeper", "_deeper"]
    assert outcome.stack_trace[-1] == '    raise LookupError("at the bottom")'
    assert "hunter2" not in str(outcome.stack_trace)


def test_a_deep_stack_keeps_its_ends(streams: Streams) -> None:
    [outcome] = streams.talked("deep", call({"depth": 500}))
    assert isinstance(outcome, FunctionError)
    assert len(outcome.stack_trace) == 40
    assert "in deep" in outcome.stack_trace[0]
    assert "lines more" in outcome.stack_trace[20]
    assert outcome.stack_trace[-1] == '    raise LookupError("at the bottom")'
