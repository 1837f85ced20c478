"""Owns what the APIs may do with versions and aliases while the daemon runs: show them, change them, shift and roll back."""

import re
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from random import Random

from poller.domain.errors import PortError
from poller.domain.functions.alias_control import AliasChange, AliasView, ShiftRequest, VersionView
from poller.domain.functions.shift_strategies import total_s
from poller.domain.functions.shifts import Shift, ShiftState
from poller.domain.functions.versions import VERSIONS_MAX
from poller.domain.mapping_api import ApiError, ApiErrorType
from poller.domain.plan import LATEST, SERVICE_INVOKER, TIMEOUT_S
from poller.domain.records import Epoch, WorkerId
from poller.ports import Clock
from poller.rules.functions.aliases.alias_state import (
    AliasState,
    FunctionState,
    known_version,
    with_shift,
)
from poller.rules.functions.aliases.shift_steps import begun, rolled_back
from poller.rules.functions.naming import NamedFunction, qualifier_of
from poller.runtime.context import uuid_text
from poller.runtime.functions.versions.alias_states import NOT_READ, AliasStates

DESCRIPTION_CHARS_MAX = 256
REASON_CHARS_MAX = 1024
ALIAS_NAME = re.compile(r"(?![0-9]+\Z)[a-zA-Z0-9_-]{1,128}")
PATTERN = "(?!^[0-9]+$)([a-zA-Z0-9-_]+)"
FROM_FILE = "The alias {name} comes from the configuration file and cannot be deleted through the API. Remove it there."
NO_TIME = (
    "failure_rate: has no effect, because the shift is over at once; write a strategy that takes time, such as "
    "Canary10Percent5Minutes, or a hook after"
)
OLD_REVISION = (
    "The Revision Id provided does not match the latest Revision Id. Call the GetFunction/GetAlias API to "
    "retrieve the latest Revision Id"
)


class AliasService:
    """AliasControl of one daemon. `named` finds a function; it raises ApiError."""

    def __init__(
        self,
        states: AliasStates,
        named: Callable[[str, str], NamedFunction],
        *,
        me: WorkerId,
        clock: Clock,
        rng: Random,
    ) -> None:
        self._states = states
        self._named = named
        self._me = me
        self._clock = clock
        self._rng = rng

    async def refresh(self, function: str) -> None:
        """Reads the function's aliases from the store; what was known stays if it does not answer. Raises ApiError."""
        named = self._named(function, "")
        with suppress(PortError):
            await self._states.refresh(named.plan.name)

    def versions(self, function: str) -> Sequence[VersionView]:
        """$LATEST and all versions of a function, by number. Raises ApiError."""
        named = self._named(function, "")
        plan, bare = named.plan, _bare(named)
        limit_s = TIMEOUT_S if plan.timeout_s is None else plan.timeout_s
        latest = VersionView(
            number=LATEST,
            arn=f"{bare}:{LATEST}",
            invoker=plan.invoker,
            timeout_s=limit_s,
            handler=_handler(plan.settings),
        )
        ran, troubles = self._states.state(plan.name).ran, self._states.troubles
        return [latest] + [
            VersionView(
                number=number,
                arn=f"{bare}:{number}",
                invoker=each.invoker,
                timeout_s=limit_s if each.timeout_s is None else each.timeout_s,
                handler=_handler(each.settings),
                description=each.description,
                ran=number in ran,
                trouble=self._states.changed_version(plan, number) or troubles.get((plan.name, number), ""),
            )
            for number, each in sorted(plan.versions.items(), key=lambda pair: int(pair[0]))
        ]

    def aliases(self, function: str, *, version: str = "") -> Sequence[AliasView]:
        """All aliases of a function by name, or those that lead to `version`. Raises ApiError."""
        named = self._looked_at(function)
        found = [self._view(named, name, each) for name, each in self._states.aliases(named.plan).items()]
        return [each for each in found if not version or version in {each.version, *each.weights}]

    def alias(self, function: str, name: str) -> AliasView:
        """One alias. Raises ApiError."""
        named = self._looked_at(function)
        found = self._states.alias(named.plan, name)
        if found is None:
            raise _none(named, name)
        return self._view(named, name, found)

    def made(self, function: str) -> frozenset[str]:
        """The names of a function's aliases that were made through the API. Raises ApiError as long as nobody knows."""
        if not self._states.knows(function):
            raise ApiError(ApiErrorType.SERVICE, NOT_READ)
        return self._states.made(function)

    async def create(self, function: str, name: str, change: AliasChange) -> AliasView:
        """Adds an alias. Raises ApiError."""
        named = self._named(function, "")
        if not ALIAS_NAME.fullmatch(name):
            raise ApiError(
                ApiErrorType.VALIDATION,
                f"1 validation error detected: Value at 'name' failed to satisfy constraint: Member must satisfy regular expression pattern: {PATTERN}",
            )
        if change.version is None:
            raise ApiError(ApiErrorType.PARAMETER, "FunctionVersion is required")
        if named.plan.invoker == SERVICE_INVOKER and not (named.plan.versions or named.plan.aliases):
            raise ApiError(
                ApiErrorType.PARAMETER,
                f"The function {named.plan.name} has its versions and aliases at AWS. Add functions.{named.plan.name}.versions to have aliases here.",
            )
        wanted = AliasState(version=change.version, revision_id=self._new_id(), modified=self._clock.now())
        after = _changed(named, wanted, change)

        def added(state: FunctionState) -> FunctionState:
            if self._states.alias(named.plan, name, state) is not None:
                raise ApiError(ApiErrorType.CONFLICT, f"Alias already exists: {_bare(named)}:{name}")
            state = state.with_room(named.plan)
            if len(state.aliases) >= VERSIONS_MAX:
                raise ApiError(ApiErrorType.PARAMETER, f"A function has {VERSIONS_MAX} aliases at most")
            return state.with_alias(name, after)

        await self._write(named, added)
        return self.alias(function, name)

    async def update(self, function: str, name: str, change: AliasChange) -> AliasView:
        """Changes an alias. Raises ApiError."""
        named = self._named(function, "")

        def updated(state: FunctionState) -> FunctionState:
            found = self._current(named, name, state)
            _check_revision(found, change)
            _refuse_while_shifting(found, name)
            return state.with_alias(
                name,
                replace(
                    _changed(named, found, change), revision_id=self._new_id(), modified=self._clock.now()
                ),
            )

        await self._write(named, updated)
        return self.alias(function, name)

    async def delete(self, function: str, name: str) -> None:
        """Removes an alias; it is no error if there is none. Raises ApiError."""
        named = self._named(function, "")
        if name in named.plan.aliases:
            raise ApiError(ApiErrorType.CONFLICT, FROM_FILE.format(name=name))

        def removed(state: FunctionState) -> FunctionState:
            # What another worker has in its file is no alias here.
            found = self._states.alias(named.plan, name, state)
            return state if found is None else state.with_alias(name, None)

        await self._write(named, removed)

    async def shift(self, function: str, name: str, request: ShiftRequest) -> AliasView:
        """Begins to shift an alias. The same request again changes nothing. Raises ApiError."""
        named = self._named(function, "")
        self._check_request(named, request)
        identity = request.shift or self._new_id()

        def shifted(state: FunctionState) -> FunctionState:
            found = self._current(named, name, state)
            if found.shift is not None and found.shift.shift == identity:
                _check_repeat(found.shift, request)
                return state
            _refuse_while_shifting(found, name)
            now = self._clock.now()
            after = with_shift(found, begun(_shift(found, request, identity, now)), now, self._new_id())
            # Here the versions and the hooks are configured, which is not certain of every other worker.
            return state.with_alias(name, replace(after, driver=self._me))

        await self._write(named, shifted)
        return self.alias(function, name)

    async def roll_back(self, function: str, name: str, *, by: str, reason: str) -> AliasView:
        """Sends all calls to the old version at once. Raises ApiError if no shift of the alias runs."""
        named = self._named(function, "")
        because = f"by {by}: {reason[:REASON_CHARS_MAX]}" if reason else f"by {by}"

        def back(state: FunctionState) -> FunctionState:
            found = self._current(named, name, state)
            if found.shifting is None:
                raise ApiError(
                    ApiErrorType.CONFLICT,
                    f"No shift of the alias {name} runs. A shift that has ended is undone by a shift to the old version, AllAtOnce.",
                )
            now = self._clock.now()
            after = rolled_back(found.shifting, now, because)
            return state.with_alias(name, with_shift(found, after, now, self._new_id()))

        await self._write(named, back)
        return self.alias(function, name)

    def _looked_at(self, function: str) -> NamedFunction:
        """The function, if it is known which aliases it has; raises ApiError."""
        named = self._named(function, "")
        if not self._states.knows(named.plan.name):
            raise ApiError(ApiErrorType.SERVICE, NOT_READ)
        return named

    def _check_request(self, named: NamedFunction, request: ShiftRequest) -> None:
        if request.to == LATEST or not known_version(named.plan, request.to):
            known = ", ".join(sorted(named.plan.versions, key=int)) or "none"
            text = (
                f"to: version {request.to} is not below functions.{named.plan.name}.versions (there: {known})"
            )
            raise ApiError(ApiErrorType.PARAMETER, text)
        if changed := self._states.changed_version(named.plan, request.to):
            raise ApiError(ApiErrorType.PARAMETER, f"to: {changed}")
        if request.failure_rate is not None and not 0 <= request.failure_rate < 1:
            raise ApiError(ApiErrorType.PARAMETER, "failure_rate: write 0 or more, less than 1")
        if request.failure_rate is not None and total_s(request.strategy) <= 0 and request.after is None:
            raise ApiError(ApiErrorType.PARAMETER, NO_TIME)
        for field, hook in (("before", request.before), ("after", request.after)):
            if hook is None:
                continue
            try:
                self._named(hook, "")
            except ApiError as error:
                if error.fault is ApiErrorType.SERVICE:
                    raise
                text = f"{field}: {error.text}; write the name of a function of this daemon"
                raise ApiError(ApiErrorType.PARAMETER, text) from None

    def _current(self, named: NamedFunction, name: str, state: FunctionState) -> AliasState:
        """The alias as the store has it now; raises ApiError if there is none."""
        found = self._states.alias(named.plan, name, state)
        if found is None:
            raise _none(named, name)
        return found

    async def _write(self, named: NamedFunction, change: Callable[[FunctionState], FunctionState]) -> None:
        try:
            await self._states.change(named.plan.name, change)
        except PortError as error:
            raise ApiError(ApiErrorType.SERVICE, f"The store is in trouble: {error.reason}") from error

    def _view(self, named: NamedFunction, name: str, alias: AliasState) -> AliasView:
        way = self._states.way(named.plan.name, name, alias)
        return AliasView(
            function=named.plan.name,
            name=name,
            arn=f"{_bare(named)}:{name}",
            version=way.version,
            weights=dict(way.weights),
            revision_id=alias.revision_id,
            modified=alias.modified,
            description=alias.description,
            from_file=name in named.plan.aliases,
            shift=alias.shift,
            calls=self._states.tallies.of(named.plan.name, name, alias.shift),
        )

    def _new_id(self) -> str:
        return uuid_text(self._rng.getrandbits(128))


def _bare(named: NamedFunction) -> str:
    """The function's ARN without a qualifier."""
    return named.arn.removesuffix(f":{qualifier_of(named.arn)}")


def _handler(settings: Mapping[str, object]) -> str:
    found = settings.get("handler")
    return found if isinstance(found, str) else ""


def _none(named: NamedFunction, name: str) -> ApiError:
    return ApiError(ApiErrorType.MISSING, f"Cannot find alias arn: {_bare(named)}:{name}")


def _check_revision(found: AliasState, change: AliasChange) -> None:
    if change.revision_id is not None and change.revision_id != found.revision_id:
        raise ApiError(ApiErrorType.PRECONDITION, OLD_REVISION)


def _refuse_while_shifting(found: AliasState, name: str) -> None:
    if (shift := found.shifting) is not None:
        raise ApiError(
            ApiErrorType.CONFLICT,
            f"The alias {name} is being shifted from version {shift.old} to {shift.new} (shift {shift.shift}). "
            "Wait until that is over, or roll it back.",
        )


def _check_repeat(shift: Shift, request: ShiftRequest) -> None:
    """Refuses another shift under the id of one that there is."""
    wanted = (request.to, request.strategy, request.before, request.after, request.failure_rate)
    if wanted != (shift.new, shift.strategy, shift.before, shift.after, shift.failure_rate):
        raise ApiError(
            ApiErrorType.CONFLICT,
            f"id: {shift.shift} is another shift, from version {shift.old} to {shift.new}, {shift.strategy.name}; write another id",
        )


def _changed(named: NamedFunction, alias: AliasState, change: AliasChange) -> AliasState:
    """The alias with the members of a request. Raises ApiError if it cannot lead there."""
    after = replace(
        alias,
        version=alias.version if change.version is None else change.version,
        weights=dict(alias.weights if change.weights is None else change.weights),
        description=(alias.description if change.description is None else change.description),
    )
    if len(after.description) > DESCRIPTION_CHARS_MAX:
        raise ApiError(ApiErrorType.VALIDATION, f"Description: {DESCRIPTION_CHARS_MAX} characters at most")
    for number in (after.version, *after.weights):
        if not known_version(named.plan, number):
            raise ApiError(ApiErrorType.MISSING, f"Function not found: {_bare(named)}:{number}")
    _check_weights(after)
    return after


def _check_weights(alias: AliasState) -> None:
    if not alias.weights:
        return
    if len(alias.weights) > 1:
        raise ApiError(
            ApiErrorType.PARAMETER, "Number of items in AdditionalVersionWeights cannot be greater than 1"
        )
    if LATEST in {alias.version, *alias.weights}:
        text = f"{LATEST} is not supported for an alias pointing to more than 1 version"
        raise ApiError(ApiErrorType.PARAMETER, text)
    if alias.version in alias.weights:
        text = f"Invalid function version {alias.version}. Function version {alias.version} is already included in routing configuration."
        raise ApiError(ApiErrorType.PARAMETER, text)
    if not all(0 <= share <= 1 for share in alias.weights.values()):
        raise ApiError(
            ApiErrorType.PARAMETER, "Invalid value for additional version weight: write 0.0 to 1.0"
        )


def _shift(found: AliasState, request: ShiftRequest, identity: str, now: Epoch) -> Shift:
    """The shift of an alias. Raises ApiError if it cannot be shifted there."""
    if found.version == LATEST:
        text = f"An alias of {LATEST} cannot be shifted; let it lead to a version first"
        raise ApiError(ApiErrorType.PARAMETER, text)
    if found.version == request.to:
        raise ApiError(ApiErrorType.PARAMETER, f"to: the alias leads to version {request.to} already")
    return Shift(
        shift=identity,
        old=found.version,
        new=request.to,
        strategy=request.strategy,
        state=ShiftState.BEFORE,
        accepted=now,
        before=request.before,
        after=request.after,
        failure_rate=request.failure_rate,
        by=request.by,
        reason=request.reason[:REASON_CHARS_MAX],
    )
