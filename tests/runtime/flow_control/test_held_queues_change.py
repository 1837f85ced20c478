"""Owns facts of messages that are here while the breaker of their function is open, and what then happens to the mapping."""

import asyncio
from collections.abc import Callable
from dataclasses import replace

import pytest

from poller.domain.invocations import FunctionError, Invocation, Outcome, Succeeded
from poller.domain.operations import Action
from poller.domain.plan import DaemonPlan, FunctionPlan, MappingPlan
from poller.domain.policies import BatchPolicy, BreakerPolicy
from poller.domain.records import MappingId
from poller.runtime.daemon import Daemon
from poller.runtime.operations.operable import Operable
from poller.runtime.queues.message_batch import PERMIT_AFTER_STOP_S
from tests.runtime.daemons import Site, daemon_plan, play, until
from tests.runtime.fakes import STREAM_ARN, FakeFunction, FakeStream, mapping, records
from tests.runtime.queues.queue_fakes import Service, plan, seconds, standard
from tests.runtime.queues.test_operations import asked, pause

LONG = FunctionPlan(name="reader", invoker="fake", breaker=BreakerPolicy(0.5, 60.0, 86_400.0))
STREAM = MappingId("0f4b8a5e-8b0c-4a56-9c0e-0d7d6b0c2b13")
"""Its batches open the breaker while the queue's batch gathers."""
WINDOW_S = 10.0
SOON_S = PERMIT_AFTER_STOP_S + WINDOW_S + 1.0


class Breaking(FakeFunction):
    """An invoker that works for the queue, and fails for the stream until it is repaired."""

    repaired = False

    async def invoke(self, invocation: Invocation) -> Outcome:
        if b"aws:kinesis" in invocation.payload and not self.repaired:
            return FunctionError("ValueError", "gone")
        return Succeeded(b"")


def held() -> tuple[Site, Service, MappingPlan, DaemonPlan]:
    """A queue with two messages that were received before the breaker opened, and wait for it."""
    queue, stream = standard(), FakeStream()
    queue.send(1, 2)
    found = plan(queue, batch=BatchPolicy(records_max=10, window_s=WINDOW_S))
    site = Site(sources={found.source_arn: queue, STREAM_ARN: stream}, functions={"reader": Breaking()})
    lone = replace(mapping(batch=BatchPolicy(records_max=1), mapping=STREAM), function="reader")
    lone = replace(lone, stream=replace(lone.stream, lanes=10))
    for number in range(1, 11):
        stream.put(*records(number, key=f"key-{number}"))
    return site, queue, found, daemon_plan(found, lone, functions={"reader": LONG})


def breaker(daemon: Daemon) -> str:
    return "".join(each.breaker.state for each in daemon.status().functions if each.breaker)


async def holding(daemon: Daemon, queue: Service) -> None:
    """Waits until the messages wait for the open breaker."""
    await until(lambda: breaker(daemon) == "open")
    await asyncio.sleep(15.0)
    assert queue.received == {1: 1, 2: 1}
    assert not queue.deletes
    assert not released(queue)


def released(queue: Service) -> bool:
    """Whether messages were made visible."""
    return any(seconds == 0 for _, _, seconds in queue.extensions)


def operable(daemon: Daemon, which: MappingId) -> Operable:
    assert daemon._open_parts is not None
    return daemon._open_parts.running.operables()[which]


@pytest.mark.parametrize(
    "change",
    [
        lambda given: replace(given, functions={"reader": replace(LONG, breaker=None)}),
        lambda given: replace(
            given, functions={"reader": replace(LONG, breaker=BreakerPolicy(0.5, 60.0, 5.0))}
        ),
        lambda given: replace(given, functions={"reader": replace(LONG, max_concurrency=5)}),
    ],
    ids=["without", "another", "other"],
)
def test_a_changed_function_is_used_within_seconds_although_its_breaker_holds_messages(
    change: Callable[[DaemonPlan], DaemonPlan],
) -> None:
    site, queue, found, given = held()

    async def script(daemon: Daemon) -> None:
        await holding(daemon, queue)
        changed = seconds()
        daemon.replan(change(replace(given, mappings=(found,))))
        await until(lambda: bool(queue.deletes), within_s=60.0)
        assert seconds() - changed < SOON_S

    play(lambda: site.daemon(given), script)


def test_a_removed_mapping_gives_back_soon_what_waits_for_the_breaker() -> None:
    site, queue, _, given = held()

    async def script(daemon: Daemon) -> None:
        await holding(daemon, queue)
        daemon.replan(replace(given, mappings=()))
        await until(lambda: not daemon.status().mappings, within_s=SOON_S)
        assert released(queue)

    play(lambda: site.daemon(given), script)


def test_a_pause_gives_back_what_waits_for_the_breaker() -> None:
    site, queue, found, given = held()

    async def script(daemon: Daemon) -> None:
        await holding(daemon, queue)
        operable(daemon, found.mapping).apply_pauses([pause()])
        # A poll that was under way when the breaker opened must be answered first.
        await until(lambda: released(queue), within_s=25.0)
        operable(daemon, found.mapping).apply_pauses([])
        broken = site.functions["reader"]
        assert isinstance(broken, Breaking)
        broken.repaired = True
        await daemon.control.functions.close_breaker("reader", by="ops", reason="")
        await until(lambda: queue.left == [], within_s=20.0)
        assert queue.received == {1: 2, 2: 2}

    play(lambda: site.daemon(given), script)


def test_a_message_that_waits_for_the_breaker_is_skipped_while_the_breaker_is_open() -> None:
    site, queue, found, given = held()

    async def script(daemon: Daemon) -> None:
        await holding(daemon, queue)
        ids = {letter.content.number: name for name, letter in queue.queue.letters.items()}
        skip = asked(Action.SKIP, records=[ids[1]], discard=True)
        for _ in range(3):
            await operable(daemon, found.mapping).carry_out("worker-1", skip)
            await asyncio.sleep(1.0)
        assert queue.left == [2]
        assert breaker(daemon) == "open"
        assert queue.received == {1: 1, 2: 1}

    play(lambda: site.daemon(given), script)
