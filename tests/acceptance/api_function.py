"""A function for mappings made through the API: writes down what it was called with, and fails for poison."""

import base64
import json
import os
from pathlib import Path
from typing import Any

JOURNAL = "API_FUNCTION_JOURNAL"
POISON = "poison"


class Refusing(Exception):
    """The batch has a record that this function never takes."""


def handler(event: dict[str, Any], _context: Any) -> dict[str, Any]:
    """Appends a line for each call: the records' texts, and whether it fails."""
    texts = [text_of(record) for record in event["Records"]]
    fails = POISON in texts
    with Path(os.environ[JOURNAL]).open("a") as journal:
        journal.write(json.dumps({"texts": texts, "fails": fails}) + "\n")
    if fails:
        raise Refusing("a poison record")
    return {}


def refuse(_event: dict[str, Any], _context: Any) -> None:
    """Fails for every batch."""
    raise Refusing("any record")


def text_of(record: dict[str, Any]) -> str:
    """What was sent: a message's body, a Kinesis record's data, a table item's key."""
    match record["eventSource"]:
        case "aws:kinesis":
            return base64.b64decode(record["kinesis"]["data"]).decode()
        case "aws:dynamodb":
            key: str = record["dynamodb"]["Keys"]["pk"]["S"]
            return key
        case _:
            body: str = record["body"]
            return body
