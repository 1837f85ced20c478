"""Owns the interface between the control API and the daemon: mappings as Lambda's API shows them, and how they are changed.

The API adapter handles HTTP and AWS's wire format. The runtime decides about a change, stores it and applies it.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Protocol

from poller.domain.records import Epoch, MappingId
from poller.domain.rows import MappingState
from poller.domain.status import FunctionStatus


class ApiErrorType(StrEnum):
    """The AWS exception for a refused request (aws-behaviour#error-bodies)."""

    PARAMETER = "InvalidParameterValueException"
    VALIDATION = "ValidationException"
    CONFLICT = "ResourceConflictException"
    MISSING = "ResourceNotFoundException"
    IN_USE = "ResourceInUseException"
    NOT_READY = "ResourceNotReadyException"
    PRECONDITION = "PreconditionFailedException"
    THROTTLED = "TooManyRequestsException"
    SERVICE = "ServiceException"


class ApiError(Exception):
    """A request that cannot be carried out. `text` is AWS's text if AWS has one."""

    def __init__(self, fault: ApiErrorType, text: str) -> None:
        super().__init__(text)
        self.fault = fault
        self.text = text


@dataclass(frozen=True, slots=True, kw_only=True)
class MappingView:
    """One mapping as the API shows it.

    `parameters` has AWS's names and values as in a create request, with every default filled in. `function_arn` keeps
    the qualifier as given. `reason` is AWS's `StateTransitionReason`. A mapping with `from_file` refuses changes.
    """

    mapping: MappingId
    parameters: Mapping[str, Any]
    function_arn: str
    state: MappingState
    reason: str
    last_modified: Epoch
    last_result: str = ""
    tags: Mapping[str, str] = field(default_factory=dict)
    from_file: bool = False
    before: Mapping[str, Any] | None = None
    """In the answer to an update: the parameters before the update."""


class MappingControl(Protocol):
    """Changes mappings while the daemon runs. Each method returns when the change is stored. It is applied soon after."""

    def views(self) -> tuple[MappingView, ...]:
        """All mappings, in the order of their creation; returns at once."""
        ...

    async def create(self, request: Mapping[str, Any]) -> MappingView:
        """Makes a mapping from the members of a create request; raises ApiError."""
        ...

    async def update(self, mapping: MappingId, request: Mapping[str, Any]) -> MappingView:
        """Changes a mapping by the members of an update request. If it raises ApiError, nothing was changed."""
        ...

    async def delete(self, mapping: MappingId) -> MappingView:
        """Stops a mapping and removes its positions; raises ApiError."""
        ...


class FunctionControl(Protocol):
    """What operators may do with functions while the daemon runs."""

    async def close_breaker(self, function: str, *, by: str, reason: str) -> FunctionStatus:
        """Closes the circuit breaker of a function; raises ApiError. Returns the function's state at this worker."""
        ...


class TagControl(Protocol):
    """Tags of mappings, named by the mapping's own ARN."""

    async def tag(self, mapping: MappingId, tags: Mapping[str, str]) -> None:
        """Adds or replaces tags; raises ApiError."""
        ...

    async def untag(self, mapping: MappingId, keys: tuple[str, ...]) -> None:
        """Removes tags; raises ApiError."""
        ...
