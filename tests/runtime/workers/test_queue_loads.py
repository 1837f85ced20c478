"""What a running queue mapping says about its load, and what follows from it: busy, calm, or neither."""

import asyncio

import pytest

from poller.domain.policies import BatchPolicy, ScalingPolicy
from poller.domain.records import MappingId
from poller.rules.workers.sizing.samples import LoadSample, QueueLoad, sample_of
from poller.runtime.queues.context import QueueContext
from poller.runtime.queues.queue_mapping import QueueMapping
from poller.runtime.stopping import Stop
from tests.runtime.queues.queue_fakes import Handler, Service, function_of, parts, plan, play, standard
from tests.runtime.queues.test_operations import pause

LIMIT = 4
BACKLOG = 2000


def given(
    service: Service, *, limit: int | None = LIMIT, maximum: int | None = None, takes_s: float = 1.0
) -> QueueContext:
    """A mapping whose function takes one message at a time."""
    scaling = ScalingPolicy() if maximum is None else ScalingPolicy(concurrency_max=maximum)
    mapping = plan(service, batch=BatchPolicy(1), scaling=scaling)
    return parts(service, function_of(Handler(takes_s=takes_s), limit=limit), mapping)


def load_of(mapping: QueueMapping) -> QueueLoad:
    found = mapping.load()
    assert isinstance(found, QueueLoad)
    return found


def sampled(mapping: QueueMapping) -> LoadSample:
    return sample_of({MappingId("orders"): load_of(mapping)})


@pytest.mark.parametrize(
    ("limit", "maximum", "full", "unbounded"),
    [
        pytest.param(LIMIT, None, True, True, id="all calls that the function may have here run"),
        pytest.param(None, 2, False, False, id="the maximum of the queue is for all workers"),
    ],
)
def test_a_backlog_asks_for_workers_only_if_others_could_take_it(
    limit: int | None, maximum: int | None, full: bool, unbounded: bool
) -> None:
    service = standard()

    async def script(mapping: QueueMapping, _stop: Stop) -> None:
        service.send(*range(BACKLOG))
        await asyncio.sleep(120.0)
        load, sample = load_of(mapping), sampled(mapping)
        assert load.hungry
        assert (bool(sample.full), sample.busy, sample.calm) == (full, full, False)
        assert (sample.calls, sample.unbounded) == (maximum or 0, unbounded)

    play(given(service, limit=limit, maximum=maximum), script, within_s=5.0)


def test_a_quiet_queue_is_calm() -> None:
    async def script(mapping: QueueMapping, _stop: Stop) -> None:
        await asyncio.sleep(120.0)
        assert sampled(mapping).calm
        assert load_of(mapping).working == 0

    play(given(standard()), script)


def test_a_paused_queue_has_no_load_and_has_one_again_when_the_pause_ends() -> None:
    service = standard()

    async def script(mapping: QueueMapping, _stop: Stop) -> None:
        service.send(*range(BACKLOG))
        await asyncio.sleep(120.0)
        assert sampled(mapping).busy
        mapping.apply_pauses([pause()])
        await asyncio.sleep(10.0)
        assert mapping.load() is None
        mapping.apply_pauses([])
        await asyncio.sleep(120.0)
        assert sampled(mapping).busy

    play(given(service), script, within_s=5.0)


def test_a_mapping_that_does_not_run_has_no_load() -> None:
    assert QueueMapping(given(standard()), Stop()).load() is None
