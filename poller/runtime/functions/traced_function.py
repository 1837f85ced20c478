"""Owns functions whose calls are traced. Without a tracer a function is the plain one, so that a call costs nothing more."""

from poller.domain.functions.tracing import Tracer
from poller.domain.invocations import Invocation, Outcome
from poller.domain.plan import FunctionPlan
from poller.domain.records import MappingId
from poller.domain.telemetry.observers import Observer
from poller.ports import Invoker
from poller.runtime.flow_control.flow_control import FlowControl
from poller.runtime.invoking import Function


class TracedFunction(Function):
    """A function each call of which is part of a trace."""

    def __init__(
        self,
        plan: FunctionPlan,
        invoker: Invoker,
        observer: Observer,
        *,
        tracer: Tracer,
        flow: FlowControl | None = None,
    ) -> None:
        super().__init__(plan, invoker, observer, flow=flow)
        self._tracer = tracer

    async def call(self, invocation: Invocation, *, mapping: MappingId) -> Outcome:
        """As `Function.call`, inside the spans of the call."""
        untraced = super().call

        async def call(traced: Invocation) -> Outcome:
            return await untraced(traced, mapping=mapping)

        return await self._tracer.traced(invocation, call, function=self.plan, mapping=mapping)


def made_function(
    plan: FunctionPlan,
    invoker: Invoker,
    observer: Observer,
    *,
    flow: FlowControl | None,
    tracer: Tracer | None,
) -> Function:
    """A function around its invoker; its calls are traced if there is a tracer."""
    if tracer is None:
        return Function(plan, invoker, observer, flow=flow)
    return TracedFunction(plan, invoker, observer, flow=flow, tracer=tracer)
