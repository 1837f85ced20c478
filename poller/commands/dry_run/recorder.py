"""Owns what a dry run records: each call that the engine makes, and what became of each shard and queue.

The recorder takes the place of every function, and is the engine's observer. A call is recorded when it has ended, because only
the event about its end names the shard. Nothing is printed here.
"""

import asyncio
from dataclasses import dataclass, field

from poller.domain.invocations import Condition, Ended, Invocation, Outcome, Succeeded
from poller.domain.records import JsonObject, MappingId, Monotonic, ShardId
from poller.domain.telemetry.daemon_events import TaskEnded
from poller.domain.telemetry.mapping_events import (
    Discarded,
    Filtered,
    InvocationFinished,
    PlaceFound,
    Polled,
    PortFailed,
    RecordsLost,
    ShardStarted,
)
from poller.domain.telemetry.observers import AnyTelemetryEvent
from poller.domain.untrusted.texts import line_of
from poller.ports import Clock

FAILURES_MAX = 4
"""Failed calls in a row after which a source counts as not readable."""
ID_CHARS_MAX = 256
NOTES_MAX = 1000
"""Different notes of one run. Further ones are not printed."""
SOURCE_PORTS = frozenset({"source", "discovery"})
PERMANENT = frozenset({"AccessDenied", "ResourceMissing", "RecordUnreadable", "QueueRefused"})
"""Errors that the next try will not end. The source counts as not readable at once."""
REMEDIES = {
    "AccessDenied": "`poller check --live` names every permission that is missing",
    "ResourceMissing": "is its ARN right, and the endpoint?",
    "RecordUnreadable": "`poller run` would wait at this record, too",
    "ServiceThrottled": "other consumers read it, too; try again later",
    "QueueRefused": "raise maxReceiveCount for the time of the dry run, or send a copy of some messages to a queue of its own",
}
UNREACHED = "is the endpoint right and reachable?"
ACCEPTED = b'{"state":{}}'
"""The answer of every function: all records succeeded, and a tumbling window's state is empty."""

type SourceKey = tuple[MappingId, ShardId | None]
"""A shard, or with None a queue; for a stream's mapping, what concerns all its shards."""


@dataclass(frozen=True, slots=True)
class EventFacts:
    """What is shown of an event. `first` and `last` are sequence numbers or message ids, empty if it has no records."""

    records: int
    first: str
    last: str
    payload_bytes: int
    window: tuple[str, str] | None = None
    final: bool = False
    """Whether the call closes its tumbling window."""
    payload: bytes = b""
    """The event, if it is to be shown."""


@dataclass(frozen=True, slots=True)
class DryCall:
    """A call that the function would get. `filtered` counts the records that no filter matched since the call before."""

    mapping: MappingId
    shard: ShardId | None
    number: int
    event: EventFacts
    filtered: int


@dataclass(frozen=True, slots=True)
class DryDiscard:
    """A batch that would be given up without a call."""

    mapping: MappingId
    shard: ShardId
    records: int
    condition: Condition
    first: str
    last: str


@dataclass(frozen=True, slots=True)
class DryNote:
    """One line about a mapping or one of its shards. With `problem` the dry run is incomplete."""

    text: str
    mapping: MappingId | None = None
    shard: ShardId | None = None
    problem: bool = False


type DryItem = DryCall | DryDiscard | DryNote


@dataclass(slots=True)
class SourceTally:
    """What was seen of one shard or queue."""

    progress_at: Monotonic
    """When records last came or were called."""
    begins: str = ""
    """The position at which the dry run began to read a shard."""
    read: int = 0
    filtered: int = 0
    calls: int = 0
    records: int = 0
    discarded: int = 0
    answered: bool = False
    """Whether a read succeeded."""
    caught_up_at: Monotonic | None = None
    """When a read first showed that there was nothing more."""
    failures: int = 0
    problem: str = ""
    """Why it cannot be read, with the remedy."""
    filtered_told: int = 0


@dataclass(slots=True)
class Recorder:
    """An Invoker of every function and the Observer of the engine. After `calls_max` calls it records nothing more."""

    clock: Clock
    calls_max: int
    payloads: bool = False
    woken: asyncio.Event = field(default_factory=asyncio.Event)
    """Set when there is a new item."""
    items: list[DryItem] = field(default_factory=list)
    """What was not printed yet."""
    tallies: dict[SourceKey, SourceTally] = field(default_factory=dict)
    calls: int = 0
    problems: int = 0
    """Notes of problems so far."""
    _events: dict[str, EventFacts] = field(default_factory=dict)
    """The events of running calls, by request id."""
    _notes: set[DryNote] = field(default_factory=set)

    @property
    def full(self) -> bool:
        """Whether there were `calls_max` calls."""
        return self.calls >= self.calls_max

    async def invoke(self, invocation: Invocation) -> Outcome:
        """Notes the event and calls nothing."""
        if not self.full:
            self._events[invocation.request_id] = facts_of(invocation, payload=self.payloads)
        return Succeeded(ACCEPTED)

    def note(self, text: str, mapping: MappingId | None = None, *, problem: bool = False) -> None:
        """Adds a line for people."""
        self.add(DryNote(text, mapping, problem=problem))

    def on(self, event: AnyTelemetryEvent) -> None:
        """Takes one event; returns at once."""
        if self.full:
            return
        match event:
            case InvocationFinished():
                self._finished(event)
            case Polled():
                self._polled(event)
            case Filtered():
                self.tally(event.mapping, event.shard).filtered += event.records
            case ShardStarted():
                whole = self.tally(event.mapping, None)
                whole.failures, whole.problem = 0, ""
                self.tally(event.mapping, event.shard).begins = event.position.encode()
            case Discarded():
                self._discarded(event)
            case PortFailed():
                self._failed(event)
            case RecordsLost():
                text = f"records were lost before they could be read: {event.loss.value}, behind {event.position.encode()}"
                self.add(DryNote(text, event.mapping, event.shard))
            case PlaceFound():
                self.add(DryNote(event.reason, event.mapping))
            case TaskEnded():
                text = f"task {event.name} ended by itself: {event.reason or event.end.value}"
                self.add(DryNote(text, event.mapping, problem=True))
            case _:
                pass

    def tally(self, mapping: MappingId, shard: ShardId | None) -> SourceTally:
        """The tally of a shard or queue."""
        found = self.tallies.get((mapping, shard))
        if found is None:
            found = self.tallies[mapping, shard] = SourceTally(self.clock.monotonic())
        return found

    def _polled(self, event: Polled) -> None:
        now, tally = self.clock.monotonic(), self.tally(event.mapping, event.shard)
        tally.read += event.records
        tally.answered, tally.failures, tally.problem = True, 0, ""
        if event.records:
            tally.progress_at = now
        caught_up = not event.records if event.behind_ms is None else event.behind_ms == 0
        if caught_up and tally.caught_up_at is None:
            tally.caught_up_at = now

    def _finished(self, event: InvocationFinished) -> None:
        facts = self._events.pop(event.request_id, None)
        if facts is None:
            if event.ended is Ended.OVERSIZED:
                text = f"a record would fail without a call: {event.error}"
                self.add(DryNote(text, event.mapping, event.shard))
            return
        tally = self.tally(event.mapping, event.shard)
        self.calls += 1
        tally.calls += 1
        tally.records += facts.records
        tally.progress_at = self.clock.monotonic()
        filtered, tally.filtered_told = tally.filtered - tally.filtered_told, tally.filtered
        self.add(DryCall(event.mapping, event.shard, self.calls, facts, filtered))

    def _discarded(self, event: Discarded) -> None:
        self.tally(event.mapping, event.shard).discarded += event.records
        self.add(
            DryDiscard(
                event.mapping,
                event.shard,
                event.records,
                event.condition,
                _shown(event.first),
                _shown(event.last),
            )
        )

    def _failed(self, event: PortFailed) -> None:
        if event.port not in SOURCE_PORTS:
            self.add(DryNote(f"{event.port}: {event.reason}", event.mapping, event.shard, problem=True))
            return
        tally = self.tally(event.mapping, event.shard)
        problem = f"{event.reason}; {REMEDIES.get(event.error, UNREACHED)}"
        if event.error == "RecordUnreadable" and event.shard is None:
            # A message that cannot be read does not hold up the others of its queue.
            self.add(DryNote(problem, event.mapping, problem=True))
            return
        tally.failures += 1
        if tally.failures >= FAILURES_MAX or event.error in PERMANENT:
            tally.problem = problem

    def add(self, item: DryItem) -> None:
        """Adds something to print. A note is printed once, however often it is made."""
        if isinstance(item, DryNote):
            self.problems += item.problem
            if item in self._notes or len(self._notes) >= NOTES_MAX:
                return
            self._notes.add(item)
        self.items.append(item)
        self.woken.set()


def facts_of(invocation: Invocation, *, payload: bool) -> EventFacts:
    """What is shown of a call's event, with the event itself if `payload`."""
    event = invocation.event
    found = event.decoded()
    records = found["Records"]
    window = found.get("window")
    return EventFacts(
        records=len(records),
        first=_identifier(records[0]) if records else "",
        last=_identifier(records[-1]) if records else "",
        payload_bytes=event.size,
        window=None if window is None else (_shown(str(window["start"])), _shown(str(window["end"]))),
        final=bool(found.get("isFinalInvokeForWindow")),
        payload=event.encoded() if payload else b"",
    )


def _identifier(record: JsonObject) -> str:
    """The sequence number or message id of a record in an event."""
    match record:
        case {"kinesis": {"sequenceNumber": str(text)}} | {"dynamodb": {"SequenceNumber": str(text)}}:
            return _shown(text)
        case {"messageId": str(text)}:
            return _shown(text)
        case _:
            return ""


def _shown(text: str) -> str:
    return line_of(text, chars_max=ID_CHARS_MAX)
