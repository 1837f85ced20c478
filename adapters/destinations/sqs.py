"""Owns the SQS destination: the failure document as a message to a standard queue (aws-behaviour#failure-document).

The document has about a kilobyte. A queue with a lower size limit refuses it: ServiceUnavailable with SQS's code.
"""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict

from adapters.aws.calls import calling
from adapters.aws.clients import checked_arn, client
from adapters.destinations.checks import probe_queue
from poller.domain.arns import Arn
from poller.domain.findings import Finding
from poller.domain.invocations import Notice
from poller.plugins import Environment, Plugin


def _standard_queue(text: str) -> str:
    if text.endswith(".fifo"):
        raise ValueError("is a FIFO queue, which cannot be an on-failure destination; name a standard one")
    form = "the ARN of a standard queue; write arn:aws:sqs:REGION:ACCOUNT:NAME"
    return checked_arn(text, service="sqs", resource=r"[A-Za-z0-9_-]{1,80}", form=form)


class SqsSettings(BaseModel):
    """The ARN of a standard queue."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    arn: Annotated[str, AfterValidator(_standard_queue)]


class SqsDestination:
    """Sends notices to one queue."""

    def __init__(self, service: Any, queue_url: str, arn: str) -> None:
        self._service = service
        self._queue_url = queue_url
        self._arn = arn

    async def send(self, notice: Notice) -> None:
        """Sends the document; raises ServiceThrottled, ServiceUnavailable, AccessDenied, ResourceMissing."""
        with calling("sqs SendMessage"):
            await self._service.send_message(QueueUrl=self._queue_url, MessageBody=notice.document.decode())

    async def probe(self) -> Sequence[Finding]:
        """Checks whether the queue exists; sends nothing."""
        return await probe_queue(self._service, self._queue_url, self._arn)


@asynccontextmanager
async def open_sqs(settings: SqsSettings, env: Environment) -> AsyncIterator[SqsDestination]:
    """Yields the destination. It calls the queue only when there is something to send."""
    arn = Arn.parse(settings.arn)
    service = await client(env, "sqs", arn.region)
    # The URL is made from the ARN. To ask SQS for it would need another permission.
    queue_url = f"{str(service.meta.endpoint_url).rstrip('/')}/{arn.account}/{arn.resource}"
    yield SqsDestination(service, queue_url, settings.arn)


plugin = Plugin("sqs", SqsSettings, open_sqs)
