"""Owns the interface between the Invoke API and the daemon: functions as Lambda's API shows them, and one call of a function."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

from poller.domain.functions.alias_control import AliasControl
from poller.domain.functions.invoke_configs import InvokeConfigControl
from poller.domain.invocations import Outcome
from poller.domain.records import MappingId

INVOKED = MappingId("")
"""Stands for the mapping of a call that comes from the Invoke API, and so from no mapping."""
LOG_TAIL_BYTES_MAX = 4096
"""How much of a call's log its answer may have (aws-behaviour#invoke-log)."""


class ThrottleReason(StrEnum):
    """Why a call was refused because of its number, as AWS names it (aws-behaviour#invoke-throttles)."""

    CONCURRENCY = "ReservedFunctionConcurrentInvocationLimitExceeded"
    """All slots of the function's `max_concurrency` are taken."""
    RATE = "FunctionInvocationRateLimitExceeded"
    """The function's rate allows no call now, or its circuit breaker is open."""
    INVOKER = "ConcurrentInvocationLimitExceeded"
    """Whatever runs the function has no room: its processes, its threads, or the service."""
    CALLER = "CallerRateLimitExceeded"
    """The API holds as many payloads as it may."""


class NoRoom(Exception):
    """A function cannot be called now, and was not called. Try again later, after `retry_after_s` if that is known."""

    def __init__(self, reason: ThrottleReason, text: str, *, retry_after_s: float | None = None) -> None:
        super().__init__(text)
        self.reason = reason
        self.text = text
        self.retry_after_s = retry_after_s


@dataclass(frozen=True, slots=True, kw_only=True)
class FunctionView:
    """One configured function. `arn` has no qualifier. `trouble` says why it could not be opened; empty if it could, or was not yet."""

    name: str
    arn: str
    invoker: str
    timeout_s: float
    role: str = ""
    handler: str = ""
    memory_mb: int | None = None
    max_concurrency: int | None = None
    trouble: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class FunctionCall:
    """One call as a client asks for it. `function` is a name or an ARN, with or without a qualifier; `qualifier` may stand beside it.

    `payload` is JSON. `client_context` is base64 of JSON, or empty. With `log_tail` the answer has the end of the call's log.
    """

    function: str
    qualifier: str = ""
    payload: bytes = b"{}"
    client_context: str = ""
    log_tail: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class FunctionAnswer:
    """How a call ended. `log_tail` has the last lines of its log, LOG_TAIL_BYTES_MAX bytes at most."""

    request_id: str
    outcome: Outcome
    duration_s: float
    log_tail: str = ""


class FunctionCaller(Protocol):
    """Calls functions while the daemon runs."""

    def functions(self) -> Sequence[FunctionView]:
        """All configured functions, by name. Raises ApiError while the daemon starts or stops."""
        ...

    def function(self, name: str, qualifier: str = "") -> FunctionView:
        """The function that is called by this name or ARN. Raises ApiError if there is none."""
        ...

    @property
    def configs(self) -> InvokeConfigControl:
        """How asynchronous calls are tried. Raises ApiError while the daemon starts or stops."""
        ...

    @property
    def aliases(self) -> AliasControl:
        """Versions and aliases. Raises ApiError while the daemon starts or stops."""
        ...

    async def enqueue(self, call: FunctionCall, *, trace_header: str = "") -> str:
        """Stores an asynchronous call, and returns its request id. `trace_header` is that of the caller, or empty.

        Raises ApiError if there is no such function or the store does not take it, and NoRoom if too many calls wait.
        """
        ...

    async def call(self, call: FunctionCall, *, trace_header: str = "") -> FunctionAnswer:
        """Calls a function and waits for its answer. Raises ApiError if there is no such function, and NoRoom if it was not called."""
        ...
