"""Who takes, asks for and gives which leases."""

from collections.abc import Mapping
from dataclasses import replace
from random import Random

from hypothesis import given, settings
from hypothesis import strategies as st

from poller.domain.records import Position, ShardId, WorkerId
from poller.domain.rows import Checkpoint, Lease
from poller.rules.workers.assignment import (
    Decision,
    Move,
    Peer,
    WorkerGroup,
    decide,
    has_unknown_owner,
    stolen,
)

ME, OTHER, THIRD = WorkerId("me"), WorkerId("other"), WorkerId("third")
SALT = "0f4b8a5e-8b0c-4a56-9c0e-0d7d6b0c2b11"
ROUNDS_MAX = 12


def lease(name: str, owner: WorkerId | None = None, epoch: int = 0) -> Lease:
    return Lease(ShardId(name), (), Checkpoint(Position.horizon()), owner, epoch)


def shards(count: int) -> list[ShardId]:
    return [ShardId(f"shard-{number:03d}") for number in range(count)]


def group_of(*peers: WorkerId, me: WorkerId = ME, **changes: object) -> WorkerGroup:
    return replace(WorkerGroup(me=me, peers={each: Peer() for each in peers}), **changes)  # type: ignore[arg-type] # a test names fields by word


def decided(leases: list[Lease], group: WorkerGroup, **options: object) -> Decision:
    running = [each.shard for each in leases if each.owner == group.me]
    return decide(leases, group, salt=SALT, **({"running": running} | options))  # type: ignore[arg-type] # a test names options by word


def taken(decision: Decision) -> list[str]:
    return [each.shard for each in decision.take]


def test_a_lone_worker_takes_what_it_finds() -> None:
    found = [lease("a"), lease("b", OTHER, 3), lease("c", ME, 1)]
    decision = decided(found, group_of(ME), running=())
    assert taken(decision) == ["a", "b", "c"]
    assert decision.stable


def test_what_is_at_work_here_is_not_taken_again() -> None:
    assert decided([lease("a", ME, 1)], group_of(ME)) == Decision()


def test_what_a_living_worker_has_is_left_to_it() -> None:
    assert taken(decided([lease("a", OTHER, 3)], group_of(ME, OTHER))) == []
    assert taken(decided([lease("a", OTHER, 3)], group_of(ME, others=frozenset({OTHER})))) == []


def test_a_lone_worker_does_not_fight_for_what_it_lost() -> None:
    found = [lease("a", OTHER, 3), lease("b", None, 3), lease("c", ME, 3)]
    decision = decided(found, group_of(ME, certain=False), running=(), lost=["a", "b", "c"])
    assert taken(decision) == ["b", "c"]


def test_own_leases_that_are_not_at_work_are_taken_again_before_others_get_them() -> None:
    found = [lease(name, ME, 1) for name in shards(4)]
    assert len(decided(found, group_of(ME, OTHER), running=()).take) == 4


def test_free_leases_are_shared_out_so_that_every_worker_computes_the_same() -> None:
    found = [lease(name) for name in shards(10)]
    views = {each: group_of(ME, OTHER, THIRD, me=each) for each in (ME, OTHER, THIRD)}
    takes = [shard for view in views.values() for shard in taken(decided(found, view, running=()))]
    assert sorted(takes) == shards(10)
    assert sorted(len(decided(found, view, running=()).take) for view in views.values()) == [3, 3, 4]


def test_a_free_lease_goes_to_who_asked_for_it() -> None:
    found = [lease("a"), lease("b", OTHER, 1), lease("c", OTHER, 1)]
    asking = {ME: Peer(), OTHER: Peer(requests=frozenset({ShardId("a")}))}
    assert taken(decided(found, WorkerGroup(me=ME, peers=asking), running=())) == []
    assert taken(decided(found, WorkerGroup(me=OTHER, peers=asking), running=["b", "c"])) == ["a"]


def test_a_new_worker_asks_for_half_of_what_it_lacks() -> None:
    found = [lease(name, OTHER, 1) for name in shards(16)]
    decision = decided(found, group_of(ME, OTHER))
    assert len(decision.request) == 4
    assert {move.source for move in decision.request} == {OTHER}
    assert not decision.stable


def test_nobody_asks_while_workers_come_and_go() -> None:
    found = [lease(name, OTHER, 1) for name in shards(16)]
    decision = decided(found, group_of(ME, OTHER, calm=False))
    assert decision.request == ()
    assert not decision.stable


def test_an_owner_gives_what_others_ask_for() -> None:
    found = [lease(name, ME, 1) for name in shards(4)]
    asking = {ME: Peer(), OTHER: Peer(requests=frozenset(shards(2)))}
    assert decided(found, WorkerGroup(me=ME, peers=asking)).give == set(shards(2))


def test_an_owner_does_not_give_to_who_has_more() -> None:
    found = [lease("a", ME, 1), lease("b", OTHER, 1), lease("c", OTHER, 1)]
    asking = {ME: Peer(), OTHER: Peer(requests=frozenset({ShardId("a")}))}
    assert decided(found, WorkerGroup(me=ME, peers=asking)).give == frozenset()


def test_a_worker_that_leaves_gets_nothing_and_keeps_what_it_has_until_it_gives_it_up() -> None:
    found = [lease("a", OTHER, 1), lease("b")]
    group = group_of(ME, others=frozenset({OTHER}), leaving=frozenset({OTHER}))
    decision = decided(found, group)
    assert taken(decision) == ["b"]
    assert not decision.stable
    gone = group_of(OTHER, others=frozenset({ME}), leaving=frozenset({ME}))
    assert taken(decided(found, gone)) == []


def test_differences_of_one_are_even() -> None:
    found = [lease(name, OTHER if number < 3 else ME, 1) for number, name in enumerate(shards(5))]
    assert decided(found, group_of(ME, OTHER)) == Decision()


def test_mappings_with_one_shard_are_shared_by_what_workers_have_in_all() -> None:
    peers = {ME: Peer(held=0), OTHER: Peer(held=10)}
    (move,) = decided([lease("a", OTHER, 1)], WorkerGroup(me=ME, peers=peers)).request
    assert move == Move(ShardId("a"), OTHER, ME)
    peers = {ME: Peer(held=5), OTHER: Peer(held=6)}
    assert decided([lease("a", OTHER, 1)], WorkerGroup(me=ME, peers=peers)).request == ()


RATES = dict(zip(shards(6), (90.0, 60.0, 3.0, 2.0, 2.0, 1.0), strict=True))


def loaded(owners: Mapping[ShardId, WorkerId], *, me: WorkerId = ME) -> tuple[list[Lease], WorkerGroup]:
    """Leases with these owners, and the group with what they measure."""
    held = {each: [shard for shard, owner in owners.items() if owner == each] for each in (ME, OTHER)}
    peers = {
        each: Peer(
            held=len(mine),
            load=sum(RATES[shard] for shard in mine),
            rates={shard: RATES[shard] for shard in mine},
        )
        for each, mine in held.items()
    }
    return [lease(shard, owner, 1) for shard, owner in owners.items()], WorkerGroup(me=me, peers=peers)


def test_load_moves_a_busy_shard_and_then_an_idle_one_back() -> None:
    owners = dict(zip(shards(6), [OTHER] * 3 + [ME] * 3, strict=True))
    found, group = loaded(owners)
    (move,) = decided(found, group, by_load=True).request
    assert move == Move(ShardId("shard-001"), OTHER, ME)
    assert decided(found, group).request == ()
    owners[move.shard] = ME
    found, group = loaded(owners, me=OTHER)
    (back,) = decided(found, group).request
    assert (back.source, RATES[back.shard]) == (ME, 1.0)
    owners[back.shard] = OTHER
    found, group = loaded(owners)
    assert decided(found, group, by_load=True) == Decision()
    found, group = loaded(owners, me=OTHER)
    assert decided(found, group, by_load=True) == Decision()


def test_a_small_load_moves_nothing() -> None:
    owners = {ShardId("shard-002"): OTHER, ShardId("shard-003"): OTHER, ShardId("shard-005"): ME}
    found, group = loaded(owners | {ShardId("shard-004"): ME})
    assert decided(found, group, by_load=True).request == ()


def test_load_that_cannot_be_split_stays_where_it_is() -> None:
    found, group = loaded({ShardId("shard-000"): OTHER, ShardId("shard-005"): ME})
    assert decided(found, group, by_load=True).request == ()


def test_a_lease_with_another_epoch_was_stolen() -> None:
    assert stolen([lease("a", OTHER, 5)], [lease("a", ME, 4)]) == {"a"}
    assert stolen([lease("a", ME, 4)], [lease("a", ME, 4)]) == frozenset()
    assert stolen([], [lease("a", ME, 4)]) == frozenset()


def test_an_owner_outside_the_group_is_unknown() -> None:
    assert has_unknown_owner([lease("a", THIRD)], group_of(ME, OTHER))
    assert not has_unknown_owner([lease("a", OTHER), lease("b"), lease("c", ME)], group_of(ME, OTHER))


class Rehearsal:
    """Workers that decide in turn or all at once, on one list of leases, as a store would let them."""

    def __init__(self, owners: list[int | None], workers: int, held: list[int] | None = None) -> None:
        self.workers = [WorkerId(f"worker-{number}") for number in range(workers)]
        self.leases = [
            lease(name, None if owner is None else WorkerId(f"worker-{owner}"), 1)
            for name, owner in zip(shards(len(owners)), owners, strict=True)
        ]
        self.requests: dict[WorkerId, frozenset[ShardId]] = {each: frozenset() for each in self.workers}
        self.held_elsewhere = dict(zip(self.workers, held or [0] * workers, strict=True))
        self.moves = 0

    def counts(self) -> list[int]:
        return [sum(each.owner == worker for each in self.leases) for worker in self.workers]

    def view(self, me: WorkerId) -> WorkerGroup:
        counts = dict(zip(self.workers, self.counts(), strict=True))
        peers = {
            each: Peer(held=counts[each] + self.held_elsewhere[each], requests=self.requests[each])
            for each in self.workers
        }
        return WorkerGroup(me=me, peers=peers)

    def decide(self, me: WorkerId) -> Decision:
        return decided(self.leases, self.view(me))

    def round(self) -> bool:
        """All decide on the same picture, then all act; whether all said that nothing is under way."""
        decisions = {each: self.decide(each) for each in self.workers}
        takers = [shard for each in decisions.values() for shard in taken(each)]
        assert len(takers) == len(set(takers)), "two workers would take one lease"
        for me, decision in decisions.items():
            self.requests[me] = frozenset(move.shard for move in decision.request)
            for wanted in decision.take:
                self.own(wanted.shard, me)
            for shard in decision.give:
                self.own(shard, None)
                self.moves += 1
        return all(each.stable for each in decisions.values())

    def own(self, shard: ShardId, owner: WorkerId | None) -> None:
        self.leases = [replace(each, owner=owner) if each.shard == shard else each for each in self.leases]


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_any_assignment_becomes_even_soon_by_the_fewest_moves_and_stays(data: st.DataObject) -> None:
    workers = data.draw(st.integers(1, 6))
    # Owners beyond the workers are dead ones.
    owners = data.draw(st.lists(st.none() | st.integers(0, workers + 1), max_size=40))
    rehearsal = Rehearsal(owners, workers)
    alive = [sum(owner == number for owner in owners) for number in range(workers)]
    floor = len(owners) // workers
    surplus = sum(max(0, count - floor - 1) for count in alive)
    lacking = sum(max(0, floor - count) for count in alive)
    rounds = 0
    while not rehearsal.round():
        rounds += 1
        assert rounds <= 3 * ROUNDS_MAX
    assert max(rehearsal.counts()) - min(rehearsal.counts()) <= 1
    assert sum(rehearsal.counts()) == len(owners)
    assert rehearsal.moves <= max(surplus, lacking)
    before = rehearsal.leases
    assert rehearsal.round()
    assert rehearsal.leases == before


@settings(max_examples=100, deadline=None)
@given(st.lists(st.integers(0, 3), max_size=12), st.lists(st.integers(0, 30), min_size=4, max_size=4))
def test_what_workers_have_elsewhere_decides_only_between_even_assignments(
    owners: list[int | None], held: list[int]
) -> None:
    rehearsal = Rehearsal(owners, 4, held)
    rounds = 0
    while not rehearsal.round():
        rounds += 1
        assert rounds <= 3 * ROUNDS_MAX
    assert max(rehearsal.counts(), default=0) - min(rehearsal.counts(), default=0) <= 1
    assert rehearsal.round()


GONE = WorkerId("gone")


def test_leases_of_a_dead_worker_go_to_those_that_know_of_its_death() -> None:
    found = [lease(name, GONE, 3) for name in shards(4)]
    late = group_of(ME, OTHER, THIRD, unaware={GONE: frozenset({OTHER, THIRD})})
    assert taken(decided(found, late, running=())) == shards(4)
    assert decided(found, late, running=()).left == ()


def test_who_came_after_a_death_gets_other_free_leases() -> None:
    found = [lease(name) for name in shards(4)]
    late = group_of(ME, OTHER, unaware={GONE: frozenset({OTHER})})
    decision = decided(found, late, running=())
    assert len(decision.take) == 2
    assert {worker for _, worker in decision.left} == {OTHER}


def test_nothing_is_left_to_a_worker_that_is_not_heard_of() -> None:
    found = [lease("a"), lease("b", GONE, 3), lease("c")]
    group = group_of(ME, OTHER, silent=frozenset({OTHER}))
    assert taken(decided(found, group, running=())) == ["a", "b", "c"]


def test_what_somebody_did_not_take_in_time_goes_to_the_next_one() -> None:
    found = [lease(name) for name in shards(3)]
    for _, worker in decided(found, group_of(ME, OTHER, THIRD), running=()).left:
        passed = {each.shard: frozenset({worker}) for each in found}
        decision = decided(found, group_of(ME, OTHER, THIRD), running=(), passed=passed)
        assert worker not in {other for _, other in decision.left}
    everybody = {each.shard: frozenset({OTHER, THIRD}) for each in found}
    assert taken(decided(found, group_of(ME, OTHER, THIRD), running=(), passed=everybody)) == shards(3)


def test_a_worker_that_cannot_take_leases_still_says_whose_they_are() -> None:
    silent = frozenset({OTHER})
    decision = decided([lease("a")], group_of(OTHER, others=frozenset({ME}), silent=silent), running=())
    assert decision.left == ((lease("a"), OTHER),)


@settings(max_examples=100, deadline=None)
@given(st.lists(st.none() | st.integers(0, 4), min_size=1, max_size=30), st.integers())
def test_workers_with_different_pictures_do_no_harm_and_agree_in_the_end(
    owners: list[int | None], seed: int
) -> None:
    rng = Random(seed)
    rehearsal = Rehearsal(owners, 4)
    for _ in range(60):
        # One at a time, in any order, each on what the ones before left: nobody's picture is anybody else's.
        me = rng.choice(rehearsal.workers)
        decision = rehearsal.decide(me)
        rehearsal.requests[me] = frozenset(move.shard for move in decision.request)
        for wanted in decision.take:
            rehearsal.own(wanted.shard, me)
        for shard in decision.give:
            rehearsal.own(shard, None)
    rounds = 0
    while not rehearsal.round():
        rounds += 1
        assert rounds <= 3 * ROUNDS_MAX
    assert max(rehearsal.counts()) - min(rehearsal.counts()) <= 1
