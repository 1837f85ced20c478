"""A function that changes the current directory of the daemon's process changes it for nobody else."""

import asyncio
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from adapters.control.access.authentication import guard
from adapters.control.settings import ApiSettings
from adapters.invokers import http, process, python
from adapters.invokers.http_settings import HttpSettings
from adapters.stores.sqlite.store import SqliteSettings
from poller.clock import LoopClock
from poller.commands.shared import LoadablePlugins
from poller.config.loader import load_all
from poller.config.yaml_files import signature
from poller.domain.errors import InvalidConfiguration
from poller.domain.invocations import Outcome, Succeeded
from poller.plugins import Environment, Plugin
from poller.refused_requests import Strangers
from poller.runtime.reload import ticks_beside
from poller.testing.invoker import invocation
from tests.adapters.tls import certificate_in
from tests.start_folders import go_elsewhere, start_in

WHERE = "import os\ndef where(event, context):\n    return [__file__, os.getcwd()]\n"
GOES = """
import os, tempfile
def goes(event, context):
    with tempfile.TemporaryDirectory() as place:
        os.chdir(place)
        if not event["removed"]:
            os.chdir("/tmp")
    import imported_late
    return imported_late.__file__
"""
RUNTIME = """#!/bin/sh
exec {python} -c '
import http.client, json, os
api, path = http.client.HTTPConnection(os.environ["AWS_LAMBDA_RUNTIME_API"]), "/2018-06-01/runtime/invocation/"
while True:
    api.request("GET", path + "next")
    asked = api.getresponse()
    asked.read()
    answer = json.dumps([os.getcwd(), os.environ["LAMBDA_TASK_ROOT"]])
    api.request("POST", path + asked.headers["Lambda-Runtime-Aws-Request-Id"] + "/response", answer)
    api.getresponse().read()
'
"""
CONFIGURATION = """
store: sqlite:state.db
api: {tokens_file: tokens}
functions:
  here: {invoker: python, handler: here.where}
  apart: {invoker: python, handler: here.where, isolation: process}
  shell: {invoker: process, command: [./run.sh]}
  below: {invoker: process, command: [./run.sh], cwd: below}
mappings: []
"""

pytestmark = pytest.mark.parametrize("removed", [False, True])


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of the start, with functions, a configuration and what that names."""
    place = tmp_path / "start"
    (place / "below").mkdir(parents=True)
    files = {"here.py": WHERE, "goes.py": GOES, "imported_late.py": "", "c.yaml": CONFIGURATION}
    files |= {"tokens": "one: secret-of-one\n"}
    files |= dict.fromkeys(("run.sh", "below/run.sh"), RUNTIME.format(python=sys.executable))
    for name, text in files.items():
        (place / name).write_text(text)
    for script in ("run.sh", "below/run.sh"):
        (place / script).chmod(0o700)
    (place / "tokens").chmod(0o600)
    start_in(place, monkeypatch)
    monkeypatch.setattr(sys, "path", [*sys.path])
    for module in ("here", "goes", "imported_late"):
        monkeypatch.delitem(sys.modules, module, raising=False)
    return place


def gone_from(folder: Path, patch: pytest.MonkeyPatch, *, removed: bool) -> None:
    go_elsewhere(folder.parent / "elsewhere", patch, removed=removed)


async def called(plugin: Plugin[Any, Any], event: Any, **settings: Any) -> Outcome:
    given = plugin.settings.model_validate({"function": "orders"} | settings)
    env = Environment(LoopClock())
    try:
        async with plugin.open(given, env) as invoker:
            outcome: Outcome = await invoker.invoke(invocation(event, timeout_s=60.0))
            return outcome
    finally:
        await env.shared.close()


def answered(plugin: Plugin[Any, Any], event: Any, **settings: Any) -> bytes:
    outcome = asyncio.run(called(plugin, event, **settings))
    assert isinstance(outcome, Succeeded), outcome
    return outcome.payload


def test_imports_of_a_function_that_has_gone_elsewhere_find_what_lies_beside_it(
    removed: bool, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "path", ["", *sys.path])
    late = answered(python.plugin, {"removed": removed}, handler="goes.goes")
    assert late == f'"{folder}/imported_late.py"'.encode()


def test_other_functions_are_found_and_run_where_the_daemon_was_started(
    removed: bool, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gone_from(folder, monkeypatch, removed=removed)
    there = f'["{folder}/here.py", "{folder}"]'.encode()
    assert answered(python.plugin, {}, handler="here.where", isolation="process") == there
    root = f'["{folder}", "{folder}"]'.encode()
    assert answered(process.plugin, {}, command=["./run.sh"]) == root
    below = f'["{folder}/below", "{folder}/below"]'.encode()
    assert answered(process.plugin, {}, command=["./run.sh"], cwd="below") == below


def test_a_program_is_looked_for_where_it_is_started_and_nowhere_else(
    removed: bool, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gone_from(folder, monkeypatch, removed=removed)
    (folder / "below" / "run.sh").unlink()
    with pytest.raises(InvalidConfiguration, match=r"no program './run\.sh'"):
        asyncio.run(called(process.plugin, {}, command=["./run.sh"], cwd="below"))


def test_a_configuration_is_read_again_as_at_the_start(
    removed: bool, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = Path("c.yaml")
    before, seen = load_all(path, {}, LoadablePlugins()), signature(path)
    gone_from(folder, monkeypatch, removed=removed)
    assert signature(path) == seen is not None
    assert load_all(path, {}, LoadablePlugins()) == before
    (folder / "c.yaml").write_text("listen: 5")
    assert signature(path) != seen
    with pytest.raises(InvalidConfiguration, match=r"^c\.yaml: listen: "):
        load_all(path, {}, LoadablePlugins())


def test_the_folder_of_the_configuration_is_watched(
    removed: bool, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gone_from(folder, monkeypatch, removed=removed)

    async def ticked(ticks: AsyncIterator[object]) -> object:
        async with asyncio.timeout(30):
            async for happened in ticks:
                if happened:
                    return happened
        raise AssertionError("the watch ended")

    async def scenario() -> object:
        writing = asyncio.get_running_loop().call_later(0.5, (folder / "c.yaml").write_text, "")
        try:
            return await ticked(ticks_beside(Path("c.yaml")))
        finally:
            writing.cancel()

    assert "c.yaml" in str(asyncio.run(scenario()))


def test_files_of_settings_are_those_of_the_folder_of_the_start(
    removed: bool, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    certificate_in(folder)
    gone_from(folder, monkeypatch, removed=removed)
    trusted = {"function": "orders", "url": "https://h/", "ca_file": "tls.pem"}
    assert http.setting_errors(HttpSettings.model_validate(trusted)) == []
    assert SqliteSettings(url="sqlite:state.db").path == folder / "state.db"
    settings = ApiSettings.model_validate({"tokens_file": "tokens"})
    assert settings.tokens_file == folder / "tokens"
    tokens = guard(settings, LoopClock(), Strangers(), loopback=True).tokens
    assert tokens is not None
    assert [each.text for each in tokens.entries().values()] == ["secret-of-one"]
