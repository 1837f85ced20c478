"""Messages of a group that come again while the worker still has others of it: they run in order, and nothing is given back for nothing."""

from collections.abc import Callable, Sequence
from functools import partial
from random import Random

from hypothesis import given
from hypothesis import strategies as st

from poller.domain.policies import BatchPolicy
from poller.domain.records import Message, Monotonic
from poller.rules.queues.message_groups import Groups, choose
from poller.rules.queues.receive_batch import QueueItem
from tests.rules.build import ENCODER

MESSAGES = 6
STEPS = 150
GROUP = "a"


def message(number: int) -> Message:
    return Message(str(number), "r", "", {}, {}, "", Monotonic(0.0), group=GROUP)


class Queue:
    """One message group of a FIFO queue: what of it is hidden, and since which of its receives."""

    def __init__(self) -> None:
        self.here = list(range(MESSAGES))
        self.hidden: dict[int, int] = {}
        self._receives = 0

    def receive(self, most: int) -> list[int]:
        """Hides the first messages, up to the first one that is hidden already."""
        found = []
        for number in self.here[:most]:
            if number in self.hidden:
                break
            found.append(number)
        self._receives += 1
        self.hidden.update(dict.fromkeys(found, self._receives))
        return found

    def lapse(self, chance: Random) -> None:
        """The visibility timeout of a receive ends."""
        if self.hidden:
            ended = chance.choice(sorted(self.hidden.values()))
            self.hidden = {number: receive for number, receive in self.hidden.items() if receive != ended}

    def show(self, number: int, receive: int) -> None:
        """An extension by nothing, which counts as long as the message was not received again."""
        if self.hidden.get(number) == receive:
            del self.hidden[number]

    def delete(self, number: int) -> bool:
        """Whether the message could be deleted: it is hidden still."""
        if self.hidden.pop(number, None) is None:
            return False
        self.here.remove(number)
        return True


class Worker:
    """A worker's batches of the group, and the other workers; each step is one thing that may happen next."""

    def __init__(self, chance: Random) -> None:
        self.queue, self.groups, self.chance = Queue(), Groups(), chance
        self.pending: dict[int, list[QueueItem]] = {}
        self.running: list[tuple[int, int]] = []
        self.releasing: list[tuple[int, int, int]] = []
        self.held: dict[int, int] = {}
        """Messages that the worker has, and when they took their places."""
        self.elsewhere: list[int] = []
        self.failed: dict[tuple[int, int], int] = {}
        """When a message of this worker was settled so that it comes again, by message and owner."""
        self.now = 0

    def step(self) -> None:
        self.now += 1
        moves: list[Callable[[], None]] = [
            self.receive,
            self.choose,
            self.finish,
            self.show,
            self.answer,
            self.drop,
            self.others,
            partial(self.queue.lapse, self.chance),
        ]
        self.chance.choice(moves)()

    def receive(self) -> None:
        found = [message(number) for number in self.queue.receive(self.chance.randint(1, 4))]
        fresh = [each for each in found if int(each.message_id) not in self.held]
        early = self.groups.too_early(found, {each.message_id for each in fresh})
        queue_items = [
            QueueItem.encoded_as(b"", each, ENCODER) for each in fresh if each.message_id not in early
        ]
        if not queue_items:
            return
        for each in queue_items:
            self.held[int(each.message_id)] = self.now
        self.groups.enter(self.now, {GROUP: len(queue_items)})
        self.pending[self.now] = queue_items

    def choose(self) -> None:
        if not self.pending:
            return
        owner = self.chance.choice(sorted(self.pending))
        policy = BatchPolicy(self.chance.randint(1, 3), 0.0)
        choice = choose(
            self.pending.pop(owner), lambda _: self.groups.state(owner, GROUP), policy, one_group=True
        )
        if choice.rest:
            self.pending[owner] = list(choice.rest)
        for each in choice.blocked:
            number = int(each.message_id)
            self.has_cause(owner, number)
            self.releasing.append((owner, number, self.queue.hidden.get(number, 0)))
        chosen = numbers(choice.chunk)
        if chosen:
            self.in_order(chosen)
        for number in chosen:
            self.groups.start(owner, GROUP)
            self.running.append((owner, number))

    def in_order(self, chosen: Sequence[int]) -> None:
        earlier = {number for number in self.queue.here if number < chosen[-1]}
        assert earlier <= set(chosen), f"{chosen} run before {earlier}"

    def has_cause(self, owner: int, number: int) -> None:
        """What is given back was here when an earlier message, or one of its own batch, turned out to come again."""
        causes = [at for (each, whose), at in self.failed.items() if each < number or whose == owner]
        assert max(causes, default=0) >= self.held[number], f"{number} is given back for nothing"

    def finish(self) -> None:
        """The function is done with a message, or the message failed."""
        if self.running:
            owner, number = self.running.pop(0)
            done = self.chance.random() < 0.6 and self.queue.delete(number)
            self.settle(owner, number, started=True, done=done)

    def show(self) -> None:
        """The queue carries out that a message is given back; the worker does not know yet."""
        if self.releasing:
            _, number, receive = self.chance.choice(self.releasing)
            self.queue.show(number, receive)

    def answer(self) -> None:
        if self.releasing:
            owner, number, _ = self.releasing.pop(0)
            self.settle(owner, number, started=False, done=False)

    def drop(self) -> None:
        """The worker sees that messages lapsed, of which the function refused the running ones."""
        gone = [number for number in self.held if number not in self.queue.hidden]
        for owner, number in [each for each in self.running if each[1] in gone]:
            self.running.remove((owner, number))
            self.settle(owner, number, started=True, done=False)
        for owner, queue_items in list(self.pending.items()):
            for number in [each for each in numbers(queue_items) if each in gone]:
                self.settle(owner, number, started=False, done=False)
            self.pending[owner] = [each for each in queue_items if int(each.message_id) not in gone]
            if not self.pending[owner]:
                del self.pending[owner]

    def others(self) -> None:
        """Another worker receives, or is done with what it has."""
        if not self.elsewhere:
            self.elsewhere = self.queue.receive(self.chance.randint(1, 3))
            return
        number = self.elsewhere.pop(0)
        if number in self.held or not self.queue.delete(number):
            self.elsewhere = []

    def settle(self, owner: int, number: int, *, started: bool, done: bool) -> None:
        del self.held[number]
        if not done:
            self.failed[number, owner] = self.now
        self.groups.settle(owner, GROUP, started=started, done=done)


def numbers(queue_items: Sequence[QueueItem]) -> list[int]:
    return [int(each.message_id) for each in queue_items]


@given(seed=st.integers(0, 2**32 - 1))
def test_messages_that_come_again_run_in_order_and_none_is_given_back_for_nothing(seed: int) -> None:
    worker = Worker(Random(seed))
    for _ in range(STEPS):
        worker.step()
