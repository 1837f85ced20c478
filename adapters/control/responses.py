"""Owns the form of the server's answers: JSON, also for errors, common headers, and time limits."""

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from http import HTTPStatus
from typing import Any

from aiohttp import ClientConnectionResetError, web
from aiohttp.typedefs import Middleware

from poller.domain.untrusted.rendering import as_json

HANDLE_S = 10.0
"""The time to read a request's body and to make the answer."""
SEND_S = 20.0
"""The time in which a client must receive an answer. After that its connection is closed."""
BODY_BYTES_MAX = 1024 * 1024
DEADLINE = web.RequestKey("deadline", asyncio.Timeout)
"""When the request's time is over."""
SERVER_NAME = "poller"

MESSAGES = {
    HTTPStatus.BAD_REQUEST: "the request is not HTTP as this server understands it, or its headers are too large",
    HTTPStatus.NOT_FOUND: "there is nothing at this path; /v1/openapi.json lists what there is",
    HTTPStatus.METHOD_NOT_ALLOWED: "this path does not know the method; the header Allow lists what it knows",
    HTTPStatus.REQUEST_ENTITY_TOO_LARGE: f"the body is larger than {BODY_BYTES_MAX} bytes",
    HTTPStatus.EXPECTATION_FAILED: "no expectation but 100-continue can be met",
    HTTPStatus.TOO_MANY_REQUESTS: "more is asked than is answered at once; wait for the seconds that the header Retry-After names",
    HTTPStatus.INTERNAL_SERVER_ERROR: "a fault of this server; its log has the cause",
    HTTPStatus.HTTP_VERSION_NOT_SUPPORTED: "this server speaks HTTP/1.1 and HTTP/1.0; send one of them in the request line",
    HTTPStatus.SERVICE_UNAVAILABLE: "the answer took too long; try again",
}
HEADERS = {
    "Server": SERVER_NAME,
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
}


def answer(value: Any, *, status: int = HTTPStatus.OK) -> web.Response:
    """Makes a JSON answer. Dataclasses become objects with the names of their fields."""
    return web.Response(body=as_json(value), status=status, content_type="application/json")


def refusal(status: int, message: str | None = None) -> web.Response:
    """Makes a JSON error: `error` is the name of the status, `message` a sentence with the remedy."""
    known = HTTPStatus(status)
    word = known.phrase.lower().replace(" ", "_").replace("-", "_")
    return answer({"error": word, "message": message or MESSAGES.get(known, known.phrase)}, status=status)


class StreamedAnswer(web.StreamResponse):
    """An answer that goes on for as long as `send` has something to send. `send` has time limits of its own.

    `done` is called at the end, also if nothing could be sent.
    """

    def __init__(
        self,
        send: Callable[["StreamedAnswer"], Awaitable[None]],
        done: Callable[[], None],
        *,
        content_type: str,
    ) -> None:
        super().__init__()
        self.content_type = content_type
        # Proxies that gather an answer before they pass it on would gather this one for ever.
        self.headers["X-Accel-Buffering"] = "no"
        self.done = done
        self._send = send

    async def send_all(self) -> None:
        """Sends everything. Raises TimeoutError if the client does not take it."""
        await self._send(self)


type Refuse = Callable[[str, int], web.Response]
"""Makes the answer for a request's path and a status, in the form of the path's API."""


def application(
    routes: Iterable[web.AbstractRouteDef],
    refuse: Refuse,
    *,
    outer: Iterable[Middleware] = (),
    inner: Iterable[Middleware] = (),
) -> web.Application:
    """Makes the application of these routes; `refuse` answers what the web library and the limits refuse.

    `outer` middlewares run until the answer is sent, without a time limit. `inner` ones run within the time limit.
    """
    middlewares = [*outer, _timed(refuse), *inner, _in_json(refuse)]
    app = web.Application(middlewares=middlewares, client_max_size=BODY_BYTES_MAX)
    app.on_response_prepare.append(_with_headers)
    app.add_routes(routes)
    return app


async def _with_headers(_request: web.Request, response: web.StreamResponse) -> None:
    response.headers["Server"] = SERVER_NAME  # replaces the library's own value, which is already set
    for name, text in HEADERS.items():
        response.headers.setdefault(name, text)


type Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


def _timed(refuse: Refuse) -> Middleware:
    """Makes and sends the answer within time limits, so that a slow client cannot keep a connection."""

    @web.middleware
    async def timed(request: web.Request, handler: Handler) -> web.StreamResponse:
        try:
            async with asyncio.timeout(HANDLE_S) as deadline:
                request[DEADLINE] = deadline
                response = await handler(request)
        except TimeoutError:
            response = refuse(request.path, HTTPStatus.SERVICE_UNAVAILABLE)
        try:
            async with asyncio.timeout(SEND_S):
                await response.prepare(request)
                if not isinstance(response, StreamedAnswer):
                    await response.write_eof()
            if isinstance(response, StreamedAnswer):
                await response.send_all()
                async with asyncio.timeout(SEND_S):
                    await response.write_eof()
        except TimeoutError:
            if request.transport is not None:
                request.transport.abort()
        except RuntimeError as error:
            if _is_open(request.transport):
                raise
            # uvloop raises RuntimeError for a connection that it has already closed.
            raise ClientConnectionResetError("the client has gone") from error
        finally:
            if isinstance(response, StreamedAnswer):
                response.done()
        return response

    return timed


def allow_time(request: web.Request, time_s: float) -> None:
    """Gives a request so many seconds from now on, for an answer that takes longer than HANDLE_S."""
    request[DEADLINE].reschedule(asyncio.get_running_loop().time() + time_s)


def _is_open(transport: asyncio.Transport | None) -> bool:
    if transport is None or transport.is_closing():
        return False
    sock = transport.get_extra_info("socket")
    return sock is not None and sock.fileno() >= 0


def refuse_long(request: web.Request) -> None:
    """Raises an HTTP error for a body whose Content-Length is too large, before any of it arrives."""
    length = request.content_length
    if length is not None and length > BODY_BYTES_MAX:
        raise web.HTTPRequestEntityTooLarge(BODY_BYTES_MAX, length)


def _in_json(refuse: Refuse) -> Middleware:
    """Answers the errors of the web library in the form of our own."""

    @web.middleware
    async def in_json(request: web.Request, handler: Handler) -> web.StreamResponse:
        try:
            return await handler(request)
        except web.HTTPException as error:
            response = refuse(request.path, error.status)
            if error.status == HTTPStatus.REQUEST_ENTITY_TOO_LARGE:
                # The rest of the body is not read.
                response.force_close()
            if "Allow" in error.headers:
                response.headers["Allow"] = error.headers["Allow"]
            return response

    return in_json
