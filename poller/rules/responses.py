"""Owns how a function's answer is read: outcome and payload in, verdict out (spec 6)."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, assert_never

import orjson

from poller.invocations import Ended, FunctionError, Outcome, Succeeded, Throttled, TimedOut, Unreachable
from poller.records import JsonObject

ERROR_CHARACTERS_MAX = 256
"""What is kept of an error's text for people."""


@dataclass(frozen=True, slots=True)
class Response:
    """What a discard document says of the last answer (spec 8.1, `responseContext`)."""

    executed_version: str
    function_error: str | None


@dataclass(frozen=True, slots=True)
class Accepted:
    """Everything is done. `state` is the returned window state's JSON where a window asked for one."""

    state: bytes = b""


@dataclass(frozen=True, slots=True)
class Partial:
    """The function reported some records, by index in the batch; at least one, and not a whole stream batch."""

    failed: frozenset[int]
    response: Response
    state: bytes = b""


@dataclass(frozen=True, slots=True)
class Rejected:
    """The whole batch failed and a retry is used up. `response` is None when no call was possible."""

    ended: Ended
    error: str
    response: Response | None


@dataclass(frozen=True, slots=True)
class Deferred:
    """The function was not called; nothing is used up."""

    ended: Ended
    error: str
    retry_after_s: float | None = None


type Verdict = Accepted | Partial | Rejected | Deferred


@dataclass(frozen=True, slots=True)
class Reading:
    """How answers are read: whether failure reports count, whether an empty report item is ignored (SQS, spec 12.7),
    whether a `state` object must come back (tumbling windows)."""

    report_failures: bool = False
    ignore_empty_items: bool = False
    state_required: bool = False


def parse(outcome: Outcome, identifiers: Sequence[str], reading: Reading) -> Verdict:
    """The verdict on a batch whose records have these identifiers (sequence numbers or message ids), in order."""
    match outcome:
        case Succeeded():
            return _parse_answer(outcome, identifiers, reading)
        case FunctionError(error_type, message, version, function_error):
            return Rejected(
                Ended.FUNCTION_ERROR, cut(f"{error_type}: {message}"), Response(version, function_error)
            )
        case TimedOut(timeout_s, version):
            return Rejected(
                Ended.TIMED_OUT, f"timed out after {timeout_s:g} s", Response(version, "Unhandled")
            )
        case Throttled(reason, retry_after_s):
            return Deferred(Ended.THROTTLED, cut(reason), retry_after_s)
        case Unreachable(reason, retry_after_s):
            return Deferred(Ended.UNREACHABLE, cut(reason), retry_after_s)
        case _:
            assert_never(outcome)


def oversized(payload_bytes: int, payload_bytes_max: int) -> Rejected:
    """The verdict on a single record whose event is too large to send (spec 4): it fails without a call."""
    error = f"the event has {payload_bytes} bytes, more than the {payload_bytes_max} that a function may get"
    return Rejected(Ended.OVERSIZED, error, None)


def cut(text: str) -> str:
    """One line for people, cut to the limit."""
    line = " ".join(text.split())
    return line if len(line) <= ERROR_CHARACTERS_MAX else line[: ERROR_CHARACTERS_MAX - 1] + "…"


def _parse_answer(outcome: Succeeded, identifiers: Sequence[str], reading: Reading) -> Verdict:
    if not (reading.report_failures or reading.state_required):
        return Accepted()
    response = Response(outcome.executed_version, None)
    try:
        answer = orjson.loads(outcome.payload) if outcome.payload else None
    except orjson.JSONDecodeError:
        return _malformed("the answer is not JSON", response)
    state = b""
    if reading.state_required:
        if not isinstance(answer, dict) or not isinstance(answer.get("state"), dict):
            return _malformed("the answer has no state object, which a tumbling window needs", response)
        state = orjson.dumps(answer["state"])
    if not reading.report_failures:
        return Accepted(state)
    return _parse_report(answer, identifiers, reading, response=response, state=state)


def _parse_report(
    answer: Any,
    identifiers: Sequence[str],
    reading: Reading,
    *,
    response: Response,
    state: bytes,
) -> Verdict:
    if answer in (None, "", []):
        return Accepted(state)
    if not isinstance(answer, dict):
        return _malformed("the answer is not an object with batchItemFailures", response)
    items = answer.get("batchItemFailures")
    if items is None:
        return Accepted(state)
    if not isinstance(items, list):
        return _malformed("batchItemFailures is not an array", response)
    failed: set[int] = set()
    places = _places(identifiers)
    for item in items:
        if item == {} and reading.ignore_empty_items:
            continue
        place = _place(item, places)
        if place is None:
            return _malformed("batchItemFailures has an item that names no record of the batch", response)
        failed.add(place)
    return Partial(frozenset(failed), response, state) if failed else Accepted(state)


def _places(identifiers: Sequence[str]) -> Mapping[str, int]:
    return {identifier: place for place, identifier in enumerate(identifiers)}


def _place(item: JsonObject | object, places: Mapping[str, int]) -> int | None:
    identifier = item.get("itemIdentifier") if isinstance(item, dict) else None
    return places.get(identifier) if isinstance(identifier, str) else None


def _malformed(error: str, response: Response) -> Rejected:
    return Rejected(Ended.REJECTED, error, response)
