"""How the mappings of an AWS account become a configuration file, and what of them is left out."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import yaml

from adapters.commands.endpoint import Failed
from adapters.commands.export import Exported, export_file, file_mapping, write_export
from poller.config.daemon_plan import daemon_plan
from poller.config.loader import load

ACCOUNT = "eu-west-1:111122223333"
STREAM = f"arn:aws:kinesis:{ACCOUNT}:stream/orders"
QUEUE = f"arn:aws:sqs:{ACCOUNT}:mails"
UUID = "0f4b8a5e-8b0c-4a56-9c0e-0d7d6b0c2b11"


def shown(source: str = STREAM, function: str = "orders", **members: Any) -> dict[str, Any]:
    """A mapping as boto3 shows it."""
    stream = {
        "StartingPosition": "TRIM_HORIZON",
        "ParallelizationFactor": 1,
        "BisectBatchOnFunctionError": False,
        "MaximumRecordAgeInSeconds": -1,
        "MaximumRetryAttempts": -1,
        "TumblingWindowInSeconds": 0,
        "DestinationConfig": {"OnFailure": {}},
        "BatchSize": 100,
        "LastProcessingResult": "OK",
    }
    given: dict[str, Any] = {
        "UUID": UUID,
        "EventSourceArn": source,
        "FunctionArn": f"arn:aws:lambda:{ACCOUNT}:function:{function}",
        "MaximumBatchingWindowInSeconds": 0,
        "FunctionResponseTypes": [],
        "LastModified": datetime(2026, 1, 1, tzinfo=UTC),
        "State": "Enabled",
        "StateTransitionReason": "User action",
        **(stream if ":kinesis:" in source or ":dynamodb:" in source else {"BatchSize": 10}),
    }
    return given | members


def test_defaults_are_left_out() -> None:
    assert file_mapping(shown()) == {
        "UUID": UUID,
        "FunctionName": "orders",
        "EventSourceArn": STREAM,
        "StartingPosition": "TRIM_HORIZON",
    }
    assert file_mapping(shown(QUEUE)) == {"UUID": UUID, "FunctionName": "orders", "EventSourceArn": QUEUE}


def test_what_differs_from_the_defaults_is_kept() -> None:
    members: dict[str, Any] = {
        "BatchSize": 7,
        "MaximumRetryAttempts": 3,
        "DestinationConfig": {"OnFailure": {"Destination": f"arn:aws:sqs:{ACCOUNT}:failed"}},
        "FilterCriteria": {"Filters": [{"Pattern": '{"data":{"a":[1]}}'}]},
        "FunctionResponseTypes": ["ReportBatchItemFailures"],
    }
    found = file_mapping(shown(**members))
    assert {name: found[name] for name in members} == members


def test_a_moment_becomes_epoch_seconds_and_a_disabled_mapping_stays_so() -> None:
    moment = datetime(2026, 1, 1, tzinfo=UTC)
    found = file_mapping(
        shown(StartingPosition="AT_TIMESTAMP", StartingPositionTimestamp=moment, State="Disabled")
    )
    assert (found["StartingPositionTimestamp"], found["Enabled"]) == (moment.timestamp(), False)


@pytest.mark.parametrize(
    ("arn", "name"),
    [
        (f"arn:aws:lambda:{ACCOUNT}:function:orders:live", "orders:live"),
        ("arn:aws:lambda:eu-west-1:444455556666:function:orders", None),
    ],
)
def test_a_function_is_named_shortly_where_that_says_the_same(arn: str, name: str | None) -> None:
    assert file_mapping(shown(FunctionArn=arn))["FunctionName"] == (name or arn)


LEFT: list[tuple[dict[str, Any], str]] = [
    (
        shown(EventSourceArn=None, SelfManagedEventSource={"Endpoints": {}}),
        "a self-managed Kafka cluster; only Kinesis, DynamoDB Streams and SQS are read",
    ),
    (
        shown(EventSourceArn=f"arn:aws:kafka:{ACCOUNT}:cluster/c/1"),
        f"source arn:aws:kafka:{ACCOUNT}:cluster/c/1; only Kinesis, DynamoDB Streams and SQS are read",
    ),
    (shown(State="Deleting"), "is being deleted"),
    (
        shown(FilterCriteriaError={"ErrorCode": "KMSAccessDenied"}),
        "its filters are encrypted and cannot be read with these credentials",
    ),
]


@pytest.mark.parametrize(("mapping", "reason"), LEFT)
def test_what_cannot_be_carried_over_is_named_and_the_rest_is_written(
    mapping: dict[str, Any], reason: str
) -> None:
    other = shown(QUEUE, UUID="1f4b8a5e-8b0c-4a56-9c0e-0d7d6b0c2b22")
    found = export_file([mapping, other], "eu-west-1")
    assert found.left == [f"mapping {UUID} of function orders: {reason}"]
    assert f"# Not carried over: mapping {UUID} of function orders: {reason}\n" in found.text
    assert [each["UUID"] for each in yaml.safe_load(found.text)["mappings"]] == [other["UUID"]]


def test_a_mapping_that_our_loader_refuses_is_left_out_with_the_reason() -> None:
    found = export_file([shown(BatchSize=20_000)], "eu-west-1")
    assert "BatchSize" in found.left[0]
    assert "20000" in found.left[0]
    assert yaml.safe_load(found.text)["mappings"] == []


def test_the_same_mapping_twice_is_written_once() -> None:
    assert len(yaml.safe_load(export_file([shown(), shown()], "eu-west-1").text)["mappings"]) == 1


def test_what_is_written_is_what_a_daemon_would_run(tmp_path: Path) -> None:
    path = tmp_path / "poller.yaml"
    write_export(
        export_file([shown(MaximumRetryAttempts=2, ParallelizationFactor=4)], "eu-west-1"), path, force=False
    )
    (plan,) = daemon_plan(load(path)).mappings
    assert (plan.mapping, plan.retry.retries_max, plan.stream.lanes) == (UUID, 2, 4)
    assert plan.function_arn == f"arn:aws:lambda:{ACCOUNT}:function:orders"


def test_a_file_that_is_there_is_replaced_only_by_force(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "poller.yaml"
    path.write_text("mine")
    with pytest.raises(Failed, match="--force"):
        write_export(Exported("theirs", ()), path, force=False)
    assert path.read_text() == "mine"
    write_export(Exported("theirs", ("mapping x: no",)), path, force=True)
    assert path.read_text() == "theirs"
    assert capsys.readouterr().err == "poller: not carried over: mapping x: no\n"


def test_without_a_file_the_text_goes_to_stdout(capsys: pytest.CaptureFixture[str]) -> None:
    write_export(Exported("text\n", ()), None, force=False)
    assert capsys.readouterr().out == "text\n"


def test_a_folder_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(Failed, match="cannot be written"):
        write_export(Exported("text", ()), tmp_path / "nowhere" / "poller.yaml", force=False)
