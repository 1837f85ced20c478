"""Owns what a worker reports of itself in its heartbeat, and what others read from it.

A heartbeat is written every second, so it must be small. A mapping is named by a short hash of its id, and only the busiest
shards of a mapping are named.
"""

from collections.abc import Mapping
from hashlib import blake2b
from types import MappingProxyType
from typing import Any

import msgspec

from poller.domain.records import MappingId, ShardId, WorkerId
from poller.rules.workers.assignment import Peer, WorkerGroup

NAME_BYTES = 6
"""Length of the hash that stands for a mapping's id: enough to tell the mappings of one store apart."""
RATES_MAX = 16
"""Shards of a mapping whose rates are reported: the busiest ones."""
WISHES_MAX = 32
"""Shards of a mapping that a worker asks for at once."""
RATE_MIN = 0.1
"""Records a second. Lower rates are not reported."""
DEAD_MAX = 16
"""Dead workers that are reported."""


class WorkerReport(msgspec.Struct, frozen=True, omit_defaults=True):
    """What a worker reports of itself. Mappings are named by `short`.

    `on`: the mappings that it runs. `unable`: those of them whose source it cannot list. `leaving`: it was asked to stop.
    `held` and `load`: leases and records a second over all mappings. `wishes`: shards that it asks for. `rates`: records a
    second of its busiest shards. `news`: a change counter, which moves when others should look at the mapping's leases.
    `claims`: how much of a mapping's maximum it may have in use (`quota`). `process`: identifies its process, so that workers
    on the same machine can see whether it has ended. `dead`: workers that it saw dead, with their counters; a worker
    that has just come cannot have seen that itself.
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
    dead: dict[str, int] = {}

    def dead_workers(self) -> dict[WorkerId, int]:
        """`dead` by the workers' ids."""
        return {WorkerId(name): counter for name, counter in self.dead.items()}


def written(facts: WorkerReport) -> dict[str, Any]:
    """The report as JSON values."""
    plain: dict[str, Any] = msgspec.to_builtins(facts)
    return plain


def read(facts: Mapping[str, Any]) -> WorkerReport:
    """Inverse of `written`. A report that cannot be read, as of another version, counts as an empty one."""
    try:
        return msgspec.convert(dict(facts), WorkerReport)
    except msgspec.ValidationError:
        return WorkerReport()


def short(mapping: MappingId) -> str:
    """A mapping's name in heartbeats."""
    return blake2b(mapping.encode(), digest_size=NAME_BYTES).hexdigest()


def busiest(rates: Mapping[ShardId, float]) -> dict[str, float]:
    """The rates that are worth reporting, rounded."""
    named = sorted(rates.items(), key=lambda each: (-each[1], each[0]))[:RATES_MAX]
    return {shard: round(rate, 1) for shard, rate in named if rate >= RATE_MIN}


def team(
    mapping: MappingId,
    *,
    me: WorkerId,
    alive: Mapping[WorkerId, WorkerReport],
    coming: Mapping[WorkerId, int],
    calm: bool,
    silent: frozenset[WorkerId] = frozenset(),
    unaware: Mapping[WorkerId, frozenset[WorkerId]] = MappingProxyType({}),
) -> WorkerGroup:
    """The workers of one mapping. `alive` has the reports of all live workers, `me` included.

    `coming`: how many leases `me` has asked each worker for in other mappings; they count as leases of `me` already. `calm`,
    `silent` and `unaware` are as in WorkerGroup.
    """
    name = short(mapping)
    there = {worker: facts for worker, facts in alive.items() if name in facts.on}
    able = {
        worker: _peer(facts, name, moved=coming.get(worker, 0) if worker != me else -sum(coming.values()))
        for worker, facts in there.items()
        if not facts.leaving and name not in facts.unable
    }
    return WorkerGroup(
        me=me,
        peers=able,
        others=frozenset(there.keys() - able.keys()),
        leaving=frozenset(worker for worker, facts in there.items() if facts.leaving),
        calm=calm,
        silent=silent,
        unaware=unaware,
    )


def _peer(facts: WorkerReport, name: str, *, moved: int) -> Peer:
    return Peer(
        held=facts.held - moved,
        load=facts.load,
        wishes=frozenset(map(ShardId, facts.wishes.get(name, ()))),
        rates={ShardId(shard): rate for shard, rate in facts.rates.get(name, {}).items()},
    )


def membership(alive: Mapping[WorkerId, WorkerReport]) -> frozenset[tuple[WorkerId, Any]]:
    """What decides who is in the group of each mapping: while it stays the same, so do the groups."""
    return frozenset((worker, (facts.on, facts.unable, facts.leaving)) for worker, facts in alive.items())


def stirred(
    before: Mapping[WorkerId, WorkerReport], after: Mapping[WorkerId, WorkerReport]
) -> frozenset[str]:
    """Names of mappings in which a worker asks for other shards than before, or whose change counter has moved."""
    found: set[str] = set()
    for worker, facts in after.items():
        old = before.get(worker, WorkerReport())
        found |= {name for name, _ in set(facts.wishes.items()) ^ set(old.wishes.items())}
        found |= {name for name, number in facts.news.items() if old.news.get(name) != number}
    return frozenset(found)
