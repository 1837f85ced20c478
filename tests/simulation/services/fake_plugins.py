"""Owns the fake services' adapters: the engine's ports over one worker's line, told to the ledger at every effect."""

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, Callable, Coroutine, Mapping, Sequence
from contextlib import AbstractContextManager, asynccontextmanager
from contextvars import Context
from dataclasses import dataclass, replace
from functools import partial
from random import Random
from typing import Any, Protocol, cast, runtime_checkable

import msgspec
from pydantic import BaseModel, ConfigDict

from adapters.stores.memory import MemoryStore
from poller.domain.errors import (
    AccessDenied,
    CursorExpired,
    LeaseLost,
    PortError,
    PositionTrimmed,
    RowChanged,
    ServiceUnavailable,
)
from poller.domain.function_facts import FunctionFacts
from poller.domain.invocations import Invocation, Notice, Outcome, Succeeded, Unreachable
from poller.domain.operations import EndedOperation, Operation, OperationId
from poller.domain.records import (
    Cursor,
    Epoch,
    MappingId,
    Message,
    Monotonic,
    Page,
    Position,
    QueueFacts,
    Shard,
    ShardId,
    Undone,
    WorkerId,
)
from poller.domain.rows import Checkpoint, DigestRow, Lease, MappingRow, WorkerRow
from poller.memory.answers import AnswerTooLarge
from poller.plugins import Environment, GivenPlugins, Plugin
from tests.runtime.pacers import FakePacer
from tests.simulation.services.faults import Line, Port, epoch
from tests.simulation.services.functions import OWN, Call, Delivery, FakeFunction, read_delivery, takes_of
from tests.simulation.services.notices import (
    REDRIVING,
    NoticePlace,
    Reader,
    RedriveWitness,
    open_notices,
)
from tests.simulation.services.queues import Delete, Describe, FakeQueue, Receive, extensions
from tests.simulation.services.streams import (
    CALLS_PER_S,
    RETENTION_S,
    FakeStream,
    GetCursor,
    ListShards,
    Read,
)

LONG_POLL_LOOK_S = 1.0
"""How often a waiting receive looks again for messages that arrived meanwhile."""
SLOW_S = 35.0
"""A run that takes longer is slower than functions without a limit of their own may be."""
LISTED_MAX = 16
"""Lists of leases among which the one is looked for by which a worker decided."""
MEMO_BYTES_SHOWN = 2000
"""Of a checkpoint's memo in the account; a window's state may be large."""


@dataclass(frozen=True, slots=True)
class Issued:
    """A call of a function as the worker decided on it, at epoch seconds `at`."""

    function: str
    invocation: Invocation
    at: float
    reader: Reader | None = None
    """The redrive that it belongs to; None for a call of the mapping itself."""


class QueueWitness(Protocol):
    """Who is told of every effect on a queue."""

    def receives(
        self,
        line: Line,
        source_arn: str,
        messages: Sequence[Message],
        troubles: int,
        *,
        abandoned: bool = False,
    ) -> None:
        """Messages were handed out to a call before which so much had gone wrong between worker and source.

        `abandoned`: the worker gave the call up before.
        """
        ...

    def arrives(self, line: Line, source_arn: str, messages: Sequence[Message]) -> None:
        """A worker has the messages that it was handed."""
        ...

    def abandons(self, line: Line, source_arn: str) -> None:
        """A receive is given up that is under way."""
        ...

    def waits_for_room(self, messages: Sequence[Message], source_arn: str) -> None:
        """Messages were handed out, and wait until the worker has room in memory."""
        ...

    def reply_lost(self, line: Line, source_arn: str, messages: Sequence[Message]) -> None:
        """Messages were handed out and never arrived."""
        ...

    def deletes(
        self, line: Line, source_arn: str, receipts: Sequence[str], undone: Sequence[Undone], asked: float
    ) -> None:
        """A delete call was carried out that was decided on at epoch seconds `asked`."""
        ...

    def delete_failed(self, line: Line, source_arn: str, receipts: Sequence[str]) -> None:
        """A delete call failed, or the worker gave it up, whether it was carried out or not."""
        ...

    def extends(
        self, line: Line, source_arn: str, receipts: Sequence[str], visibility_s: int, asked: float
    ) -> None:
        """A call is about to hide messages for `visibility_s` from now on, as was decided on `asked`; 0 shows them."""
        ...


class Witness(QueueWitness, Protocol):
    """Who is told of every effect, at the moment of the effect."""

    def reads(self, line: Line, source_arn: str, shard: ShardId) -> None:
        """A shard is read."""
        ...

    def tries(self, line: Line, call: Issued, delivery: Delivery) -> None:
        """A worker is about to call a function, which may not be reached."""
        ...

    def begins(self, line: Line, call: Issued, delivery: Delivery) -> int:
        """A function was called; returns the call's number."""
        ...

    def calls_alone(self, line: Line, function: str) -> AbstractContextManager[None]:
        """A function is called beside its mappings inside the block."""
        ...

    def ends(self, number: int, outcome: Outcome | None) -> None:
        """The worker has the outcome of a call; None when it will never hear of it."""
        ...

    def abandoned(self, call: Issued, delivery: Delivery) -> None:
        """The engine gave up waiting for a call, which may have had its effect or not."""
        ...

    def offers(self, notice: Notice) -> None:
        """The engine wants to send a notice, which may arrive or not."""
        ...

    def notified(self, line: Line, notice: Notice, issued: float) -> None:
        """The destination has a notice that was decided on at epoch seconds `issued`."""
        ...

    def gave_up(self, line: Line, call: Issued, delivery: Delivery, until: float) -> None:
        """The engine gave up waiting for a call whose run goes on until epoch seconds `until`."""
        ...

    def operates(self, line: Line, operation: Operation) -> None:
        """The store has an operation, or a change of it."""
        ...

    def creates(self, row: MappingRow) -> None:
        """The store has a mapping's row."""
        ...

    def writes(self, row: MappingRow) -> None:
        """A mapping's row was replaced."""
        ...

    def takes(self, line: Line, mapping: MappingId, lease: Lease, *, listed: float | None = None) -> None:
        """A lease was taken; `lease` as stored."""
        ...

    def gives_up(self, line: Line, mapping: MappingId, lease: Lease) -> None:
        """The worker tries to give a lease up."""
        ...

    def releases(self, line: Line, mapping: MappingId, lease: Lease) -> None:
        """A lease was given up."""
        ...

    def drops(self, line: Line, mapping: MappingId, lease: Lease) -> None:
        """A lease is removed, with its checkpoint."""
        ...

    def moves(self, line: Line, mapping: MappingId, lease: Lease, position: Position) -> None:
        """A shard stands at another position, and belongs to nobody. `lease` is the one before."""
        ...

    def saves(self, line: Line, mapping: MappingId, lease: Lease, checkpoint: Checkpoint) -> None:
        """A checkpoint was accepted."""
        ...

    def refused(self, line: Line, mapping: MappingId, lease: Lease) -> None:
        """The store told the worker that it lost the lease."""
        ...


class SimStream:
    """StreamSource over a FakeStream, paced as the real adapter is."""

    def __init__(self, stream: FakeStream, line: Line, witness: Witness, *, source_arn: str) -> None:
        self._stream = stream
        self._line = line
        self._witness = witness
        self._arn = source_arn
        self._next_read: dict[ShardId, float] = {}

    async def shards(self) -> Sequence[Shard]:
        """All shards that the service lists."""
        return await self._call("list", lambda: cast("Sequence[Shard]", self._apply(ListShards())))

    async def cursor(self, shard: ShardId, position: Position) -> Cursor:
        """A read token; raises PositionTrimmed."""

        def effect() -> Cursor:
            return cast("Cursor", self._apply(GetCursor(shard, position)))

        return await self._call(f"cursor {shard} {position.encode()}", effect)

    async def cursor_at(self, shard: ShardId, sequence_number: str) -> Cursor:
        """A read token for a record, or for the first one behind it; raises PositionTrimmed."""
        sequence, _, part = sequence_number.partition(":")
        name = f"{sequence}:{int(part) - 1}" if int(part or 0) else str(int(sequence) - 1)
        before = Position.after(name)

        def effect() -> Cursor:
            return cast("Cursor", self._apply(GetCursor(shard, before, recorded=False)))

        return await self._call(f"cursor {shard} AT:{sequence_number}", effect)

    async def read(self, shard: ShardId, cursor: Cursor, *, records_max: int) -> Page:
        """The next records; raises CursorExpired and PositionTrimmed."""
        await self._pace(shard)

        def effect() -> Page:
            if REDRIVING.get() is None:
                self._witness.reads(self._line, self._arn, shard)
            if self._line.chance(self._line.plan.expired_cursor):
                raise CursorExpired("the service forgot it early")
            empty = self._line.chance(self._line.plan.empty_page)
            page = cast("Page", self._apply(Read(shard, cursor, 0 if empty else records_max)))
            if page.cursor is None or empty or not self._line.chance(self._line.plan.lost_iterator):
                return page
            self._line.marks.saw("lost iterator")
            return replace(page, cursor=None)

        page = await self._call(f"read {shard}", effect)
        await self._line.make_room()
        return page

    async def retention_s(self) -> float | None:
        """How long the fake keeps records."""
        return RETENTION_S

    def _apply(self, request: ListShards | GetCursor | Read) -> object:
        try:
            return self._stream.apply(epoch(), request)
        except PositionTrimmed:
            self._line.marks.saw("trimmed")
            raise

    async def _call[T](self, what: str, effect: Callable[[], T]) -> T:
        try:
            return await self._line.call(Port.SOURCE, what, effect)
        except CursorExpired:
            self._line.marks.saw("expired cursor")
            raise

    async def _pace(self, shard: ShardId) -> None:
        now = asyncio.get_running_loop().time()
        turn = max(now, self._next_read.get(shard, 0.0))
        self._next_read[shard] = turn + 1 / CALLS_PER_S
        if turn > now:
            await asyncio.sleep(turn - now)


class SimDatedStream(SimStream):
    """One that can be asked when it was created, by those who may."""

    async def created(self) -> Epoch | None:
        """When the stream was created; None for a worker that may not ask."""

        def effect() -> Epoch | None:
            return (
                None
                if self._line.name in (self._stream.undated_for or ())
                else Epoch(self._stream.created_at)
            )

        return await self._call("created", effect)


class SimQueue:
    """QueueSource over a FakeQueue."""

    def __init__(self, queue: FakeQueue, line: Line, witness: QueueWitness, *, source_arn: str) -> None:
        self._queue = queue
        self._line = line
        self._witness = witness
        self._arn = source_arn
        self._unanswered: list[tuple[int, str]] = []

    async def receive(self, *, messages_max: int, wait_s: float) -> Sequence[Message]:
        """Up to `messages_max` messages, waiting up to `wait_s` for the first.

        A FIFO receive that failed is repeated under its attempt id. One that is abandoned goes on to the end of its wait,
        and what it is given is hidden, as SQS does.
        """
        sent = Monotonic(asyncio.get_running_loop().time())
        poll = Poll(messages_max, epoch() + wait_s, self._line.source_faults, self._attempt(messages_max))
        try:
            await self._served(poll)
            await self._make_room(poll)
        except PortError:
            if poll.attempt_id is not None:
                self._unanswered.append((poll.messages_max, poll.attempt_id))
            raise
        except asyncio.CancelledError:
            self._witness.abandons(self._line, self._arn)
            poll.abandoned = True
            self._serve_nobody(poll)
            raise
        self._witness.arrives(self._line, self._arn, poll.handed)
        return [msgspec.structs.replace(each, received=sent) for each in poll.handed]

    async def _make_room(self, poll: "Poll") -> None:
        """Asks for room, as a source does before it reads an answer. Without room the answer is lost."""
        self._witness.waits_for_room(poll.handed, self._arn)
        try:
            await self._line.make_room()
        except AnswerTooLarge:
            self._witness.reply_lost(self._line, self._arn, poll.handed)
            raise

    async def _served(self, poll: "Poll") -> None:
        while True:
            if await self._look(poll):
                return
            left_s = poll.ends_at - epoch()
            if left_s <= 0:
                return
            await asyncio.sleep(min(left_s, LONG_POLL_LOOK_S))

    def _attempt(self, messages_max: int) -> str | None:
        """The id of an attempt that had no answer and asked for as much, or a new one; None on a standard queue."""
        if not self._queue.facts.fifo:
            return None
        for place, (asked, attempt_id) in enumerate(self._unanswered):
            if asked == messages_max:
                del self._unanswered[place]
                return attempt_id
        return f"attempt-{next(self._queue.attempt_numbers)}"

    def _serve_nobody(self, poll: "Poll") -> None:
        """Goes on with an abandoned poll. It is the service that does so: nothing that happens to the worker matters."""
        if not poll.handed and not self._queue.missing:
            self._hand(poll)
        if poll.handed:
            self._witness.reply_lost(self._line, self._arn, poll.handed)
        elif epoch() < poll.ends_at:
            loop, again = asyncio.get_running_loop(), partial(self._serve_nobody, poll)
            loop.call_later(LONG_POLL_LOOK_S, again, context=Context())

    async def delete(self, receipts: Sequence[str]) -> Sequence[Undone]:
        """Deletes messages; returns those that were not deleted."""
        asked = epoch()

        def effect() -> Sequence[Undone]:
            undone = cast("Sequence[Undone]", self._queue.apply(epoch(), Delete(tuple(receipts))))
            self._witness.deletes(self._line, self._arn, receipts, undone, asked)
            return undone

        try:
            return await self._line.call(Port.SOURCE, f"delete {' '.join(receipts)}", effect)
        except BaseException:
            self._witness.delete_failed(self._line, self._arn, receipts)
            raise

    async def extend(self, receipts: Sequence[str], *, visibility_s: int | Sequence[int]) -> Sequence[Undone]:
        """Hides messages for `visibility_s` from now on."""
        asked = epoch()

        def effect() -> Sequence[Undone]:
            undone: list[Undone] = []
            for each in extensions(receipts, visibility_s):
                self._witness.extends(self._line, self._arn, each.receipts, each.visibility_s, asked)
                undone += cast("Sequence[Undone]", self._queue.apply(epoch(), each))
            return undone

        return await self._line.call(Port.SOURCE, f"extend {' '.join(receipts)} {visibility_s}", effect)

    async def describe(self) -> QueueFacts:
        """The queue's own settings."""

        def effect() -> QueueFacts:
            return cast("QueueFacts", self._queue.apply(epoch(), Describe()))

        return await self._line.call(Port.SOURCE, "describe", effect)

    async def _look(self, poll: "Poll") -> bool:
        """Whether the poll has been given something."""

        def lost() -> None:
            self._witness.reply_lost(self._line, self._arn, poll.handed)

        what = f"receive {poll.messages_max}"
        await self._line.call(Port.SOURCE, what, partial(self._hand, poll), lost=lost)
        return bool(poll.handed)

    def _hand(self, poll: "Poll") -> Sequence[Message]:
        request = Receive(poll.messages_max, poll.attempt_id)
        poll.handed = cast("Sequence[Message]", self._queue.apply(epoch(), request))
        self._witness.receives(self._line, self._arn, poll.handed, poll.troubles, abandoned=poll.abandoned)
        return poll.handed


@dataclass(slots=True)
class Poll:
    """A receive under way: until when it waits, what had gone wrong before, and what it was given."""

    messages_max: int
    ends_at: float
    troubles: int
    attempt_id: str | None
    handed: Sequence[Message] = ()
    abandoned: bool = False


class SimFunction:
    """Invoker over a FakeFunction. A call that began goes on in the function whatever becomes of the worker."""

    def __init__(self, name: str, function: FakeFunction, line: Line, witness: Witness) -> None:
        self._name = name
        self._function = function
        self._line = line
        self._witness = witness

    async def invoke(self, invocation: Invocation) -> Outcome:
        """Calls the function and waits for its answer."""
        if (takes_s := takes_of(invocation.payload)) is not None:
            return await self._alone(takes_s)
        delivery = read_delivery(invocation.payload)
        names = " ".join(each.identifier[-12:] for each in delivery.records)
        call = Issued(self._name, invocation, epoch(), REDRIVING.get())
        begun: list[int] = []
        self._witness.tries(self._line, call, delivery)

        def begin() -> int:
            begun.append(self._witness.begins(self._line, call, delivery))
            return begun[0]

        outcome: Outcome | None = None
        try:
            try:
                await self._line.call(Port.FUNCTION, f"invoke {self._name} [{names}]", begin)
                outcome = await self._answer(call, delivery)
            except ServiceUnavailable as error:
                outcome = Unreachable(error.reason)
        finally:
            if begun:
                self._witness.ends(begun[0], outcome)
            if outcome is None:
                self._witness.abandoned(call, delivery)
        told = outcome
        self._line.history.tell(self._line.name, lambda: f"answer of {self._name} [{names}]: {told}")
        return outcome

    async def _alone(self, takes_s: float) -> Outcome:
        """A call beside mappings."""
        with self._witness.calls_alone(self._line, self._name):
            await self._line.ready()
            await asyncio.sleep(takes_s)
            await self._line.ready()
        return Succeeded(b"null")

    async def _answer(self, call: Issued, delivery: Delivery) -> Outcome:
        answer = self._function.apply(epoch(), Call(delivery, call.invocation.timeout_s))
        await asyncio.sleep(answer.after_s)
        await self._line.ready()
        return answer.outcome


class SimOwnFunction(SimFunction):
    """FunctionLookup over a FakeFunction with settings of its own."""

    async def describe_function(self, function_arn: str) -> FunctionFacts:
        """The settings that the function has now; raises AccessDenied while they may not be seen."""

        def effect() -> FunctionFacts:
            if any(each.holds(epoch()) for each in self._function.script.unseen):
                self._line.marks.saw("unseen settings of a function")
                raise AccessDenied("not authorized to perform this operation")
            return self._function.facts(epoch())

        return await self._line.call(Port.FUNCTION, f"describe {function_arn}", effect)

    async def _answer(self, call: Issued, delivery: Delivery) -> Outcome:
        stumbles, known_s = self._line.stumbles, call.invocation.timeout_s
        answer = self._function.apply(epoch(), Call(delivery, known_s))
        ends = epoch() + answer.after_s
        if answer.after_s > SLOW_S:
            self._line.marks.saw("run longer than the usual limit")
        if answer.after_s > known_s:
            self._line.marks.saw("run longer than the limit that was known")
        try:
            await asyncio.sleep(answer.after_s)
            await self._line.ready()
        except asyncio.CancelledError:
            impatient = epoch() >= call.at + known_s and stumbles == self._line.stumbles
            if impatient and not (self._line.crashed or self._line.stopping):
                self._witness.gave_up(self._line, call, delivery, ends)
            raise
        return answer.outcome


class SimDestination:
    """Destination that keeps notices; what it has, it has for good."""

    def __init__(
        self, notices: list[Notice], line: Line, witness: Witness, *, place: NoticePlace | None = None
    ) -> None:
        self._notices = notices
        self._place = place
        self._line = line
        self._witness = witness

    async def send(self, notice: Notice) -> None:
        """Keeps the notice."""

        issued = epoch()
        self._witness.offers(notice)

        def effect() -> None:
            self._notices.append(notice)
            if self._place is not None:
                self._place.put(notice)
            self._witness.notified(self._line, notice, issued)

        await self._line.call(Port.DESTINATION, f"notice {notice.document.decode()}", effect)


class SimStore:
    """Store over one MemoryStore that all workers share."""

    def __init__(self, store: MemoryStore, line: Line, witness: Witness) -> None:
        self._store = store
        self._line = line
        self._witness = witness
        self._listed: deque[tuple[float, Sequence[Lease]]] = deque(maxlen=LISTED_MAX)
        """The leases that the worker read last, and when the store had them."""

    async def create(self, row: MappingRow) -> MappingRow:
        """Keeps `row` unless the mapping is known."""

        def effect() -> MappingRow:
            kept = at_once(self._store.create(row))
            self._witness.creates(kept)
            return kept

        return await self._call(f"create {row.mapping}", effect)

    async def update(self, row: MappingRow) -> None:
        """Replaces the row."""

        def effect() -> None:
            at_once(self._store.update(row))
            self._witness.writes(row)

        try:
            await self._call(f"update {row}", effect)
        except RowChanged:
            self._line.marks.saw("row written by another worker")
            raise

    async def mappings(self) -> Sequence[MappingRow]:
        """All rows."""
        return await self._call("mappings", lambda: at_once(self._store.mappings()))

    async def forget(self, mapping: MappingId) -> None:
        """Removes the mapping."""
        await self._call(f"forget {mapping}", lambda: at_once(self._store.forget(mapping)))

    async def leases(self, mapping: MappingId, *, memos: bool = True) -> Sequence[Lease]:
        """All leases of one mapping."""

        def effect() -> tuple[float, Sequence[Lease]]:
            return epoch(), at_once(self._store.leases(mapping, memos=memos))

        listed = await self._call("leases", effect)
        self._listed.append(listed)
        return listed[1]

    async def seed(self, mapping: MappingId, leases: Sequence[Lease]) -> None:
        """Adds leases for shards that have none yet."""
        await self._call(f"seed {leases}", lambda: at_once(self._store.seed(mapping, leases)))

    async def take(self, mapping: MappingId, lease: Lease, *, owner: WorkerId) -> Lease:
        """Makes `owner` the owner; raises LeaseLost."""
        listed = next((at for at, leases in self._listed if any(each is lease for each in leases)), None)

        def effect() -> Lease:
            taken = self._fenced(mapping, lease, self._store.take(mapping, lease, owner=owner))
            self._witness.takes(self._line, mapping, taken, listed=listed)
            return taken

        return await self._call(f"take {lease.shard} {lease.epoch}", effect)

    async def release(self, mapping: MappingId, lease: Lease) -> None:
        """Gives the lease up; raises LeaseLost."""

        def effect() -> None:
            self._fenced(mapping, lease, self._store.release(mapping, lease))
            self._witness.releases(self._line, mapping, lease)

        self._witness.gives_up(self._line, mapping, lease)
        await self._call(f"release {lease.shard} {lease.epoch}", effect)

    async def save(self, mapping: MappingId, lease: Lease, checkpoint: Checkpoint) -> None:
        """Writes `checkpoint`; raises LeaseLost."""

        def effect() -> None:
            self._fenced(mapping, lease, self._store.save(mapping, lease, checkpoint))
            self._witness.saves(self._line, mapping, lease, checkpoint)

        memo = checkpoint.memo[:MEMO_BYTES_SHOWN].decode(errors="replace")
        await self._call(f"save {lease.shard} {lease.epoch} {checkpoint.position.encode()} {memo}", effect)

    async def move(self, mapping: MappingId, lease: Lease, position: Position) -> Lease:
        """Puts a shard at another position; raises LeaseLost."""

        def effect() -> Lease:
            moved = self._fenced(mapping, lease, self._store.move(mapping, lease, position))
            self._witness.moves(self._line, mapping, lease, position)
            return moved

        return await self._call(f"move {lease.shard} {lease.epoch} {position.encode()}", effect)

    async def drop(self, mapping: MappingId, lease: Lease) -> None:
        """Removes a lease; raises LeaseLost."""

        def effect() -> None:
            self._fenced(mapping, lease, self._store.drop(mapping, lease))
            self._witness.drops(self._line, mapping, lease)
            self._witness.releases(self._line, mapping, lease)

        await self._call(f"drop {lease.shard} {lease.epoch}", effect)

    async def beat(self, worker: WorkerId, counter: int, *, facts: Mapping[str, Any]) -> None:
        """Writes the worker's row."""
        await self._call("beat", lambda: at_once(self._store.beat(worker, counter, facts=facts)))

    async def workers(self) -> Sequence[WorkerRow]:
        """All workers' rows."""
        return await self._call("workers", lambda: at_once(self._store.workers()))

    async def retire(self, worker: WorkerId) -> None:
        """Removes the worker's row."""
        await self._call("retire", lambda: at_once(self._store.retire(worker)))

    async def put_digest(self, worker: WorkerId, content: bytes) -> None:
        """Writes the worker's digest."""
        await self._call("put_digest", lambda: at_once(self._store.put_digest(worker, content)))

    async def digests(self) -> Sequence[DigestRow]:
        """All digests."""
        return await self._call("digests", lambda: at_once(self._store.digests()))

    async def add(self, operation: Operation) -> Operation:
        """Stores an operation unless there is one with its id."""
        return await self._call(
            f"add operation {operation.operation} {operation.request.action}",
            lambda: self._operated(self._store.add(operation)),
        )

    def _operated(self, stored: Coroutine[Any, Any, Operation]) -> Operation:
        operation = at_once(stored)
        self._witness.operates(self._line, operation)
        return operation

    async def change(self, operation: Operation) -> Operation:
        """Replaces an operation; raises RowChanged."""
        what = f"change operation {operation.operation} {operation.revision} {operation.state}"
        try:
            return await self._call(what, lambda: self._operated(self._store.change(operation)))
        except RowChanged:
            self._line.marks.saw("operation changed by another worker")
            raise

    async def operations(self, *, over: bool = False) -> Sequence[Operation]:
        """Operations that are not over, or those that are."""
        return await self._call("operations", lambda: at_once(self._store.operations(over=over)))

    async def operation(self, operation: OperationId) -> Operation | None:
        """One operation, whether it is over or not."""
        return await self._call(f"operation {operation}", lambda: at_once(self._store.operation(operation)))

    async def ended(self) -> Sequence[EndedOperation]:
        """When operations that are over ended."""
        return await self._call("ended operations", lambda: at_once(self._store.ended()))

    async def prune(self, operations: Sequence[OperationId]) -> None:
        """Removes operations that are over."""
        await self._call(f"prune {len(operations)}", lambda: at_once(self._store.prune(operations)))

    async def _call[T](self, what: str, effect: Callable[[], T]) -> T:
        return await self._line.call(Port.STORE, what, effect)

    def _fenced[T](self, mapping: MappingId, lease: Lease, write: Coroutine[Any, Any, T]) -> T:
        try:
            return at_once(write)
        except LeaseLost:
            self._witness.refused(self._line, mapping, lease)
            raise


def at_once[T](coroutine: Coroutine[Any, Any, T]) -> T:
    """The value of a coroutine that never waits, such as the memory store's."""
    try:
        coroutine.send(None)
    except StopIteration as stop:
        value: T = stop.value
        return value
    raise AssertionError("the memory store waited")


class SimSettings(BaseModel):
    """Whatever the daemon hands to a plug-in."""

    model_config = ConfigDict(extra="allow", frozen=True)

    arn: str = ""
    function: str = ""
    place: str = ""
    mapping: str = ""
    hold_s: float = 0.0


@runtime_checkable
class Closing(Protocol):
    """What has connections."""

    def close(self) -> None:
        """Ends them."""
        ...


@dataclass(frozen=True, slots=True)
class Places:
    """Where redrives find what was given up: the on-failure queue of all mappings, and dead-letter queues by their ARNs."""

    notices: NoticePlace
    witness: RedriveWitness
    dead_letters: Mapping[str, Callable[[Line], SimQueue]]


type StreamOpening = Callable[[SimSettings, FakeStream], SimStream]
"""Opens a stream for a mapping of a worker."""


def registry(
    *,
    sources: Mapping[str, FakeStream | FakeQueue],
    functions: Mapping[str, FakeFunction],
    notices: list[Notice],
    store: MemoryStore,
    line: Line,
    witness: Witness,
    places: Places,
    opening: StreamOpening,
) -> GivenPlugins:
    """Everything that a daemon opens, over one worker's line; sources by ARN, functions by name."""

    def source(settings: SimSettings) -> SimStream | SimQueue:
        if settings.arn in places.dead_letters:
            return places.dead_letters[settings.arn](line)
        service = sources[settings.arn]
        if isinstance(service, FakeStream):
            return opening(settings, service)
        return SimQueue(service, line, witness, source_arn=settings.arn)

    def function(settings: SimSettings) -> SimFunction:
        function = functions[settings.function]
        kind = SimOwnFunction if function.script.own else SimFunction
        return kind(settings.function, function, line, witness)

    makers: dict[tuple[str, str], Callable[[SimSettings], object]] = {
        ("sources", "kinesis"): source,
        ("sources", "dynamodb"): source,
        ("sources", "sqs"): source,
        ("invokers", "sim"): function,
        ("invokers", OWN): function,
        ("destinations", "sqs"): lambda _: SimDestination(notices, line, witness, place=places.notices),
        ("pacers", "throttle"): lambda _: FakePacer(),
        ("stores", "sim"): lambda _: SimStore(store, line, witness),
    }
    opened = {key: _plugin(key[1], maker) for key, maker in makers.items()}
    return GivenPlugins({**opened, ("notices", "sqs"): _notices_plugin(places, line)})


def _plugin(name: str, maker: Callable[[SimSettings], object]) -> Plugin[SimSettings, object]:
    @asynccontextmanager
    async def opening(settings: SimSettings, _: Environment) -> AsyncGenerator[object]:
        made = maker(settings)
        try:
            yield made
        finally:
            if isinstance(made, Closing):
                made.close()

    return Plugin(name, SimSettings, opening)


def _notices_plugin(places: Places, line: Line) -> Plugin[SimSettings, object]:
    @asynccontextmanager
    async def opening(settings: SimSettings, _: Environment) -> AsyncGenerator[object]:
        reader = Reader(line, settings.place, MappingId(settings.mapping))
        async with open_notices(places.notices, reader, places.witness, hold_s=settings.hold_s) as source:
            yield source

    return Plugin("sqs", SimSettings, opening)


def seeded(seed: int, *names: object) -> Random:
    """A source of randomness of its own for each purpose, so that one more draw in one does not move the others."""
    return Random("/".join(str(each) for each in (seed, *names)))
