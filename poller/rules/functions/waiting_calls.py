"""Owns how asynchronous calls that are not over are counted and shown."""

from collections import Counter
from collections.abc import Callable, Sequence

from poller.domain.functions.queued_calls import CallBacklog, CallPlace, QueuedCall
from poller.domain.functions.waiting_calls import CallsStatus, CallState, WaitingCall
from poller.domain.peeking.answers import ShownPayload
from poller.domain.untrusted.texts import line_of

OWNER_CHARS_MAX = 256

type Shower = Callable[[bytes], ShownPayload]


def state_of(call: QueuedCall) -> CallState:
    """What a call waits for. One that is delivered by a worker now is undelivered."""
    if call.ended is not None:
        return CallState.UNDELIVERED
    return CallState.WAITING if call.owner is None else CallState.RUNNING


def calls_status(backlog: CallBacklog, calls: Sequence[QueuedCall]) -> CallsStatus:
    """The calls of one function, of which `calls` were read."""
    states = Counter(map(state_of, calls))
    failed = min((each for each in calls if error_of(each)), key=lambda each: each.accepted, default=None)
    return CallsStatus(
        function=backlog.function,
        calls=max(backlog.calls, len(calls)),
        seen=len(calls),
        waiting=states[CallState.WAITING],
        running=states[CallState.RUNNING],
        undelivered=states[CallState.UNDELIVERED],
        oldest=backlog.oldest,
        first="" if failed is None else failed.call,
        last_error="" if failed is None else error_of(failed),
    )


def shown(call: QueuedCall, show: Shower | None) -> WaitingCall:
    """One call as pages show it, with its payload as `show` makes it."""
    over = call.ended
    return WaitingCall(
        id=line_of(call.call, chars_max=OWNER_CHARS_MAX),
        accepted=call.accepted,
        due=call.due,
        state=state_of(call),
        attempts=call.attempts,
        owner="" if call.owner is None else line_of(call.owner, chars_max=OWNER_CHARS_MAX),
        last_error=error_of(call),
        end="" if over is None else over.end.value,
        undelivered=0 if over is None else len(over.undelivered),
        payload=None if show is None else show(call.payload),
    )


def error_of(call: QueuedCall) -> str:
    """Why the last attempt or delivery of a call failed; empty if none has."""
    return call.last_error or ("" if call.ended is None else call.ended.answer.error)


def place_behind(calls: Sequence[QueuedCall]) -> CallPlace:
    """The place of the last of these calls."""
    return CallPlace(calls[-1].due, calls[-1].call)
