"""Owns the function of tests with aggregated records: it reports the parts that a file names, and writes down what it is called with."""

import base64
import json
import os
from pathlib import Path
from typing import Any

from tests.acceptance.operations.journal_function import JOURNAL


def take(event: dict[str, Any], _context: Any) -> dict[str, Any]:
    """Reports the first record whose text the file `bad` beside the journal has, as SEQUENCE:PART; a text ends with the part's number."""
    journal = Path(os.environ[JOURNAL])
    records = [
        (each["kinesis"]["sequenceNumber"], base64.b64decode(each["kinesis"]["data"]).decode())
        for each in event["Records"]
    ]
    line = {"texts": [text for _, text in records], "source": event["Records"][0]["eventSourceARN"]}
    target = os.open(journal, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    try:
        os.write(target, json.dumps(line).encode() + b"\n")
    finally:
        os.close(target)
    bad = (journal.parent / "bad").read_text().split() if (journal.parent / "bad").exists() else []
    failed = [f"{number}:{text.rpartition('-')[2]}" for number, text in records if text in bad]
    return {"batchItemFailures": [{"itemIdentifier": each} for each in failed[:1]]}
