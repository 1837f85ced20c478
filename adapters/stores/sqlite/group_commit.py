"""Owns group commit: writes that wait while a transaction runs are written together in the next one.

A transaction is one piece of work in the database's thread. It runs to its end even if its writers are cancelled meanwhile. Their
writes may then be on the disk, as after a lost answer, so every write must be repeatable. If a transaction fails and one of
its writes may be the cause, each half of them is written again. In the end all others are written, and only the broken write
gets the error.
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

_FILE_ERRORS = frozenset(
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
"""Errors of the file or its locks. Smaller transactions would fail in the same way, so these are not split."""
_PRIMARY_CODE = 0xFF

type Work[T] = Callable[[sqlite3.Connection], T]
"""The statements of one write. May raise a PortError only before it has changed anything."""
type Result = tuple[Any] | PortError
"""What a write returned, or the error with which it was refused."""
type Answers = Mapping[asyncio.Future[Result], Work[Any] | Joint[Any]]
"""Writes by the futures that their writers await."""


class Joint[T](Protocol):
    """A write that can share one statement with others of its class that are for other rows."""

    @property
    def row(self) -> Hashable:
        """The row that it writes."""
        ...

    @classmethod
    def together(cls, db: sqlite3.Connection, writes: Sequence[Self]) -> Sequence[tuple[T] | PortError]:
        """Carries out all writes by one statement; returns their results."""
        ...


class Writer:
    """Runs writes on `database` in transactions; a write returns when its own transaction is on the disk."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._path = database.path
        self._file = _identity(database.path)
        self._waiting: dict[asyncio.Future[Result], Work[Any] | Joint[Any]] = {}
        self._halves: deque[Answers] = deque()
        """Halves of transactions that one of their writes may have broken, in the order of the writes."""
        self._running: asyncio.Future[list[Result]] | None = None
        self._closed = False

    async def write[T](self, work: Work[T]) -> T:
        """Returns what `work` returns, once it is committed; raises its PortError, or one for the database's error."""
        returned: T = await self._commit(work)
        return returned

    async def join[T](self, work: Joint[T]) -> T:
        """The same for a write that can share a statement with others."""
        returned: T = await self._commit(work)
        return returned

    async def _commit(self, work: Work[Any] | Joint[Any]) -> Any:
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
        """Refuses new writes, and returns when all waiting ones are written."""
        self._closed = True
        while self._running is not None:
            await asyncio.wait([self._running])

    def _advance(self) -> None:
        """Starts the next transaction, unless one is running or nothing waits. A closed database refuses all waiting writes."""
        while self._running is None and (answers := self._next()):
            try:
                running = self._database.run(partial(self._transact, works=list(answers.values())))
            except PortError as refused:
                _resolve(answers, _error_for_each(refused, answers))
                continue
            self._running = running
            running.add_done_callback(partial(self._settle, answers))

    def _next(self) -> Answers:
        """Returns the writes of the next transaction; empty if nothing waits. A half leaves out writes that nobody awaits any more."""
        while self._halves:
            half = {answer: work for answer, work in self._halves.popleft().items() if not answer.done()}
            if half:
                return half
        answers = list(islice(self._waiting, BATCH_MAX))
        return {answer: self._waiting.pop(answer) for answer in answers}

    def _settle(self, answers: Answers, ran: asyncio.Future[list[Result]]) -> None:
        """Gives the results to the writers, and goes on. An exception here is a bug of one write, so the transaction is halved."""
        self._running = None
        bug = ran.exception()
        if bug is None:
            _resolve(answers, ran.result())
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
        """Runs all works in one transaction, in the database's thread; raises errors that one of several works may have caused."""
        try:
            self._check_in_place()
            return _transaction(db, works)
        except sqlite3.Error as error:
            if len(works) > 1 and not _is_file_error(error):
                raise
            return [mapped(error, self._path) for _ in works]
        except PortError as refused:
            return _error_for_each(refused, works)

    def _check_in_place(self) -> None:
        if _identity(self._path) != self._file:
            raise ResourceMissing(
                f"{self._path} was moved or replaced while it was open; put it back or restart"
            )


def _is_file_error(error: sqlite3.Error) -> bool:
    return getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR) & _PRIMARY_CODE in _FILE_ERRORS


def _error_for_each(refused: PortError, writes: Iterable[object]) -> list[Result]:
    """Makes an error for each write: raising an exception adds a traceback, so they cannot share one."""
    return [type(refused)(refused.reason) for _ in writes]


def _resolve(answers: Answers, results: Sequence[Result]) -> None:
    """Gives the results to the writers that still wait."""
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
    """Rolls back the transaction if there is one. If that fails, the next write tries again."""
    if db.in_transaction:
        with suppress(sqlite3.Error):
            rows(db, "ROLLBACK")


def _results(db: sqlite3.Connection, works: Sequence[Work[Any] | Joint[Any]]) -> Iterator[Result]:
    """Carries out the works in their order. Consecutive works of one class share a statement."""
    for kind, some in groupby(works, type):
        if hasattr(kind, "together"):
            for group in _distinct(cast("Iterable[Joint[Any]]", some)):
                yield from kind.together(db, group)
        else:
            yield from (_attempt(db, work) for work in cast("Iterable[Work[Any]]", some))


def _distinct(works: Iterable[Joint[Any]]) -> Iterator[Sequence[Joint[Any]]]:
    """Splits works into groups in which no row comes twice."""
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
