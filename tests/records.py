"""Owns records built from the form that services send them in."""

from adapters.sources.dynamodb_streams import read_record
from poller.domain.records import DynamoRecord, Epoch, JsonObject


def dynamo_record(wire: JsonObject) -> DynamoRecord:
    """The record that GetRecords sends in this form."""
    return read_record(wire, Epoch(0.0))
