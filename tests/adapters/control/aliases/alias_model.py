"""A model of an AliasControl: it keeps versions and aliases of functions in memory, and refuses what the interface says is refused."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from poller.domain.functions.alias_control import AliasChange, AliasView, ShiftRequest, VersionView
from poller.domain.functions.shifts import ENDED, Shift, ShiftState
from poller.domain.mapping_api import ApiError, ApiErrorType
from poller.domain.records import Epoch

LATEST = "$LATEST"
NOW = Epoch(1_767_225_600.0)
REVISION = "00000000-0000-4000-8000-{:012d}"


@dataclass
class AliasModel:
    """Aliases of the functions that `arn_of` knows. `arn_of` raises ApiError for others. `numbers` are the versions of all of them."""

    arn_of: Callable[[str], str]
    numbers: Sequence[str] = ("1", "2", "3")
    changed: int = 0
    shifts: int = 0
    asked: list[ShiftRequest] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.kept: dict[tuple[str, str], AliasView] = {}

    async def refresh(self, function: str) -> None:
        self.arn_of(function)

    def versions(self, function: str) -> Sequence[VersionView]:
        return [self._version(self.arn_of(function), number) for number in (LATEST, *self.numbers)]

    def aliases(self, function: str, *, version: str = "") -> Sequence[AliasView]:
        arn = self.arn_of(function)
        found = sorted((name, view) for (of, name), view in self.kept.items() if of == arn)
        return [view for _, view in found if version in {"", view.version, *view.weights}]

    def alias(self, function: str, name: str) -> AliasView:
        arn = self.arn_of(function)
        if (arn, name) not in self.kept:
            raise ApiError(ApiErrorType.MISSING, f"Cannot find alias arn: {arn}:{name}")
        return self.kept[arn, name]

    async def create(self, function: str, name: str, change: AliasChange) -> AliasView:
        arn = self.arn_of(function)
        assert change.version is not None
        self._check(arn, change.version, change.weights or {})
        if (arn, name) in self.kept:
            raise ApiError(ApiErrorType.CONFLICT, f"Alias already exists: {arn}:{name}")
        return self._keep(
            AliasView(
                function=arn.rpartition(":")[2],
                name=name,
                arn=f"{arn}:{name}",
                version=change.version,
                weights=change.weights or {},
                revision_id="",
                modified=NOW,
                description=change.description or "",
            )
        )

    async def update(self, function: str, name: str, change: AliasChange) -> AliasView:
        before = self.alias(function, name)
        if change.revision_id not in {None, before.revision_id}:
            raise ApiError(
                ApiErrorType.PRECONDITION,
                "The Revision Id provided does not match the latest Revision Id. Call the GetFunction/GetAlias API to retrieve "
                "the latest Revision Id",
            )
        if self._running(before):
            raise ApiError(
                ApiErrorType.CONFLICT, f"The alias {before.arn} is being shifted; roll it back first"
            )
        version = before.version if change.version is None else change.version
        weights = before.weights if change.weights is None else change.weights
        self._check(self.arn_of(function), version, weights)
        description = before.description if change.description is None else change.description
        return self._keep(replace(before, version=version, weights=weights, description=description))

    async def delete(self, function: str, name: str) -> None:
        self.kept.pop((self.arn_of(function), name), None)

    async def shift(self, function: str, name: str, request: ShiftRequest) -> AliasView:
        before = self.alias(function, name)
        if request.shift and before.shift is not None and before.shift.shift == request.shift:
            return before
        if self._running(before):
            raise ApiError(ApiErrorType.CONFLICT, f"A shift of {before.arn} runs; roll it back first")
        self._check(self.arn_of(function), request.to, {})
        self.asked.append(request)
        self.shifts += 1
        begun = request.before is None
        shift = Shift(
            shift=request.shift or f"shift-{self.shifts}",
            old=before.version,
            new=request.to,
            strategy=request.strategy,
            state=ShiftState.SHIFTING if begun else ShiftState.BEFORE,
            accepted=NOW,
            began=NOW if begun else None,
            before=request.before,
            after=request.after,
            failure_rate=request.failure_rate,
            by=request.by,
            reason=request.reason,
        )
        weights = {request.to: request.strategy.percent / 100} if begun else {}
        return self._keep(replace(before, weights=weights, shift=shift))

    async def roll_back(self, function: str, name: str, *, by: str, reason: str) -> AliasView:
        before = self.alias(function, name)
        if before.shift is None or not self._running(before):
            raise ApiError(
                ApiErrorType.CONFLICT, f"No shift of {before.arn} runs; shift it to the old version"
            )
        because = f"by {by}: {reason}" if reason else f"by {by}"
        ended = replace(before.shift, state=ShiftState.ROLLED_BACK, ended=NOW, ended_because=because)
        return self._keep(replace(before, version=ended.old, weights={}, shift=ended))

    def finish(self, function: str, name: str) -> None:
        """Ends the running shift of an alias as it ends if all goes well."""
        before = self.alias(function, name)
        assert before.shift is not None
        done = replace(before.shift, state=ShiftState.DONE, moved=NOW, ended=NOW)
        self._keep(replace(before, version=done.new, weights={}, shift=done))

    @staticmethod
    def _running(view: AliasView) -> bool:
        return view.shift is not None and view.shift.state not in ENDED

    def _keep(self, view: AliasView) -> AliasView:
        self.changed += 1
        found = replace(view, revision_id=REVISION.format(self.changed))
        self.kept[view.arn.removesuffix(f":{view.name}"), view.name] = found
        return found

    def _check(self, arn: str, version: str, weights: Mapping[str, float]) -> None:
        for number in (version, *weights):
            if number not in {LATEST, *self.numbers}:
                raise ApiError(ApiErrorType.MISSING, f"Function not found: {arn}:{number}")
        if version in weights:
            raise ApiError(
                ApiErrorType.PARAMETER,
                f"Invalid function version {version}. Function version {version} is already included in routing configuration.",
            )
        if weights and version == LATEST:
            raise ApiError(
                ApiErrorType.PARAMETER,
                "$LATEST is not supported for an alias pointing to more than 1 version",
            )

    @staticmethod
    def _version(arn: str, number: str) -> VersionView:
        known = number != LATEST
        return VersionView(
            number=number,
            arn=f"{arn}:{number}",
            invoker="python",
            timeout_s=10.5 if known else 29.5,
            handler=f"app{number}.handler" if known else "app.handler",
            description=f"release {number}" if known else "",
            ran=number == "1",
            trouble="its settings changed; give it a new number" if number == "3" else "",
        )
