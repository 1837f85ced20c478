"""What an update request makes of a mapping, member by member (spec 10.5)."""

from typing import Any

import pytest

from poller.control import Fault, Refused
from poller.mapping import as_written
from poller.plan import SourceKind
from poller.records import Epoch
from poller.runtime.requests import created_by, denied_text, updated_by

NOW = Epoch(1_767_225_600.0)
QUEUE = {"FunctionName": "reader", "EventSourceArn": "arn:aws:sqs:eu-west-1:111122223333:orders"}
STREAM = {
    "FunctionName": "reader",
    "EventSourceArn": "arn:aws:kinesis:eu-west-1:111122223333:stream/readings",
    "StartingPosition": "LATEST",
}
FAILED = "arn:aws:sqs:eu-west-1:111122223333:failed"
PATTERN = '{"data":{"kind":["alarm"]}}'
POLLERS = {"MinimumPollers": 2, "MaximumPollers": 5}

CLEARED: list[tuple[dict[str, Any], dict[str, Any], dict[str, Any]]] = [
    (STREAM, {"FilterCriteria": {"Filters": [{"Pattern": PATTERN}]}}, {"FilterCriteria": {}}),
    (STREAM, {"FilterCriteria": {"Filters": [{"Pattern": PATTERN}]}}, {"FilterCriteria": {"Filters": []}}),
    (
        STREAM,
        {"DestinationConfig": {"OnFailure": {"Destination": FAILED}}},
        {"DestinationConfig": {"OnFailure": {"Destination": ""}}},
    ),
    (STREAM, {"MetricsConfig": {"Metrics": ["EventCount"]}}, {"MetricsConfig": {}}),
    (STREAM, {"KMSKeyArn": "arn:aws:kms:eu-west-1:111122223333:key/1"}, {"KMSKeyArn": ""}),
    (STREAM, {}, {"ProvisionedPollerConfig": {}}),
    (QUEUE, {"ScalingConfig": {"MaximumConcurrency": 5}}, {"ScalingConfig": {}}),
    (QUEUE, {"ProvisionedPollerConfig": POLLERS}, {"ProvisionedPollerConfig": {}}),
]


@pytest.mark.parametrize(("source", "was", "request_"), CLEARED)
def test_an_update_with_an_empty_member_removes_it(
    source: dict[str, Any], was: dict[str, Any], request_: dict[str, Any]
) -> None:
    before = as_written(created_by(source | was, now=NOW))
    assert before == source | was
    assert as_written(updated_by(before, request_, now=NOW)) == source


def test_pollers_give_way_to_a_concurrency_in_one_update_and_the_other_way_round() -> None:
    pollers, concurrency = {"ProvisionedPollerConfig": POLLERS}, {"ScalingConfig": {"MaximumConcurrency": 5}}
    changed = updated_by(QUEUE | pollers, concurrency | {"ProvisionedPollerConfig": {}}, now=NOW)
    assert as_written(changed) == QUEUE | concurrency
    changed = updated_by(QUEUE | concurrency, pollers | {"ScalingConfig": {}}, now=NOW)
    assert as_written(changed) == QUEUE | pollers


def test_a_denied_table_stream_names_the_actions_that_aws_names() -> None:
    table = "arn:aws:dynamodb:eu-west-1:111122223333:table/stock/stream/2026-01-01T00:00:00.000"
    assert denied_text(table, SourceKind.DYNAMODB) == (
        f"Cannot access stream {table}. Please ensure the role can perform the GetRecords, GetShardIterator, "
        "DescribeStream, and ListStreams Actions on your stream in IAM."
    )


@pytest.mark.parametrize(
    ("kind", "part"),
    [
        (SourceKind.SQS, "execution role does not have permissions"),
        (SourceKind.KINESIS, "ensure the role can perform"),
        (SourceKind.DYNAMODB, "ensure the role can perform"),
    ],
)
def test_terraform_tries_again_when_a_source_is_denied(kind: SourceKind, part: str) -> None:
    # These are the words by which aws_lambda_event_source_mapping tells permissions that are on their way.
    assert part in denied_text("arn", kind)


def test_a_new_mapping_has_no_empty_pollers() -> None:
    with pytest.raises(Refused) as caught:
        created_by(QUEUE | {"ProvisionedPollerConfig": {}}, now=NOW)
    text = "Either MinimumPollers or MaximumPollers are required if ProvisionedPollerConfig is provided."
    assert (caught.value.fault, caught.value.text) == (Fault.PARAMETER, text)
