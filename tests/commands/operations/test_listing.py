"""How operations look when they are shown: what they wait for, and that a pause holds; and how the status shows those that take long."""

from dataclasses import replace

import pytest

from poller.commands.operations.listing import _page
from poller.commands.operations.progress import progress
from poller.domain.operations import (
    Action,
    Operation,
    OperationId,
    OperationRequest,
    OperationState,
    OperationView,
    PartResult,
)
from poller.domain.records import Epoch
from poller.domain.rows import MappingState
from poller.domain.status import DaemonStatus
from tests.adapters.control.operation_control import OperationModel
from tests.adapters.control.serving import QUEUED
from tests.commands.operations.test_commands import called


def view(action: Action, **fields: object) -> OperationView:
    given: dict[str, object] = {
        "id": OperationId("op"),
        "mapping": QUEUED.mapping,
        "action": action,
        "state": OperationState.RUNNING,
        "created": 0.0,
    }
    return OperationView(**(given | fields))  # type: ignore[arg-type]  # a test's own fields


def test_a_pause_that_holds_is_said_to_be_in_force() -> None:
    status = DaemonStatus(worker="w", mappings=(QUEUED,), ready=True, alive=True)
    done = PartResult(state=OperationState.DONE)

    def first(**fields: object) -> str:
        return _page(view(Action.PAUSE, wanted=("a", "b"), **fields), status, 200).lines[0]

    assert first(parts={"a": done, "b": done}) == "op running, in force"
    assert first(parts={"a": done}) == "op running, in force, not yet on 1 of 2 parts"
    assert first() == "op running, not yet in force"
    assert first(state=OperationState.ACCEPTED) == "op accepted"
    assert first(state=OperationState.DONE) == "op done"
    assert _page(view(Action.RETRY), status, 200).lines[0] == "op running"


def test_the_status_shows_what_runs_and_takes_long_in_one_line_each() -> None:
    model = OperationModel()
    for number, action in enumerate((Action.REPLAY, Action.SEEK, Action.REDRIVE, Action.PAUSE, Action.RETRY)):
        name = OperationId(f"op-{number}")
        model.known[name] = Operation(
            operation=name,
            mapping=QUEUED.mapping,
            request=OperationRequest(action=action),
            created=Epoch(1.0),
            state=OperationState.RUNNING,
            progress={"records": 120} if action is Action.REPLAY else {},
        )
    status = DaemonStatus(worker="w", mappings=(QUEUED,), ready=True, alive=True)
    lines = called("status", model=model, status=status).stdout.splitlines()
    shown = sorted(line for line in lines if " op-" in line)
    assert shown == ["  redrive op-2 running", "  replay op-0 running: 120 records", "  seek op-1 running"]


def test_a_skip_of_a_queue_says_that_it_waits_for_its_messages() -> None:
    status = DaemonStatus(worker="w", mappings=(QUEUED,), ready=True, alive=True)
    skip = view(Action.SKIP, wanted=("ann",), notes={"records": ["m-1"]})
    lines = [line.strip() for line in _page(skip, status, 200).lines]
    assert "ann waits until running calls with its messages end, or the messages are received again" in lines
    other = view(Action.RETRY, wanted=("ann",))
    assert "ann nothing yet" in [line.strip() for line in _page(other, status, 200).lines]
    over = view(Action.SKIP, wanted=("ann",), notes={"records": ["m-1"]}, state=OperationState.CANCELLED)
    assert "ann nothing was done" in [line.strip() for line in _page(over, status, 200).lines]


def test_an_operation_that_takes_long_says_what_it_waits_for_until_it_is_over() -> None:
    status = DaemonStatus(worker="w", mappings=(QUEUED,), ready=True, alive=True)
    disabled = replace(status, mappings=(replace(QUEUED, state=MappingState.DISABLED),))

    def waits(shown: OperationView, of: DaemonStatus) -> list[str]:
        return [line.strip() for line in _page(shown, of, 200).lines if "waits: " in line]

    notes = {
        "waiting": ["the stream cannot be read: no"],
        "workers": {"w1": {"records": 1}, "w2": {"trouble": "shard 0: \x1b[31mgone"}},
    }
    noted = ["waits: the stream cannot be read: no", "waits: w2: shard 0: gone"]
    assert waits(view(Action.REPLAY, notes=notes), status) == noted
    assert waits(view(Action.REPLAY, notes=notes), disabled) == ["waits: the mapping is disabled", *noted]
    assert waits(view(Action.REPLAY, notes={"waiting": 5, "workers": ["w"]}), status) == []
    assert waits(view(Action.REPLAY, notes=notes, state=OperationState.DONE), disabled) == []
    assert waits(view(Action.PAUSE), disabled) == []


@pytest.mark.parametrize("state", [each for each in OperationState if each.over])
def test_nothing_is_said_to_run_or_wait_in_an_operation_that_is_over(state: OperationState) -> None:
    status = DaemonStatus(worker="w", mappings=(QUEUED,), ready=True, alive=True)
    begun = PartResult(state=OperationState.RUNNING, result="waits until the destination takes the notice")
    over = view(Action.SKIP, wanted=("a", "b"), parts={"a": begun}, state=state)
    shown = [line.strip() for line in _page(over, status, 200).lines]
    assert shown[-2:] == ["a it was begun and not finished", "b nothing was done"]
    running = _page(replace(over, state=OperationState.RUNNING), status, 200).lines
    assert "a running: waits until the destination takes the notice" in [line.strip() for line in running]


@pytest.mark.parametrize(
    ("counts", "said"),
    [
        ({}, "op running; no"),
        ({"records": 0, "failed": 0}, "op running; no"),
        ({"records": 0, "at": 0}, "op running; no"),
        ({"records": 3, "failed": 0, "at": 0}, "op running: 3 records, at 1970-01-01T00:00:00+00:00; no"),
        ({"settled": 0}, "op running, 0 settled; no"),
        ({"moved": 0, "shards": 2}, "op running, 0 of 2 shards moved; no"),
    ],
)
def test_counts_of_nothing_are_left_out_of_the_line(counts: dict[str, int], said: str) -> None:
    assert progress(view(Action.REPLAY, progress=counts, notes={"waiting": ["no"]})) == said
