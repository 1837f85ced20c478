"""Owns a cluster that is pure state: resources with versions, generations and a log of changes, behind the port."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import Any

from poller.domain.errors import CursorExpired, PortError, RowChanged, ServiceUnavailable
from poller.domain.records import Epoch
from poller.domain.resources.resource import ConditionType, MappingResource, ResourceEvent, ResourceStatus
from poller.resource_ports.resources import ResourceChange, ResourceChanged, ResourceList, ResourceRemoved
from tests.virtual import EPOCH_BASE, virtual_clock

NAMESPACE = "pipelines"
ANSWER_S = 0.02
"""The cluster's answer takes so long."""


@dataclass
class FakeCluster:
    """The resources of one namespace, by name. While it is `away` every call fails and every watch ends."""

    resources: dict[str, MappingResource] = field(default_factory=dict)
    labels: dict[str, str] = field(default_factory=dict)
    """The label of a resource, by its name; a selector of "" selects all."""
    events: dict[str, ResourceEvent] = field(default_factory=dict)
    status_writes: list[tuple[str, str, float]] = field(default_factory=list)
    """Which worker wrote the status of which resource, and when."""
    lists: int = 0
    trouble: PortError | None = None
    namespace_uid: str = "11111111-0000-4000-8000-000000000001"
    kept: set[str] = field(default_factory=set)
    """Names of resources with a finalizer of somebody else."""
    oldest: int = 0
    """Changes up to this version are forgotten."""
    _version: int = 0
    _made: int = 0
    _log: list[tuple[int, str, MappingResource]] = field(default_factory=list)
    _news: asyncio.Event = field(default_factory=asyncio.Event)

    def create(self, name: str, spec: Mapping[str, Any], *, label: str = "") -> MappingResource:
        """Somebody makes a resource."""
        self._made += 1
        made = MappingResource(
            namespace=NAMESPACE,
            name=name,
            uid=f"00000000-0000-4000-8000-{self._made:012d}",
            generation=1,
            version="",
            spec=spec,
            created=Epoch(float(int(virtual_clock().now()))),
        )
        self.labels[name] = label
        return self._put(made)

    def change(self, name: str, spec: Mapping[str, Any]) -> None:
        """Somebody changes a spec."""
        found = self.resources[name]
        self._put(replace(found, spec=spec, generation=found.generation + 1))

    def label(self, name: str, label: str) -> None:
        """Somebody gives another label to a resource."""
        self.labels[name] = label
        self._put(self.resources[name])

    def delete(self, name: str) -> None:
        """Somebody deletes a resource. While somebody's finalizer is on it (`kept`), it stays."""
        found = self.resources[name]
        if name in self.kept:
            self._put(replace(found, deleting=True, generation=found.generation + 1))
        else:
            self._remove(name)

    def go_away(self) -> None:
        """The API server stops answering, and its watches break."""
        self.trouble = ServiceUnavailable("connection refused")
        self._wake()

    def come_back(self) -> None:
        """The API server answers again. What changed long ago is forgotten."""
        self.trouble, self.oldest = None, self._version

    def status(self, name: str) -> ResourceStatus | None:
        """What is written to a resource."""
        return self.resources[name].written

    def holds(self, name: str, type_: ConditionType) -> bool | None:
        """Whether a condition holds; None if it is not there or belongs to an older spec."""
        found = self.resources.get(name)
        condition = None if found is None else found.condition(type_)
        return (
            None
            if found is None or condition is None or condition.generation != found.generation
            else condition.holds
        )

    def reason(self, name: str, type_: ConditionType) -> str:
        """The reason of a condition; empty if it is not there."""
        condition = self.resources[name].condition(type_)
        return "" if condition is None else condition.reason

    def told(self, name: str) -> list[str]:
        """The reasons of the events of a resource, in order."""
        uid = self.resources[name].uid
        return [each.reason for each in self.events.values() if each.key.startswith(uid)]

    def _put(self, resource: MappingResource) -> MappingResource:
        self._version += 1
        kept = replace(resource, version=str(self._version))
        self.resources[resource.name] = kept
        self._log.append((self._version, self.labels[resource.name], kept))
        self._wake()
        return kept

    def _remove(self, name: str) -> None:
        self._version += 1
        gone = self.resources.pop(name)
        self._log.append((self._version, "\0removed", gone))
        self._wake()

    def _wake(self) -> None:
        self._news.set()
        self._news = asyncio.Event()


class ClusterDoor:
    """One worker's way to the cluster: the port. Only resources with the label `selector` are selected; "" selects all."""

    def __init__(self, cluster: FakeCluster, worker: str, *, selector: str = "") -> None:
        self.namespace = NAMESPACE
        self._cluster = cluster
        self._worker = worker
        self._selector = selector

    async def namespace_uid(self) -> str:
        await self._answer()
        return self._cluster.namespace_uid

    async def list(self) -> ResourceList:
        await self._answer()
        self._cluster.lists += 1
        found = [
            each
            for each in self._cluster.resources.values()
            if self._selects(self._cluster.labels[each.name])
        ]
        return ResourceList(tuple(found), str(self._cluster._version))

    @asynccontextmanager
    async def changes(self, version: str) -> AsyncIterator[AsyncIterator[ResourceChange]]:
        await self._answer()
        if int(version) < self._cluster.oldest:
            raise CursorExpired("too old resource version")
        yield self._follow(int(version))

    async def get(self, namespace: str, name: str) -> MappingResource | None:
        await self._answer()
        return self._cluster.resources.get(name) if namespace == NAMESPACE else None

    async def put_status(self, resource: MappingResource, status: ResourceStatus) -> None:
        found = await self._at_its_version(resource)
        if found is not None:
            now = virtual_clock().now() - EPOCH_BASE
            self._cluster.status_writes.append((self._worker, resource.name, now))
            self._cluster._put(replace(found, written=status))

    async def put_event(self, resource: MappingResource, event: ResourceEvent) -> None:
        await self._answer()
        self._cluster.events.setdefault(event.key, event)

    async def _answer(self) -> None:
        await asyncio.sleep(ANSWER_S)
        if self._cluster.trouble is not None:
            raise self._cluster.trouble

    async def _at_its_version(self, resource: MappingResource) -> MappingResource | None:
        await self._answer()
        found = self._cluster.resources.get(resource.name)
        if found is None or found.uid != resource.uid:
            return None
        if found.version != resource.version:
            raise RowChanged("the object has been modified")
        return found

    def _selects(self, label: str) -> bool:
        return self._selector in ("", label)

    async def _follow(self, since: int) -> AsyncIterator[ResourceChange]:
        while True:
            news = self._cluster._news
            for version, label, resource in [each for each in self._cluster._log if each[0] > since]:
                since = version
                removed = label == "\0removed" or not self._selects(label)
                yield ResourceRemoved(resource) if removed else ResourceChanged(resource)
            await news.wait()
            if self._cluster.trouble is not None:
                raise self._cluster.trouble
