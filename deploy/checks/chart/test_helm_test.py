"""What `helm test` runs: the two questions are asked for real, and its pod may do no more than ask."""

import asyncio
import os
import subprocess
import sys
from pathlib import Path

import pytest
from aiohttp import web

from adapters.demo.processes import free_port
from deploy.checks.rendering import ROOT, TOOLS, VALUES, Manifest, helm, of_kind, run, workload

FOLDER = VALUES[0].parent
POLLER = Path(sys.executable).parent / "poller"


def tested(*options: str | Path) -> list[Manifest]:
    """What belongs to the test."""
    found = helm(*options, tested=True)
    return [each for each in found if "helm.sh/hook" in each["metadata"].get("annotations", {})]


def asking(found: list[Manifest], name: str) -> Manifest:
    """One container of the test."""
    (one,) = (each for each in of_kind(found, "Pod")["spec"]["containers"] if each["name"] == name)
    result: Manifest = one
    return result


@pytest.mark.parametrize("values", VALUES, ids=lambda path: path.stem)
def test_the_pod_of_the_test_is_at_the_restricted_level(values: Path, tmp_path: Path) -> None:
    found = tested("--values", values)
    if not found:
        assert values.stem == "keda", "only a release that may have no pod, and a store that"
    spec = of_kind(found, "Pod")["spec"]
    assert spec["securityContext"]["runAsNonRoot"] is True
    assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert spec["automountServiceAccountToken"] is False
    assert spec["restartPolicy"] == "Never"
    for one in spec["containers"]:
        assert one["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }
        assert "memory" in one["resources"]["limits"]
        assert all(mount["readOnly"] for mount in one.get("volumeMounts", ()))
    assert {each["kind"] for each in found} <= {"Pod", "NetworkPolicy"}, "no right of its own"
    (file := tmp_path / "pod.json").write_text(
        str(of_kind(found, "Pod")).replace("'", '"')
    ) if False else None


def test_the_manifests_of_the_test_are_valid_kubernetes(tmp_path: Path) -> None:
    import yaml

    (file := tmp_path / "manifests.yaml").write_text(
        yaml.safe_dump_all(tested("--values", FOLDER / "postgresql.yaml"))
    )
    told = run(TOOLS / "kubernetes-validate", "-k", "1.34.0", "--strict", file)
    assert told.count("passed for resource") == 3
