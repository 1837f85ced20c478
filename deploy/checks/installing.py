"""Owns environments that the checks install the wheel into, and what programs in them are started with."""

import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

ROOT = Path(__file__).parents[2]
INSTALL_S_MAX = 300.0
CALL_S_MAX = 120.0


def wheel() -> Path:
    """The wheel that `make wheel` has built."""
    (found,) = (ROOT / "dist").glob("*.whl")
    return found


def make_environment(folder: Path, *requirements: str) -> Path:
    """Makes an environment with these packages, in the locked versions, and returns the folder of its programs."""
    _uv("venv", "--python", sys.executable, str(folder))
    install(folder / "bin", *requirements)
    return folder / "bin"


def install(programs: Path, *requirements: str, target: Path | None = None) -> None:
    """Installs packages into an environment, or into a folder for its interpreter."""
    where = ["--target", str(target)] if target else []
    locked = ["--constraints", str(ROOT / "requirements/dev.lock")]
    _uv(
        "pip",
        "install",
        "--compile-bytecode",
        "--python",
        str(programs / "python"),
        *where,
        *locked,
        *requirements,
    )


def _uv(*words: str) -> None:
    command = [str(ROOT / ".venv/bin/uv"), "--quiet", *words]
    done = subprocess.run(
        command, cwd="/", capture_output=True, text=True, timeout=INSTALL_S_MAX, check=False
    )
    assert done.returncode == 0, done.stderr


def variables(programs: Path, home: Path) -> dict[str, str]:
    """The variables of a user who has this environment and nothing of ours."""
    return {
        "PATH": f"{programs}:/usr/local/bin:/usr/bin:/bin",
        "HOME": str(home),
        "LANG": "C.UTF-8",
        "COLUMNS": "100",
        "TERM": "xterm",
        "TMPDIR": os.environ.get("TMPDIR", "/tmp"),
    }


def call(
    words: Sequence[str], env: Mapping[str, str], folder: Path, *, time_s: float = CALL_S_MAX
) -> subprocess.CompletedProcess[str]:
    """Calls `poller` in a folder."""
    return subprocess.run(
        ["poller", *words],
        env=dict(env),
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=time_s,
        check=False,
        stdin=subprocess.DEVNULL,
    )
