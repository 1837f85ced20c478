"""The checkers of the end of a queue mapping find what they are for, and nothing else."""

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from poller.domain.invocations import Throttled
from poller.domain.policies import QueuePolicy, ScalingPolicy
from tests.simulation.histories.bench import BAD, QueueBench, worker
from tests.virtual import run_virtual

AS_AWS = QueuePolicy(extend_visibility=False)
ONE = ScalingPolicy(concurrency_max=1)

type Told = Callable[[], Awaitable[QueueBench]]


async def a_last_poll_is_run() -> QueueBench:
    bench = QueueBench()
    bench.send("")
    bench.ann.stop(30.0)
    await asyncio.sleep(19.0)
    messages = bench.receive()
    bench.call(messages)
    bench.delete(messages)
    return bench


async def a_last_poll_is_given_back_for_want_of_time() -> QueueBench:
    bench = QueueBench()
    bench.send("")
    bench.ann.stop(30.0)
    await asyncio.sleep(22.0)
    messages = bench.receive()
    bench.extend(messages, 0)
    return done_elsewhere(bench)


async def a_last_poll_is_refused() -> QueueBench:
    bench = QueueBench()
    bench.send("")
    bench.ann.stop(30.0)
    messages = bench.receive()
    bench.call(messages, Throttled("full"))
    bench.extend(messages, 0)
    return done_elsewhere(bench)


async def a_changed_mapping_meets_again_what_was_refused() -> QueueBench:
    bench = QueueBench()
    bench.send("")
    messages = bench.receive()
    bench.call(messages, Throttled("full"))
    bench.extend(messages, 0)
    messages = bench.receive()
    bench.call(messages)
    bench.delete(messages)
    return bench


async def a_message_behind_a_failed_one_is_given_back() -> QueueBench:
    bench = QueueBench(fifo=True)
    bench.send("g", "g")
    bench.ann.stop(30.0)
    first, second = bench.receive()
    bench.call([first], BAD)
    bench.extend([second], 0)
    await asyncio.sleep(31.0)
    return done_elsewhere(bench)


async def a_changed_mapping_gives_back_what_it_never_tried() -> QueueBench:
    bench = QueueBench()
    bench.send("")
    bench.extend(bench.receive(), 0)
    return bench


async def a_stopped_worker_gives_back_what_it_had_time_for() -> QueueBench:
    bench = QueueBench()
    bench.send("")
    bench.ann.stop(30.0)
    bench.extend(bench.receive(), 0)
    return bench


async def a_call_begins_too_late() -> QueueBench:
    bench = QueueBench()
    bench.send("")
    bench.ann.stop(30.0)
    await asyncio.sleep(25.0)
    bench.call(bench.receive())
    return bench


async def a_worker_without_part_gives_back_what_it_never_tried() -> QueueBench:
    bench = QueueBench(scaling=ONE)
    await never_tried_for_long(bench, others=True)
    return done_elsewhere(bench)


async def a_worker_alone_gives_back_what_it_never_tried() -> QueueBench:
    bench = QueueBench(scaling=ONE)
    await never_tried_for_long(bench, others=False)
    return bench


async def a_worker_without_a_maximum_gives_back_what_it_never_tried() -> QueueBench:
    bench = QueueBench()
    await never_tried_for_long(bench, others=True)
    return bench


async def a_worker_that_has_just_called_gives_back_what_it_never_tried() -> QueueBench:
    bench = QueueBench(scaling=ONE)
    bench.receive(line=worker("bob"))
    bench.send("", "")
    tried, untried = bench.receive()
    await asyncio.sleep(20.0)
    bench.call([tried])
    bench.delete([tried])
    bench.extend([untried], 30)
    await asyncio.sleep(29.0)
    bench.extend([untried], 0)
    return bench


async def what_was_refused_comes_again_and_is_given_back_at_a_stop() -> QueueBench:
    bench = QueueBench(queue=AS_AWS)
    bench.send("")
    bench.call(bench.receive(), Throttled("full"))
    await asyncio.sleep(31.0)
    messages = bench.receive()
    bench.ann.stop(30.0)
    bench.extend(messages, 0)
    return done_elsewhere(bench)


async def what_was_refused_and_given_back_is_given_back_untried() -> QueueBench:
    bench = QueueBench(queue=AS_AWS)
    bench.send("")
    messages = bench.receive()
    bench.call(messages, Throttled("full"))
    bench.extend(messages, 0)
    messages = bench.receive()
    bench.ann.stop(30.0)
    bench.extend(messages, 0)
    return bench


async def what_failed_comes_again_and_is_given_back_untried() -> QueueBench:
    bench = QueueBench(queue=AS_AWS)
    bench.send("")
    bench.call(bench.receive(), BAD)
    await asyncio.sleep(31.0)
    messages = bench.receive()
    bench.ann.stop(30.0)
    bench.extend(messages, 0)
    return bench


async def a_message_behind_a_lapsed_one_is_given_back() -> QueueBench:
    bench = QueueBench(fifo=True, redrive_receives_max=2, queue=AS_AWS)
    bench.send("g", "g")
    for _ in range(2):
        bench.receive(1)
        await asyncio.sleep(31.0)
    bench.extend(bench.receive(), 0)
    return done_elsewhere(bench)


async def a_message_behind_one_that_lapsed_and_came_again_is_given_back() -> QueueBench:
    bench = await a_group_comes_again()
    bench.extend(bench.receive()[1:], 0)
    await asyncio.sleep(31.0)
    return done_elsewhere(bench)


async def the_first_message_of_a_group_that_came_again_is_given_back() -> QueueBench:
    bench = await a_group_comes_again()
    bench.extend(bench.receive()[:1], 0)
    return bench


async def a_message_that_came_with_one_that_lapsed_is_given_back() -> QueueBench:
    bench = QueueBench(fifo=True, queue=AS_AWS)
    bench.send("g")
    bench.receive()
    bench.send("g")
    await asyncio.sleep(31.0)
    bench.extend(bench.receive()[1:], 0)
    return bench


async def a_message_behind_one_that_came_again_is_given_back_twice() -> QueueBench:
    bench = await a_group_comes_again()
    for _ in range(2):
        bench.extend(bench.receive()[1:], 0)
        await asyncio.sleep(31.0)
    return bench


async def a_group_comes_again() -> QueueBench:
    bench = QueueBench(fifo=True, queue=AS_AWS)
    bench.send("g", "g")
    bench.receive()
    await asyncio.sleep(31.0)
    return bench


async def a_message_behind_one_that_lapsed_elsewhere_is_given_back() -> QueueBench:
    bench = QueueBench(fifo=True, redrive_receives_max=1, queue=AS_AWS)
    bench.send("g", "g")
    bench.receive(1, line=worker("bob"))
    await asyncio.sleep(31.0)
    bench.extend(bench.receive(), 0)
    return bench


async def a_message_before_a_lapsed_one_is_given_back() -> QueueBench:
    bench = QueueBench(fifo=True, queue=AS_AWS)
    bench.send("g", "g", "h")
    bench.receive(2)
    await asyncio.sleep(31.0)
    bench.extend(bench.receive(1), 0)
    return bench


async def a_message_behind_one_that_waits_is_given_back() -> QueueBench:
    bench = QueueBench(fifo=True)
    bench.send("g", "g")
    bench.extend(bench.receive()[1:], 0)
    return bench


async def an_abandoned_poll_catches_what_was_given_back() -> QueueBench:
    bench = QueueBench()
    caught_after_it_was_given_back(bench, abandoned=True)
    await asyncio.sleep(31.0)
    return done_elsewhere(bench)


async def a_last_poll_catches_what_was_given_back() -> QueueBench:
    bench = QueueBench()
    caught_after_it_was_given_back(bench, abandoned=False)
    return bench


def caught_after_it_was_given_back(bench: QueueBench, *, abandoned: bool) -> None:
    bench.send("")
    bench.ann.stop(30.0)
    messages = bench.receive()
    bench.call(messages, Throttled("full"))
    bench.extend(messages, 0)
    bench.receive(abandoned=abandoned)


async def never_tried_for_long(bench: QueueBench, *, others: bool) -> None:
    if others:
        bench.receive(line=worker("bob"))
    bench.send("")
    messages = bench.receive()
    await asyncio.sleep(20.0)
    bench.extend(messages, 30)
    await asyncio.sleep(10.0)
    bench.extend(messages, 0)


def done_elsewhere(bench: QueueBench) -> QueueBench:
    bench.ann = worker("bob")
    messages = bench.receive()
    bench.call(messages)
    bench.delete(messages)
    return bench


RIGHT = [
    a_last_poll_is_run,
    a_last_poll_is_given_back_for_want_of_time,
    a_last_poll_is_refused,
    a_changed_mapping_meets_again_what_was_refused,
    a_message_behind_a_failed_one_is_given_back,
    a_worker_without_part_gives_back_what_it_never_tried,
    what_was_refused_comes_again_and_is_given_back_at_a_stop,
    a_message_behind_a_lapsed_one_is_given_back,
    a_message_behind_one_that_lapsed_and_came_again_is_given_back,
    an_abandoned_poll_catches_what_was_given_back,
]
WRONG = [
    (a_changed_mapping_gives_back_what_it_never_tried, "hand back"),
    (a_stopped_worker_gives_back_what_it_had_time_for, "hand back"),
    (a_call_begins_too_late, "grace"),
    (a_worker_alone_gives_back_what_it_never_tried, "hand back"),
    (a_worker_without_a_maximum_gives_back_what_it_never_tried, "hand back"),
    (a_worker_that_has_just_called_gives_back_what_it_never_tried, "hand back"),
    (what_was_refused_and_given_back_is_given_back_untried, "hand back"),
    (what_failed_comes_again_and_is_given_back_untried, "hand back"),
    (a_message_behind_one_that_lapsed_elsewhere_is_given_back, "hand back"),
    (a_message_before_a_lapsed_one_is_given_back, "hand back"),
    (the_first_message_of_a_group_that_came_again_is_given_back, "hand back"),
    (a_message_that_came_with_one_that_lapsed_is_given_back, "hand back"),
    (a_message_behind_one_that_came_again_is_given_back_twice, "hand back"),
    (a_message_behind_one_that_waits_is_given_back, "hand back"),
    (a_last_poll_catches_what_was_given_back, "receive"),
]


def told(history: Told) -> QueueBench:
    async def main() -> QueueBench:
        return await history()

    return run_virtual(main())


@pytest.mark.parametrize("history", RIGHT, ids=lambda history: history.__name__)
def test_a_right_end_passes(history: Told) -> None:
    bench = told(history)
    assert (bench.broken, bench.court.unsettled()) == ([], [])


@pytest.mark.parametrize(("history", "rule"), WRONG, ids=lambda part: getattr(part, "__name__", ""))
def test_a_wrong_end_is_found(history: Told, rule: str) -> None:
    assert told(history).broken == [rule]
