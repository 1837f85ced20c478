"""How operations look when they are shown: what they wait for."""

from poller.commands.operations.listing import _page
from poller.domain.operations import Action, OperationId, OperationState, OperationView
from poller.domain.status import DaemonStatus
from tests.adapters.control.serving import QUEUED


def view(action: Action, **fields: object) -> OperationView:
    given: dict[str, object] = {
        "id": OperationId("op"),
        "mapping": QUEUED.mapping,
        "action": action,
        "state": OperationState.RUNNING,
        "created": 0.0,
    }
    return OperationView(**(given | fields))  # type: ignore[arg-type]  # a test's own fields


def test_a_skip_of_a_queue_says_that_it_waits_for_its_messages() -> None:
    status = DaemonStatus(worker="w", mappings=(QUEUED,), ready=True, alive=True)
    skip = view(Action.SKIP, wanted=("ann",), notes={"records": ["m-1"]})
    lines = [line.strip() for line in _page(skip, status, 200).lines]
    assert "ann waits until running calls with its messages end, or the messages are received again" in lines
    other = view(Action.RETRY, wanted=("ann",))
    assert "ann nothing yet" in [line.strip() for line in _page(other, status, 200).lines]
