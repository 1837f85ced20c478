"""Owns Lambda's operations on versions and aliases of functions (aws-behaviour#aliases)."""

from collections.abc import Awaitable, Callable
from http import HTTPStatus

from aiohttp import web

from adapters.control.access.audit import Audit, members_of, note
from adapters.control.access.authentication import Guard
from adapters.control.aliases import alias_requests
from adapters.control.aliases.alias_documents import alias, aliases_page, versions_page
from adapters.control.aws_errors import RejectionType, RequestRejected
from adapters.control.lambda_api import NO_CONTROL, both, signed_read, with_error_answers
from adapters.control.responses import answer
from poller.domain.functions.alias_control import AliasChange, AliasControl
from poller.domain.functions.calls import FunctionCaller
from poller.domain.mapping_api import ApiError, ApiErrorType
from poller.domain.member_changes import changes_between
from poller.domain.telemetry.labels import ApiOperation

ALIASES = "/2015-03-31/functions/{name}/aliases"
ALIAS = ALIASES + "/{alias}"
VERSIONS = "/2015-03-31/functions/{name}/versions"
UNCHANGING = ("AliasArn", "Name", "RevisionId")
"""Members of an alias that no request changes."""


def routes(guard: Guard, caller: FunctionCaller | None, audit: Audit) -> list[web.RouteDef]:
    """Returns all routes, each with and without a slash at its end. Without a caller each answers that it is not served."""
    api = AliasApi(guard, caller)
    table: list[tuple[str, str, Callable[[web.Request], Awaitable[web.Response]]]] = [
        ("POST", ALIASES, audit.audited(ApiOperation.ALIAS, api.create)),
        ("GET", ALIASES, signed_read(guard, api.list)),
        ("GET", ALIAS, signed_read(guard, api.get)),
        ("PUT", ALIAS, audit.audited(ApiOperation.ALIAS, api.update)),
        ("DELETE", ALIAS, audit.audited(ApiOperation.ALIAS, api.delete)),
        ("GET", VERSIONS, signed_read(guard, api.versions)),
    ]
    return [
        route for method, path, handler in table for route in both(method, path, with_error_answers(handler))
    ]


class AliasApi:
    """The handlers of these operations."""

    def __init__(self, guard: Guard, caller: FunctionCaller | None) -> None:
        self._guard = guard
        self._functions = caller

    @property
    def _caller(self) -> FunctionCaller:
        if self._functions is None:
            raise RequestRejected(RejectionType.ABSENT, NO_CONTROL)
        return self._functions

    @property
    def _control(self) -> AliasControl:
        return self._caller.aliases

    async def create(self, request: web.Request) -> web.Response:
        """CreateAlias."""
        function = request.match_info["name"]
        note(request, mapping=function)
        control = self._control
        name, change = alias_requests.creation(await self._guard.signed_body(request))
        note(request, asked=_asked(name, change))
        made = alias(await control.create(function, name, change))
        note(request, changes=changes_between({}, {name: _settable(made)}))
        return answer(made, status=HTTPStatus.CREATED)

    async def update(self, request: web.Request) -> web.Response:
        """UpdateAlias."""
        function, name = _named(request)
        note(request, mapping=function)
        control = self._control
        change = alias_requests.update(await self._guard.signed_body(request), name)
        note(request, asked=_asked(name, change))
        await control.refresh(function)
        before = _settable(alias(control.alias(function, name)))
        made = alias(await control.update(function, name, change))
        note(request, changes=changes_between({name: before}, {name: _settable(made)}))
        return answer(made)

    async def delete(self, request: web.Request) -> web.Response:
        """DeleteAlias. It is no error if there is none, as on Lambda."""
        function, name = _named(request)
        note(request, mapping=function)
        control = self._control
        await self._guard.signed_body(request)
        note(request, asked=[alias_requests.checked_alias(name)])
        await control.refresh(function)
        gone = _known(control, function, name)
        await control.delete(function, name)
        note(request, changes=changes_between({name: gone}, {}))
        return web.Response(status=HTTPStatus.NO_CONTENT, content_type="application/json")

    async def get(self, request: web.Request) -> web.Response:
        """GetAlias."""
        function, name = _named(request)
        checked = alias_requests.checked_alias(name)
        await self._control.refresh(function)
        return answer(alias(self._control.alias(function, checked)))

    async def list(self, request: web.Request) -> web.Response:
        """ListAliases."""
        function = request.match_info["name"]
        await self._control.refresh(function)
        return answer(aliases_page(self._control, function, request.raw_path))

    async def versions(self, request: web.Request) -> web.Response:
        """ListVersionsByFunction."""
        function, caller = request.match_info["name"], self._caller
        view = caller.function(function)
        return answer(versions_page(caller.aliases, view, function, request.raw_path))


def _named(request: web.Request) -> tuple[str, str]:
    """The name of the function, and that of the alias."""
    return request.match_info["name"], request.match_info["alias"]


def _asked(name: str, change: AliasChange) -> list[str]:
    given = {
        "FunctionVersion": change.version,
        "RoutingConfig": change.weights,
        "Description": change.description,
        "RevisionId": change.revision_id,
    }
    return [f"{name}.{member}" for member in members_of(given)]


def _settable(document: dict[str, object]) -> dict[str, object]:
    return {name: value for name, value in document.items() if name not in UNCHANGING and value != ""}


def _known(control: AliasControl, function: str, name: str) -> dict[str, object]:
    """What an alias has that is going to be deleted; nothing if there is none."""
    try:
        return _settable(alias(control.alias(function, name)))
    except ApiError as error:
        if error.fault is not ApiErrorType.MISSING:
            raise
        return {}
