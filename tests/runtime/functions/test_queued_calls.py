"""Asynchronous calls of whole daemons on virtual time: none is lost, each ends once at its destinations, and workers share them."""

import asyncio
import json
from collections import Counter
from collections.abc import Callable
from functools import partial
from random import Random
from typing import Any

import pytest

from adapters.stores.memory import MemoryStore
from adapters.stores.memory_calls import MemoryCallQueue
from poller.domain.errors import ServiceUnavailable
from poller.domain.functions.calls import FunctionCall
from poller.domain.functions.queued_calls import AsyncPolicy, CallEnd, QueuedCall
from poller.domain.invocations import FunctionError, Invocation, Outcome, Succeeded, Throttled
from poller.domain.mapping_api import ApiError
from poller.domain.plan import DaemonPlan, FunctionPlan
from poller.domain.telemetry.daemon_events import CallsWaiting, FunctionCalled, QueuedCallEnded, TaskEnded
from poller.domain.telemetry.labels import TaskEnd, TaskKind
from poller.rules.functions.lineage import rounds_of
from poller.runtime.daemon import Daemon
from poller.runtime.functions.queued_call_run import QueuedCallRun
from tests.runtime.daemons import FAILED, Site, daemon_plan, now, play, until
from tests.runtime.fakes import STREAM_ARN, FakeDestination, FakeFunction, FakeStream, mapping
from tests.virtual import run_virtual

DONE = FAILED.replace("failed", "done")
DEAD = FAILED.replace("failed", "dead")
POLICY = AsyncPolicy(on_success=DONE, on_failure=FAILED, dead_letter=DEAD)
ARN = "arn:aws:lambda:us-east-1:000000000000:function:alone"


class Called(FakeFunction):
    """A function that notes its calls, and answers as `answer` says."""

    def __init__(
        self, answer: Callable[[Any], Outcome] = lambda _: Succeeded(b'"ok"'), takes_s: float = 0.1
    ) -> None:
        super().__init__()
        self.answer = answer
        self.takes = takes_s
        self.got: list[tuple[float, str, Any]] = []
        self.headers: list[str] = []
        self.most = 0
        self.now = 0

    async def invoke(self, invocation: Invocation) -> Outcome:
        event = json.loads(invocation.payload)
        self.got.append((now(), invocation.request_id, event))
        self.headers.append(invocation.trace_header)
        self.now += 1
        self.most = max(self.most, self.now)
        try:
            await asyncio.sleep(self.takes)
        finally:
            self.now -= 1
        return self.answer(event)


class Place(Site):
    """A site with one function and three destinations."""

    def __init__(self, function: FakeFunction, store: MemoryStore | None = None) -> None:
        super().__init__(
            sources={STREAM_ARN: FakeStream()},
            functions={"reader": FakeFunction(), "alone": function},
            destinations={each: FakeDestination() for each in (DONE, FAILED, DEAD)},
            store=store or MemoryStore(),
        )

    def ended(self) -> list[CallEnd]:
        return [each.end for each in self.seen.of(QueuedCallEnded)]

    def sent(self, destination: str) -> list[str]:
        """The request ids of the calls that a destination got."""
        return [notice.call for notice, _ in self.destinations[destination].calls]


def plan(policy: AsyncPolicy = POLICY, worker: str = "worker-1", **changes: Any) -> DaemonPlan:
    function = FunctionPlan(name="alone", invoker="fake", async_policies={"": policy}, **changes)
    return daemon_plan(mapping(), functions={"alone": function}, worker=worker)


async def ready(daemon: Daemon) -> None:
    await until(lambda: daemon.status().ready and daemon.status().complete)


async def put(daemon: Daemon, trace_header: str = "", **event: Any) -> str:
    call = FunctionCall(function="alone", payload=json.dumps(event).encode())
    return await daemon.control.calls.enqueue(call, trace_header=trace_header)


def stored(store: MemoryStore) -> list[QueuedCall]:
    queue = store.call_queue
    assert isinstance(queue, MemoryCallQueue)
    return list(queue._calls.values())


def test_a_call_is_stored_and_then_called_once_with_its_own_id_and_its_destination_gets_the_answer() -> None:
    function = Called()
    place = Place(function)

    async def script(daemon: Daemon) -> None:
        await ready(daemon)
        call = await put(daemon, n=1)
        assert [each.call for each in stored(place.store)] == [call]
        assert function.got == []
        await asyncio.sleep(0.01)
        assert [(each.function, each.calls) for each in daemon.status().calls] == [("alone", 1)]
        await until(lambda: place.ended() == [CallEnd.SUCCESS], within_s=2.0)
        assert [(name, event) for _, name, event in function.got] == [(call, {"n": 1})]
        assert stored(place.store) == []
        (sent,) = place.destinations[DONE].calls
        assert sent[0].call == call
        assert json.loads(sent[0].documents[0])["responsePayload"] == "ok"
        assert sent[1] is False
        await asyncio.sleep(300)
        assert len(function.got) == 1
        assert place.seen.of(CallsWaiting)[-1].calls == 0

    play(lambda: place.daemon(plan()), script)


def test_a_call_that_fails_is_tried_after_one_and_two_minutes_and_then_given_up() -> None:
    function = Called(lambda _: FunctionError("ValueError", "no"))
    place = Place(function)

    async def script(daemon: Daemon) -> None:
        await ready(daemon)
        call = await put(daemon, n=1)
        await until(lambda: bool(place.ended()), within_s=300)
        assert place.ended() == [CallEnd.RETRIES]
        times = [at for at, _, _ in function.got]
        assert 60.0 <= times[1] - times[0] <= 63.0
        assert 120.0 <= times[2] - times[1] <= 123.0
        assert {name for _, name, _ in function.got} == {call}
        assert place.sent(FAILED) == place.sent(DEAD) == [call]
        assert [dead for _, dead in place.destinations[FAILED].calls] == [False]
        assert [dead for _, dead in place.destinations[DEAD].calls] == [True]
        assert place.sent(DONE) == []

    play(lambda: place.daemon(plan()), script)


def test_a_function_without_room_uses_up_no_attempt_and_the_call_ends_by_its_age() -> None:
    function = Called(lambda _: Throttled("no room"))
    place = Place(function)

    async def script(daemon: Daemon) -> None:
        await ready(daemon)
        began = now()
        await put(daemon, n=1)
        await until(lambda: bool(place.ended()), within_s=700)
        assert place.ended() == [CallEnd.AGE]
        assert 600.0 <= now() - began <= 605.0
        assert len(function.got) > 8
        document = json.loads(place.destinations[FAILED].calls[0][0].documents[0])
        assert document["requestContext"]["approximateInvokeCount"] == 0
        assert "responseContext" not in document

    play(lambda: place.daemon(plan(AsyncPolicy(age_s_max=600, on_failure=FAILED))), script)


def test_calls_share_the_slots_of_their_function() -> None:
    function = Called(takes_s=1.0)
    place = Place(function)

    async def script(daemon: Daemon) -> None:
        await ready(daemon)
        for number in range(30):
            await put(daemon, n=number)
        await until(lambda: len(place.ended()) == 30, within_s=60)
        assert function.most == 3
        assert len(function.got) == 30

    play(lambda: place.daemon(plan(max_concurrency=3)), script)


def test_a_function_that_nobody_has_or_a_payload_that_is_not_stored_is_refused() -> None:
    class Full(MemoryCallQueue):
        async def put(self, call: QueuedCall) -> None:
            raise ServiceUnavailable("the disk is full")

    place = Place(Called())
    place.store.call_queue = Full()

    async def script(daemon: Daemon) -> None:
        await ready(daemon)
        with pytest.raises(ApiError, match="Function not found"):
            await daemon.control.calls.enqueue(FunctionCall(function="nobody"))
        with pytest.raises(ApiError, match="the disk is full"):
            await put(daemon, n=1)

    play(lambda: place.daemon(plan()), script)


def test_a_destination_that_is_down_for_an_hour_gets_each_call_once_and_no_call_is_made_again() -> None:
    function = Called()
    place = Place(function)
    place.destinations[DONE] = down = Down()

    async def script(daemon: Daemon) -> None:
        await ready(daemon)
        calls = [await put(daemon, n=number) for number in range(20)]
        await asyncio.sleep(3600)
        assert len(function.got) == 20
        assert place.ended() == []
        assert {each.ended is not None for each in stored(place.store)} == {True}
        down.up = True
        await until(lambda: len(place.ended()) == 20, within_s=400)
        assert sorted(place.sent(DONE)) == sorted(calls)
        assert len(function.got) == 20

    play(lambda: place.daemon(plan()), script)


class Down(FakeDestination):
    """A destination that refuses everything until it is up."""

    up = False

    async def send_call(self, notice: Any, *, dead_letter: bool) -> None:
        if not self.up:
            raise ServiceUnavailable("connection refused")
        await super().send_call(notice, dead_letter=dead_letter)


def test_a_loop_of_calls_is_stopped_after_sixteen_rounds() -> None:
    function = Called()
    place = Place(function)

    async def script(daemon: Daemon) -> None:
        await ready(daemon)
        header = ""

        def more_than(count: int) -> bool:
            return len(place.ended()) > count

        for _ in range(20):
            count = len(place.ended())
            await put(daemon, header, n=1)
            await until(partial(more_than, count))
            header = function.headers[-1]
        assert place.ended() == [CallEnd.SUCCESS] * 16 + [CallEnd.RECURSION] * 4
        assert [rounds_of(each, ARN) for each in function.headers] == list(range(1, 17))
        assert len(place.sent(FAILED)) == len(place.sent(DEAD)) == 4

    play(lambda: place.daemon(plan()), script)


def test_a_stop_gives_waiting_calls_back_at_once_and_running_ones_finish() -> None:
    function = Called(takes_s=5.0)
    place = Place(function)

    async def script() -> None:
        async with asyncio.TaskGroup() as scope:
            first = place.daemon(plan(max_concurrency=1))
            task = scope.create_task(first.run())
            await ready(first)
            for number in range(3):
                await put(first, n=number)
            await until(lambda: len(function.got) == 1)
            first.stop()
            await task
            assert place.ended() == [CallEnd.SUCCESS]
            left = stored(place.store)
            assert [(each.owner, each.attempts) for each in left] == [(None, 0)] * 2
            second = place.daemon(plan(max_concurrency=1, worker="worker-2"))
            task = scope.create_task(second.run())
            await until(lambda: len(place.ended()) == 3)
            second.stop()
        assert Counter(event["n"] for _, _, event in function.got) == {0: 1, 1: 1, 2: 1}

    run_virtual(script())


async def kill(place: Place, task: asyncio.Task[None]) -> None:
    """Ends a worker without a word: what it has in the store stays as it is."""
    workers, calls = dict(place.store._workers), {each.call: each for each in stored(place.store)}
    task.cancel()
    await asyncio.wait([task])
    place.store._workers.update(workers)
    queue = place.store.call_queue
    assert isinstance(queue, MemoryCallQueue)
    queue._calls.update(calls)


@pytest.mark.parametrize("again", ["worker-1", "worker-2"])
def test_the_calls_of_a_killed_worker_are_taken_over(again: str) -> None:
    function = Called(takes_s=20.0)
    place = Place(function)

    async def script() -> None:
        async with asyncio.TaskGroup() as scope:
            first = place.daemon(plan())
            task = scope.create_task(first.run())
            await ready(first)
            calls = [await put(first, n=number) for number in range(5)]
            await until(lambda: len(function.got) == 5)
            await kill(place, task)
            second = place.daemon(plan(worker=again))
            task = scope.create_task(second.run())
            await until(lambda: len(place.ended()) == 5, within_s=120)
            second.stop()
        assert Counter(name for _, name, _ in function.got) == dict.fromkeys(calls, 2)
        assert sorted(place.sent(DONE)) == sorted(calls)
        assert stored(place.store) == []

    run_virtual(script())


def test_a_call_that_ends_every_worker_is_given_up() -> None:
    function = Called(takes_s=20.0)
    place = Place(function)

    async def script() -> None:
        async with asyncio.TaskGroup() as scope:
            for round_ in range(20):
                daemon = place.daemon(plan(worker=f"worker-{round_}"))
                task = scope.create_task(daemon.run())
                await ready(daemon)
                if round_ == 0:
                    await put(daemon, n=1)
                count = len(function.got)

                def moved(count: int = count) -> bool:
                    return len(function.got) > count or bool(place.ended())

                await until(moved, within_s=120)
                if place.ended():
                    daemon.stop()
                    break
                await kill(place, task)
        assert place.ended() == [CallEnd.RETRIES]
        assert len(function.got) == 6
        assert len(place.sent(DEAD)) == 1

    run_virtual(script())


class Faulty(MemoryCallQueue):
    """A queue that fails before or after it carries out what it is asked for."""

    def __init__(self, rng: Random) -> None:
        super().__init__()
        self.rng = rng
        self.healed = False

    async def _maybe(self) -> None:
        await asyncio.sleep(self.rng.uniform(0.0, 0.3))
        if not self.healed and self.rng.random() < 0.1:
            raise ServiceUnavailable("no answer")

    async def backlogs(self) -> Any:
        await self._maybe()
        return await super().backlogs()

    async def claim(self, function: str, **more: Any) -> Any:
        await self._maybe()
        found = await super().claim(function, **more)
        await self._maybe()
        return found

    async def replace(self, call: QueuedCall) -> QueuedCall:
        await self._maybe()
        found = await super().replace(call)
        await self._maybe()
        return found

    async def remove(self, call: QueuedCall) -> None:
        await self._maybe()
        await super().remove(call)
        await self._maybe()


@pytest.mark.parametrize("seed", range(12))
def test_no_call_is_lost_whatever_happens_to_workers_store_function_and_destinations(seed: int) -> None:
    rng = Random(seed)

    def answer(event: Any) -> Outcome:
        odds = rng.random()
        if odds < 0.2:
            return Throttled("no room", rng.choice((None, 3.0)))
        if odds < 0.4 or event["n"] % 10 == 0:
            return FunctionError("ValueError", "no")
        return Succeeded(b"1")

    function = Called(answer, takes_s=rng.choice((0.1, 2.0, 8.0)))
    store = MemoryStore()
    store.call_queue = Faulty(rng)
    place = Place(function, store)
    calls: list[str] = []

    async def worker(name: str, scope: asyncio.TaskGroup) -> tuple[Daemon, asyncio.Task[None]]:
        daemon = place.daemon(plan(worker=name, max_concurrency=rng.choice((None, 2, 10))), seed=seed)
        task = scope.create_task(daemon.run())
        await until(lambda: daemon.status().ready, within_s=120)
        return daemon, task

    async def script() -> None:
        async with asyncio.TaskGroup() as scope:
            alive = [await worker(f"worker-{number}", scope) for number in range(2)]
            for round_ in range(6):
                for number in range(15):
                    calls.append(await put(rng.choice(alive)[0], n=number))
                    await asyncio.sleep(rng.uniform(0.0, 1.0))
                daemon, task = alive.pop(rng.randrange(2))
                if rng.random() < 0.5:
                    await kill(place, task)
                else:
                    daemon.stop()
                    await asyncio.wait([task])
                alive.append(await worker(f"worker-{round_ + 2}", scope))
            store.call_queue.healed = True  # type: ignore[attr-defined] # it is a Faulty
            await until(lambda: stored(store) == [], within_s=22_000, step_s=5.0)
            for daemon, _ in alive:
                daemon.stop()

    run_virtual(script())
    # A call may end twice: a worker that is killed between its last write and its word may have told it.
    told = Counter(each.request_id for each in place.seen.of(QueuedCallEnded))
    assert set(calls) >= set(told)
    at_destinations = set(place.sent(DONE)) | set(place.sent(FAILED))
    assert at_destinations == set(calls)
    assert set(place.sent(FAILED)) == set(place.sent(DEAD))
    by_call = Counter(each.request_id for each in place.seen.of(FunctionCalled))
    assert set(by_call) == set(calls)


@pytest.mark.parametrize("how", [TaskEnd.CANCELLED, TaskEnd.RAISED])
def test_a_call_whose_task_ends_by_itself_is_told_and_made_again(
    how: TaskEnd, monkeypatch: pytest.MonkeyPatch
) -> None:
    function = Called()
    place = Place(function)
    ran = QueuedCallRun.run
    broken: list[str] = []

    async def run(self: QueuedCallRun) -> None:
        if not broken:
            broken.append("once")
            if how is TaskEnd.RAISED:
                raise RuntimeError("a bug")
            task = asyncio.current_task()
            assert task is not None
            task.cancel()
        await ran(self)

    monkeypatch.setattr(QueuedCallRun, "run", run)

    async def script(daemon: Daemon) -> None:
        await ready(daemon)
        call = await put(daemon, n=1)
        await until(lambda: place.ended() == [CallEnd.SUCCESS], within_s=30)
        assert [name for _, name, _ in function.got] == [call]
        told = place.seen.of(TaskEnded)
        assert [(each.task, each.end) for each in told] == [(TaskKind.QUEUED_CALL, how)]

    play(lambda: place.daemon(plan()), script)
