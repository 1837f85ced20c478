"""Operations at any moment on a queue: order holds, nothing is lost but what was skipped, and a paused group or mapping does not run."""

from collections import Counter

import pytest

from tests.simulation.worlds.operated_queues import run_operated

SEEDS = 24
DENIED = 12
CANCELLED = (121, 132, 138)
"""In these a skip is cancelled before its message is received, which was skipped all the same."""
SEEN = (
    "skip asked",
    "skip done",
    "skip failed",
    "skip ended",
    "retry done",
    "retry failed",
    "pause asked",
    "pause ended",
    "moved",
    "discarded",
    "crash",
    "restart",
    "skip cancelled",
    "pause done",
    *(
        f"{action} of a {target} while {state}"
        for action in ("retry", "skip", "pause")
        for target in ("queue", "group")
        for state in ("idle", "running", "waiting", "paused")
        if (action, target, state) != ("skip", "queue", "idle")
    ),
    *(
        f"resume of a {target} while {state}"
        for target in ("queue", "group")
        for state in ("idle", "waiting", "paused")
    ),
)
"""What these seeds must show together. A skip of a queue names messages, so that such a queue is not idle."""


@pytest.mark.parametrize("seed", [*range(SEEDS), *CANCELLED])
def test_order_holds_and_only_skipped_messages_are_missing(seed: int) -> None:
    run_operated(seed)


@pytest.mark.parametrize("seed", range(DENIED))
def test_order_holds_and_messages_are_copied_once_while_the_queue_allows_no_deletes(seed: int) -> None:
    run_operated(seed, denies=True)


def test_the_seeds_show_what_they_are_for() -> None:
    seen = sum((run_operated(seed) for seed in range(SEEDS)), Counter[str]())
    assert [each for each in SEEN if not seen[each]] == []
