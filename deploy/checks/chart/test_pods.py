"""Functions and containers beside the daemon, where pods run, and what they may reach."""

import asyncio
from pathlib import Path
from typing import Any

import pytest
import yaml
from aiohttp import web

from adapters.invokers.http import open_http, plugin
from adapters.stores.postgresql.settings import PostgresSettings
from deploy.checks.rendering import VALUES, Manifest, configuration, container, helm, of_kind, pod, workload
from poller.domain.invocations import Outcome, Succeeded
from poller.plugins import validated
from poller.testing.invoker import invocation
from tests.contracts.invokers import environment

FOLDER = VALUES[0].parent


@pytest.fixture(scope="module")
def beside() -> list[Manifest]:
    """What the chart makes of functions and containers beside the daemon."""
    return helm("--values", FOLDER / "sidecars.yaml")


def named(found: list[Manifest], kind: str, name: str) -> Manifest:
    """One container, mount or volume of the pods."""
    places: dict[str, list[Manifest]] = {
        "init": pod(found)["initContainers"] if kind == "init" else [],
        "mount": container(found)["volumeMounts"],
        "volumes": pod(found)["volumes"],
    }
    (one,) = (each for each in places[kind] if each["name"] == name)
    result: Manifest = one
    return result


def test_a_function_beside_the_daemon_begins_before_it_and_ends_after_it(beside: list[Manifest]) -> None:
    names = [each["name"] for each in pod(beside)["initContainers"]]
    assert names == ["migrate", "function-invoices", "function-orders"]
    assert "restartPolicy" not in named(beside, "init", "migrate")
    for name in names[1:]:
        assert named(beside, "init", name)["restartPolicy"] == "Always"


def test_daemon_and_function_share_the_folder_of_the_socket_and_nothing_else(beside: list[Manifest]) -> None:
    functions = configuration(beside)["functions"]
    for name in ("invoices", "orders"):
        one = named(beside, "init", f"function-{name}")
        path = functions[name]["unix_socket"]
        assert {"name": "SOCKET", "value": path} in one["env"]
        (mount,) = one["volumeMounts"]
        assert mount["mountPath"] == str(Path(path).parent)
        assert named(beside, "mount", mount["name"]) == {**mount, "readOnly": True}
        assert named(beside, "volumes", mount["name"])["emptyDir"]["medium"] == "Memory"


def test_settings_of_the_user_stay_and_other_functions_too(beside: list[Manifest]) -> None:
    functions = configuration(beside)["functions"]
    assert functions["invoices"] == {
        "invoker": "http",
        "url": "http://localhost/2015-03-31/functions/function/invocations",
        "unix_socket": "/run/functions/invoices/http.sock",
        "timeout_s": 20,
        "max_concurrency": 4,
    }
    assert functions["orders"]["url"] == "http://localhost/"
    assert functions["audit"] == {"invoker": "lambda"}


def test_a_function_beside_the_daemon_is_restricted_unless_it_says_otherwise(beside: list[Manifest]) -> None:
    safe = {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}
    invoices, orders = (named(beside, "init", f"function-{name}") for name in ("invoices", "orders"))
    assert invoices["securityContext"] == safe | {"readOnlyRootFilesystem": True}
    assert orders["securityContext"] == safe | {"readOnlyRootFilesystem": False, "runAsUser": 1000}
    assert invoices["resources"] == {"limits": {"memory": "128Mi"}}
    assert invoices["startupProbe"]["exec"]["command"][-1] == "/run/functions/invoices/http.sock"


def test_a_function_that_listens_on_its_socket_is_called_by_the_settings_of_the_chart(
    beside: list[Manifest], tmp_path: Path
) -> None:
    """The daemon's own invoker, with the settings as they are written, and the path moved to a folder of this machine."""
    written = dict(configuration(beside)["functions"]["invoices"])
    environ = {each["name"]: each["value"] for each in named(beside, "init", "function-invoices")["env"]}
    moved = {path: str(tmp_path / Path(path).name) for path in (written["unix_socket"], environ["SOCKET"])}
    given = {key: written[key] for key in ("url", "unix_socket")}
    given |= {"function": "invoices", "unix_socket": moved[written["unix_socket"]]}
    called: list[str] = []

    async def handler(request: web.Request) -> web.Response:
        called.append(request.path)
        return web.json_response({})

    async def run() -> Outcome:
        app = web.Application()
        app.router.add_post("/{rest:.*}", handler)
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await runner.setup()
        try:
            await web.UnixSite(runner, moved[environ["SOCKET"]]).start()
            settings: Any = validated(plugin, given, place="functions.invoices")
            async with environment() as env, open_http(settings, env) as invoker:
                return await invoker.invoke(invocation({"Records": []}))
        finally:
            await runner.cleanup()

    assert asyncio.run(run()) == Succeeded(b"{}")
    assert called == ["/2015-03-31/functions/function/invocations"]


def test_pods_are_spread_as_the_values_say(beside: list[Manifest]) -> None:
    (spread,) = pod(beside)["topologySpreadConstraints"]
    assert spread == {
        "maxSkew": 2,
        "topologyKey": "topology.kubernetes.io/zone",
        "whenUnsatisfiable": "DoNotSchedule",
        "matchLabelKeys": ["pod-template-hash"],
        "labelSelector": {"matchLabels": workload(beside)["spec"]["selector"]["matchLabels"]},
    }
    plain = pod(helm())["topologySpreadConstraints"]
    assert [each["topologyKey"] for each in plain] == [
        "topology.kubernetes.io/zone",
        "kubernetes.io/hostname",
    ]
    assert "topologySpreadConstraints" not in pod(helm("--set", "topologySpread.enabled=false"))
    assert "topologySpreadConstraints" not in pod(helm("--set", "topologySpread.keys=null"))


def test_containers_and_the_priority_are_those_of_the_values(beside: list[Manifest]) -> None:
    assert [each["name"] for each in pod(beside)["containers"]] == ["poller", "proxy"]
    assert pod(beside)["priorityClassName"] == "streams"
    plain = pod(helm())
    assert "priorityClassName" not in plain
    assert "initContainers" not in plain


def test_authorities_of_calls_of_aws_come_from_a_config_map_or_a_secret(beside: list[Manifest]) -> None:
    assert {"name": "AWS_CA_BUNDLE", "value": "/etc/poller-aws-ca/ca.crt"} in container(beside)["env"]
    assert named(beside, "volumes", "aws-ca")["configMap"] == {"name": "company-ca"}
    secret = helm("--set", "aws.ca.existingSecret=ca,aws.ca.key=all.pem")
    assert {"name": "AWS_CA_BUNDLE", "value": "/etc/poller-aws-ca/all.pem"} in container(secret)["env"]
    assert named(secret, "volumes", "aws-ca")["secret"] == {"secretName": "ca", "defaultMode": 0o440}
    assert "AWS_CA_BUNDLE" not in str(workload(helm()))


DATABASE = (
    "store.type=postgresql,store.postgresql.hosts[0]=db.example.com,store.postgresql.existingSecret=db-app,"
    "store.postgresql.passwordKey=password"
)


def test_authorities_of_a_database_may_be_in_a_secret_of_their_own() -> None:
    """As an operator of databases makes them: one Secret with the password, another with the authority."""
    found = helm("--set", f"{DATABASE},store.postgresql.caKey=ca.crt,store.postgresql.caSecret=db-ca")
    settings = PostgresSettings.model_validate({"url": configuration(found)["store"]})
    assert settings.sslrootcert == "/etc/poller-store-ca/ca.crt"
    assert settings.password_file == "/etc/poller-store/password"
    for name, secret in (("store", "db-app"), ("store-ca", "db-ca")):
        assert named(found, "volumes", name)["secret"] == {"secretName": secret, "defaultMode": 0o440}
        assert named(found, "mount", name)["mountPath"] == f"/etc/poller-{name}"


def test_pods_may_show_a_certificate_to_the_database() -> None:
    keys = "store.postgresql.clientCertKey=tls.crt,store.postgresql.clientKeyKey=tls.key"
    settings = PostgresSettings.model_validate(
        {"url": configuration(helm("--set", f"{DATABASE},{keys}"))["store"]}
    )
    assert (settings.sslcert, settings.sslkey) == ("/etc/poller-store/tls.crt", "/etc/poller-store/tls.key")


def test_no_config_map_has_what_a_secret_has() -> None:
    """Values name Secrets and their keys. Nothing of the chart takes a password, a token or a key itself."""
    schema = yaml.safe_load((FOLDER.parents[1] / "helm" / "poller" / "values.schema.json").read_text())
    suspicious = ("password", "token", "secret", "accesskey", "credential")
    found = [
        name
        for name in leaves(schema)
        if any(word in name.rsplit(".", 1)[-1].lower() for word in suspicious)
        and not name.endswith(("Key", "Secret", "Secrets", "Seconds"))
    ]
    assert found == []


def leaves(schema: dict[str, Any], place: str = "") -> list[str]:
    """The paths of all values that a schema knows."""
    inner = schema.get("properties", {})
    if not inner:
        return [place]
    return [
        path
        for name, each in inner.items()
        if isinstance(each, dict)
        for path in leaves(each, f"{place}.{name}")
    ]


def egress(*options: str) -> list[Manifest]:
    """What the NetworkPolicy lets out."""
    words = [word for each in options for word in ("--set", each)]
    result: list[Manifest] = of_kind(helm(*words), "NetworkPolicy")["spec"]["egress"]
    return result


def test_names_are_resolved_where_the_values_say(beside: list[Manifest]) -> None:
    rules = of_kind(beside, "NetworkPolicy")["spec"]["egress"]
    both = [{"port": port, "protocol": protocol} for port in (53, 5353) for protocol in ("UDP", "TCP")]
    assert {"to": [{"ipBlock": {"cidr": "169.254.20.10/32"}}], "ports": both} in rules
    assert {
        "to": [{"ipBlock": {"cidr": "10.0.0.0/16"}}],
        "ports": [{"port": 443, "protocol": "TCP"}],
    } in rules
    assert {"ports": [{"port": 443, "protocol": "TCP"}]} in egress()


def test_ports_of_endpoints_are_open_and_each_once() -> None:
    assert len(egress("config.endpoint_url=https://vpce.example.com")) == len(egress())
    several = egress(
        "config.endpoint_url=http://localstack:4566/",
        "config.endpoint_urls.sqs=http://[fd00::1]:9324,config.endpoint_urls.kinesis=http://kinesis/x:1",
        "config.endpoint_urls.dynamodb=http://localstack:4566",
    )
    ports = [{"port": port, "protocol": "TCP"} for port in (4566, 80, 9324)]
    assert {"ports": ports} in several
