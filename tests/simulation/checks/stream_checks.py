"""Owns the promises of stream mappings, checked at every effect against what the stream really holds."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from math import inf

import msgspec

from poller.domain.invocations import Condition, Notice, Outcome
from poller.domain.plan import MappingPlan, SourceKind
from poller.domain.records import SHARD_END, Epoch, Position, Rank, ShardId
from poller.domain.rows import Checkpoint, MappingRow
from poller.domain.telemetry.mapping_events import Discarded
from poller.rules.streams.lineage import descendants
from poller.rules.streams.recreated_stream import SAME_S, created_of
from tests.simulation.checks.ledger import Flight, Tenure, Violation, done_by, names
from tests.simulation.checks.operator_checks import OperatorChecks
from tests.simulation.checks.seek_checks import SeekChecks, lies_before, may_come_too
from tests.simulation.checks.window_checks import Shelf, WindowChecks
from tests.simulation.services.contents import number_of
from tests.simulation.services.faults import Marks, epoch
from tests.simulation.services.functions import Delivery, read_delivery
from tests.simulation.services.streams import FakeStream, Held


@dataclass(slots=True)
class _Row:
    """Records of one order: a shard's, or one key's in it. Everything before `first_open` is settled for good."""

    records: list[Held] = field(default_factory=list)
    first_open: int = 0


@dataclass(slots=True)
class _Run:
    """What one tenure has delivered: the highest record of each order, and what it settled."""

    highest: dict[str, int] = field(default_factory=dict)
    settled: set[int] = field(default_factory=set)


@dataclass(slots=True)
class StreamChecks:
    """The truth about one mapping of a stream, and its checkers; each raises Violation."""

    plan: MappingPlan
    stream: FakeStream
    marks: Marks
    since: Epoch | None = None
    settled: set[int] = field(default_factory=set)
    discarded: set[int] = field(default_factory=set)
    saved: dict[ShardId, Checkpoint] = field(default_factory=dict)
    flights: dict[int, Flight] = field(default_factory=dict)
    windows: WindowChecks | None = None
    operated: OperatorChecks = field(init=False)
    seeks: SeekChecks = field(init=False)
    noticed_at: float | None = -inf
    """Since when the mapping's row says that the stream was made again; None: it does not yet."""
    _offered: dict[tuple[str, str, int], frozenset[int]] = field(default_factory=dict)
    _failed: dict[str, tuple[int, ...]] = field(default_factory=dict)
    _rows: dict[str, _Row] = field(default_factory=dict)
    _places: dict[int, tuple[ShardId, Held]] = field(default_factory=dict)
    _indexed: dict[ShardId, int] = field(default_factory=dict)
    _runs: dict[tuple[str, int, ShardId], _Run] = field(default_factory=dict)
    _ended: set[ShardId] = field(default_factory=set)

    def __post_init__(self) -> None:
        self.operated = OperatorChecks(self.plan)
        self.seeks = SeekChecks(self.marks)
        if self.plan.stream.tumbling_window_s:
            self.windows = WindowChecks(self.plan.stream.tumbling_window_s, self.marks)

    def created(self, fixed: Epoch) -> None:
        """The store has the mapping's row: this is the moment that LATEST stands for."""
        self.since = self.plan.stream.start.position(fixed).since

    def located(self, delivery: Delivery) -> tuple[ShardId, list[Held]]:
        """The shard and the records of an event."""
        self._index()
        places = [self._places[number_of(each.identifier)] for each in delivery.records]
        shards = {shard for shard, _ in places}
        if len(shards) != 1:
            raise Violation("one shard", f"an event mixes {names(sorted(shards))}")
        return places[0][0], [held for _, held in places]

    def domains(self, shard: ShardId, records: Iterable[Held]) -> frozenset[str]:
        """The orders that these records belong to."""
        return frozenset(self._domain(shard, each) for each in records)

    def reads(self, shard: ShardId, *, known: bool, tenure: Tenure | None = None) -> None:
        """A shard is read: its parents must be settled to their ends.

        Not if it is taken for a shard of the stream before (not `known`). It cannot be if that stream had none of its name, unless
        some workers may not ask when the stream was created.
        """
        if known or not (self.stream.undated_for or shard in self.stream.former):
            self._after_parents(shard, "read", tenure)

    def begins(self, flight: Flight, shard: ShardId, records: Sequence[Held], tenure: Tenure | None) -> None:
        """A batch is handed to the function."""
        others = [each for each in self.flights.values() if each.by_right]
        self.flights[flight.number] = flight
        self._wanted(shard, records)
        if flight.by_right:
            self._not_left_out(shard, records)
            self._after_parents(shard, "invoked", tenure)
            self._alone(flight, shard, others)
            self._in_order(shard, records)
            if tenure is not None:
                self._once_each(tenure, shard, records)
            self._mark_lineage(shard)
            if self.windows is not None:
                self._index()
                everything = self.stream.shards[shard].records
                due = {each.sequence for each in everything if self._counts(each)} - self.discarded
                run = (tenure.worker, tenure.epoch, shard) if tenure is not None else None
                began = Checkpoint(Position.horizon()) if tenure is None else tenure.start
                shelf = Shelf(everything, due, due & self.settled)
                self.windows.begins(flight, shard, records, shelf, run, began)

    def ends(self, flight: Flight, shard: ShardId, outcome: Outcome | None, tenure: Tenure | None) -> None:
        """The worker has the outcome, or never will."""
        self.flights.pop(flight.number, None)
        if outcome is None:
            return
        reports = self.plan.retry.report_failures
        done = [number_of(each) for each in done_by(outcome, flight.delivery, reports=reports, stream=True)]
        if self.windows is not None and flight.by_right:
            self.windows.ends(flight, shard, outcome, progress=bool(done))
        self.settled.update(done)
        failed = tuple(number_of(each.identifier) for each in flight.delivery.records[len(done) :])
        if failed:
            self._failed[flight.request_id] = failed
        if tenure is not None and flight.by_right:
            self._run(tenure, shard).settled.update(done)

    def abandoned(self, request_id: str, delivery: Delivery) -> None:
        """The engine gave up waiting for a call, which counts as a failure of all its records."""
        if delivery.records:
            self._failed[request_id] = tuple(number_of(each.identifier) for each in delivery.records)

    def offered(self, notice: Notice) -> None:
        """The engine wants to send a notice: these are the records that it may drop when it cannot."""
        named = [each.identifier for each in read_delivery(notice.payload).records]
        if named:
            self._offered[named[0], named[-1], len(named)] = frozenset(map(number_of, named))

    def notified(self, notice: Notice, now: float, tenure: Tenure) -> None:
        """The destination has a notice of who has the shard: its records are given up, if that was right."""
        document = msgspec.json.decode(notice.document)
        context = document["requestContext"]
        delivery = read_delivery(notice.payload)
        if not delivery.records:
            assert self.windows is not None, "a notice without records"
            self._close_window(notice.shard, Condition(context["condition"]), tenure)
            return
        shard, records = self.located(delivery)
        info = document["KinesisBatchInfo" if self.plan.kind is SourceKind.KINESIS else "DDBStreamBatchInfo"]
        told = (info["shardId"], info["startSequenceNumber"], info["endSequenceNumber"], info["batchSize"])
        true = (shard, records[0].name, records[-1].name, len(records))
        if told != true or notice.shard != shard:
            raise Violation("notice", f"tells {told} of {true}")
        condition = Condition(context["condition"])
        self._rightly_discarded(records, condition, now, request_id=context["requestId"])
        self._give_up(records)

    def dropped(self, event: Discarded, now: float, tenure: Tenure) -> None:
        """Who has the shard gave a batch up without a notice, which only a setting allows."""
        if event.delivered:
            return
        if not event.records and self.windows is not None:
            self._close_window(event.shard, event.condition, tenure)
            return
        if event.condition is Condition.SKIPPED:
            self._give_up(self._dropped_by_operator(event))
            return
        if self.plan.discard.destination is not None and self.plan.discard.on_destination_failure == "keep":
            raise Violation("notice", f"{event.first} to {event.last} dropped without a notice")
        records = self._between(event)
        self._rightly_discarded(records, event.condition, now, request_id=None)
        self._give_up(records)

    def knows_of(self, tenure: Tenure | None) -> bool:
        """Whether who took a shard then knew of this stream: until that is noticed, it is taken for the one before."""
        return tenure is not None and self.noticed_at is not None and tenure.since >= self.noticed_at

    def written(self, row: MappingRow) -> None:
        """The mapping's row may say now that the stream is another one than before."""
        created = created_of(row.document)
        if self.noticed_at is None and created is not None and abs(created - self.stream.created_at) < SAME_S:
            self.noticed_at = epoch()
            if any(shard not in self.stream.former for shard in self.stream.shards):
                self.marks.saw("new shards before the stream is known")

    def knows(self, shard: ShardId, position: Position, *, known: bool) -> bool:
        """Whether a position may be one of this stream, and not of one that had its name before.

        An end may be that of the stream before if the lease was taken before this stream was noticed (not `known`).
        """
        if not self.stream.first:
            return True
        state = self.stream.shards.get(shard)
        match position.rank:
            case Rank.AFTER:
                return state is not None and position.sequence >= self.stream.first
            case _:
                self._index()
                return state is not None and state.closed and (known or self._first_unsettled(shard) is None)

    def saves(self, shard: ShardId, checkpoint: Checkpoint) -> None:
        """A checkpoint was accepted: it never goes back, and covers settled records only."""
        before = self.saved.get(shard)
        if before is not None and checkpoint.position < before.position:
            raise Violation("checkpoint", f"{shard} goes back to {checkpoint.position.encode()}")
        self.saved[shard] = checkpoint
        self._index()
        if checkpoint.position == SHARD_END and not self.stream.shards[shard].closed:
            raise Violation("checkpoint", f"{shard} is open, its checkpoint says it ended")
        first = self._first_unsettled(shard)
        if first is not None and _covers(checkpoint.position, first):
            raise Violation("checkpoint", f"{shard} {checkpoint.position.encode()} covers {first.sequence}")

    def takes(self, shard: ShardId, start: Checkpoint) -> None:
        """A worker takes a shard. Once a seek has moved it, it begins with nothing but what was saved since."""
        self.seeks.takes(shard)
        saved = self.saved.get(shard)
        if shard in self.seeks.moved_at and saved is not None and start != saved:
            raise Violation("seek", f"{shard} is taken with {start}, it was moved to {saved}")

    def moves(self, shard: ShardId, position: Position, now: float) -> None:
        """A seek puts a shard at another position: what is behind it is to be processed again, and the rest is left out."""
        self._index()
        records = self.stream.shards[shard].records if shard in self.stream.shards else []
        due = {held.sequence for held in records if self._due(held)}
        parents = {name: state.parents for name, state in self.stream.shards.items()}
        above = {name for name in parents if shard in descendants(parents, {name})}
        out = self.seeks.moves(shard, position, records, due, now, above=above)
        again = {held.sequence for held in records} - out
        if again & self.settled:
            self.marks.saw("seek: processed again")
        self.settled = (self.settled - again) | out
        self.discarded = (self.discarded - again) | out
        self.operated.moved(
            shard, again | {held.sequence for held in records if may_come_too(held, position)}
        )
        if self.windows is not None:
            self.windows.moved(shard, [held for held in records if held.sequence in again])
        # Who takes the shard has no failures of before.
        self._failed = {name: each for name, each in self._failed.items() if not (again | out) & {*each}}
        self.saved[shard] = Checkpoint(position)
        for held in records:
            self._rows[self._domain(shard, held)].first_open = 0
        self._ended.clear()

    def unsettled(self) -> list[Held]:
        """Records that still have to be settled."""
        self._index()
        return [held for shard in self.stream.shards for held in self._open_records(shard)]

    def behind(self) -> list[ShardId]:
        """Shards whose checkpoint does not cover all their settled records."""
        return [shard for shard in self.stream.shards if not self._covered(shard)]

    def open_windows(self) -> list[tuple[ShardId, list[float]]]:
        """Shards with windows in which something was done and that were never closed."""
        if self.windows is None:
            return []
        self._index()
        left = []
        for shard, state in self.stream.shards.items():
            done = [
                each for each in state.records if self._counts(each) and each.sequence not in self.discarded
            ]
            if still := self.windows.left_open(shard, done):
                left.append((shard, still))
        return left

    def _counts(self, held: Held) -> bool:
        return self._required(held) and not self._trimmed(held)

    def _give_up(self, records: Sequence[Held]) -> None:
        sequences = [each.sequence for each in records]
        self.discarded.update(sequences)
        self.settled.update(sequences)

    def _covered(self, shard: ShardId) -> bool:
        records = self.stream.shards[shard].records
        wanted = [held for held in records if self._required(held) and not self._trimmed(held)]
        if not wanted:
            return True
        saved = self.saved.get(shard)
        return saved is not None and lies_before(wanted[-1], saved.position)

    def _index(self) -> None:
        for shard, state in self.stream.shards.items():
            done = self._indexed.get(shard, 0)
            for held in state.records[done:]:
                self._places[held.sequence] = (shard, held)
                self._rows.setdefault(self._domain(shard, held), _Row()).records.append(held)
            self._indexed[shard] = len(state.records)

    def _domain(self, shard: ShardId, held: Held) -> str:
        return f"{shard}/{held.key}" if self.plan.stream.lanes > 1 else shard

    def _required(self, held: Held) -> bool:
        if (start := self.seeks.starts.get(self._places[held.sequence][0])) is not None:
            started = not lies_before(held, start)
        else:
            started = self.since is None or held.arrived >= self.since
        return started and (held.content.keep or not self.plan.filters)

    def _trimmed(self, held: Held) -> bool:
        """Whether retention took the record; what is lost like that need not be delivered."""
        state = self.stream.shards[self._places[held.sequence][0]]
        return bool(state.trimmed) and held.sequence <= state.records[state.trimmed - 1].sequence

    def _due(self, held: Held) -> bool:
        return held.sequence not in self.settled and self._required(held) and not self._trimmed(held)

    def _open_records(self, shard: ShardId) -> Iterable[Held]:
        return (held for held in self.stream.shards[shard].records if self._due(held))

    def _first_unsettled(self, shard: ShardId) -> Held | None:
        return next(iter(self._open_records(shard)), None)

    def _wanted(self, shard: ShardId, records: Sequence[Held]) -> None:
        for held in records:
            if self.plan.filters and not held.content.keep:
                raise Violation("filter", f"{held.sequence} was delivered, no filter matches it")
            # DynamoDB's arrival times are whole seconds, so the second of the start itself may be delivered.
            if self.since is None or self._unlisted_at(self.since, shard) or shard in self.seeks.starts:
                continue
            if held.arrived < self.since - 1.0:
                raise Violation("start", f"{held.sequence} in {shard} is from before the start")

    def _not_left_out(self, shard: ShardId, records: Sequence[Held]) -> None:
        """A seek to a time leaves out what arrived before; by whole seconds, since DynamoDB has no others. Times may be absent."""
        since = start.since if (start := self.seeks.starts.get(shard)) is not None else None
        early = [each.sequence for each in records if since is not None and each.arrived < since - 1.0]
        if early and not self.stream.times_absent:
            raise Violation("seek", f"{names(early)} of {shard} called, a seek to {since} left them out")

    def _unlisted_at(self, since: Epoch, shard: ShardId) -> bool:
        """Whether a listing from then on may lack the shard, which is read as a whole when it appears later."""
        return self.stream.shards[shard].opened_at > since - self.stream.listing_lag_s

    def _after_parents(self, shard: ShardId, what: str, tenure: Tenure | None) -> None:
        if shard in self._ended:
            return
        self._index()
        for parent in self.stream.shards[shard].parents:
            due = self._first_unsettled(parent)
            if due is not None and self.seeks.excused(parent, tenure):
                return
            if due is not None:
                raise Violation("lineage", f"{shard} {what} while {due.sequence} of {parent} is unsettled")
        self._ended.add(shard)

    def _mark_lineage(self, shard: ShardId) -> None:
        parents = self.stream.shards[shard].parents
        if len(parents) == 2:
            self.marks.saw("merge child")
        if any(each != shard and self._has_siblings(each) for each in parents):
            self.marks.saw("split child")

    def _has_siblings(self, parent: ShardId) -> bool:
        return sum(parent in state.parents for state in self.stream.shards.values()) == 2

    def _alone(self, flight: Flight, shard: ShardId, others: Sequence[Flight]) -> None:
        both = [each for each in others if each.domains & flight.domains]
        if both:
            raise Violation("one in flight", f"{names(sorted(both[0].domains & flight.domains))} twice")
        here = sum(1 for each in others if any(name.startswith(shard) for name in each.domains))
        if here >= self.plan.stream.lanes:
            raise Violation("one in flight", f"{here + 1} batches of {shard}, {self.plan.stream.lanes} lanes")

    def _in_order(self, shard: ShardId, records: Sequence[Held]) -> None:
        sequences = [each.sequence for each in records]
        if sequences != sorted(set(sequences)):
            raise Violation("order", f"an event of {shard} is {names(sequences)}")
        inside = set(sequences)
        last = {self._domain(shard, each): each.sequence for each in records}
        for domain, sequence in last.items():
            for held in self._unsettled_before(domain, sequence):
                if held.sequence not in inside:
                    raise Violation("order", f"{sequence} of {domain} before {held.sequence} is settled")

    def _unsettled_before(self, domain: str, sequence: int) -> Iterable[Held]:
        row = self._rows[domain]
        while row.first_open < len(row.records) and not self._due(row.records[row.first_open]):
            row.first_open += 1
        for held in row.records[row.first_open :]:
            if held.sequence >= sequence:
                return
            if self._due(held):
                yield held

    def _once_each(self, tenure: Tenure, shard: ShardId, records: Sequence[Held]) -> None:
        run = self._run(tenure, shard)
        for held in records:
            domain = self._domain(shard, held)
            if held.sequence in run.settled:
                raise Violation("once", f"{held.sequence} again, {tenure.worker} has settled it")
            if _covers(tenure.start.position, held):
                raise Violation("once", f"{held.sequence} again, it is behind the checkpoint")
            run.highest[domain] = max(run.highest.get(domain, 0), held.sequence)

    def _run(self, tenure: Tenure, shard: ShardId) -> _Run:
        return self._runs.setdefault((tenure.worker, tenure.epoch, shard), _Run())

    def _rightly_discarded(
        self, records: Sequence[Held], condition: Condition, now: float, *, request_id: str | None
    ) -> None:
        match condition:
            case Condition.SKIPPED:
                self.operated.skipped([each.sequence for each in records], noticed=True)
            case Condition.AGE:
                self._old_enough(records, now)
            case Condition.RETRIES if request_id is not None:
                self._tried_enough(records, request_id)

    def _old_enough(self, records: Sequence[Held], now: float) -> None:
        age_max_s = self.plan.retry.age_max_s
        young = [each.sequence for each in records if age_max_s is None or each.arrived > now - age_max_s]
        if young:
            raise Violation("discard", f"{names(young)} are not too old")

    def _tried_enough(self, records: Sequence[Held], request_id: str) -> None:
        sequences = tuple(each.sequence for each in records)
        # A batch that failed before a restart is given up by the next worker, which has no request of its own for it.
        tried = sequences if sequences in self._failed.values() else self._failed.get(request_id)
        oversized = len(records) == 1 and records[0].content.pad > self.plan.batch.payload_bytes_max / 2
        if not (oversized or (tried and self._run_of(sequences, tried))):
            raise Violation("discard", f"{names(sequences)} given up, {names(tried or ())} failed last")

    def _run_of(self, sequences: tuple[int, ...], tried: tuple[int, ...]) -> bool:
        """Whether these are all of what was tried, or a run of it that ends where a record was skipped before."""
        if sequences == tried:
            return True
        if not set(sequences) <= set(tried):
            return False
        first, last = tried.index(sequences[0]), tried.index(sequences[-1])
        bounds = [
            *zip(tried[:first][-1:], sequences, strict=False),
            *zip(sequences[-1:], tried[last + 1 :], strict=False),
        ]
        self.marks.saw("discard: run by run")
        return tried[first : last + 1] == sequences and all(
            any(low < each < high for each in self.settled) for low, high in bounds
        )

    def _close_window(self, shard: ShardId, condition: Condition, tenure: Tenure) -> None:
        assert self.windows is not None
        run = tenure.worker, tenure.epoch, shard
        if condition is Condition.SKIPPED:
            self.windows.skipped(run, self.operated.skipped_windows(shard), began=tenure.start)
        else:
            self.windows.given_up(run)

    def _dropped_by_operator(self, event: Discarded) -> list[Held]:
        """Records that a skip drops. All of them in that range may be: other lanes have some, too."""
        self._index()
        self.operated.skipped([number_of(event.first), number_of(event.last)], noticed=False)
        dropped = self.operated.dropped
        return [
            held
            for held in self.stream.shards[event.shard].records
            if number_of(event.first) <= held.sequence <= number_of(event.last) and held.sequence in dropped
        ]

    def open_sequences(self) -> set[int]:
        """The sequence numbers of records that still have to be settled."""
        return {held.sequence for held in self.unsettled()}

    def _between(self, event: Discarded) -> list[Held]:
        """The records of a discard that left no notice; one lane's only when there is one lane."""
        self._index()
        inside = [
            held
            for held in self.stream.shards[event.shard].records
            if number_of(event.first) <= held.sequence <= number_of(event.last)
        ]
        offered = self._offered.get((event.first, event.last, event.records))
        if offered is not None:
            return [held for held in inside if held.sequence in offered]
        failed = [each for each in self._failed.values() if each[0] == number_of(event.first)]
        exact = [each for each in failed if each[-1] == number_of(event.last) and len(each) == event.records]
        if exact:
            return [held for held in inside if held.sequence in exact[-1]]
        wanted = [held for held in inside if event.records == 1 or self._due(held)]
        if len(wanted) != event.records:
            raise Violation("discard", f"{event.records} records given up, {len(wanted)} are between")
        return wanted


def _covers(position: Position, held: Held) -> bool:
    match position.rank:
        case Rank.START:
            return False
        case Rank.AFTER:
            return held.up_to(position)
        case Rank.END:
            return True
