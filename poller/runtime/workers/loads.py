"""Owns what a running mapping says about its load: how much of its function's room is in use."""

from typing import Protocol, runtime_checkable

from poller.rules.workers.sizing.samples import FunctionUse, MappingLoad
from poller.runtime.invoking import Function


@runtime_checkable
class MeasuresLoad(Protocol):
    """A running mapping that knows its load."""

    def load(self) -> MappingLoad | None:
        """The load at this moment; None while nothing of it counts, as while an operator has paused it."""
        ...


def use_of(function: Function) -> FunctionUse:
    """The room of the mapping's function on this worker."""
    slots, flow = function.slots, function.flow
    return FunctionUse(
        function=function.plan.name,
        in_flight=slots.in_flight,
        waiting=slots.waiting,
        limit=slots.limit,
        held_back=flow is not None and (bool(flow.open_breaker()) or flow.waiting > 0),
    )
