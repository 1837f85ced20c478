"""Tests of how far a replay is, and of what is said in the end."""

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from poller.domain.operations import Action, Operation, OperationId, OperationRequest, OperationState
from poller.domain.records import SHARD_END, Epoch, MappingId, Position, Shard, ShardId, WorkerId
from poller.domain.rows import Checkpoint, Lease
from poller.rules.replays.counting import (
    COUNT_S,
    TURN_S,
    WORKERS_MAX,
    ReplayCounts,
    all_read,
    counted,
    counts_of,
    outcome,
    turn_s,
)

NOW = Epoch(1_780_000_000.0)
A, B = WorkerId("a"), WorkerId("b")
ONE, TWO, CHILD = ShardId("one"), ShardId("two"), ShardId("child")


def replay(**members: Any) -> Operation:
    request = OperationRequest(
        action=Action.REPLAY, members={"from": "TRIM_HORIZON", "to": "LATEST", **members}
    )
    return Operation(operation=OperationId("r"), mapping=MappingId("m"), request=request, created=NOW)


def count(
    operation: Operation, worker: WorkerId, *, alive: tuple[WorkerId, ...] = (A, B), at: float | None = None, **counts: int
) -> Operation:  # fmt: skip
    found = ReplayCounts(counts=counts, at=None if at is None else Epoch(at))
    return counted(operation, worker, found, shards=2, ended=1, alive=alive)


def test_the_counts_of_all_workers_are_added_up() -> None:
    found = count(count(replay(), A, records=3, failed=1, at=50.0), B, records=4, losses=1, at=40.9)
    assert found.state is OperationState.RUNNING
    assert found.progress == {
        "shards": 2, "ended": 1, "records": 7, "filtered": 0, "failed": 1, "skipped": 0, "losses": 1,
        "undated": 0, "at": 40,
    }  # fmt: skip


def test_a_count_that_is_written_twice_counts_once() -> None:
    once = count(replay(), A, records=3)
    assert count(once, A, records=3) is once


def test_a_worker_goes_on_with_what_it_had_counted() -> None:
    found = count(replay(), A, records=3, failed=2)
    assert counts_of(found, A) == {
        "records": 3,
        "filtered": 0,
        "failed": 2,
        "skipped": 0,
        "losses": 0,
        "undated": 0,
    }
    assert counts_of(found, B) == {}


def test_the_place_in_time_is_that_of_workers_that_live() -> None:
    found = count(count(replay(), A, at=10.0), B, at=40.0, alive=(B,))
    assert found.progress["at"] == 40


def test_what_troubles_a_worker_is_noted_until_it_is_over_or_the_worker_is_gone() -> None:
    def told(operation: Operation, worker: WorkerId, trouble: str, *alive: WorkerId) -> Operation:
        found = ReplayCounts(counts={"records": 3}, trouble=trouble)
        return counted(operation, worker, found, shards=2, ended=1, alive=alive)

    def troubles(operation: Operation) -> dict[str, str]:
        noted = operation.notes["workers"].items()
        return {worker: each["trouble"] for worker, each in noted if "trouble" in each}

    both = told(told(replay(), A, "no queue", A, B), B, "no answer", A, B)
    assert troubles(both) == {A: "no queue", B: "no answer"}
    assert troubles(told(both, B, "", A, B)) == {A: "no queue"}
    gone = told(both, B, "no answer", B)
    assert troubles(gone) == {B: "no answer"}
    assert gone.progress["records"] == 6


def test_nothing_is_counted_when_the_replay_is_over() -> None:
    over = replace(replay(), state=OperationState.CANCELLED)
    assert count(over, A, records=1) is over


@given(st.lists(st.tuples(st.integers(0, 3 * WORKERS_MAX), st.integers(0, 100)), max_size=300))
def test_no_count_is_lost_when_there_are_many_workers(steps: list[tuple[int, int]]) -> None:
    operation, totals = replay(), dict[str, int]()
    for name, records in steps:
        if str(name) in totals:
            continue
        totals[str(name)] = records
        operation = count(operation, WorkerId(str(name)), alive=(), records=records)
    assert operation.progress.get("records", 0) == sum(totals.values())
    assert len(operation.notes.get("workers", {})) <= WORKERS_MAX + 1


def lease(shard: ShardId, *, ended: bool, parents: tuple[ShardId, ...] = ()) -> Lease:
    return Lease(shard, parents, Checkpoint(SHARD_END if ended else Position.after("5")))


@pytest.mark.parametrize(
    ("leases", "over"),
    [
        ([], False),
        ([lease(ONE, ended=True)], False),
        ([lease(ONE, ended=True), lease(TWO, ended=False)], False),
        ([lease(ONE, ended=True), lease(TWO, ended=True)], False),
        ([lease(ONE, ended=True), lease(TWO, ended=True), lease(CHILD, ended=False, parents=(ONE,))], False),
        ([lease(ONE, ended=True), lease(TWO, ended=True), lease(CHILD, ended=True, parents=(ONE,))], True),
    ],
)
def test_everything_is_read_when_every_listed_shard_has_ended(leases: list[Lease], *, over: bool) -> None:
    shards = [Shard(ONE, (), True), Shard(TWO, (), False), Shard(CHILD, (ONE,), False)]
    assert all_read(shards, leases) is over


@pytest.mark.parametrize(
    ("members", "counts", "kept_s", "failed", "text"),
    [
        ({}, {"records": 5}, None, False, "5 records replayed, from TRIM_HORIZON to 2026-05-28T20:26:40Z"),
        (
            {},
            {"records": 5, "filtered": 2, "skipped": 1},
            None,
            False,
            "5 records replayed, from TRIM_HORIZON to 2026-05-28T20:26:40Z; 2 filtered; 1 skipped",
        ),
        (
            {"from": NOW - 90_000.0},
            {"records": 5},
            86_400.0,
            False,
            "5 records replayed, from 2026-05-27T19:26:40Z to 2026-05-28T20:26:40Z;"
            " records before 2026-05-27T20:26:40Z were not in the stream any more",
        ),
        (
            {},
            {"records": 5, "losses": 2},
            None,
            False,
            "5 records replayed, from TRIM_HORIZON to 2026-05-28T20:26:40Z;"
            " records were removed from the stream before they were read, 2 times",
        ),
        (
            {},
            {"records": 5, "undated": 2},
            None,
            False,
            "5 records replayed, from TRIM_HORIZON to 2026-05-28T20:26:40Z;"
            " 2 without a time of arrival were read, which may be from after 2026-05-28T20:26:40Z",
        ),
        (
            {"from": NOW - 99_000.0, "to": NOW - 90_000.0},
            {},
            86_400.0,
            True,
            "nothing of the range 2026-05-27T16:56:40Z to 2026-05-27T19:26:40Z is left in the stream,"
            " which keeps records for 24 h",
        ),
        (
            {},
            {"losses": 1},
            None,
            True,
            "nothing of the range TRIM_HORIZON to 2026-05-28T20:26:40Z is left in the stream",
        ),
        ({}, {}, 86_400.0, False, "0 records replayed, from TRIM_HORIZON to 2026-05-28T20:26:40Z"),
    ],
)
def test_the_end_says_what_was_replayed_and_what_was_gone(
    members: dict[str, Any], counts: dict[str, int], kept_s: float | None, *, failed: bool, text: str
) -> None:
    found = counted(replay(**members), A, ReplayCounts(counts=counts), shards=2, ended=2, alive=(A,))
    assert outcome(found, kept_s=kept_s) == (failed, text)


def test_workers_end_a_replay_by_turns_when_the_counts_of_all_are_there() -> None:
    c = WorkerId("c")
    turns = [turn_s(each, {A, B, c}) for each in (A, B, c)]
    assert turns[0] > COUNT_S
    assert [later - turns[0] for later in turns] == [0.0, TURN_S, 2 * TURN_S]
    assert turn_s(B, {A, c}) == turns[1], "a worker counts itself in"
    assert turn_s(A, {A}) == turn_s(A, set()) == 0.0
