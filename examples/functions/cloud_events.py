"""A function that takes CloudEvents in each mode: run it with `python -m examples.functions.cloud_events`.

functions:
  payments: {invoker: http, url: "http://127.0.0.1:9001/", cloud_events: batched}

With `WEBHOOK_SECRET` in its environment, the secret of the entry's `signature`, it takes signed requests only.
"""

import base64
import hmac
import json
import os
import time
from typing import Any

from aiohttp import web

PORT = 9001
BODY_BYTES_MAX = 8 * 1024 * 1024
TOLERANCE_S = 300
"""How old a signature may be."""


async def payments(request: web.Request) -> web.Response:
    """Takes the events of a request, and reports by their ids those that it could not take."""
    body = await request.read()
    secret = os.environ.get("WEBHOOK_SECRET", "")
    if secret and not signed(request, body, secret):
        return web.Response(status=401, text="no valid signature")
    failed = [{"itemIdentifier": event["id"]} for event in events(request, body) if not taken(event)]
    return web.json_response({"batchItemFailures": failed})


def events(request: web.Request, body: bytes) -> list[dict[str, Any]]:
    """The events of a request, in whichever mode it is."""
    match request.content_type:
        case "application/cloudevents-batch+json":
            found: list[dict[str, Any]] = json.loads(body)
            return found
        case "application/cloudevents+json":
            return [json.loads(body)]
        case _:
            # A library of CloudEvents decodes the values of these headers, too.
            names = ("id", "source", "type")
            return [{**{name: request.headers[f"ce-{name}"] for name in names}, "data": json.loads(body)}]


def taken(event: dict[str, Any]) -> bool:
    """Does the work for one event. Returns whether it could be done."""
    print(f"{event['type']} {event['id']} of {event['source']}")
    return bool(event["data"])


def signed(request: web.Request, body: bytes, secret: str) -> bool:
    """Whether the request is signed with the secret, by the Standard Webhooks specification."""
    webhook_id = request.headers.get("webhook-id", "")
    moment = request.headers.get("webhook-timestamp", "")
    if not moment.isdigit() or abs(time.time() - int(moment)) > TOLERANCE_S:
        return False
    key = base64.b64decode(secret.removeprefix("whsec_"))
    digest = hmac.digest(key, f"{webhook_id}.{moment}.".encode() + body, "sha256")
    wanted = "v1," + base64.b64encode(digest).decode()
    given = request.headers.get("webhook-signature", "").split(" ")
    return any(hmac.compare_digest(wanted, each) for each in given)


def application() -> web.Application:
    """The server's routes."""
    app = web.Application(client_max_size=BODY_BYTES_MAX)
    app.router.add_post("/", payments)
    return app


if __name__ == "__main__":
    web.run_app(application(), host="127.0.0.1", port=PORT)
