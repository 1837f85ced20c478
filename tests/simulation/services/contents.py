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
    """One record's content; `keep` False: the mapping's filter drops it; `pad` bytes make it big."""

    number: int
    kind: Kind = Kind.OK
    keep: bool = True
    pad: int = 0

    def text(self) -> str:
        """The body: a JSON object."""
        keep = "yes" if self.keep else "no"
        body = {"n": self.number, "kind": self.kind, "keep": keep, "pad": "x" * self.pad}
        return msgspec.json.encode(body).decode()


@dataclass(frozen=True, slots=True)
class _Body:
    n: int
    kind: Kind
    keep: str
    pad: str


def parse(text: str | bytes) -> Content:
    """Inverse of `Content.text`."""
    body = msgspec.json.decode(text, type=_Body)
    return Content(body.n, body.kind, body.keep == "yes", len(body.pad))
