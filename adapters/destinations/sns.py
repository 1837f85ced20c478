"""Owns the SNS destination: documents of batches (aws-behaviour#failure-document) and calls as messages to a standard topic."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict

from adapters.aws.calls import calling
from adapters.aws.clients import checked_arn, client
from adapters.destinations.checks import probe_topic
from adapters.destinations.messages import Attributes, send_dead_letter, send_document
from adapters.destinations.payloads import Payloads, open_payloads
from poller.config.field_types import AS_WHOM, IdentityName, ObjectPrefixUrl
from poller.domain.arns import Arn
from poller.domain.findings import Finding
from poller.domain.functions.call_notices import CallNotice
from poller.domain.invocations import Notice
from poller.plugins import Environment, Plugin

MESSAGE_BYTES_MAX = 256 * 1024
"""What topics take by default, as UTF-8 (aws-behaviour#sizes-and-counts).

A topic with a larger MaximumMessageSize is not given more, because its subscribers may take less.
"""
DEAD_LETTER_BYTES_MAX = 1024 * 1024
"""What a topic takes if its MaximumMessageSize says so. A dead letter cannot be shorter, so the topic decides."""


def _standard_topic(text: str) -> str:
    if text.endswith(".fifo"):
        raise ValueError("is a FIFO topic, which cannot be an on-failure destination; name a standard one")
    form = "the ARN of a standard topic; write arn:aws:sns:REGION:ACCOUNT:NAME"
    return checked_arn(text, service="sns", resource=r"[A-Za-z0-9_-]{1,256}", form=form)


class SnsSettings(BaseModel):
    """The ARN of a standard topic, and whether and how documents have their event."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    arn: Annotated[str, AfterValidator(_standard_topic)]
    include_payload: bool = False
    payload_prefix: ObjectPrefixUrl | None = None
    identity: IdentityName | None = AS_WHOM


class SnsDestination:
    """Publishes notices to one topic."""

    def __init__(self, service: Any, topic_arn: str, *, payloads: Payloads | None = None) -> None:
        self._service = service
        self._topic_arn = topic_arn
        self._payloads = payloads

    async def send(self, notice: Notice) -> None:
        """Publishes the document; raises ServiceThrottled, ServiceUnavailable, AccessDenied, ResourceMissing."""
        if self._payloads is None:
            await self._message(notice.document.decode())
        else:
            await self._payloads.send(notice, self._message)

    async def send_call(self, notice: CallNotice, *, dead_letter: bool) -> None:
        """Publishes the document of a call, or its payload; raises as `send`."""
        if dead_letter:
            await send_dead_letter(notice, DEAD_LETTER_BYTES_MAX, self._message)
        else:
            await send_document(notice, MESSAGE_BYTES_MAX, self._message)

    async def probe(self) -> Sequence[Finding]:
        """Checks whether the topic exists, and the bucket for large events; publishes nothing."""
        found = await probe_topic(self._service, self._topic_arn)
        return found if self._payloads is None else [*found, *await self._payloads.probe()]

    async def _message(self, text: str, attributes: Attributes | None = None) -> None:
        more = {"MessageAttributes": attributes} if attributes else {}
        with calling(f"sns Publish to {Arn.parse(self._topic_arn).resource}"):
            await self._service.publish(TopicArn=self._topic_arn, Message=text, **more)


@asynccontextmanager
async def open_sns(settings: SnsSettings, env: Environment) -> AsyncIterator[SnsDestination]:
    """Yields the destination. It calls the topic only when there is something to publish."""
    env = env.acting_as(settings.identity)
    service = await client(env, "sns", Arn.parse(settings.arn).region)
    async with open_payloads(
        env,
        include=settings.include_payload,
        prefix=settings.payload_prefix,
        message_bytes_max=MESSAGE_BYTES_MAX,
    ) as payloads:
        yield SnsDestination(service, settings.arn, payloads=payloads)


plugin = Plugin("sns", SnsSettings, open_sns)
