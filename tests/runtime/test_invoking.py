"""A function's slots bound its invocations, tell how many run, and a silent invoker counts as timed out."""

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from poller.domain.invocations import (
    EncodedEvent,
    Ended,
    FunctionError,
    Invocation,
    Outcome,
    Succeeded,
    Throttled,
    TimedOut,
)
from poller.domain.plan import TIMEOUT_S, FunctionPlan
from poller.domain.policies import BatchPolicy
from poller.domain.records import Epoch, MappingId
from poller.domain.telemetry.daemon_events import Capacity
from poller.domain.telemetry.mapping_events import InvocationFinished, InvocationStarted
from poller.rules.responses import (
    Accepted,
    Partial,
    Response,
    ResponseReading,
    Verdict,
    oversized,
    was_called,
)
from poller.runtime.invoking import GUARD_S, BatchInvoker, Function, InvocationBatch
from poller.runtime.slots import Slots
from poller.runtime.stopping import Reason, Stop
from tests.runtime.fakes import SHARD, Seen, mapping
from tests.virtual import EPOCH_BASE, run_virtual, virtual_clock

MAPPING = MappingId("0f4b8a5e-8b0c-4a56-9c0e-0d7d6b0c2b11")
CALL = Invocation(function_arn="arn", request_id="id", event=EncodedEvent(b"{}"), timeout_s=30.0)


class Silent:
    """An invoker that never answers."""

    async def invoke(self, invocation: Invocation) -> Outcome:
        await asyncio.sleep(1e6)
        return Succeeded(b"")


def _function(limit: int | None, seen: Seen) -> Function:
    plan = FunctionPlan(name="reader", invoker="fake", max_concurrency=limit)
    return Function(plan, Silent(), seen)


def test_an_invoker_that_never_answers_is_given_up_a_little_after_its_time() -> None:
    async def main() -> tuple[Outcome, float]:
        function = _function(1, Seen())
        await function.slots.acquire()
        outcome = await function.call(CALL, mapping=MAPPING)
        return outcome, virtual_clock().monotonic()

    assert run_virtual(main()) == (TimedOut(30.0), 30.0 + GUARD_S)


class Starting(Silent):
    """An invoker that may take 20 s to start its function."""

    start_s_max = 20.0


def test_the_time_that_a_function_takes_to_start_is_not_the_calls() -> None:
    async def main() -> tuple[Outcome, float]:
        function = Function(FunctionPlan(name="reader", invoker="fake"), Starting(), Seen())
        await function.slots.acquire()
        return await function.call(CALL, mapping=MAPPING), virtual_clock().monotonic()

    assert run_virtual(main()) == (TimedOut(30.0), 30.0 + 20.0 + GUARD_S)


def test_each_move_of_the_slots_is_reported() -> None:
    seen = Seen()

    async def main() -> None:
        function = _function(2, seen)
        await function.slots.acquire()
        await function.slots.acquire()
        function.slots.release()
        function.slots.release()

    run_virtual(main())
    assert [(event.in_flight, event.limit) for event in seen.of(Capacity)] == [(1, 2), (2, 2), (1, 2), (0, 2)]


def test_waiters_are_served_in_order_and_never_beyond_the_limit() -> None:
    served: list[int] = []

    async def worker(slots: Slots, number: int) -> None:
        await slots.acquire()
        served.append(number)
        assert slots.in_flight <= 2
        await asyncio.sleep(1)
        slots.release()

    async def main() -> float:
        slots = Slots(2)
        async with asyncio.TaskGroup() as scope:
            for number in range(6):
                scope.create_task(worker(slots, number))
        assert slots.free == 2
        return virtual_clock().monotonic()

    assert run_virtual(main()) == 3.0
    assert served == [0, 1, 2, 3, 4, 5]


def test_a_slot_given_back_twice_is_a_bug() -> None:
    async def main() -> None:
        slots = Slots(1)
        await slots.acquire()
        slots.release()
        with pytest.raises(AssertionError):
            slots.release()

    run_virtual(main())


PLAN = mapping(batch=BatchPolicy(payload_bytes_max=100))
ARRIVED = Epoch(EPOCH_BASE - 5.0)


def _invoker(function: Function, seen: Seen, *, report_failures: bool = False) -> BatchInvoker:
    return BatchInvoker(
        function,
        PLAN,
        ResponseReading(report_failures=report_failures),
        clock=virtual_clock(),
        observer=seen,
        shard=SHARD,
    )


def _batch(event_bytes: int = 2, *, newest: Epoch | None = None) -> InvocationBatch:
    return InvocationBatch(
        event=EncodedEvent(b"x" * event_bytes),
        identifiers=["1", "2", "3"],
        request_id="id",
        attempt=4,
        newest=newest,
    )


class Answering(Silent):
    """An invoker that answers after 2 s, and keeps what it was called with."""

    def __init__(self, outcome: Outcome) -> None:
        self.calls: list[Invocation] = []
        self._outcome = outcome

    async def invoke(self, invocation: Invocation) -> Outcome:
        self.calls.append(invocation)
        await asyncio.sleep(2.0)
        return self._outcome


async def _holding(invoker: BatchInvoker, function: Function, batch: InvocationBatch) -> Verdict | None:
    """Invokes as a queue does, in a slot that was taken before."""
    await function.slots.acquire()
    try:
        return await invoker.invoke(batch)
    finally:
        function.slots.release()


async def _taking(invoker: BatchInvoker, function: Function, batch: InvocationBatch) -> Verdict | None:
    """Invokes as a lane does, which takes a slot for the call alone."""
    return await invoker.invoke_in_slot(batch, Stop())


REPORT = Succeeded(b'{"batchItemFailures": [{"itemIdentifier": "2"}]}')
OUTCOMES: dict[str, tuple[Outcome, tuple[object, ...]]] = {
    "success": (Succeeded(b""), (Ended.SUCCESS, 0, "", "", ())),
    "report": (REPORT, (Ended.PARTIAL, 1, "", "", ())),
    "error": (
        FunctionError("Oh", "no", stack_trace=("here",)),
        (Ended.FUNCTION_ERROR, 3, "Oh: no", "Oh", ("here",)),
    ),
    "throttled": (Throttled("busy"), (Ended.THROTTLED, 3, "busy", "", ())),
}


@pytest.mark.parametrize("way", [_holding, _taking])
@pytest.mark.parametrize(("outcome", "told"), OUTCOMES.values(), ids=OUTCOMES)
def test_every_invocation_emits_the_same_two_events_whoever_has_the_slot(
    outcome: Outcome, told: tuple[object, ...], way: Callable[..., Awaitable[Verdict | None]]
) -> None:
    seen, invokes = Seen(), Answering(outcome)

    async def main() -> None:
        function = Function(FunctionPlan(name="reader", invoker="fake", max_concurrency=1), invokes, seen)
        await way(_invoker(function, seen, report_failures=True), function, _batch(newest=ARRIVED))
        assert function.slots.in_flight == 0

    run_virtual(main())
    (call,), (started,), (ended,) = invokes.calls, seen.of(InvocationStarted), seen.of(InvocationFinished)
    assert (call.request_id, call.function_arn, call.timeout_s) == ("id", PLAN.function_arn, TIMEOUT_S)
    assert (started.records, started.request_id, started.attempt) == (3, "id", 4)
    assert (ended.records, ended.request_id, ended.shard, ended.duration_s) == (3, "id", SHARD, 2.0)
    assert ended.iterator_age_ms == 7000.0
    assert (ended.ended, ended.failed, ended.error, ended.error_type, ended.stack_trace) == told


@pytest.mark.parametrize(("event_bytes", "called"), [(100, True), (101, False)])
def test_a_batch_that_is_too_large_fails_without_a_slot_and_without_a_call(
    event_bytes: int, called: bool
) -> None:
    seen, invokes = Seen(), Answering(Succeeded(b""))

    async def main() -> Verdict | None:
        function = Function(FunctionPlan(name="reader", invoker="fake"), invokes, seen)
        return await _invoker(function, seen).invoke_in_slot(_batch(event_bytes), Stop())

    verdict = run_virtual(main())
    assert verdict == (Accepted() if called else oversized(101, 100))
    assert verdict is not None
    assert was_called(verdict) is called
    assert [len(invokes.calls), len(seen.of(InvocationStarted)), len(seen.of(Capacity))] == [
        called,
        called,
        2 * called,
    ]
    (ended,) = seen.of(InvocationFinished)
    assert (ended.duration_s, ended.iterator_age_ms) == (2.0 * called, None)
    assert ended.ended is (Ended.SUCCESS if called else Ended.OVERSIZED)


def test_what_the_mapping_makes_of_a_verdict_is_what_is_emitted_and_returned() -> None:
    seen = Seen()
    report = Partial(frozenset({1}), Response("$LATEST", None))
    wider = Partial(frozenset({1, 2}), Response("$LATEST", None))

    async def main() -> Verdict:
        function = Function(FunctionPlan(name="reader", invoker="fake"), Answering(REPORT), seen)
        await function.slots.acquire()
        invoker = _invoker(function, seen, report_failures=True)
        return await invoker.invoke(_batch(), widened=lambda verdict: wider if verdict == report else verdict)

    assert run_virtual(main()) == wider
    assert [event.failed for event in seen.of(InvocationFinished)] == [2]


@pytest.mark.parametrize("reason", [Reason.REQUESTED, Reason.LOST])
def test_a_stop_ends_the_wait_for_a_slot_and_nothing_is_called(reason: Reason) -> None:
    seen, invokes = Seen(), Answering(Succeeded(b""))

    async def main() -> float:
        function = Function(FunctionPlan(name="reader", invoker="fake", max_concurrency=1), invokes, seen)
        await function.slots.acquire()
        stop = Stop()
        asyncio.get_running_loop().call_later(3.0, stop.request, reason)
        assert await _invoker(function, seen).invoke_in_slot(_batch(), stop) is None
        assert (function.slots.in_flight, function.slots.waiting) == (1, 0)
        return virtual_clock().monotonic()

    assert run_virtual(main()) == 3.0
    assert (invokes.calls, seen.of(InvocationStarted), seen.of(InvocationFinished)) == ([], [], [])


def test_a_lease_that_is_lost_while_a_slot_is_awaited_gives_the_slot_back() -> None:
    seen, invokes = Seen(), Answering(Succeeded(b""))

    async def main() -> None:
        function = Function(FunctionPlan(name="reader", invoker="fake", max_concurrency=1), invokes, seen)
        await function.slots.acquire()
        loop = asyncio.get_running_loop()
        loop.call_later(3.0, function.slots.release)
        stop = Stop(lambda: virtual_clock().monotonic() < 2.0)
        assert await _invoker(function, seen).invoke_in_slot(_batch(), stop) is None
        assert function.slots.in_flight == 0

    run_virtual(main())
    assert (invokes.calls, seen.of(InvocationStarted)) == ([], [])
