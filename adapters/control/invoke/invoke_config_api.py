"""Owns Lambda's operations on how asynchronous calls of functions are tried (aws-behaviour#async-config)."""

from collections.abc import Awaitable, Callable, Sequence
from http import HTTPStatus
from typing import Any

from aiohttp import web

from adapters.control.access.audit import Audit, members_of, note
from adapters.control.access.authentication import Guard
from adapters.control.aws_errors import RejectionType, RequestRejected
from adapters.control.invoke.function_documents import after, page_size
from adapters.control.lambda_api import NO_CONTROL, both, signed_read, with_error_answers
from adapters.control.mappings import request_members
from adapters.control.mappings.request_members import Structure
from adapters.control.query_string import first
from adapters.control.responses import answer
from poller.config.members import JsonType
from poller.domain.functions.calls import FunctionCaller
from poller.domain.functions.invoke_configs import InvokeConfigControl, InvokeConfigView
from poller.domain.member_changes import changes_between
from poller.domain.telemetry.labels import ApiOperation

CONFIG = "/2019-09-25/functions/{name}/event-invoke-config"
CONFIGS = CONFIG + "/list"
TARGET: Structure = {"Destination": JsonType.TEXT}
MEMBERS: Structure = {
    "MaximumRetryAttempts": JsonType.WHOLE,
    "MaximumEventAgeInSeconds": JsonType.WHOLE,
    "DestinationConfig": {"OnSuccess": TARGET, "OnFailure": TARGET},
}


def routes(guard: Guard, caller: FunctionCaller | None, audit: Audit) -> list[web.RouteDef]:
    """Returns all routes, each with and without a slash at its end. Without a caller each answers that it is not served."""
    api = InvokeConfigApi(guard, caller)
    table: list[tuple[str, str, Callable[[web.Request], Awaitable[web.Response]]]] = [
        ("PUT", CONFIG, audit.audited(ApiOperation.CONFIGURE, api.put)),
        ("POST", CONFIG, audit.audited(ApiOperation.CONFIGURE, api.update)),
        ("DELETE", CONFIG, audit.audited(ApiOperation.CONFIGURE, api.delete)),
        ("GET", CONFIG, signed_read(guard, api.get)),
        ("GET", CONFIGS, signed_read(guard, api.list)),
    ]
    return [
        route for method, path, handler in table for route in both(method, path, with_error_answers(handler))
    ]


class InvokeConfigApi:
    """The handlers of these operations."""

    def __init__(self, guard: Guard, caller: FunctionCaller | None) -> None:
        self._guard = guard
        self._functions = caller

    @property
    def _configs(self) -> InvokeConfigControl:
        if self._functions is None:
            raise RequestRejected(RejectionType.ABSENT, NO_CONTROL)
        return self._functions.configs

    async def put(self, request: web.Request) -> web.Response:
        """PutFunctionEventInvokeConfig."""
        return await self._stored(request, merge=False)

    async def update(self, request: web.Request) -> web.Response:
        """UpdateFunctionEventInvokeConfig."""
        return await self._stored(request, merge=True)

    async def delete(self, request: web.Request) -> web.Response:
        """DeleteFunctionEventInvokeConfig."""
        name, qualifier = _named(request)
        note(request, mapping=name)
        configs = self._configs
        await self._guard.signed_body(request)
        before = configs.get(name, qualifier)
        await configs.delete(name, qualifier)
        note(request, changes=changes_between(before.parameters, {}))
        return web.Response(status=HTTPStatus.NO_CONTENT, content_type="application/json")

    async def get(self, request: web.Request) -> web.Response:
        """GetFunctionEventInvokeConfig."""
        return answer(_document(self._configs.get(*_named(request))))

    async def list(self, request: web.Request) -> web.Response:
        """ListFunctionEventInvokeConfigs."""
        name, _ = _named(request)
        return answer(_page(self._configs.list(name), request.raw_path))

    async def _stored(self, request: web.Request, *, merge: bool) -> web.Response:
        name, qualifier = _named(request)
        note(request, mapping=name)
        configs = self._configs
        given = request_members.read(await self._guard.signed_body(request), MEMBERS)
        note(request, asked=members_of(given))
        view = await configs.put(name, qualifier, given, merge=merge)
        note(request, changes=changes_between({}, view.parameters))
        return answer(_document(view))


def _named(request: web.Request) -> tuple[str, str]:
    """The name of the function, and the qualifier that stands beside it."""
    return request.match_info["name"], first(request.raw_path, "Qualifier") or ""


def _document(view: InvokeConfigView) -> dict[str, Any]:
    return {"FunctionArn": view.arn, "LastModified": view.modified, **view.parameters}


def _page(views: Sequence[InvokeConfigView], target: str) -> dict[str, Any]:
    """The page that a request's target asks for; raises ApiError."""
    count, begin = page_size(target), after(first(target, "Marker") or "")
    left = [view for view in views if view.arn.encode() > begin]
    shown = left[:count]
    more = {"NextMarker": shown[-1].arn.encode().hex()} if len(left) > count else {}
    return {"FunctionEventInvokeConfigs": [_document(view) for view in shown], **more}
