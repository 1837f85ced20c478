"""Owns the definitions of mappings made through the API or of custom resources: their documents in the store, and this worker's copy.

A mapping has two rows. The row under its own id is written by the workers that read the source (creation time, `seeded`). The row
under `api:ID` has its definition. So a change of the definition can never overwrite what a worker wrote meanwhile.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Self

import msgspec

from poller.domain.errors import RowChanged
from poller.domain.records import Epoch, MappingId
from poller.domain.resources.resource import ResourceOrigin
from poller.domain.rows import API_PREFIX, MappingRow, MappingState
from poller.ports import Store


@dataclass(frozen=True, slots=True, kw_only=True)
class Definition:
    """A mapping made through the API, or of the custom resource `origin`.

    `parameters` has AWS's names and the requested values. `change` is the state that is shown until the last change is applied.
    `revision` is the revision of the row from which it was read.
    """

    mapping: MappingId
    parameters: Mapping[str, Any]
    created: Epoch
    modified: Epoch
    change: MappingState = MappingState.CREATING
    tags: Mapping[str, str] = field(default_factory=dict)
    deleting: bool = False
    revision: int = 0
    origin: ResourceOrigin | None = None

    def row(self) -> MappingRow:
        """The row for the store."""
        document = {
            "parameters": dict(self.parameters),
            "created": self.created,
            "modified": self.modified,
            "change": self.change.value,
            "tags": dict(self.tags),
            "deleting": self.deleting,
        }
        if self.origin is not None:
            document["resource"] = {**asdict(self.origin), "own": dict(self.origin.own)}
        return MappingRow(key(self.mapping), fixed=self.created, document=document, revision=self.revision)

    @classmethod
    def of(cls, row: MappingRow) -> Self:
        """Inverse of `row`; raises ValueError for a document that this version does not understand."""
        try:
            found = msgspec.convert(dict(row.document), _Document)
        except msgspec.ValidationError as error:
            raise ValueError(str(error)) from None
        return cls(
            mapping=MappingId(row.mapping.removeprefix(API_PREFIX)),
            parameters=found.parameters,
            created=Epoch(found.created),
            modified=Epoch(found.modified),
            change=found.change,
            tags=found.tags,
            deleting=found.deleting,
            revision=row.revision,
            origin=found.resource,
        )


class _Document(msgspec.Struct):
    parameters: dict[str, Any]
    created: float
    modified: float
    change: MappingState
    tags: dict[str, str]
    deleting: bool
    resource: ResourceOrigin | None = None


def key(mapping: MappingId) -> MappingId:
    """The id of the row with a mapping's definition."""
    return MappingId(API_PREFIX + mapping)


class Definitions:
    """The definitions in the store, as this worker last read or wrote them."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._known: dict[MappingId, Definition] = {}
        self._of_resources: dict[str, MappingId] = {}
        """The mappings that were made of custom resources, by the uid of the resource."""
        self.beside: Sequence[Callable[[Sequence[MappingRow]], None]] = ()
        """Each is called with all rows of each listing."""
        self._first: dict[MappingId, int] | None = None
        """The revisions that the first read of the store found."""
        self._writes = 0
        self.unread: tuple[str, ...] = ()
        """The problems of rows that could not be read, one line each."""

    def known(self) -> tuple[Definition, ...]:
        """All definitions, in the order of their creation."""
        return tuple(sorted(self._known.values(), key=lambda each: (each.created, each.mapping)))

    @property
    def read(self) -> bool:
        """Whether the store was read once."""
        return self._first is not None

    def get(self, mapping: MappingId) -> Definition | None:
        """The definition of one mapping."""
        return self._known.get(mapping)

    def of_resource(self, uid: str) -> Definition | None:
        """The definition that was made of the custom resource with this uid."""
        mapping = self._of_resources.get(uid)
        found = None if mapping is None else self._known.get(mapping)
        # A mapping of the same id may have been made of another resource since.
        return found if found is not None and found.origin is not None and found.origin.uid == uid else None

    def inherited(self, definition: Definition) -> bool:
        """Whether a definition is unchanged since this worker started, so that its last change was applied long ago."""
        return self._first is not None and self._first.get(definition.mapping) == definition.revision

    async def refresh(self) -> bool:
        """Reads the definitions; raises the errors of the store.

        Returns False if this worker wrote meanwhile: the result may be older than the write, and is dropped.
        """
        writes = self._writes
        rows = await self._store.mappings()
        if writes != self._writes:
            return False
        self._take(rows)
        for take in self.beside:
            take(rows)
        return True

    async def add(self, definition: Definition) -> Definition:
        """Stores a new mapping and returns it. For this mapping, LATEST means the moment of its creation.

        Raises RowChanged if another worker has created one with the same id.
        """
        await self._store.create(MappingRow(definition.mapping, fixed=definition.created))
        row = definition.row()
        with self._writing():
            if await self._store.create(row) != row:
                raise RowChanged(f"mapping {definition.mapping} is in the store already")
            self._known[definition.mapping] = definition
            if definition.origin is not None:
                self._of_resources[definition.origin.uid] = definition.mapping
        return definition

    async def change(self, definition: Definition) -> Definition:
        """Replaces the definition at its revision, and returns it with the next revision.

        Raises ResourceMissing if another worker has removed it meanwhile, and RowChanged if one has changed it.
        """
        kept = replace(definition, revision=definition.revision + 1)
        with self._writing():
            await self._store.update(definition.row())
            self._known[definition.mapping] = kept
        return kept

    async def forget(self, mapping: MappingId) -> None:
        """Removes a mapping with its positions. The definition is removed last, so that a failed removal is repeated later."""
        await self._store.forget(mapping)
        with self._writing():
            await self._store.forget(key(mapping))
            self._known.pop(mapping, None)

    @contextmanager
    def _writing(self) -> Iterator[None]:
        """Marks reads that began before the begin or the end of a write as outdated."""
        self._writes += 1
        try:
            yield
        finally:
            self._writes += 1

    def _take(self, rows: Sequence[MappingRow]) -> None:
        """Takes over the rows. If a definition cannot be read, its mapping goes on unchanged."""
        unread = [f"store: {row.damage}" for row in rows if row.damage]
        known: dict[MappingId, Definition] = {}
        for row in rows:
            if not row.mapping.startswith(API_PREFIX):
                continue
            try:
                definition = None if row.damage else Definition.of(row)
            except ValueError as error:
                unread.append(f"store: the definition of mapping {row.mapping} cannot be read: {error}")
                definition = None
            definition = definition or self._known.get(MappingId(row.mapping.removeprefix(API_PREFIX)))
            if definition is not None:
                known[definition.mapping] = definition
        self._known, self.unread = known, tuple(unread)
        self._of_resources = {each.origin.uid: each.mapping for each in known.values() if each.origin}
        if self._first is None:
            self._first = {each.mapping: each.revision for each in known.values()}
