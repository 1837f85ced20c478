"""A user's function for the queue tests: it writes down what it got, and reports what it cannot process and what follows.

Bodies are `group:number`; `group:number:bad` cannot be processed. The environment variable QUEUE_JOURNAL names the journal: lines of
JSON, each written in one piece, so that a killed daemon leaves whole lines.
"""

import asyncio
import json
import os
import random
from typing import Any

JOURNAL = "QUEUE_JOURNAL"
SLOW_S = 0.04


async def handle(event: dict[str, Any], context: Any) -> dict[str, Any]:
    """Processes a batch of messages of several groups."""
    bodies = [record["body"] for record in event["Records"]]
    _write({"pid": os.getpid(), "request": context.aws_request_id, "got": bodies})
    await asyncio.sleep(random.uniform(0.0, SLOW_S))
    failed = _failed(bodies)
    done = [body for body in bodies if body not in failed]
    _write({"pid": os.getpid(), "request": context.aws_request_id, "done": done})
    names = {record["body"]: record["messageId"] for record in event["Records"]}
    return {"batchItemFailures": [{"itemIdentifier": names[body]} for body in failed]}


def _failed(bodies: list[str]) -> list[str]:
    """The bad ones and, in their groups, all behind them."""
    blocked: set[str] = set()
    failed: list[str] = []
    for body in bodies:
        group = body.split(":")[0]
        if group in blocked or body.endswith(":bad"):
            blocked.add(group)
            failed.append(body)
    return failed


def _write(line: dict[str, Any]) -> None:
    journal = os.open(os.environ[JOURNAL], os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    try:
        os.write(journal, json.dumps(line).encode() + b"\n")
    finally:
        os.close(journal)
