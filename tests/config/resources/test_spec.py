"""How a spec becomes a mapping: ACK's names, the file's own fields, and AWS's texts."""

import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from poller.config.mapping import EventSourceMapping
from poller.config.members import TABLE
from poller.config.resources.spec import NESTING_MAX, OWN, TOO_DEEP, ack_name, own_members, read_spec
from poller.config.settings import FileMapping
from poller.domain.records import Epoch
from poller.domain.resources.resource import SPEC_BYTES_MAX

NOW = Epoch(1_800_000_000.0)
STREAM = "arn:aws:kinesis:eu-west-1:123456789012:stream/orders"
QUEUE = "arn:aws:sqs:eu-west-1:123456789012:jobs"
BASE = {"eventSourceARN": STREAM, "functionName": "work", "startingPosition": "TRIM_HORIZON"}


def refusal(**spec: Any) -> str:
    return read_spec({**BASE, **spec}, now=NOW).refused


@pytest.mark.parametrize(
    ("aws", "ack"),
    [
        ("EventSourceArn", "eventSourceARN"),
        ("KMSKeyArn", "kmsKeyARN"),
        ("FunctionName", "functionName"),
        ("BisectBatchOnFunctionError", "bisectBatchOnFunctionError"),
        ("DocumentDBEventSourceConfig", "documentDBEventSourceConfig"),
        ("Enabled", "enabled"),
    ],
)
def test_members_have_the_names_that_ack_gives_them(aws: str, ack: str) -> None:
    assert ack_name(aws) == ack


def test_a_spec_becomes_aws_members_and_the_files_own_fields() -> None:
    spec = {
        **BASE,
        "batchSize": 50,
        "bisectBatchOnFunctionError": True,
        "destinationConfig": {"onFailure": {"destination": "arn:aws:sqs:eu-west-1:123456789012:dead"}},
        "filterCriteria": {"filters": [{"pattern": '{"data": {"kind": ["order"]}}'}]},
        "functionResponseTypes": ["ReportBatchItemFailures"],
        "source": {"fan_out": True, "deaggregate": False},
        "shared_reads": False,
        "uuid": "00000000-0000-4000-8000-000000000001",
    }
    found = read_spec(spec, now=NOW)
    assert not found.refused
    assert found.parameters == {
        "EventSourceArn": STREAM,
        "FunctionName": "work",
        "StartingPosition": "TRIM_HORIZON",
        "BatchSize": 50,
        "BisectBatchOnFunctionError": True,
        "DestinationConfig": {"OnFailure": {"Destination": "arn:aws:sqs:eu-west-1:123456789012:dead"}},
        "FilterCriteria": {"Filters": [{"Pattern": '{"data": {"kind": ["order"]}}'}]},
        "FunctionResponseTypes": ["ReportBatchItemFailures"],
    }
    assert found.own == {
        "source": {"fan_out": True, "deaggregate": False},
        "shared_reads": False,
        "UUID": "00000000-0000-4000-8000-000000000001",
    }
    assert own_members(found.parameters, found.own).source == {"fan_out": True, "deaggregate": False}


@pytest.mark.parametrize(
    ("spec", "text"),
    [
        (
            {"batchSize": 0},
            "1 validation error detected: Value '0' at 'batchSize' failed to satisfy constraint: "
            "Member must have value greater than or equal to 1",
        ),
        (
            {"startingPosition": None},
            "1 validation error detected: Value null at 'startingPosition' failed to satisfy constraint: Member must not be null.",
        ),
        ({"eventSourceARN": "arn:aws:kafka:eu-west-1:123456789012:cluster/c"}, "Unrecognized event source."),
        ({"topics": ["orders"]}, "Unsupported Topics parameter for given event source mapping type."),
        (
            {"scalingConfig": {"maximumConcurrency": 5}},
            "Unsupported ScalingConfig parameter for given event source mapping type.",
        ),
        ({"filterCriteria": {"filters": [{"pattern": "{"}]}}, "Invalid filter pattern definition."),
        (
            {"functionRef": {"from": {"name": "f"}}},
            "spec.functionRef: a reference to another resource; write the name or the ARN itself",
        ),
        ({"extend_visibility": True}, "spec.extend_visibility: is for SQS queues only; remove it"),
        ({"bathSize": 3}, "spec.bathSize: unknown setting"),
        ({"uuid": "me"}, "spec.uuid: not a UUID"),
        ({"batchSize": "many"}, "spec.batchSize: not a whole number"),
    ],
)
def test_a_refused_spec_says_why_in_awss_words_where_aws_has_some(spec: dict[str, Any], text: str) -> None:
    assert refusal(**spec) == text


def test_a_spec_that_is_too_large_is_refused_before_it_is_looked_at() -> None:
    assert "more than" in refusal(functionName="f" * SPEC_BYTES_MAX)


@pytest.mark.parametrize("levels", [NESTING_MAX + 1, 5_000])
def test_a_spec_of_many_levels_is_refused_before_it_is_walked_through(levels: int) -> None:
    deep: dict[str, Any] = {}
    for _ in range(levels):
        deep = {"a": deep}
    assert refusal(source=deep) in (TOO_DEEP, "the spec is no JSON document")


def test_every_own_field_of_the_file_has_a_place_in_a_spec() -> None:
    assert set(OWN) == FileMapping.model_fields.keys() - EventSourceMapping.model_fields.keys()


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=12), inner, max_size=3),
    max_leaves=8,
)
names = st.sampled_from([ack_name(each.path) for each in TABLE if each.top] + list(OWN)) | st.text(
    max_size=12
)


@given(st.dictionaries(names, json_values, max_size=6), st.booleans())
def test_no_spec_raises_and_each_is_refused_or_valid_as_a_mapping_of_the_file(
    spec: dict[str, Any], whole: bool
) -> None:
    found = read_spec({**BASE, **spec} if whole else spec, now=Epoch(time.time()))
    if not found.refused:
        FileMapping.model_validate({**found.parameters, **found.own})
