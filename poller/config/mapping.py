"""Owns the event source mapping as users write it: AWS's member names and types, and how it becomes a plan.

This module checks the type of each member. The rules between members are in `poller.config.aws_validation`.
"""

import math
import re
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Annotated, Any

from pydantic import AfterValidator, AliasChoices, BaseModel, BeforeValidator, ConfigDict, Field

from poller.config.members import (
    MOMENT_S_MAX,
    PROVISIONED_MAX,
    PROVISIONED_MIN,
    UNLIMITED,
    SourceGroup,
    default,
    few_entries,
    with_defaults,
)
from poller.config_errors.hints import INTRINSIC
from poller.domain.arns import Arn, FunctionName
from poller.domain.plan import (
    DiscardPolicy,
    MappingPlan,
    OnDestinationFailure,
    SourceKind,
    Start,
    StreamPolicy,
)
from poller.domain.policies import BatchPolicy, QueuePolicy, RetryPolicy, ScalingPolicy
from poller.domain.records import Epoch, MappingId

LISTED_CHARS_MAX = 80
_WHOLE = re.compile(r"[-+]?\d{1,18}")
_NUMBER = re.compile(r"\d{1,12}(\.\d{1,9})?")


def _refuse_intrinsic(value: object) -> None:
    """Refuses CloudFormation's functions in their long form, which people paste from templates, with an error that names them."""
    if isinstance(value, dict) and len(value) == 1:
        name = str(next(iter(value)))
        if INTRINSIC.fullmatch(name):
            raise ValueError(f"CloudFormation's {name} is not resolved here; write the value itself")


def _whole(value: object) -> object:
    """Accepts numbers in quotes, as CloudFormation does. Refuses true and 1.5, which are not whole numbers."""
    _refuse_intrinsic(value)
    if isinstance(value, str) and _WHOLE.fullmatch(value):
        return int(value)
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, bool) or not isinstance(value, int | None):
        raise ValueError("not a whole number; write digits, without unit")
    return value


def _flag(value: object) -> object:
    """Accepts "true" in quotes, as CloudFormation does."""
    _refuse_intrinsic(value)
    if isinstance(value, str) and value.lower() in {"true", "false"}:
        return value.lower() == "true"
    if not isinstance(value, bool | None):
        raise ValueError("neither true nor false; write one of them")
    return value


def _text(value: object) -> object:
    """Refuses what people write by mistake where a text belongs: CloudFormation's functions, and numbers without quotes."""
    _refuse_intrinsic(value)
    if not isinstance(value, str | None):
        raise ValueError("not a text; put it in quotes")
    return value


def _pattern(value: object) -> object:
    """Refuses a pattern that is written as YAML. It must be JSON text."""
    if isinstance(value, dict):
        _refuse_intrinsic(value)
        raise ValueError("not a text; write the pattern as JSON text, in quotes")
    return _text(value)


def _listed(value: object) -> object:
    """Refuses a text in place of a list of one, with an error that shows the brackets."""
    _refuse_intrinsic(value)
    if isinstance(value, str):
        raise ValueError(f"not a list; write [{value[:LISTED_CHARS_MAX]}]")
    return few_entries(value)


def _none_if_empty(text: str | None) -> str | None:
    return text or None


def _moment(value: object) -> object:
    """Epoch seconds from a number, a number in quotes, or ISO 8601 (UTC unless it has an offset)."""
    _refuse_intrinsic(value)
    if isinstance(value, str):
        value = float(value) if _NUMBER.fullmatch(value) else _from_iso(value)
    if isinstance(value, bool) or not isinstance(value, int | float | None):
        raise ValueError("not a moment; write epoch seconds or 2026-01-31T12:00:00Z")
    if value is not None and not (math.isfinite(value) and 0 <= value <= MOMENT_S_MAX):
        raise ValueError("outside the years 1970 to 9999; write epoch seconds, not milliseconds")
    return value


def _from_iso(text: str) -> float:
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise ValueError("not a moment; write epoch seconds or 2026-01-31T12:00:00Z") from None
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()


def _tags(value: object) -> object:
    """Accepts CloudFormation's list of Key and Value, in addition to the API's object."""
    value = few_entries(value)
    if isinstance(value, list) and all(
        isinstance(item, dict) and set(item) == {"Key", "Value"} for item in value
    ):
        return {item["Key"]: item["Value"] for item in value if isinstance(item["Key"], str)}
    return value


type Whole = Annotated[int, BeforeValidator(_whole)]
type Flag = Annotated[bool, BeforeValidator(_flag)]
type MappingText = Annotated[str, BeforeValidator(_text)]
type MappingTexts = Annotated[tuple[MappingText, ...], BeforeValidator(_listed)]
type StartMoment = Annotated[float, BeforeValidator(_moment)]


class MappingSection(BaseModel):
    """Base of the parts of a mapping: unknown fields are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class FilterSetting(MappingSection):
    """One filter; `Pattern` is JSON text."""

    Pattern: Annotated[str | None, BeforeValidator(_pattern)] = None


class Criteria(MappingSection):
    """Filters. A record passes if any of them matches; without filters every record passes."""

    Filters: Annotated[tuple[FilterSetting, ...] | None, BeforeValidator(few_entries)] = None


class DestinationSetting(MappingSection):
    """Where notices go. An empty text means no destination."""

    Destination: MappingText | None = None


class Destinations(MappingSection):
    """Only OnFailure is supported, as on AWS. OnSuccess is a field so that it can be refused with AWS's text."""

    OnFailure: DestinationSetting | None = None
    OnSuccess: DestinationSetting | None = None


class ScalingSetting(MappingSection):
    """The limit of concurrent invocations of a queue mapping."""

    MaximumConcurrency: Whole | None = None


class Provisioned(MappingSection):
    """The pollers of a queue mapping in provisioned mode. PollerGroupName is for Kafka; it is a field so that it can be refused."""

    MinimumPollers: Whole | None = None
    MaximumPollers: Whole | None = None
    PollerGroupName: Annotated[MappingText | None, AfterValidator(_none_if_empty)] = None


class Metrics(MappingSection):
    """The opt-in metrics. The member is accepted, but in this daemon the metrics are always on."""

    Metrics: MappingTexts | None = None


class SourceMembers(MappingSection):
    """Which function reads which source, and how many records a batch has."""

    FunctionName: MappingText
    EventSourceArn: MappingText | None = None
    Enabled: Flag | None = None
    BatchSize: Whole | None = None
    MaximumBatchingWindowInSeconds: Whole | None = None


class StreamMembers(MappingSection):
    """The members that only mappings of streams may have."""

    ParallelizationFactor: Whole | None = None
    StartingPosition: MappingText | None = None
    StartingPositionTimestamp: StartMoment | None = None
    MaximumRecordAgeInSeconds: Whole | None = None
    MaximumRetryAttempts: Whole | None = None
    BisectBatchOnFunctionError: Flag | None = None
    TumblingWindowInSeconds: Whole | None = None
    DestinationConfig: Destinations | None = None

    @property
    def destination(self) -> str | None:
        """ARN of the on-failure destination, if there is one."""
        failure = self.DestinationConfig.OnFailure if self.DestinationConfig else None
        return (failure.Destination or None) if failure else None


class ResponseMembers(MappingSection):
    """Which records the function gets, and how it reports failures."""

    FunctionResponseTypes: MappingTexts | None = None
    FilterCriteria: Criteria | None = None

    @property
    def patterns(self) -> tuple[str, ...]:
        """The filters' patterns, in order."""
        filters = (self.FilterCriteria.Filters if self.FilterCriteria else None) or ()
        return tuple(each.Pattern or "" for each in filters)


class QueueMembers(MappingSection):
    """The members that only mappings of queues may have."""

    ScalingConfig: ScalingSetting | None = None
    ProvisionedPollerConfig: Provisioned | None = None


class EventSourceMapping(QueueMembers, ResponseMembers, StreamMembers, SourceMembers):
    """One mapping, with AWS's member names (aws-behaviour#members-and-defaults). None means that a member was not given.

    A valid instance has the right types only. `poller.config.aws_validation` finds what AWS would refuse. Members are checked
    from the last base to the first, and then those of this class.
    """

    MetricsConfig: Metrics | None = None
    KMSKeyArn: MappingText | None = Field(
        default=None, validation_alias=AliasChoices("KMSKeyArn", "KmsKeyArn")
    )
    Tags: Annotated[dict[MappingText, MappingText], BeforeValidator(_tags)] | None = None


@dataclass(frozen=True, slots=True)
class FunctionIdentity:
    """How events and documents refer to a configured function: by its unqualified ARN (None: built from the source's) and role ARN."""

    arn: str | None = None
    role: str = ""


def as_written(mapping: EventSourceMapping) -> dict[str, Any]:
    """The given members, in AWS's names and plain JSON values. Empty values without a meaning are left out."""
    found = mapping.model_dump(mode="json", exclude_none=True, include=set(EventSourceMapping.model_fields))
    meanings = {
        "FilterCriteria": bool(mapping.patterns),
        "DestinationConfig": mapping.destination is not None,
        "KMSKeyArn": bool(mapping.KMSKeyArn),
        **{
            name: bool(found.get(name))
            for name in ("ScalingConfig", "ProvisionedPollerConfig", "MetricsConfig")
        },
    }
    return {name: value for name, value in found.items() if meanings.get(name, True)}


def as_shown(mapping: EventSourceMapping) -> dict[str, Any]:
    """The given members and all defaults (aws-behaviour#members-and-defaults), with AWS's names and plain JSON values."""
    return with_defaults(as_written(mapping), source_group(source_kind(mapping.EventSourceArn or "")))


def source_group(kind: SourceKind) -> SourceGroup:
    """The group of members that such a source takes."""
    return SourceGroup.QUEUES if kind is SourceKind.SQS else SourceGroup.STREAMS


def source_kind(arn: str) -> SourceKind:
    """The kind of source that an ARN names (aws-behaviour#event-source-arn). Raises ValueError for other ARNs."""
    parsed = Arn.parse(arn)
    if not (parsed.region and parsed.account):
        raise ValueError("the ARN has no region or no account")
    match parsed.service, parsed.resource.split("/"):
        case "kinesis", ["stream", name] if name:
            return SourceKind.KINESIS
        case "kinesis", ["stream", name, "consumer", consumer] if name and consumer:
            return SourceKind.KINESIS
        case "dynamodb", ["table", name, "stream", label] if name and label:
            return SourceKind.DYNAMODB
        case "sqs", [name] if name and ":" not in name:
            return SourceKind.SQS
        case "dynamodb", ["table", *_]:
            raise ValueError("this is a table; write the ARN of its stream (LatestStreamArn)")
        case _:
            raise ValueError("write the ARN of a Kinesis stream, a DynamoDB stream or an SQS queue")


def function_arn(mapping: EventSourceMapping, functions: Mapping[str, FunctionIdentity]) -> str:
    """The function's ARN, with the qualifier as given (aws-behaviour#function-arn).

    A full ARN is returned unchanged. Otherwise the configured ARN is used, and without one the source's region and account.
    """
    name = FunctionName.parse(mapping.FunctionName)
    given = functions.get(name.name, FunctionIdentity()).arn
    if given is None or name.region:
        return name.arn(Arn.parse(mapping.EventSourceArn or ""))
    return f"{given}:{name.qualifier}" if name.qualifier else given


def mapping_id(source_arn: str, function: str) -> MappingId:
    """The id that every replica computes for one source and one function ARN."""
    return MappingId(str(uuid.uuid5(uuid.NAMESPACE_URL, f"{source_arn}\n{function}")))


def plan(
    mapping: EventSourceMapping,
    functions: Mapping[str, FunctionIdentity],
    *,
    identity: MappingId | None = None,
    on_destination_failure: OnDestinationFailure = OnDestinationFailure.KEEP,
    include_payload: bool = False,
    payload_prefix: str | None = None,
    source_settings: Mapping[str, Any] | None = None,
    queue: QueuePolicy | None = None,
) -> MappingPlan:
    """The plan of a mapping, with defaults filled in. The mapping must have no violations (`poller.config.aws_validation`)."""
    source_arn = mapping.EventSourceArn or ""
    kind = source_kind(source_arn)
    name = FunctionName.parse(mapping.FunctionName).name
    arn = function_arn(mapping, functions)
    return MappingPlan(
        mapping=identity or mapping_id(source_arn, arn),
        kind=kind,
        source_arn=source_arn,
        function=name,
        function_arn=arn,
        role_arn=functions.get(name, FunctionIdentity()).role,
        enabled=mapping.Enabled is not False,
        batch=_batch(mapping, kind),
        retry=_retry(mapping),
        stream=_stream(mapping),
        discard=DiscardPolicy(mapping.destination, on_destination_failure, include_payload, payload_prefix),
        scaling=_scaling(mapping),
        filters=mapping.patterns,
        source_settings=dict(source_settings or {}),
        queue=queue or QueuePolicy(),
    )


def _stream(mapping: EventSourceMapping) -> StreamPolicy:
    return StreamPolicy(
        start=_start(mapping),
        lanes=mapping.ParallelizationFactor or 1,
        tumbling_window_s=mapping.TumblingWindowInSeconds or 0,
    )


def _start(mapping: EventSourceMapping) -> Start:
    match mapping.StartingPosition:
        case "LATEST":
            return Start(latest=True)
        case "AT_TIMESTAMP":
            return Start(since=Epoch(mapping.StartingPositionTimestamp or 0.0))
        case _:
            return Start()


def _batch(mapping: EventSourceMapping, kind: SourceKind) -> BatchPolicy:
    size = mapping.BatchSize or default("BatchSize", source_group(kind))
    return BatchPolicy(records_max=size, window_s=float(mapping.MaximumBatchingWindowInSeconds or 0))


def _retry(mapping: EventSourceMapping) -> RetryPolicy:
    retries, age = mapping.MaximumRetryAttempts, mapping.MaximumRecordAgeInSeconds
    return RetryPolicy(
        retries_max=None if retries in {None, UNLIMITED} else retries,
        age_max_s=None if age is None or age == UNLIMITED else float(age),
        bisect=bool(mapping.BisectBatchOnFunctionError),
        report_failures=bool(mapping.FunctionResponseTypes),
    )


def _scaling(mapping: EventSourceMapping) -> ScalingPolicy:
    cap = mapping.ScalingConfig.MaximumConcurrency if mapping.ScalingConfig else None
    provisioned = mapping.ProvisionedPollerConfig
    if provisioned is None:
        return ScalingPolicy(concurrency_max=cap)
    return ScalingPolicy(
        concurrency_max=cap,
        provisioned_min=provisioned.MinimumPollers or PROVISIONED_MIN,
        provisioned_max=provisioned.MaximumPollers or PROVISIONED_MAX,
    )
