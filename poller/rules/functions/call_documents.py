"""Owns what destinations get of an asynchronous call that is over (aws-behaviour#async-documents)."""

import json
from collections.abc import Iterator, Mapping
from typing import Any

import orjson

from poller.domain.functions.call_notices import CallNotice
from poller.domain.functions.queued_calls import CallAnswer, CallEnd, QueuedCall
from poller.domain.untrusted.json_values import no_constant
from poller.domain.untrusted.numbers import json_whole
from poller.domain.untrusted.texts import line_of
from poller.rules.streams.failure_document import milliseconds

VERSION = "1.0"
PAYLOADS = ("responsePayload", "requestPayload")
"""What a shorter form of a document leaves out, in this order."""
STATUS = 200
THROTTLED_STATUS = 429
ERROR_CHARS_MAX = 1024
"""How much of an error a dead-letter queue gets, as on Lambda."""
QUALIFIED_PARTS = 8
LATEST = "$LATEST"
DETAIL_TYPE = "Lambda Function Invocation Result - {}"


def notice(call: QueuedCall) -> CallNotice:
    """What the destinations of a call that is over get."""
    over = call.ended
    assert over is not None, "a call that is not over has no document"
    timestamp = milliseconds(over.at)
    arn = qualified(call.arn)
    document: dict[str, Any] = {
        "version": VERSION,
        "timestamp": timestamp,
        "requestContext": {
            "requestId": call.call,
            "functionArn": arn,
            "condition": over.end.value,
            "approximateInvokeCount": call.attempts,
        },
        "requestPayload": _json(call.payload),
    }
    if over.answer.executed_version is not None:
        document["responseContext"] = _context(over.answer)
        document["responsePayload"] = _json(over.answer.payload)
    succeeded = over.end is CallEnd.SUCCESS
    return CallNotice(
        call=call.call,
        function=call.function,
        function_arn=arn,
        timestamp=timestamp,
        detail_type=DETAIL_TYPE.format("Success" if succeeded else "Failure"),
        documents=tuple(_forms(document)),
        payload=call.payload,
        error_code=str(THROTTLED_STATUS if over.answer.executed_version is None else STATUS),
        error_message=line_of(over.answer.error, chars_max=ERROR_CHARS_MAX),
    )


def _forms(document: Mapping[str, Any]) -> Iterator[bytes]:
    """The document, and its forms without the answer and without both payloads. `leftOut` names what is missing."""
    yield orjson.dumps(document)
    left_out: list[str] = []
    for name in PAYLOADS:
        if name in document:
            left_out.append(name)
            yield orjson.dumps({**document, **dict.fromkeys(left_out), "leftOut": left_out})


def qualified(arn: str) -> str:
    """The ARN of a function with its qualifier: $LATEST if it has none."""
    return arn if len(arn.split(":")) >= QUALIFIED_PARTS else f"{arn}:{LATEST}"


def _context(answer: CallAnswer) -> dict[str, Any]:
    context: dict[str, Any] = {"statusCode": STATUS, "executedVersion": answer.executed_version}
    if answer.function_error is not None:
        context["functionError"] = answer.function_error
    return context


def _json(payload: bytes) -> Any:
    """The payload as a part of a document: as it is if it is JSON, otherwise as a text; null if there is none."""
    if not payload.strip():
        return None
    return orjson.Fragment(payload) if _is_json(payload) else payload.decode("utf-8", "replace")


def _is_json(payload: bytes) -> bool:
    """Whether a payload may stand in a document as it is. orjson refuses lone surrogates and numbers beyond a double, which JSON allows."""
    try:
        orjson.loads(payload)
    except orjson.JSONDecodeError:
        try:
            json.loads(payload.decode(), parse_constant=no_constant, parse_int=json_whole)
        except (ValueError, RecursionError):
            return False
    return True
