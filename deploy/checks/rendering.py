"""Owns how chart and overlays are rendered, with the tools of `make deploy-tools`."""

import subprocess
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[2]
TOOLS = ROOT / ".venv-deploy" / "bin"
CHART = ROOT / "deploy" / "helm" / "poller"
OVERLAYS = ROOT / "deploy" / "kubernetes" / "overlays"
VALUES = sorted((Path(__file__).parent / "values").glob("*.yaml"))
CALL_S_MAX = 60.0

type Manifest = dict[str, Any]


class Refused(Exception):
    """A tool's own words on why it would not."""


def run(*command: str | Path) -> str:
    """What a command prints; raises Refused with its complaint."""
    done = subprocess.run(command, capture_output=True, text=True, timeout=CALL_S_MAX, check=False)
    if done.returncode:
        raise Refused(done.stderr + done.stdout)
    return done.stdout


def helm(
    *options: str | Path, release: str = "poller", chart: Path = CHART, tested: bool = False
) -> list[Manifest]:
    """What the chart renders to as a release in namespace `poller`; `tested`: with what `helm test` runs."""
    skipped = () if tested else ("--skip-tests",)
    return manifests(
        run(TOOLS / "helm", "template", release, chart, "--namespace", "poller", *skipped, *options)
    )


def kustomize(folder: Path) -> list[Manifest]:
    """What an overlay renders to."""
    return manifests(run(TOOLS / "kubectl", "kustomize", folder))


def manifests(text: str) -> list[Manifest]:
    """The documents of a YAML stream."""
    return [each for each in yaml.safe_load_all(text) if each]


def of_kind(found: list[Manifest], kind: str) -> Manifest:
    """The only manifest of one kind."""
    (one,) = (each for each in found if each["kind"] == kind)
    return one


def workload(found: list[Manifest]) -> Manifest:
    """The Deployment or StatefulSet."""
    (one,) = (each for each in found if each["kind"] in {"Deployment", "StatefulSet"})
    return one


def configuration(found: list[Manifest]) -> Manifest:
    """The daemon's configuration file, in the ConfigMap that the chart writes."""
    (text,) = (each["data"]["poller.yaml"] for each in found if "poller.yaml" in each.get("data", {}))
    result: Manifest = yaml.safe_load(text)
    return result


def pod(found: list[Manifest]) -> Manifest:
    """The specification of the workload's pods."""
    spec: Manifest = workload(found)["spec"]["template"]["spec"]
    return spec


def container(found: list[Manifest]) -> Manifest:
    """The daemon's container."""
    (one,) = (each for each in pod(found)["containers"] if each["name"] == "poller")
    result: Manifest = one
    return result
