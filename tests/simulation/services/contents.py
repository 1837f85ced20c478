"""Owns what simulated records hold: a number that is unique in the world, and how functions will take to it."""

from dataclasses import dataclass
from enum import StrEnum

import msgspec


class Kind(StrEnum):
    """What a record does to the function that gets it."""

    OK = "ok"
    POISON = "poison"
    """Always fails, until the world heals those that have no other way out."""
    FLAKY = "flaky"
    """Fails a few times."""
    SLOW = "slow"
    """Takes seconds."""
    HANG = "hang"
    """Takes longer than the function may, once or twice."""


@dataclass(frozen=True, slots=True)
class Content:
    """One record's content; `keep` False: the mapping's filter drops it; `pad` bytes make it big. `part`: its place in an aggregated record."""

    number: int
    kind: Kind = Kind.OK
    keep: bool = True
    pad: int = 0
    part: int | None = None

    def text(self) -> str:
        """The body: a JSON object."""
        keep = "yes" if self.keep else "no"
        body: dict[str, object] = {"n": self.number, "kind": self.kind, "keep": keep, "pad": "x" * self.pad}
        if self.part is not None:
            body["part"] = self.part
        return msgspec.json.encode(body).decode()


@dataclass(frozen=True, slots=True)
class _Body:
    n: int
    kind: Kind
    keep: str
    pad: str
    part: int | None = None


def parse(text: str | bytes) -> Content:
    """Inverse of `Content.text`."""
    body = msgspec.json.decode(text, type=_Body)
    return Content(body.n, body.kind, body.keep == "yes", len(body.pad), body.part)


def name_of(sequence_number: str, content: Content) -> str:
    """What a record of a stream is called: a part of an aggregated one has the number of the whole one, and its own."""
    return sequence_number if content.part is None else f"{sequence_number}:{content.part}"


def number_of(name: str) -> int:
    """The number of a record in the world. Parts have numbers of their own, behind that of the whole record."""
    sequence, _, part = name.partition(":")
    return int(sequence) + int(part or 0)
