"""Owns the function that the replicas call: it writes down what it gets, when, and in which process."""

import asyncio
import base64
import json
import os
import time
from pathlib import Path
from typing import Any

JOURNAL = "REPLICA_JOURNAL"
NAME = "REPLICA_NAME"
TAKES_S = 0.1


async def record(event: dict[str, Any], _: Any) -> None:
    """Two lines for each invocation, at its beginning and at its end; a line is one write."""
    found = [each["kinesis"] for each in event["Records"]]
    items = [json.loads(base64.b64decode(each["data"])) for each in found]
    shard = event["Records"][0]["eventID"].partition(":")[0]
    _write("began", shard, items)
    await asyncio.sleep(TAKES_S)
    _write("ended", shard, items)


def _write(what: str, shard: str, items: list[Any]) -> None:
    line = [time.time(), os.environ[NAME], what, shard, [[each["key"], each["n"]] for each in items]]
    target = os.open(Path(os.environ[JOURNAL]), os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    try:
        os.write(target, json.dumps(line).encode() + b"\n")
    finally:
        os.close(target)
