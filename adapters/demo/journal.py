"""Owns the journal of the functions: a JSON line with the records at the start and at the end of each invocation.

A line is one write to a file that is open for appending, so it is complete or absent, whatever happens to the process.
"""

import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from adapters.demo.load import Item, Kind, Source

READ_BYTES_MAX = 64 * 1024 * 1024
"""How much of the journal is read at once. The next call reads on."""


@dataclass(frozen=True, slots=True)
class Line:
    """The start of an invocation with these items, or its end: `failed` has the indices of items that were not processed.

    `life` numbers the run of the daemon that called.
    """

    source: Source
    request: str
    life: int
    began: bool
    items: tuple[Item, ...]
    failed: frozenset[int] = frozenset()

    def encode(self) -> bytes:
        """Returns the line as it is written to the file."""
        return (
            json.dumps(
                [
                    self.source.value,
                    self.request,
                    self.life,
                    self.began,
                    [[item.lane, item.number, item.kind.value] for item in self.items],
                    sorted(self.failed),
                ],
                separators=(",", ":"),
            ).encode()
            + b"\n"
        )


def decode(text: bytes) -> Line:
    """Parses a line."""
    source, request, life, began, items, failed = json.loads(text)
    kind = Source(source)
    parsed = tuple(Item(kind, lane, number, Kind(word)) for lane, number, word in items)
    return Line(kind, request, life, began, parsed, frozenset(failed))


class Journal:
    """The file that functions append to."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def write(self, line: Line) -> None:
        """Appends one line."""
        target = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        try:
            os.write(target, line.encode())
        finally:
            os.close(target)

    def first_time(self, item: Item) -> bool:
        """Returns True for the first call for an item in any process. A file remembers the call."""
        mark = self._path.with_name(f"stumbled-{item.source}-{item.lane}-{item.number}")
        try:
            os.close(os.open(mark, os.O_CREAT | os.O_EXCL, 0o600))
        except FileExistsError:
            return False
        return True


class Reader:
    """Reads the journal as it grows."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._offset = 0

    def fresh(self) -> Iterator[Line]:
        """Yields the complete lines that were written since the last call."""
        if not self._path.exists():
            return
        with self._path.open("rb") as file:
            file.seek(self._offset)
            text = file.read(READ_BYTES_MAX)
        whole = text[: text.rfind(b"\n") + 1]
        self._offset += len(whole)
        yield from map(decode, whole.splitlines())
