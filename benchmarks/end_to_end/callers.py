"""Owns how the bare loop calls a function, in the way of each invoker: without limits of time or size, and minding no error."""

import asyncio
import os
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import aiohttp
import orjson

from benchmarks import function
from benchmarks.end_to_end.bare_child import BareChild, bare_child
from benchmarks.end_to_end.bare_runtime import BareRuntime, Connection
from benchmarks.end_to_end.cases import PROCESSES
from benchmarks.signed_calls import REGION, SignedCalls

INVOCATIONS = "/2015-03-31/functions/orders/invocations"

type Event = Mapping[str, Any]
type Call = Callable[[Event], Awaitable[object]]


@asynccontextmanager
async def caller(
    invoker: str, session: aiohttp.ClientSession, url: str, server: str, *, timed: bool
) -> AsyncIterator[Call]:
    """Yields what calls the function. `url` is AWS's, `server` that of the function behind HTTP."""
    word = "timed" if timed else "nothing"
    handler = f"benchmarks.function.{word}_at_once"
    match invoker:
        case "python":
            inside: Callable[[Any, object], Awaitable[None]] = getattr(function, word)
            yield lambda event: inside(event, None)
        case "processes":
            yield await _children(handler)
        case "process":
            async with _runtime(handler) as call:
                yield call
        case "http":
            yield partial(_posted, session, server)
        case _:
            signed = SignedCalls(session, url, "lambda")
            yield lambda event: signed.post(INVOCATIONS, orjson.dumps(event))


async def _posted(session: aiohttp.ClientSession, url: str, event: Event) -> None:
    headers = {"Content-Type": "application/json"}
    async with session.post(url, data=orjson.dumps(event), headers=headers) as response:
        await response.read()


async def _children(handler: str) -> Call:
    """Calls in PROCESSES child processes, which end with this one."""
    free: asyncio.Queue[BareChild] = asyncio.Queue(PROCESSES)
    for _ in range(PROCESSES):
        free.put_nowait(await bare_child(handler))

    async def call(event: Event) -> None:
        child = await free.get()
        await child.call(orjson.dumps(event))
        free.put_nowait(child)

    return call


@asynccontextmanager
async def _runtime(handler: str) -> AsyncIterator[Call]:
    """Calls in PROCESSES processes of awslambdaric."""
    runtime = BareRuntime()
    server = await asyncio.get_running_loop().create_server(lambda: Connection(runtime), "127.0.0.1", 0)
    host, port = server.sockets[0].getsockname()
    variables = {
        "AWS_LAMBDA_RUNTIME_API": f"{host}:{port}",
        "AWS_LAMBDA_FUNCTION_NAME": "orders",
        "AWS_LAMBDA_FUNCTION_VERSION": "$LATEST",
        "AWS_LAMBDA_FUNCTION_MEMORY_SIZE": "128",
        "AWS_LAMBDA_LOG_GROUP_NAME": "/aws/lambda/orders",
        "AWS_LAMBDA_LOG_STREAM_NAME": "one",
        "AWS_REGION": REGION,
        "_HANDLER": handler,
    }
    command = [sys.executable, "-m", "awslambdaric", handler]
    processes = [
        await asyncio.create_subprocess_exec(*command, env=os.environ | variables) for _ in range(PROCESSES)
    ]
    try:
        yield lambda event: runtime.call(orjson.dumps(event))
    finally:
        for each in processes:
            each.kill()
