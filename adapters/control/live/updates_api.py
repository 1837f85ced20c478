"""Owns the routes of `/v1` that the page reads: the stream of updates, and the history of the last hour."""

from collections.abc import Callable
from http import HTTPStatus

from aiohttp import hdrs, web

from adapters.control.access.audit import Unauthorized
from adapters.control.access.authentication import Guard
from adapters.control.live.events import event
from adapters.control.live.readers import READERS_MAX, Reader, Readers
from adapters.control.query_string import first
from adapters.control.responses import StreamedAnswer, answer, refusal
from adapters.control.v1_api import NotServed, checked_read
from poller.domain.access import Role
from poller.domain.records import MappingId
from poller.domain.telemetry.history import HistorySource
from poller.loop_turns import LoopTurns

TYPE = "text/event-stream"
RETRY_AFTER_S = 15
TOO_MANY = f"{READERS_MAX} clients read updates already; close some, or try again later"
NO_HISTORY = "this server keeps no history"
UNKNOWN = "no mapping of this id has a history on this worker; /v1/mappings lists those that there are"


def routes(guard: Guard, readers: Readers, history: HistorySource | None, *, page: str) -> list[web.RouteDef]:
    """Returns the routes. `page` is the version of the page. Without one there are no updates."""
    updates, kept = UpdatesApi(guard, readers, page), HistoryApi(history)
    stream: list[web.RouteDef] = [web.get("/v1/updates", checked_read(guard, updates.stream))]
    return [*(stream if page else []), web.get("/v1/history", checked_read(guard, kept.history))]


class UpdatesApi:
    """The handler of the stream of updates."""

    def __init__(self, guard: Guard, readers: Readers, page: str) -> None:
        self._guard = guard
        self._page = page
        self._readers = readers

    async def stream(self, request: web.Request) -> web.StreamResponse:
        """Answers with what runs, and with what changes of it for as long as the client reads."""
        if request.method == hdrs.METH_HEAD:
            return web.Response(content_type=TYPE)
        caller = self._caller(request)
        reader = self._readers.enter(lambda: _abort(request), caller)
        if reader is None:
            refused = refusal(HTTPStatus.SERVICE_UNAVAILABLE, TOO_MANY)
            refused.headers["Retry-After"] = str(RETRY_AFTER_S)
            return refused
        return StreamedAnswer(
            lambda response: reader.send(response.write, self._checking(request, reader, caller)),
            lambda: self._readers.leave(reader),
            content_type=TYPE,
        )

    def _checking(self, request: web.Request, reader: Reader, caller: bytes) -> Callable[[], bool]:
        """Makes the check that the sender may still read. If its role has changed, the reader gets that."""
        known = caller

        def check() -> bool:
            nonlocal known
            try:
                self._guard.check_read(request)
            except Unauthorized:
                return False
            if (now := self._caller(request)) != known:
                known = now
                reader.offer(now)
            return True

        return check

    def _caller(self, request: web.Request) -> bytes:
        """The event that says who reads, whether operations may be asked for with the same credential, and which page there is."""
        name, role = self._guard.holder(request)
        writes = role is not None and role.includes(Role.OPERATE) and not self._guard.everybody
        return event("caller", {"name": name, "role": role, "writes": writes, "page": self._page})


def _abort(request: web.Request) -> None:
    if request.transport is not None:
        request.transport.abort()


class HistoryApi:
    """The handler of the history."""

    def __init__(self, history: HistorySource | None) -> None:
        self._history = history
        self._turns = LoopTurns()

    async def history(self, request: web.Request) -> web.Response:
        """Answers with the last hour of all mappings of this worker, or of one."""
        if self._history is None:
            raise NotServed(HTTPStatus.NOT_IMPLEMENTED, NO_HISTORY)
        name = first(request.raw_path, "mapping")
        mapping = None if name is None else MappingId(name.lower())
        found = await self._turns.slices(self._history.slices(mapping))
        if mapping is not None and not found.mappings:
            raise NotServed(HTTPStatus.NOT_FOUND, UNKNOWN)
        return answer(found)
