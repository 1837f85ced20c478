"""Owns the calls of a function that has versions or aliases: which version a call gets, and what its outcome says of that.

The qualifier of the called ARN is a version, an alias, or nothing, which means $LATEST. An alias leads to one version, or to two by
their shares; the choice of a call says which (`poller.rules.functions.aliases.choice`). The function sees the ARN as it was called. A
service gets the ARN of the version, because its aliases are others than these.
"""

import asyncio
from collections.abc import Collection
from dataclasses import dataclass, replace

import msgspec

from poller.domain.errors import PortError, ServiceUnavailable
from poller.domain.function_facts import FunctionFacts
from poller.domain.invocations import (
    FunctionError,
    Invocation,
    Outcome,
    Succeeded,
    Throttled,
    TimedOut,
    Unreachable,
)
from poller.domain.plan import LATEST, SERVICE_INVOKER, TIMEOUT_S, CallLimit, FunctionPlan
from poller.ports import Bounded, Clock, FunctionLookup, FunctionStarter, Invoker, LeavesCalls
from poller.rules.functions.aliases.alias_state import ahead, known_version, missing_text
from poller.rules.functions.aliases.choice import chosen
from poller.rules.functions.naming import qualifier_of
from poller.runtime.functions.versions.alias_states import NOT_READ, AliasStates
from poller.runtime.functions.versions.open_versions import OpenVersions, VersionTrouble

START_S_MAX = 10.0
"""How long a call waits for its version to be opened, beside its time limit."""
LOOK_S = 1.0
"""The interval at which the versions are opened to which aliases lead now."""
NAMES_SHOWN_MAX = 20


@dataclass(frozen=True, slots=True)
class VersionOfCall:
    """The version that a call gets. `alias` is empty for a call by a version, or by nothing."""

    version: str
    alias: str = ""


class _NotYet(Exception):
    """A call could not be made, and that says nothing about its version."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class VersionedInvoker:
    """Calls the versions of one function. `latest` is the open invoker of $LATEST."""

    def __init__(
        self,
        plan: FunctionPlan,
        latest: Invoker,
        versions: OpenVersions,
        states: AliasStates,
        clock: Clock,
    ) -> None:
        self._plan = plan
        self._latest = latest
        self._versions = versions
        self._states = states
        self._clock = clock

    async def invoke(self, invocation: Invocation) -> Outcome:
        """Calls the version that the invocation's ARN leads to."""
        target = self._target(invocation)
        if target is None:
            return await self._latest.invoke(invocation)
        if isinstance(target, Unreachable):
            return target
        try:
            outcome = await self._called(target, invocation)
        except _NotYet as error:
            return Unreachable(error.reason)
        if not isinstance(outcome, Throttled):
            self._states.told(
                self._plan, target.alias, target.version, failed=not isinstance(outcome, Succeeded)
            )
        return outcome

    async def follow(self) -> None:
        """Opens the versions to which aliases lead, and closes idle ones, until it is cancelled."""
        while True:
            wanted = self.ahead()
            for number in wanted:
                self._versions.want(number)
            self._versions.close_idle(wanted)
            await asyncio.sleep(LOOK_S)

    def ahead(self) -> frozenset[str]:
        """The configured versions that aliases lead to, now or soon."""
        now = self._clock.now()
        found = [ahead(each, now) for each in self._states.aliases(self._plan).values()]
        return frozenset().union(*found) & self._plan.versions.keys()

    @property
    def call_limit(self) -> CallLimit:
        """How many calls can run at once: as many as the version that can run most. Each version has its own limit besides."""
        invokers = self._versions.invokers or [self._latest]
        limits = [
            each.call_limit if isinstance(each, Bounded) else CallLimit(None, "no limit")
            for each in (*invokers, self._latest)
        ]
        unlimited = next((each for each in limits if each.calls is None), None)
        return max(limits, key=lambda each: each.calls or 0) if unlimited is None else unlimited

    @property
    def calls_left(self) -> int:
        """How many calls go on although nobody waits for them."""
        return sum(each.calls_left for each in self._all() if isinstance(each, LeavesCalls))

    @property
    def start_s_max(self) -> float:
        """How much longer than its time limit a call may take, because a version has to be opened and started first."""
        starts = (each.start_s_max for each in self._all() if isinstance(each, FunctionStarter))
        return START_S_MAX + max(starts, default=0.0)

    def _all(self) -> list[Invoker]:
        return [self._latest, *self._versions.invokers]

    def _target(self, invocation: Invocation) -> VersionOfCall | Unreachable | None:
        """The version that a call gets, or why it gets none; None for a qualifier that only the function's service may know."""
        qualifier, plan = qualifier_of(invocation.function_arn), self._plan
        if qualifier in {"", LATEST}:
            return VersionOfCall(LATEST)
        if qualifier in plan.versions:
            return VersionOfCall(qualifier)
        if not self._states.knows(plan.name):
            return Unreachable(NOT_READ)
        alias = self._states.alias(plan, qualifier)
        if alias is None:
            return None if isinstance(self._latest, FunctionLookup) else self._unknown(qualifier)
        found = self._states.way(plan.name, qualifier, alias)
        version = chosen(found.version, found.weights, invocation.choice or invocation.request_id)
        return VersionOfCall(version, qualifier)

    def _unknown(self, qualifier: str) -> Unreachable:
        known = sorted({*self._plan.versions, *self._states.aliases(self._plan)})
        shown = ", ".join([LATEST, *known[:NAMES_SHOWN_MAX]]) + (
            ", ..." if len(known) > NAMES_SHOWN_MAX else ""
        )
        return Unreachable(f"{self._plan.name} has no version or alias {qualifier}; it has {shown}")

    async def _called(self, target: VersionOfCall, invocation: Invocation) -> Outcome:
        version = target.version
        if version == LATEST:
            return await self._latest.invoke(self._fitted(self._latest, version, invocation))
        if not known_version(self._plan, version):
            return Unreachable(missing_text(self._plan, version, target.alias))
        try:
            async with asyncio.timeout(START_S_MAX):
                refused = await self._states.marked(self._plan, version)
                invoker = None if refused else await self._versions.invoker(version)
        except TimeoutError:
            raise _NotYet(f"version {version} of {self._plan.name} is not open yet") from None
        except PortError as error:
            reason = f"version {version} of {self._plan.name} is not called: the store: {error.reason}"
            raise _NotYet(reason) from error
        except VersionTrouble as error:
            return Unreachable(error.reason)
        if invoker is None:
            return Unreachable(refused)
        with self._versions.used(version):
            return executed(await invoker.invoke(self._fitted(invoker, version, invocation)), version)

    def _fitted(self, invoker: Invoker, version: str, invocation: Invocation) -> Invocation:
        """The call as one version gets it: with its own time limit, or with its own ARN if a service runs it."""
        if not isinstance(invoker, FunctionLookup):
            return replace(invocation, timeout_s=self._limit_s(version), open_ended=False)
        arn = invocation.function_arn
        qualifier = qualifier_of(arn)
        if not qualifier or qualifier == version:
            return invocation
        return replace(invocation, function_arn=_qualified(arn, version))

    def _limit_s(self, version: str) -> float:
        own = self._plan.versions[version].timeout_s if version != LATEST else None
        return own or self._plan.timeout_s or TIMEOUT_S


class VersionedService(VersionedInvoker):
    """The same for a function of which a version at least is run by a service, which has settings for it."""

    async def describe_function(self, function_arn: str) -> FunctionFacts:
        """The service's settings of the version that an ARN leads to; with two versions the longer time limit.

        Raises ServiceThrottled, ServiceUnavailable, AccessDenied, ResourceMissing.
        """
        versions = self._leads_to(qualifier_of(function_arn))
        if versions is None and isinstance(self._latest, FunctionLookup):
            return await self._latest.describe_function(function_arn)
        found = [await self._facts(function_arn, each) for each in sorted(versions or {LATEST})]
        return replace(found[0], timeout_s=max(each.timeout_s for each in found))

    def _leads_to(self, qualifier: str) -> Collection[str] | None:
        """The versions that a qualifier leads to; None for one that only the service may know."""
        if qualifier in {"", LATEST}:
            return {LATEST}
        if qualifier in self._plan.versions:
            return {qualifier}
        alias = self._states.alias(self._plan, qualifier)
        if alias is None:
            return None
        return {each for each in ahead(alias, self._clock.now()) if known_version(self._plan, each)}

    async def _facts(self, function_arn: str, version: str) -> FunctionFacts:
        try:
            invoker = self._latest if version == LATEST else await self._versions.invoker(version)
        except VersionTrouble as error:
            raise ServiceUnavailable(error.reason) from None
        if not isinstance(invoker, FunctionLookup):
            return FunctionFacts(timeout_s=self._limit_s(version))
        arn = (
            function_arn if qualifier_of(function_arn) in {"", version} else _qualified(function_arn, version)
        )
        return await invoker.describe_function(arn)


def versioned(
    plan: FunctionPlan, latest: Invoker, versions: OpenVersions, states: AliasStates, clock: Clock
) -> VersionedInvoker:
    """The invoker of a function with versions, whose $LATEST is open."""
    served = isinstance(latest, FunctionLookup) or any(
        each.invoker == SERVICE_INVOKER for each in plan.versions.values()
    )
    kind = VersionedService if served else VersionedInvoker
    return kind(plan, latest, versions, states, clock)


def longest_s(plan: FunctionPlan) -> float | None:
    """The longest time limit among a function's versions; None if only services give limits."""
    if not plan.versions:
        return plan.timeout_s
    own = [plan.timeout_s, *(each.timeout_s for each in plan.versions.values())]
    given = [each for each in own if each is not None]
    if len(given) == len(own):
        return max(given)
    if plan.invoker == SERVICE_INVOKER:
        return max(given, default=None)
    return max([plan.timeout_s or TIMEOUT_S, *given])


def executed(outcome: Outcome, version: str) -> Outcome:
    """The outcome with the version that was called, unless the invoker itself has named one."""
    if isinstance(outcome, Succeeded):
        return (
            outcome
            if outcome.executed_version != LATEST
            else msgspec.structs.replace(outcome, executed_version=version)
        )
    if isinstance(outcome, FunctionError | TimedOut) and outcome.executed_version == LATEST:
        return replace(outcome, executed_version=version)
    return outcome


def _qualified(arn: str, version: str) -> str:
    """The same ARN with another qualifier."""
    return f"{arn.removesuffix(f':{qualifier_of(arn)}')}:{version}"
