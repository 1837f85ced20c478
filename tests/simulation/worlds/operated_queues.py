"""Owns a world of one queue, workers that come and go, and an operator who retries, skips, pauses and resumes at any moment.

Each worker is a queue mapping of its own, and reads the open operations every two seconds as a daemon does. A store without faults keeps
them. What must be true is checked all the time: nothing is lost but what the operator skipped, and that is in the dead-letter queue unless
it was discarded; order holds in each group; nothing begins that is paused, once the worker knows; a skip deletes only after it has sent,
begins with no message once the worker knows that it is over, and sends a copy of each once.
"""

import asyncio
import json
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from random import Random
from typing import Any

from poller.domain.errors import AccessDenied, LeaseLost, ServiceThrottled, ServiceUnavailable
from poller.domain.invocations import FunctionError, Invocation, Outcome, Succeeded, Throttled
from poller.domain.operations import (
    Action,
    Operation,
    OperationId,
    OperationRequest,
    OperationTarget,
    PartResult,
)
from poller.domain.policies import BatchPolicy, QueuePolicy, RetryPolicy, ScalingPolicy
from poller.domain.records import MappingId, Message, Undone, WorkerId
from poller.rules.operations import lifecycle, pauses
from poller.runtime.operations.operable import ResolvedRecords, SettledRecords
from poller.runtime.queues.queue_mapping import QueueMapping
from poller.runtime.stopping import Reason, Stop
from tests.runtime.queues.queue_fakes import Service, epoch, fifo, function_of, parts, plan, seconds, standard
from tests.virtual import Deadlock, LimitPassed, run_virtual

READ_S = 2.0
"""How often a worker reads the open operations."""
TROUBLED_S = 120.0
"""Messages are sent, workers come and go, calls fail and the operator acts within this time."""
SETTLED_S_MAX = 3_600.0
STOP_S_MAX = 60.0
KNOWN_S = 3.0
"""After this long every worker knows of a pause."""
CALL_S = 0.7
"""A call takes no longer. One may stand between the moment at which a skip begins with a message, and its copy or delete."""
TICK_S = 0.5
MAPPING = MappingId("7a4b8a5e-8b0c-4a56-9c0e-0d7d6b0c2b22")
STEPS_MAX = 1_000_000


class Broken(Exception):
    """A promise was broken."""


@dataclass
class Line:
    """One worker's way to the queue. Calls of a worker that has crashed have no effect, or one that nobody learns about."""

    service: Service
    world: "OperatedQueue"
    name: str
    crashed: bool = False

    async def receive(self, *, messages_max: int, wait_s: float) -> Sequence[Message]:
        await self.trouble()
        found = await self.service.receive(messages_max=messages_max, wait_s=wait_s)
        self.world.receives(self)
        return found

    async def delete(self, receipts: Sequence[str]) -> Sequence[Undone]:
        for receipt in receipts:
            self.world.settles(self, self.service.queue.owner_of(receipt).message_id)
        await self.trouble()
        if self.world.denied_s[0] <= seconds() < self.world.denied_s[1]:
            raise AccessDenied("no sqs:DeleteMessage")
        self.world.deletes(self, receipts)
        undone = await self.service.delete(receipts)
        await self.trouble()
        return undone

    async def extend(self, receipts: Sequence[str], *, visibility_s: Any) -> Sequence[Undone]:
        await self.trouble()
        return await self.service.extend(receipts, visibility_s=visibility_s)

    async def describe(self) -> Any:
        return await self.service.describe()

    async def send_to_dead_letters(self, message: Message) -> str:
        self.world.settles(self, message.message_id)
        await self.trouble()
        where = await self.service.send_to_dead_letters(message)
        await self.trouble()
        self.world.copied(self, message.message_id)
        return where

    async def trouble(self) -> None:
        """A call may take long, or fail, until the world heals."""
        chance = self.world.chance
        await asyncio.sleep(chance.choice((0.001, 0.02, 0.3)))
        if seconds() < TROUBLED_S and chance.random() < self.world.faults:
            raise chance.choice((ServiceUnavailable, ServiceThrottled))("for the moment")


@dataclass
class Worker:
    """One worker: its mapping, and what ends it."""

    name: str
    line: Line
    stop: Stop
    mapping: QueueMapping
    tasks: list[asyncio.Task[None]] = field(default_factory=list)


class OperatedQueue:
    """The world of one seed."""

    def __init__(self, seed: int, *, denies: bool) -> None:
        self.chance = chance = Random(seed)
        begin_s = chance.uniform(5.0, 60.0) if denies else TROUBLED_S
        self.denied_s = begin_s, min(TROUBLED_S, begin_s + 40.0)
        """From when until when the queue allows no deletes."""
        visibility_s = chance.choice((5, 30, 120))
        make = chance.choice((fifo, fifo, standard))
        self.service = make(visibility_s, redrive=chance.choice((None, None, 4)))
        self.service.latency_s = 0.01
        self.faults = chance.choice((0.0, 0.02, 0.1))
        self.fifo = make is fifo
        self.marks: Counter[str] = Counter()
        self.operations: dict[OperationId, Operation] = {}
        self.workers: list[Worker] = []
        self.poison: set[str] = set()
        self.done: set[str] = set()
        self.asked: set[str] = set()
        """Messages that skips may mean."""
        self.discarded: set[str] = set()
        self.settling: set[tuple[str, str]] = set()
        """Messages that workers have begun to copy or to delete, which they may try again."""
        self.copies: Counter[tuple[str, str]] = Counter()
        """The copies of each message that each worker has sent to the dead-letter queue."""
        self.broken: list[str] = []
        self.stopped: dict[str, float] = {}
        """When workers were asked to stop."""
        self.running: dict[int, tuple[str, set[str]]] = {}
        self.sent = self._calls = self._started = self._asked = 0
        self.groups = [f"g{number}" for number in range(chance.randint(1, 4))]
        window_s = 0.0 if self.fifo else chance.choice((0.0, 0.0, 5.0))
        self.plan = plan(
            self.service,
            batch=BatchPolicy(chance.choice((1, 3, 10)), window_s),
            retry=RetryPolicy(report_failures=chance.random() < 0.5),
            scaling=ScalingPolicy(concurrency_max=chance.choice((None, 2))),
            queue=QueuePolicy(
                one_group_per_batch=self.fifo and chance.random() < 0.5,
                group_aware_failures=self.fifo,
                extend_visibility=chance.random() < 0.9,
            ),
        )

    # what happens

    async def run(self) -> None:
        async with asyncio.TaskGroup() as scope:
            self.scope = scope
            for _ in range(self.chance.randint(1, 4)):
                self.start()
            while seconds() < TROUBLED_S:
                await asyncio.sleep(self.chance.uniform(0.1, 4.0))
                self.judge()
                self.happens()
            self.heal()
            await self.until_settled()
            for worker in self.workers:
                worker.stop.request(Reason.REQUESTED, within_s=30.0)
            await asyncio.wait([worker.tasks[0] for worker in self.workers], timeout=STOP_S_MAX)
            if any(not worker.tasks[0].done() for worker in self.workers):
                raise Broken("a worker does not stop")
            for worker in self.workers:
                self.end(worker)
        self.check_end()

    def happens(self) -> None:
        events = (
            [self.send] * 6
            + [self.retry] * 2
            + [self.skip] * 4
            + [self.pause] * 2
            + [self.resume] * 2
            + [self.crash, self.restart, self.cancel]
        )
        self.chance.choice(events)()

    def start(self) -> None:
        self._started += 1
        name = f"worker-{self._started}"
        line = Line(self.service, self, name)
        given = parts(self.service, function_of(self.handler(name), timeout_s=20.0), self.plan)
        given = replace(
            given, source=line, worker=WorkerId(name), operated=True, rng=Random(self.chance.random())
        )
        stop = Stop()
        worker = Worker(name, line, stop, QueueMapping(given, stop))
        worker.tasks.append(self.scope.create_task(worker.mapping.run(), name=name))
        worker.tasks.append(self.scope.create_task(self.follow(worker), name=f"follower {name}"))
        self.workers.append(worker)

    def send(self) -> None:
        group = self.chance.choice(self.groups)
        for _ in range(self.chance.randint(1, 6)):
            self.sent += 1
            (letter,) = self.service.send(self.sent, group=group)
            if self.chance.random() < 0.15:
                self.poison.add(letter.message_id)

    def crash(self) -> None:
        if self.workers:
            worker = self.chance.choice(self.workers)
            self.workers.remove(worker)
            worker.line.crashed = True
            self.end(worker)
            self.marks["crash"] += 1
            self.gone(worker)
            self.start()

    def restart(self) -> None:
        if not self.workers:
            return
        worker = self.chance.choice(self.workers)
        self.workers.remove(worker)
        self.stopped[worker.name] = epoch()
        worker.stop.request(Reason.REQUESTED, within_s=30.0)
        self.marks["restart"] += 1

        async def ended() -> None:
            await asyncio.wait([worker.tasks[0]], timeout=STOP_S_MAX)
            if not worker.tasks[0].done():
                raise Broken(f"{worker.name} does not stop")
            self.end(worker)
            self.gone(worker)

        self.scope.create_task(ended(), name=f"end of {worker.name}")
        self.start()

    def end(self, worker: Worker) -> None:
        for task in worker.tasks:
            task.cancel()
        self.running = {call: each for call, each in self.running.items() if each[0] != worker.name}

    def gone(self, worker: Worker) -> None:
        for each in list(self.operations.values()):
            present = {other.name for other in self.workers}
            self.change(lifecycle.close_gone_workers(each, {worker.name}, present, now=epoch_now()))

    # the operator

    def ask(self, action: Action, group: str | None, **members: Any) -> None:
        self._asked += 1
        self.look(action, group)
        operation = OperationId(f"op-{self._asked}")
        records = members.get("records")
        lasts = action is Action.PAUSE
        self.operations[operation] = Operation(
            operation=operation,
            mapping=MAPPING,
            request=OperationRequest(action=action, target=OperationTarget(group=group), members=members),
            created=epoch_now(),
            wanted=() if lasts else tuple(sorted(each.name for each in self.workers)),
            notes={"records": records} if isinstance(records, list) else {},
        )
        self.marks[f"{action} asked"] += 1
        self.know(self.operations[operation])

    def group(self) -> str | None:
        return self.chance.choice(self.groups) if self.fifo and self.chance.random() < 0.7 else None

    def retry(self) -> None:
        self.ask(Action.RETRY, self.group())

    def skip(self) -> None:
        discard = self.chance.random() < 0.4
        bad = sorted(each for each in self.poison if each not in self.done and self.here(each))
        if self.fifo and self.chance.random() < 0.6:
            group = self.chance.choice(self.groups)
            self.ask(Action.SKIP, group, records=self.chance.choice(("first", "batch")), discard=discard)
        elif bad:
            self.ask(Action.SKIP, None, records=self.chance.sample(bad, min(len(bad), 2)), discard=discard)

    def pause(self) -> None:
        self.ask(Action.PAUSE, self.group())

    def resume(self) -> None:
        self.end_one(Action.PAUSE)

    def cancel(self) -> None:
        self.end_one(Action.SKIP)

    def end_one(self, action: Action) -> None:
        found = [
            each for each in self.operations.values() if each.request.action is action and not each.state.over
        ]
        if found:
            ended = self.chance.choice(found)
            self.look(Action.RESUME if action is Action.PAUSE else action, ended.request.target.group)
            self.change(lifecycle.cancel(ended, by="ann", now=epoch_now()))
            self.marks[f"{action} ended"] += 1

    def look(self, action: Action, group: str | None) -> None:
        """Marks the state of a group, or of the queue, that an action is about."""
        for state in self.states(group):
            self.marks[f"{action} of a {'queue' if group is None else 'group'} while {state}"] += 1

    def states(self, group: str | None) -> Iterator[str]:
        """What is true of a group or the queue. Messages wait that were received before and run nowhere."""
        open_now = [each for each in self.operations.values() if not each.state.over]
        if any(
            each.request.action is Action.PAUSE and each.request.target.group == group for each in open_now
        ):
            yield "paused"
        here = [
            each
            for each in self.service.queue.letters.values()
            if each.here and (group is None or each.group == group)
        ]
        run = {each for _, ids in self.running.values() for each in ids}
        if any(each.message_id in run for each in here):
            yield "running"
        if any(each.receives and each.message_id not in run for each in here):
            yield "waiting"
        if not here:
            yield "idle"

    def change(self, operation: Operation) -> None:
        stored = self.operations[operation.operation]
        if not stored.state.over and operation != stored:
            self.operations[operation.operation] = operation
            if operation.state.over:
                self.marks[f"{operation.request.action} {operation.state}"] += 1
        self.know(operation)

    def know(self, operation: Operation) -> None:
        """Which messages a skip may settle."""
        if operation.request.action is Action.SKIP:
            records = operation.notes.get("records", ())
            self.asked.update(records)
            if operation.request.members["discard"]:
                self.discarded.update(records)

    # a worker's follower

    async def follow(self, worker: Worker) -> None:
        carrying: dict[OperationId, asyncio.Task[None]] = {}
        async with asyncio.TaskGroup() as scope:
            while not worker.stop.requested:
                open_now = [each for each in self.operations.values() if not each.state.over]
                worker.mapping.apply_pauses(pauses.in_force(open_now, MAPPING))
                for over in carrying.keys() - {each.operation for each in open_now}:
                    carrying.pop(over).cancel()
                    worker.mapping.withdraw(over)
                for each in open_now:
                    known = carrying.get(each.operation)
                    if each.request.action is not Action.PAUSE and (known is None or known.done()):
                        work = self.carry(worker, each.operation)
                        carrying[each.operation] = scope.create_task(work, name=f"{worker.name} carries")
                if await worker.stop.sleep(READ_S):
                    return

    async def carry(self, worker: Worker, operation_id: OperationId) -> None:
        while worker.name in lifecycle.due(operation := self.operations[operation_id], [worker.name]):
            try:
                outcome = await worker.mapping.carry_out(worker.name, operation)
            except LeaseLost:
                return
            newest = self.operations[operation_id]
            match outcome:
                case None:
                    return
                case ResolvedRecords(records):
                    self.change(lifecycle.resolve(newest, records, part=worker.name, now=epoch_now()))
                case SettledRecords(records, result):
                    self.change(lifecycle.settle(newest, records, result))
                case PartResult() as result:
                    self.change(lifecycle.finish_part(newest, worker.name, result, now=epoch_now()))

    # the function

    def handler(self, worker: str) -> "Function":
        return Function(self, worker)

    def begins(self, worker: str, records: Sequence[Any]) -> int:
        ids = [each["messageId"] for each in records]
        self.not_paused(worker, ids)
        if self.fifo:
            self.in_order(ids)
        self._calls += 1
        self.running[self._calls] = worker, set(ids)
        return self._calls

    def not_paused(self, worker: str, ids: Sequence[str]) -> None:
        """A worker that stops reads no more operations, so it knows the pauses from before that."""
        until = self.stopped.get(worker, epoch_now())
        known = [
            each
            for each in self.operations.values()
            if each.request.action is Action.PAUSE and not each.state.over and until - each.created > KNOWN_S
        ]
        for each in known:
            group = each.request.target.group
            covered = [one for one in ids if group in (None, self.letter(one).group)]
            if covered:
                self.breaks(f"{covered} run although {group or 'the mapping'} is paused since {each.created}")

    def in_order(self, ids: Sequence[str]) -> None:
        order = [self.letter(each).sequence for each in ids]
        for group in {self.letter(each).group for each in ids}:
            mine = [each for each in ids if self.letter(each).group == group]
            order = [self.letter(each).sequence for each in mine]
            if order != sorted(order):
                self.breaks(f"{mine} out of order")
            for letter in self.service.queue.letters.values():
                before = letter.group == group and letter.sequence < order[-1] and letter.here
                if before and letter.message_id not in {*mine, *self.done}:
                    self.breaks(f"{mine[-1]} before {letter.message_id}")

    # what must be true

    def breaks(self, promise: str) -> None:
        """A promise was broken. The engine would take an exception here for a fault of the function or the queue."""
        self.broken.append(promise)

    def judge(self) -> None:
        if self.broken:
            raise Broken(f"at {seconds():.1f} s: {self.broken[0]}")

    def letter(self, message_id: str) -> Any:
        return self.service.queue.letters[message_id]

    def here(self, message_id: str) -> bool:
        return bool(self.letter(message_id).here)

    def receives(self, line: Line) -> None:
        if line.crashed:
            self.marks["received by a dead worker"] += 1

    def settles(self, line: Line, message_id: str) -> None:
        """A worker begins to copy or delete a message. Unless the function took it, or a copy was sent before, an open skip means it."""
        begun = message_id in self.done or message_id in self.service.queue.moved
        if begun or line.crashed or line.name in self.stopped:
            return
        known_s = [
            0.0 if each.ended is None else epoch_now() - each.ended
            for each in self.operations.values()
            if each.request.action is Action.SKIP and message_id in each.notes.get("records", ())
        ]
        if min(known_s, default=0.0) > READ_S + CALL_S and (line.name, message_id) not in self.settling:
            self.breaks(f"{line.name} skips {message_id} although its skip is over for {min(known_s):.1f} s")
        self.settling.add((line.name, message_id))

    def copied(self, line: Line, message_id: str) -> None:
        """A worker knows that it has sent a copy. For one skip it sends no other one."""
        self.copies[line.name, message_id] += 1
        skips = sum(message_id in each.notes.get("records", ()) for each in self.operations.values())
        if self.copies[line.name, message_id] > skips:
            self.breaks(f"{line.name} copies {message_id} once more for one of {skips} skips")
        if self.copies[line.name, message_id] > 1:
            self.marks["copied for another skip"] += 1

    def deletes(self, line: Line, receipts: Sequence[str]) -> None:
        for receipt in receipts:
            message_id = self.service.queue.owner_of(receipt).message_id
            moved = message_id in self.service.queue.moved
            if message_id not in self.done and not (message_id in self.asked and moved):
                if message_id not in self.discarded:
                    self.breaks(f"{message_id} is deleted by {line.name}, and was neither done nor moved")
                self.marks["discarded"] += 1
            elif message_id not in self.done:
                self.marks["moved"] += 1

    def heal(self) -> None:
        """The operator ends all pauses; what always fails is settled by a skip or succeeds in the end."""
        for each in list(self.operations.values()):
            if each.request.action is Action.PAUSE:
                self.change(lifecycle.cancel(each, by="ann", now=epoch_now()))
        self.poison.clear()

    async def until_settled(self) -> None:
        until = seconds() + SETTLED_S_MAX
        while any(each.here for each in self.service.queue.letters.values()):
            if seconds() > until:
                left = [each.message_id for each in self.service.queue.letters.values() if each.here]
                raise Broken(f"{left} are not settled")
            self.judge()
            await asyncio.sleep(TICK_S)

    def check_end(self) -> None:
        self.judge()
        queue = self.service.queue
        for letter in queue.letters.values():
            told = letter.message_id in {*self.done, *queue.moved, *self.discarded} or letter.redriven
            if not told:
                raise Broken(f"{letter.message_id} is lost")
        if strangers := set(queue.moved) - self.asked:
            raise Broken(f"{strangers} were moved, and nobody asked for that")
        if letter_dead := [each for each in queue.dead if each.message_id in queue.moved]:
            self.marks["moved and redriven"] += len(letter_dead)


@dataclass
class Function:
    """The function as one worker calls it: it fails poison, and sometimes has no room."""

    world: OperatedQueue
    worker: str

    async def invoke(self, invocation: Invocation) -> Outcome:
        world, chance = self.world, self.world.chance
        records = json.loads(invocation.payload)["Records"]
        if seconds() < TROUBLED_S and chance.random() < 0.1:
            return Throttled("no room")
        call = world.begins(self.worker, records)
        await asyncio.sleep(chance.choice((0.0, 0.1, 3.0)))
        if call not in world.running:
            return FunctionError("Crashed", "nobody waits")
        del world.running[call]
        ids = [each["messageId"] for each in records]
        bad = [each for each in ids if each in world.poison]
        if not bad:
            world.done.update(ids)
            return Succeeded(b"")
        if not world.plan.retry.report_failures:
            return FunctionError("ValueError", "bad")
        blocked: set[Any] = set()
        failed: list[str] = []
        for each in ids:
            group = world.letter(each).group
            if each in bad or (group is not None and group in blocked):
                failed.append(each)
                blocked.add(group)
        world.done.update(each for each in ids if each not in failed)
        return Succeeded(
            json.dumps({"batchItemFailures": [{"itemIdentifier": each} for each in failed]}).encode()
        )


def epoch_now() -> Any:
    """Now, as operations count it."""
    return epoch()


def run_operated(seed: int, *, denies: bool = False) -> Counter[str]:
    """Runs one seed; returns what was seen. Raises Broken, or what a bug raises. `denies`: for a time the queue allows no deletes."""
    world: list[OperatedQueue] = []

    async def main() -> None:
        world.append(OperatedQueue(seed, denies=denies))
        await world[0].run()

    try:
        run_virtual(main(), limit_s=8_000.0, steps_max=STEPS_MAX)
    except (Deadlock, LimitPassed) as error:
        raise Broken(f"seed {seed}: {error!r}") from error
    except BaseExceptionGroup as group:
        raise Broken(f"seed {seed}: {_first(group)!r}") from group
    return world[0].marks


def _first(error: BaseException) -> BaseException:
    found: BaseException = error
    while isinstance(found, BaseExceptionGroup):
        found = next((each for each in found.exceptions if isinstance(each, Broken)), found.exceptions[0])
    return found
