"""The functions of the Compose file. A change here counts after `docker compose restart poller`."""

import base64
from typing import Any

Event = dict[str, list[dict[str, Any]]]


def mails(event: Event, context: object) -> dict[str, list[object]]:
    """Takes messages of the queue `mails`."""
    for record in event["Records"]:
        print("mail:", record["body"])
    return {"batchItemFailures": []}


def orders(event: Event, context: object) -> None:
    """Takes records of the stream `orders`."""
    for record in event["Records"]:
        print("order:", base64.b64decode(record["kinesis"]["data"]).decode())
