"""Owns the fake queue service, SQS standard and FIFO: pure state, asked by `apply(now, request)`."""

import itertools
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from random import Random

from adapters.sources.sqs_answers import read_answer
from poller.domain.errors import ResourceMissing
from poller.domain.records import JsonObject, Message, Monotonic, QueueFacts, Undone
from tests.simulation.services.contents import Content
from tests.simulation.services.wires import Writer
from tests.virtual import EPOCH_BASE

ATTEMPT_S_MAX = 300.0
"""How long a FIFO queue knows an attempt id."""


@dataclass(frozen=True, slots=True)
class Receive:
    """Asks for up to `messages_max` visible messages, and hides them.

    On a FIFO queue, the same `attempt_id` again gives the same messages and receipts while all of them are still hidden,
    and hides them anew.
    """

    messages_max: int
    attempt_id: str | None = None


@dataclass(frozen=True, slots=True)
class Delete:
    """Deletes the messages that these receipts stand for."""

    receipts: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Extend:
    """Hides messages for `visibility_s` from now on."""

    receipts: tuple[str, ...]
    visibility_s: int


def extensions(receipts: Sequence[str], visibility_s: int | Sequence[int]) -> list[Extend]:
    """The requests of one call, which may have a time for each message."""
    if isinstance(visibility_s, int):
        return [Extend(tuple(receipts), visibility_s)]
    return [Extend((receipt,), each) for receipt, each in zip(receipts, visibility_s, strict=True)]


@dataclass(frozen=True, slots=True)
class Describe:
    """Asks for the queue's own settings."""


@dataclass(slots=True)
class Letter:
    """One message in the queue; hidden until `visible_at`; `receipt` is the latest."""

    message_id: str
    content: Content
    group: str | None
    sent: float
    sequence: int
    receives: int = 0
    visible_at: float = 0.0
    receipt: str = ""
    first_received: float = 0.0
    tenant: str | None = None
    """A standard queue's MessageGroupId."""
    early: bool = False
    """Whether it was last handed out while it was hidden: a duplicate delivery."""
    overtaken: dict[str, float] = field(default_factory=dict)
    """Receipts behind which it was handed out early, and until when each of them hid it."""
    unreadable: int = 0
    """So many times it is handed out in a form that nobody can read."""
    deleted: bool = False
    redriven: bool = False

    @property
    def here(self) -> bool:
        """Whether it is still in this queue, seen or unseen."""
        return not (self.deleted or self.redriven)

    def hidden_until(self, receipt: str) -> float:
        """Until when it is hidden as far as the holder of this receipt can know."""
        return self.overtaken.get(receipt, self.visible_at)


class FakeQueue:
    """A queue. Standard ones mix their order up and deliver a few messages twice, from `seed`.

    FIFO ones deliver nothing of a group while an earlier message of it is hidden. `dead` are the messages that the
    redrive policy took away. Time 0 of `now` is EPOCH_BASE.
    """

    def __init__(
        self,
        facts: QueueFacts,
        *,
        seed: int = 0,
        duplicates: float = 0.0,
        writer: Writer | None = None,
    ) -> None:
        self._writer = writer or Writer()
        self.facts = facts
        self.letters: dict[str, Letter] = {}
        self.dead: list[Letter] = []
        self.moved: list[str] = []
        """Ids of the messages of which a copy was sent to the dead-letter queue, in order; one sent again is there once on FIFO queues."""
        self.dead_letters: FakeQueue | None = None
        """The dead-letter queue, if messages are kept there. One keeps its id, and its group."""
        self.missing = False
        """Whether somebody has deleted the queue."""
        self._rng = Random(seed)
        self._duplicates = duplicates
        self._receipts: dict[str, Letter] = {}
        self.attempt_numbers = itertools.count(1)
        """For the ids of attempts: no two clients of this queue may take the same one."""
        self._attempts: dict[str, tuple[float, tuple[Message, ...]]] = {}
        """When each attempt was first made, and what it was given."""
        self._waiting: list[Letter] = []

    def send(self, now: float, content: Content, *, group: str | None = None) -> Letter:
        """Puts a message in; on a standard queue `group` is its tenant."""
        assert group is not None or not self.facts.fifo
        number = len(self.letters)
        ordered, tenant = (group, None) if self.facts.fifo else (None, group)
        letter = Letter(
            f"message-{content.number:06d}", content, ordered, now, number, visible_at=now, tenant=tenant
        )
        if self._writer.drawn(self._writer.shapes.unreadable, "message that cannot be read"):
            letter.unreadable = 1
        self.letters[letter.message_id] = letter
        self._waiting.append(letter)
        return letter

    def apply(
        self, now: float, request: Receive | Delete | Extend | Describe
    ) -> tuple[Message, ...] | tuple[Undone, ...] | QueueFacts:
        """One call of the service, at epoch seconds `now`; raises ResourceMissing."""
        if self.missing:
            raise ResourceMissing("no such queue")
        match request:
            case Describe():
                return self.facts
            case Receive():
                return self._received(now, request)
            case Delete(receipts):
                return tuple(undone for each in receipts if (undone := self._delete(now, each)))
            case Extend(receipts, visibility_s):
                return tuple(undone for each in receipts if (undone := self._extend(now, each, visibility_s)))

    def move(self, message: Message) -> None:
        """A copy is sent to the dead-letter queue."""
        if not (self.facts.fifo and message.message_id in self.moved):
            self.moved.append(message.message_id)

    @property
    def tenants(self) -> bool:
        """Whether messages of this standard queue name a tenant."""
        return self._writer.shapes.tenants

    def owner_of(self, receipt: str) -> Letter:
        """The message that a receipt, old or new, was given for."""
        return self._receipts[receipt]

    def next_visible(self, now: float) -> float | None:
        """When the next hidden message shows again; None if none is hidden."""
        return min((each.visible_at for each in self._waiting if each.visible_at > now), default=None)

    def _received(self, now: float, request: Receive) -> tuple[Message, ...]:
        """What a receive is given; under an attempt id it may be the repetition of one."""
        if request.attempt_id is None:
            return self._receive(now, request.messages_max)
        first, given = self._attempts.get(request.attempt_id, (now, ()))
        letters = [self._receipts[each.receipt] for each in given]
        same = all(
            letter.here and letter.receipt == message.receipt and letter.visible_at > now
            for letter, message in zip(letters, given, strict=True)
        )
        if not given or not same or now - first >= ATTEMPT_S_MAX:
            given = self._receive(now, request.messages_max)
            self._attempts[request.attempt_id] = now, given
            return given
        for letter in letters:
            letter.visible_at = now + self.facts.visibility_timeout_s
        return given

    def _receive(self, now: float, messages_max: int) -> tuple[Message, ...]:
        assert 1 <= messages_max <= 10, f"messages_max is {messages_max}"
        taken: list[Letter] = []
        for letter in self._candidates(now):
            if len(taken) == messages_max:
                break
            if not self._redrive(now, letter):
                taken.append(letter)
        answer = {"Messages": [self._hand_out(now, letter) for letter in taken]}
        received = Monotonic(now - EPOCH_BASE)
        return tuple(read_answer(json.dumps(answer).encode(), received, fifo=self.facts.fifo))

    def _candidates(self, now: float) -> Sequence[Letter]:
        self._waiting = [each for each in self._waiting if each.here]
        if self.facts.fifo:
            return self._unlocked(now)
        visible = [each for each in self._waiting if each.visible_at <= now or self._duplicated(each)]
        self._rng.shuffle(visible)
        return visible

    def _duplicated(self, letter: Letter) -> bool:
        return letter.receives == 1 and self._rng.random() < self._duplicates

    def _unlocked(self, now: float) -> list[Letter]:
        locked: set[str | None] = set()
        free = []
        for letter in self._waiting:
            if letter.visible_at > now:
                locked.add(letter.group)
            elif letter.group not in locked:
                free.append(letter)
        return free

    def hidden(self, now: float) -> int:
        """How many messages are hidden."""
        return sum(each.here and each.visible_at > now for each in self.letters.values())

    def _redrive(self, now: float, letter: Letter) -> bool:
        limit = self.facts.redrive_receives_max
        if limit is None or letter.receives < limit:
            return False
        letter.redriven = True
        self.dead.append(letter)
        if self.dead_letters is not None:
            self.dead_letters.send(now, letter.content, group=letter.group or letter.tenant)
        return True

    def _hand_out(self, now: float, letter: Letter) -> JsonObject:
        letter.early = letter.receives > 0 and letter.visible_at > now
        if letter.early:
            letter.overtaken[letter.receipt] = letter.visible_at
        letter.receives += 1
        letter.receipt = f"{letter.message_id}#{letter.receives}"
        letter.visible_at = now + self.facts.visibility_timeout_s
        letter.first_received = letter.first_received or now
        self._receipts[letter.receipt] = letter
        wire = self._writer.message(
            {
                "MessageId": letter.message_id,
                "ReceiptHandle": letter.receipt,
                "Body": letter.content.text(),
            },
            _attributes(letter, fifo=self.facts.fifo),
            fifo=self.facts.fifo,
        )
        return wire if letter.receives > letter.unreadable else wire | {"Body": {"not": "a text"}}

    def _delete(self, now: float, receipt: str) -> Undone | None:
        letter = self._receipts[receipt]
        if letter.deleted:
            return None
        if not letter.here or self._lapsed(now, letter, receipt):
            return Undone(receipt, "the receipt handle has expired", lapsed=True)
        letter.deleted = True
        return None

    def _extend(self, now: float, receipt: str, visibility_s: int) -> Undone | None:
        letter = self._receipts[receipt]
        if not letter.here or letter.receipt != receipt or letter.visible_at <= now:
            return Undone(receipt, "the message is not in flight", lapsed=True)
        letter.visible_at = now + visibility_s
        return None

    def _lapsed(self, now: float, letter: Letter, receipt: str) -> bool:
        """Standard queues delete by the latest receipt at any time, FIFO queues only while the message is hidden."""
        return letter.receipt != receipt or (self.facts.fifo and letter.visible_at <= now)


def _attributes(letter: Letter, *, fifo: bool) -> dict[str, str]:
    attributes = {
        "ApproximateReceiveCount": str(letter.receives),
        "SentTimestamp": _ms(letter.sent),
        "SequenceNumber": str(18_849_496_460_467_696_128 + letter.sequence),
        "MessageGroupId": letter.group or letter.tenant or "",
        "SenderId": "AIDAEXAMPLE",
        "MessageDeduplicationId": letter.message_id,
        "ApproximateFirstReceiveTimestamp": _ms(letter.first_received),
    }
    left_out = set() if fifo else {"SequenceNumber", "MessageDeduplicationId"}
    if not attributes["MessageGroupId"]:
        left_out.add("MessageGroupId")
    return {name: value for name, value in attributes.items() if name not in left_out}


def _ms(moment: float) -> str:
    return str(int(moment * 1000))
