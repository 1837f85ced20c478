"""Owns what this worker writes to custom resources: status and events.

Every worker looks, and one of the live workers writes to each resource (`writer_of`). A worker whose own heartbeat is late writes
nothing, as it takes no lease. What that one has not written after STAND_IN_S, any worker writes: the one may not reach the cluster, or may be a
daemon that follows no resources. So two may write. Each write has the condition that the resource is as it was read, so one of them is
refused, and tells no event.

No finalizer is written: it would keep a deleted resource, and with it its namespace, for as long as no daemon runs. The store knows
what was made of a resource that is gone.
"""

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from hashlib import blake2b

from poller.domain.errors import RowChanged
from poller.domain.records import MappingId, Monotonic
from poller.domain.resources.resource import MappingResource, ResourceStatus
from poller.domain.status import MappingStatus
from poller.ports import Clock
from poller.resource_ports.resources import ResourceWriter
from poller.rules.resources.conditions import ResourceFacts, events_of, status_of, worth_writing, writer_of
from poller.runtime.resources.known_resources import KnownResources
from poller.runtime.resources.resource_mappings import ResourceMappings

STAND_IN_S = 20.0
"""What the worker that writes to a resource has not written after this time, the others write."""


@dataclass(frozen=True, slots=True)
class _Seen:
    """A status as it was last read of a resource, and since when it is so."""

    status: ResourceStatus | None
    since: Monotonic


class ResourceStatusWriter:
    """Writes to resources. `workers` gives the live workers that do not leave, this one (`me`) included; empty if this one may not write."""

    def __init__(
        self,
        known: KnownResources,
        mappings: ResourceMappings,
        writer: ResourceWriter,
        *,
        me: str,
        workers: Callable[[], Sequence[str]],
        clock: Clock,
    ) -> None:
        self._known = known
        self._mappings = mappings
        self._writer = writer
        self._me = me
        self._workers = workers
        self._clock = clock
        self._seen: dict[str, _Seen] = {}
        self._due: dict[str, Monotonic] = {}
        """Since when the status of a resource should be another one, by uid."""

    async def write(self, statuses: Mapping[MappingId, MappingStatus]) -> None:
        """Writes what is to be written now. Raises the errors of the cluster, except about a resource that was changed meanwhile."""
        resources, now = self._known.all(), self._clock.monotonic()
        self._seen = {each.uid: self._seen_now(each, now) for each in resources}
        due = {each.uid: status for each in resources if (status := self._wanted(each, statuses, now))}
        self._due = {uid: self._due.get(uid, now) for uid in due}
        for resource in resources:
            if resource.uid in due and self._is_mine(resource, now):
                with suppress(RowChanged):
                    await self._write_one(resource, due[resource.uid])

    def _seen_now(self, resource: MappingResource, now: Monotonic) -> _Seen:
        before = self._seen.get(resource.uid)
        same = before is not None and before.status == resource.written
        return before if same and before is not None else _Seen(resource.written, now)

    def _wanted(
        self, resource: MappingResource, statuses: Mapping[MappingId, MappingStatus], now: Monotonic
    ) -> ResourceStatus | None:
        """The status that should be written to a resource now; None if the one that it has will do."""
        made = self._mappings.definition(resource)
        if resource.deleting and made is None:
            # A finalizer of somebody else keeps it. Its mapping is gone.
            return None
        facts = ResourceFacts(
            invalid="" if resource.deleting else self._mappings.refusal(resource),
            conflict="" if resource.deleting else self._mappings.conflict(resource),
            mapping=None if made is None else statuses.get(made.mapping),
        )
        status = status_of(resource, facts, now=self._clock.now())
        since_s = now - self._seen[resource.uid].since
        return status if worth_writing(status, resource.written, since_s=since_s) else None

    def _is_mine(self, resource: MappingResource, now: Monotonic) -> bool:
        workers = self._workers()
        if not workers:
            return False
        late = now - self._due[resource.uid] >= STAND_IN_S
        return late or writer_of(resource.uid, workers, _rank) == self._me

    async def _write_one(self, resource: MappingResource, status: ResourceStatus) -> None:
        await self._writer.put_status(resource, status)
        for event in events_of(resource, status):
            await self._writer.put_event(resource, event)


def _rank(text: str) -> int:
    return int.from_bytes(blake2b(text.encode(), digest_size=8).digest())
