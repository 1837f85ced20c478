"""What an update request makes of a mapping, member by member (aws-behaviour#updates)."""

from functools import partial
from typing import Any

import pytest

from poller.config.mapping import as_written
from poller.domain.mapping_api import ApiError, ApiErrorType
from poller.domain.plan import SourceKind
from poller.domain.records import Epoch
from poller.runtime.mappings.api_requests import created_by, denied_text, updated_by

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


WITH_FAILED = {"DestinationConfig": {"OnFailure": {"Destination": FAILED}}}


@pytest.mark.parametrize("failure", [{}, {"Destination": None}])
def test_an_update_whose_on_failure_has_no_destination_is_refused(failure: dict[str, Any]) -> None:
    with pytest.raises(ApiError) as caught:
        updated_by(STREAM | WITH_FAILED, {"DestinationConfig": {"OnFailure": failure}}, now=NOW)
    text = "The Destination field is required for an OnFailure configuration."
    assert (caught.value.fault, caught.value.text) == (ApiErrorType.PARAMETER, text)


@pytest.mark.parametrize("config", [None, {}, {"OnFailure": None}, {"OnSuccess": None}, {"OnSuccess": {}}])
def test_an_update_without_an_on_failure_keeps_the_destination(config: dict[str, Any] | None) -> None:
    changed = updated_by(STREAM | WITH_FAILED, {"BatchSize": 5, "DestinationConfig": config}, now=NOW)
    assert changed.destination == FAILED


def test_an_update_with_an_on_success_is_refused_before_anything_else_of_the_destination() -> None:
    config = {"OnSuccess": {"Destination": FAILED}, "OnFailure": {}}
    with pytest.raises(ApiError, match="Unsupported DestinationConfig parameter"):
        updated_by(STREAM | WITH_FAILED, {"DestinationConfig": config}, now=NOW)


@pytest.mark.parametrize("failure", [{}, {"Destination": ""}, {"Destination": FAILED}])
def test_a_queue_refuses_an_on_failure_in_the_same_words_whatever_it_says(failure: dict[str, Any]) -> None:
    with pytest.raises(ApiError, match="Unsupported DestinationConfig parameter"):
        updated_by(QUEUE, {"DestinationConfig": {"OnFailure": failure}}, now=NOW)


def test_a_new_mapping_with_an_empty_on_failure_has_none() -> None:
    made = created_by(STREAM | {"DestinationConfig": {"OnFailure": {}}}, now=NOW)
    assert as_written(made) == STREAM


def test_a_poller_group_is_refused_and_an_empty_one_is_none() -> None:
    for change in (partial(created_by, now=NOW), partial(updated_by, QUEUE, now=NOW)):
        empty = {"ProvisionedPollerConfig": POLLERS | {"PollerGroupName": ""}}
        assert as_written(change(QUEUE | empty)) == QUEUE | {"ProvisionedPollerConfig": POLLERS}
        with pytest.raises(ApiError, match="Unsupported PollerGroupName parameter for given event source"):
            change(QUEUE | {"ProvisionedPollerConfig": POLLERS | {"PollerGroupName": "g"}})


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
    with pytest.raises(ApiError) as caught:
        created_by(QUEUE | {"ProvisionedPollerConfig": {}}, now=NOW)
    text = "Either MinimumPollers or MaximumPollers are required if ProvisionedPollerConfig is provided."
    assert (caught.value.fault, caught.value.text) == (ApiErrorType.PARAMETER, text)
