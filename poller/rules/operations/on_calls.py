"""Owns which requests become operations on the asynchronous calls of a function, and what each does to one call.

A step says what is to be written of one call as it is stored now. It is written on condition that nobody has written the call since,
so that a call that a worker has claimed meanwhile is looked at again.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any

from poller.domain.arns import Arn
from poller.domain.functions.queued_calls import AsyncPolicy, CallAnswer, CallEnd, QueuedCall
from poller.domain.operations import (
    Action,
    Operation,
    OperationId,
    OperationState,
    OperationTarget,
    PartResult,
    function_target,
)
from poller.domain.records import Epoch
from poller.domain.untrusted.texts import line_of
from poller.domain.wording.numbers_of import inflected, number_of
from poller.rules.functions.queued_calls import ended
from poller.rules.operations.accepting import check_alone, check_room, check_size
from poller.rules.operations.members import CALL_MEMBERS
from poller.rules.operations.reading import NAME_CHARS_MAX, AskedOperation, OperationRefused, read_request

SKIPPED = "an operator skipped the call"


class CallWord(StrEnum):
    """What became of one call, as the progress of an operation counts it."""

    DONE = "done"
    RUNNING = "running"
    """A worker runs it just now."""
    GONE = "gone"
    """It is not in the store: it is over, or there never was one."""
    WITHOUT_DESTINATION = "without_destination"
    OVER = "over"
    """It is over already, and its document is on its way."""


@dataclass(frozen=True, slots=True)
class Rewrite:
    """The call is to be stored so."""

    call: QueuedCall


@dataclass(frozen=True, slots=True)
class Remove:
    """The call is to be removed without a document."""

    call: QueuedCall


@dataclass(frozen=True, slots=True)
class LeaveAlone:
    """Nothing is written of the call. `word` says why."""

    word: CallWord


type CallStep = Rewrite | Remove | LeaveAlone


def read_on_calls(document: Any) -> AskedOperation:
    """Reads the document of a request about the calls of a function; raises OperationRefused."""
    asked = read_request(document, CALL_MEMBERS)
    if asked.request.target != OperationTarget():
        names = ("shard", "lane", "group")
        name = next(each for each in names if getattr(asked.request.target, each) is not None)
        raise OperationRefused(name, f"asynchronous calls have no {name}s; leave it out, and name calls")
    return asked


def accept_on_calls(
    asked: AskedOperation,
    function: str,
    *,
    operation: OperationId,
    by: str,
    now: Epoch,
    open_operations: Sequence[Operation] = (),
    open_bytes: int = 0,
) -> Operation:
    """Makes the operation; raises OperationRefused. The arguments are those of `accepting.accept`."""
    check_room(asked.request.action, open_operations)
    if asked.request.action is Action.REDRIVE:
        check_alone(Action.REDRIVE, function_target(function), open_operations)
        _check_queue(asked.request.members["from"])
    accepted = Operation(
        operation=asked.operation or operation,
        mapping=function_target(function),
        request=asked.request,
        by=line_of(by, chars_max=NAME_CHARS_MAX),
        created=now,
    )
    check_size(accepted, open_bytes=open_bytes)
    return accepted


def _check_queue(place: str) -> None:
    """Refuses a place that is no queue; its plug-in knows the rest."""
    arn = Arn.read(place)
    if arn is None or arn.service != "sqs":
        named = line_of(place, chars_max=NAME_CHARS_MAX)
        remedy = "write the ARN of an on-failure queue or dead-letter queue of asynchronous calls"
        raise OperationRefused("from", f"{named!r} is no place that can be redriven; {remedy}")


def retried(call: QueuedCall, now: Epoch, *, running: bool) -> CallStep:
    """The call is tried or delivered now, and its back-off begins again. One that runs is left alone."""
    if running:
        return LeaveAlone(CallWord.RUNNING)
    over = None if call.ended is None else replace(call.ended, deliveries=0)
    free = _free(call)
    due = replace(free, due=Epoch(min(call.due, now)), deferrals=0, ended=over)
    return LeaveAlone(CallWord.DONE) if due == call else Rewrite(due)


def skipped(
    call: QueuedCall, policy: AsyncPolicy, now: Epoch, *, running: bool, discard: bool, reason: str
) -> CallStep:
    """The call is given up: its destinations get its document, or with `discard` nobody does. One that runs is waited for."""
    if call.ended is not None and call.ended.end is CallEnd.SKIPPED and not discard:
        return LeaveAlone(CallWord.DONE)
    if running:
        return LeaveAlone(CallWord.RUNNING)
    if discard:
        return Remove(call)
    if call.ended is not None:
        return LeaveAlone(CallWord.OVER)
    text = f"{SKIPPED}: {reason}" if reason else SKIPPED
    over = ended(call, CallEnd.SKIPPED, policy, now, CallAnswer(error=text))
    if over.ended is None or not over.ended.undelivered:
        return LeaveAlone(CallWord.WITHOUT_DESTINATION)
    return Rewrite(replace(_free(over), due=now))


def retry_result(tally: dict[str, int]) -> PartResult:
    """What came of a retry, for people."""
    done = tally.get(CallWord.DONE, 0)
    text = f"{number_of(done, 'call')} {inflected(done, 'is', 'are')} tried now"
    if running := tally.get(CallWord.RUNNING, 0):
        text += f"; {running} {inflected(running, 'runs', 'run')} already"
    return PartResult(state=OperationState.DONE, result=text + _gone(tally))


def skip_result(tally: dict[str, int], *, discard: bool) -> PartResult:
    """What came of a skip, for people. It failed if any call stays."""
    done = tally.get(CallWord.DONE, 0)
    verb = "dropped" if discard else "skipped"
    text = f"{number_of(done, 'call')} {verb}" + _gone(tally)
    if without := tally.get(CallWord.WITHOUT_DESTINATION, 0):
        verb = inflected(without, "has", "have")
        text += f'; {without} {verb} no destination and {inflected(without, "stays", "stay")}: write "discard": true to drop them'
    if over := tally.get(CallWord.OVER, 0):
        verb = inflected(over, "is", "are")
        text += f'; {over} {verb} over already and {inflected(over, "waits", "wait")} for a destination: write "discard": true to drop them'
    failed = bool(without or over)
    return PartResult(state=OperationState.FAILED if failed else OperationState.DONE, result=text)


def _free(call: QueuedCall) -> QueuedCall:
    """The call without an owner. One that had an owner was taken over from a worker that is gone."""
    return replace(call, owner=None, takeovers=call.takeovers + (call.owner is not None))


def _gone(tally: dict[str, int]) -> str:
    gone = tally.get(CallWord.GONE, 0)
    return f"; {gone} {inflected(gone, 'is', 'are')} over or unknown" if gone else ""
