"""A function for a Kinesis stream of JSON readings, which reports where it failed."""

import base64
import json
from typing import Any


def handler(event: dict[str, Any], context: Any) -> dict[str, Any]:
    """Stores each reading, in order; with ReportBatchItemFailures only the rest of the batch comes again."""
    for record in event["Records"]:
        try:
            store(json.loads(base64.b64decode(record["kinesis"]["data"])))
        except (ValueError, KeyError) as error:
            print(f"{context.aws_request_id}: {type(error).__name__} in {record['eventID']}")
            return {"batchItemFailures": [{"itemIdentifier": record["kinesis"]["sequenceNumber"]}]}
    return {"batchItemFailures": []}


def store(reading: dict[str, Any]) -> None:
    """Where a real function would write the reading; it may see one twice, so writing must bear repetition."""
    print(f"{reading['sensor']} {reading['value']}")
