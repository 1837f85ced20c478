"""Owns who changed what through the API: each request that would change something is told once, with what became of it.

A handler notes what it learns (`note`), the guard who it is (`known_as`). What is noted is told when the handler is through,
also when it refused, failed or was cut off. A request whose body did not come to its end is no change and no refusal: it was broken off.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from aiohttp import web

from adapters.control.aws_errors import RequestRejected
from adapters.control.responses import refuse_long
from poller.domain.mapping_api import ApiError, MappingView
from poller.domain.member_changes import VALUE_CHARS_MAX, changes_between, several
from poller.domain.telemetry import ApiChange, ApiOperation, Observer
from poller.domain.untrusted.texts import cut, line_of

UNAUTHENTICATED = "unauthenticated"
NAME_CHARS_MAX = 128
TEXT_CHARS_MAX = 300
LINE_CHARS_MAX = 400
CUT_OFF = "no answer was given; look at what is there now"


class Unauthorized(Exception):
    """A change without a valid bearer token."""


@dataclass(slots=True)
class Trail:
    """What is known so far of one request."""

    who: str = UNAUTHENTICATED
    mapping: str = ""
    asked: tuple[str, ...] = ()
    changes: tuple[str, ...] = ()


TRAIL = web.RequestKey("trail", Trail)

type _Handler = Callable[[web.Request], Awaitable[web.Response]]


def known_as(request: web.Request, who: str) -> None:
    """The request is proven to come from `who`: an access key id, or the name of a token, as the daemon's own file has it.

    An access key id is no secret, although it looks like one.
    """
    trail = request.get(TRAIL)
    if trail is not None:
        trail.who = cut("".join(char if char.isprintable() else "?" for char in who), NAME_CHARS_MAX)


def note(
    request: web.Request,
    *,
    mapping: str | None = None,
    asked: Iterable[str] | None = None,
    changes: Iterable[str] | None = None,
) -> None:
    """Which mapping is meant, the names that the request has, and what was changed in the end."""
    trail = request.get(TRAIL)
    if trail is None:
        return
    if mapping is not None:
        trail.mapping = line_of(mapping, chars_max=NAME_CHARS_MAX)
    if asked is not None:
        trail.asked = several([line_of(each, chars_max=VALUE_CHARS_MAX) for each in asked])
    if changes is not None:
        trail.changes = several([line_of(each, chars_max=LINE_CHARS_MAX) for each in changes])


def members_of(given: Mapping[str, Any]) -> list[str]:
    """The names of the members that say something."""
    return [name for name, value in given.items() if value is not None]


def changes_of(view: MappingView) -> tuple[str, ...]:
    """What an update came to."""
    return changes_between(view.before, view.parameters) if view.before is not None else ()


class Audit:
    """Tells an observer of changes; None: nobody listens."""

    def __init__(self, observer: Observer | None) -> None:
        self._observer = observer

    def told(self, operation: ApiOperation, handler: _Handler) -> _Handler:
        """The handler of requests for this operation, each of which is told."""

        async def audited(request: web.Request) -> web.Response:
            trail = request[TRAIL] = Trail()
            try:
                refuse_long(request)
                response = await handler(request)
            except BaseException as error:
                broken_off = _is_broken_off(request, error)
                why = "" if broken_off else _why(error)
                self._tell(operation, request, trail, refused=why, broken_off=broken_off)
                raise
            self._tell(operation, request, trail)
            return response

        return audited

    def _tell(
        self,
        operation: ApiOperation,
        request: web.Request,
        trail: Trail,
        *,
        refused: str = "",
        broken_off: bool = False,
    ) -> None:
        if self._observer is not None:
            self._observer.on(
                ApiChange(
                    operation=operation,
                    who=trail.who,
                    address=request.remote or "",
                    mapping=trail.mapping,
                    changes=trail.asked if refused else trail.changes,
                    refused=line_of(refused, chars_max=TEXT_CHARS_MAX),
                    broken_off=broken_off,
                )
            )


def _is_broken_off(request: web.Request, error: BaseException) -> bool:
    """Whether a handler still waited for the body when the client went away or its time was over."""
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
