"""An asynchronous function for an SQS queue of orders, which handles the messages of a batch side by side."""

import asyncio
import json
from typing import Any


async def handler(event: dict[str, Any], _context: Any) -> dict[str, Any]:
    """Accepts every order; with ReportBatchItemFailures only the messages that failed become visible again."""
    async with asyncio.TaskGroup() as tasks:
        accepted = [tasks.create_task(accept(message)) for message in event["Records"]]
    failed = [task.result() for task in accepted if task.result() is not None]
    return {"batchItemFailures": [{"itemIdentifier": message_id} for message_id in failed]}


async def accept(message: dict[str, Any]) -> str | None:
    """The id of a message that could not be accepted, else None."""
    try:
        order = json.loads(message["body"])
        print(f"order {order['id']} accepted")
    except (ValueError, KeyError):
        identifier: str = message["messageId"]
        return identifier
    return None
