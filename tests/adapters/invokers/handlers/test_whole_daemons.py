"""Whole daemons on virtual time with Python functions in them: nothing that a handler does ends a lane or loses a record."""

import asyncio
import json
from dataclasses import dataclass, field
from random import Random
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from adapters.invokers import python
from poller.domain.plan import FunctionPlan
from poller.domain.policies import BatchPolicy, RetryPolicy
from poller.domain.telemetry.daemon_events import FunctionOpened
from poller.domain.telemetry.mapping_events import CheckpointSaved
from poller.plugins import Environment, GivenPlugins
from poller.runtime.daemon import Daemon
from tests.adapters.invokers.functions.hostile import STEPS, unseen
from tests.runtime.daemons import STEADY, Site, daemon_plan, now, play, until
from tests.runtime.fakes import STREAM_ARN, FakeStream, mapping, records
from tests.runtime.queues.queue_fakes import STANDARD, plan, standard
from tests.virtual import run_virtual, virtual_clock


@dataclass
class Diary:
    """What the handlers of a test saw; `misbehaves` are the steps of each call's handler, one call each."""

    misbehaves: list[list[str]] = field(default_factory=list)
    calls: list[list[str]] = field(default_factory=list)
    at_once: int = 0
    at_once_max: int = 0


DIARY = Diary()


@pytest.fixture(autouse=True)
def diary(monkeypatch: pytest.MonkeyPatch) -> Diary:
    found = Diary()
    monkeypatch.setitem(globals(), "DIARY", found)
    return found


async def handler(event: Any, _context: Any) -> None:
    """Notes what it got, and does what is next in the diary."""
    DIARY.calls.append([named(record) for record in event["Records"]])
    DIARY.at_once += 1
    DIARY.at_once_max = max(DIARY.at_once, DIARY.at_once_max)
    try:
        for step in DIARY.misbehaves.pop(0) if DIARY.misbehaves else ():
            await STEPS[step]()
        await asyncio.sleep(0.1)
    finally:
        DIARY.at_once -= 1


def named(record: dict[str, Any]) -> str:
    """A record's number."""
    if "kinesis" in record:
        return str(record["kinesis"]["sequenceNumber"])
    return str(json.loads(record["body"])["n"])


def daemon(site: Site, *mappings: Any, timeout_s: float = 3.0, **more: Any) -> Daemon:
    """A daemon whose function `reader` is this module's handler."""
    found = {"handler": f"{__name__}:handler", **more}
    function = FunctionPlan(name="reader", invoker="python", settings=found, timeout_s=timeout_s)
    others = site.daemon(daemon_plan())
    registry = others._registry
    assert isinstance(registry, GivenPlugins)
    registry._plugins["invokers", "python"] = python.plugin
    return Daemon(
        daemon_plan(*mappings, functions={"reader": function}, tuning=STEADY),
        registry=registry,
        env=Environment(clock=virtual_clock()),
        observer=site.seen,
        rng=Random(7),
    )


MISBEHAVIOUR = [
    ["cancels itself"],
    ["cancels itself", "waits"],
    ["cancels itself soon", "waits a moment"],
    ["cancels all"],
    ["cancels all", "waits"],
    ["is in a group"],
    ["is late"],
    ["refuses"],
]


@pytest.mark.parametrize("steps", MISBEHAVIOUR, ids="-".join)
def test_a_stream_s_lane_goes_on_whatever_its_handler_does(steps: list[str], diary: Diary) -> None:
    stream = FakeStream()
    stream.put(*records(1, 2, 3, 4))
    site = Site(sources={STREAM_ARN: stream})
    diary.misbehaves = [steps]
    mapped = mapping(batch=BatchPolicy(2), retry=RetryPolicy(retries_max=5))

    async def script(_: Daemon) -> None:
        await until(lambda: ["3", "4"] in diary.calls, within_s=30)
        await asyncio.sleep(2)

    play(lambda: daemon(site, mapped), script)
    assert diary.calls[-1] == ["3", "4"]
    assert site.seen.of(CheckpointSaved)[-1].position.sequence_number == "4"


@pytest.mark.parametrize("steps", MISBEHAVIOUR, ids="-".join)
def test_a_queue_s_messages_are_run_whatever_their_handler_does(steps: list[str], diary: Diary) -> None:
    service = standard(visibility_s=10)
    service.send(*range(20))
    site = Site(sources={STANDARD: service})
    diary.misbehaves = [steps]

    async def script(_: Daemon) -> None:
        await until(lambda: not service.left, within_s=60)

    play(lambda: daemon(site, plan(service, batch=BatchPolicy(10))), script)
    assert service.left == []
    assert {name for call in diary.calls for name in call} == {str(number) for number in range(20)}


def test_a_daemon_that_is_stopped_does_not_wait_for_a_handler_that_refuses_to_be_cancelled(
    diary: Diary,
) -> None:
    stream = FakeStream()
    stream.put(*records(1))
    diary.misbehaves = [["refuses"] * 20]

    async def main() -> tuple[float, float]:
        async with asyncio.TaskGroup() as scope:
            running = daemon(Site(sources={STREAM_ARN: stream}), mapping())
            task = scope.create_task(running.run(), name="daemon")
            await until(lambda: bool(diary.calls))
            await asyncio.sleep(3.5)
            running.stop()
            asked = now()
            await task
            ended = now()
        return asked, ended

    asked, ended = run_virtual(main())
    # The second try of the batch runs until its limit; then the refusing ones have a second.
    assert ended - asked <= 3.0 + 1.0


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    misbehaves=st.lists(st.lists(st.sampled_from(sorted(STEPS)), max_size=4), max_size=8),
    workers=st.sampled_from([None, 1, 3]),
)
def test_everything_is_settled_whatever_handlers_do(misbehaves: list[list[str]], workers: int | None) -> None:
    DIARY.misbehaves[:], DIARY.calls[:] = misbehaves, []
    service, stream = standard(visibility_s=20), FakeStream()
    service.send(*range(30))
    stream.put(*records(*range(1, 9)))
    site = Site(sources={STANDARD: service, STREAM_ARN: stream})

    def settled() -> bool:
        saved = site.seen.of(CheckpointSaved)
        return not service.left and bool(saved) and saved[-1].position.sequence_number == "8"

    async def script(_: Daemon) -> None:
        asyncio.get_running_loop().set_exception_handler(unseen)
        await until(settled, within_s=600, step_s=1.0)

    mappings = [mapping(batch=BatchPolicy(2)), plan(service, batch=BatchPolicy(10))]
    play(lambda: daemon(site, *mappings, workers=workers), script)


@pytest.mark.parametrize(("workers", "at_once"), [(None, None), (3, 3)])
def test_a_queue_takes_as_many_batches_as_its_function_can_run(
    workers: int | None, at_once: int | None, diary: Diary
) -> None:
    service = standard(visibility_s=10)
    service.send(*range(200))
    site = Site(sources={STANDARD: service})

    async def script(_: Daemon) -> None:
        await until(lambda: not service.left, within_s=60)

    play(lambda: daemon(site, plan(service, batch=BatchPolicy(10)), workers=workers), script)
    [opened] = site.seen.of(FunctionOpened)
    assert opened.calls_at_once == at_once
    assert diary.at_once_max == (at_once or 5)
    assert set(service.received.values()) == {1}
