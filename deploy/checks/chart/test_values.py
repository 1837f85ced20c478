"""Values: documented, known to the schema down to each field, and refused with their names when they are wrong."""

import json
import re
from typing import Any

import pytest
import yaml

from deploy.checks.rendering import CHART, Refused, helm
from deploy.tools import chart_values
from poller.config.settings import Settings

SCHEMA = json.loads((CHART / "values.schema.json").read_text())
DEFAULTS = yaml.safe_load((CHART / "values.yaml").read_text())


def test_the_table_of_values_is_that_of_the_chart() -> None:
    """If this fails, run `make chart-values`."""
    assert chart_values.TARGET.read_text() == chart_values.text()


def test_the_table_has_every_value_with_its_default() -> None:
    found = {each.path: each for each in chart_values.values((CHART / "values.yaml").read_text())}
    leaves = {path: each for path, each in found.items() if each.default is not None}
    assert {path: json.loads(each.default or "") for path, each in leaves.items()} == dict(
        flat(DEFAULTS, leaves.keys())
    )
    rows = chart_values.text()
    assert all(f"| `{path}` |" in rows for path in leaves)


def flat(values: dict[str, Any], ends: Any, place: str = "") -> list[tuple[str, Any]]:
    """All values by path, down to those that are ends."""
    found: list[tuple[str, Any]] = []
    for name, value in values.items():
        path = f"{place}{name}"
        found += [(path, value)] if path in ends else flat(value, ends, f"{path}.")
    return found


def test_a_value_without_a_comment_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    (tmp_path / "values.yaml").write_text("port: 8080\n# Why.\nreplicas: 2\n")
    (tmp_path / "values.schema.json").write_text(json.dumps(SCHEMA))
    monkeypatch.setattr(chart_values, "CHART", tmp_path)
    with pytest.raises(ValueError, match="says nothing about port;"):
        chart_values.text()


def test_comments_are_found_behind_and_above_a_value() -> None:
    text = 'a: "#"   # one\n# Two\n# lines.\nb:\n  c: {d: 1}  # three\n  # four\n  e:\n    - f: 1\n\n# Not of g.\n\ng: 1\n'
    assert [(each.path, each.default, each.meaning) for each in chart_values.values(text)] == [
        ("a", '"#"', "one"),
        ("b", None, "Two lines."),
        ("b.c", '{"d": 1}', "three"),
        ("b.e", '[{"f": 1}]', "four"),
        ("g", "1", ""),
    ]


def open_objects(schema: Any, place: str = "") -> list[str]:
    """The tables of the schema that name fields and take others, too."""
    found = []
    if isinstance(schema, dict):
        if "properties" in schema and "additionalProperties" not in schema:
            found.append(place)
        for name, each in schema.get("properties", {}).items():
            found += open_objects(each, f"{place}.{name}".lstrip("."))
        found += open_objects(schema.get("items"), f"{place}[]")
        for each in schema.get("patternProperties", {}).values():
            found += open_objects(each, f"{place}.*")
    return found


def test_tables_take_no_other_fields_but_where_they_are_kubernetes_own() -> None:
    assert {place for place in open_objects(SCHEMA) if not place.startswith("config.")} == {
        "env[]",
        "extraVolumes[]",
        "extraVolumeMounts[]",
        "initContainers[]",
        "extraContainers[]",
        "sidecarFunctions.*.env[]",
        "sidecarFunctions.*.volumeMounts[]",
        "autoscaling.keda.triggers[]",
    }


def test_the_configuration_has_the_settings_of_the_daemon() -> None:
    assert set(SCHEMA["properties"]["config"]["properties"]) == set(Settings.model_fields)


def test_every_default_is_known_to_the_schema() -> None:
    for each in chart_values.values((CHART / "values.yaml").read_text()):
        assert chart_values.schema_of(each.path, SCHEMA)


REFUSALS = {
    "config.mappingz=1": "at '/config': additional properties 'mappingz' not allowed",
    "rollout.maxSurge=x": "at '/rollout/maxSurge'",
    "rollout.maxSurge=0": "rollout.maxUnavailable: it is 0, and so is rollout.maxSurge",
    "topologySpread.maxSkew=0": "at '/topologySpread/maxSkew'",
    "topologySpread.key=zone": "additional properties 'key' not allowed",
    "priorityClassName=Very High": "at '/priorityClassName'",
    "podLabels.helm\\.sh/chart=x": "at '/podLabels/helm.sh~1chart'",
    "extraVolumes[0].name=config,extraVolumes[0].emptyDir.medium=": "at '/extraVolumes/0/name'",
    "extraVolumes[0].name=data": "at '/extraVolumes/0': minProperties: got 1, want 2",
    "extraContainers[0].name=poller,extraContainers[0].image=a": "at '/extraContainers/0/name'",
    "extraContainers[0].name=a": "at '/extraContainers/0': missing property 'image'",
    "sidecarFunctions.a.path=/": "at '/sidecarFunctions/a': missing property 'image'",
    "sidecarFunctions.Upper.image=a": "at '/sidecarFunctions': additional properties 'Upper' not allowed",
    "sidecarFunctions.a.image=a,sidecarFunctions.a.restartPolicy=Never": "additional properties 'restartPolicy' not allowed",
    "sidecarFunctions.a.image=a,sidecarFunctions.a.path=x": "at '/sidecarFunctions/a/path'",
    "sidecarFunctions.a.image=a,sidecarFunctions.a.env[0].name=SOCKET": "at '/sidecarFunctions/a/env/0/name'",
    "sidecarFunctions.a.image=a,config.functions.a.url=http://b": "config.functions.a.url: the chart writes it for sidecarFunctions.a",
    "sidecarFunctions.a.image=a,config.functions.a.invoker=lambda": "config.functions.a.invoker: sidecarFunctions.a is called by http",
    "aws.ca.existingSecret=a,aws.ca.existingConfigMap=b": "aws.ca: existingSecret and existingConfigMap are both set",
    "store.postgresql.caSecret=ca": "store.postgresql.caSecret: say which of its keys has the authorities",
    "store.postgresql.existingSecret=db,store.postgresql.clientCertKey=tls.crt": "a certificate and its key belong together",
    "store.postgresql.egressTo[0].cidr=10.0.0.0/8": "at '/store/postgresql/egressTo/0'",
    "networkPolicy.dnsTo=null,networkPolicy.dnsPorts[0]=0": "at '/networkPolicy/dnsPorts/0'",
    "networkPolicy.extraEgress[0].port=80": "at '/networkPolicy/extraEgress/0'",
    "test.resources.limits=null": "at '/test/resources'",
    "tolerations[0].opertor=Exists": "at '/tolerations/0'",
    "affinity.nodeAfinity=null,affinity.x.y=1": "at '/affinity'",
}


@pytest.mark.parametrize(("wrong", "told"), REFUSALS.items())
def test_wrong_values_are_refused_by_name(wrong: str, told: str) -> None:
    with pytest.raises(Refused) as caught:
        helm("--set", wrong)
    assert re.sub(r"\s+", " ", told) in re.sub(r"\s+", " ", str(caught.value))


def test_functions_beside_the_daemon_need_a_kubernetes_that_ends_them_after_it() -> None:
    options = ("--set", "sidecarFunctions.a.image=a", "--kube-version")
    with pytest.raises(Refused, match=r"need Kubernetes 1\.29"):
        helm(*options, "1.28.9")
    assert helm(*options, "1.29.0-eks-1")
