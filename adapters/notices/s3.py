"""Owns the reading of notices from a bucket: the objects of the S3 destination, and those under a `payload_prefix`."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

from adapters.aws.calls import calling, understood
from adapters.aws.clients import client
from adapters.notices.objects import Objects
from adapters.notices.settings import DOCUMENT_BYTES_MAX, PlaceSettings
from poller.config.field_types import ObjectPrefix, ObjectPrefixUrl
from poller.domain.errors import AccessDenied, ResourceMissing
from poller.domain.invocations import StoredNotice
from poller.domain.untrusted import numbers
from poller.plugins import Environment, Plugin

SIZE_MAX = 2**50


class BucketSettings(PlaceSettings):
    """`place` is s3://BUCKET/PREFIX."""

    place: ObjectPrefixUrl


class BucketNotices:
    """The notices among the objects under one prefix, in the order of their keys, which is that of their times for one shard."""

    def __init__(self, service: Any, place: ObjectPrefix, objects: Objects) -> None:
        self._service = service
        self._place = place
        self._objects = objects
        self._last = ""

    async def read(self, *, notices_max: int) -> Sequence[StoredNotice]:
        """The next objects."""
        after = {"StartAfter": self._last} if self._last else {}
        with calling("s3 ListObjectsV2"):
            answer = await self._service.list_objects_v2(
                Bucket=self._place.bucket, Prefix=self._place.prefix, MaxKeys=notices_max, **after
            )
        with understood("s3 ListObjectsV2"):
            listed = [(str(each["Key"]), _size(each["Size"])) for each in answer.get("Contents") or []]
        found = [await self._notice(key, size) for key, size in listed]
        if listed:
            self._last = listed[-1][0]
        return found

    async def _notice(self, key: str, size: int) -> StoredNotice:
        if size > DOCUMENT_BYTES_MAX:
            return StoredNotice(key, b"", f"it has more than {DOCUMENT_BYTES_MAX} bytes")
        try:
            return StoredNotice(key, await self._objects.read(self._place.bucket, key))
        except (AccessDenied, ResourceMissing) as error:
            # It is encrypted with another key, archived, or was removed since. The others can be read.
            return StoredNotice(key, b"", error.reason)

    async def remove(self, notice: StoredNotice) -> None:
        """Deletes the object."""
        with calling("s3 DeleteObject"):
            await self._service.delete_object(Bucket=self._place.bucket, Key=notice.place)

    async def leave(self, notice: StoredNotice) -> None:
        """Does nothing: objects are not held back from others."""

    async def payload(self, bucket: str, key: str) -> bytes:
        """The object that a notice names."""
        return await self._objects.read(bucket, key)


def _size(given: object) -> int:
    """The size of an object as it was listed. One that cannot be read counts as too large."""
    return numbers.whole(given, most=SIZE_MAX, default=SIZE_MAX)


@asynccontextmanager
async def open_bucket(settings: BucketSettings, env: Environment) -> AsyncIterator[BucketNotices]:
    """Yields the notices of the bucket."""
    service = await client(env, "s3", None)
    yield BucketNotices(service, ObjectPrefix.parse(settings.place), Objects(env))


plugin = Plugin("s3", BucketSettings, open_bucket)
