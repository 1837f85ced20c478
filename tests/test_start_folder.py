"""The folder of the start stays what relative paths are relative to, wherever a function goes, and nothing asks for another one."""

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from poller.start_folder import (
    folder_of_processes,
    from_start_folder,
    import_path,
    keep_import_path,
    keep_variables,
    start_folder,
)
from tests.start_folders import go_elsewhere, start_in
from tests.test_structure import sources

CURRENT = {"getcwd", "getcwdb", "cwd", "absolute", "abspath", "samefile"}
"""Names of functions that read the current directory."""
HOME = "poller/start_folder.py"


def readings(text: str) -> set[str]:
    """The calls in a module that read the current directory."""
    calls = [each for each in ast.walk(ast.parse(text)) if isinstance(each, ast.Call)]
    names = {each.func.attr for each in calls if isinstance(each.func, ast.Attribute)}
    return CURRENT & (names | {each.func.id for each in calls if isinstance(each.func, ast.Name)})


def test_only_one_module_reads_the_current_directory() -> None:
    found = {path: names for path, text in sources().items() if (names := readings(text))}
    assert found == {HOME: {"cwd"}}


@pytest.mark.parametrize("text", ["os.getcwd()", "Path.cwd()", "Path('a').absolute()", "abspath('a')"])
def test_each_way_to_read_it_is_seen(text: str) -> None:
    assert readings(text)


@pytest.mark.parametrize("removed", [False, True])
def test_relative_paths_stay_relative_to_the_folder_of_the_start(
    removed: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    start_in(tmp_path, monkeypatch)
    assert folder_of_processes() is None
    go_elsewhere(tmp_path / "elsewhere", monkeypatch, removed=removed)
    assert start_folder() == folder_of_processes() == tmp_path
    assert from_start_folder("a/../b") == tmp_path / "a/../b"
    assert from_start_folder(Path("/etc/b")) == Path("/etc/b")
    assert from_start_folder("") == tmp_path


def test_a_process_knows_where_it_was_started_and_children_go_there(tmp_path: Path) -> None:
    code = (
        "import os, tempfile; from poller.start_folder import start_folder, folder_of_processes as found\n"
        "with tempfile.TemporaryDirectory() as d: os.chdir(d)\n"
        "print(start_folder(), found())"
    )
    variables = os.environ | {"PYTHONPATH": str(Path(__file__).parents[1])}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=variables, capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == [str(tmp_path)] * 2


def test_a_process_whose_folder_was_removed_before_it_started_starts(tmp_path: Path) -> None:
    code = "import os; os.chdir(d := os.environ['PWD']); os.rmdir(d); import poller.start_folder as s; print(s.start_folder())"
    (tmp_path / "gone").mkdir()
    variables = os.environ | {"PYTHONPATH": str(Path(__file__).parents[1]), "PWD": str(tmp_path / "gone")}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=variables, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == str(tmp_path / "gone")


def test_entries_of_the_import_path_keep_meaning_the_folder_of_the_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "lib").mkdir()
    hook = "__editable__.shop-1.0.finder.__path_hook__"
    monkeypatch.setattr(sys, "path", path := ["", "lib", "./lib", "/usr/lib", "nowhere", hook])
    start_in(tmp_path, monkeypatch)
    go_elsewhere(tmp_path / "elsewhere", monkeypatch, removed=True)
    kept = [str(tmp_path), f"{tmp_path}/lib", f"{tmp_path}/lib", "/usr/lib", "nowhere", hook]
    assert import_path() == kept
    assert path == ["", "lib", "./lib", "/usr/lib", "nowhere", hook]
    keep_import_path()
    assert path == kept


@given(st.lists(st.sampled_from(["", ".", "..", "a", "a/b", "/", "/a", "~", "\u65e5"]), max_size=5))
def test_entries_that_are_absolute_or_name_nothing_are_left_alone(entries: list[str]) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "path", entries)
        before, after = list(entries), import_path()
        keep_import_path()
        assert entries == after == import_path()
    for one, other in zip(before, after, strict=True):
        assert (
            other == one
            if os.path.isabs(one) or not from_start_folder(one).exists()
            else os.path.isabs(other)
        )


def test_files_that_libraries_find_by_variables_are_found_wherever_a_function_goes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    start_in(tmp_path, monkeypatch)
    given = {
        "AWS_SHARED_CREDENTIALS_FILE": "keys",
        "AWS_WEB_IDENTITY_TOKEN_FILE": "/var/token",
        "AWS_CONFIG_FILE": "~/config",
        "SSL_CERT_FILE": "",
    }
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("AWS_CA_BUNDLE", raising=False)
    keep_variables()
    assert {name: os.environ[name] for name in given} == given | {
        "AWS_SHARED_CREDENTIALS_FILE": f"{tmp_path}/keys"
    }
    assert "AWS_CA_BUNDLE" not in os.environ
