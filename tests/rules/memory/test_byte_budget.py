"""The bytes of a daemon are shared: in turn, never more than there are but for small units, and nobody waits for ever."""

from dataclasses import dataclass, field
from math import inf
from random import Random

import pytest

from poller.domain.records import Monotonic
from poller.rules.memory.byte_budget import (
    HOLDING_PATIENCE_S,
    IDLE_PATIENCE_S,
    UNIT_BYTES,
    Account,
    ByteBudget,
    Patience,
    Want,
)

MB = 1024 * 1024
NOW = Monotonic(0.0)


def test_room_is_granted_at_once_while_there_is_some() -> None:
    budget = ByteBudget(64 * MB)
    want = budget.want(budget.open(), least=1000, most=5 * MB, now=NOW)
    assert want.granted == 5 * MB
    assert budget.used == 5 * MB
    budget.give_back(want)
    assert budget.used == 0


def test_what_is_free_is_divided_among_those_who_wait() -> None:
    budget = ByteBudget(64 * MB)
    full = budget.open()
    budget.hold(full, 64 * MB - 1000)
    wants = [budget.want(budget.open(), least=MB, most=60 * MB, now=NOW) for _ in range(4)]
    assert [each.granted for each in wants] == [None] * 4
    budget.hold(full, 0)
    assert all(each.granted is not None and each.granted > 15 * MB for each in wants)
    assert budget.used <= budget.total


def test_who_holds_nothing_comes_before_who_holds_something() -> None:
    budget = ByteBudget(64 * MB)
    full, holding, idle = budget.open(), budget.open(), budget.open()
    budget.hold(holding, MB)
    budget.hold(full, 63 * MB)
    first = budget.want(holding, least=4 * MB, most=4 * MB, now=NOW)
    second = budget.want(idle, least=4 * MB, most=4 * MB, now=NOW)
    budget.hold(full, 57 * MB)
    assert (first.granted, second.granted) == (None, 4 * MB)


def test_an_answer_comes_before_all_calls_and_its_estimate_is_given_back_first() -> None:
    budget = ByteBudget(64 * MB)
    full, reader = budget.open(), budget.open()
    call = budget.want(reader, least=MB, most=MB, now=NOW)
    budget.hold(full, 63 * MB)
    other = budget.want(budget.open(), least=8 * MB, most=8 * MB, now=NOW)
    answer = budget.exchange(call, 10 * MB, now=NOW)
    assert budget.used == 63 * MB, "nothing is reserved for who waits"
    budget.hold(full, 50 * MB)
    assert (answer.granted, other.granted) == (10 * MB, UNIT_BYTES)


def test_a_small_unit_is_kept_for_who_holds_nothing() -> None:
    budget = ByteBudget(64 * MB)
    full, idle = budget.open(), budget.open()
    budget.hold(full, 64 * MB - 2 * UNIT_BYTES)
    assert budget.want(full, least=UNIT_BYTES, most=MB, now=NOW).granted is None
    assert budget.want(idle, least=UNIT_BYTES, most=MB, now=NOW).granted == UNIT_BYTES


@pytest.mark.parametrize(("held", "patience_s"), [(0, IDLE_PATIENCE_S), (1, HOLDING_PATIENCE_S)])
def test_who_has_waited_long_is_granted_the_least_whatever_is_used(held: int, patience_s: float) -> None:
    budget = ByteBudget(64 * MB)
    full, slow = budget.open(), budget.open()
    budget.hold(full, 64 * MB)
    budget.hold(slow, held)
    want = budget.want(slow, least=UNIT_BYTES, most=MB, now=NOW, patience=Patience())
    assert budget.pressing_at(want) == patience_s
    assert not budget.press(want, now=Monotonic(patience_s - 0.01))
    assert budget.press(want, now=Monotonic(patience_s))
    assert want.granted == UNIT_BYTES
    again = budget.want(slow, least=UNIT_BYTES, most=MB, now=Monotonic(patience_s), patience=Patience())
    assert budget.pressing_at(again) == patience_s + HOLDING_PATIENCE_S, "one at a time"


def test_a_call_that_does_not_wait_leaves_its_account_its_turn() -> None:
    budget = ByteBudget(64 * MB)
    full, first, second = budget.open(), budget.open(), budget.open()
    for each in (first, second):
        budget.hold(each, 1)
    budget.hold(full, 64 * MB)
    waiting = budget.want(first, least=4 * MB, most=4 * MB, now=NOW)
    other = budget.want(second, least=4 * MB, most=4 * MB, now=NOW)
    budget.give_back(budget.want(first, least=4 * MB, most=4 * MB, now=NOW))
    budget.hold(full, 57 * MB)
    assert (waiting.granted, other.granted) == (4 * MB, None)


def test_who_uses_more_than_its_part_and_needs_more_than_is_free_holds_up_nobody() -> None:
    budget = ByteBudget(64 * MB)
    large, small, full, _ = (budget.open() for _ in range(4))
    budget.hold(large, 24 * MB)
    budget.hold(full, 39 * MB)
    wanted = budget.want(large, least=3 * MB, most=3 * MB, now=NOW, patience=Patience())
    budget.hold(small, 17 * MB)
    other = budget.want(small, least=UNIT_BYTES, most=UNIT_BYTES, now=NOW, patience=Patience())
    budget.hold(full, 20 * MB)
    assert budget.pressing_at(other) == inf, "it would wait until something is settled"
    assert (wanted.granted, other.granted) == (None, UNIT_BYTES)
    budget.hold(large, MB)
    assert wanted.granted == 3 * MB


@pytest.mark.parametrize("answer", [False, True])
def test_who_waits_for_more_than_a_smaller_whole_waits_for_as_much_as_that_has(answer: bool) -> None:
    budget = ByteBudget(512 * MB)
    full, holding, small = budget.open(), budget.open(), budget.open()
    for each in (holding, small):
        budget.hold(each, 1)
    budget.hold(full, 512 * MB)
    large = budget.want(holding, least=300 * MB, most=300 * MB, now=NOW, answer=answer)
    behind = budget.want(small, least=MB, most=MB, now=NOW)
    budget.resize(64 * MB)
    budget.hold(full, 0)
    assert (large.granted, behind.granted) == (48 * MB, MB), "its account holds something all the time"


@dataclass
class Crowd:
    """Readers that do anything in any order, some of which never settle what they hold."""

    rng: Random
    budget: ByteBudget
    accounts: list[Account] = field(default_factory=list)
    wants: list[Want] = field(default_factory=list)
    now: float = 0.0

    def step(self) -> None:
        """One thing that may happen."""
        rng, budget = self.rng, self.budget
        self.now += rng.random() / 5
        match rng.randrange(7):
            case 0 if len(self.accounts) < 20:
                self.accounts.append(budget.open())
            case 1 if self.accounts:
                least = rng.randrange(1, UNIT_BYTES)
                account = rng.choice(self.accounts)
                self.wants.append(
                    budget.want(account, least=least, most=rng.randrange(8 * MB), now=Monotonic(self.now))
                )
            case 2 if self.wants:
                want = self.wants.pop(rng.randrange(len(self.wants)))
                held = want.account.held + rng.randint(0, want.granted or 0)
                # What a call has brought is counted before its room is given back.
                budget.hold(want.account, held)
                budget.give_back(want)
            case 3 if self.wants:
                budget.give_back(self.wants.pop(rng.randrange(len(self.wants))))
            case 4 if self.accounts:
                account = rng.choice(self.accounts)
                if self.accounts.index(account) % 3:
                    budget.hold(account, rng.randint(0, account.held))
            case 5 if self.wants:
                want = self.wants.pop(rng.randrange(len(self.wants)))
                if want.granted:
                    self.wants.append(
                        budget.exchange(want, rng.randrange(1, 20 * MB), now=Monotonic(self.now))
                    )
                else:
                    self.wants.append(want)
            case 6 if granted := [each for each in self.wants if each.granted]:
                budget.give_back(rng.choice(granted), keep=rng.randrange(1, MB))


@pytest.mark.parametrize("seed", range(60))
def test_the_whole_is_never_exceeded_and_everything_comes_back(seed: int) -> None:
    crowd = Crowd(Random(seed), ByteBudget(64 * MB))
    budget = crowd.budget
    for _ in range(500):
        crowd.step()
        assert budget.used == sum(each.used for each in crowd.accounts)
        assert budget.used <= budget.total
        assert budget.waiting == sum(each.granted is None for each in crowd.wants)
        if budget.waiting and budget.used <= budget.total // 8:
            pytest.fail("somebody waits although nearly all is free")
    for want in crowd.wants:
        budget.give_back(want)
    for account in crowd.accounts:
        budget.close(account)
    assert (budget.used, budget.waiting, budget.free) == (0, 0, budget.total)
