"""Owns the values between the engine and a function: the event, the call, its outcome, and the notice about a discarded batch."""

import base64
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Protocol

import msgspec
import orjson

from poller.domain.records import JsonObject, MappingId, ShardId
from poller.domain.untrusted.json_values import json_value
from poller.domain.untrusted.texts import ends_of, line_of

ERROR_TYPE_CHARS_MAX = 128
ERROR_MESSAGE_CHARS_MAX = 1024
STACK_LINES_MAX = 40
STACK_LINE_CHARS_MAX = 256
VERSION_CHARS_MAX = 128
"""How much of a function's error is kept. Longer texts are cut."""
RETRY_AFTER_S_MAX = 300.0
"""A longer `Retry-After` is not followed: the wait is cut to this."""


class Event(Protocol):
    """The event that a function gets."""

    @property
    def size(self) -> int:
        """The length of `encoded` in bytes."""
        ...

    def fits(self, bytes_max: int) -> bool:
        """Whether `size` is at most `bytes_max`. It encodes nothing that is certainly small enough."""
        ...

    def encoded(self) -> bytes:
        """The event as UTF-8 JSON."""
        ...

    def decoded(self) -> JsonObject:
        """The event as an object, equal to the parsed `encoded`. It is a new copy each time, so the caller may change it."""
        ...


@dataclass(frozen=True, slots=True)
class EncodedEvent:
    """An event that is already UTF-8 JSON."""

    payload: bytes

    @property
    def size(self) -> int:
        """Bytes of the JSON."""
        return len(self.payload)

    def fits(self, bytes_max: int) -> bool:
        """Whether the JSON has at most `bytes_max` bytes."""
        return len(self.payload) <= bytes_max

    def encoded(self) -> bytes:
        """The event as UTF-8 JSON."""
        return self.payload

    def decoded(self) -> JsonObject:
        """The event as a new object."""
        event: JsonObject = json_value(self.payload)
        return event


@dataclass(frozen=True, slots=True)
class Invocation:
    """One call of a function: its event, and how long the function may take.

    For an `open_ended` call the invoker sets no time limit. The caller cancels it when the function has certainly ended.
    `client_context` is base64 of JSON that the function gets in its context, or empty. `trace_header` is the trace header of the chain of
    calls to which this call belongs, or empty. `traceparent` and `tracestate` name the call's own span, if it is traced. With `log_tail`
    the lines of the call's log are passed on also where the invoker would not have them otherwise. With `whole_error` a
    FunctionError has its `document`, which batches do not need. Calls with the same `choice` go to the same version of an alias with
    weights; without one the request id decides.
    """

    function_arn: str
    request_id: str
    event: Event
    timeout_s: float
    open_ended: bool = False
    client_context: str = ""
    log_tail: bool = False
    trace_header: str = ""
    choice: str = ""
    traceparent: str = ""
    tracestate: str = ""
    whole_error: bool = False

    @property
    def payload(self) -> bytes:
        """The event as UTF-8 JSON."""
        return self.event.encoded()

    @property
    def client_context_json(self) -> str:
        """The client context as JSON on one line, in ASCII, so that it can be a header; empty if there is none."""
        return json.dumps(json.loads(base64.b64decode(self.client_context))) if self.client_context else ""


class Succeeded(msgspec.Struct, frozen=True, gc=False):
    """The function returned. `payload` is its answer in bytes, empty if there was none."""

    payload: bytes
    executed_version: str = "$LATEST"


@dataclass(frozen=True, slots=True)
class FunctionError:
    """The function ran and failed. Uses up a retry. The texts are cleaned and cut here; `stack_trace` has one line in each item.

    `document` is the whole error as JSON, with nothing cut or cleaned, for the caller who asked for it; empty otherwise, or if there is none.
    """

    error_type: str
    message: str
    executed_version: str = "$LATEST"
    function_error: str = "Unhandled"
    stack_trace: tuple[str, ...] = field(default=(), compare=False)
    document: bytes = field(default=b"", compare=False, repr=False)

    def __post_init__(self) -> None:
        for name, chars_max in _ERROR_TEXTS.items():
            object.__setattr__(self, name, line_of(getattr(self, name), chars_max=chars_max))
        if not self.error_type.strip():
            object.__setattr__(self, "error_type", UNNAMED_ERROR)
        lines = ends_of(self.stack_trace, lines_max=STACK_LINES_MAX, chars_max=STACK_LINE_CHARS_MAX)
        object.__setattr__(self, "stack_trace", lines)


UNNAMED_ERROR = "Function.UnnamedError"
"""The type of an error whose own type is empty, or has nothing that can be shown."""
_ERROR_TEXTS = {
    "error_type": ERROR_TYPE_CHARS_MAX,
    "message": ERROR_MESSAGE_CHARS_MAX,
    "executed_version": VERSION_CHARS_MAX,
    "function_error": ERROR_TYPE_CHARS_MAX,
}


@dataclass(frozen=True, slots=True)
class TimedOut:
    """The function took longer than its time limit. Uses up a retry."""

    timeout_s: float
    executed_version: str = "$LATEST"


@dataclass(frozen=True, slots=True)
class Throttled:
    """The function has no capacity for another call. Uses up no retry."""

    reason: str
    retry_after_s: float | None = None


@dataclass(frozen=True, slots=True)
class Unreachable:
    """The function could not be called (no connection, not found, denied, service error). Uses up no retry."""

    reason: str
    retry_after_s: float | None = None


type Outcome = Succeeded | FunctionError | TimedOut | Throttled | Unreachable


class Ended(StrEnum):
    """How an invocation ended, as metrics and logs name it."""

    SUCCESS = "success"
    PARTIAL = "partial"
    REJECTED = "rejected"
    """The function returned, but its failure report was malformed or listed every item as failed."""
    FUNCTION_ERROR = "function_error"
    TIMED_OUT = "timed_out"
    THROTTLED = "throttled"
    UNREACHABLE = "unreachable"
    OVERSIZED = "oversized"


class Condition(StrEnum):
    """Why a batch was discarded; the first two values are AWS's (aws-behaviour#failure-document)."""

    RETRIES = "RetryAttemptsExhausted"
    AGE = "RecordAgeExceeded"
    RETENTION = "RetentionExceeded"
    """The source has removed the records. AWS has no such value, and no destination gets a document (aws-behaviour#retention)."""
    SKIPPED = "SkippedByOperator"
    """An operator skipped the records. AWS has no such value (aws-behaviour#skipped-records)."""


@dataclass(frozen=True, slots=True)
class Notice:
    """The notice about one discarded batch, for its on-failure destination (aws-behaviour#failure-document).

    `document` is the compact JSON body without `payload`; `payload` the event as it was sent to the function;
    `timestamp` the body's timestamp text; `notice_id` a random UUID that stays the same when delivery is tried again.
    A notice holds one event: 6 MB at most, or a single record that is larger than an event may be (14 MB as base64).
    """

    notice_id: str
    mapping: MappingId
    shard: ShardId
    document: bytes
    payload: bytes
    timestamp: str


@dataclass(frozen=True, slots=True)
class StoredNotice:
    """A notice as it was found in a destination: by which id its place knows it, and its document.

    `unreadable` says why it has no document. `attributes` are the texts beside it that its place may have, as messages do.
    """

    place: str
    document: bytes
    unreadable: str = ""
    attributes: Mapping[str, str] = field(default_factory=dict)


def with_payload(notice: Notice) -> bytes:
    """The document for S3. It has a member `payload`, the event as a JSON string, between `version` and `timestamp`."""
    return with_member(notice, "payload", notice.payload.decode())


def with_member(notice: Notice, member: str, content: str | JsonObject) -> bytes:
    """The document with one more member, between `version` and `timestamp`."""
    document: JsonObject = {}
    for name, value in orjson.loads(notice.document).items():
        if name == "timestamp":
            document[member] = content
        document[name] = value
    return orjson.dumps(document)


def object_key(notice: Notice) -> str:
    """The key of the S3 object: mapping, shard, day, and the document's time in whole seconds (aws-behaviour#s3-object)."""
    return f"aws/lambda/{notice.mapping}/{notice.shard}/{dated_key(notice.timestamp, notice.notice_id)}"


def dated_key(timestamp: str, name: str) -> str:
    """The end of an object's key: the day of a document's timestamp, its time in whole seconds, and a name."""
    day, _, clock = timestamp.partition("T")
    second = clock.partition(".")[0].replace(":", ".")
    return f"{day.replace('-', '/')}/{day}T{second}-{name}"
