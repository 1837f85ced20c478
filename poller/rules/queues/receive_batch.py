"""Owns how several receives become one batch: by count, by window, by size of the event (aws-behaviour#queue-batches)."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import msgspec

from poller.domain.policies import BatchPolicy
from poller.domain.records import JsonObject, Message, Monotonic, json_value
from poller.rules.events import build, event_bytes
from poller.rules.queues.polling import MESSAGES_MAX


class QueueItem(msgspec.Struct, frozen=True, gc=False):
    """A message on its way to the function: the record that a function sees, and that record encoded."""

    message: Message
    view: JsonObject
    encoded: bytes

    @property
    def message_id(self) -> str:
        """The message's id, the same on every receive."""
        return self.message.message_id

    @property
    def group(self) -> str | None:
        """The message group; None on a standard queue."""
        return self.message.group


class QueueItemsEvent(msgspec.Struct, frozen=True, gc=False):
    """The event for these letters."""

    letters: Sequence[QueueItem]

    @property
    def size(self) -> int:
        """Bytes of the finished event."""
        return event_bytes(len(self.letters), sum([len(letter.encoded) for letter in self.letters]))

    def encoded(self) -> bytes:
        """As UTF-8 JSON."""
        return build([letter.encoded for letter in self.letters])

    def decoded(self) -> JsonObject:
        """As an object, made anew."""
        return {"Records": [_copied(letter) for letter in self.letters]}


def _copied(letter: QueueItem) -> JsonObject:
    """A record that a function may change."""
    if letter.message.message_attributes:
        record: JsonObject = json_value(letter.encoded)
        return record
    # All other members are texts.
    copied = letter.view.copy()
    copied["attributes"] = copied["attributes"].copy()
    copied["messageAttributes"] = {}
    return copied


class Receive(msgspec.Struct, frozen=True, gc=False):
    """Ask the queue for up to `messages_max` messages, waiting up to `wait_s` whole seconds for the first."""

    messages_max: int
    wait_s: int


@dataclass(frozen=True, slots=True)
class Pause:
    """Nothing to ask for before `until`."""

    until: Monotonic


@dataclass(frozen=True, slots=True)
class CloseBatch:
    """The batch is finished."""


type ReceiveStep = Receive | Pause | CloseBatch


class ReceiveBatch:
    """A batch that gathers. The window runs from its first message on."""

    def __init__(self, policy: BatchPolicy) -> None:
        self.letters: list[QueueItem] = []
        self._policy = policy
        self._encoded_bytes = 0
        self._opened: Monotonic | None = None
        self._drained = False

    def step(self, *, now: Monotonic, wait_s: int, contended: bool) -> ReceiveStep:
        """What to do now. `wait_s` is the longest wait for now; `contended`: others wait for what this poller holds."""
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
        """Whether the batch takes no more, whoever waits for what."""
        return self._opened is not None and (self._opened + self._policy.window_s <= now or self._full)

    def add(self, letters: Sequence[QueueItem], *, drained: bool, now: Monotonic) -> None:
        """Takes what one receive brought; `drained` when it brought fewer than asked for."""
        if letters and self._opened is None:
            self._opened = now
        self._drained = drained
        self.letters += letters
        self._encoded_bytes += sum(len(letter.encoded) for letter in letters)

    def room_for(self, letters: Sequence[QueueItem]) -> int:
        """How many of these letters, from the first on, the batch still takes; an empty batch takes at least one."""
        count, encoded_bytes = len(self.letters), self._encoded_bytes
        for place, letter in enumerate(letters):
            encoded_bytes += len(letter.encoded)
            full = count >= self._policy.records_max
            if full or (count and event_bytes(count + 1, encoded_bytes) > self._policy.payload_bytes_max):
                return place
            count += 1
        return len(letters)

    @property
    def _room(self) -> int:
        return min(MESSAGES_MAX, self._policy.records_max - len(self.letters))

    @property
    def _full(self) -> bool:
        if len(self.letters) >= self._policy.records_max:
            return True
        return event_bytes(len(self.letters), self._encoded_bytes) >= self._policy.payload_bytes_max


def fitting(letters: Sequence[QueueItem], policy: BatchPolicy) -> int:
    """How many of these letters, from the first on, make one event; at least one."""
    count, encoded_bytes = 0, 0
    for letter in letters[: policy.records_max]:
        encoded_bytes += len(letter.encoded)
        if count and event_bytes(count + 1, encoded_bytes) > policy.payload_bytes_max:
            break
        count += 1
    return count
