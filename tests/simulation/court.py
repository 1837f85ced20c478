"""Owns the court: it hears of every effect and every event of the engine, and keeps each violation of a promise.

Violations are kept and not raised where they happen, because there they would look like a fault of a service.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

import msgspec

from poller.invocations import Notice, Outcome, Throttled
from poller.plan import FunctionPlan, MappingPlan
from poller.records import MappingId, Message, Position, Rank, ShardId, Undone
from poller.rows import Checkpoint, Lease, MappingRow
from poller.telemetry import (
    Bisected,
    Deleted,
    Discarded,
    Event,
    InvocationFinished,
    LeaseMoved,
    MappingChanged,
    MappingState,
    Observer,
    RecordsLost,
    Released,
    Retrying,
    ShardStarted,
    ShardStopped,
)
from tests.simulation.faults import History, Line, Marks, epoch
from tests.simulation.functions import Delivery
from tests.simulation.ledger import Flight, Holders, Tenure, Violation
from tests.simulation.plugs import Issued
from tests.simulation.queue_checks import QueueChecks
from tests.simulation.queues import FakeQueue
from tests.simulation.stream_checks import StreamChecks
from tests.simulation.streams import FakeStream, Held


class Court:
    """Witness of all effects of all workers."""

    def __init__(
        self,
        plans: Sequence[MappingPlan],
        sources: Mapping[str, FakeStream | FakeQueue],
        functions: Mapping[str, FunctionPlan],
        *,
        marks: Marks,
        history: History,
    ) -> None:
        self.violations: list[Violation] = []
        self.streams: dict[MappingId, StreamChecks] = {}
        self.queues: dict[MappingId, QueueChecks] = {}
        self.holders = Holders()
        self.kept: set[tuple[str, MappingId, ShardId]] = set()
        """Leases that a worker knows that it took (the reply to a take may be lost) and did not try to give up."""
        self._marks = marks
        self._history = history
        self._functions = functions
        self._by_call = {(plan.source_arn, plan.function): plan for plan in plans}
        self._flights: dict[int, tuple[Flight, ShardId | None]] = {}
        self._lines: dict[str, Line] = {}
        """The lines of workers that have called functions of queues."""
        self._serial = 0
        for plan in plans:
            source = sources[plan.source_arn]
            if isinstance(source, FakeStream):
                self.streams[plan.mapping] = StreamChecks(plan, source, marks)
            else:
                function = functions.get(plan.function)
                timeout_s = function.timeout_s if function is not None else 0.0
                self.queues[plan.mapping] = QueueChecks(plan, source, marks, timeout_s=timeout_s)

    def observer(self, line: Line) -> Observer:
        """Who hears the engine's events of one worker."""
        return _Ear(self, line)

    def reads(self, line: Line, source_arn: str, shard: ShardId) -> None:
        """A shard is read."""
        with self._judging():
            for checks in self.streams.values():
                if checks.plan.source_arn == source_arn and self._holds(line, checks.plan.mapping, shard):
                    checks.reads(shard)

    def receives(self, line: Line, source_arn: str, messages: Sequence[Message], troubles: int) -> None:
        """Messages were handed out to a call before which so much had gone wrong between worker and source."""
        with self._judging():
            self._queue(source_arn).receives(
                line.name, messages, epoch(), asked=troubles, troubles=line.source_faults
            )

    def reply_lost(self, line: Line, source_arn: str, messages: Sequence[Message]) -> None:
        """Messages were handed out and never arrived."""
        self._queue(source_arn).excuse(messages)

    def deletes(
        self, line: Line, source_arn: str, receipts: Sequence[str], undone: Sequence[Undone], asked: float
    ) -> None:
        """A delete call was carried out that was decided on at epoch seconds `asked`."""
        with self._judging():
            self._queue(source_arn).deletes(line.name, receipts, undone, asked)

    def extends(self, line: Line, source_arn: str, receipts: Sequence[str], visibility_s: int) -> None:
        """Messages are about to be hidden for `visibility_s` from now on; 0 shows them."""
        with self._judging():
            self._queue(source_arn).extends(receipts, visibility_s, epoch(), healthy=not line.faults)

    def begins(self, line: Line, call: Issued, delivery: Delivery) -> int:
        """A function was called; returns the call's number."""
        self._serial += 1
        with self._judging():
            self._begin(line, call, delivery)
        return self._serial

    def ends(self, number: int, outcome: Outcome | None) -> None:
        """The worker has the outcome of a call; None when it will never hear of it."""
        if number not in self._flights:
            return
        flight, shard = self._flights.pop(number)
        with self._judging():
            if shard is None:
                self._end_queue(flight, outcome)
            else:
                tenure = self.holders.holder(flight.mapping, shard)
                rightful = tenure if tenure is not None and tenure.worker == flight.worker else None
                self.streams[flight.mapping].ends(flight, shard, outcome, rightful)

    def abandoned(self, call: Issued, delivery: Delivery) -> None:
        """The engine gave up waiting for a call."""
        plan = self._by_call[delivery.source_arn, call.function]
        if plan.mapping in self.streams:
            self.streams[plan.mapping].abandoned(call.invocation.request_id, delivery)
        else:
            self.queues[plan.mapping].abandoned(delivery)

    def offers(self, notice: Notice) -> None:
        """The engine wants to send a notice."""
        with self._judging():
            self.streams[notice.mapping].offered(notice)

    def notified(self, line: Line, notice: Notice, issued: float) -> None:
        """The destination has a notice."""
        with self._judging():
            self._not_told(line, notice.mapping, notice.shard, at=issued)
            self._marks.saw("notice")
            if self._holds(line, notice.mapping, notice.shard):
                self.streams[notice.mapping].notified(notice, epoch())

    def creates(self, row: MappingRow) -> None:
        """The store has a mapping's row."""
        if row.mapping in self.streams:
            self.streams[row.mapping].created(row.fixed)

    def takes(self, line: Line, mapping: MappingId, lease: Lease) -> None:
        """A lease was taken; flights of an owner that did not give it up go on without right."""
        with self._judging():
            tenure = Tenure(line.name, lease.epoch, lease.checkpoint, since=epoch())
            self._mark_resumed(lease.checkpoint)
            before = self.holders.take(mapping, lease.shard, tenure)
            if before is not None and before.worker != line.name:
                self._marks.saw("lease taken over")
                self._disown(mapping, lease.shard, before.worker)

    def gives_up(self, line: Line, mapping: MappingId, lease: Lease) -> None:
        """The worker tries to give a lease up; one try is enough, because others take it over in the end."""
        self.kept.discard((line.name, mapping, lease.shard))

    def releases(self, line: Line, mapping: MappingId, lease: Lease) -> None:
        """A lease was given up."""
        self.holders.release(mapping, lease.shard, lease.epoch)
        self._marks.saw("lease released")

    def saves(self, line: Line, mapping: MappingId, lease: Lease, checkpoint: Checkpoint) -> None:
        """A checkpoint was accepted."""
        with self._judging():
            tenure = self.holders.holder(mapping, lease.shard)
            if tenure is None or (tenure.worker, tenure.epoch) != (line.name, lease.epoch):
                raise Violation("fence", f"{line.name} saved {lease.shard} at epoch {lease.epoch}")
            self.streams[mapping].saves(lease.shard, checkpoint)
            self._mark_memo(checkpoint)

    def refused(self, line: Line, mapping: MappingId, lease: Lease) -> None:
        """The store told the worker that it lost the lease."""
        self._marks.saw("zombie write refused")

    def hears(self, line: Line, event: Event) -> None:
        """The engine says what it did."""
        with self._judging():
            self._mark(event)
            match event:
                case LeaseMoved(held=True):
                    self.kept.add((line.name, event.mapping, event.shard))
                case LeaseMoved(held=False):
                    self.kept.discard((line.name, event.mapping, event.shard))
                    self.holders.tell(line.name, event.mapping, event.shard, epoch())
                case Discarded() if self._holds(line, event.mapping, event.shard):
                    self.streams[event.mapping].dropped(event, epoch())
                case Deleted() if event.mapping in self.queues:
                    self.queues[event.mapping].visibility.tells(line.name, event.lapsed + event.failed)
                case MappingChanged(state=MappingState.BROKEN):
                    raise Violation("bug", f"{event.mapping} is broken: {event.reason}")

    def unsettled(self) -> list[str]:
        """What still has to be done, one line each."""
        lines = []
        for mapping, checks in self.streams.items():
            if left := checks.unsettled():
                lines.append(f"{mapping}: {len(left)} records from {left[0].sequence} {left[0].content}")
            elif behind := checks.behind():
                lines.append(f"{mapping}: the checkpoints of {behind}")
            elif windows := checks.open_windows():
                lines.append(f"{mapping}: the windows {windows}")
        for mapping, queue in self.queues.items():
            if waiting := queue.unsettled():
                lines.append(f"{mapping}: {len(waiting)} messages from {waiting[0]}")
        return lines

    def _begin(self, line: Line, call: Issued, delivery: Delivery) -> None:
        plan = self._by_call[delivery.source_arn, call.function]
        self._within_function_cap(line, call.function)
        if plan.mapping in self.queues:
            self._begin_queue(line, plan, call, delivery)
        else:
            self._begin_stream(line, plan, call, delivery)

    def _begin_queue(self, line: Line, plan: MappingPlan, call: Issued, delivery: Delivery) -> None:
        checks = self.queues[plan.mapping]
        letters = checks.located(delivery)
        flight = self._flight(line, plan, call, delivery, checks.domains(letters))
        self._flights[flight.number] = flight, None
        self._lines[line.name] = line
        checks.begins(flight, letters, ill={name for name, each in self._lines.items() if each.store_faults})

    def _begin_stream(self, line: Line, plan: MappingPlan, call: Issued, delivery: Delivery) -> None:
        checks = self.streams[plan.mapping]
        shard, records = self._located(checks, delivery)
        flight = self._flight(line, plan, call, delivery, checks.domains(shard, records) or {shard})
        self._flights[flight.number] = flight, shard
        tenure = self.holders.holder(plan.mapping, shard)
        flight.by_right = tenure is not None and tenure.worker == line.name
        if not flight.by_right:
            self._not_told(line, plan.mapping, shard, at=call.at)
            self._marks.saw("zombie call")
            self._decided_in_time(line, shard, tenure, at=call.at)
        checks.begins(flight, shard, records, tenure)
        self._mark_closing(plan, delivery, len(call.invocation.payload))

    def _located(self, checks: StreamChecks, delivery: Delivery) -> tuple[ShardId, list[Held]]:
        if delivery.records:
            return checks.located(delivery)
        return ShardId(delivery.event["shardId"]), []

    def _flight(
        self,
        line: Line,
        plan: MappingPlan,
        call: Issued,
        delivery: Delivery,
        domains: frozenset[str] | set[str],
    ) -> Flight:
        return Flight(
            self._serial,
            line.name,
            plan.function,
            plan.mapping,
            delivery,
            call.invocation.request_id,
            epoch(),
            frozenset(domains),
        )

    def _end_queue(self, flight: Flight, outcome: Outcome | None) -> None:
        checks = self.queues[flight.mapping]
        checks.ends(flight, outcome, epoch())
        if isinstance(outcome, Throttled):
            self._marks.saw("throttled batch of a queue")

    def _within_function_cap(self, line: Line, function: str) -> None:
        cap = self._functions[function].max_concurrency
        busy = [each for each, _ in self._flights.values() if each.function == function]
        here = sum(1 for each in busy if each.worker == line.name)
        if cap is not None and here >= cap:
            raise Violation("cap", f"{here + 1} calls of {function} at once, at most {cap}")

    def _queue(self, source_arn: str) -> QueueChecks:
        return next(each for each in self.queues.values() if each.plan.source_arn == source_arn)

    def _holds(self, line: Line, mapping: MappingId, shard: ShardId) -> bool:
        tenure = self.holders.holder(mapping, shard)
        return tenure is not None and tenure.worker == line.name

    def _not_told(self, line: Line, mapping: MappingId, shard: ShardId, *, at: float) -> None:
        if not self._holds(line, mapping, shard) and self.holders.knew(line.name, mapping, shard, at=at):
            raise Violation("lease", f"{line.name} works on {shard}, which it knew that it had lost")

    def _decided_in_time(self, line: Line, shard: ShardId, tenure: Tenure | None, *, at: float) -> None:
        """A call may arrive after the lease has gone, but it was decided on before."""
        if tenure is None or at > tenure.since:
            holder = "nobody" if tenure is None else tenure.worker
            raise Violation("lease", f"{line.name} calls the function for {shard}, which {holder} has")

    def _disown(self, mapping: MappingId, shard: ShardId, worker: str) -> None:
        for flight, where in self._flights.values():
            if (flight.mapping, where, flight.worker) == (mapping, shard, worker):
                flight.by_right = False

    def _mark(self, event: Event) -> None:
        match event:
            case Bisected():
                self._marks.saw("bisect")
            case InvocationFinished(ended=ended):
                self._marks.saw(f"ended: {ended}")
            case Retrying(free=free):
                self._marks.saw("free retry" if free else "retry")
            case Discarded(condition=condition):
                self._marks.saw(f"discard: {condition}")
            case RecordsLost(loss=loss):
                self._marks.saw(f"lost: {loss}")
            case LeaseMoved(held=False):
                self._marks.saw("lease lost")
            case Released():
                self._marks.saw("messages released")
            case ShardStarted(position=Position(rank=Rank.AFTER)):
                self._marks.saw("resumed")
            case ShardStopped(ended=True):
                self._marks.saw("shard ended")

    def _mark_closing(self, plan: MappingPlan, delivery: Delivery, payload_bytes: int) -> None:
        count = len(delivery.records)
        if count >= plan.batch.records_max:
            self._marks.saw("closed by count")
        elif payload_bytes * 1.5 > plan.batch.payload_bytes_max:
            self._marks.saw("closed by bytes")
        elif plan.batch.window_s and count > 1:
            self._marks.saw("closed by time")

    def _mark_memo(self, checkpoint: Checkpoint) -> None:
        if checkpoint.memo:
            self._marks.saw("memo saved")

    def _mark_resumed(self, checkpoint: Checkpoint) -> None:
        memo = msgspec.json.decode(checkpoint.memo) if checkpoint.memo else {}
        if any(len(parts) > 1 for parts in memo.get("lanes", {}).values()):
            self._marks.saw("bisect across a restart")
        if memo.get("window"):
            self._marks.saw("window across a restart")

    @contextmanager
    def _judging(self) -> Iterator[None]:
        try:
            yield
        except Violation as violation:
            text = str(violation)
            self._history.tell("VIOLATION", lambda: text)
            self.violations.append(violation)


class _Ear:
    """Observer that passes one worker's events on."""

    def __init__(self, court: Court, line: Line) -> None:
        self._court = court
        self._line = line

    def on(self, event: Event) -> None:
        """Takes one event."""
        self._line.history.tell(self._line.name, lambda: str(event))
        self._court.hears(self._line, event)
