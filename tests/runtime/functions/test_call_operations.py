"""Operations on the asynchronous calls of whole daemons on virtual time: what they change, whom they wait for, and who goes on with them."""

import asyncio
from collections import Counter
from typing import Any

import pytest

from poller.domain.errors import ServiceUnavailable
from poller.domain.functions.queued_calls import AsyncPolicy, CallEnd
from poller.domain.functions.waiting_calls import (
    CallPage,
    CallsRequest,
    CallState,
    ShowsQueuedCalls,
    place_of,
)
from poller.domain.invocations import FunctionError, Outcome, Succeeded
from poller.domain.mapping_api import ApiError
from poller.domain.operations import Operation, OperationState, function_target
from poller.domain.telemetry.daemon_events import QueuedCallEnded
from poller.runtime.daemon import Daemon
from tests.runtime.daemons import FAILED, daemon_plan, now, play, until
from tests.runtime.fakes import mapping
from tests.runtime.functions.test_queued_calls import (
    DEAD,
    DONE,
    Called,
    Down,
    Place,
    kill,
    plan,
    put,
    ready,
    stored,
)
from tests.virtual import run_virtual

FAILS = FunctionError("ValueError", "no")
NOWHERE = AsyncPolicy()


async def ask(daemon: Daemon, function: str = "alone", **request: Any) -> Operation:
    return await daemon.operations.submit(function_target(function), request, by="ann")


async def over(daemon: Daemon, operation: Operation, *, within_s: float = 30.0) -> Operation:
    """The operation when it is over, as any worker reads it."""
    for _ in range(int(within_s * 10)):
        if (found := await daemon.operations.operation(operation.operation)).state.over:
            return found
        await asyncio.sleep(0.1)
    raise AssertionError(f"not over within {within_s:g} s")


async def failed_calls(daemon: Daemon, function: Called, count: int) -> list[str]:
    """Calls that have failed once and wait for a minute."""
    calls = [await put(daemon, n=number) for number in range(count)]
    await until(lambda: len(function.got) == count and function.now == 0)
    await asyncio.sleep(0.5)
    return calls


def test_a_retry_makes_the_next_attempt_now_and_uses_up_nothing() -> None:
    function = Called(lambda _: FAILS)
    place = Place(function)

    async def script(daemon: Daemon) -> None:
        await ready(daemon)
        began = now()
        calls = await failed_calls(daemon, function, 3)
        done = await over(daemon, await ask(daemon, action="retry", calls=calls[:2]))
        assert (done.state, done.result) == (OperationState.DONE, "2 calls are tried now")
        assert done.progress == {"done": 2}
        await until(lambda: len(function.got) == 5, within_s=3)
        assert {name for at, name, _ in function.got if at > began + 0.5} == set(calls[:2])
        # The third attempt is the last one, as without an operator.
        await until(lambda: len(place.ended()) == 3, within_s=300)
        assert Counter(name for _, name, _ in function.got) == dict.fromkeys(calls, 3)

    play(lambda: place.daemon(plan()), script)


def test_a_retry_of_all_delivers_what_is_over_at_once() -> None:
    function = Called()
    place = Place(function)
    place.destinations[DONE] = down = Down()

    async def script(daemon: Daemon) -> None:
        await ready(daemon)
        calls = [await put(daemon, n=number) for number in range(3)]
        await asyncio.sleep(3000)
        down.up = True
        began = now()
        done = await over(daemon, await ask(daemon, action="retry", calls="all"))
        assert done.result == "3 calls are tried now"
        await until(lambda: len(place.ended()) == 3, within_s=5)
        assert now() - began < 10
        assert sorted(place.sent(DONE)) == sorted(calls)
        assert len(function.got) == 3

    play(lambda: place.daemon(plan()), script)


def test_a_skipped_call_is_not_made_again_and_its_destinations_get_its_document() -> None:
    function = Called(lambda _: FAILS)
    place = Place(function)

    async def script(daemon: Daemon) -> None:
        await ready(daemon)
        calls = await failed_calls(daemon, function, 2)
        asked = await ask(daemon, action="skip", calls=[calls[0]], reason="ticket 7")
        done = await over(daemon, asked)
        assert (done.state, done.result) == (OperationState.DONE, "1 call skipped")
        await until(lambda: place.ended() == [CallEnd.SKIPPED], within_s=5)
        assert place.sent(FAILED) == place.sent(DEAD) == [calls[0]]
        notice, _ = place.destinations[FAILED].calls[0]
        assert b'"condition":"SkippedByOperator"' in notice.documents[0]
        assert notice.error_message == "an operator skipped the call: ticket 7"
        assert [each.call for each in stored(place.store)] == [calls[1]]
        await asyncio.sleep(400)
        assert Counter(name for _, name, _ in function.got)[calls[0]] == 1

    play(lambda: place.daemon(plan()), script)


def test_a_call_without_a_destination_is_only_skipped_by_dropping_it() -> None:
    function = Called(lambda _: FAILS)
    place = Place(function)

    async def script(daemon: Daemon) -> None:
        await ready(daemon)
        calls = await failed_calls(daemon, function, 2)
        refused = await over(daemon, await ask(daemon, action="skip", calls=calls))
        assert refused.state is OperationState.FAILED
        assert "2 have no destination and stay" in refused.result
        assert {each.ended for each in stored(place.store)} == {None}
        dropped = await over(daemon, await ask(daemon, action="skip", calls="all", discard=True))
        assert (dropped.state, dropped.result) == (OperationState.DONE, "2 calls dropped")
        assert stored(place.store) == []
        assert [each.end for each in place.seen.of(QueuedCallEnded)] == [CallEnd.SKIPPED] * 2

    play(lambda: place.daemon(plan(NOWHERE)), script)


def test_a_call_whose_destination_refuses_is_dropped_and_not_skipped_again() -> None:
    function = Called()
    place = Place(function)
    place.destinations[DONE] = Down()

    async def script(daemon: Daemon) -> None:
        await ready(daemon)
        call = await put(daemon, n=1)
        await asyncio.sleep(30)
        refused = await over(daemon, await ask(daemon, action="skip", calls=[call]))
        assert refused.state is OperationState.FAILED
        assert "1 is over already and waits for a destination" in refused.result
        dropped = await over(daemon, await ask(daemon, action="skip", calls=[call], discard=True))
        assert dropped.result == "1 call dropped"
        assert stored(place.store) == []

    play(lambda: place.daemon(plan()), script)


def test_a_skip_waits_for_the_call_that_runs_and_takes_effect_after_it() -> None:
    function = Called(lambda _: FAILS, takes_s=30.0)
    place = Place(function)

    async def script(daemon: Daemon) -> None:
        await ready(daemon)
        call = await put(daemon, n=1)
        await until(lambda: function.now == 1)
        retry = await over(daemon, await ask(daemon, action="retry", calls=[call]))
        assert retry.result == "0 calls are tried now; 1 runs already"
        skip = await ask(daemon, action="skip", calls=[call])
        await asyncio.sleep(20)
        waiting = await daemon.operations.operation(skip.operation)
        assert waiting.state is OperationState.RUNNING
        assert waiting.notes["waiting"] == ["1 call runs"]
        assert function.now == 1
        done = await over(daemon, skip)
        assert done.result == "1 call skipped"
        await until(lambda: place.ended() == [CallEnd.SKIPPED], within_s=5)
        assert len(function.got) == 1

    play(lambda: place.daemon(plan()), script)


def test_a_call_that_succeeds_before_its_skip_is_over_and_no_error() -> None:
    function = Called(takes_s=10.0)
    place = Place(function)

    async def script(daemon: Daemon) -> None:
        await ready(daemon)
        call = await put(daemon, n=1)
        await until(lambda: function.now == 1)
        done = await over(daemon, await ask(daemon, action="skip", calls=[call, "nobody"]))
        assert (done.state, done.result) == (OperationState.DONE, "0 calls skipped; 2 are over or unknown")
        assert place.ended() == [CallEnd.SUCCESS]

    play(lambda: place.daemon(plan()), script)


def test_a_cancelled_skip_leaves_the_call_that_runs_alone() -> None:
    function = Called(lambda _: FAILS, takes_s=30.0)
    place = Place(function)

    async def script(daemon: Daemon) -> None:
        await ready(daemon)
        call = await put(daemon, n=1)
        await until(lambda: function.now == 1)
        skip = await ask(daemon, action="skip", calls=[call])
        await asyncio.sleep(5)
        await daemon.operations.cancel(skip.operation, by="ann")
        await until(lambda: len(place.ended()) == 1, within_s=400)
        assert place.ended() == [CallEnd.RETRIES]
        assert len(function.got) == 3

    play(lambda: place.daemon(plan()), script)


def test_the_same_request_twice_is_one_operation_and_another_one_of_its_id_is_refused() -> None:
    function = Called(lambda _: FAILS)
    place = Place(function)

    async def script(daemon: Daemon) -> None:
        await ready(daemon)
        calls = await failed_calls(daemon, function, 1)
        first = await over(daemon, await ask(daemon, action="retry", calls=calls, id="mine"))
        again = await ask(daemon, action="retry", calls=calls, id="mine")
        assert again == first
        with pytest.raises(ApiError, match="is the id of another operation"):
            await ask(daemon, action="skip", calls=calls, id="mine")
        await until(lambda: len(function.got) == 2)
        await asyncio.sleep(10)
        assert len(function.got) == 2

    play(lambda: place.daemon(plan()), script)


@pytest.mark.parametrize(
    ("request_", "said"),
    [
        ({"action": "pause"}, "write one of retry, skip"),
        ({"action": "retry"}, "calls: it is missing"),
        ({"action": "retry", "calls": []}, "a list of 1 to 1000 ids"),
        ({"action": "retry", "calls": "first"}, '"all"'),
        ({"action": "retry", "calls": "all", "shard": "0"}, "have no shards"),
        ({"action": "skip", "calls": "all", "send": False}, "without a notice the records are lost"),
        ({"action": "skip", "calls": "all", "records": "first"}, "skip has no member 'records'"),
    ],
)
def test_a_request_that_means_nothing_is_refused_with_the_remedy(request_: dict[str, Any], said: str) -> None:
    place = Place(Called())

    async def script(daemon: Daemon) -> None:
        await ready(daemon)
        with pytest.raises(ApiError, match=said):
            await ask(daemon, **request_)
        with pytest.raises(ApiError, match="no function has this name"):
            await ask(daemon, "nobody", action="retry", calls="all")

    play(lambda: place.daemon(plan()), script)


def test_any_worker_takes_an_operation_also_one_without_the_function() -> None:
    function = Called(lambda _: FAILS)
    place = Place(function)

    async def script() -> None:
        async with asyncio.TaskGroup() as scope:
            first = place.daemon(plan())
            scope.create_task(first.run())
            await ready(first)
            call, _ = await failed_calls(first, function, 2)
            second = place.daemon(daemon_plan(mapping(), worker="worker-2"))
            scope.create_task(second.run())
            await ready(second)
            await until(lambda: any(each.function == "alone" for each in second.status().calls))
            done = await over(second, await ask(second, action="retry", calls=[call]))
            assert done.result == "1 call is tried now"
            await until(lambda: len(function.got) == 3, within_s=6)
            first.stop()
            second.stop()

    run_virtual(script())


def test_the_operation_of_a_killed_worker_is_carried_on_by_another_one() -> None:
    function = Called(lambda _: FAILS, takes_s=40.0)
    place = Place(function)

    async def script() -> None:
        async with asyncio.TaskGroup() as scope:
            first = place.daemon(plan())
            task = scope.create_task(first.run())
            await ready(first)
            call = await put(first, n=1)
            await until(lambda: function.now == 1)
            skip = await ask(first, action="skip", calls=[call])
            await asyncio.sleep(3)
            assert (await first.operations.operation(skip.operation)).notes["worker"] == "worker-1"
            await kill(place, task)
            second = place.daemon(plan(worker="worker-2"))
            scope.create_task(second.run())
            await ready(second)
            # The call is taken over and runs there once more before the skip takes effect.
            done = await over(second, skip, within_s=120)
            assert done.notes["worker"] == "worker-2"
            await until(lambda: place.ended() == [CallEnd.SKIPPED], within_s=10)
            second.stop()

    run_virtual(script())


def test_an_operation_waits_for_a_store_that_does_not_answer() -> None:
    function = Called(lambda _: FAILS)
    place = Place(function)

    async def script(daemon: Daemon) -> None:
        await ready(daemon)
        calls = await failed_calls(daemon, function, 1)
        queue: Any = place.store.call_queue
        find, broken = queue.find, True

        async def found(*given: Any) -> Any:
            if broken:
                raise ServiceUnavailable("the disk is full")
            return await find(*given)

        queue.find = found
        skip = await ask(daemon, action="skip", calls=calls)
        await asyncio.sleep(10)
        waiting = await daemon.operations.operation(skip.operation)
        assert waiting.notes["waiting"] == ["the store is in trouble: the disk is full"]
        broken = False
        assert (await over(daemon, skip)).result == "1 call skipped"

    play(lambda: place.daemon(plan()), script)


def test_the_status_counts_calls_by_what_they_wait_for_and_names_the_last_error() -> None:
    takes = {"n": 0}

    def answer(event: Any) -> Outcome:
        takes["n"] += 1
        return FAILS if event["n"] == 0 else Succeeded(b"1")

    function = Called(answer, takes_s=1.0)
    place = Place(function)
    place.destinations[DONE] = Down()

    async def script(daemon: Daemon) -> None:
        await ready(daemon)
        began = now()
        first = await put(daemon, n=0)
        await asyncio.sleep(0.1)
        await put(daemon, n=1)
        await asyncio.sleep(5)
        function.takes = 100.0
        await put(daemon, n=2)
        await asyncio.sleep(5)
        (calls,) = (await daemon.fleet()).calls
        assert (calls.function, calls.calls, calls.seen) == ("alone", 3, 3)
        assert (calls.waiting, calls.running, calls.undelivered) == (1, 1, 1)
        assert (calls.first, calls.last_error) == (first, "ValueError: no")
        assert now() - began < 20
        shown = daemon.control.calls
        assert isinstance(shown, ShowsQueuedCalls)
        page = await shown.queued_calls("alone", CallsRequest(state=CallState.UNDELIVERED))
        (one,) = page.calls
        assert (one.end, one.undelivered, one.last_error) == ("Success", 1, "connection refused")
        assert (one.payload, page.next) == (None, None)
        (waits,) = (
            await shown.queued_calls("alone", CallsRequest(state=CallState.WAITING, payloads=True))
        ).calls
        assert (waits.id, waits.attempts) == (first, 1)
        assert waits.payload is not None
        assert waits.payload.text == '{"n": 0}'
        with pytest.raises(ApiError, match="no function has this name"):
            await shown.queued_calls("nobody", CallsRequest())
        assert (await shown.queued_calls("reader", CallsRequest())).calls == ()

    play(lambda: place.daemon(plan()), script)


def test_pages_go_through_all_calls_once() -> None:
    function = Called(lambda _: FAILS)
    place = Place(function)

    async def script(daemon: Daemon) -> None:
        await ready(daemon)
        calls = await failed_calls(daemon, function, 7)
        seen: list[str] = []
        request, page = CallsRequest(limit=3), CallPage(function="alone")
        for _ in range(3):
            page = await daemon.control.calls.queued_calls("alone", request)
            seen += [each.id for each in page.calls]
            if page.next is not None:
                due, _, name = page.next.partition(",")
                request = CallsRequest(limit=3, after=place_of(due, name))
        assert page.next is None
        assert sorted(seen) == sorted(calls)

    play(lambda: place.daemon(plan()), script)
