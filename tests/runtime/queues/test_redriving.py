"""A redrive calls the function with messages of a dead-letter queue as if they came from the mapping's own queue."""

from collections.abc import Mapping
from contextlib import AbstractAsyncContextManager, nullcontext
from typing import Any

import pytest

from poller.domain.errors import InvalidConfiguration
from poller.domain.operations import OperationState
from poller.domain.plan import SourceKind
from poller.domain.policies import RetryPolicy
from poller.rules.operations.redriving import RedriveTally
from poller.runtime.operations.long.redriving import Redrive
from poller.runtime.queues.operations.redriving import opened_letters
from poller.runtime.stopping import Stop
from tests.runtime.queues.queue_fakes import (
    FIFO,
    Handler,
    Service,
    failing,
    fifo,
    function_of,
    parts,
    plan,
    reporting,
    standard,
)
from tests.virtual import run_virtual, virtual_clock

LETTERS = "arn:aws:sqs:eu-west-1:111122223333:dead"


async def unseen(_tally: RedriveTally) -> None:
    """Nobody looks how far it is."""


def redriven(letters: Service, handler: Handler, *, own: Service, limit: int | None = None) -> RedriveTally:
    """Redrives a dead-letter queue once."""

    def opener(
        kind: str, name: str, settings: Mapping[str, Any], *, look: bool = False
    ) -> AbstractAsyncContextManager[Any]:
        assert (kind, name, settings, look) == ("sources", SourceKind.SQS, {"arn": LETTERS}, False)
        return nullcontext(letters)

    async def main() -> RedriveTally:
        reporting_plan = plan(own, retry=RetryPolicy(report_failures=True))
        context = parts(own, function_of(handler), reporting_plan)
        async with opened_letters(context, LETTERS, opener, hold_s=60, look=False) as place:
            redrive = Redrive(
                place.redrivable,
                place.notices,
                Stop(),
                clock=virtual_clock(),
                wait_s=lambda _: 0.5,
                held=lambda: False,
                changed=unseen,
            )
            tally = await redrive.run(limit=limit, per_s=None)
        assert tally is not None
        return tally

    return run_virtual(main())


def test_messages_are_called_one_at_a_time_with_the_arn_of_the_mappings_queue_and_deleted() -> None:
    letters, handler = standard(), Handler()
    letters.send(*range(1, 26))
    tally = redriven(letters, handler, own=standard())
    assert sorted(handler.calls) == [[number] for number in range(1, 26)]
    assert letters.left == []
    assert tally.result().result == "25 batches settled (25 records)"


@pytest.mark.parametrize("answer", [failing(2), reporting(2)])
def test_a_message_that_fails_again_stays_and_is_visible_afterwards(answer: Any) -> None:
    letters = standard()
    letters.send(1, 2, 3)
    tally = redriven(letters, Handler(answer=answer), own=standard())
    assert letters.left == [2]
    assert tally.result().state is OperationState.FAILED
    again = Handler()
    redriven(letters, again, own=standard())
    assert again.calls == [[2]]


def test_in_a_fifo_queue_what_is_behind_a_failed_message_of_its_group_stays() -> None:
    letters = fifo()
    letters.send(1, 2, 3, group="a")
    letters.send(11, 12, group="b")
    tally = redriven(letters, Handler(answer=failing(2)), own=fifo())
    assert letters.left == [2, 3]
    assert (tally.settled, tally.failed, tally.refused) == (3, 1, 1)
    again = Handler()
    redriven(letters, again, own=fifo())
    assert again.calls == [[2], [3]]


def test_the_mappings_own_queue_is_refused() -> None:
    async def main() -> None:
        context = parts(fifo(), function_of(Handler()), plan(fifo()))
        with pytest.raises(InvalidConfiguration, match="own queue"):
            async with opened_letters(
                context, FIFO, lambda *_, **__: nullcontext(None), hold_s=60, look=False
            ):
                pass

    run_virtual(main())
