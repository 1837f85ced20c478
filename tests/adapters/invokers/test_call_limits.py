"""How many calls of a function can run at once, and why: what `poller check` and the start of a daemon say."""

import asyncio
import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from adapters.invokers.python import PythonSettings, open_python
from poller.commands.check import check
from poller.commands.run.report import starting
from poller.config.daemon_plan import daemon_plan
from poller.config.settings import Settings
from poller.domain.plan import CallLimit, FunctionPlan
from poller.plugins import InstalledPlugins
from poller.runtime.mappings.call_limits import configured_call_limit
from tests.contracts.invokers import environment

SYNC, ASYNC = (
    "tests.adapters.invokers.functions.plain:act",
    "tests.adapters.invokers.functions.plain:act_on_loop",
)


@pytest.mark.parametrize(
    ("given", "max_concurrency", "calls", "reason"),
    [
        ({}, None, 1, "one at a time, as on Lambda"),
        ({}, 50, 1, "one at a time, as on Lambda"),
        ({"workers": 8}, None, 8, "workers: 8"),
        ({"workers": 8}, 3, 3, "max_concurrency: 3"),
        ({"isolation": "process"}, None, 8, "processes: 8, one call each"),
        ({"isolation": "process"}, 3, 3, "processes: 3, one call each"),
        ({"isolation": "process", "processes": 4}, 3, 3, "max_concurrency: 3"),
        ({"isolation": "process", "processes": 4}, None, 4, "processes: 4, one call each"),
    ],
)
def test_the_settings_say_how_many_calls_of_a_synchronous_handler_can_run(
    given: dict[str, Any], max_concurrency: int | None, calls: int, reason: str
) -> None:
    plan = FunctionPlan(
        name="orders", invoker="python", settings={"handler": SYNC, **given}, max_concurrency=max_concurrency
    )
    found = configured_call_limit(plan, InstalledPlugins())
    assert found.calls == calls
    assert found.reason.startswith(reason)


ASYNC_ONE = "async def one(e, c): ..."
WRAPS = """
import functools

def traced(function):
    @functools.wraps(function)
    def wrapper(*given):
        return function(*given)
    return wrapper
"""
AWAITS = """
class Awaits:
    async def __call__(self, e, c): ...
    async def method(self, e, c): ...
"""
SAYS: list[tuple[str, int | str | None]] = [
    ("async def handler(e, c): ...", None),
    ("async def handler(e, c):\n    def inner():\n        yield 1\n    return [x async for x in c]", None),
    ("async def handler(e, c):\n    yield 1", 1),
    ("def handler(e, c): ...", 1),
    ("def handler(e, c):\n    async def inner(): ...\n    return inner()", 1),
    ("async def handler(e, c): ...\ndef handler(e, c): ...", 1),
    ("handler = 7\nasync def handler(e, c): ...", None),
    ("from os.path import *\nimport functools as handler\ndef handler(e, c): ...", 1),
    (f"{WRAPS}\n@traced\nasync def handler(e, c): ...", "?"),
    (f"{WRAPS}\n@traced\ndef handler(e, c): ...", "?"),
    (f"{WRAPS}\nasync def handler(e, c): ...\nhandler = traced(handler)", "?"),
    (f"import functools\n{ASYNC_ONE}\nhandler = functools.partial(one)", "?"),
    (f"{ASYNC_ONE}\nhandler = one", "?"),
    (f"{ASYNC_ONE}\nhandler, other = one, one", "?"),
    (f"{ASYNC_ONE}\nfor handler in [one]: ...", "?"),
    (f"{ASYNC_ONE}\nif (handler := one): ...", "?"),
    (f"{ASYNC_ONE}\nmatch one:\n    case handler: ...", "?"),
    (f"{AWAITS}\nhandler = Awaits()", "?"),
    (f"{AWAITS}\nhandler = Awaits().method", "?"),
    ("class handler:\n    def __init__(self, e, c): ...", "?"),
    ("if True:\n    async def handler(e, c): ...", "?"),
    ("def handler(e, c): ...\ntry:\n    async def handler(e, c): ...\nfinally: ...", "?"),
    ("from tests.adapters.invokers.functions.plain import act_on_loop as handler", "?"),
    ("def handler(e, c): ...\nfrom tests.adapters.invokers.functions.plain import *", "?"),
]
"""Modules, and how many calls of their handler can run as far as the source tells: `?` if it does not tell."""
NOT_LOADED: list[tuple[str, int | str | None]] = [
    ("handler = 7", "?"),
    ("this is no Python", "?"),
    ("", "?"),
    ("(" * 5000, "?"),
]


@pytest.fixture
def written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], str]]:
    """Writes a module that can be imported; returns its handler."""
    monkeypatch.syspath_prepend(tmp_path)
    name = "unimported_module"

    def write(text: str) -> str:
        (tmp_path / f"{name}.py").write_text(f"{text}\n")
        return f"{name}:handler"

    yield write
    sys.modules.pop(name, None)


@pytest.mark.parametrize(("text", "calls"), [*SAYS, *NOT_LOADED])
def test_a_handler_s_source_is_looked_at_and_not_imported(
    text: str, calls: int | str | None, written: Callable[[str], str]
) -> None:
    plan = FunctionPlan(name="orders", invoker="python", settings={"handler": written(text)})
    found = configured_call_limit(plan, InstalledPlugins())
    assert (found.calls if found.known else "?") == calls
    assert "unimported_module" not in sys.modules


@pytest.mark.parametrize("text", [text for text, _ in SAYS])
def test_what_is_announced_as_known_is_what_the_open_function_says(
    text: str, written: Callable[[str], str]
) -> None:
    handler = written(text)
    for more in ({}, {"workers": 3}):
        plan = FunctionPlan(name="orders", invoker="python", settings={"handler": handler, **more})
        announced, opened = configured_call_limit(plan, InstalledPlugins()), open_limit(handler, **more)
        assert opened.known
        assert not announced.known or announced == opened
        # What settles it is known beforehand.
        assert announced.known or not more


@pytest.mark.parametrize(("own", "calls", "known"), [(None, None, False), (5, 5, False), (1, 1, True)])
def test_a_limit_of_the_function_bounds_what_is_not_known(
    own: int | None, calls: int | None, known: bool
) -> None:
    found = CallLimit(None, "not told", known=False).within(own)
    assert (found.calls, found.known) == (calls, known)


@pytest.mark.parametrize(
    ("invoker", "given", "limit"),
    [
        ("http", {"url": "http://127.0.0.1:1/x"}, CallLimit(None, "no limit")),
        ("lambda", {}, CallLimit(None, "no limit")),
        ("process", {"command": ["x"], "processes": 2}, CallLimit(2, "processes: 2, one call each")),
    ],
)
def test_other_invokers_say_it_too(invoker: str, given: dict[str, Any], limit: CallLimit) -> None:
    plan = FunctionPlan(name="orders", invoker=invoker, settings=given)
    assert configured_call_limit(plan, InstalledPlugins()) == limit


@pytest.mark.parametrize(
    ("handler", "given", "calls"),
    [(SYNC, {}, 1), (SYNC, {"workers": 8}, 8), (ASYNC, {}, None), (ASYNC, {"workers": 2}, 2)],
)
def test_an_open_function_says_how_many_calls_can_run(
    handler: str, given: dict[str, Any], calls: int | None
) -> None:
    assert open_limit(handler, **given).calls == calls


def open_limit(handler: str, **given: Any) -> CallLimit:
    """What an open function says."""

    async def run() -> CallLimit:
        settings = PythonSettings(function="orders", handler=handler, **given)
        async with environment() as env, open_python(settings, env) as invoker:
            return invoker.call_limit

    return asyncio.run(run())


def test_check_says_how_many_calls_can_run_and_why(capsys: pytest.CaptureFixture[str]) -> None:
    functions: dict[str, Any] = {
        "orders": {"invoker": "python", "handler": SYNC},
        "mails": {"invoker": "python", "handler": SYNC, "workers": 8},
    }
    settings = Settings.model_validate({"store": "memory://", "functions": functions})
    assert check(settings, InstalledPlugins(), place="f", live=False, as_json=True) == 0
    rows = json.loads(capsys.readouterr().out)["functions"]
    assert [row["calls_at_once"] for row in rows] == [1, 8]
    assert rows[0]["calls_at_once_reason"].startswith("one at a time, as on Lambda; workers: N")
    assert check(settings, InstalledPlugins(), place="f", live=False, as_json=False) == 0
    shown = " ".join(capsys.readouterr().out.replace("│", " ").split())
    assert "8 (workers: 8)" in shown
    assert "1 (one at a time" in shown


def test_what_the_source_does_not_tell_is_said_plainly_and_found_by_a_live_check(
    written: Callable[[str], str], capsys: pytest.CaptureFixture[str]
) -> None:
    handler = written(f"{ASYNC_ONE}\nhandler = one")
    functions: dict[str, Any] = {
        "orders": {"invoker": "python", "handler": handler},
        "mails": {"invoker": "python", "handler": handler, "max_concurrency": 5},
        "bills": {"invoker": "python", "handler": SYNC},
    }
    settings = Settings.model_validate({"store": "memory://", "functions": functions})
    event = starting(settings, daemon_plan(settings), InstalledPlugins(), listen="127.0.0.1:1", file=None)
    assert event.functions == (
        "orders: python, calls at once known when it is loaded",
        "mails: python, calls at once known when it is loaded, at most 5",
        "bills: python, 1 call at once",
    )
    assert check(settings, InstalledPlugins(), place="f", live=False, as_json=False) == 0
    shown = " ".join(capsys.readouterr().out.replace("│", " ").split())
    assert "calls at once: not known: one at a time, or any number if the handler is asynchronous" in shown
    assert "calls at once: not known, at most 5: one at a time" in shown
    assert check(settings, InstalledPlugins(), place="f", live=True, as_json=True) == 0
    found = json.loads(capsys.readouterr().out)
    assert [(row["calls_at_once"], row["calls_at_once_known"]) for row in found["functions"]] == [
        (None, False),
        (5, False),
        (1, True),
    ]
    looked = {each["name"]: [finding["check"] for finding in each["findings"]] for each in found["live"]}
    assert "calls at once: any number" in looked["orders"]
    assert "calls at once: 5" in looked["mails"]
    assert not [check for check in looked["bills"] if check.startswith("calls")]
