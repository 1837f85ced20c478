"""Owns a small API server on loopback: it lists in pages, watches from a version, applies status, and takes events.

It does what the adapter relies on, by Kubernetes' API concepts: versions, 410 Gone, 409 Conflict, bookmarks, Status objects.
"""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import yaml
from aiohttp import web

BASE = "/apis/poller.dev/v1/namespaces/pipelines/eventsourcemappings"
NAMESPACE = "/api/v1/namespaces/pipelines"
EVENTS = "/apis/events.k8s.io/v1/namespaces/pipelines/events"
TOKEN = "right"


@dataclass
class ApiServer:
    """The objects by name. `fail` has answers (status, body) of the next requests; `cut` breaks the next watch after its first change."""

    objects: dict[str, dict[str, Any]] = field(default_factory=dict)
    events: dict[str, dict[str, Any]] = field(default_factory=dict)
    requests: list[tuple[str, str, dict[str, str], dict[str, str]]] = field(default_factory=list)
    """Method, path, query and headers of each request."""
    bodies: list[dict[str, Any]] = field(default_factory=list)
    fail: list[tuple[int, bytes]] = field(default_factory=list)
    lines: list[bytes] = field(default_factory=list)
    """What the next watch sends before anything else."""
    watch_s: float | None = None
    """How long a watch lasts; None: as long as it was asked to."""
    oldest: int = 0
    token: str = TOKEN
    namespace_uid: str = "namespace-1"
    version: int = 0
    url: str = ""
    _log: list[tuple[int, str, dict[str, Any]]] = field(default_factory=list)
    _news: asyncio.Condition = field(default_factory=asyncio.Condition)

    async def put(
        self, name: str, *, spec: Any = None, labels: dict[str, str] | None = None, **metadata: Any
    ) -> dict[str, Any]:
        """Makes or replaces an object."""
        kind = "MODIFIED" if name in self.objects else "ADDED"
        before = self.objects.get(name, {})
        made = {
            "apiVersion": "poller.dev/v1",
            "kind": "EventSourceMapping",
            "metadata": {
                "name": name,
                "namespace": "pipelines",
                "uid": f"uid-{name}",
                "generation": 1,
                "creationTimestamp": "2026-01-01T00:00:00Z",
                "labels": labels or {},
                **before.get("metadata", {}),
                **metadata,
            },
            "spec": spec if spec is not None else before.get("spec", {}),
            "status": before.get("status", {}),
        }
        return await self._keep(kind, name, made)

    async def remove(self, name: str) -> None:
        """Removes an object."""
        gone = self.objects.pop(name)
        await self._tell("DELETED", gone)

    async def _keep(self, kind: str, name: str, made: dict[str, Any]) -> dict[str, Any]:
        metadata = made["metadata"]
        if metadata.get("deletionTimestamp") and not metadata.get("finalizers"):
            self.objects.pop(name, None)
            return await self._tell("DELETED", made)
        self.objects[name] = made
        return await self._tell(kind, made)

    async def _tell(self, kind: str, made: dict[str, Any]) -> dict[str, Any]:
        async with self._news:
            self.version += 1
            made["metadata"]["resourceVersion"] = str(self.version)
            self._log.append((self.version, kind, json.loads(json.dumps(made))))
            self._news.notify_all()
        return made

    async def answer(self, request: web.BaseRequest) -> web.StreamResponse:
        """Answers any request."""
        self.requests.append((request.method, request.path, dict(request.query), dict(request.headers)))
        if self.fail:
            code, body = self.fail.pop(0)
            return web.Response(status=code, body=body, content_type="application/json")
        if request.headers.get("Authorization") != f"Bearer {self.token}":
            return status_answer(401, "Unauthorized", "Unauthorized")
        if request.path == NAMESPACE:
            return web.json_response({"kind": "Namespace", "metadata": {"uid": self.namespace_uid}})
        if request.path == EVENTS:
            return await self._event(request)
        if request.path == BASE:
            return await (self._watch(request) if request.query.get("watch") else self._list(request))
        name, _, part = request.path.removeprefix(f"{BASE}/").partition("/")
        if not request.path.startswith(f"{BASE}/"):
            return web.Response(status=404, text="404 page not found\n")
        if name not in self.objects:
            return status_answer(
                404, "NotFound", f'eventsourcemappings.poller.dev "{name}" not found', name=name
            )
        return (
            web.json_response(self.objects[name])
            if request.method == "GET"
            else await self._patch(request, name, part)
        )

    async def _list(self, request: web.BaseRequest) -> web.Response:
        names = sorted(self._selected(request))
        first, most = int(request.query.get("continue", "0")), int(request.query["limit"])
        more = str(first + most) if first + most < len(names) else ""
        items = [self.objects[name] for name in names[first : first + most]]
        metadata = {"resourceVersion": str(self.version), "continue": more}
        return web.json_response({"kind": "EventSourceMappingList", "metadata": metadata, "items": items})

    async def _watch(self, request: web.BaseRequest) -> web.StreamResponse:
        since = int(request.query["resourceVersion"])
        if since < self.oldest:
            return status_answer(410, "Expired", f"too old resource version: {since}")
        answer = web.StreamResponse()
        await answer.prepare(request)
        lines, self.lines = self.lines, []
        for line in lines:
            await answer.write(line)
        lasts_s = self.watch_s if self.watch_s is not None else float(request.query["timeoutSeconds"])
        ends = asyncio.get_running_loop().time() + lasts_s
        try:
            async with asyncio.timeout_at(ends):
                while True:
                    news = [each for each in self._log if each[0] > since]
                    since = max(since, self.version)
                    for _, kind, made in news:
                        await answer.write(json.dumps({"type": kind, "object": made}).encode() + b"\n")
                    async with self._news:
                        await self._news.wait_for(partial(self._newer, since))
        except TimeoutError:
            return answer

    def _newer(self, version: int) -> bool:
        return self.version > version

    async def _patch(self, request: web.BaseRequest, name: str, part: str) -> web.Response:
        body = yaml.safe_load(await request.read())
        self.bodies.append(body)
        found, given = self.objects[name], body["metadata"]
        if (
            given.get("uid") != found["metadata"]["uid"]
            or given.get("resourceVersion") != found["metadata"]["resourceVersion"]
        ):
            return status_answer(
                409,
                "Conflict",
                "the object has been modified; please apply your changes to the latest version",
            )
        assert (part, request.content_type) == ("status", "application/apply-patch+yaml")
        return web.json_response(await self._keep("MODIFIED", name, {**found, "status": body["status"]}))

    async def _event(self, request: web.BaseRequest) -> web.Response:
        body = await request.json()
        if body["metadata"]["name"] in self.events:
            return status_answer(409, "AlreadyExists", "already exists", name=body["metadata"]["name"])
        self.events[body["metadata"]["name"]] = body
        return web.json_response(body, status=201)

    def _selected(self, request: web.BaseRequest) -> list[str]:
        name, _, value = request.query.get("labelSelector", "").partition("=")
        return [
            key
            for key, each in self.objects.items()
            if not name or each["metadata"]["labels"].get(name) == value
        ]


def status_answer(code: int, reason: str, message: str, *, name: str = "") -> web.Response:
    """An answer with a Status object."""
    body = {"kind": "Status", "code": code, "reason": reason, "message": message, "details": {"name": name}}
    return web.json_response(body, status=code)


@asynccontextmanager
async def running() -> AsyncIterator[ApiServer]:
    """A server that listens on a free port of loopback."""
    server = ApiServer()
    runner = web.ServerRunner(web.Server(server.answer), shutdown_timeout=0.1)
    await runner.setup()
    try:
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        host, port = runner.addresses[0][:2]
        server.url = f"http://{host}:{port}"
        yield server
    finally:
        await runner.cleanup()
