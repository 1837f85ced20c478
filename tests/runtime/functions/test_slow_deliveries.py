"""Destinations that hang, fail in odd ways or change while calls wait: they take no room of functions, of each other, or of a stop."""

import asyncio
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from adapters.stores.memory_calls import MemoryCallQueue
from poller.domain.functions.queued_calls import AsyncPolicy, CallEnd, CallId, QueuedCall
from poller.domain.invocations import FunctionError, Succeeded
from poller.domain.records import Epoch
from poller.domain.telemetry.daemon_events import TaskEnded
from poller.runtime.daemon import Daemon
from poller.runtime.functions.queued_call_run import QueuedCallRun
from tests.runtime.daemons import FAILED, daemon_plan, now, play, until
from tests.runtime.fakes import FakeDestination, mapping
from tests.runtime.functions.test_queued_calls import ARN, DEAD, DONE, Called, Place, plan, put, ready, stored
from tests.virtual import virtual_clock


class Hanging(FakeDestination):
    """A destination that answers nobody until it is up."""

    def __init__(self) -> None:
        super().__init__()
        self.up = asyncio.Event()
        self.most = 0
        self.now = 0

    async def send_call(self, notice: Any, *, dead_letter: bool) -> None:
        self.now += 1
        self.most = max(self.most, self.now)
        try:
            await self.up.wait()
        finally:
            self.now -= 1
        await super().send_call(notice, dead_letter=dead_letter)


class Odd(FakeDestination):
    """A destination of a plug-in that raises what nobody expects."""

    healed = False
    tried = 0

    async def send_call(self, notice: Any, *, dead_letter: bool) -> None:
        self.tried += 1
        if not self.healed:
            raise KeyError("a bug")
        await super().send_call(notice, dead_letter=dead_letter)


def test_a_destination_that_hangs_takes_no_room_of_the_function() -> None:
    function = Called(lambda event: Succeeded(b"1") if event["good"] else FunctionError("ValueError", "no"))
    place = Place(function)
    place.destinations[FAILED] = hanging = Hanging()
    policy = AsyncPolicy(retries_max=0, on_success=DONE, on_failure=FAILED)

    async def script(daemon: Daemon) -> None:
        await ready(daemon)
        for number in range(300):
            await put(daemon, good=False, n=number)
        await asyncio.sleep(900)
        # Some of them would have waited for their destination in each place of the function.
        for number in range(50):
            began, done = now(), len(place.sent(DONE))
            await put(daemon, good=True, n=number)
            await until(lambda done=done: len(place.sent(DONE)) > done, within_s=5)  # type: ignore[misc]
            assert now() - began < 5
        assert len(stored(place.store)) == 300
        assert hanging.most <= 64
        hanging.up.set()
        await until(lambda: len(place.sent(FAILED)) == 300, within_s=1000)
        assert len(function.got) == 350

    play(lambda: place.daemon(plan(policy, max_concurrency=1)), script)


def test_a_destination_that_cannot_be_opened_holds_up_no_other() -> None:
    function = Called(lambda event: Succeeded(b"1") if event["good"] else FunctionError("ValueError", "no"))
    place = Place(function)
    place.opening_s = {FAILED: 10_000.0, DEAD: 10_000.0}
    policy = AsyncPolicy(retries_max=0, on_success=DONE, on_failure=FAILED, dead_letter=DEAD)

    async def script(daemon: Daemon) -> None:
        await ready(daemon)
        for number in range(5):
            await put(daemon, good=False, n=number)
        await asyncio.sleep(2)
        await put(daemon, good=True, n=9)
        await until(lambda: len(place.sent(DONE)) == 1, within_s=5)
        place.opening_s.clear()
        await until(lambda: len(place.ended()) == 6, within_s=1000)
        assert len(place.sent(FAILED)) == len(place.sent(DEAD)) == 5

    play(lambda: place.daemon(plan(policy)), script)


def test_a_stop_while_a_destination_hangs_makes_no_call_again() -> None:
    function = Called()
    place = Place(function)
    place.destinations[DONE] = hanging = Hanging()

    async def script(daemon: Daemon) -> None:
        await ready(daemon)
        call = await put(daemon, n=1)
        await until(lambda: hanging.now == 1)
        daemon.stop()
        await until(lambda: all(each.ended for each in stored(place.store)), within_s=60)
        left = stored(place.store)
        assert [(each.call, each.owner) for each in left] == [(call, None)]
        assert left[0].ended is not None
        assert left[0].ended.end is CallEnd.SUCCESS
        hanging.up.set()
        other = place.daemon(plan(worker="worker-2"))
        async with asyncio.TaskGroup() as scope:
            scope.create_task(other.run())
            await until(lambda: place.sent(DONE) == [call], within_s=30)
            other.stop()
        assert len(function.got) == 1

    play(lambda: place.daemon(plan()), script)


def test_a_destination_with_a_bug_is_tried_with_waits_and_the_function_is_not_called_again() -> None:
    function = Called()
    place = Place(function)
    place.destinations[DONE] = odd = Odd()

    async def script(daemon: Daemon) -> None:
        await ready(daemon)
        call = await put(daemon, n=1)
        await asyncio.sleep(600)
        assert odd.tried < 40
        assert len(function.got) == 1
        assert len(place.seen.of(TaskEnded)) < 40
        odd.healed = True
        await until(lambda: place.sent(DONE) == [call], within_s=400)
        assert len(function.got) == 1

    play(lambda: place.daemon(plan()), script)


@pytest.mark.parametrize("change", ["removed", "another"])
def test_a_dead_letter_stays_one_when_the_configuration_changes_while_it_waits(change: str) -> None:
    function = Called(lambda _: FunctionError("ValueError", "no"))
    place = Place(function)
    place.destinations[DEAD] = hanging = Hanging()
    policy = AsyncPolicy(retries_max=0, dead_letter=DEAD)
    later = replace(policy, dead_letter=None if change == "removed" else FAILED)

    async def script(daemon: Daemon) -> None:
        await ready(daemon)
        call = await put(daemon, n=1)
        await until(lambda: hanging.now == 1)
        await asyncio.sleep(200)
        daemon.replan(plan(later))
        await asyncio.sleep(200)
        hanging.up.set()
        await until(lambda: place.sent(DEAD) == [call], within_s=700)
        assert [dead for _, dead in hanging.calls] == [True]
        assert place.sent(FAILED) == []

    play(lambda: place.daemon(plan(policy)), script)


def test_a_run_that_always_ends_by_a_fault_is_begun_again_with_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    function = Called()
    place = Place(function)
    ran, healed = QueuedCallRun.run, asyncio.Event()

    async def run(self: QueuedCallRun) -> None:
        if not healed.is_set():
            raise RuntimeError("a bug")
        await ran(self)

    monkeypatch.setattr(QueuedCallRun, "run", run)

    async def script(daemon: Daemon) -> None:
        await ready(daemon)
        await put(daemon, n=1)
        await asyncio.sleep(600)
        assert 5 <= len(place.seen.of(TaskEnded)) <= 20
        healed.set()
        await until(lambda: len(place.ended()) == 1, within_s=310)

    play(lambda: place.daemon(plan(AsyncPolicy(on_failure=FAILED))), script)


class Removing(MemoryCallQueue):
    """A queue in whose claims the function is removed from the configuration."""

    def __init__(self) -> None:
        super().__init__()
        self.then: Callable[[], object] = lambda: None

    async def claim(self, function: str, **more: Any) -> Any:
        self.then()
        return await super().claim(function, **more)


@pytest.mark.parametrize("age_s", [0.0, 30_000.0])
def test_a_call_whose_function_is_removed_while_it_is_claimed_waits_for_it(age_s: float) -> None:
    function = Called()
    place = Place(function)
    place.store.call_queue = queue = Removing()

    async def script(daemon: Daemon) -> None:
        await ready(daemon)
        queue.then = lambda: daemon.replan(daemon_plan(mapping()))
        at = Epoch(virtual_clock().now() - age_s)
        await queue.put(
            QueuedCall(call=CallId("old"), function="alone", arn=ARN, payload=b"{}", accepted=at, due=at)
        )
        await asyncio.sleep(100)
        assert [(each.call, each.owner, each.ended) for each in stored(place.store)] == [("old", None, None)]
        queue.then = lambda: None
        daemon.replan(plan())
        await until(lambda: len(place.ended()) == 1, within_s=100)
        assert place.ended() == [CallEnd.AGE if age_s else CallEnd.SUCCESS]
        assert place.sent(FAILED if age_s else DONE) == ["old"]

    play(lambda: place.daemon(plan()), script)
