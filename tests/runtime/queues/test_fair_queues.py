"""Fair queues on virtual time: MessageGroupId on a standard queue is a tenant's label, which keeps nothing in order."""

import asyncio
import json
from typing import Any

import pytest

from poller.domain.policies import BatchPolicy, QueuePolicy, RetryPolicy
from poller.runtime.queues.queue_mapping import QueueMapping
from poller.runtime.stopping import Stop
from tests.runtime.queues.queue_fakes import (
    Handler,
    failing,
    function_of,
    parts,
    plan,
    play,
    reporting,
    standard,
)

REPORTS = RetryPolicy(report_failures=True)
POISON = 7


@pytest.mark.parametrize("limit", [1, None])
@pytest.mark.parametrize(
    ("answer", "changes"),
    [
        (failing(POISON), {"batch": BatchPolicy(1)}),
        (reporting(POISON), {"batch": BatchPolicy(10), "retry": REPORTS}),
        (reporting(POISON), {"batch": BatchPolicy(50, 1.0), "retry": REPORTS}),
    ],
    ids=["one by one", "ten", "a window"],
)
def test_a_poison_of_a_tenant_takes_no_other_message_with_it(
    answer: Any, changes: dict[str, Any], limit: int | None
) -> None:
    service, handler = standard(30, redrive=3), Handler(answer=answer)
    service.send(*range(20), group="tenant")
    play(parts(service, function_of(handler, limit=limit), plan(service, **changes)), 200.0)
    assert [each.content.number for each in service.queue.dead] == [POISON]
    done = [each.content.number for each in service.queue.letters.values() if each.deleted]
    assert done == [number for number in range(20) if number != POISON]
    assert sorted(number for call in handler.calls for number in call) == sorted([*range(20), POISON, POISON])


def test_messages_of_one_tenant_run_side_by_side() -> None:
    service, handler = standard(), Handler(takes_s=5.0)
    service.send(0, 1, 2, group="tenant")
    play(parts(service, function_of(handler), plan(service, batch=BatchPolicy(1))), 4.0)
    assert handler.in_flight_max == 3


def test_a_failing_message_of_a_tenant_shows_alone_and_blocks_nothing() -> None:
    service, handler = standard(30), Handler(answer=failing(0))
    service.send(0, 1, group="tenant")

    async def script(mapping: QueueMapping, _: Stop) -> None:
        await asyncio.sleep(5.0)
        (lane,) = mapping.lanes()
        assert (lane.lane, lane.blocked_since) == ("message-000000", None)
        assert [(each.identifier, each.key) for each in lane.records] == [("message-000000", "tenant")]

    play(parts(service, function_of(handler), plan(service, batch=BatchPolicy(1))), script)


def test_settings_for_message_groups_do_nothing_on_a_standard_queue() -> None:
    service, handler = standard(30), Handler(answer=reporting(0))
    service.send(0, 1, 2, group="tenant")
    policy = QueuePolicy(one_group_per_batch=True, group_aware_failures=True)
    play(parts(service, function_of(handler), plan(service, retry=REPORTS, queue=policy)), 5.0)
    assert service.left == [0]


@pytest.mark.parametrize("pattern", ['{"attributes":{"MessageGroupId":["a"]}}'])
def test_a_filter_may_name_the_tenant(pattern: str) -> None:
    service, handler = standard(), Handler()
    service.send(0, group="a")
    service.send(1, group="b")
    service.send(2)
    play(parts(service, function_of(handler), plan(service, filters=(pattern,))), 5.0)
    (payload,) = handler.payloads
    (record,) = json.loads(payload)["Records"]
    assert list(record["attributes"]) == [
        "ApproximateReceiveCount",
        "SentTimestamp",
        "MessageGroupId",
        "SenderId",
        "ApproximateFirstReceiveTimestamp",
    ]
    assert record["attributes"]["MessageGroupId"] == "a"
    assert service.left == []
