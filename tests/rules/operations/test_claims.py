"""Which worker carries out an operation that takes long, and to whom it hands it over."""

from dataclasses import replace

import pytest

from poller.domain.operations import OperationState
from poller.domain.records import WorkerId
from poller.rules.operations.claims import claim, claimable, claimed_by, hand_over
from tests.rules.operations.build import ANN, BOB, accepted

CAT = WorkerId("cat")
SEEK = accepted({"action": "seek", "to": "TRIM_HORIZON"})


@pytest.mark.parametrize(
    ("worker", "alive", "following"),
    [
        (ANN, {ANN, BOB, CAT}, BOB),
        (CAT, {ANN, BOB, CAT}, ANN),
        (BOB, {ANN, CAT}, CAT),
        (ANN, {ANN}, ANN),
        (ANN, set(), ANN),
    ],
)
def test_a_worker_hands_over_to_the_next_by_name(
    worker: WorkerId, alive: set[WorkerId], following: WorkerId
) -> None:
    handed = hand_over(claim(SEEK, worker, alive), worker, alive)
    assert claimed_by(handed) == following
    assert claimable(handed, following, alive)
    assert claimable(handed, worker, {*alive, worker}) == (following == worker)


def test_nobody_hands_over_what_is_over_or_of_another_worker() -> None:
    claimed = claim(SEEK, ANN, {ANN, BOB})
    assert hand_over(claimed, BOB, {ANN, BOB}) is claimed
    over = replace(claimed, state=OperationState.DONE)
    assert hand_over(over, ANN, {ANN, BOB}) is over
