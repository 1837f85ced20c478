"""The functions of the benchmarks: one does nothing, one notes how long its records were on the way."""

import base64
import json
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

LATENCIES = "BENCHMARK_LATENCIES"
"""The environment variable that names the file to which `timed` writes, a line of seconds for each record."""


async def nothing(_event: object, _context: object) -> None:
    """Returns at once."""


async def timed(event: dict[str, Any], _context: object) -> None:
    """Notes for each record how long ago it was sent."""
    note(event, Path(os.environ[LATENCIES]))


def nothing_at_once(_event: object, _context: object) -> None:
    """Returns at once, for runtimes that have no event loop."""


def timed_at_once(event: dict[str, Any], _context: object) -> None:
    """Notes what `timed` does, for runtimes that have no event loop."""
    note(event, Path(os.environ[LATENCIES]))


def note(event: dict[str, Any], path: Path) -> None:
    """Writes for each record how many seconds ago it was sent."""
    now = time.time()
    with path.open("a") as file:
        file.writelines(f"{now - sent}\n" for sent in _sent(event))


def _sent(event: dict[str, Any]) -> Iterator[float]:
    for record in event["Records"]:
        body = base64.b64decode(record["kinesis"]["data"]) if "kinesis" in record else record["body"]
        yield json.loads(body)["sent"]


def taken(_event: bytes) -> None:
    """What the plain and the bare loop hand their events to."""
