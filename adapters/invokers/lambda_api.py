"""Owns the `lambda` invoker: functions on AWS Lambda, called with Invoke and type RequestResponse (aws-behaviour#invocations).

Errors of the function (`FunctionError`) differ from errors of the service. Throttling is Throttled, every other service error is
Unreachable, and neither uses up a retry. Error codes and types decide, never the text.
"""

import asyncio
import base64
import binascii
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from types import MappingProxyType
from typing import Any

from botocore.exceptions import ClientError

from adapters.aws.calls import calling
from adapters.aws.clients import READ_S_MAX, client, code_of
from adapters.aws.pacing import shared_pacer
from adapters.aws.permission_checks import asked, tried
from adapters.aws.raw_http import Answer
from adapters.aws.request_templates import FastOperation
from adapters.invokers.lambda_calls.queue_events import trace_header
from adapters.invokers.lambda_calls.settings import LambdaSettings, encoded_context, misfits
from adapters.invokers.lambda_calls.tenants import (
    CHECKED_TENANT,
    REFUSED,
    isolation_findings,
    remedy_for_refusal,
    tenant_of,
)
from adapters.invokers.outcomes import (
    ANSWER_BYTES_MAX,
    for_caller,
    json_object,
    reported_failure,
    retry_after_s,
    too_large,
)
from poller.domain.arns import Arn, FunctionName
from poller.domain.errors import (
    InvalidConfiguration,
    PortError,
    ResourceMissing,
    ServiceThrottled,
    ServiceUnavailable,
)
from poller.domain.findings import Finding, Severity
from poller.domain.function_facts import FunctionFacts
from poller.domain.invocations import (
    FunctionError,
    Invocation,
    Outcome,
    Succeeded,
    Throttled,
    TimedOut,
    Unreachable,
)
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
_FRAME = ("START ", "END ", "REPORT ", "INIT_START ")
"""Lines that Lambda adds to a function's log."""
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


def log_lines(text: str | None) -> list[str]:
    """Returns the function's own lines in the log that Lambda sends with an answer, which is base64; none if it cannot be read."""
    try:
        lines = base64.b64decode(text or "").decode("utf-8", "replace").splitlines()
    except binascii.Error:
        return []
    return [line for line in lines if not line.startswith(_FRAME)]


class LambdaInvoker:
    """Calls one function by ARN."""

    def __init__(self, settings: LambdaSettings, env: Environment) -> None:
        self._settings = settings
        self._env = env
        context = None if settings.client_context is None else encoded_context(settings.client_context)
        self._context = {} if context is None else {"ClientContext": context}
        self._alike = hash(context)
        """Tells client contexts apart where requests are repeated."""

    async def invoke(self, invocation: Invocation) -> Outcome:
        """Calls the function and waits for its answer.

        Waits for `invocation.timeout_s` and a margin at most, unless the call is open-ended. The function may run on after that.
        """
        limit_s = None if invocation.open_ended else invocation.timeout_s + MARGIN_S
        try:
            async with asyncio.timeout(limit_s):
                return for_caller(await self._invoke(invocation), invocation)
        except TimeoutError:
            return TimedOut(invocation.timeout_s)
        except ServiceThrottled as error:
            return Throttled(error.reason, retry_after_s(_retry_after_header(error), self._env.clock.now()))
        except PortError as error:
            return Unreachable(self._with_remedy(error))
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
        return facts_of(await self._configuration(function_arn))

    async def _configuration(self, function_arn: str) -> Mapping[str, Any]:
        service = await self._client(function_arn, purpose="describe", read_s_max=READ_S_MAX)
        # Lambda allows 15 such calls a second for the whole account.
        pacer = await shared_pacer(self._env)
        await pacer.pace(f"lambda configuration {self._region(function_arn)}")
        with calling("lambda GetFunctionConfiguration"):
            found: Mapping[str, Any] = await service.get_function_configuration(
                FunctionName=function_arn, **self.qualifier(function_arn)
            )
        return found

    async def probe_function(self, function_arn: str) -> Sequence[Finding]:
        """Invokes with DryRun, which checks function and permission and runs nothing; then reads the configuration."""
        invoking = await tried(INVOKE, self._dry_run(function_arn), on=function_arn)
        refused = invoking.error is not None and _is_refusal(invoking.error)
        if invoking.finding.grade is Severity.PROBLEM and not (invoking.denied or refused):
            # No function, no credentials or no connection: the second call would report the same problem.
            return [invoking.finding]
        described = await tried(DESCRIBE, self._described(function_arn), on=function_arn)
        facts, found = (None, {}) if described.answer is None else described.answer
        tenancy = isolation_findings(self._settings, found, function_arn) if found else []
        if refused and any(each.grade is Severity.PROBLEM for each in tenancy):
            return [*_configuration(described.finding, facts, function_arn), *tenancy]
        return [invoking.finding, *_configuration(described.finding, facts, function_arn), *tenancy]

    async def _described(self, function_arn: str) -> tuple[FunctionFacts, Mapping[str, Any]]:
        found = await self._configuration(function_arn)
        return facts_of(found), found

    def _with_remedy(self, error: PortError) -> str:
        return f"{error.reason}; {remedy_for_refusal(self._settings)}" if _is_refusal(error) else error.reason

    async def _dry_run(self, function_arn: str) -> None:
        service = await self._client(function_arn)
        settings = self._settings
        tenant = settings.tenant_id or (CHECKED_TENANT if settings.names_tenants else None)
        await asked(
            service,
            "Invoke",
            NO_ROOM,
            FunctionName=function_arn,
            InvocationType="DryRun",
            **self._context,
            **_for_tenant(tenant),
            **self.qualifier(function_arn),
        )

    async def _invoke(self, invocation: Invocation) -> Outcome:
        arn, payload = invocation.function_arn, invocation.payload
        tenant = tenant_of(self._settings, payload)
        if isinstance(tenant, FunctionError | Unreachable):
            return tenant
        service = await self._client(arn)
        if invocation.client_context or invocation.log_tail:
            return await self._invoke_for_client(service, invocation, _for_tenant(tenant))
        fast = await self._env.shared.get(f"fast invoke {id(service)}", lambda: _fast_invoke(service))
        parameters = {**self.qualifier(arn), **_for_tenant(tenant)}
        name, trace = f"{arn} {parameters} {self._alike}", invocation.trace_header or trace_header(payload)
        with calling("lambda Invoke", NO_ROOM):
            repeated = await fast.repeat(name, payload, bytes_max=ANSWER_BYTES_MAX, trace=trace)
            if repeated is not None:
                return _outcome(repeated, invocation.timeout_s)
            with fast.learning(name, trace=trace):
                answer = await service.invoke(
                    FunctionName=arn,
                    InvocationType="RequestResponse",
                    Payload=payload,
                    **self._context,
                    **parameters,
                )
            body = await read(answer["Payload"])
        return outcome_of(answer, body, invocation.timeout_s)

    async def _invoke_for_client(
        self, service: Any, invocation: Invocation, tenant: Mapping[str, str]
    ) -> Outcome:
        """Calls the function as a client of the Invoke API asks for it: with its own context, and with the end of the log."""
        arn, context = invocation.function_arn, dict(self._context)
        if invocation.client_context:
            context["ClientContext"] = invocation.client_context
        with calling("lambda Invoke", NO_ROOM):
            answer = await service.invoke(
                FunctionName=arn,
                InvocationType="RequestResponse",
                LogType="Tail" if invocation.log_tail else "None",
                Payload=invocation.payload,
                **context,
                **self.qualifier(arn),
                **tenant,
            )
            body = await read(answer["Payload"])
        name = FunctionName.parse(arn).name
        for line in log_lines(answer.get("LogResult")):
            self._env.function_log.write(name, line, request_id=invocation.request_id)
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


def _for_tenant(tenant: str | None) -> dict[str, str]:
    return {} if tenant is None else {"TenantId": tenant}


def _is_refusal(error: PortError) -> bool:
    """Whether Lambda refused a parameter of a call."""
    cause = error.__cause__
    return isinstance(cause, ClientError) and code_of(cause) == REFUSED


def _configuration(finding: Finding, facts: FunctionFacts | None, function_arn: str) -> list[Finding]:
    """Returns the findings of reading a configuration. Without it the daemon works, but waits too long for answers."""
    if facts is None:
        text = (
            f"{finding.text}; the daemon then waits 900 s for each answer, whatever the function's time limit"
        )
        return [replace(finding, grade=Severity.WARNING, text=text)]
    trouble = facts.trouble
    if not trouble:
        return [finding]
    return [finding, Finding("state", Severity.WARNING, f"{function_arn}: {trouble}")]


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
    found = json_object(body)
    error = reported_failure(found, error_type=str(function_error), executed_version=version, whole=body)
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
    yield LambdaInvoker(settings, env.acting_as(settings.identity))


plugin = Plugin("lambda", LambdaSettings, open_lambda, own_limits=True, misfits=misfits)
