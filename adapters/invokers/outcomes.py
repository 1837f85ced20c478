"""Owns how invokers turn answers into outcomes: error documents, size limits, and Retry-After headers."""

import json
import re
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

from adapters.invokers.stack_traces import as_text, stack_in
from poller.domain.invocations import RETRY_AFTER_S_MAX, FunctionError, Invocation, Outcome
from poller.domain.records import Epoch
from poller.domain.untrusted import numbers

ANSWER_BYTES_MAX = 6 * 1024 * 1024
"""The largest answer of a synchronous function, as on Lambda."""
STACK_CHARS_READ_MAX = 64 * 1024
"""How much of an entry of a stack trace is read before it is split into lines."""
BEGINNING_BYTES_MAX = 64 * 1024
"""How much is read of a document that is nested too deeply for the JSON parser. Type and message are at its beginning."""
_TOKEN = re.compile(r'"(?:[^"\\]|\\.)*+"|[{}\[\]:,]', re.DOTALL)
RESPONSE_TOO_LARGE = "Function.ResponseSizeTooLarge"
WHOLE_ERROR_HEADER = "Poller-Whole-Error"
"""The header by which the daemon's own child process learns that a call needs the document of a failure."""


def failed(
    error_type: str,
    message: str,
    *,
    stack_trace: Iterable[str] = (),
    executed_version: str = "$LATEST",
    document: bytes = b"",
) -> FunctionError:
    """Makes a function error. An entry of `stack_trace` may have several lines. `document` is the whole error as JSON."""
    lines = (line for entry in stack_trace for line in entry[:STACK_CHARS_READ_MAX].splitlines())
    trace = tuple(line for line in lines if line.strip())
    return FunctionError(error_type, message, executed_version, stack_trace=trace, document=document)


def named_in_document(invocation: Invocation) -> str:
    """Returns the request id that the document of a failure must name; empty if the call needs no document."""
    return invocation.request_id if invocation.whole_error else ""


def for_caller(outcome: Outcome, invocation: Invocation) -> Outcome:
    """Returns the outcome of a call without the document of its error, unless the call asks for that and it is no larger than an answer."""
    if not isinstance(outcome, FunctionError) or not outcome.document:
        return outcome
    fits = len(outcome.document) <= ANSWER_BYTES_MAX
    return outcome if invocation.whole_error and fits else replace(outcome, document=b"")


def too_large(bytes_max: int) -> FunctionError:
    """Makes the outcome of an answer that has more than `bytes_max` bytes."""
    return failed(RESPONSE_TOO_LARGE, f"the answer has more than {bytes_max} bytes")


def error_document(payload: bytes) -> FunctionError | None:
    """Reads an error document, a JSON object with both `errorType` and `errorMessage`; returns None for anything else.

    If the whole document cannot be parsed, it is enough that its beginning has both members: the function has failed anyway.
    """
    found = json_object(payload) if b'"errorType"' in payload and b'"errorMessage"' in payload else {}
    if "errorType" not in found or "errorMessage" not in found:
        return None
    return reported_failure(found, error_type="", whole=payload)


def reported_failure(
    document: dict[str, Any], *, error_type: str, executed_version: str = "$LATEST", whole: bytes = b""
) -> FunctionError:
    """Makes the function error that an error document describes. `error_type` is used if the document has none.

    `whole` is the document as it was sent. It is not kept if it was no object, or is no text.
    """
    return failed(
        as_text(document.get("errorType")) or error_type,
        as_text(document.get("errorMessage")),
        stack_trace=stack_in(document),
        executed_version=executed_version,
        document=whole if document and _is_text(whole) else b"",
    )


def _is_text(payload: bytes) -> bool:
    try:
        payload.decode()
    except UnicodeDecodeError:
        return False
    return True


def json_object(payload: bytes) -> dict[str, Any]:
    """Parses a JSON object; returns an empty one for anything else.

    Bytes that are not UTF-8 are replaced. Of an object that is nested too deeply, only the outermost text members are read.
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
    """Returns the outermost members of an object that are texts; ignores all others, and the end may be missing."""
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
    """Returns the seconds that a Retry-After header (a number or an HTTP date) asks for, bounded; None if it has no meaning."""
    if header is None:
        return None
    text = header.strip()
    if text.isascii() and text.isdigit():
        return numbers.number(text, most=RETRY_AFTER_S_MAX, default=None, clamp=True)
    moment = numbers.http_date(text, default=None)
    return None if moment is None else min(max(moment - now, 0.0), RETRY_AFTER_S_MAX)
