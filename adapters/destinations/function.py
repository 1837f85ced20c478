"""Owns the `lambda` destination: documents as payloads of asynchronous calls of a function (aws-behaviour#async-destinations).

The function is called at Lambda's endpoint, whatever functions the daemon itself has.
"""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict

from adapters.aws.calls import calling
from adapters.aws.clients import checked_arn, client
from adapters.aws.permission_checks import asked, tried
from adapters.destinations.messages import no_dead_letter, send_document
from adapters.destinations.payloads import Payloads
from poller.config.field_types import AS_WHOM, IdentityName
from poller.domain.arns import BARE_NAME_CHARS_MAX, QUALIFIER, Arn
from poller.domain.findings import Finding
from poller.domain.functions.call_notices import CallNotice
from poller.domain.functions.queued_calls import PAYLOAD_BYTES_MAX
from poller.domain.invocations import Notice
from poller.plugins import Environment, Plugin

CHUNK_BYTES = 64 * 1024
_RESOURCE = rf"function:[A-Za-z0-9_-]{{1,{BARE_NAME_CHARS_MAX}}}(?::(?:{QUALIFIER}))?"


def _function(text: str) -> str:
    form = "the ARN of a function; write arn:aws:lambda:REGION:ACCOUNT:function:NAME, with or without a qualifier"
    return checked_arn(text, service="lambda", resource=_RESOURCE, form=form)


class FunctionSettings(BaseModel):
    """The ARN of a function, with its qualifier if it is to be called with one."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    arn: Annotated[str, AfterValidator(_function)]
    identity: IdentityName | None = AS_WHOM


class FunctionDestination:
    """Calls one function with each document. It does not wait for the function."""

    def __init__(self, service: Any, function_arn: str) -> None:
        self._service = service
        self._function_arn = function_arn
        self._name = Arn.parse(function_arn).function

    async def send(self, notice: Notice) -> None:
        """Calls with the document with the event in it, or without one that is too large.

        Raises ServiceThrottled, ServiceUnavailable, AccessDenied, ResourceMissing.
        """
        await Payloads(PAYLOAD_BYTES_MAX, None).send(notice, self._invoke)

    async def send_call(self, notice: CallNotice, *, dead_letter: bool) -> None:
        """Calls with the document of a call; raises as `send`."""
        if dead_letter:
            raise no_dead_letter(f"function {self._name}")
        await send_document(notice, PAYLOAD_BYTES_MAX, self._invoke)

    async def probe(self) -> Sequence[Finding]:
        """Checks with a dry run whether the function exists and may be called; runs nothing."""
        arn = self._function_arn
        call = asked(self._service, "Invoke", FunctionName=arn, InvocationType="DryRun")
        return [(await tried("lambda:InvokeFunction", call, on=arn)).finding]

    async def _invoke(self, payload: str) -> None:
        with calling(f"lambda Invoke to {self._name}"):
            answer = await self._service.invoke(
                FunctionName=self._function_arn, InvocationType="Event", Payload=payload.encode()
            )
            async with answer["Payload"] as body:
                # Nothing stands in it. Read to its end, the connection can be used again.
                async for _ in body.iter_chunks(CHUNK_BYTES):
                    pass


@asynccontextmanager
async def open_function(settings: FunctionSettings, env: Environment) -> AsyncIterator[FunctionDestination]:
    """Yields the destination. It calls the function only when there is something to send."""
    service = await client(env.acting_as(settings.identity), "lambda", Arn.parse(settings.arn).region)
    yield FunctionDestination(service, settings.arn)


plugin = Plugin("lambda", FunctionSettings, open_function)
