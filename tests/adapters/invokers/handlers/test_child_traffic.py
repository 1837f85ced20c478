"""The traffic of a function's process with the daemon: nothing that the function changes globally breaks it or shows it."""

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest

from adapters.invokers.python import PythonSettings, open_python
from poller.clock import LoopClock
from poller.domain.invocations import FunctionError, Outcome
from poller.output.function_log import FunctionLog
from poller.plugins import Environment
from poller.testing.invoker import invocation
from tests.adapters.invokers.functions.changed_globals import CHANGES
from tests.adapters.invokers.handlers.test_child_processes import Lines, answer, gone, importable

__all__ = ["importable"]

HANDLER = "tests.adapters.invokers.functions.changed_globals:handler"
IDLE_S = 0.6
"""How long the process waits for the second call: longer than the timeouts and alarms of the function."""


def calls(events: Sequence[Any], lines: Lines) -> list[Outcome]:
    """The outcomes of calls, with an idle time between two."""

    async def run() -> list[Outcome]:
        given = PythonSettings(function="orders", handler=HANDLER, isolation="process", processes=1)
        env = Environment(LoopClock(), function_log=FunctionLog(lines))
        found = []
        async with open_python(given, env) as invoker:
            for event in events:
                await asyncio.sleep(IDLE_S)
                found.append(await invoker.invoke(invocation(event)))
        return found

    return asyncio.run(run())


@pytest.mark.parametrize("changes", [*CHANGES, ",".join(CHANGES)])
def test_nothing_that_a_function_changes_globally_breaks_or_shows_the_traffic(
    changes: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CHANGES", changes)
    lines = Lines()
    first, failed, last = calls([{"logs": True}, {"fails": True}, {"large": "x" * 500_000}], lines)
    # The same process: it did not end between two calls.
    assert answer(first) == answer(last)
    assert isinstance(failed, FunctionError)
    assert (failed.error_type, failed.message) == ("ValueError", 'boom "in quotes" 日本')
    assert [(line.text, line.fields) for line in lines.said] == [("logged", {"order": 17})]
    # It ends with the daemon, also if it ignores what it is sent.
    assert gone(answer(last))


def test_an_alarm_that_rings_between_two_calls_is_told_and_the_process_goes_on(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("CHANGES", "alarm")
    lines = Lines()
    first, *later = calls([{"rings": IDLE_S / 4}, {}, {"rings": 0.001}, {}], lines)
    assert [answer(each) for each in later] == [answer(first)] * 3
    assert "TimeoutError: an alarm of the function" in "\n".join(line.text for line in lines.said)
