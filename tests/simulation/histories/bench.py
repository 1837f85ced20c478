"""Owns short histories written by hand, for the tests of the checkers: a court, its services, and one worker after another."""

import json
from collections.abc import Sequence
from random import Random
from typing import Any

from poller.domain.invocations import (
    Condition,
    EncodedEvent,
    FunctionError,
    Invocation,
    Notice,
    Outcome,
    Succeeded,
)
from poller.domain.plan import FunctionPlan, MappingPlan, SourceKind
from poller.domain.records import (
    Epoch,
    KinesisRecord,
    MappingId,
    Message,
    Position,
    QueueFacts,
    ShardId,
    WorkerId,
)
from poller.domain.rows import Checkpoint, Lease, MappingRow
from poller.domain.telemetry.daemon_events import Capacity
from poller.domain.telemetry.mapping_events import Discarded, LeaseMoved
from poller.rules.events import KinesisEncoder, WindowFacts, build, build_windowed
from poller.rules.queues.message_encoder import MessageEncoder
from poller.rules.streams.failure_document import seconds
from tests.plans import mapping_plan
from tests.simulation.checks.checker import Checker
from tests.simulation.services.contents import Content
from tests.simulation.services.fake_plugins import Issued
from tests.simulation.services.faults import FaultPlan, History, Line, Marks, epoch
from tests.simulation.services.functions import STATE_BYTES_HUGE, read_delivery
from tests.simulation.services.queues import Delete, Extend, FakeQueue, Receive
from tests.simulation.services.streams import FakeStream, Held
from tests.virtual import EPOCH_BASE

MAPPING = MappingId("00000000-0000-4000-8000-000000000001")
FIRST = ShardId("shardId-000000000000")
STREAM_ARN = "arn:aws:kinesis:eu-west-1:111122223333:stream/orders"
QUEUE_ARN = "arn:aws:sqs:eu-west-1:111122223333:orders"
GOOD = Succeeded(b"")
BAD = FunctionError("ValueError", "a record is bad")
FUNCTION = FunctionPlan(name="f", invoker="sim", timeout_s=10.0, max_concurrency=3)
WINDOW_S = 10
HUGE = {"pad": "x" * STATE_BYTES_HUGE}
"""What makes a window's state too large."""


def worker(name: str = "ann") -> Line:
    """A worker's line."""
    return Line(name, FaultPlan(), rng=Random(1), marks=Marks(), history=History(kept=False))


class Bench:
    """What streams and queues have in common: calls of the function, and the rules that were broken."""

    court: Checker

    def broke(self, rule: str, words: str) -> bool:
        """Whether a violation of this rule says these words."""
        return any(each.rule == rule and words in str(each) for each in self.court.violations)

    @property
    def broken(self) -> list[str]:
        """The rules of all violations so far."""
        return [each.rule for each in self.court.violations]

    def begin(self, payload: bytes, line: Line, *, at: float | None = None, request_id: str = "r") -> int:
        """The function is called with an event that was decided on `at` (now unless given)."""
        call = Issued(
            "f", Invocation("arn", request_id, EncodedEvent(payload), 10.0), epoch() if at is None else at
        )
        return self.court.begins(line, call, read_delivery(payload))


class StreamBench(Bench):
    """A stream mapping; `options` go to its plan."""

    def __init__(self, *, shards: int = 1, listing_lag_s: float = 0.0, **options: Any) -> None:
        self.stream = FakeStream(SourceKind.KINESIS, shards=shards, listing_lag_s=listing_lag_s)
        plan = mapping_plan(
            mapping=MAPPING,
            kind=SourceKind.KINESIS,
            source_arn=STREAM_ARN,
            function="f",
            function_arn="arn:aws:lambda:eu-west-1:111122223333:function:f",
            **options,
        )
        history = History(kept=False)
        self.court = Checker(
            [plan], {STREAM_ARN: self.stream}, {"f": FUNCTION}, marks=Marks(), history=history
        )
        self.ann = worker()
        self._number = 0

    def fixed(self, moment: float) -> None:
        """The mapping is created at this moment."""
        self.court.creates(MappingRow(MAPPING, fixed=Epoch(moment)))

    def put(self, count: int = 1, *, key: str = "k", keep: bool = True) -> list[Held]:
        """Writes records of one key."""
        held = []
        for _ in range(count):
            self._number += 1
            held.append(self.stream.put(epoch(), key, Content(self._number, keep=keep))[1])
        return held

    def take(
        self,
        line: Line,
        *,
        epoch: int = 1,
        shard: ShardId = FIRST,
        position: Position | None = None,
        memo: bytes = b"",
    ) -> Lease:
        """The worker takes a shard, whose checkpoint is `position` with `memo`."""
        start = Checkpoint(position or Position.horizon(), memo)
        lease = Lease(shard, (), start, owner=WorkerId(line.name), epoch=epoch)
        self.court.takes(line, MAPPING, lease)
        return lease

    def event(self, records: Sequence[Held], shard: ShardId = FIRST) -> bytes:
        """The event of these records."""
        encoder = KinesisEncoder(shard=shard, source_arn=STREAM_ARN, region="eu-west-1", role_arn="")
        return build([encoder.encode(_kinesis(each)) for each in records])

    def call(
        self,
        records: Sequence[Held],
        outcome: Outcome = GOOD,
        *,
        line: Line | None = None,
        shard: ShardId = FIRST,
        request_id: str = "r",
    ) -> None:
        """A whole call of the function."""
        payload = self.event(records, shard)
        self.court.ends(self.begin(payload, line or self.ann, request_id=request_id), outcome)

    def give_up(self, records: Sequence[Held], *, runs_on_s: float) -> None:
        """A call of the function is given up whose run goes on for so long."""
        payload = self.event(records)
        call = Issued("f", Invocation("arn", "r", EncodedEvent(payload), 10.0), epoch())
        self.court.ends(self.begin(payload, self.ann), None)
        self.court.gave_up(self.ann, call, read_delivery(payload), epoch() + runs_on_s)

    def save(self, lease: Lease, position: Position, line: Line | None = None) -> None:
        """A checkpoint is accepted."""
        self.court.saves(line or self.ann, MAPPING, lease, Checkpoint(position))

    def lose(self, line: Line, shard: ShardId = FIRST) -> None:
        """The worker learns that it lost the shard."""
        self.court.hears(line, LeaseMoved(mapping=MAPPING, shard=shard, held=False))

    def dropped(self, records: Sequence[Held]) -> None:
        """The engine says that it skipped these records without a notice, or without any the call that closes the window."""
        event = Discarded(
            mapping=MAPPING,
            shard=FIRST,
            records=len(records),
            condition=Condition.SKIPPED,
            delivered=False,
            destination=True,
            first=str(records[0].sequence) if records else "",
            last=str(records[-1].sequence) if records else "",
        )
        self.court.hears(self.ann, event)

    def notify(
        self,
        records: Sequence[Held],
        condition: Condition,
        *,
        line: Line | None = None,
        size: int | None = None,
        request_id: str = "r",
    ) -> None:
        """A notice reaches the destination; `size` other than the records' is a lie."""
        document = {
            "requestContext": {
                "requestId": request_id,
                "functionArn": self.court.streams[MAPPING].plan.function_arn,
                "condition": str(condition),
            },
            "KinesisBatchInfo": {
                "shardId": FIRST,
                "startSequenceNumber": str(records[0].sequence),
                "endSequenceNumber": str(records[-1].sequence),
                "batchSize": len(records) if size is None else size,
            },
        }
        body = json.dumps(document).encode()
        notice = Notice("n", MAPPING, FIRST, body, self.event(records), "")
        self.court.notified(line or self.ann, notice, epoch())


class WindowBench(StreamBench):
    """A stream mapping with tumbling windows of 10 s; the first begins with the history."""

    def __init__(self, **options: Any) -> None:
        super().__init__(tumbling_window_s=WINDOW_S, **options)

    def hand(
        self,
        records: Sequence[Held],
        *,
        start: float = 0.0,
        length_s: float = WINDOW_S,
        state: dict[str, Any] | None = None,
        final: bool = False,
        early: bool = False,
        line: Line | None = None,
    ) -> int:
        """The function is called in the window that begins `start` seconds after the history; returns the call."""
        encoder = KinesisEncoder(shard=FIRST, source_arn=STREAM_ARN, region="eu-west-1", role_arn="")
        begin = EPOCH_BASE + start
        facts = WindowFacts(
            seconds(Epoch(begin)),
            seconds(Epoch(begin + length_s)),
            json.dumps(state or {}).encode(),
            final,
            early,
        )
        encoded = [encoder.encode(_kinesis(each)) for each in records]
        payload = build_windowed(encoded, facts, shard=FIRST, source_arn=STREAM_ARN)
        return self.begin(payload, line or self.ann)

    def tumble(
        self,
        records: Sequence[Held],
        returned: dict[str, Any] | None = None,
        *,
        start: float = 0.0,
        state: dict[str, Any] | None = None,
        final: bool = False,
        early: bool = False,
        line: Line | None = None,
    ) -> None:
        """A whole call, which returns a state; None: it fails."""
        call = self.hand(records, start=start, state=state, final=final, early=early, line=line)
        answer = json.dumps({"state": returned}).encode()
        self.court.ends(call, BAD if returned is None else Succeeded(answer))


class QueueBench(Bench):
    """A queue mapping of a function; `options` go to its plan."""

    def __init__(
        self,
        *,
        fifo: bool = False,
        function: FunctionPlan = FUNCTION,
        duplicates: float = 0.0,
        redrive_receives_max: int | None = None,
        **options: Any,
    ) -> None:
        self.arn = f"{QUEUE_ARN}.fifo" if fifo else QUEUE_ARN
        self.queue = FakeQueue(QueueFacts(30, fifo, redrive_receives_max), duplicates=duplicates)
        plan = MappingPlan(
            mapping=MAPPING,
            kind=SourceKind.SQS,
            source_arn=self.arn,
            function="f",
            function_arn="arn:aws:lambda:eu-west-1:111122223333:function:f",
            **options,
        )
        history = History(kept=False)
        self.court = Checker([plan], {self.arn: self.queue}, {"f": function}, marks=Marks(), history=history)
        self.ann = worker()
        self._number = 0

    def send(self, *groups: str, keep: bool = True) -> None:
        """One message for each group; a standard queue has only the empty one."""
        for group in groups:
            self._number += 1
            self.queue.send(epoch(), Content(self._number, keep=keep), group=group or None)

    def receive(self, most: int = 10, *, line: Line | None = None, abandoned: bool = False) -> list[Message]:
        """The worker receives, in the order in which the messages were sent; `abandoned`: it gave the call up before."""
        found = self.queue.apply(epoch(), Receive(most))
        assert isinstance(found, tuple)
        messages = [each for each in found if isinstance(each, Message)]
        line = line or self.ann
        self.court.receives(line, self.arn, messages, line.source_faults, abandoned=abandoned)
        return sorted(messages, key=lambda each: each.message_id)

    def event(self, messages: Sequence[Message]) -> bytes:
        """The event of these messages."""
        encoder = MessageEncoder(source_arn=self.arn, region="eu-west-1", windowed=False)
        return build([encoder.encode(each) for each in messages])

    def call(self, messages: Sequence[Message], outcome: Outcome = GOOD, *, line: Line | None = None) -> None:
        """A whole call of the function, in a slot that the worker takes for it."""
        line = line or self.ann
        self.court.hears(line, Capacity(function="f", in_flight=1, limit=None))
        self.court.ends(self.begin(self.event(messages), line), outcome)
        self.court.hears(line, Capacity(function="f", in_flight=0, limit=None))

    def extend(self, messages: Sequence[Message], visibility_s: int, *, asked: float | None = None) -> None:
        """The worker hides messages for so long, or shows them again; it decided that on `asked`, or now."""
        receipts = tuple(each.receipt for each in messages)
        decided = epoch() if asked is None else asked
        self.court.extends(self.ann, self.arn, receipts, visibility_s, decided)
        self.queue.apply(epoch(), Extend(receipts, visibility_s))

    def report(self, messages: Sequence[Message]) -> Outcome:
        """The answer of a function that reports these."""
        failures = [{"itemIdentifier": each.message_id} for each in messages]
        return Succeeded(json.dumps({"batchItemFailures": failures}).encode())

    def delete(self, messages: Sequence[Message], *, line: Line | None = None) -> None:
        """The worker deletes."""
        receipts = tuple(each.receipt for each in messages)
        undone = self.queue.apply(epoch(), Delete(receipts))
        assert isinstance(undone, tuple)
        left = [each for each in undone if not isinstance(each, Message)]
        self.court.deletes(line or self.ann, self.arn, receipts, left, epoch())


def _kinesis(held: Held) -> KinesisRecord:
    assert isinstance(held.record, KinesisRecord)
    return held.record
