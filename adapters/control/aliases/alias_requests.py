"""Owns how Lambda's requests about aliases are read: their members, and what AWS's API model refuses (aws-behaviour#aliases)."""

import re
from collections.abc import Mapping
from typing import Any

from adapters.control.mappings import request_members
from adapters.control.mappings.paging import constraint, headed, unlike
from adapters.control.mappings.request_members import MapOf, Structure
from poller.config.members import JsonType
from poller.domain.functions.alias_control import AliasChange
from poller.domain.mapping_api import ApiError, ApiErrorType

# These patterns are copied from AWS's API model, since AWS's error texts show them.
ALIAS_PATTERN = r"(?!^[0-9]+$)([a-zA-Z0-9-_]+)"
VERSION_PATTERN = r"(\$LATEST(\.PUBLISHED)?|[0-9]+)"
NUMBER_PATTERN = r"[0-9]+"
ALIAS_CHARS_MAX = 128
VERSION_CHARS_MAX = 1024
DESCRIPTION_CHARS_MAX = 256
WEIGHTS_FIELD = "routingConfig.additionalVersionWeights"
WEIGHTS_MAX = 1
"""Other versions that an alias may lead to."""
TOO_MANY = "Number of items in AdditionalVersionWeights cannot be greater than 1"
KEYS = (
    "Map keys must satisfy constraint: [Member must have length less than or equal to 1024, Member must have length greater than or equal "
    f"to 1, Member must satisfy regular expression pattern: {NUMBER_PATTERN}, Member must not be null]"
)
VALUES = (
    "Map value must satisfy constraint: [Member must have value less than or equal to 1.0, Member must have value greater than or equal "
    "to 0.0, Member must not be null]"
)
UPDATE: Structure = {
    "FunctionVersion": JsonType.TEXT,
    "Description": JsonType.TEXT,
    "RoutingConfig": {
        "AdditionalVersionWeights": MapOf(
            JsonType.NUMBER, "RoutingConfig.AdditionalVersionWeights", WEIGHTS_MAX, nulls=True
        )
    },
    "RevisionId": JsonType.TEXT,
}
CREATE: Structure = {
    "Name": JsonType.TEXT,
    **{name: UPDATE[name] for name in ("FunctionVersion", "Description", "RoutingConfig")},
}


def creation(body: bytes) -> tuple[str, AliasChange]:
    """Returns the name and the members of a new alias; raises ApiError, and what `request_members.read` raises."""
    given = request_members.read(body, CREATE)
    missing = [
        _null(field)
        for field, name in (("name", "Name"), ("functionVersion", "FunctionVersion"))
        if name not in given
    ]
    change = _change(given, [*missing, *wrong_alias(given.get("Name"))])
    return given["Name"], change


def update(body: bytes, alias: str) -> AliasChange:
    """Returns the members of a change of an alias; raises ApiError, and what `request_members.read` raises."""
    return _change(request_members.read(body, UPDATE), wrong_alias(alias))


def checked_alias(alias: str) -> str:
    """Returns the name of an alias; raises ApiError if it can be none."""
    if found := wrong_alias(alias):
        raise ApiError(ApiErrorType.VALIDATION, headed(found))
    return alias


def wrong_alias(name: str | None) -> list[str]:
    """Returns AWS's texts for what can be no name of an alias."""
    return unlike("name", name, ALIAS_PATTERN, ALIAS_CHARS_MAX)


def wrong_version(number: str | None) -> list[str]:
    """Returns AWS's texts for what can be no version."""
    return unlike("functionVersion", number, VERSION_PATTERN, VERSION_CHARS_MAX)


def _change(given: Mapping[str, Any], wrong: list[str]) -> AliasChange:
    version, description = given.get("FunctionVersion"), given.get("Description")
    routing = given.get("RoutingConfig")
    weights: dict[str, float] | None = (
        None if routing is None else routing.get("AdditionalVersionWeights", {})
    )
    found = [
        *wrong,
        *wrong_version(version),
        *_wrong_description(description),
        *_wrong_weights(weights or {}),
    ]
    if found:
        raise ApiError(ApiErrorType.VALIDATION, headed(found))
    if weights and len(weights) > WEIGHTS_MAX:
        raise ApiError(ApiErrorType.PARAMETER, TOO_MANY)
    return AliasChange(
        version=version, weights=weights, description=description, revision_id=given.get("RevisionId")
    )


def _null(field: str) -> str:
    return f"Value null at '{field}' failed to satisfy constraint: Member must not be null"


def _wrong_description(text: str | None) -> list[str]:
    if text is None or len(text) <= DESCRIPTION_CHARS_MAX:
        return []
    return [constraint("description", text, f"have length less than or equal to {DESCRIPTION_CHARS_MAX}")]


def _wrong_weights(weights: Mapping[str, float | None]) -> list[str]:
    """AWS's texts for the first weight that is wrong."""
    for version, weight in weights.items():
        value = "null" if weight is None else weight
        shown = constraint(WEIGHTS_FIELD, f"{{{version}={value}}}", "").removesuffix("Member must ")
        if len(version) > VERSION_CHARS_MAX or not re.fullmatch(NUMBER_PATTERN, version, re.ASCII):
            return [shown + KEYS]
        if weight is None or not 0 <= weight <= 1:
            return [shown + VALUES]
    return []
