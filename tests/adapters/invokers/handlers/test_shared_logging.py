"""What one function does to logging and to the streams stops, silences and breaks nobody else, from the first moment on."""

import asyncio
import json
import logging
import sys
import time
from collections.abc import Iterator

import pytest

from adapters.invokers.python import PythonInvoker, PythonSettings, open_python
from adapters.observers.logs import LogSettings, open_logs
from poller.domain.invocations import Succeeded
from tests.adapters.invokers.functions import meddling
from tests.adapters.invokers.handlers.test_output import Streams, call, streams
from tests.contracts.invokers import environment

__all__ = ["streams"]

FUNCTIONS = "tests.adapters.invokers.functions.meddling"
STALL_S = 0.5
"""What the loop may stand still for on a busy machine."""


@pytest.fixture(autouse=True)
def events() -> Iterator[None]:
    meddling.made.clear()
    meddling.go_on.clear()
    yield
    meddling.go_on.set()
    logging.addLevelName(logging.WARNING, "WARNING")
    logging.setLoggerClass(logging.Logger)


def settings(function: str, handler: str) -> PythonSettings:
    return PythonSettings(function=function, handler=f"{FUNCTIONS}:{handler}")


async def _longest_stall(until: asyncio.Task[None]) -> float:
    longest = 0.0
    while not until.done():
        before = time.monotonic()
        await asyncio.sleep(0.01)
        longest = max(longest, time.monotonic() - before)
    return longest


async def _daemon_and_others_speak(on_loop: PythonInvoker, number: int = 0) -> None:
    """What the daemon does meanwhile: libraries log, also with loggers and levels that are new; a function is called."""
    logging.getLogger("asyncio").warning("of a library")
    logging.getLogger().manager._clear_cache()  # type: ignore[attr-defined]
    logging.getLogger(f"botocore.new{number}").warning("of a new library")
    logging.getLogger("asyncio").error("of a library again")
    assert isinstance(await on_loop.invoke(call("loop", "r-2")), Succeeded)


@pytest.mark.parametrize("what", meddling.HOLDS)
def test_the_daemon_waits_for_nothing_that_a_function_holds(what: str, streams: Streams) -> None:
    async def run() -> float:
        async with (
            environment() as env,
            open_logs(LogSettings(), env),
            open_python(settings("orders", "meddle"), env) as orders,
            open_python(settings("invoices", "say_on_loop"), env) as invoices,
            asyncio.TaskGroup() as tasks,
        ):
            assert isinstance(invoices, PythonInvoker)
            held = tasks.create_task(orders.invoke(call(what)))
            await asyncio.to_thread(meddling.made.wait, 20)
            # Ends a loop that stands still.
            asyncio.get_running_loop().run_in_executor(None, meddling.ends_in_time)
            speaking = tasks.create_task(_daemon_and_others_speak(invoices))
            longest = await _longest_stall(speaking)
            assert not held.done()
            meddling.go_on.set()
            return longest

    assert streams.run(run()) < STALL_S
    said = [line["message"] for line in streams.said() if line["function"] == "invoices"]
    assert said == ["loop logged", "loop logged anew", "loop printed"]
    libraries = [line["message"] for line in streams.lines() if line["event"] == "library"]
    assert libraries == ["of a library", "of a new library", "of a library again"]


@pytest.mark.parametrize("handler", ["meddle", "meddle_and_wait"])
@pytest.mark.parametrize("what", meddling.CHANGES)
def test_what_a_function_changes_holds_for_itself_alone(what: str, handler: str, streams: Streams) -> None:
    async def run() -> None:
        async with (
            environment() as env,
            open_logs(LogSettings(), env),
            open_python(settings("orders", handler), env) as orders,
            open_python(settings("others", "say"), env) as others,
            open_python(settings("invoices", "say_on_loop"), env) as invoices,
            asyncio.TaskGroup() as tasks,
        ):
            assert isinstance(invoices, PythonInvoker)
            changed = tasks.create_task(orders.invoke(call(what)))
            await asyncio.to_thread(meddling.made.wait, 20)
            assert isinstance(await others.invoke(call("thread", "r-1")), Succeeded)
            await _daemon_and_others_speak(invoices)
            meddling.go_on.set()
            assert isinstance(await changed, Succeeded)

    streams.run(run())
    said = [line["message"] for line in streams.said()]
    words = ("logged", "logged anew", "printed")
    assert said == [f"{who} {word}" for who in ("thread", "loop") for word in words]
    assert {line["level"] for line in streams.said() if "logged" in line["message"]} == {"warning"}
    assert len([line for line in streams.lines() if line["event"] == "library"]) == 3


def test_the_daemon_ends_while_a_function_keeps_the_lock_of_logging(
    streams: Streams, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logging, "_lock", logging._lock)  # type: ignore[attr-defined]

    async def run() -> float:
        async with (
            environment() as env,
            open_logs(LogSettings(), env),
            open_python(settings("orders", "meddle"), env) as orders,
        ):
            held = asyncio.create_task(orders.invoke(call("the lock of logging")))
            await asyncio.to_thread(meddling.made.wait, 20)
            ending = time.monotonic()
            asyncio.get_running_loop().run_in_executor(None, meddling.ends_in_time)
            held.cancel()
        logging.shutdown([])
        logging.getLogger("new at the end")
        took = time.monotonic() - ending
        meddling.go_on.set()
        return took

    assert streams.run(run()) < 2.5


def test_two_functions_that_redirect_at_once_catch_what_is_their_own(streams: Streams) -> None:
    # The first begins before the second and ends before it: put back in this order, the streams would be the first's.
    async def run() -> list[object]:
        async with (
            environment() as env,
            open_logs(LogSettings(), env),
            open_python(settings("one", "redirect"), env) as one,
            open_python(settings("two", "redirect"), env) as two,
            open_python(settings("others", "say_on_loop"), env) as others,
        ):
            async with asyncio.TaskGroup() as group:
                first = group.create_task(one.invoke(call({"name": "one", "first": 0, "then": 1})))
                second = group.create_task(two.invoke(call({"name": "two", "first": 0, "then": 1})))
            await others.invoke(call("others"))
            return [first.result(), second.result()]

    found = streams.run(run())
    assert found == [Succeeded(json.dumps(f"caught of {name}\n").encode()) for name in ("one", "two")]
    said = [line["message"] for line in streams.said()]
    assert sorted(said[:2]) == ["after one", "after two"]
    assert said[2:] == ["others logged", "others logged anew", "others printed"]
    assert sys.stdout is streams.out


def test_a_formatter_for_lambda_s_handler_makes_the_function_s_own_lines(streams: Streams) -> None:
    async def run() -> None:
        async with (
            environment() as env,
            open_logs(LogSettings(), env),
            open_python(settings("orders", "format_as_on_lambda"), env) as orders,
        ):
            assert isinstance(await orders.invoke(call("x", "r-7")), Succeeded)

    streams.run(run())
    assert [line["message"] for line in streams.said()] == ["of r-7: hello"]
