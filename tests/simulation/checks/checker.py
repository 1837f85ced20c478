"""Owns the court: it hears of every effect and every event of the engine, and keeps each violation of a promise.

Violations are kept and not raised where they happen, because there they would look like a fault of a service.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

import msgspec

from poller.domain.invocations import Ended, Notice, Outcome, Throttled, TimedOut
from poller.domain.operations import Action, Operation
from poller.domain.plan import FunctionPlan, MappingPlan
from poller.domain.records import MappingId, Message, Position, Rank, ShardId, Undone
from poller.domain.rows import Checkpoint, Lease, MappingRow, MappingState
from poller.domain.telemetry.daemon_events import Capacity
from poller.domain.telemetry.labels import TaskKind
from poller.domain.telemetry.mapping_events import (
    Bisected,
    Deleted,
    Discarded,
    InvocationFinished,
    InvocationStarted,
    LeaseMoved,
    MappingChanged,
    RecordsLost,
    Released,
    Retrying,
    ShardStarted,
    ShardStopped,
)
from poller.domain.telemetry.observers import AnyTelemetryEvent, Observer
from tests.simulation.checks.call_checks import CallsBeside
from tests.simulation.checks.flow_checks import FlowChecks
from tests.simulation.checks.ledger import Flight, Holders, Tenure, Violation
from tests.simulation.checks.queue_checks import QueueChecks
from tests.simulation.checks.redrive_checks import RedriveChecks
from tests.simulation.checks.stop_checks import StopChecks
from tests.simulation.checks.stream_checks import StreamChecks
from tests.simulation.services.contents import number_of
from tests.simulation.services.fake_plugins import Issued
from tests.simulation.services.faults import History, Line, Marks, epoch
from tests.simulation.services.functions import OWN, Delivery
from tests.simulation.services.notices import Reader
from tests.simulation.services.queues import FakeQueue
from tests.simulation.services.streams import FakeStream, Held


@dataclass(frozen=True, slots=True)
class RunningOn:
    """A run of a function that goes on although its worker gave it up."""

    worker: str
    source_arn: str
    function: str
    records: frozenset[str]
    until: float

    def again(self, worker: str, function: str, delivery: Delivery) -> bool:
        """Whether this delivery has some of its records."""
        same = (worker, function, delivery.source_arn) == (self.worker, self.function, self.source_arn)
        return same and not self.records.isdisjoint(each.identifier for each in delivery.records)


class Checker:
    """Witness of all effects of all workers."""

    def __init__(
        self,
        plans: Sequence[MappingPlan],
        sources: Mapping[str, FakeStream | FakeQueue],
        functions: Mapping[str, FunctionPlan],
        *,
        called: Collection[str] = (),
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
        self.alone = CallsBeside(functions, self._batches)
        self._called = called
        """The functions that are called beside their mappings, too."""
        self._by_call = {(plan.source_arn, plan.function): plan for plan in plans}
        self._flights: dict[int, tuple[Flight, ShardId | None]] = {}
        self._unsure: dict[str, tuple[Flight, ShardId | None, Outcome]] = {}
        """By their request ids, answers that a worker may take for calls that timed out, since it stood still meanwhile."""
        self._lines: dict[str, Line] = {}
        """The lines of workers that have called functions of queues."""
        self.flow = FlowChecks(functions, marks)
        self.redrives = RedriveChecks(marks, self._knew_of_pause)
        self._running_on: list[RunningOn] = []
        self._ended: set[tuple[str, str]] = set()
        """Kinds of tasks that were cancelled from inside, by worker."""
        self._dropped: set[tuple[str, MappingId, ShardId]] = set()
        """Leases that were removed, by worker: what it decides before it is told is no fault."""
        self._serial = 0
        for plan in plans:
            source = sources[plan.source_arn]
            if isinstance(source, FakeStream):
                self.streams[plan.mapping] = StreamChecks(plan, source, marks)
            else:
                function = functions.get(plan.function)
                timeout_s = (function.timeout_s if function is not None else None) or 0.0
                checks = QueueChecks(plan, source, marks, timeout_s=timeout_s)
                checks.fill.held = function is not None and bool(function.breaker or function.rate)
                own = function is not None and function.invoker == OWN
                checks.stops = StopChecks(marks, None if own else timeout_s, held=checks.fill.held)
                # A batch may wait for the end of a call that has its slot.
                checks.fill.held |= plan.function in called
                self.queues[plan.mapping] = checks

    def observer(self, line: Line) -> Observer:
        """Who hears the engine's events of one worker."""
        return _Ear(self, line)

    def reads(self, line: Line, source_arn: str, shard: ShardId) -> None:
        """A shard is read."""
        with self._judging():
            for checks in self.streams.values():
                tenure = self.holders.holder(checks.plan.mapping, shard)
                mine = tenure is not None and tenure.worker == line.name
                if checks.plan.source_arn == source_arn and mine:
                    checks.reads(shard, known=checks.knows_of(tenure), tenure=tenure)

    def remakes(self, source_arn: str) -> None:
        """The stream is another one from now on: all of it is to be delivered, and nothing of the one before any more."""
        for mapping, checks in self.streams.items():
            if checks.plan.source_arn == source_arn:
                self.streams[mapping] = StreamChecks(checks.plan, checks.stream, self._marks, noticed_at=None)

    def receives(
        self,
        line: Line,
        source_arn: str,
        messages: Sequence[Message],
        troubles: int,
        *,
        abandoned: bool = False,
    ) -> None:
        """Messages were handed out to a call before which so much had gone wrong between worker and source."""
        with self._judging():
            self._queue(source_arn).receives(
                line,
                messages,
                epoch(),
                asked=troubles,
                troubles=line.source_faults,
                abandoned=abandoned,
            )

    def arrives(self, line: Line, source_arn: str, messages: Sequence[Message]) -> None:
        """A worker has the messages that it was handed."""
        queue = self._queue(source_arn)
        queue.arrives(line.name, messages, epoch())
        queue.fill.arrives(line.name, [each.message_id for each in messages], epoch())

    def begin_anew(self, line: Line) -> None:
        """A worker's mappings are about to begin anew: what they have and did not run comes again."""
        for queue in self.queues.values():
            queue.begun_anew(line.name)

    def abandons(self, line: Line, source_arn: str) -> None:
        """A receive is given up that is under way; a worker that dies or loses a task cannot help it."""
        self._marks.saw("abandoned poll")
        if not line.crashed and all(worker != line.name for worker, _ in self._ended):
            with self._judging():
                raise Violation("poll", f"{line.name} gives up a poll of {source_arn}")

    def waits_for_room(self, messages: Sequence[Message], source_arn: str) -> None:
        """Messages were handed out, and wait until the worker has room in memory."""
        self._queue(source_arn).waits_for_room(messages, epoch())

    def reply_lost(self, line: Line, source_arn: str, messages: Sequence[Message]) -> None:
        """Messages were handed out and never arrived."""
        self._queue(source_arn).excuse(messages)

    def deletes(
        self, line: Line, source_arn: str, receipts: Sequence[str], undone: Sequence[Undone], asked: float
    ) -> None:
        """A delete call was carried out that was decided on at epoch seconds `asked`."""
        with self._judging():
            self._queue(source_arn).deletes(line.name, receipts, undone, asked)

    def delete_failed(self, line: Line, source_arn: str, receipts: Sequence[str]) -> None:
        """A delete call failed, or the worker gave it up."""
        self._queue(source_arn).delete_failed(receipts)

    def extends(
        self, line: Line, source_arn: str, receipts: Sequence[str], visibility_s: int, asked: float
    ) -> None:
        """Messages are about to be hidden for `visibility_s` from now on, as was decided on `asked`; 0 shows them."""
        with self._judging():
            self._queue(source_arn).extends(line, receipts, visibility_s, asked=asked, now=epoch())

    def tries(self, line: Line, call: Issued, delivery: Delivery) -> None:
        """A worker is about to call a function, which may not be reached."""
        plan = self._by_call.get((delivery.source_arn, call.function))
        if call.reader is None and plan is not None and plan.mapping in self.queues:
            self.queues[plan.mapping].tried(line.name, delivery)

    def begins(self, line: Line, call: Issued, delivery: Delivery) -> int:
        """A function was called; returns the call's number."""
        self._serial += 1
        with self._judging():
            self._begin(line, call, delivery)
        return self._serial

    @contextmanager
    def calls_alone(self, line: Line, function: str) -> Iterator[None]:
        """A function is called beside its mappings inside the block."""
        with ExitStack() as stack:
            with self._judging():
                stack.enter_context(self.alone.running(line, function))
            yield

    def ends(self, number: int, outcome: Outcome | None) -> None:
        """The worker has the outcome of a call; None when it will never hear of it."""
        if number not in self._flights:
            return
        flight, shard = self._flights.pop(number)
        if outcome is not None and flight.line is not None and flight.line.stumbles > flight.stumbles:
            self._unsure[flight.request_id] = flight, shard, outcome
            return
        with self._judging():
            self._end(flight, shard, outcome)

    def _end(self, flight: Flight, shard: ShardId | None, outcome: Outcome | None) -> None:
        reports = self._by_call[flight.delivery.source_arn, flight.function].retry.report_failures
        if self.redrives.ends(flight.number, outcome, reports=reports):
            return
        if shard is None:
            self._end_queue(flight, outcome)
        else:
            tenure = self.holders.holder(flight.mapping, shard)
            rightful = tenure if tenure is not None and tenure.worker == flight.worker else None
            self.streams[flight.mapping].ends(flight, shard, outcome, rightful)

    def _is_sure(self, request_id: str, ended: Ended) -> None:
        """The worker says how a call ended that had an answer when it went on."""
        flight, shard, outcome = self._unsure.pop(request_id)
        if ended is Ended.TIMED_OUT:
            self._marks.saw("answer taken for a call that timed out")
            outcome = TimedOut(0.0)
        self._end(flight, shard, outcome)

    def _never_sure(self, mapping: MappingId, domains: frozenset[str]) -> None:
        """A worker calls the function with what was in these calls, and theirs never said how they ended: they were broken off."""
        for request_id, (flight, shard, _) in tuple(self._unsure.items()):
            if flight.mapping == mapping and flight.domains & domains:
                del self._unsure[request_id]
                self._end(flight, shard, None)

    def abandoned(self, call: Issued, delivery: Delivery) -> None:
        """The engine gave up waiting for a call."""
        if call.reader is not None:
            return
        plan = self._by_call[delivery.source_arn, call.function]
        if plan.mapping in self.streams:
            self.streams[plan.mapping].abandoned(call.invocation.request_id, delivery)
        else:
            self.queues[plan.mapping].abandoned(delivery)

    def gave_up(self, line: Line, call: Issued, delivery: Delivery, until: float) -> None:
        """The engine gave up waiting for a call whose run goes on until epoch seconds `until`."""
        records = frozenset(each.identifier for each in delivery.records)
        self._running_on.append(RunningOn(line.name, delivery.source_arn, call.function, records, until))

    def offers(self, notice: Notice) -> None:
        """The engine wants to send a notice."""
        with self._judging():
            self.streams[self._caller(notice)].offered(notice)

    def notified(self, line: Line, notice: Notice, issued: float) -> None:
        """The destination has a notice."""
        with self._judging():
            mapping = self._caller(notice)
            self._not_told(line, mapping, notice.shard, at=issued)
            self._marks.saw("notice")
            if (tenure := self._tenure(line, mapping, notice.shard)) is not None:
                self.streams[mapping].notified(notice, epoch(), tenure)

    def _caller(self, notice: Notice) -> MappingId:
        """Whose batch it is: a replay, whose notices have the id of its mapping, is known by its function."""
        function = msgspec.json.decode(notice.document)["requestContext"]["functionArn"].rsplit(":", 1)[-1]
        return self._by_call[self.streams[notice.mapping].plan.source_arn, function].mapping

    def operates(self, line: Line, operation: Operation) -> None:
        """The store has an operation, or a change of it."""
        self._marks.saw(f"operation: {operation.request.action} {operation.state}")
        self._marks.saw(f"{self._source(operation.mapping)}: {operation.request.action} {operation.state}")
        if operation.request.action is Action.REDRIVE:
            with self._judging():
                self.redrives.stored(operation)
        elif operation.mapping in self.streams and operation.request.action is Action.SEEK:
            self.streams[operation.mapping].seeks.stored(operation)
        elif operation.mapping in self.streams:
            self.streams[operation.mapping].operated.stored(line.name, operation, epoch())

    def _source(self, mapping: MappingId) -> str:
        queue = self.queues.get(mapping)
        return "stream" if queue is None else "FIFO queue" if queue.plan.fifo else "standard queue"

    def removes(self, reader: Reader, name: str) -> None:
        """A redrive has removed a notice, or a message of a dead-letter queue."""
        with self._judging():
            self.redrives.removes(reader, name)

    def creates(self, row: MappingRow) -> None:
        """The store has a mapping's row."""
        if row.mapping in self.streams:
            self.streams[row.mapping].created(row.fixed)

    def writes(self, row: MappingRow) -> None:
        """A mapping's row was replaced."""
        if row.mapping in self.streams:
            self.streams[row.mapping].written(row)

    def takes(self, line: Line, mapping: MappingId, lease: Lease, *, listed: float | None = None) -> None:
        """A lease was taken; flights of an owner that did not give it up go on without right.

        `listed`: when the store had the leases by which the worker decided to take it; None for right now.
        """
        with self._judging():
            since = epoch()
            decided = since if listed is None else listed
            tenure = Tenure(line.name, lease.epoch, lease.checkpoint, since=since, decided=decided)
            self._mark_resumed(lease.checkpoint)
            self._dropped.discard((line.name, mapping, lease.shard))
            if mapping in self.streams:
                self.streams[mapping].takes(lease.shard, lease.checkpoint)
            before = self.holders.take(mapping, lease.shard, tenure)
            if before is not None and before.worker != line.name:
                self._marks.saw("lease taken over")
                self._disown(mapping, lease.shard, before.worker)

    def gives_up(self, line: Line, mapping: MappingId, lease: Lease) -> None:
        """The worker tries to give a lease up; one try is enough, because others take it over in the end."""
        self.kept.discard((line.name, mapping, lease.shard))

    def releases(self, line: Line, mapping: MappingId, lease: Lease) -> None:
        """A lease was given up."""
        self.holders.release(mapping, lease.shard, lease.epoch, now=epoch())
        self._marks.saw("lease released")

    def saves(self, line: Line, mapping: MappingId, lease: Lease, checkpoint: Checkpoint) -> None:
        """A checkpoint was accepted."""
        with self._judging():
            tenure = self.holders.holder(mapping, lease.shard)
            if tenure is None or (tenure.worker, tenure.epoch) != (line.name, lease.epoch):
                raise Violation("fence", f"{line.name} saved {lease.shard} at epoch {lease.epoch}")
            checks = self.streams[mapping]
            if checks.knows(lease.shard, checkpoint.position, known=checks.knows_of(tenure)):
                checks.saves(lease.shard, checkpoint)
            self._mark_memo(checkpoint)

    def drops(self, line: Line, mapping: MappingId, lease: Lease) -> None:
        """A lease is removed, with its checkpoint; who has it learns that later."""
        self.streams[mapping].saved.pop(lease.shard, None)
        tenure = self.holders.holder(mapping, lease.shard)
        if tenure is not None and tenure.worker != line.name:
            self._dropped.add((tenure.worker, mapping, lease.shard))

    def moves(self, line: Line, mapping: MappingId, lease: Lease, position: Position) -> None:
        """A shard stands at another position; who had it learns later that it is not its own any more."""
        with self._judging():
            tenure = self.holders.holder(mapping, lease.shard)
            if tenure is not None:
                if tenure.worker != line.name:
                    self._dropped.add((tenure.worker, mapping, lease.shard))
                    self._marks.saw("seek: moved from a dead worker")
                self._disown(mapping, lease.shard, tenure.worker)
            self.holders.release(mapping, lease.shard, lease.epoch, now=epoch())
            self.streams[mapping].moves(lease.shard, position, epoch())

    def refused(self, line: Line, mapping: MappingId, lease: Lease) -> None:
        """The store told the worker that it lost the lease."""
        self._marks.saw("zombie write refused")

    def hears(self, line: Line, event: AnyTelemetryEvent) -> None:
        """The engine says what it did."""
        with self._judging():
            self._mark(event)
            if not line.crashed:
                self.flow.hears(line.name, event, epoch)
            if isinstance(event, MappingChanged) and event.mapping in self.queues:
                self.queues[event.mapping].stops.changes(line.name, event.state, epoch())
            match event:
                case LeaseMoved(held=True):
                    self.kept.add((line.name, event.mapping, event.shard))
                case LeaseMoved(held=False):
                    self.kept.discard((line.name, event.mapping, event.shard))
                    self.holders.tell(line.name, event.mapping, event.shard, epoch())
                case Discarded() if (tenure := self._tenure(line, event.mapping, event.shard)) is not None:
                    self.streams[event.mapping].dropped(event, epoch(), tenure)
                case InvocationFinished() if event.request_id in self._unsure:
                    self._is_sure(event.request_id, event.ended)
                case InvocationStarted(attempt=1) if event.mapping in self.queues:
                    self.queues[event.mapping].fill.tries(event.request_id, epoch())
                case Capacity():
                    self.alone.uses(line.name, event.function, event.in_flight)
                    # A slot that a call takes is no part of a maximum.
                    for queue in () if event.function in self._called else self.queues.values():
                        if queue.plan.function == event.function:
                            queue.capacity.uses(line.name, event.in_flight, epoch())
                case Deleted() if event.mapping in self.queues:
                    self.queues[event.mapping].visibility.tells(line.name, event.lapsed + event.failed)
                case MappingChanged(state=MappingState.BROKEN, reason=reason) if self._cancelled(
                    line, reason
                ):
                    self._marks.saw("mapping started again after a task ended")
                case MappingChanged(state=MappingState.BROKEN):
                    raise Violation("bug", f"{event.mapping} is broken: {event.reason}")

    def ends_task(self, line: Line, kind: str) -> None:
        """A task of this kind is cancelled inside a worker, which may break a mapping there for a moment."""
        self._ended.add((line.name, kind))
        if kind == TaskKind.FUNCTION:
            self.alone.opened_anew(line.name)
        self.flow.cut_off.add(line.name)
        self.redrives.cut_off.add(line.name)

    def _cancelled(self, line: Line, reason: str) -> bool:
        """Whether a mapping is broken by a cancellation that was no fault of the engine."""
        return any(
            worker == line.name and "was cancelled although" in reason and f"'{kind}" in reason
            for worker, kind in self._ended
        )

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
        self.alone.within_cap(line, call.function)
        self._not_while_it_runs(line, call, delivery)
        if call.reader is not None:
            self._begin_redriven(line, plan, call, delivery)
        elif plan.mapping in self.queues:
            self._begin_queue(line, plan, call, delivery)
        else:
            self._begin_stream(line, plan, call, delivery)

    def _begin_redriven(self, line: Line, plan: MappingPlan, call: Issued, delivery: Delivery) -> None:
        assert call.reader is not None
        flight = self._flight(line, plan, call, delivery, frozenset())
        self._flights[flight.number] = flight, None
        self.redrives.begins(flight, call.reader, call.invocation.payload)

    def _knew_of_pause(self, worker: str, mapping: MappingId, at: float) -> bool:
        return mapping in self.streams and self.streams[mapping].operated.holds_all(worker, at)

    def _begin_queue(self, line: Line, plan: MappingPlan, call: Issued, delivery: Delivery) -> None:
        checks = self.queues[plan.mapping]
        letters = checks.located(delivery)
        flight = self._flight(line, plan, call, delivery, checks.domains(letters))
        self._flights[flight.number] = flight, None
        self._lines[line.name] = line
        checks.fill.runs(
            line.name,
            [each.message_id for each in letters],
            call.invocation.request_id,
            payload_bytes=len(call.invocation.payload),
        )
        checks.begins(flight, letters, ill={name for name, each in self._lines.items() if each.store_faults})
        checks.begins_after_stop(line, flight, letters)

    def _begin_stream(self, line: Line, plan: MappingPlan, call: Issued, delivery: Delivery) -> None:
        checks = self.streams[plan.mapping]
        if any(number_of(each.identifier) < checks.stream.first for each in delivery.records):
            self._marks.saw("records of a stream that is gone")
            return
        shard, records = self._located(checks, delivery)
        flight = self._flight(line, plan, call, delivery, checks.domains(shard, records) or {shard})
        self._flights[flight.number] = flight, shard
        tenure = self.holders.holder(plan.mapping, shard)
        mine = tenure is not None and tenure.worker == line.name
        flight.by_right = mine and checks.knows_of(tenure)
        if not mine:
            self._not_told(line, plan.mapping, shard, at=call.at)
            self._marks.saw("zombie call")
            self._decided_in_time(line, plan.mapping, shard, at=call.at)
        checks.begins(flight, shard, records, tenure)
        checks.operated.begins(line.name, shard, records, at=call.at, rightful=flight.by_right)
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
        self._never_sure(plan.mapping, frozenset(domains))
        return Flight(
            self._serial,
            line.name,
            plan.function,
            plan.mapping,
            delivery,
            call.invocation.request_id,
            epoch(),
            frozenset(domains),
            call.at,
            line=line,
            stumbles=line.stumbles,
        )

    def _end_queue(self, flight: Flight, outcome: Outcome | None) -> None:
        checks = self.queues[flight.mapping]
        checks.ends(flight, outcome, epoch())
        if isinstance(outcome, Throttled):
            self._marks.saw("throttled batch of a queue")

    def _batches(self, worker: str, function: str) -> int:
        """How many batches a function has at a worker."""
        return sum(
            1 for each, _ in self._flights.values() if (each.worker, each.function) == (worker, function)
        )

    def _not_while_it_runs(self, line: Line, call: Issued, delivery: Delivery) -> None:
        """Nobody calls a function again with records that it still works on, because nobody gives such a call up."""
        self._running_on = [each for each in self._running_on if each.until > epoch()]
        for each in self._running_on:
            if each.again(line.name, call.function, delivery):
                raise Violation(
                    "overlap",
                    f"{line.name} gave up a run of {call.function} that goes on for {each.until - epoch():.1f} s, and calls it again",
                )

    def _queue(self, source_arn: str) -> QueueChecks:
        return next(each for each in self.queues.values() if each.plan.source_arn == source_arn)

    def _tenure(self, line: Line, mapping: MappingId, shard: ShardId) -> Tenure | None:
        tenure = self.holders.holder(mapping, shard)
        return tenure if tenure is not None and tenure.worker == line.name else None

    def _not_told(self, line: Line, mapping: MappingId, shard: ShardId, *, at: float) -> None:
        had = self._tenure(line, mapping, shard) is not None
        if not had and self.holders.knew(line.name, mapping, shard, at=at):
            raise Violation("lease", f"{line.name} works on {shard}, which it knew that it had lost")

    def _decided_in_time(self, line: Line, mapping: MappingId, shard: ShardId, *, at: float) -> None:
        """A call may arrive after the lease has gone, but it was decided on before."""
        if (line.name, mapping, shard) in self._dropped:
            self._marks.saw("call for a stream begun anew elsewhere")
            return
        if not self.holders.had(line.name, mapping, shard, at=at):
            tenure = self.holders.holder(mapping, shard)
            holder = "nobody" if tenure is None else tenure.worker
            raise Violation("lease", f"{line.name} calls the function for {shard}, which {holder} has")

    def _disown(self, mapping: MappingId, shard: ShardId, worker: str) -> None:
        for flight, where in self._flights.values():
            if (flight.mapping, where, flight.worker) == (mapping, shard, worker):
                flight.by_right = False

    def _mark(self, event: AnyTelemetryEvent) -> None:
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

    def __init__(self, court: Checker, line: Line) -> None:
        self._court = court
        self._line = line

    def on(self, event: AnyTelemetryEvent) -> None:
        """Takes one event."""
        self._line.history.tell(self._line.name, lambda: str(event))
        self._court.hears(self._line, event)
