"""The checker of windows finds batches that gathered apart, and nothing else."""

import pytest

from poller.domain.plan import MappingPlan, SourceKind
from poller.domain.policies import BatchPolicy
from poller.domain.records import MappingId
from tests.simulation.checks.ledger import Violation
from tests.simulation.checks.window_fill_checks import WindowFillChecks
from tests.simulation.services.faults import Marks


def checks(batch: BatchPolicy) -> WindowFillChecks:
    plan = MappingPlan(
        mapping=MappingId("00000000-0000-4000-8000-000000000001"),
        kind=SourceKind.SQS,
        source_arn="arn:aws:sqs:eu-west-1:111122223333:orders",
        function="f",
        function_arn="arn",
        batch=batch,
    )
    return WindowFillChecks(plan, Marks())


def runs(
    given: WindowFillChecks, name: str, *arrivals: float, at: float, worker: str = "ann", size: int = 1000
) -> None:
    names = [f"{name}{place}" for place in range(len(arrivals))]
    for message_id, arrived in zip(names, arrivals, strict=True):
        given.arrives(worker, [message_id], arrived)
    given.tries(name, at)
    given.runs(worker, names, name, payload_bytes=size)


def test_two_batches_that_gather_at_once_are_found() -> None:
    given = checks(BatchPolicy(50, 2.0))
    runs(given, "a", 0.0, 0.1, at=2.0)
    with pytest.raises(Violation, match="gathered apart"):
        runs(given, "b", 0.1, 0.2, at=2.1)


@pytest.mark.parametrize("batch", [BatchPolicy(50, 0.0), BatchPolicy(50, 2.0, 6000), BatchPolicy(2, 2.0)])
def test_without_a_window_with_small_events_and_when_one_is_full_batches_may(batch: BatchPolicy) -> None:
    given = checks(batch)
    runs(given, "a", 0.0, 0.1, at=2.0)
    runs(given, "b", 0.1, 0.2, at=2.1)


def test_one_batch_after_the_other_is_right() -> None:
    given = checks(BatchPolicy(50, 2.0))
    runs(given, "a", 0.0, 0.1, at=2.0)
    runs(given, "b", 2.0, 2.2, at=4.0)
    runs(given, "c", 0.5, at=1.0, worker="bob")
    runs(given, "d", 0.2, at=3.0, worker="cat", size=5_000_000)
    runs(given, "e", 0.2, at=3.0, worker="cat")


def test_what_a_full_batch_had_no_room_for_is_closed_with_it() -> None:
    given = checks(BatchPolicy(2, 2.0))
    given.arrives("ann", ["a0"], 0.0)
    given.arrives("ann", ["a1", "b0"], 1.0)
    given.tries("a", 1.0)
    given.runs("ann", ["a0", "a1"], "a", payload_bytes=1000)
    given.arrives("ann", ["c0"], 1.2)
    given.tries("b", 1.4)
    given.runs("ann", ["b0"], "b", payload_bytes=1000)
    given.tries("c", 3.2)
    given.runs("ann", ["c0"], "c", payload_bytes=1000)


def test_what_gathered_on_behind_a_full_batch_is_closed_when_it_is_tried() -> None:
    given = checks(BatchPolicy(3, 2.0))
    given.arrives("ann", ["a0", "a1"], 0.0)
    given.arrives("ann", ["a2", "b0"], 1.0)
    given.tries("a", 1.0)
    given.runs("ann", ["a0", "a1", "a2"], "a", payload_bytes=1000)
    given.arrives("ann", ["b1"], 1.1)
    given.arrives("ann", ["c0"], 1.2)
    given.tries("b", 1.4)
    given.runs("ann", ["b0", "b1"], "b", payload_bytes=1000)
    given.tries("c", 3.2)
    with pytest.raises(Violation, match="gathered apart"):
        given.runs("ann", ["c0"], "c", payload_bytes=1000)


def test_only_the_first_try_says_when_a_batch_was_closed() -> None:
    given = checks(BatchPolicy(50, 2.0))
    runs(given, "a", 0.0, at=2.0)
    given.arrives("ann", ["b0"], 1.0)
    given.runs("ann", ["b0"], "never tried", payload_bytes=1000)
