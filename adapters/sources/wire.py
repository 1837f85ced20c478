"""Owns what sources share: calls, answers that are not as documented, and cursors that begin at a moment."""

from collections.abc import Mapping, Sequence
from types import MappingProxyType, TracebackType

from adapters.aws import mapped
from poller.errors import PortError, ServiceUnavailable
from poller.records import Cursor, Record

TURN_BYTES = 16 * 1024
"""An answer that is longer waits for a turn before it is decoded."""
_SCALE_MS = 1000


_NOTHING: Mapping[str, type[PortError]] = MappingProxyType({})


class calling:  # noqa: N801 - it is used as a function is, like the context managers of `contextlib`
    """Around one call: `mapped`, and `understood` too, since the client's own parser trips over odd answers.

    A class, since it surrounds every call: a generator takes five times as long.
    """

    __slots__ = ("_operation", "_special")

    def __init__(self, operation: str, special: Mapping[str, type[PortError]] = _NOTHING) -> None:
        self._operation = operation
        self._special = special

    def __enter__(self) -> None:
        """Nothing happens before the call."""

    def __exit__(
        self, _kind: type[BaseException] | None, error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        if error is not None:
            with understood(self._operation), mapped(self._operation, self._special):
                raise error


class understood:  # noqa: N801 - as `calling`
    """Turns an answer without the members it must have into ServiceUnavailable."""

    __slots__ = ("_operation",)

    def __init__(self, operation: str) -> None:
        self._operation = operation

    def __enter__(self) -> None:
        """Nothing happens before the look."""

    def __exit__(
        self, _kind: type[BaseException] | None, error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        # What nests too deep to be read is a RecursionError, which is no ValueError.
        if isinstance(error, (KeyError, TypeError, ValueError, AttributeError, RecursionError)):
            raise ServiceUnavailable(
                f"{self._operation}: the answer is not as documented: {type(error).__name__}"
            ) from error


def to_cursor(iterator: str, since_ms: int = 0) -> Cursor:
    """A cursor that reads from `iterator` on and leaves out records from before `since_ms` (0: none) at first."""
    return Cursor(f"{since_ms};{iterator}")


def from_cursor(cursor: Cursor) -> tuple[int, str]:
    """`since_ms` and iterator of a cursor."""
    since_ms, _, iterator = cursor.partition(";")
    return int(since_ms), iterator


def begun[R: Record](records: Sequence[R], since_ms: int) -> Sequence[R]:
    """The records from the first one on that arrived at `since_ms` or later; later ones stay whatever their time."""
    for index, record in enumerate(records):
        if round(record.arrived * _SCALE_MS) >= since_ms:
            return records[index:]
    return ()
