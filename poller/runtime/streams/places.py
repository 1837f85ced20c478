"""Owns what the stream mappings of one daemon share to find where they begin: the file's mappings, the store's rows, and notes."""

import asyncio
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

from poller.domain.plan import MappingPlan, SourceKind
from poller.domain.records import MappingId, Monotonic
from poller.domain.rows import API_PREFIX, FUNCTION_PREFIX, MappingRow
from poller.domain.telemetry.mapping_events import PlaceFound
from poller.ports import Clock, MappingStore
from poller.rules.continued_mapping import Connection, connection_of

NO_MAPPINGS = (API_PREFIX, FUNCTION_PREFIX)
"""Rows whose ids begin so are read by others."""


def connection(plan: MappingPlan) -> Connection:
    """The source and the function that a mapping connects."""
    return Connection(plan.source_arn, plan.function, plan.function_arn)


@dataclass(slots=True)
class Places:
    """What is known of the places of all stream mappings.

    `plans` returns the mappings that the file has now. `made` says whether a mapping was made through the API and still exists.
    `notes` has what an operator should know of a mapping's place.
    """

    plans: Callable[[], Sequence[MappingPlan]] = tuple
    made: Callable[[MappingId], bool] = lambda _: True
    notes: dict[MappingId, PlaceFound] = field(default_factory=dict)
    _listeners: list[Callable[[], None]] = field(default_factory=list)
    _plans: Sequence[MappingPlan] | None = None
    _file: Mapping[str, Mapping[MappingId, Connection]] = field(default_factory=dict)
    _turn: asyncio.Lock = field(default_factory=asyncio.Lock)
    _rows: Mapping[str, Sequence[MappingRow]] = field(default_factory=dict)
    _listed: Monotonic | None = None
    damaged: tuple[str, ...] = ()
    """What is wrong with rows of the last listing that cannot be read, so that it is not known what they connect."""

    def _strange(self, damaged: Sequence[MappingRow]) -> tuple[str, ...]:
        """The damage of rows that belong to no wanted mapping. A damaged row of a wanted mapping stops only that mapping."""
        wanted = {plan.mapping for plan in self.plans()}
        return tuple(
            row.damage
            for row in damaged
            if not (row.mapping in wanted or row.mapping.startswith(NO_MAPPINGS) or self.made(row.mapping))
        )

    @contextmanager
    def listening(self, changed: Callable[[], None]) -> Iterator[None]:
        """Calls `changed` whenever the file has changed."""
        self._listeners.append(changed)
        try:
            yield
        finally:
            self._listeners.remove(changed)

    def changed(self) -> None:
        """Calls the listeners because the file has changed. Each running mapping stores which others the file has."""
        for each in tuple(self._listeners):
            each()

    def file(self, source: str) -> Mapping[MappingId, Connection]:
        """The file's mappings of one stream and what they connect. It is computed only when the file has changed."""
        plans = self.plans()
        if plans is not self._plans:
            found: dict[str, dict[MappingId, Connection]] = defaultdict(dict)
            for each in plans:
                if each.kind is not SourceKind.SQS:
                    found[each.source_arn][each.mapping] = connection(each)
            self._plans, self._file = plans, dict(found)
        return self._file.get(source, {})

    async def rows(self, source: str, store: MappingStore, clock: Clock) -> Sequence[MappingRow]:
        """The rows of one stream's mappings of any file, by a listing that begins after this call.

        Calls that come while a listing runs share the next listing. Otherwise a thousand new mappings would each list a thousand
        rows.
        """
        asked = clock.monotonic()
        async with self._turn:
            if self._listed is None or self._listed < asked:
                began = clock.monotonic()
                found: dict[str, list[MappingRow]] = defaultdict(list)
                rows = await store.mappings()
                self.damaged = self._strange([row for row in rows if row.damage])
                for row in rows:
                    if known := connection_of(row):
                        found[known.source].append(row)
                self._rows, self._listed = dict(found), began
            return self._rows.get(source, ())
