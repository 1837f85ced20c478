"""Owns what operators may do with functions while the daemon runs: close a breaker by hand."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from poller.domain.mapping_api import ApiError, ApiErrorType
from poller.domain.plan import FunctionPlan
from poller.domain.status import FunctionStatus
from poller.runtime.flow_control.flow_control import FlowControl
from poller.runtime.mappings.components import ComponentFactory

NAMES_SHOWN_MAX = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class FunctionContext:
    """The parts of the open daemon that the service needs.

    `plans` gives the configured functions. `flow` gives the rate and breaker of a function that is open here. `announce` makes
    the other workers close the breaker.
    """

    plans: Callable[[], Mapping[str, FunctionPlan]]
    flow: Callable[[str], FlowControl | None]
    announce: Callable[[str], None]


def function_context(
    components: ComponentFactory, plans: Callable[[], Mapping[str, FunctionPlan]]
) -> FunctionContext:
    """The context of a daemon with these parts."""

    def flow(name: str) -> FlowControl | None:
        return next((each for each in components.functions.flow_controls() if each.name == name), None)

    return FunctionContext(plans=plans, flow=flow, announce=components.sharing.announce_closed)


def function_statuses(components: ComponentFactory) -> tuple[FunctionStatus, ...]:
    """The functions that have a rate, a breaker or reloaded code, by name."""
    code = components.functions.code()
    flows = {each.name: each for each in components.functions.flow_controls()}
    return tuple(
        replace(flows[name].status() if name in flows else FunctionStatus(function=name), code=code.get(name))
        for name in sorted(flows.keys() | code.keys())
    )


class FunctionService:
    """FunctionControl of one daemon."""

    def __init__(self) -> None:
        self._context: FunctionContext | None = None

    def open(self, context: FunctionContext) -> None:
        """Begins to answer requests."""
        self._context = context

    def close(self) -> None:
        """Stops answering requests, because the daemon drains."""
        self._context = None

    async def close_breaker(self, function: str, *, by: str, reason: str) -> FunctionStatus:
        """Closes the breaker of a function, here at once and at the other workers within two heartbeats; raises ApiError."""
        context = self._context
        if context is None:
            raise ApiError(ApiErrorType.SERVICE, "The daemon is starting or stopping; try again later.")
        plan = context.plans().get(function)
        if plan is None or plan.breaker is None:
            raise ApiError(ApiErrorType.MISSING, _without_breaker(context.plans()))
        flow = context.flow(function)
        if flow is not None:
            flow.close_breaker(by, reason)
        context.announce(function)
        return FunctionStatus(function=function) if flow is None else flow.status()


def _without_breaker(plans: Mapping[str, FunctionPlan]) -> str:
    known = sorted(name for name, plan in plans.items() if plan.breaker is not None)
    shown = ", ".join(known[:NAMES_SHOWN_MAX]) + (", ..." if len(known) > NAMES_SHOWN_MAX else "")
    return f"no function of this name has a breaker; functions that have one: {shown or 'none'}"
