"""The checker of seeks finds wrong histories: moves that nobody asked for, records left out without leave, and what runs too early."""

from typing import Any

import pytest

from poller.domain.operations import Action, Operation, OperationId, OperationRequest, OperationState
from poller.domain.records import SHARD_END, Epoch, MappingId, Position, ShardId
from poller.domain.rows import Checkpoint
from tests.simulation.checks.ledger import Tenure, Violation
from tests.simulation.checks.seek_checks import SeekChecks, lies_before, may_come_too
from tests.simulation.services.contents import Content
from tests.simulation.services.faults import Marks
from tests.simulation.services.streams import Held

A, B = ShardId("a"), ShardId("b")
HORIZON = Position.horizon()


def held(sequence: int) -> Held:
    """A record that arrived when its number says."""
    return Held(sequence, "k", float(sequence), Content(sequence, keep=True), b"")


RECORDS = [held(number) for number in range(1, 6)]


def asked(to: Position, *, skip: bool = False, **changes: Any) -> SeekChecks:
    """The checks after a seek of shard `a` was planned."""
    checks = SeekChecks(Marks())
    operation = Operation(
        operation=OperationId("op"),
        mapping=MappingId("m"),
        request=OperationRequest(action=Action.SEEK, members={"skip": skip}),
        created=Epoch(0.0),
        state=OperationState.RUNNING,
        notes={"moves": {A: [HORIZON.encode(), to.encode()]}, "worker": "ann"},
        **changes,
    )
    checks.stored(operation)
    return checks


def test_a_move_back_leaves_nothing_out() -> None:
    assert asked(HORIZON).moves(A, HORIZON, RECORDS, {4, 5}, 7.0) == set()


def test_a_move_forward_may_leave_out_what_is_settled() -> None:
    assert asked(Position.after("3")).moves(A, Position.after("3"), RECORDS, {4, 5}, 7.0) == {1, 2, 3}


def test_a_move_that_nobody_asked_for_is_found() -> None:
    checks = asked(HORIZON)
    for shard, to in ((B, HORIZON), (A, Position.after("3"))):
        with pytest.raises(Violation, match="nobody has asked for it"):
            checks.moves(shard, to, RECORDS, set(), 7.0)


def test_records_that_are_left_out_without_leave_are_found() -> None:
    to = Position.at(Epoch(4.0))
    with pytest.raises(Violation, match="left out without leave"):
        asked(to).moves(A, to, RECORDS, {3, 4, 5}, 7.0)
    assert asked(to, skip=True).moves(A, to, RECORDS, {3, 4, 5}, 7.0) == {1, 2, 3}


def test_only_who_took_a_child_before_its_parent_was_moved_need_not_wait_for_it() -> None:
    checks = asked(HORIZON)
    checks.moves(A, HORIZON, RECORDS, set(), 7.0)
    start = Checkpoint(HORIZON)
    assert checks.excused(A, Tenure("ann", 1, start, since=7.5, decided=6.0))
    assert not checks.excused(A, Tenure("ann", 1, start, since=7.5, decided=8.0))
    assert not checks.excused(B, Tenure("ann", 1, start, since=7.5, decided=6.0))


def test_a_child_of_a_moved_shard_may_go_to_its_beginning_and_nowhere_else() -> None:
    assert asked(HORIZON).moves(B, HORIZON, RECORDS, {4, 5}, 7.0, above={A}) == set()
    with pytest.raises(Violation, match="nobody has asked for it"):
        asked(HORIZON).moves(B, Position.after("3"), RECORDS, set(), 7.0, above={A})


def test_who_took_a_child_before_its_parent_was_moved_must_have_let_it_go_when_the_seek_is_done() -> None:
    checks = asked(HORIZON)
    early = Tenure("ann", 1, Checkpoint(HORIZON), since=7.5, decided=6.0)
    checks.moves(A, HORIZON, RECORDS, set(), 7.0)
    assert checks.excused(A, early)
    done = Operation(
        operation=OperationId("op"),
        mapping=MappingId("m"),
        request=OperationRequest(action=Action.SEEK),
        created=Epoch(0.0),
        state=OperationState.DONE,
        notes={"moves": {A: [HORIZON.encode(), HORIZON.encode()]}},
    )
    checks.stored(done)
    assert not checks.excused(A, early)
    checks.moves(A, HORIZON, RECORDS, set(), 8.0)
    assert checks.excused(A, early)


def test_another_worker_that_goes_on_with_a_seek_is_seen() -> None:
    checks = asked(HORIZON)
    notes = {"moves": {A: [HORIZON.encode(), HORIZON.encode()]}, "worker": "bob"}
    operation = Operation(
        operation=OperationId("op"),
        mapping=MappingId("m"),
        request=OperationRequest(action=Action.SEEK),
        created=Epoch(0.0),
        state=OperationState.RUNNING,
        notes=notes,
    )
    checks.stored(operation)
    assert checks.marks["seek: claimed by another"] == 1


def test_records_of_the_same_second_may_come_with_those_of_a_later_moment() -> None:
    assert [may_come_too(each, Position.at(Epoch(3.7))) for each in RECORDS] == [
        each.arrived == 3.0 for each in RECORDS
    ]
    assert not any(may_come_too(each, Position.after("3")) for each in RECORDS)
    assert not any(may_come_too(each, SHARD_END) for each in RECORDS)


@pytest.mark.parametrize(
    ("position", "out"),
    [
        (HORIZON, 0),
        (Position.at(Epoch(3.0)), 2),
        (Position.after("3"), 3),
        (SHARD_END, 5),
    ],
)
def test_what_lies_before_a_position_is_left_out(position: Position, out: int) -> None:
    assert sum(lies_before(each, position) for each in RECORDS) == out
