"""Owns records built from the form that services send them in."""

import json

import msgspec

from poller.records import DynamoRecord, JsonObject


def dynamo_record(wire: JsonObject) -> DynamoRecord:
    """A DynamoDB record as GetRecords sends it."""
    return msgspec.json.decode(json.dumps(wire, separators=(",", ":")).encode(), type=DynamoRecord)
