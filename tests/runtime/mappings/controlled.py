"""Owns what tests of the control plane have in common: a site with a stream and two queues, and waits for states."""

from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from poller.domain.invocations import Outcome
from poller.domain.mapping_api import ApiError, ApiErrorType, MappingView
from poller.domain.plan import DaemonPlan, FunctionPlan
from poller.domain.records import MappingId
from poller.domain.rows import MappingState
from poller.runtime.daemon import Daemon
from poller.runtime.mappings.mapping_service import MappingService
from tests.runtime.daemons import Site, daemon_plan, play, until
from tests.runtime.fakes import STREAM_ARN, FakeFunction, FakeStream, records
from tests.runtime.queues.queue_fakes import STANDARD, Handler, fifo, standard

S = MappingState
FIFO = f"{STANDARD}.fifo"
READER = "arn:aws:lambda:eu-west-1:111122223333:function:reader"
STREAM_REQUEST = {"FunctionName": "reader", "EventSourceArn": STREAM_ARN, "StartingPosition": "TRIM_HORIZON"}
QUEUE_REQUEST = {"FunctionName": "worker", "EventSourceArn": STANDARD}
UNKNOWN = MappingId("00000000-0000-4000-8000-000000000000")

type Play = Callable[[MappingService, Daemon], Awaitable[None]]


def site(answer: Callable[[list[int]], Outcome] | None = None, *, takes_s: float = 0.0) -> Site:
    """A stream with five records, two queues, and a function for each kind of source."""
    stream = FakeStream()
    stream.put(*records(1, 2, 3, 4, 5))
    return Site(
        sources={STREAM_ARN: stream, STANDARD: standard(30), FIFO: fifo(30)},
        functions={"reader": FakeFunction(answer, takes_s=takes_s), "worker": Handler()},
    )


def plan(**changes: Any) -> DaemonPlan:
    """No mappings, two functions."""
    names = ("reader", "worker")
    functions = {name: FunctionPlan(name=name, invoker="fake") for name in names}
    return daemon_plan(functions=functions, **changes)


def controlled(place: Site, script: Play, *, given: DaemonPlan | None = None) -> None:
    """Runs the script against a daemon that is ready."""

    async def main(daemon: Daemon) -> None:
        await until(lambda: daemon.status().ready)
        await script(daemon.control, daemon)

    play(lambda: place.daemon(given or plan()), main)


async def view(control: MappingService, identity: MappingId) -> MappingView:
    return next(each for each in control.views() if each.mapping == identity)


async def reaches(control: MappingService, identity: MappingId, state: MappingState) -> float:
    """Waits for a state; returns the virtual seconds that it took."""
    return await until(
        lambda: any(each.mapping == identity and each.state is state for each in control.views())
    )


async def refusal(change: Awaitable[object]) -> tuple[ApiErrorType, str]:
    with pytest.raises(ApiError) as caught:
        await change
    return caught.value.fault, caught.value.text


def reader(place: Site) -> FakeFunction:
    function = place.functions["reader"]
    assert isinstance(function, FakeFunction)
    return function
