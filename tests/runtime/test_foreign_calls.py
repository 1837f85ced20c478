"""Whatever an invoker, a destination, a source or an observer does to its task, the engine has an answer and goes on."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import pytest

from poller.domain.errors import ServiceUnavailable
from poller.domain.invocations import (
    EncodedEvent,
    FunctionError,
    Invocation,
    Notice,
    Outcome,
    Succeeded,
    TimedOut,
    Unreachable,
)
from poller.domain.plan import FunctionPlan
from poller.domain.policies import BatchPolicy, RetryPolicy
from poller.domain.records import Cursor, MappingId, Message, Page, ShardId
from poller.domain.telemetry.daemon_events import CallLeftBehind, ObserverFailed, TaskEnded
from poller.domain.telemetry.mapping_events import DestinationFailed, Discarded, InvocationFinished
from poller.domain.telemetry.observers import AnyTelemetryEvent, Observers
from poller.ports import Invoker
from poller.runtime.daemon import Daemon
from poller.runtime.foreign_calls import CANCELLED_S_MAX
from poller.runtime.invoking import GUARD_S, Function
from tests.runtime.daemons import FAILED, STEADY, Site, daemon_plan, now, play, until
from tests.runtime.fakes import (
    STREAM_ARN,
    FakeDestination,
    FakeFunction,
    FakeStream,
    Seen,
    mapping,
    poison,
    records,
)
from tests.runtime.queues.queue_fakes import Handler, Service, standard
from tests.runtime.queues.queue_fakes import plan as queue_plan
from tests.virtual import run_virtual

MAPPING = MappingId("0f4b8a5e-8b0c-4a56-9c0e-0d7d6b0c2b11")
CALL = Invocation(function_arn="arn", request_id="id", event=EncodedEvent(b"{}"), timeout_s=30.0)


def _myself() -> asyncio.Task[Any]:
    task = asyncio.current_task()
    assert task is not None
    return task


async def _leaves_a_cancellation() -> Outcome:
    _myself().cancel()
    return Succeeded(b"")


async def _is_cancelled_from_inside() -> Outcome:
    _myself().cancel()
    await asyncio.sleep(1)
    return Succeeded(b"")


async def _is_cancelled_by_a_watchdog() -> Outcome:
    asyncio.get_running_loop().call_later(0.5, _myself().cancel)
    await asyncio.sleep(1)
    return Succeeded(b"")


async def _swallows_its_own_cancellation() -> Outcome:
    _myself().cancel()
    with suppress(asyncio.CancelledError):
        await asyncio.sleep(1)
    return Succeeded(b"")


async def _uncancels_too_often() -> Outcome:
    for _ in range(3):
        _myself().uncancel()
    return Succeeded(b"")


def _raises(error: BaseException) -> Callable[[], Awaitable[Outcome]]:
    async def raising() -> Outcome:
        await asyncio.sleep(0)
        raise error

    return raising


def _raises_at_once() -> Awaitable[Outcome]:
    raise RuntimeError("no coroutine at all")


class Nasty(Exception):
    """An error that cannot be told."""

    def __str__(self) -> str:
        raise RuntimeError("no text")

    __repr__ = __str__


async def _returns_none() -> Any:
    return None


async def _returns_text() -> Any:
    return "fine"


def _is_no_coroutine() -> Any:
    return Succeeded(b"")


FUNCTION_ERROR = FunctionError
BEHAVIOURS: dict[str, tuple[Callable[[], Any], type[Any]]] = {
    "leaves a cancellation of its task behind": (_leaves_a_cancellation, Succeeded),
    "cancels its own task": (_is_cancelled_from_inside, FunctionError),
    "is cancelled by a watchdog of its own": (_is_cancelled_by_a_watchdog, FunctionError),
    "swallows a cancellation of its own": (_swallows_its_own_cancellation, Succeeded),
    "uncancels too often": (_uncancels_too_often, Succeeded),
    "raises CancelledError": (_raises(asyncio.CancelledError()), FunctionError),
    "raises SystemExit": (_raises(SystemExit(0)), FunctionError),
    "raises KeyboardInterrupt": (_raises(KeyboardInterrupt()), FunctionError),
    "raises GeneratorExit": (_raises(GeneratorExit()), FunctionError),
    "raises BaseException": (_raises(BaseException("base")), FunctionError),
    "raises a group": (_raises(BaseExceptionGroup("two", [SystemExit(1), ValueError()])), FunctionError),
    "raises StopAsyncIteration": (_raises(StopAsyncIteration()), FunctionError),
    "raises an error without text": (_raises(Nasty()), FunctionError),
    "raises an error": (_raises(ValueError("bad")), FunctionError),
    "raises before there is a coroutine": (_raises_at_once, FunctionError),
    "raises what a port may raise": (_raises(ServiceUnavailable("down")), Unreachable),
    "raises TimeoutError": (_raises(TimeoutError()), TimedOut),
    "returns None": (_returns_none, FunctionError),
    "returns text": (_returns_text, FunctionError),
    "is no coroutine": (_is_no_coroutine, FunctionError),
}


@dataclass
class Misbehaving:
    """An invoker that behaves in one way."""

    behave: Callable[[], Any]

    def invoke(self, invocation: Invocation) -> Any:
        return self.behave()


class Stubborn:
    """An invoker that refuses to be cancelled until `until`."""

    def __init__(self, until_s: float) -> None:
        self.until_s = until_s
        self.calls = 0
        self.running = 0

    async def invoke(self, invocation: Invocation) -> Outcome:
        self.calls += 1
        self.running += 1
        while now() < self.until_s:
            try:
                await asyncio.sleep(self.until_s - now())
            except asyncio.CancelledError:
                continue
        self.running -= 1
        return Succeeded(b"")


def _function(invoker: Invoker, seen: Seen, *, limit: int | None = 1) -> Function:
    return Function(FunctionPlan(name="reader", invoker="fake", max_concurrency=limit), invoker, seen)


@pytest.mark.parametrize("behaviour", BEHAVIOURS)
def test_whatever_an_invoker_does_there_is_an_outcome(behaviour: str) -> None:
    behave, kind = BEHAVIOURS[behaviour]

    async def main() -> tuple[Outcome, int]:
        function = _function(Misbehaving(behave), Seen())
        await function.slots.acquire()
        outcome = await function.call(CALL, mapping=MAPPING)
        function.slots.release()
        assert function.slots.free == 1
        return outcome, _myself().cancelling()

    outcome, cancelling = run_virtual(main())
    assert isinstance(outcome, kind)
    assert cancelling == 0


def test_a_call_that_refuses_to_end_times_out_and_keeps_its_slot_until_it_ends() -> None:
    seen = Seen()

    async def main() -> None:
        invoker = Stubborn(100.0)
        function = _function(invoker, seen)
        await function.slots.acquire()
        assert await function.call(CALL, mapping=MAPPING) == TimedOut(30.0)
        assert now() == 30.0 + GUARD_S + CANCELLED_S_MAX
        function.slots.release()
        assert function.slots.free == 0
        assert "although they were cancelled: 1" in function.notes()[0]
        await function.slots.acquire()
        assert now() == 100.0
        assert function.notes() == []
        function.slots.release()
        assert function.slots.free == 1

    run_virtual(main())
    assert seen.of(CallLeftBehind) == [CallLeftBehind(function="reader", calls=1)]


class Abandoning:
    """An invoker that gives up calls at their time limit, although they go on."""

    def __init__(self) -> None:
        self.calls_left = 0

    async def invoke(self, invocation: Invocation) -> Outcome:
        self.calls_left += 1
        return TimedOut(invocation.timeout_s)


def test_calls_that_an_invoker_leaves_behind_are_told_once_each() -> None:
    seen = Seen()

    async def main() -> None:
        invoker = Abandoning()
        function = _function(invoker, seen, limit=None)
        for _ in range(2):
            await function.slots.acquire()
            assert isinstance(await function.call(CALL, mapping=MAPPING), TimedOut)
            function.slots.release()
        assert seen.of(CallLeftBehind) == [], "they may end in the next moment"
        assert "although they were cancelled: 2" in function.notes()[0]
        await asyncio.sleep(CANCELLED_S_MAX)
        assert [each.calls for each in seen.of(CallLeftBehind)] == [2, 2]
        invoker.calls_left = 0
        assert function.notes() == []
        await function.slots.acquire()
        await function.call(CALL, mapping=MAPPING)
        invoker.calls_left = 0
        await asyncio.sleep(CANCELLED_S_MAX)
        assert len(seen.of(CallLeftBehind)) == 2, "it has ended in time"

    run_virtual(main())


def test_whoever_is_cancelled_waits_for_a_call_that_refuses_to_end_only_a_little() -> None:
    async def main() -> None:
        invoker = Stubborn(100.0)
        function = _function(invoker, Seen(), limit=None)
        await function.slots.acquire()
        async with asyncio.TaskGroup() as scope:
            calling = scope.create_task(function.call(CALL, mapping=MAPPING))
            await asyncio.sleep(1)
            calling.cancel()
        assert calling.cancelled()
        assert now() == 1.0 + CANCELLED_S_MAX
        assert invoker.running == 1
        await asyncio.sleep(100)

    run_virtual(main())


def test_a_call_that_is_cancelled_may_clean_up() -> None:
    cleaned: list[float] = []

    class Tidy:
        async def invoke(self, invocation: Invocation) -> Outcome:
            try:
                await asyncio.sleep(100)
            finally:
                await asyncio.sleep(1)
                cleaned.append(now())
            return Succeeded(b"")

    async def main() -> None:
        function = _function(Tidy(), Seen())
        await function.slots.acquire()
        async with asyncio.TaskGroup() as scope:
            calling = scope.create_task(function.call(CALL, mapping=MAPPING))
            await asyncio.sleep(1)
            calling.cancel()
        assert cleaned == [2.0]
        assert function.notes() == []

    run_virtual(main())


@dataclass
class Moody:
    """An invoker of a stream that misbehaves with the first tries of some records, and then is good."""

    behave: Callable[[], Any]
    calls: list[list[int]] = field(default_factory=list)
    done: list[int] = field(default_factory=list)
    inner: FakeFunction = field(default_factory=FakeFunction)

    def invoke(self, invocation: Invocation) -> Any:
        tries = len(self.inner.calls)
        answer = self.inner.invoke(invocation)
        if tries % 3 == 1:
            answer.close()
            self.inner.calls.append([])
            return self.behave()
        return answer


@pytest.mark.parametrize("behaviour", BEHAVIOURS)
def test_a_stream_goes_on_in_order_whatever_its_invoker_does(behaviour: str) -> None:
    function = Moody(BEHAVIOURS[behaviour][0])
    site = Site(sources={STREAM_ARN: FakeStream(page_max=4)})
    site.functions = {"reader": function}  # type: ignore[dict-item]  # an invoker that is no fake function
    source = site.sources[STREAM_ARN]
    assert isinstance(source, FakeStream)
    source.put(*records(*range(1, 21)))
    passes = isinstance(run_once(BEHAVIOURS[behaviour][0]), Succeeded)

    async def script(daemon: Daemon) -> None:
        await until(lambda: settled(site), within_s=300)
        assert daemon.status().ready
        assert site.seen.of(TaskEnded) == []

    def settled(site: Site) -> bool:
        return sum(each.records for each in site.seen.of(InvocationFinished) if not each.failed) == 20

    play(lambda: site.daemon(daemon_plan(mapping(batch=BatchPolicy(2)), tuning=STEADY)), script)
    got = [number for call in function.inner.calls for number in call]
    assert got == sorted(got)
    assert len(set(got)) == 20 or passes


def run_once(behave: Callable[[], Any]) -> Outcome:
    """What the engine makes of a behaviour."""

    async def main() -> Outcome:
        function = _function(Misbehaving(behave), Seen())
        await function.slots.acquire()
        return await function.call(CALL, mapping=MAPPING)

    return run_virtual(main())


@pytest.mark.parametrize("queue", [False, True], ids=["stream", "queue"])
def test_a_stop_ends_within_the_grace_when_a_function_refuses_to_end(queue: bool) -> None:
    stubborn = Stubborn(1e5)
    service = standard(visibility_s=300)
    stream = FakeStream()
    stream.put(*records(1, 2))
    site = Site(sources={STREAM_ARN: stream, queue_plan(service).source_arn: service})
    site.functions = {"reader": stubborn}  # type: ignore[dict-item]  # an invoker that is no fake function
    service.send(1, 2)
    plan = daemon_plan(queue_plan(service) if queue else mapping(), tuning=STEADY)

    async def main() -> float:
        daemon = site.daemon(plan)
        async with asyncio.TaskGroup() as scope:
            running = scope.create_task(daemon.run())
            await until(lambda: stubborn.running > 0)
            asked = now()
            daemon.stop()
            await running
            took_s = now() - asked
            stubborn.until_s = now()
            for task in asyncio.all_tasks() - {_myself()}:
                task.cancel()
        return took_s

    assert run_virtual(main()) <= STEADY.grace_s + 2 * CANCELLED_S_MAX + 2.0


@dataclass
class BadDestination(FakeDestination):
    """A destination that misbehaves with its first tries."""

    def __init__(self, behave: Callable[[], Any]) -> None:
        super().__init__()
        self._behave = behave

    async def send(self, notice: Notice) -> None:
        self.tries.append(now())
        if len(self.tries) < 3:
            await self._behave()
        self.notices.append(notice)


@pytest.mark.parametrize(
    "behaviour", ["cancels its own task", "raises SystemExit", "raises GeneratorExit", "raises an error"]
)
def test_a_notice_waits_for_a_destination_whatever_that_does(behaviour: str) -> None:
    destination = BadDestination(BEHAVIOURS[behaviour][0])
    stream = FakeStream()
    stream.put(*records(1, 2, 3))
    site = Site(sources={STREAM_ARN: stream}, destinations={FAILED: destination})
    site.functions = {"reader": FakeFunction(poison(2))}
    plan = mapping(batch=BatchPolicy(1), retry=RetryPolicy(retries_max=0), destination=FAILED)

    async def script(daemon: Daemon) -> None:
        await until(lambda: len(site.seen.of(Discarded)) == 1, within_s=300)
        assert site.seen.of(TaskEnded) == []

    play(lambda: site.daemon(daemon_plan(plan, tuning=STEADY)), script)
    assert len(destination.notices) == 1
    assert len(site.seen.of(DestinationFailed)) == 2


SOURCE_BEHAVIOURS = [name for name in BEHAVIOURS if name.startswith(("raises", "cancels", "is cancelled by"))]


class BadStream(FakeStream):
    """A stream whose first reads misbehave."""

    behave: Callable[[], Any]
    bad = 2

    async def read(self, shard: ShardId, cursor: Cursor, *, records_max: int) -> Page:
        if self.bad:
            self.bad -= 1
            await self.behave()
        return await super().read(shard, cursor, records_max=records_max)


@dataclass
class BadQueue(Service):
    """A queue whose first receives misbehave."""

    behave: Callable[[], Any] = _returns_none
    bad: int = 2

    async def receive(self, *, messages_max: int, wait_s: float) -> Sequence[Message]:
        if self.bad:
            self.bad -= 1
            await self.behave()
        return await super().receive(messages_max=messages_max, wait_s=wait_s)


@pytest.mark.parametrize("behaviour", SOURCE_BEHAVIOURS)
def test_records_are_read_in_the_end_whatever_a_source_does(behaviour: str) -> None:
    stream, queue = BadStream(), BadQueue(standard().queue)
    stream.behave = queue.behave = BEHAVIOURS[behaviour][0]
    stream.put(*records(1, 2, 3))
    reader, handler = FakeFunction(), Handler()
    site = Site(sources={STREAM_ARN: stream, queue_plan(queue).source_arn: queue})
    site.functions = {"reader": reader, "orders": handler}
    queue.send(1, 2, 3)
    plans = mapping(), queue_plan(queue, function="orders")

    async def script(daemon: Daemon) -> None:
        await until(lambda: not queue.left and sum(map(len, reader.calls)) == 3, within_s=300)
        await until(lambda: daemon.status().ready)

    play(lambda: site.daemon(daemon_plan(*plans, tuning=STEADY)), script)
    assert [number for call in reader.calls for number in call] == [1, 2, 3]
    # What was answered in the moment of a fault runs again.
    assert set(handler.done) == {1, 2, 3}


class Raising:
    """An observer that raises at every event."""

    def __init__(self, error: BaseException) -> None:
        self.error = error

    def on(self, event: AnyTelemetryEvent) -> None:
        raise self.error


@pytest.mark.parametrize(
    "error", [ValueError(), SystemExit(0), KeyboardInterrupt(), asyncio.CancelledError(), GeneratorExit()]
)
def test_an_observer_that_raises_disturbs_nobody_and_is_reported(error: BaseException) -> None:
    stream = FakeStream()
    stream.put(*records(1, 2, 3))
    reader = FakeFunction()
    site = Site(sources={STREAM_ARN: stream}, functions={"reader": reader})
    seen = site.seen

    def daemon() -> Daemon:
        site.seen = Observers((Raising(error), seen))  # type: ignore[assignment]  # the daemon takes any observer
        return site.daemon(daemon_plan(mapping(batch=BatchPolicy(1)), tuning=STEADY))

    async def script(_: Daemon) -> None:
        await until(lambda: sum(map(len, reader.calls)) == 3)

    play(daemon, script)
    assert reader.calls == [[1], [2], [3]]
    failures = seen.of(ObserverFailed)
    assert failures[0] == ObserverFailed(observer="Raising", reason=type(error).__name__)
    assert len(seen.of(InvocationFinished)) == 3


def test_a_lone_observer_that_raises_disturbs_nobody() -> None:
    stream = FakeStream()
    stream.put(*records(1, 2, 3))
    reader = FakeFunction()
    site = Site(sources={STREAM_ARN: stream}, functions={"reader": reader})
    site.seen = Raising(SystemExit(0))  # type: ignore[assignment]  # the daemon takes any observer

    async def script(_: Daemon) -> None:
        await until(lambda: sum(map(len, reader.calls)) == 3)

    play(lambda: site.daemon(daemon_plan(mapping(), tuning=STEADY)), script)


@dataclass
class Destroyer(FakeFunction):
    """A function whose third call cancels every task of the loop that it may."""

    def __init__(self, spared: Callable[[], set[asyncio.Task[Any]]]) -> None:
        super().__init__(takes_s=0.2)
        self.spared = spared

    async def invoke(self, invocation: Invocation) -> Outcome:
        outcome = await super().invoke(invocation)
        if len(self.calls) == 3:
            for task in asyncio.all_tasks() - self.spared():
                task.cancel()
        return outcome


@pytest.mark.parametrize("main_too", [False, True], ids=["all inside", "all"])
def test_after_a_function_has_cancelled_all_tasks_nothing_is_lost(main_too: bool) -> None:
    running: list[asyncio.Task[None]] = []
    spared: list[asyncio.Task[Any]] = []
    queue, stream = standard(visibility_s=10), FakeStream()
    stream.put(*records(*range(1, 11)))
    reader, handler = Destroyer(lambda: {*spared, *([] if main_too else running)}), Handler(takes_s=1.0)
    site = Site(sources={STREAM_ARN: stream, queue_plan(queue).source_arn: queue})
    site.functions = {"reader": reader, "orders": handler}
    queue.send(*range(20))
    plan = daemon_plan(mapping(batch=BatchPolicy(2)), queue_plan(queue, function="orders"), tuning=STEADY)

    async def main() -> None:
        spared.append(_myself())
        async with asyncio.TaskGroup() as scope:
            daemon = site.daemon(plan)
            running.append(scope.create_task(daemon.run()))
            await until(lambda: len(reader.calls) >= 3)
            await asyncio.sleep(1)
            assert running[0].cancelled() == main_too
            if main_too:
                # Whoever runs the daemon starts it again.
                daemon = site.daemon(plan)
                scope.create_task(daemon.run())
            await until(lambda: {number for call in reader.calls for number in call} == set(range(1, 11)))
            await until(lambda: not queue.left)
            await until(lambda: daemon.status().ready)
            daemon.stop()

    run_virtual(main())
    got = [number for call in reader.calls for number in call]
    assert list(dict.fromkeys(got)) == list(range(1, 11))
    assert set(handler.done) == set(range(20))
    assert main_too or site.seen.of(TaskEnded)
