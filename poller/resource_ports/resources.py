"""Owns the Protocols of custom resources. Their methods raise only the errors of `poller.domain.errors`.

Every method may raise ServiceThrottled, ServiceUnavailable, AccessDenied, ResourceMissing. ResourceMissing from a list
says that the cluster does not know the kind of resource at all.
"""

from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Protocol

from poller.domain.resources.resource import MappingResource, ResourceEvent, ResourceStatus


@dataclass(frozen=True, slots=True)
class ResourceList:
    """All selected resources at one moment. `version` is where the changes after it begin."""

    resources: tuple[MappingResource, ...]
    version: str


@dataclass(frozen=True, slots=True)
class ResourceChanged:
    """A resource that is new or was changed."""

    resource: MappingResource


@dataclass(frozen=True, slots=True)
class ResourceRemoved:
    """A resource that no longer exists, or is no longer selected."""

    resource: MappingResource


type ResourceChange = ResourceChanged | ResourceRemoved


class ResourceFeed(Protocol):
    """Reads the selected resources of one namespace."""

    async def namespace_uid(self) -> str:
        """The UID of the namespace, which no other namespace of any cluster has. Raises ResourceMissing if there is no such namespace."""
        ...

    async def list(self) -> ResourceList:
        """All of them, from all pages."""
        ...

    def changes(self, version: str) -> AbstractAsyncContextManager[AsyncIterator[ResourceChange]]:
        """The changes after `version`, without an end. Raises CursorExpired when the cluster no longer has them: list again."""
        ...

    async def get(self, namespace: str, name: str) -> MappingResource | None:
        """One resource, selected or not; None if it does not exist."""
        ...


class ResourceWriter(Protocol):
    """Writes to resources. A resource that is gone meanwhile is no error."""

    async def put_status(self, resource: MappingResource, status: ResourceStatus) -> None:
        """Writes the status. Raises RowChanged if the resource was changed since it was read."""
        ...

    async def put_event(self, resource: MappingResource, event: ResourceEvent) -> None:
        """Tells an event. One that was told already is left as it is."""
        ...


class MappingResources(ResourceFeed, ResourceWriter, Protocol):
    """Everything that the daemon does with custom resources. `namespace` is the one that is followed."""

    namespace: str
