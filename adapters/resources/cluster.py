"""Owns custom resources of one namespace in a cluster: the port, over the API server's HTTP.

lightkube gives the connection (addresses, TLS and credentials of a service account or a kubeconfig). The requests are made here, so
that everything that arrives is bounded.

A watch is asked to end after WATCH_S and is opened again where it ended, so that a connection that is dead shows soon. Versions are
compared for equality only. Status is applied (server-side apply) at the version that was read, and never makes an object.
"""

import json
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import httpx2

from adapters.resources.answers import (
    body_of,
    check,
    errors_of_the_library,
    lines_of,
    object_exists,
    parsed,
    watch_error,
)
from adapters.resources.objects import (
    API,
    MANAGER,
    PLURAL,
    event_object,
    resource_of,
    status_object,
    version_of,
)
from poller.domain.errors import ServiceUnavailable
from poller.domain.resources.resource import MappingResource, ResourceEvent, ResourceStatus
from poller.resource_ports.resources import ResourceChange, ResourceChanged, ResourceList, ResourceRemoved

PAGE_MAX = 100
"""Resources that one page of a list asks for."""
RESOURCES_MAX = 10_000
"""Resources that are followed: as many as there may be mappings in the configuration file."""
WATCH_S = 60
"""After so long a watch ends and is opened again."""
SILENCE_S = WATCH_S + 15.0
"""A watch that sends nothing for so long is broken."""
ANSWER_S = 15.0
"""How long the API server may be silent in any other answer."""
CONNECT_S = 5.0
EXISTS = 409


class KubernetesResources:
    """Custom resources of `namespace` that `selector` chooses. `worker` is named in events."""

    def __init__(self, client: httpx2.AsyncClient, *, namespace: str, selector: str, worker: str) -> None:
        self.namespace = namespace
        self._client = client
        self._selector = selector
        self._worker = worker

    async def namespace_uid(self) -> str:
        """The UID of the namespace. Raises ResourceMissing if there is no such namespace."""
        found = await self._get(f"/api/v1/namespaces/{self.namespace}", {})
        metadata = found.get("metadata")
        uid = metadata.get("uid") if isinstance(metadata, dict) else None
        if not isinstance(uid, str) or not uid:
            raise ServiceUnavailable(f"the namespace {self.namespace} has no UID")
        return uid

    async def list(self) -> ResourceList:
        """All of them, from all pages. Raises CursorExpired if the list changed too much while its pages were read."""
        found: list[MappingResource] = []
        page = ""
        while True:
            answer = await self._get(self._path(), self._selected({"limit": str(PAGE_MAX), "continue": page}))
            items = answer.get("items")
            found += [
                each for item in (items if isinstance(items, list) else ()) if (each := resource_of(item))
            ]
            if len(found) > RESOURCES_MAX:
                raise ServiceUnavailable(f"more than {RESOURCES_MAX} resources are selected")
            metadata = answer.get("metadata")
            following = metadata.get("continue") if isinstance(metadata, dict) else None
            if not following or following == page:
                return ResourceList(tuple(found), version_of(answer))
            page = str(following)

    @asynccontextmanager
    async def changes(self, version: str) -> AsyncGenerator[AsyncIterator[ResourceChange]]:
        """The changes after `version`, without an end."""
        following = self._changes(version)
        try:
            yield following
        finally:
            await following.aclose()

    async def get(self, namespace: str, name: str) -> MappingResource | None:
        """One resource; None if the API server says that no such object exists."""
        found = await self._object(namespace, name)
        return None if found is None else resource_of(found)

    async def put_status(self, resource: MappingResource, status: ResourceStatus) -> None:
        """Applies the status at the resource's version."""
        await self._patch(
            f"{self._path(resource.namespace)}/{resource.name}/status",
            resource.name,
            status_object(resource, status),
            form="application/apply-patch+yaml",
            asked={"fieldManager": MANAGER, "force": "true"},
        )

    async def put_event(self, resource: MappingResource, event: ResourceEvent) -> None:
        """Makes the event's object unless it is there."""
        path = f"/apis/events.k8s.io/v1/namespaces/{resource.namespace}/events"
        content = event_object(resource, event, worker=self._worker)
        async with self._answer("POST", path, content=content, form="application/json") as answer:
            if answer.status_code != EXISTS:
                await check(answer)

    async def _changes(self, version: str) -> AsyncGenerator[ResourceChange]:
        while True:
            asked = {
                "watch": "true",
                "allowWatchBookmarks": "true",
                "resourceVersion": version,
                "timeoutSeconds": str(WATCH_S),
            }
            async with self._answer(
                "GET", self._path(), self._selected(asked), silence_s=SILENCE_S
            ) as answer:
                await check(answer)
                async for line in lines_of(answer):
                    if not line.strip():
                        continue
                    event = parsed(line)
                    kind, given = event.get("type"), event.get("object")
                    if kind == "ERROR":
                        raise watch_error(given)
                    version = version_of(given) or version
                    if (resource := resource_of(given)) is None or kind == "BOOKMARK":
                        continue
                    yield ResourceRemoved(resource) if kind == "DELETED" else ResourceChanged(resource)

    async def _get(self, path: str, asked: Mapping[str, str]) -> Mapping[str, Any]:
        async with self._answer("GET", path, asked) as answer:
            await check(answer)
            return parsed(await body_of(answer))

    async def _object(self, namespace: str, name: str) -> Mapping[str, Any] | None:
        async with self._answer("GET", f"{self._path(namespace)}/{name}") as answer:
            return parsed(await body_of(answer)) if await object_exists(answer, name) else None

    async def _patch(
        self, path: str, name: str, content: Mapping[str, Any], *, form: str, asked: Mapping[str, str]
    ) -> None:
        async with self._answer("PATCH", path, asked, content=content, form=form) as answer:
            await object_exists(answer, name)

    @asynccontextmanager
    async def _answer(
        self,
        method: str,
        path: str,
        asked: Mapping[str, str] | None = None,
        *,
        content: Mapping[str, Any] | None = None,
        form: str = "",
        silence_s: float = ANSWER_S,
    ) -> AsyncGenerator[httpx2.Response]:
        """The answer to a request, whose body is not read yet."""
        limits = httpx2.Timeout(silence_s, connect=CONNECT_S)
        headers = {"Accept": "application/json", "Accept-Encoding": "identity"} | (
            {"Content-Type": form} if form else {}
        )
        with errors_of_the_library():
            async with self._client.stream(
                method,
                path,
                params={name: text for name, text in (asked or {}).items() if text},
                headers=headers,
                content=None if content is None else json.dumps(content).encode(),
                timeout=limits,
            ) as answer:
                yield answer

    def _path(self, namespace: str = "") -> str:
        return f"/apis/{API}/namespaces/{namespace or self.namespace}/{PLURAL}"

    def _selected(self, asked: Mapping[str, str]) -> dict[str, str]:
        return {**asked, "labelSelector": self._selector}
