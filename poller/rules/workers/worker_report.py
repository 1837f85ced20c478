"""Owns what a worker reports of itself in its heartbeat, and what other workers read from it.

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
REQUESTS_MAX = 32
"""Shards of a mapping that a worker requests at the same time."""
RATE_MIN = 0.1
"""Records a second. Lower rates are not reported."""
DEAD_MAX = 16
"""Dead workers that are reported."""


class WorkerReport(msgspec.Struct, frozen=True, omit_defaults=True):
    """What a worker reports of itself. Mappings are named by `short`.

    Workers of other versions read and write the same rows. So a field keeps its name in the row even where the code uses another.

    `running` names the mappings that the worker runs, and `unable` those of them whose source it cannot list. `leaving` is true
    after it was asked to stop. `held` and `load` count leases and records a second over all mappings. `requests` are its lease
    requests: the shards of each mapping whose leases it wants. `rates` has the records a second of its busiest shards. A mapping's
    number in `change_counters` grows when other workers should check the mapping's leases. `claims` are its quota claims: how
    much of a mapping's maximum it may have in use (`quota`). `process` identifies its process, so that workers on the same
    machine can see whether it has ended. `dead` names the workers that it saw dead, with their counters, for workers that have
    just come and cannot have seen that themselves. `functions` has this worker's claims to the rates of functions, and `closed` the
    circuit breakers that were closed by hand here; both name functions by `short` and are explained in `function_shares`.
    """

    running: tuple[str, ...] = msgspec.field(default=(), name="on")
    unable: tuple[str, ...] = ()
    leaving: bool = False
    held: int = 0
    load: float = 0.0
    requests: dict[str, tuple[str, ...]] = msgspec.field(default_factory=dict, name="wishes")
    rates: dict[str, dict[str, float]] = {}
    change_counters: dict[str, int] = msgspec.field(default_factory=dict, name="news")
    claims: dict[str, int] = {}
    process: dict[str, Any] = {}
    dead: dict[str, int] = {}
    functions: dict[str, int] = {}
    closed: dict[str, int] = {}

    def dead_workers(self) -> dict[WorkerId, int]:
        """`dead` by the workers' ids."""
        return {WorkerId(name): counter for name, counter in self.dead.items()}


def encode(report: WorkerReport) -> dict[str, Any]:
    """The report as JSON values, for the worker's row."""
    plain: dict[str, Any] = msgspec.to_builtins(report)
    return plain


def decode(facts: Mapping[str, Any]) -> WorkerReport:
    """The report in the `facts` of a worker's row. A report that cannot be read, as of another version, counts as an empty one."""
    try:
        return msgspec.convert(dict(facts), WorkerReport)
    except msgspec.ValidationError:
        return WorkerReport()


def short(name: str) -> str:
    """The name of a mapping or a function in worker reports."""
    return blake2b(name.encode(), digest_size=NAME_BYTES).hexdigest()


def busiest(rates: Mapping[ShardId, float]) -> dict[str, float]:
    """The rates of the busiest shards, rounded, as they are reported."""
    named = sorted(rates.items(), key=lambda each: (-each[1], each[0]))[:RATES_MAX]
    return {shard: round(rate, 1) for shard, rate in named if rate >= RATE_MIN}


def group_view(
    mapping: MappingId,
    *,
    me: WorkerId,
    alive: Mapping[WorkerId, WorkerReport],
    coming: Mapping[WorkerId, int],
    calm: bool,
    silent: frozenset[WorkerId] = frozenset(),
    unaware: Mapping[WorkerId, frozenset[WorkerId]] = MappingProxyType({}),
) -> WorkerGroup:
    """The workers of one mapping as `me` sees them. `alive` has the reports of all live workers, `me` included.

    `coming` says how many leases of other mappings `me` has requested from each worker. They count as leases of `me` already.
    `calm`, `silent` and `unaware` are as in WorkerGroup.
    """
    name = short(mapping)
    there = {worker: report for worker, report in alive.items() if name in report.running}
    able = {
        worker: _peer(report, name, moved=coming.get(worker, 0) if worker != me else -sum(coming.values()))
        for worker, report in there.items()
        if not report.leaving and name not in report.unable
    }
    return WorkerGroup(
        me=me,
        peers=able,
        others=frozenset(there.keys() - able.keys()),
        leaving=frozenset(worker for worker, report in there.items() if report.leaving),
        calm=calm,
        silent=silent,
        unaware=unaware,
    )


def _peer(report: WorkerReport, name: str, *, moved: int) -> Peer:
    return Peer(
        held=report.held - moved,
        load=report.load,
        requests=frozenset(map(ShardId, report.requests.get(name, ()))),
        rates={ShardId(shard): rate for shard, rate in report.rates.get(name, {}).items()},
    )


def memberships(alive: Mapping[WorkerId, WorkerReport]) -> frozenset[tuple[WorkerId, Any]]:
    """What decides which workers are in the group of each mapping. While it stays the same, the groups stay the same."""
    return frozenset(
        (worker, (report.running, report.unable, report.leaving)) for worker, report in alive.items()
    )


def changed_mappings(
    before: Mapping[WorkerId, WorkerReport], after: Mapping[WorkerId, WorkerReport]
) -> frozenset[str]:
    """Short names of the mappings in which a worker requests other shards than before, or whose change counter has grown."""
    found: set[str] = set()
    for worker, report in after.items():
        old = before.get(worker, WorkerReport())
        found |= {name for name, _ in set(report.requests.items()) ^ set(old.requests.items())}
        found |= {
            name for name, number in report.change_counters.items() if old.change_counters.get(name) != number
        }
    return frozenset(found)
