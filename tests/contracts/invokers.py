"""Owns what the invokers' contract suite needs of each kind: how to open one, and a function behind it."""

import json
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from aiohttp import web

from adapters.invokers import http, lambda_api, process, python
from adapters.invokers.function_processes.process_settings import ProcessSettings
from adapters.invokers.http_settings import HttpSettings
from adapters.invokers.lambda_calls.settings import LambdaSettings
from poller.clock import LoopClock
from poller.plugins import Environment
from poller.ports import Invoker
from tests.adapters.invokers.functions.plain import act_on_loop


@asynccontextmanager
async def environment(**given: Any) -> AsyncIterator[Environment]:
    """What the daemon would hand to a plug-in."""
    env = Environment(LoopClock(), **given)
    try:
        yield env
    finally:
        await env.shared.close()


@asynccontextmanager
async def served(app: web.Application) -> AsyncIterator[str]:
    """Serves `app` on loopback; yields its URL without a slash at the end."""
    runner = web.AppRunner(app, handler_cancellation=True, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        yield "http://{}:{}".format(*runner.addresses[0][:2])
    finally:
        await runner.cleanup()


async def emulated(request: web.Request) -> web.Response:
    """Answers as a Lambda runtime interface emulator does: 200, whatever the function did."""
    event = json.loads(await request.read())
    if event["do"] == "throttle":
        return web.Response(status=429, headers={"Retry-After": "7"})
    try:
        result = await act_on_loop(event, None)
    except ValueError as error:
        result = {"errorType": type(error).__name__, "errorMessage": str(error), "stackTrace": []}
    return web.Response(body=b"" if result is None else json.dumps(result).encode())


@asynccontextmanager
async def python_on_loop(**settings: Any) -> AsyncIterator[Invoker]:
    """An asynchronous Python function."""
    handler = "tests.adapters.invokers.functions.plain:act_on_loop"
    given = python.PythonSettings.model_validate({"function": "orders", "handler": handler, **settings})
    async with environment() as env, python.open_python(given, env) as invoker:
        yield invoker


@asynccontextmanager
async def python_in_threads(**settings: Any) -> AsyncIterator[Invoker]:
    """A synchronous Python function whose code is safe in threads."""
    given = {"handler": "tests.adapters.invokers.functions.plain:act", "workers": 4, **settings}
    async with python_on_loop(**given) as invoker:
        yield invoker


@asynccontextmanager
async def python_in_processes(**settings: Any) -> AsyncIterator[Invoker]:
    """A synchronous Python function in processes of the daemon's own."""
    handler = "tests.adapters.invokers.functions.plain:act"
    given = {"handler": handler, "isolation": "process", "processes": 4, **settings}
    async with python_on_loop(**given) as invoker:
        yield invoker


@asynccontextmanager
async def behind_url(**settings: Any) -> AsyncIterator[Invoker]:
    """A function behind a server that answers like a runtime interface emulator."""
    app = web.Application(client_max_size=2**24)
    app.router.add_post("/2015-03-31/functions/function/invocations", emulated)
    async with served(app) as url, environment() as env:
        path = f"{url}/2015-03-31/functions/function/invocations"
        given = HttpSettings.model_validate({"function": "orders", "url": path, **settings})
        async with http.open_http(given, env) as invoker:
            yield invoker


@asynccontextmanager
async def in_processes(**settings: Any) -> AsyncIterator[Invoker]:
    """A function run by awslambdaric in processes."""
    command = [sys.executable, "-m", "awslambdaric", "tests.adapters.invokers.functions.plain.act"]
    given = ProcessSettings.model_validate({"function": "orders", "command": command, **settings})
    async with environment() as env, process.open_process(given, env) as invoker:
        yield invoker


async def lambda_service(request: web.Request) -> web.Response:
    """Answers as Lambda's Invoke does: failures of the function are a 200 with a header."""
    event = json.loads(await request.read())
    if event["do"] == "refuse":
        headers = {"x-amzn-errortype": event["code"], "Retry-After": "7"}
        return web.json_response({"message": "no"}, status=event["status"], headers=headers)
    headers = {"X-Amz-Executed-Version": "$LATEST"}
    try:
        result = await act_on_loop(event, None)
    except ValueError as error:
        headers["X-Amz-Function-Error"] = "Unhandled"
        result = {"errorMessage": str(error), "errorType": type(error).__name__}
    return web.json_response(result, headers=headers)


@asynccontextmanager
async def on_lambda(**settings: Any) -> AsyncIterator[Invoker]:
    """A function behind a server that answers like Lambda."""
    app = web.Application(client_max_size=2**24)
    app.router.add_post("/2015-03-31/functions/{function}/invocations", lambda_service)
    given = LambdaSettings.model_validate({"function": "orders", **settings})
    async with (
        served(app) as url,
        environment(endpoint_urls={"lambda": url}) as env,
        lambda_api.open_lambda(given, env) as invoker,
    ):
        yield invoker
