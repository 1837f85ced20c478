"""The definition of the resource: structural, the same in every place, and with rules that say what the daemon says."""

from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import celpy
import celpy.adapter
import pytest
import yaml

from poller.config.members import TABLE
from poller.config.resources.cel_rules import CelRule, spec_rules
from poller.config.resources.definition import definition, definition_text, spec_schema
from poller.config.resources.spec import OWN, ack_name, read_spec
from poller.domain.records import Epoch

ROOT = Path(__file__).parents[3]
PLACES = (
    "deploy/kubernetes/definition/eventsourcemappings.poller.dev.yaml",
    "deploy/helm/poller/crds/eventsourcemappings.poller.dev.yaml",
)
NOW = Epoch(1_800_000_000.0)
STREAM = "arn:aws:kinesis:eu-west-1:123456789012:stream/orders"
TABLE_STREAM = "arn:aws:dynamodb:eu-west-1:123456789012:table/t/stream/2026-01-01T00:00:00.000"
QUEUE = "arn:aws:sqs:eu-west-1:123456789012:jobs"
FIFO = f"{QUEUE}.fifo"


@pytest.mark.parametrize("place", PLACES)
def test_the_definition_that_is_delivered_is_the_one_that_the_model_gives(place: str) -> None:
    assert (ROOT / place).read_text() == definition_text(), "make resource-definition"


def test_the_text_is_the_definition() -> None:
    assert yaml.safe_load(definition_text()) == definition()


def _nodes(schema: dict[str, Any], path: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    yield path, schema
    for name, each in schema.get("properties", {}).items():
        yield from _nodes(each, f"{path}.{name}")
    for name in ("items", "additionalProperties"):
        if isinstance(schema.get(name), dict):
            yield from _nodes(schema[name], f"{path}[]")


def test_the_schema_is_structural() -> None:
    whole = definition()["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    for path, node in _nodes(whole):
        has_type = isinstance(node.get("type"), str) or node.get("x-kubernetes-int-or-string")
        assert has_type, path
        assert not {"$ref", "pattern", "const", "propertyNames", "anyOf"} & node.keys(), path
        assert node.get("type") != "array" or "items" in node, path


def test_every_member_that_a_mapping_takes_has_a_place() -> None:
    properties = spec_schema()["properties"]
    expected = {ack_name(each.path) for each in TABLE if each.top and each.requests and each.sources}
    assert properties.keys() == expected | {"uuid" if name == "UUID" else name for name in OWN}


def test_the_columns_that_kubectl_prints() -> None:
    version = definition()["spec"]["versions"][0]
    names = [each["name"] for each in version["additionalPrinterColumns"] if not each.get("priority")]
    assert names == ["Function", "Source", "Ready", "Blocked", "Lag", "Age"]
    assert version["subresources"] == {"status": {}}
    assert definition()["spec"]["names"]["shortNames"] == ["esm"]


@cache
def _program(text: str) -> Any:
    env = celpy.Environment()
    return env.program(env.compile(text))


def _evaluated(text: str, spec: dict[str, Any], old: dict[str, Any] | None = None) -> Any:
    given = {"self": celpy.adapter.json_to_cel(spec), "oldSelf": celpy.adapter.json_to_cel(old or spec)}
    return _program(text).evaluate(given)


def _message(rule: CelRule, spec: dict[str, Any]) -> str:
    return str(_evaluated(rule.expression, spec)) if rule.expression else rule.message


def refusals(spec: dict[str, Any], old: dict[str, Any] | None = None) -> list[str]:
    return [_message(each, spec) for each in spec_rules() if not _evaluated(each.rule, spec, old)]


def spec(source: str, **members: Any) -> dict[str, Any]:
    position = {} if source.startswith(QUEUE) else {"startingPosition": "LATEST"}
    found = {"eventSourceARN": source, "functionName": "work", **position, **members}
    return {name: value for name, value in found.items() if value is not None}


VALID = [
    spec(STREAM),
    spec(STREAM, startingPosition="AT_TIMESTAMP", startingPositionTimestamp=1_700_000_000),
    spec(
        STREAM,
        batchSize=10_000,
        maximumRecordAgeInSeconds=-1,
        maximumRetryAttempts=-1,
        tumblingWindowInSeconds=900,
    ),
    spec(STREAM, parallelizationFactor=10, destinationConfig={"onFailure": {"destination": QUEUE}}),
    spec(
        TABLE_STREAM,
        filterCriteria={"filters": [{"pattern": "{}"}]},
        functionResponseTypes=["ReportBatchItemFailures"],
    ),
    spec(QUEUE, batchSize=10_000, maximumBatchingWindowInSeconds=1, scalingConfig={"maximumConcurrency": 1}),
    spec(QUEUE, provisionedPollerConfig={"minimumPollers": 2}),
    spec(FIFO, batchSize=10),
]


@pytest.mark.parametrize("valid", VALID, ids=str)
def test_no_rule_refuses_a_valid_spec(valid: dict[str, Any]) -> None:
    assert refusals(valid) == []


REFUSED = [
    spec(STREAM, startingPosition=None),
    spec(TABLE_STREAM, startingPosition="AT_TIMESTAMP", startingPositionTimestamp=1_700_000_000),
    spec(QUEUE, startingPosition="LATEST"),
    spec(STREAM, startingPosition="AT_TIMESTAMP"),
    spec(STREAM, startingPositionTimestamp=1_700_000_000),
    spec(STREAM, startingPosition="NEWEST"),
    spec(STREAM, batchSize=0),
    spec(STREAM, batchSize=10_001),
    spec(STREAM, parallelizationFactor=11),
    spec(STREAM, maximumRetryAttempts=-2),
    spec(STREAM, maximumRecordAgeInSeconds=59),
    spec(STREAM, tumblingWindowInSeconds=10, parallelizationFactor=2),
    spec(STREAM, scalingConfig={"maximumConcurrency": 5}),
    spec(QUEUE, batchSize=11),
    spec(QUEUE, parallelizationFactor=2),
    spec(QUEUE, bisectBatchOnFunctionError=True),
    spec(QUEUE, scalingConfig={"maximumConcurrency": 1001}),
    spec(QUEUE, provisionedPollerConfig={}),
    spec(QUEUE, provisionedPollerConfig={"minimumPollers": 20, "maximumPollers": 10}),
    spec(QUEUE, provisionedPollerConfig={"minimumPollers": 2}, scalingConfig={"maximumConcurrency": 5}),
    spec(FIFO, batchSize=11),
    spec(FIFO, maximumBatchingWindowInSeconds=5),
    spec(FIFO, provisionedPollerConfig={"minimumPollers": 2}),
]


@pytest.mark.parametrize("refused", REFUSED, ids=str)
def test_a_rule_refuses_with_the_text_that_the_daemon_would_give(refused: dict[str, Any]) -> None:
    assert read_spec(refused, now=NOW).refused in refusals(refused)


def test_a_source_and_where_it_begins_cannot_be_changed() -> None:
    kept = "cannot be changed; delete the resource and create another one"
    assert refusals(spec(QUEUE), old=spec(FIFO)) == [f"eventSourceARN {kept}"]
    earlier = spec(STREAM, startingPosition="TRIM_HORIZON")
    assert refusals(spec(STREAM), old=earlier) == [f"startingPosition {kept}"]
    assert refusals(spec(QUEUE, batchSize=5), old=spec(QUEUE)) == []
