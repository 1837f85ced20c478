"""Functions of which no change would be seen, as a check says it beforehand."""

from pathlib import Path
from typing import Any

import pytest

from adapters.invokers.python import PythonSettings, plugin
from tests.adapters.invokers.function_code.sites import write

SOURCE = "def act(event, context): ...\n"
IN_SRC = {"src/shop_of_src/__init__.py": SOURCE, "pyproject.toml": ""}
INSTALLED = {"shop_of_src/__init__.py": SOURCE, "shop_of_src-1.dist-info/RECORD": "shop_of_src/__init__.py,sha256=x,1\n"}  # fmt: skip

CASES: dict[str, tuple[dict[str, str], dict[str, Any], bool]] = {
    "a module of the folder": ({"shop_of_src.py": SOURCE}, {}, True),
    "a package of the folder": ({"shop_of_src/__init__.py": SOURCE}, {}, True),
    "a mere folder": ({"shop_of_src/app.py": SOURCE}, {"handler": "shop_of_src.app.act"}, True),
    "a project with src, from above": (IN_SRC, {}, False),
    "a project with src, as code": (IN_SRC, {"code": "src"}, True),
    "a project with src, in processes": (IN_SRC, {"isolation": "process"}, True),
    "a project with src, not reloaded": (IN_SRC, {"reload": False}, True),
    "what was installed in the folder": (INSTALLED, {}, False),
    "a module of the standard library": ({}, {"handler": "json.dumps"}, False),
    "a library": ({}, {"handler": "pydantic.version.version_info"}, False),
}


@pytest.mark.parametrize("name", CASES)
def test_reload_that_would_see_no_change_is_noted(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files, given, seen = CASES[name]
    write(tmp_path, files)
    monkeypatch.syspath_prepend(tmp_path / "src")
    code = tmp_path / given.get("code", "")
    settings = PythonSettings.model_validate(
        {"function": "orders", "handler": "shop_of_src.act", "reload": True} | given | {"code": code}
    )
    assert plugin.check is not None
    found = list(plugin.check(settings))
    assert [(each.field, each.mild) for each in found] == ([] if seen else [("reload", True)])
    assert all(f"of the function's own in {code}" in each.wrong for each in found)
