"""Owns the `lambda` invoker: functions on AWS Lambda, called with Invoke and type RequestResponse (aws-behaviour#invocations).

Errors of the function (`FunctionError`) differ from errors of the service. Throttling is Throttled, every other service error is
Unreachable, and neither uses up a retry. Error codes and types decide, never the text.
"""

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from types import MappingProxyType
from typing import Any

from botocore.exceptions import ClientError
from pydantic import BaseModel, ConfigDict, Field

from adapters.aws.calls import calling
from adapters.aws.clients import READ_S_MAX, client
from adapters.aws.pacing import shared_pacer
from adapters.aws.permission_checks import Trial, asked, tried
from adapters.aws.raw_http import Answer
from adapters.aws.request_templates import FastOperation
from adapters.invokers.outcomes import (
    ANSWER_BYTES_MAX,
    json_object,
    reported_failure,
    retry_after_s,
    too_large,
)
from poller.domain.arns import QUALIFIER, Arn
from poller.domain.errors import (
    InvalidConfiguration,
    PortError,
    ResourceMissing,
    ServiceThrottled,
    ServiceUnavailable,
)
from poller.domain.findings import Finding, Severity
from poller.domain.function_facts import FunctionFacts
from poller.domain.invocations import Invocation, Outcome, Succeeded, Throttled, TimedOut, Unreachable
from poller.domain.untrusted import numbers
from poller.domain.untrusted.texts import line_of
from poller.plugins import Environment, Plugin

MARGIN_S = 5.0
"""Added to the time limit of a call for the way to Lambda and back."""
SILENCE_S_MAX = 900.0 + 60.0
"""How long a connection may be silent: Lambda's 15 minutes and a cold start."""
REASON_CHARS_MAX = 300
CONNECTIONS_MAX = 1000
CHUNK_BYTES = 256 * 1024
LIMIT_S_MAX = 86_400
"""A longer time limit of a function counts as a wrong answer. Lambda's longest is below two hours."""
INVOKE, DESCRIBE = "lambda:InvokeFunction", "lambda:GetFunctionConfiguration"
TIMED_OUT_TYPE = "Sandbox.Timedout"
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
"""Codes of Invoke that mean throttled, in addition to those of all services."""


class LambdaSettings(BaseModel):
    """Settings of one function on Lambda; `region` None: that of the function's ARN."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    function: str
    qualifier: str | None = Field(
        default=None,
        pattern=f"^({QUALIFIER})$",
        description="The version or alias to call if the mapping names none.",
    )
    region: str | None = Field(default=None, description="Default: the region of the function's ARN.")


class LambdaInvoker:
    """Calls one function by ARN."""

    def __init__(self, settings: LambdaSettings, env: Environment) -> None:
        self._settings = settings
        self._env = env

    async def invoke(self, invocation: Invocation) -> Outcome:
        """Calls the function and waits for its answer.

        Waits for `invocation.timeout_s` and a margin at most, unless the call is open-ended. The function may run on after that.
        """
        limit_s = None if invocation.open_ended else invocation.timeout_s + MARGIN_S
        try:
            async with asyncio.timeout(limit_s):
                return await self._invoke(invocation)
        except TimeoutError:
            return TimedOut(invocation.timeout_s)
        except ServiceThrottled as error:
            return Throttled(error.reason, retry_after_s(_retry_after_header(error), self._env.clock.now()))
        except PortError as error:
            return Unreachable(error.reason)
        except InvalidConfiguration as error:
            return Unreachable("; ".join(error.problems))

    async def exists(self, function_arn: str) -> bool:
        """Whether Lambda has a function with this ARN, the qualifier included.

        Raises ServiceThrottled, ServiceUnavailable, AccessDenied.
        """
        try:
            await self._dry_run(function_arn)
        except ResourceMissing:
            return False
        return True

    async def describe_function(self, function_arn: str) -> FunctionFacts:
        """Reads the function's configuration (GetFunctionConfiguration).

        Raises ServiceThrottled, ServiceUnavailable, AccessDenied, ResourceMissing.
        """
        service = await self._client(function_arn, purpose="describe", read_s_max=READ_S_MAX)
        # Lambda allows 15 such calls a second for the whole account.
        pacer = await shared_pacer(self._env)
        await pacer.pace(f"lambda configuration {self._region(function_arn)}")
        with calling("lambda GetFunctionConfiguration"):
            found = await service.get_function_configuration(
                FunctionName=function_arn, **self.qualifier(function_arn)
            )
        return facts_of(found)

    async def probe_function(self, function_arn: str) -> Sequence[Finding]:
        """Invokes with DryRun, which checks function and permission and runs nothing; then reads the configuration."""
        invoking = await tried(INVOKE, self._dry_run(function_arn), on=function_arn)
        if invoking.finding.grade is Severity.PROBLEM and not invoking.denied:
            # No function, no credentials or no connection: the second call would report the same problem.
            return [invoking.finding]
        described = await tried(DESCRIBE, self.describe_function(function_arn), on=function_arn)
        return [invoking.finding, *_configuration(described, function_arn)]

    async def _dry_run(self, function_arn: str) -> None:
        service = await self._client(function_arn)
        await asked(
            service,
            "Invoke",
            NO_ROOM,
            FunctionName=function_arn,
            InvocationType="DryRun",
            **self.qualifier(function_arn),
        )

    async def _invoke(self, invocation: Invocation) -> Outcome:
        arn, payload = invocation.function_arn, invocation.payload
        service = await self._client(arn)
        fast = await self._env.shared.get(f"fast invoke {id(service)}", lambda: _fast_invoke(service))
        qualifier = self.qualifier(arn)
        name = f"{arn} {qualifier}"
        with calling("lambda Invoke", NO_ROOM):
            repeated = await fast.repeat(name, payload, bytes_max=ANSWER_BYTES_MAX)
            if repeated is not None:
                return _outcome(repeated, invocation.timeout_s)
            with fast.learning(name):
                answer = await service.invoke(
                    FunctionName=arn, InvocationType="RequestResponse", Payload=payload, **qualifier
                )
            body = await read(answer["Payload"])
        return outcome_of(answer, body, invocation.timeout_s)

    async def _client(
        self, function_arn: str, *, purpose: str = "invoke", read_s_max: float = SILENCE_S_MAX
    ) -> Any:
        return await client(
            self._env,
            "lambda",
            self._region(function_arn),
            purpose=purpose,
            connections_max=CONNECTIONS_MAX,
            read_s_max=read_s_max,
        )

    def _region(self, function_arn: str) -> str:
        return self._settings.region or Arn.parse(function_arn).region

    def qualifier(self, function_arn: str) -> dict[str, str]:
        """Returns the parameter Qualifier, unless the ARN has a qualifier: Lambda refuses two."""
        qualified = ":" in Arn.parse(function_arn).function
        return (
            {} if qualified or self._settings.qualifier is None else {"Qualifier": self._settings.qualifier}
        )


def facts_of(found: Mapping[str, Any]) -> FunctionFacts:
    """Reads an answer of GetFunctionConfiguration. Members that are absent or null are left empty.

    Raises ServiceUnavailable for an answer without a time limit.
    """
    given = found.get("Timeout")
    timeout_s = numbers.number(given, least=1.0, most=LIMIT_S_MAX, default=None)
    if timeout_s is None or isinstance(given, str):
        raise ServiceUnavailable("lambda GetFunctionConfiguration: an answer without Timeout")
    return FunctionFacts(
        timeout_s=timeout_s,
        role_arn=_text(found, "Role"),
        state=_text(found, "State"),
        state_reason=_text(found, "StateReason") or _text(found, "StateReasonCode"),
        update_status=_text(found, "LastUpdateStatus"),
        update_reason=_text(found, "LastUpdateStatusReason") or _text(found, "LastUpdateStatusReasonCode"),
    )


def _text(found: Mapping[str, Any], name: str) -> str:
    value = found.get(name)
    return line_of(value, chars_max=REASON_CHARS_MAX) if isinstance(value, str) else ""


def _configuration(trial: Trial[FunctionFacts], function_arn: str) -> list[Finding]:
    """Returns the findings of reading a configuration. Without it the daemon works, but waits too long for answers."""
    if trial.answer is None:
        text = f"{trial.finding.text}; the daemon then waits 900 s for each answer, whatever the function's time limit"
        return [replace(trial.finding, grade=Severity.WARNING, text=text)]
    trouble = trial.answer.trouble
    if not trouble:
        return [trial.finding]
    return [trial.finding, Finding("state", Severity.WARNING, f"{function_arn}: {trouble}")]


async def read(stream: Any) -> bytes | None:
    """Reads the whole body; returns None if it has more than ANSWER_BYTES_MAX bytes."""
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
async def _fast_invoke(service: Any) -> AsyncIterator[FastOperation]:
    """Yields the operation, which all functions of one client share."""
    yield FastOperation(service, "Invoke", named=None)


def outcome_of(answer: Mapping[str, Any], body: bytes | None, timeout_s: float) -> Outcome:
    """Returns the outcome of an answer of Invoke with status 200; `body` is None if it was too large."""
    version = answer.get("ExecutedVersion") or "$LATEST"
    function_error = answer.get("FunctionError")
    if body is None:
        return replace(too_large(ANSWER_BYTES_MAX), executed_version=version)
    if not function_error:
        return Succeeded(body, version)
    error = reported_failure(json_object(body), error_type=str(function_error), executed_version=version)
    if error.error_type == TIMED_OUT_TYPE:
        return TimedOut(timeout_s, version)
    return replace(error, function_error=str(function_error))


def _retry_after_header(error: ServiceThrottled) -> str | None:
    if not isinstance(error.__cause__, ClientError):
        return None
    headers = error.__cause__.response.get("ResponseMetadata", {}).get("HTTPHeaders", {})
    found: str | None = headers.get("retry-after")
    return found


@asynccontextmanager
async def open_lambda(settings: LambdaSettings, env: Environment) -> AsyncIterator[LambdaInvoker]:
    """Yields the invoker. The AWS client is made at the first call, whose ARN names the region."""
    yield LambdaInvoker(settings, env)


plugin = Plugin("lambda", LambdaSettings, open_lambda, own_limits=True)
