"""Names and ARNs as the service models allow them, against every place here that reads one.

What the model allows and this project refuses stands below, each with its reason; nothing else is refused.
"""

import re
from collections.abc import Callable, Mapping
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from pydantic import ValidationError

from adapters.control.mappings.paging import ARN_PATTERN, FUNCTION_PATTERN
from adapters.control.openapi.lambda_paths import NAME_PATTERN, SOURCE_PATTERN
from adapters.destinations.events import EventsSettings
from adapters.destinations.function import FunctionSettings
from adapters.destinations.s3 import S3Settings
from adapters.destinations.sns import SnsSettings
from adapters.destinations.sqs import SqsSettings as SqsDestinationSettings
from adapters.invokers.lambda_api import LambdaInvoker
from adapters.invokers.lambda_calls.settings import LambdaSettings
from adapters.sources.dynamodb_streams import DynamoSettings
from adapters.sources.kinesis.plugin import KinesisSettings
from adapters.sources.sqs import SqsSettings
from poller.config.aws_validation import violations
from poller.config.field_types import role_arn
from poller.config.mapping import EventSourceMapping, function_arn, source_kind
from poller.domain.arns import BARE_NAME_CHARS_MAX, Arn, FunctionName
from poller.domain.plan import SourceKind
from poller.domain.records import Epoch
from tests.adapters.service_models import pattern

NOW = Epoch(1_800_000_000.0)
QUEUE = "arn:aws:sqs:eu-west-1:111122223333:orders"
PLACES = [
    ("aws", "eu-west-1"),
    ("aws-cn", "cn-northwest-1"),
    ("aws-us-gov", "us-gov-east-1"),
    ("aws-iso", "us-iso-east-1"),
    ("aws-iso-b", "us-isob-east-1"),
    ("aws-iso-e", "eu-isoe-west-1"),
    ("aws-iso-f", "us-isof-south-1"),
    ("aws-eusc", "eusc-de-east-1"),
]
ACCOUNT = "000000000000"
REFUSED_FUNCTION_NAMES: Mapping[str, Callable[[str], bool]] = {
    "an ARN must be whole: AWS's pattern lets partition, region, account and the word function be absent from one": (
        lambda text: (
            text.startswith("arn:")
            and not re.match(r"arn:aws[a-zA-Z-]*:lambda:[^:]+:[0-9]{12}:function:", text)
        )
    ),
    "no function can be made with a dot in its name: CreateFunction's own pattern has none": (
        lambda text: "." in text.removesuffix(":$LATEST.PUBLISHED")
    ),
    "a function's name has 64 characters at most, in every form": (
        lambda text: _longest(text) > BARE_NAME_CHARS_MAX
    ),
    "a region counts with an account behind it: alone it may be a function's name before its qualifier": (
        lambda text: re.match(r"[a-z-]+-[0-9]:(?![0-9]{12}:)", text) is not None
    ),
}
"""What NamespacedFunctionName allows and we do not read as AWS might, by reason."""


def _longest(text: str) -> int:
    """Characters of the name, or of the qualifier beyond the 128 that an alias may have."""
    parts = re.sub(r":(\$LATEST(\.PUBLISHED)?)$", "", text).split(":")
    return max(map(len, parts))


def names() -> st.SearchStrategy[str]:
    shape = pattern("lambda", "NamespacedFunctionName")
    return st.from_regex(re.compile(shape, re.ASCII), fullmatch=True).filter(lambda text: len(text) <= 256)


def reason(text: str) -> str | None:
    return next((why for why, refused in REFUSED_FUNCTION_NAMES.items() if refused(text)), None)


def told(text: str, **members: Any) -> list[str]:
    mapping = EventSourceMapping.model_validate({"FunctionName": text, "EventSourceArn": QUEUE} | members)
    return [each.field for each in violations(mapping, now=NOW)]


@given(names())
def test_every_function_name_of_the_model_is_read_or_is_refused_for_a_reason_that_is_listed(
    text: str,
) -> None:
    if reason(text) is not None:
        return
    assert told(text) == []
    arn = function_arn(EventSourceMapping(FunctionName=text, EventSourceArn=QUEUE), {})
    assert FunctionName.parse(arn).arn(Arn.parse(QUEUE)) == arn, "an ARN stands for itself"
    assert arn.endswith(
        ":" + text.removeprefix("arn:").split(":function:")[-1].removeprefix("function:").split(":")[-1]
    )


@pytest.mark.parametrize("qualifier", ["", ":$LATEST", ":$LATEST.PUBLISHED", ":1", ":" + "a" * 128])
@pytest.mark.parametrize(("partition", "region"), PLACES)
def test_a_function_of_every_partition_keeps_name_region_and_qualifier(
    partition: str, region: str, qualifier: str
) -> None:
    arn = f"arn:{partition}:lambda:{region}:{ACCOUNT}:function:{'n' * BARE_NAME_CHARS_MAX}{qualifier}"
    assert told(arn) == []
    assert function_arn(EventSourceMapping(FunctionName=arn, EventSourceArn=QUEUE), {}) == arn
    assert re.fullmatch(NAME_PATTERN, arn)
    assert re.fullmatch(FUNCTION_PATTERN, arn)


@given(
    st.from_regex(
        re.compile(pattern("lambda", "NumericLatestPublishedOrAliasQualifier"), re.ASCII), fullmatch=True
    )
)
def test_every_qualifier_of_the_model_can_be_an_invokers_setting(text: str) -> None:
    # The pattern has a dollar anywhere, which neither a version nor an alias can have.
    assume(len(text) <= 128 and ("$" not in text or text in {"$LATEST", "$LATEST.PUBLISHED"}))
    assert LambdaSettings(function="f", qualifier=text).qualifier == text


def test_the_latest_published_version_is_passed_to_invoke_as_it_is() -> None:
    invoker = LambdaInvoker(LambdaSettings(function="f", qualifier="$LATEST.PUBLISHED"), env=None)  # type: ignore[arg-type] # not asked
    bare = f"arn:aws:lambda:eu-west-1:{ACCOUNT}:function:f"
    assert invoker.qualifier(bare) == {"Qualifier": "$LATEST.PUBLISHED"}
    assert invoker.qualifier(bare + ":$LATEST.PUBLISHED") == {}


SOURCES = [
    ("kinesis", "stream/" + "s" * 128, SourceKind.KINESIS, KinesisSettings),
    ("kinesis", "stream/a_b.c-D0", SourceKind.KINESIS, KinesisSettings),
    (
        "dynamodb",
        "table/" + "t" * 255 + "/stream/2026-01-01T00:00:00.000",
        SourceKind.DYNAMODB,
        DynamoSettings,
    ),
    ("dynamodb", "table/a.b/stream/2026-01-01T00:00:00.000", SourceKind.DYNAMODB, DynamoSettings),
    ("sqs", "q" * 80, SourceKind.SQS, SqsSettings),
    ("sqs", "q" * 75 + ".fifo", SourceKind.SQS, SqsSettings),
]


@pytest.mark.parametrize(("service", "resource", "kind", "settings"), SOURCES)
@pytest.mark.parametrize(("partition", "region"), PLACES)
def test_a_source_of_every_partition_is_read(
    partition: str, region: str, service: str, resource: str, kind: SourceKind, settings: Any
) -> None:
    arn = f"arn:{partition}:{service}:{region}:{ACCOUNT}:{resource}"
    assert source_kind(arn) is kind
    assert settings(arn=arn).arn == arn
    assert re.fullmatch(ARN_PATTERN, arn)
    assert re.fullmatch(pattern("lambda", "Arn"), arn)
    assert re.fullmatch(SOURCE_PATTERN, arn)
    position = {} if kind is SourceKind.SQS else {"StartingPosition": "LATEST"}
    assert told("f", EventSourceArn=arn, **position) == []


@pytest.mark.parametrize(("partition", "region"), PLACES)
def test_a_destination_of_every_partition_is_taken(partition: str, region: str) -> None:
    arns: dict[str, Any] = {
        f"arn:{partition}:sqs:{region}:{ACCOUNT}:{'q' * 80}": SqsDestinationSettings,
        f"arn:{partition}:sns:{region}:{ACCOUNT}:{'t' * 256}": SnsSettings,
        f"arn:{partition}:s3:::{'b' * 63}": S3Settings,
        f"arn:{partition}:s3:::Old_Bucket.1": S3Settings,
    }
    for arn, settings in arns.items():
        stream = f"arn:{partition}:kinesis:{region}:{ACCOUNT}:stream/s"
        failed = {"DestinationConfig": {"OnFailure": {"Destination": arn}}}
        assert settings(arn=arn).arn == arn
        assert re.fullmatch(pattern("lambda", "DestinationArn"), arn)
        assert told("f", EventSourceArn=stream, StartingPosition="LATEST", **failed) == []


@pytest.mark.parametrize("qualifier", ["", ":$LATEST", ":7", ":" + "a" * 128])
@pytest.mark.parametrize(("partition", "region"), PLACES)
def test_a_bus_or_function_of_every_partition_is_a_destination_of_calls(
    partition: str, region: str, qualifier: str
) -> None:
    function = f"arn:{partition}:lambda:{region}:{ACCOUNT}:function:{'n' * BARE_NAME_CHARS_MAX}{qualifier}"
    bus = f"arn:{partition}:events:{region}:{ACCOUNT}:event-bus/{'b' * 251}_.-A0"
    for arn in (function, bus):
        settings = FunctionSettings if arn == function else EventsSettings
        assert settings(arn=arn).arn == arn
        assert re.fullmatch(pattern("lambda", "DestinationArn"), arn)
    assert re.fullmatch(pattern("events", "NonPartnerEventBusNameOrArn"), bus)


@given(st.from_regex(re.compile(pattern("kinesis", "StreamARN"), re.ASCII), fullmatch=True))
def test_a_stream_of_the_model_is_read_when_its_parts_are_texts_that_aws_makes(text: str) -> None:
    """The model's pattern has `.*` for partition and region and any name; ours asks for letters, digits and `_.-`."""
    parts = text.split(":", 5)
    plain = (
        len(parts) == 6
        and re.fullmatch(r"aws[a-zA-Z0-9-]*", parts[1])
        and re.fullmatch("[a-z0-9-]+", parts[3])
    )
    if not (plain and parts[2] == "kinesis" and re.fullmatch(r"stream/[A-Za-z0-9_.-]{1,128}", parts[5])):
        with pytest.raises(ValidationError):
            KinesisSettings(arn=text)
        return
    assert source_kind(text) is SourceKind.KINESIS
    assert KinesisSettings(arn=text).arn == text


@given(st.from_regex(re.compile(pattern("lambda", "RoleArn"), re.ASCII), fullmatch=True))
def test_every_role_of_the_model_is_taken_unless_its_partition_is_empty(text: str) -> None:
    assume(not text.startswith("arn::"))
    assert role_arn(text) == text


def test_the_patterns_that_our_texts_show_are_those_of_the_model() -> None:
    assert pattern("lambda", "NamespacedFunctionName") == FUNCTION_PATTERN
    assert pattern("lambda", "Arn") == ARN_PATTERN
