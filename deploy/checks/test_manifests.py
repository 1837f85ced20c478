"""Chart and overlays: valid for Kubernetes, at the restricted level, and in agreement with each other and the daemon."""

import json
import re
from pathlib import Path

import pytest
import yaml

from adapters.observers.metrics import Figures
from adapters.observers.prometheus import PrometheusObserver
from adapters.stores.postgresql.settings import PostgresSettings
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
    workload,
)
from deploy.tools import prometheus_rule
from poller.commands.run.command import WAIT_FOR_RESTART
from poller.config.loader import load
from poller.domain.telemetry.daemon_events import FleetSized
from poller.testing.telemetry_events import SetClock

VERSIONS = ("1.31.0", "1.34.0", "1.37.0")
CUSTOM = {"PodMonitor", "PrometheusRule", "ScaledObject", "TriggerAuthentication"}
"""Kinds of the Prometheus operator and of KEDA, whose schemas Kubernetes does not have."""
RENDERINGS = [*VALUES, OVERLAYS / "replicas", OVERLAYS / "single"]


@pytest.fixture(params=RENDERINGS, ids=lambda path: f"{path.parent.name}-{path.stem}")
def rendered(request: pytest.FixtureRequest) -> list[Manifest]:
    """Everything that one values file or overlay renders to."""
    path: Path = request.param
    return kustomize(path) if path.is_dir() else helm("--values", path)


@pytest.mark.parametrize("version", VERSIONS)
def test_manifests_are_valid_kubernetes(rendered: list[Manifest], version: str, tmp_path: Path) -> None:
    known = [each for each in rendered if each["kind"] not in CUSTOM]
    (file := tmp_path / "manifests.yaml").write_text(yaml.safe_dump_all(known))
    told = run(TOOLS / "kubernetes-validate", "-k", version, "--strict", file)
    assert told.count("passed for resource") == len(known)


def test_pods_are_at_the_restricted_level(rendered: list[Manifest]) -> None:
    spec, one = pod(rendered), container(rendered)
    assert spec["securityContext"]["runAsNonRoot"] is True
    assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert one["securityContext"]["allowPrivilegeEscalation"] is False
    assert one["securityContext"]["capabilities"] == {"drop": ["ALL"]}
    assert not {"hostNetwork", "hostPID", "hostIPC"} & spec.keys()
    allowed = {"name", "configMap", "emptyDir", "projected", "secret"}
    assert all(volume.keys() <= allowed for volume in spec["volumes"])


def test_pods_need_no_more_than_they_have(rendered: list[Manifest]) -> None:
    spec, one = pod(rendered), container(rendered)
    assert spec["securityContext"]["runAsUser"] == user_of_the_image()
    assert one["securityContext"]["readOnlyRootFilesystem"] is True
    assert spec["automountServiceAccountToken"] is False
    assert "memory" in one["resources"]["limits"]
    written = {mount["mountPath"] for mount in one["volumeMounts"] if not mount.get("readOnly")}
    state = {"/var/lib/poller"} if workload(rendered)["kind"] == "StatefulSet" else set()
    assert written == {"/tmp"} | state


def user_of_the_image() -> int:
    """The uid that the Dockerfile gives."""
    lines = (ROOT / "Dockerfile").read_text().splitlines()
    (user,) = (line.removeprefix("USER ") for line in lines if line.startswith("USER "))
    return int(user.split(":")[0])


def test_every_mount_has_its_volume(rendered: list[Manifest]) -> None:
    volumes = {volume["name"] for volume in pod(rendered)["volumes"]}
    claims = {each["metadata"]["name"] for each in workload(rendered)["spec"].get("volumeClaimTemplates", ())}
    assert {mount["name"] for mount in container(rendered)["volumeMounts"]} == volumes | claims


def test_probes_ask_what_the_daemon_serves(rendered: list[Manifest]) -> None:
    one = container(rendered)
    paths = {
        name: one[name]["httpGet"]["path"] for name in ("startupProbe", "livenessProbe", "readinessProbe")
    }
    assert paths == {"startupProbe": "/healthz", "livenessProbe": "/healthz", "readinessProbe": "/readyz"}
    assert {one[name]["httpGet"]["port"] for name in paths} == {port["name"] for port in one["ports"]}


def test_selectors_find_the_pods(rendered: list[Manifest]) -> None:
    labels = workload(rendered)["spec"]["template"]["metadata"]["labels"]
    selectors = [workload(rendered)["spec"]["selector"]["matchLabels"]]
    selectors += [each["labelSelector"]["matchLabels"] for each in pod(rendered)["topologySpreadConstraints"]]
    for each in rendered:
        if each["kind"] == "Service":
            selectors.append(each["spec"]["selector"])
        elif each["kind"] == "NetworkPolicy":
            selectors.append(each["spec"]["podSelector"]["matchLabels"])
        elif each["kind"] in {"PodDisruptionBudget", "PodMonitor"}:
            selectors.append(each["spec"]["selector"]["matchLabels"])
    assert all(selector and selector.items() <= labels.items() for selector in selectors)


def test_the_configuration_is_one_that_the_daemon_takes(rendered: list[Manifest], tmp_path: Path) -> None:
    configs = [each for each in rendered if "poller.yaml" in each.get("data", {})]
    volumes = {volume["name"]: volume for volume in pod(rendered)["volumes"]}
    name = volumes["config"]["configMap"]["name"]
    assert [each["metadata"]["name"] for each in configs] == ([] if name == "poller-config" else [name])
    for each in configs:
        text = each["data"]["poller.yaml"].replace("/etc/poller-api/", f"{tmp_path}/")
        for secret in ("access-keys.yaml", "tokens.yaml"):
            (tmp_path / secret).write_text("{}")
        (file := tmp_path / "poller.yaml").write_text(text)
        settings = load(file)
        assert settings.listen.endswith(f":{container(rendered)['ports'][0]['containerPort']}")
        assert pod(rendered)["terminationGracePeriodSeconds"] >= settings.tuning.grace_s + 15
        # With an autoscaler the number is not the chart's.
        one_replica = workload(rendered)["spec"].get("replicas", 2) == 1
        shared = ("dynamodb://", "postgresql://")
        assert settings.store.startswith("sqlite:///var/lib/poller/" if one_replica else shared)


def test_a_pod_monitor_scrapes_a_port_that_is_there() -> None:
    rendered = helm("--values", VALUES[0].parent / "replicas.yaml")
    monitor = of_kind(rendered, "PodMonitor")
    (endpoint,) = monitor["spec"]["podMetricsEndpoints"]
    assert endpoint == {"port": "http", "path": "/metrics", "interval": "30s"}
    assert monitor["metadata"]["labels"]["release"] == "prometheus"


def test_the_rules_of_chart_and_component_are_those_of_the_files() -> None:
    rendered = helm("--values", VALUES[0].parent / "replicas.yaml")
    chart, wanted = of_kind(rendered, "PrometheusRule")["spec"], prometheus_rule.document()["spec"]
    text = json.dumps(wanted).replace('"docs/operate/runbooks', '"https://docs.example/runbooks')
    assert chart == json.loads(text)
    assert prometheus_rule.TARGET.read_text() == prometheus_rule.text()


def test_every_runbook_is_there() -> None:
    alerts = [rule for group in prometheus_rule.document()["spec"]["groups"] for rule in group["rules"]]
    pages = {rule["annotations"]["runbook_url"] for rule in alerts if "alert" in rule}
    assert pages
    assert all((ROOT / page).is_file() for page in pages)


def test_the_dashboard_of_the_chart_is_the_file() -> None:
    rendered = helm("--values", VALUES[0].parent / "replicas.yaml")
    (found,) = (each for each in rendered if "poller.json" in each.get("data", {}))
    assert json.loads(found["data"]["poller.json"]) == json.loads(
        (ROOT / "deploy/grafana/poller.json").read_text()
    )
    assert found["metadata"]["labels"]["grafana_dashboard"] == "1"


def test_chart_and_overlays_agree_on_the_pod() -> None:
    overlay, chart = kustomize(OVERLAYS / "replicas"), helm()
    for name in ("securityContext", "terminationGracePeriodSeconds", "enableServiceLinks"):
        assert pod(overlay)[name] == pod(chart)[name]
    for name in ("args", "securityContext", "ports", "startupProbe", "livenessProbe", "readinessProbe"):
        assert container(overlay)[name] == container(chart)[name]
    assert container(overlay)["resources"] == container(chart)["resources"]
    assert workload(overlay)["spec"]["strategy"] == workload(chart)["spec"]["strategy"]
    network = [of_kind(found, "NetworkPolicy")["spec"] for found in (overlay, chart)]
    assert network[0]["egress"] == network[1]["egress"]


def test_the_monitoring_component_fits_an_overlay(tmp_path: Path) -> None:
    folder = ROOT / "deploy" / "kubernetes"
    relative = Path("..").joinpath(*[".."] * (len(tmp_path.parts) - 2), *folder.parts[1:])
    text = f"resources: [{relative}/overlays/replicas]\ncomponents: [{relative}/monitoring]\n"
    (tmp_path / "kustomization.yaml").write_text(text)
    kinds = {each["kind"] for each in kustomize(tmp_path)}
    assert kinds >= {"PodMonitor", "PrometheusRule", "Deployment"}


def checksum(*options: str) -> str | None:
    """What makes pods restart when it changes."""
    values = [word for each in options for word in ("--set", each)]
    annotations = workload(helm(*values))["spec"]["template"]["metadata"]["annotations"]
    found: str | None = annotations.get("checksum/config")
    return found


RESTARTS = {
    "region": "config.region=eu-west-1",
    "endpoint_url": "config.endpoint_url=http://127.0.0.1:1",
    "endpoint_urls": "config.endpoint_urls.sqs=http://127.0.0.1:1",
    "identities": "config.identities.billing.role_arn=arn:aws:iam::444455556666:role/poller",
    "listen": "port=9000",
    "store": "store.dynamodb.table=another",
    "api": "config.api.allow_unauthenticated=true",
    "log": "config.log.level=debug",
    "tracing": "config.tracing.enabled=true",
    "resources": "mappingResources.enabled=true",
}
"""A change of each setting that waits for a restart; `worker` is refused."""


def test_pods_restart_for_what_a_running_daemon_cannot_change() -> None:
    before = checksum()
    assert RESTARTS.keys() == set(WAIT_FOR_RESTART) - {"worker"}
    assert all(checksum(change) != before for change in RESTARTS.values())
    assert checksum("config.functions.orders.invoker=lambda") == before


def test_pods_restart_always_or_never_if_so_wanted() -> None:
    always, followed = "restartOnConfigChange=always", "config.functions.orders.invoker=lambda"
    assert checksum(always) != checksum(always, followed)
    assert checksum("restartOnConfigChange=never") is None


def test_one_replica_has_no_disruption_budget() -> None:
    kinds = {each["kind"] for each in helm("--set", "replicas=1")}
    assert "PodDisruptionBudget" not in kinds
    assert workload(helm("--set", "store.type=sqlite", "--set", "replicas=5"))["spec"]["replicas"] == 1


def test_an_autoscaler_owns_the_number_of_replicas() -> None:
    for name in ("keda.yaml", "hpa.yaml"):
        rendered = helm("--values", VALUES[0].parent / name)
        assert "replicas" not in workload(rendered)["spec"], "an upgrade would set it back"
        scaler = of_kind(rendered, "ScaledObject" if name == "keda.yaml" else "HorizontalPodAutoscaler")
        target = scaler["spec"]["scaleTargetRef"]
        found = workload(rendered)
        assert (target["kind"], target["name"]) == (found["kind"], found["metadata"]["name"])
        assert "PodDisruptionBudget" in {each["kind"] for each in rendered}
    assert workload(helm())["spec"]["replicas"] == 2


def test_keda_reads_the_service_with_the_token_that_may_look() -> None:
    rendered = helm("--values", VALUES[0].parent / "keda.yaml")
    scaled, service = of_kind(rendered, "ScaledObject")["spec"], of_kind(rendered, "Service")
    trigger, queue, cron = scaled["triggers"]
    (port,) = service["spec"]["ports"]
    place = f"{service['metadata']['name']}.{service['metadata']['namespace']}.svc:{port['port']}"
    assert trigger["metadata"]["url"] == f"http://{place}/v1/scaling"
    assert all(isinstance(value, str) for each in scaled["triggers"] for value in each["metadata"].values())
    by_name = {
        each["metadata"]["name"]: each["spec"] for each in rendered if each["kind"] == "TriggerAuthentication"
    }
    assert by_name[trigger["authenticationRef"]["name"]] == {
        "secretTargetRef": [{"parameter": "token", "name": "poller-api", "key": "view-token"}]
    }
    assert by_name[queue["authenticationRef"]["name"]] == {"podIdentity": {"provider": "aws"}}
    assert (scaled["minReplicaCount"], scaled["maxReplicaCount"], cron["type"]) == (0, 6, "cron")
    assert "fallback" not in scaled, (
        "it would start pods that nobody wants, since without pods nobody answers"
    )
    (rule,) = of_kind(rendered, "NetworkPolicy")["spec"]["ingress"]
    assert {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "autoscaling"}}} in rule[
        "from"
    ]


def examples() -> list[Manifest]:
    """What the page about autoscalers has in YAML."""
    page = (ROOT / "docs" / "operate" / "autoscaling.md").read_text()
    return [yaml.safe_load(text) for text in re.findall(r"```yaml\n(.*?)```", page, re.DOTALL)]


def test_the_examples_of_the_page_about_autoscalers_are_what_the_chart_makes(tmp_path: Path) -> None:
    values = [each for each in examples() if "config" in each]
    made: list[Manifest] = []
    for number, each in enumerate(values):
        (file := tmp_path / f"{number}.yaml").write_text(yaml.safe_dump(each))
        made += helm("--values", file)
    (written,) = (each for each in examples() if each.get("kind") == "ScaledObject")
    assert written["spec"] in [each["spec"] for each in made if each["kind"] == "ScaledObject"]
    (adapter,) = (each["rules"]["external"][0] for each in examples() if "rules" in each)
    (scaler,) = (each for each in made if each["kind"] == "HorizontalPodAutoscaler")
    (metric,) = scaler["spec"]["metrics"]
    assert adapter["name"]["as"] == metric["external"]["metric"]["name"]
    assert adapter["seriesQuery"].startswith(adapter["name"]["as"] + "{")


def test_a_stream_goes_down_to_nothing_only_with_what_starts_it_again() -> None:
    """KEDA does not know the position of a mapping, but a cron does not need it."""
    options = (
        "autoscaling.keda.enabled=true,config.api.reads=open,autoscaling.minReplicas=0",
        "autoscaling.keda.triggers[0].type=cron,autoscaling.keda.triggers[0].metadata.start=0 7 * * *",
        "config.mappings[0].FunctionName=f",
        "config.mappings[0].EventSourceArn=arn:aws:dynamodb:eu-west-1:111122223333:table/t/stream/s",
    )
    rendered = helm("--set", ",".join(options))
    assert of_kind(rendered, "ScaledObject")["spec"]["minReplicaCount"] == 0


def test_keda_needs_no_token_where_everybody_may_look() -> None:
    rendered = helm("--set", "autoscaling.keda.enabled=true,config.api.reads=open")
    (trigger,) = of_kind(rendered, "ScaledObject")["spec"]["triggers"]
    assert "authMode" not in trigger["metadata"]
    assert "authenticationRef" not in trigger
    assert "TriggerAuthentication" not in {each["kind"] for each in rendered}


def test_the_hpa_reads_a_metric_that_the_daemon_has() -> None:
    (metric,) = of_kind(helm("--values", VALUES[0].parent / "hpa.yaml"), "HorizontalPodAutoscaler")["spec"][
        "metrics"
    ]
    figures = Figures(SetClock())
    observer = PrometheusObserver(figures, SetClock())
    observer.on(FleetSized(wanted=3, workers=2, reason="a shard is behind"))
    page, _ = observer.exposition()
    assert f"\n{metric['external']['metric']['name']} 3.0\n" in page.decode()


def test_pods_that_an_autoscaler_ends_have_time_to_drain() -> None:
    for name in ("keda.yaml", "hpa.yaml"):
        found = pod(helm("--values", VALUES[0].parent / name))
        assert found["terminationGracePeriodSeconds"] >= 30 + 15


def postgresql(**values: str) -> PostgresSettings:
    """The store of the chart with these values of `store.postgresql`."""
    given = {"hosts[0]": "db.example.com"} | values
    words = [word for name, value in given.items() for word in ("--set", f"store.postgresql.{name}={value}")]
    config = configuration(helm("--set", "store.type=postgresql", *words))
    return PostgresSettings.model_validate({"url": config["store"]})


def test_the_values_of_a_postgresql_store_are_its_settings() -> None:
    plain = postgresql()
    assert str(plain.place) == "database poller at db.example.com:5432"
    assert (plain.sslmode, plain.sslrootcert, plain.password_file) == ("verify-full", "system", None)
    assert (plain.place.user, plain.table_schema, plain.create, plain.connections_max) == (
        "poller",
        "poller",
        False,
        8,
    )
    full = postgresql(
        existingSecret="db",
        passwordKey="password",
        caKey="ca.crt",
        schema="a",
        create="true",
        connections="4",
    )
    assert (full.sslrootcert, full.password_file) == (
        "/etc/poller-store/ca.crt",
        "/etc/poller-store/password",
    )
    assert (full.table_schema, full.create, full.connections_max) == ("a", True, 4)
    tokens = postgresql(iam="true", region="eu-west-1")
    assert (tokens.iam, tokens.region, tokens.password_file) == (True, "eu-west-1", None)


def test_pods_with_a_postgresql_store_have_its_secret_and_reach_its_ports() -> None:
    rendered = helm("--values", VALUES[0].parent / "postgresql.yaml")
    (mount,) = (each for each in container(rendered)["volumeMounts"] if each["name"] == "store")
    assert mount == {"name": "store", "mountPath": "/etc/poller-store", "readOnly": True}
    (volume,) = (each for each in pod(rendered)["volumes"] if each["name"] == "store")
    assert volume["secret"] == {"secretName": "poller-database", "defaultMode": 0o440}
    rules = of_kind(rendered, "NetworkPolicy")["spec"]["egress"]
    (rule,) = (each for each in rules if {"port": 5432, "protocol": "TCP"} in each["ports"])
    assert rule == {
        "ports": [{"port": 5432, "protocol": "TCP"}, {"port": 6432, "protocol": "TCP"}],
        "to": [{"ipBlock": {"cidr": "10.0.0.0/16"}}],
    }
    assert "store" not in {each["name"] for each in pod(helm())["volumes"]}


def token_of(rendered: list[Manifest]) -> list[Manifest]:
    """Where the variable POLLER_TOKEN comes from."""
    return [
        each["valueFrom"] for each in container(rendered).get("env", ()) if each["name"] == "POLLER_TOKEN"
    ]


def test_poller_status_in_a_pod_has_the_token_that_the_values_name() -> None:
    (found,) = token_of(helm("--values", VALUES[0].parent / "replicas.yaml"))
    assert found == {"secretKeyRef": {"name": "poller-api", "key": "view-token"}}
    assert token_of(helm()) == []
    (overlay,) = token_of(kustomize(OVERLAYS / "replicas"))
    assert overlay == {"secretKeyRef": {"name": "poller-api", "key": "view-token", "optional": True}}


def test_a_role_is_an_annotation_of_the_service_account() -> None:
    account = of_kind(helm("--values", VALUES[0].parent / "replicas.yaml"), "ServiceAccount")
    assert account["metadata"]["annotations"] == {
        "eks.amazonaws.com/role-arn": "arn:aws:iam::111122223333:role/poller",
        "eks.amazonaws.com/sts-regional-endpoints": "true",
        "eks.amazonaws.com/token-expiration": "3600",
        "example.com/team": "orders",
    }


REFUSALS = {
    "replicaz=3": "additional properties 'replicaz' not allowed",
    "replicas=many": "at '/replicas': got string, want integer",
    "store.type=postgres": "at '/store/type': value must be one of 'dynamodb', 'postgresql', 'sqlite'",
    "store.type=postgresql": "store.postgresql.hosts: name a server at least",
    "store.postgresql.hosts[0]=http://db": "at '/store/postgresql/hosts/0'",
    "store.postgresql.user=me@home": "at '/store/postgresql/user'",
    "store.postgresql.passwordKey=password": "name the Secret that has them: store.postgresql.existingSecret",
    "store.postgresql.existingSecret=db": "say which of its keys is which: store.postgresql.passwordKey",
    "store.postgresql.iam=true,store.postgresql.existingSecret=db,store.postgresql.passwordKey=p": "keep one",
    "store.postgresql.iam=true,store.postgresql.sslmode=prefer": "its token goes over TLS alone",
    "store.postgresql.sslmode=verify-ca": "verify-ca needs store.postgresql.caKey",
    "port=80": "at '/port': minimum: got 80, want 1,024",
    "store.dynamodb.table=arn:aws:dynamodb:::table/x": "at '/store/dynamodb/table'",
    "config.tuning.grace_s=0": "at '/config/tuning/grace_s'",
    "config.mappings[0].FunctionName=orders": "missing property 'EventSourceArn'",
    "resources.limits=null": "at '/resources'",
    "config.listen=127.0.0.1:1": "config.listen: the chart writes it; set bindAddress and port instead",
    "config.store=memory://": "config.store: the chart writes it; set store.type",
    "config.worker=a": "config.worker: all replicas would have one name",
    "existingConfigMap=mine": "graceSeconds: write the tuning.grace_s of existingConfigMap",
    "graceSeconds=3": "graceSeconds: only for existingConfigMap; set config.tuning.grace_s instead",
    "existingConfigMap=mine,config.functions.a.invoker=lambda": "remove one of the two",
    "api.existingSecret=keys": "api.existingSecret: say which of its keys is which file",
    "api.viewTokenKey=view-token": "name the Secret that has them: api.existingSecret",
    "api.tokensKey=tokens.yaml": "name the Secret that has them: api.existingSecret",
    "aws.credentialsSecret=a,serviceAccount.roleArn=arn:aws:iam::111122223333:role/b": "keys would win over the role",
    "autoscaling.keda.enabled=true": "autoscaling.keda: KEDA must read /v1/scaling; name a token",
    "autoscaling.keda.enabled=true,autoscaling.hpa.enabled=true": "enable keda or hpa, and not both",
    "autoscaling.hpa.enabled=true,store.type=sqlite": "autoscaling: store.type is sqlite, which has one replica",
    "autoscaling.hpa.enabled=true,autoscaling.minReplicas=11": "it is greater than autoscaling.maxReplicas",
    "autoscaling.hpa.enabled=true,autoscaling.minReplicas=0": "without a replica nobody recommends one",
    (
        "autoscaling.keda.enabled=true,config.api.reads=open,autoscaling.minReplicas=0,"
        "autoscaling.keda.queues[0].url=https://sqs.example/1/q,autoscaling.keda.queues[0].region=eu-west-1,"
        "config.mappings[0].FunctionName=f,"
        "config.mappings[0].EventSourceArn=arn:aws:kinesis:eu-west-1:111122223333:stream/orders"
    ): "nobody notices records of arn:aws:kinesis:eu-west-1:111122223333:stream/orders",
    "autoscaling.keda.queues[0].url=orders": "at '/autoscaling/keda/queues/0'",
    "serviceAccount.create=false,serviceAccount.roleArn=arn:aws:iam::111122223333:role/b": "annotate it yourself",
}


@pytest.mark.parametrize(("wrong", "told"), REFUSALS.items())
def test_wrong_values_are_refused_with_the_field_and_the_remedy(wrong: str, told: str) -> None:
    with pytest.raises(Refused) as caught:
        helm("--set", wrong)
    assert told in str(caught.value)


def test_the_schema_knows_every_value_and_no_other() -> None:
    schema = json.loads((CHART / "values.schema.json").read_text())
    values = yaml.safe_load((CHART / "values.yaml").read_text())
    assert values.keys() == schema["properties"].keys() - {"global"}


def test_the_chart_has_no_lint() -> None:
    assert "0 chart(s) failed" in run(TOOLS / "helm", "lint", "--strict", CHART)
