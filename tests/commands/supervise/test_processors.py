"""How many processors a process may use, by the files of its control groups."""

import os
from pathlib import Path

import pytest

from poller.commands.supervise.processors import processors


@pytest.fixture(autouse=True)
def _sixteen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "process_cpu_count", lambda: 16)


def _written(folder: Path, files: dict[str, str]) -> tuple[Path, Path]:
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return folder / "groups", folder / "own"


def test_without_a_quota_it_is_as_many_as_the_process_is_bound_to(tmp_path: Path) -> None:
    assert processors(*_written(tmp_path, {})) == 16
    assert processors(*_written(tmp_path, {"groups/cpu.max": "max 100000\n"})) == 16


def test_in_a_container_the_root_has_the_quota(tmp_path: Path) -> None:
    assert processors(*_written(tmp_path, {"groups/cpu.max": "350000 100000\n", "own": "0::/\n"})) == 3


def test_the_quota_of_a_service_and_those_around_it_count(tmp_path: Path) -> None:
    files = {
        "own": "0::/system.slice/poller.service\n",
        "groups/system.slice/cpu.max": "400000 100000\n",
        "groups/system.slice/poller.service/cpu.max": "max 100000\n",
    }
    assert processors(*_written(tmp_path, files)) == 4


def test_the_older_control_groups_have_quota_and_period_in_two_files(tmp_path: Path) -> None:
    files = {
        "own": "11:memory:/m\n4:cpu,cpuacct:/docker/a\n",
        "groups/cpu/docker/a/cpu.cfs_quota_us": "200000\n",
        "groups/cpu/docker/a/cpu.cfs_period_us": "100000\n",
        "groups/cpu/cpu.cfs_quota_us": "-1\n",
        "groups/cpu/cpu.cfs_period_us": "100000\n",
    }
    assert processors(*_written(tmp_path, files)) == 2


@pytest.mark.parametrize("text", ["", "0 0", "\0\xff", "1", "a b", "1 2 3", "0::/../../etc"])
def test_what_makes_no_sense_is_no_quota(text: str, tmp_path: Path) -> None:
    assert processors(*_written(tmp_path, {"own": text, "groups/cpu.max": text})) == 16
