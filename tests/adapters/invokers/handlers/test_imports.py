"""Imports of handlers' modules: the loop goes on meanwhile, for a bounded time, and what is wrong is told with a remedy."""

import asyncio
import sys
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from random import Random

import pytest

from adapters.invokers import python
from adapters.invokers.python import PythonSettings, open_python
from poller.clock import LoopClock
from poller.domain.errors import InvalidConfiguration
from poller.domain.invocations import Outcome, Succeeded
from poller.domain.plan import FunctionPlan
from poller.plugins import Environment, GivenPlugins
from poller.runtime.daemon import Daemon
from poller.testing.invoker import invocation
from tests.contracts.invokers import environment
from tests.runtime.daemons import Site, daemon_plan, until
from tests.runtime.fakes import STREAM_ARN, FakeStream, mapping
from tests.virtual import virtual_clock

GAP_S_MAX = 0.6
"""The longest that the loop may stand still while a module takes two seconds; on a busy machine."""
TAKES_S = 2.0

type Write = Callable[[str, str], str]


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Write]:
    """Writes a module that can be imported; returns its name."""
    monkeypatch.syspath_prepend(tmp_path)
    names: list[str] = []

    def written(name: str, text: str) -> str:
        (tmp_path / f"{name}.py").write_text(text)
        names.append(name)
        return name

    yield written
    for name in names:
        sys.modules.pop(name, None)


async def longest_gap_s(work: Awaitable[object]) -> float:
    """The longest that the loop stood still while `work` went on."""
    gaps = [0.0]

    async def tick() -> None:
        last = time.monotonic()
        while True:
            await asyncio.sleep(0.01)
            now = time.monotonic()
            gaps.append(now - last)
            last = now

    async with asyncio.TaskGroup() as tasks:
        ticking = tasks.create_task(tick())
        await work
        ticking.cancel()
    return max(gaps)


async def opened(module: str) -> Outcome:
    """Opens a function and calls it once."""
    given = PythonSettings(function="orders", handler=f"{module}:handler")
    async with environment() as env, open_python(given, env) as invoker:
        return await invoker.invoke(invocation({}))


def test_the_loop_goes_on_while_a_module_takes_long_to_import(write: Write) -> None:
    module = write("slow_at_start", f"import time\ntime.sleep({TAKES_S})\ndef handler(e, c): return 1\n")
    assert asyncio.run(longest_gap_s(opened(module))) < GAP_S_MAX


def test_the_loop_goes_on_while_a_changed_file_s_module_takes_long_to_import(write: Write) -> None:
    module = write("slow_at_reload", f"import time\ntime.sleep({TAKES_S})\ndef handler(e, c): return 1\n")

    async def main() -> float:
        site = Site(sources={STREAM_ARN: FakeStream()})
        registry = site.daemon(daemon_plan())._registry
        assert isinstance(registry, GivenPlugins)
        registry._plugins["invokers", "python"] = python.plugin
        env = Environment(clock=virtual_clock())
        daemon = Daemon(daemon_plan(), registry=registry, env=env, observer=site.seen, rng=Random(7))
        function = FunctionPlan(name="reader", invoker="python", settings={"handler": f"{module}:handler"})
        async with asyncio.TaskGroup() as scope:
            scope.create_task(daemon.run())
            await until(lambda: daemon.status().ready)
            found: list[list[str]] = []

            async def rehearse() -> None:
                found.append(await daemon.rehearse(daemon_plan(mapping(), functions={"reader": function})))

            began = time.monotonic()
            gap_s = await longest_gap_s(rehearse())
            assert time.monotonic() - began >= TAKES_S
            assert found == [[]]
            daemon.stop()
        await env.shared.close()
        return gap_s

    assert asyncio.run(main()) < GAP_S_MAX


def test_a_module_that_never_ends_is_refused_in_time_and_costs_one_thread(
    write: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = write("endless", "import time\ntime.sleep(3600)\n")
    monkeypatch.setattr("adapters.invokers.python.IMPORT_S_MAX", 0.3)

    async def main() -> list[str]:
        given = PythonSettings(function="orders", handler=f"{module}:handler")
        problems: list[str] = []
        before = set(threading.enumerate())
        async with environment() as env:
            for _ in range(3):
                with pytest.raises(InvalidConfiguration) as refused:
                    async with open_python(given, env):
                        raise AssertionError("opened")
                problems += refused.value.problems
        assert len(set(threading.enumerate()) - before) == 1
        return problems

    problem = "functions.orders.handler: 'endless:handler': importing endless took longer than 0.3 s; let the module load less, or load it at the first call"
    assert asyncio.run(main()) == [problem] * 3


def test_a_module_is_found_once_its_import_has_ended_after_all(
    write: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = write("late", "import time\ntime.sleep(1)\ndef handler(e, c): return 1\n")

    async def main() -> Outcome:
        given = PythonSettings(function="orders", handler=f"{module}:handler")
        async with environment() as env:
            monkeypatch.setattr("adapters.invokers.python.IMPORT_S_MAX", 0.2)
            with pytest.raises(InvalidConfiguration):
                async with open_python(given, env):
                    raise AssertionError("opened")
            monkeypatch.setattr("adapters.invokers.python.IMPORT_S_MAX", 20.0)
            async with open_python(given, env) as invoker:
                return await invoker.invoke(invocation({}))

    assert asyncio.run(main()) == Succeeded(b"1")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (
            "import signal\nsignal.signal(signal.SIGUSR1, signal.SIG_IGN)",
            ["ValueError: signal only works in main thread", "isolation: process"],
        ),
        (
            "import asyncio\nLOOP = asyncio.get_event_loop()\n"
            "def handler(e, c): return LOOP.run_until_complete(asyncio.sleep(0, 1)) if LOOP is asyncio.get_event_loop() else 1/0",
            None,
        ),
        ("import sys\nsys.exit(3)", ["raised SystemExit: 3", "mend the module"]),
        ("raise KeyboardInterrupt", ["raised KeyboardInterrupt", "mend the module"]),
        ("raise ValueError('a\\nb\\ud800')", ["raised ValueError: a b", "mend the module"]),
        ("def __getattr__(name): raise SystemExit('no')", ["raised SystemExit: no", "mend the module"]),
        ("import os\nTABLE = os.environ['NO_TABLE']", ["raised KeyError", 'wrong.py", line 2, in <module>']),
        ("import json\njson.loads('{')", ["raised JSONDecodeError", 'wrong.py", line 2, in <module>']),
        ("import nowhere_at_all", ["no module 'nowhere_at_all'", "install it"]),
        ("class handler: __call__ = None", []),
    ],
)
def test_what_goes_wrong_in_an_import_is_reported_with_its_remedy(
    text: str, words: list[str] | None, write: Write
) -> None:
    module = write("wrong", f"{text}\n")
    if words is None:
        assert asyncio.run(opened(module)) == Succeeded(b"1")
        return
    if not words:
        assert not isinstance(asyncio.run(opened(module)), Succeeded)
        return
    with pytest.raises(InvalidConfiguration) as refused:
        asyncio.run(opened(module))
    [problem] = refused.value.problems
    assert problem.startswith("functions.orders.handler: 'wrong:handler': ")
    assert all(word in problem for word in words), problem
    assert "\n" not in problem
    problem.encode()


def test_a_synchronous_handler_runs_in_the_thread_that_imported_its_module(write: Write) -> None:
    module = write(
        "at_home",
        "import threading\nHOME = threading.get_ident()\n"
        "def handler(e, c): return threading.get_ident() == HOME\n",
    )
    assert asyncio.run(opened(module)) == Succeeded(b"true")


def test_a_module_that_is_there_already_needs_no_thread() -> None:
    async def main() -> Outcome:
        given = PythonSettings(
            function="orders", handler="tests.adapters.invokers.functions.plain:act_on_loop"
        )
        before = set(threading.enumerate())
        async with open_python(given, Environment(LoopClock())) as invoker:
            assert set(threading.enumerate()) <= before  # threads of earlier tests may end meanwhile
            return await invoker.invoke(invocation({"do": "nothing"}))

    assert asyncio.run(main()) == Succeeded(b"null")
