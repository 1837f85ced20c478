"""Owns preflight: the source and the function themselves are checked before a mapping is accepted (aws-behaviour#order-of-checks)."""

import asyncio

from poller.config.plugin_specs import PluginSpec, function_of, source_of, version_of
from poller.domain.errors import AccessDenied, InvalidConfiguration, PortError, ResourceMissing
from poller.domain.function_facts import FunctionFacts
from poller.domain.mapping_api import ApiError, ApiErrorType
from poller.domain.plan import TIMEOUT_S, DaemonPlan, SourceKind
from poller.plugins import Environment, Registry
from poller.ports import FunctionCheck, FunctionLookup
from poller.rules.functions.naming import qualifier_of
from poller.rules.queues.queue_checks import short_visibility_text
from poller.runtime.functions.versions.alias_states import AliasStates
from poller.runtime.functions.versions.versioned_invoker import longest_s
from poller.runtime.mappings.api_requests import NO_FUNCTION, NO_QUEUE, denied_text
from poller.runtime.mappings.components import MappingSpec

LOOK_S_MAX = 4.0
"""The time limit of one check. A request makes at most two, and a client waits for its answer."""


class Preflight:
    """Opens a source or an invoker, checks it, and closes it. `aliases` says to which version an alias leads."""

    def __init__(self, registry: Registry, env: Environment, aliases: AliasStates) -> None:
        self._registry = registry
        self._env = env
        self._aliases = aliases

    async def check_function(self, spec: MappingSpec, plan: DaemonPlan) -> FunctionFacts | None:
        """The settings of the function at its service; None if there is no service, or it does not give them.

        Raises ApiError if the service has no such function, or if neither the configuration nor the invoker knows it.
        """
        configured = spec.function.name in plan.functions
        if configured and not self._has_own_limit(spec):
            return None
        try:
            exists, facts = await self._function(spec)
        except InvalidConfiguration:
            exists, facts = configured, None
        except (PortError, TimeoutError) as error:
            if configured:
                return None
            raise ApiError(
                ApiErrorType.SERVICE, f"The function could not be looked up: {_reason(error)}"
            ) from error
        if not exists:
            raise ApiError(ApiErrorType.PARAMETER, NO_FUNCTION)
        return facts

    async def check_source(self, spec: MappingSpec, facts: FunctionFacts | None) -> None:
        """Raises ApiError unless the source exists, may be read, and a queue's visibility timeout is long enough.

        `facts` is the result of `check_function`.
        """
        arn, queue = spec.plan.source_arn, spec.plan.kind is SourceKind.SQS
        try:
            async with asyncio.timeout(LOOK_S_MAX):
                await self._describe(spec, facts, queue=queue)
        except InvalidConfiguration as error:
            raise ApiError(ApiErrorType.PARAMETER, "; ".join(error.problems)) from error
        except ResourceMissing as error:
            raise ApiError(
                ApiErrorType.PARAMETER, NO_QUEUE if queue else f"Stream not found: {arn}"
            ) from error
        except AccessDenied as error:
            raise ApiError(ApiErrorType.PARAMETER, denied_text(arn, spec.plan.kind)) from error
        except (PortError, TimeoutError) as error:
            text = f"The event source could not be looked up: {_reason(error)}"
            raise ApiError(ApiErrorType.SERVICE, text) from error

    async def _function(self, spec: MappingSpec) -> tuple[bool, FunctionFacts | None]:
        """Whether the function exists, and its settings."""
        part, arn = self._asked(spec)
        async with asyncio.timeout(LOOK_S_MAX), part.opened(self._registry, self._env) as invoker:
            if isinstance(invoker, FunctionLookup):
                try:
                    return True, await invoker.describe_function(arn)
                except ResourceMissing:
                    return False, None
                except AccessDenied:
                    if not isinstance(invoker, FunctionCheck):
                        raise
            return isinstance(invoker, FunctionCheck) and await invoker.exists(arn), None

    def _has_own_limit(self, spec: MappingSpec) -> bool:
        """Whether the function has a time limit of its own at its service. Opens nothing."""
        part, _ = self._asked(spec)
        return self._registry.plugin(part.kind, part.name).own_limits

    def _asked(self, spec: MappingSpec) -> tuple[PluginSpec, str]:
        """The invoker of the version to which the mapping's ARN leads, and the ARN by which its service knows it."""
        function, arn = spec.function, spec.plan.function_arn
        number = qualifier = qualifier_of(arn)
        if qualifier and qualifier not in function.versions:
            alias = self._aliases.alias(function, qualifier)
            if alias is not None:
                number, arn = alias.version, f"{arn.removesuffix(qualifier)}{alias.version}"
        part = version_of(function, number) if number in function.versions else function_of(function)
        return part, arn

    async def _describe(self, spec: MappingSpec, facts: FunctionFacts | None, *, queue: bool) -> None:
        part = source_of(spec.plan)
        async with part.opened(self._registry, self._env) as source:
            if not queue:
                await source.shards()
                return
            visibility_s = (await source.describe()).visibility_timeout_s
        timeout_s = self._timeout_s(spec, facts)
        if timeout_s is not None and visibility_s < timeout_s:
            raise ApiError(ApiErrorType.PARAMETER, short_visibility_text(visibility_s, timeout_s))

    def _timeout_s(self, spec: MappingSpec, facts: FunctionFacts | None) -> float | None:
        """The function's time limit: its own, else the configured one; None if it is not known."""
        if facts is not None:
            return facts.timeout_s
        configured_s = longest_s(spec.function)
        return TIMEOUT_S if configured_s is None and not self._has_own_limit(spec) else configured_s


def _reason(error: PortError | TimeoutError) -> str:
    return error.reason if isinstance(error, PortError) else f"no answer within {LOOK_S_MAX:g} s"
