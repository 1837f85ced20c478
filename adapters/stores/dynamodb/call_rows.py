"""Owns the queue of asynchronous calls in the DynamoDB table.

Every write of a call has its revision as a condition. A claim, and a change that leaves the call due at the same time, is one
conditional call on the due row. Putting, removing and making it due at another time are transactions. So no call is ever lost or
there twice, wherever a process ends. What may be left are parts of long payloads and answers, which a sweep finds.

Functions that have calls are found by their rows under `call-functions`. These stay, one a function, since a process that is about
to put a call relies on them.
"""

import time
from collections.abc import Callable, Collection, Sequence
from contextlib import suppress
from dataclasses import replace
from itertools import islice

from adapters.stores import conflicts
from adapters.stores.call_backlogs import backlog_of
from adapters.stores.dynamodb.call_items import (
    COUNTED,
    FUNCTIONS,
    Home,
    StoredCall,
    calls_of,
    due_item,
    due_key,
    home_item,
    home_key,
    home_of,
    last_due,
    place_key,
    shares_of,
    stored_call,
)
from adapters.stores.dynamodb.call_parts import INLINE_BYTES_MAX, CallParts, Kept
from adapters.stores.dynamodb.calls import Refused, Table, Write, each
from adapters.stores.dynamodb.table import ROOM_BYTES, Item, key
from adapters.stores.stored_calls import CallReader, UnreadableCall, answer_of, checked, is_free
from poller.domain.errors import PortError, ServiceThrottled
from poller.domain.functions.queued_calls import CallBacklog, CallId, CallPlace, QueuedCall
from poller.domain.records import Epoch, WorkerId

READS_MAX = 5
"""How often a call is looked for again that somebody moved or wrote meanwhile."""
PAGES_MAX = 32
PAGE_ROWS_MAX = 1_000
"""What one look for calls reads at most. Calls that others work on stand before those that are free."""
LOOK_PAGES_MAX = 1
"""A page has up to 1 MB, some 2,000 calls. Each look at a backlog reads so many: calls that workers hold stand at the front."""
COUNT_S, COUNT_PAGES_MAX = 60.0, 100
"""What is behind that is counted once in so many seconds, and no further than this."""
KNOWN_S = 60.0
"""The row of a function is written again after so long, while calls are put."""
KNOWN_MAX = 1_000
_THIS = "#revision = :revision"


class DynamoDbCallQueue:
    """A CallQueue in one table. Parts have `room` bytes, contents up to `inline` need none; `now` returns epoch seconds."""

    def __init__(
        self,
        table: Table,
        *,
        room: int = ROOM_BYTES,
        inline: int = INLINE_BYTES_MAX,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._table = table
        self._now = now
        self._parts = CallParts(table, room=room, inline=inline, now=now)
        self._reader = CallReader()
        self._known: dict[str, float] = {}
        """When this process has written the row of a function."""
        self._behind: dict[str, tuple[float | None, int]] = {}
        """When this process has counted what is behind the first pages of a backlog, and how many calls that were."""

    async def put(self, call: QueuedCall) -> None:
        """Stores a new call unless there is one with its id."""
        checked(call)
        await self._make_known(call.function)
        payload, answer = await self._parts.keep(call.payload), await self._parts.keep(answer_of(call))
        try:
            await self._table.transact(
                ("Put", {"Item": home_item(call, payload), **_if_new()}),
                ("Put", {"Item": due_item(call, answer), **_if_new()}),
                *payload.marked,
                *answer.marked,
            )
        except Refused as refused:
            await self._drop(payload, answer)
            if await self._table.get(home_key(call.call)) is None:
                raise ServiceThrottled(f"call {call.call} was removed just now") from refused

    async def backlogs(self) -> Sequence[CallBacklog]:
        """Returns the functions that have calls, by name.

        If a function has thousands of calls, their number may be a minute old, and everything else is told of those that are due first.
        """
        functions = [row["sk"]["S"] for row in await self._table.query(FUNCTIONS, "sk")]
        found = await each(self._backlog(function) for function in functions)
        with suppress(PortError):
            await self._parts.sweep()
        return [backlog for backlog in found if backlog is not None]

    async def claim(
        self,
        function: str,
        *,
        now: Epoch,
        owner: WorkerId,
        gone: Collection[WorkerId],
        held: Collection[CallId],
        calls_max: int,
    ) -> Sequence[QueuedCall]:
        """Makes `owner` the owner of free calls that are due, the longest due first; returns them as they are stored now.

        If some calls cannot be claimed because of an error, it returns the others.
        """
        taken: list[QueuedCall] = []
        start, rows_max = None, calls_max + len(held)
        for _ in range(PAGES_MAX):
            if len(taken) >= calls_max:
                break
            rows, start = await self._table.page(
                calls_of(function),
                between=("0", last_due(now)),
                rows_max=min(rows_max, PAGE_ROWS_MAX),
                start=start,
            )
            free = [
                row
                for row in self._readable(function, rows)
                if row.call.due <= now
                and is_free(row.call.call, row.call.owner, owner=owner, gone=gone, held=held)
            ]
            if not await self._take(free, taken, owner=owner, calls_max=calls_max) or start is None:
                break
            rows_max *= 2
        return sorted(taken, key=lambda call: (call.due, call.call))

    async def replace(self, call: QueuedCall) -> QueuedCall:
        """Replaces the call at its revision, without its payload; raises ResourceMissing or RowChanged otherwise."""
        checked(call)
        written = conflicts.next_call(call)
        for _ in range(READS_MAX):
            found = await self._find(call.function, call.call)
            if found is None:
                raise conflicts.missing_call(call)
            _, stored = found
            if stored.call.revision != call.revision:
                answer = answer_of(call)
                if not await self._parts.has(stored.answer, answer):
                    raise conflicts.changed_since(stored.call.revision, call)
                return conflicts.replaced_before(stored.with_bytes(b"", answer), call)
            try:
                await self._write(stored, written)
            except Refused:
                continue
            return written
        raise _busy(call)

    async def remove(self, call: QueuedCall) -> None:
        """Removes the call; raises RowChanged if its revision is another; no error if there is none."""
        for _ in range(READS_MAX):
            found = await self._find(call.function, call.call)
            if found is None:
                return None
            home, stored = found
            if stored.call.revision != call.revision:
                raise conflicts.changed_since(stored.call.revision, call)
            left = self._parts.unnamed(home.payload, stored.answer)
            due = key(calls_of(call.function), stored.at)
            try:
                await self._table.transact(
                    ("Delete", {"Key": due, **_if_at(call.revision)}),
                    ("Delete", {"Key": home_key(call.call)}),
                    *(write for write, _ in left),
                )
            except Refused:
                continue
            return await self._drop(*(kept for _, kept in left))
        raise _busy(call)

    async def calls(
        self, function: str, *, calls_max: int, after: CallPlace | None = None
    ) -> Sequence[QueuedCall]:
        """Returns the calls of a function behind a place without payloads and answers, the longest due first."""
        found: list[QueuedCall] = []
        start = None if after is None else key(calls_of(function), place_key(after.due, after.call))
        for _ in range(PAGES_MAX):
            missing = calls_max - len(found)
            if missing <= 0:
                break
            rows, start = await self._table.page(
                calls_of(function), rows_max=min(missing, PAGE_ROWS_MAX), start=start
            )
            found += [row.call for row in self._readable(function, rows)]
            if start is None:
                break
        return sorted(found, key=lambda call: (call.due, call.call))

    async def find(self, function: str, call: CallId) -> QueuedCall | None:
        """Returns one call; None if there is none; raises UnreadableCall if it is damaged."""
        for _ in range(READS_MAX):
            found = await self._find(function, call)
            if found is None:
                return None
            home, stored = found
            payload, answer = await self._parts.read(home.payload), await self._parts.read(stored.answer)
            if payload is not None and answer is not None:
                return stored.with_bytes(payload, answer)
        raise UnreadableCall(call, "its payload or answer is not there as it was written")

    async def _take(
        self, free: Sequence[StoredCall], taken: list[QueuedCall], *, owner: WorkerId, calls_max: int
    ) -> bool:
        """Claims calls until there are enough, and adds them to `taken`; returns whether there was no error.

        Raises the first error if there are no calls at all.
        """
        rest = iter(free)
        while some := list(islice(rest, calls_max - len(taken))):
            errors: list[PortError] = []
            found = await each(self._claimed(row, owner, errors) for row in some)
            taken += [call for call in found if call is not None]
            if errors and not taken:
                raise errors[0]
            if errors:
                return False
        return True

    async def _claimed(self, row: StoredCall, owner: WorkerId, errors: list[PortError]) -> QueuedCall | None:
        """Reads payload and answer, then claims the call; None if somebody else has it, if it cannot be read, or after an error.

        The claim comes last: a call whose payload could not be read just now has not been taken over.
        """
        at, claimed = key(calls_of(row.call.function), row.at), row.call.claimed(owner)
        try:
            payload, answer = await self._payload(row.call.call), await self._parts.read(row.answer)
            if payload is None or answer is None:
                await self._tell_if_there(row)
                return None
            await self._table.update(
                at,
                change="SET #owner = :owner, #takeovers = :takeovers, #revision = :next",
                values={
                    "owner": {"S": owner},
                    "takeovers": {"N": str(claimed.takeovers)},
                    "next": {"N": str(claimed.revision)},
                    "revision": {"N": str(row.call.revision)},
                },
                names=("owner", "takeovers", "revision"),
                condition=_THIS,
            )
        except UnreadableCall as unreadable:
            self._reader.tell(unreadable)
            return None
        except Refused:
            return None
        except PortError as error:
            errors.append(error)
            return None
        return StoredCall(row.at, claimed, row.answer).with_bytes(payload, answer)

    async def _payload(self, call: CallId) -> bytes | None:
        home = await self._table.get(home_key(call))
        return None if home is None else await self._parts.read(home_of(call, home).payload)

    async def _tell_if_there(self, row: StoredCall) -> None:
        """Logs a call whose payload or answer is missing, unless somebody has removed or changed the call meanwhile."""
        found = await self._table.get(key(calls_of(row.call.function), row.at))
        if found is not None and stored_call(row.call.function, found) == row:
            raise UnreadableCall(row.call.call, "its payload or answer is not there as it was written")

    async def _write(self, stored: StoredCall, call: QueuedCall) -> None:
        """Writes the due row of a call, and moves it if it is due at another time; raises Refused if its revision is another."""
        answer = await self._parts.keep(answer_of(call), stored.answer)
        left = [] if answer is stored.answer else self._parts.unnamed(stored.answer)
        item, condition = due_item(call, answer), _if_at(stored.call.revision)
        writes: list[Write] = [("Put", {"Item": item, **condition})]
        if due_key(call) != stored.at:
            writes = [
                ("Delete", {"Key": key(calls_of(call.function), stored.at), **condition}),
                ("Put", {"Item": item, **_if_new()}),
                ("Update", _moved(call)),
            ]
        writes += [*answer.marked, *(write for write, _ in left)]
        try:
            if len(writes) == 1:
                await self._table.call("put_item", Item=item, **condition)
            else:
                await self._table.transact(*writes)
        except Refused:
            await self._drop(answer)
            raise
        await self._drop(*(kept for _, kept in left))

    async def _find(self, function: str, call: CallId) -> tuple[Home, StoredCall] | None:
        """Returns the two rows of a call; None if there is none; raises UnreadableCall if one is damaged."""
        for _ in range(READS_MAX):
            home_row = await self._table.get(home_key(call))
            if home_row is None:
                return None
            home = home_of(call, home_row)
            if home.function != function:
                return None
            due_row = await self._table.get(key(calls_of(function), home.at))
            if due_row is not None:
                return home, stored_call(function, due_row)
        raise UnreadableCall(call, "its home row names a due row that is not there")

    async def _backlog(self, function: str) -> CallBacklog | None:
        rows: list[Item] = []
        start: Item | None = None
        for _ in range(LOOK_PAGES_MAX):
            some, start = await self._table.page(calls_of(function), "sk", *COUNTED, start=start)
            rows += some
            if start is None:
                break
        if not rows:
            return None
        seen = backlog_of(function, shares_of(rows))
        return (
            seen if start is None else replace(seen, calls=seen.calls + await self._further(function, start))
        )

    async def _further(self, function: str, start: Item) -> int:
        """How many calls a function has behind the first pages, as counted a minute ago. A count that fails is no reason not to look."""
        now = self._now()
        when, found = self._behind.get(function, (None, 0))
        if when is not None and 0 <= now - when < COUNT_S:
            return found
        with suppress(PortError):
            found = await self._table.count(calls_of(function), start=start, pages_max=COUNT_PAGES_MAX)
        if len(self._behind) >= KNOWN_MAX:
            self._behind.clear()
        self._behind[function] = now, found
        return found

    async def _make_known(self, function: str) -> None:
        now = self._now()
        written = self._known.get(function)
        if written is not None and 0 <= now - written < KNOWN_S:
            return
        await self._table.call("put_item", Item=key(FUNCTIONS, function))
        if len(self._known) >= KNOWN_MAX:
            self._known.clear()
        self._known[function] = now

    def _readable(self, function: str, rows: Sequence[Item]) -> list[StoredCall]:
        found = []
        for row in rows:
            try:
                found.append(stored_call(function, row))
            except UnreadableCall as unreadable:
                self._reader.tell(unreadable)
        return found

    async def _drop(self, *all_kept: Kept) -> None:
        """Removes parts that no row names. What cannot be removed now is found by its mark later."""
        for kept in all_kept:
            with suppress(PortError):
                await self._parts.drop(kept)


def _if_new() -> Item:
    return {"ConditionExpression": "attribute_not_exists(pk)"}


def _if_at(revision: int) -> Item:
    return {
        "ConditionExpression": _THIS,
        "ExpressionAttributeNames": {"#revision": "revision"},
        "ExpressionAttributeValues": {":revision": {"N": str(revision)}},
    }


def _moved(call: QueuedCall) -> Item:
    return {
        "Key": home_key(call.call),
        "UpdateExpression": "SET #at = :at",
        "ConditionExpression": "attribute_exists(pk)",
        "ExpressionAttributeNames": {"#at": "at"},
        "ExpressionAttributeValues": {":at": {"S": due_key(call)}},
    }


def _busy(call: QueuedCall) -> ServiceThrottled:
    return ServiceThrottled(f"call {call.call} is written by others all the time")
