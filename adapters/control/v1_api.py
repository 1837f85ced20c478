"""Owns the server's own routes: probes, metrics and `/v1`.

Probes and metrics are for everybody who reaches the server. On `/v1` the role of a bearer token says what its holder may do.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from http import HTTPStatus
from typing import Protocol

from aiohttp import web

from adapters.control.access.audit import Audit, Forbidden, Unauthorized, changes_of, note
from adapters.control.access.authentication import Guard
from adapters.control.access.browser_requests import FORMS
from adapters.control.aws_errors import status_of
from adapters.control.openapi.document import document
from adapters.control.openapi.parts import Json
from adapters.control.query_string import first
from adapters.control.responses import answer, refusal
from poller.domain.access import Role
from poller.domain.mapping_api import ApiError, MappingControl
from poller.domain.records import MappingId
from poller.domain.status import DaemonStatus, StatusView, UnknownWorker
from poller.domain.telemetry.labels import ApiOperation
from poller.domain.untrusted.texts import line_of
from poller.loop_turns import LoopTurns
from poller.ports import Exposition, SlicedExposition

NAMES_CHARS_MAX = 1024
PLAIN = "text/plain; charset=utf-8"
NO_FORM = "this is no form of a web page: send no body and no Content-Type, or JSON"
NO_CONTROL = "this server shows what runs and changes nothing"


class VitalHandlers(Protocol):
    """The handlers of probes and scrapes."""

    async def health(self, request: web.Request, /) -> web.Response:
        """Answers /healthz."""
        ...

    async def readiness(self, request: web.Request, /) -> web.Response:
        """Answers /readyz."""
        ...

    async def metrics(self, request: web.Request, /) -> web.Response:
        """Answers /metrics."""
        ...


def read_routes(guard: Guard, view: StatusView, vital: VitalHandlers) -> list[web.RouteDef]:
    """Returns the routes that change nothing; each answers GET and HEAD."""
    reads = ReadHandlers(view, document(everybody=guard.everybody, open_reads=guard.open_reads))
    return [
        web.get("/healthz", vital.health),
        web.get("/readyz", vital.readiness),
        web.get("/metrics", vital.metrics),
        web.get("/v1/mappings", checked_read(guard, reads.mappings)),
        web.get("/v1/mappings/{id}", checked_read(guard, reads.mapping)),
        web.get("/v1/openapi.json", checked_read(guard, reads.openapi)),
    ]


def change_routes(guard: Guard, control: MappingControl | None, audit: Audit) -> list[web.RouteDef]:
    """Returns the routes that change something, for admins."""
    switch = ChangeHandlers(guard, control)
    on = audit.audited(ApiOperation.ENABLE, switch.on)
    off = audit.audited(ApiOperation.DISABLE, switch.off)
    return [
        web.post("/v1/mappings/{id}/enable", with_error_answers(on)),
        web.post("/v1/mappings/{id}/disable", with_error_answers(off)),
    ]


def probe_answer(body: Json, *, good: bool) -> web.Response:
    """Makes the answer to a probe."""
    return answer(body, status=HTTPStatus.OK if good else HTTPStatus.SERVICE_UNAVAILABLE)


def probed(status: DaemonStatus) -> Json:
    """Returns what probes answer."""
    return {
        "alive": status.alive,
        "ready": status.ready,
        "problems": status.problems,
        "notes": status.notes,
    }


class Probes:
    """The handlers of probes and scrapes of one process."""

    def __init__(self, view: StatusView, expositions: Sequence[Exposition]) -> None:
        self.view = view
        self._expositions = expositions
        self._turns = LoopTurns()
        self._scraped = asyncio.Lock()

    async def health(self, _request: web.Request) -> web.Response:
        """Answers whether the daemon is alive. That it answers at all shows that its event loop runs."""
        status = self.view.status()
        return probe_answer(probed(status), good=status.alive)

    async def readiness(self, _request: web.Request) -> web.Response:
        """Answers whether all parts of every enabled mapping are open."""
        status = self.view.status()
        return probe_answer(probed(status), good=status.ready)

    async def metrics(self, _request: web.Request) -> web.Response:
        """Answers with the pages of all observers."""
        body, content_type = await self.page()
        return web.Response(body=body, headers={"Content-Type": content_type})

    async def page(self) -> tuple[bytes, str]:
        """Returns the pages of all observers, one after the other, and the content type of the first."""
        # A scrape that comes meanwhile waits, and then gets the finished page.
        async with self._scraped:
            pages = [await self._page(exposition) for exposition in self._expositions]
        body = b"".join(page if page.endswith(b"\n") or not page else page + b"\n" for page, _ in pages)
        return body, pages[0][1] if pages else PLAIN

    async def _page(self, exposition: Exposition) -> tuple[bytes, str]:
        if isinstance(exposition, SlicedExposition):
            return await self._turns.slices(exposition.slices())
        return exposition.exposition()


class ReadHandlers:
    """The handlers that show the state of the daemon."""

    def __init__(self, view: StatusView, description: Json) -> None:
        self._view = view
        self._document = description

    async def mappings(self, request: web.Request) -> web.Response:
        """Answers with the state of everything that runs on all workers, or on the one of the query parameter `worker`."""
        return answer(await self._fleet(request))

    async def mapping(self, request: web.Request) -> web.Response:
        """Answers with the state of one mapping, which is named by its UUID."""
        wanted = request.match_info["id"].lower()
        for found in (await self._fleet(request, MappingId(wanted))).mappings:
            if found.mapping == wanted:
                return answer(found)
        raise NotServed(
            HTTPStatus.NOT_FOUND, "no mapping has this id; /v1/mappings lists those that there are"
        )

    async def _fleet(self, request: web.Request, mapping: MappingId | None = None) -> DaemonStatus:
        only = first(request.raw_path, "worker") or ""
        try:
            return await self._view.fleet(only=only, mapping=mapping)
        except UnknownWorker as error:
            named, there = (line_of(text, chars_max=NAMES_CHARS_MAX) for text in (only, str(error)))
            raise NotServed(HTTPStatus.NOT_FOUND, f"no worker is called {named!r}; {there}") from None

    async def openapi(self, _request: web.Request) -> web.Response:
        """Answers with the OpenAPI document."""
        return answer(self._document)


class NotServed(Exception):
    """A change that this server does not make for anybody, or not for a request of this form."""

    def __init__(self, status: HTTPStatus, text: str) -> None:
        super().__init__(text)
        self.status = status


type Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


def with_error_answers(handler: Handler) -> Handler:
    """Answers errors in the form of /v1."""

    async def answered(request: web.Request) -> web.StreamResponse:
        try:
            return await handler(request)
        except NotServed as error:
            return refusal(error.status, str(error))
        except Unauthorized as error:
            response = refusal(HTTPStatus.UNAUTHORIZED, str(error))
            response.headers["WWW-Authenticate"] = "Bearer"
            return response
        except Forbidden as error:
            return refusal(HTTPStatus.FORBIDDEN, str(error))
        except ApiError as error:
            return refusal(status_of(error.fault), error.text)

    return answered


def checked_read(guard: Guard, handler: Handler) -> Handler:
    """Refuses reads of those who may not read."""

    async def reading(request: web.Request) -> web.StreamResponse:
        guard.check_read(request)
        return await handler(request)

    return with_error_answers(reading)


class ChangeHandlers:
    """The handlers that enable and disable a mapping."""

    def __init__(self, guard: Guard, control: MappingControl | None) -> None:
        self._guard = guard
        self._control = control

    async def on(self, request: web.Request) -> web.Response:
        """Enables a mapping."""
        return await self._switch(request, enabled=True)

    async def off(self, request: web.Request) -> web.Response:
        """Disables a mapping."""
        return await self._switch(request, enabled=False)

    async def _switch(self, request: web.Request, *, enabled: bool) -> web.Response:
        mapping = MappingId(request.match_info["id"].lower())
        note(request, mapping=mapping)
        self._guard.check_bearer(request, Role.ADMIN)
        if "Content-Type" in request.headers and request.content_type.lower() in FORMS:
            raise NotServed(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, NO_FORM)
        if self._control is None:
            raise NotServed(HTTPStatus.NOT_IMPLEMENTED, NO_CONTROL)
        view = await self._control.update(mapping, {"Enabled": enabled})
        note(request, changes=changes_of(view))
        return answer({"mapping": view.mapping, "state": view.state.value}, status=HTTPStatus.ACCEPTED)
