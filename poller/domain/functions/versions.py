"""Owns the versions and aliases of functions as the configuration has them."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

VERSIONS_MAX = 1000
"""Versions and aliases that a function may have."""


@dataclass(frozen=True, slots=True, kw_only=True)
class VersionPlan:
    """One version of a function: how it differs from the function's own settings.

    `settings` are those of the invoker, already laid over the function's own. `timeout_s` None: the function's.
    """

    number: str
    invoker: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    timeout_s: float | None = None
    description: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class AliasPlan:
    """Where an alias leads: to `version`, but the share `weights[OTHER]` of the calls (above 0, below 1) to another one.

    There is one other version at most, as on Lambda (aws-behaviour#aliases).
    """

    version: str
    weights: Mapping[str, float] = field(default_factory=dict)
    description: str = ""
