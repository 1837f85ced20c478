"""Owns the function of tests with operations: it writes down what it takes, and fails for all records while a file says so."""

import asyncio
import base64
import json
import os
import time
from pathlib import Path
from typing import Any

JOURNAL = "LONG_JOURNAL"
"""The environment variable with the path of the journal. Beside it, a file named `fails` makes each call fail."""
NAME = "LONG_WORKER"
TAKES_S = "LONG_TAKES_S"


async def take(event: dict[str, Any], _context: Any) -> None:
    """Takes the records, after the time that the environment says; one line for each call that did not fail, with when it began."""
    journal = Path(os.environ[JOURNAL])
    if (journal.parent / "fails").exists():
        raise ValueError("not now")
    began = time.time()
    await asyncio.sleep(float(os.environ.get(TAKES_S, "0")))
    line = [began, os.environ[NAME], [text_of(each) for each in event["Records"]]]
    target = os.open(journal, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    try:
        os.write(target, json.dumps(line).encode() + b"\n")
    finally:
        os.close(target)


def text_of(record: dict[str, Any]) -> str:
    """What was sent: a message's body, a Kinesis record's data, or an item's key."""
    match record["eventSource"]:
        case "aws:kinesis":
            return base64.b64decode(record["kinesis"]["data"]).decode()
        case "aws:dynamodb":
            key: str = record["dynamodb"]["Keys"]["pk"]["S"]
            return key
        case _:
            body: str = record["body"]
            return body
