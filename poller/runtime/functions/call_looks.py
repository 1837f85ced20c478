"""Owns what is read of asynchronous calls for people: how many there are of each function, and pages of them.

The counts are read when somebody asks for the status, and not again within two seconds.
"""

import asyncio
from collections.abc import Callable, Mapping, Sequence

from poller.call_queue_ports import CallListing
from poller.domain.errors import PortError
from poller.domain.functions.queued_calls import CallBacklog, QueuedCall
from poller.domain.functions.waiting_calls import (
    LOOKED_AT_MAX,
    CallPage,
    CallsRequest,
    CallsStatus,
    marker_of,
)
from poller.domain.mapping_api import ApiError, ApiErrorType
from poller.domain.records import Monotonic
from poller.ports import Clock
from poller.rules.functions.waiting_calls import calls_status, place_behind, shown, state_of
from poller.rules.peeking.payloads import PayloadRoom
from poller.runtime.operations.open_operations import answered

COUNT_S = 2.0
"""Counts that were read less than this ago are not read again."""
KNOWN_S = 30.0
"""Counts that were read longer ago are not shown."""
REFRESH_S_MAX = 2.0
"""How long somebody who asks for the counts waits for the store."""
COUNTED_MAX = 1_000
"""Calls of one function that are read to count them."""
FUNCTIONS_MAX = 50
"""Functions whose calls are read, those with the oldest call first. Of the others only how many calls they have is shown."""
PAGE_CALLS = 200
"""Calls of one read of a page."""
NAME_CHARS_MAX = 512
"""No call is stored for a function with a longer name."""
UNKNOWN = (
    "no function has this name and no call waits for one; `poller status` shows those that calls wait for"
)


class CallLooks:
    """What is read of the calls of a store."""

    def __init__(
        self, store: CallListing, backlogs: Callable[[], Sequence[CallBacklog]], clock: Clock
    ) -> None:
        self._store = store
        self._backlogs = backlogs
        self._clock = clock
        self._known: Mapping[str, CallsStatus] = {}
        self._read_at: Monotonic | None = None

    def statuses(self) -> tuple[CallsStatus, ...]:
        """The calls of each function that has some, by name, as they were read last."""
        now = self._clock.monotonic()
        known = self._known if self._read_at is not None and now - self._read_at < KNOWN_S else {}
        return tuple(known.get(each.function) or calls_status(each, ()) for each in self._backlogs())

    async def refresh(self) -> None:
        """Reads the calls of the functions that have some, if that is not new. A store that does not answer changes nothing."""
        now = self._clock.monotonic()
        if self._read_at is not None and now - self._read_at < COUNT_S:
            return
        self._read_at = now
        backlogs = sorted(self._backlogs(), key=lambda each: each.oldest)[:FUNCTIONS_MAX]
        found: dict[str, CallsStatus] = {}
        try:
            async with asyncio.timeout(REFRESH_S_MAX):
                for each in backlogs:
                    calls = await self._store.calls(each.function, calls_max=COUNTED_MAX)
                    found[each.function] = calls_status(each, calls)
        except (PortError, TimeoutError):
            found = {**self._known, **found}
        self._known = found

    async def page(self, function: str, request: CallsRequest, *, known: bool) -> CallPage:
        """A page of the calls of one function; raises ApiError. `known`: there is a function of this name."""
        if not known and (len(function) > NAME_CHARS_MAX or not function.isprintable()):
            raise ApiError(ApiErrorType.MISSING, UNKNOWN)
        try:
            async with answered():
                calls, more = await self._matching(function, request)
                if request.payloads:
                    calls = [await self._store.find(function, each.call) or each for each in calls]
        except PortError as error:
            raise ApiError(ApiErrorType.SERVICE, f"the store is in trouble: {error.reason}") from error
        if not calls and not known and request.after is None and not more:
            raise ApiError(ApiErrorType.MISSING, UNKNOWN)
        show = PayloadRoom().show if request.payloads else None
        return CallPage(
            function=function,
            calls=tuple(shown(each, show) for each in calls),
            next=more,
            payloads=request.payloads,
        )

    async def _matching(self, function: str, request: CallsRequest) -> tuple[list[QueuedCall], str | None]:
        """The calls of a page, and the marker of the next one."""
        found: list[QueuedCall] = []
        after, looked = request.after, 0
        while looked < LOOKED_AT_MAX:
            some = await self._store.calls(function, calls_max=PAGE_CALLS, after=after)
            if not some:
                return found, None
            for each in some:
                if request.state in {None, state_of(each)}:
                    if len(found) == request.limit:
                        return found, marker_of(place_behind(found))
                    found.append(each)
            after, looked = place_behind(some), looked + len(some)
        return found, None if after is None else marker_of(after)
