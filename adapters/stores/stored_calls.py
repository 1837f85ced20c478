"""Owns how a queued call becomes a row, which bounds it has, and what becomes of a row that cannot be read.

The row has what conditions and indexes need. The rest is its `content`, a JSON text. The payload of the call and the answer of its
function are bytes beside it, since they may be long.

The id, the function's name and the owner are keys, so they are texts of bounded length that UTF-8 can encode, without null
characters. All other texts are kept as they are. A call beyond its bounds is refused before anything is written.

A newer version of poller may write what this one does not know, and people edit rows by hand. Such a call is left out and logged
once, since the others must go on. It stays in the store for those who can read it. A write to it raises ServiceUnavailable.
"""

import json
import logging
from collections.abc import Collection, Mapping
from typing import Any

from adapters.stores.stored_rows import (
    PARSE_ERRORS,
    SHOWN_CHARS_MAX,
    Values,
    json_object,
    moment,
    shown,
    text,
    whole,
)
from poller.domain.errors import ServiceUnavailable
from poller.domain.functions.queued_calls import (
    ANSWER_BYTES_MAX,
    PAYLOAD_BYTES_MAX,
    CallAnswer,
    CallEnd,
    CallId,
    EndedCall,
    QueuedCall,
)
from poller.domain.records import Epoch, WorkerId
from poller.domain.untrusted.texts import line_of
from poller.output.log_fields import EVENT

NAME_BYTES_MAX = 512
"""How long an id, a function's name or an owner may be. A sort key of DynamoDB has 1,024 bytes at most."""
CONTENT_BYTES_MAX = 256 * 1024
"""How long everything else may be together, without payload and answer. An item of DynamoDB has 400 KB at most."""
UNDELIVERED_MAX = 16
"""Destinations that do not have the end of a call yet."""
NAMES = ("call", "function", "accepted", "due", "owner", "takeovers", "revision", "content")
"""The values of a row. `owner` may be None."""
LOGGED_MAX = 1_000
"""Unreadable calls that are remembered, so that each is logged once. When there are more, all are forgotten."""
REMEDY = "run a version that knows it, or remove the row"

log = logging.getLogger("poller.stores")


class UnreadableCall(ServiceUnavailable):
    """The row of one call cannot be read. Leave the call out and go on with the others."""

    def __init__(self, name: Any, why: str) -> None:
        self.call = shown(name)
        said = f"call {self.call} in the store cannot be read: {why}; {REMEDY}"
        super().__init__(line_of(said, chars_max=3 * SHOWN_CHARS_MAX))


class CallReader:
    """Logs each call that cannot be read once."""

    def __init__(self) -> None:
        self._logged: set[str] = set()

    def tell(self, unreadable: UnreadableCall) -> None:
        """Logs a call unless that was done before."""
        if unreadable.call in self._logged:
            return
        if len(self._logged) >= LOGGED_MAX:
            self._logged.clear()
        self._logged.add(unreadable.call)
        log.warning("store: %s", unreadable.reason, extra={EVENT: "call_unreadable", "call": unreadable.call})


def content(call: QueuedCall) -> str:
    """Returns what has no value of its own in the row as a JSON text. The same content is always the same text."""
    return json.dumps(
        {
            "arn": call.arn,
            "client_context": call.client_context,
            "trace_header": call.trace_header,
            "attempts": call.attempts,
            "deferrals": call.deferrals,
            "ended": None if call.ended is None else _ended_values(call.ended),
            "last_error": call.last_error,
        },
        allow_nan=False,
        sort_keys=True,
        separators=(",", ":"),
    )


def answer_of(call: QueuedCall) -> bytes:
    """Returns the answer that is kept beside the row; empty if the call is not over."""
    return b"" if call.ended is None else call.ended.answer.payload


def checked(call: QueuedCall) -> str:
    """Returns the content of a call that is to be written; raises ServiceUnavailable if it is beyond its bounds."""
    try:
        for value in (call.call, call.function, *(() if call.owner is None else (call.owner,))):
            _name(value)
        for value in (call.accepted, call.due, *(() if call.ended is None else (call.ended.at,))):
            moment(value)
        for value in (call.attempts, call.deferrals, call.takeovers, call.revision):
            whole(value)
        _bounded(call.payload, "payload", PAYLOAD_BYTES_MAX)
        _bounded(answer_of(call), "answer", ANSWER_BYTES_MAX)
        kept = content(call)
        _bounded(kept.encode(), "content", CONTENT_BYTES_MAX)
        _ended(json.loads(kept)["ended"], b"")
    except PARSE_ERRORS as error:
        said = f"call {shown(call.call)} cannot be stored: {_why(error)}"
        raise ServiceUnavailable(line_of(said, chars_max=3 * SHOWN_CHARS_MAX)) from error
    return kept


def parsed(values: Values, *, payload: Any = b"", answer: Any = b"") -> QueuedCall:
    """Makes a call of a row's values; raises UnreadableCall if it cannot be read."""
    try:
        kept = text(values["content"])
        _bounded(kept.encode(), "content", CONTENT_BYTES_MAX)
        found, owner = json_object(kept), values.get("owner")
        return QueuedCall(
            call=CallId(_name(values["call"])),
            function=_name(values["function"]),
            arn=_text(found["arn"]),
            payload=_bounded(payload, "payload", PAYLOAD_BYTES_MAX),
            accepted=Epoch(moment(values["accepted"])),
            due=Epoch(moment(values["due"])),
            client_context=_text(found["client_context"]),
            trace_header=_text(found["trace_header"]),
            attempts=whole(found["attempts"]),
            deferrals=whole(found["deferrals"]),
            takeovers=whole(values["takeovers"]),
            owner=None if owner is None else WorkerId(_name(owner)),
            ended=_ended(found["ended"], _bounded(answer, "answer", ANSWER_BYTES_MAX)),
            # Calls that an earlier version has stored have none.
            last_error=_text(found.get("last_error", "")),
            revision=whole(values["revision"]),
        )
    except PARSE_ERRORS as error:
        raise UnreadableCall(values.get("call"), _why(error)) from error


def is_free(
    call: CallId,
    held_by: WorkerId | None,
    *,
    owner: WorkerId,
    gone: Collection[WorkerId],
    held: Collection[CallId],
) -> bool:
    """Whether `owner` may claim a call that `held_by` owns."""
    return call not in held and (held_by is None or held_by == owner or held_by in gone)


def _ended_values(ended: EndedCall) -> dict[str, Any]:
    return {
        "end": ended.end,
        "at": float(ended.at),
        "executed_version": ended.answer.executed_version,
        "function_error": ended.answer.function_error,
        "error": ended.answer.error,
        "undelivered": list(ended.undelivered),
        "deliveries": ended.deliveries,
        "dead_letter": ended.dead_letter,
    }


def _ended(found: Mapping[str, Any] | None, answer: bytes) -> EndedCall | None:
    if found is None:
        return None
    undelivered = found["undelivered"]
    if not isinstance(undelivered, list) or len(undelivered) > UNDELIVERED_MAX:
        raise ValueError(f"undelivered is no list of {UNDELIVERED_MAX} texts at most")
    version, error = found["executed_version"], found["function_error"]
    dead_letter = found.get("dead_letter")
    return EndedCall(
        CallEnd(found["end"]),
        Epoch(moment(found["at"])),
        CallAnswer(
            payload=answer,
            executed_version=None if version is None else _text(version),
            function_error=None if error is None else _text(error),
            error=_text(found["error"]),
        ),
        tuple(_text(each) for each in undelivered),
        whole(found["deliveries"]),
        None if dead_letter is None else _text(dead_letter),
    )


def _name(value: Any) -> str:
    name = text(value)
    if len(name.encode()) > NAME_BYTES_MAX:
        raise ValueError(f"a name has more than {NAME_BYTES_MAX} bytes")
    if "\0" in name:
        # The functions of SQLite that read JSON end a text there.
        raise ValueError("a name has a null character")
    return name


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError("is no text")
    return value


def _bounded(value: Any, what: str, bytes_max: int) -> bytes:
    if not isinstance(value, bytes | bytearray | memoryview):
        raise ValueError(f"the {what} is no bytes")
    if len(value) > bytes_max:
        raise ValueError(f"the {what} has {len(value)} bytes, more than {bytes_max}")
    return bytes(value)


def _why(error: BaseException) -> str:
    if isinstance(error, KeyError):
        return f"{error.args[0]} is missing"
    return str(error) or type(error).__name__
