"""Owns the routes of operations on what runs: they are asked for, listed, shown and cancelled here.

The role `operate` may ask and cancel. The list comes in pages, newest first.
"""

import json
import math
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from http import HTTPStatus
from typing import Any

import orjson
from aiohttp import web

from adapters.control.access.audit import Audit, members_of, note, sender
from adapters.control.access.authentication import Guard
from adapters.control.openapi.operation_paths import AFTER_PATTERN, LIMIT_MAX
from adapters.control.query_string import first
from adapters.control.responses import answer
from adapters.control.v1_api import NO_CONTROL, NotServed, checked_read, with_error_answers
from poller.domain.access import Role
from poller.domain.mapping_api import ApiError, ApiErrorType
from poller.domain.member_changes import changes_between
from poller.domain.operations import (
    Operation,
    OperationControl,
    OperationId,
    OperationPage,
    OperationState,
    OperationView,
    function_of,
    function_target,
)
from poller.domain.records import MappingId
from poller.domain.telemetry.labels import ApiOperation
from poller.domain.untrusted.texts import line_of

PAGE = 100
PAGE_MAX = LIMIT_MAX
"""Operations of one page: unless the request says otherwise, and at most."""
VALUES_MAX = 20_000
"""Values of a body, counted by its commas and opening brackets. The longest list of records has less."""
SHOWN_CHARS_MAX = 100
JSON = "application/json"
NOT_JSON_TYPE = f"send the body as JSON, with the header Content-Type: {JSON}"
NOT_AN_OBJECT = 'the body is no JSON object; send one, such as {"action": "retry"}'
TOO_MANY_VALUES = f"the body has more than {VALUES_MAX} values; name fewer records at once"
BAD_AFTER = "after: take it from `next` of an answer, or leave it out"


def routes(guard: Guard, control: OperationControl | None, audit: Audit) -> list[web.RouteDef]:
    """Returns the routes of operations. Without `control` each answers that this server changes nothing."""
    api = OperationsApi(guard, control)
    submit = audit.audited(ApiOperation.OPERATE, api.submit)
    on_calls = audit.audited(ApiOperation.OPERATE, api.submit_on_calls)
    cancel = audit.audited(ApiOperation.CANCEL, api.cancel)
    return [
        web.post("/v1/mappings/{id}/operations", with_error_answers(submit)),
        web.post("/v1/functions/{name}/operations", with_error_answers(on_calls)),
        web.get("/v1/operations", checked_read(guard, api.list)),
        web.get("/v1/operations/{id}", checked_read(guard, api.get)),
        web.delete("/v1/operations/{id}", with_error_answers(cancel)),
    ]


class OperationsApi:
    """The handlers of operations."""

    def __init__(self, guard: Guard, control: OperationControl | None) -> None:
        self._guard = guard
        self._operations = control

    @property
    def _control(self) -> OperationControl:
        if self._operations is None:
            raise NotServed(HTTPStatus.NOT_IMPLEMENTED, NO_CONTROL)
        return self._operations

    async def submit(self, request: web.Request) -> web.Response:
        """Stores an operation on a mapping."""
        return await self._submit(request, MappingId(request.match_info["id"].lower()))

    async def submit_on_calls(self, request: web.Request) -> web.Response:
        """Stores an operation on the asynchronous calls of a function."""
        return await self._submit(request, function_target(request.match_info["name"]))

    async def _submit(self, request: web.Request, mapping: MappingId) -> web.Response:
        note(request, mapping=mapping)
        self._guard.check_bearer(request, Role.OPERATE)
        if request.content_type.lower() != JSON:
            raise NotServed(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, NOT_JSON_TYPE)
        control = self._control
        given = _object(await request.read())
        note(request, asked=members_of(given))
        operation = await control.submit(mapping, given, by=sender(request))
        note(request, operation=operation.operation, changes=_asked_for(operation))
        return answer(OperationView.of(operation), status=HTTPStatus.ACCEPTED)

    async def list(self, request: web.Request) -> web.Response:
        """A page of operations, newest first, of one mapping or in one state if the query says so."""
        target = request.raw_path
        mapping, state = first(target, "mapping"), _state(first(target, "state"))
        limit, after = _limit(first(target, "limit")), _after(first(target, "after"))
        found = await self._control.operations(mapping=_target(mapping) if mapping else None, state=state)
        return answer(_page(found, limit=limit, after=after))

    async def get(self, request: web.Request) -> web.Response:
        """One operation."""
        return answer(OperationView.of(await self._control.operation(_id(request))))

    async def cancel(self, request: web.Request) -> web.Response:
        """Ends an operation that is not over."""
        note(request, operation=_id(request))
        self._guard.check_bearer(request, Role.OPERATE)
        operation = await self._control.cancel(_id(request), by=sender(request))
        note(request, mapping=operation.mapping, changes=(f"state: {operation.state}",))
        return answer(OperationView.of(operation))


def _target(text: str) -> MappingId:
    """A mapping, whose id may be in capitals, or `calls/` with the name of a function."""
    return MappingId(text if function_of(MappingId(text)) is not None else text.lower())


def _id(request: web.Request) -> OperationId:
    return OperationId(request.match_info["id"])


def _object(body: bytes) -> dict[str, Any]:
    if sum(map(body.count, (b",", b"[", b"{"))) > VALUES_MAX:
        raise ApiError(ApiErrorType.PARAMETER, TOO_MANY_VALUES)
    try:
        found = orjson.loads(body)
    except orjson.JSONDecodeError:
        found = None
    if not isinstance(found, dict):
        raise ApiError(ApiErrorType.PARAMETER, NOT_AN_OBJECT)
    # What is nested deeper than it can read is refused above.
    json.loads(body, object_pairs_hook=_check_once, parse_int=len, parse_float=len)
    return found


def _check_once(pairs: Sequence[tuple[str, Any]]) -> None:
    """Refuses an object that has a member twice. Readers of JSON differ in which of the two they take, and a skip cannot be undone."""
    counts = Counter(name for name, _ in pairs)
    if len(counts) < len(pairs):
        twice = next(name for name, count in counts.items() if count > 1)
        raise ApiError(ApiErrorType.PARAMETER, f"{_shown(twice)} is there twice; write it once")


def _asked_for(operation: Operation) -> tuple[str, ...]:
    """Returns what was asked for, in the form of changes."""
    view = OperationView.of(operation)
    target = {name: getattr(view.target, name) for name in ("shard", "lane", "group")}
    given = {"action": view.action, "reason": view.reason, **target, **view.members}
    return changes_between({}, {name: value for name, value in given.items() if value not in (None, "")})


def _state(text: str | None) -> OperationState | None:
    if text is None:
        return None
    try:
        return OperationState(text)
    except ValueError:
        words = ", ".join(OperationState)
        raise ApiError(ApiErrorType.PARAMETER, f"state: {_shown(text)}: write one of {words}") from None


def _limit(text: str | None) -> int:
    if text is None:
        return PAGE
    if not re.fullmatch(r"[0-9]{1,6}", text, re.ASCII) or not 1 <= int(text) <= PAGE_MAX:
        wrong = f"limit: {_shown(text)}: write a whole number from 1 to {PAGE_MAX}"
        raise ApiError(ApiErrorType.PARAMETER, wrong)
    return int(text)


type _Key = tuple[float, str]


def _after(text: str | None) -> _Key:
    """Returns the place in the list behind which the page begins."""
    if text is None:
        return -math.inf, ""
    found = re.fullmatch(AFTER_PATTERN, text, re.ASCII)
    if found is None:
        raise ApiError(ApiErrorType.PARAMETER, BAD_AFTER)
    return -float(found[1]), found[2]


def _page(operations: Iterable[Operation], *, limit: int, after: _Key) -> OperationPage:
    rest = sorted((each for each in operations if _key(each) > after), key=_key)
    shown = rest[:limit]
    return OperationPage(
        operations=tuple(map(OperationView.of, shown)), next=_marker(shown) if len(rest) > limit else None
    )


def _key(operation: Operation) -> _Key:
    return -operation.created, operation.operation


def _marker(shown: Sequence[Operation]) -> str:
    last = shown[-1]
    return f"{last.created!r},{last.operation}"


def _shown(text: str) -> str:
    return repr(line_of(text, chars_max=SHOWN_CHARS_MAX))
