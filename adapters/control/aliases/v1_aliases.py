"""Owns the routes of `/v1` about aliases: they are shown, shifted to another version, and rolled back.

The role `view` may look, and `operate` may shift and roll back.
"""

from collections.abc import Iterator
from http import HTTPStatus

from aiohttp import web

from adapters.control.access.audit import Audit, note, sender
from adapters.control.access.authentication import Guard
from adapters.control.access.browser_requests import FORMS
from adapters.control.aliases.shift_requests import rollback_reason, shift_request
from adapters.control.openapi.alias_paths import V1_ALIAS, V1_ALIASES, V1_ALL
from adapters.control.responses import answer
from adapters.control.v1_api import NO_CONTROL, NO_FORM, NotServed, checked_read, with_error_answers
from poller.domain.access import Role
from poller.domain.functions.alias_control import AliasControl, AliasView
from poller.domain.functions.alias_pages import AliasPage, FunctionAliases
from poller.domain.functions.calls import FunctionCaller
from poller.domain.functions.shifts import Shift
from poller.domain.telemetry.labels import ApiOperation

JSON = "application/json"
NOT_JSON_TYPE = f"send the body as JSON, with the header Content-Type: {JSON}"


def routes(guard: Guard, caller: FunctionCaller | None, audit: Audit) -> list[web.RouteDef]:
    """Returns the routes. Without a caller each answers that this server changes nothing."""
    api = AliasHandlers(guard, caller)
    shift = audit.audited(ApiOperation.SHIFT, api.shift)
    roll_back = audit.audited(ApiOperation.ROLL_BACK, api.roll_back)
    return [
        web.get(V1_ALL, checked_read(guard, api.all)),
        web.get(V1_ALIASES, checked_read(guard, api.of_function)),
        web.get(V1_ALIAS, checked_read(guard, api.one)),
        web.post(V1_ALIAS + "/shifts", with_error_answers(shift)),
        web.post(V1_ALIAS + "/rollback", with_error_answers(roll_back)),
    ]


class AliasHandlers:
    """The handlers of these routes."""

    def __init__(self, guard: Guard, caller: FunctionCaller | None) -> None:
        self._guard = guard
        self._functions = caller

    @property
    def _caller(self) -> FunctionCaller:
        if self._functions is None:
            raise NotServed(HTTPStatus.NOT_IMPLEMENTED, NO_CONTROL)
        return self._functions

    async def all(self, _request: web.Request) -> web.Response:
        """All functions that have versions or aliases."""
        return answer(AliasPage(functions=tuple(with_aliases(self._caller))))

    async def of_function(self, request: web.Request) -> web.Response:
        """The versions and aliases of one function."""
        control, function = self._caller.aliases, request.match_info["name"]
        await control.refresh(function)
        return answer(_of(control, function))

    async def one(self, request: web.Request) -> web.Response:
        """One alias."""
        control, (function, name) = self._caller.aliases, _named(request)
        await control.refresh(function)
        return answer(control.alias(function, name))

    async def shift(self, request: web.Request) -> web.Response:
        """Begins to shift an alias to another version."""
        function, name = self._begin(request)
        if request.content_type.lower() != JSON:
            raise NotServed(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, NOT_JSON_TYPE)
        control = self._caller.aliases
        asked = shift_request(await request.read(), by=sender(request))
        view = await control.shift(function, name, asked)
        note(request, changes=[_shifted(view)])
        return answer(view, status=HTTPStatus.ACCEPTED)

    async def roll_back(self, request: web.Request) -> web.Response:
        """Sends all calls of an alias that is being shifted to the old version."""
        function, name = self._begin(request)
        if "Content-Type" in request.headers and request.content_type.lower() in FORMS:
            raise NotServed(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, NO_FORM)
        control = self._caller.aliases
        reason = rollback_reason(await request.read())
        view = await control.roll_back(function, name, by=sender(request), reason=reason)
        note(request, changes=[f"{_place(function, name)}: rolled back to {view.version}"])
        return answer(view)

    def _begin(self, request: web.Request) -> tuple[str, str]:
        """The names of the function and of the alias. Raises if the sender may not shift."""
        function, name = _named(request)
        self._guard.check_bearer(request, Role.OPERATE)
        note(request, asked=[_place(function, name)])
        return function, name


def with_aliases(caller: FunctionCaller) -> Iterator[FunctionAliases]:
    """Makes what is shown of each function that has a version beside $LATEST, or an alias; raises ApiError."""
    control = caller.aliases
    for view in caller.functions():
        found = _of(control, view.name)
        if len(found.versions) > 1 or found.aliases:
            yield found


def _of(control: AliasControl, function: str) -> FunctionAliases:
    aliases, versions = control.aliases(function), control.versions(function)
    name = aliases[0].function if aliases else function
    return FunctionAliases(function=name, versions=tuple(versions), aliases=tuple(aliases))


def _named(request: web.Request) -> tuple[str, str]:
    return request.match_info["name"], request.match_info["alias"]


def _place(function: str, name: str) -> str:
    return f"functions.{function}.aliases.{name}"


def _shifted(view: AliasView) -> str:
    shift = view.shift
    said = "no shift" if shift is None else _said(shift)
    return f"{_place(view.function, view.name)}: {said}"


def _said(shift: Shift) -> str:
    return f"shift {shift.shift} from {shift.old} to {shift.new}, {shift.strategy.name}"
