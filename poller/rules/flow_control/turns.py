"""Owns whose turn it is when calls of several mappings wait for the same function: one of each mapping after the other.

So a mapping with a hundred lanes does not keep back a mapping with one.
"""

from collections import deque
from collections.abc import Hashable

KEYS_MAX = 10_000
"""Keys whose last turn is remembered."""


class RoundRobin[KeyT: Hashable, WaiterT]:
    """Those that wait, by key. Within a key the first that came is the first that goes."""

    def __init__(self) -> None:
        self._waiting: dict[KeyT, deque[WaiterT]] = {}
        self._turns: dict[KeyT, int] = {}
        """When each key last had its turn, as a number that grows with each turn; the longest ago comes first."""
        self._count = 0

    def __len__(self) -> int:
        return sum(len(each) for each in self._waiting.values())

    def has_others(self, key: KeyT) -> bool:
        """Whether somebody with another key waits."""
        return any(each != key for each in self._waiting)

    def join(self, key: KeyT, waiter: WaiterT) -> None:
        """One more waits."""
        self._waiting.setdefault(key, deque()).append(waiter)

    def leave(self, key: KeyT, waiter: WaiterT) -> None:
        """One does not wait any more; nothing happens if its turn had come."""
        line = self._waiting.get(key)
        if line is None or waiter not in line:
            return
        line.remove(waiter)
        if not line:
            del self._waiting[key]

    def take(self) -> WaiterT | None:
        """Takes out whose turn it is: the first of the key whose last turn was longest ago. None if nobody waits."""
        if not self._waiting:
            return None
        key = min(self._waiting, key=lambda each: self._turns.get(each, 0))
        line = self._waiting[key]
        waiter = line.popleft()
        if not line:
            del self._waiting[key]
        self._count += 1
        self._turns.pop(key, None)
        self._turns[key] = self._count
        if len(self._turns) > KEYS_MAX:
            del self._turns[next(iter(self._turns))]
        return waiter
