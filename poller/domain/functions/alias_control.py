"""Owns the interface between the APIs and the daemon for versions and aliases of functions, and for shifts between versions."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from poller.domain.functions.shifts import Shift, ShiftStrategy
from poller.domain.records import Epoch


@dataclass(frozen=True, slots=True, kw_only=True)
class VersionView:
    """One version of a function; `number` may be $LATEST. `arn` has the version as its qualifier.

    `ran`: a worker has called it, so it cannot change any more. `trouble` says why it is not called; empty if it can be.
    """

    number: str
    arn: str
    invoker: str
    timeout_s: float
    handler: str = ""
    description: str = ""
    ran: bool = False
    trouble: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class AliasView:
    """One alias. `weights` is what goes to other versions than `version` now, also by a running shift.

    `shift` is the running shift, or the last one. `from_file`: the configuration file defines the alias. `calls` counts, for each
    version, the calls and the failed calls of the answering worker since the running shift began.
    """

    function: str
    name: str
    arn: str
    version: str
    weights: Mapping[str, float]
    revision_id: str
    modified: Epoch
    description: str = ""
    from_file: bool = False
    shift: Shift | None = None
    calls: Mapping[str, tuple[int, int]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class AliasChange:
    """The members of a request that creates or updates an alias. None: as before, or as Lambda's default.

    An empty `weights` removes the weights. `revision_id`: the change is refused if the alias has another one by now.
    """

    version: str | None = None
    weights: Mapping[str, float] | None = None
    description: str | None = None
    revision_id: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ShiftRequest:
    """A shift as somebody asks for it. `shift` is the caller's own id, so that a repeat is the same shift; empty: a new one."""

    to: str
    strategy: ShiftStrategy
    shift: str = ""
    before: str | None = None
    after: str | None = None
    failure_rate: float | None = None
    by: str = ""
    reason: str = ""


class AliasControl(Protocol):
    """Shows and changes aliases. Functions are named by name or ARN. Every method raises ApiError."""

    async def refresh(self, function: str) -> None:
        """Reads the function's aliases from the store, so that what another worker has just written is shown.

        If the store does not answer, what was known stays. Raises ApiError if there is no such function.
        """
        ...

    def versions(self, function: str) -> Sequence[VersionView]:
        """$LATEST and all versions of a function, by number."""
        ...

    def aliases(self, function: str, *, version: str = "") -> Sequence[AliasView]:
        """All aliases of a function by name, or those that lead to `version`."""
        ...

    def alias(self, function: str, name: str) -> AliasView:
        """One alias."""
        ...

    async def create(self, function: str, name: str, change: AliasChange) -> AliasView:
        """Adds an alias. It needs a version."""
        ...

    async def update(self, function: str, name: str, change: AliasChange) -> AliasView:
        """Changes an alias. An alias that is being shifted cannot be changed."""
        ...

    async def delete(self, function: str, name: str) -> None:
        """Removes an alias. It is no error if there is none, as on Lambda."""
        ...

    async def shift(self, function: str, name: str, request: ShiftRequest) -> AliasView:
        """Begins to shift an alias. Refused while another shift of it runs."""
        ...

    async def roll_back(self, function: str, name: str, *, by: str, reason: str) -> AliasView:
        """Sends all calls to the old version at once. Refused if no shift of the alias runs.

        A shift that has ended can be undone by a shift to the old version, all at once.
        """
        ...
