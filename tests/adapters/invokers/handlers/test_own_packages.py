"""Functions with packages called `adapters` or `poller`, as the daemon's are: child processes run them, the daemon refuses them."""

import ast
import asyncio
import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from adapters.invokers.handlers import child
from adapters.invokers.handlers.child_program import OWN
from adapters.invokers.handlers.imported_names import imported_names
from adapters.invokers.handlers.own_packages import REMEDY, hidden_import, hidden_packages
from adapters.invokers.handlers.source import missing_module
from adapters.invokers.python import PythonSettings, open_python, setting_errors
from poller.clock import LoopClock
from poller.commands.shared import LoadablePlugins
from poller.config.loader import examine
from poller.domain.errors import InvalidConfiguration
from poller.domain.invocations import FunctionError, Outcome, Succeeded
from poller.output.function_log import FunctionLine, FunctionLog
from poller.plugins import Environment
from poller.testing.invoker import REQUEST_ID, invocation
from tests.start_folders import start_in

ROOT = Path(__file__).parents[4]
CODE = """
import logging
log = logging.getLogger(__name__)
log.warning("loading", extra={"step": 1})

def act(event, context):
    if event.get("fails"):
        raise KeyError(event["fails"])
    log.error("called", extra={"step": 2})
    return [__name__, __file__, event]

async def act_on_loop(event, context):
    return act(event, context)
"""
REGULAR = {
    "adapters/__init__.py": "",
    "adapters/db.py": CODE,
    "poller/__init__.py": "",
    "poller/model.py": CODE,
}
"""Packages, for which every import is one of the function's."""
FOLDERS = {"adapters/out/db.py": CODE, "poller/model.py": CODE}
"""Mere folders (namespace packages), which Python finds only where there is no package of their name."""
MODULES = {"adapters.py": CODE, "poller.py": CODE}
APP = "{}\ndef act(event, context):\n    return named.act(event, context)\n"

RUNS: list[tuple[Mapping[str, str], str, str]] = [
    (REGULAR, "adapters.db:act", "adapters/db.py"),
    (REGULAR, "adapters.db:act_on_loop", "adapters/db.py"),
    (REGULAR, "poller.model:act", "poller/model.py"),
    (REGULAR | {"app.py": APP.format("import poller.model as named")}, "app:act", "poller/model.py"),
    (REGULAR | {"app.py": APP.format("from adapters import db as named")}, "app:act", "adapters/db.py"),
    (FOLDERS, "adapters.out.db:act", "adapters/out/db.py"),
    (FOLDERS | {"app.py": APP.format("from poller import model as named")}, "app:act", "poller/model.py"),
    (
        FOLDERS | {"app.py": APP.format("from adapters.out import db as named")},
        "app:act",
        "adapters/out/db.py",
    ),
    (MODULES, "adapters:act", "adapters.py"),
    (MODULES | {"app.py": APP.format("import poller as named")}, "app:act", "poller.py"),
    (
        {
            "app.py": "def act(event, context):\n    from shop import late\n    return late.named.act(event, context)\n",
            "shop/__init__.py": "",
            "shop/late.py": "from .deep import named",
            "shop/deep.py": "import adapters.db as named",
        }
        | REGULAR,
        "app:act",
        "adapters/db.py",
    ),
]
"""Files, a handler, and the file in which the function's code is."""


class Lines:
    """Keeps what functions say."""

    def __init__(self) -> None:
        self.said: list[FunctionLine] = []

    def line(self, line: FunctionLine) -> None:
        self.said.append(line)

    def dropped(self, function: str, lines: int) -> None:
        raise AssertionError(f"{function} lost {lines} lines")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of the start, still empty. Modules of the daemon come from elsewhere, as from an installation."""
    monkeypatch.setattr(sys, "path", [*sys.path])
    start_in(tmp_path, monkeypatch)
    return tmp_path


def write(folder: Path, files: Mapping[str, str]) -> None:
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)


def settings(handler: str, **more: Any) -> PythonSettings:
    return PythonSettings.model_validate({"function": "orders", "handler": handler} | more)


async def outcomes(given: PythonSettings, lines: Lines, *events: Any) -> list[Outcome]:
    env = Environment(LoopClock(), function_log=FunctionLog(lines))
    try:
        async with open_python(given, env) as invoker:
            return [await invoker.invoke(invocation(event, timeout_s=60.0)) for event in events]
    finally:
        await env.shared.close()


@pytest.mark.parametrize(("files", "handler", "code"), RUNS)
def test_a_child_process_runs_a_function_whose_packages_have_the_daemon_s_names(
    files: Mapping[str, str], handler: str, code: str, folder: Path
) -> None:
    write(folder, files)
    given = settings(handler, isolation="process", processes=1)
    assert setting_errors(given) == []
    lines = Lines()
    ran, failed, again = asyncio.run(outcomes(given, lines, {"a": 1}, {"fails": "x"}, {"b": 2}))
    name = code.removesuffix(".py").replace("/", ".")
    for outcome, event in ((ran, {"a": 1}), (again, {"b": 2})):
        assert isinstance(outcome, Succeeded), outcome
        assert json.loads(outcome.payload) == [name, str(folder / code), event]
    assert isinstance(failed, FunctionError)
    assert (failed.error_type, failed.message) == ("KeyError", "'x'")
    assert str(folder / code) in "".join(failed.stack_trace)
    said = [(each.text, each.logger, each.request_id, dict(each.fields)) for each in lines.said]
    called = ("called", name, REQUEST_ID, {"step": 2})
    loading = ("loading", name, None if "late" not in str(files) else REQUEST_ID, {"step": 1})
    assert said == [loading, called, called]


@pytest.mark.parametrize(("files", "handler", "code"), RUNS)
def test_in_the_daemon_s_process_such_a_function_is_refused_with_what_to_do(
    files: Mapping[str, str], handler: str, code: str, folder: Path
) -> None:
    write(folder, files)
    top = code.partition("/")[0].removesuffix(".py")
    place = folder / (code if "/" not in code else top)
    (error,) = setting_errors(settings(handler))
    assert error.wrong.endswith(f"the daemon itself has a package {top!r}, which hides {place}")
    assert error.wrong.startswith(("app imports", "shop.deep imports", "the daemon itself"))
    assert (error.field, error.remedy, error.here, error.mild) == ("handler", REMEDY, False, False)


def test_check_and_run_refuse_it(folder: Path) -> None:
    write(folder, REGULAR | {"app.py": APP.format("import adapters.db as named")})
    file = folder / "poller.yaml"
    entry = {"invoker": "python", "handler": "app.act"}
    file.write_text(json.dumps({"store": "memory://", "functions": {"orders": entry}, "mappings": []}))
    (line,) = examine(file, {}, LoadablePlugins()).problems
    assert line == (
        f"{file}: functions.orders.handler: value 'app.act': app imports 'adapters.db', but the daemon itself has a package 'adapters', "
        f"which hides {folder}/adapters; {REMEDY}"
    )


@pytest.mark.parametrize(
    "import_", ["importlib.import_module('adapters.db')", "exec('from adapters import db')"]
)
def test_an_import_that_the_source_does_not_show_is_refused_when_it_fails(
    import_: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delitem(sys.modules, "unseen", raising=False)
    write(folder, REGULAR | {"unseen.py": f"import importlib\n{import_}\ndef act(event, context): pass\n"})
    assert setting_errors(settings("unseen:act")) == []
    with pytest.raises(InvalidConfiguration, match="the daemon itself has a package 'adapters', which hides"):
        asyncio.run(outcomes(settings("unseen:act"), Lines()))
    sys.modules.pop("unseen", None)


def test_the_same_import_works_in_a_child_process(folder: Path) -> None:
    code = "import importlib\nnamed = importlib.import_module('adapters.db')"
    write(folder, REGULAR | {"unseen.py": APP.format(code)})
    (ran,) = asyncio.run(outcomes(settings("unseen:act", isolation="process", processes=1), Lines(), {}))
    assert isinstance(ran, Succeeded), ran


USES_OURS = "from poller.domain.invocations import Invocation\nimport adapters.invokers.python\n"
HARMLESS: list[tuple[Mapping[str, str], str]] = [
    ({"app.py": APP.format("named = None")}, "app"),
    ({"app.py": APP.format(USES_OURS)}, "app"),
    ({"app.py": APP.format(USES_OURS), "poller/values.yaml": "", "adapters/notes.txt": ""}, "app"),
    ({"app.py": APP.format(USES_OURS), "adapters/db.py": ""}, "app"),
    ({"app.py": "import json, app_b", "app_b.py": "import app", "adapters/__init__.py": ""}, "app"),
    ({"shop/app.py": "from .adapters import db", "shop/adapters/db.py": ""} | REGULAR, "shop.app"),
    (
        {"app.py": "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import adapters.db\n"} | REGULAR,
        "app",
    ),
    ({"app.py": "this is no Python", "adapters/__init__.py": ""}, "app"),
    ({"app.py": "x = " + "(" * 5000, "adapters/__init__.py": ""}, "app"),
]


@pytest.mark.parametrize(("files", "module"), HARMLESS)
def test_a_function_that_imports_none_of_its_own_packages_of_such_a_name_is_not_refused(
    files: Mapping[str, str], module: str, folder: Path
) -> None:
    write(folder, files)
    assert hidden_import(module) == ""
    assert setting_errors(settings(f"{module}:act")) == []


def test_a_mere_folder_of_such_a_name_leaves_the_daemon_s_packages_to_a_child_process(folder: Path) -> None:
    code = "import poller.domain.records as named\nnamed.act = lambda event, context: named.__file__\n"
    write(folder, {"app.py": APP.format(code), "poller/values.yaml": ""})
    assert list(hidden_packages()) == ["poller"]
    (ran,) = asyncio.run(outcomes(settings("app:act", isolation="process", processes=1), Lines(), {}))
    assert isinstance(ran, Succeeded), ran
    assert json.loads(ran.payload) == str(ROOT / "poller/domain/records.py")


def checked(folder: Path, *words: str) -> tuple[int, str]:
    """Exit status and errors of `check --live` in the folder, with a function that runs in child processes."""
    write(folder, REGULAR | {"app.py": APP.format("import adapters.db as named")})
    entry = {"invoker": "python", "handler": "app.act", "isolation": "process"}
    document = {"store": "memory://", "functions": {"orders": entry}, "mappings": []}
    (folder / "poller.yaml").write_text(json.dumps(document))
    command = [*words, "check", "--live", "--config", "poller.yaml"]
    variables = {
        name: text for name, text in os.environ.items() if not name.startswith(("PYTHON", "POLLER_"))
    }
    done = subprocess.run(command, cwd=folder, env=variables, capture_output=True, text=True, check=False)
    return done.returncode, done.stderr


def test_the_program_runs_in_a_folder_with_such_packages(folder: Path) -> None:
    status, errors = checked(folder, str(Path(sys.executable).with_name("poller")))
    assert (status, "cannot be" in errors) == (0, False), errors


def test_a_start_that_would_take_the_function_s_packages_for_the_daemon_s_says_how_to_start(
    folder: Path,
) -> None:
    code = "import sys; from poller.cli import main; sys.path.insert(0, sys.argv.pop(1)); main()"
    (folder / "pack").mkdir()
    status, errors = checked(folder / "pack", sys.executable, "-P", "-c", code, str(folder / "pack"))
    assert status == 2
    assert (
        f"{folder}/pack/adapters hides the daemon's own; start it by `poller`, not `python -m poller`"
        in errors
    )


def test_the_daemon_s_own_folder_hides_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    start_in(ROOT, monkeypatch)
    assert hidden_packages() == {}


def test_what_lies_in_a_hidden_package_is_told_from_what_does_not(folder: Path) -> None:
    write(folder, REGULAR)
    there = {name: missing_module(name) for name in ("adapters.db", "poller.model", "adapters.gone.x")}
    assert there == {"adapters.db": "", "poller.model": "", "adapters.gone.x": "adapters.gone"}


@pytest.mark.parametrize(
    ("files", "names"),
    [
        ({"app.py": "import a.b, c as d"}, ["app", "a.b", "c"]),
        ({"app.py": "from a.b import c, d as e\nfrom f import *"}, ["app", "a.b", "a.b.c", "a.b.d", "f"]),
        (
            {"app.py": "def f():\n    try:\n        import a\n    finally:\n        import b"},
            ["app", "a", "b"],
        ),
        (
            {"app/__init__.py": "from . import a\nfrom .b import c", "app/a.py": "from .. import nowhere"},
            ["app", "app.a", "app.b", "app.b.c"],
        ),
        ({"app.py": "if TYPE_CHECKING:\n    import a\nelse:\n    import b"}, ["app", "b"]),
        ({"app.py": "import x.y", "x/__init__.py": "import z", "x/y.py": ""}, ["app", "x.y", "x", "z"]),
    ],
)
def test_imports_are_found_in_every_form(files: Mapping[str, str], names: list[str], folder: Path) -> None:
    write(folder, files)
    assert [each.name for each in imported_names("app")] == names


def test_imports_of_each_other_and_of_many_modules_come_to_an_end(folder: Path) -> None:
    write(folder, {f"m{number}.py": f"import m{number + 1}, m0" for number in range(600)})
    assert len(list(imported_names("m0"))) == 500


def late_imports(statements: list[ast.stmt]) -> Iterator[str]:
    """The names of the daemon's that a module imports when its functions run."""
    for each in statements:
        for function in ast.walk(each):
            if isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
                for inner in ast.walk(function):
                    names = [alias.name for alias in inner.names] if isinstance(inner, ast.Import) else []
                    names += [inner.module or ""] if isinstance(inner, ast.ImportFrom) else []
                    yield from (name for name in names if name.partition(".")[0] in OWN)


def test_what_a_child_process_uses_of_the_daemon_imports_nothing_of_it_later() -> None:
    code = f"import {child.__name__}, sys; print(*(m.__file__ for n, m in sys.modules.items() if n.partition('.')[0] in {OWN}))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    files = done.stdout.split()
    assert child.__file__ in files
    assert {
        file: found for file in files if (found := list(late_imports(ast.parse(Path(file).read_text()).body)))
    } == {}
