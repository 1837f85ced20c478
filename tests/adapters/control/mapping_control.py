"""A model of the mappings behind the API: every change is done at once, and states settle when a test says so."""

import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from poller.domain.arns import Arn, FunctionName
from poller.domain.mapping_api import ApiError, ApiErrorType, MappingView
from poller.domain.records import Epoch, MappingId
from poller.domain.rows import MappingState
from poller.domain.status import FunctionStatus

QUEUE_DEFAULTS: dict[str, Any] = {
    "BatchSize": 10,
    "MaximumBatchingWindowInSeconds": 0,
    "FunctionResponseTypes": [],
}
STREAM_DEFAULTS: dict[str, Any] = {
    "BatchSize": 100,
    "MaximumBatchingWindowInSeconds": 0,
    "FunctionResponseTypes": [],
    "ParallelizationFactor": 1,
    "MaximumRetryAttempts": -1,
    "MaximumRecordAgeInSeconds": -1,
    "TumblingWindowInSeconds": 0,
    "BisectBatchOnFunctionError": False,
    "DestinationConfig": {"OnFailure": {}},
}
_SETTLED = {
    MappingState.CREATING: MappingState.ENABLED,
    MappingState.ENABLING: MappingState.ENABLED,
    MappingState.UPDATING: MappingState.ENABLED,
    MappingState.DISABLING: MappingState.DISABLED,
}


@dataclass
class MappingModel:
    """Mappings in memory. `refusal` is raised by the next changes while it is set; `asked` has every request."""

    now: float = 1767225600.338
    refusal: ApiError | None = None
    ids: list[str] = field(default_factory=list)
    asked: list[tuple[str, Any]] = field(default_factory=list)
    known: dict[MappingId, MappingView] = field(default_factory=dict)
    file: set[MappingId] = field(default_factory=set)

    async def close_breaker(self, function: str, *, by: str, reason: str) -> FunctionStatus:
        """A FunctionControl's; only `orders` has a breaker."""
        self._ask("close_breaker", function)
        if function != "orders":
            raise ApiError(ApiErrorType.MISSING, "functions that have one: orders")
        return FunctionStatus(function=function)

    def views(self) -> tuple[MappingView, ...]:
        return tuple(self.known.values())

    async def create(self, request: Mapping[str, Any]) -> MappingView:
        self._ask("create", request)
        source = request.get("EventSourceArn")
        if source is None:
            raise ApiError(ApiErrorType.PARAMETER, "Unrecognized event source.")
        arn = FunctionName.parse(request["FunctionName"]).arn(Arn.parse(source))
        self._refuse_twin(source, arn)
        defaults = QUEUE_DEFAULTS if ":sqs:" in source else STREAM_DEFAULTS
        view = MappingView(
            mapping=MappingId(self.ids.pop(0) if self.ids else str(uuid.uuid4())),
            parameters={**defaults, **request},
            function_arn=arn,
            state=MappingState.CREATING,
            reason="",
            last_modified=Epoch(self.now),
            tags=request.get("Tags", {}),
        )
        self.known[view.mapping] = view
        return view

    async def update(self, mapping: MappingId, request: Mapping[str, Any]) -> MappingView:
        self._ask("update", (mapping, request))
        view = self._found(mapping)
        name = request.get("FunctionName")
        source = Arn.parse(view.parameters["EventSourceArn"])
        state = MappingState.UPDATING
        if "Enabled" in request:
            state = MappingState.ENABLING if request["Enabled"] else MappingState.DISABLING
        kept = self._keep(
            replace(
                view,
                parameters={**view.parameters, **request},
                function_arn=FunctionName.parse(name).arn(source) if name else view.function_arn,
                state=state,
                last_modified=Epoch(self.now),
            )
        )
        return replace(kept, before=view.parameters)

    async def delete(self, mapping: MappingId) -> MappingView:
        self._ask("delete", mapping)
        view = self._found(mapping)
        del self.known[mapping]
        return replace(view, state=MappingState.DELETING)

    async def tag(self, mapping: MappingId, tags: Mapping[str, str]) -> None:
        self._ask("tag", (mapping, tags))
        view = self._found(mapping)
        self._keep(replace(view, tags={**view.tags, **tags}))

    async def untag(self, mapping: MappingId, keys: tuple[str, ...]) -> None:
        self._ask("untag", (mapping, keys))
        view = self._found(mapping)
        self._keep(replace(view, tags={key: text for key, text in view.tags.items() if key not in keys}))

    def settle(self) -> None:
        """Lets every state arrive where it goes."""
        for view in self.views():
            self._keep(replace(view, state=_SETTLED.get(view.state, view.state)))

    def _ask(self, operation: str, request: Any) -> None:
        self.asked.append((operation, request))
        if self.refusal is not None:
            raise self.refusal

    def _keep(self, view: MappingView) -> MappingView:
        self.known[view.mapping] = view
        return view

    def _found(self, mapping: MappingId) -> MappingView:
        if mapping not in self.known:
            raise ApiError(ApiErrorType.MISSING, "The resource you requested does not exist.")
        if mapping in self.file:
            raise ApiError(
                ApiErrorType.CONFLICT, "This mapping is from the configuration file; change it there."
            )
        return self.known[mapping]

    def _refuse_twin(self, source: str, arn: str) -> None:
        for view in self.views():
            if view.parameters["EventSourceArn"] == source and view.function_arn == arn:
                text = (
                    f'An event source mapping with SQS arn (" {source} ") and function (" {FunctionName.parse(arn).name} ") '
                    f"already exists. Please update or delete the existing mapping with UUID {view.mapping}"
                )
                raise ApiError(ApiErrorType.CONFLICT, text)
