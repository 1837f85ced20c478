"""Owns the routes of `/v1/functions`: what operators may do with a function, such as closing its circuit breaker."""

from http import HTTPStatus

import orjson
from aiohttp import web

from adapters.control.access.audit import Audit, note, sender_of
from adapters.control.access.authentication import Guard
from adapters.control.access.browser_requests import FORMS
from adapters.control.responses import answer
from adapters.control.v1_api import NO_CONTROL, NO_FORM, NotServed, with_error_answers
from poller.domain.access import Role
from poller.domain.mapping_api import ApiError, ApiErrorType, FunctionControl
from poller.domain.telemetry.labels import ApiOperation

REASON_CHARS_MAX = 200
NO_REASON = f'send no body, or {{"reason": TEXT}} with a text of at most {REASON_CHARS_MAX} characters'


def routes(guard: Guard, functions: FunctionControl | None, audit: Audit) -> list[web.RouteDef]:
    """Returns the routes, which are for operators."""
    handlers = FunctionHandlers(guard, functions)
    close = audit.audited(ApiOperation.CLOSE_BREAKER, handlers.close_breaker)
    return [web.post("/v1/functions/{name}/breaker/close", with_error_answers(close))]


class FunctionHandlers:
    """The handlers for functions. Without `functions` nothing can be changed."""

    def __init__(self, guard: Guard, functions: FunctionControl | None) -> None:
        self._guard = guard
        self._functions = functions

    async def close_breaker(self, request: web.Request) -> web.Response:
        """Closes the circuit breaker of a function, and answers with the function's state here."""
        name = request.match_info["name"]
        self._guard.check_bearer(request, Role.OPERATE)
        note(request, asked=[f"functions.{name}.breaker"])
        if "Content-Type" in request.headers and request.content_type.lower() in FORMS:
            raise NotServed(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, NO_FORM)
        if self._functions is None:
            raise NotServed(HTTPStatus.NOT_IMPLEMENTED, NO_CONTROL)
        reason = _reason(await request.read())
        state = await self._functions.close_breaker(name, by=sender_of(request), reason=reason)
        note(request, changes=[f"functions.{name}.breaker: closed"])
        return answer(state)


def _reason(body: bytes) -> str:
    """The reason in a request's body; raises ApiError."""
    if not body:
        return ""
    try:
        given = orjson.loads(body)
    except orjson.JSONDecodeError:
        given = None
    if not isinstance(given, dict) or given.keys() - {"reason"}:
        raise ApiError(ApiErrorType.PARAMETER, f"the body has another form; {NO_REASON}")
    reason = "" if given.get("reason") is None else given["reason"]
    if not isinstance(reason, str) or len(reason) > REASON_CHARS_MAX:
        raise ApiError(ApiErrorType.PARAMETER, f"reason: is not such a text; {NO_REASON}")
    return reason
