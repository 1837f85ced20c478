"""Owns the changes on /v1, for people with a bearer token: a mapping is switched on or off."""

from http import HTTPStatus

from aiohttp import web

from adapters.control.answers import answer, refusal
from adapters.control.faults import status_of
from adapters.control.guard import Guard, Unauthorized
from poller.control import MappingControl, Refused
from poller.records import MappingId

NO_CONTROL = "this server shows what runs and changes nothing"


def routes(guard: Guard, control: MappingControl | None) -> list[web.RouteDef]:
    """The routes that need a token."""
    switch = Switch(guard, control)
    return [
        web.post("/v1/mappings/{id}/enable", switch.on),
        web.post("/v1/mappings/{id}/disable", switch.off),
    ]


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
        try:
            self._guard.check_bearer(request)
            if self._control is None:
                return refusal(HTTPStatus.NOT_IMPLEMENTED, NO_CONTROL)
            mapping = MappingId(request.match_info["id"].lower())
            view = await self._control.update(mapping, {"Enabled": enabled})
        except Unauthorized as error:
            response = refusal(HTTPStatus.UNAUTHORIZED, str(error))
            response.headers["WWW-Authenticate"] = "Bearer"
            return response
        except Refused as error:
            return refusal(status_of(error.fault), error.text)
        return answer({"mapping": view.mapping, "state": view.state.value}, status=HTTPStatus.ACCEPTED)
