"""The messages of a queue in flight: visibility, groups, failures and counts change together, whatever happens to a message."""

from collections.abc import Sequence
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from poller.domain.invocations import Ended
from poller.domain.policies import BatchPolicy
from poller.domain.records import Epoch, Message, Monotonic, Undone
from poller.rules.queues.in_flight import InFlightTracker, PendingDelete, Reception
from poller.rules.queues.receive_batch import QueueItem
from poller.rules.queues.visibility import VisibilityPolicy
from poller.rules.responses import Accepted, Deferred, Partial, Rejected, Response, Verdict
from tests.rules.build import ENCODER

START = Epoch(1_000.0)
VISIBILITY_S = 30
ANSWER = Response("1", None)


def message(name: str, *, receives: int = 1, at: float = 0.0, unreadable: str = "") -> Message:
    """The first character is the group; a name of digits has none."""
    group = name[0] if name[0].isalpha() else None
    attributes = {"ApproximateReceiveCount": str(receives)}
    receipt = f"{name}#{receives}"
    return Message(name, receipt, "", attributes, {}, "", Monotonic(at), group=group, unreadable=unreadable)


class Machine:
    """A tracker with a clock of its own, and each verb by the names of messages."""

    def __init__(self, *, records_max: int = 10, one_group: bool = False) -> None:
        policy = VisibilityPolicy(visibility_s=VISIBILITY_S, extend=False, window_s=0.0, timeout_s=3.0)
        self.tracker = InFlightTracker(policy, BatchPolicy(records_max, 0.0), one_group=one_group)
        self.now = Monotonic(0.0)

    @property
    def epoch(self) -> Epoch:
        return Epoch(START + self.now)

    def receive(self, *messages: Message, asked: int = 10) -> Reception:
        return self.tracker.received(messages, asked=asked, timeout_s=3.0, now=self.now, epoch=self.epoch)

    def batch(self, *found: str, receives: int = 1) -> tuple[int, list[QueueItem]]:
        reception = self.receive(*(message(name, receives=receives, at=self.now) for name in found))
        items = [QueueItem.encoded_as(b"{}", each, ENCODER) for each in reception.fresh]
        return self.tracker.begin(items), items

    def answer(self, receive_id: int, chunk: Sequence[QueueItem], verdict: Verdict) -> list[PendingDelete]:
        return self.tracker.answered(receive_id, chunk, verdict, now=self.now, epoch=self.epoch)

    def delete(self, pending: Sequence[PendingDelete], *undone: Undone) -> tuple[list[str], int, int]:
        result = self.tracker.deleted(self.tracker.start_delete(pending, now=self.now), undone)
        return [each.message.message_id for each in result.again], result.messages, result.lapsed

    def failing(self) -> dict[str, tuple[str, float]]:
        found = self.tracker.failing(self.epoch, receives_max=None)
        return {key: (each.error, each.next_try - START) for key, each in found.items()}


def names(items: Sequence[QueueItem]) -> list[str]:
    return [item.message_id for item in items]


def test_a_message_is_in_flight_from_its_receive_to_its_delete() -> None:
    machine = Machine()
    receive_id, items = machine.batch("a1", "a2", "3")
    choice = machine.tracker.choose(receive_id, items, now=machine.now)
    assert (names(choice.chunk), choice.blocked, choice.rest, choice.lapsed) == (["a1", "a2", "3"], (), (), 0)
    pending = machine.answer(receive_id, choice.chunk, Accepted())
    assert (len(machine.tracker), machine.tracker.settlements) == (3, 0)
    assert machine.delete(pending) == ([], 3, 0)
    assert (len(machine.tracker), machine.tracker.settlements) == (0, 1)


def test_a_reported_message_fails_and_blocks_its_group_and_the_others_are_deleted() -> None:
    machine = Machine(records_max=3)
    receive_id, items = machine.batch("a1", "b1", "3", "a2", "b2")
    choice = machine.tracker.choose(receive_id, items, now=machine.now)
    pending = machine.answer(receive_id, choice.chunk, Partial(frozenset({0}), ANSWER))
    assert [each.message.message_id for each in pending] == ["b1", "3"]
    assert machine.failing() == {"a": ("the function reported it", VISIBILITY_S)}
    assert machine.tracker.settlements == 1, "a batch behind the failed message can go on"
    machine.delete(pending)
    later = machine.tracker.choose(receive_id, choice.rest, now=machine.now)
    assert (names(later.chunk), names(later.blocked)) == (["b2"], ["a2"])
    machine.tracker.released(receive_id, later.blocked, started=False)
    assert len(machine.tracker) == 1


def test_a_failed_event_is_shown_until_its_messages_go_through() -> None:
    machine = Machine()
    receive_id, items = machine.batch("a1")
    machine.now = Monotonic(4.0)
    choice = machine.tracker.choose(receive_id, items, now=machine.now)
    assert machine.answer(receive_id, choice.chunk, Rejected(Ended.FUNCTION_ERROR, "bad", None)) == []
    assert machine.failing() == {"a": ("bad", VISIBILITY_S)}
    machine.now = Monotonic(30.0)
    receive_id, items = machine.batch("a1", receives=2)
    again = machine.tracker.choose(receive_id, items, now=machine.now)
    assert machine.failing(), "while it is tried again it fails still"
    machine.answer(receive_id, again.chunk, Accepted())
    assert machine.failing() == {}


def test_no_event_is_settled_that_the_function_refused() -> None:
    machine = Machine()
    receive_id, items = machine.batch("a1")
    choice = machine.tracker.choose(receive_id, items, now=machine.now)
    with pytest.raises(AssertionError, match="must be tried again"):
        machine.answer(receive_id, choice.chunk, Deferred(Ended.THROTTLED, "busy", None))


def test_a_batch_lets_go_of_what_lapsed_before_its_turn() -> None:
    machine = Machine()
    receive_id, items = machine.batch("a1", "2")
    machine.now = Monotonic(VISIBILITY_S)
    choice = machine.tracker.choose(receive_id, items, now=machine.now)
    assert (choice.chunk, choice.lapsed, len(machine.tracker), machine.tracker.settlements) == ((), 2, 0, 1)


@pytest.mark.parametrize(
    ("came_again", "runs", "blocked"),
    [
        (("a1",), ("a1",), ()),
        (("a1", "a2"), ("a1", "a2"), ()),
        (("a2",), (), ("a2",)),
        (("a1", "a3"), (), ("a1", "a3")),
        (("b1",), ("b1",), ()),
        ((), (), ()),
    ],
)
def test_lapsed_messages_block_only_what_must_run_behind_them(
    came_again: tuple[str, ...], runs: tuple[str, ...], blocked: tuple[str, ...]
) -> None:
    for waits_as_event in (False, True):
        machine = Machine()
        receive_id, items = machine.batch("a1", "a2", "a3", "b1")
        event = machine.tracker.choose(receive_id, items, now=machine.now) if waits_as_event else None
        machine.now = Monotonic(VISIBILITY_S)
        machine.receive(*(message(name, receives=2, at=machine.now) for name in came_again))
        if event is None:
            choice = machine.tracker.choose(receive_id, items, now=machine.now)
        else:
            choice = machine.tracker.retry(receive_id, event.chunk, now=machine.now)
        assert (tuple(names(choice.chunk)), tuple(names(choice.blocked))) == (runs, blocked)


def test_a_lapsed_message_of_an_event_that_waits_blocks_those_behind_it_in_the_batch() -> None:
    machine = Machine(records_max=2)
    receive_id, items = machine.batch("a1", "a2", "a3")
    event = machine.tracker.choose(receive_id, items, now=machine.now)
    machine.now = Monotonic(VISIBILITY_S)
    machine.receive(message("a1", receives=2, at=machine.now), message("a3", receives=2, at=machine.now))
    again = machine.tracker.retry(receive_id, event.chunk, now=machine.now)
    assert (names(again.chunk), names(again.blocked)) == ([], ["a1"])
    assert names(machine.tracker.choose(receive_id, event.rest, now=machine.now).blocked) == ["a3"]


def test_a_failed_delete_is_tried_anew_only_with_a_newer_receipt() -> None:
    machine = Machine()
    receive_id, items = machine.batch("a1", "b1", "a2")
    choice = machine.tracker.choose(receive_id, items[:2], now=machine.now)
    pending = machine.answer(receive_id, choice.chunk, Accepted())
    machine.now = Monotonic(VISIBILITY_S)
    machine.receive(message("a1", receives=2, at=machine.now), message("a2", receives=2, at=machine.now))
    again = machine.tracker.delete_failed(pending)
    assert [(each.message.message_id, each.message.receipt) for each in again] == [("a1", "a1#2")]
    waiting = machine.tracker.choose(receive_id, items[2:], now=machine.now)
    assert (waiting.chunk, waiting.blocked) == ((), ()), "a1 is done, so a2 waits only for its delete"
    assert machine.tracker.delete_failed(again) == []
    assert names(machine.tracker.choose(receive_id, items[2:], now=machine.now).blocked) == ["a2"]


def test_a_refused_event_keeps_only_what_is_ours_and_not_blocked() -> None:
    machine = Machine()
    first_id, first = machine.batch("a1", "b1")
    started = machine.tracker.choose(first_id, first, now=machine.now)
    machine.now = Monotonic(10.0)
    third = QueueItem.encoded_as(b"{}", machine.receive(message("3", at=10.0)).fresh[0], ENCODER)
    chunk = [*started.chunk, third]
    machine.now = Monotonic(VISIBILITY_S)
    again = machine.tracker.retry(first_id, chunk, now=machine.now)
    assert (names(again.chunk), names(again.blocked), again.lapsed) == (["3"], [], 2)


def test_a_refused_event_is_blocked_by_a_message_of_its_group_that_lapsed() -> None:
    machine = Machine()
    receive_id, items = machine.batch("a1", "a2", "b1")
    chunk = machine.tracker.choose(receive_id, items, now=machine.now).chunk
    machine.now = Monotonic(20.0)
    machine.receive(message("a2", receives=2, at=20.0), message("b1", receives=2, at=20.0))
    machine.now = Monotonic(VISIBILITY_S)
    again = machine.tracker.retry(receive_id, chunk, now=machine.now)
    assert (names(again.chunk), names(again.blocked), again.lapsed) == (["b1"], ["a2"], 1)


def test_a_message_that_cannot_be_read_is_left_alone_with_what_is_behind_it() -> None:
    machine = Machine()
    reception = machine.receive(
        message("a1"), message("a2", unreadable="no body"), message("a3"), message("b1")
    )
    assert [each.message_id for each in reception.fresh] == ["a1", "b1"]
    assert reception.unreadable == ("message a2 cannot be read: no body",)
    assert (reception.left_alone, reception.late, len(machine.tracker)) == (2, 0, 2)
    assert machine.failing() == {"a": ("message a2 cannot be read: no body", VISIBILITY_S)}


def test_what_came_behind_a_blocked_message_is_not_taken() -> None:
    machine = Machine()
    first_id, first = machine.batch("a1")
    second_id, _ = machine.batch("a2")
    machine.answer(
        first_id,
        machine.tracker.choose(first_id, first, now=machine.now).chunk,
        Rejected(Ended.FUNCTION_ERROR, "bad", None),
    )
    reception = machine.receive(message("a1", receives=2), message("a2", receives=2), message("a3"))
    assert ([each.message_id for each in reception.fresh], reception.late) == (["a1"], 1)
    assert len(machine.tracker) == 2, "a3 is not ours"
    assert second_id > first_id


@pytest.mark.parametrize(
    ("answer", "renewed", "at", "result", "left"),
    [
        (None, False, 1.0, ([], 1, 0), 0),
        (None, False, 30.0, ([], 0, 1), 0),
        (True, False, 1.0, ([], 0, 1), 0),
        (False, False, 1.0, (["a1"], 0, 0), 1),
        (True, True, 1.0, (["a1"], 0, 0), 1),
    ],
    ids=["deleted", "deleted after its time", "lapsed", "refused", "received again during the call"],
)
def test_each_answer_to_a_delete_call_has_one_meaning(
    answer: bool | None, renewed: bool, at: float, result: tuple[list[str], int, int], left: int
) -> None:
    machine = Machine()
    receive_id, items = machine.batch("a1")
    chunk = machine.tracker.choose(receive_id, items, now=machine.now).chunk
    pending = machine.answer(receive_id, chunk, Accepted())
    machine.now = Monotonic(at)
    call = machine.tracker.start_delete(pending, now=machine.now)
    if renewed:
        machine.receive(message("a1", receives=2, at=at))
    undone = [] if answer is None else [Undone("a1#1", "why", answer)]
    found = machine.tracker.deleted(call, undone)
    assert ([each.message.message_id for each in found.again], found.messages, found.lapsed) == result
    assert (len(machine.tracker), machine.tracker.settlements) == (left, 1 - left)


def test_a_delete_that_is_given_up_blocks_what_is_behind_it() -> None:
    machine = Machine(records_max=1)
    receive_id, items = machine.batch("a1", "a2")
    choice = machine.tracker.choose(receive_id, items, now=machine.now)
    machine.tracker.delete_failed(machine.answer(receive_id, choice.chunk, Accepted()))
    assert names(machine.tracker.choose(receive_id, choice.rest, now=machine.now).blocked) == ["a2"]


def test_a_message_that_lapsed_before_its_delete_blocks_what_is_behind_it() -> None:
    machine = Machine(records_max=1)
    receive_id, items = machine.batch("a1", "a2")
    choice = machine.tracker.choose(receive_id, items, now=machine.now)
    pending = machine.answer(receive_id, choice.chunk, Accepted())
    assert machine.delete(pending, Undone("a1#1", "why", lapsed=True)) == ([], 0, 1)
    assert names(machine.tracker.choose(receive_id, choice.rest, now=machine.now).blocked) == ["a2"]


def test_a_message_that_a_filter_dropped_has_no_place_and_is_deleted() -> None:
    machine = Machine()
    (dropped,) = machine.receive(message("a1")).fresh
    assert machine.delete([PendingDelete(dropped, None)]) == ([], 1, 0)
    assert (len(machine.tracker), machine.tracker.settlements) == (0, 1)


def test_receives_and_verdicts_are_counted_for_the_scaling() -> None:
    machine = Machine()
    machine.receive()
    machine.receive(message("1"), asked=2)
    machine.receive(message("2"), message("3"), asked=2)
    machine.receive(message("2"), message("3"), asked=2)
    machine.receive(message("4", unreadable="no body"), asked=1)
    receive_id, items = machine.batch("5", "6")
    chunk = machine.tracker.choose(receive_id, items, now=machine.now).chunk
    machine.answer(receive_id, chunk, Partial(frozenset({1}), ANSWER))
    stats = machine.tracker.tally.take(waiting=0)
    assert (stats.full, stats.some, stats.empty) == (1, 4, 1)
    assert (stats.done, stats.failed) == (1, 1)


class Walk:
    """Batches of three groups and of none, driven at random; each message may end in any way."""

    def __init__(self, chance: Random) -> None:
        self.chance = chance
        self.machine = Machine(records_max=chance.randint(1, 4), one_group=chance.random() < 0.5)
        self.batches: dict[int, list[QueueItem]] = {}
        self.running: list[tuple[int, tuple[QueueItem, ...]]] = []
        self.deletes: list[PendingDelete] = []
        self.here: set[str] = set()
        """Messages that are in flight, as the walk knows it."""
        self.sent = 0

    def receive(self) -> None:
        found = []
        for _ in range(self.chance.randint(1, 5)):
            self.sent += 1
            found.append(f"{self.chance.choice('abc1')}{self.sent:04d}")
        receive_id, items = self.machine.batch(*found)
        self.here.update(names(items))
        self.batches[receive_id] = items

    def choose(self) -> None:
        receive_id = self.chance.choice(sorted(self.batches))
        items = self.batches.pop(receive_id)
        choice = self.machine.tracker.choose(receive_id, items, now=self.machine.now)
        kept = {*names(choice.chunk), *names(choice.blocked), *names(choice.rest)}
        assert choice.lapsed == len(items) - len(kept)
        self.left([name for name in names(items) if name not in kept])
        self.machine.tracker.released(receive_id, choice.blocked, started=False)
        self.left(names(choice.blocked))
        unsettled = {item.group for _, chunk in self.running for item in chunk}
        unsettled |= {each.message.group for each in self.deletes}
        assert not (unsettled - {None}) & {item.group for item in choice.chunk}
        if choice.chunk:
            self.running.append((receive_id, choice.chunk))
        if choice.rest:
            self.batches[receive_id] = list(choice.rest)

    def answer(self) -> None:
        receive_id, chunk = self.running.pop(self.chance.randrange(len(self.running)))
        if self.chance.random() < 0.3:
            again = self.machine.tracker.retry(receive_id, chunk, now=self.machine.now)
            kept = {*names(again.chunk), *names(again.blocked)}
            self.left([name for name in names(chunk) if name not in kept])
            self.machine.tracker.released(receive_id, again.blocked, started=True)
            self.left(names(again.blocked))
            chunk = again.chunk
            if not chunk:
                return
        failed = frozenset(place for place in range(len(chunk)) if self.chance.random() < 0.3)
        pending = self.machine.answer(receive_id, chunk, Partial(failed, ANSWER) if failed else Accepted())
        self.deletes += pending
        self.left([item.message_id for place, item in enumerate(chunk) if place in failed])

    def delete(self) -> None:
        call = self.machine.tracker.start_delete(self.deletes, now=self.machine.now)
        undone = [
            Undone(receipt, "why", self.chance.random() < 0.5)
            for receipt in call.receipts
            if self.chance.random() < 0.3
        ]
        result = self.machine.tracker.deleted(call, undone)
        assert len(result.again) + result.messages + result.lapsed == len(self.deletes)
        again = {each.message.message_id for each in result.again}
        self.left([name for each in self.deletes if (name := each.message.message_id) not in again])
        self.deletes = list(result.again)

    def left(self, gone: Sequence[str]) -> None:
        for name in gone:
            self.here.remove(name)

    def step(self, *, receives: bool) -> None:
        moves = [self.receive] if receives else []
        if self.batches:
            moves.append(self.choose)
        if self.running:
            moves.append(self.answer)
        if self.deletes:
            moves.append(self.delete)
        before = len(self.here), self.machine.tracker.settlements
        move = self.chance.choice(moves)
        move()
        assert len(self.machine.tracker) == len(self.here)
        if move != self.receive and len(self.here) < before[0]:
            assert self.machine.tracker.settlements > before[1], "nobody would be woken"
        if self.chance.random() < 0.2:
            self.machine.now = Monotonic(self.machine.now + self.chance.choice([1.0, 10.0, 31.0]))

    @property
    def over(self) -> bool:
        return not (self.batches or self.running or self.deletes)


@given(seed=st.integers(0, 2**32 - 1))
def test_every_message_leaves_once_and_each_group_has_one_event_in_flight(seed: int) -> None:
    walk = Walk(Random(seed))
    for _ in range(60):
        walk.step(receives=True)
    for _ in range(5_000):
        if walk.over:
            break
        walk.step(receives=False)
    assert walk.over
    assert (len(walk.machine.tracker), walk.here) == (0, set())
