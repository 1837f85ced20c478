"""Sharing: a maximum of all workers holds while they come, work and go, in whatever order they speak and listen."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from poller.domain.records import MappingId, WorkerId
from poller.rules.workers.quota import allowed, claim, claimed_by_others, share
from poller.rules.workers.worker_report import WorkerReport, short

QUEUE = MappingId("7d0c55a2-7a5c-4f0f-a7a5-3f6a5ee0a001")
NAME = short(QUEUE)
WORKERS = [WorkerId(f"worker-{number}") for number in range(4)]


def report(claims: int | None = None, *, leaving: bool = False) -> WorkerReport:
    """What a worker says that runs the mapping."""
    return WorkerReport(running=(NAME,), leaving=leaving, claims={} if claims is None else {NAME: claims})


def shares(maximum: int, workers: Mapping[WorkerId, WorkerReport], mapping: MappingId = QUEUE) -> list[int]:
    """The share of each worker, as they see it themselves."""
    return [
        share(mapping, maximum, worker=each, others={k: v for k, v in workers.items() if k != each})
        for each in workers
    ]


@given(st.integers(0, 2000), st.integers(1, 50))
def test_shares_differ_by_one_and_add_up_to_the_maximum(maximum: int, workers: int) -> None:
    found = shares(maximum, {WorkerId(f"worker-{number}"): report() for number in range(workers)})
    assert sum(found) == maximum
    assert max(found) - min(found) <= 1


def test_who_has_one_more_differs_between_mappings() -> None:
    workers = dict.fromkeys(
        WORKERS, WorkerReport(running=tuple(short(MappingId(f"{n}")) for n in range(200)))
    )
    first = {tuple(shares(1, workers, MappingId(f"{number}"))) for number in range(200)}
    assert len(first) == len(WORKERS)


def test_who_leaves_or_does_not_run_the_mapping_has_no_share() -> None:
    others = {
        WORKERS[1]: report(leaving=True),
        WORKERS[2]: WorkerReport(running=("another",)),
        WORKERS[3]: report(),
    }
    assert share(QUEUE, 10, worker=WORKERS[0], others=others) == 5


@pytest.mark.parametrize(("used", "claims"), [(0, 5), (5, 5), (8, 8)])
def test_a_claim_is_the_share_or_what_still_runs(used: int, claims: int) -> None:
    assert claim(5, used) == claims


def test_claims_count_of_who_runs_the_mapping_also_when_it_leaves() -> None:
    others = {
        WORKERS[1]: report(4),
        WORKERS[2]: report(3, leaving=True),
        WORKERS[3]: WorkerReport(running=("another",), claims={NAME: 9}),
    }
    assert claimed_by_others(QUEUE, 10, others) == 7


def test_who_claims_nothing_because_it_knows_of_no_maximum_counts_with_a_share() -> None:
    assert claimed_by_others(QUEUE, 10, {WORKERS[1]: report()}) == 5
    assert claimed_by_others(QUEUE, 10, {WORKERS[1]: report(), WORKERS[2]: report(0)}) == 4


@pytest.mark.parametrize(
    ("mine", "others", "may"),
    [(5, 5, 5), (5, 7, 3), (5, 10, 0), (5, 14, 0), (2, 0, 2), (8, 0, 5), (0, 0, 0)],
)
def test_only_what_was_claimed_and_the_others_leave_may_be_used(mine: int, others: int, may: int) -> None:
    assert allowed(10, share=5, mine=mine, others=others) == may


@dataclass
class Member:
    """A worker that speaks, listens, begins and ends calls when it is told to."""

    name: WorkerId
    written: WorkerReport = field(default_factory=WorkerReport)
    shown: WorkerReport = field(default_factory=WorkerReport)
    others: dict[WorkerId, WorkerReport] | None = None
    used: int = 0
    leaving: bool = False

    def share(self, maximum: int) -> int:
        """As the worker sees it."""
        if self.others is None or self.leaving:
            return 0
        return share(QUEUE, maximum, worker=self.name, others=self.others)

    def speak(self, rows: dict[WorkerId, WorkerReport], maximum: int) -> None:
        """A heartbeat."""
        self.written = rows[self.name] = report(claim(self.share(maximum), self.used), leaving=self.leaving)

    def listen(self, rows: dict[WorkerId, WorkerReport]) -> None:
        """A look at the others' heartbeats."""
        if self.name in rows:
            self.others = {each: row for each, row in rows.items() if each != self.name}
            self.shown = self.written

    def allowed(self, maximum: int) -> int:
        """What may be in use."""
        if self.others is None:
            return 0
        mine = self.shown.claims.get(NAME, 0)
        others = claimed_by_others(QUEUE, maximum, self.others)
        return allowed(maximum, share=self.share(maximum), mine=mine, others=others)


STEPS = 400
MANY = settings(max_examples=200)


def play(maximum: int, rng: Random) -> list[Member]:
    """Steps at random: speak, listen, begin as many calls as may be, end one, quit. Who has quit may come again."""
    rows: dict[WorkerId, WorkerReport] = {}
    members = [Member(each) for each in WORKERS]
    for _ in range(STEPS):
        number = rng.randrange(len(members))
        member = members[number]
        match rng.choice("sssslllbbbbeeq"):
            case "s":
                member.speak(rows, maximum)
            case "l":
                member.listen(rows)
            case "b":
                member.used = max(member.used, member.allowed(maximum))
            case "e" if member.used:
                member.used -= 1
            case "q" if member.name in rows:
                member.leaving = True
                if not member.used:
                    del rows[member.name]
                    members[number] = Member(member.name)
        assert sum(each.used for each in members) <= maximum
    return members


@MANY
@given(st.integers(1, 9), st.randoms(use_true_random=False))
def test_never_more_than_the_maximum_is_in_use_whoever_comes_and_goes(maximum: int, rng: Random) -> None:
    play(maximum, rng)


@MANY
@given(st.integers(1, 9), st.randoms(use_true_random=False))
def test_all_of_the_maximum_can_be_used_again_when_the_old_calls_have_ended(
    maximum: int, rng: Random
) -> None:
    staying = [each for each in play(maximum, rng) if not each.leaving]
    rows: dict[WorkerId, WorkerReport] = {}
    for each in staying:
        each.used = 0
    for _ in range(4):
        for each in staying:
            each.speak(rows, maximum)
        for each in staying:
            each.listen(rows)
    assert sum(each.allowed(maximum) for each in staying) == (maximum if staying else 0)
