"""Owns the settings of the Kinesis source, and how it is opened: for a stream, or for a consumer with enhanced fan-out."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationInfo, field_validator

from adapters.aws.clients import checked_arn, client
from adapters.aws.pacing import shared_pacer
from adapters.sources.kinesis.consumers import GivenConsumer, OwnConsumer, StreamConsumer
from adapters.sources.kinesis.fan_out import FannedOutStream
from adapters.sources.kinesis.listing import stream_listing
from adapters.sources.kinesis.stream import KinesisStream
from adapters.sources.listings.shared_listing import shared_by
from poller.config.field_types import AS_WHOM, IdentityName
from poller.domain.arns import Arn
from poller.domain.records import MappingId
from poller.plugins import Environment, Plugin

_CONSUMER = "/consumer/"
SUBSCRIPTIONS_MAX = 10_000
"""Connections of all subscriptions of an identity in a region. Each shard has one, for minutes: calls have others."""


def _stream_arn(text: str) -> str:
    form = (
        "the ARN of a Kinesis stream or of its consumer; write arn:aws:kinesis:REGION:ACCOUNT:stream/NAME, "
        "or …:stream/NAME/consumer/CONSUMER:TIME as DescribeStreamConsumer shows it"
    )
    resource = r"stream/[A-Za-z0-9_.-]{1,128}(/consumer/[A-Za-z0-9_.-]{1,128}:[0-9]{1,12})?"
    return checked_arn(text, service="kinesis", resource=resource, form=form)


class KinesisSettings(BaseModel):
    """Which stream to read, or by which consumer."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    arn: Annotated[str, AfterValidator(_stream_arn)]
    deaggregate: bool = Field(
        default=False,
        description="Take records apart that the Kinesis Producer Library has aggregated, as AWS does for a consumer. "
        "Records of a consumer are always taken apart.",
    )
    fan_out: bool = Field(
        default=False,
        description="Have the records pushed to a consumer of the mapping's own, which is registered if there is none. AWS charges for "
        "it until `poller consumers remove` removes it.",
    )
    identity: IdentityName | None = AS_WHOM
    mapping: str = ""
    """The mapping's id, by which its own consumer is named."""

    @field_validator("fan_out")
    @classmethod
    def _one_consumer(cls, fan_out: bool, info: ValidationInfo) -> bool:
        if fan_out and _CONSUMER in info.data.get("arn", ""):
            raise ValueError(
                "registers a consumer of the mapping's own, but EventSourceArn names a consumer already; "
                "remove it, or write the stream's ARN"
            )
        return fan_out


@asynccontextmanager
async def _open(settings: KinesisSettings, env: Environment) -> AsyncIterator[KinesisStream]:
    acting = env.acting_as(settings.identity)
    api: Any = await client(acting, "kinesis", Arn.parse(settings.arn).region)
    pacer = await shared_pacer(env)
    stream, _, consumer = settings.arn.partition(_CONSUMER)
    listing = await shared_by(
        acting, "kinesis", stream, lambda: stream_listing(api, pacer, arn=stream, clock=env.clock)
    )
    if not consumer and not settings.fan_out:
        yield KinesisStream(
            api, pacer, env.turns, arn=stream, deaggregate=settings.deaggregate, listing=listing
        )
        return
    of: StreamConsumer = GivenConsumer(settings.arn)
    if settings.fan_out:
        of = OwnConsumer(api, stream=stream, mapping=MappingId(settings.mapping), clock=env.clock)
    pushing: Any = await client(
        acting,
        "kinesis",
        Arn.parse(settings.arn).region,
        purpose="subscriptions",
        connections_max=SUBSCRIPTIONS_MAX,
        streams=True,
    )
    fanned = FannedOutStream(
        api, pacer, env.turns, arn=stream, pushing=pushing, consumer=of, clock=env.clock, listing=listing
    )
    try:
        yield fanned
    finally:
        await fanned.close()


plugin = Plugin("kinesis", KinesisSettings, _open)
