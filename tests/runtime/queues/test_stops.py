"""A stop breaks no poll: polls under way are answered, and what they bring is run, or given back once where time is short."""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from poller.domain.errors import ServiceUnavailable
from poller.domain.invocations import FunctionError, Throttled
from poller.domain.plan import DaemonPlan, FunctionPlan, MappingPlan, Tuning
from poller.domain.policies import Backoff, BatchPolicy, QueuePolicy, ScalingPolicy
from poller.domain.records import Message
from poller.domain.rows import MappingState
from poller.rules.queues.polling import HAND_BACK_S
from poller.runtime.daemon import Daemon
from poller.runtime.queues.queue_mapping import QueueMapping
from poller.runtime.stopping import Reason, Stop
from tests.runtime.daemons import STEADY, Site, daemon_plan, until
from tests.runtime.daemons import play as play_daemon
from tests.runtime.queues.queue_fakes import (
    Handler,
    Script,
    Service,
    fifo,
    function_of,
    parts,
    plan,
    play,
    seconds,
    standard,
    throttled_until,
)
from tests.virtual import EPOCH_BASE, run_virtual

ONE = ScalingPolicy(concurrency_max=1)
DAY_S = 86_400.0
STATES = {
    "updated": MappingState.UPDATING,
    "disabled": MappingState.DISABLING,
    "removed": MappingState.DELETING,
}
"""Shown while a mapping ends that was changed so."""


def sending_after_a_stop(
    service: Service, *sends: tuple[float, int], stop_at: float, within_s: float | None = None
) -> Script:
    """Asks for a stop at `stop_at`; message `n` comes at `at` for each (at, n)."""

    async def script(_: QueueMapping, stop: Stop) -> None:
        await asyncio.sleep(stop_at)
        stop.request(Reason.REQUESTED, within_s=within_s)
        for at, number in sends:
            await asyncio.sleep(at - seconds())
            service.send(number)

    return script


@pytest.mark.parametrize(
    ("within_s", "limit_s"),
    [(None, 900.0), (30.0, 28.4), (60.0, 58.4)],
    ids=["a change of the mapping", "a stop", "a stop with a long grace"],
)
def test_what_the_last_poll_brings_after_a_stop_is_run_when_there_is_time(
    within_s: float | None, limit_s: float
) -> None:
    service, handler = standard(120, redrive=1), Handler(takes_s=3.0)
    script = sending_after_a_stop(service, (10.0, 1), stop_at=7.5, within_s=within_s)
    given_parts = parts(service, function_of(handler, timeout_s=limit_s), plan(service, scaling=ONE))
    assert play(given_parts, script) == 13.0
    assert handler.timed == [(10.0, [1])]
    assert (service.given_to_nobody, service.extensions, service.left) == ([], [], [])


def test_what_the_last_poll_brings_after_a_stop_is_given_back_at_once_when_time_is_short() -> None:
    service, handler = standard(120), Handler()
    script = sending_after_a_stop(service, (10.0, 1), stop_at=7.5, within_s=30.0)
    given_parts = parts(service, function_of(handler, timeout_s=28.6), plan(service, scaling=ONE))
    assert play(given_parts, script) == 10.0
    assert service.given_to_nobody == []
    assert service.extensions == [(10.0, 1, 0)]
    assert service.received == {1: 1}
    assert handler.calls == []


def test_what_is_given_back_has_cost_a_receive() -> None:
    service, handler = standard(120, redrive=1), Handler()
    script = sending_after_a_stop(service, (10.0, 1), stop_at=7.5, within_s=30.0)
    given_parts = parts(service, function_of(handler, timeout_s=60.0), plan(service))
    play(given_parts, script)
    assert (handler.calls, service.left) == ([], [1])
    play(given_parts, 1.0)
    assert handler.calls == []
    assert [letter.content.number for letter in service.queue.dead] == [1]


def test_what_is_received_after_a_stop_is_given_back_when_no_other_poll_can_catch_it() -> None:
    service, handler = standard(120), Handler()
    script = sending_after_a_stop(service, (8.0, 1), (9.0, 2), stop_at=7.5, within_s=30.0)
    assert play(parts(service, function_of(handler, timeout_s=60.0), plan(service)), script) == 20.0
    assert service.received == {1: 1, 2: 1}
    assert service.extensions == [(20.0, 1, 0), (20.0, 1, 0)]
    assert (service.given_to_nobody, handler.calls) == ([], [])


def test_what_the_function_refuses_after_a_stop_is_given_back_without_another_try() -> None:
    service, handler = standard(120), Handler(answer=throttled_until(DAY_S))
    script = sending_after_a_stop(service, (8.0, 1), (9.0, 2), stop_at=7.5)
    assert play(parts(service, function_of(handler), plan(service)), script) == 20.0
    assert handler.timed == [(8.0, [1]), (9.0, [2])]
    assert service.received == {1: 1, 2: 1}
    assert service.extensions == [(20.0, 1, 0), (20.0, 1, 0)]


@pytest.mark.parametrize("then_s", [None, 30.0])
def test_events_of_one_receive_begin_until_the_time_is_short(then_s: float | None) -> None:
    """The mapping is changed while the first event runs, and perhaps the daemon is stopped then."""
    service, handler = fifo(120, redrive=1), Handler(takes_s=20.0)
    service.send(1, 2, 3, group="g")
    given_parts = parts(
        service,
        function_of(handler, timeout_s=25.0),
        plan(service, batch=BatchPolicy(10, payload_bytes_max=600), scaling=ONE),
    )

    async def script(_: QueueMapping, stop: Stop) -> None:
        await asyncio.sleep(5.0)
        stop.request(Reason.REQUESTED)
        await asyncio.sleep(20.0)
        if then_s is not None:
            stop.request(Reason.REQUESTED, within_s=then_s)

    ended = play(given_parts, script)
    begun = [0.0, 20.0, 40.0][: 3 if then_s is None else 2]
    assert handler.times == pytest.approx(begun, abs=0.1)
    assert handler.calls == [[1], [2], [3]][: len(begun)]
    assert service.left == [1, 2, 3][len(begun) :]
    assert ended == pytest.approx(begun[-1] + 20.0, abs=0.1)


def test_an_idle_mapping_stops_when_its_polls_are_answered() -> None:
    service = standard()
    assert play(parts(service, function_of(Handler()), plan(service)), 7.5) == 20.0
    assert len(service.receives) == 5


@pytest.mark.parametrize(
    ("grace_s", "wait_s"), [(60.0, 20), (30.0, 20), (20.0, 15), (7.5, 2), (6.0, 1), (0.0, 1)]
)
def test_a_poll_ends_within_the_grace_time(grace_s: float, wait_s: int) -> None:
    service = standard()
    tuning = Tuning(grace_s=grace_s)
    play(parts(service, function_of(Handler()), plan(service), tuning=tuning), 3.0)
    assert {waited for _, waited, _ in service.receives} == {wait_s}


@pytest.mark.parametrize("kind", [standard, fifo])
def test_a_batch_that_the_function_refuses_is_given_back_behind_the_last_poll(
    kind: Callable[[int], Service],
) -> None:
    service, handler = kind(120), Handler(answer=throttled_until(DAY_S))
    service.send(1, 2, 3, group="g" if service.queue.facts.fifo else None)
    mapping = plan(service, batch=BatchPolicy(10))
    play(parts(service, function_of(handler), mapping), 10.0, after_s=30.0)
    assert service.received == {1: 1, 2: 1, 3: 1}
    assert [(count, visibility_s) for _, count, visibility_s in service.extensions] == [(3, 0)]


class Silent(Service):
    """Its second receive is answered after minutes."""

    async def receive(self, *, messages_max: int, wait_s: float) -> Sequence[Message]:
        if len(self.receives) == 1:
            await asyncio.sleep(300.0)
        return await super().receive(messages_max=messages_max, wait_s=wait_s)


def test_a_poll_that_is_not_answered_holds_up_what_is_given_back_for_two_seconds_beyond_its_wait() -> None:
    service, handler = Silent(standard(120).queue), Handler(answer=throttled_until(DAY_S))
    service.send(1)
    mapping = plan(service, scaling=ScalingPolicy(concurrency_max=2))
    play(parts(service, function_of(handler), mapping), 7.0)
    assert service.extensions[0] == (22.0, 1, 0)


@pytest.mark.parametrize("takes_s", [1.0, 10.0])
def test_a_batch_that_gathers_at_a_stop_runs_at_once_and_what_its_poll_brings_behind_it(
    takes_s: float,
) -> None:
    service, handler = standard(120, redrive=1), Handler(takes_s=takes_s)
    service.send(1, 2)
    mapping = plan(service, batch=BatchPolicy(100, 60.0), scaling=ONE)
    script = sending_after_a_stop(service, (25.0, 3), stop_at=21.0)
    second = max(25.0, 21.0 + takes_s)
    ended = play(parts(service, function_of(handler, limit=1), mapping), script)
    assert ended == pytest.approx(second + takes_s, abs=0.1)
    assert handler.timed == [(21.0, [1, 2]), (second, [3])]
    assert (handler.in_flight_max, service.left) == (1, [])


def test_what_the_poll_of_a_closed_batch_brings_is_given_back_when_time_is_short() -> None:
    service, handler = standard(120), Handler(takes_s=1.0)
    service.send(1, 2)
    mapping = plan(service, batch=BatchPolicy(100, 60.0), scaling=ONE)
    script = sending_after_a_stop(service, (25.0, 3), stop_at=21.0, within_s=30.0)
    assert play(parts(service, function_of(handler), mapping), script) == 25.0
    assert handler.timed == [(21.0, [1, 2])]
    assert (service.received, service.left) == ({1: 1, 2: 1, 3: 1}, [3])
    assert service.extensions[-1] == (25.0, 1, 0)


def test_a_poller_that_is_no_longer_wanted_leaves_behind_its_poll() -> None:
    service, handler = standard(), Handler()

    async def script(mapping: QueueMapping, _: Stop) -> None:
        await asyncio.sleep(41.5)
        assert mapping.pollers == 2
        for number in range(40):
            service.send(number)
            await asyncio.sleep(1.0)

    play(parts(service, function_of(handler), plan(service)), script)
    assert service.given_to_nobody == []
    assert set(service.received.values()) == {1}


def test_only_the_end_of_the_grace_time_breaks_a_poll() -> None:
    service = standard()

    async def main() -> None:
        given_parts = parts(service, function_of(Handler()), plan(service, scaling=ONE))
        task = asyncio.ensure_future(QueueMapping(given_parts, Stop()).run())
        await asyncio.sleep(5.0)
        task.cancel()
        await asyncio.wait([task])
        service.send(1)
        await asyncio.sleep(1.0)

    run_virtual(main())
    assert service.given_to_nobody == [1], "SQS goes on with a poll whose client has gone"


def test_a_delete_that_waits_for_its_next_try_is_tried_at_a_stop() -> None:
    service, handler = standard(600), Handler()
    service.trouble["delete"] = [ServiceUnavailable("no answer")]
    service.send(1)
    tuning = Tuning(port_backoff=Backoff(base_s=500.0, cap_s=500.0))
    mapping = plan(service, scaling=ONE)
    assert play(parts(service, function_of(handler), mapping, tuning=tuning), 25.0) == 40.0
    assert service.left == []


def test_deletes_are_tried_often_while_a_mapping_stops() -> None:
    service, handler = standard(600), Handler()
    service.trouble["delete"] = [ServiceUnavailable("no answer")] * 7
    service.send(1)
    tuning = Tuning(port_backoff=Backoff(base_s=500.0, cap_s=500.0))
    mapping = plan(service, scaling=ONE)
    ended = play(parts(service, function_of(handler), mapping, tuning=tuning), 25.0)
    assert ended <= 25.0 + 6 * 3.0 + 2.0
    assert service.left == []


@pytest.mark.parametrize("refuses", [False, True])
def test_a_group_is_blocked_since_its_first_receive_over_restarts(refuses: bool) -> None:
    service = fifo(30)
    service.send(1, group="g")
    answer = Throttled("no room") if refuses else FunctionError("ValueError", "bad")
    given_parts = parts(
        service, function_of(Handler(answer=lambda _: answer)), plan(service, batch=BatchPolicy(1))
    )
    shown: list[float | None] = []

    async def main() -> None:
        for _ in range(3):
            stop = Stop()
            mapping = QueueMapping(given_parts, stop)
            async with asyncio.TaskGroup() as scope:
                scope.create_task(mapping.run(), name="mapping")
                await asyncio.sleep(100.0)
                shown.extend(lane.blocked_since for lane in mapping.lanes() if lane.last_error)
                stop.request(Reason.REQUESTED)

    run_virtual(main())
    assert shown == [EPOCH_BASE] * 3


CHANGES: dict[str, Callable[[MappingPlan], DaemonPlan]] = {
    "updated": lambda mapping: daemon_plan(replace(mapping, batch=BatchPolicy(5))),
    "disabled": lambda mapping: daemon_plan(replace(mapping, enabled=False)),
    "removed": lambda _: daemon_plan(),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_changed_mapping_runs_what_its_polls_bring(change: str) -> None:
    service, handler, site = standard(600, redrive=1), Handler(takes_s=40.0), Site()
    mapping = plan(service)
    site.sources[mapping.source_arn], site.functions["reader"] = service, handler

    async def script(daemon: Daemon) -> None:
        await asyncio.sleep(5.0)
        daemon.replan(CHANGES[change](mapping))
        await asyncio.sleep(1.0)
        service.send(1)
        await asyncio.sleep(39.0)
        assert [each.state for each in daemon.status().mappings] == [STATES[change]]
        await asyncio.sleep(30.0)

    functions = {"reader": FunctionPlan(name="reader", invoker="fake", timeout_s=60.0)}
    play_daemon(lambda: site.daemon(daemon_plan(mapping, functions=functions)), script)
    assert (service.given_to_nobody, service.queue.dead, service.left) == ([], [], [])
    assert (service.received, handler.timed) == ({1: 1}, [(6.0, [1])])


@settings(max_examples=40, deadline=None)
@given(
    fifo_queue=st.booleans(),
    how=st.sampled_from([*CHANGES, "stopped"]),
    sends=st.lists(st.floats(0.0, 40.0), min_size=1, max_size=8),
    stop_at=st.floats(1.0, 30.0),
    window_s=st.sampled_from([0.0, 4.0, 300.0]),
    most=st.sampled_from([None, 1, 2]),
    limit_s=st.sampled_from([3.0, 12.0, 40.0]),
    grace_s=st.sampled_from([30.0, 12.0]),
    one_group=st.booleans(),
)
def test_a_message_that_may_be_received_once_is_run(
    *,
    fifo_queue: bool,
    how: str,
    sends: list[float],
    stop_at: float,
    window_s: float,
    most: int | None,
    limit_s: float,
    grace_s: float,
    one_group: bool,
) -> None:
    """A mapping of a queue with maxReceiveCount 1 is changed, or its daemon stopped and followed by another one."""
    service = fifo(60, redrive=1) if fifo_queue else standard(60, redrive=1)
    handler, site = Handler(takes_s=limit_s * 0.9), Site()
    mapping = plan(
        service,
        batch=BatchPolicy(10, 0.0 if fifo_queue else window_s),
        scaling=ScalingPolicy(concurrency_max=most),
        queue=QueuePolicy(one_group_per_batch=one_group),
    )
    site.sources[mapping.source_arn], site.functions["reader"] = service, handler
    functions = {"reader": FunctionPlan(name="reader", invoker="fake", timeout_s=limit_s)}
    first = daemon_plan(mapping, functions=functions, tuning=replace(STEADY, grace_s=grace_s))

    async def send() -> None:
        for number, at in enumerate(sorted(sends)):
            await asyncio.sleep(at - seconds())
            service.send(number, group=f"g{number % 3}" if fifo_queue else None)

    def tried() -> bool:
        return {number for number, count in service.received.items() if count} <= set(handler.done)

    def settled() -> bool:
        return not service.left

    async def main() -> None:
        async with asyncio.TaskGroup() as scope:
            scope.create_task(send(), name="sender")
            daemon = site.daemon(first)
            running = scope.create_task(daemon.run(), name="daemon")
            await asyncio.sleep(stop_at)
            if how != "stopped":
                daemon.replan(replace(CHANGES[how](mapping), functions=functions))
                await asyncio.sleep(45.0)
                await until(settled if how == "updated" else tried, within_s=900.0, step_s=5.0)
            daemon.stop()
            await running
            if how == "stopped":
                assert seconds() <= stop_at + grace_s + 1.0
                begun = [at for at in handler.times if at > stop_at]
                assert all(at + limit_s <= stop_at + grace_s + 1.0 for at in begun)
            last = site.daemon(first)
            running = scope.create_task(last.run(), name="daemon")
            await asyncio.sleep(45.0)
            await until(settled, within_s=900.0, step_s=5.0)
            last.stop()

    run_virtual(main())
    assert service.given_to_nobody == []
    if how != "stopped" or limit_s + HAND_BACK_S + 20.0 <= grace_s:
        assert sorted(handler.done) == list(range(len(sends)))
        assert (service.queue.dead, service.left) == ([], [])
        assert set(service.received.values()) == {1}


@settings(max_examples=60, deadline=None)
@given(
    fifo_queue=st.booleans(),
    sends=st.lists(st.floats(0.0, 60.0), max_size=12),
    stop_at=st.floats(0.0, 40.0),
    batch=st.sampled_from([1, 3, 10]),
    window_s=st.sampled_from([0.0, 3.0]),
    most=st.sampled_from([None, 1, 2]),
    takes_s=st.sampled_from([0.0, 4.0]),
    grace_s=st.sampled_from([30.0, 12.0]),
    latency_s=st.sampled_from([0.0, 0.05]),
    refuses_from=st.sampled_from([0.0, 20.0, DAY_S]),
)
def test_a_stop_costs_each_message_one_receive_at_most(
    *,
    fifo_queue: bool,
    sends: list[float],
    stop_at: float,
    batch: int,
    window_s: float,
    most: int | None,
    takes_s: float,
    grace_s: float,
    latency_s: float,
    refuses_from: float,
) -> None:
    """Messages come before, while and after a mapping is stopped, whose function may refuse; nothing is given to nobody."""
    service = fifo(60) if fifo_queue else standard(60)
    handler = Handler(takes_s=takes_s)
    accepts = handler.answer
    handler.answer = lambda got: Throttled("no room") if seconds() >= refuses_from else accepts(got)
    mapping = plan(
        service,
        batch=BatchPolicy(batch, 0.0 if fifo_queue else window_s),
        scaling=ScalingPolicy(concurrency_max=most),
        queue=QueuePolicy(),
    )

    async def script(_: QueueMapping, stop: Stop) -> None:
        async def send() -> None:
            for number, at in enumerate(sorted(sends)):
                await asyncio.sleep(at - seconds())
                service.send(number, group=f"g{number % 3}" if fifo_queue else None)

        async with asyncio.TaskGroup() as scope:
            scope.create_task(send(), name="sender")
            await asyncio.sleep(stop_at)
            stop.request(Reason.REQUESTED, within_s=grace_s)

    service.latency_s = latency_s
    tuning = Tuning(grace_s=grace_s)
    given_parts = parts(service, function_of(handler, timeout_s=grace_s), mapping, tuning=tuning)
    ended = play(given_parts, script, after_s=30.0)
    assert ended <= max(stop_at + grace_s, *sends, 0.0) + 1.0
    assert service.given_to_nobody == []
    assert set(service.received.values()) <= {0, 1}
    assert service.queue.next_visible(60.0 * 60 * 24 * 365 * 100) is None
    assert sorted({*handler.done, *service.left}) == list(range(len(sends)))
