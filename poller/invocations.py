"""Owns what passes between the engine and a function: the event, the call, its outcome, and the notice of what was given up."""

from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

from poller.records import JsonObject, MappingId, ShardId, json_value


class Event(Protocol):
    """What a function gets."""

    @property
    def size(self) -> int:
        """Bytes of `encoded`, known without making them."""
        ...

    def encoded(self) -> bytes:
        """As UTF-8 JSON."""
        ...

    def decoded(self) -> JsonObject:
        """As the object that reading `encoded` gives, made anew: who gets it may change it."""
        ...


@dataclass(frozen=True, slots=True)
class EncodedEvent:
    """An event that is at hand as UTF-8 JSON."""

    payload: bytes

    @property
    def size(self) -> int:
        """Bytes of the JSON."""
        return len(self.payload)

    def encoded(self) -> bytes:
        """As UTF-8 JSON."""
        return self.payload

    def decoded(self) -> JsonObject:
        """As an object, made anew."""
        event: JsonObject = json_value(self.payload)
        return event


@dataclass(frozen=True, slots=True)
class Invocation:
    """One call of a function: its event, and how long the function may take."""

    function_arn: str
    request_id: str
    event: Event
    timeout_s: float

    @property
    def payload(self) -> bytes:
        """The event as UTF-8 JSON."""
        return self.event.encoded()


@dataclass(frozen=True, slots=True)
class Succeeded:
    """The function returned; `payload` is its answer's bytes, empty when it answered nothing."""

    payload: bytes
    executed_version: str = "$LATEST"


@dataclass(frozen=True, slots=True)
class FunctionError:
    """The function ran and failed. Uses up a retry."""

    error_type: str
    message: str
    executed_version: str = "$LATEST"
    function_error: str = "Unhandled"


@dataclass(frozen=True, slots=True)
class TimedOut:
    """The function took longer than it may. Uses up a retry."""

    timeout_s: float
    executed_version: str = "$LATEST"


@dataclass(frozen=True, slots=True)
class Throttled:
    """The function has no room. Uses up no retry."""

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
    """The function returned, but its failure report was malformed or named everything."""
    FUNCTION_ERROR = "function_error"
    TIMED_OUT = "timed_out"
    THROTTLED = "throttled"
    UNREACHABLE = "unreachable"
    OVERSIZED = "oversized"


class Condition(StrEnum):
    """Why a batch was discarded, in AWS's words (spec 8.1)."""

    RETRIES = "RetryAttemptsExhausted"
    AGE = "RecordAgeExceeded"
    RETENTION = "RetentionExceeded"
    """Our own word: the source no longer has the records. Destinations never see it (spec 7.1)."""


@dataclass(frozen=True, slots=True)
class Notice:
    """One discarded batch on its way to an on-failure destination (spec 8).

    `document` is the compact JSON body without `payload`; `payload` the event as it was sent to the function;
    `timestamp` the body's timestamp text; `notice_id` a random UUID that stays the same when delivery is tried again.
    """

    notice_id: str
    mapping: MappingId
    shard: ShardId
    document: bytes
    payload: bytes
    timestamp: str
