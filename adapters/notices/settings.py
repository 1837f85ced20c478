"""Owns what all places of notices are opened with."""

from pydantic import BaseModel, ConfigDict, Field

from poller.domain.records import MappingId

DOCUMENT_BYTES_MAX = 20 * 1024 * 1024
"""A longer document is no notice: one event has 6 MB, or one record 14 MB as base64, and quotation marks are escaped."""


class PlaceSettings(BaseModel):
    """`place` is the ARN or URL as it was given, `hold_s` how long a notice must stay hidden from other readers once it was read."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    place: str
    mapping: MappingId
    hold_s: float = Field(default=900.0, gt=0)
