"""Owns the `lambda` invoker: functions that run on AWS Lambda, called with Invoke, type RequestResponse.

What Lambda says of the function (`FunctionError`) is told from what it says of itself: throttles are Throttled, every
other refusal or fault is Unreachable, and neither uses up a retry. Kinds go by error code and type, never by text.
"""

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from types import MappingProxyType
from typing import Any

from botocore.exceptions import ClientError
from pydantic import BaseModel, ConfigDict, Field

from adapters.aws import client, mapped
from adapters.hot import Hot
from adapters.invokers.answers import ANSWER_BYTES_MAX, failed, json_object, retry_after_s, too_large
from adapters.posting import Answer
from adapters.probing import asked, tried
from poller.errors import InvalidConfiguration, PortError, ResourceMissing, ServiceThrottled
from poller.findings import Finding
from poller.invocations import Invocation, Outcome, Succeeded, Throttled, TimedOut, Unreachable
from poller.plugins import Environment, Plugin

MARGIN_S = 5.0
"""Beyond the function's own time, for the way to Lambda and back."""
SILENCE_S_MAX = 900.0 + 60.0
"""A connection says nothing while the function runs, which may be Lambda's whole 15 minutes."""
CONNECTIONS_MAX = 1000
CHUNK_BYTES = 256 * 1024
TIMED_OUT_TYPE = "Sandbox.Timedout"
_ARN_PARTS_UNQUALIFIED = 7
_NO_ROOM = (
    "CodeArtifactUserPendingException",
    "ENILimitReachedException",
    "ENINotReadyException",
    "ResourceNotReadyException",
    "ServiceQuotaExceededException",
    "SnapStartNotReadyException",
    "SubnetIPAddressLimitReachedException",
)
NO_ROOM: Mapping[str, type[PortError]] = MappingProxyType(dict.fromkeys(_NO_ROOM, ServiceThrottled))
"""Codes of Invoke that say "not now" beside the throttles that all services have."""


class LambdaSettings(BaseModel):
    """Settings of one function on Lambda; `region` None: the one in the function's ARN."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    function: str
    qualifier: str | None = Field(default=None, pattern=r"^(\$LATEST|[A-Za-z0-9_-]{1,128})$")
    """Version or alias to call when the mapping's ARN names none."""
    region: str | None = None


class LambdaInvoker:
    """Calls one function by ARN."""

    def __init__(self, settings: LambdaSettings, env: Environment) -> None:
        self._settings = settings
        self._env = env

    async def invoke(self, invocation: Invocation) -> Outcome:
        """Calls the function and waits for its answer, `invocation.timeout_s` and a margin at most."""
        try:
            async with asyncio.timeout(invocation.timeout_s + MARGIN_S):
                return await self._invoke(invocation)
        except TimeoutError:
            return TimedOut(invocation.timeout_s)
        except ServiceThrottled as error:
            return Throttled(error.reason, retry_after_s(_hint(error), self._env.clock.now()))
        except PortError as error:
            return Unreachable(error.reason)
        except InvalidConfiguration as error:
            return Unreachable("; ".join(error.problems))

    async def exists(self, function_arn: str) -> bool:
        """Whether Lambda has a function with this ARN, the qualifier included.

        Raises ServiceThrottled, ServiceUnavailable, AccessDenied.
        """
        service = await self._client(function_arn)
        try:
            with mapped("lambda GetFunction"):
                await service.get_function(FunctionName=function_arn, **self.qualifier(function_arn))
        except ResourceMissing:
            return False
        return True

    async def probe_function(self, function_arn: str) -> Sequence[Finding]:
        """Invokes with DryRun, by which Lambda looks at function and permission and runs nothing."""
        service = await self._client(function_arn)
        call = asked(
            service,
            "Invoke",
            NO_ROOM,
            FunctionName=function_arn,
            InvocationType="DryRun",
            **self.qualifier(function_arn),
        )
        return [(await tried("lambda:InvokeFunction", call, on=function_arn)).finding]

    async def _invoke(self, invocation: Invocation) -> Outcome:
        arn, payload = invocation.function_arn, invocation.payload
        service = await self._client(arn)
        hot = await self._env.shared.get(f"hot invoke {id(service)}", lambda: _hot(service))
        qualifier = self.qualifier(arn)
        name = f"{arn} {qualifier}"
        with mapped("lambda Invoke", NO_ROOM):
            repeated = await hot.repeat(name, payload, bytes_max=ANSWER_BYTES_MAX)
            if repeated is not None:
                return _outcome(repeated, invocation.timeout_s)
            with hot.learning(name):
                answer = await service.invoke(
                    FunctionName=arn, InvocationType="RequestResponse", Payload=payload, **qualifier
                )
            body = await read(answer["Payload"])
        return outcome_of(answer, body, invocation.timeout_s)

    async def _client(self, function_arn: str) -> Any:
        return await client(
            self._env,
            "lambda",
            self._settings.region or function_arn.split(":")[3],
            purpose="invoke",
            connections_max=CONNECTIONS_MAX,
            read_s_max=SILENCE_S_MAX,
        )

    def qualifier(self, function_arn: str) -> dict[str, str]:
        """What Invoke gets beside the ARN: a qualifier that is named twice is refused."""
        qualified = len(function_arn.split(":")) > _ARN_PARTS_UNQUALIFIED
        return (
            {} if qualified or self._settings.qualifier is None else {"Qualifier": self._settings.qualifier}
        )


async def read(stream: Any) -> bytes | None:
    """The whole body, or None when it has more than ANSWER_BYTES_MAX bytes."""
    body = bytearray()
    async with stream:
        async for chunk in stream.iter_chunks(CHUNK_BYTES):
            body += chunk
            if len(body) > ANSWER_BYTES_MAX:
                return None
    return bytes(body)


def _outcome(answer: Answer, timeout_s: float) -> Outcome:
    members = {
        "ExecutedVersion": answer.headers.get("x-amz-executed-version"),
        "FunctionError": answer.headers.get("x-amz-function-error"),
    }
    return outcome_of(members, answer.body if answer.whole else None, timeout_s)


@asynccontextmanager
async def _hot(service: Any) -> AsyncIterator[Hot]:
    """One for all functions that are called through a client."""
    yield Hot(service, "Invoke", named=None)


def outcome_of(answer: Mapping[str, Any], body: bytes | None, timeout_s: float) -> Outcome:
    """What an answer of Invoke with status 200 means; `body` is None when it was too large."""
    version = answer.get("ExecutedVersion") or "$LATEST"
    function_error = answer.get("FunctionError")
    if body is None:
        return replace(too_large(ANSWER_BYTES_MAX), executed_version=version)
    if not function_error:
        return Succeeded(body, version)
    document = json_object(body)
    error_type = str(document.get("errorType") or function_error)
    if error_type == TIMED_OUT_TYPE:
        return TimedOut(timeout_s, version)
    error = failed(error_type, str(document.get("errorMessage") or ""), executed_version=version)
    return replace(error, function_error=str(function_error))


def _hint(error: ServiceThrottled) -> str | None:
    if not isinstance(error.__cause__, ClientError):
        return None
    headers = error.__cause__.response.get("ResponseMetadata", {}).get("HTTPHeaders", {})
    found: str | None = headers.get("retry-after")
    return found


@asynccontextmanager
async def open_lambda(settings: LambdaSettings, env: Environment) -> AsyncIterator[LambdaInvoker]:
    """Yields the invoker; the AWS client is made with the first call, which names the region."""
    yield LambdaInvoker(settings, env)


plugin = Plugin("lambda", LambdaSettings, open_lambda)
