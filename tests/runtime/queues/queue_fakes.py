"""Owns what tests of the queue engine need: a queue service on virtual time, a function, and a mapping's parts."""

import asyncio
import json
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from random import Random
from typing import Any, cast

from adapters.stores.memory import MemoryStore
from poller.domain.errors import PortError, RecordUnreadable, ResourceMissing
from poller.domain.invocations import FunctionError, Invocation, Outcome, Succeeded, Throttled
from poller.domain.plan import FunctionPlan, MappingPlan, SourceKind, Tuning
from poller.domain.records import JsonObject, MappingId, Message, QueueFacts, Undone, WorkerId
from poller.ports import Invoker
from poller.runtime.invoking import Function
from poller.runtime.queues.context import QueueContext
from poller.runtime.queues.queue_mapping import QueueMapping
from poller.runtime.stopping import Reason, Stop, wait_until
from tests.runtime.fakes import Seen
from tests.simulation.services.contents import Content
from tests.simulation.services.queues import Delete, FakeQueue, Letter, Receive, extensions
from tests.virtual import EPOCH_BASE, run_virtual, virtual_clock

STANDARD = "arn:aws:sqs:eu-west-1:111122223333:orders"
FIFO = "arn:aws:sqs:eu-west-1:111122223333:orders.fifo"
DEAD_LETTERS = "arn:aws:sqs:eu-west-1:111122223333:orders-dead"
ABANDONED_LOOK_S = 0.1
"""How often an abandoned receive looks for messages."""


@dataclass
class Service:
    """QueueSource over a fake queue; waiting receives see a message the moment it becomes visible.

    `trouble` is raised by the next calls of an operation, one each; `latency_s` passes before each effect and after it.
    A receive that is abandoned goes on to the end of its wait, and hides what it gives to nobody, as SQS does.
    """

    queue: FakeQueue
    latency_s: float = 0.0
    trouble: dict[str, list[PortError]] = field(default_factory=dict)
    refuse_deletes: list[bool] = field(default_factory=list)
    """For the next messages of deletes, one each: refused as lapsed (True) or for the moment (False)."""
    receives: list[tuple[float, float, int]] = field(default_factory=list)
    """When each receive was sent, how long it might wait, what it brought."""
    deletes: list[int] = field(default_factory=list)
    extensions: list[tuple[float, int, int | Sequence[int]]] = field(default_factory=list)
    hangs: list[float] = field(default_factory=list)
    """How long the next extensions take before their effect, one each."""
    given_to_nobody: list[int] = field(default_factory=list)
    """Numbers of the messages that abandoned receives were given."""
    _sent: asyncio.Event = field(default_factory=asyncio.Event)

    def send(self, *numbers: int, group: str | None = None, keep: bool = True) -> list[Letter]:
        """Puts messages in now."""
        now = epoch() if _running() else EPOCH_BASE
        letters = [self.queue.send(now, Content(number, keep=keep), group=group) for number in numbers]
        self._changed()
        return letters

    async def receive(self, *, messages_max: int, wait_s: float) -> Sequence[Message]:
        place, found, ends_at = len(self.receives), list[Message](), epoch() + wait_s
        self.receives.append((seconds(), wait_s, 0))
        try:
            await asyncio.sleep(self.latency_s)
            self._raise("receive")
            while not self._given(found, place, messages_max) and epoch() < ends_at:
                sent = self._sent
                shows = self.queue.next_visible(epoch())
                until = ends_at if shows is None else min(ends_at, shows)
                await wait_until(sent, max(0.0, until - epoch()))
            await asyncio.sleep(self.latency_s)
        except asyncio.CancelledError:
            self._serve_nobody(found, place, messages_max, ends_at)
            raise
        return found

    def _given(self, found: list[Message], place: int, messages_max: int) -> bool:
        """Whether there was something to give."""
        found += cast("Sequence[Message]", self.queue.apply(epoch(), Receive(messages_max)))
        self.receives[place] = (*self.receives[place][:2], len(found))
        return bool(found)

    def _serve_nobody(self, found: list[Message], place: int, messages_max: int, ends_at: float) -> None:
        """Goes on with a receive whose client has gone."""
        if found or self._given(found, place, messages_max):
            self.given_to_nobody += [self.queue.letters[each.message_id].content.number for each in found]
        elif epoch() < ends_at:
            again = partial(self._serve_nobody, found, place, messages_max, ends_at)
            asyncio.get_running_loop().call_later(ABANDONED_LOOK_S, again)

    async def delete(self, receipts: Sequence[str]) -> Sequence[Undone]:
        await asyncio.sleep(self.latency_s)
        self._raise("delete")
        self.deletes.append(len(receipts))
        refused = [
            Undone(receipt, "refused", lapsed=lapsed)
            for receipt, lapsed in zip(receipts, self.refuse_deletes, strict=False)
        ]
        del self.refuse_deletes[: len(receipts)]
        left = receipts[len(refused) :]
        undone = self.queue.apply(epoch(), Delete(tuple(left)))
        self._changed()
        await asyncio.sleep(self.latency_s)
        return [*refused, *cast("Sequence[Undone]", undone)]

    async def extend(self, receipts: Sequence[str], *, visibility_s: int | Sequence[int]) -> Sequence[Undone]:
        await asyncio.sleep(self.latency_s)
        await asyncio.sleep(self.hangs.pop(0) if self.hangs else 0.0)
        self._raise("extend")
        self.extensions.append((seconds(), len(receipts), visibility_s))
        undone: list[Undone] = []
        for each in extensions(receipts, visibility_s):
            undone += cast("Sequence[Undone]", self.queue.apply(epoch(), each))
        self._changed()
        return undone

    async def describe(self) -> QueueFacts:
        self._raise("describe")
        now = epoch()
        hidden = sum(each.here and each.visible_at > now for each in self.queue.letters.values())
        return replace(self.queue.facts, hidden=hidden)

    async def send_to_dead_letters(self, message: Message) -> str:
        await asyncio.sleep(self.latency_s)
        self._raise("send")
        if self.queue.facts.dead_letter_arn is None:
            raise ResourceMissing("the queue has no dead-letter queue")
        if message.unreadable or message.body is None:
            raise RecordUnreadable("the message has no body")
        self.queue.move(message)
        return self.queue.facts.dead_letter_arn

    @property
    def moved(self) -> list[int]:
        """Numbers of the messages that were copied to the dead-letter queue."""
        return [self.queue.letters[each].content.number for each in self.queue.moved]

    @property
    def left(self) -> list[int]:
        """Numbers of the messages that are still in the queue."""
        return sorted(letter.content.number for letter in self.queue.letters.values() if letter.here)

    @property
    def received(self) -> dict[int, int]:
        """How often each message was received."""
        return {each.content.number: each.receives for each in self.queue.letters.values()}

    def _changed(self) -> None:
        """Waiting receives look again: a message came, or a group is free."""
        sent, self._sent = self._sent, asyncio.Event()
        sent.set()

    def _raise(self, operation: str) -> None:
        if errors := self.trouble.get(operation):
            raise errors.pop(0)


@dataclass
class Handler:
    """An invoker that notes what it got and when, and answers by `answer` after `takes_s`.

    It fails the test when a message group is in flight twice.
    """

    takes_s: float = 0.0
    answer: Callable[[list[int]], Outcome] = lambda _: Succeeded(b"")
    calls: list[list[int]] = field(default_factory=list)
    times: list[float] = field(default_factory=list)
    payloads: list[bytes] = field(default_factory=list)
    request_ids: list[str] = field(default_factory=list)
    in_flight_max: int = 0
    done: list[int] = field(default_factory=list)
    _in_flight: list[set[str]] = field(default_factory=list)

    async def invoke(self, invocation: Invocation) -> Outcome:
        records = json.loads(invocation.payload)["Records"]
        numbers = [json.loads(record["body"])["n"] for record in records]
        groups = {_group(record) for record in records} - {""}
        assert not any(groups & other for other in self._in_flight), f"{groups} in flight twice"
        self.calls.append(numbers)
        self.times.append(seconds())
        self.payloads.append(invocation.payload)
        self.request_ids.append(invocation.request_id)
        self._in_flight.append(groups)
        self.in_flight_max = max(self.in_flight_max, len(self._in_flight))
        try:
            await asyncio.sleep(self.takes_s)
        finally:
            self._in_flight.remove(groups)
        outcome = self.answer(numbers)
        if isinstance(outcome, Succeeded):
            self.done += numbers
        return outcome

    @property
    def timed(self) -> list[tuple[float, list[int]]]:
        """When the function got what; messages in order of their number."""
        return [(at, sorted(numbers)) for at, numbers in zip(self.times, self.calls, strict=True)]


def _group(record: JsonObject) -> str:
    """The message group of a FIFO queue's record; on a standard queue the attribute is a tenant's label."""
    fifo = record["eventSourceARN"].endswith(".fifo")
    return str(record["attributes"].get("MessageGroupId", "")) if fifo else ""


def failing(*numbers: int) -> Callable[[list[int]], Outcome]:
    """Fails every event that holds one of these."""
    bad = set(numbers)
    return lambda got: FunctionError("ValueError", "bad") if bad & set(got) else Succeeded(b"")


def reporting(*numbers: int) -> Callable[[list[int]], Outcome]:
    """Reports these."""

    def answer(got: list[int]) -> Outcome:
        items = [{"itemIdentifier": f"message-{each:06d}"} for each in got if each in numbers]
        return Succeeded(json.dumps({"batchItemFailures": items}).encode())

    return answer


def throttled_until(moment: float) -> Callable[[list[int]], Outcome]:
    """Has no room before `moment`."""
    return lambda _: Throttled("no room") if seconds() < moment else Succeeded(b"")


def standard(visibility_s: int = 30, *, redrive: int | None = None) -> Service:
    """A standard queue."""
    return Service(FakeQueue(QueueFacts(visibility_s, False, redrive, DEAD_LETTERS), seed=1))


def fifo(visibility_s: int = 30, *, redrive: int | None = None) -> Service:
    """A FIFO queue."""
    return Service(FakeQueue(QueueFacts(visibility_s, True, redrive, f"{DEAD_LETTERS}.fifo"), seed=1))


def plan(service: Service, **changes: Any) -> MappingPlan:
    """A mapping of this queue with these changes."""
    given = MappingPlan(
        mapping=MappingId("7a4b8a5e-8b0c-4a56-9c0e-0d7d6b0c2b22"),
        kind=SourceKind.SQS,
        source_arn=FIFO if service.queue.facts.fifo else STANDARD,
        function="reader",
        function_arn="arn:aws:lambda:eu-west-1:111122223333:function:reader",
    )
    return replace(given, **changes)


def function_of(
    handler: Invoker, *, limit: int | None = None, timeout_s: float = 30.0, seen: Seen | None = None
) -> Function:
    """A function of the daemon over this handler."""
    entry = FunctionPlan(name="reader", invoker="fake", timeout_s=timeout_s, max_concurrency=limit)
    return Function(entry, handler, seen or Seen())


def parts(
    service: Service,
    function: Function,
    mapping: MappingPlan,
    *,
    seen: Seen | None = None,
    tuning: Tuning | None = None,
    seed: int = 3,
) -> QueueContext:
    """A mapping's parts over these fakes."""
    return QueueContext(
        plan=mapping,
        worker=WorkerId("worker-1"),
        function=function,
        store=MemoryStore(),
        clock=virtual_clock(),
        rng=Random(seed),
        observer=seen or Seen(),
        tuning=tuning or Tuning(),
        source=service,
    )


type Script = Callable[[QueueMapping, Stop], Awaitable[None]]


def play(
    given: QueueContext, script: Script | float, *, after_s: float = 0.0, within_s: float | None = None
) -> float:
    """Runs a mapping while the script runs (or for so many seconds), stops it and waits for it; returns how long that took.

    It has as long as it needs, or `within_s` as at the end of a daemon. `after_s` passes then.
    """

    async def main() -> float:
        stop = Stop()
        mapping = QueueMapping(given, stop)

        async def act() -> None:
            if isinstance(script, (int, float)):
                await asyncio.sleep(script)
            else:
                await script(mapping, stop)
            stop.request(Reason.REQUESTED, within_s=within_s)

        async with asyncio.TaskGroup() as scope:
            scope.create_task(mapping.run(), name="mapping")
            scope.create_task(act(), name="script")
        ended = seconds()
        await asyncio.sleep(after_s)
        return ended

    return run_virtual(main())


def seconds() -> float:
    """Virtual seconds since the start."""
    return asyncio.get_running_loop().time()


def epoch() -> float:
    """Epoch seconds of the running virtual loop."""
    return EPOCH_BASE + seconds()


def _running() -> bool:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True
