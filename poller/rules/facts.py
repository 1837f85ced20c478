"""Owns what a worker says of itself in its heartbeat, and what the others make of it.

A heartbeat is written every second, so that it is kept small: mappings go by a short hash of their ids, and of a mapping's shards
only the busiest are named.
"""

from collections.abc import Mapping
from hashlib import blake2b
from typing import Any

import msgspec

from poller.records import MappingId, ShardId, WorkerId
from poller.rules.leasing import Peer, Team

NAME_BYTES = 6
"""Of the hash that stands for a mapping's id: enough for the mappings that one fleet runs."""
RATES_MAX = 16
"""Busiest shards of a mapping whose load is named."""
WISHES_MAX = 32
"""Shards of a mapping that a worker asks for at once."""
RATE_MIN = 0.1


class Facts(msgspec.Struct, frozen=True, omit_defaults=True):
    """What a worker says of itself.

    `on` are the mappings it runs, `unable` those of them whose source it cannot list; `wishes` are shards it would like to
    have, `rates` records a second of its busiest shards, `news` a number that changes when there is something to look at in
    the mapping's leases. `claims` is how much of a mapping's maximum over all workers this one may have in use (`sharing`).
    `process` tells neighbours on the same machine whether the process is still there.
    """

    on: tuple[str, ...] = ()
    unable: tuple[str, ...] = ()
    leaving: bool = False
    held: int = 0
    load: float = 0.0
    wishes: dict[str, tuple[str, ...]] = {}
    rates: dict[str, dict[str, float]] = {}
    news: dict[str, int] = {}
    claims: dict[str, int] = {}
    process: dict[str, Any] = {}


def written(facts: Facts) -> dict[str, Any]:
    """As JSON values."""
    plain: dict[str, Any] = msgspec.to_builtins(facts)
    return plain


def read(facts: Mapping[str, Any]) -> Facts:
    """Inverse of `written`; what another version wrote in another way says nothing."""
    try:
        return msgspec.convert(dict(facts), Facts)
    except msgspec.ValidationError:
        return Facts()


def short(mapping: MappingId) -> str:
    """A mapping's name in heartbeats."""
    return blake2b(mapping.encode(), digest_size=NAME_BYTES).hexdigest()


def busiest(rates: Mapping[ShardId, float]) -> dict[str, float]:
    """The rates that are worth telling, rounded."""
    named = sorted(rates.items(), key=lambda each: (-each[1], each[0]))[:RATES_MAX]
    return {shard: round(rate, 1) for shard, rate in named if rate >= RATE_MIN}


def team(
    mapping: MappingId,
    *,
    me: WorkerId,
    alive: Mapping[WorkerId, Facts],
    coming: Mapping[WorkerId, int],
    calm: bool,
) -> Team:
    """The team of one mapping; `alive` has what I say of myself, too.

    `coming` counts leases of each worker that I have asked for in other mappings; they count as mine already.
    """
    name = short(mapping)
    there = {worker: facts for worker, facts in alive.items() if name in facts.on}
    able = {
        worker: _peer(facts, name, moved=coming.get(worker, 0) if worker != me else -sum(coming.values()))
        for worker, facts in there.items()
        if not facts.leaving and name not in facts.unable
    }
    return Team(
        me=me,
        peers=able,
        others=frozenset(there.keys() - able.keys()),
        leaving=frozenset(worker for worker, facts in there.items() if facts.leaving),
        calm=calm,
    )


def _peer(facts: Facts, name: str, *, moved: int) -> Peer:
    return Peer(
        held=facts.held - moved,
        load=facts.load,
        wishes=frozenset(map(ShardId, facts.wishes.get(name, ()))),
        rates={ShardId(shard): rate for shard, rate in facts.rates.get(name, {}).items()},
    )


def membership(alive: Mapping[WorkerId, Facts]) -> frozenset[tuple[WorkerId, Any]]:
    """What must be the same for the teams of all mappings to be the same."""
    return frozenset((worker, (facts.on, facts.unable, facts.leaving)) for worker, facts in alive.items())


def stirred(before: Mapping[WorkerId, Facts], after: Mapping[WorkerId, Facts]) -> frozenset[str]:
    """Names of mappings in which somebody wishes something else than before, or has news."""
    found: set[str] = set()
    for worker, facts in after.items():
        old = before.get(worker, Facts())
        found |= {name for name, _ in set(facts.wishes.items()) ^ set(old.wishes.items())}
        found |= {name for name, number in facts.news.items() if old.news.get(name) != number}
    return frozenset(found)
