"""Owns which worker reads which shards: what this worker takes, asks for and gives up (docs/decisions/0007).

No worker leads. Every worker computes the whole assignment from the same rows of the store, with the same rules and the same
tie-breaks, and comes to the same result. Then it carries out only what concerns itself. If two workers see different rows for a
moment, both may try to take one lease, and the store lets one of them succeed.

A lease is free in three cases: it has no owner, its owner is dead, or its owner is this worker from before a restart. In the third
case this worker takes it. In the other two it goes to a worker that has requested it, or else to the worker with the fewest leases.
Workers that may not be able to take it now are passed over: workers whose counter has not moved for some heartbeats, workers that
cannot know yet that the owner is dead, and workers that did not take it in time (`offers`).

A lease with a living owner moves for one of these reasons only:

1. Counts: two workers differ by two shards or more of this mapping.
2. Totals: counts differ by one, and the worker with more here also has more over all mappings.
3. Load, if counts are even: the busiest and the idlest worker differ clearly in records a second.

The worker that should get the lease sends a lease request: it names the shard in its heartbeat. The owner then finishes its batch,
saves, and releases the lease, which is free for the worker that requested it. Each move makes the assignment more even, so that
moves come to an end. No worker requests leases while workers come and go.
"""

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import blake2b
from types import MappingProxyType
from zlib import crc32

from poller.domain.records import ShardId, WorkerId
from poller.domain.rows import Lease

LOAD_GAP_MIN = 0.25
"""A fraction of the higher load. Loads that differ by less count as equal, because measured rates vary that much by themselves."""
LOAD_MIN = 20.0
"""Records a second. A smaller difference is not worth moving a shard."""
NOBODY: Mapping[ShardId, Collection[WorkerId]] = MappingProxyType({})


@dataclass(frozen=True, slots=True, kw_only=True)
class Peer:
    """A live worker that can work on the mapping.

    `held` (leases) and `load` (records a second) count all its mappings. `requests` (the shards whose leases it requests) and
    `rates` (records a second of its busiest shards) are about this mapping only.
    """

    held: int = 0
    load: float = 0.0
    requests: frozenset[ShardId] = frozenset()
    rates: Mapping[ShardId, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerGroup:
    """The workers of one mapping as `me` sees them.

    `peers` can get leases. `me` is one of them if it can get leases itself. `others` are alive and keep their leases, but get no
    more: they are leaving, or they cannot read the source. `leaving` names those of `others` that are leaving. `certain` is true
    if a worker that is in neither set is surely gone. `calm` is true if no worker came or went a short time ago. The counters of
    `silent` workers have not moved for some heartbeats. `unaware` names, for each dead worker, the workers that came after its
    last heartbeat: they cannot know yet that it is dead.
    """

    me: WorkerId
    peers: Mapping[WorkerId, Peer]
    others: frozenset[WorkerId] = frozenset()
    leaving: frozenset[WorkerId] = frozenset()
    certain: bool = True
    calm: bool = True
    silent: frozenset[WorkerId] = frozenset()
    unaware: Mapping[WorkerId, frozenset[WorkerId]] = field(default_factory=dict)

    def alive(self, worker: WorkerId) -> bool:
        """Whether a worker may be working on the mapping."""
        return worker in self.peers or worker in self.others


@dataclass(frozen=True, slots=True)
class Move:
    """A shard that should move from one worker to another."""

    shard: ShardId
    source: WorkerId
    target: WorkerId


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """What this worker does now: leases to `take`, moves to `request`, shards to `give` up.

    `left` has free leases that other workers should take, each with its worker. `stable` is true if no worker has anything to
    take, move or give up, so that this worker need not decide again soon.
    """

    take: tuple[Lease, ...] = ()
    left: tuple[tuple[Lease, WorkerId], ...] = ()
    request: tuple[Move, ...] = ()
    give: frozenset[ShardId] = frozenset()
    stable: bool = True


@dataclass(slots=True)
class _Holdings:
    """Which worker has which shards. It changes while the assignment is computed."""

    shards: dict[WorkerId, set[ShardId]]
    held: dict[WorkerId, int]
    load: dict[WorkerId, float]
    rates: Mapping[ShardId, float]
    salt: str

    def count(self, worker: WorkerId) -> int:
        return len(self.shards[worker])

    def give(self, worker: WorkerId, shard: ShardId) -> None:
        self.shards[worker].add(shard)
        self.held[worker] += 1

    def move(self, move: Move) -> None:
        rate = self.rates.get(move.shard, 0.0)
        for worker, sign in ((move.source, -1), (move.target, 1)):
            self.held[worker] += sign
            self.load[worker] += sign * rate
        self.shards[move.source].discard(move.shard)
        self.shards[move.target].add(move.shard)

    def fewest(self, among: Iterable[WorkerId]) -> WorkerId:
        return min(among, key=lambda each: (self.count(each), self.held[each], tie_break(self.salt, each)))

    def most(self, among: Iterable[WorkerId]) -> WorkerId:
        return max(among, key=lambda each: (self.count(each), self.held[each], tie_break(self.salt, each)))


def decide(
    leases: Sequence[Lease],
    group: WorkerGroup,
    *,
    salt: str,
    running: Collection[ShardId],
    lost: Collection[ShardId] = (),
    passed: Mapping[ShardId, Collection[WorkerId]] = NOBODY,
    by_load: bool = False,
) -> Decision:
    """What `group.me` does about the `leases` whose shards can be worked on.

    `salt` (the mapping's id) makes ties break differently in each mapping. This worker works on the `running` shards. Another
    worker took the `lost` shards, and keeps them if the group is not `certain`. `passed` names, for a free shard, the workers
    that should have taken it and did not in time. With `by_load`, loads are evened out, too.
    """
    holdings = _holdings(leases, group, salt=salt, running=running)
    free = sorted(
        (each for each in leases if each.shard not in running and _is_free(each, group, lost)),
        key=lambda each: each.shard,
    )
    assigned = tuple(_assign(free, holdings, group, passed))
    take = tuple(lease for lease, worker in assigned if worker == group.me)
    give = frozenset(_to_give_up(holdings, group, running))
    moves = tuple(_moves(holdings, by_load=by_load)) if group.calm else ()
    mine = [move for move in moves if move.target == group.me]
    waits = any(lease.owner in group.leaving for lease in leases)
    return Decision(
        take=take,
        left=tuple((lease, worker) for lease, worker in assigned if worker not in (None, group.me)),
        request=tuple(mine[: -(-len(mine) // 2)]),
        give=give,
        stable=group.calm and not moves and not give and not waits and len(take) == len(free),
    )


def stolen(leases: Iterable[Lease], held: Iterable[Lease]) -> frozenset[ShardId]:
    """Shards that this worker still works on although another worker has taken their leases, by the rows of the store."""
    epochs = {lease.shard: lease.epoch for lease in leases}
    return frozenset(lease.shard for lease in held if epochs.get(lease.shard, lease.epoch) != lease.epoch)


def tie_break(salt: str, name: str) -> bytes:
    """A value that decides between equals. It seems random, and is the same on every machine."""
    return blake2b(f"{salt}/{name}".encode(), digest_size=16).digest()


def has_unknown_owner(leases: Iterable[Lease], group: WorkerGroup) -> bool:
    """Whether a lease has an owner that is not in the group: that worker is gone, or it has just come."""
    return any(lease.owner is not None and not group.alive(lease.owner) for lease in leases)


def _is_free(lease: Lease, group: WorkerGroup, lost: Collection[ShardId]) -> bool:
    if lease.owner is None or lease.owner == group.me:
        return True
    return not group.alive(lease.owner) and (group.certain or lease.shard not in lost)


def _holdings(
    leases: Sequence[Lease], group: WorkerGroup, *, salt: str, running: Collection[ShardId]
) -> _Holdings:
    shards: dict[WorkerId, set[ShardId]] = {worker: set() for worker in group.peers}
    for lease in leases:
        owner = group.me if lease.shard in running else lease.owner
        if owner in shards and (owner != group.me or lease.shard in running):
            shards[owner].add(lease.shard)
    return _Holdings(
        shards=shards,
        held={worker: peer.held for worker, peer in group.peers.items()},
        load={worker: peer.load for worker, peer in group.peers.items()},
        rates={shard: rate for peer in group.peers.values() for shard, rate in peer.rates.items()},
        salt=salt,
    )


def _assign(
    free: Iterable[Lease],
    holdings: _Holdings,
    group: WorkerGroup,
    passed: Mapping[ShardId, Collection[WorkerId]],
) -> Iterator[tuple[Lease, WorkerId | None]]:
    """Each free lease and the worker that should take it; None if no worker can."""
    for lease in free:
        worker = _next_owner(lease, holdings, group, passed.get(lease.shard, ()))
        if worker is not None:
            holdings.give(worker, lease.shard)
        yield lease, worker


def _next_owner(
    lease: Lease, holdings: _Holdings, group: WorkerGroup, passed: Collection[WorkerId]
) -> WorkerId | None:
    if not group.peers:
        return None
    if lease.owner == group.me and group.me in group.peers:
        return group.me
    able = _able_to_take(lease, group, passed)
    asking = [worker for worker in able if lease.shard in group.peers[worker].requests]
    return holdings.fewest(asking or able)


def _able_to_take(lease: Lease, group: WorkerGroup, passed: Collection[WorkerId]) -> list[WorkerId]:
    """Peers that can take the lease now, as far as this worker knows; all peers if there are none, so that one takes it later."""
    unaware = group.unaware.get(lease.owner, frozenset()) if lease.owner is not None else frozenset()
    late = {*group.silent, *unaware, *passed}
    return [worker for worker in group.peers if worker == group.me or worker not in late] or [*group.peers]


def _to_give_up(holdings: _Holdings, group: WorkerGroup, running: Collection[ShardId]) -> Iterator[ShardId]:
    """Shards that others requested, unless those workers have more shards already: a request may be out of date."""
    mine = len(running)
    for worker in sorted(group.peers):
        if worker == group.me:
            continue
        for shard in sorted(group.peers[worker].requests & set(running)):
            if mine >= max(1, holdings.count(worker)):
                mine -= 1
                yield shard


def _moves(holdings: _Holdings, *, by_load: bool) -> Iterator[Move]:
    """All moves that make the assignment even. Every worker computes the same ones."""
    if len(holdings.shards) < 2:
        return
    # Each move makes the assignment more even, so the loop ends by itself. The limit is there for safety.
    even = True
    for _ in range(sum(map(len, holdings.shards.values()))):
        move = _by_count(holdings) or _by_total(holdings)
        if move is None:
            break
        even = False
        holdings.move(move)
        yield move
    if by_load and even and (move := _by_load(holdings)) is not None:
        yield move


def _by_count(holdings: _Holdings) -> Move | None:
    source, target = holdings.most(holdings.shards), holdings.fewest(holdings.shards)
    if holdings.count(source) - holdings.count(target) < 2:
        return None
    return _evening_move(holdings, source, target)


def _by_total(holdings: _Holdings) -> Move | None:
    """A move between workers whose counts differ by one in this mapping and by two or more over all mappings."""
    ceiling = -(-sum(holdings.held.values()) // len(holdings.held))
    least = min(map(len, holdings.shards.values()))
    rich = [each for each in holdings.shards if holdings.count(each) == least + 1]
    poor = [
        each for each in holdings.shards if holdings.count(each) == least and holdings.held[each] < ceiling
    ]
    if not rich or not poor:
        return None
    source = max(rich, key=lambda each: (holdings.held[each], tie_break(holdings.salt, each)))
    target = min(poor, key=lambda each: (holdings.held[each], tie_break(holdings.salt, each)))
    if holdings.held[source] - holdings.held[target] < 2:
        return None
    return _evening_move(holdings, source, target)


def _by_load(holdings: _Holdings) -> Move | None:
    """One move from the busiest worker to the least busy one, if their loads clearly differ. Later moves even out the counts."""
    source = max(holdings.load, key=lambda each: (holdings.load[each], each))
    target = min(holdings.load, key=lambda each: (holdings.load[each], each))
    gap = holdings.load[source] - holdings.load[target]
    if gap <= max(LOAD_MIN, holdings.load[source] * LOAD_GAP_MIN) or holdings.count(source) < max(
        1, holdings.count(target)
    ):
        return None
    move = _evening_move(holdings, source, target)
    rate = holdings.rates.get(move.shard, 0.0)
    # The move must bring both loads closer together, by more than rates vary by themselves.
    return move if gap * LOAD_GAP_MIN < rate < gap * (1 - LOAD_GAP_MIN) else None


def _evening_move(holdings: _Holdings, source: WorkerId, target: WorkerId) -> Move:
    """The move of the shard that brings the loads of both workers closest together."""
    wanted = (holdings.load[source] - holdings.load[target]) / 2
    shard = min(
        holdings.shards[source],
        key=lambda each: (
            abs(holdings.rates.get(each, 0.0) - wanted),
            crc32(f"{each}/{target}".encode()),
            each,
        ),
    )
    return Move(shard, source, target)
