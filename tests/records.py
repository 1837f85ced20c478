"""Owns records built from the form that services send them in."""

from adapters.sources.dynamodb_streams import read_by_hand as dynamo_record

__all__ = ["dynamo_record"]
