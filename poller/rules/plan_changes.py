"""Owns the report about a reload: how the new configuration differs from the one that ran.

Settings of functions and sources belong to plug-ins and may be secret. They are reported by name, without their values.
"""

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from poller.domain.member_changes import changes_between, field_changes, several
from poller.domain.plan import DaemonPlan, FunctionPlan, MappingPlan
from poller.domain.records import MappingId

TOLD_BY_MEMBER = frozenset(
    {
        "mapping",
        "kind",
        "source_arn",
        "function",
        "enabled",
        "batch",
        "retry",
        "stream",
        "discard",
        "scaling",
        "filters",
        "source_settings",
        "queue",
    }
)
"""Fields of a mapping that are not compared: the mapping's members in AWS's names are compared in their place, source settings by name."""


def plan_changes(before: DaemonPlan, after: DaemonPlan) -> tuple[str, ...]:
    """One line for each thing that is new, gone or different."""
    lines = [f"{name}: {said}" for name, said in _daemon(before, after).items()]
    lines += _functions(before.functions, after.functions)
    lines += _mappings(before, after)
    return several(lines)


def _daemon(before: DaemonPlan, after: DaemonPlan) -> dict[str, str]:
    own = field_changes(
        before,
        after,
        apart=frozenset(
            {"worker", "store", "store_settings", "functions", "mappings", "documents", "tuning", "resources"}
        ),
    )
    tuning = field_changes(before.tuning, after.tuning)
    return own | {f"tuning.{name}": said for name, said in tuning.items()}


def _functions(before: Mapping[str, FunctionPlan], after: Mapping[str, FunctionPlan]) -> list[str]:
    lines = [f"functions.{name}: removed" for name in before if name not in after]
    for name, function in after.items():
        old = before.get(name)
        if old is None:
            lines.append(f"functions.{name}: added")
            continue
        said = field_changes(
            old, function, apart=frozenset({"settings", "rate", "breaker", "versions", "aliases"})
        )
        lines += [f"functions.{name}.{field}: {change}" for field, change in said.items()]
        for field, earlier, later in (
            ("versions", old.versions, function.versions),
            ("aliases", old.aliases, function.aliases),
        ):
            lines += [f"functions.{name}.{field}.{each}" for each in _entries(earlier, later)]
        lines += [f"functions.{name}.{each}" for each in changes_between(_flow(old), _flow(function))]
        lines += [
            f"functions.{name}.{field}: changed" for field in _differing(old.settings, function.settings)
        ]
    return lines


def _entries(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[str]:
    """Which entries are new, gone or different, without their values."""
    return [
        f"{name}: {'added' if name not in before else 'removed' if name not in after else 'changed'}"
        for name in _differing(before, after)
    ]


def _flow(function: FunctionPlan) -> Mapping[str, Any]:
    """The function's rate and breaker as they are written in the file."""
    given = {"rate": function.rate, "breaker": function.breaker}
    return {name: asdict(each) for name, each in given.items() if each is not None}


def _mappings(before: DaemonPlan, after: DaemonPlan) -> list[str]:
    old = {each.mapping: each for each in before.mappings}
    new = {each.mapping: each for each in after.mappings}
    lines = [f"mapping {_named(each)}: removed" for each in before.mappings if each.mapping not in new]
    for mapping in after.mappings:
        earlier = old.get(mapping.mapping)
        if earlier is None:
            lines.append(f"mapping {_named(mapping)}: added")
            continue
        document, documented = (_document(plan, mapping.mapping) for plan in (before, after))
        said = [*changes_between(document, documented)]
        own = field_changes(earlier, mapping, apart=TOLD_BY_MEMBER)
        own |= field_changes(earlier.discard, mapping.discard, apart=frozenset({"destination"}))
        own |= field_changes(earlier.queue, mapping.queue)
        said += [f"{field}: {change}" for field, change in own.items()]
        said += [
            f"source.{name}: changed" for name in _differing(earlier.source_settings, mapping.source_settings)
        ]
        lines += [f"mapping {_named(mapping)}: {each}" for each in said]
    return lines


def _document(plan: DaemonPlan, mapping: MappingId) -> Mapping[str, Any]:
    return plan.documents.get(mapping, {})


def _named(mapping: MappingPlan) -> str:
    return f"{mapping.mapping} ({mapping.function} ← {mapping.source_arn.split(':', 5)[-1]})"


def _differing(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[str]:
    return sorted(name for name in {*before, *after} if before.get(name) != after.get(name))
