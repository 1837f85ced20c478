"""What operators ask of a queue's messages: nothing of a paused group runs, a skipped message is deleted only after it was moved, and order holds."""

from collections.abc import Callable, Iterable, Sequence
from random import Random

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from poller.domain.invocations import Ended
from poller.domain.operations import OperationId, OperationTarget, OperatorPause
from poller.domain.policies import BatchPolicy
from poller.domain.records import Epoch, Message, Monotonic, QueueFacts
from poller.rules.queues import failing, interventions
from poller.rules.queues.failing import FailingItem, FailureLog, meant
from poller.rules.queues.in_flight import InFlightTracker, PendingDelete
from poller.rules.queues.interventions import ARMED_S, KEPT_S, QueueInterventions
from poller.rules.queues.message_groups import Choice, Groups
from poller.rules.queues.receive_batch import QueueItem
from poller.rules.queues.visibility import VisibilityPolicy
from poller.rules.responses import Accepted, Partial, Rejected, Response
from tests.rules.build import ENCODER
from tests.simulation.services.contents import Content
from tests.simulation.services.queues import Delete, Extend, FakeQueue, Receive
from tests.virtual import EPOCH_BASE

VISIBILITY_S = 30
OPERATION = OperationId("op-1")
STEPS = 200


def pause(group: str | None, since: float = 1.0) -> OperatorPause:
    return OperatorPause(
        operation=OperationId(f"pause-{group}"),
        target=OperationTarget(group=group),
        by="ann",
        since=Epoch(since),
        reason="",
    )


def message(name: str, *, group: str | None = None, body: str = "") -> Message:
    return Message(name, f"{name}#1", body, {}, {}, "", Monotonic(0.0), group=group)


def item(name: str, *, group: str | None = "a", body: str = "") -> QueueItem:
    return QueueItem.of(message(name, group=group, body=body), ENCODER)


def test_the_earliest_pause_of_a_mapping_is_the_one_that_is_shown() -> None:
    asked = QueueInterventions()
    assert not QueueInterventions().stopped
    asked.pause([pause("a"), pause(None, 7.0), pause(None, 5.0)])
    assert (asked.stopped, asked.paused) == (True, pause(None, 5.0))
    assert set(asked.groups) == {"a"}
    asked.pause([])
    assert (asked.stopped, asked.active, asked.paused) == (False, False, None)


def test_pauses_that_are_not_known_stop_the_mapping_and_leave_groups_paused() -> None:
    asked = QueueInterventions()
    asked.pause([pause("a")])
    asked.pause(None)
    assert asked.stopped
    assert asked.paused is None
    assert set(asked.groups) == {"a"}


def test_a_skip_ends_when_it_is_not_armed_again() -> None:
    asked = QueueInterventions()
    asked.arm(OPERATION, ["1", "2"], discard=True, now=Monotonic(0.0))
    assert asked.skip_of("1", Monotonic(ARMED_S - 1)) is not None
    assert asked.skip_of("3", Monotonic(0.0)) is None
    skip = asked.arm(OPERATION, ["1", "2"], discard=True, now=Monotonic(ARMED_S - 1))
    asked.settle(["1"], "deleted")
    assert skip.settled == {"1": "deleted"}
    assert asked.skip_of("1", Monotonic(ARMED_S)) is None
    assert asked.skip_of("2", Monotonic(ARMED_S)) is not None
    assert asked.skip_of("2", Monotonic(2 * ARMED_S)) is None
    asked.settle(["2"], "the function took it meanwhile")
    assert skip.settled.keys() == {"1", "2"}, "what ends later is noted, too"
    assert asked.skip_of("3", Monotonic(2 * ARMED_S + KEPT_S)) is None
    assert not asked.active


def test_a_skip_that_is_cancelled_ends_at_once_and_what_becomes_of_its_messages_is_still_noted() -> None:
    asked = QueueInterventions()
    skip = asked.arm(OPERATION, ["1", "2"], discard=True, now=Monotonic(0.0))
    asked.unarm(OPERATION)
    assert asked.skip_of("1", Monotonic(1.0)) is None
    asked.settle(["2"], "deleted")
    assert skip.settled == {"2": "deleted"}
    assert asked.skip_of("1", Monotonic(ARMED_S + KEPT_S)) is None
    assert not asked.active
    asked.unarm(OPERATION)


def test_held_messages_run_when_their_pause_ends_in_the_order_in_which_they_came() -> None:
    asked = QueueInterventions()
    asked.pause([pause("a"), pause("b")])
    asked.hold(1, [item("1"), item("2", group="b"), item("3")])
    asked.hold(2, [item("4")])
    assert asked.held() == {"a": 3, "b": 1}
    assert asked.runnable(Monotonic(0.0)) == []
    asked.pause([pause("b")])
    found = asked.runnable(Monotonic(0.0))
    assert [(each.receive_id, [one.message_id for one in each.items]) for each in found] == [
        (1, ["1", "3"]),
        (2, ["4"]),
    ]
    assert asked.held() == {"b": 1}
    asked.pause([pause(None)])
    assert asked.runnable(Monotonic(0.0)) == [], "the whole mapping is paused"
    assert len(asked.give_up()) == 1
    assert asked.held_batches == 0


def test_contents_are_held_up_to_a_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(interventions, "HELD_BYTES_MAX", item("1", body="x" * 500).bytes_max + 10)
    asked = QueueInterventions()
    asked.pause([pause("a"), pause("b")])
    assert asked.hold(1, [item("1", body="x" * 500)]) == set()
    assert asked.hold(2, [item("2", group="b", body="x" * 500)]) == {"2"}
    assert asked.held_messages == 2
    whole, bare = asked.give_up()
    assert (whole.whole, bare.whole) == (True, False)
    assert bare.items[0].message.body is None
    asked.hold(3, [item("3", body="x" * 500)])
    assert asked.hold(3, [item("4", body="x" * 500)]) == {"3", "4"}, "those of one receive run together"
    assert [each.message.body for each in asked.give_up()[0].items] == [None, None]
    asked.hold(4, [item("5", body="x" * 500)])
    assert asked.give_up()[0].whole, "the room is free again"


def test_what_the_function_refused_is_held_before_what_waited_behind_it() -> None:
    asked, groups = QueueInterventions(), Groups()
    groups.enter(1, {"a": 3})
    groups.start(1, "a")
    asked.pause([pause("a")])
    asked.hold(1, [item("2"), item("3")])
    again = asked.split_again(Choice((item("1"),), (), ()), groups, 1, now=Monotonic(0.0))
    assert [each.message_id for each in again.paused] == ["1"]
    assert asked.behind([item("2")], 1) == {"2"}
    asked.hold(1, again.paused)
    asked.pause([])
    (held,) = asked.runnable(Monotonic(0.0))
    assert [each.message_id for each in held.items] == ["1", "2", "3"]
    assert asked.behind(held.items, 1) == set()


def failed(log: FailureLog, *messages: Message, until: float = 30.0) -> None:
    log.failed(messages, "bad", now=Epoch(0.0), next_try=Epoch(until), hidden_until=Monotonic(until))


def test_a_failed_group_waits_with_its_contents_until_its_messages_are_visible() -> None:
    log = FailureLog()
    failed(log, message("1", group="a", body="x"), message("2", group="a", body="y"))
    (found,) = log.waiting(Monotonic(29.0)).values()
    assert [each.body for each in found.messages] == ["x", "y"]
    assert log.waiting(Monotonic(30.0)) == {}
    rest = log.gone("a", {"1"}, Epoch(0))
    assert rest is not None
    assert [each.message_id for each in rest.messages] == ["2"]
    log.shown("a", Epoch(5.0))
    assert log.waiting(Monotonic(6.0)) == {}
    (shown,) = log.current(Epoch(6.0)).values()
    assert (shown.next_try, shown.messages[0].body) == (5.0, None)
    assert log.gone("a", {"2"}, Epoch(0)) is None
    assert log.current(Epoch(6.0)) == {}


def test_a_claimed_item_is_left_to_the_one_who_claimed_it() -> None:
    log = FailureLog()
    failed(log, message("1"))
    assert log.claim("1")
    assert not log.claim("1")
    assert log.waiting(Monotonic(1.0)) == {}
    log.unclaim("1")
    assert list(log.waiting(Monotonic(1.0))) == ["1"]


def test_contents_of_failed_messages_are_kept_up_to_a_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(failing, "KEPT_BYTES_MAX", 250)
    log = FailureLog()
    for name in ("1", "2", "3"):
        failed(log, message(name, body="x" * 100))
    kept = {key: each.whole(each.messages[0]) for key, each in log.waiting(Monotonic(1.0)).items()}
    assert kept == {"1": True, "2": True, "3": False}
    failed(log, message("2", body="x" * 100))
    log.done([message("1")])
    failed(log, message("3", body="x" * 100))
    assert all(each.whole(each.messages[0]) for each in log.waiting(Monotonic(1.0)).values())
    log.current(Epoch(40.0))
    failed(log, message("4", body="x" * 240))
    assert log.waiting(Monotonic(1.0))["4"].kept_bytes > 0, "what is visible keeps no content"


ITEM = FailingItem(
    since=Epoch(0.0), error="bad", receives=1, next_try=Epoch(9.0), messages=(message("1"), message("2"))
)
OTHER = FailingItem(since=Epoch(0.0), error="bad", receives=1, next_try=Epoch(9.0), messages=(message("3"),))


@pytest.mark.parametrize(
    ("items", "group", "batch", "alone", "found"),
    [
        ({"a": ITEM}, "a", False, True, ("1",)),
        ({"a": ITEM}, "a", True, False, ("1", "2")),
        ({"a": ITEM, "b": OTHER}, "b", True, False, ("3",)),
        ({"b": OTHER}, "a", True, True, ""),
        ({}, None, False, True, ""),
        ({}, None, False, False, ""),
        ({"a": ITEM}, None, False, True, ("1",)),
        ({"a": ITEM}, None, False, False, "say which one: others may fail on other workers, here a"),
        ({"a": ITEM, "b": OTHER}, None, False, True, "say which one: several fail, here a, b"),
    ],
)
def test_which_messages_a_skip_means(
    items: dict[str, FailingItem],
    group: str | None,
    *,
    batch: bool,
    alone: bool,
    found: tuple[str, ...] | str,
) -> None:
    said = meant(items, group, batch=batch, alone=alone)
    if isinstance(found, str) and found:
        assert isinstance(said, str)
        assert said.startswith(found)
    else:
        assert said == found


class Model:
    """One worker's tracker over a FIFO queue, an operator, and another worker. Each step is one thing that may happen next."""

    def __init__(self, chance: Random, *, cancels: bool) -> None:
        self.chance = chance
        self.queue = FakeQueue(QueueFacts(VISIBILITY_S, True), seed=1)
        self.asked = QueueInterventions()
        policy = VisibilityPolicy(visibility_s=VISIBILITY_S, extend=True, window_s=0.0, timeout_s=3.0)
        batch = BatchPolicy(chance.randint(1, 4), 0.0)
        self.tracker = InFlightTracker(
            policy, batch, one_group=chance.random() < 0.5, interventions=self.asked
        )
        self.now = 0.0
        self.batches: dict[int, list[QueueItem]] = {}
        self.running: list[tuple[int, list[QueueItem]]] = []
        self.skipping: list[tuple[int, list[QueueItem]]] = []
        self.deleting: list[list[PendingDelete]] = []
        self.paused: set[str] = set()
        self.skips: set[str] = set()
        self.moved: set[str] = set()
        self.done: list[str] = []
        self.sent = 0
        self.cancels = cancels
        self.armed = False

    @property
    def epoch(self) -> Epoch:
        return Epoch(EPOCH_BASE + self.now)

    @property
    def clock(self) -> Monotonic:
        return Monotonic(self.now)

    def step(self) -> None:
        moves: list[Callable[[], None]] = [
            self.send,
            self.receive,
            self.receive,
            self.choose,
            self.choose,
            self.answer,
            self.answer,
            self.again,
            self.skip,
            self.delete,
            self.delete,
            self.pause,
            self.resume,
            self.resume,
            self.arm,
            self.resume_held,
            self.extend,
            self.wait,
            self.skip_waiting,
            *([self.cancel] if self.cancels else []),
        ]
        self.chance.choice(moves)()

    def send(self) -> None:
        self.sent += 1
        self.queue.send(self.epoch, Content(self.sent), group=self.chance.choice("ab"))

    def receive(self) -> None:
        found = self.queue.apply(self.epoch, Receive(self.chance.randint(1, 5)))
        messages = [each for each in found if isinstance(each, Message)]  # type: ignore[union-attr]
        reception = self.tracker.received(messages, asked=5, timeout_s=3.0, now=self.clock, epoch=self.epoch)
        items = [QueueItem.encoded_as(b"{}", each, ENCODER) for each in reception.fresh]
        if items:
            self.batches[self.tracker.begin(items)] = items

    def choose(self) -> None:
        if not self.batches:
            return
        receive_id = self.chance.choice(sorted(self.batches))
        choice = self.tracker.choose(receive_id, self.batches.pop(receive_id), now=self.clock)
        if choice.rest:
            self.batches[receive_id] = list(choice.rest)
        if choice.paused:
            assert {each.group for each in choice.paused} <= self.paused
            self.tracker.hold(receive_id, choice.paused)
        if choice.skipped:
            assert self.armed
            assert {each.message_id for each in choice.skipped} <= self.skips
            self.skipping.append((receive_id, list(choice.skipped)))
        if choice.blocked:
            self.show(receive_id, choice.blocked, started=False)
        if choice.chunk:
            self.run(receive_id, choice.chunk)

    def run(self, receive_id: int, chunk: Sequence[QueueItem]) -> None:
        assert not {each.group for each in chunk} & self.paused, "a paused group runs"
        assert not any(self.asked.skip_of(each.message_id, self.clock) for each in chunk), (
            "a skipped message runs"
        )
        for each in chunk:
            self.in_order(each.message_id, {one.message_id for one in chunk})
        self.running.append((receive_id, list(chunk)))

    def in_order(self, message_id: str, beside: set[str]) -> None:
        """What is before it in its group is done, is in the same event, or is being given up."""
        letter = self.queue.letters[message_id]
        for other in self.queue.letters.values():
            if other.group == letter.group and other.sequence < letter.sequence and other.here:
                settled = other.message_id in {*self.done, *beside}
                assert settled, f"{message_id} before {other.message_id}"

    def answer(self) -> None:
        if not self.running:
            return
        receive_id, chunk = self.running.pop(0)
        kind = self.chance.choice(("done", "done", "failed", "partial", "refused"))
        if kind == "refused":
            self.again(receive_id, chunk)
            return
        verdict: Accepted | Rejected | Partial = Accepted()
        if kind == "failed":
            verdict = Rejected(Ended.FUNCTION_ERROR, "bad", Response("1", None))
        elif kind == "partial":
            verdict = Partial(frozenset({len(chunk) - 1}), Response("1", None))
        pending = self.tracker.answered(receive_id, chunk, verdict, now=self.clock, epoch=self.epoch)
        self.done += [each.message.message_id for each in pending]
        if pending:
            self.deleting.append(list(pending))

    def again(self, receive_id: int | None = None, chunk: Sequence[QueueItem] = ()) -> None:
        """The function refused an event, and it is tried again after a while."""
        if receive_id is None:
            return
        choice = self.tracker.retry(receive_id, chunk, now=self.clock)
        if choice.paused:
            assert {each.group for each in choice.paused} <= self.paused
            self.tracker.hold(receive_id, choice.paused)
        if choice.skipped:
            assert self.armed
            self.skipping.append((receive_id, list(choice.skipped)))
        if choice.blocked:
            self.show(receive_id, choice.blocked, started=True)
        if choice.chunk:
            assert not {each.group for each in choice.chunk} & self.paused, "a paused group is tried again"
            self.running.append((receive_id, list(choice.chunk)))

    def skip(self) -> None:
        """Messages that were chosen to be skipped are moved and deleted, or cannot be moved."""
        if not self.skipping:
            return
        receive_id, items = self.skipping.pop(0)
        if self.chance.random() < 0.2:
            self.tracker.unmoved(receive_id, items, "no", now=self.clock, epoch=self.epoch)
            return
        self.moved.update(each.message_id for each in items)
        self.deleting.append([PendingDelete(each.message, receive_id) for each in items])

    def delete(self) -> None:
        if not self.deleting:
            return
        pending = self.deleting.pop(0)
        call = self.tracker.start_delete(pending, now=self.clock)
        undone = self.queue.apply(self.epoch, Delete(tuple(call.receipts)))
        result = self.tracker.deleted(call, undone)  # type: ignore[arg-type]
        self.note_moved(each.message.message_id for each in pending)
        if result.again:
            self.deleting.append(list(result.again))

    def note_moved(self, message_ids: Iterable[str]) -> None:
        """Notes of moved messages that they are deleted."""
        gone = [each for each in message_ids if not self.queue.letters[each].here]
        self.asked.settle([each for each in gone if each in self.moved], "moved")

    def show(self, receive_id: int, items: Sequence[QueueItem], *, started: bool) -> None:
        receipts = tuple(self.tracker.visibility.receipts([each.message_id for each in items]))
        self.queue.apply(self.epoch, Extend(receipts, 0))
        self.tracker.released(receive_id, items, started=started)

    def pause(self) -> None:
        self.paused.add(self.chance.choice("ab"))
        self.asked.pause([pause(each) for each in sorted(self.paused)])

    def resume(self) -> None:
        if self.paused:
            self.paused.discard(self.chance.choice(sorted(self.paused)))
            self.asked.pause([pause(each) for each in sorted(self.paused)])

    def arm(self) -> None:
        """An operator skips a message that does not run and was not taken."""
        busy = {each.message_id for _, chunk in self.running for each in chunk} | set(self.done)
        here = [each.message_id for each in self.queue.letters.values() if each.here]
        free = [each for each in here if each not in busy]
        if free and self.chance.random() < 0.3:
            self.skips.add(self.chance.choice(free))
        self.arm_again()

    def resume_held(self) -> None:
        for each in self.asked.runnable(self.clock):
            if each.receive_id in self.batches:
                self.batches[each.receive_id] += each.items
                self.batches[each.receive_id].sort(key=lambda one: one.message_id)
            else:
                self.batches[each.receive_id] = list(each.items)

    def skip_waiting(self) -> None:
        """Messages that failed and wait are skipped by their receipts, and the rest of their group is made visible."""
        for key, found in self.tracker.waiting(self.clock).items():
            mine = [each for each in found.messages if each.message_id in self.skips]
            if not mine:
                continue
            receipts = tuple(each.receipt for each in mine)
            if self.queue.apply(self.epoch, Extend(receipts, 90)):
                self.tracker.failures.shown(key, self.epoch)
                continue
            self.moved.update(each.message_id for each in mine)
            assert not self.queue.apply(self.epoch, Delete(receipts))
            self.note_moved(each.message_id for each in mine)
            rest = self.tracker.failures.gone(key, {each.message_id for each in mine}, Epoch(0))
            if rest is not None:
                self.queue.apply(self.epoch, Extend(tuple(each.receipt for each in rest.messages), 0))
                self.tracker.failures.shown(key, self.epoch)

    def extend(self) -> None:
        """The extensions that are due go through, or are lost."""
        for command in self.tracker.visibility.due(self.clock):
            receipts = [each.receipt for each in command.held]
            if self.chance.random() < 0.8:
                undone = self.queue.apply(self.epoch, Extend(tuple(receipts), command.visibility_s))
                self.tracker.visibility.answered(
                    command,
                    receipts,
                    undone,  # type: ignore[arg-type]
                    sent=self.clock,
                    now=self.clock,
                )

    def wait(self) -> None:
        self.now += self.chance.choice((0.1, 5.0, 11.0, 31.0))

    def settle(self) -> None:
        """Everything goes on without an operator until the queue is empty."""
        self.paused.clear()
        self.asked.pause([])
        for _ in range(400):
            self.arm_again()
            self.resume_held()
            for _move in range(4):
                self.receive()
                self.choose()
                self.skip_waiting()
                self.skip()
                self.delete()
                self.finish()
            self.now += 1.0
            if not any(each.here for each in self.queue.letters.values()):
                return
        left = [each.message_id for each in self.queue.letters.values() if each.here]
        raise AssertionError(f"{left} are never settled")

    def cancel(self) -> None:
        """The skip is cancelled, and asked for again later."""
        self.armed = False
        self.asked.unarm(OPERATION)

    def arm_again(self) -> None:
        self.armed = True
        self.asked.arm(OPERATION, self.skips, discard=False, now=self.clock)

    def finish(self) -> None:
        if self.running:
            receive_id, chunk = self.running.pop(0)
            pending = self.tracker.answered(receive_id, chunk, Accepted(), now=self.clock, epoch=self.epoch)
            self.done += [each.message.message_id for each in pending]
            self.deleting.append(list(pending))


@settings(max_examples=200, deadline=None)
@example(seed=4131, cancels=False)
@given(seed=st.integers(0, 2**32 - 1), cancels=st.booleans())
def test_order_holds_and_only_skipped_messages_are_missing_whatever_operators_do(
    seed: int, *, cancels: bool
) -> None:
    model = Model(Random(seed), cancels=cancels)
    for _ in range(STEPS):
        model.step()
    model.settle()
    for letter in model.queue.letters.values():
        assert letter.message_id in {*model.done, *model.moved}, "it is gone, and was neither done nor moved"
    assert model.moved <= model.skips
    known = model.asked.arm(OPERATION, model.skips, discard=False, now=model.clock).settled
    assert set(known) == model.skips, "it is not known what became of each message of the skip"
