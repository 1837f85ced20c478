"""Several releases in one namespace: what each has is its own, and two with one store are refused."""

from itertools import combinations

from deploy.checks.rendering import VALUES, Manifest, helm, of_kind, workload

FOLDER = VALUES[0].parent
EVERYTHING = (
    "--values",
    FOLDER / "keda.yaml",
    "--set",
    "dashboard.enabled=true,prometheusRule.enabled=true,podMonitor.enabled=true",
)
"""With every object that the chart can have."""


def release(name: str) -> list[Manifest]:
    """A release with everything, and a store of its own."""
    return helm(*EVERYTHING, "--set", f"store.dynamodb.table={name}-state", release=name, tested=True)


FLEETS = {name: release(name) for name in ("poller", "orders", "poller-orders", "invoices")}


def objects(found: list[Manifest]) -> set[tuple[str, str]]:
    """The names of objects, by kind."""
    return {(each["kind"], each["metadata"]["name"]) for each in found}


def labels(found: list[Manifest]) -> dict[str, str]:
    """The labels of the pods."""
    result: dict[str, str] = workload(found)["spec"]["template"]["metadata"]["labels"]
    return result


def selectors(found: list[Manifest]) -> list[dict[str, str]]:
    """How the objects of a release find the pods of daemons."""
    spread = workload(found)["spec"]["template"]["spec"]["topologySpreadConstraints"]
    result = [workload(found)["spec"]["selector"]["matchLabels"]]
    result += [each["labelSelector"]["matchLabels"] for each in spread]
    for each in found:
        spec = each.get("spec", {})
        if each["kind"] == "Service":
            result.append(spec["selector"])
        elif each["kind"] in {"PodDisruptionBudget", "PodMonitor"}:
            result.append(spec["selector"]["matchLabels"])
        elif each["kind"] == "NetworkPolicy" and not each["metadata"]["name"].endswith("-test-out"):
            result.append(spec["podSelector"]["matchLabels"])
    return result


def test_no_two_releases_have_an_object_of_one_name() -> None:
    kinds = {kind for kind, _ in objects(FLEETS["orders"])}
    assert kinds >= {
        "NetworkPolicy",
        "PodDisruptionBudget",
        "ScaledObject",
        "TriggerAuthentication",
        "ServiceAccount",
        "Pod",
    }
    for one, other in combinations(FLEETS.values(), 2):
        assert objects(one) & objects(other) == set()


def test_no_release_selects_pods_of_another_one_or_of_its_test() -> None:
    for name, found in FLEETS.items():
        chosen = selectors(found)
        assert len(chosen) >= 8
        for other, rendered in FLEETS.items():
            for selector in chosen:
                assert (selector.items() <= labels(rendered).items()) is (name == other)
                assert not selector.items() <= of_kind(rendered, "Pod")["metadata"]["labels"].items()


def test_a_scaler_asks_and_scales_its_own_release() -> None:
    for found in FLEETS.values():
        scaled, own = of_kind(found, "ScaledObject")["spec"], workload(found)["metadata"]["name"]
        assert scaled["scaleTargetRef"]["name"] == own
        assert scaled["triggers"][0]["metadata"]["url"] == f"http://{own}.poller.svc:8080/v1/scaling"
        references = {
            each["authenticationRef"]["name"] for each in scaled["triggers"] if "authenticationRef" in each
        }
        assert references <= {name for kind, name in objects(found) if kind == "TriggerAuthentication"}


def test_an_hpa_reads_the_metric_of_its_own_release() -> None:
    for name in ("orders", "invoices"):
        options = "autoscaling.hpa.enabled=true,podMonitor.enabled=true"
        found = helm("--set", options, release=name)
        (metric,) = of_kind(found, "HorizontalPodAutoscaler")["spec"]["metrics"]
        job = f"poller/{of_kind(found, 'PodMonitor')['metadata']['name']}"
        assert metric["external"]["metric"]["selector"] == {"matchLabels": {"job": job}}
    own = "autoscaling.hpa.enabled=true,podMonitor.enabled=true,autoscaling.hpa.matchLabels.fleet=a"
    (metric,) = of_kind(helm("--set", own), "HorizontalPodAutoscaler")["spec"]["metrics"]
    assert metric["external"]["metric"]["selector"] == {"matchLabels": {"fleet": "a"}}


def claims(name: str, *options: str) -> set[str]:
    """The names of what keeps a second release off the store."""
    words = [word for each in options for word in ("--set", each)]
    return {
        each["metadata"]["name"]
        for each in helm(*words, release=name)
        if each["kind"] == "ConfigMap" and each["metadata"]["name"].startswith("poller-store-")
    }


POSTGRESQL = "store.type=postgresql,store.postgresql.hosts={a.example.com,b.example.com}"


def test_two_releases_with_one_store_have_one_object_which_helm_refuses() -> None:
    assert claims("orders") == claims("invoices") != set()
    assert claims("orders", "store.dynamodb.create=true") == claims("invoices")
    turned = "store.type=postgresql,store.postgresql.hosts={b.example.com,a.example.com},store.postgresql.user=other"
    assert claims("orders", POSTGRESQL) == claims("invoices", turned) != claims("orders")


def test_releases_with_stores_of_their_own_have_no_object_in_common() -> None:
    different = (
        ("store.dynamodb.table=orders-state",),
        ("store.dynamodb.region=eu-west-1",),
        (POSTGRESQL,),
        (POSTGRESQL, "store.postgresql.schema=orders"),
        (POSTGRESQL, "store.postgresql.database=orders"),
    )
    found = [claims("orders", *options) for options in different]
    assert all(len(each) == 1 for each in found)
    assert len(set().union(*found)) == len(different)


def test_what_cannot_clash_or_shall_be_shared_claims_nothing() -> None:
    assert claims("orders", "store.type=sqlite") == set()
    assert claims("orders", "store.shared=true") == set()
    assert claims("orders", "existingConfigMap=mine", "graceSeconds=30") == set()


def test_volumes_of_releases_with_files_have_names_of_their_own() -> None:
    names = set()
    for name in ("orders", "invoices"):
        found = workload(helm("--set", "store.type=sqlite", release=name))
        (claim,) = found["spec"]["volumeClaimTemplates"]
        names.add(f"{claim['metadata']['name']}-{found['metadata']['name']}-0")
    assert names == {"state-orders-poller-0", "state-invoices-poller-0"}
