"""Whatever task of a daemon ends, and however: within a second it is told, counted and shown, and the work goes on in order."""

import asyncio
import inspect
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field, replace
from typing import Any

import pytest

from adapters.observers.prometheus import PrometheusSettings
from adapters.observers.prometheus import plugin as prometheus
from adapters.stores.memory import MemoryStore
from poller.domain.plan import FunctionPlan, ResourcePlan
from poller.domain.policies import BatchPolicy, QueuePolicy, RetryPolicy
from poller.domain.records import Epoch, MappingId, ShardId, WorkerId
from poller.domain.rows import Lease
from poller.domain.status import CodeStatus
from poller.domain.telemetry.daemon_events import TaskEnded
from poller.domain.telemetry.labels import TaskEnd, TaskKind
from poller.plugins import Environment
from poller.runtime import watched_tasks
from poller.runtime.daemon import Daemon
from tests.runtime.daemons import STEADY, Site, daemon_plan, now, play, until
from tests.runtime.fakes import STREAM_ARN, FakeFunction, FakeStream, mapping, records
from tests.runtime.queues.queue_fakes import Handler, Service, fifo, standard
from tests.runtime.queues.queue_fakes import plan as queue_plan
from tests.runtime.resources.cluster import ClusterDoor, FakeCluster
from tests.simulation.services.contents import Content
from tests.virtual import EPOCH_BASE, virtual_clock

STREAM = MappingId("0f4b8a5e-8b0c-4a56-9c0e-0d7d6b0c2b11")
QUEUE = MappingId("7a4b8a5e-8b0c-4a56-9c0e-0d7d6b0c2b22")
WHOSE = {
    **dict.fromkeys(
        (TaskKind.TAKE, TaskKind.SHARD, TaskKind.CHECKPOINTS, TaskKind.READER, TaskKind.LANE), STREAM
    ),
    **dict.fromkeys(
        (
            TaskKind.QUEUE_FACTS,
            TaskKind.POLLER,
            TaskKind.POLL,
            TaskKind.GROUPS,
            TaskKind.DELETER,
            TaskKind.DELETES,
            TaskKind.VISIBILITY,
            TaskKind.EXTENSION,
        ),
        QUEUE,
    ),
}
ELSEWHERE = {
    TaskKind.CONTROL,
    TaskKind.CONFIGURATION_FILE,
    TaskKind.LOOP_WATCH,
    TaskKind.SUPERVISOR,
    TaskKind.OPERATION,
    TaskKind.SEEK,
    TaskKind.FLEET,
    TaskKind.FUNCTION_CALLS,
    TaskKind.QUEUED_CALL,
    TaskKind.VERSION,
    TaskKind.VERSIONS,
    TaskKind.SHIFT_HOOK,
}
"""Tasks of the command `run`, of single operations and of single requests, and of functions with versions, which have tests of their own."""
KINDS = [kind for kind in TaskKind if kind not in ELSEWHERE]


@dataclass
class Breaker:
    """Ends tasks as asked: an error or a return takes the place of the cancellation that unwinds the task's work."""

    how: dict[asyncio.Task[Any] | None, TaskEnd] = field(default_factory=dict)

    async def run(self, name: str, work: Coroutine[Any, Any, Any]) -> Any:
        try:
            return await work
        except asyncio.CancelledError:
            match self.how.pop(asyncio.current_task(), TaskEnd.CANCELLED):
                case TaskEnd.RAISED:
                    raise RuntimeError("a bug") from None
                case TaskEnd.RETURNED:
                    return None
                case _:
                    raise

    def end(self, kind: TaskKind, how: TaskEnd) -> bool:
        """Ends a task of this kind; whether there is one."""
        for task in asyncio.all_tasks():
            coroutine = task.get_coro()
            begun = (
                inspect.iscoroutine(coroutine) and inspect.getcoroutinestate(coroutine) == "CORO_SUSPENDED"
            )
            if begun and task.get_name().split(" ")[0] == kind:
                self.how[task] = how
                task.cancel()
                return True
        return False


@pytest.fixture
def breaker(monkeypatch: pytest.MonkeyPatch) -> Breaker:
    found = Breaker()
    monkeypatch.setattr(watched_tasks, "_shielded", found.run)
    return found


class SlowStore(MemoryStore):
    """A store whose leases take a moment to be taken."""

    async def take(self, mapping: MappingId, lease: Lease, *, owner: WorkerId) -> Lease:
        await asyncio.sleep(0.2)
        return await super().take(mapping, lease, owner=owner)


class ReloadedFunction(FakeFunction):
    """A function whose code never changes, and is watched for that."""

    code = CodeStatus(since=Epoch(EPOCH_BASE))

    async def follow_code(self, changed: Callable[[], None]) -> None:
        await asyncio.Event().wait()


@dataclass
class Place:
    """A stream with two shards and a FIFO queue; each message group and each shard has its order."""

    stream: FakeStream
    reader: FakeFunction
    queue: Service
    handler: Handler
    site: Site
    sent: int = 0

    def write(self, count: int) -> None:
        """Writes to all of them."""
        numbers = range(self.sent, self.sent + count)
        self.sent += count
        for number in numbers:
            self.stream.put(*records(1000 + number), shard=ShardId("shard-0"))
            self.stream.put(*records(5000 + number), shard=ShardId("shard-1"))
            self.queue.queue.send(
                virtual_clock().now(),
                Content(number, keep=True),
                group=f"group-{number % 3}" if self.queue.queue.facts.fifo else None,
            )
        self.queue._changed()

    def all_done(self) -> bool:
        """Whether everything that was written has been worked off and deleted."""
        done = {number for call in self.reader.calls for number in call}
        wanted = {base + number for base in (1000, 5000) for number in range(self.sent)}
        return wanted <= done and not self.queue.left


def place(kind: TaskKind) -> Place:
    """A place where there is a task of this kind: only a batch with a window has polls beside it."""
    stream = FakeStream(held={ShardId("shard-0"): [], ShardId("shard-1"): []}, page_max=3)
    reader = ReloadedFunction(takes_s=0.3)
    queue = standard(visibility_s=6) if kind is TaskKind.POLL else fifo(visibility_s=6)
    queue.hangs = [0.3] * 200
    handler = Handler(takes_s=5.0)
    site = Site(store=SlowStore())
    site.sources = {STREAM_ARN: stream, queue_plan(queue).source_arn: queue}
    site.functions = {"reader": reader, "orders": handler}
    site.resources = ClusterDoor(FakeCluster(), "worker")
    return Place(stream, reader, queue, handler, site)


def daemon(at: Place) -> Daemon:
    retry = RetryPolicy(report_failures=False)
    groups = at.queue.queue.facts.fifo
    queue = queue_plan(
        at.queue,
        function="orders",
        batch=BatchPolicy(10) if groups else BatchPolicy(50, 3.0),
        queue=QueuePolicy(one_group_per_batch=groups),
    )
    stream = mapping(batch=BatchPolicy(2), retry=retry, lanes=2)
    functions = {
        "reader": FunctionPlan(name="reader", invoker="fake", timeout_s=10.0),
        "orders": FunctionPlan(name="orders", invoker="fake", timeout_s=10.0),
    }
    found = daemon_plan(stream, queue, functions=functions, tuning=STEADY)
    return at.site.daemon(replace(found, resources=ResourcePlan()))


def in_order(calls: list[list[int]], of: Callable[[int], object]) -> bool:
    """Whether each number comes first in its place, whatever is repeated behind."""
    seen: dict[object, int] = {}
    for number in (each for call in calls for each in call):
        before = seen.get(of(number), -1)
        if number > before:
            seen[of(number)] = number
    firsts = [number for call in calls for number in call]
    news: dict[object, list[int]] = {}
    for number in firsts:
        found = news.setdefault(of(number), [])
        if number not in found:
            found.append(number)
    return all(found == sorted(found) for found in news.values())


@pytest.mark.parametrize("how", TaskEnd)
@pytest.mark.parametrize("kind", KINDS)
def test_a_task_that_ends_is_reported_within_a_second_and_the_work_goes_on(
    kind: TaskKind, how: TaskEnd, breaker: Breaker
) -> None:
    at = place(kind)
    counted: list[str] = []

    async def script(running: Daemon) -> None:
        at.write(12)
        if kind is not TaskKind.TAKE:
            await asyncio.sleep(2.5)
        await until(lambda: breaker.end(kind, how), within_s=30)
        ended_at = now()
        noticed_s = await until(lambda: bool(at.site.seen.of(TaskEnded)), step_s=0.01)
        assert noticed_s < 1.0
        (told,) = at.site.seen.of(TaskEnded)
        assert (told.task, told.end) == (kind, how)
        assert kind not in WHOSE or told.mapping == WHOSE[kind]
        shown = running.status()
        assert any(f"'{kind}" in line for line in (*shown.problems, *shown.notes)), shown
        await until(lambda: running.status().ready and now() - ended_at > 1.0, within_s=10)
        at.write(12)
        await until(at.all_done, within_s=120)
        assert running.status().ready
        assert len(at.site.seen.of(TaskEnded)) == 1
        async with prometheus.open(PrometheusSettings(), Environment(clock=virtual_clock())) as figures:
            for event in at.site.seen.events:
                figures.on(event)
            counted.append(figures.exposition()[0].decode())

    play(lambda: daemon(at), script)
    assert f'poller_tasks_ended_total{{how="{how}",task="{kind}"}} 1.0' in counted[0]
    assert in_order(at.reader.calls, lambda number: number // 4000)
    assert kind is TaskKind.POLL or in_order(at.handler.calls, lambda number: number % 3)


@pytest.mark.parametrize("how", TaskEnd)
@pytest.mark.parametrize("kind", KINDS)
def test_a_task_that_ends_again_and_again_keeps_nobody_from_stopping(
    kind: TaskKind, how: TaskEnd, breaker: Breaker
) -> None:
    at = place(kind)
    took: list[float] = []

    async def script(running: Daemon) -> None:
        at.write(12)
        while now() < 20:
            breaker.end(kind, how)
            await asyncio.sleep(0.7)
        took.append(now())

    play(lambda: daemon(at), script)
    assert took
    assert at.site.open_now == []
