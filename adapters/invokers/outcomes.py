"""Owns what invokers make of answers: error documents, limits on their size, hints when to come back."""

import json
import re
from collections.abc import Iterable
from typing import Any

from adapters.invokers.stack_traces import stack_in, told
from poller.domain.invocations import RETRY_AFTER_S_MAX, FunctionError
from poller.domain.records import Epoch
from poller.domain.untrusted import numbers

ANSWER_BYTES_MAX = 6 * 1024 * 1024
"""What a synchronous function may answer, as on Lambda."""
STACK_CHARS_READ_MAX = 64 * 1024
"""What is looked at of a stack trace before it is cut to its lines."""
BEGINNING_BYTES_MAX = 64 * 1024
"""What is looked at of a document that is nested too deeply for the JSON reader; type and message stand at its beginning."""
_TOKEN = re.compile(r'"(?:[^"\\]|\\.)*+"|[{}\[\]:,]', re.DOTALL)
RESPONSE_TOO_LARGE = "Function.ResponseSizeTooLarge"


def failed(
    error_type: str,
    message: str,
    *,
    stack_trace: Iterable[str] = (),
    executed_version: str = "$LATEST",
) -> FunctionError:
    """A function error; an entry of `stack_trace` may have several lines."""
    lines = (line for entry in stack_trace for line in entry[:STACK_CHARS_READ_MAX].splitlines())
    trace = tuple(line for line in lines if line.strip())
    return FunctionError(error_type, message, executed_version, stack_trace=trace)


def too_large(bytes_max: int) -> FunctionError:
    """The outcome of an answer that has more than `bytes_max` bytes."""
    return failed(RESPONSE_TOO_LARGE, f"the answer has more than {bytes_max} bytes")


def error_document(payload: bytes) -> FunctionError | None:
    """What a body says that is a JSON object with both `errorType` and `errorMessage`, else None.

    One that cannot be read as a whole counts when its beginning has both: the function failed, whatever else it wrote.
    """
    found = json_object(payload) if b'"errorType"' in payload and b'"errorMessage"' in payload else {}
    if "errorType" not in found or "errorMessage" not in found:
        return None
    return failed_as_told(found, error_type="")


def failed_as_told(
    document: dict[str, Any], *, error_type: str, executed_version: str = "$LATEST"
) -> FunctionError:
    """The function error that an error document describes; `error_type` is for one that names none."""
    return failed(
        told(document.get("errorType")) or error_type,
        told(document.get("errorMessage")),
        stack_trace=stack_in(document),
        executed_version=executed_version,
    )


def json_object(payload: bytes) -> dict[str, Any]:
    """The JSON object that `payload` holds; empty when it holds anything else.

    Bytes that are no UTF-8 are replaced. Of an object that is nested too deeply only the texts of its outermost level are read.
    """
    try:
        found = _loaded(payload)
    except RecursionError:
        return _outermost_texts(payload[:BEGINNING_BYTES_MAX].decode("utf-8", "replace"))
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def _loaded(payload: bytes) -> Any:
    try:
        return json.loads(payload, parse_int=numbers.json_whole)
    except UnicodeDecodeError:
        return json.loads(payload.decode("utf-8", "replace"), parse_int=numbers.json_whole)


def _outermost_texts(text: str) -> dict[str, Any]:
    """The members of an object that are texts, as far as it is there; what they stand beside is passed over."""
    found: dict[str, Any] = {}
    depth, name, last = 0, "", ""
    for token in map(re.Match.group, _TOKEN.finditer(text)):
        if depth == 1 and token == ":":
            name, last = last, ""
        elif depth == 1 and token in (",", "}"):
            if name and last:
                found[_text(name)] = _text(last)
            name = last = ""
        elif depth == 1 and token[0] == '"':
            last = token
        depth += (token in ("{", "[")) - (token in ("}", "]"))
        if depth < 1:
            break
    return found


def _text(token: str) -> str:
    try:
        return str(json.loads(token, strict=False))
    except ValueError:
        return token[1:-1]


def retry_after_s(header: str | None, now: Epoch) -> float | None:
    """Seconds that a Retry-After header (a number or an HTTP date) asks for, bounded; None when it says nothing."""
    if header is None:
        return None
    text = header.strip()
    if text.isascii() and text.isdigit():
        return numbers.number(text, most=RETRY_AFTER_S_MAX, default=None, clamp=True)
    moment = numbers.http_date(text, default=None)
    return None if moment is None else min(max(moment - now, 0.0), RETRY_AFTER_S_MAX)
