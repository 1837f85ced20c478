"""Servers around `one_job`: a plain one, one like a runtime interface emulator, and a receiver of CloudEvents.

`python -m tests.acceptance.functions.job_server PORT` serves all three on 127.0.0.1.
"""

import asyncio
import json
import sys
from typing import Any

from aiohttp import web

from tests.acceptance.functions.one_job import Broken, handler, job

RUNTIME_INTERFACE = "/2015-03-31/functions/function/invocations"
BODY_BYTES_MAX = 8 * 1024 * 1024


async def plain(request: web.Request) -> web.Response:
    """A web server: what fails is a 500."""
    try:
        return web.json_response(await asyncio.to_thread(handler, await request.json(), None))
    except Broken as error:
        return web.Response(status=500, text=str(error))


async def emulated(request: web.Request) -> web.Response:
    """A runtime interface emulator: 200, whatever the function did."""
    try:
        return web.json_response(await asyncio.to_thread(handler, await request.json(), None))
    except Broken as error:
        document = {"errorMessage": str(error), "errorType": type(error).__name__, "stackTrace": []}
        return web.json_response(document)


async def cloud_events(request: web.Request) -> web.Response:
    """A receiver of batched CloudEvents, which knows a record by the id of its event alone."""
    assert request.content_type == "application/cloudevents-batch+json"
    events: list[dict[str, Any]] = json.loads(await request.read())
    try:
        report = await asyncio.to_thread(
            job, [event["data"] for event in events], [event["id"] for event in events]
        )
    except Broken as error:
        return web.Response(status=500, text=str(error))
    return web.json_response(report)


def application() -> web.Application:
    """The routes of all servers."""
    app = web.Application(client_max_size=BODY_BYTES_MAX)
    app.router.add_get("/", lambda _: _ready())
    app.router.add_post("/plain", plain)
    app.router.add_post(RUNTIME_INTERFACE, emulated)
    app.router.add_post("/cloud-events", cloud_events)
    return app


async def _ready() -> web.Response:
    return web.Response()


if __name__ == "__main__":
    web.run_app(application(), host="127.0.0.1", port=int(sys.argv[1]), print=lambda _: None)
