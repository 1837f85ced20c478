"""No step of the event loop is long, whatever the services may bring: pages and messages at their limits, from filter to function."""

import asyncio
import base64
from collections.abc import Callable, Sequence
from dataclasses import replace

import pytest

from poller.domain.invocations import Invocation, Outcome, Succeeded
from poller.domain.plan import FunctionPlan
from poller.domain.policies import BatchPolicy
from poller.domain.records import Epoch, KinesisRecord, Message, Monotonic, QueueFacts, Undone
from poller.runtime.invoking import Function
from poller.runtime.stopping import Reason, Stop
from poller.runtime.streams.stream_mapping import StreamMapping
from tests.bounds.loop_steps import longest_step
from tests.runtime.fakes import FakeFunction, FakeStream, Seen, mapping, stream_parts
from tests.runtime.queues import queue_fakes
from tests.virtual import EPOCH_BASE, run_virtual

STEP_S_MAX = 0.05
TRIES = 3
"""A step that is really long is long each time."""
FILTERS = (
    '{"data": {"a": {"x": [1], "y": [{"exists": false}]}}}',
    '{"data": {"b": [{"anything-but": {"wildcard": ["*a*", "*b*c*"]}}]}}',
)
MIB = 1024 * 1024


def kinesis(number: int, data: bytes) -> KinesisRecord:
    return KinesisRecord(str(number), Epoch(EPOCH_BASE), base64.b64encode(data).decode(), "k")


def filled(unit: str, size: int) -> bytes:
    return f'{{"a":[{",".join([unit] * (size // (len(unit) + 1)))}],"b":"a"}}'.encode()


PAGES: dict[str, Callable[[], list[KinesisRecord]]] = {
    "many small records": lambda: [kinesis(n, b'{"a":{"x":2}}') for n in range(1, 10_001)],
    "records of a kilobyte": lambda: [kinesis(n, filled('{"x":2}', 1_000)) for n in range(1, 301)],
    "records of small arrays": lambda: [kinesis(n, filled("[2]", 60_000)) for n in range(1, 11)],
    "one record of small arrays": lambda: [kinesis(1, filled("[]", MIB // 4))],
    "one record of objects": lambda: [kinesis(1, filled('{"x":2}', MIB // 2))],
    "one record of one text": lambda: [kinesis(1, b'{"b":"' + b"abc" * (3 * MIB) + b'"}')],
    "one record that is no JSON": lambda: [kinesis(1, b"[" * MIB)],
}


@pytest.mark.parametrize("page", PAGES.values(), ids=PAGES)
def test_a_page_is_filtered_in_short_steps(page: Callable[[], list[KinesisRecord]]) -> None:
    records = page()
    assert any(page_step_s(records) < STEP_S_MAX for _ in range(TRIES))


def page_step_s(records: list[KinesisRecord]) -> float:
    """The longest step while a page goes through a mapping that lets nothing pass."""
    stream, seen = FakeStream(page_max=10_000), Seen()
    stream.put(*records)
    plan = mapping(filters=FILTERS, batch=BatchPolicy(records_max=10_000))
    function = FakeFunction()

    async def main() -> None:
        stop = Stop()
        runner = StreamMapping(stream_parts(stream, function, plan=plan, seen=seen), stop)
        async with asyncio.TaskGroup() as scope:
            scope.create_task(runner.run())
            await asyncio.sleep(5)
            stop.request(Reason.REQUESTED)

    with longest_step() as longest:
        run_virtual(main())
    assert function.calls == []
    return longest.seconds


class Counting:
    """A function that counts the bytes that it gets."""

    def __init__(self) -> None:
        self.bytes = 0

    async def invoke(self, invocation: Invocation) -> Outcome:
        self.bytes += len(invocation.payload)
        return Succeeded(b"")


def test_messages_of_a_mebibyte_are_taken_in_short_steps() -> None:
    heavy = '{"a":[' + '{"x":1},' * 45_000 + '0],"b":"' + "\\n" * (MIB // 3) + '"}'
    light = '{"a":{"x":1},"b":"' + "\\n" * (MIB // 2 - 20) + '"}'
    bodies = [heavy, *[light] * 9]
    assert any(messages_step_s(bodies) < STEP_S_MAX for _ in range(TRIES))


class Brimful:
    """A queue that gives its messages once."""

    def __init__(self, messages: list[Message]) -> None:
        self._messages = messages
        self.deleted = 0

    async def receive(self, *, messages_max: int, wait_s: float) -> Sequence[Message]:
        if not self._messages:
            await asyncio.sleep(wait_s or 1.0)
        given, self._messages = self._messages, []
        return given

    async def delete(self, receipts: Sequence[str]) -> Sequence[Undone]:
        self.deleted += len(receipts)
        return ()

    async def extend(self, receipts: Sequence[str], *, visibility_s: int | Sequence[int]) -> Sequence[Undone]:
        return ()

    async def describe(self) -> QueueFacts:
        return QueueFacts(visibility_timeout_s=30, fifo=False)


def messages_step_s(bodies: list[str]) -> float:
    queue, function = Brimful([message(number, body) for number, body in enumerate(bodies)]), Counting()
    service = queue_fakes.standard()
    plan = queue_fakes.plan(service, filters=(FILTERS[0].replace("data", "body"),))
    given = queue_fakes.parts(service, queue_fakes.function_of(queue_fakes.Handler()), plan)
    called = Function(FunctionPlan(name="reader", invoker="fake", timeout_s=30.0), function, Seen())
    with longest_step() as longest:
        queue_fakes.play(replace(given, source=queue, function=called), 5.0)
    assert queue.deleted == 10
    assert function.bytes > sum(map(len, bodies))
    return longest.seconds


def message(number: int, body: str) -> Message:
    return Message(
        message_id=f"m-{number}",
        receipt=f"r-{number}",
        body=body,
        attributes={},
        message_attributes={},
        md5_of_body="",
        received=Monotonic(0.0),
    )
