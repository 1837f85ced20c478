"""Owns where a stream mapping begins: its row in the store, and the positions that it takes over from another mapping.

A mapping of the file that is not in the store may continue an old mapping that is gone from the file
(`poller.rules.continued_mapping`). It goes through these steps:

1. It waits until no live worker runs the old mapping.
2. It writes a claim into the old mapping's row.
3. It takes every lease of the old mapping, so that no other worker can write there any more.
4. It copies the checkpoints, and marks its own row.
5. It removes the old mapping from the store.

If a worker ends between two steps, the next review by any worker starts again at step 1. A mapping that could continue several
old ones copies the earliest of their checkpoints, and does not change the old ones. A running mapping stores each change of the
file, so that the store knows which mappings the last file had.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import batched
from typing import Any

from poller.domain.errors import LeaseLost, PortError, ResourceMissing, RowChanged, ServiceUnavailable
from poller.domain.plan import Start
from poller.domain.records import MappingId
from poller.domain.rows import Lease, MappingRow
from poller.domain.telemetry.labels import TaskKind
from poller.domain.telemetry.mapping_events import PlaceFound
from poller.ports import MappingStore
from poller.rules.continued_mapping import (
    Begin,
    Change,
    Connection,
    Continue,
    Unclear,
    change_to,
    claimed,
    claimed_by,
    completed,
    continued_by,
    decide,
    described,
    earliest,
    refreshed,
)
from poller.rules.streams import recreated_stream
from poller.runtime.streams.context import StreamContext
from poller.runtime.streams.places import connection
from poller.runtime.watched_tasks import WatchedTasks
from poller.runtime.workers.membership import Membership

TAKES_AT_ONCE = 16
KEPT, WAITING, UNCLEAR = "kept", "waiting", "unclear"


class NotYet(Exception):
    """The mapping must wait for other workers. Try again soon. `reason` is one line for an operator."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class Place:
    """Where one mapping begins, and its row."""

    def __init__(self, parts: StreamContext, membership: Membership) -> None:
        self._parts = parts
        self._membership = membership
        self._mapping = parts.plan.mapping
        self._connection = connection(parts.plan)
        self._store: MappingStore = parts.store
        self._file: Mapping[MappingId, Connection] = {}
        """The file's mappings of the stream at the time when the row was last read."""

    @property
    def file_changed(self) -> bool:
        """Whether the row must be read again: the file has other mappings of the stream than before, and still has this one."""
        file = self._parts.places.file(self._connection.source)
        return file != self._file and self._mapping in file

    async def row(self) -> MappingRow:
        """The mapping's row, after it was decided where the mapping begins.

        LATEST is the moment at which the row was written; on AWS it is later (aws-behaviour#latest-is-late).

        Raises NotYet, and what the store's ports raise.
        """
        self.check()
        file = self._parts.places.file(self._connection.source)
        from_file = self._mapping in file
        if from_file:
            # Other workers must know of this run before it reads its row, because they may write a claim into the row.
            await self._membership.group()
        wanted = MappingRow(
            self._mapping,
            fixed=self._parts.clock.now(),
            document=described(self._connection) if from_file else {},
        )
        row = await self._store.create(wanted)
        if from_file:
            try:
                row = await (self._refresh(row, file) if row.seeded else self._find_place(row, file))
            except RowChanged:
                raise NotYet("another worker settles where it begins") from None
        self._file = file
        return row

    def check(self) -> None:
        """Raises NotYet when the mapping is not wanted any more, because it must not store a place then.

        The file may change at any time, and a run that is no longer wanted goes on until it has drained.
        """
        if self._mapping not in self._parts.places.file(
            self._connection.source
        ) and not self._parts.places.made(self._mapping):
            raise NotYet("the mapping is gone from the file")

    async def _refresh(self, row: MappingRow, file: Mapping[MappingId, Connection]) -> MappingRow:
        """Stores what the mapping connects and which mappings the file has. Finishes a take-over that was left half done."""
        await self._check_claim(row)
        if self._noted_place() == WAITING:
            self._note_place(
                KEPT, "goes on where the mapping stopped that it waited for; another worker saw to that"
            )
        change = change_to(file, self._connection, await self._rows())
        row = await self._describe(row, refreshed(row, self._connection, change))
        return await self._forget(row)

    async def _find_place(self, row: MappingRow, file: Mapping[MappingId, Connection]) -> MappingRow:
        rows = await self._rows()
        if self._parts.places.damaged:
            # The damaged row may be that of the mapping to continue. A new start could skip records that it has not read.
            raise ServiceUnavailable(self._parts.places.damaged[0])
        change = change_to(file, self._connection, rows)
        match decide(self._mapping, self._connection, rows, file=file):
            case Continue(old, function):
                return await self._continue(row, old, function, change)
            case Unclear() as unclear:
                return await self._unclear(row, unclear, change)
            case Begin():
                if self._noted_place() == WAITING:
                    # The mapping that it waited for is wanted again.
                    del self._parts.places.notes[self._mapping]
                return await self._describe(row, described(self._connection, change=change))

    async def _unclear(self, row: MappingRow, found: Unclear, change: Change) -> MappingRow:
        """Lets the mapping begin at the earliest position of the mappings that it could continue, whose positions stay."""
        document = described(self._connection, change=change)
        if self._parts.plan.stream.start == Start():
            self._note_place(UNCLEAR, f"begins at its StartingPosition: {found.reason}")
            return await self._describe(row, document)
        for old, function in zip(found.rows, found.functions, strict=True):
            await self._wait_for(old.mapping, function)
        places = [await self._parts.store.leases(old.mapping) for old in found.rows]
        await self._parts.store.seed(self._mapping, earliest(places))
        self.check()
        # The oldest time of creation is stored, so that the mapping restarts if the stream was recreated since then.
        oldest = min(found.rows, key=lambda old: recreated_stream.created_of(old.document) or old.fixed)
        document = {**recreated_stream.kept(oldest.document), **document}
        fixed = min(old.fixed for old in found.rows)
        row = await self._update(replace(row, fixed=fixed, seeded=True, document=document))
        self._note_place(UNCLEAR, f"begins where the one that is furthest behind stopped: {found.reason}")
        self._membership.announce_change()
        return row

    async def _continue(self, row: MappingRow, old: MappingRow, function: str, change: Change) -> MappingRow:
        await self._wait_for(old.mapping, function)
        old = await self._claim(old)
        if await self._membership.workers_of(old.mapping):
            # A worker has begun to run the old mapping meanwhile, and waits because of the claim.
            await self._store.update(replace(old, document=claimed(old, None)))
            raise NotYet("a worker runs the other mapping again")
        leases = await self._fence(old.mapping)
        await self._parts.store.seed(
            self._mapping, [Lease(each.shard, each.parents, each.checkpoint) for each in leases]
        )
        self.check()
        if old.mapping in self._parts.places.file(self._connection.source):
            raise NotYet("the mapping that it would continue is wanted again")
        taken = described(self._connection, change=change, continued=old.mapping)
        document = {**recreated_stream.kept(old.document), **taken}
        row = await self._update(replace(row, fixed=old.fixed, seeded=True, document=document))
        self._note_place(
            KEPT,
            f"goes on where {function} stopped; the positions of mapping {old.mapping} are its own now",
        )
        self._membership.announce_change()
        return await self._forget(row)

    async def _wait_for(self, old: MappingId, function: str) -> None:
        """Raises NotYet while a live worker, which may be this one, runs the other mapping."""
        workers = await self._membership.workers_of(old)
        if workers:
            names = ", ".join(sorted(workers))
            text = f"waits for worker {names} to stop or take the new file, which runs {function}; then it goes on there"
            self._note_place(WAITING, text)
            raise NotYet(text)

    async def _check_claim(self, row: MappingRow) -> None:
        """Raises NotYet when another mapping has taken over this mapping's positions, or is about to."""
        other = claimed_by(row)
        if other is None:
            return
        rows = await self._rows()
        taker = next((each for each in rows if each.mapping == other), None)
        if taker is not None and taker.seeded:
            await self._store.forget(self._mapping)
            raise NotYet(f"its positions are those of mapping {other} now")
        if taker is not None and (workers := await self._membership.workers_of(other)):
            text = f"waits for worker {', '.join(sorted(workers))}, which takes its positions over for mapping {other}"
            self._note_place(WAITING, text)
            raise NotYet(text)

    async def _claim(self, old: MappingRow) -> MappingRow:
        """Writes into the other mapping's row that this mapping takes over its positions. Returns that row.

        Workers may have files with different new mappings. Raises NotYet while a live worker does the same for another mapping.
        """
        other = claimed_by(old)
        if other == self._mapping:
            return old
        workers = await self._membership.workers_of(other) if other is not None else frozenset()
        if workers:
            text = f"waits for worker {', '.join(sorted(workers))}, which takes the same positions over for mapping {other}"
            self._note_place(WAITING, text)
            raise NotYet(text)
        try:
            return await self._update(replace(old, document=claimed(old, self._mapping)))
        except ResourceMissing:
            raise NotYet("another worker has taken the same positions over") from None

    async def _fence(self, old: MappingId) -> list[Lease]:
        """Takes all leases of the other mapping, so that their owners cannot write any more. Raises NotYet."""
        listed = await self._parts.store.leases(old, memos=False)
        taken: list[Lease] = []
        for some in batched(listed, TAKES_AT_ONCE, strict=False):
            async with WatchedTasks(self._parts.observer, self._parts.plan.mapping) as group:
                tasks = [group.start(TaskKind.TAKE, self._take(old, each), of=each.shard) for each in some]
            for found in (task.result() for task in tasks):
                if isinstance(found, LeaseLost):
                    raise NotYet("another worker takes over the same positions")
                if isinstance(found, PortError):
                    raise found
                taken.append(found)
        return taken

    async def _take(self, old: MappingId, lease: Lease) -> Lease | PortError:
        try:
            return await self._parts.store.take(old, lease, owner=self._parts.worker)
        except PortError as error:
            return error

    async def _forget(self, row: MappingRow) -> MappingRow:
        """Removes the mapping whose positions were taken over from the store, unless it is wanted again."""
        old = continued_by(row)
        if old is None:
            return row
        if old not in self._parts.places.file(self._connection.source):
            if await self._membership.workers_of(old):
                return row
            await self._store.forget(old)
        return await self._update(replace(row, document=completed(row)))

    async def _rows(self) -> Sequence[MappingRow]:
        """The rows of the stream's mappings of any file."""
        return await self._parts.places.rows(self._connection.source, self._store, self._parts.clock)

    async def _describe(self, row: MappingRow, described: Mapping[str, Any]) -> MappingRow:
        document = {**row.document, **described}
        return row if document == row.document else await self._update(replace(row, document=document))

    async def _update(self, row: MappingRow) -> MappingRow:
        await self._store.update(row)
        return replace(row, revision=row.revision + 1)

    def _noted_place(self) -> str:
        note = self._parts.places.notes.get(self._mapping)
        return note.place if note is not None else ""

    def _note_place(self, place: str, reason: str) -> None:
        note = PlaceFound(
            mapping=self._mapping, function=self._connection.function, place=place, reason=reason
        )
        if self._parts.places.notes.get(self._mapping) != note:
            self._parts.places.notes[self._mapping] = note
            self._parts.observer.on(note)
