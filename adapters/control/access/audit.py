"""Owns the audit of the API: each request for a change makes one telemetry event with its sender and its outcome.

While a request runs, the handler records what it learns about it (`note`), and the guard records who sent it (`set_sender`).
The event is made when the handler ends, also when it refused the request, failed or was cancelled. A request whose body did
not arrive in full is neither a change nor a refusal: it is reported as broken off.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from aiohttp import web

from adapters.control.aws_errors import RequestRejected
from adapters.control.responses import refuse_long
from poller.domain.access import Role
from poller.domain.mapping_api import ApiError, MappingView
from poller.domain.member_changes import VALUE_CHARS_MAX, changes_between, several
from poller.domain.telemetry.daemon_events import ApiChange
from poller.domain.telemetry.labels import ApiOperation
from poller.domain.telemetry.observers import Observer
from poller.domain.untrusted.texts import cut, line_of

UNAUTHENTICATED = "unauthenticated"
NAME_CHARS_MAX = 128
TEXT_CHARS_MAX = 300
LINE_CHARS_MAX = 400
CUT_OFF = "no answer was given; look at what is there now"


class Unauthorized(Exception):
    """The request has no valid bearer token, and needs one."""


class Forbidden(Exception):
    """The role of the request's bearer token does not suffice. The text names the role that is needed."""


@dataclass(slots=True)
class AuditRecord:
    """What is known so far about one request."""

    who: str = UNAUTHENTICATED
    role: Role | None = None
    mapping: str = ""
    operation: str = ""
    asked: tuple[str, ...] = ()
    changes: tuple[str, ...] = ()


AUDIT_RECORD = web.RequestKey("record", AuditRecord)

type _Handler = Callable[[web.Request], Awaitable[web.Response]]


def set_sender(request: web.Request, who: str, role: Role) -> None:
    """Records the proven sender of a request: an access key id or the name of a token, as the daemon's file spells it; and its role.

    An access key id is no secret, although it looks like one.
    """
    record = request.get(AUDIT_RECORD)
    if record is not None:
        record.who = cut("".join(char if char.isprintable() else "?" for char in who), NAME_CHARS_MAX)
        record.role = role


def sender(request: web.Request) -> str:
    """Returns who sent a request, as the guard has recorded it."""
    return request[AUDIT_RECORD].who


def note(
    request: web.Request,
    *,
    mapping: str | None = None,
    operation: str | None = None,
    asked: Iterable[str] | None = None,
    changes: Iterable[str] | None = None,
) -> None:
    """Records which mapping or operation is meant, which members or tags the request names, and what was changed in the end."""
    record = request.get(AUDIT_RECORD)
    if record is None:
        return
    if mapping is not None:
        record.mapping = line_of(mapping, chars_max=NAME_CHARS_MAX)
    if operation is not None:
        record.operation = line_of(operation, chars_max=NAME_CHARS_MAX)
    if asked is not None:
        record.asked = several([line_of(each, chars_max=VALUE_CHARS_MAX) for each in asked])
    if changes is not None:
        record.changes = several([line_of(each, chars_max=LINE_CHARS_MAX) for each in changes])


def sender_of(request: web.Request) -> str:
    """Returns who sent the request, as far as it is proven."""
    record = request.get(AUDIT_RECORD)
    return UNAUTHENTICATED if record is None else record.who


def members_of(given: Mapping[str, Any]) -> list[str]:
    """Returns the names of the members that have a value."""
    return [name for name, value in given.items() if value is not None]


def changes_of(view: MappingView) -> tuple[str, ...]:
    """Returns what an update changed."""
    return changes_between(view.before, view.parameters) if view.before is not None else ()


class Audit:
    """Reports requested changes to an observer, if there is one."""

    def __init__(self, observer: Observer | None) -> None:
        self._observer = observer

    def audited(self, operation: ApiOperation, handler: _Handler) -> _Handler:
        """Wraps a handler, so that each of its requests is reported as this operation."""

        async def short(request: web.Request) -> web.Response:
            refuse_long(request)
            return await handler(request)

        return self._reporting(operation, short, accepted=True)

    def refusals(self, operation: ApiOperation, handler: _Handler) -> _Handler:
        """Wraps a handler of requests that may be many and long, so that only those of them that are refused are reported."""
        return self._reporting(operation, handler, accepted=False)

    def _reporting(self, operation: ApiOperation, handler: _Handler, *, accepted: bool) -> _Handler:
        async def reporting(request: web.Request) -> web.Response:
            record = request[AUDIT_RECORD] = AuditRecord()
            try:
                response = await handler(request)
            except BaseException as error:
                broken_off = _is_broken_off(request, error)
                why = "" if broken_off else _why(error)
                self._report(operation, request, record, refused=why, broken_off=broken_off)
                raise
            if accepted:
                self._report(operation, request, record)
            return response

        return reporting

    def _report(
        self,
        operation: ApiOperation,
        request: web.Request,
        record: AuditRecord,
        *,
        refused: str = "",
        broken_off: bool = False,
    ) -> None:
        if self._observer is not None:
            self._observer.on(
                ApiChange(
                    operation=operation,
                    who=record.who,
                    role=record.role,
                    address=request.remote or "",
                    mapping=record.mapping,
                    operation_id=record.operation,
                    changes=record.asked if refused else record.changes,
                    refused=line_of(refused, chars_max=TEXT_CHARS_MAX),
                    broken_off=broken_off,
                )
            )


def _is_broken_off(request: web.Request, error: BaseException) -> bool:
    """Whether the client went away, or its time ran out, before the whole body had arrived."""
    expected = isinstance(error, (OSError, web.RequestPayloadError, asyncio.CancelledError))
    return expected and not request.content.is_eof()


def _why(error: BaseException) -> str:
    match error:
        case ApiError():
            return f"{error.fault.value}: {error.text}"
        case RequestRejected():
            return f"{error.kind.value}: {error.text}"
        case web.HTTPException():
            return f"{error.status} {error.reason}"
        case Exception():
            return f"{type(error).__name__}: {error}"
        case _:
            return CUT_OFF
