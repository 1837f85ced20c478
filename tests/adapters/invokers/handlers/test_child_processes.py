"""Python functions in processes: one call each, warm, killed at a time-out, replaced, gone with the daemon."""

import asyncio
import json
import logging
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from adapters.invokers.python import PythonSettings, open_python, plugin
from poller.clock import LoopClock
from poller.domain.errors import InvalidConfiguration
from poller.domain.invocations import EncodedEvent, FunctionError, Invocation, Outcome, Succeeded, TimedOut
from poller.output.function_log import FunctionLine, FunctionLog
from poller.plugins import Environment, validated
from poller.ports import Invoker
from poller.testing.invoker import REQUEST_ID, invocation
from tests.adapters.invokers.functions.hostile import ENDINGS
from tests.adapters.invokers.handlers.test_hostile_handlers import NO_JSON, RAISED
from tests.start_folders import start_in

FUNCTIONS = "tests.adapters.invokers.functions.isolated"
ROOT = Path(__file__).parents[4]


@pytest.fixture(autouse=True)
def importable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setenv("POLLER_API__SECRET", "hidden")


class Lines:
    """Keeps what functions say."""

    def __init__(self) -> None:
        self.said: list[FunctionLine] = []

    def line(self, line: FunctionLine) -> None:
        self.said.append(line)

    def dropped(self, function: str, lines: int) -> None:
        raise AssertionError(f"{function} lost {lines} lines")


async def outcomes(
    handler: str, events: Sequence[Any], *, lines: Lines | None = None, timeout_s: float = 60.0, **more: Any
) -> list[Outcome]:
    """The outcomes of calls, one after another."""
    named = handler if ":" in handler else f"{FUNCTIONS}:{handler}"
    way = {"isolation": "process", "processes": 1} | more
    given = PythonSettings.model_validate({"function": "orders", "handler": named} | way)
    env = Environment(LoopClock(), function_log=FunctionLog(lines or Lines()))
    async with open_python(given, env) as invoker:
        return [await invoker.invoke(asked(event, timeout_s)) for event in events]


def asked(event: Any, timeout_s: float) -> Invocation:
    """A call with this event. JSON has no word for infinity, but numbers that no double can hold."""
    made = invocation(event, timeout_s=timeout_s)
    return replace(made, event=EncodedEvent(made.event.encoded().replace(b"Infinity", b"1e999")))


def ran(handler: str, *events: Any, **more: Any) -> list[Outcome]:
    """The outcomes of calls, one after another."""
    return asyncio.run(outcomes(handler, events, **more))


def answer(outcome: Outcome) -> Any:
    """What a function answered."""
    assert isinstance(outcome, Succeeded), outcome
    return json.loads(outcome.payload)


def test_a_process_is_kept_has_a_loop_and_no_settings_of_the_daemon() -> None:
    first, loop, stdin, second = ran("act", {"do": "pid"}, {"do": "loop"}, {"do": "read"}, {"do": "pid"})
    one, two = answer(first), answer(second)
    assert one["pid"] == two["pid"] != os.getpid()
    assert (one["calls"], two["calls"]) == (1, 4)
    assert one["poller"] == []
    assert answer(loop) == "ran"
    assert answer(stdin) == ""


@pytest.mark.parametrize("handler", ["act", "act_on_loop"])
def test_what_a_handler_raises_and_how_its_process_ends_are_function_errors(handler: str) -> None:
    events = [{"do": do} for do in ("fail", "quit", "exit", "crash", "pid")]
    failed, quitted, exited, crashed, after = ran(handler, *events)
    assert failed == FunctionError("ValueError", "boom")
    assert isinstance(failed, FunctionError)
    assert "isolated.py" in "".join(failed.stack_trace)
    assert quitted == FunctionError("SystemExit", "3")
    assert isinstance(exited, FunctionError)
    assert exited.error_type == "Runtime.ExitError"
    assert "exit status 3" in exited.message
    assert isinstance(crashed, FunctionError)
    assert crashed.error_type == "Runtime.ExitError"
    assert "signal 11" in crashed.message
    assert answer(after)["calls"] == 1


@pytest.mark.parametrize("handler", ["ends", "acts"])
def test_whatever_a_handler_ends_with_is_an_outcome_and_its_process_goes_on(handler: str) -> None:
    ends = [end for end in ENDINGS if end != "deep"]
    events = [{"end": end} for end in [*ends, "answers"]]
    *found, after = ran(f"tests.adapters.invokers.functions.hostile:{handler}", *events)
    for end, outcome in zip(ends, found, strict=True):
        assert isinstance(outcome, Succeeded | FunctionError), end
        if end in RAISED:
            assert outcome == RAISED[end]
        elif end in NO_JSON:
            assert isinstance(outcome, FunctionError), end
            assert outcome.error_type == "Runtime.MarshalError"
    assert after == Succeeded(b'{"ok": true}')


def test_a_cancellation_that_an_asynchronous_handler_leaves_behind_takes_nothing_back() -> None:
    first, after = ran("act_on_loop", {"do": "cancel"}, {"do": "pid"})
    assert answer(first) == "done"
    assert answer(after)["calls"] == 1


def test_a_process_and_what_it_started_are_killed_at_the_time_limit() -> None:
    lines = Lines()

    async def run() -> tuple[Outcome, Outcome]:
        given = PythonSettings(
            function="orders", handler=f"{FUNCTIONS}:act", isolation="process", processes=1
        )
        env = Environment(LoopClock(), function_log=FunctionLog(lines))
        async with open_python(given, env) as invoker:
            late = await invoker.invoke(invocation({"do": "hang"}, timeout_s=3.0))
            return late, await invoker.invoke(invocation({"do": "pid"}))

    late, after = asyncio.run(run())
    assert late == TimedOut(3.0)
    assert answer(after)["calls"] == 1
    [pid] = [int(found[1]) for each in lines.said if (found := re.fullmatch(r"child (\d+)", each.text))]
    assert gone(pid)


def gone(pid: int, within_s: float = 20.0) -> bool:
    """Whether a process ends."""
    ends = time.monotonic() + within_s
    while time.monotonic() < ends:
        try:
            state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        except OSError:
            return True
        if state == "Z":
            return True
        time.sleep(0.05)
    return False


def test_large_events_and_answers_pass_and_too_large_ones_are_function_errors() -> None:
    event = {"do": "large", "text": "x" * 6_000_000, "bytes": 5_000_000}
    large, too_large, after = ran("act", event, {**event, "bytes": 6_500_000}, {"do": "pid"})
    assert answer(large)["got"] == 6_000_000
    assert isinstance(too_large, FunctionError)
    assert too_large.error_type == "Function.ResponseSizeTooLarge"
    assert answer(after)["calls"] == 3


def test_what_a_process_prints_and_logs_is_in_the_function_log_at_its_level() -> None:
    lines = Lines()
    ran("act", {"do": "say"}, lines=lines)
    said = {(each.text, each.level, each.request_id) for each in lines.said}
    assert said == {
        ("printed", 20, REQUEST_ID),
        ("logged", 20, REQUEST_ID),
        ("warned", 30, REQUEST_ID),
        ("to the other", 20, REQUEST_ID),
    }


LOGGERS = ("shop", "shop.orders", "root", "a b", "a]b", "a\tb\n", "日本", "x" * 300, "")


def test_a_line_from_a_process_is_that_of_a_function_inside_the_daemon() -> None:
    events = [{"logger": logger, "level": 50} for logger in LOGGERS]
    events += [{"logger": "shop", "level": level} for level in (20, 25, 30, 40, 45, 50, 60)]
    inside, apart = Lines(), Lines()
    handler = "tests.adapters.invokers.functions.talking:logs_by_name"
    ran(handler, *events, lines=inside, isolation=None, processes=None)
    ran(handler, *events, lines=apart)
    assert len(inside.said) == len(events)
    for one, other in zip(inside.said, apart.said, strict=True):
        assert (other.text, other.request_id) == (one.text, one.request_id)
        # A level of one's own goes to the next one below it, as in the log.
        assert other.level == min(one.level // 10 * 10, logging.CRITICAL)
        # What would break the line is replaced.
        assert re.sub("[_ ]", "", other.logger) == re.sub(r"[\s\]_]", "", one.logger)


EXTRAS: list[dict[str, Any]] = [
    {},
    {"order": 17, "items": ["a", None, 1.5], "token": "abc", "level": "debug", "function": "other"},
    {"deep": [[[[[[[[[["bottom"]]]]]]]]]], "wide": list(range(1000)), "after": {"a": {"password": "p"}}},
    {f"{number}": "日" * 2000 for number in range(40)},
    {"quoted": '"\\' * 400, "lines": "a\nb\r\u2028c", "marks": "\x1e}\x1e", "half": "\ud800", "": 1},
    {"big": 2**70, "nan": float("inf"), "x" * 100: {"y" * 100: True}},
]


def test_a_line_that_is_logged_at_import_has_no_request_id_in_either_mode(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    code = "import logging\nlogging.getLogger('shop').warning('loading')\nprint('printed')\n"
    (tmp_path / "talks_at_import.py").write_text(f"{code}def act(event, context):\n    print('called')\n")
    start_in(tmp_path, monkeypatch)
    monkeypatch.setattr(sys, "path", [*sys.path])
    inside, apart = Lines(), Lines()
    ran("talks_at_import:act", {}, lines=inside, isolation=None, processes=None)
    ran("talks_at_import:act", {}, lines=apart)
    for lines in (inside, apart):
        assert {(each.text, each.logger, each.request_id) for each in lines.said} == {
            ("loading", "shop", None),
            ("printed", "", None),
            ("called", "", REQUEST_ID),
        }


def test_fields_of_a_line_from_a_process_are_those_of_one_inside_the_daemon() -> None:
    inside, apart = Lines(), Lines()
    handler = "tests.adapters.invokers.functions.talking:logs_with_extra"
    ran(handler, *EXTRAS, lines=inside, isolation=None, processes=None)
    ran(handler, *EXTRAS, lines=apart)
    assert [each.text for each in apart.said] == [each.text for each in inside.said]
    assert [each.fields for each in apart.said] == [each.fields for each in inside.said]
    assert [bool(each.fields) for each in inside.said] == [bool(extra) for extra in EXTRAS]


def test_a_line_of_any_length_is_the_same_from_a_process_and_inside_the_daemon() -> None:
    events = [{"way": way, "text": "y" * 100_000} for way in ("info", "print", "print in pieces", "stderr")]
    inside, apart = Lines(), Lines()
    ran(
        "tests.adapters.invokers.functions.talking:talk",
        *events,
        lines=inside,
        isolation=None,
        processes=None,
    )
    ran("tests.adapters.invokers.functions.talking:talk", *events, lines=apart)
    assert [each.text for each in apart.said] == [each.text for each in inside.said]
    assert len(inside.said) == len(events)
    assert all(re.search(r"y… \(100,\d{3} characters\)$", each.text) for each in inside.said)


def test_a_process_that_writes_much_is_not_held_up() -> None:
    [outcome] = ran("act", {"do": "say", "bytes": 1_000_000})
    assert outcome == Succeeded(b"null")


def test_calls_run_at_the_same_time_one_in_each_process() -> None:
    async def several(invoker: Invoker) -> list[Outcome]:
        async with asyncio.TaskGroup() as tasks:
            running = [
                tasks.create_task(invoker.invoke(invocation({"do": "sleep", "s": 2}))) for _ in range(3)
            ]
        return [task.result() for task in running]

    async def run() -> list[list[Outcome]]:
        given = PythonSettings(
            function="orders", handler=f"{FUNCTIONS}:act", isolation="process", processes=2
        )
        async with open_python(given, Environment(LoopClock())) as invoker:
            return [await several(invoker)]

    [found] = asyncio.run(run())
    assert [type(each).__name__ for each in found] == ["Succeeded", "Succeeded", "Throttled"]


@pytest.mark.parametrize(
    ("handler", "words"),
    [
        ("tests.adapters.nowhere:act", ["no module 'tests.adapters.nowhere'", "install it"]),
        (
            "tests.adapters.invokers.functions.broken_module:x",
            ["raised RuntimeError: on purpose", "mend the module"],
        ),
    ],
)
def test_a_wrong_handler_is_refused_when_its_function_is_opened(handler: str, words: list[str]) -> None:
    async def run() -> None:
        given = PythonSettings(function="orders", handler=handler, isolation="process")
        async with open_python(given, Environment(LoopClock())):
            raise AssertionError("opened")

    with pytest.raises(InvalidConfiguration) as refused:
        asyncio.run(run())
    [problem] = refused.value.problems
    assert problem.startswith(f"functions.orders.handler: '{handler}': ")
    assert all(word in problem for word in words)


DAEMON = f"""
import asyncio, os
from adapters.invokers.python import PythonSettings, open_python
from poller.clock import LoopClock
from poller.plugins import Environment
from poller.testing.invoker import invocation

async def main():
    given = PythonSettings(function="orders", handler="{FUNCTIONS}:act", isolation="process", processes=2)
    async with open_python(given, Environment(LoopClock())) as invoker:
        print((await invoker.invoke(invocation({{"do": "pid"}}))).payload.decode(), flush=True)
        await invoker.invoke(invocation({{"do": "sleep", "s": 3600}}, timeout_s=3600))

asyncio.run(main())
"""


def test_a_process_ends_with_a_daemon_that_is_killed_even_in_the_middle_of_a_call() -> None:
    with subprocess.Popen(
        [sys.executable, "-c", DAEMON], stdout=subprocess.PIPE, text=True, cwd=ROOT
    ) as daemon:
        assert daemon.stdout is not None
        pid = json.loads(daemon.stdout.readline())["pid"]
        time.sleep(1.0)
        daemon.send_signal(signal.SIGKILL)
        daemon.wait()
    assert gone(pid)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"isolation": "process", "workers": 2}, "workers: value 2: .*write processes: N"),
        ({"processes": 2}, "processes: value 2: is for isolation: process; add that"),
    ],
)
def test_settings_that_do_not_go_together_are_refused(given: dict[str, Any], words: str) -> None:
    with pytest.raises(InvalidConfiguration, match=words):
        validated(plugin, {"function": "orders", "handler": "a:b", **given}, place="functions.orders")
