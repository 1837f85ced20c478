"""Owns the functions of a crowd: one notes how late its records are, the others are in trouble."""

import asyncio
import base64
import json
import os
import time
from collections.abc import Iterator
from functools import cache
from typing import IO, Any

LATENCIES = "BENCHMARK_CROWD"
"""The environment variable that names the file to which `timed` writes: name of the source and seconds, a line for each record."""
SLOW_S = 2.0


@cache
def _notes() -> IO[str]:
    return open(os.environ[LATENCIES], "a", buffering=1 << 13)


async def timed(event: dict[str, Any], _context: object) -> None:
    """Notes how long each record was on its way."""
    now = time.time()
    source = event["Records"][0]["eventSourceARN"].rpartition("-")[2]
    _notes().writelines(f"{source} {now - sent}\n" for sent in _sent(event))


async def failing(_event: object, _context: object) -> None:
    """Fails always: a shard is blocked."""
    raise ValueError("a record is bad")


async def slow(_event: object, _context: object) -> None:
    """Takes its time."""
    await asyncio.sleep(SLOW_S)


def _sent(event: dict[str, Any]) -> Iterator[float]:
    for record in event["Records"]:
        body = base64.b64decode(record["kinesis"]["data"]) if "kinesis" in record else record["body"]
        yield json.loads(body)["sent"]
