"""Owns the route that shows records of a shard. Payloads are for the role `operate`, and only if the settings allow it."""

from dataclasses import replace
from http import HTTPStatus

from aiohttp import web

from adapters.control.access.audit import AUDIT_RECORD, AuditRecord, Forbidden, Unauthorized
from adapters.control.access.authentication import Guard
from adapters.control.openapi.record_paths import PARAMETER_CHARS_MAX
from adapters.control.query_string import pairs
from adapters.control.responses import answer
from adapters.control.v1_api import NotServed, checked_read
from poller.domain.access import Role
from poller.domain.mapping_api import ApiError, ApiErrorType
from poller.domain.peeking.answers import LIMIT_DEFAULT, LIMIT_MAX, PeekAnswer, PeekControl, PeekRequest
from poller.domain.telemetry.daemon_events import PayloadsShown
from poller.domain.telemetry.observers import Observer
from poller.domain.untrusted.texts import line_of

PARAMETERS = ("shard", "from", "limit")
SHOWN_CHARS_MAX = 100

NO_PEEKING = "this server shows what runs and reads no records"
NOT_SET = (
    "payloads are not shown: this daemon shows none; set api.show_payloads: true and restart it, and send a token with the role "
    f"{Role.OPERATE}"
)
NOT_ALLOWED = "payloads are not shown: {why}"
NO_TOKEN = (
    f"operations need a credential: set POLLER_TOKEN, or give --token-file FILE, with a token of api.tokens_file whose role is {Role.OPERATE}; "
    "other clients send it as `Authorization: Bearer TOKEN`"
)


def routes(
    guard: Guard, peeking: PeekControl | None, observer: Observer | None, *, show_payloads: bool
) -> list[web.RouteDef]:
    """Returns the route for records of a shard."""
    records = RecordsApi(guard, peeking, observer, show_payloads=show_payloads)
    return [web.get("/v1/mappings/{id}/records", checked_read(guard, records.peek))]


class RecordsApi:
    """The handler that shows records of a shard."""

    def __init__(
        self, guard: Guard, peeking: PeekControl | None, observer: Observer | None, *, show_payloads: bool
    ) -> None:
        self._guard = guard
        self._peeking = peeking
        self._observer = observer
        self._show_payloads = show_payloads

    async def peek(self, request: web.Request) -> web.Response:
        """Answers with a few records of a shard. Nothing moves by it."""
        if self._peeking is None:
            raise NotServed(HTTPStatus.NOT_IMPLEMENTED, NO_PEEKING)
        given = _given(request)
        missing = missing_for_payloads(request, self._guard, show_payloads=self._show_payloads)
        found = await self._peeking.peek(
            request.match_info["id"],
            PeekRequest(
                shard=given.get("shard", ""),
                start=given.get("from", ""),
                limit=_limit(given.get("limit")),
                payloads=not missing,
            ),
        )
        if found.payloads:
            self._report(request, found)
        return answer(replace(found, missing=missing))

    def _report(self, request: web.Request, found: PeekAnswer) -> None:
        if self._observer is None:
            return
        sender = request[AUDIT_RECORD]
        numbers = [record.sequence_number for record in found.records]
        self._observer.on(
            PayloadsShown(
                who=sender.who,
                role=sender.role,
                address=request.remote or "",
                mapping=found.mapping,
                shard=found.shard,
                records=len(numbers),
                first=numbers[0] if numbers else "",
                last=numbers[-1] if numbers else "",
            )
        )


def missing_for_payloads(request: web.Request, guard: Guard, *, show_payloads: bool) -> str:
    """Returns what is missing for the sender to see payloads; empty if nothing is."""
    if not show_payloads:
        return NOT_SET
    request[AUDIT_RECORD] = AuditRecord()
    try:
        guard.check_bearer(request, Role.OPERATE)
    except Unauthorized as error:
        return NOT_ALLOWED.format(why=NO_TOKEN if guard.tokens is not None else error)
    except Forbidden as error:
        return NOT_ALLOWED.format(why=error)
    return ""


def _given(request: web.Request) -> dict[str, str]:
    """The parameters of the query; raises ApiError for one that is unknown or there twice."""
    found: dict[str, str] = {}
    for name, value in pairs(request.raw_path):
        if name not in PARAMETERS or name in found:
            wrong = "is given twice" if name in found else f"is no parameter; write {', '.join(PARAMETERS)}"
            raise ApiError(ApiErrorType.PARAMETER, f"{_shown(name)} {wrong}")
        if len(value) > PARAMETER_CHARS_MAX:
            raise ApiError(ApiErrorType.PARAMETER, f"{name}: is longer than {PARAMETER_CHARS_MAX} characters")
        found[name] = value
    return found


def _limit(text: str | None) -> int:
    if text is None:
        return LIMIT_DEFAULT
    if not (text.isascii() and text.isdecimal() and len(text) <= 3 and 1 <= int(text) <= LIMIT_MAX):
        wrong = f"limit: {_shown(text)}: write a whole number from 1 to {LIMIT_MAX}"
        raise ApiError(ApiErrorType.PARAMETER, wrong)
    return int(text)


def _shown(text: str) -> str:
    return repr(line_of(text, chars_max=SHOWN_CHARS_MAX))
