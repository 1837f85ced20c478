"""Owns the items of queued calls in the DynamoDB table, and what can be read of them.

A call has two rows, which are written and removed by the same transactions, so that none is there without the other:

- the due row, under `calls#FUNCTION`. Its sort key begins with the time when the call is due, so that one Query finds what is due.
  It has all that changes while the call waits. Its revision is the condition of every write.
- the home row, under `call#ID`. It has the function and the sort key of the due row, since a call is put only if there is none with its id, and
  since who writes a call knows its id and its new time, but not the time under which it is stored. It also has the payload, which
  never changes, so that looking for calls that are due does not read payloads.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from adapters.stores.call_backlogs import CallShare, call_share
from adapters.stores.dynamodb.call_parts import Kept, kept_in
from adapters.stores.dynamodb.table import Item, key, plain_values
from adapters.stores.stored_calls import NAMES, UnreadableCall, content, parsed
from poller.domain.functions.queued_calls import CallId, QueuedCall
from poller.domain.records import Epoch
from poller.domain.untrusted.numbers import MOMENT_MAX, number

FUNCTIONS = "call-functions"
HOME = "home"
ANSWER = "answer"
PAYLOAD = "payload"
COUNTED = ("owner", "accepted", "due")
"""The attributes of a due row that a backlog is counted of."""
_DIGITS = 18
_MICROS = 1_000_000
_STORED = tuple(name for name in NAMES if name != "function")


@dataclass(frozen=True, slots=True)
class StoredCall:
    """A due row: its sort key, its call without payload and answer, and where the answer is."""

    at: str
    call: QueuedCall
    answer: Kept

    def with_bytes(self, payload: bytes, answer: bytes) -> QueuedCall:
        """Returns the call with its payload and answer."""
        ended = self.call.ended
        if ended is not None:
            ended = replace(ended, answer=replace(ended.answer, payload=answer))
        return replace(self.call, payload=payload, ended=ended)


@dataclass(frozen=True, slots=True)
class Home:
    """A home row: the function of the call, the sort key of its due row, and where its payload is."""

    function: str
    at: str
    payload: Kept


def calls_of(function: str) -> str:
    """Returns the partition of the due rows of one function."""
    return f"calls#{function}"


def home_key(call: CallId) -> Item:
    """Returns the key of a call's home row."""
    return key(f"call#{call}", HOME)


def due_key(call: QueuedCall) -> str:
    """Returns the sort key of a call's due row. Microseconds keep the order of nearly all times; ids decide otherwise."""
    return place_key(call.due, call.call)


def place_key(due: Epoch, call: CallId) -> str:
    """Returns the sort key of a call that is due then."""
    return f"{_micros(due):0{_DIGITS}}#{call}"


def last_due(now: Epoch) -> str:
    """Returns the sort key above those of all calls that are due at `now`. A few of later calls may be below it."""
    return f"{_micros(now) + 1:0{_DIGITS}}"


def due_item(call: QueuedCall, answer: Kept) -> Item:
    """Makes the due row of a call."""
    owner: Item = {} if call.owner is None else {"owner": {"S": call.owner}}
    return {
        **key(calls_of(call.function), due_key(call)),
        "call": {"S": call.call},
        "accepted": {"N": repr(float(call.accepted))},
        "due": {"N": repr(float(call.due))},
        **owner,
        "takeovers": {"N": str(call.takeovers)},
        "revision": {"N": str(call.revision)},
        "content": {"S": content(call)},
        **answer.attributes(ANSWER),
    }


def home_item(call: QueuedCall, payload: Kept) -> Item:
    """Makes the home row of a call."""
    return {
        **home_key(call.call),
        "function": {"S": call.function},
        "at": {"S": due_key(call)},
        **payload.attributes(PAYLOAD),
    }


def stored_call(function: str, item: Item) -> StoredCall:
    """Reads a due row; raises UnreadableCall if it is damaged, also if it is not where its call is due."""
    at = str(item["sk"].get("S"))
    values: Mapping[str, Any] = {"function": function, **plain_values(item, "at", ("sk", *_STORED))}
    call = parsed(values)
    try:
        answer = kept_in(item, ANSWER)
    except ValueError as error:
        raise UnreadableCall(call.call, str(error)) from error
    if due_key(call) != at:
        raise UnreadableCall(call.call, f"its sort key is not that of {call.due}")
    return StoredCall(at, call, answer)


def home_of(call: CallId, item: Item) -> Home:
    """Reads a home row; raises UnreadableCall if it is damaged."""
    found = plain_values(item, "home", ("function", "at"))
    function, at = found.get("function"), found.get("at")
    try:
        payload = kept_in(item, PAYLOAD)
    except ValueError as error:
        raise UnreadableCall(call, str(error)) from error
    if not (isinstance(function, str) and isinstance(at, str) and at):
        raise UnreadableCall(call, "its home row does not say where its due row is")
    return Home(function, at, payload)


def shares_of(items: Sequence[Item]) -> list[CallShare]:
    """Counts due rows one by one. A damaged time counts as that of the row's key."""
    return [_share(plain_values(item, "at", ("sk", *COUNTED))) for item in items]


def _share(values: Mapping[str, Any]) -> CallShare:
    otherwise = number(str(values["at"])[:_DIGITS], most=MOMENT_MAX * _MICROS, default=0.0) / _MICROS
    return call_share(values.get("owner"), 1, values.get("accepted"), values.get("due"), otherwise=otherwise)


def _micros(moment: float) -> int:
    return int(min(max(moment, 0.0), MOMENT_MAX) * _MICROS)
