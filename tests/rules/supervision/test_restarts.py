"""When a process that has ended is started again, and when the daemon gives up."""

import random

import pytest

from poller.rules.supervision.restarts import (
    RESTART_BACKOFF,
    STARTS_MAX,
    STEADY_S,
    WRONG_CONFIGURATION,
    Beginning,
    Restarts,
    after_end,
    gives_up,
)


class Latest:
    """The longest wait that there can be."""

    def uniform(self, a: float, b: float, /) -> float:
        return b


def test_a_process_that_ends_soon_after_each_start_waits_twice_as_long_each_time() -> None:
    restarts, waits = Restarts(), []
    for _ in range(9):
        restarts, wait_s = after_end(restarts, ran_s=1.0, rng=Latest())
        waits.append(wait_s)
    assert waits == [1, 2, 4, 8, 16, 32, 60, 60, 60]
    assert restarts.count == 9


def test_a_process_that_ran_for_a_while_starts_again_almost_at_once_and_all_restarts_are_counted() -> None:
    restarts, wait_s = after_end(Restarts(count=7, in_a_row=6), ran_s=STEADY_S, rng=Latest())
    assert wait_s == RESTART_BACKOFF.base_s
    assert restarts == Restarts(count=8, in_a_row=1)


def test_no_wait_is_shorter_than_half_of_the_longest_one() -> None:
    for seed in range(100):
        _, wait_s = after_end(Restarts(in_a_row=3), ran_s=0.0, rng=random.Random(seed))
        assert 4.0 <= wait_s <= 8.0


@pytest.mark.parametrize("status", [0, 1, -9, 137])
def test_the_daemon_gives_up_after_some_starts_if_no_process_has_ever_worked(status: int) -> None:
    beginning = Beginning()
    ends = []
    for _ in range(STARTS_MAX):
        beginning = beginning.ended()
        ends.append(gives_up(beginning, status))
    assert ends == [False] * (STARTS_MAX - 1) + [True]


def test_a_wrong_configuration_at_the_start_ends_the_daemon_at_once() -> None:
    assert gives_up(Beginning().ended(), WRONG_CONFIGURATION)


def test_once_a_process_has_worked_the_daemon_never_gives_up() -> None:
    beginning = Beginning().ended().begun()
    for _ in range(100):
        beginning = beginning.ended()
        assert not gives_up(beginning, WRONG_CONFIGURATION)
