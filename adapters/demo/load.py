"""Owns the load: which records are written to the four sources, in which lanes, and which of them are poison. Pure."""

import json
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from random import Random
from typing import Self

RECORDS_MIN = 80
RECORDS_MAX = 100_000
LANES = 12
"""Partition keys, items or message groups per source."""
NOISE = 0.1
"""The share of records that the filters leave out."""
STUMBLES = 2
"""Records of each source on which their function fails once."""


class Source(StrEnum):
    """The four sources, named by what the shop keeps in them."""

    ORDERS = "orders"
    """A Kinesis stream."""
    STOCK = "stock"
    """A DynamoDB stream."""
    MAILS = "mails"
    """An SQS standard queue."""
    PAYMENTS = "payments"
    """An SQS FIFO queue."""

    @property
    def ordered(self) -> bool:
        """Whether records of one lane come in order."""
        return self is not Source.MAILS

    @property
    def filtered(self) -> bool:
        """Whether its mapping has a filter."""
        return self is not Source.PAYMENTS

    @property
    def stream(self) -> bool:
        """Whether it has shards."""
        return self in {Source.ORDERS, Source.STOCK}


SHARES = {Source.ORDERS: 0.4, Source.STOCK: 0.2, Source.MAILS: 0.2, Source.PAYMENTS: 0.2}


class Kind(StrEnum):
    """What becomes of a record."""

    PLAIN = "plain"
    POISON = "poison"
    """Its function fails on it every time."""
    STUMBLE = "stumble"
    """Its function fails on it the first time."""
    NOISE = "noise"
    """The filter leaves it out."""


@dataclass(frozen=True, slots=True)
class Item:
    """One record or message: the `number`-th of its lane, from 0."""

    source: Source
    lane: str
    number: int
    kind: Kind

    def text(self) -> str:
        """Returns the JSON text that is written."""
        return json.dumps({"lane": self.lane, "number": self.number, "kind": self.kind.value})

    @classmethod
    def read(cls, source: Source, text: str) -> Self:
        """Parses the text of an item."""
        fields = json.loads(text)
        return cls(source, fields["lane"], int(fields["number"]), Kind(fields["kind"]))


def planned(source: Source, records: int, rng: Random) -> tuple[Item, ...]:
    """Returns `records` items of one source in the order of writing: one poison, some stumbles, some noise."""
    middle = range(records // 4, records // 2)
    marked: dict[int, Kind] = {}
    if source.filtered:
        marked = dict.fromkeys(rng.sample(range(records), int(records * NOISE)), Kind.NOISE)
    poison, *stumbles = rng.sample(middle, 1 + STUMBLES)
    marked |= {poison: Kind.POISON, **dict.fromkeys(stumbles, Kind.STUMBLE)}
    counts: dict[str, int] = defaultdict(int)
    items = []
    for index in range(records):
        lane = f"{source.value}-{rng.randrange(LANES):02d}"
        items.append(Item(source, lane, counts[lane], marked.get(index, Kind.PLAIN)))
        counts[lane] += 1
    return tuple(items)


def load(records: int, seed: int) -> dict[Source, tuple[Item, ...]]:
    """Returns the items of all four sources, `records` in total or a few more. The same seed gives the same items."""
    rng = Random(seed)
    return {source: planned(source, -int(-records * share // 1), rng) for source, share in SHARES.items()}


def by_lane(items: Iterable[Item]) -> dict[str, list[Item]]:
    """Returns the items of each lane, in order."""
    lanes: dict[str, list[Item]] = defaultdict(list)
    for item in items:
        lanes[item.lane].append(item)
    return lanes


def wanted(items: Sequence[Item]) -> list[Item]:
    """Returns the items that no filter leaves out."""
    return [item for item in items if item.kind is not Kind.NOISE]
