"""Owns when a batch closes and what it contains: by count, by window, by size of the event (aws-behaviour#stream-batches)."""

from collections import deque
from collections.abc import Callable, Iterable
from itertools import islice

import msgspec

from poller.domain.policies import BatchPolicy
from poller.domain.records import Epoch, Monotonic, Record
from poller.domain.streams.places import end_of
from poller.rules.events import event_bytes


class Entry(msgspec.Struct, frozen=True, gc=False):
    """A record on its way through a lane: its index in the shard's watermark, and how many bytes it takes in an event.

    `behind_gap`: a record of its lane that came before it was settled out of turn, as a skip does. A notice names no range over such a gap.
    """

    index: int
    record: Record
    size: int
    behind_gap: bool = False


class Buffer:
    """The entries of one lane that are not in a batch yet, in order.

    The batching window starts when the lane first asks for a batch while an entry waits: at the first record's arrival or at the
    end of the previous invocation, whichever is later (aws-behaviour#batch-window).
    """

    def __init__(self, policy: BatchPolicy) -> None:
        self._policy = policy
        self._entries: deque[Entry] = deque()
        self._encoded_bytes = 0
        self._opened: Monotonic | None = None

    def __len__(self) -> int:
        return len(self._entries)

    @property
    def encoded_bytes(self) -> int:
        """Bytes that all waiting entries take in events."""
        return self._encoded_bytes

    @property
    def next_bytes(self) -> int:
        """About how many of them the next batch will have."""
        count, policy = len(self._entries), self._policy
        if count <= policy.records_max:
            return min(self._encoded_bytes, policy.payload_bytes_max)
        return min(self._encoded_bytes * policy.records_max // count, policy.payload_bytes_max)

    @property
    def full(self) -> bool:
        """Whether a batch can close before its window is over."""
        if len(self._entries) >= self._policy.records_max:
            return True
        return event_bytes(len(self._entries), self._encoded_bytes) >= self._policy.payload_bytes_max

    @property
    def deadline(self) -> Monotonic | None:
        """When the open batching window is over; None without one."""
        return None if self._opened is None else Monotonic(self._opened + self._policy.window_s)

    def add(self, entry: Entry) -> None:
        """Takes the next entry."""
        self._entries.append(entry)
        self._encoded_bytes += entry.size

    def extend(self, entries: Iterable[Entry]) -> None:
        """Takes the next entries."""
        before = len(self._entries)
        self._entries.extend(entries)
        self._encoded_bytes += sum([entry.size for entry in islice(self._entries, before, None)])

    @property
    def first_arrived(self) -> Epoch | None:
        """When the first waiting record arrived; None when nothing waits."""
        return self._entries[0].record.arrived if self._entries else None

    def leading(self, belongs: Callable[[Epoch], bool]) -> int:
        """How many entries at the front may share a batch by their arrival times, one batch at most."""
        most = min(len(self._entries), self._policy.records_max)
        return next(
            (count for count in range(most) if not belongs(self._entries[count].record.arrived)), most
        )

    def take(
        self, now: Monotonic, *, closing: bool = False, records_max: int | None = None
    ) -> tuple[Entry, ...]:
        """The batch if it closes now, else nothing.

        `closing`: no further entry can join, so the window is not waited for. `records_max` is a limit below the policy's.
        """
        if not self._entries:
            return ()
        if self._opened is None:
            self._opened = now
        if not (closing or self.full or now >= self._opened + self._policy.window_s):
            return ()
        return self._cut(min(records_max or self._policy.records_max, self._policy.records_max))

    def take_through(self, end: int) -> tuple[Entry, ...]:
        """All entries whose places end here or before, whatever the policy says."""
        taken: list[Entry] = []
        while self._entries and end_of(self._entries[0].record.sequence_number) <= end:
            taken.append(self._pop())
        return tuple(taken)

    def _cut(self, records_max: int) -> tuple[Entry, ...]:
        leading = list(islice(self._entries, records_max))
        encoded_bytes = sum([entry.size for entry in leading])
        # Nearly always everything fits. Otherwise the last entries stay. The first entry is taken whatever its size.
        while len(leading) > 1 and event_bytes(len(leading), encoded_bytes) > self._policy.payload_bytes_max:
            encoded_bytes -= leading.pop().size
        if len(leading) == len(self._entries):
            self._entries.clear()
        else:
            for _ in leading:
                self._entries.popleft()
        self._encoded_bytes -= encoded_bytes
        self._opened = None
        return tuple(leading)

    def _pop(self) -> Entry:
        entry = self._entries.popleft()
        self._encoded_bytes -= entry.size
        return entry
