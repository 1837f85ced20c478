"""Owns what AWS refuses in a mapping: ranges and rules between fields, in AWS's words and order (spec 2, 9.4, 10.6).

The checks look at a whole mapping, so that they serve a new one and one that an update was merged into alike. Where AWS's
text is not known, the text is ours, in the manner of its neighbours.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import StrEnum

from poller.arns import FUNCTION_NAME_CHARS_MAX, Arn, FunctionName
from poller.mapping import PROVISIONED_MAX, PROVISIONED_MIN, EventSourceMapping, source_kind
from poller.plan import SourceKind, url_scheme
from poller.records import Epoch
from poller.rules.filtering import InvalidPattern, compile_pattern

CONCURRENCY_MIN = 2
"""AWS's least MaximumConcurrency; the configuration file allows 1, which is strictly serial."""
BATCH_WITHOUT_WINDOW_MAX = 10
BATCH_FIFO_MAX = 10
FILTERS_MAX = 5
PATTERN_CHARS_MAX = 4096
ARN_CHARS_MAX = 10_000
DESTINATION_CHARS_MAX = 350
RESPONSE_TYPES_MAX = 1
METRICS_MAX = 3
AGE_MIN_S = 60
TAG_KEY_CHARS_MAX = 128
TAG_VALUE_CHARS_MAX = 256
POSITIONS = ("LATEST", "AT_TIMESTAMP", "TRIM_HORIZON")
RESPONSE_TYPES = ("ReportBatchItemFailures",)
METRICS = ("EventCount", "ErrorCount", "KafkaMetrics")

_RANGES = {
    "BatchSize": (1, 10_000),
    "MaximumBatchingWindowInSeconds": (0, 300),
    "ParallelizationFactor": (1, 10),
    "MaximumRecordAgeInSeconds": (-1, 604_800),
    "MaximumRetryAttempts": (-1, 10_000),
    "TumblingWindowInSeconds": (0, 900),
    "ScalingConfig.MaximumConcurrency": (CONCURRENCY_MIN, 1_000),
    "ProvisionedPollerConfig.MinimumPollers": (PROVISIONED_MIN, 200),
    "ProvisionedPollerConfig.MaximumPollers": (PROVISIONED_MIN, 10_000),
}
_STREAM_ONLY = (
    "ParallelizationFactor",
    "MaximumRecordAgeInSeconds",
    "MaximumRetryAttempts",
    "BisectBatchOnFunctionError",
    "TumblingWindowInSeconds",
)
_STREAM_POSITIONS = "write TRIM_HORIZON or LATEST"


class Fault(StrEnum):
    """AWS's exception for a refused parameter."""

    PARAMETER = "InvalidParameterValueException"
    VALIDATION = "ValidationException"


@dataclass(frozen=True, slots=True)
class Refusal:
    """One thing that AWS would refuse.

    `field` is the path in AWS's names, `text` AWS's text (of a VALIDATION refusal: the constraint without its
    heading), `remedy` what to do instead, for people who write a file.
    """

    fault: Fault
    field: str
    text: str
    remedy: str

    @property
    def message(self) -> str:
        """AWS's whole text for this refusal alone."""
        return _headed([self.text]) if self.fault is Fault.VALIDATION else self.text


def answer(refusals: list[Refusal]) -> tuple[Fault, str] | None:
    """What AWS's API says: all range errors in one text, else the first refusal; None if there is none."""
    constraints = [each.text for each in refusals if each.fault is Fault.VALIDATION]
    if constraints:
        return Fault.VALIDATION, _headed(constraints)
    return (refusals[0].fault, refusals[0].text) if refusals else None


def refusals(
    mapping: EventSourceMapping,
    *,
    now: Epoch,
    concurrency_min: int = CONCURRENCY_MIN,
    destination_urls: bool = False,
) -> list[Refusal]:
    """All that AWS would refuse without looking at the function or the source, in AWS's order as far as it is proven.

    `now` in epoch seconds bounds StartingPositionTimestamp. With `destination_urls` a destination may be a URL, which its
    plug-in checks.
    """
    found = [*_constraints(mapping, concurrency_min)]
    try:
        kind = source_kind(mapping.EventSourceArn or "")
    except ValueError as error:
        return [*found, _unrecognized(mapping, str(error))]
    by_url = destination_urls and url_scheme(mapping.destination or "") is not None
    checks = [each for each in _CHECKS if not (by_url and each is _destination)]
    return found + [refusal for check in checks for refusal in check(mapping, kind, now)]


def _headed(constraints: list[str]) -> str:
    noun = "error" if len(constraints) == 1 else "errors"
    return f"{len(constraints)} validation {noun} detected: {'; '.join(constraints)}"


def _parameter(field: str, text: str, remedy: str) -> Refusal:
    return Refusal(Fault.PARAMETER, field, text, remedy)


def _constraint(field: str, value: object, constraint: str, remedy: str) -> Refusal:
    path = ".".join(part[:1].lower() + part[1:] for part in field.split("."))
    text = f"Value '{value}' at '{path}' failed to satisfy constraint: Member must {constraint}"
    return Refusal(Fault.VALIDATION, field, text, remedy)


def _unrecognized(mapping: EventSourceMapping, reason: str) -> Refusal:
    remedy = reason if mapping.EventSourceArn else "add the ARN of a stream or queue"
    return _parameter("EventSourceArn", "Unrecognized event source.", remedy)


def _member(mapping: EventSourceMapping, field: str) -> object:
    value: object = mapping
    for part in field.split("."):
        value = getattr(value, part, None)
    return value


def _constraints(mapping: EventSourceMapping, concurrency_min: int) -> Iterator[Refusal]:
    """What the API model itself forbids: ranges, lengths, enumerations."""
    yield from _names(mapping)
    for field, (least, most) in _RANGES.items():
        floor = concurrency_min if field == "ScalingConfig.MaximumConcurrency" else least
        yield from _range(field, _member(mapping, field), floor, most)
    yield from _choices(mapping)
    yield from _lengths(mapping)


def _names(mapping: EventSourceMapping) -> Iterator[Refusal]:
    name = mapping.FunctionName
    if not 1 <= len(name) <= FUNCTION_NAME_CHARS_MAX:
        bound = (
            "greater than or equal to 1" if not name else f"less than or equal to {FUNCTION_NAME_CHARS_MAX}"
        )
        yield _constraint("FunctionName", name, f"have length {bound}", "write the function's name")
        return
    try:
        FunctionName.parse(name)
    except ValueError:
        pattern = "a function name, partial ARN or ARN with an optional qualifier"
        remedy = "write NAME, ACCOUNT:function:NAME or an ARN, each with :QUALIFIER or without"
        yield _constraint("FunctionName", name, f"satisfy regular expression pattern: {pattern}", remedy)


def _range(field: str, value: object, least: int, most: int) -> Iterator[Refusal]:
    remedy = f"write {least} to {most}"
    if isinstance(value, int) and value < least:
        yield _constraint(field, value, f"have value greater than or equal to {least}", remedy)
    if isinstance(value, int) and value > most:
        yield _constraint(field, value, f"have value less than or equal to {most}", remedy)


def _choices(mapping: EventSourceMapping) -> Iterator[Refusal]:
    metrics = (mapping.MetricsConfig.Metrics if mapping.MetricsConfig else None) or ()
    given = [
        ("StartingPosition", [mapping.StartingPosition], POSITIONS),
        ("FunctionResponseTypes", mapping.FunctionResponseTypes or (), RESPONSE_TYPES),
        ("MetricsConfig.Metrics", metrics, METRICS),
    ]
    for field, values, choices in given:
        for value in values:
            if value is not None and value not in choices:
                allowed = ", ".join(choices)
                yield _constraint(
                    field, value, f"satisfy enum value set: [{allowed}]", f"write one of {allowed}"
                )


def _lengths(mapping: EventSourceMapping) -> Iterator[Refusal]:
    bounds = [
        ("EventSourceArn", mapping.EventSourceArn or "", ARN_CHARS_MAX),
        ("KMSKeyArn", mapping.KMSKeyArn or "", ARN_CHARS_MAX),
        ("DestinationConfig.OnFailure.Destination", mapping.destination or "", DESTINATION_CHARS_MAX),
        ("FunctionResponseTypes", mapping.FunctionResponseTypes or (), RESPONSE_TYPES_MAX),
        ("MetricsConfig.Metrics", _member(mapping, "MetricsConfig.Metrics") or (), METRICS_MAX),
        *(("FilterCriteria.Filters", pattern, PATTERN_CHARS_MAX) for pattern in mapping.patterns),
        *(("Tags", key, TAG_KEY_CHARS_MAX) for key in mapping.Tags or ()),
        *(("Tags", value, TAG_VALUE_CHARS_MAX) for value in (mapping.Tags or {}).values()),
    ]
    for field, value, most in bounds:
        if isinstance(value, str | tuple) and len(value) > most:
            shown = value[:80] + "…" if isinstance(value, str) else f"[{', '.join(value)}]"
            yield _constraint(field, shown, f"have length less than or equal to {most}", f"keep it to {most}")


def _on_success(mapping: EventSourceMapping, kind: SourceKind, _now: Epoch) -> Iterator[Refusal]:
    text = "Unsupported DestinationConfig parameter for given event source mapping type."
    config = mapping.DestinationConfig
    if config is None:
        return
    if kind is SourceKind.SQS:
        if config.OnFailure or config.OnSuccess:
            yield _parameter(
                "DestinationConfig", text, "remove it; a queue has a dead-letter queue of its own"
            )
    elif config.OnSuccess and config.OnSuccess.Destination:
        yield _parameter("DestinationConfig.OnSuccess", text, "remove OnSuccess; only OnFailure is supported")


def _position(mapping: EventSourceMapping, kind: SourceKind, _now: Epoch) -> Iterator[Refusal]:
    position = mapping.StartingPosition
    if position is not None and position not in POSITIONS:
        return
    unsupported = f"Unsupported starting position for arn type: {mapping.EventSourceArn}"
    match kind, position:
        case SourceKind.SQS, None:
            return
        case SourceKind.SQS, _:
            yield _parameter("StartingPosition", unsupported, "remove it; a queue has no positions")
        case SourceKind.DYNAMODB, "AT_TIMESTAMP":
            yield _parameter("StartingPosition", unsupported, _STREAM_POSITIONS)
        case _, None:
            yield _parameter(
                "StartingPosition",
                "1 validation error detected: Value null at 'startingPosition' failed to satisfy constraint: "
                "Member must not be null.",
                _STREAM_POSITIONS + (" or AT_TIMESTAMP" if kind is SourceKind.KINESIS else ""),
            )
        case _:
            return


def _timestamp(mapping: EventSourceMapping, _kind: SourceKind, now: Epoch) -> Iterator[Refusal]:
    field, moment = "StartingPositionTimestamp", mapping.StartingPositionTimestamp
    wanted = mapping.StartingPosition == "AT_TIMESTAMP"
    if wanted and moment is None:
        text = "StartingPositionTimestamp is required when StartingPosition is AT_TIMESTAMP."
        yield _parameter(field, text, "add it, in epoch seconds or as 2026-01-31T12:00:00Z")
    if not wanted and moment is not None:
        text = "StartingPositionTimestamp is only valid when StartingPosition is AT_TIMESTAMP."
        yield _parameter(field, text, "remove it, or write StartingPosition: AT_TIMESTAMP")
    if moment is not None and moment > now:
        yield _parameter(
            field, "StartingPositionTimestamp cannot be in the future.", "write a moment in the past"
        )


def _batching(mapping: EventSourceMapping, kind: SourceKind, _now: Epoch) -> Iterator[Refusal]:
    if kind is not SourceKind.SQS:
        return
    size, window = mapping.BatchSize or 0, mapping.MaximumBatchingWindowInSeconds or 0
    if (mapping.EventSourceArn or "").endswith(".fifo"):
        if window > 0:
            text = "Batching window is not supported for FIFO queues"
            yield _parameter("MaximumBatchingWindowInSeconds", text, "remove it")
        if size > BATCH_FIFO_MAX:
            text = f"Batch size must be less than or equal to {BATCH_FIFO_MAX} for FIFO queues"
            yield _parameter("BatchSize", text, f"write 1 to {BATCH_FIFO_MAX}")
    elif size > BATCH_WITHOUT_WINDOW_MAX and window < 1:
        text = (
            "Maximum batch window in seconds must be greater than 0 if maximum batch size is greater than 10"
        )
        yield _parameter("BatchSize", text, "add MaximumBatchingWindowInSeconds: 1, or write 10 or less")


def _age(mapping: EventSourceMapping, kind: SourceKind, _now: Epoch) -> Iterator[Refusal]:
    age = mapping.MaximumRecordAgeInSeconds
    if kind is not SourceKind.SQS and age is not None and 0 <= age < AGE_MIN_S:
        text = "MaximumRecordAgeInSeconds must be either -1 (forever) or between 60 and 604800 (inclusive)"
        yield _parameter("MaximumRecordAgeInSeconds", text, "write -1 or 60 to 604800")


def _by_kind(mapping: EventSourceMapping, kind: SourceKind, _now: Epoch) -> Iterator[Refusal]:
    queue = kind is SourceKind.SQS
    fifo = queue and (mapping.EventSourceArn or "").endswith(".fifo")
    for field in _STREAM_ONLY:
        if queue and _member(mapping, field) is not None:
            yield _unsupported(field, "streams")
    if not queue and _member(mapping, "ScalingConfig.MaximumConcurrency") is not None:
        yield _unsupported("ScalingConfig", "queues")
    if (not queue or fifo) and mapping.ProvisionedPollerConfig is not None:
        yield _unsupported("ProvisionedPollerConfig", "standard queues")
    for metric in sorted(set(_metrics(mapping)) - {"EventCount"}):
        if metric in METRICS:
            text = f"Unsupported metric for given event source mapping type: {metric}"
            yield _parameter("MetricsConfig.Metrics", text, "write EventCount; the others are for Kafka")


def _metrics(mapping: EventSourceMapping) -> tuple[str, ...]:
    return (mapping.MetricsConfig.Metrics if mapping.MetricsConfig else None) or ()


def _unsupported(field: str, only: str) -> Refusal:
    text = f"Unsupported {field} parameter for given event source mapping type."
    return _parameter(field, text, f"remove it; it is for {only}")


def _pollers(mapping: EventSourceMapping, _kind: SourceKind, _now: Epoch) -> Iterator[Refusal]:
    config = mapping.ProvisionedPollerConfig
    if config is None:
        return
    field, least, most = "ProvisionedPollerConfig", config.MinimumPollers, config.MaximumPollers
    if least is None and most is None:
        text = "Either MinimumPollers or MaximumPollers are required if ProvisionedPollerConfig is provided."
        yield _parameter(field, text, "add one of them, or remove ProvisionedPollerConfig")
    elif (least or PROVISIONED_MIN) > (most or PROVISIONED_MAX):
        text = "MinimumPollers must be less than or equal to MaximumPollers."
        yield _parameter(field, text, "raise MaximumPollers or lower MinimumPollers")
    if _member(mapping, "ScalingConfig.MaximumConcurrency") is not None:
        text = "MaximumConcurrency cannot be used together with ProvisionedPollerConfig."
        yield _parameter(field, text, "remove ScalingConfig or ProvisionedPollerConfig")


def _windows(mapping: EventSourceMapping, _kind: SourceKind, _now: Epoch) -> Iterator[Refusal]:
    field = "TumblingWindowInSeconds"
    if not mapping.TumblingWindowInSeconds:
        return
    if (mapping.ParallelizationFactor or 1) > 1:
        text = "TumblingWindowInSeconds cannot be used with a ParallelizationFactor greater than 1."
        yield _parameter(field, text, "remove one of them")
    if mapping.patterns:
        text = "TumblingWindowInSeconds cannot be used together with FilterCriteria."
        yield _parameter(field, text, "remove one of them")


def _destination(mapping: EventSourceMapping, kind: SourceKind, _now: Epoch) -> Iterator[Refusal]:
    arn = mapping.destination
    if arn is None or kind is SourceKind.SQS:
        return
    field = "DestinationConfig.OnFailure.Destination"
    try:
        parsed = Arn.parse(arn)
    except ValueError:
        parsed = Arn("", "", "", "", "")
    text = f"The provided destination config DestinationConfig is invalid: {arn[:DESTINATION_CHARS_MAX]}"
    located = bool(parsed.region and parsed.account)
    if parsed.service not in {"sqs", "sns", "s3"} or not (located or parsed.service == "s3"):
        yield _parameter(
            field,
            text,
            "write the ARN of a standard SQS queue, a standard SNS topic or an S3 bucket, file:///DIRECTORY or https://HOST/PATH",
        )
    elif parsed.service != "s3" and parsed.resource.endswith(".fifo"):
        yield _parameter(field, text, "write a standard queue or topic; FIFO ones are not supported")


def _filters(mapping: EventSourceMapping, _kind: SourceKind, _now: Epoch) -> Iterator[Refusal]:
    if len(mapping.patterns) > FILTERS_MAX:
        text = f"FilterCriteria must have {FILTERS_MAX} filters or fewer."
        yield _parameter("FilterCriteria.Filters", text, "put several conditions into one pattern with $or")
    for index, pattern in enumerate(mapping.patterns[:FILTERS_MAX]):
        if len(pattern) > PATTERN_CHARS_MAX:
            continue
        try:
            compile_pattern(pattern)
        except InvalidPattern as error:
            yield _parameter(f"FilterCriteria.Filters[{index}].Pattern", str(error), error.reason)


type _Check = Callable[[EventSourceMapping, SourceKind, Epoch], Iterator[Refusal]]
_CHECKS: tuple[_Check, ...] = (
    _on_success,
    _position,
    _timestamp,
    _batching,
    _age,
    _by_kind,
    _pollers,
    _windows,
    _destination,
    _filters,
)
"""In AWS's order where that is known: an unsupported DestinationConfig comes first of all."""
