"""Owns how a function's answer is read: it turns an outcome and its payload into a verdict (aws-behaviour#answers)."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypedDict, assert_never

import msgspec
import orjson

from poller.domain.invocations import (
    RETRY_AFTER_S_MAX,
    VERSION_CHARS_MAX,
    Ended,
    FunctionError,
    Outcome,
    Succeeded,
    Throttled,
    TimedOut,
    Unreachable,
)
from poller.domain.records import JsonObject
from poller.domain.untrusted.numbers import number
from poller.domain.untrusted.texts import line_of, lines_of
from poller.rules.filtering import is_light
from poller.rules.retry_after import RetryAfter, RetryAfterReader

ERROR_CHARACTERS_MAX = 256
"""Longer error texts are cut to this length."""


class _Members(msgspec.Struct, frozen=True, rename={"failures": "batchItemFailures"}):
    """The members of an answer that are read."""

    failures: msgspec.Raw = msgspec.Raw()
    state: msgspec.Raw = msgspec.Raw()


_MEMBERS = msgspec.json.Decoder(_Members)


class Response(msgspec.Struct, frozen=True, gc=False):
    """The last answer, as the `responseContext` of a failure document shows it (aws-behaviour#failure-document)."""

    executed_version: str
    function_error: str | None


class Accepted(msgspec.Struct, frozen=True, gc=False):
    """The whole batch succeeded. `state` is the JSON of the returned window state, empty outside of windows."""

    state: bytes = b""


@dataclass(frozen=True, slots=True)
class Partial:
    """The function reported that some records failed. `failed` has their indexes in the batch, at least one.

    A stream goes on at the lowest one (aws-behaviour#partial-report). `retry_after` is None if the report does not say when to
    try its records again.
    """

    failed: frozenset[int]
    response: Response
    state: bytes = b""
    retry_after: RetryAfter | None = None


@dataclass(frozen=True, slots=True)
class Rejected:
    """The whole batch failed, and a retry is used up. `response` is None if no call was possible.

    `cause` is the function's own error, for logs and status; no rule reads it.
    """

    ended: Ended
    error: str
    response: Response | None
    cause: FunctionError | None = field(default=None, compare=False)


@dataclass(frozen=True, slots=True)
class Deferred:
    """The function was not called; no retry is used up (aws-behaviour#refused-call)."""

    ended: Ended
    error: str
    retry_after_s: float | None = None


type Verdict = Accepted | Partial | Rejected | Deferred


@dataclass(frozen=True, slots=True)
class ResponseReading:
    """How answers are read.

    `report_failures`: failure reports are read. `ignore_empty_items`: an empty item of a report is ignored, as for queues
    (aws-behaviour#answers). `state_required`: the answer needs a `state` object
    (aws-behaviour#failures-in-a-window). `retry_after`: `retryAfterSeconds` of an item is read, as for queues.
    """

    report_failures: bool = False
    ignore_empty_items: bool = False
    state_required: bool = False
    retry_after: bool = False


def parse(outcome: Outcome, identifiers: Sequence[str], reading: ResponseReading) -> Verdict:
    """The verdict on a batch whose records have these identifiers (sequence numbers or message ids), in order."""
    match outcome:
        case Succeeded():
            return _parse_answer(outcome, identifiers, reading)
        case FunctionError(error_type, message, version, function_error):
            error = cut(f"{error_type}: {message}")
            return Rejected(Ended.FUNCTION_ERROR, error, Response(version, function_error), outcome)
        case TimedOut(timeout_s, version):
            return Rejected(
                Ended.TIMED_OUT, f"timed out after {timeout_s:g} s", Response(_version(version), "Unhandled")
            )
        case Throttled(reason, retry_after_s):
            return Deferred(Ended.THROTTLED, cut(reason), _asked(retry_after_s))
        case Unreachable(reason, retry_after_s):
            return Deferred(Ended.UNREACHABLE, cut(reason), _asked(retry_after_s))
        case _:
            assert_never(outcome)


def oversized(payload_bytes: int, payload_bytes_max: int) -> Rejected:
    """The verdict on a single record whose event is too large to send: it fails without a call (aws-behaviour#oversized-record)."""
    error = f"the event has {payload_bytes} bytes, more than the {payload_bytes_max} that a function may get"
    return Rejected(Ended.OVERSIZED, error, None)


def was_called(verdict: Verdict) -> bool:
    """Whether the function was called."""
    match verdict:
        case Accepted() | Partial():
            return True
        case Rejected(response=response):
            return response is not None
        case Deferred():
            return False
        case _:
            assert_never(verdict)


class Cause(TypedDict, total=False):
    """Members of InvocationFinished that are set only for a function's own errors."""

    error_type: str
    stack_trace: tuple[str, ...]


def described(verdict: Verdict, records: int) -> tuple[Ended, int, str]:
    """How an invocation ended, how many of its records failed, and the error."""
    match verdict:
        case Accepted():
            return Ended.SUCCESS, 0, ""
        case Partial(failed):
            return Ended.PARTIAL, len(failed), ""
        case Rejected(ended, error) | Deferred(ended, error):
            return ended, records, error
        case _:
            assert_never(verdict)


def cause_of(verdict: Verdict) -> Cause:
    """The function's own error, as members of InvocationFinished."""
    if not isinstance(verdict, Rejected) or verdict.cause is None:
        return {}
    return {"error_type": verdict.cause.error_type, "stack_trace": verdict.cause.stack_trace}


def cut(text: str) -> str:
    """One line of at most ERROR_CHARACTERS_MAX. Third-party invokers may not have cleaned the text."""
    return " ".join(lines_of(text, chars_max=ERROR_CHARACTERS_MAX).split())


def _asked(seconds: object) -> float | None:
    """The seconds to wait that the function asked for. A third-party invoker may give any value."""
    return number(seconds, most=RETRY_AFTER_S_MAX, default=None, clamp=True)


def _version(text: str) -> str:
    """The version, cleaned. It is copied into failure documents, which must stay valid JSON whatever the service's header contains."""
    return line_of(text, chars_max=VERSION_CHARS_MAX)


def _parse_answer(outcome: Succeeded, identifiers: Sequence[str], reading: ResponseReading) -> Verdict:
    if not (reading.report_failures or reading.state_required):
        return Accepted()
    response = Response(_version(outcome.executed_version), None)
    try:
        answer, state = _read(outcome.payload)
    except orjson.JSONDecodeError:
        return _malformed("the answer is not JSON", response)
    except (msgspec.MsgspecError, RecursionError):
        return _malformed("the answer is not an object in JSON", response)
    if reading.state_required and not state:
        return _malformed("the answer has no state object, which a tumbling window needs", response)
    if not reading.state_required:
        state = b""
    if not reading.report_failures:
        return Accepted(state)
    return _parse_report(answer, identifiers, reading, response=response, state=state)


def _read(payload: bytes) -> tuple[Any, bytes]:
    """The answer, and the JSON of its state object (empty without one).

    If an answer takes long to parse, only the two needed members are read. Raises ValueError and RecursionError.
    """
    if is_light(payload):
        answer = orjson.loads(payload) if payload else None
        given = answer.get("state") if isinstance(answer, dict) else None
        return answer, orjson.dumps(given) if isinstance(given, dict) else b""
    members = _MEMBERS.decode(payload)
    state = bytes(members.state)
    report = bytes(members.failures)
    # A report that is slow to parse is far larger than any batch, so it cannot be a valid one.
    failures = orjson.loads(report or b"null") if is_light(report) else False
    return {"batchItemFailures": failures}, state if state.startswith(b"{") else b""


def _parse_report(
    answer: Any,
    identifiers: Sequence[str],
    reading: ResponseReading,
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
    waits = RetryAfterReader() if reading.retry_after and items else None
    for item in items:
        if item == {} and reading.ignore_empty_items:
            continue
        place = _place(item, places)
        if place is None:
            return _malformed("batchItemFailures has an item that names no record of the batch", response)
        failed.add(place)
        if waits is not None:
            waits.read(item, place)
    if not failed:
        return Accepted(state)
    return Partial(frozenset(failed), response, state, None if waits is None else waits.found)


def _places(identifiers: Sequence[str]) -> Mapping[str, int]:
    """The place of each identifier. The sequence number of an aggregated record stands for the first of its parts that is there."""
    places = {identifier: place for place, identifier in enumerate(identifiers)}
    if len(places) < len(identifiers):
        # In the event of a notice all parts have the number of the whole record.
        places = {identifier: place for place, identifier in reversed(list(enumerate(identifiers)))}
    for part in [each for each in identifiers if ":" in each]:
        places.setdefault(part.partition(":")[0], places[part])
    return places


def _place(item: JsonObject | object, places: Mapping[str, int]) -> int | None:
    identifier = item.get("itemIdentifier") if isinstance(item, dict) else None
    return places.get(identifier) if isinstance(identifier, str) else None


def _malformed(error: str, response: Response) -> Rejected:
    return Rejected(Ended.REJECTED, error, response)
