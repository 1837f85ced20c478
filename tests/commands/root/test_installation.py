"""What `poller version` says of an installation, and what it must not say."""

import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from importlib.metadata import entry_points, version
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from poller.cli import application
from poller.commands.root import installation
from poller.commands.root.installation import described, facts
from poller.plugins import GROUPS


def installed(folder: Path, name: str, *, points: str = "") -> None:
    """Puts a distribution into a folder, as an installer would do it."""
    info = folder / f"{name}-2.5.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 2.5\n")
    (info / "entry_points.txt").write_text(points)


def texts(found: Any) -> Iterator[str]:
    """All names and values of a JSON document."""
    match found:
        case dict():
            for name, each in found.items():
                yield name
                yield from texts(each)
        case list():
            for each in found:
                yield from texts(each)
        case _:
            yield str(found)


def test_the_versions_are_those_of_what_is_installed() -> None:
    found = facts()
    assert found["poller"] == version("esm-poller")
    assert found["python"]["version"] == ".".join(map(str, sys.version_info[:3]))
    assert found["event_loop"] == f"uvloop {version('uvloop')}"
    assert {"aiobotocore", "botocore", "pydantic", "pydantic-core", "typer", "sqlite", "openssl"} <= set(
        found["libraries"]
    )
    assert found["libraries"]["botocore"] == version("botocore")
    assert None not in found["libraries"].values()


def test_every_kind_of_plug_in_is_listed() -> None:
    found = facts()["plug_ins"]
    assert set(found) == {*GROUPS, "commands"}
    for kind, group in GROUPS.items():
        assert set(found[kind]) == {each.name for each in entry_points(group=group)}


def test_a_plug_in_of_others_is_named_with_its_distribution(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    installed(tmp_path, "fax-machine", points="[poller.destinations]\nfax = no_such_package:plugin\n")
    monkeypatch.syspath_prepend(tmp_path)
    found = facts()
    assert found["plug_ins"]["destinations"]["fax"] == "fax-machine 2.5"
    assert "destinations: events, fax (fax-machine 2.5), file, " in described(found)


def test_an_extra_is_installed_if_all_of_its_libraries_are(monkeypatch: pytest.MonkeyPatch) -> None:
    assert facts()["extras"]["testing"]["installed"] is True
    real = installation._version
    monkeypatch.setattr(installation, "_version", lambda name: None if name == "hypothesis" else real(name))
    found = facts()
    assert found["extras"]["testing"] == {
        "installed": False,
        "libraries": {"hypothesis": None, "pytest": version("pytest")},
    }
    assert "testing (pip install 'esm-poller[testing]')" in described(found)


def test_nothing_of_the_machine_or_its_user_is_said(tmp_path: Path) -> None:
    secrets = {
        "HOME": str(tmp_path / "geheim"),
        "USER": "geheim",
        "AWS_SECRET_ACCESS_KEY": "geheim",
        "POLLER_TOKEN": "geheim",
        "POLLER_CONFIG": str(tmp_path / "geheim.yaml"),
    }
    said = [
        subprocess.run(
            [sys.executable, "-m", "poller", *words],
            env={**os.environ, **secrets},
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=True,
            timeout=120,
        ).stdout
        for words in (["version"], ["version", "--json"])
    ]
    private = ["geheim", f"{socket.gethostname()}.", str(tmp_path), sys.prefix, sys.base_prefix]
    assert [each for each in private if each in "".join(said)] == []
    assert [each for each in texts(json.loads(said[1])) if each.startswith(("/", "file:"))] == []


def test_the_lines_and_the_document_say_the_same() -> None:
    lines = CliRunner().invoke(application([]), ["version"]).stdout
    found = json.loads(CliRunner().invoke(application([]), ["version", "--json"]).stdout)
    assert lines == f"{described(found)}\n"
    assert lines.startswith(f"poller {version('esm-poller')}, installed by ")
