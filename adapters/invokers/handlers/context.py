"""Owns the context object, the second argument of Python functions, with the attributes of Lambda's Python runtime."""

import sys
import time
from typing import Any

from poller.domain.invocations import Invocation


class CognitoIdentity:
    """The Cognito identity of the caller. It is empty, since an event source mapping calls for no user."""

    __slots__ = ("cognito_identity_id", "cognito_identity_pool_id")

    def __init__(self) -> None:
        self.cognito_identity_id: str | None = None
        self.cognito_identity_pool_id: str | None = None

    def __repr__(self) -> str:
        return (
            f"{type(self).__name__}([cognito_identity_id={self.cognito_identity_id},"
            f"cognito_identity_pool_id={self.cognito_identity_pool_id}])"
        )


class FunctionContext:
    """What a function can find out about its own call. A function may add attributes of its own."""

    def __init__(
        self, *, function: str, arn: str, request_id: str, memory_mb: int, stream: str, timeout_s: float
    ):
        self.aws_request_id = request_id
        self.log_group_name = f"/aws/lambda/{function}"
        self.log_stream_name = stream
        self.function_name = function
        self.memory_limit_in_mb = str(memory_mb)
        self.function_version = "$LATEST"
        self.invoked_function_arn = arn
        self.tenant_id: str | None = None
        self.client_context: Any = None
        self.identity = CognitoIdentity()
        self._epoch_deadline_time_in_ms = int((time.time() + timeout_s) * 1000)
        self._deadline = time.monotonic() + timeout_s

    def get_remaining_time_in_millis(self) -> int:
        """Returns the milliseconds until the time limit, never a negative number."""
        return max(0, int((self._deadline - time.monotonic()) * 1000))

    def w3c(self) -> dict[str, str]:
        """Returns the trace context of the call, which is empty: mappings pass none on."""
        return {}

    def log(self, msg: object) -> None:
        """Writes a line into the function's log."""
        sys.stdout.write(f"{msg}\n")

    def __repr__(self) -> str:
        names = (
            "aws_request_id",
            "log_group_name",
            "log_stream_name",
            "function_name",
            "memory_limit_in_mb",
            "function_version",
            "invoked_function_arn",
            "client_context",
            "identity",
            "tenant_id",
        )
        return f"LambdaContext([{','.join(f'{name}={getattr(self, name)}' for name in names)}])"


def context_of(invocation: Invocation, *, function: str, memory_mb: int, stream: str) -> FunctionContext:
    """Makes the context of a call that starts now; `stream` names the log stream (one per process, as on Lambda)."""
    return FunctionContext(
        function=function,
        arn=invocation.function_arn,
        request_id=invocation.request_id,
        memory_mb=memory_mb,
        stream=stream,
        timeout_s=invocation.timeout_s,
    )
