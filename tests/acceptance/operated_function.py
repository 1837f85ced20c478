"""A function for the tests of operations: it fails while a record is bad, or while the file `broken` is in its folder, and keeps a journal."""

import base64
import os
from pathlib import Path
from typing import Any

FOLDER = "OPERATED_FOLDER"


def handle(event: dict[str, Any], _context: Any) -> None:
    """Takes a batch of records or messages; raises for a bad one."""
    folder = Path(os.environ[FOLDER])
    texts = [_text(record) for record in event["Records"]]
    if (folder / "broken").exists():
        raise RuntimeError("the database is away")
    bad = [text for text in texts if text.startswith("bad")]
    if bad:
        raise ValueError(f"cannot take {bad[0]}")
    with (folder / "journal").open("a", encoding="utf-8") as journal:
        journal.write("".join(f"{text}\n" for text in texts))


def _text(record: dict[str, Any]) -> str:
    if "kinesis" in record:
        return base64.b64decode(record["kinesis"]["data"]).decode()
    return str(record["body"])
