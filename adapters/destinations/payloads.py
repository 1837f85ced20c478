"""Owns the events in the notices of queues and topics: `include_payload` and `payload_prefix` of a mapping.

AWS sends such documents without the event. With `include_payload` a document has one member more, between `version` and
`timestamp`:

- `payload`, the event as a JSON string as in the S3 destination's objects, while the service takes such a message;
- else `payloadObject`, the bucket and key of an object and the event's size. The object is the S3 destination's, whole;
- else, without a `payload_prefix`, `payloadOmitted` with the event's size.

Queues and topics have size limits of their own, below the service's. They show when a message is refused. The same notice is
then sent with an object, or without the event.
"""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

from adapters.aws.clients import client
from adapters.destinations.checks import probe_bucket
from adapters.destinations.messages import SendMessage, message_text, refused
from adapters.destinations.s3 import put_notice
from poller.config.field_types import ObjectPrefix
from poller.domain.errors import ServiceUnavailable
from poller.domain.findings import Finding
from poller.domain.invocations import Notice, with_member, with_payload
from poller.domain.records import JsonObject
from poller.plugins import Environment


class PayloadStore:
    """The bucket for events that are too large for a message, and what the keys of their objects begin with."""

    def __init__(self, service: Any, place: ObjectPrefix) -> None:
        self._service = service
        self._place = place

    async def put(self, notice: Notice) -> JsonObject:
        """Puts the notice's object and returns where it is. The same notice has the same key each time. Raises as `put_notice`."""
        bucket = self._place.bucket
        key = await put_notice(self._service, bucket, notice, prefix=self._place.prefix)
        return {"bucket": bucket, "key": key}

    async def probe(self) -> Sequence[Finding]:
        """Checks whether the bucket exists; puts nothing."""
        return await probe_bucket(self._service, self._place.bucket)


class Payloads:
    """Makes the messages of notices that have their event. `message_bytes_max` is the limit of the service."""

    def __init__(self, message_bytes_max: int, store: PayloadStore | None) -> None:
        self._message_bytes_max = message_bytes_max
        self._store = store

    async def send(self, notice: Notice, message: SendMessage) -> None:
        """Sends the notice through `message`, with its event; the object of a large one is put before.

        Raises what `message` raises, and the errors of the bucket.
        """
        whole = inline(notice, self._message_bytes_max)
        if whole is not None:
            try:
                await message(whole)
            except ServiceUnavailable as error:
                if not refused(error):
                    raise
            else:
                return
        await message(await self._apart(notice))

    async def probe(self) -> Sequence[Finding]:
        """Checks the bucket, if there is one."""
        return [] if self._store is None else await self._store.probe()

    async def _apart(self, notice: Notice) -> str:
        """The document without the event. It says how large the event is and where it is, if it is anywhere."""
        size: JsonObject = {"sizeBytes": len(notice.payload)}
        if self._store is None:
            return with_member(notice, "payloadOmitted", size).decode()
        place = await self._store.put(notice)
        return with_member(notice, "payloadObject", {**place, **size}).decode()


def inline(notice: Notice, bytes_max: int) -> str | None:
    """The document with the event in it; None if it would have more than `bytes_max` bytes."""
    if len(notice.document) + len(notice.payload) > bytes_max:
        # The quotation marks of the event are escaped, so the document is longer still.
        return None
    text = message_text(with_payload(notice))
    return text if len(text.encode()) <= bytes_max else None


@asynccontextmanager
async def open_payloads(
    env: Environment, *, include: bool, prefix: str | None, message_bytes_max: int
) -> AsyncIterator[Payloads | None]:
    """Yields the payloads of a destination; None if its documents are to be AWS's own."""
    if not include:
        yield None
        return
    store = None
    if prefix is not None:
        # A bucket's name has no region. The first request goes to the daemon's region, and S3 answers which one is right.
        store = PayloadStore(await client(env, "s3", None), ObjectPrefix.parse(prefix))
    yield Payloads(message_bytes_max, store)
