"""Owns what AWS refuses in a mapping: ranges, and rules between members (aws-behaviour#mapping-members).

The checks get a whole mapping: a new one, or an existing one with an update merged in. They run in AWS's order and use AWS's
texts (aws-behaviour#error-texts). Where AWS's text is not known, the text is our own and has the same style.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from functools import partial

from poller.config.mapping import EventSourceMapping, source_kind
from poller.config.members import (
    CONCURRENCY_MIN,
    DESTINATION_CHARS_MAX,
    METRICS,
    PATTERN_CHARS_MAX,
    POSITIONS,
    PROVISIONED_MAX,
    PROVISIONED_MIN,
    TABLE,
    JsonType,
    Member,
    SourceGroup,
)
from poller.config_errors.meant_arns import FORMS, destination_remedy, source_remedy
from poller.domain.arns import FUNCTION_NAME_CHARS_MAX, Arn, FunctionName
from poller.domain.plan import SourceKind, url_scheme
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
"""Members that some sources do not take, and that have rules of their own; the others are refused alike."""
_STREAM_POSITIONS = "write TRIM_HORIZON or LATEST"


class ViolationType(StrEnum):
    """AWS's exception for a refused parameter."""

    PARAMETER = "InvalidParameterValueException"
    VALIDATION = "ValidationException"


@dataclass(frozen=True, slots=True)
class Violation:
    """One thing that AWS would refuse.

    `field` is the path in AWS's names, `text` AWS's text (of a VALIDATION refusal: the constraint without its
    heading), `remedy` what to do instead, for people who write a file.
    """

    fault: ViolationType
    field: str
    text: str
    remedy: str

    @property
    def message(self) -> str:
        """AWS's whole text for this refusal alone."""
        return _headed([self.text]) if self.fault is ViolationType.VALIDATION else self.text


def answer(refusals: list[Violation]) -> tuple[ViolationType, str] | None:
    """What AWS's API says: all range errors in one text, else the first refusal; None if there is none."""
    constraints = [each.text for each in refusals if each.fault is ViolationType.VALIDATION]
    if constraints:
        return ViolationType.VALIDATION, _headed(constraints)
    return (refusals[0].fault, refusals[0].text) if refusals else None


def refusals(
    mapping: EventSourceMapping,
    *,
    now: Epoch,
    concurrency_min: int = CONCURRENCY_MIN,
    destination_urls: bool = False,
    destination_needed: bool = False,
) -> list[Violation]:
    """All that AWS would refuse without looking at the function or the source, in AWS's order as far as it is proven.

    `now` in epoch seconds bounds StartingPositionTimestamp. With `destination_urls` a destination may be a URL, which its
    plug-in checks. With `destination_needed` an OnFailure must have a Destination, if only an empty one: in a change it
    would not be clear whether the destination stays.

    A mapping may lack members altogether (not None: no attribute), whose values could not be read; what follows from those
    is left out.
    """
    found = [*_constraints(mapping, concurrency_min)]
    try:
        kind = source_kind(mapping.EventSourceArn or "")
    except AttributeError:
        if not _lacking(mapping):
            raise
        return found
    except ValueError:
        return [*found, _unrecognized(mapping)]
    by_url = destination_urls and url_scheme(getattr(mapping, "destination", "") or "") is not None
    unneeded: dict[_Check, bool] = {_destination: by_url, _complete_failure: not destination_needed}
    checks = [each for each in _CHECKS if not unneeded.get(each, False)]
    return found + [each for check in checks for each in _as_far_as_known(mapping, check(mapping, kind, now))]


def _as_far_as_known(mapping: EventSourceMapping, check: Iterator[Violation]) -> Iterator[Violation]:
    """What a check finds until it asks for a member that the mapping lacks."""
    try:
        yield from check
    except AttributeError:
        if not _lacking(mapping):
            raise


def _lacking(mapping: EventSourceMapping) -> bool:
    return not mapping.__dict__.keys() >= type(mapping).model_fields.keys()


def _headed(constraints: list[str]) -> str:
    noun = "error" if len(constraints) == 1 else "errors"
    return f"{len(constraints)} validation {noun} detected: {'; '.join(constraints)}"


def _parameter(field: str, text: str, remedy: str) -> Violation:
    return Violation(ViolationType.PARAMETER, field, text, remedy)


def _constraint(field: str, value: object, constraint: str, remedy: str) -> Violation:
    path = ".".join(part[:1].lower() + part[1:] for part in field.split("."))
    text = f"Value '{value}' at '{path}' failed to satisfy constraint: Member must {constraint}"
    return Violation(ViolationType.VALIDATION, field, text, remedy)


def _unrecognized(mapping: EventSourceMapping) -> Violation:
    remedy = source_remedy(mapping.EventSourceArn) if mapping.EventSourceArn else f"add it: {FORMS}"
    return _parameter("EventSourceArn", "Unrecognized event source.", remedy)


def _member(mapping: EventSourceMapping, field: str) -> object:
    """None also for one that the mapping lacks."""
    value: object = mapping
    for part in field.split("."):
        value = getattr(value, part, None)
    return value


def _values(value: object, path: str) -> Iterator[object]:
    """All values at a path of the table; none where the mapping lacks something on the way."""
    head, _, rest = path.partition(".")
    for mark, items in (("[]", _items), ("{key}", _keys), ("{}", _map_values)):
        if head.endswith(mark):
            inner = getattr(value, head.removesuffix(mark), None)
            found = items(inner)
            break
    else:
        found = [getattr(value, head, None)]
    for each in found:
        if rest:
            yield from _values(each, rest)
        elif each is not None:
            yield each


def _items(value: object) -> Iterable[object]:
    return value if isinstance(value, tuple) else ()


def _keys(value: object) -> Iterable[object]:
    return value if isinstance(value, dict) else ()


def _map_values(value: object) -> Iterable[object]:
    return value.values() if isinstance(value, dict) else ()


def _constraints(mapping: EventSourceMapping, concurrency_min: int) -> Iterator[Violation]:
    """What the API model itself forbids: ranges, choices, lengths, in this order."""
    yield from _as_far_as_known(mapping, _names(mapping))
    given = [(each, tuple(_values(mapping, each.path))) for each in TABLE if each.path != "FunctionName"]
    for check in (partial(_range, concurrency_min), _choices, _lengths):
        for member, values in given:
            for value in values:
                yield from check(member, value)


def _names(mapping: EventSourceMapping) -> Iterator[Violation]:
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


def _range(concurrency_min: int, member: Member, value: object) -> Iterator[Violation]:
    if member.type is not JsonType.WHOLE or member.span is None or not isinstance(value, int):
        return
    least, most = member.span
    if member.path == "ScalingConfig.MaximumConcurrency":
        least = concurrency_min
    remedy = f"write {least} to {most}"
    if value < least:
        yield _constraint(member.path, value, f"have value greater than or equal to {least}", remedy)
    if value > most:
        yield _constraint(member.path, value, f"have value less than or equal to {most}", remedy)


def _choices(member: Member, value: object) -> Iterator[Violation]:
    if member.choices and value not in member.choices:
        allowed = ", ".join(member.choices)
        constraint, remedy = f"satisfy enum value set: [{allowed}]", f"write one of {allowed}"
        yield _constraint(member.field, value, constraint, remedy)


def _lengths(member: Member, value: object) -> Iterator[Violation]:
    if (
        member.length is None
        or not isinstance(value, str | tuple)
        or len(value) <= (most := member.length[1])
    ):
        return
    shown = value[:80] + "…" if isinstance(value, str) else f"[{', '.join(value)}]"
    yield _constraint(member.field, shown, f"have length less than or equal to {most}", f"keep it to {most}")


def _on_success(mapping: EventSourceMapping, kind: SourceKind, _now: Epoch) -> Iterator[Violation]:
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


def _complete_failure(mapping: EventSourceMapping, kind: SourceKind, _now: Epoch) -> Iterator[Violation]:
    failure = mapping.DestinationConfig.OnFailure if mapping.DestinationConfig else None
    if kind is not SourceKind.SQS and failure is not None and failure.Destination is None:
        text = "The Destination field is required for an OnFailure configuration."
        yield _parameter("DestinationConfig.OnFailure.Destination", text, "add it; an empty text removes it")


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


def _timestamp(mapping: EventSourceMapping, _kind: SourceKind, now: Epoch) -> Iterator[Violation]:
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


def _batching(mapping: EventSourceMapping, kind: SourceKind, _now: Epoch) -> Iterator[Violation]:
    """BatchSize and window of a queue (aws-behaviour#batch-size-and-window)."""
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


def _age(mapping: EventSourceMapping, kind: SourceKind, _now: Epoch) -> Iterator[Violation]:
    """MaximumRecordAgeInSeconds has a gap in its range (aws-behaviour#age-range)."""
    age = mapping.MaximumRecordAgeInSeconds
    if kind is not SourceKind.SQS and age is not None and 0 <= age < AGE_MIN_S:
        text = "MaximumRecordAgeInSeconds must be either -1 (forever) or between 60 and 604800 (inclusive)"
        yield _parameter("MaximumRecordAgeInSeconds", text, "write -1 or 60 to 604800")


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
        yield _parameter(POLLER_GROUP, text, "remove it; it is for Kafka only")
    for metric in sorted(set(_metrics(mapping)) - {"EventCount"}):
        if metric in METRICS:
            text = f"Unsupported metric for given event source mapping type: {metric}"
            yield _parameter("MetricsConfig.Metrics", text, f"write EventCount; {metric} is for Kafka only")


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
    return _parameter(field, text, f"remove it; it is for {only}")


def _pollers(mapping: EventSourceMapping, _kind: SourceKind, _now: Epoch) -> Iterator[Violation]:
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


def _windows(mapping: EventSourceMapping, _kind: SourceKind, _now: Epoch) -> Iterator[Violation]:
    """What a tumbling window excludes (aws-behaviour#members-that-exclude-each-other)."""
    field = "TumblingWindowInSeconds"
    if not mapping.TumblingWindowInSeconds:
        return
    if (mapping.ParallelizationFactor or 1) > 1:
        text = "TumblingWindowInSeconds cannot be used with a ParallelizationFactor greater than 1."
        yield _parameter(field, text, "remove one of them")
    if mapping.patterns:
        text = "TumblingWindowInSeconds cannot be used together with FilterCriteria."
        yield _parameter(field, text, "remove one of them")


def _destination(mapping: EventSourceMapping, kind: SourceKind, _now: Epoch) -> Iterator[Violation]:
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
        yield _parameter(
            field,
            text,
            destination_remedy(arn),
        )
    elif parsed.service != "s3" and parsed.resource.endswith(".fifo"):
        yield _parameter(field, text, "write a standard queue or topic; FIFO ones are not supported")


def _filters(mapping: EventSourceMapping, _kind: SourceKind, _now: Epoch) -> Iterator[Violation]:
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


type _Check = Callable[[EventSourceMapping, SourceKind, Epoch], Iterator[Violation]]
_CHECKS: tuple[_Check, ...] = (
    _on_success,
    _complete_failure,
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
