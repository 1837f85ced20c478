"""Skips of many records of one batch: they take short steps of the loop, with notices and without."""

import pytest

from poller.domain.operations import Action
from poller.domain.policies import BatchPolicy
from tests.bounds.loop_steps import longest_step
from tests.rules.build import kinesis
from tests.runtime.fakes import FakeDestination, FakeFunction, poison
from tests.runtime.streams.test_operations import Place, one, operation
from tests.virtual import EPOCH_BASE

FIRST = 49_590_338_271_490_256_608_559_692_538_361_571_095_921_575_989_136_588_898
STEP_S_MAX = 0.25
"""Much longer than a step takes; a loop that stands still for as long as a lease lasts loses it."""


@pytest.mark.parametrize("send", [False, True])
def test_a_skip_of_every_second_record_takes_short_steps(*, send: bool) -> None:
    size = 300 if send else 1_000
    held = [kinesis(FIRST + number, key="k", arrived=EPOCH_BASE) for number in range(size)]
    destination = FakeDestination() if send else None
    place = Place(
        *held,
        function=FakeFunction(poison(FIRST + 1)),
        destination=destination,
        batch=BatchPolicy(records_max=10_000, payload_bytes_max=6_000_000),
    )
    wanted = [str(FIRST + number) for number in range(1, size, 2)]
    with longest_step() as longest:
        [result] = one(operation(Action.SKIP, records=wanted, send=send, discard=not send), place=place)
    how = "the destination has the notice" if send else "without a notice"
    assert result.result.startswith(f"{size // 2} records skipped")
    assert how in result.result
    assert [each % FIRST for each in place.function.calls[1]] == list(range(0, size, 2))
    assert destination is None or len(destination.notices) == size // 2
    assert longest.seconds < STEP_S_MAX, longest.what
