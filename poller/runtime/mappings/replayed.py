"""Owns how a daemon carries out replays: their hidden mappings are supervised as all others, and use the same functions."""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial

from pydantic import ValidationError

from poller.config.mapping import EventSourceMapping
from poller.config.plugin_specs import destination_of
from poller.domain.errors import InvalidConfiguration
from poller.domain.mapping_api import ApiError, ApiErrorType
from poller.domain.operations import OperatorPause
from poller.domain.plan import MappingPlan
from poller.domain.status import ShardStatus
from poller.domain.untrusted.texts import line_of
from poller.plugins import validated
from poller.rules.backoff import wait_s
from poller.rules.operations.reading import OperationRefused
from poller.runtime.mappings.components import DaemonContext, MappingSpec
from poller.runtime.mappings.desired import DesiredMappings
from poller.runtime.mappings.preflight import Preflight
from poller.runtime.mappings.running import RunningMappings
from poller.runtime.mappings.supervisor import Opener, Supervisor
from poller.runtime.operations.operable import Operable
from poller.runtime.replays.replay_host import ReplayMapping, ReplayParts
from poller.runtime.stopping import Stop
from poller.runtime.streams.context import StreamContext
from poller.runtime.streams.places import Places

SHOWN_MAX = 10
"""Functions that a refusal names."""
CHARS_MAX = 100


class HiddenMapping:
    """The hidden mapping of a replay: a supervisor, and the pauses that it gets when it starts."""

    def __init__(self, make: Callable[[Callable[[Operable], None]], Supervisor]) -> None:
        self._pauses: Sequence[OperatorPause] | None = None
        self._supervisor = make(self._introduce)

    @property
    def stop(self) -> Stop:
        """Ends it."""
        return self._supervisor.stop

    @property
    def reason(self) -> str:
        """Why it does not get on; empty when it does."""
        return self._supervisor.reason

    async def run(self) -> None:
        """Runs until a stop is requested and it has drained."""
        await self._supervisor.run()

    def shards(self) -> Sequence[ShardStatus]:
        """What the shards are doing."""
        return self._supervisor.shards()

    def apply_pauses(self, pauses: Sequence[OperatorPause] | None, *, again: bool = False) -> None:
        """Takes the pauses that hold all of it. `again`: its shards wait for them, also if they have not changed."""
        if again or pauses != self._pauses:
            self._pauses = pauses
            if (operable := self._supervisor.operable) is not None:
                operable.apply_pauses(pauses)

    def _introduce(self, operable: Operable) -> None:
        operable.apply_pauses(self._pauses)


class DaemonReplays:
    """The ReplayHost of one daemon."""

    def __init__(self, tools: DaemonContext, desired: DesiredMappings, running: RunningMappings) -> None:
        self._tools = tools
        self._desired = desired
        self._running = running
        self._preflight = Preflight(tools.registry, tools.env, tools.aliases)

    def current(self, plan: MappingPlan) -> MappingSpec:
        """The plan with the settings of its function and the daemon's tuning, as they are now."""
        return MappingSpec(
            plan=plan,
            function=self._desired.function(plan.function),
            tuning=self._desired.plan.tuning,
        )

    def make(self, plan: MappingPlan, parts: ReplayParts) -> ReplayMapping:
        """The hidden mapping of a replay, which does not run yet."""
        spec = self.current(plan)
        return HiddenMapping(partial(self._supervisor, spec, parts))

    def track(self, task: asyncio.Task[None]) -> None:
        """Makes the daemon wait for the task when it drains."""
        self._running.tasks.add(task)
        task.add_done_callback(self._running.tasks.discard)

    async def with_function(self, plan: MappingPlan, function: str | None) -> MappingPlan:
        """The plan with another function. Raises OperationRefused if there is no such function, and ApiError."""
        if function is None:
            return plan
        document = {"FunctionName": function, "EventSourceArn": plan.source_arn}
        try:
            spec = self._desired.spec(EventSourceMapping.model_validate(document), plan.mapping)
        except (ValidationError, ValueError) as error:
            raise self._no_function(function) from error
        try:
            await self._preflight.check_function(spec, self._desired.plan)
        except ApiError as error:
            if error.fault is ApiErrorType.PARAMETER:
                raise self._no_function(function) from error
            raise
        found = spec.plan
        return replace(
            plan, function=found.function, function_arn=found.function_arn, role_arn=found.role_arn
        )

    def problems(self, plan: MappingPlan) -> Sequence[str]:
        """What is wrong with the destination of a plan, one line each."""
        part = destination_of(plan)
        if part is None:
            return ()
        try:
            plugin = self._tools.registry.plugin(part.kind, part.name)
            validated(plugin, part.settings(plugin.settings), place="destination")
        except InvalidConfiguration as error:
            return error.problems
        return ()

    def _supervisor(
        self, spec: MappingSpec, parts: ReplayParts, introduce: Callable[[Operable], None]
    ) -> Supervisor:
        opener: Opener = partial(
            self._running.components.open, spec, changed=partial(_hidden, as_replay=parts)
        )
        return Supervisor(
            spec.plan.mapping,
            opener,
            gate=self._running.gate,
            observer=parts.observer,
            wait_s=lambda tries: wait_s(spec.tuning.port_backoff, tries, self._tools.rng),
            changed=_nothing,
            introduce=introduce,
        )

    def _no_function(self, function: str) -> OperationRefused:
        names = sorted(self._desired.plan.functions)
        there = f"configured are {', '.join(names[:SHOWN_MAX])}" if names else "none is configured"
        more = f" and {len(names) - SHOWN_MAX} more" if len(names) > SHOWN_MAX else ""
        named = line_of(function, chars_max=CHARS_MAX)
        return OperationRefused("function", f"there is no function {named!r}; {there}{more}; or write an ARN")


def _hidden(parts: StreamContext, *, as_replay: ReplayParts) -> StreamContext:
    return replace(
        parts,
        source=as_replay.wrap(parts.source),
        destination=as_replay.destined(parts.destination),
        observer=as_replay.observer,
        places=Places(),
        operated=True,
    )


def _nothing() -> None:
    return
