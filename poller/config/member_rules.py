"""Owns AWS's rules between the members of a mapping, and their AWS texts (aws-behaviour#mapping-members).

Each rule gets a whole mapping, the kind of its source and the present time. `RULES` has them in AWS's order.
"""

from collections.abc import Callable, Iterator

from poller.config.mapping import EventSourceMapping
from poller.config.members import (
    DESTINATION_CHARS_MAX,
    METRICS,
    PATTERN_CHARS_MAX,
    POSITIONS,
    PROVISIONED_MAX,
    PROVISIONED_MIN,
    TABLE,
    SourceGroup,
)
from poller.config.violations import Violation, parameter
from poller.config_errors.meant_arns import destination_remedy
from poller.domain.arns import Arn
from poller.domain.plan import SourceKind
from poller.domain.records import Epoch
from poller.rules.filtering import InvalidPattern, compile_pattern

BATCH_WITHOUT_WINDOW_MAX = 10
BATCH_FIFO_MAX = 10
FILTERS_MAX = 5
AGE_MIN_S = 60
POLLER_GROUP = "ProvisionedPollerConfig.PollerGroupName"

OWN_WORDS = frozenset(
    {
        "StartingPosition",
        "StartingPositionTimestamp",
        "DestinationConfig",
        "ScalingConfig",
        "ProvisionedPollerConfig",
    }
)
"""Members that some sources do not take and that have rules of their own. All other such members are refused in the same way."""
_STREAM_POSITIONS = "write TRIM_HORIZON or LATEST"


def _on_success(mapping: EventSourceMapping, kind: SourceKind, _now: Epoch) -> Iterator[Violation]:
    text = "Unsupported DestinationConfig parameter for given event source mapping type."
    config = mapping.DestinationConfig
    if config is None:
        return
    if kind is SourceKind.SQS:
        if config.OnFailure or config.OnSuccess:
            yield parameter(
                "DestinationConfig", text, "remove it; a queue has a dead-letter queue of its own"
            )
    elif config.OnSuccess and config.OnSuccess.Destination:
        yield parameter("DestinationConfig.OnSuccess", text, "remove OnSuccess; only OnFailure is supported")


def complete_failure(mapping: EventSourceMapping, kind: SourceKind, _now: Epoch) -> Iterator[Violation]:
    """OnFailure must have a Destination."""
    failure = mapping.DestinationConfig.OnFailure if mapping.DestinationConfig else None
    if kind is not SourceKind.SQS and failure is not None and failure.Destination is None:
        text = "The Destination field is required for an OnFailure configuration."
        yield parameter("DestinationConfig.OnFailure.Destination", text, "add it; an empty text removes it")


def _position(mapping: EventSourceMapping, kind: SourceKind, _now: Epoch) -> Iterator[Violation]:
    """StartingPosition by the kind of source (aws-behaviour#starting-position)."""
    position = mapping.StartingPosition
    if position is not None and position not in POSITIONS:
        return
    unsupported = f"Unsupported starting position for arn type: {mapping.EventSourceArn}"
    match kind, position:
        case SourceKind.SQS, None:
            return
        case SourceKind.SQS, _:
            yield parameter("StartingPosition", unsupported, "remove it; a queue has no positions")
        case SourceKind.DYNAMODB, "AT_TIMESTAMP":
            yield parameter("StartingPosition", unsupported, _STREAM_POSITIONS)
        case _, None:
            yield parameter(
                "StartingPosition",
                "1 validation error detected: Value null at 'startingPosition' failed to satisfy constraint: "
                "Member must not be null.",
                _STREAM_POSITIONS + (" or AT_TIMESTAMP" if kind is SourceKind.KINESIS else ""),
            )
        case _:
            return


def _timestamp(mapping: EventSourceMapping, _kind: SourceKind, now: Epoch) -> Iterator[Violation]:
    field, moment = "StartingPositionTimestamp", mapping.StartingPositionTimestamp
    wanted = mapping.StartingPosition == "AT_TIMESTAMP"
    if wanted and moment is None:
        text = "StartingPositionTimestamp is required when StartingPosition is AT_TIMESTAMP."
        yield parameter(field, text, "add it, in epoch seconds or as 2026-01-31T12:00:00Z")
    if not wanted and moment is not None:
        text = "StartingPositionTimestamp is only valid when StartingPosition is AT_TIMESTAMP."
        yield parameter(field, text, "remove it, or write StartingPosition: AT_TIMESTAMP")
    if moment is not None and moment > now:
        yield parameter(
            field, "StartingPositionTimestamp cannot be in the future.", "write a moment in the past"
        )


def _batching(mapping: EventSourceMapping, kind: SourceKind, _now: Epoch) -> Iterator[Violation]:
    """BatchSize and window of a queue (aws-behaviour#batch-size-and-window)."""
    if kind is not SourceKind.SQS:
        return
    size, window = mapping.BatchSize or 0, mapping.MaximumBatchingWindowInSeconds or 0
    if (mapping.EventSourceArn or "").endswith(".fifo"):
        if window > 0:
            text = "Batching window is not supported for FIFO queues"
            yield parameter("MaximumBatchingWindowInSeconds", text, "remove it")
        if size > BATCH_FIFO_MAX:
            text = f"Batch size must be less than or equal to {BATCH_FIFO_MAX} for FIFO queues"
            yield parameter("BatchSize", text, f"write 1 to {BATCH_FIFO_MAX}")
    elif size > BATCH_WITHOUT_WINDOW_MAX and window < 1:
        text = (
            "Maximum batch window in seconds must be greater than 0 if maximum batch size is greater than 10"
        )
        yield parameter("BatchSize", text, "add MaximumBatchingWindowInSeconds: 1, or write 10 or less")


def _age(mapping: EventSourceMapping, kind: SourceKind, _now: Epoch) -> Iterator[Violation]:
    """MaximumRecordAgeInSeconds has a gap in its range (aws-behaviour#age-range)."""
    age = mapping.MaximumRecordAgeInSeconds
    if kind is not SourceKind.SQS and age is not None and 0 <= age < AGE_MIN_S:
        text = "MaximumRecordAgeInSeconds must be either -1 (forever) or between 60 and 604800 (inclusive)"
        yield parameter("MaximumRecordAgeInSeconds", text, "write -1 or 60 to 604800")


def _by_kind(mapping: EventSourceMapping, kind: SourceKind, _now: Epoch) -> Iterator[Violation]:
    queue = kind is SourceKind.SQS
    fifo = queue and (mapping.EventSourceArn or "").endswith(".fifo")
    yield from _of_other_sources(mapping, SourceGroup.QUEUES if queue else SourceGroup.STREAMS)
    if not queue and _member(mapping, "ScalingConfig.MaximumConcurrency") is not None:
        yield _unsupported("ScalingConfig", "queues")
    if (not queue or fifo) and mapping.ProvisionedPollerConfig is not None:
        yield _unsupported("ProvisionedPollerConfig", "standard queues")
    elif _member(mapping, POLLER_GROUP) is not None:
        text = "Unsupported PollerGroupName parameter for given event source mapping type."
        yield parameter(POLLER_GROUP, text, "remove it; it is for Kafka only")
    for metric in sorted(set(_metrics(mapping)) - {"EventCount"}):
        if metric in METRICS:
            text = f"Unsupported metric for given event source mapping type: {metric}"
            yield parameter("MetricsConfig.Metrics", text, f"write EventCount; {metric} is for Kafka only")


def _of_other_sources(mapping: EventSourceMapping, here: SourceGroup) -> Iterator[Violation]:
    for member in TABLE:
        if not member.top or member.path in OWN_WORDS or not member.sources or here in member.sources:
            continue
        if _member(mapping, member.path) is not None:
            yield _unsupported(member.path, "queues" if member.sources is SourceGroup.QUEUES else "streams")


def _metrics(mapping: EventSourceMapping) -> tuple[str, ...]:
    return (mapping.MetricsConfig.Metrics if mapping.MetricsConfig else None) or ()


def _unsupported(field: str, only: str) -> Violation:
    text = f"Unsupported {field} parameter for given event source mapping type."
    return parameter(field, text, f"remove it; it is for {only}")


def _pollers(mapping: EventSourceMapping, _kind: SourceKind, _now: Epoch) -> Iterator[Violation]:
    config = mapping.ProvisionedPollerConfig
    if config is None:
        return
    field, least, most = "ProvisionedPollerConfig", config.MinimumPollers, config.MaximumPollers
    if least is None and most is None:
        text = "Either MinimumPollers or MaximumPollers are required if ProvisionedPollerConfig is provided."
        yield parameter(field, text, "add one of them, or remove ProvisionedPollerConfig")
    elif (least or PROVISIONED_MIN) > (most or PROVISIONED_MAX):
        text = "MinimumPollers must be less than or equal to MaximumPollers."
        yield parameter(field, text, "raise MaximumPollers or lower MinimumPollers")
    if _member(mapping, "ScalingConfig.MaximumConcurrency") is not None:
        text = "MaximumConcurrency cannot be used together with ProvisionedPollerConfig."
        yield parameter(field, text, "remove ScalingConfig or ProvisionedPollerConfig")


def _windows(mapping: EventSourceMapping, _kind: SourceKind, _now: Epoch) -> Iterator[Violation]:
    """What a tumbling window excludes (aws-behaviour#members-that-exclude-each-other)."""
    field = "TumblingWindowInSeconds"
    if not mapping.TumblingWindowInSeconds:
        return
    if (mapping.ParallelizationFactor or 1) > 1:
        text = "TumblingWindowInSeconds cannot be used with a ParallelizationFactor greater than 1."
        yield parameter(field, text, "remove one of them")
    if mapping.patterns:
        text = "TumblingWindowInSeconds cannot be used together with FilterCriteria."
        yield parameter(field, text, "remove one of them")


def destination_rule(mapping: EventSourceMapping, kind: SourceKind, _now: Epoch) -> Iterator[Violation]:
    """The target of OnFailure (aws-behaviour#destination-of-a-mapping)."""
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
        yield parameter(
            field,
            text,
            destination_remedy(arn),
        )
    elif parsed.service != "s3" and parsed.resource.endswith(".fifo"):
        yield parameter(field, text, "write a standard queue or topic; FIFO ones are not supported")


def _filters(mapping: EventSourceMapping, _kind: SourceKind, _now: Epoch) -> Iterator[Violation]:
    if len(mapping.patterns) > FILTERS_MAX:
        text = f"FilterCriteria must have {FILTERS_MAX} filters or fewer."
        yield parameter("FilterCriteria.Filters", text, "put several conditions into one pattern with $or")
    for index, pattern in enumerate(mapping.patterns[:FILTERS_MAX]):
        if len(pattern) > PATTERN_CHARS_MAX:
            continue
        try:
            compile_pattern(pattern)
        except InvalidPattern as error:
            yield parameter(f"FilterCriteria.Filters[{index}].Pattern", str(error), error.reason)


def _member(mapping: EventSourceMapping, field: str) -> object:
    """The member's value; None also if the mapping lacks the member."""
    value: object = mapping
    for part in field.split("."):
        value = getattr(value, part, None)
    return value


type MemberRule = Callable[[EventSourceMapping, SourceKind, Epoch], Iterator[Violation]]
RULES: tuple[MemberRule, ...] = (
    _on_success,
    complete_failure,
    _position,
    _timestamp,
    _batching,
    _age,
    _by_kind,
    _pollers,
    _windows,
    destination_rule,
    _filters,
)
"""The checks in AWS's order, where it is known: an unsupported DestinationConfig comes first."""
