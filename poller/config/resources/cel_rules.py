"""Owns what an API server can check of a spec before it takes it: rules in CEL, with AWS's texts (aws-behaviour#error-texts).

The rules are made of the table of AWS's members where they are about one member. A cluster without CEL (before Kubernetes 1.25) takes
such a spec, and the daemon refuses it with the same text. What needs a look at the pattern of a filter, at the clock or at a
plug-in is the daemon's alone.

`has(self.x)` is false for an absent member. Fields are written with null as if they were absent, since Kubernetes drops nulls.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from poller.config.member_rules import (
    AGE_MIN_S,
    BATCH_FIFO_MAX,
    BATCH_WITHOUT_WINDOW_MAX,
    FILTERS_MAX,
    OWN_WORDS,
)
from poller.config.members import PROVISIONED_MAX, PROVISIONED_MIN, TABLE, JsonType, Member, SourceGroup
from poller.config.resources.spec import ack_name
from poller.config.settings import FILE_CONCURRENCY_MIN

QUEUE = "self.eventSourceARN.matches('^arn:[^:]+:sqs:')"
FIFO = f"({QUEUE} && self.eventSourceARN.endsWith('.fifo'))"
DYNAMODB = "self.eventSourceARN.matches('^arn:[^:]+:dynamodb:')"
_NULL_POSITION = "1 validation error detected: Value null at 'startingPosition' failed to satisfy constraint: Member must not be null."
_POSITION = "Unsupported starting position for arn type: "


@dataclass(frozen=True, slots=True)
class CelRule:
    """One rule. `message` is its text; if it depends on the spec, `expression` makes it, from Kubernetes 1.27 on."""

    rule: str
    message: str
    field: str
    expression: str = ""


def spec_rules() -> tuple[CelRule, ...]:
    """The rules of a whole spec, in AWS's order."""
    return (*_fixed(), *_ranges(), *_choices(), *_members())


def _fixed() -> Iterator[CelRule]:
    kept = "cannot be changed; delete the resource and create another one"
    source = "self.eventSourceARN == oldSelf.eventSourceARN"
    yield CelRule(source, f"eventSourceARN {kept}", "eventSourceARN")
    for name in ("startingPosition", "startingPositionTimestamp"):
        same = (
            f"has(self.{name}) == has(oldSelf.{name}) && (!has(self.{name}) || self.{name} == oldSelf.{name})"
        )
        yield CelRule(same, f"{name} {kept}", name)


def _ranges() -> Iterator[CelRule]:
    """Numbers that the API model bounds."""
    for member in TABLE:
        if member.type is JsonType.WHOLE and member.span is not None and member.requests:
            least, most = member.span
            if member.path == "ScalingConfig.MaximumConcurrency":
                least = FILE_CONCURRENCY_MIN
            place, absent = _place(member)
            for bound, sign, word in ((least, ">=", "greater"), (most, "<=", "less")):
                must = f"Member must have value {word} than or equal to {bound}"
                yield CelRule(
                    f"{absent} || {place} {sign} {bound}",
                    f"Value at '{_path(member)}' failed to satisfy constraint: {must}",
                    _path(member),
                    f"\"1 validation error detected: Value '\" + string({place}) + \"' at '{_path(member)}' failed to satisfy "
                    f'constraint: {must}"',
                )


def _choices() -> Iterator[CelRule]:
    for member in TABLE:
        if (
            member.type is not JsonType.TEXT
            or not member.choices
            or "[" in member.path
            or not member.requests
        ):
            continue
        place, absent = _place(member)
        must = f"Member must satisfy enum value set: [{', '.join(member.choices)}]"
        yield CelRule(
            f"{absent} || {place} in [{', '.join(map(_quoted, member.choices))}]",
            f"Value at '{_path(member)}' failed to satisfy constraint: {must}",
            _path(member),
            f"\"1 validation error detected: Value '\" + {place} + \"' at '{_path(member)}' failed to satisfy constraint: {must}\"",
        )


def _members() -> Iterator[CelRule]:
    """Rules between members, as `poller.config.member_rules` has them."""
    yield CelRule(f"{QUEUE} || has(self.startingPosition)", _NULL_POSITION, "startingPosition")
    yield CelRule(
        f"!has(self.startingPosition) || !({QUEUE} || ({DYNAMODB} && self.startingPosition == 'AT_TIMESTAMP'))",
        _POSITION.removesuffix(": "),
        "startingPosition",
        f"'{_POSITION}' + self.eventSourceARN",
    )
    at_timestamp = "(has(self.startingPosition) && self.startingPosition == 'AT_TIMESTAMP')"
    when = "when StartingPosition is AT_TIMESTAMP."
    yield CelRule(
        f"!{at_timestamp} || has(self.startingPositionTimestamp)",
        f"StartingPositionTimestamp is required {when}",
        "startingPositionTimestamp",
    )
    yield CelRule(
        f"{at_timestamp} || !has(self.startingPositionTimestamp)",
        f"StartingPositionTimestamp is only valid {when}",
        "startingPositionTimestamp",
    )
    window = "has(self.maximumBatchingWindowInSeconds) && self.maximumBatchingWindowInSeconds > 0"
    yield CelRule(
        f"!({FIFO} && {window})",
        "Batching window is not supported for FIFO queues",
        "maximumBatchingWindowInSeconds",
    )
    yield CelRule(
        f"!({FIFO} && has(self.batchSize) && self.batchSize > {BATCH_FIFO_MAX})",
        f"Batch size must be less than or equal to {BATCH_FIFO_MAX} for FIFO queues",
        "batchSize",
    )
    yield CelRule(
        f"!({QUEUE} && !{FIFO} && has(self.batchSize) && self.batchSize > {BATCH_WITHOUT_WINDOW_MAX}) || ({window})",
        "Maximum batch window in seconds must be greater than 0 if maximum batch size is greater than 10",
        "batchSize",
    )
    yield CelRule(
        f"{QUEUE} || !has(self.maximumRecordAgeInSeconds) || self.maximumRecordAgeInSeconds < 0 || "
        f"self.maximumRecordAgeInSeconds >= {AGE_MIN_S}",
        "MaximumRecordAgeInSeconds must be either -1 (forever) or between 60 and 604800 (inclusive)",
        "maximumRecordAgeInSeconds",
    )
    yield from _of_other_sources()
    pollers = "self.provisionedPollerConfig"
    yield CelRule(
        f"!has({pollers}) || has({pollers}.minimumPollers) || has({pollers}.maximumPollers)",
        "Either MinimumPollers or MaximumPollers are required if ProvisionedPollerConfig is provided.",
        "provisionedPollerConfig",
    )
    least = f"(has({pollers}.minimumPollers) ? {pollers}.minimumPollers : {PROVISIONED_MIN})"
    most = f"(has({pollers}.maximumPollers) ? {pollers}.maximumPollers : {PROVISIONED_MAX})"
    yield CelRule(
        f"!has({pollers}) || {least} <= {most}",
        "MinimumPollers must be less than or equal to MaximumPollers.",
        "provisionedPollerConfig",
    )
    yield CelRule(
        f"!has({pollers}) || !has(self.scalingConfig) || !has(self.scalingConfig.maximumConcurrency)",
        "MaximumConcurrency cannot be used together with ProvisionedPollerConfig.",
        "provisionedPollerConfig",
    )
    tumbling = "has(self.tumblingWindowInSeconds) && self.tumblingWindowInSeconds > 0"
    yield CelRule(
        f"!({tumbling} && has(self.parallelizationFactor) && self.parallelizationFactor > 1)",
        "TumblingWindowInSeconds cannot be used with a ParallelizationFactor greater than 1.",
        "tumblingWindowInSeconds",
    )
    filters = "has(self.filterCriteria) && has(self.filterCriteria.filters)"
    yield CelRule(
        f"!({tumbling} && {filters} && size(self.filterCriteria.filters) > 0)",
        "TumblingWindowInSeconds cannot be used together with FilterCriteria.",
        "tumblingWindowInSeconds",
    )
    yield CelRule(
        f"!({filters} && size(self.filterCriteria.filters) > {FILTERS_MAX})",
        f"FilterCriteria must have {FILTERS_MAX} filters or fewer.",
        "filterCriteria",
    )


def _of_other_sources() -> Iterator[CelRule]:
    """Members that the kind of source does not take."""
    for member in TABLE:
        if not member.top or member.path in OWN_WORDS or not member.requests:
            continue
        name = ack_name(member.path)
        if member.sources in (SourceGroup.STREAMS, SourceGroup.QUEUES):
            fits = QUEUE if member.sources is SourceGroup.QUEUES else f"!{QUEUE}"
            yield CelRule(f"!has(self.{name}) || {fits}", unsupported(member.path), name)
    yield CelRule(
        f"!has(self.scalingConfig) || !has(self.scalingConfig.maximumConcurrency) || {QUEUE}",
        unsupported("ScalingConfig"),
        "scalingConfig",
    )
    yield CelRule(
        f"!has(self.provisionedPollerConfig) || ({QUEUE} && !{FIFO})",
        unsupported("ProvisionedPollerConfig"),
        "provisionedPollerConfig",
    )


def unsupported(name: str) -> str:
    """AWS's text for a member that a kind of source does not take."""
    return f"Unsupported {name} parameter for given event source mapping type."


def _path(member: Member) -> str:
    return ".".join(ack_name(each) for each in member.path.split("."))


def _place(member: Member) -> tuple[str, str]:
    """Where a member is, and a condition that holds if it is absent."""
    path, absent = "self", []
    for name in _path(member).split("."):
        path = f"{path}.{name}"
        absent.append(f"!has({path})")
    return path, " || ".join(absent)


def _quoted(text: str) -> str:
    return f"'{text}'"
