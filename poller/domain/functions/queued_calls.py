"""Owns the values of asynchronous invocation: a call that waits in the store, how it may be tried, and how it ended."""

from dataclasses import dataclass, replace
from enum import StrEnum
from typing import NewType

from poller.domain.records import Epoch, WorkerId

CallId = NewType("CallId", str)
"""The request id of a call: the same for all its attempts."""

PAYLOAD_BYTES_MAX = 1024 * 1024
"""The largest payload of a call that waits in the store, as on Lambda."""
ANSWER_BYTES_MAX = 6 * 1024 * 1024
"""The longest answer of a function that is kept for a destination, as on Lambda."""
ERROR_CHARS_MAX = 500
"""How much of its last error a call keeps."""
RETRIES_MAX = 2
RETRY_WAITS_S = (60.0, 120.0)
"""The waits before the second and the third attempt, as on Lambda."""
AGE_S_MIN, AGE_S_MAX = 60, 21_600


class CallEnd(StrEnum):
    """Why a call is over, as AWS names it in the documents of destinations (aws-behaviour#async-conditions)."""

    SUCCESS = "Success"
    RETRIES = "RetriesExhausted"
    AGE = "EventAgeExceeded"
    RECURSION = "RecursiveInvocationStopped"
    """The call is one of a loop of functions that call each other. AWS documents no name for it."""
    SKIPPED = "SkippedByOperator"
    """An operator skipped the call. AWS has no such value."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CallAnswer:
    """The last answer of the function: its payload, and what failed. `function_error` is None after a success.

    `executed_version` is None if the function was not reached; then `error` says why.
    """

    payload: bytes = b""
    executed_version: str | None = None
    function_error: str | None = None
    error: str = ""


@dataclass(frozen=True, slots=True)
class EndedCall:
    """How a call ended and when, while some of its destinations do not have it yet.

    `undelivered` has the ARNs or URLs of those destinations, `deliveries` counts the tries to send to them. `dead_letter` is the one
    among them that gets the call's payload alone; None if each gets a document.
    """

    end: CallEnd
    at: Epoch
    answer: CallAnswer
    undelivered: tuple[str, ...] = ()
    deliveries: int = 0
    dead_letter: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class QueuedCall:
    """One asynchronous call of a function that the store keeps until it is over.

    `function` is the name of a configured function, `arn` the ARN that is called, with its qualifier. `due` is when it may be tried
    next. `attempts` counts calls of the function that failed, `deferrals` the times in a row that the function could not be called,
    `takeovers` how often in a row another worker took the call over from one that was gone. `owner` is the worker that works on it now.
    `last_error` is why its last attempt or delivery failed, in one cleaned line.
    The store raises `revision` with each write.
    """

    call: CallId
    function: str
    arn: str
    payload: bytes
    accepted: Epoch
    due: Epoch
    client_context: str = ""
    trace_header: str = ""
    attempts: int = 0
    deferrals: int = 0
    takeovers: int = 0
    owner: WorkerId | None = None
    ended: EndedCall | None = None
    last_error: str = ""
    revision: int = 0

    def claimed(self, owner: WorkerId) -> "QueuedCall":
        """The call as `owner` works on it, one revision further. An owner other than this one has lost it."""
        lost = self.owner is not None
        return replace(self, owner=owner, takeovers=self.takeovers + lost, revision=self.revision + 1)


@dataclass(frozen=True, slots=True, kw_only=True)
class CallBacklog:
    """The calls of one function in the store. `oldest` is when the call was accepted that has waited longest.

    `next_due` is when the next call may be tried that nobody works on. `owners` has the workers that have claimed calls.
    """

    function: str
    calls: int
    oldest: Epoch
    next_due: Epoch
    owners: frozenset[WorkerId] = frozenset()


@dataclass(frozen=True, slots=True)
class CallPlace:
    """The place of a call among those of its function, which are in the order in which they are due."""

    due: Epoch
    call: CallId

    def before(self, call: QueuedCall) -> bool:
        """Whether a call stands behind this place."""
        return (call.due, call.call) > (self.due, self.call)


@dataclass(frozen=True, slots=True, kw_only=True)
class AsyncPolicy:
    """How the asynchronous calls of one function, or of one of its qualifiers, are tried, and where their documents go.

    `on_success` and `on_failure` are ARNs or URLs of destinations for documents, `dead_letter` is the ARN of a queue or topic that gets
    the payload of a call that failed; None: nowhere. `identity` is as whom they are called, if AWS is called; None: as the process itself.
    """

    retries_max: int = RETRIES_MAX
    age_s_max: int = AGE_S_MAX
    on_success: str | None = None
    on_failure: str | None = None
    dead_letter: str | None = None
    identity: str | None = None
