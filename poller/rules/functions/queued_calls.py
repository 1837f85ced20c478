"""Owns what follows each attempt of an asynchronous call: another attempt, or its end (aws-behaviour#async-retries).

A call whose function failed is tried again after fixed waits, `retries_max` times. A call whose function could not be called is
tried again with back-off until its age is reached, and uses up no attempt. A call is over when it succeeds, when its attempts are
used up, or when it is too old. It then stays in the store until its destinations have it.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import assert_never

from poller.domain.functions.error_documents import error_document
from poller.domain.functions.queued_calls import (
    ANSWER_BYTES_MAX,
    ERROR_CHARS_MAX,
    RETRY_WAITS_S,
    AsyncPolicy,
    CallAnswer,
    CallEnd,
    EndedCall,
    QueuedCall,
)
from poller.domain.invocations import (
    ERROR_MESSAGE_CHARS_MAX,
    VERSION_CHARS_MAX,
    FunctionError,
    Outcome,
    Succeeded,
    Throttled,
    TimedOut,
    Unreachable,
)
from poller.domain.policies import Backoff
from poller.domain.records import Epoch
from poller.domain.untrusted.texts import line_of
from poller.rules.backoff import Chance, retry_wait_s
from poller.rules.functions.lineage import rounds_of

DEFERRED = Backoff(base_s=1.0, cap_s=300.0)
"""The waits while the function cannot be called, as on Lambda."""
DELIVERY = Backoff(base_s=1.0, cap_s=300.0)
"""The waits while a destination cannot be reached."""
TAKEOVERS_MAX = 5
"""A call that so many workers in a row did not survive is over. It may be what ends them."""
ROUNDS_MAX = 16
"""A call in a loop of functions is stopped when its function was called so often before in the same loop."""
UNHANDLED = "Unhandled"


def before(call: QueuedCall, policy: AsyncPolicy, now: Epoch) -> QueuedCall:
    """The claimed call, or the same call as one that is over because it must not be tried any more."""
    if call.ended is not None:
        return call
    if call.takeovers > TAKEOVERS_MAX:
        text = f"workers that called the function and did not come back: {call.takeovers}"
        return ended(call, CallEnd.RETRIES, policy, now, CallAnswer(error=text))
    if rounds_of(call.trace_header, call.arn) >= ROUNDS_MAX:
        text = f"the function was called {ROUNDS_MAX} times in one loop of calls"
        return ended(call, CallEnd.RECURSION, policy, now, CallAnswer(error=text))
    if now >= _deadline(call, policy):
        return ended(
            call, CallEnd.AGE, policy, now, CallAnswer(error="the function could not be called in time")
        )
    return call


def reclaimed(call: QueuedCall, lost_claims: int) -> QueuedCall:
    """The claimed call without the takeovers that may be claims of this worker whose answers were lost: nobody was called then."""
    return replace(call, takeovers=max(0, call.takeovers - lost_claims))


def after(
    call: QueuedCall,
    outcome: Outcome,
    policy: AsyncPolicy,
    now: Epoch,
    rng: Chance,
    waits_s: Sequence[float] = RETRY_WAITS_S,
) -> QueuedCall:
    """The call after an attempt, which this worker has survived: without an owner and due later, or over."""
    answer, call = answer_of(outcome, call.call), replace(call, takeovers=0)
    match outcome:
        case Succeeded():
            done = replace(call, attempts=call.attempts + 1)
            return ended(done, CallEnd.SUCCESS, policy, now, answer)
        case FunctionError() | TimedOut():
            return _failed(
                replace(call, attempts=call.attempts + 1, deferrals=0), answer, policy, now, waits_s
            )
        case Throttled(_, retry_after_s) | Unreachable(_, retry_after_s):
            return deferred(call, answer.error, policy, now, rng, retry_after_s=retry_after_s)
        case _:
            assert_never(outcome)


def deferred(
    call: QueuedCall,
    reason: str,
    policy: AsyncPolicy,
    now: Epoch,
    rng: Chance,
    *,
    retry_after_s: float | None = None,
) -> QueuedCall:
    """The call after its function could not be called: due later, at its age at the latest, or over if that is reached."""
    deadline = _deadline(call, policy)
    if now >= deadline:
        return ended(call, CallEnd.AGE, policy, now, CallAnswer(error=reason))
    wait_s = max(retry_wait_s(DEFERRED, call.deferrals, rng), retry_after_s or 0.0)
    due = Epoch(min(now + wait_s, deadline))
    return replace(call, owner=None, due=due, deferrals=call.deferrals + 1, last_error=_kept(reason))


def undelivered(
    call: QueuedCall, left: Sequence[str], now: Epoch, rng: Chance, *, error: str = ""
) -> QueuedCall:
    """The call after `left` of its destinations could not be reached, with the last `error`: they are tried again later."""
    over = call.ended
    assert over is not None, "a call that is not over has nothing to deliver"
    wait_s = retry_wait_s(DELIVERY, over.deliveries, rng)
    later = replace(over, undelivered=tuple(left), deliveries=over.deliveries + 1)
    return replace(call, owner=None, due=Epoch(now + wait_s), ended=later, last_error=_kept(error))


def ended(call: QueuedCall, end: CallEnd, policy: AsyncPolicy, now: Epoch, answer: CallAnswer) -> QueuedCall:
    """The call as one that is over, with the destinations that must have it. It keeps its owner, who delivers it."""
    succeeded = end is CallEnd.SUCCESS
    wanted = (policy.on_success,) if succeeded else (policy.on_failure, policy.dead_letter)
    left = tuple(each for each in dict.fromkeys(wanted) if each is not None)
    # A destination that is both gets the document, which has the payload.
    dead_letter = None if succeeded or policy.dead_letter == policy.on_failure else policy.dead_letter
    return replace(call, ended=EndedCall(end, now, _cleaned(answer), left, dead_letter=dead_letter))


def _cleaned(answer: CallAnswer) -> CallAnswer:
    """The answer with texts that a store takes and a document can have. Otherwise the call could be neither written nor delivered."""
    version = answer.executed_version
    return replace(
        answer,
        executed_version=None if version is None else line_of(version, chars_max=VERSION_CHARS_MAX),
        error=line_of(answer.error, chars_max=ERROR_MESSAGE_CHARS_MAX),
    )


def answer_of(outcome: Outcome, request_id: str) -> CallAnswer:
    """What a destination is told of an outcome. An answer that is too long is left out, and its length told instead."""
    match outcome:
        case Succeeded(payload, version):
            if len(payload) > ANSWER_BYTES_MAX:
                text = f"the answer has {len(payload)} bytes, more than the {ANSWER_BYTES_MAX} that are kept"
                return CallAnswer(executed_version=version, error=text)
            return CallAnswer(payload=payload, executed_version=version)
        case FunctionError():
            return CallAnswer(
                payload=error_document(outcome, request_id),
                executed_version=outcome.executed_version,
                function_error=outcome.function_error,
                error=f"{outcome.error_type}: {outcome.message}",
            )
        case TimedOut():
            return CallAnswer(
                payload=error_document(outcome, request_id),
                executed_version=outcome.executed_version,
                function_error=UNHANDLED,
                error=f"timed out after {outcome.timeout_s:g} s",
            )
        case Throttled(reason) | Unreachable(reason):
            return CallAnswer(error=reason)
        case _:
            assert_never(outcome)


def _failed(
    call: QueuedCall, answer: CallAnswer, policy: AsyncPolicy, now: Epoch, waits_s: Sequence[float]
) -> QueuedCall:
    if call.attempts > policy.retries_max:
        return ended(call, CallEnd.RETRIES, policy, now, answer)
    due = Epoch(now + waits_s[min(call.attempts, len(waits_s)) - 1])
    if due > _deadline(call, policy):
        return ended(call, CallEnd.AGE, policy, now, answer)
    return replace(call, owner=None, due=due, last_error=_kept(answer.error))


def _kept(error: str) -> str:
    return line_of(error, chars_max=ERROR_CHARS_MAX)


def _deadline(call: QueuedCall, policy: AsyncPolicy) -> Epoch:
    return Epoch(call.accepted + policy.age_s_max)
