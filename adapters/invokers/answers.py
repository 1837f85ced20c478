"""Owns what invokers make of answers: error documents, limits on their size, hints when to come back."""

import json
from datetime import UTC
from email.utils import parsedate_to_datetime
from typing import Any

from poller.invocations import FunctionError
from poller.records import Epoch

ANSWER_BYTES_MAX = 6 * 1024 * 1024
"""What a synchronous function may answer, as on Lambda."""
ERROR_TYPE_CHARS_MAX = 256
ERROR_MESSAGE_CHARS_MAX = 1024
"""Error texts come from functions; longer ones are cut."""
RETRY_AFTER_S_MAX = 300.0
"""Nobody is believed who asks to be left alone for longer."""
RESPONSE_TOO_LARGE = "Function.ResponseSizeTooLarge"


def failed(error_type: str, message: str, *, executed_version: str = "$LATEST") -> FunctionError:
    """A function error with its texts cut to what is kept."""
    return FunctionError(
        error_type=cut(error_type, ERROR_TYPE_CHARS_MAX),
        message=cut(message, ERROR_MESSAGE_CHARS_MAX),
        executed_version=executed_version,
    )


def too_large(bytes_max: int) -> FunctionError:
    """The outcome of an answer that has more than `bytes_max` bytes."""
    return failed(RESPONSE_TOO_LARGE, f"the answer has more than {bytes_max} bytes")


def cut(text: str, chars_max: int) -> str:
    """`text`, shortened with an ellipsis to `chars_max` characters."""
    return text if len(text) <= chars_max else text[: chars_max - 1] + "…"


def error_document(payload: bytes) -> tuple[str, str] | None:
    """Type and message of a body that is a JSON object with both `errorType` and `errorMessage`, else None."""
    found = json_object(payload) if b'"errorType"' in payload and b'"errorMessage"' in payload else {}
    if "errorType" not in found or "errorMessage" not in found:
        return None
    return str(found["errorType"]), str(found["errorMessage"])


def json_object(payload: bytes) -> dict[str, Any]:
    """The JSON object that `payload` holds; empty when it holds anything else."""
    try:
        found = json.loads(payload)
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def retry_after_s(header: str | None, now: Epoch) -> float | None:
    """Seconds that a Retry-After header (a number or an HTTP date) asks for, bounded; None when it says nothing."""
    if header is None:
        return None
    text = header.strip()
    if text.isascii() and text.isdigit():
        return min(float(text[:9]), RETRY_AFTER_S_MAX)
    try:
        moment = parsedate_to_datetime(text)
    except ValueError:
        return None
    moment = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    return min(max(moment.timestamp() - now, 0.0), RETRY_AFTER_S_MAX)
