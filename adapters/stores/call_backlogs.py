"""Owns how the calls of one function are counted from parts of them. Damaged values must not hide the other calls."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from poller.domain.functions.queued_calls import CallBacklog
from poller.domain.records import Epoch, WorkerId
from poller.domain.untrusted.numbers import MOMENT_MAX, number


@dataclass(frozen=True, slots=True)
class CallShare:
    """How many calls of one function have the same owner, when the first of them was accepted, and when the first is due."""

    owner: WorkerId | None
    calls: int
    oldest: Epoch
    next_due: Epoch


def call_share(owner: Any, calls: int, oldest: Any, next_due: Any, *, otherwise: float = 0.0) -> CallShare:
    """Makes a share of stored values. A damaged time counts as `otherwise`."""
    first, due = (Epoch(number(each, most=MOMENT_MAX, default=otherwise)) for each in (oldest, next_due))
    return CallShare(WorkerId(owner) if isinstance(owner, str) else None, calls, first, due)


def backlog_of(function: str, shares: Sequence[CallShare]) -> CallBacklog:
    """Adds up the shares of one function, of which there is one at least."""
    free = [each for each in shares if each.owner is None]
    return CallBacklog(
        function=function,
        calls=sum(each.calls for each in shares),
        oldest=min(each.oldest for each in shares),
        next_due=min(each.next_due for each in free or shares),
        owners=frozenset(_owners(shares)),
    )


def _owners(shares: Sequence[CallShare]) -> Iterator[WorkerId]:
    return (each.owner for each in shares if each.owner is not None)
