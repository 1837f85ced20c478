"""Owns the S3 destination: one object with the failure document and the whole event (aws-behaviour#s3-object), or with that of a call.

The object's key contains the id of the notice or call, so a document that is sent twice overwrites its own object.
"""

import re
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict

from adapters.aws.calls import calling
from adapters.aws.clients import client
from adapters.destinations.checks import probe_bucket
from adapters.destinations.messages import no_dead_letter
from poller.config.field_types import AS_WHOM, IdentityName
from poller.domain.arns import BUCKET, PARTITION, Arn
from poller.domain.findings import Finding
from poller.domain.functions.call_notices import CallNotice, call_object_key
from poller.domain.invocations import Notice, object_key, with_payload
from poller.plugins import Environment, Plugin

CONTENT_TYPE = "application/octet-stream"
_BUCKET = re.compile(rf"arn:{PARTITION}:s3:::{BUCKET}")


def _bucket_arn(text: str) -> str:
    if _BUCKET.fullmatch(text) is None:
        raise ValueError("is not the ARN of a bucket; write arn:aws:s3:::NAME, without a key")
    return text


class S3Settings(BaseModel):
    """The ARN of a bucket."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    arn: Annotated[str, AfterValidator(_bucket_arn)]
    identity: IdentityName | None = AS_WHOM


class S3Destination:
    """Puts notices into one bucket."""

    def __init__(self, service: Any, bucket: str) -> None:
        self._service = service
        self._bucket = bucket

    async def send(self, notice: Notice) -> None:
        """Puts the object; raises ServiceThrottled, ServiceUnavailable, AccessDenied, ResourceMissing."""
        await put_notice(self._service, self._bucket, notice)

    async def send_call(self, notice: CallNotice, *, dead_letter: bool) -> None:
        """Puts the whole document of a call; raises as `send`."""
        if dead_letter:
            raise no_dead_letter(f"bucket {self._bucket}")
        await _put(self._service, self._bucket, call_object_key(notice), notice.documents[0])

    async def probe(self) -> Sequence[Finding]:
        """Checks whether the bucket exists; puts nothing."""
        return await probe_bucket(self._service, self._bucket)


async def put_notice(service: Any, bucket: str, notice: Notice, *, prefix: str = "") -> str:
    """Puts the notice's object and returns its key, which is the same each time.

    Raises ServiceThrottled, ServiceUnavailable, AccessDenied, ResourceMissing.
    """
    key = prefix + object_key(notice)
    await _put(service, bucket, key, with_payload(notice))
    return key


async def _put(service: Any, bucket: str, key: str, body: bytes) -> None:
    with calling(f"s3 PutObject to {bucket}"):
        await service.put_object(Bucket=bucket, Key=key, Body=body, ContentType=CONTENT_TYPE)


@asynccontextmanager
async def open_s3(settings: S3Settings, env: Environment) -> AsyncIterator[S3Destination]:
    """Yields the destination. It calls the bucket only when there is something to put.

    A bucket's ARN has no region. The first request goes to the daemon's region, and S3 answers which one is right.
    """
    yield S3Destination(
        await client(env.acting_as(settings.identity), "s3", None), Arn.parse(settings.arn).resource
    )


plugin = Plugin("s3", S3Settings, open_s3)
