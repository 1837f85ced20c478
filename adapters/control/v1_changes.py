"""Owns the changes on /v1, for people with a bearer token: a mapping is switched on or off."""

from collections.abc import Awaitable, Callable
from http import HTTPStatus

from aiohttp import web

from adapters.control.access.audit import Audit, Unauthorized, changes_of, note
from adapters.control.access.authentication import Guard
from adapters.control.access.browser_requests import FORMS
from adapters.control.aws_errors import status_of
from adapters.control.responses import answer, refusal
from poller.domain.mapping_api import ApiError, MappingControl
from poller.domain.records import MappingId
from poller.domain.telemetry import ApiOperation

NO_FORM = "this is no form of a web page: send no body and no Content-Type, or JSON"
NO_CONTROL = "this server shows what runs and changes nothing"


def routes(guard: Guard, control: MappingControl | None, audit: Audit) -> list[web.RouteDef]:
    """The routes that need a token."""
    switch = Switch(guard, control)
    on = audit.told(ApiOperation.ENABLE, switch.on)
    off = audit.told(ApiOperation.DISABLE, switch.off)
    return [
        web.post("/v1/mappings/{id}/enable", _answered(on)),
        web.post("/v1/mappings/{id}/disable", _answered(off)),
    ]


class NotServed(Exception):
    """A change that this server does not take from anybody, or not in this form."""

    def __init__(self, status: HTTPStatus, text: str) -> None:
        super().__init__(text)
        self.status = status


type _Handler = Callable[[web.Request], Awaitable[web.Response]]


def _answered(handler: _Handler) -> _Handler:
    """Turns what is raised into answers."""

    async def answered(request: web.Request) -> web.Response:
        try:
            return await handler(request)
        except NotServed as error:
            return refusal(error.status, str(error))
        except Unauthorized as error:
            response = refusal(HTTPStatus.UNAUTHORIZED, str(error))
            response.headers["WWW-Authenticate"] = "Bearer"
            return response
        except ApiError as error:
            return refusal(status_of(error.fault), error.text)

    return answered


class Switch:
    """Handlers that enable and disable."""

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
        self._guard.check_bearer(request)
        if "Content-Type" in request.headers and request.content_type.lower() in FORMS:
            raise NotServed(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, NO_FORM)
        if self._control is None:
            raise NotServed(HTTPStatus.NOT_IMPLEMENTED, NO_CONTROL)
        view = await self._control.update(mapping, {"Enabled": enabled})
        note(request, changes=changes_of(view))
        return answer({"mapping": view.mapping, "state": view.state.value}, status=HTTPStatus.ACCEPTED)
