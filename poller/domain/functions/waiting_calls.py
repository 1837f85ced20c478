"""Owns how asynchronous calls that are not over are shown: how many there are, one by one, and the interface to ask for them."""

from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol, runtime_checkable

from poller.domain.functions.queued_calls import CallId, CallPlace
from poller.domain.peeking.answers import ShownPayload
from poller.domain.records import Epoch

LIMIT_DEFAULT = 50
LIMIT_MAX = 500
"""Calls of one page."""
LOOKED_AT_MAX = 2_000
"""Calls that are read for one page or one status. A page that leaves out other states may be short, and yet not the last one."""


class CallState(StrEnum):
    """What a call that the store keeps waits for."""

    WAITING = "waiting"
    """Nobody works on it. It is tried when it is due."""
    RUNNING = "running"
    """A worker has claimed it: its function runs, or it waits for room there."""
    UNDELIVERED = "undelivered"
    """It is over, and some of its destinations do not have its document yet."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CallsStatus:
    """The asynchronous calls of one function in the store. `calls` counts all of them, the other counts are those of the first `seen`.

    `oldest` is when the call was accepted that has waited longest. `first` is the id of the call that has failed and was accepted first,
    and `last_error` why it failed, in one line; empty if none has failed.
    """

    function: str
    calls: int
    seen: int = 0
    waiting: int = 0
    running: int = 0
    undelivered: int = 0
    oldest: Epoch
    first: str = ""
    last_error: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class WaitingCall:
    """One call. `due` is when it is tried or delivered next, `owner` the worker that works on it; empty: nobody.

    `end` is why it is over, and `undelivered` counts the destinations that do not have it; of a call that is not over they are empty and 0.
    """

    id: str
    accepted: Epoch
    due: Epoch
    state: CallState
    attempts: int
    owner: str = ""
    last_error: str = ""
    end: str = ""
    undelivered: int = 0
    payload: ShownPayload | None = None
    """None without the permission to see payloads."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CallPage:
    """Calls of one function, the longest due first. `next` is the parameter `marker` of the next page; None if this is the last."""

    function: str
    calls: tuple[WaitingCall, ...] = ()
    next: str | None = None
    payloads: bool = False
    """Whether payloads are shown."""
    missing: str = ""
    """What would have to be set or sent to see payloads; empty if they are shown."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CallsRequest:
    """Which calls are asked for: those in one state, `limit` at most, behind `after`."""

    state: CallState | None = None
    limit: int = LIMIT_DEFAULT
    after: CallPlace | None = None
    payloads: bool = False


@runtime_checkable
class ShowsQueuedCalls(Protocol):
    """Shows asynchronous calls while the daemon runs."""

    async def queued_calls(self, function: str, request: CallsRequest) -> CallPage:
        """Reads a page of calls. Raises ApiError if there is no such function and no call of it."""
        ...


def marker_of(place: CallPlace) -> str:
    """The text of a place, as pages name it."""
    return f"{place.due!r},{place.call}"


def place_of(due: str, call: str) -> CallPlace:
    """The place of the parts of such a text. Raises ValueError."""
    return CallPlace(Epoch(float(due)), CallId(call))
