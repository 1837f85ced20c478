"""A FIFO queue goes on with its other groups, however much memory those hold that an operator has paused."""

import asyncio

import pytest

from poller.domain.operations import OperationId, OperationTarget, OperatorPause
from poller.domain.policies import BatchPolicy
from poller.domain.records import Epoch
from poller.rules.memory.byte_budget import HOLDING_PATIENCE_S
from poller.runtime.queues.queue_mapping import QueueMapping
from poller.runtime.stopping import Stop
from tests.runtime.queues.queue_fakes import Handler, epoch, fifo, function_of, parts, plan, play
from tests.simulation.services.contents import Content

MB = 1024 * 1024
OTHERS = range(1_000, 1_010)


def pauses(groups: int) -> list[OperatorPause]:
    """A pause of each of so many groups."""
    return [
        OperatorPause(
            operation=OperationId(f"pause-{number}"),
            target=OperationTarget(group=f"paused-{number}"),
            by="ann",
            since=Epoch(5.0),
            reason="the bank is closed",
        )
        for number in range(groups)
    ]


@pytest.mark.parametrize(
    ("groups", "elsewhere_mb"),
    [
        pytest.param(40, 0, id="more than may be held, without the contents of most of them"),
        pytest.param(14, 40, id="more than its part, beside shards that hold the rest"),
    ],
)
def test_messages_of_paused_groups_do_not_hold_up_those_of_others(groups: int, elsewhere_mb: int) -> None:
    service, handler = fifo(visibility_s=600), Handler()
    for number in range(groups):
        service.queue.send(0, Content(number, pad=900_000), group=f"paused-{number}")
    context = parts(service, function_of(handler), plan(service, batch=BatchPolicy(records_max=10)))
    context.memory.follow(64)
    blocked = context.memory.account()

    async def script(mapping: QueueMapping, _: Stop) -> None:
        mapping.apply_pauses(pauses(groups))
        await asyncio.sleep(120)
        blocked.hold(elsewhere_mb * MB)
        for number in OTHERS:
            service.queue.send(epoch(), Content(number), group=f"other-{number}")
        await asyncio.sleep(len(OTHERS) * 3 * HOLDING_PATIENCE_S)
        assert sorted(handler.done) == list(OTHERS)
        mapping.apply_pauses([])
        await asyncio.sleep(groups * 3 * HOLDING_PATIENCE_S)

    play(context, script)
    blocked.close()
    assert sorted(handler.done) == [*range(groups), *OTHERS]
    assert (context.memory.budget.used, context.memory.budget.waiting) == (0, 0)
