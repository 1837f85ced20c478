"""Owns what is checked with the daemon's help before a replay is accepted: its function and its destination."""

from poller.domain.operations import Operation
from poller.domain.plan import MappingPlan
from poller.rules.operations.reading import OperationRefused
from poller.rules.replays.asking import planned, prepared
from poller.runtime.replays.replay_host import ReplayHost


async def accepted(operation: Operation, plan: MappingPlan, host: ReplayHost) -> Operation:
    """The operation with the plan of its hidden mapping. `plan` is that of the mapping. Raises OperationRefused and ApiError."""
    function = operation.request.members.get("function")
    ready = prepared(operation, await host.with_function(plan, function))
    problems = host.problems(planned(ready, source_settings=plan.source_settings))
    if problems:
        raise OperationRefused("on_failure", "; ".join(problems))
    return ready
