"""Owns what this worker writes to custom resources: status, events, and the finalizer.

Every worker looks, and one of the live workers writes to each resource (`writer_of`). A worker whose own heartbeat is late writes
nothing, as it takes no lease. While the view of the workers changes, two may write: each write has the condition that the resource is as it was
read, so one of them is refused, and tells no event.

The finalizer holds a deleted resource until its mapping has drained and its positions are gone. It is there only while a daemon runs:
the last worker that stops takes it away, so that nothing waits for a daemon that is not there. What was deleted before, the store knows.
"""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from hashlib import blake2b

from poller.domain.errors import PortError, RowChanged
from poller.domain.records import MappingId, Monotonic
from poller.domain.resources.resource import MappingResource, ResourceStatus
from poller.domain.status import MappingStatus
from poller.ports import Clock
from poller.resource_ports.resources import ResourceWriter
from poller.rules.resources.conditions import ResourceFacts, events_of, status_of, worth_writing, writer_of
from poller.runtime.resources.known_resources import KnownResources
from poller.runtime.resources.resource_mappings import ResourceMappings

RELEASE_S_MAX = 5.0
"""How long the last worker that stops takes to let go of resources."""


@dataclass(frozen=True, slots=True)
class _Written:
    status: ResourceStatus
    at: Monotonic


class ResourceStatusWriter:
    """Writes to resources. `workers` gives the live workers that do not leave, this one (`me`) included; empty if this one may not write.

    With `holds` resources get the finalizer.
    """

    def __init__(
        self,
        known: KnownResources,
        mappings: ResourceMappings,
        writer: ResourceWriter,
        *,
        me: str,
        workers: Callable[[], Sequence[str]],
        clock: Clock,
        holds: bool,
    ) -> None:
        self._known = known
        self._mappings = mappings
        self._writer = writer
        self._me = me
        self._workers = workers
        self._clock = clock
        self._holds = holds
        self._written: dict[str, _Written] = {}

    async def write(self, statuses: Mapping[MappingId, MappingStatus]) -> None:
        """Writes what is to be written now. Raises the errors of the cluster, except about a resource that was changed meanwhile."""
        resources = self._known.all()
        names = {each.uid for each in resources}
        self._written = {uid: each for uid, each in self._written.items() if uid in names}
        for resource in resources:
            workers = self._workers()
            if workers and writer_of(resource.uid, workers, _rank) == self._me:
                with suppress(RowChanged):
                    await self._write_one(resource, statuses)

    async def release(self) -> None:
        """Takes the finalizer from all resources, as far as the cluster answers in RELEASE_S_MAX."""
        with suppress(TimeoutError, PortError):
            async with asyncio.timeout(RELEASE_S_MAX):
                for resource in self._known.all():
                    if resource.held:
                        with suppress(RowChanged):
                            await self._writer.hold(resource, held=False)

    async def _write_one(
        self, resource: MappingResource, statuses: Mapping[MappingId, MappingStatus]
    ) -> None:
        made = self._mappings.definition(resource)
        if resource.deleting and made is None:
            if resource.held:
                await self._writer.hold(resource, held=False)
            return
        if self._holds and not resource.held and not resource.deleting:
            await self._writer.hold(resource, held=True)
            # The resource is another one now. Its status follows when the change has arrived.
            return
        facts = ResourceFacts(
            invalid="" if resource.deleting else self._mappings.refusal(resource),
            conflict="" if resource.deleting else self._mappings.conflict(resource),
            mapping=None if made is None else statuses.get(made.mapping),
        )
        status = status_of(resource, facts, now=self._clock.now())
        before, now = self._written.get(resource.uid), self._clock.monotonic()
        since_s = now - before.at if before is not None else None
        if worth_writing(status, resource.written, since_s=since_s):
            await self._writer.put_status(resource, status)
            self._written[resource.uid] = _Written(status, now)
            for event in events_of(resource, status):
                await self._writer.put_event(resource, event)


def _rank(text: str) -> int:
    return int.from_bytes(blake2b(text.encode(), digest_size=8).digest())
