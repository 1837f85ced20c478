"""A shard's flow with operators who retry, reset, skip, pause and resume at any moment, and with crashes between.

Order per key holds, every record is settled exactly once in a run, only what was asked for is skipped, a paused lane begins nothing,
and attempts stay within their limit unless somebody resets them.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from random import Random

from hypothesis import given
from hypothesis import strategies as st

from poller.domain.invocations import Condition
from poller.domain.operations import OperationId, OperationTarget, OperatorPause
from poller.domain.policies import BatchPolicy, RetryPolicy
from poller.domain.records import Monotonic
from poller.domain.rows import Checkpoint
from poller.domain.streams.places import begin_of, is_name
from poller.rules.streams.lanes import DiscardPart, Hold, InvokePart
from poller.rules.streams.operations.interventions import PendingSkip
from poller.rules.streams.operations.verbs import Refused, Resolved
from poller.rules.streams.tracking import EMPTY_PAGES
from tests.rules.streams.test_flow_machine import (
    LARGE,
    ROUNDS_MAX,
    SHARD,
    STEPS_MAX,
    VERDICTS,
    Model,
    arrivals,
    batches,
    policies,
)

OPERATED = 0.35
"""How many of the steps are an operator's."""
WINDOWED = 15
"""Models of shards with windows. Their states are large, so they take long."""
ACTIONS = ("retry", "reset", "skip", "skip", "skip", "begin", "list", "withdraw", "pause", "resume")


@dataclass
class Skip:
    """A skip that somebody asked for: by ids, which are kept over crashes."""

    records: tuple[str, ...]
    send: bool
    pending: PendingSkip
    done_in: list[int] = field(default_factory=list)


class Operated(Model):
    """The model of a flow, with operators."""

    def __init__(self, *given_: object, **named: object) -> None:
        self.asked: list[Skip] = []
        self.resolved: list[tuple[str, ...]] = []
        """What was asked for and is stored, before the skip begins."""
        self.asked_ever: set[int] = set()
        self.closings_asked: set[int] = set()
        """The closing calls that were asked for: the last record that each window had counted."""
        self.skipped_ever: set[int] = set()
        self.pauses: list[OperatorPause] = []
        self.tried: Counter[tuple[int, ...]] = Counter()
        self.serial = 0
        self.marks: Counter[str] = Counter()
        super().__init__(*given_, **named)  # type: ignore[arg-type]

    def begin_run(self, checkpoint: Checkpoint, lanes: int) -> None:
        super().begin_run(checkpoint, lanes)
        self.tried.clear()
        self.apply_pauses()
        for skip in self.asked:
            self.marks["skip again after a crash"] += 1
            skip.pending = self.flow.operator.skip(skip.records, send=skip.send)

    def act(self, rng: Random) -> None:
        if rng.random() > OPERATED:
            super().act(rng)
            return
        lane = rng.choice(self.flow.lanes)
        match rng.choice(ACTIONS):
            case "retry" if self.between_steps(lane):
                self.retry(lane)
            case "reset" if self.between_steps(lane):
                self.reset(lane)
            case "skip" if self.between_steps(lane):
                self.skip(lane, rng.choice(["first", "batch"]), send=rng.choice([True, True, False, None]))
            case "begin" if self.resolved:
                self.begin_skip(self.resolved.pop(0), send=rng.random() < 0.7)
            case "list":
                self.skip_listed(rng)
            case "withdraw" if self.asked:
                self.withdraw(rng.choice(self.asked))
            case "pause":
                self.pause(rng.choice([None, lane]))
            case "resume" if self.pauses:
                self.pauses.remove(rng.choice(self.pauses))
                self.apply_pauses()

    def between_steps(self, lane: int) -> bool:
        """Whether no call of the lane runs. A delivery that failed may be broken off."""
        if isinstance(self.commands.get(lane), InvokePart):
            return False
        self.commands.pop(lane, None)
        return True

    def retry(self, lane: int) -> None:
        before = self.flow.view(lane).part
        assert self.flow.operator.retry(lane, now=self.now, epoch=self.epoch) is (before is not None)
        after = self.flow.view(lane).part
        if before is not None and after is not None:
            self.marks["retry"] += 1
            assert (after.failures, after.entries) == (before.failures, before.entries)
            blocked = self.flow.view(lane).blocked
            assert blocked is None or blocked.next_try == self.epoch

    def reset(self, lane: int) -> None:
        before = self.flow.view(lane).part
        assert self.flow.operator.reset(lane, now=self.now, epoch=self.epoch) is (before is not None)
        part = self.flow.view(lane).part
        if part is not None:
            self.marks["reset"] += 1
            assert (part.failures, part.deferrals, part.since) == (0, 0, self.epoch)
            self.tried.clear()

    def skip(self, lane: int, records: str, *, send: bool | None) -> None:
        """Somebody asks for a skip, which begins at once unless `send` is None."""
        found, part = self.flow.operator.resolve(lane, records), self.flow.view(lane).part
        if part is None:
            assert isinstance(found, Refused)
        elif isinstance(found, Resolved):
            numbers = [self.name(number) for number in self.numbers_of(part.entries)]
            assert part.final or list(found.records) == (numbers if records == "batch" else numbers[:1])
            if part.final:
                self.closings_asked.add(self.counted)
            self.resolved.append(found.records)
            if send is not None:
                self.begin_skip(self.resolved.pop(), send=send)
        else:
            assert part.final
            assert records == "first"

    def skip_listed(self, rng: Random) -> None:
        parts = [part for lane in self.flow.lanes if (part := self.flow.view(lane).part) is not None]
        there = [self.name(number) for part in parts for number in self.numbers_of(part.entries)]
        if there:
            found = self.flow.operator.listed(None, wanted := rng.sample(there, rng.randint(1, len(there))))
            assert found == Resolved(tuple(wanted))
            self.begin_skip(tuple(wanted), send=rng.random() < 0.7)

    def begin_skip(self, records: tuple[str, ...], *, send: bool) -> None:
        self.asked.append(Skip(records, send, self.flow.operator.skip(records, send=send)))
        self.asked_ever.update(self.numbers_named(records))

    def left_of(self, skip: Skip) -> set[int | str]:
        """What is left of a skip: records by their numbers, and calls that close a window."""
        begins = {begin_of(place): number for place, number in self.numbers.items()}
        return {begins[each] if isinstance(each, int) else each for each in skip.pending.left}

    def numbers_named(self, records: Sequence[str]) -> set[int]:
        begins = {begin_of(each) for each in records if is_name(each)}
        return {number for place, number in self.numbers.items() if begin_of(place) in begins}

    def withdraw(self, skip: Skip) -> None:
        self.flow.operator.withdraw(skip.pending)
        self.asked.remove(skip)

    def pause(self, lane: int | None) -> None:
        self.serial += 1
        target = OperationTarget(shard=None if lane is None else SHARD, lane=lane)
        operation = OperationId(f"op-{self.serial}")
        self.pauses.append(
            OperatorPause(operation=operation, target=target, by="me", since=self.epoch, reason="")
        )
        self.apply_pauses()

    def apply_pauses(self) -> None:
        self.flow.operator.pause(self.pauses, SHARD)

    def paused(self, lane: int) -> bool:
        return any(each.target.covers(OperationTarget(shard=SHARD, lane=lane)) for each in self.pauses)

    def choose(self, lane: int, *, stopping: bool = False) -> Monotonic | None:
        until = super().choose(lane, stopping=stopping)
        command = self.commands.get(lane)
        self.marks["held"] += isinstance(self.chosen, Hold)
        if isinstance(command, InvokePart):
            assert not self.paused(lane)
            numbers = self.numbers_of(command.part.entries)
            left = {each for skip in self.asked for each in self.left_of(skip)}
            assert left.isdisjoint(numbers)
        if isinstance(command, DiscardPart) and command.discard.condition is not Condition.SKIPPED:
            assert not self.paused(lane)
            left_over = len(command.discard.part.entries) - len(command.discard.entries)
            self.marks["given up around a gap"] += (
                left_over > 0 and command.discard.condition is Condition.RETRIES
            )
        return until

    def answer(self, lane: int, kind: str, place: int, state: bytes) -> None:
        command = self.commands.get(lane)
        if isinstance(command, InvokePart) and kind == "rejected" and command.part.entries:
            key = tuple(self.numbers_of(command.part.entries))
            self.tried[key] += 1
            assert self.policy.retries_max is None or self.tried[key] <= self.policy.retries_max + 1
        super().answer(lane, kind, place, state)
        self.look()

    def deliver(self, lane: int) -> None:
        super().deliver(lane)
        self.look()

    def skips(self, lane: int, numbers: list[int], *, notice: bool) -> None:
        assert set(numbers) <= set(self.waiting(lane))
        if not numbers:
            self.marks["closing call skipped"] += 1
            assert self.counted in self.closings_asked, "another closing call than was asked for"
        self.marks["skipped with a gap"] += numbers != self.waiting(lane)[: len(numbers)]
        self.marks["skipped while paused"] += self.paused(lane)
        left = {each for skip in self.asked for each in self.left_of(skip)}
        assert set(numbers) <= left
        drops = {each for skip in self.asked if not skip.send for each in self.left_of(skip)}
        assert not numbers or notice is (numbers[0] not in drops)
        assert not numbers or drops.isdisjoint(numbers) or drops.issuperset(numbers)

    def skipped(self, numbers: list[int]) -> None:
        assert self.asked_ever.issuperset(numbers)
        for number in numbers:
            assert number not in self.settled, "settled twice"
            self.settled.add(number)
        self.marks["skipped"] += 1
        self.skipped_ever.update(numbers)

    def save(self) -> None:
        """A skip is over when its records are settled, and the store has that."""
        super().save()
        self.look()
        for skip in [each for each in self.asked if not each.pending.left]:
            counted = skip.pending.sent + skip.pending.dropped + skip.pending.before + skip.pending.gone
            self.marks["gone"] += skip.pending.gone
            assert counted == len(set(skip.records))
            self.withdraw(skip)

    def look(self) -> None:
        self.flow.operator.look()
        for skip in self.asked:
            numbers = self.numbers_named(skip.records)
            assert self.settled.isdisjoint(each for each in self.left_of(skip) if isinstance(each, int))
            due = {each for each in numbers - self.settled if not self.lost(each)}
            assert due <= self.left_of(skip)

    def finish(self) -> None:
        self.pauses.clear()
        self.apply_pauses()
        self.work_off()
        super().finish()
        self.save()
        assert not self.asked
        assert self.skipped_ever <= self.asked_ever

    def work_off(self) -> None:
        """In the end no skip of records waits, also if the shard stays open and the source has removed them."""
        for _ in range(ROUNDS_MAX):
            self.read(5, 0)
            waits = self.work()
            if self.commands:
                self.carry_out()
            elif waits:
                self.now = min(waits)
            elif self.place(len(self.passes)) <= max(self.newest, self.place(self.removed_through)):
                break
        for _ in range(EMPTY_PAGES):
            self.read(0, 0)
        self.look()
        assert not any(skip.pending.numbers for skip in self.asked)


@given(
    policy=policies,
    batch=batches,
    arrived=arrivals,
    lanes=st.integers(1, 3),
    windowed=st.booleans(),
    parts=st.integers(1, 4),
    seed=st.integers(0, 100_000),
)
def test_operators_break_no_promise(
    policy: RetryPolicy,
    batch: BatchPolicy,
    arrived: list[tuple[str | None, int, bool]],
    lanes: int,
    windowed: bool,
    parts: int,
    seed: int,
) -> None:
    model = Operated(policy, batch, arrived, lanes=lanes, windowed=windowed, parts=parts)
    rng = Random(seed)
    for _ in range(rng.randint(0, STEPS_MAX)):
        model.act(rng)
        model.check()
    model.finish()


def windowed(rng: Random) -> Operated:
    """A model of a shard whose window ends early often and begins anew, while operators skip the calls that end it."""
    arrived: list[tuple[str | None, int, bool]] = [("a", 0, True) for _ in range(25)]
    model = Operated(RetryPolicy(), BatchPolicy(records_max=1), arrived, lanes=1, windowed=True)
    for _ in range(STEPS_MAX):
        model.read(1, 0)
        model.now = Monotonic(model.now + 5.0)
        model.choose(0)
        part = model.flow.view(0).part
        if part is not None and part.final and rng.random() < 0.5:
            model.between_steps(0)
            model.skip(0, "batch", send=rng.choice([True, None]))
        elif model.resolved and rng.random() < 0.5:
            model.begin_skip(model.resolved.pop(0), send=True)
        model.choose(0)
        model.answer(0, rng.choice(VERDICTS), 0, rng.choice([LARGE, b"{}"]))
        model.deliver(0)
        if rng.random() < 0.1:
            model.restart(1, crash=rng.random() < 0.5)
        model.check()
    return model


def gapped(rng: Random) -> Operated:
    """A model of a shard whose batches are given up after some of their records were skipped, with crashes between."""
    arrived: list[tuple[str | None, int, bool]] = [
        (rng.choice("abc"), 1, rng.random() < 0.8) for _ in range(30)
    ]
    model = Operated(
        RetryPolicy(retries_max=1),
        BatchPolicy(records_max=6),
        arrived,
        lanes=rng.randint(1, 3),
        windowed=False,
    )
    for _ in range(STEPS_MAX):
        lane = rng.choice(model.flow.lanes)
        model.read(rng.randint(0, 8), 0)
        model.choose(lane)
        if rng.random() < 0.3 and model.between_steps(lane):
            model.skip_listed(rng)
        model.choose(lane)
        model.answer(lane, "rejected", 0, b"")
        model.deliver(lane)
        model.now = Monotonic(model.now + 10.0)
        if rng.random() < 0.15:
            model.save()
        if rng.random() < 0.1:
            model.restart(rng.randint(1, 3), crash=rng.random() < 0.5)
        model.check()
    model.finish()
    return model


def test_the_model_does_every_action_in_many_states() -> None:
    """The property above is about all of them."""
    marks: Counter[str] = Counter()
    for seed in range(80):
        rng = Random(seed)
        arrived: list[tuple[str | None, int, bool]] = [(rng.choice("abc"), 1, True) for _ in range(20)]
        model = Operated(
            RetryPolicy(retries_max=2), BatchPolicy(records_max=4), arrived, lanes=2, windowed=False
        )
        for _ in range(STEPS_MAX):
            model.act(rng)
        marks.update(model.marks)
        if seed < WINDOWED:
            marks.update(windowed(rng).marks)
            marks.update(gapped(rng).marks)
    wanted = [
        "held",
        "skipped",
        "skipped with a gap",
        "given up around a gap",
        "skipped while paused",
        "retry",
        "reset",
        "skip again after a crash",
        "gone",
        "closing call skipped",
    ]
    assert {each: marks[each] for each in wanted if marks[each] < 10} == {}
