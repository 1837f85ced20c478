"""A FIFO receive that had no answer is repeated under its attempt id, and what it brings is ours for the whole visibility timeout."""

from dataclasses import replace

import pytest

from adapters.sources.sqs import SqsQueue
from poller.domain.plan import Tuning
from poller.domain.policies import Backoff, BatchPolicy, ScalingPolicy
from tests.adapters.sources.queue_api import QueueApi
from tests.runtime.queues.queue_fakes import FIFO, Handler, fifo, function_of, parts, plan, play
from tests.virtual import virtual_clock

QUICK = Tuning(port_backoff=Backoff(base_s=0.5, cap_s=1.0))


@pytest.mark.parametrize("down", [(0.0, 40.0), (0.5, 40.5), (0.0, 200.0), (0.0, 230.0)])
@pytest.mark.parametrize("pollers", [1, 5])
def test_an_outage_longer_than_the_visibility_timeout_makes_nothing_late(
    down: tuple[float, float], pollers: int
) -> None:
    service, handler = fifo(30, redrive=1), Handler()
    for number in range(10):
        service.send(number, group=f"g{number}")
    api = QueueApi(service.queue, down=down)
    mapping = plan(service, batch=BatchPolicy(10), scaling=ScalingPolicy(concurrency_max=pollers))
    given = parts(service, function_of(handler), mapping, tuning=QUICK)
    play(replace(given, source=SqsQueue(api, api, virtual_clock(), arn=FIFO)), down[1] + 40.0)
    assert service.queue.dead == []
    assert sorted(handler.done) == list(range(10))
    assert set(service.received.values()) == {1}


@pytest.mark.parametrize("lost", [1, 2, 3])
def test_lost_answers_cost_no_receive(lost: int) -> None:
    service, handler = fifo(30, redrive=1), Handler(takes_s=25.0)
    service.send(*range(10), group="g")
    api = QueueApi(service.queue, lost=lost)
    mapping = plan(service, batch=BatchPolicy(10), scaling=ScalingPolicy(concurrency_max=1))
    tuning = Tuning(port_backoff=Backoff(base_s=16.0, cap_s=16.0))
    given = parts(service, function_of(handler), mapping, tuning=tuning)
    play(replace(given, source=SqsQueue(api, api, virtual_clock(), arn=FIFO)), 120.0)
    assert service.queue.dead == []
    assert handler.done == list(range(10))
    assert set(service.received.values()) == {1}
