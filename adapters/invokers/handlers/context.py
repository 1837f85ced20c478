"""Owns the context object, the second argument of Python functions, with the attributes of Lambda's Python runtime."""

import json
import sys
import time
from collections.abc import Mapping
from typing import Any

from poller.domain.invocations import Invocation

LATEST_VERSION = "$LATEST"


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


class Client:
    """The application that calls, as the caller describes it."""

    __slots__ = ("app_package_name", "app_title", "app_version_code", "app_version_name", "installation_id")

    def __init__(self, given: Mapping[str, Any]) -> None:
        for name in self.__slots__:
            setattr(self, name, given.get(name))


class ClientContext:
    """What the caller sends beside the event, with the attributes of Lambda's Python runtime. What was not sent is None."""

    __slots__ = ("client", "custom", "env")

    def __init__(self, given: Mapping[str, Any]) -> None:
        self.custom: Any = given.get("custom")
        self.env: Any = given.get("env")
        client = given.get("client")
        self.client = Client(client) if isinstance(client, dict) else None


def client_context(text: str) -> ClientContext | None:
    """Makes the client context from its JSON text; None without one."""
    return ClientContext(json.loads(text)) if text else None


class FunctionContext:
    """What a function can find out about its own call. A function may add attributes of its own."""

    def __init__(
        self,
        *,
        function: str,
        arn: str,
        request_id: str,
        memory_mb: int,
        stream: str,
        timeout_s: float,
        client_context: ClientContext | None = None,
        version: str = LATEST_VERSION,
        traceparent: str = "",
        tracestate: str = "",
    ):
        self.aws_request_id = request_id
        self.log_group_name = f"/aws/lambda/{function}"
        self.log_stream_name = stream
        self.function_name = function
        self.memory_limit_in_mb = str(memory_mb)
        self.function_version = version
        self.invoked_function_arn = arn
        self.tenant_id: str | None = None
        self.client_context = client_context
        self._w3c = {"traceparent": traceparent, "tracestate": tracestate}
        self.identity = CognitoIdentity()
        self._epoch_deadline_time_in_ms = int((time.time() + timeout_s) * 1000)
        self._deadline = time.monotonic() + timeout_s

    def get_remaining_time_in_millis(self) -> int:
        """Returns the milliseconds until the time limit, never a negative number."""
        return max(0, int((self._deadline - time.monotonic()) * 1000))

    def w3c(self) -> dict[str, str]:
        """Returns the trace context of the call as W3C's headers; empty if the call is not traced."""
        return {name: value for name, value in self._w3c.items() if value}

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


def context_of(
    invocation: Invocation, *, function: str, memory_mb: int, stream: str, version: str = LATEST_VERSION
) -> FunctionContext:
    """Makes the context of a call that starts now; `stream` names the log stream (one per process, as on Lambda)."""
    return FunctionContext(
        function=function,
        arn=invocation.function_arn,
        request_id=invocation.request_id,
        memory_mb=memory_mb,
        stream=stream,
        timeout_s=invocation.timeout_s,
        client_context=client_context(invocation.client_context_json),
        version=version,
        traceparent=invocation.traceparent,
        tracestate=invocation.tracestate,
    )
