"""Owns which worker reads which shards: what this worker takes, asks for and gives up (docs/decisions/0007).

No worker leads. Every worker computes the whole assignment from the same rows of the store, with the same rules and the same
tie-breaks, and comes to the same result. Then it does only its own part. If two see different rows for a moment, both may try to take one
lease, and the store lets one of them succeed.

A lease is free if it has no owner, or a dead one, or this worker as its owner from before a restart. The last kind this worker
takes itself. Any other goes to a worker that has asked for it, or else to the one that has fewest. Workers that may not be able to
take it now are passed over: those not heard of for some heartbeats, those that cannot know yet that the owner is dead, and those
that did not take it in time (`offers`).

A lease with a living owner moves for a reason only:

1. Counts: two workers differ by two shards or more of this mapping.
2. Totals: counts differ by one, and the worker with more here also has more over all mappings.
3. Load, if counts are even: the busiest and the idlest worker differ clearly in records a second.

The worker that gains asks: it puts the move into its heartbeat. The owner answers by letting go: it finishes its batch, saves, and
releases the lease, which is then free for the one that asked. Each step makes the assignment more even, so that moves come to an
end. While workers come and go, nobody asks.
"""

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import blake2b
from types import MappingProxyType
from zlib import crc32

from poller.domain.records import ShardId, WorkerId
from poller.domain.rows import Lease

LOAD_GAP_MIN = 0.25
"""Part of the higher load. Loads that differ by less count as equal, because measured rates vary that much by themselves."""
LOAD_MIN = 20.0
"""Records a second. A smaller difference is not worth moving a shard."""
NOBODY: Mapping[ShardId, Collection[WorkerId]] = MappingProxyType({})


@dataclass(frozen=True, slots=True, kw_only=True)
class Peer:
    """A live worker that can work on the mapping.

    `held` (leases) and `load` (records a second) count all its mappings. `wishes` (the shards that it asks for) and `rates`
    (records a second of its busiest shards) are about this mapping only.
    """

    held: int = 0
    load: float = 0.0
    wishes: frozenset[ShardId] = frozenset()
    rates: Mapping[ShardId, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerGroup:
    """The workers of one mapping as `me` sees them.

    `peers` can get leases; `me` is one of them unless it cannot. `others` are alive and keep their leases, but get no more:
    they are leaving, or they cannot read the source. `leaving` are those of them that are leaving. `certain`: a worker that is
    in neither is gone. `calm`: no worker came or went a short time ago. `silent` workers have not been heard of for some
    heartbeats. `unaware` names, for each dead worker, the workers that came after its last heartbeat: they cannot know yet
    that it is dead.
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
    """What this worker does now: leases to `take`, moves to ask for (`wish`), shards to give up (`give`).

    `left` are free leases that other workers should take, each with its worker. `settled`: no worker has anything to take,
    move or give up, so there is no need to look again soon.
    """

    take: tuple[Lease, ...] = ()
    left: tuple[tuple[Lease, WorkerId], ...] = ()
    wish: tuple[Move, ...] = ()
    give: frozenset[ShardId] = frozenset()
    settled: bool = True


@dataclass(slots=True)
class _Hands:
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
        return min(among, key=lambda each: (self.count(each), self.held[each], lot(self.salt, each)))

    def most(self, among: Iterable[WorkerId]) -> WorkerId:
        return max(among, key=lambda each: (self.count(each), self.held[each], lot(self.salt, each)))


def decide(
    leases: Sequence[Lease],
    team: WorkerGroup,
    *,
    salt: str,
    running: Collection[ShardId],
    lost: Collection[ShardId] = (),
    passed: Mapping[ShardId, Collection[WorkerId]] = NOBODY,
    by_load: bool = False,
) -> Decision:
    """What `team.me` does about the `leases` whose shards can be worked on.

    `salt` (the mapping's id) breaks ties in another way in each mapping. `running` shards are worked on here. `lost` shards
    were taken by another worker, which keeps them if the group is not certain of who is gone. `passed` names, for a free
    shard, the workers that should have taken it and did not in time. `by_load`: also even out loads.
    """
    hands = _hands(leases, team, salt=salt, running=running)
    free = sorted(
        (each for each in leases if each.shard not in running and _free(each, team, lost)),
        key=lambda each: each.shard,
    )
    dealt = tuple(_dealt(free, hands, team, passed))
    take = tuple(lease for lease, worker in dealt if worker == team.me)
    give = frozenset(_given(hands, team, running))
    moves = tuple(_moves(hands, by_load=by_load)) if team.calm else ()
    mine = [move for move in moves if move.target == team.me]
    waits = any(lease.owner in team.leaving for lease in leases)
    return Decision(
        take=take,
        left=tuple((lease, worker) for lease, worker in dealt if worker not in (None, team.me)),
        wish=tuple(mine[: -(-len(mine) // 2)]),
        give=give,
        settled=team.calm and not moves and not give and not waits and len(take) == len(free),
    )


def stolen(leases: Iterable[Lease], held: Iterable[Lease]) -> frozenset[ShardId]:
    """Shards that are worked on here although the store says that another worker has taken them."""
    epochs = {lease.shard: lease.epoch for lease in leases}
    return frozenset(lease.shard for lease in held if epochs.get(lease.shard, lease.epoch) != lease.epoch)


def lot(salt: str, name: str) -> bytes:
    """Breaks ties: it looks random, and is the same on every machine."""
    return blake2b(f"{salt}/{name}".encode(), digest_size=16).digest()


def unknown(leases: Iterable[Lease], team: WorkerGroup) -> bool:
    """Whether a lease has an owner that is not in the group: it is gone, or it has just come."""
    return any(lease.owner is not None and not team.alive(lease.owner) for lease in leases)


def _free(lease: Lease, team: WorkerGroup, lost: Collection[ShardId]) -> bool:
    if lease.owner is None or lease.owner == team.me:
        return True
    return not team.alive(lease.owner) and (team.certain or lease.shard not in lost)


def _hands(leases: Sequence[Lease], team: WorkerGroup, *, salt: str, running: Collection[ShardId]) -> _Hands:
    shards: dict[WorkerId, set[ShardId]] = {worker: set() for worker in team.peers}
    for lease in leases:
        owner = team.me if lease.shard in running else lease.owner
        if owner in shards and (owner != team.me or lease.shard in running):
            shards[owner].add(lease.shard)
    return _Hands(
        shards=shards,
        held={worker: peer.held for worker, peer in team.peers.items()},
        load={worker: peer.load for worker, peer in team.peers.items()},
        rates={shard: rate for peer in team.peers.values() for shard, rate in peer.rates.items()},
        salt=salt,
    )


def _dealt(
    free: Iterable[Lease], hands: _Hands, team: WorkerGroup, passed: Mapping[ShardId, Collection[WorkerId]]
) -> Iterator[tuple[Lease, WorkerId | None]]:
    """Each free lease and the worker that should take it: its last owner, a worker that asked for it, or the one with fewest."""
    for lease in free:
        worker = _heir(lease, hands, team, passed.get(lease.shard, ()))
        if worker is not None:
            hands.give(worker, lease.shard)
        yield lease, worker


def _heir(lease: Lease, hands: _Hands, team: WorkerGroup, passed: Collection[WorkerId]) -> WorkerId | None:
    if not team.peers:
        return None
    if lease.owner == team.me and team.me in team.peers:
        return team.me
    able = _ready(lease, team, passed)
    wishing = [worker for worker in able if lease.shard in team.peers[worker].wishes]
    return hands.fewest(wishing or able)


def _ready(lease: Lease, team: WorkerGroup, passed: Collection[WorkerId]) -> list[WorkerId]:
    """Peers that can take the lease now, as far as this worker knows. A shard must not wait for one that cannot."""
    unaware = team.unaware.get(lease.owner, frozenset()) if lease.owner is not None else frozenset()
    late = {*team.silent, *unaware, *passed}
    return [worker for worker in team.peers if worker == team.me or worker not in late] or [*team.peers]


def _given(hands: _Hands, team: WorkerGroup, running: Collection[ShardId]) -> Iterator[ShardId]:
    """Shards that others asked for, unless they have more than this worker already: a request may be out of date."""
    mine = len(running)
    for worker in sorted(team.peers):
        if worker == team.me:
            continue
        for shard in sorted(team.peers[worker].wishes & set(running)):
            if mine >= max(1, hands.count(worker)):
                mine -= 1
                yield shard


def _moves(hands: _Hands, *, by_load: bool) -> Iterator[Move]:
    """All moves that make the assignment even. Every worker computes the same ones."""
    if len(hands.shards) < 2:
        return
    # Each move makes the assignment more even, so the loop ends by itself. The limit is there for safety.
    even = True
    for _ in range(sum(map(len, hands.shards.values()))):
        move = _by_count(hands) or _by_total(hands)
        if move is None:
            break
        even = False
        hands.move(move)
        yield move
    if by_load and even and (move := _by_load(hands)) is not None:
        yield move


def _by_count(hands: _Hands) -> Move | None:
    source, target = hands.most(hands.shards), hands.fewest(hands.shards)
    if hands.count(source) - hands.count(target) < 2:
        return None
    return _evening(hands, source, target)


def _by_total(hands: _Hands) -> Move | None:
    """A move between workers whose counts differ by one in this mapping and by two or more over all mappings."""
    ceiling = -(-sum(hands.held.values()) // len(hands.held))
    least = min(map(len, hands.shards.values()))
    rich = [each for each in hands.shards if hands.count(each) == least + 1]
    poor = [each for each in hands.shards if hands.count(each) == least and hands.held[each] < ceiling]
    if not rich or not poor:
        return None
    source = max(rich, key=lambda each: (hands.held[each], lot(hands.salt, each)))
    target = min(poor, key=lambda each: (hands.held[each], lot(hands.salt, each)))
    if hands.held[source] - hands.held[target] < 2:
        return None
    return _evening(hands, source, target)


def _by_load(hands: _Hands) -> Move | None:
    """One move from the busiest worker to the least busy one, if their loads clearly differ. Later moves even out the counts."""
    source = max(hands.load, key=lambda each: (hands.load[each], each))
    target = min(hands.load, key=lambda each: (hands.load[each], each))
    gap = hands.load[source] - hands.load[target]
    if gap <= max(LOAD_MIN, hands.load[source] * LOAD_GAP_MIN) or hands.count(source) < max(
        1, hands.count(target)
    ):
        return None
    move = _evening(hands, source, target)
    rate = hands.rates.get(move.shard, 0.0)
    # The move must bring both loads closer together, by more than rates vary by themselves.
    return move if gap * LOAD_GAP_MIN < rate < gap * (1 - LOAD_GAP_MIN) else None


def _evening(hands: _Hands, source: WorkerId, target: WorkerId) -> Move:
    """The move of the shard that brings the loads of both workers closest together."""
    wanted = (hands.load[source] - hands.load[target]) / 2
    shard = min(
        hands.shards[source],
        key=lambda each: (abs(hands.rates.get(each, 0.0) - wanted), crc32(f"{each}/{target}".encode()), each),
    )
    return Move(shard, source, target)
