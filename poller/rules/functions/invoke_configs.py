"""Owns what a request may say of asynchronous calls: its members, their ranges, and AWS's texts for what is wrong (aws-behaviour#async-config)."""

from collections.abc import Mapping
from typing import Any

from poller.domain.arns import Arn
from poller.domain.functions.queued_calls import AGE_S_MAX, AGE_S_MIN, RETRIES_MAX
from poller.domain.mapping_api import ApiError, ApiErrorType
from poller.domain.untrusted.texts import line_of

RANGES = {
    "MaximumRetryAttempts": (0, RETRIES_MAX),
    "MaximumEventAgeInSeconds": (AGE_S_MIN, AGE_S_MAX),
}
ENDS = ("OnSuccess", "OnFailure")
TARGETS = "DestinationConfig"
SERVICES = frozenset({"sqs", "sns", "s3", "lambda", "events"})
"""Whose ARNs may be destinations. Queues and topics must be standard ones."""
DESTINATION_CHARS_MAX = 350
PATTERN = (
    r"$|kafka://([^.]([a-zA-Z0-9\-_.]{0,248}))|arn:(aws[a-zA-Z0-9-]*):([a-zA-Z0-9\-])+:"
    r"((eusc-)?[a-z]{2}((-gov)|(-iso([a-z]?)))?-[a-z]+-\d{1})?:(\d{12})?:(.*)"
)
"""The pattern of a destination in Lambda's API model, as its refusals name it."""
EMPTY = "You must specify at least one of error handling or destination setting."
SHOWN_CHARS_MAX = 350


def checked(request: Mapping[str, Any]) -> dict[str, Any]:
    """The members of a request that are given. Raises ApiError for a wrong one, and if there is none."""
    found = {name: request[name] for name in (*RANGES, TARGETS) if request.get(name) is not None}
    if not found:
        raise ApiError(ApiErrorType.PARAMETER, EMPTY)
    wrong = [text for name in RANGES if name in found for text in _out_of_range(name, found[name])]
    if wrong:
        noun = "error" if len(wrong) == 1 else "errors"
        raise ApiError(
            ApiErrorType.VALIDATION, f"{len(wrong)} validation {noun} detected: {'; '.join(wrong)}"
        )
    if TARGETS in found:
        found[TARGETS] = _targets(found[TARGETS])
    return found


def merged(before: Mapping[str, Any], request: Mapping[str, Any]) -> dict[str, Any]:
    """The members after an update: those of the request, and the earlier ones that it does not have."""
    targets = {**before.get(TARGETS, {}), **request.get(TARGETS, {})}
    return {**before, **request, **({TARGETS: targets} if targets else {})}


def shown(parameters: Mapping[str, Any]) -> dict[str, Any]:
    """The members as an answer has them: both ends of the destinations are always there."""
    targets = parameters.get(TARGETS, {})
    return {**parameters, TARGETS: {end: dict(targets.get(end) or {}) for end in ENDS}}


def _out_of_range(name: str, value: object) -> list[str]:
    least, most = RANGES[name]
    if type(value) is not int:
        raise ApiError(ApiErrorType.PARAMETER, f"{name} is not a whole number")
    if least <= value <= most:
        return []
    must = f"less than or equal to {most}" if value > most else f"greater than or equal to {least}"
    member = name[0].lower() + name[1:]
    return [f"Value '{value}' at '{member}' failed to satisfy constraint: Member must have value {must}"]


def _targets(value: object) -> dict[str, Any]:
    if not isinstance(value, Mapping):
        raise ApiError(ApiErrorType.PARAMETER, f"{TARGETS} is not an object")
    found: dict[str, Any] = {}
    for end in ENDS:
        target = value.get(end)
        if target is None:
            continue
        destination = target.get("Destination") if isinstance(target, Mapping) else target
        if destination in (None, "") and isinstance(target, Mapping):
            found[end] = {}
            continue
        found[end] = {"Destination": _destination(destination, end)}
    return found


def _destination(value: object, end: str) -> str:
    """The ARN of a destination. Raises ApiError for what is no ARN, and for one that can be no destination."""
    text = line_of(str(value), chars_max=SHOWN_CHARS_MAX)
    arn = Arn.read(value) if isinstance(value, str) and len(value) <= DESTINATION_CHARS_MAX else None
    if not isinstance(value, str) or arn is None:
        member = f"destinationConfig.{end[0].lower()}{end[1:]}.destination"
        long = isinstance(value, str) and len(value) > DESTINATION_CHARS_MAX
        must = (
            f"have length less than or equal to {DESTINATION_CHARS_MAX}"
            if long
            else f"satisfy regular expression pattern: {PATTERN}"
        )
        raise ApiError(
            ApiErrorType.VALIDATION,
            f"1 validation error detected: Value '{text}' at '{member}' failed to satisfy constraint: Member must {must}",
        )
    if arn.service not in SERVICES or arn.fifo:
        raise ApiError(ApiErrorType.PARAMETER, f"The destination ARN {text} is invalid.")
    return value
