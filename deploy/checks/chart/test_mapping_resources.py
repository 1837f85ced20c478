"""Mappings as custom resources: the daemon gets what following them takes, and nothing else gets it."""

from pathlib import Path

import pytest
import yaml

from deploy.checks.rendering import (
    CHART,
    OVERLAYS,
    ROOT,
    TOOLS,
    VALUES,
    Manifest,
    Refused,
    configuration,
    container,
    helm,
    kustomize,
    of_kind,
    pod,
    run,
)

FOLDER = VALUES[0].parent
ELSEWHERE = ("--values", FOLDER / "mapping-resources.yaml")
ON = ("--set", "mappingResources.enabled=true")
TOKEN = "/var/run/secrets/kubernetes.io/serviceaccount"


def overlay(folder: Path, name: str) -> list[Manifest]:
    """What an overlay renders to with the component."""
    kubernetes = ROOT / "deploy" / "kubernetes"
    relative = Path("..").joinpath(*[".."] * (len(folder.parts) - 2), *kubernetes.parts[1:])
    text = f"resources: [{relative}/overlays/{name}]\ncomponents: [{relative}/custom-resources]\n"
    (folder / "kustomization.yaml").write_text(f"namespace: poller\n{text}")
    return kustomize(folder)


def rules(found: list[Manifest]) -> set[tuple[str, str, str, str]]:
    """Each right of the role: group, resource, name of the object, verb."""
    return {
        (group, resource, name, verb)
        for rule in of_kind(found, "Role")["rules"]
        for group in rule["apiGroups"]
        for resource in rule["resources"]
        for name in rule.get("resourceNames", [""])
        for verb in rule["verbs"]
    }


def rights(namespace: str) -> set[tuple[str, str, str, str]]:
    """What following the resources of a namespace takes."""
    reads = {("poller.dev", "eventsourcemappings", "", verb) for verb in ("get", "list", "watch")}
    return reads | {
        ("poller.dev", "eventsourcemappings/status", "", "patch"),
        ("events.k8s.io", "events", "", "create"),
        ("", "namespaces", namespace, "get"),
    }


def test_the_daemon_may_do_what_following_takes_and_nothing_else(tmp_path: Path) -> None:
    assert rules(helm(*ON)) == rights("poller")
    assert rules(helm(*ELSEWHERE)) == rights("pipelines")
    assert rules(overlay(tmp_path, "replicas")) == rights("poller")


def test_a_role_is_in_the_namespace_that_is_followed_and_bound_to_the_daemon() -> None:
    for options, namespace, name in ((ON, "poller", "poller"), (ELSEWHERE, "pipelines", "poller-poller")):
        found = helm(*options)
        role, binding = of_kind(found, "Role"), of_kind(found, "RoleBinding")
        assert (role["metadata"]["namespace"], role["metadata"]["name"]) == (namespace, name)
        assert (binding["metadata"]["namespace"], binding["roleRef"]["name"]) == (namespace, name)
        account = of_kind(found, "ServiceAccount")["metadata"]
        (subject,) = binding["subjects"]
        assert (subject["name"], subject["namespace"]) == (account["name"], account["namespace"])


def test_the_daemon_alone_gets_a_token(tmp_path: Path) -> None:
    beside = helm("--values", FOLDER / "sidecars.yaml", *ON)
    overlays = []
    for name in ("replicas", "single"):
        (folder := tmp_path / name).mkdir()
        overlays.append(overlay(folder, name))
    for found in (beside, *overlays):
        spec = pod(found)
        assert spec["automountServiceAccountToken"] is False
        (mount,) = (each for each in container(found)["volumeMounts"] if each["mountPath"] == TOKEN)
        (volume,) = (each for each in spec["volumes"] if each["name"] == mount["name"])
        paths = [
            path
            for source in volume["projected"]["sources"]
            for each in source.values()
            for path in ([each["path"]] if "path" in each else [one["path"] for one in each["items"]])
        ]
        assert sorted(paths) == ["ca.crt", "namespace", "token"]
        others = [*spec.get("initContainers", ()), *spec["containers"]]
        others = [each for each in others if each["name"] != "poller"]
        assert not any(TOKEN in str(each) or mount["name"] in str(each) for each in others)
    assert any(pod(beside).get(kind) for kind in ("initContainers",)), "there are containers that get none"


def test_the_configuration_says_what_is_followed() -> None:
    assert configuration(helm(*ELSEWHERE))["resources"] == {
        "enabled": True,
        "namespace": "pipelines",
        "selector": "team=blue",
    }
    kept = helm(*ON, "--set", "config.resources.forget_namespace=6ba7b810")
    assert configuration(kept)["resources"] == {
        "enabled": True,
        "namespace": "poller",
        "forget_namespace": "6ba7b810",
    }
    assert "resources" not in configuration(helm())


def test_pods_reach_the_api_server() -> None:
    (rule,) = (
        each
        for each in of_kind(helm(*ELSEWHERE), "NetworkPolicy")["spec"]["egress"]
        if {"port": 6443, "protocol": "TCP"} in each.get("ports", [])
    )
    assert rule["to"] == [{"ipBlock": {"cidr": "10.0.0.1/32"}}]
    ports = [each.get("ports") for each in of_kind(helm(), "NetworkPolicy")["spec"]["egress"]]
    assert not any({"port": 6443, "protocol": "TCP"} in each for each in ports)


def test_without_it_nothing_of_it_is_there() -> None:
    found = helm()
    assert not {"Role", "RoleBinding"} & {each["kind"] for each in found}
    assert "kube-api" not in str(found)


def test_settings_that_the_chart_writes_are_refused_with_what_to_set_instead() -> None:
    with pytest.raises(Refused, match=r"set mappingResources\.enabled instead"):
        helm("--set", "config.resources.enabled=true")
    with pytest.raises(Refused, match=r"set mappingResources\.selector instead"):
        helm(*ON, "--set", "config.resources.selector=a=b")
    own = helm("--set", "config.resources.enabled=true,config.resources.kubeconfig=/etc/cluster/kubeconfig")
    assert configuration(own)["resources"]["kubeconfig"] == "/etc/cluster/kubeconfig"


def test_the_definition_comes_with_the_chart_and_by_kustomize() -> None:
    with_it = run(TOOLS / "helm", "template", "poller", CHART, "--include-crds")
    (helms,) = (each for each in yaml.safe_load_all(with_it) if each["kind"] == "CustomResourceDefinition")
    (own,) = kustomize(OVERLAYS.parent / "definition")
    assert helms == own
