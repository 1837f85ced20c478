"""The checker of waits between tries finds every wrong history, and lets the right ones pass."""

import asyncio
import json
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from typing import Any

import pytest

from poller.domain.invocations import Outcome, Succeeded
from poller.domain.policies import QueuePolicy, RetryBackoff, RetryPolicy
from poller.domain.records import Message
from tests.simulation.histories.bench import BAD, QueueBench, worker
from tests.simulation.services.faults import epoch
from tests.virtual import run_virtual

REPORTS = RetryPolicy(report_failures=True)
TEN = QueuePolicy(retry_backoff=RetryBackoff(10.0))
LINGER_S = 0.02

type History = Callable[[], Awaitable[QueueBench]]


def asking(messages: Sequence[Message], *waits: Any) -> Outcome:
    """The report of a function that asks for these waits."""
    items = [
        {"itemIdentifier": each.message_id, "retryAfterSeconds": wait}
        for each, wait in zip(messages, waits, strict=True)
    ]
    return Succeeded(json.dumps({"batchItemFailures": items}).encode())


async def failed(bench: QueueBench, outcome: Outcome | None = None, *waits: Any) -> list[Message]:
    """One receive whose messages fail; a moment later the worker may change something."""
    messages = bench.receive()
    bench.call(messages, outcome or asking(messages, *waits))
    await asyncio.sleep(LINGER_S)
    return messages


async def put_off(seconds: int) -> QueueBench:
    bench = QueueBench(queue=TEN)
    bench.send("")
    messages = await failed(bench, BAD)
    bench.extend(messages, seconds)
    await asyncio.sleep(seconds)
    again = bench.receive()
    bench.call(again)
    bench.delete(again)
    return bench


async def asked_for(wait: Any, seconds: int, *, queue: QueuePolicy | None = None) -> QueueBench:
    bench = QueueBench(retry=REPORTS, queue=queue or QueuePolicy())
    bench.send("")
    messages = await failed(bench, None, wait)
    bench.extend(messages, seconds)
    return bench


async def group(first_s: int, second_s: int) -> QueueBench:
    bench = QueueBench(fifo=True, retry=REPORTS)
    bench.send("a", "a")
    first, second = await failed(bench, None, 5, 20)
    bench.extend([first], first_s)
    bench.extend([second], second_s)
    return bench


async def last_receive() -> QueueBench:
    bench = QueueBench(queue=TEN, redrive_receives_max=1)
    bench.send("")
    bench.extend(await failed(bench, BAD), 10)
    return bench


async def undone_by_an_extension() -> QueueBench:
    bench = QueueBench(queue=QueuePolicy(retry_backoff=RetryBackoff(100.0)))
    bench.send("")
    messages = await failed(bench, BAD)
    bench.extend(messages, 100)
    bench.extend(messages, 30)
    return bench


async def failed_at_two() -> QueueBench:
    """Its run at another worker lasts longer than its visibility, so that both have it, and fails last."""
    bench, bob = QueueBench(queue=replace(TEN, extend_visibility=False)), worker("bob")
    bench.send("")
    theirs = bench.begin(bench.event(bench.receive(line=bob)), bob)
    await asyncio.sleep(31)
    messages = await failed(bench, BAD)
    asked = epoch()
    await asyncio.sleep(LINGER_S)
    bench.court.ends(theirs, BAD)
    bench.extend(messages, 10, asked=asked)
    return bench


RIGHT: list[History] = [
    failed_at_two,
    lambda: put_off(10),
    lambda: asked_for(0, 0),
    lambda: asked_for(0.5, 1),
    lambda: asked_for(100, 100),
    lambda: asked_for(5, 5, queue=TEN),
    lambda: asked_for(-1, 10, queue=TEN),
    lambda: group(20, 20),
]
WRONG: list[History] = [
    lambda: put_off(9),
    lambda: put_off(60),
    lambda: asked_for(5, 4),
    lambda: asked_for("5", 5),
    lambda: asked_for(-1, 0),
    lambda: asked_for(50, 10, queue=TEN),
    lambda: group(5, 20),
    last_receive,
    undone_by_an_extension,
]


def told(history: History) -> list[str]:
    """What is wrong with it."""
    benches: list[QueueBench] = []

    async def play() -> None:
        benches.append(await history())

    run_virtual(play())
    return [str(each) for each in benches[0].court.violations]


@pytest.mark.parametrize("history", RIGHT)
def test_right_histories_pass(history: History) -> None:
    assert told(history) == []


@pytest.mark.parametrize("history", WRONG)
def test_wrong_histories_are_found(history: History) -> None:
    assert any(each.startswith("retry: ") for each in told(history))
