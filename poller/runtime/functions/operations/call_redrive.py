"""Owns the redrive of asynchronous calls: it takes failed calls back from a queue, and puts each into the store as a new call.

A message is removed when the store has its call. A worker that ends in between leaves the message, which is read again: it is the same
call as long as that waits, and may be made twice after that.
"""

from collections.abc import Awaitable, Callable
from functools import partial

from poller.domain.errors import InvalidConfiguration, PortError, ServiceUnavailable
from poller.domain.functions.calls import NoRoom
from poller.domain.functions.queued_calls import QueuedCall
from poller.domain.invocations import Ended, StoredNotice
from poller.domain.mapping_api import ApiError, ApiErrorType
from poller.domain.operations import Operation, OperationState, PartResult
from poller.domain.wording.numbers_of import inflected, number_of
from poller.operator_ports import NoticeSource
from poller.ports import Clock
from poller.rules.functions.naming import NamedFunction
from poller.rules.functions.redriven_calls import redriven_call, redriven_id
from poller.rules.operations import lifecycle
from poller.rules.operations.redriving import NoticeRefused, RedriveTally
from poller.rules.responses import Accepted, Deferred
from poller.runtime.operations.long.long_run import PlaceOpener, noted
from poller.runtime.operations.long.redriving import Called, NoticeKept, Redrive
from poller.runtime.operations.open_operations import OperationChange
from poller.runtime.stopping import Reason, Stop

HOLD_S = 60.0
"""How long a message is hidden from other readers while its call is put into the store; it is hidden anew if that takes longer."""
SHOW_S = 1.0
"""How often the counts are stored."""
REMEDY = "see that the queue exists and that the daemon may receive and delete its messages, then ask again"

type AccountChange = Callable[[OperationChange], Awaitable[None]]


class RedrivableCalls:
    """The calls that messages of `place` become. `named` resolves a function's qualifier, `put` stores a call; both may raise."""

    def __init__(
        self,
        function: str,
        place: str,
        *,
        named: Callable[[str, str], NamedFunction],
        put: Callable[[QueuedCall], Awaitable[None]],
        clock: Clock,
    ) -> None:
        self._function = function
        self._place = place
        self._named = named
        self._put = put
        self._clock = clock

    def look(self, stored: StoredNotice) -> str:
        """What a redrive of this message would call, for people; raises NoticeRefused."""
        call = self._call(stored)
        had = redriven_call(stored, self._function).request
        size = number_of(len(call.payload), "byte")
        return f"call {call.call}: {size} for {call.arn}, {f'before as request {had}' if had else 'from no request'}"

    async def again(self, stored: StoredNotice, source: NoticeSource, stop: Stop) -> Called | None:
        """Puts the call of a message into the store. None: a stop came before. Raises NoticeRefused and PortError."""
        if stop.requested:
            return None
        call = self._call(stored)
        try:
            await self._put(call)
        except NoRoom as error:
            return Called(Deferred(Ended.THROTTLED, error.text), 0)
        return Called(Accepted(), 1)

    def _call(self, stored: StoredNotice) -> QueuedCall:
        found, now = redriven_call(stored, self._function), self._clock.now()
        try:
            named = self._named(self._function, found.qualifier)
        except ApiError as error:
            if error.fault is ApiErrorType.SERVICE:
                raise ServiceUnavailable(error.text) from error
            raise NoticeRefused(f"it cannot be called: {error.text}") from error
        return QueuedCall(
            call=redriven_id(self._place, stored.place),
            function=named.plan.name,
            arn=named.arn,
            payload=found.payload,
            accepted=now,
            due=now,
        )


class CallRedrive:
    """One redrive that this worker has claimed. `change` changes the operation, and `waits` notes what it waits for."""

    def __init__(
        self,
        operation: Operation,
        calls: RedrivableCalls,
        opener: PlaceOpener,
        *,
        stop: Stop,
        clock: Clock,
        wait_s: Callable[[int], float],
        current: Callable[[], Operation | None],
        change: AccountChange,
        waits: Callable[[str], Awaitable[None]],
    ) -> None:
        self.tally = RedriveTally.of(operation.progress)
        self._operation = operation
        self._calls = calls
        self._opener = opener
        self._stop = stop
        self._clock = clock
        self._wait_s = wait_s
        self._current = current
        self._change = change
        self._waits = waits
        self._show_due = clock.monotonic() + SHOW_S

    async def run(self) -> PartResult | None:
        """Carries it out, and returns what came of it. None: a stop came first, or it is over or another's."""
        members = self._operation.request.members
        settings = {"place": members["from"], "mapping": self._operation.mapping, "hold_s": HOLD_S}
        look = bool(members.get("dry_run"))
        try:
            async with self._opener("notices", "sqs", settings, look=look) as source:
                return await (self._looked(source) if look else self._redriven(source))
        except InvalidConfiguration as error:
            return _failed(f"from: {'; '.join(error.problems)}")
        except NoticeKept as error:
            return _failed(f"a message stays: {error.reason}")
        except PortError as error:
            return _failed(f"from: the messages cannot be read: {error.reason}; {REMEDY}")

    async def _redriven(self, source: NoticeSource) -> PartResult | None:
        members = self._operation.request.members
        redrive, limit = self._redrive(source), members.get("limit")
        # A limit is one for the whole operation, also when another worker goes on with it.
        left = None if limit is None else max(0, limit - redrive.tally.settled)
        found = await redrive.run(limit=left, per_s=members.get("messages_per_s"))
        self.tally = redrive.tally
        return None if found is None else _result(found)

    async def _looked(self, source: NoticeSource) -> PartResult | None:
        tally, lines = await self._redrive(source).look(limit=self._operation.request.members.get("limit"))
        if self._stop.requested:
            return None
        await self._change(partial(noted, plan=lines))
        stay = f"; {tally.refused} could not be called" if tally.refused else ""
        calls = number_of(tally.settled, "call")
        return PartResult(state=OperationState.DONE, result=f"would make {calls}{stay}")

    def _redrive(self, source: NoticeSource) -> Redrive:
        return Redrive(
            self._calls,
            source,
            self._stop,
            clock=self._clock,
            wait_s=self._wait_s,
            held=lambda: False,
            changed=self._changed,
            waits=self._waits,
            tally=self.tally,
            hold_s=HOLD_S,
        )

    async def _changed(self, tally: RedriveTally) -> None:
        """Stores the counts once a second at most. Stops it when it is not this worker's any more."""
        self.tally = tally
        if self._current() is None:
            self._stop.request(Reason.REQUESTED)
        elif self._clock.monotonic() >= self._show_due:
            self._show_due = self._clock.monotonic() + SHOW_S
            await self._change(partial(lifecycle.count, progress=tally.progress()))


def _failed(text: str) -> PartResult:
    return PartResult(state=OperationState.FAILED, result=text)


def _result(tally: RedriveTally) -> PartResult:
    """What came of it. It failed if any message stays."""
    text = f"{number_of(tally.settled, 'call')} {inflected(tally.settled, 'is', 'are')} made again"
    if stay := tally.refused + tally.failed:
        reasons = "; ".join(f"{reason} ({count})" if count > 1 else reason for reason, count in tally.reasons)
        text += f"; {number_of(stay, 'message')} {inflected(stay, 'stays', 'stay')}: {reasons}"
    if tally.full:
        text += "; no more were read, because so many stay"
    return PartResult(state=OperationState.FAILED if stay else OperationState.DONE, result=text)
