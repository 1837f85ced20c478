"""Owns Lambda's Runtime API for one function process: an HTTP server on loopback that offers one invocation at a time.

Requests do not name their process, so each process has a server with an address of its own. `usual_requests` answers what runtimes
send for nearly each invocation, and the web library all else.
"""

import asyncio
import logging
import re
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from http import HTTPStatus
from typing import Any

from aiohttp import web
from aiohttp.http import HttpProcessingError
from aiohttp.typedefs import Handler

from adapters.invokers.function_processes.process_session import ProcessSession
from adapters.invokers.function_processes.runtime_entrance import ConnectionGuard, Entrance, refusal
from adapters.invokers.function_processes.shared_code import CODE_PATH, SharedCode
from adapters.invokers.function_processes.usual_requests import RuntimeConnection
from adapters.invokers.outcomes import (
    ANSWER_BYTES_MAX,
    RESPONSE_TOO_LARGE,
    failed,
    json_object,
    reported_failure,
)
from poller.domain.invocations import FunctionError, Outcome, Succeeded
from poller.forked_copies import close_in_copies
from poller.output.log_fields import EVENT
from poller.refused_requests import Strangers

ERROR_TYPE_HEADER = "Lambda-Runtime-Function-Error-Type"
HEADER_BYTES_MAX = 1024 * 1024 + 1024
"""Runtimes send X-Ray's details of an error in a header of up to a megabyte."""
log = logging.getLogger("poller.functions")
_QUOTED = re.compile(r"""[:'"\n]""")
"""Before it an error of the web library says what is wrong, and after it what was sent, which is not logged."""
_LOOPBACK = "127.0.0.1"
_PREFIX = "/2018-06-01/runtime"


class FailedRequests(logging.LoggerAdapter[logging.Logger]):
    """Logs requests that the web library could not read, and those whose handling failed, with the function they come from."""

    def __init__(self, function: str) -> None:
        super().__init__(log, {EVENT: "runtime_request_failed"})
        self._function = function

    def exception(self, msg: object, *args: object, exc_info: Any = True, **kwargs: Any) -> None:
        """Logs one request. What cannot be read is a mistake of the function's runtime, and needs no trace."""
        if isinstance(exc_info, HttpProcessingError):
            self.warning(
                "function %s: its process sent the Runtime API a request that cannot be read (%s)",
                self._function,
                _QUOTED.split(exc_info.message, maxsplit=1)[0].strip(),
            )
        else:
            text = "function %s: a request of its process to the Runtime API failed"
            self.error(text, self._function, exc_info=exc_info)


class RuntimeApi:
    """Serves one process after another at one address, and refuses all others."""

    def __init__(self, guard: ConnectionGuard, code: SharedCode | None = None) -> None:
        self.address = ""
        self._code = code
        self.session = ProcessSession()
        self.guard = guard
        self._server: web.Server | None = None
        self._connections: set[RuntimeConnection] = set()

    def clear(self) -> ProcessSession:
        """Makes a new session for a process that starts now, and closes the connections of the process before."""
        self.session = ProcessSession()
        self.guard.expect(None)
        self._close_connections()
        return self.session

    def _close_connections(self) -> None:
        for usual in tuple(self._connections):
            usual.close()
        if self._server is not None:
            for connection in self._server.connections:
                connection.force_close()

    @asynccontextmanager
    async def listening(self) -> AsyncIterator[None]:
        """Serves on a free loopback port; `address` is then its host:port."""
        # A pending `next` of a dead process must not take the invocation of its successor, so it is cancelled with its connection.
        runner = web.AppRunner(
            self.app(),
            handler_cancellation=True,
            access_log=None,
            logger=FailedRequests(self.guard.function),
            shutdown_timeout=0.1,
            max_field_size=HEADER_BYTES_MAX,
        )
        await runner.setup()
        self._server = runner.server
        assert self._server is not None
        try:
            sock = close_in_copies(socket.create_server((_LOOPBACK, 0)))
            sock.setblocking(False)
            listener = await asyncio.get_running_loop().create_server(
                partial(Entrance, self.guard, self._connection), sock=sock
            )
            host, port = listener.sockets[0].getsockname()[:2]
            self.address = f"{host}:{port}"
            try:
                yield
            finally:
                listener.close()
                self._close_connections()
        finally:
            await runner.cleanup()

    def _connection(self) -> RuntimeConnection:
        assert self._server is not None
        return RuntimeConnection(
            lambda: self.session, self.address, library=self._server, open_ones=self._connections
        )

    def app(self) -> web.Application:
        """Makes the application with the routes of the Runtime API."""
        app = web.Application(middlewares=[self._no_web_pages], client_max_size=ANSWER_BYTES_MAX)
        app.router.add_get(f"{_PREFIX}/invocation/next", self._next)
        app.router.add_post(f"{_PREFIX}/invocation/{{request_id}}/response", self._response)
        app.router.add_post(f"{_PREFIX}/invocation/{{request_id}}/error", self._error)
        app.router.add_post(f"{_PREFIX}/init/error", self._init_error)
        if self._code is not None:
            app.router.add_get(f"{_PREFIX}/{CODE_PATH}", partial(_give_code, self._code))
            app.router.add_post(f"{_PREFIX}/{CODE_PATH}", partial(_take_code, self._code))
        return app

    @web.middleware
    async def _no_web_pages(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        reason = self.guard.refused_for(request, self.address)
        if reason is None:
            return await handler(request)
        self.guard.refused(reason)
        return refusal(reason, self.address)

    async def _next(self, _request: web.Request) -> web.Response:
        offer = await self.session.take()
        if offer is None:
            return _refused(
                HTTPStatus.FORBIDDEN, "InvalidStateTransition", "the last invocation has no answer yet"
            )
        return web.Response(
            body=offer.invocation.payload, content_type="application/json", headers=offer.headers
        )

    async def _response(self, request: web.Request) -> web.Response:
        session = self.session
        try:
            outcome: Outcome = Succeeded(await request.read())
        except web.HTTPRequestEntityTooLarge:
            outcome = failed(RESPONSE_TOO_LARGE, f"the answer has more than {ANSWER_BYTES_MAX} bytes")
        if not session.settle(request.match_info["request_id"], outcome):
            return _unknown(request)
        if isinstance(outcome, FunctionError):
            return _refused(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, "RequestEntityTooLarge", outcome.message)
        return _accepted()

    async def _error(self, request: web.Request) -> web.Response:
        session = self.session
        return (
            _accepted()
            if session.settle(request.match_info["request_id"], await _document(request))
            else _unknown(request)
        )

    async def _init_error(self, request: web.Request) -> web.Response:
        session = self.session
        session.refuse(await _document(request))
        return _accepted()


async def _document(request: web.Request) -> FunctionError:
    try:
        whole = await request.read()
        document = json_object(whole)
    except web.HTTPRequestEntityTooLarge:
        whole = b""
        document = {"errorMessage": f"the error document has more than {ANSWER_BYTES_MAX} bytes"}
    named = request.headers.get(ERROR_TYPE_HEADER) or "Runtime.Unknown"
    return reported_failure(document, error_type=named, whole=whole)


async def _give_code(code: SharedCode, _request: web.Request) -> web.Response:
    return web.Response(body=code.document(), content_type="application/json")


async def _take_code(code: SharedCode, request: web.Request) -> web.Response:
    try:
        code.add(await request.read())
    except web.HTTPRequestEntityTooLarge:
        return _refused(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, "RequestEntityTooLarge", "too many sources")
    return _accepted()


def _accepted() -> web.Response:
    return web.json_response({"status": "OK"}, status=HTTPStatus.ACCEPTED)


def _unknown(request: web.Request) -> web.Response:
    message = f"no invocation {request.match_info['request_id'][:64]!r} waits for an answer"
    return _refused(HTTPStatus.BAD_REQUEST, "InvalidRequestID", message)


def _refused(status: HTTPStatus, error_type: str, message: str) -> web.Response:
    return web.json_response({"errorType": error_type, "errorMessage": message}, status=status)


@asynccontextmanager
async def serving(
    function: str, strangers: Strangers, code: SharedCode | None = None
) -> AsyncIterator[RuntimeApi]:
    """Yields a Runtime API for processes of `function`, which share `code`. No process may connect yet."""
    api = RuntimeApi(ConnectionGuard(function, strangers), code)
    async with api.listening():
        yield api
