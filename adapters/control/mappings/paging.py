"""Owns the pages of a list: which mappings a filter matches, and the markers that lead from one page to the next.

A list is in the order of ids, and a marker contains the last id of its page. So mappings that are made or deleted between two
pages neither repeat nor hide others.
"""

import base64
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from uuid import UUID

from adapters.control.aws_errors import RejectionType, RequestRejected
from adapters.control.mappings.mapping_document import function_of
from adapters.control.query_string import first
from poller.config.members import ARN_CHARS_MAX
from poller.domain.arns import FUNCTION_NAME_CHARS_MAX, FunctionName
from poller.domain.mapping_api import ApiError, ApiErrorType, MappingView
from poller.domain.records import MappingId
from poller.domain.untrusted.texts import cut

PAGE_MAX = 100
ITEMS_MAX = 10_000
BAD_MARKER = "The marker is not valid; take it from the NextMarker of an answer."
MARKER_PATTERN = r"[A-Za-z0-9_-]{21}[AQgw]"
"""The 16 bytes of a UUID in base 64."""

# These patterns are copied from AWS's API model, since AWS's error texts show them.
FUNCTION_PATTERN = (
    r"(arn:(aws[a-zA-Z-]*)?:lambda:)?((eusc-)?[a-z]{2}((-gov)|(-iso([a-z]?)))?-[a-z]+-\d{1}:)?(\d{12}:)?(function:)?"
    r"([a-zA-Z0-9-_\.]+)(:(\$LATEST(\.PUBLISHED)?|[a-zA-Z0-9-_]+))?"
)
ARN_PATTERN = r"arn:(aws[a-zA-Z0-9-]*):([a-zA-Z0-9\-])+:((eusc-)?[a-z]{2}((-gov)|(-iso([a-z]?)))?-[a-z]+-\d{1})?:(\d{12})?:(.*)"


@dataclass(frozen=True, slots=True, kw_only=True)
class Query:
    """The parameters of a list request; the page begins with the first id above `after`."""

    source_arn: str | None = None
    function: str | None = None
    after: str = ""
    items_max: int = PAGE_MAX


@dataclass(frozen=True, slots=True)
class Page:
    """One page, and the marker of the next one; None if this is the last."""

    views: Sequence[MappingView]
    marker: str | None


def query(target: str) -> Query:
    """Parses the query of a list request; raises ApiError and RequestRejected."""
    source, function = first(target, "EventSourceArn") or None, first(target, "FunctionName")
    items = _whole(first(target, "MaxItems"))
    found = [
        *unlike("eventSourceArn", source, ARN_PATTERN, ARN_CHARS_MAX),
        *unlike("functionName", function, FUNCTION_PATTERN, FUNCTION_NAME_CHARS_MAX),
        *_range("maxItems", items),
    ]
    if found:
        raise ApiError(ApiErrorType.VALIDATION, headed(found))
    marker = first(target, "Marker")
    return Query(
        source_arn=source,
        function=function,
        after=_after(marker) if marker else "",
        items_max=min(items or PAGE_MAX, PAGE_MAX),
    )


def page(views: Iterable[MappingView], asked: Query) -> Page:
    """Returns one page of the mappings that match, in the order of their ids."""
    matching = sorted(
        (view for view in views if view.mapping > asked.after and matches(view, asked)),
        key=lambda view: view.mapping,
    )
    shown = matching[: asked.items_max]
    more = len(matching) > len(shown)
    return Page(shown, marker(shown[-1].mapping) if more else None)


def matches(view: MappingView, asked: Query) -> bool:
    """Whether a mapping has this source ARN, and this function with the same qualifier (aws-behaviour#pages-of-a-list)."""
    if asked.source_arn is not None and view.parameters.get("EventSourceArn") != asked.source_arn:
        return False
    return asked.function is None or _is_function(function_of(view), asked.function)


def marker(mapping: MappingId) -> str:
    """Returns the marker of a page that begins after a mapping."""
    return base64.urlsafe_b64encode(UUID(mapping).bytes).decode().rstrip("=")


def headed(constraints: Sequence[str]) -> str:
    """Returns AWS's text for all violations of the API model by one request."""
    noun = "error" if len(constraints) == 1 else "errors"
    return f"{len(constraints)} validation {noun} detected: {'; '.join(constraints)}"


def constraint(field: str, value: str, must: str) -> str:
    """Returns AWS's text for one violation of the API model."""
    shown = cut(value, FUNCTION_NAME_CHARS_MAX)
    return f"Value '{shown}' at '{field}' failed to satisfy constraint: Member must {must}"


def unlike(field: str, value: str | None, pattern: str, chars_max: int) -> list[str]:
    """Returns AWS's texts for a value that does not fit a pattern or has more than `chars_max` characters; None fits."""
    if value is None:
        return []
    found = []
    if not value:
        found.append(constraint(field, value, "have length greater than or equal to 1"))
    if len(value) > chars_max:
        found.append(constraint(field, value, f"have length less than or equal to {chars_max}"))
    elif not re.fullmatch(pattern, value, re.ASCII):
        found.append(constraint(field, value, f"satisfy regular expression pattern: {pattern}"))
    return found


def _is_function(known: FunctionName, asked: str) -> bool:
    try:
        name = FunctionName.parse(asked)
    except ValueError:
        return False
    return (
        known.name == name.name
        and known.qualifier == name.qualifier
        and name.account in {"", known.account}
        and name.region in {"", known.region}
    )


def _after(text: str) -> str:
    if not re.fullmatch(MARKER_PATTERN, text, re.ASCII):
        raise ApiError(ApiErrorType.PARAMETER, BAD_MARKER)
    return str(UUID(bytes=base64.urlsafe_b64decode(text + "==")))


def _whole(text: str | None) -> int | None:
    if text is None:
        return None
    if not re.fullmatch(r"[-+]?[0-9]{1,18}", text, re.ASCII):
        raise RequestRejected(RejectionType.SERIALIZATION, "STRING_VALUE can not be converted to an Integer")
    return int(text)


def _range(field: str, value: int | None) -> list[str]:
    if value is None or 1 <= value <= ITEMS_MAX:
        return []
    must = (
        "have value greater than or equal to 1"
        if value < 1
        else f"have value less than or equal to {ITEMS_MAX}"
    )
    return [constraint(field, str(value), must)]
