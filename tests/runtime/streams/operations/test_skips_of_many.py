"""Skips of many records of one batch: they take short steps of the loop, and what is left can be redriven when it is given up."""

from collections.abc import Sequence

import pytest

from poller.domain.operations import Action
from poller.domain.policies import Backoff, BatchPolicy, RetryPolicy
from poller.domain.records import Record
from poller.rules.streams.operations.notice_reading import chosen, read_notice
from tests.bounds.loop_steps import longest_step
from tests.rules.build import kinesis
from tests.runtime.fakes import FakeDestination, FakeFunction, mapping, poison
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


def redriven(destination: FakeDestination, held: Sequence[Record]) -> list[list[int]]:
    """The records that a redrive reads from the stream for each of the notices."""
    found = []
    for each in destination.notices:
        plan = mapping()
        notice = read_notice(each.document, source_arn=plan.source_arn, function_arn=plan.function_arn)
        found.append([int(record.sequence_number) for record in chosen(held, notice, lanes=1)])
    return found


@pytest.mark.parametrize("restarted", [False, True])
def test_what_is_given_up_of_a_batch_after_a_skip_in_its_middle_can_be_redriven(*, restarted: bool) -> None:
    held = [kinesis(number, key="k", arrived=EPOCH_BASE) for number in (1, 2, 3)]
    destination = FakeDestination()
    place = Place(
        *held,
        function=FakeFunction(poison(3)),
        destination=destination,
        retry=RetryPolicy(retries_max=1, backoff=Backoff(base_s=40.0, cap_s=40.0)),
    )
    one(operation(Action.SKIP, records=["2"]), place=place, for_s=0.0 if restarted else 300.0)
    if restarted:
        place.run(for_s=300.0)
    assert redriven(destination, held) == [[2], [1], [3]]
