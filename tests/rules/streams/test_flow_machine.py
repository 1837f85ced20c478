"""A shard's flow, driven by its verbs in any legal order: settled once, in order, never beyond the first unsettled record."""

import json
from collections.abc import Sequence
from copy import replace
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from poller.domain.invocations import Condition, Ended
from poller.domain.policies import Backoff, BatchPolicy, RetryPolicy
from poller.domain.records import SHARD_END, Epoch, KinesisRecord, MappingId, Monotonic, Position, ShardId
from poller.domain.rows import Checkpoint
from poller.domain.streams.places import name_of, place_of_part, sequence_of
from poller.rules.responses import Accepted, Deferred, Partial, Rejected, Response, Verdict
from poller.rules.streams.attempts import Advance, Retry, Split
from poller.rules.streams.batching import Entry
from poller.rules.streams.failure_document import Context
from poller.rules.streams.flow import ShardFlow
from poller.rules.streams.lanes import (
    DiscardPart,
    Done,
    InvokePart,
    LaneBlocked,
    LaneCommand,
    LaneEffect,
    LaneFreed,
    Rest,
    WaitUntil,
    lane_of_record,
)
from poller.rules.streams.operations.notice_reading import StreamNotice, chosen
from poller.rules.streams.windowed_batches import Windowing
from poller.rules.streams.windows import STATE_BYTES_MAX
from tests.rules.build import BASE, Plain, ids, kinesis

SHARD = ShardId("shardId-000000000000")
RESPONSE = Response("$LATEST", None)
NOTICES = Context(MappingId("orders"), SHARD, "arn:stream", "arn:function", "KinesisBatchInfo")
LARGE = json.dumps({"x": "x" * STATE_BYTES_MAX}).encode()
STATES = (b"{}", b'{"n":1}', json.dumps({"x": "x" * 300}).encode(), LARGE)
VERDICTS = ("accepted", "accepted", "accepted", "rejected", "deferred", "reported")
ROUNDS_MAX = 2_000
STEPS_MAX = 150
STEPS = {
    "read": 3,
    "end": 1,
    "ask": 7,
    "answer": 6,
    "deliver": 3,
    "fail to deliver": 1,
    "pass time": 2,
    "change retention": 0.3,
    "remove": 0.3,
    "save": 1,
    "restart": 0.5,
    "restart where records are gone": 0.5,
}
"""What may happen next, and how often it does."""

policies = st.builds(
    RetryPolicy,
    retries_max=st.none() | st.integers(0, 2),
    age_max_s=st.none() | st.sampled_from([20.0, 60.0]),
    bisect=st.booleans(),
    report_failures=st.just(True),
    backoff=st.just(Backoff(1.0, 8.0)),
)
batches = st.builds(
    BatchPolicy,
    records_max=st.integers(1, 5),
    window_s=st.sampled_from([0.0, 0.0, 3.0]),
    payload_bytes_max=st.sampled_from([15, 350, 10_000]),
)
arrivals = st.lists(
    st.tuples(
        st.sampled_from(["a", "b", "c", "d", None]), st.integers(0, 6), st.sampled_from([True, True, False])
    ),
    min_size=1,
    max_size=25,
)


class Model:
    """Knows the records, and which of them are settled. It plays the shell, the source and the function."""

    flow: ShardFlow
    chosen: LaneCommand

    def __init__(
        self,
        policy: RetryPolicy,
        batch: BatchPolicy,
        arrived: list[tuple[str | None, int, bool]],
        *,
        lanes: int,
        windowed: bool,
        parts: int = 1,
    ) -> None:
        """Every other record is an aggregated one of so many `parts`, which are taken apart."""
        self.policy, self.batch, self.windowed = policy, batch, windowed
        self.now = Monotonic(0.0)
        self.retention_s: float | None = None
        self.records: list[KinesisRecord] = []
        self.places = places_of(len(arrived), parts)
        self.numbers = {place: number for number, place in enumerate(self.places, 1)}
        moment = BASE
        for number, (key, after_s, _) in enumerate(arrived, 1):
            moment += after_s
            self.records.append(kinesis(self.places[number - 1], key=key, arrived=moment))
        self.passes = {number: passes for number, (_, _, passes) in enumerate(arrived, 1)}
        self.settled: set[int] = set()
        self.counted = 0
        """The last record that was accepted since a window was closed."""
        self.removed_through = 0
        """The last record that the source has removed. It has removed all before it, too."""
        self.new_id, self.rng = ids(), Random(1)
        self.begin_run(Checkpoint(Position.horizon()), lanes)
        self.save()

    def act(self, rng: Random) -> None:
        """One legal step."""
        lane = rng.choice(self.flow.lanes)
        held = rng.choice(list(self.commands) or [lane])
        match rng.choices(list(STEPS), list(STEPS.values()))[0]:
            case "read":
                self.read(rng.randint(0, 6), rng.randint(0, 2))
            case "end":
                self.end()
            case "ask":
                self.choose(lane, stopping=rng.random() < 0.15)
            case "answer":
                self.answer(held, rng.choice(VERDICTS), rng.randint(0, 4), rng.choice(STATES))
            case "deliver":
                self.deliver(held)
            case "fail to deliver":
                self.fail_to_deliver(held)
            case "pass time":
                self.now = Monotonic(self.now + rng.choice([0.5, 2.0, 5.0, 30.0]))
            case "change retention":
                self.retention_s = rng.choice([None, None, 5.0, 90.0])
            case "remove":
                self.remove(rng.randint(1, 4))
            case "save":
                self.save()
            case "restart":
                self.restart(rng.randint(1, 3), crash=rng.random() < 0.5)
            case "restart where records are gone":
                self.restart(len(self.flow.lanes), crash=rng.random() < 0.5)
                self.remove(rng.randint(1, 4))

    def begin_run(self, checkpoint: Checkpoint, lanes: int) -> None:
        self.began_at = checkpoint.position
        self.read_at: dict[int, Epoch] = {}
        self.commands: dict[int, InvokePart | DiscardPart] = {}
        self.blocked: set[int] = set()
        self.flow = ShardFlow(
            checkpoint,
            batch=self.batch,
            retry=self.policy,
            lanes=1 if self.windowed else lanes,
            look_ahead_records_max=12,
            encoder=Plain(),
            new_id=self.new_id,
            rng=self.rng,
            windowing=Windowing(10, SHARD, "arn:stream", 1.0) if self.windowed else None,
            notices=NOTICES,
        )

    @property
    def epoch(self) -> Epoch:
        return Epoch(BASE + self.now)

    def read(self, count: int, again: int) -> None:
        """A page, which may begin with records that were read before."""
        if not self.flow.hungry:
            return
        there = [number for number in self.passes if number > self.removed_through]
        unread = [number for number in there if self.place(number) > self.flow.read_to]
        page = there[: len(there) - len(unread) + count]
        page = page[max(0, len(there) - len(unread) - again) :]
        page = [number for number in page if self.place(number) > self.began_at]
        for number in page:
            self.read_at.setdefault(number, self.epoch)
        intake = self.flow.accept(
            [self.records[number - 1] for number in page],
            caught_up=count >= len(unread),
            asked=self.epoch,
            passing=[self.passes[number] for number in page],
        )
        assert intake.taken + intake.filtered + intake.skipped + intake.repeated == len(page)

    def may_be_gone(self, number: int) -> bool:
        """Whether the source can have dropped a record since it gave it."""
        assert self.retention_s is not None
        read_at = self.read_at[number]
        seemed_gone = self.records[number - 1].arrived + self.retention_s < read_at
        return not seemed_gone or read_at + self.retention_s < self.epoch

    def remove(self, count: int) -> None:
        """The source removes records, and some that were not read yet. Reading goes on at the first one that is left."""
        there = [number for number in self.passes if number > self.removed_through]
        removed = [number for number in there if self.place(number) > self.newest][:count]
        if removed and not self.flow.read_out:
            # It removes whole records.
            self.removed_through = max(
                number
                for number, place in enumerate(self.places, 1)
                if sequence_of(place) == sequence_of(self.places[removed[-1] - 1])
            )
            self.flow.restart_at(Position.horizon())

    @property
    def newest(self) -> Position:
        """The position behind the newest record that was read in this run."""
        return max(map(self.place, self.read_at), default=self.began_at)

    def lost(self, number: int) -> bool:
        """Whether this run cannot read a record, because the source has removed it."""
        return number <= self.removed_through and number not in self.read_at

    def end(self) -> None:
        if self.flow.hungry and self.place(len(self.passes)) <= max(
            self.newest, self.place(self.removed_through)
        ):
            self.flow.end()

    def choose(self, lane: int, *, stopping: bool = False) -> Monotonic | None:
        """Until when the lane waits; None when it does something, or waits for a page."""
        command, effects = self.flow.next(
            lane, now=self.now, epoch=self.epoch, retention_s=self.retention_s, stopping=stopping
        )
        self.saw(lane, effects, (LaneBlocked, Split))
        self.chosen = command
        self.commands.pop(lane, None)
        assert not stopping or isinstance(command, DiscardPart | Done)
        match command:
            case InvokePart(part, event):
                numbers = self.numbers_of(part.entries)
                assert numbers == self.waiting(lane)[: len(numbers)]
                assert numbers or part.final
                assert event.size <= self.batch.payload_bytes_max or len(numbers) <= 1
                shown = [str(each) for each in json.loads(event.encoded())["Records"]]
                assert shown == [self.name(number) for number in numbers]
                self.commands[lane] = command
            case DiscardPart(discard, notice):
                numbers = self.numbers_of(discard.entries)
                if notice is not None and numbers:
                    assert self.found_again(numbers) == numbers
                if discard.condition is Condition.SKIPPED:
                    self.skips(lane, numbers, notice=notice is not None)
                    self.commands[lane] = command
                    return None
                assert numbers == self.waiting(lane)[: len(numbers)]
                assert numbers or discard.part.final
                assert (notice is None) is (discard.condition is Condition.RETENTION)
                if discard.condition is Condition.RETENTION:
                    assert all(self.may_be_gone(number) for number in numbers)
                self.commands[lane] = command
            case WaitUntil(until):
                assert until > self.now
                return until
            case Rest(until):
                assert until is None or until > self.now
                assert not self.flow.finished(lane)
                return until
            case Done():
                assert stopping or (self.flow.finished(lane) and not self.waiting(lane))
        return None

    def found_again(self, numbers: list[int]) -> list[int]:
        """The records that a redrive reads from the stream for a notice of these: it has the first and last one, and how many there are."""
        wanted = StreamNotice(
            shard=SHARD,
            first=self.name(numbers[0]),
            last=self.name(numbers[-1]),
            records=len(numbers),
            since=self.records[numbers[0] - 1].arrived,
        )
        there = [
            self.records[each - 1] for each, passes in self.passes.items() if passes and not self.lost(each)
        ]
        found = chosen(there, wanted, lanes=len(self.flow.lanes))
        return [self.numbers[each.sequence_number] for each in found]

    def answer(self, lane: int, kind: str, place: int, state: bytes) -> None:
        command = self.commands.get(lane)
        if not isinstance(command, InvokePart):
            return
        del self.commands[lane]
        entries = command.part.entries
        verdict = verdict_of(kind, place, len(entries), state if self.windowed else b"")
        effects = self.flow.answered(lane, verdict, now=self.now, epoch=self.epoch)
        self.saw(lane, effects, (LaneBlocked, LaneFreed, Advance, Retry, Split))
        done = {"accepted": len(entries), "reported": 0 if not entries else place % len(entries)}.get(kind, 0)
        self.settle(numbers := self.numbers_of(entries[:done]))
        closed = command.part.final and isinstance(verdict, Accepted)
        self.counted = 0 if closed else max([self.counted, *numbers])
        progress = isinstance(verdict, Accepted) or done > 0
        assert (self.flow.view(lane).blocked is None) is progress

    def deliver(self, lane: int) -> None:
        command = self.commands.get(lane)
        if isinstance(command, DiscardPart):
            del self.commands[lane]
            self.counted = 0 if command.discard.part.final else self.counted
            effects = self.flow.discarded(lane, now=self.now)
            self.saw(lane, effects, (LaneFreed, Advance))
            numbers = self.numbers_of(command.discard.entries)
            if command.discard.condition is Condition.SKIPPED:
                self.skipped(numbers)
                return
            self.settle(numbers)
            assert self.flow.view(lane).blocked is None

    def fail_to_deliver(self, lane: int) -> None:
        if isinstance(self.commands.get(lane), DiscardPart):
            self.saw(lane, self.flow.undelivered(lane, "no", wait_s=3.0, epoch=self.epoch), (LaneBlocked,))
            blocked = self.flow.view(lane).blocked
            assert blocked is not None
            assert blocked.next_try == self.epoch + 3.0

    def skips(self, lane: int, numbers: list[int], *, notice: bool) -> None:
        """The flow wants to skip these records."""
        raise AssertionError("nobody has asked for a skip")

    def skipped(self, numbers: list[int]) -> None:
        """These records were skipped."""
        raise AssertionError("nobody has asked for a skip")

    def save(self) -> None:
        self.saved = self.flow.checkpoint(), frozenset(self.settled), self.counted

    def restart(self, lanes: int, *, crash: bool) -> None:
        """Another worker goes on from the last checkpoint; after a crash that is an older one."""
        if not crash:
            self.save()
        checkpoint, settled, counted = self.saved
        if checkpoint.position != SHARD_END:
            self.settled, self.counted = set(settled), counted
            self.begin_run(checkpoint, lanes)

    def check(self) -> None:
        """The position is never beyond an unsettled record, and each lane shows whether it is blocked."""
        for number, passes in self.passes.items():
            settled = number in self.settled or self.lost(number)
            assert not passes or settled or self.place(number) > self.flow.position
        shown = {lane for lane in self.flow.lanes if self.flow.view(lane).blocked is not None}
        assert shown == self.blocked

    def finish(self) -> None:
        """Works on until the shard is settled to its end."""
        for _ in range(ROUNDS_MAX):
            self.read(5, 0)
            self.end()
            waits = self.work()
            if self.flow.done:
                break
            if not self.commands and waits and not self.flow.hungry:
                self.now = min(waits)
            self.carry_out()
        assert self.flow.checkpoint() == Checkpoint(SHARD_END)
        wanted = {number for number, passes in self.passes.items() if passes}
        assert self.settled <= wanted
        assert all(map(self.lost, wanted - self.settled))

    def work(self) -> list[Monotonic]:
        """Asks each lane for its next step. Returns until when they wait."""
        return [until for lane in self.flow.lanes if (until := self.choose(lane)) is not None]

    def carry_out(self) -> None:
        """Carries out what the lanes have chosen. In some models all calls fail, as long as a limit ends them."""
        failing = self.policy.retries_max is not None and len(self.records) % 2 == 0
        for lane in self.flow.lanes:
            self.answer(lane, "rejected" if failing else "accepted", 0, b"{}")
            self.deliver(lane)

    def settle(self, numbers: list[int]) -> None:
        for number in numbers:
            assert number not in self.settled, "settled twice"
            key = self.records[number - 1].key
            before = [each for each in range(1, number) if key and self.records[each - 1].key == key]
            done = (each in self.settled or not self.passes[each] or self.lost(each) for each in before)
            assert all(done), "out of order"
            self.settled.add(number)

    def saw(self, lane: int, effects: Sequence[LaneEffect], kinds: tuple[type, ...]) -> None:
        """A lane is said to be blocked once, and freed once, and nothing else than `kinds` follows from the verb."""
        for effect in effects:
            assert isinstance(effect, kinds)
            if isinstance(effect, LaneBlocked):
                assert lane not in self.blocked
                assert effect.since is None or effect.since <= self.epoch
                self.blocked.add(lane)
            elif isinstance(effect, LaneFreed):
                self.blocked.remove(lane)

    def waiting(self, lane: int) -> list[int]:
        """What the lane has to deliver of all that was read, in order."""
        lanes = len(self.flow.lanes)
        return [
            number
            for number, passes in self.passes.items()
            if passes
            and number not in self.settled
            and number in self.read_at
            and lane_of_record(self.records[number - 1], lanes) == lane
        ]

    def place(self, number: int) -> Position:
        return Position.after(self.places[number - 1]) if number else Position.horizon()

    def name(self, number: int) -> str:
        return name_of(self.places[number - 1])

    def numbers_of(self, entries: Sequence[Entry]) -> list[int]:
        return [self.numbers[entry.record.sequence_number] for entry in entries]


def places_of(count: int, parts: int) -> list[str]:
    """The places of so many records, which every other record of the shard brings several of."""
    found: list[str] = []
    while len(found) < count:
        sequence, size = str(len(found) + 1), min(parts, count - len(found))
        whole = size == 1 or (found and ":" in found[-1])
        found += [sequence] if whole else [place_of_part(sequence, part, size) for part in range(size)]
    return found


def verdict_of(kind: str, place: int, size: int, state: bytes) -> Verdict:
    """A verdict on this many records; a report of none is no answer that a function could give."""
    match kind:
        case "rejected":
            return Rejected(Ended.FUNCTION_ERROR, "no", replace(RESPONSE, function_error="Unhandled"))
        case "deferred":
            return Deferred(Ended.THROTTLED, "busy")
        case "reported" if size:
            return Partial(frozenset({place % size}), RESPONSE, state)
        case _:
            return Accepted(state)


@given(
    policy=policies,
    batch=batches,
    arrived=arrivals,
    lanes=st.integers(1, 3),
    windowed=st.booleans(),
    parts=st.integers(1, 4),
    seed=st.integers(0, 100_000),
)
def test_each_record_is_settled_once_and_in_order_and_every_batch_ends(
    policy: RetryPolicy,
    batch: BatchPolicy,
    arrived: list[tuple[str | None, int, bool]],
    lanes: int,
    windowed: bool,
    parts: int,
    seed: int,
) -> None:
    model = Model(policy, batch, arrived, lanes=lanes, windowed=windowed, parts=parts)
    rng = Random(seed)
    for _ in range(rng.randint(0, STEPS_MAX)):
        model.act(rng)
        model.check()
    model.finish()


@pytest.mark.parametrize("verb", ["answered", "undelivered", "discarded"])
def test_a_verb_that_answers_no_command_is_refused(verb: str) -> None:
    """The machine keeps the order of its verbs: the shell cannot settle what was not chosen."""
    model = Model(RetryPolicy(), BatchPolicy(), [("a", 0, True)], lanes=1, windowed=False)
    model.read(1, 0)
    calls = {
        "answered": lambda: model.flow.answered(0, Accepted(), now=model.now, epoch=model.epoch),
        "undelivered": lambda: model.flow.undelivered(0, "no", wait_s=1.0, epoch=model.epoch),
        "discarded": lambda: model.flow.discarded(0, now=model.now),
    }
    with pytest.raises(AssertionError):
        calls[verb]()
    model.choose(0)
    if verb == "answered":
        calls[verb]()
    with pytest.raises(AssertionError):
        calls[verb]()
