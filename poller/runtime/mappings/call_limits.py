"""Owns how many calls of a function can run at once."""

from poller.config.plugin_specs import function_of
from poller.domain.plan import CallLimit, FunctionPlan
from poller.plugins import Registry, validated


def call_limit(plan: FunctionPlan, invoker: CallLimit | None) -> CallLimit:
    """How many calls of a function can run at once, by its own limit and by its invoker's (None: the invoker has none)."""
    return (invoker or CallLimit(None, "no limit")).within(plan.max_concurrency)


def configured_call_limit(plan: FunctionPlan, registry: Registry) -> CallLimit:
    """How many calls of a function can run at once, as far as its settings show. Raises InvalidConfiguration."""
    part = function_of(plan)
    plugin = registry.plugin(part.kind, part.name)
    if plugin.call_limit is None:
        return call_limit(plan, None)
    settings = validated(plugin, part.settings(plugin.settings), place=f"functions.{plan.name}")
    return call_limit(plan, plugin.call_limit(settings))
