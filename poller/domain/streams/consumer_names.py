"""Owns the names of the consumers that mappings have of their own."""

from poller.domain.records import MappingId

PREFIX = "poller-"
"""The name of a mapping's own consumer begins with this. Consumers with other names are nobody's here, and are never removed."""


def consumer_name(mapping: MappingId) -> str:
    """The name of the consumer that a mapping has of its own."""
    return f"{PREFIX}{mapping}"
