"""Owns Lambda's operations on functions: Invoke, and those that show what is configured (aws-behaviour#invoke-request).

A payload of Invoke is larger than other requests may be, and its answer may take as long as the function may. So these requests have
limits of their own: `PAYLOAD_BYTES_MAX`, the function's time, and a limit for the payloads of all requests together.
"""

from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from http import HTTPStatus

from aiohttp import web

from adapters.control.access.audit import Audit
from adapters.control.access.authentication import Guard
from adapters.control.aliases.alias_documents import version_of
from adapters.control.aws_errors import RejectionType, RequestRejected
from adapters.control.invoke import answers
from adapters.control.invoke.function_documents import configuration, function, page
from adapters.control.invoke.invoke_headers import InvocationType, Wanted, wanted
from adapters.control.lambda_api import NO_CONTROL, both, signed_read, with_error_answers
from adapters.control.query_string import first
from adapters.control.responses import allow_time, answer
from poller.domain.functions.alias_control import VersionView
from poller.domain.functions.calls import FunctionCall, FunctionCaller, FunctionView, NoRoom, ThrottleReason
from poller.domain.functions.tracing import of_trace_header, of_traceparent, trace_header
from poller.domain.telemetry.labels import ApiOperation
from poller.domain.untrusted.json_values import json_value
from poller.loop_turns import LoopTurns

FUNCTIONS = "/2015-03-31/functions"
INVOKE = FUNCTIONS + "/{name}/invocations"
INVOKE_ASYNC = "/2014-11-13/functions/{name}/invoke-async"
INVOKE_STREAMED = "/2021-11-15/functions/{name}/response-streaming-invocations"
PAYLOAD_BYTES_MAX = 6_291_456
"""The largest payload of a call that is waited for, as on Lambda."""
EVENT_BYTES_MAX = 1_048_576
"""The largest payload of a call that is not waited for, as on Lambda."""
HELD_BYTES_MAX = 256 * 1024 * 1024
"""Payloads of all calls that run. Beyond it, calls are refused."""
BODY_S_MAX = 60.0
"""How long a payload may take to arrive."""
CALL_S_MAX = 900.0 + 120.0
"""How long a call may take at least before its request is given up: Lambda's longest time limit, a start, and the wait for room."""
CALL_SPARE_S = 120.0
SLICE_BYTES = 64 * 1024
"""A larger payload is parsed in a turn of its own."""
TOO_LARGE = "Request must be smaller than {limit} bytes for the InvokeFunction operation"
EVENT_TOO_LARGE = "{size} byte payload is too large for the Event invocation type (limit {limit} bytes)"
NOT_JSON = "Could not parse request body into json: Could not parse payload into json"
NO_STREAMS = "Answers are not streamed here; call Invoke, which returns the whole answer"
TRACE = "X-Amzn-Trace-Id"


def routes(guard: Guard, caller: FunctionCaller | None, audit: Audit) -> list[web.RouteDef]:
    """Returns all routes, each with and without a slash at its end. Without a caller each answers that it is not served."""
    api = InvokeApi(guard, caller)
    table: list[tuple[str, str, Callable[[web.Request], Awaitable[web.Response]]]] = [
        ("POST", INVOKE, audit.refusals(ApiOperation.INVOKE, api.invoke)),
        ("POST", INVOKE_ASYNC, audit.refusals(ApiOperation.INVOKE, api.invoke_async)),
        ("POST", INVOKE_STREAMED, audit.refusals(ApiOperation.INVOKE, api.invoke_streamed)),
        ("GET", FUNCTIONS, signed_read(guard, api.list)),
        ("GET", FUNCTIONS + "/{name}", signed_read(guard, api.get)),
        ("GET", FUNCTIONS + "/{name}/configuration", signed_read(guard, api.get_configuration)),
    ]
    return [
        route for method, path, handler in table for route in both(method, path, with_error_answers(handler))
    ]


class HeldBytes:
    """The bytes of the payloads of all calls that run."""

    def __init__(self, bytes_max: int = HELD_BYTES_MAX) -> None:
        self._bytes_max = bytes_max
        self._held = 0

    @contextmanager
    def more(self, count: int) -> Iterator[Callable[[int], None]]:
        """Holds so many bytes inside the block, and fewer when it is known how many they are. Raises NoRoom if they are too many."""
        held = count

        def only(known: int) -> None:
            nonlocal held
            self._held -= held - known
            held = known

        if self._held + count > self._bytes_max:
            raise NoRoom(
                ThrottleReason.CALLER, f"The payloads of running calls have more than {self._bytes_max} bytes"
            )
        self._held += count
        try:
            yield only
        finally:
            self._held -= held


class InvokeApi:
    """The handlers of Lambda's operations on functions."""

    def __init__(self, guard: Guard, caller: FunctionCaller | None) -> None:
        self._guard = guard
        self._functions = caller
        self._held = HeldBytes()
        self._turns = LoopTurns()

    @property
    def _caller(self) -> FunctionCaller:
        if self._functions is None:
            raise RequestRejected(RejectionType.ABSENT, NO_CONTROL)
        return self._functions

    async def invoke(self, request: web.Request) -> web.Response:
        """Invoke."""
        caller = self._caller
        length = request.content_length
        if length is not None and length > PAYLOAD_BYTES_MAX:
            raise _too_large()
        allow_time(request, BODY_S_MAX)
        try:
            with self._held.more(PAYLOAD_BYTES_MAX if length is None else length) as only:
                try:
                    payload = await self._guard.signed_call(request.clone(client_max_size=PAYLOAD_BYTES_MAX))
                except web.HTTPRequestEntityTooLarge:
                    raise _too_large() from None
                only(len(payload))
                return await self._invoked(request, caller, wanted(request), payload)
        except NoRoom as error:
            return answers.no_room(error)

    async def invoke_async(self, request: web.Request) -> web.Response:
        """InvokeAsync, which AWS has deprecated: Invoke with the invocation type Event."""
        caller = self._caller
        allow_time(request, BODY_S_MAX)
        try:
            with self._held.more(EVENT_BYTES_MAX):
                try:
                    body = await self._guard.signed_call(request.clone(client_max_size=EVENT_BYTES_MAX))
                except web.HTTPRequestEntityTooLarge:
                    raise RequestRejected(
                        RejectionType.TOO_LARGE, TOO_LARGE.format(limit=EVENT_BYTES_MAX)
                    ) from None
                payload = await self._checked(body)
                name, _ = _named(request)
                request_id = await _enqueue(request, caller, FunctionCall(function=name, payload=payload))
        except NoRoom as error:
            return answers.no_room(error)
        return answers.accepted(request_id, {"Status": HTTPStatus.ACCEPTED})

    async def invoke_streamed(self, request: web.Request) -> web.Response:
        """InvokeWithResponseStream."""
        await self._guard.signed_call(request)
        raise RequestRejected(RejectionType.ABSENT, NO_STREAMS)

    async def list(self, request: web.Request) -> web.Response:
        """ListFunctions."""
        return answer(page(self._caller.functions(), request.raw_path))

    async def get(self, request: web.Request) -> web.Response:
        """GetFunction."""
        return answer(function(*self._shown(request)))

    async def get_configuration(self, request: web.Request) -> web.Response:
        """GetFunctionConfiguration."""
        return answer(configuration(*self._shown(request)))

    def _shown(self, request: web.Request) -> tuple[FunctionView, VersionView | None, str]:
        """The function that is named, the version of it if one is meant, and the ARN by which it is named."""
        caller, (name, qualifier) = self._caller, _named(request)
        view = caller.function(name, qualifier)
        return view, *version_of(caller, view, name, qualifier)

    async def _invoked(
        self, request: web.Request, caller: FunctionCaller, asked: Wanted, payload: bytes
    ) -> web.Response:
        name, qualifier = _named(request)
        view = caller.function(name, qualifier)
        if asked.kind is InvocationType.EVENT and len(payload) > EVENT_BYTES_MAX:
            text = EVENT_TOO_LARGE.format(size=len(payload), limit=EVENT_BYTES_MAX)
            raise RequestRejected(RejectionType.TOO_LARGE, text)
        payload = await self._checked(payload)
        if asked.kind is InvocationType.DRY_RUN:
            return answers.without_body(HTTPStatus.NO_CONTENT)
        call = FunctionCall(
            function=name,
            qualifier=qualifier,
            payload=payload,
            client_context=asked.client_context,
            log_tail=asked.log_tail,
        )
        if asked.kind is InvocationType.EVENT:
            return answers.accepted(await _enqueue(request, caller, call))
        allow_time(request, max(CALL_S_MAX, view.timeout_s + CALL_SPARE_S))
        return answers.invoked(await caller.call(call, trace_header=_trace(request)), with_log=asked.log_tail)

    async def _checked(self, payload: bytes) -> bytes:
        """The payload, `{}` if there is none. Raises RequestRejected if it is not JSON."""
        payload = payload or b"{}"
        if len(payload) > SLICE_BYTES:
            await self._turns.turn()
        _check_json(payload)
        return payload


async def _enqueue(request: web.Request, caller: FunctionCaller, call: FunctionCall) -> str:
    """Stores an asynchronous call; returns its request id."""
    return await caller.enqueue(call, trace_header=_trace(request))


def _trace(request: web.Request) -> str:
    """The caller's trace header. If it names no span, as behind a load balancer, W3C's context is put into it."""
    given = request.headers
    header = given.get(TRACE, "")
    if of_trace_header(header) is not None:
        return header
    context = of_traceparent(given.get("traceparent", ""), given.get("tracestate", ""))
    return header if context is None else trace_header(context, header)


def _named(request: web.Request) -> tuple[str, str]:
    """The name of the function, and the qualifier that stands beside it."""
    return request.match_info["name"], first(request.raw_path, "Qualifier") or ""


def _check_json(payload: bytes) -> None:
    """Raises RequestRejected for a payload that is not JSON."""
    try:
        json_value(payload)
    except (ValueError, RecursionError):
        raise RequestRejected(RejectionType.CONTENT, NOT_JSON) from None


def _too_large() -> RequestRejected:
    return RequestRejected(RejectionType.TOO_LARGE, TOO_LARGE.format(limit=PAYLOAD_BYTES_MAX))
