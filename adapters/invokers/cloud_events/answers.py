"""Owns what an answer to CloudEvents means: its body is the function's result, also if the answer is a CloudEvent itself.

A report of failures may name a record by the id of its event, which is all that a receiver of CloudEvents knows. For streams this
is not what the engine calls the record, so ids are replaced by identifiers here.
"""

import base64
import binascii
import json
from collections.abc import Mapping
from typing import Any

import msgspec

from adapters.invokers.cloud_events.requests import STRUCTURED_TYPE


class _Reply(msgspec.Struct, frozen=True):
    """The members of an answering CloudEvent that are read."""

    data: msgspec.Raw = msgspec.Raw()
    data_base64: str = ""


class _Report(msgspec.Struct, frozen=True, rename={"failures": "batchItemFailures"}):
    """The member of a result that is read."""

    failures: list[dict[str, Any]]


_REPLY = msgspec.json.Decoder(_Reply)
_REPORT = msgspec.json.Decoder(_Report)


def result_of(body: bytes, content_type: str) -> bytes:
    """Returns the function's result: the data of an answer in structured mode, else the body.

    An answer that says that it is a CloudEvent and is none stays as it is, so that it cannot pass for a result of nothing.
    """
    if content_type.partition(";")[0].strip().lower() != STRUCTURED_TYPE:
        return body
    try:
        reply = _REPLY.decode(body)
        return bytes(reply.data) or base64.b64decode(reply.data_base64, validate=True)
    except (msgspec.MsgspecError, RecursionError, binascii.Error):
        return body


def with_identifiers(result: bytes, identifiers: Mapping[str, str]) -> bytes:
    """Returns the result with the identifiers of records in the place of the ids of their events.

    A result that is no report, or that names no event, stays as it is.
    """
    if not identifiers or b'"batchItemFailures"' not in result:
        return result
    try:
        failures = _REPORT.decode(result).failures
    except (msgspec.MsgspecError, RecursionError):
        return result
    named = [_named(item, identifiers) for item in failures]
    if named == failures:
        return result
    return json.dumps({"batchItemFailures": named}).encode()


def _named(item: dict[str, Any], identifiers: Mapping[str, str]) -> dict[str, Any]:
    event_id = item.get("itemIdentifier")
    if not isinstance(event_id, str) or event_id not in identifiers:
        return item
    return {**item, "itemIdentifier": identifiers[event_id]}
