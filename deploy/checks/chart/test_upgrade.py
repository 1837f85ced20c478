"""An upgrade from the last chart changes nothing that is immutable, and restarts pods only for what they need."""

import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml

from deploy.checks.rendering import CHART, Manifest, helm, workload

KEPT = sorted((Path(__file__).parent / "last").glob("*.yaml"))
MUTABLE = {
    "Deployment": {"replicas", "strategy", "minReadySeconds", "template", "revisionHistoryLimit"},
    "StatefulSet": {"replicas", "updateStrategy", "minReadySeconds", "template", "ordinals"},
}
"""What of a workload's specification Kubernetes lets anybody change; it refuses changes of the rest."""


def kept(path: Path) -> tuple[dict[str, Any], list[Manifest]]:
    """Values, and what the last chart made of them."""
    found = yaml.safe_load(path.read_text())
    return found["values"], found["rendered"]


def rendered(values: dict[str, Any], folder: Path, chart: Path = CHART) -> list[Manifest]:
    """What a chart makes of values."""
    (file := folder / "values.yaml").write_text(yaml.safe_dump(values))
    return helm("--values", file, chart=chart)


def names(found: list[Manifest]) -> set[tuple[str, str]]:
    """What objects there are."""
    return {(each["kind"], each["metadata"]["name"]) for each in found}


def selecting(found: list[Manifest]) -> dict[str, Any]:
    """How objects find pods, by kind."""
    return {
        each["kind"]: each["spec"].get("selector", each["spec"].get("podSelector"))
        for each in found
        if each["kind"] in {"Service", "NetworkPolicy", "PodDisruptionBudget", "PodMonitor"}
    }


@pytest.mark.parametrize("path", KEPT, ids=lambda path: path.stem)
def test_an_upgrade_from_the_last_chart_replaces_no_pod(path: Path, tmp_path: Path) -> None:
    values, last = kept(path)
    new = rendered(values, tmp_path)
    before, after = workload(last), workload(new)
    assert (before["kind"], before["metadata"]["name"]) == (after["kind"], after["metadata"]["name"])
    assert after["spec"]["template"] == before["spec"]["template"]
    mutable = MUTABLE[before["kind"]]
    fixed = [
        {name: spec for name, spec in each["spec"].items() if name not in mutable} for each in (before, after)
    ]
    assert fixed[0]["selector"], "there is something to compare"
    assert fixed[0] == fixed[1]
    assert selecting(last) == selecting(new)
    assert names(last) <= names(new), "nothing is removed, or made again under another name"


def test_values_of_every_workload_and_a_digest_are_kept() -> None:
    found = [kept(path) for path in KEPT]
    assert {workload(last)["kind"] for _, last in found} == {"Deployment", "StatefulSet"}
    assert any("@sha256:" in str(workload(last)) for _, last in found)
    assert {} in [values for values, _ in found]


def test_a_new_version_of_the_chart_alone_replaces_no_pod(tmp_path: Path) -> None:
    copied = tmp_path / "poller"
    shutil.copytree(CHART, copied)
    about = yaml.safe_load((copied / "Chart.yaml").read_text())
    (copied / "Chart.yaml").write_text(yaml.safe_dump({**about, "version": "9.9.9", "appVersion": "9.9.9"}))
    pinned = {"image": {"tag": "0.1.0"}}
    old, new = rendered(pinned, tmp_path), rendered(pinned, tmp_path, chart=copied)
    assert workload(old)["metadata"]["labels"] != workload(new)["metadata"]["labels"]
    assert workload(old)["spec"]["template"] == workload(new)["spec"]["template"]
    images = {
        str(workload(each)["spec"]["template"]).count("poller:9.9.9")
        for each in (new, rendered({}, tmp_path, copied))
    }
    assert images == {0, 1}, "without a tag the chart's appVersion is the image's"


QUIET = (
    "replicas=5,rollout.maxSurge=3,rollout.minReadySeconds=30,podDisruptionBudget.maxUnavailable=2",
    "networkPolicy.awsTo[0].ipBlock.cidr=10.0.0.0/8,networkPolicy.podIdentityAgent=false,test.enabled=false",
    "podMonitor.enabled=true,prometheusRule.enabled=true,dashboard.enabled=true,service.annotations.a=b",
    "config.functions.a.invoker=lambda,config.functions.a.max_concurrency=9,store.shared=true",
    "autoscaling.hpa.enabled=true,autoscaling.maxReplicas=4,serviceAccount.annotations.a=b",
)
"""Changes that running pods follow, or that are not theirs."""
RESTARTING = (
    "image.tag=v2",
    "resources.limits.memory=1Gi",
    "env[0].name=A",
    "config.tuning.grace_s=90",
    "sidecarFunctions.a.image=a",
    "aws.ca.existingSecret=ca",
    "priorityClassName=high",
)
"""Changes that only a new pod has."""


def template(*options: str) -> Manifest:
    """The pod template of the default values with some others."""
    found: Manifest = workload(helm(*(word for each in options for word in ("--set", each))))["spec"][
        "template"
    ]
    return found


def test_pods_are_replaced_for_what_only_new_ones_can_have() -> None:
    before = template()
    assert template(*QUIET) == before
    for change in RESTARTING:
        assert template(change) != before, change


def test_pods_are_replaced_as_fast_as_the_values_say_and_one_by_one_without() -> None:
    plain = workload(helm())["spec"]
    assert plain["strategy"]["rollingUpdate"] == {"maxSurge": 1, "maxUnavailable": 0}
    assert "minReadySeconds" not in plain
    paced = workload(
        helm("--set", "rollout.maxSurge=25%,rollout.maxUnavailable=10%,rollout.minReadySeconds=20")
    )["spec"]
    assert paced["strategy"]["rollingUpdate"] == {"maxSurge": "25%", "maxUnavailable": "10%"}
    assert paced["minReadySeconds"] == 20
