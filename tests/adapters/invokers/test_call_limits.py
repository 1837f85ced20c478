"""How many calls of a function can run at once, and why: what `poller check` and the start of a daemon say."""

import asyncio
import json
import sys
from pathlib import Path
from typing import Any

import pytest

from adapters.invokers.python import PythonSettings, open_python
from poller.commands.check import check
from poller.config.settings import Settings
from poller.domain.plan import CallLimit, FunctionPlan
from poller.plugins import InstalledPlugins
from poller.runtime.mappings.components import configured_call_limit
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


@pytest.mark.parametrize(
    ("text", "calls"),
    [
        ("async def handler(e, c): ...", None),
        ("@traced\nasync def handler(e, c): ...", None),
        ("def handler(e, c): ...", 1),
        ("async def handler(e, c): ...\ndef handler(e, c): ...", 1),
        ("handler = 7", 1),
        ("if True:\n    async def handler(e, c): ...", 1),
        ("this is no Python", 1),
    ],
)
def test_a_handler_s_source_is_looked_at_and_not_imported(
    text: str, calls: int | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "shop").mkdir()
    (tmp_path / "shop" / "unimported.py").write_text(f"{text}\n")
    plan = FunctionPlan(name="orders", invoker="python", settings={"handler": "shop.unimported:handler"})
    assert configured_call_limit(plan, InstalledPlugins()).calls == calls
    assert "shop.unimported" not in sys.modules


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
    async def run() -> CallLimit:
        settings = PythonSettings(function="orders", handler=handler, **given)
        async with environment() as env, open_python(settings, env) as invoker:
            return invoker.call_limit

    assert asyncio.run(run()).calls == calls


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
