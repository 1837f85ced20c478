"""Calls through the Invoke API of whole daemons on virtual time: they share slots, rates and breakers with mappings."""

import asyncio
import json
from dataclasses import replace
from typing import Any

import pytest

from poller.domain.errors import ServiceUnavailable
from poller.domain.functions.calls import FunctionAnswer, FunctionCall, NoRoom, ThrottleReason
from poller.domain.invocations import FunctionError, Invocation, Outcome, Succeeded
from poller.domain.mapping_api import ApiError, ApiErrorType
from poller.domain.plan import DaemonPlan, FunctionPlan, Tuning
from poller.domain.policies import BatchPolicy, BreakerPolicy, RatePolicy
from poller.domain.telemetry.daemon_events import FunctionCalled, StopCutShort, TaskEnded
from poller.domain.telemetry.labels import TaskKind
from poller.runtime.daemon import Daemon
from poller.runtime.functions.function_calls import ROOM_S_MAX
from poller.runtime.functions.held_functions import IDLE_S
from tests.runtime.daemons import Site, daemon_plan, now, play, until
from tests.runtime.fakes import STREAM_ARN, FakeFunction, FakeStream, mapping, records
from tests.virtual import run_virtual

ALONE = FunctionPlan(name="alone", invoker="fake")


class Slow(FakeFunction):
    """A function that takes what the event says, and answers with the event."""

    def __init__(self, *, fails: bool = False) -> None:
        super().__init__()
        self.began: list[float] = []
        self.fails = fails

    async def invoke(self, invocation: Invocation) -> Outcome:
        event: Any = json.loads(invocation.payload)
        self.began.append(now())
        self.in_flight += 1
        self.in_flight_max = max(self.in_flight_max, self.in_flight)
        try:
            await asyncio.sleep(event.get("takes_s", 0.1))
        finally:
            self.in_flight -= 1
        return FunctionError("ValueError", "no") if self.fails else Succeeded(invocation.payload)


def site(**functions: FakeFunction) -> Site:
    stream = FakeStream()
    return Site(
        sources={STREAM_ARN: stream}, functions={"reader": FakeFunction(), "alone": Slow(), **functions}
    )


def plan(function: FunctionPlan = ALONE, **changes: Any) -> DaemonPlan:
    return daemon_plan(mapping(), functions={"alone": function}, **changes)


async def ready(daemon: Daemon) -> None:
    await until(lambda: daemon.status().ready and daemon.status().complete)


async def call(daemon: Daemon, name: str = "alone", **event: Any) -> FunctionAnswer:
    return await daemon.control.calls.call(FunctionCall(function=name, payload=json.dumps(event).encode()))


def test_a_call_answers_with_what_the_function_returned() -> None:
    place = site()

    async def script(daemon: Daemon) -> None:
        await ready(daemon)
        found = await call(daemon, n=1, takes_s=2)
        assert isinstance(found.outcome, Succeeded)
        assert json.loads(found.outcome.payload) == {"n": 1, "takes_s": 2}
        assert found.duration_s == 2.0
        told = place.seen.of(FunctionCalled)
        assert [(each.function, each.request_id, each.duration_s) for each in told] == [
            ("alone", found.request_id, 2.0)
        ]

    play(lambda: place.daemon(plan()), script)


def test_a_function_is_opened_by_its_first_call_and_closed_when_none_came_for_a_while() -> None:
    place = site()

    async def script(daemon: Daemon) -> None:
        await ready(daemon)
        assert "alone" not in place.open_now
        await call(daemon)
        await asyncio.sleep(IDLE_S - 1)
        await call(daemon)
        await asyncio.sleep(IDLE_S - 1)
        assert place.open_now.count("alone") == 1
        await asyncio.sleep(2)
        assert "alone" not in place.open_now
        await call(daemon)
        assert place.open_now.count("alone") == 1

    play(lambda: place.daemon(plan()), script)
    assert "alone" not in place.open_now


def test_without_a_slot_a_call_waits_a_little_and_is_refused_without_being_called() -> None:
    function = Slow()
    place = site(alone=function)

    async def script(daemon: Daemon) -> None:
        await ready(daemon)
        async with asyncio.TaskGroup() as tasks:
            first = tasks.create_task(call(daemon, takes_s=1.5))
            await asyncio.sleep(0.1)
            second = tasks.create_task(call(daemon, takes_s=10))
            await asyncio.sleep(1.5)
            began = now()
            with pytest.raises(NoRoom) as refused:
                await call(daemon)
            assert now() - began == pytest.approx(ROOM_S_MAX)
        assert refused.value.reason is ThrottleReason.CONCURRENCY
        assert "max_concurrency" in refused.value.text
        assert isinstance(first.result().outcome, Succeeded)
        assert isinstance(second.result().outcome, Succeeded)

    play(lambda: place.daemon(plan(replace(ALONE, max_concurrency=1))), script)
    assert (len(function.began), function.in_flight_max) == (2, 1)


def test_a_call_gets_its_turn_among_the_batches_of_a_busy_mapping() -> None:
    reader = FakeFunction(takes_s=0.4)
    place = site(reader=reader)
    stream = place.sources[STREAM_ARN]
    assert isinstance(stream, FakeStream)
    stream.put(*records(*range(1, 60)))
    busy = FunctionPlan(name="reader", invoker="fake", max_concurrency=1)

    async def script(daemon: Daemon) -> None:
        await ready(daemon)
        await until(lambda: reader.in_flight == 1)
        event = {"Records": [{"kinesis": {"sequenceNumber": "999"}}]}
        began = now()
        found = await call(daemon, "reader", **event)
        assert isinstance(found.outcome, Succeeded)
        assert now() - began <= 1.0
        assert 59 not in [number for each in reader.calls for number in each]
        await until(lambda: 59 in reader.calls[-1])

    one = mapping(batch=BatchPolicy(records_max=1))
    play(lambda: place.daemon(daemon_plan(one, functions={"reader": busy})), script)
    assert reader.in_flight_max == 1


def test_a_rate_spaces_calls_and_refuses_those_that_would_wait_too_long() -> None:
    function = Slow()
    place = site(alone=function)
    rated = replace(ALONE, rate=RatePolicy(invocations_per_s=1.0, records_per_s=None))

    async def script(daemon: Daemon) -> None:
        await ready(daemon)
        async with asyncio.TaskGroup() as tasks:
            calls = [tasks.create_task(refusal(daemon)) for _ in range(8)]
        refused = [each.result() for each in calls if each.result() is not None]
        assert {each.reason for each in refused if each is not None} == {ThrottleReason.RATE}
        assert len(function.began) + len(refused) == 8
        assert len(function.began) <= 1 + ROOM_S_MAX + 1

    play(lambda: place.daemon(plan(rated)), script)


async def refusal(daemon: Daemon) -> NoRoom | None:
    try:
        await call(daemon)
    except NoRoom as error:
        return error
    return None


def test_failing_calls_open_the_breaker_and_it_refuses_calls() -> None:
    function = Slow(fails=True)
    place = site(alone=function)
    broken = replace(ALONE, breaker=BreakerPolicy(failures=0.5, window_s=60.0, open_s=30.0))

    async def script(daemon: Daemon) -> None:
        await ready(daemon)
        for _ in range(5):
            assert isinstance((await call(daemon)).outcome, FunctionError)
        found = await refusal(daemon)
        assert found is not None
        assert found.reason is ThrottleReason.RATE
        assert "poller breaker close alone" in found.text
        assert len(function.began) == 5

    play(lambda: place.daemon(plan(broken)), script)


def test_a_changed_function_is_opened_when_the_calls_of_the_old_one_have_ended() -> None:
    old, new = Slow(), Slow()
    place = site(alone=old)

    async def script(daemon: Daemon) -> None:
        await ready(daemon)
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(call(daemon, takes_s=5))
            await until(lambda: old.in_flight == 1)
            place.functions["alone"] = new
            daemon.replan(plan(replace(ALONE, timeout_s=77.0)))
            await asyncio.sleep(1)
            began = now()
            await call(daemon)
            assert now() - began == pytest.approx(4.1, abs=0.2)
        assert (len(old.began), len(new.began)) == (1, 1)

    play(lambda: place.daemon(plan()), script)


def test_a_function_that_is_gone_from_the_configuration_is_closed_and_unknown() -> None:
    place = site()

    async def script(daemon: Daemon) -> None:
        await ready(daemon)
        await call(daemon)
        daemon.replan(daemon_plan(mapping()))
        await until(lambda: "alone" not in place.open_now)
        with pytest.raises(ApiError) as refused:
            await call(daemon)
        assert refused.value.fault is ApiErrorType.MISSING

    play(lambda: place.daemon(plan()), script)


def test_a_function_that_cannot_be_opened_says_why_and_is_tried_again_by_the_next_call() -> None:
    place = site()
    place.opening["alone"] = [ServiceUnavailable("no such module")]

    async def script(daemon: Daemon) -> None:
        await ready(daemon)
        with pytest.raises(ApiError) as refused:
            await call(daemon)
        assert refused.value.fault is ApiErrorType.NOT_READY
        assert "no such module" in refused.value.text
        assert isinstance((await call(daemon)).outcome, Succeeded)

    play(lambda: place.daemon(plan()), script)


def test_a_stop_lets_calls_end_and_begins_no_other() -> None:
    function = Slow()
    place = site(alone=function)
    answers: list[FunctionAnswer] = []

    async def main() -> None:
        daemon = place.daemon(plan())
        async with asyncio.TaskGroup() as tasks:
            running = tasks.create_task(daemon.run())
            await ready(daemon)
            asked = tasks.create_task(call(daemon, takes_s=8))
            await until(lambda: function.in_flight == 1)
            daemon.stop()
            await asyncio.sleep(0.5)
            with pytest.raises(ApiError) as refused:
                await call(daemon)
            assert refused.value.fault is ApiErrorType.SERVICE
            answers.append(await asked)
            await running

    run_virtual(main())
    assert isinstance(answers[0].outcome, Succeeded)
    assert place.seen.of(StopCutShort) == []


def test_a_call_that_outlasts_the_grace_time_is_counted_as_cut_off() -> None:
    place = site()

    async def main() -> None:
        daemon = place.daemon(plan(tuning=Tuning(grace_s=3.0)))
        async with asyncio.TaskGroup() as tasks:
            running = tasks.create_task(daemon.run())
            await ready(daemon)
            asked = asyncio.create_task(call(daemon, takes_s=20))
            await asyncio.sleep(1)
            began = now()
            daemon.stop()
            await running
            assert now() - began < 10
            asked.cancel()

    run_virtual(main())
    (cut,) = place.seen.of(StopCutShort)
    assert cut.calls_cut_off == 1
    assert cut.cut_off == ("function alone, called through the API: 1 call",)


def test_functions_are_listed_by_name_with_their_arns() -> None:
    place = site()

    async def script(daemon: Daemon) -> None:
        await ready(daemon)
        views = daemon.control.calls.functions()
        assert [each.name for each in views] == ["alone", "reader"]
        assert views[0].arn == "arn:aws:lambda:us-east-1:000000000000:function:alone"
        assert views[1].arn == mapping().function_arn
        assert daemon.control.calls.function("reader") == views[1]

    play(lambda: place.daemon(plan()), script)


def test_a_task_that_ends_by_itself_is_reported_and_the_next_call_opens_the_function_again() -> None:
    place = site()

    async def script(daemon: Daemon) -> None:
        await ready(daemon)
        await call(daemon)
        (task,) = [each for each in asyncio.all_tasks() if each.get_name().startswith("function_calls ")]
        task.cancel()
        await asyncio.sleep(1)
        assert isinstance((await call(daemon)).outcome, Succeeded)
        assert [each.task for each in place.seen.of(TaskEnded)] == [TaskKind.FUNCTION_CALLS]

    play(lambda: place.daemon(plan()), script)


def test_a_call_keeps_its_function_open_when_the_task_that_held_it_has_ended() -> None:
    function = Slow()
    place = site(alone=function)

    async def script(daemon: Daemon) -> None:
        await ready(daemon)
        async with asyncio.TaskGroup() as tasks:
            first = tasks.create_task(call(daemon, takes_s=10))
            await asyncio.sleep(1)
            (task,) = [each for each in asyncio.all_tasks() if TaskKind.FUNCTION_CALLS in each.get_name()]
            task.cancel()
            await asyncio.sleep(1)
            with pytest.raises(NoRoom):
                await call(daemon)
            await asyncio.sleep(8)
            assert isinstance(first.result().outcome, Succeeded)
            await call(daemon)

    play(lambda: place.daemon(plan(replace(ALONE, max_concurrency=1))), script)
    assert (len(function.began), function.in_flight_max) == (2, 1)
