"""A model of the operations behind the API: each is stored at once, and nothing carries it out unless a test says so."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from poller.domain.mapping_api import ApiError, ApiErrorType
from poller.domain.operations import (
    Action,
    Operation,
    OperationId,
    OperationRequest,
    OperationState,
    OperationTarget,
)
from poller.domain.records import Epoch, MappingId

COMMON = {"action", "shard", "lane", "group", "reason", "id"}


@dataclass
class OperationModel:
    """Operations in memory. `refusal` is raised by the next requests while it is set; `asked` has every request."""

    now: float = 1767225600.338
    refusal: ApiError | None = None
    asked: list[tuple[str, Any]] = field(default_factory=list)
    known: dict[OperationId, Operation] = field(default_factory=dict)

    async def submit(self, mapping: MappingId, request: Mapping[str, Any], *, by: str) -> Operation:
        self._ask("submit", (mapping, request, by))
        target = OperationTarget(**{name: request.get(name) for name in ("shard", "lane", "group")})
        members = {name: value for name, value in request.items() if name not in COMMON}
        asked = OperationRequest(
            action=Action(request["action"]),
            target=target,
            members=members,
            reason=request.get("reason") or "",
        )
        operation = Operation(
            operation=OperationId(request.get("id") or f"op-{len(self.known)}"),
            mapping=mapping,
            request=asked,
            by=by,
            created=Epoch(self.now + len(self.known)),
            wanted=("shardId-0",),
        )
        return self.known.setdefault(operation.operation, operation)

    async def operations(
        self, *, mapping: MappingId | None = None, state: OperationState | None = None
    ) -> Sequence[Operation]:
        self._ask("operations", (mapping, state))
        return [
            each
            for each in reversed(self.known.values())
            if (mapping is None or each.mapping == mapping) and (state is None or each.state is state)
        ]

    def known_open(self) -> Sequence[Operation]:
        return [each for each in self.known.values() if not each.state.over]

    async def operation(self, operation: OperationId) -> Operation:
        self._ask("operation", operation)
        if operation not in self.known:
            raise ApiError(ApiErrorType.MISSING, "no operation has this id")
        return self.known[operation]

    async def cancel(self, operation: OperationId, *, by: str) -> Operation:
        self._ask("cancel", (operation, by))
        found = await self.operation(operation)
        if found.state.over:
            raise ApiError(ApiErrorType.CONFLICT, "the operation is over")
        self.known[operation] = replace(
            found, state=OperationState.CANCELLED, ended=Epoch(self.now), revision=found.revision + 1
        )
        return self.known[operation]

    def _ask(self, verb: str, request: Any) -> None:
        self.asked.append((verb, request))
        if self.refusal is not None:
            raise self.refusal
