"""Mappings: every member at the ends of its range (aws-behaviour#members-and-defaults), AWS's texts, and how a mapping becomes a plan."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from poller.config.aws_validation import violations
from poller.config.mapping import (
    EventSourceMapping,
    FunctionIdentity,
    MappingSection,
    QueueMembers,
    StreamMembers,
    function_arn,
    mapping_id,
    plan,
    source_kind,
)
from poller.config.members import POSITIONS, RequestKind, SourceGroup, requested
from poller.config.violations import ViolationType, answer
from poller.domain.plan import MappingPlan, OnDestinationFailure, SourceKind, Start, destination_plugin
from poller.domain.policies import BatchPolicy, RetryPolicy, ScalingPolicy
from poller.domain.records import Epoch

NOW = Epoch(1_767_225_600.0)
STREAM = "arn:aws:kinesis:eu-west-1:111122223333:stream/orders"
CONSUMER = "arn:aws:kinesis:eu-west-1:111122223333:stream/orders/consumer/reader:1700000000"
TABLE = "arn:aws:dynamodb:eu-west-1:111122223333:table/orders/stream/2026-01-01T00:00:00.000"
QUEUE = "arn:aws:sqs:eu-west-1:111122223333:orders"
FIFO = "arn:aws:sqs:eu-west-1:111122223333:orders.fifo"
SOURCES = {"K": STREAM, "D": TABLE, "S": QUEUE, "F": FIFO}
TARGET = "arn:aws:sqs:eu-west-1:111122223333:failed"

PARAMETER, VALIDATION = ViolationType.PARAMETER, ViolationType.VALIDATION
UNSUPPORTED = "Unsupported {} parameter for given event source mapping type."
NO_WINDOW = "Maximum batch window in seconds must be greater than 0 if maximum batch size is greater than 10"
AGE = "MaximumRecordAgeInSeconds must be either -1 (forever) or between 60 and 604800 (inclusive)"


def document(source: str, fields: dict[str, Any]) -> dict[str, Any]:
    """A mapping that AWS takes, for one kind of source, with `fields` over it; a field that is ... is left out."""
    base: dict[str, Any] = {"FunctionName": "reader", "EventSourceArn": SOURCES[source]}
    if source in "KD":
        base["StartingPosition"] = "TRIM_HORIZON"
    return {name: value for name, value in (base | fields).items() if value is not ...}


def mapping(source: str = "K", /, **fields: Any) -> EventSourceMapping:
    return EventSourceMapping.model_validate(document(source, fields))


def planned(source: str = "K", /, **fields: Any) -> MappingPlan:
    return plan(mapping(source, **fields), {})


def destination(arn: str) -> dict[str, Any]:
    return {"DestinationConfig": {"OnFailure": {"Destination": arn}}}


def filters(*patterns: str) -> dict[str, Any]:
    return {"FilterCriteria": {"Filters": [{"Pattern": pattern} for pattern in patterns]}}


def provisioned(**fields: Any) -> dict[str, Any]:
    return {"ProvisionedPollerConfig": fields}


def concurrency(number: int) -> dict[str, Any]:
    return {"ScalingConfig": {"MaximumConcurrency": number}}


def metrics(*names: str) -> dict[str, Any]:
    return {"MetricsConfig": {"Metrics": list(names)}}


def above(value: object, path: str, most: int) -> str:
    return _constraint(value, path, f"Member must have value less than or equal to {most}")


def below(value: object, path: str, least: int) -> str:
    return _constraint(value, path, f"Member must have value greater than or equal to {least}")


def _constraint(value: object, path: str, constraint: str) -> str:
    return (
        f"1 validation error detected: Value '{value}' at '{path}' failed to satisfy constraint: {constraint}"
    )


ACCEPTED: list[tuple[str, dict[str, Any]]] = [
    ("KDSF", {}),
    ("KDSF", {"Enabled": False}),
    ("KDSF", {"FunctionName": "a" * 64}),
    ("KDSF", {"FunctionName": "111122223333:function:reader:prod"}),
    ("KDSF", {"FunctionName": "arn:aws:lambda:eu-west-1:111122223333:function:reader:$LATEST"}),
    ("K", {"EventSourceArn": CONSUMER}),
    ("KDSF", {"BatchSize": 1}),
    ("KD", {"BatchSize": 10_000}),
    ("KD", {"BatchSize": 101, "MaximumBatchingWindowInSeconds": 0}),
    ("SF", {"BatchSize": 10}),
    ("S", {"BatchSize": 11, "MaximumBatchingWindowInSeconds": 1}),
    ("S", {"BatchSize": 10_000, "MaximumBatchingWindowInSeconds": 300}),
    ("KDSF", {"MaximumBatchingWindowInSeconds": 0}),
    ("KDS", {"MaximumBatchingWindowInSeconds": 300}),
    ("KD", {"ParallelizationFactor": 1}),
    ("KD", {"ParallelizationFactor": 10}),
    ("KD", {"StartingPosition": "LATEST"}),
    ("K", {"StartingPosition": "AT_TIMESTAMP", "StartingPositionTimestamp": NOW}),
    ("KD", {"MaximumRecordAgeInSeconds": -1}),
    ("KD", {"MaximumRecordAgeInSeconds": 60}),
    ("KD", {"MaximumRecordAgeInSeconds": 604_800}),
    ("KD", {"MaximumRetryAttempts": -1}),
    ("KD", {"MaximumRetryAttempts": 0}),
    ("KD", {"MaximumRetryAttempts": 10_000}),
    ("KD", {"BisectBatchOnFunctionError": True}),
    ("KD", {"TumblingWindowInSeconds": 0}),
    ("KD", {"TumblingWindowInSeconds": 900}),
    ("KD", {"TumblingWindowInSeconds": 30, "FilterCriteria": {}}),
    ("KD", {"TumblingWindowInSeconds": 30, "FilterCriteria": {"Filters": []}}),
    ("KD", {"TumblingWindowInSeconds": 0, "ParallelizationFactor": 2}),
    ("KD", destination(TARGET)),
    ("KD", destination("arn:aws:sns:eu-west-1:111122223333:failed")),
    ("KD", destination("arn:aws:s3:::failed")),
    ("KD", destination("")),
    ("KD", {"DestinationConfig": {"OnFailure": {}}}),
    ("KD", {"DestinationConfig": {"OnSuccess": {"Destination": None}, "OnFailure": {"Destination": None}}}),
    ("SF", {"DestinationConfig": {}}),
    ("KDSF", {"FunctionResponseTypes": []}),
    ("KDSF", {"FunctionResponseTypes": ["ReportBatchItemFailures"]}),
    ("KDSF", filters(*['{"a": [1]}'] * 5)),
    ("KDSF", filters('{"a": ["' + "x" * 4084 + '"]}')),
    ("SF", concurrency(2)),
    ("SF", concurrency(1000)),
    ("KDSF", {"ScalingConfig": {}}),
    ("S", provisioned(MinimumPollers=2)),
    ("S", provisioned(MinimumPollers=200)),
    ("S", provisioned(MaximumPollers=2)),
    ("S", provisioned(MaximumPollers=10_000)),
    ("KDSF", metrics("EventCount")),
    ("KDSF", {"KMSKeyArn": "arn:aws:kms:eu-west-1:111122223333:key/1"}),
    ("KDSF", {"KMSKeyArn": ""}),
    ("KDSF", {"Tags": {"a" * 128: "b" * 256}}),
]

REFUSED: list[tuple[str, dict[str, Any], ViolationType, str]] = [
    ("KDSF", {"EventSourceArn": ...}, PARAMETER, "Unrecognized event source."),
    ("KDSF", {"EventSourceArn": "orders"}, PARAMETER, "Unrecognized event source."),
    (
        "K",
        {"EventSourceArn": "arn:aws:kafka:eu-west-1:111122223333:cluster/a"},
        PARAMETER,
        "Unrecognized event source.",
    ),
    ("D", {"EventSourceArn": TABLE.partition("/stream")[0]}, PARAMETER, "Unrecognized event source."),
    ("KDSF", {"BatchSize": 0}, VALIDATION, below(0, "batchSize", 1)),
    ("KDSF", {"BatchSize": 10_001}, VALIDATION, above(10_001, "batchSize", 10_000)),
    ("S", {"BatchSize": 11}, PARAMETER, NO_WINDOW),
    ("S", {"BatchSize": 11, "MaximumBatchingWindowInSeconds": 0}, PARAMETER, NO_WINDOW),
    ("F", {"BatchSize": 11}, PARAMETER, "Batch size must be less than or equal to 10 for FIFO queues"),
    (
        "KDSF",
        {"MaximumBatchingWindowInSeconds": -1},
        VALIDATION,
        below(-1, "maximumBatchingWindowInSeconds", 0),
    ),
    (
        "KDSF",
        {"MaximumBatchingWindowInSeconds": 301},
        VALIDATION,
        above(301, "maximumBatchingWindowInSeconds", 300),
    ),
    (
        "F",
        {"MaximumBatchingWindowInSeconds": 1},
        PARAMETER,
        "Batching window is not supported for FIFO queues",
    ),
    ("KD", {"ParallelizationFactor": 0}, VALIDATION, below(0, "parallelizationFactor", 1)),
    ("KD", {"ParallelizationFactor": 11}, VALIDATION, above(11, "parallelizationFactor", 10)),
    (
        "KD",
        {"StartingPosition": ...},
        PARAMETER,
        "1 validation error detected: Value null at 'startingPosition' failed to satisfy constraint: "
        "Member must not be null.",
    ),
    (
        "KD",
        {"StartingPosition": "invalid"},
        VALIDATION,
        _constraint(
            "invalid",
            "startingPosition",
            "Member must satisfy enum value set: [LATEST, AT_TIMESTAMP, TRIM_HORIZON]",
        ),
    ),
    (
        "D",
        {"StartingPosition": "AT_TIMESTAMP", "StartingPositionTimestamp": 1},
        PARAMETER,
        f"Unsupported starting position for arn type: {TABLE}",
    ),
    ("S", {"StartingPosition": "LATEST"}, PARAMETER, f"Unsupported starting position for arn type: {QUEUE}"),
    (
        "K",
        {"StartingPosition": "AT_TIMESTAMP"},
        PARAMETER,
        "StartingPositionTimestamp is required when StartingPosition is AT_TIMESTAMP.",
    ),
    (
        "KD",
        {"StartingPositionTimestamp": 1},
        PARAMETER,
        "StartingPositionTimestamp is only valid when StartingPosition is AT_TIMESTAMP.",
    ),
    (
        "K",
        {"StartingPosition": "AT_TIMESTAMP", "StartingPositionTimestamp": NOW + 0.001},
        PARAMETER,
        "StartingPositionTimestamp cannot be in the future.",
    ),
    ("KD", {"MaximumRecordAgeInSeconds": -2}, VALIDATION, below(-2, "maximumRecordAgeInSeconds", -1)),
    (
        "KD",
        {"MaximumRecordAgeInSeconds": 604_801},
        VALIDATION,
        above(604_801, "maximumRecordAgeInSeconds", 604_800),
    ),
    ("KD", {"MaximumRecordAgeInSeconds": 0}, PARAMETER, AGE),
    ("KD", {"MaximumRecordAgeInSeconds": 1}, PARAMETER, AGE),
    ("KD", {"MaximumRecordAgeInSeconds": 59}, PARAMETER, AGE),
    ("KD", {"MaximumRetryAttempts": -2}, VALIDATION, below(-2, "maximumRetryAttempts", -1)),
    ("KD", {"MaximumRetryAttempts": 10_001}, VALIDATION, above(10_001, "maximumRetryAttempts", 10_000)),
    ("KD", {"TumblingWindowInSeconds": -1}, VALIDATION, below(-1, "tumblingWindowInSeconds", 0)),
    ("KD", {"TumblingWindowInSeconds": 901}, VALIDATION, above(901, "tumblingWindowInSeconds", 900)),
    (
        "KD",
        {"TumblingWindowInSeconds": 1, "ParallelizationFactor": 2},
        PARAMETER,
        "TumblingWindowInSeconds cannot be used with a ParallelizationFactor greater than 1.",
    ),
    (
        "KD",
        {"TumblingWindowInSeconds": 1} | filters('{"a": [1]}'),
        PARAMETER,
        "TumblingWindowInSeconds cannot be used together with FilterCriteria.",
    ),
    (
        "KD",
        {"DestinationConfig": {"OnSuccess": {"Destination": TARGET}}},
        PARAMETER,
        UNSUPPORTED.format("DestinationConfig"),
    ),
    ("SF", destination(TARGET), PARAMETER, UNSUPPORTED.format("DestinationConfig")),
    (
        "KD",
        destination(TARGET + ".fifo"),
        PARAMETER,
        f"The provided destination config DestinationConfig is invalid: {TARGET}.fifo",
    ),
    (
        "KD",
        destination("arn:aws:sns:eu-west-1:111122223333:failed.fifo"),
        PARAMETER,
        "The provided destination config DestinationConfig is invalid: arn:aws:sns:eu-west-1:111122223333:failed.fifo",
    ),
    (
        "KD",
        destination("failed"),
        PARAMETER,
        "The provided destination config DestinationConfig is invalid: failed",
    ),
    ("SF", {"ParallelizationFactor": 1}, PARAMETER, UNSUPPORTED.format("ParallelizationFactor")),
    ("SF", {"MaximumRecordAgeInSeconds": 60}, PARAMETER, UNSUPPORTED.format("MaximumRecordAgeInSeconds")),
    ("SF", {"MaximumRetryAttempts": 1}, PARAMETER, UNSUPPORTED.format("MaximumRetryAttempts")),
    ("SF", {"BisectBatchOnFunctionError": True}, PARAMETER, UNSUPPORTED.format("BisectBatchOnFunctionError")),
    ("SF", {"TumblingWindowInSeconds": 1}, PARAMETER, UNSUPPORTED.format("TumblingWindowInSeconds")),
    (
        "KDSF",
        {"FunctionResponseTypes": ["Report"]},
        VALIDATION,
        _constraint(
            "Report", "functionResponseTypes", "Member must satisfy enum value set: [ReportBatchItemFailures]"
        ),
    ),
    (
        "KDSF",
        {"FunctionResponseTypes": ["ReportBatchItemFailures"] * 2},
        VALIDATION,
        _constraint(
            "[ReportBatchItemFailures, ReportBatchItemFailures]",
            "functionResponseTypes",
            "Member must have length less than or equal to 1",
        ),
    ),
    ("KDSF", filters(*['{"a": [1]}'] * 6), PARAMETER, "FilterCriteria must have 5 filters or fewer."),
    ("SF", concurrency(1), VALIDATION, below(1, "scalingConfig.maximumConcurrency", 2)),
    ("SF", concurrency(1001), VALIDATION, above(1001, "scalingConfig.maximumConcurrency", 1000)),
    ("KD", concurrency(2), PARAMETER, UNSUPPORTED.format("ScalingConfig")),
    ("S", provisioned(MinimumPollers=1), VALIDATION, below(1, "provisionedPollerConfig.minimumPollers", 2)),
    (
        "S",
        provisioned(MinimumPollers=201),
        VALIDATION,
        above(201, "provisionedPollerConfig.minimumPollers", 200),
    ),
    ("S", provisioned(MaximumPollers=1), VALIDATION, below(1, "provisionedPollerConfig.maximumPollers", 2)),
    (
        "S",
        provisioned(MaximumPollers=10_001),
        VALIDATION,
        above(10_001, "provisionedPollerConfig.maximumPollers", 10_000),
    ),
    (
        "S",
        provisioned(),
        PARAMETER,
        "Either MinimumPollers or MaximumPollers are required if ProvisionedPollerConfig is provided.",
    ),
    (
        "S",
        provisioned(MinimumPollers=3, MaximumPollers=2),
        PARAMETER,
        "MinimumPollers must be less than or equal to MaximumPollers.",
    ),
    (
        "S",
        provisioned(MinimumPollers=2) | concurrency(2),
        PARAMETER,
        "MaximumConcurrency cannot be used together with ProvisionedPollerConfig.",
    ),
    ("KDF", provisioned(MinimumPollers=2), PARAMETER, UNSUPPORTED.format("ProvisionedPollerConfig")),
    (
        "KDSF",
        metrics("Everything"),
        VALIDATION,
        _constraint(
            "Everything",
            "metricsConfig.metrics",
            "Member must satisfy enum value set: [EventCount, ErrorCount, KafkaMetrics]",
        ),
    ),
    (
        "KDSF",
        metrics("KafkaMetrics"),
        PARAMETER,
        "Unsupported metric for given event source mapping type: KafkaMetrics",
    ),
    (
        "KDSF",
        {"Tags": {"a": "b" * 257}},
        VALIDATION,
        _constraint("b" * 79 + "…", "tags", "Member must have length less than or equal to 256"),
    ),
]

INVALID_PATTERNS = [
    "null",
    "word",
    '"text"',
    '{"eventSource": "aws:sqs"}',
    '{"eventSource": []}',
    "{broken",
    "",
    '{"a": [{"numeric": ["<", "x"]}]}',
]


def cases(table: list[Any]) -> list[Any]:
    return [
        pytest.param(source, *row[1:], id=f"{source} {row[1]}"[:120]) for row in table for source in row[0]
    ]


@pytest.mark.parametrize(("source", "fields"), cases(ACCEPTED))
def test_what_aws_takes_is_accepted(source: str, fields: dict[str, Any]) -> None:
    assert violations(mapping(source, **fields), now=NOW) == []


@pytest.mark.parametrize(("source", "fields", "fault", "text"), cases(REFUSED))
def test_what_aws_refuses_is_refused_in_its_words(
    source: str, fields: dict[str, Any], fault: ViolationType, text: str
) -> None:
    found = violations(mapping(source, **fields), now=NOW)
    assert answer(found) == (fault, text)
    assert all(each.remedy for each in found)


@pytest.mark.parametrize("source", "KDSF")
@pytest.mark.parametrize("pattern", INVALID_PATTERNS)
def test_every_bad_pattern_gets_lambdas_one_text(source: str, pattern: str) -> None:
    found = violations(mapping(source, **filters('{"a": [1]}', pattern)), now=NOW)
    assert [(each.fault, each.text) for each in found] == [(PARAMETER, "Invalid filter pattern definition.")]
    assert found[0].field == "FilterCriteria.Filters[1].Pattern"


def test_a_pattern_that_is_too_long_is_refused_before_it_is_read() -> None:
    found = violations(mapping(**filters("x" * 4097)), now=NOW)
    assert [each.fault for each in found] == [VALIDATION]
    assert found[0].message.endswith("Member must have length less than or equal to 4096")


def test_a_file_may_ask_for_one_invocation_at_a_time() -> None:
    assert violations(mapping("S", **concurrency(1)), now=NOW, concurrency_min=1) == []
    assert violations(mapping("S", **concurrency(0)), now=NOW, concurrency_min=1) != []


def test_several_range_errors_come_as_one_text() -> None:
    found = violations(mapping(BatchSize=0, ParallelizationFactor=11), now=NOW)
    assert answer(found) == (
        VALIDATION,
        "2 validation errors detected: "
        "Value '0' at 'batchSize' failed to satisfy constraint: Member must have value greater than or equal to 1; "
        "Value '11' at 'parallelizationFactor' failed to satisfy constraint: "
        "Member must have value less than or equal to 10",
    )


@pytest.mark.parametrize("url", ["file:///var/lib/poller/failed", "https://failed.example.com/orders"])
def test_only_a_file_may_name_a_destination_by_url(url: str) -> None:
    named = mapping(**destination(url))
    text = f"The provided destination config DestinationConfig is invalid: {url}"
    assert [each.text for each in violations(named, now=NOW)] == [text]
    assert violations(named, now=NOW, destination_urls=True) == []
    queue = mapping("S", **destination(url))
    assert [each.field for each in violations(queue, now=NOW, destination_urls=True)] == ["DestinationConfig"]
    failed = mapping(**destination("failed"))
    assert violations(failed, now=NOW, destination_urls=True) == violations(failed, now=NOW) != []


@pytest.mark.parametrize(
    ("destination", "name"),
    [
        (TARGET, "sqs"),
        ("arn:aws:sns:eu-west-1:111122223333:failed", "sns"),
        ("arn:aws:s3:::failed", "s3"),
        ("file:///var/lib/poller/failed", "file"),
        ("http://127.0.0.1:9000/failed", "http"),
        ("https://failed.example.com", "http"),
        ("kafka://topic", "kafka"),
    ],
)
def test_a_destination_names_its_plug_in(destination: str, name: str) -> None:
    assert destination_plugin(destination) == name


@pytest.mark.parametrize("text", ["", "failed", "https:failed", "://failed", "HTTPS://failed", "file://"])
def test_other_texts_name_no_destination(text: str) -> None:
    with pytest.raises(ValueError, match="not an ARN"):
        destination_plugin(text)


def test_ranges_are_checked_first_then_the_source_then_the_destination() -> None:
    everything = mapping("S", BatchSize=11, **destination(TARGET))
    assert [each.field for each in violations(everything, now=NOW)] == ["DestinationConfig", "BatchSize"]
    sourceless = mapping("S", BatchSize=10_001, EventSourceArn=..., **destination(TARGET))
    assert [each.field for each in violations(sourceless, now=NOW)] == ["BatchSize", "EventSourceArn"]
    assert answer(violations(sourceless, now=NOW)) == (VALIDATION, above(10_001, "batchSize", 10_000))


def test_nothing_refused_is_no_answer() -> None:
    assert answer([]) is None


@pytest.mark.parametrize(
    "name",
    [
        "",
        "a b",
        "a" * 65,
        "a:b:c",
        "a:$LATEST.UNPUBLISHED",
        "a:$LATEST.PUBLISHED.1",
        "a:$OLDEST",
        "arn:aws:lambda:eu-west-1:1:function:x",
        "x" * 257,
    ],
)
def test_function_names_that_aws_cannot_mean_are_refused(name: str) -> None:
    found = violations(mapping(FunctionName=name), now=NOW)
    assert [(each.fault, each.field) for each in found] == [(VALIDATION, "FunctionName")]


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("reader", "arn:aws:lambda:eu-west-1:111122223333:function:reader"),
        ("reader:$LATEST", "arn:aws:lambda:eu-west-1:111122223333:function:reader:$LATEST"),
        ("reader:1", "arn:aws:lambda:eu-west-1:111122223333:function:reader:1"),
        ("reader:prod", "arn:aws:lambda:eu-west-1:111122223333:function:reader:prod"),
        (
            "reader:$LATEST.PUBLISHED",
            "arn:aws:lambda:eu-west-1:111122223333:function:reader:$LATEST.PUBLISHED",
        ),
        ("function:reader", "arn:aws:lambda:eu-west-1:111122223333:function:reader"),
        ("999999999999:reader:1", "arn:aws:lambda:eu-west-1:999999999999:function:reader:1"),
        (
            "eusc-de-east-1:999999999999:function:reader",
            "arn:aws:lambda:eusc-de-east-1:999999999999:function:reader",
        ),
        (
            "arn:aws-eusc:lambda:eusc-de-east-1:999999999999:function:reader:$LATEST.PUBLISHED",
            "arn:aws-eusc:lambda:eusc-de-east-1:999999999999:function:reader:$LATEST.PUBLISHED",
        ),
        ("999999999999:function:reader:1", "arn:aws:lambda:eu-west-1:999999999999:function:reader:1"),
        (
            "arn:aws:lambda:us-east-1:999999999999:function:reader",
            "arn:aws:lambda:us-east-1:999999999999:function:reader",
        ),
        (
            "arn:aws-cn:lambda:cn-north-1:999999999999:function:reader:a",
            "arn:aws-cn:lambda:cn-north-1:999999999999:function:reader:a",
        ),
    ],
)
def test_the_function_arn_keeps_the_qualifier_as_given(given: str, expected: str) -> None:
    assert function_arn(mapping(FunctionName=given), {}) == expected


def test_a_configured_arn_stands_for_the_bare_name_only() -> None:
    mine = "arn:aws:lambda:us-east-1:444455556666:function:other"
    known = {"reader": FunctionIdentity(arn=mine, role="arn:aws:iam::444455556666:role/r")}
    assert function_arn(mapping(FunctionName="reader"), known) == mine
    assert function_arn(mapping(FunctionName="reader:7"), known) == f"{mine}:7"
    full = "arn:aws:lambda:eu-west-1:111122223333:function:reader"
    assert function_arn(mapping(FunctionName=full), known) == full
    assert plan(mapping(FunctionName="reader"), known).role_arn == "arn:aws:iam::444455556666:role/r"


@pytest.mark.parametrize(
    ("arn", "kind"),
    [
        (STREAM, SourceKind.KINESIS),
        (CONSUMER, SourceKind.KINESIS),
        (TABLE, SourceKind.DYNAMODB),
        (QUEUE, SourceKind.SQS),
        (FIFO, SourceKind.SQS),
        ("arn:aws-us-gov:sqs:us-gov-west-1:111122223333:orders", SourceKind.SQS),
    ],
)
def test_the_source_arn_says_which_kind_it_is(arn: str, kind: SourceKind) -> None:
    assert source_kind(arn) is kind


@pytest.mark.parametrize(
    "arn",
    [
        "",
        "x",
        "arn:aws:sqs:::orders",
        "arn:aws:kinesis:eu-west-1:111122223333:stream/",
        "arn:aws:sqs:eu-west-1:1:a/b",
    ],
)
def test_other_arns_are_no_sources(arn: str) -> None:
    with pytest.raises(ValueError, match="ARN"):
        source_kind(arn)


def test_a_stream_mapping_has_aws_defaults() -> None:
    found = planned("K")
    assert found == MappingPlan(
        mapping=mapping_id(STREAM, "arn:aws:lambda:eu-west-1:111122223333:function:reader"),
        kind=SourceKind.KINESIS,
        source_arn=STREAM,
        function="reader",
        function_arn="arn:aws:lambda:eu-west-1:111122223333:function:reader",
        batch=BatchPolicy(records_max=100, window_s=0.0),
    )


@pytest.mark.parametrize(("source", "size"), [("K", 100), ("D", 100), ("S", 10), ("F", 10)])
def test_the_default_batch_size_depends_on_the_source(source: str, size: int) -> None:
    assert planned(source).batch.records_max == size


def test_everything_that_is_set_reaches_the_plan() -> None:
    found = planned(
        "K",
        Enabled=False,
        BatchSize=7,
        MaximumBatchingWindowInSeconds=3,
        ParallelizationFactor=4,
        StartingPosition="AT_TIMESTAMP",
        StartingPositionTimestamp=1_700_000_000.5,
        MaximumRecordAgeInSeconds=60,
        MaximumRetryAttempts=0,
        BisectBatchOnFunctionError=True,
        FunctionResponseTypes=["ReportBatchItemFailures"],
        **filters('{"a": [1]}'),
        **destination(TARGET),
    )
    assert found.enabled is False
    assert found.batch == BatchPolicy(records_max=7, window_s=3.0)
    assert found.retry == RetryPolicy(retries_max=0, age_max_s=60.0, bisect=True, report_failures=True)
    assert found.stream.start == Start(since=Epoch(1_700_000_000.5))
    assert (found.stream.lanes, found.filters, found.discard.destination) == (4, ('{"a": [1]}',), TARGET)
    assert planned("D", StartingPosition="LATEST", TumblingWindowInSeconds=9).stream.tumbling_window_s == 9
    assert planned("D", StartingPosition="LATEST").stream.start == Start(latest=True)


@pytest.mark.parametrize(
    ("section", "group"), [(StreamMembers, SourceGroup.STREAMS), (QueueMembers, SourceGroup.QUEUES)]
)
def test_a_section_has_the_members_that_only_its_sources_take(
    section: type[MappingSection], group: SourceGroup
) -> None:
    taken = {each.path for each in requested(RequestKind.BOTH) if each.top and each.sources is group}
    assert set(section.model_fields) == taken


def test_members_of_a_wrong_type_are_reported_in_a_fixed_order() -> None:
    wrong = {name: object() for name in reversed(EventSourceMapping.model_fields)}
    with pytest.raises(ValidationError) as caught:
        EventSourceMapping.model_validate(wrong)
    assert [each["loc"][0] for each in caught.value.errors()] == [
        "FunctionName",
        "EventSourceArn",
        "Enabled",
        "BatchSize",
        "MaximumBatchingWindowInSeconds",
        "ParallelizationFactor",
        "StartingPosition",
        "StartingPositionTimestamp",
        "MaximumRecordAgeInSeconds",
        "MaximumRetryAttempts",
        "BisectBatchOnFunctionError",
        "TumblingWindowInSeconds",
        "DestinationConfig",
        "FunctionResponseTypes",
        "FilterCriteria",
        "ScalingConfig",
        "ProvisionedPollerConfig",
        "MetricsConfig",
        "KMSKeyArn",
        "Tags",
    ]


def test_minus_one_is_no_limit() -> None:
    assert planned(MaximumRetryAttempts=-1, MaximumRecordAgeInSeconds=-1).retry == RetryPolicy()


def test_queue_scaling_reaches_the_plan_with_the_missing_half_filled_in() -> None:
    assert planned("S", **concurrency(5)).scaling == ScalingPolicy(concurrency_max=5)
    assert planned("S", **provisioned(MinimumPollers=3)).scaling == ScalingPolicy(
        provisioned_min=3, provisioned_max=200
    )
    assert planned("S", **provisioned(MaximumPollers=9)).scaling == ScalingPolicy(
        provisioned_min=2, provisioned_max=9
    )


def test_our_own_settings_reach_the_plan() -> None:
    found = plan(
        mapping(), {}, on_destination_failure=OnDestinationFailure.DROP, source_settings={"consumer": "x"}
    )
    assert found.discard.on_destination_failure is OnDestinationFailure.DROP
    assert found.source_settings == {"consumer": "x"}


def test_every_replica_computes_the_same_id_and_qualifiers_differ() -> None:
    assert planned().mapping == planned(BatchSize=3).mapping == "4eb76349-0cb1-5e56-8628-c2bd2eb0589e"
    ids = {planned(FunctionName=name).mapping for name in ("reader", "reader:$LATEST", "reader:1", "other")}
    assert len(ids) == 4


@pytest.mark.parametrize(
    ("field", "value", "held"),
    [
        ("BatchSize", "25", 25),
        ("BatchSize", 25.0, 25),
        ("Enabled", "false", False),
        ("BisectBatchOnFunctionError", "True", True),
        ("StartingPositionTimestamp", "1700000000.5", 1_700_000_000.5),
        ("StartingPositionTimestamp", "2026-01-01T00:00:00Z", 1_767_225_600.0),
        ("StartingPositionTimestamp", "2026-01-01T01:00:00+01:00", 1_767_225_600.0),
        ("StartingPositionTimestamp", "2026-01-01", 1_767_225_600.0),
        ("Tags", [{"Key": "team", "Value": "a"}], {"team": "a"}),
        ("Tags", {"team": "a"}, {"team": "a"}),
    ],
)
def test_cloudformation_spellings_are_understood(field: str, value: object, held: object) -> None:
    assert getattr(mapping(**{field: value}), field) == held


def test_cloudformations_name_of_the_key_is_understood() -> None:
    assert EventSourceMapping.model_validate({"FunctionName": "a", "KmsKeyArn": "k"}).KMSKeyArn == "k"


@pytest.mark.parametrize(
    ("field", "value", "text"),
    [
        ("BatchSize", True, "not a whole number"),
        ("BatchSize", 1.5, "not a whole number"),
        ("BatchSize", "10s", "not a whole number"),
        ("Enabled", 1, "neither true nor false"),
        ("Enabled", "yes", "neither true nor false"),
        ("FunctionName", 123, "not a text"),
        ("FunctionName", {"Fn::GetAtt": ["F", "Arn"]}, "CloudFormation's Fn::GetAtt is not resolved here"),
        ("EventSourceArn", {"Ref": "Stream"}, "CloudFormation's Ref is not resolved here"),
        ("StartingPositionTimestamp", "yesterday", "not a moment"),
        ("StartingPositionTimestamp", 1_767_225_600_000, "not milliseconds"),
        ("StartingPositionTimestamp", float("nan"), "outside the years"),
    ],
)
def test_wrong_types_are_refused_with_the_remedy(field: str, value: object, text: str) -> None:
    with pytest.raises(ValidationError, match=text):
        mapping(**{field: value})


def test_unknown_fields_are_refused() -> None:
    with pytest.raises(ValidationError, match="Extra inputs"):
        mapping(BatchSise=1)


small = st.integers(min_value=-3, max_value=20_000) | st.none()
texts = st.sampled_from(
    [None, "", "reader", TARGET, STREAM, QUEUE, FIFO, "arn:aws:s3:::b", '{"a":[1]}', "x" * 400]
)


@given(
    st.fixed_dictionaries(
        {"FunctionName": st.sampled_from(["reader", "reader:1", "a b", ""])},
        optional={
            "EventSourceArn": st.sampled_from([*SOURCES.values(), CONSUMER, "x"]),
            "BatchSize": small,
            "MaximumBatchingWindowInSeconds": small,
            "ParallelizationFactor": small,
            "StartingPosition": st.sampled_from([*POSITIONS, "x", None]),
            "StartingPositionTimestamp": st.none() | st.floats(0, 4e9),
            "MaximumRecordAgeInSeconds": small,
            "MaximumRetryAttempts": small,
            "BisectBatchOnFunctionError": st.none() | st.booleans(),
            "TumblingWindowInSeconds": small,
            "DestinationConfig": st.builds(lambda text: {"OnFailure": {"Destination": text}}, texts),
            "FilterCriteria": st.builds(lambda text: {"Filters": [{"Pattern": text}]}, texts),
            "ScalingConfig": st.builds(lambda number: {"MaximumConcurrency": number}, small),
            "ProvisionedPollerConfig": st.builds(lambda number: {"MinimumPollers": number}, small),
        },
    )
)
def test_whatever_is_not_refused_has_a_plan_within_aws_ranges(fields: dict[str, Any]) -> None:
    found = EventSourceMapping.model_validate(fields)
    if violations(found, now=NOW):
        return
    made = plan(found, {})
    assert 1 <= made.batch.records_max <= 10_000
    assert 0 <= made.batch.window_s <= 300
    assert 1 <= made.stream.lanes <= 10
    assert not (made.fifo and made.batch.window_s)
    assert made.kind is not SourceKind.SQS or (
        made.discard.destination is None and made.stream.start == Start()
    )
