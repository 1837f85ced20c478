"""Owns the settings of the Kinesis source, and how it is opened: for a stream, or for a consumer with enhanced fan-out."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from adapters.aws.clients import checked_arn, client
from adapters.aws.pacing import shared_pacer
from adapters.sources.kinesis.fan_out import FannedOutStream
from adapters.sources.kinesis.listing import stream_listing
from adapters.sources.kinesis.stream import KinesisApi, KinesisStream
from adapters.sources.listings.shared_listing import shared_by
from poller.config.field_types import AS_WHOM, IdentityName
from poller.domain.arns import Arn
from poller.plugins import Environment, Plugin

_CONSUMER = "/consumer/"


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
    identity: IdentityName | None = AS_WHOM


@asynccontextmanager
async def _open(settings: KinesisSettings, env: Environment) -> AsyncIterator[KinesisStream]:
    acting = env.acting_as(settings.identity)
    api: KinesisApi = await client(acting, "kinesis", Arn.parse(settings.arn).region)
    pacer = await shared_pacer(env)
    stream, _, consumer = settings.arn.partition(_CONSUMER)
    listing = await shared_by(
        acting, "kinesis", stream, lambda: stream_listing(api, pacer, arn=stream, clock=env.clock)
    )
    if not consumer:
        yield KinesisStream(
            api, pacer, env.turns, arn=stream, deaggregate=settings.deaggregate, listing=listing
        )
        return
    fanned = FannedOutStream(
        api, pacer, env.turns, arn=stream, consumer=settings.arn, clock=env.clock, listing=listing
    )
    try:
        yield fanned
    finally:
        await fanned.close()


plugin = Plugin("kinesis", KinesisSettings, _open)
