"""Owns what `poller check` shows of a function beside how it is called: its versions and aliases, and its asynchronous calls."""

from typing import Any

from poller.commands.check_live import shown_destination
from poller.domain.functions.queued_calls import AsyncPolicy
from poller.domain.functions.versions import AliasPlan
from poller.domain.plan import FunctionPlan
from poller.domain.wording.numbers_of import number_of

VERSIONS_MAX = 20
"""Versions and aliases that are listed on the page; the JSON has all."""


def qualified_lines(function: FunctionPlan) -> list[str]:
    """Lines for people; none for what is not configured."""
    lines = []
    if function.versions:
        lines.append(f"versions: {_some(list(function.versions))}")
    if function.aliases:
        lines.append(
            f"aliases of the file: {_some([_alias(name, each) for name, each in function.aliases.items()])}"
        )
    return lines + [
        f"asynchronous calls{f' of {qualifier}' if qualifier else ''}: {_async(policy)}"
        for qualifier, policy in _policies(function).items()
    ]


def qualified_row(function: FunctionPlan) -> dict[str, Any]:
    """The same as JSON; without what is not configured."""
    row: dict[str, Any] = {}
    if function.versions:
        row["versions"] = list(function.versions)
    if function.aliases:
        row["aliases"] = {
            name: {"version": each.version, "weights": dict(each.weights)}
            for name, each in function.aliases.items()
        }
    if policies := _policies(function):
        row["asynchronous_calls"] = {
            qualifier: {
                "retries_max": each.retries_max,
                "age_s_max": each.age_s_max,
                **{way: shown_destination(place) for way, place in _places(each)},
            }
            for qualifier, each in policies.items()
        }
    return row


def _policies(function: FunctionPlan) -> dict[str, AsyncPolicy]:
    """How asynchronous calls are tried, by qualifier, where the file says something about it."""
    latest = {"": function.async_policy("")} if function.dead_letter or function.async_policies else {}
    return latest | dict(function.async_policies)


def _alias(name: str, alias: AliasPlan) -> str:
    weights = "".join(f" ({share * 100:g} % to {other})" for other, share in alias.weights.items())
    return f"{name} to {alias.version}{weights}"


def _async(policy: AsyncPolicy) -> str:
    tries = number_of(policy.retries_max, "retry", "retries")
    places = [f", {way.replace('_', ' ')} {shown_destination(place)}" for way, place in _places(policy)]
    return f"{tries}, {policy.age_s_max} s of age{''.join(places)}"


def _places(policy: AsyncPolicy) -> list[tuple[str, str]]:
    ways = (
        ("on_success", policy.on_success),
        ("on_failure", policy.on_failure),
        ("dead_letter", policy.dead_letter),
    )
    return [(way, place) for way, place in ways if place]


def _some(texts: list[str]) -> str:
    left = len(texts) - VERSIONS_MAX
    return ", ".join(texts[:VERSIONS_MAX]) + (f", and {left} more" if left > 0 else "")
