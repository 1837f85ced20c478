"""Powertools' documented handlers at full concurrency: every failing record is reported, and none is taken for done."""

import asyncio
import base64
import json
import os
from collections.abc import Mapping
from pathlib import Path
from random import Random
from typing import Any

import pytest

from adapters.invokers import python
from adapters.invokers.python import PythonSettings, open_python
from poller.clock import LoopClock
from poller.domain.invocations import Succeeded
from poller.domain.plan import FunctionPlan
from poller.domain.policies import BatchPolicy, RetryPolicy
from poller.domain.records import MappingId
from poller.plugins import Environment, GivenPlugins
from poller.ports import Bounded
from poller.runtime.daemon import Daemon
from poller.runtime.invoking import Function
from poller.runtime.mappings.call_limits import call_limit
from poller.testing.invoker import invocation
from tests.runtime.daemons import Site, daemon_plan, until
from tests.runtime.fakes import Seen
from tests.runtime.queues.queue_fakes import STANDARD, plan, standard
from tests.virtual import virtual_clock

FUNCTIONS = "tests.adapters.invokers.functions.powertools"
HANDLERS = ("sqs", "fifo", "kinesis", "dynamodb", "asynchronous")
MODES: dict[str, tuple[str, Mapping[str, Any]]] = {
    "default": ("", {}),
    "workers": ("_threads", {"workers": 16}),
    "processes": ("", {"isolation": "process", "processes": 3}),
}
BATCHES = 30
BAD = 7


def event(handler: str, batch: int) -> dict[str, Any]:
    """Ten records, one of them bad."""
    numbers = range(batch * 10, batch * 10 + 10)
    return {"Records": [record(handler, number) for number in numbers]}


def record(handler: str, number: int) -> dict[str, Any]:
    """One record as AWS writes it."""
    body = json.dumps({"n": number})
    match handler:
        case "kinesis":
            data = base64.b64encode(body.encode()).decode()
            return {
                "eventSource": "aws:kinesis",
                "kinesis": {"sequenceNumber": str(number), "partitionKey": "k", "data": data},
            }
        case "dynamodb":
            image = {"n": {"N": str(number)}}
            return {
                "eventSource": "aws:dynamodb",
                "dynamodb": {"SequenceNumber": str(number), "NewImage": image},
            }
        case _:
            return {
                "eventSource": "aws:sqs",
                "messageId": str(number),
                "body": body,
                "attributes": {"MessageGroupId": "g"},
            }


def expected(handler: str, batch: int) -> list[str]:
    """What the function has to report: the bad one, and for a FIFO queue all behind it."""
    last = 10 if handler == "fifo" else BAD + 1
    return [str(batch * 10 + place) for place in range(BAD, last)]


async def reports(handler: str, mode: str) -> list[list[str]]:
    """What each of many batches reports, run as many at once as the engine runs."""
    ending, more = MODES[mode]
    settings = PythonSettings(function="orders", handler=f"{FUNCTIONS}:{handler}{ending}", **more)
    named = FunctionPlan(name="orders", invoker="python")
    async with open_python(settings, Environment(LoopClock())) as invoker:
        assert isinstance(invoker, Bounded)
        limit = call_limit(named, invoker.call_limit)
        function = Function(
            FunctionPlan(name="orders", invoker="python", max_concurrency=limit.calls), invoker, Seen()
        )

        async def call(batch: int) -> list[str]:
            await function.slots.acquire()
            try:
                outcome = await function.call(
                    invocation(event(handler, batch), timeout_s=60.0), mapping=MappingId("m")
                )
            finally:
                function.slots.release()
            assert isinstance(outcome, Succeeded), outcome
            items = json.loads(outcome.payload)["batchItemFailures"]
            return [each["itemIdentifier"] for each in items]

        async with asyncio.TaskGroup() as tasks:
            running = [tasks.create_task(call(batch)) for batch in range(BATCHES)]
    return [task.result() for task in running]


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("handler", HANDLERS)
def test_every_batch_reports_its_own_failures(
    handler: str, mode: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(Path(__file__).parents[4])]))
    found = asyncio.run(reports(handler, mode))
    assert found == [expected(handler, batch) for batch in range(BATCHES)]


def test_no_failing_message_of_a_queue_is_deleted_as_a_success() -> None:
    service = standard(visibility_s=600)
    service.send(*range(300))

    async def main() -> None:
        site = Site(sources={STANDARD: service})
        registry = site.daemon(daemon_plan())._registry
        assert isinstance(registry, GivenPlugins)
        registry._plugins["invokers", "python"] = python.plugin
        function = FunctionPlan(
            name="reader", invoker="python", settings={"handler": f"{FUNCTIONS}:sqs"}, timeout_s=60.0
        )
        mapping = plan(service, batch=BatchPolicy(10), retry=RetryPolicy(report_failures=True))
        daemon = Daemon(
            daemon_plan(mapping, functions={"reader": function}),
            registry=registry,
            env=Environment(clock=virtual_clock()),
            observer=site.seen,
            rng=Random(7),
        )
        async with asyncio.TaskGroup() as scope:
            scope.create_task(daemon.run())
            await until(lambda: len(service.left) <= 30 and all(service.received.values()))
            await asyncio.sleep(0.5)
            daemon.stop()

    asyncio.run(main())
    assert service.left == [number for number in range(300) if number % 10 == BAD]
    assert set(service.received.values()) == {1}
