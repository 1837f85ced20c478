"""The systemd unit: systemd itself accepts it, and finds little that it leaves open."""

import shutil
import subprocess
from pathlib import Path

import pytest

UNIT = Path(__file__).parents[1] / "systemd/poller.service"
EXPOSURE_MAX = 20
"""In tenths, as `systemd-analyze security` counts: 0 to 100."""


@pytest.fixture
def unit(tmp_path: Path) -> Path:
    """The unit with a program and a folder that are there on every machine."""
    text = UNIT.read_text()
    for installed, here in {"/opt/poller/bin/poller": "/bin/true", "/srv/poller": "/tmp"}.items():
        assert installed in text
        text = text.replace(installed, here)
    (file := tmp_path / UNIT.name).write_text(text)
    return file


def analysed(*words: str) -> str:
    program = shutil.which("systemd-analyze")
    assert program, "systemd-analyze is missing: install systemd (Debian: apt-get install systemd)"
    done = subprocess.run(
        [program, "--no-pager", *words], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def test_systemd_accepts_the_unit(unit: Path) -> None:
    # It warns of a setting that it does not know, and ends with 0 nevertheless.
    assert analysed("verify", str(unit)) == ""


def test_a_setting_that_systemd_does_not_know_is_seen(unit: Path) -> None:
    unit.write_text(unit.read_text().replace("OOMPolicy=continue", "OOMPolicy=later\nProtectHom=yes"))
    said = analysed("verify", str(unit))
    assert "ProtectHom" in said
    assert "OOMPolicy" in said or "OOM policy" in said


def test_the_unit_leaves_little_open(unit: Path) -> None:
    analysed("security", "--offline=yes", f"--threshold={EXPOSURE_MAX}", str(unit))
