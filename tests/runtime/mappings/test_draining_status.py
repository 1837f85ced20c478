"""While a daemon drains, its mappings are shown as what they are: enabled, and stopping with it."""

import asyncio
from dataclasses import replace

from poller.domain.invocations import Succeeded
from poller.domain.plan import FunctionPlan
from poller.domain.policies import BatchPolicy
from poller.domain.rows import MappingState
from poller.domain.status import DaemonStatus
from poller.runtime.mappings.running import STOPPED, STOPPING
from tests.runtime.daemons import STEADY, Site, daemon_plan
from tests.runtime.fakes import STREAM_ARN, FakeFunction, FakeStream, mapping, records
from tests.runtime.queues.queue_fakes import STANDARD, Handler, plan, standard
from tests.virtual import run_virtual


def seen(*, queue_s: float, stream_s: float) -> list[DaemonStatus]:
    """The status at each second of a drain that begins at second 5; the calls under way then end after `queue_s` and `stream_s`."""
    service, stream = standard(600), FakeStream()
    handler = Handler(takes_s=queue_s, answer=lambda _: Succeeded(b""))
    site = Site(
        sources={STANDARD: service, STREAM_ARN: stream},
        functions={"reader": handler, "writer": FakeFunction(takes_s=stream_s)},
    )
    functions = {
        name: FunctionPlan(name=name, invoker="fake", timeout_s=60.0) for name in ("reader", "writer")
    }
    given = daemon_plan(
        plan(service, batch=BatchPolicy(1)),
        mapping(function="writer"),
        functions=functions,
        tuning=replace(STEADY, grace_s=30.0),
    )
    pages: list[DaemonStatus] = []

    async def main() -> None:
        running = asyncio.ensure_future((daemon := site.daemon(given)).run())
        await asyncio.sleep(3.5)
        stream.put(*records(1))
        service.send(1)
        await asyncio.sleep(1.5)
        daemon.stop()
        while not running.done():
            pages.append(daemon.status())
            await asyncio.sleep(1.0)
        await running

    run_virtual(main())
    return pages


def test_streams_and_queues_are_enabled_and_stop_with_the_daemon() -> None:
    pages = seen(queue_s=25.0, stream_s=10.0)
    found = {
        (each.function, each.state, each.reason, bool(each.shards))
        for page in pages
        for each in page.mappings
    }
    assert found == {
        ("reader", MappingState.ENABLED, STOPPING, False),
        ("writer", MappingState.ENABLED, STOPPING, True),
        ("writer", MappingState.ENABLED, STOPPED, False),
    }
    assert {(page.ready, page.problems, page.notes) for page in pages} == {(False, ("draining",), ())}
