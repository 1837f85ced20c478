"""The example of a plug-in, installed beside poller as a package of its own: its tests pass, and poller finds what it adds."""

import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / "examples" / "plugin"
INSTALL_S_MAX = 120
TESTS_S_MAX = 200


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, str]:
    """The environment of a process that has the example among its packages."""
    site = tmp_path_factory.mktemp("site")
    uv = [str(Path(sys.executable).with_name("uv")), "pip", "install", "--quiet", "--python", sys.executable]
    how = ["--no-deps", "--no-build-isolation", "--target", str(site)]
    source = shutil.copytree(EXAMPLE, tmp_path_factory.mktemp("source") / "plugin")
    subprocess.run([*uv, *how, str(source)], check=True, timeout=INSTALL_S_MAX, capture_output=True)
    return {**os.environ, "PYTHONPATH": str(site), "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}


def ran(
    arguments: list[str], environment: Mapping[str, str], place: Path
) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", *arguments]
    return subprocess.run(
        command,
        cwd=place,
        env=environment,
        capture_output=True,
        text=True,
        timeout=TESTS_S_MAX,
        check=False,
    )


def test_the_tests_of_the_example_pass(installed: Mapping[str, str], tmp_path: Path) -> None:
    for each in EXAMPLE.glob("test_*.py"):
        shutil.copy(each, tmp_path)
    shutil.copy(EXAMPLE / "pyproject.toml", tmp_path)
    # Neither the tree nor the settings of this project's own tests are near.
    done = ran(["pytest", "-q", "-p", "no:cacheprovider", "--rootdir", str(tmp_path)], installed, tmp_path)
    assert done.returncode == 0, done.stdout[-4000:]
    assert " passed" in done.stdout


def test_poller_finds_the_plugins_of_the_example(installed: Mapping[str, str], tmp_path: Path) -> None:
    shutil.copy(EXAMPLE / "poller.yaml", tmp_path)
    done = ran(["poller", "check", "--config", "poller.yaml"], installed, tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert "program" in done.stdout


def test_poller_checks_the_settings_of_the_example(installed: Mapping[str, str], tmp_path: Path) -> None:
    text = (EXAMPLE / "poller.yaml").read_text()
    spoiled = text.replace("command: [python3", "comand: [python3").replace("outbox:///tmp", "outbox://tmp")
    (tmp_path / "poller.yaml").write_text(spoiled)
    done = ran(["poller", "check", "--config", "poller.yaml"], installed, tmp_path)
    assert done.returncode == 2
    assert "functions.orders.comand" in done.stderr
    assert "write outbox:///path/of/file.db" in done.stderr


def test_without_the_example_its_names_are_refused(tmp_path: Path) -> None:
    shutil.copy(EXAMPLE / "poller.yaml", tmp_path)
    done = ran(["poller", "check", "--config", "poller.yaml"], os.environ, tmp_path)
    assert done.returncode == 2
    assert "no plug-in 'program' among invokers" in done.stderr
    assert "no plug-in 'outbox' among destinations" in done.stderr
