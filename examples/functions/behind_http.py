"""A function behind HTTP: run it with `python -m examples.functions.behind_http` and give its URL to an entry.

functions:
  invoices: {invoker: http, url: "http://127.0.0.1:9000/"}
"""

import json

from aiohttp import web

PORT = 9000
EVENT_BYTES_MAX = 6 * 1024 * 1024


async def invoices(request: web.Request) -> web.Response:
    """Takes one event; an error document with type and message says that the function failed."""
    event = json.loads(await request.read())
    unknown = [record for record in event["Records"] if "eventID" not in record and "messageId" not in record]
    if unknown:
        return web.json_response(
            {"errorType": "UnknownRecord", "errorMessage": f"{len(unknown)} records of no kind"}
        )
    print(f"{request.headers['x-amzn-requestid']}: {len(event['Records'])} records")
    return web.Response()


def application() -> web.Application:
    """The server's routes."""
    app = web.Application(client_max_size=EVENT_BYTES_MAX)
    app.router.add_post("/", invoices)
    return app


if __name__ == "__main__":
    web.run_app(application(), host="127.0.0.1", port=PORT)
