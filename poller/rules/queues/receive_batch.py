"""Owns how several receives become one batch, bounded by count, window and size of the event (aws-behaviour#queue-batches)."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import msgspec

from poller.domain.policies import BatchPolicy
from poller.domain.records import JsonObject, Message, Monotonic
from poller.domain.untrusted.json_values import json_value
from poller.rules.events import build, event_bytes
from poller.rules.queues.message_encoder import MessageEncoder
from poller.rules.queues.polling import MESSAGES_MAX


class QueueItem(msgspec.Struct, eq=False, gc=False):
    """A message for the function. Its record is encoded when its bytes are needed, and only once; `written` keeps them.

    `bytes_max` is an upper bound of their number, which is known without encoding.
    """

    message: Message
    encoder: MessageEncoder
    bytes_max: int
    written: bytes | None = None

    @classmethod
    def of(cls, message: Message, encoder: MessageEncoder) -> Self:
        """An item that is not encoded yet."""
        return cls(message, encoder, encoder.bytes_max(message))

    @classmethod
    def encoded_as(cls, written: bytes, message: Message, encoder: MessageEncoder) -> Self:
        """An item that is encoded already."""
        return cls(message, encoder, len(written), written)

    @property
    def message_id(self) -> str:
        """The message's id, the same on every receive."""
        return self.message.message_id

    @property
    def group(self) -> str | None:
        """The message group; None on a standard queue."""
        return self.message.group

    @property
    def encoded(self) -> bytes:
        """The record as UTF-8 JSON."""
        if self.written is None:
            self.written = self.encoder.encode(self.message)
        return self.written

    def decoded(self) -> JsonObject:
        """The record as a new object, which the function may change."""
        if self.message.message_attributes:
            record: JsonObject = json_value(self.encoded)
            return record
        record = self.encoder.view(self.message)
        record["messageAttributes"] = {}
        return record


class QueueItemsEvent(msgspec.Struct, frozen=True, gc=False):
    """The event for these items."""

    items: Sequence[QueueItem]

    @property
    def size(self) -> int:
        """Bytes of the finished event."""
        return event_bytes(len(self.items), sum([len(item.encoded) for item in self.items]))

    def fits(self, bytes_max: int) -> bool:
        """Whether the finished event has at most `bytes_max` bytes."""
        return all_fit(self.items, bytes_max) or self.size <= bytes_max

    def encoded(self) -> bytes:
        """The event as UTF-8 JSON."""
        return build([item.encoded for item in self.items])

    def decoded(self) -> JsonObject:
        """The event as a new object."""
        return {"Records": [item.decoded() for item in self.items]}


def items_of(
    messages: Sequence[Message], encoder: MessageEncoder, *, bytes_max: int
) -> Sequence[QueueItem] | None:
    """The items of the messages that can be read, not encoded yet. None if their event may have more than `bytes_max` bytes."""
    kept = [message for message in messages if not message.unreadable]
    lengths = {message.answer_bytes for message in kept}
    if len(lengths) == 1 and (answer_bytes := lengths.pop()) is not None:
        # The messages of one answer are nearly always so small that it is enough to know the answer's length.
        size = encoder.bytes_max_of_any(answer_bytes)
        if event_bytes(len(kept), size * len(kept)) <= bytes_max:
            return [QueueItem(message, encoder, size) for message in kept]
    items = [QueueItem.of(message, encoder) for message in kept]
    return items if all_fit(items, bytes_max) else None


def all_fit(items: Sequence[QueueItem], bytes_max: int) -> bool:
    """Whether an event of these items certainly has at most `bytes_max` bytes. It is not certain for items that come near it."""
    return event_bytes(len(items), sum([item.bytes_max for item in items])) <= bytes_max


class Receive(msgspec.Struct, frozen=True, gc=False):
    """Ask the queue for up to `messages_max` messages, waiting up to `wait_s` whole seconds for the first."""

    messages_max: int
    wait_s: int


@dataclass(frozen=True, slots=True)
class Pause:
    """Receive nothing before `until`."""

    until: Monotonic


@dataclass(frozen=True, slots=True)
class CloseBatch:
    """Close the batch and run it."""


type ReceiveStep = Receive | Pause | CloseBatch


class ReceiveBatch:
    """A batch that gathers items. Its window begins with its first message."""

    def __init__(self, policy: BatchPolicy) -> None:
        self.items: list[QueueItem] = []
        self._policy = policy
        self._encoded_bytes = 0
        self._opened: Monotonic | None = None
        self._drained = False

    def step(self, *, now: Monotonic, wait_s: int, contended: bool) -> ReceiveStep:
        """What to do now. `wait_s` is the longest wait of a receive. `contended`: others wait for the slot that this poller holds."""
        if self._opened is None:
            return Receive(self._room, wait_s)
        if self.finished(now) or (contended and self._drained):
            return CloseBatch()
        left_s = self._opened + self._policy.window_s - now
        whole_s = math.floor(left_s)
        if self._drained and whole_s < 1:
            return Pause(Monotonic(now + left_s))
        return Receive(self._room, min(wait_s, whole_s))

    def finished(self, now: Monotonic) -> bool:
        """Whether the batch must be closed: it is full, or its window is over."""
        return self._opened is not None and (self._opened + self._policy.window_s <= now or self._full)

    def add(self, items: Sequence[QueueItem], *, drained: bool, now: Monotonic) -> None:
        """Adds the items of one receive. `drained`: the receive had fewer messages than it asked for."""
        if items and self._opened is None:
            self._opened = now
        self._drained = drained
        self.items += items
        self._encoded_bytes += sum(len(item.encoded) for item in items)

    def room_for(self, items: Sequence[QueueItem]) -> int:
        """How many of these items, from the first on, still fit into the batch. An empty batch takes at least one."""
        count, encoded_bytes = len(self.items), self._encoded_bytes
        for place, item in enumerate(items):
            encoded_bytes += len(item.encoded)
            full = count >= self._policy.records_max
            if full or (count and event_bytes(count + 1, encoded_bytes) > self._policy.payload_bytes_max):
                return place
            count += 1
        return len(items)

    @property
    def _room(self) -> int:
        return min(MESSAGES_MAX, self._policy.records_max - len(self.items))

    @property
    def _full(self) -> bool:
        if len(self.items) >= self._policy.records_max:
            return True
        return event_bytes(len(self.items), self._encoded_bytes) >= self._policy.payload_bytes_max


def fitting(items: Sequence[QueueItem], policy: BatchPolicy) -> int:
    """How many of these items, from the first on, fit into one event; at least one."""
    items = items[: policy.records_max]
    if all_fit(items, policy.payload_bytes_max):
        return len(items)
    sizes = [len(item.encoded) for item in items]
    count, encoded_bytes = 0, 0
    for size in sizes:
        encoded_bytes += size
        if count and event_bytes(count + 1, encoded_bytes) > policy.payload_bytes_max:
            break
        count += 1
    return count
