"""Owns how a request for a shift or a rollback is read. Each error names the member and says what to write."""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import orjson

from poller.domain.arns import FUNCTION_NAME_CHARS_MAX, FunctionName
from poller.domain.functions.alias_control import ShiftRequest
from poller.domain.functions.shift_strategies import own_strategy, strategy
from poller.domain.functions.shifts import SHIFT_S_MAX, ShiftStrategy
from poller.domain.mapping_api import ApiError, ApiErrorType
from poller.domain.untrusted.numbers import number
from poller.domain.untrusted.texts import line_of

VALUES_MAX = 100
"""Values of a body, counted by its commas and opening brackets. A request has eleven members."""
ID_CHARS_MAX = 128
REASON_CHARS_MAX = 200
VERSION_CHARS_MAX = 64
STRATEGY_CHARS_MAX = 128
SHOWN_CHARS_MAX = 100
EXAMPLE = '{"to": "2", "strategy": "Canary10Percent5Minutes"}'
NOT_AN_OBJECT = f"the body is no JSON object; send one, such as {EXAMPLE}"
TOO_MANY_VALUES = f"the body has more than {VALUES_MAX} values; send one such as {EXAMPLE}"
NO_STRATEGY = "strategy: is missing; write one such as AllAtOnce or Canary10Percent5Minutes, or percent and interval_s in its place"
NO_INTERVAL = (
    "interval_s: is missing; write the seconds after which the rest follows, or with linear the next share"
)
NO_PERCENT = "percent: is missing; write the share of the calls that moves at once, such as 10"
TWO_STRATEGIES = "strategy: stands beside percent, interval_s or linear; write one of both"
MEMBERS = (
    "to",
    "strategy",
    "percent",
    "interval_s",
    "linear",
    "before",
    "after",
    "failure_rate",
    "reason",
    "id",
)
OWN = ("percent", "interval_s", "linear")


def shift_request(body: bytes, *, by: str) -> ShiftRequest:
    """Returns the shift that a body asks for; raises ApiError."""
    given = _object(body, MEMBERS)
    to = _text(given, "to", VERSION_CHARS_MAX)
    if to is None:
        raise _wrong("to", "is missing; write the version that gets the calls, such as 2")
    return ShiftRequest(
        to=to,
        strategy=_strategy(given),
        shift=_id(given),
        before=_function(given, "before"),
        after=_function(given, "after"),
        failure_rate=_number(given, "failure_rate", most=1.0),
        by=by,
        reason=_text(given, "reason", REASON_CHARS_MAX, empty=True) or "",
    )


def rollback_reason(body: bytes) -> str:
    """Returns why somebody wants a rollback; empty if the body does not say; raises ApiError."""
    given = _object(body, ("reason",)) if body.strip() else {}
    return _text(given, "reason", REASON_CHARS_MAX, empty=True) or ""


def _object(body: bytes, members: Sequence[str]) -> dict[str, Any]:
    """The members of a body that have a value."""
    if sum(map(body.count, (b",", b"[", b"{"))) > VALUES_MAX:
        raise ApiError(ApiErrorType.PARAMETER, TOO_MANY_VALUES)
    try:
        given = orjson.loads(body)
    except orjson.JSONDecodeError:
        given = None
    if not isinstance(given, dict):
        raise ApiError(ApiErrorType.PARAMETER, NOT_AN_OBJECT)
    # Readers of JSON differ in which of two members of one name they take.
    json.loads(body, object_pairs_hook=_check_once, parse_int=len, parse_float=len)
    for name in given:
        if name not in members:
            shown = line_of(name, chars_max=SHOWN_CHARS_MAX)
            raise _wrong(shown, f"is not known here; the members are {', '.join(members)}")
    return {name: value for name, value in given.items() if value is not None}


def _check_once(pairs: Sequence[tuple[str, Any]]) -> None:
    counts = Counter(name for name, _ in pairs)
    for name, count in counts.items():
        if count > 1:
            raise _wrong(line_of(name, chars_max=SHOWN_CHARS_MAX), "is there twice; write it once")


def _strategy(given: Mapping[str, Any]) -> ShiftStrategy:
    name = _text(given, "strategy", STRATEGY_CHARS_MAX)
    own = [member for member in OWN if member in given]
    if name is not None and own:
        raise ApiError(ApiErrorType.PARAMETER, TWO_STRATEGIES)
    try:
        if name is not None:
            return strategy(name)
        percent = _number(given, "percent", most=100.0)
        interval_s = _number(given, "interval_s", most=SHIFT_S_MAX)
        linear = _flag(given, "linear")
        if not own:
            raise ApiError(ApiErrorType.PARAMETER, NO_STRATEGY)
        if percent is None or interval_s is None:
            raise ApiError(ApiErrorType.PARAMETER, NO_PERCENT if percent is None else NO_INTERVAL)
        return own_strategy(percent, interval_s, linear)
    except ValueError as error:
        raise _wrong("strategy" if name is not None else "percent", str(error)) from None


def _text(given: Mapping[str, Any], name: str, chars_max: int, *, empty: bool = False) -> str | None:
    value = given.get(name)
    if value is None:
        return None
    if not isinstance(value, str) or len(value) > chars_max or not (value or empty):
        least = "a text of at most" if empty else "a text of 1 to"
        raise _wrong(name, f"write {least} {chars_max} characters")
    return value


def _number(given: Mapping[str, Any], name: str, *, most: float) -> float | None:
    value = given.get(name)
    if value is None:
        return None
    found = number(value, most=most, default=None) if isinstance(value, (int, float)) else None
    if found is None or isinstance(value, bool):
        raise _wrong(name, f"write a number from 0 to {most:.0f}")
    return found


def _flag(given: Mapping[str, Any], name: str) -> bool:
    value = given.get(name, False)
    if not isinstance(value, bool):
        raise _wrong(name, "write true or false")
    return value


def _function(given: Mapping[str, Any], name: str) -> str | None:
    text = _text(given, name, FUNCTION_NAME_CHARS_MAX)
    if text is None:
        return None
    try:
        FunctionName.parse(text)
    except ValueError:
        raise _wrong(name, "is no name of a function; write its name or ARN") from None
    return text


def _id(given: Mapping[str, Any]) -> str:
    text = _text(given, "id", ID_CHARS_MAX)
    if text is None:
        return ""
    if not all("!" <= char <= "~" for char in text):
        raise _wrong("id", "write ASCII characters without blanks")
    return text


def _wrong(name: str, text: str) -> ApiError:
    return ApiError(ApiErrorType.PARAMETER, f"{name}: {text}")
