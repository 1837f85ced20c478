"""Owns what everybody may read: probes, metrics, and what runs."""

import asyncio
from collections.abc import Sequence
from http import HTTPStatus

from aiohttp import web

from adapters.control.openapi.document import document
from adapters.control.responses import answer, refusal
from poller.domain.status import DaemonStatus, StatusView
from poller.loop_turns import LoopTurns
from poller.ports import Exposition, SlicedExposition

PLAIN = "text/plain; charset=utf-8"


def routes(
    view: StatusView, expositions: Sequence[Exposition], *, everybody: bool = False
) -> list[web.RouteDef]:
    """The routes that need no credential; each answers GET and HEAD. `everybody`: changes need none either."""
    reads = Reads(view, expositions, everybody=everybody)
    return [
        web.get("/healthz", reads.health),
        web.get("/readyz", reads.readiness),
        web.get("/metrics", reads.metrics),
        web.get("/v1/mappings", reads.mappings),
        web.get("/v1/mappings/{id}", reads.mapping),
        web.get("/v1/openapi.json", reads.openapi),
    ]


def _probe(status: DaemonStatus, *, good: bool) -> web.Response:
    body = {
        "alive": status.alive,
        "ready": status.ready,
        "problems": status.problems,
        "notes": status.notes,
    }
    return answer(body, status=HTTPStatus.OK if good else HTTPStatus.SERVICE_UNAVAILABLE)


class Reads:
    """Handlers over one view and the pages of some observers."""

    def __init__(self, view: StatusView, expositions: Sequence[Exposition], *, everybody: bool) -> None:
        self._view = view
        self._expositions = expositions
        self._document = document(everybody=everybody)
        self._turns = LoopTurns()
        self._scraped = asyncio.Lock()

    async def health(self, _request: web.Request) -> web.Response:
        """Whether the daemon is alive; that it answers shows that its loop turns."""
        status = self._view.status()
        return _probe(status, good=status.alive)

    async def readiness(self, _request: web.Request) -> web.Response:
        """Whether every enabled mapping has its parts open."""
        status = self._view.status()
        return _probe(status, good=status.ready)

    async def metrics(self, _request: web.Request) -> web.Response:
        """All observers' pages, one after the other, with the content type of the first."""
        # Who asks meanwhile is shown the same page.
        async with self._scraped:
            pages = [await self._page(exposition) for exposition in self._expositions]
        body = b"".join(page if page.endswith(b"\n") or not page else page + b"\n" for page, _ in pages)
        return web.Response(body=body, headers={"Content-Type": pages[0][1] if pages else PLAIN})

    async def _page(self, exposition: Exposition) -> tuple[bytes, str]:
        if isinstance(exposition, SlicedExposition):
            return await self._turns.slices(exposition.slices())
        return exposition.exposition()

    async def mappings(self, _request: web.Request) -> web.Response:
        """Everything that runs."""
        return answer(self._view.status())

    async def mapping(self, request: web.Request) -> web.Response:
        """One mapping by its UUID."""
        wanted = request.match_info["id"].lower()
        for found in self._view.status().mappings:
            if found.mapping == wanted:
                return answer(found)
        return refusal(
            HTTPStatus.NOT_FOUND, "no mapping has this id; /v1/mappings lists those that there are"
        )

    async def openapi(self, _request: web.Request) -> web.Response:
        """What all routes answer."""
        return answer(self._document)
