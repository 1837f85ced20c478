"""Owns the look at a real source and a real function before a mapping of theirs is accepted (spec 10.6)."""

import asyncio

from poller.control import Fault, Refused
from poller.errors import AccessDenied, InvalidConfiguration, PortError, ResourceMissing
from poller.plan import DaemonPlan, SourceKind
from poller.plugins import Environment, Registry
from poller.ports import FunctionCheck
from poller.runtime.requests import NO_FUNCTION, NO_QUEUE, denied_text, short_visibility_text
from poller.runtime.workshop import Design, function_of, source_of

LOOK_S_MAX = 4.0
"""For one look; a request makes two at most, and somebody waits for its answer."""


class Inspector:
    """Opens a source or an invoker for one look."""

    def __init__(self, registry: Registry, env: Environment) -> None:
        self._registry = registry
        self._env = env

    async def look_at_function(self, design: Design, plan: DaemonPlan) -> None:
        """Raises Refused unless the function is configured, or its invoker says that it exists."""
        if design.function.name in plan.functions:
            return
        try:
            exists = await self._exists(design)
        except InvalidConfiguration:
            exists = False
        except (PortError, TimeoutError) as error:
            raise Refused(Fault.SERVICE, f"The function could not be looked up: {_reason(error)}") from error
        if not exists:
            raise Refused(Fault.PARAMETER, NO_FUNCTION)

    async def look_at_source(self, design: Design) -> None:
        """Raises Refused unless the source is there, may be read, and a queue's visibility timeout is long enough."""
        arn, queue = design.plan.source_arn, design.plan.kind is SourceKind.SQS
        try:
            async with asyncio.timeout(LOOK_S_MAX):
                await self._describe(design, queue=queue)
        except InvalidConfiguration as error:
            raise Refused(Fault.PARAMETER, "; ".join(error.problems)) from error
        except ResourceMissing as error:
            raise Refused(Fault.PARAMETER, NO_QUEUE if queue else f"Stream not found: {arn}") from error
        except AccessDenied as error:
            raise Refused(Fault.PARAMETER, denied_text(arn, design.plan.kind)) from error
        except (PortError, TimeoutError) as error:
            text = f"The event source could not be looked up: {_reason(error)}"
            raise Refused(Fault.SERVICE, text) from error

    async def _exists(self, design: Design) -> bool:
        part = function_of(design.function, self._registry)
        async with asyncio.timeout(LOOK_S_MAX), part.opened(self._registry, self._env) as invoker:
            if not isinstance(invoker, FunctionCheck):
                return False
            return await invoker.exists(design.plan.function_arn)

    async def _describe(self, design: Design, *, queue: bool) -> None:
        part = source_of(design.plan)
        async with part.opened(self._registry, self._env) as source:
            if not queue:
                await source.shards()
                return
            facts = await source.describe()
        if facts.visibility_timeout_s < design.function.timeout_s:
            text = short_visibility_text(facts.visibility_timeout_s, design.function.timeout_s)
            raise Refused(Fault.PARAMETER, text)


def _reason(error: PortError | TimeoutError) -> str:
    return error.reason if isinstance(error, PortError) else f"no answer within {LOOK_S_MAX:g} s"
