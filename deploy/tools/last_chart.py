"""Owns what is kept of the last chart: what it made of some values, so that a test can upgrade from it.

After a release, `make last-chart REVISION=TAG` renders the chart of that revision anew for the values that are kept.
"""

import io
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[2]
KEPT = ROOT / "deploy" / "checks" / "chart" / "last"
PARTS = ("deploy/helm", "deploy/prometheus", "deploy/grafana")
"""The chart, and the files that it links to."""
LEFT_OUT = {"PrometheusRule"}
"""Kinds that are kept by their name alone: they are long, and nothing about them is immutable."""
HEAD = "# Made by `make last-chart`: values, and what the last chart made of them.\n"


def rendered(chart: Path, values: dict[str, Any]) -> list[dict[str, Any]]:
    """What a chart makes of values, without contents that are long."""
    with tempfile.NamedTemporaryFile("w", suffix=".yaml") as file:
        yaml.safe_dump(values, file)
        file.flush()
        helm = ROOT / ".venv-deploy" / "bin" / "helm"
        command = [str(helm), "template", "poller", str(chart), "--namespace", "poller", "--skip-tests"]
        done = subprocess.run(
            [*command, "--values", file.name], capture_output=True, text=True, check=True, timeout=60
        )
    found = [each for each in yaml.safe_load_all(done.stdout) if each]
    for each in found:
        if each["kind"] in LEFT_OUT:
            del each["spec"]
        if "poller.json" in each.get("data", {}):
            del each["data"]
    return found


def keep(revision: str) -> None:
    """Renders the chart of a revision for the values of each file that is kept."""
    packed = subprocess.run(
        ["git", "archive", revision, *PARTS], cwd=ROOT, capture_output=True, check=True, timeout=60
    ).stdout
    with tempfile.TemporaryDirectory() as folder:
        with tarfile.open(fileobj=io.BytesIO(packed)) as archive:
            archive.extractall(folder, filter="data")
        chart = Path(folder, "deploy", "helm", "poller")
        for path in sorted(KEPT.glob("*.yaml")):
            values = yaml.safe_load(path.read_text(encoding="utf-8"))["values"]
            document = {"values": values, "rendered": rendered(chart, values)}
            path.write_text(
                HEAD + yaml.safe_dump(document, sort_keys=False, width=110, allow_unicode=True),
                encoding="utf-8",
            )


if __name__ == "__main__":
    keep(sys.argv[1])
