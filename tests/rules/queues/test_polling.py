"""Long polls only where nobody misses the slot that they hold."""

import pytest

from poller.rules.queues.polling import PAUSE_S_MAX, Share, longest_s, pause_s, poll_wait_s


def share(limit: int | None = 4, free: int | None = 3, *, waiting: int = 0, alone: bool = False) -> Share:
    return Share(limit=limit, free=free, waiting=waiting, alone=alone)


@pytest.mark.parametrize(
    ("visibility_s", "wait_s"),
    [(0, 1), (1, 1), (2, 1), (3, 2), (6, 4), (29, 19), (30, 20), (300, 20)],
)
def test_a_poll_takes_two_thirds_of_the_visibility_timeout_at_most(visibility_s: int, wait_s: int) -> None:
    assert longest_s(visibility_s, 30.0) == wait_s
    assert poll_wait_s(share(None, None), visibility_s=visibility_s, grace_s=30.0) == wait_s


@pytest.mark.parametrize(
    ("case", "wait_s"),
    [
        (share(None, None, waiting=0), 20),
        (share(1, 0, alone=True), 20),
        (share(1, 0), 1),
        (share(2, 1), 20),
        (share(2, 0), 1),
        (share(4, 2), 20),
        (share(4, 1), 1),
        (share(4, 3, waiting=1), 0),
        (share(1, 0, waiting=2, alone=True), 20),
        (share(100, 50), 20),
        (share(100, 49), 1),
    ],
)
def test_half_of_a_shared_functions_slots_stay_free_of_long_polls(case: Share, wait_s: int) -> None:
    assert poll_wait_s(case, visibility_s=30, grace_s=30.0) == wait_s


def test_pauses_between_empty_short_polls_grow_to_a_limit() -> None:
    assert [pause_s(count) for count in range(1, 7)] == [1.0, 2.0, 4.0, 8.0, PAUSE_S_MAX, PAUSE_S_MAX]
    assert pause_s(10_000) == PAUSE_S_MAX
