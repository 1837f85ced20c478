"""Owns how aliases and versions look in the answers of Lambda's API (aws-behaviour#aliases)."""

from collections.abc import Callable, Sequence
from typing import Any

from adapters.control.aliases.alias_requests import wrong_version
from adapters.control.invoke.function_documents import LATEST, after, configuration, page_size
from adapters.control.query_string import first
from poller.domain.arns import FunctionName
from poller.domain.functions.alias_control import AliasControl, AliasView, VersionView
from poller.domain.functions.calls import FunctionCaller, FunctionView
from poller.domain.mapping_api import ApiError, ApiErrorType
from poller.domain.untrusted.numbers import whole

VERSION_MAX = 10**18
"""Numbers of versions have 18 digits at most."""


def alias(view: AliasView) -> dict[str, Any]:
    """Returns the AliasConfiguration of an alias. An alias to one version has no RoutingConfig."""
    found: dict[str, Any] = {
        "AliasArn": view.arn,
        "Name": view.name,
        "FunctionVersion": view.version,
        "Description": view.description,
    }
    if view.weights:
        found["RoutingConfig"] = {"AdditionalVersionWeights": dict(view.weights)}
    return found | {"RevisionId": view.revision_id}


def aliases_page(control: AliasControl, function: str, target: str) -> dict[str, Any]:
    """Returns the page of aliases that a request's target asks for; raises ApiError."""
    version = first(target, "FunctionVersion")
    count, begin = page_size(target, wrong_version(version)), after(first(target, "Marker") or "")
    left = [view for view in control.aliases(function, version=version or "") if view.name.encode() > begin]
    return _page("Aliases", left, count, alias, lambda view: view.name)


def versions_page(control: AliasControl, view: FunctionView, function: str, target: str) -> dict[str, Any]:
    """Returns the page of versions that a request's target asks for, $LATEST first; raises ApiError."""
    count, begin = page_size(target), after(first(target, "Marker") or "").decode(errors="replace")
    # The version at the end of the page before may be gone from the file by now.
    behind = _place(begin) if begin else -1
    left = [each for each in control.versions(function) if _place(each.number) > behind]
    return _page(
        "Versions", left, count, lambda each: configuration(view, each, each.arn), lambda each: each.number
    )


def version_of(
    caller: FunctionCaller, view: FunctionView, name: str, qualifier: str
) -> tuple[VersionView | None, str]:
    """Returns the version to which the name or the qualifier beside it leads, and the ARN with that qualifier.

    What leads to the latest version, or to one that only AWS knows, gives None and the ARN without a qualifier.
    """
    wanted = FunctionName.parse(name).qualifier or qualifier
    if wanted in {"", LATEST}:
        return None, view.arn
    control = caller.aliases
    versions = {each.number: each for each in control.versions(view.name)}
    found = versions.get(wanted) or versions.get(_led_to(control, view.name, wanted))
    return (None, view.arn) if found is None else (found, f"{view.arn}:{wanted}")


def _led_to(control: AliasControl, function: str, name: str) -> str:
    """The version of an alias; empty if there is no such alias here."""
    try:
        return control.alias(function, name).version
    except ApiError as error:
        if error.fault is not ApiErrorType.MISSING:
            raise
        return ""


def _place(version: str) -> int:
    """Where a version comes in a list: $LATEST first. What is no version comes at the end."""
    return 0 if version == LATEST else whole(version, least=1, most=VERSION_MAX, default=VERSION_MAX + 1)


def _page[Item](
    name: str,
    left: Sequence[Item],
    count: int,
    document: Callable[[Item], dict[str, Any]],
    key: Callable[[Item], str],
) -> dict[str, Any]:
    shown = left[:count]
    more = {"NextMarker": key(shown[-1]).encode().hex()} if len(left) > count else {}
    return {name: [document(each) for each in shown], **more}
