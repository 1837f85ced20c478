"""Functions as Lambda has them: called with an event and a context, synchronous or not."""

import base64
import json
from typing import Any

Event = dict[str, Any]


def orders(event: Event, context: Any) -> None:
    """Takes orders from a Kinesis stream; an exception makes the whole batch be tried again."""
    for record in event["Records"]:
        order = json.loads(base64.b64decode(record["kinesis"]["data"]))
        print(f"order {order['id']} of {order['customer']}, {context.get_remaining_time_in_millis()} ms left")


async def stock(event: Event, context: Any) -> None:
    """Follows a table through its DynamoDB stream; runs on the daemon's loop, so it must not block."""
    for record in event["Records"]:
        print(f"{record['eventName']} {record['dynamodb']['Keys']}")


def mails(event: Event, context: Any) -> dict[str, Any]:
    """Takes messages from a queue and reports the failed ones alone (ReportBatchItemFailures)."""
    failed = []
    for record in event["Records"]:
        try:
            send(json.loads(record["body"]))
        except ValueError:
            failed.append({"itemIdentifier": record["messageId"]})
    return {"batchItemFailures": failed}


def send(mail: dict[str, Any]) -> None:
    """Raises ValueError for a mail without a recipient."""
    if "to" not in mail:
        raise ValueError("a mail needs a recipient")
    print(f"mail to {mail['to']}")
