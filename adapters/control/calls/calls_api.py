"""Owns the route that lists asynchronous calls of a function. Payloads are for the role `operate`, and only if the settings allow it."""

import re
from dataclasses import replace
from http import HTTPStatus

from aiohttp import web

from adapters.control.access.audit import AUDIT_RECORD
from adapters.control.access.authentication import Guard
from adapters.control.openapi.call_paths import MARKER_PATTERN
from adapters.control.query_string import pairs
from adapters.control.records_api import missing_for_payloads
from adapters.control.responses import answer
from adapters.control.v1_api import NotServed, checked_read
from poller.domain.functions.queued_calls import CallPlace
from poller.domain.functions.waiting_calls import (
    LIMIT_DEFAULT,
    LIMIT_MAX,
    CallPage,
    CallsRequest,
    CallState,
    ShowsQueuedCalls,
    place_of,
)
from poller.domain.mapping_api import ApiError, ApiErrorType
from poller.domain.operations import function_target
from poller.domain.records import ShardId
from poller.domain.telemetry.daemon_events import PayloadsShown
from poller.domain.telemetry.observers import Observer
from poller.domain.untrusted.texts import line_of

PARAMETERS = ("state", "limit", "marker")
SHOWN_CHARS_MAX = 100
NO_CALLS = "this server shows no asynchronous calls"
BAD_MARKER = "marker: take it from `next` of an answer, or leave it out"


def routes(
    guard: Guard, calls: object, observer: Observer | None, *, show_payloads: bool
) -> list[web.RouteDef]:
    """Returns the route for asynchronous calls of a function. `calls` is what calls functions; it may show calls, too."""
    shown = calls if isinstance(calls, ShowsQueuedCalls) else None
    api = CallsApi(guard, shown, observer, show_payloads=show_payloads)
    return [web.get("/v1/functions/{name}/calls", checked_read(guard, api.list))]


class CallsApi:
    """The handler that lists asynchronous calls."""

    def __init__(
        self, guard: Guard, calls: ShowsQueuedCalls | None, observer: Observer | None, *, show_payloads: bool
    ) -> None:
        self._guard = guard
        self._calls = calls
        self._observer = observer
        self._show_payloads = show_payloads

    async def list(self, request: web.Request) -> web.Response:
        """Answers with a page of calls, the longest due first."""
        if self._calls is None:
            raise NotServed(HTTPStatus.NOT_IMPLEMENTED, NO_CALLS)
        given = _given(request)
        missing = missing_for_payloads(request, self._guard, show_payloads=self._show_payloads)
        asked = CallsRequest(
            state=_state(given.get("state")),
            limit=_limit(given.get("limit")),
            after=_place(given.get("marker")),
            payloads=not missing,
        )
        found = await self._calls.queued_calls(request.match_info["name"], asked)
        if found.payloads and found.calls:
            self._report(request, found)
        return answer(replace(found, missing=missing))

    def _report(self, request: web.Request, found: CallPage) -> None:
        if self._observer is None:
            return
        sender = request[AUDIT_RECORD]
        self._observer.on(
            PayloadsShown(
                who=sender.who,
                role=sender.role,
                address=request.remote or "",
                mapping=function_target(found.function),
                shard=ShardId(""),
                records=len(found.calls),
                first=found.calls[0].id,
                last=found.calls[-1].id,
            )
        )


def _given(request: web.Request) -> dict[str, str]:
    """The parameters of the query; raises ApiError for one that is unknown or there twice."""
    found: dict[str, str] = {}
    for name, value in pairs(request.raw_path):
        if name not in PARAMETERS or name in found:
            wrong = "is given twice" if name in found else f"is no parameter; write {', '.join(PARAMETERS)}"
            raise ApiError(ApiErrorType.PARAMETER, f"{_shown(name)} {wrong}")
        found[name] = value
    return found


def _state(text: str | None) -> CallState | None:
    if text is None:
        return None
    try:
        return CallState(text)
    except ValueError:
        words = ", ".join(CallState)
        raise ApiError(ApiErrorType.PARAMETER, f"state: {_shown(text)}: write one of {words}") from None


def _limit(text: str | None) -> int:
    if text is None:
        return LIMIT_DEFAULT
    if not re.fullmatch(r"[0-9]{1,6}", text, re.ASCII) or not 1 <= int(text) <= LIMIT_MAX:
        wrong = f"limit: {_shown(text)}: write a whole number from 1 to {LIMIT_MAX}"
        raise ApiError(ApiErrorType.PARAMETER, wrong)
    return int(text)


def _place(text: str | None) -> CallPlace | None:
    if text is None:
        return None
    found = re.fullmatch(MARKER_PATTERN, text, re.ASCII)
    if found is None:
        raise ApiError(ApiErrorType.PARAMETER, BAD_MARKER)
    return place_of(found[1], found[2])


def _shown(text: str) -> str:
    return repr(line_of(text, chars_max=SHOWN_CHARS_MAX))
