"""Owns how the overlay for several replicas gets into the cluster, in the steps that docs/operate/kubernetes.md gives to a user."""

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from adapters.demo.emulator import credentials
from deploy.checks.rendering import ROOT, TOOLS, run
from deploy.cluster.control import Cluster

NAMESPACE = "poller"
OLD = Path(__file__).parent / "kubernetes-1.20"
ROLLOUT_S_MAX = 120.0


def adapted(overlay: str, folder: Path, *, configuration: Mapping[str, Any] | None = None) -> str:
    """A copy of an overlay with a configuration of its own, rendered for a Kubernetes this old."""
    shutil.copytree(ROOT / "deploy" / "kubernetes", folder)
    shutil.copytree(OLD, folder / OLD.name)
    own = folder / "overlays" / overlay
    file = own / "kustomization.yaml"
    document = yaml.safe_load(file.read_text()) | {"components": [f"../../{OLD.name}"]}
    file.write_text(yaml.safe_dump(document))
    if configuration is not None:
        (own / "poller.yaml").write_text(yaml.safe_dump(dict(configuration), sort_keys=False))
    return run(TOOLS / "kubectl", "kustomize", own)


def install(cluster: Cluster, manifests: str) -> None:
    """Namespace, the Secret with static keys, then all of it; returns when the Deployment is ready."""
    cluster.kubectl("create", "namespace", NAMESPACE)
    own = credentials()
    keys = [f"--from-literal={name}={own[name]}" for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")]
    inside(cluster, "create", "secret", "generic", "poller-aws", *keys)
    # What `kubectl create` made has no note of what was applied; kubectl says so, and adds it.
    cluster.kubectl("apply", "--filename=-", given=manifests)
    rolled_out(cluster)


def rolled_out(cluster: Cluster) -> None:
    """Returns when all replicas are new and ready."""
    limit = f"--timeout={ROLLOUT_S_MAX:g}s"
    inside(cluster, "rollout", "status", "deployment/poller", limit)


def inside(cluster: Cluster, *words: str, given: str | None = None) -> str:
    """A kubectl command in poller's namespace."""
    return cluster.kubectl("--namespace", NAMESPACE, *words, given=given)


def pods(cluster: Cluster) -> list[dict[str, Any]]:
    """Poller's pods that are not on their way out."""
    found = cluster.get("pods", "--namespace", NAMESPACE)["items"]
    return [each for each in found if "deletionTimestamp" not in each["metadata"]]
