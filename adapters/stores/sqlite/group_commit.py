"""Owns what is written: what waits while a transaction runs is written together in the next one.

A transaction is one piece of work of the database's thread. It ends there though writers are cancelled in the meantime;
their writes may be on the disk then, as after a lost answer, and every write may be repeated. Where one write may have broken
a transaction, each half of it is written again, so that in the end the others are written and that one has its error alone.
"""

import asyncio
import sqlite3
from collections import deque
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from functools import partial
from itertools import groupby, islice
from pathlib import Path
from typing import Any, Protocol, Self, cast

from adapters.stores.sqlite.connection import Database, rows
from adapters.stores.sqlite.schema import mapped
from poller.domain.errors import PortError, ResourceMissing, ServiceUnavailable

BATCH_MAX = 512
"""Writes in one transaction."""

_EVERYBODYS = frozenset(
    {
        sqlite3.SQLITE_AUTH,
        sqlite3.SQLITE_BUSY,
        sqlite3.SQLITE_CANTOPEN,
        sqlite3.SQLITE_CORRUPT,
        sqlite3.SQLITE_IOERR,
        sqlite3.SQLITE_LOCKED,
        sqlite3.SQLITE_NOTADB,
        sqlite3.SQLITE_PERM,
        sqlite3.SQLITE_PROTOCOL,
        sqlite3.SQLITE_READONLY,
    }
)
"""What is wrong with the file, or its locks: a part of the transaction would fare, and wait, as the whole did."""
_PRIMARY_CODE = 0xFF

type Work[T] = Callable[[sqlite3.Connection], T]
"""Statements of one write. Raises a PortError only before it has changed anything."""
type Result = tuple[Any] | PortError
"""What a write returned, or why it was refused."""
type Answers = Mapping[asyncio.Future[Result], Work[Any] | Joint[Any]]
"""Writes, by what tells their writers."""


class Joint[T](Protocol):
    """A write that others of its class may share one statement with, as long as they are for other rows."""

    @property
    def row(self) -> Hashable:
        """Which row it is for."""
        ...

    @classmethod
    def together(cls, db: sqlite3.Connection, writes: Sequence[Self]) -> Sequence[tuple[T] | PortError]:
        """The results of all."""
        ...


class Writer:
    """Runs writes on `database` in transactions; a write returns when its own transaction is on the disk."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._path = database.path
        self._file = _identity(database.path)
        self._waiting: dict[asyncio.Future[Result], Work[Any] | Joint[Any]] = {}
        self._halves: deque[Answers] = deque()
        """Parts of a transaction that one of its writes may have broken, in their order."""
        self._running: asyncio.Future[list[Result]] | None = None
        self._closed = False

    async def write[T](self, work: Work[T]) -> T:
        """What `work` returns, once it is committed; raises its PortError, or what the database's error means."""
        returned: T = await self._written(work)
        return returned

    async def join[T](self, work: Joint[T]) -> T:
        """The same for a write that may be done together with others."""
        returned: T = await self._written(work)
        return returned

    async def _written(self, work: Work[Any] | Joint[Any]) -> Any:
        if self._closed:
            raise ServiceUnavailable(f"{self._path} is closed")
        answer: asyncio.Future[Result] = asyncio.get_running_loop().create_future()
        self._waiting[answer] = work
        self._advance()
        try:
            match await answer:
                case PortError() as refused:
                    raise refused
                case (value,):
                    return value
        finally:
            self._waiting.pop(answer, None)

    async def close(self) -> None:
        """Refuses everything new, and returns when what waits is written."""
        self._closed = True
        while self._running is not None:
            await asyncio.wait([self._running])

    def _advance(self) -> None:
        """Begins the next transaction unless one is running or nothing waits; a closed database refuses all that waits."""
        while self._running is None and (answers := self._next()):
            try:
                running = self._database.run(partial(self._transact, works=list(answers.values())))
            except PortError as refused:
                _tell(answers, _to_each(refused, answers))
                continue
            self._running = running
            running.add_done_callback(partial(self._settle, answers))

    def _next(self) -> Answers:
        """What is to be written together now, without what nobody waits for any more; empty when nothing waits."""
        while self._halves:
            half = {answer: work for answer, work in self._halves.popleft().items() if not answer.done()}
            if half:
                return half
        answers = list(islice(self._waiting, BATCH_MAX))
        return {answer: self._waiting.pop(answer) for answer in answers}

    def _settle(self, answers: Answers, ran: asyncio.Future[list[Result]]) -> None:
        """Tells the writers that still wait, and goes on. What is raised here is a bug, and that of one write."""
        self._running = None
        bug = ran.exception()
        if bug is None:
            _tell(answers, ran.result())
        elif len(answers) > 1:
            pairs = list(answers.items())
            middle = len(pairs) // 2
            self._halves.extendleft([dict(pairs[middle:]), dict(pairs[:middle])])
        else:
            (answer,) = answers
            if not answer.done():
                answer.set_exception(bug)
        self._advance()

    def _transact(self, db: sqlite3.Connection, *, works: Sequence[Work[Any] | Joint[Any]]) -> list[Result]:
        """Writes all in one transaction, on the database's thread; raises what may be the fault of one of several."""
        try:
            self._check_in_place()
            return _transaction(db, works)
        except sqlite3.Error as error:
            if len(works) > 1 and not _is_everybodys(error):
                raise
            return [mapped(error, self._path) for _ in works]
        except PortError as refused:
            return _to_each(refused, works)

    def _check_in_place(self) -> None:
        if _identity(self._path) != self._file:
            raise ResourceMissing(
                f"{self._path} was moved or replaced while it was open; put it back or restart"
            )


def _is_everybodys(error: sqlite3.Error) -> bool:
    return getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR) & _PRIMARY_CODE in _EVERYBODYS


def _to_each(refused: PortError, writes: Iterable[object]) -> list[Result]:
    """A refusal for each write, since whoever raises one adds to it."""
    return [type(refused)(refused.reason) for _ in writes]


def _tell(answers: Answers, results: Sequence[Result]) -> None:
    """Hands the results to the writers that still wait."""
    for answer, result in zip(answers, results, strict=True):
        if not answer.done():
            answer.set_result(result)


def _transaction(db: sqlite3.Connection, works: Sequence[Work[Any] | Joint[Any]]) -> list[Result]:
    _roll_back(db)
    rows(db, "BEGIN IMMEDIATE")
    try:
        results = list(_results(db, works))
        rows(db, "COMMIT")
    finally:
        _roll_back(db)
    return results


def _roll_back(db: sqlite3.Connection) -> None:
    """Ends the transaction if there is one; if that fails the next write tries again."""
    if db.in_transaction:
        with suppress(sqlite3.Error):
            rows(db, "ROLLBACK")


def _results(db: sqlite3.Connection, works: Sequence[Work[Any] | Joint[Any]]) -> Iterator[Result]:
    """Carries the works out in their order; those of one class that follow each other are done together."""
    for kind, some in groupby(works, type):
        if hasattr(kind, "together"):
            for group in _distinct(cast("Iterable[Joint[Any]]", some)):
                yield from kind.together(db, group)
        else:
            yield from (_attempt(db, work) for work in cast("Iterable[Work[Any]]", some))


def _distinct(works: Iterable[Joint[Any]]) -> Iterator[Sequence[Joint[Any]]]:
    """Groups in which no row comes twice."""
    group: dict[Hashable, Joint[Any]] = {}
    for work in works:
        if work.row in group:
            yield list(group.values())
            group = {}
        group[work.row] = work
    yield list(group.values())


def _attempt(db: sqlite3.Connection, work: Work[Any]) -> Result:
    try:
        return (work(db),)
    except PortError as refused:
        return refused


def _identity(path: Path) -> tuple[int, int] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino
