"""Owns the SQS destination: documents of batches (aws-behaviour#failure-document) and calls as messages to a standard queue.

The document has about a kilobyte. A queue with a lower size limit refuses it: ServiceUnavailable with SQS's code. With
`include_payload` it has the event, too. Documents and dead letters of calls are `messages`.
"""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict

from adapters.aws.calls import calling
from adapters.aws.clients import checked_arn, client
from adapters.destinations.checks import probe_queue
from adapters.destinations.messages import Attributes, send_dead_letter, send_document
from adapters.destinations.payloads import Payloads, open_payloads
from poller.config.field_types import AS_WHOM, IdentityName, ObjectPrefixUrl
from poller.domain.arns import Arn
from poller.domain.findings import Finding
from poller.domain.functions.call_notices import CallNotice
from poller.domain.invocations import Notice
from poller.plugins import Environment, Plugin

MESSAGE_BYTES_MAX = 1024 * 1024
"""The service's limit for one message, as UTF-8 (aws-behaviour#sizes-and-counts). A queue's own limit, its MaximumMessageSize, may be lower."""


def _standard_queue(text: str) -> str:
    if text.endswith(".fifo"):
        raise ValueError("is a FIFO queue, which cannot be an on-failure destination; name a standard one")
    form = "the ARN of a standard queue; write arn:aws:sqs:REGION:ACCOUNT:NAME"
    return checked_arn(text, service="sqs", resource=r"[A-Za-z0-9_-]{1,80}", form=form)


class SqsSettings(BaseModel):
    """The ARN of a standard queue, and whether and how documents have their event."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    arn: Annotated[str, AfterValidator(_standard_queue)]
    include_payload: bool = False
    payload_prefix: ObjectPrefixUrl | None = None
    identity: IdentityName | None = AS_WHOM


class SqsDestination:
    """Sends notices to one queue."""

    def __init__(self, service: Any, queue_url: str, arn: str, *, payloads: Payloads | None = None) -> None:
        self._service = service
        self._queue_url = queue_url
        self._arn = arn
        self._payloads = payloads

    async def send(self, notice: Notice) -> None:
        """Sends the document; raises ServiceThrottled, ServiceUnavailable, AccessDenied, ResourceMissing."""
        if self._payloads is None:
            await self._message(notice.document.decode())
        else:
            await self._payloads.send(notice, self._message)

    async def send_call(self, notice: CallNotice, *, dead_letter: bool) -> None:
        """Sends the document of a call, or its payload; raises as `send`."""
        if dead_letter:
            await send_dead_letter(notice, MESSAGE_BYTES_MAX, self._message)
        else:
            await send_document(notice, MESSAGE_BYTES_MAX, self._message)

    async def probe(self) -> Sequence[Finding]:
        """Checks whether the queue exists, and the bucket for large events; sends nothing."""
        found = await probe_queue(self._service, self._queue_url, self._arn)
        return found if self._payloads is None else [*found, *await self._payloads.probe()]

    async def _message(self, text: str, attributes: Attributes | None = None) -> None:
        more = {"MessageAttributes": attributes} if attributes else {}
        with calling(f"sqs SendMessage to {Arn.parse(self._arn).resource}"):
            await self._service.send_message(QueueUrl=self._queue_url, MessageBody=text, **more)


@asynccontextmanager
async def open_sqs(settings: SqsSettings, env: Environment) -> AsyncIterator[SqsDestination]:
    """Yields the destination. It calls the queue only when there is something to send."""
    env, arn = env.acting_as(settings.identity), Arn.parse(settings.arn)
    service = await client(env, "sqs", arn.region)
    # The URL is made from the ARN. To ask SQS for it would need another permission.
    queue_url = f"{str(service.meta.endpoint_url).rstrip('/')}/{arn.account}/{arn.resource}"
    async with open_payloads(
        env,
        include=settings.include_payload,
        prefix=settings.payload_prefix,
        message_bytes_max=MESSAGE_BYTES_MAX,
    ) as payloads:
        yield SqsDestination(service, queue_url, settings.arn, payloads=payloads)


plugin = Plugin("sqs", SqsSettings, open_sqs)
