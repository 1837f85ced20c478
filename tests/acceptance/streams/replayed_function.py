"""The functions for the tests of replays: each keeps a journal of its own. The one that a replay calls takes a while."""

import base64
import os
import time
from pathlib import Path
from typing import Any

FOLDER = "REPLAYED_FOLDER"
TAKES_S = 0.15


def ship(event: dict[str, Any], _context: Any) -> None:
    """Takes a batch of the mapping."""
    _write("ship", event)


def audit(event: dict[str, Any], _context: Any) -> None:
    """Takes a batch of a replay. Raises for a record that is bad while the file `strict` is there."""
    if (Path(os.environ[FOLDER]) / "strict").exists() and any(text.endswith(":33") for text in _texts(event)):
        raise ValueError("33 is bad")
    time.sleep(TAKES_S)
    _write("audit", event)


def _write(name: str, event: dict[str, Any]) -> None:
    with (Path(os.environ[FOLDER]) / name).open("a", encoding="utf-8") as journal:
        journal.write("".join(f"{text}\n" for text in _texts(event)))


def _texts(event: dict[str, Any]) -> list[str]:
    return [base64.b64decode(record["kinesis"]["data"]).decode() for record in event["Records"]]
