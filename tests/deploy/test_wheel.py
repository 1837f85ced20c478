"""What the wheel that is built from this tree carries."""

import subprocess
import sys
import zipfile
from pathlib import Path

from adapters.control.live.page_files import FOLDER

ROOT = Path(__file__).parents[2]


def test_the_wheel_carries_the_licence_and_both_packages(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)]
    subprocess.run(command, cwd=ROOT, capture_output=True, check=True, timeout=60)
    (wheel,) = tmp_path.iterdir()
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        info = next(name.partition("/")[0] for name in names if ".dist-info/" in name)
        assert archive.read(f"{info}/licenses/LICENSE") == (ROOT / "LICENSE").read_bytes()
        assert b"License-Expression: Apache-2.0" in archive.read(f"{info}/METADATA")
    assert {"poller/cli.py", "adapters/aws/clients.py"} <= names
    page = {str(file.relative_to(ROOT)) for file in FOLDER.rglob("*") if file.is_file()}
    assert "adapters/control/page/index.html" in page
    assert page <= names
