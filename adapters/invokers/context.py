"""Owns the context object that Python functions get as their second argument, in the shape of Lambda's."""

import time
from dataclasses import dataclass, field

from poller.invocations import Invocation


@dataclass(frozen=True, slots=True, kw_only=True)
class FunctionContext:
    """What a function may know of its own call; attribute names are those of Lambda's Python runtime."""

    function_name: str
    function_version: str
    invoked_function_arn: str
    memory_limit_in_mb: str
    aws_request_id: str
    log_group_name: str
    log_stream_name: str
    identity: None = None
    client_context: None = None
    _deadline: float = field(repr=False)

    def get_remaining_time_in_millis(self) -> int:
        """Milliseconds until the time limit ends the call; never negative."""
        return max(0, int((self._deadline - time.monotonic()) * 1000))


def context_of(invocation: Invocation, *, function: str, memory_mb: int, stream: str) -> FunctionContext:
    """The context of a call that starts now; `stream` names the log stream (one per process, as on Lambda)."""
    return FunctionContext(
        function_name=function,
        function_version="$LATEST",
        invoked_function_arn=invocation.function_arn,
        memory_limit_in_mb=str(memory_mb),
        aws_request_id=invocation.request_id,
        log_group_name=f"/aws/lambda/{function}",
        log_stream_name=stream,
        _deadline=time.monotonic() + invocation.timeout_s,
    )
