"""Owns the checks of tag requests: which mapping an ARN names, and which tags are valid."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from adapters.control.mappings.mapping_document import mapping_arn
from adapters.control.mappings.paging import constraint, headed
from poller.config.members import ARN_CHARS_MAX, TAG_KEY_CHARS_MAX, TAG_VALUE_CHARS_MAX
from poller.domain.mapping_api import ApiError, ApiErrorType, MappingView
from poller.domain.untrusted.texts import cut

# AWS's error texts show this pattern, which is not the one of its API model (aws-behaviour#tags-of-a-mapping).
RESOURCE_PATTERN = (
    r"arn:(aws[a-zA-Z-]*):lambda:(eusc-)?[a-z]{2}((-gov)|(-iso([a-z]?)))?-[a-z]+-\d{1}:\d{12}:"
    r"(function:[a-zA-Z0-9-_]+(:(\$LATEST|[a-zA-Z0-9-_]+))?|layer:([a-zA-Z0-9-_]+)|code-signing-config:csc-[a-z0-9]{17}|"
    r"event-source-mapping:[0-9a-fA-F]{8}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{12}|"
    r"capacity-provider:[a-zA-Z0-9-_]+)"
)
_NULL = "Value null at '{}' failed to satisfy constraint: Member must not be null"


def mapping_with_arn(views: Sequence[MappingView], arn: str) -> MappingView:
    """Returns the mapping that an ARN names, whatever the case of its letters; raises ApiError with AWS's text."""
    if len(arn) > ARN_CHARS_MAX or not re.fullmatch(RESOURCE_PATTERN, arn, re.ASCII):
        must = f"satisfy regular expression pattern: {RESOURCE_PATTERN}"
        raise ApiError(ApiErrorType.VALIDATION, headed([constraint("resource", arn, must)]))
    wanted = arn.lower()
    for view in views:
        if mapping_arn(view).lower() == wanted:
            return view
    kind = "Event source mapping" if ":event-source-mapping:" in arn else "Resource"
    raise ApiError(ApiErrorType.MISSING, f"{kind} not found: {arn}")


def valid_tags(request: Mapping[str, Any]) -> dict[str, str]:
    """Returns the tags of a request; raises ApiError if one is not valid."""
    tags: dict[str, str] | None = request.get("Tags")
    if tags is None:
        raise ApiError(ApiErrorType.VALIDATION, headed([_NULL.format("tags")]))
    shown = "{" + ", ".join(f"{key}={value}" for key, value in tags.items()) + "}"
    wrong = []
    if any(not 1 <= len(key) <= TAG_KEY_CHARS_MAX for key in tags):
        wrong.append(_map_constraint(shown, "keys", TAG_KEY_CHARS_MAX, least=1))
    if any(len(value) > TAG_VALUE_CHARS_MAX for value in tags.values()):
        wrong.append(_map_constraint(shown, "value", TAG_VALUE_CHARS_MAX, least=0))
    if wrong:
        raise ApiError(ApiErrorType.VALIDATION, headed(wrong))
    return tags


def valid_tag_keys(keys: Sequence[str]) -> tuple[str, ...]:
    """Returns the different keys of a request; raises ApiError if there are none."""
    if not keys:
        raise ApiError(ApiErrorType.VALIDATION, headed([_NULL.format("tagKeys")]))
    return tuple(dict.fromkeys(keys))


def _map_constraint(shown: str, what: str, most: int, *, least: int) -> str:
    bounds = f"Member must have length less than or equal to {most}, Member must have length greater than or equal to {least}"
    return f"Value '{cut(shown, TAG_VALUE_CHARS_MAX)}' at 'tags' failed to satisfy constraint: Map {what} must satisfy constraint: [{bounds}]"
