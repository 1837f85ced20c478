"""Owns a scripted AWS endpoint: an HTTP server on the loopback address that answers each operation from a list."""

import asyncio
import functools
import json
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web

from poller.clock import LoopClock
from poller.plugins import Environment


@dataclass(frozen=True, slots=True)
class Answer:
    """One answer; with `cut` only so many bytes are sent before the connection closes; `silent` sends nothing at all."""

    body: bytes = b"{}"
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    cut: int | None = None
    silent: bool = False


def ok(**members: Any) -> Answer:
    """A success with these members."""
    return Answer(json.dumps(members).encode())


TOO_DEEP = Answer(b'{"Records":[],"Messages":[],"x":' + b"[" * 20_000 + b"]" * 20_000 + b"}")
"""JSON that no reader follows to its bottom."""


def error(code: str, *, status: int = 400, text: str = "the service's own words", query: str = "") -> Answer:
    """An error as the JSON protocols have it; `query` is the code of SQS's query protocol."""
    headers = {"x-amzn-query-error": f"{query};Sender"} if query else {}
    return Answer(json.dumps({"__type": f"com.amazonaws#{code}", "message": text}).encode(), status, headers)


@dataclass(slots=True)
class Service:
    """A running endpoint: what it still has to say, what it was asked, and how many requests are open."""

    url: str
    script: dict[str, list[Answer]]
    asked: list[tuple[str, dict[str, Any]]] = field(default_factory=list)
    open_requests: int = 0
    waiting: asyncio.Event = field(default_factory=asyncio.Event)

    def operations(self) -> list[str]:
        """Names of the operations that were asked for, in order."""
        return [operation for operation, _ in self.asked]

    def parameters(self, operation: str) -> list[dict[str, Any]]:
        """What each call of an operation was given."""
        return [given for name, given in self.asked if name == operation]

    async def answer(self, request: web.Request) -> web.StreamResponse:
        """Takes the next answer of the operation's list; one that is not in the script is a fault of the test."""
        operation = request.headers["X-Amz-Target"].rpartition(".")[2]
        self.asked.append((operation, json.loads(await request.read() or b"{}")))
        answer = self.script[operation].pop(0)
        self.open_requests += 1
        try:
            return await self._sent(request, answer)
        finally:
            self.open_requests -= 1

    async def _sent(self, request: web.Request, answer: Answer) -> web.StreamResponse:
        if answer.silent:
            self.waiting.set()
            await asyncio.Event().wait()
        headers = {"Content-Type": "application/x-amz-json-1.1", **answer.headers}
        if answer.cut is None:
            return web.Response(body=answer.body, status=answer.status, headers=headers)
        response = web.StreamResponse(status=answer.status, headers=headers)
        response.content_length = len(answer.body)
        await response.prepare(request)
        await response.write(answer.body[: answer.cut])
        assert request.transport is not None
        request.transport.close()
        return response


@asynccontextmanager
async def serving(script: Mapping[str, Sequence[Answer]]) -> AsyncIterator[Service]:
    """An endpoint with this script, operation to answers."""
    service = Service("", {operation: list(answers) for operation, answers in script.items()})
    app = web.Application(client_max_size=2**24)
    app.router.add_post("/", service.answer)
    runner = web.AppRunner(app, handler_cancellation=True, shutdown_timeout=1.0, access_log=None)
    await runner.setup()
    try:
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        host, port = runner.addresses[0][:2]
        service.url = f"http://{host}:{port}"
        yield service
    finally:
        await runner.cleanup()


@asynccontextmanager
async def environment(url: str | None) -> AsyncIterator[Environment]:
    """An environment whose services are all at `url`; what plug-ins share is closed in the end."""
    env = Environment(LoopClock(), region="eu-west-1", endpoint_url=url)
    try:
        yield env
    finally:
        await env.shared.close()


def on_a_loop[**P](test: Callable[P, Coroutine[Any, Any, None]]) -> Callable[P, None]:
    """Runs an async test on a fresh loop."""

    @functools.wraps(test)
    def run(*args: P.args, **kwargs: P.kwargs) -> None:
        asyncio.run(test(*args, **kwargs))

    return run


async def until(condition: Callable[[], bool], *, looks_max: int = 500) -> None:
    """Returns when the condition holds; looks every hundredth of a second."""
    for _ in range(looks_max):
        if condition():
            return
        await asyncio.sleep(0.01)
    raise AssertionError("it did not come to that")
