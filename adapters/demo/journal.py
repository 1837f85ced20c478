"""Owns what the functions write down of the records they got, a JSON line at the start and at the end of each invocation.

A line is one write to a file that is open for appending, so that it is whole or absent whatever happens to the process.
"""

import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from adapters.demo.load import Item, Kind, Source

READ_BYTES_MAX = 64 * 1024 * 1024
"""Of the journal at once; the rest comes with the next look."""


@dataclass(frozen=True, slots=True)
class Line:
    """An invocation began with these items, or ended: `failed` has the indices of those it did not process.

    `life` is the run of the daemon that called.
    """

    source: Source
    request: str
    life: int
    began: bool
    items: tuple[Item, ...]
    failed: frozenset[int] = frozenset()

    def encode(self) -> bytes:
        """The line as it stands in the file."""
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
    """The line that `text` holds."""
    source, request, life, began, items, failed = json.loads(text)
    kind = Source(source)
    told = tuple(Item(kind, lane, number, Kind(word)) for lane, number, word in items)
    return Line(kind, request, life, began, told, frozenset(failed))


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
        """Whether nobody asked this of the item before, in whatever process; a file says so."""
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
        """The whole lines that came since the last look."""
        if not self._path.exists():
            return
        with self._path.open("rb") as file:
            file.seek(self._offset)
            text = file.read(READ_BYTES_MAX)
        whole = text[: text.rfind(b"\n") + 1]
        self._offset += len(whole)
        yield from map(decode, whole.splitlines())
