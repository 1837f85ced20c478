"""Owns what an answer of a function's URL means: the table of outcomes by status, headers and body."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from http import HTTPStatus

from adapters.invokers.cloud_events.answers import result_of
from adapters.invokers.http_failures import excerpt
from adapters.invokers.http_settings import HttpSettings, Style
from adapters.invokers.outcomes import error_document, failed, retry_after_s, too_large
from poller.domain.invocations import FunctionError, Outcome, Succeeded, Throttled, TimedOut, Unreachable
from poller.domain.records import Epoch
from poller.domain.untrusted import numbers

TIMED_OUT_S_MAX = 10.0**6
_EMULATOR_TIMED_OUT = re.compile(rb"Task timed out after (\d{1,6}\.\d{2}) seconds\s*")


@dataclass(frozen=True, slots=True)
class Answer:
    """A complete answer; `body` is None if it was larger than allowed."""

    status: int
    headers: Mapping[str, str]
    body: bytes | None


def with_result(answer: Answer) -> Answer:
    """Returns the answer with the function's result as its body, if it is a CloudEvent itself."""
    if answer.body is None:
        return answer
    return replace(answer, body=result_of(answer.body, answer.headers.get("Content-Type", "")))


def outcome_of(answer: Answer, settings: HttpSettings, now: Epoch) -> Outcome:
    """Returns the outcome of an answer.

    429: throttled. 502, 503, 504: unreachable. 2xx with `x-amz-function-error`, or with an error document as body
    (style runtime-interface): function error. Other 2xx: success. Everything else: function error.

    A runtime interface emulator has two special answers. If the function's process died it answers 502 with an error document,
    which is a function error. If the function timed out it answers 200 with a fixed line of text.
    """
    if answer.status in settings.throttled_statuses:
        return Throttled(_status(answer), retry_after_s(answer.headers.get("Retry-After"), now))
    document = (
        error_document(answer.body) if answer.body and settings.style is Style.RUNTIME_INTERFACE else None
    )
    died = answer.status == HTTPStatus.BAD_GATEWAY and document is not None
    if answer.status in settings.unreachable_statuses and not died:
        return Unreachable(_status(answer), retry_after_s(answer.headers.get("Retry-After"), now))
    if answer.body is None:
        return too_large(settings.answer_bytes_max)
    if 200 <= answer.status <= 299 and "x-amz-function-error" not in answer.headers and document is None:
        return _success(answer.body, settings)
    return _failure(answer, document)


def _success(body: bytes, settings: HttpSettings) -> Outcome:
    emulator = settings.style is Style.RUNTIME_INTERFACE
    if emulator and (timed_out := _EMULATOR_TIMED_OUT.fullmatch(body)):
        return TimedOut(numbers.number(timed_out[1], most=TIMED_OUT_S_MAX, default=TIMED_OUT_S_MAX))
    return Succeeded(body)


def _failure(answer: Answer, document: FunctionError | None) -> Outcome:
    flagged = answer.headers.get("x-amz-function-error")
    named = document or error_document(answer.body or b"")
    if named is not None:
        return named
    if flagged is not None:
        detail = excerpt(answer.body)
        how = f": {detail}" if detail else " and did not say how"
        return failed(flagged, f"the function failed{how}")
    return failed(f"Http.{answer.status}", _status(answer))


def _status(answer: Answer) -> str:
    status = answer.status
    phrase = HTTPStatus(status).phrase if status in HTTPStatus else "unknown status"
    detail = excerpt(answer.body)
    return f"the function's URL answered {status} {phrase}" + (f": {detail}" if detail else "")
