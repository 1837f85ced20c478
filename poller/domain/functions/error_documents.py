"""Owns the JSON document that a caller or a destination gets in place of an answer when a function failed (aws-behaviour#invoke-answers)."""

from typing import Any

import orjson

from poller.domain.invocations import FunctionError, TimedOut

TIMED_OUT = "Sandbox.Timedout"


def error_document(outcome: FunctionError | TimedOut, request_id: str) -> bytes:
    """The document for a failed call, as Lambda writes it."""
    if isinstance(outcome, TimedOut):
        text = f"RequestId: {request_id} Error: Task timed out after {outcome.timeout_s:.2f} seconds"
        return orjson.dumps({"errorType": TIMED_OUT, "errorMessage": text})
    document: dict[str, Any] = {
        "errorMessage": outcome.message,
        "errorType": outcome.error_type,
        "requestId": request_id,
        "stackTrace": list(outcome.stack_trace),
    }
    return orjson.dumps(document)
