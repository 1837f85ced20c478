"""Owns what all sections of the configuration have in common."""

from pydantic import BaseModel, ConfigDict


class Section(BaseModel):
    """Base of the sections of the configuration: unknown names are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True)
