"""Owns what a request may say of asynchronous calls: its members, their ranges, and AWS's texts for what is wrong (aws-behaviour#async-config)."""

from collections.abc import Mapping
from typing import Any

from poller.domain.functions.queued_calls import AGE_S_MAX, AGE_S_MIN, RETRIES_MAX
from poller.domain.mapping_api import ApiError, ApiErrorType
from poller.domain.plan import destination_plugin
from poller.domain.untrusted.texts import line_of

RANGES = {
    "MaximumRetryAttempts": (0, RETRIES_MAX),
    "MaximumEventAgeInSeconds": (AGE_S_MIN, AGE_S_MAX),
}
ENDS = ("OnSuccess", "OnFailure")
TARGETS = "DestinationConfig"
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
        if not isinstance(destination, str) or not _is_destination(destination):
            text = line_of(str(destination), chars_max=SHOWN_CHARS_MAX)
            raise ApiError(
                ApiErrorType.PARAMETER, f"The provided destination {text} of {end} is not supported"
            )
        found[end] = {"Destination": destination}
    return found


def _is_destination(text: str) -> bool:
    if not text.startswith("arn:"):
        return False
    try:
        destination_plugin(text)
    except ValueError:
        return False
    return True
