"""Owns how functions look in the answers of Lambda's API. What nobody has configured is left out."""

import math
import re
from collections.abc import Sequence
from typing import Any

from adapters.control.mappings.paging import constraint, headed
from adapters.control.query_string import first
from poller.domain.functions.alias_control import VersionView
from poller.domain.functions.calls import FunctionView
from poller.domain.mapping_api import ApiError, ApiErrorType
from poller.domain.untrusted.numbers import whole
from poller.domain.untrusted.texts import line_of

PAGE_MAX = 50
ITEMS_MAX = 10_000
REASON_CHARS_MAX = 300
LATEST = "$LATEST"
BAD_MARKER = "Invalid Marker: it is not one of an earlier answer"
MARKER_PATTERN = r"([0-9a-f]{2}){0,512}"
"""The bytes of the last name of a page."""


def configuration(view: FunctionView, version: VersionView | None = None, arn: str = "") -> dict[str, Any]:
    """Returns the FunctionConfiguration of a function, or of one version of it. `arn` is the ARN by which it was asked for."""
    shown = version or view
    found: dict[str, Any] = {
        "FunctionName": view.name,
        "FunctionArn": arn or view.arn,
        "Role": view.role,
        "Handler": shown.handler,
        "Description": (version.description if version is not None else "")
        or f"called by poller through its invoker {shown.invoker}",
        "Timeout": math.ceil(shown.timeout_s),
        "MemorySize": view.memory_mb,
        "Version": version.number if version is not None else LATEST,
        "State": "Failed" if shown.trouble else "Active",
        "StateReason": line_of(shown.trouble, chars_max=REASON_CHARS_MAX),
        "LastUpdateStatus": "Successful",
    }
    return {name: value for name, value in found.items() if value not in ("", None)}


def function(view: FunctionView, version: VersionView | None = None, arn: str = "") -> dict[str, Any]:
    """Returns the answer to GetFunction, for a function or for one version of it."""
    found: dict[str, Any] = {"Configuration": configuration(view, version, arn), "Code": {}, "Tags": {}}
    if view.max_concurrency is not None:
        found["Concurrency"] = {"ReservedConcurrentExecutions": view.max_concurrency}
    return found


def page(views: Sequence[FunctionView], target: str) -> dict[str, Any]:
    """Returns the page of functions that a request's target asks for; raises ApiError."""
    version = first(target, "FunctionVersion")
    wrong = [] if version in {None, "ALL"} else [_not_all(str(version))]
    count, begin = page_size(target, wrong), after(first(target, "Marker") or "")
    left = [view for view in views if view.name.encode() > begin]
    shown = left[:count]
    more = {"NextMarker": shown[-1].name.encode().hex()} if len(left) > count else {}
    return {"Functions": [configuration(view) for view in shown], **more}


def page_size(target: str, wrong: Sequence[str] = ()) -> int:
    """Returns how many items a page has at most; raises ApiError for that and for what is `wrong` beside it."""
    items, found = first(target, "MaxItems"), list(wrong)
    wanted = PAGE_MAX if items is None else whole(items, least=1, most=ITEMS_MAX, default=None)
    if items is not None and wanted is None:
        found.append(constraint("maxItems", items, f"be a whole number from 1 to {ITEMS_MAX}"))
    if found:
        raise ApiError(ApiErrorType.VALIDATION, headed(found))
    return min(PAGE_MAX, wanted or PAGE_MAX)


def after(marker: str) -> bytes:
    """Returns the name behind which a page begins; raises ApiError."""
    if not re.fullmatch(MARKER_PATTERN, marker):
        raise ApiError(ApiErrorType.PARAMETER, BAD_MARKER)
    return bytes.fromhex(marker)


def _not_all(version: str) -> str:
    return constraint("functionVersion", version, "satisfy enum value set: [ALL]")
