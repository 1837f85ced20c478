"""Owns who works on which shards: what a worker takes, asks for and gives, such that all that look agree (DESIGN, section 3).

Every worker computes the same assignment from the same listing, so that nobody has to lead. Free leases go to whoever
has fewest. Held ones move for a reason only: first to even out counts, then what workers have over all mappings, then
measured load. A move is asked for by who gains (a wish in its heartbeat), and done by who has the lease: it finishes its
batch, saves, and gives the lease up.
"""

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import blake2b
from zlib import crc32

from poller.records import ShardId, WorkerId
from poller.rows import Lease

LOAD_GAP_MIN = 0.25
"""Loads that differ by less than this part of the higher one are even; measured rates waver that much by themselves."""
LOAD_MIN = 20.0
"""Records a second. A difference below this is not worth a shard's move."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Peer:
    """A live worker that can work on the mapping.

    `held` leases and `load` (records a second) are over all its mappings; `wishes` and `rates` (of its busiest shards, records
    a second) are of this mapping.
    """

    held: int = 0
    load: float = 0.0
    wishes: frozenset[ShardId] = frozenset()
    rates: Mapping[ShardId, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Team:
    """The workers of one mapping as `me` sees them.

    `peers` get leases (me among them, unless I may not). `others` are alive and keep what they have without getting more:
    they leave, or cannot read the source. `certain`: whoever is in neither is gone. `calm`: nobody came or went just now.
    """

    me: WorkerId
    peers: Mapping[WorkerId, Peer]
    others: frozenset[WorkerId] = frozenset()
    leaving: frozenset[WorkerId] = frozenset()
    certain: bool = True
    calm: bool = True

    def alive(self, worker: WorkerId) -> bool:
        """Whether a worker may be at work."""
        return worker in self.peers or worker in self.others


@dataclass(frozen=True, slots=True)
class Move:
    """A shard that should change hands."""

    shard: ShardId
    source: WorkerId
    target: WorkerId


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """What to do now: leases to `take`, moves to me to ask for (`wish`), shards to `give`.

    `settled` when nothing is under way for anybody, so that there is no need to look again soon.
    """

    take: tuple[Lease, ...] = ()
    wish: tuple[Move, ...] = ()
    give: frozenset[ShardId] = frozenset()
    settled: bool = True


@dataclass(slots=True)
class _Hands:
    """Who has what; changes as the assignment is computed."""

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
    team: Team,
    *,
    salt: str,
    running: Collection[ShardId],
    lost: Collection[ShardId] = (),
    by_load: bool = False,
) -> Decision:
    """What `team.me` does about the `leases` that may be worked on.

    `salt` (the mapping's id) makes ties fall differently in different mappings. `running` shards are at work here; `lost`
    ones somebody took, who keeps them if the team is not certain of who is gone. `by_load`: whether to look at load, too.
    """
    hands = _hands(leases, team, salt=salt, running=running)
    free = sorted(
        (each for each in leases if each.shard not in running and _free(each, team, lost)),
        key=lambda each: each.shard,
    )
    take = tuple(lease for lease, worker in _dealt(free, hands, team) if worker == team.me)
    give = frozenset(_given(hands, team, running))
    moves = tuple(_moves(hands, by_load=by_load)) if team.calm else ()
    mine = [move for move in moves if move.target == team.me]
    waits = any(lease.owner in team.leaving for lease in leases)
    return Decision(
        take=take,
        wish=tuple(mine[: -(-len(mine) // 2)]),
        give=give,
        settled=team.calm and not moves and not give and not waits and len(take) == len(free),
    )


def stolen(leases: Iterable[Lease], held: Iterable[Lease]) -> frozenset[ShardId]:
    """Shards that are worked on here although the store says that somebody else took them since."""
    epochs = {lease.shard: lease.epoch for lease in leases}
    return frozenset(lease.shard for lease in held if epochs.get(lease.shard, lease.epoch) != lease.epoch)


def lot(salt: str, name: str) -> bytes:
    """What looks drawn, and is the same on every machine."""
    return blake2b(f"{salt}/{name}".encode(), digest_size=16).digest()


def unknown(leases: Iterable[Lease], team: Team) -> bool:
    """Whether a lease has an owner that the team does not know: somebody who is gone, or who has just come."""
    return any(lease.owner is not None and not team.alive(lease.owner) for lease in leases)


def _free(lease: Lease, team: Team, lost: Collection[ShardId]) -> bool:
    if lease.owner is None or lease.owner == team.me:
        return True
    return not team.alive(lease.owner) and (team.certain or lease.shard not in lost)


def _hands(leases: Sequence[Lease], team: Team, *, salt: str, running: Collection[ShardId]) -> _Hands:
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


def _dealt(free: Iterable[Lease], hands: _Hands, team: Team) -> Iterator[tuple[Lease, WorkerId | None]]:
    """Each free lease and who shall have it: its last owner, who asked for it, or who has fewest."""
    for lease in free:
        worker = _heir(lease, hands, team)
        if worker is not None:
            hands.give(worker, lease.shard)
        yield lease, worker


def _heir(lease: Lease, hands: _Hands, team: Team) -> WorkerId | None:
    if not team.peers:
        return None
    if lease.owner == team.me and team.me in team.peers:
        return team.me
    wishing = [worker for worker, peer in team.peers.items() if lease.shard in peer.wishes]
    return hands.fewest(wishing or team.peers)


def _given(hands: _Hands, team: Team, running: Collection[ShardId]) -> Iterator[ShardId]:
    """What others asked for, as far as they do not have more than this worker: a wish may be out of date."""
    mine = len(running)
    for worker in sorted(team.peers):
        if worker == team.me:
            continue
        for shard in sorted(team.peers[worker].wishes & set(running)):
            if mine >= max(1, hands.count(worker)):
                mine -= 1
                yield shard


def _moves(hands: _Hands, *, by_load: bool) -> Iterator[Move]:
    """All moves that make the assignment even, fewest first; the same for everybody who computes it."""
    if len(hands.shards) < 2:
        return
    # Each step lessens the unevenness, so that this ends; the bound only says so in numbers.
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
    """A move between workers whose counts differ by one here and by more over all mappings."""
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
    """One move from the busiest worker to the idlest, if both are clearly apart; counts even out afterwards."""
    source = max(hands.load, key=lambda each: (hands.load[each], each))
    target = min(hands.load, key=lambda each: (hands.load[each], each))
    gap = hands.load[source] - hands.load[target]
    if gap <= max(LOAD_MIN, hands.load[source] * LOAD_GAP_MIN) or hands.count(source) < max(
        1, hands.count(target)
    ):
        return None
    move = _evening(hands, source, target)
    rate = hands.rates.get(move.shard, 0.0)
    # What moves must leave both closer together, by more than rates waver.
    return move if gap * LOAD_GAP_MIN < rate < gap * (1 - LOAD_GAP_MIN) else None


def _evening(hands: _Hands, source: WorkerId, target: WorkerId) -> Move:
    """The shard whose move brings the loads of both closest together."""
    wanted = (hands.load[source] - hands.load[target]) / 2
    shard = min(
        hands.shards[source],
        key=lambda each: (abs(hands.rates.get(each, 0.0) - wanted), crc32(f"{each}/{target}".encode()), each),
    )
    return Move(shard, source, target)
