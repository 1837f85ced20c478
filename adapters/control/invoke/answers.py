"""Owns the answers to invocations: how an outcome becomes a status, headers and a body (aws-behaviour#invoke-answers)."""

import base64
from http import HTTPStatus
from typing import Any, assert_never

from aiohttp import web

from adapters.control.aws_errors import body_of, status_of
from adapters.control.responses import answer
from poller.domain.functions.calls import LOG_TAIL_BYTES_MAX, FunctionAnswer, NoRoom, ThrottleReason
from poller.domain.functions.error_documents import error_document
from poller.domain.invocations import (
    VERSION_CHARS_MAX,
    FunctionError,
    Outcome,
    Succeeded,
    Throttled,
    TimedOut,
    Unreachable,
)
from poller.domain.mapping_api import ApiErrorType
from poller.domain.untrusted.texts import line_of, lines_of

VERSION = "X-Amz-Executed-Version"
FUNCTION_ERROR = "X-Amz-Function-Error"
LOG_RESULT = "X-Amz-Log-Result"
REQUEST_ID = "x-amzn-requestid"
ERROR_TYPE = "x-amzn-errortype"
UNHANDLED = "Unhandled"
RETRY_AFTER_S = 1
"""What a client is asked to wait if nothing says when there will be room."""
TEXT_CHARS_MAX = 1024


def invoked(found: FunctionAnswer, *, with_log: bool) -> web.Response:
    """Returns the answer to a call that took place, or that what runs the function has refused."""
    response = _of_outcome(found.outcome, found.request_id)
    response.headers[REQUEST_ID] = found.request_id
    if with_log and VERSION in response.headers:
        text = log_text(found, response.headers[VERSION]).encode("utf-8", "replace")
        response.headers[LOG_RESULT] = base64.b64encode(text[-LOG_TAIL_BYTES_MAX:]).decode()
    return response


def without_body(status: HTTPStatus) -> web.Response:
    """Returns the answer to a call that is not waited for."""
    return web.Response(status=status)


def accepted(request_id: str, body: dict[str, Any] | None = None) -> web.Response:
    """Returns the answer to an asynchronous call that is stored."""
    status = HTTPStatus.ACCEPTED
    response = without_body(status) if body is None else answer(body, status=status)
    response.headers[REQUEST_ID] = request_id
    return response


def no_room(error: NoRoom) -> web.Response:
    """Returns the answer to a call for which there was no room."""
    return _throttled(error.reason, error.text, error.retry_after_s)


def log_text(found: FunctionAnswer, version: str) -> str:
    """Returns the log of a call as Lambda frames it."""
    took_ms = found.duration_s * 1000
    return (
        f"START RequestId: {found.request_id} Version: {version}\n"
        f"{found.log_tail}"
        f"END RequestId: {found.request_id}\n"
        f"REPORT RequestId: {found.request_id}\tDuration: {took_ms:.2f} ms\tBilled Duration: {-(-took_ms // 1):.0f} ms\n"
    )


def _of_outcome(outcome: Outcome, request_id: str) -> web.Response:
    match outcome:
        case Succeeded(payload, version):
            return _with_version(payload, version)
        case FunctionError():
            return _failed(outcome, request_id, outcome.function_error)
        case TimedOut():
            return _failed(outcome, request_id, UNHANDLED)
        case Throttled(reason, retry_after_s):
            return _throttled(ThrottleReason.INVOKER, reason, retry_after_s)
        case Unreachable(reason):
            return _refused(ApiErrorType.NOT_READY, f"The function cannot be called: {reason}")
        case _:
            assert_never(outcome)


def _with_version(payload: bytes, version: str) -> web.Response:
    response = web.Response(body=payload, content_type="application/json")
    # The version of a plug-in's outcome is any text.
    response.headers[VERSION] = line_of(version, chars_max=VERSION_CHARS_MAX)
    return response


def _failed(outcome: FunctionError | TimedOut, request_id: str, kind: str) -> web.Response:
    whole = outcome.document if isinstance(outcome, FunctionError) else b""
    response = _with_version(whole or error_document(outcome, request_id), outcome.executed_version)
    response.headers[FUNCTION_ERROR] = kind
    return response


def _throttled(reason: ThrottleReason, text: str, retry_after_s: float | None) -> web.Response:
    response = _refused(ApiErrorType.THROTTLED, text, {"Reason": reason.value})
    wait_s = RETRY_AFTER_S if retry_after_s is None else retry_after_s
    response.headers["Retry-After"] = f"{max(RETRY_AFTER_S, -(-wait_s // 1)):.0f}"
    return response


def _refused(name: ApiErrorType, text: str, more: dict[str, str] | None = None) -> web.Response:
    shown = lines_of(text, chars_max=TEXT_CHARS_MAX)
    response = answer((more or {}) | body_of(name, shown), status=status_of(name))
    response.headers[ERROR_TYPE] = name.value
    return response
