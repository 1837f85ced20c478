"""Owns the queue of asynchronous calls in PostgreSQL. The condition of a write is part of its statement.

A claim first looks for free calls that can be read, then takes them by one statement, each at the revision that was seen. Of two
workers that see the same call, one gets it. A call that cannot be read is neither taken nor changed.
"""

from collections.abc import Collection, Sequence
from typing import Any

from adapters.stores import conflicts
from adapters.stores.call_backlogs import CallShare, backlog_of, call_share
from adapters.stores.postgresql.connections import Connections
from adapters.stores.postgresql.texts import storable
from adapters.stores.stored_calls import NAMES, CallReader, UnreadableCall, answer_of, checked, parsed
from adapters.stores.stored_rows import is_text
from poller.domain.functions.queued_calls import CallBacklog, CallId, CallPlace, QueuedCall
from poller.domain.records import Epoch, WorkerId

LOOKS_MAX = 3
"""How often a claim looks again, if others have taken calls that it has seen."""
_COLUMNS = ", ".join(NAMES)
_PUT = f"""
    INSERT INTO {{schema}}.calls ({_COLUMNS}, payload, answer) VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s)
    ON CONFLICT DO NOTHING
"""
_BACKLOGS = """
    SELECT function, owner, count(*), min(accepted), min(due) FROM {schema}.calls GROUP BY function, owner ORDER BY function
"""
_DUE = f"""
    SELECT {_COLUMNS}, payload, answer FROM {{schema}}.calls
    WHERE function = %s AND due <= %s AND (due, call) > (%s, %s)
    AND (owner IS NULL OR owner = %s OR owner = ANY(%s::text[])) AND call <> ALL(%s::text[])
    ORDER BY due, call LIMIT %s
"""
_CLAIM = """
    UPDATE {schema}.calls SET owner = %s, takeovers = new.takeovers, revision = new.revision
    FROM unnest(%s::text[], %s::bigint[], %s::bigint[]) AS new (call, takeovers, revision)
    WHERE calls.call = new.call AND calls.revision = new.revision - 1
    RETURNING calls.call
"""
_REPLACE = """
    UPDATE {schema}.calls SET accepted = %s, due = %s, owner = %s, takeovers = %s, content = %s, answer = %s, revision = revision + 1
    WHERE call = %s AND function = %s AND revision = %s
    RETURNING call
"""
_STORED = f"SELECT {_COLUMNS}, ''::bytea, answer FROM {{schema}}.calls WHERE call = %s AND function = %s"
_REMOVE = "DELETE FROM {schema}.calls WHERE call = %s AND function = %s AND revision = %s RETURNING call"
_REVISION = "SELECT revision FROM {schema}.calls WHERE call = %s AND function = %s"
_LIST = f"""
    SELECT {_COLUMNS}, ''::bytea, ''::bytea FROM {{schema}}.calls
    WHERE function = %s AND (due, call) > (%s, %s) ORDER BY due, call LIMIT %s
"""
_ONE = f"SELECT {_COLUMNS}, payload, answer FROM {{schema}}.calls WHERE call = %s AND function = %s"
_FIRST = CallPlace(Epoch(-1.0), CallId(""))


class PostgresCallQueue:
    """A CallQueue in the database of a PostgresStore."""

    def __init__(self, connections: Connections, schema: str) -> None:
        self._connections = connections
        self._schema = schema
        self._told = CallReader()

    async def put(self, call: QueuedCall) -> None:
        """Stores a new call unless there is one with its id."""
        await self._run(_PUT, _values(call, checked(call)))

    async def backlogs(self) -> Sequence[CallBacklog]:
        """Returns the functions that have calls, by name."""
        found: dict[str, list[CallShare]] = {}
        for function, *values in await self._run(_BACKLOGS):
            found.setdefault(function, []).append(call_share(*values))
        return [backlog_of(function, shares) for function, shares in found.items() if is_text(function)]

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
        """Makes `owner` the owner of free calls that are due, the longest due first; returns them as they are stored now."""
        whose = (storable(owner), [storable(each) for each in gone])
        claimed: list[QueuedCall] = []
        for _ in range(LOOKS_MAX):
            wanted = calls_max - len(claimed)
            if wanted <= 0:
                break
            kept_out = [storable(each) for each in (*held, *(call.call for call in claimed))]
            free = await self._free(storable(function), (float(now), *whose, kept_out), calls_max=wanted)
            taken = await self._take([each.claimed(owner) for each in free], owner)
            claimed += taken
            if len(taken) == len(free):
                break
        return sorted(claimed, key=lambda each: (each.due, each.call))

    async def replace(self, call: QueuedCall) -> QueuedCall:
        """Replaces the call at its revision, without its payload; raises ResourceMissing or RowChanged otherwise."""
        content = checked(call)
        new = (float(call.accepted), float(call.due), call.owner, call.takeovers, content, answer_of(call))
        if await self._run(_REPLACE, (*new, call.call, call.function, call.revision)):
            return conflicts.next_call(call)
        found = await self._run(_STORED, (call.call, call.function))
        return conflicts.replaced_before(_parsed(found[0]) if found else None, call)

    async def remove(self, call: QueuedCall) -> None:
        """Removes the call; raises RowChanged if its revision is another; no error if there is none."""
        which = (storable(call.call), storable(call.function))
        if not await self._run(_REMOVE, (*which, call.revision)):
            for (revision,) in await self._run(_REVISION, which):
                raise conflicts.changed_since(revision, call)

    async def calls(
        self, function: str, *, calls_max: int, after: CallPlace | None = None
    ) -> Sequence[QueuedCall]:
        """Returns the calls of a function behind a place without payloads and answers, the longest due first."""
        place = after or _FIRST
        wanted = (storable(function), float(place.due), storable(place.call), max(calls_max, 0))
        return self._readable(await self._run(_LIST, wanted))

    async def find(self, function: str, call: CallId) -> QueuedCall | None:
        """Returns one call; None if there is none; raises UnreadableCall if it is damaged."""
        found = await self._run(_ONE, (storable(call), storable(function)))
        return _parsed(found[0]) if found else None

    async def _free(self, function: str, wanted: tuple[Any, ...], *, calls_max: int) -> list[QueuedCall]:
        """Returns calls that may be claimed, the longest due first. Behind calls that cannot be read it looks for more."""
        now, owner, gone, held = wanted
        found: list[QueuedCall] = []
        place = (float(_FIRST.due), str(_FIRST.call))
        while len(found) < calls_max:
            limit = calls_max - len(found)
            rows = await self._run(_DUE, (function, now, *place, owner, gone, held, limit))
            found += self._readable(rows)
            if len(rows) < limit:
                break
            last = dict(zip(NAMES, rows[-1], strict=False))
            place = (last["due"], last["call"])
        return found

    async def _take(self, claimed: Sequence[QueuedCall], owner: WorkerId) -> list[QueuedCall]:
        """Takes those calls that have not changed since they were seen, by one statement; returns them."""
        if not claimed:
            return []
        columns = ([each.call for each in claimed], [each.takeovers for each in claimed])
        rows = await self._run(_CLAIM, (owner, *columns, [each.revision for each in claimed]))
        taken = {call for (call,) in rows}
        return [each for each in claimed if each.call in taken]

    def _readable(self, rows: Sequence[tuple[Any, ...]]) -> list[QueuedCall]:
        found = []
        for row in rows:
            try:
                found.append(_parsed(row))
            except UnreadableCall as unreadable:
                self._told.tell(unreadable)
        return found

    async def _run(self, statement: str, parameters: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        return await self._connections.run(statement.format(schema=self._schema), parameters)


def _values(call: QueuedCall, content: str) -> tuple[Any, ...]:
    accepted, due = float(call.accepted), float(call.due)
    names = (call.call, call.function, accepted, due, call.owner, call.takeovers, call.revision)
    return (*names, content, call.payload, answer_of(call))


def _parsed(row: tuple[Any, ...]) -> QueuedCall:
    *values, payload, answer = row
    return parsed(dict(zip(NAMES, values, strict=True)), payload=payload, answer=answer)
