"""Owns the event source mapping as users write it: AWS's field names and types, and how it becomes a plan.

The rules between the fields are in `poller.refusals`; here is only what can be said of one field's type.
"""

import math
import re
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Annotated, Any

from pydantic import AliasChoices, BaseModel, BeforeValidator, ConfigDict, Field

from poller.arns import Arn, FunctionName
from poller.plan import MappingPlan, OnDestinationFailure, SourceKind, Start
from poller.records import Epoch, MappingId
from poller.rules.policies import BatchPolicy, QueuePolicy, RetryPolicy, ScalingPolicy

BATCH_STREAM = 100
BATCH_QUEUE = 10
PROVISIONED_MIN = 2
PROVISIONED_MAX = 200
UNLIMITED = -1
"""AWS's word for no limit of retries or age."""

_DEFAULTS: Mapping[str, Any] = {
    "Enabled": True,
    "MaximumBatchingWindowInSeconds": 0,
    "FunctionResponseTypes": [],
}
_QUEUE_DEFAULTS: Mapping[str, Any] = {**_DEFAULTS, "BatchSize": BATCH_QUEUE}
_STREAM_DEFAULTS: Mapping[str, Any] = {
    **_DEFAULTS,
    "BatchSize": BATCH_STREAM,
    "ParallelizationFactor": 1,
    "MaximumRecordAgeInSeconds": UNLIMITED,
    "MaximumRetryAttempts": UNLIMITED,
    "BisectBatchOnFunctionError": False,
    "TumblingWindowInSeconds": 0,
    "DestinationConfig": {"OnFailure": {}},
}
_WHOLE = re.compile(r"[-+]?\d{1,18}")
_NUMBER = re.compile(r"\d{1,12}(\.\d{1,9})?")
_YEAR_9999 = 253_402_300_799
_INTRINSIC = re.compile(r"Fn::\w+|Ref|Condition")


def _whole(value: object) -> object:
    """CloudFormation takes numbers in quotes too; true and 1.5 are no numbers of things."""
    if isinstance(value, str) and _WHOLE.fullmatch(value):
        return int(value)
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, bool) or not isinstance(value, int | None):
        raise ValueError("not a whole number; write digits, without unit")
    return value


def _flag(value: object) -> object:
    """CloudFormation takes "true" in quotes too."""
    if isinstance(value, str) and value.lower() in {"true", "false"}:
        return value.lower() == "true"
    if not isinstance(value, bool | None):
        raise ValueError("neither true nor false; write one of them")
    return value


def _text(value: object) -> object:
    """Names what people paste where a text belongs: CloudFormation's functions, numbers that lost their quotes."""
    if isinstance(value, dict) and len(value) == 1:
        name = str(next(iter(value)))
        if _INTRINSIC.fullmatch(name):
            raise ValueError(f"CloudFormation's {name} is not resolved here; write the value itself")
    if not isinstance(value, str | None):
        raise ValueError("not a text; put it in quotes")
    return value


def _moment(value: object) -> object:
    """Epoch seconds from a number, its text, or ISO 8601 (UTC unless it has an offset)."""
    if isinstance(value, str):
        value = float(value) if _NUMBER.fullmatch(value) else _from_iso(value)
    if isinstance(value, bool) or not isinstance(value, int | float | None):
        raise ValueError("not a moment; write epoch seconds or 2026-01-31T12:00:00Z")
    if value is not None and not (math.isfinite(value) and 0 <= value <= _YEAR_9999):
        raise ValueError("outside the years 1970 to 9999; write epoch seconds, not milliseconds")
    return value


def _from_iso(text: str) -> float:
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise ValueError("not a moment; write epoch seconds or 2026-01-31T12:00:00Z") from None
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()


def _tags(value: object) -> object:
    """CloudFormation has a list of Key and Value where the API has an object."""
    if isinstance(value, list) and all(
        isinstance(item, dict) and set(item) == {"Key", "Value"} for item in value
    ):
        return {item["Key"]: item["Value"] for item in value if isinstance(item["Key"], str)}
    return value


type Whole = Annotated[int, BeforeValidator(_whole)]
type Flag = Annotated[bool, BeforeValidator(_flag)]
type Text = Annotated[str, BeforeValidator(_text)]
type Moment = Annotated[float, BeforeValidator(_moment)]


class Part(BaseModel):
    """What all parts of a mapping have in common: unknown fields are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Filter(Part):
    """One filter; `Pattern` is JSON text."""

    Pattern: Text | None = None


class Criteria(Part):
    """Filters, of which any may match; empty means no filter."""

    Filters: tuple[Filter, ...] | None = None


class Target(Part):
    """Where a notice goes; an empty text is no destination."""

    Destination: Text | None = None


class Destinations(Part):
    """Only OnFailure is supported, as for every event source mapping; OnSuccess is here to be refused in AWS's words."""

    OnFailure: Target | None = None
    OnSuccess: Target | None = None


class Scaling(Part):
    """The cap of concurrent invocations of a queue mapping."""

    MaximumConcurrency: Whole | None = None


class Provisioned(Part):
    """The pollers of a queue mapping in provisioned mode."""

    MinimumPollers: Whole | None = None
    MaximumPollers: Whole | None = None


class Metrics(Part):
    """Which opt-in metrics there are; here they are always on."""

    Metrics: tuple[Text, ...] | None = None


class EventSourceMapping(Part):
    """One mapping in AWS's own names (spec 2); None stands for a field that was not given.

    A valid instance has the right types, no more: `poller.refusals` says what AWS would refuse.
    """

    FunctionName: Text
    EventSourceArn: Text | None = None
    Enabled: Flag | None = None
    BatchSize: Whole | None = None
    MaximumBatchingWindowInSeconds: Whole | None = None
    ParallelizationFactor: Whole | None = None
    StartingPosition: Text | None = None
    StartingPositionTimestamp: Moment | None = None
    MaximumRecordAgeInSeconds: Whole | None = None
    MaximumRetryAttempts: Whole | None = None
    BisectBatchOnFunctionError: Flag | None = None
    TumblingWindowInSeconds: Whole | None = None
    DestinationConfig: Destinations | None = None
    FunctionResponseTypes: tuple[Text, ...] | None = None
    FilterCriteria: Criteria | None = None
    ScalingConfig: Scaling | None = None
    ProvisionedPollerConfig: Provisioned | None = None
    MetricsConfig: Metrics | None = None
    KMSKeyArn: Text | None = Field(default=None, validation_alias=AliasChoices("KMSKeyArn", "KmsKeyArn"))
    Tags: Annotated[dict[Text, Text], BeforeValidator(_tags)] | None = None

    @property
    def patterns(self) -> tuple[str, ...]:
        """The filters' patterns, in order."""
        filters = (self.FilterCriteria.Filters if self.FilterCriteria else None) or ()
        return tuple(each.Pattern or "" for each in filters)

    @property
    def destination(self) -> str | None:
        """ARN of the on-failure destination, if there is one."""
        failure = self.DestinationConfig.OnFailure if self.DestinationConfig else None
        return (failure.Destination or None) if failure else None


@dataclass(frozen=True, slots=True)
class FunctionIdentity:
    """How a configured function is called in events and documents: its unqualified ARN (None: built) and role ARN."""

    arn: str | None = None
    role: str = ""


def as_written(mapping: EventSourceMapping) -> dict[str, Any]:
    """What was given, in AWS's names and plain JSON values; what is empty and means nothing is left out."""
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
    """What was given with every default of spec section 2 filled in, in AWS's names and plain JSON values."""
    written = as_written(mapping)
    if source_kind(mapping.EventSourceArn or "") is SourceKind.SQS:
        provisioned = {"MinimumPollers": PROVISIONED_MIN, "MaximumPollers": PROVISIONED_MAX}
        pollers = written.get("ProvisionedPollerConfig")
        more = {"ProvisionedPollerConfig": provisioned | pollers} if pollers else {}
        return {**_QUEUE_DEFAULTS, **written, **more}
    return {**_STREAM_DEFAULTS, **written}


def source_kind(arn: str) -> SourceKind:
    """Kind of source that an ARN names; raises ValueError for anything but a stream, a consumer or a queue."""
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
    """The function's ARN with the qualifier as given (spec 10.4).

    A full ARN stays as it is; else the configured ARN counts, else region and account are the source's.
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
    source_settings: Mapping[str, Any] | None = None,
    queue: QueuePolicy | None = None,
) -> MappingPlan:
    """The plan of a mapping that `refusals` has nothing against, with the defaults of spec section 2."""
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
        start=_start(mapping),
        batch=_batch(mapping, kind),
        retry=_retry(mapping),
        scaling=_scaling(mapping),
        lanes=mapping.ParallelizationFactor or 1,
        tumbling_window_s=mapping.TumblingWindowInSeconds or 0,
        filters=mapping.patterns,
        destination=mapping.destination,
        on_destination_failure=on_destination_failure,
        source_settings=dict(source_settings or {}),
        queue=queue or QueuePolicy(),
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
    default = BATCH_QUEUE if kind is SourceKind.SQS else BATCH_STREAM
    return BatchPolicy(
        records_max=mapping.BatchSize or default, window_s=float(mapping.MaximumBatchingWindowInSeconds or 0)
    )


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
