"""Owns the SNS destination: the failure document as a message to a standard topic (aws-behaviour#failure-document)."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict

from adapters.aws.calls import calling
from adapters.aws.clients import checked_arn, client
from adapters.destinations.checks import probe_topic
from poller.domain.arns import Arn
from poller.domain.findings import Finding
from poller.domain.invocations import Notice
from poller.plugins import Environment, Plugin


def _standard_topic(text: str) -> str:
    if text.endswith(".fifo"):
        raise ValueError("is a FIFO topic, which cannot be an on-failure destination; name a standard one")
    form = "the ARN of a standard topic; write arn:aws:sns:REGION:ACCOUNT:NAME"
    return checked_arn(text, service="sns", resource=r"[A-Za-z0-9_-]{1,256}", form=form)


class SnsSettings(BaseModel):
    """The ARN of a standard topic."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    arn: Annotated[str, AfterValidator(_standard_topic)]


class SnsDestination:
    """Publishes notices to one topic."""

    def __init__(self, service: Any, topic_arn: str) -> None:
        self._service = service
        self._topic_arn = topic_arn

    async def send(self, notice: Notice) -> None:
        """Publishes the document; raises ServiceThrottled, ServiceUnavailable, AccessDenied, ResourceMissing."""
        with calling("sns Publish"):
            await self._service.publish(TopicArn=self._topic_arn, Message=notice.document.decode())

    async def probe(self) -> Sequence[Finding]:
        """Checks whether the topic exists; publishes nothing."""
        return await probe_topic(self._service, self._topic_arn)


@asynccontextmanager
async def open_sns(settings: SnsSettings, env: Environment) -> AsyncIterator[SnsDestination]:
    """Yields the destination. It calls the topic only when there is something to publish."""
    yield SnsDestination(await client(env, "sns", Arn.parse(settings.arn).region), settings.arn)


plugin = Plugin("sns", SnsSettings, open_sns)
