"""A redrive of whole daemons on virtual time: batches that were given up are called again, whoever carries it out."""

import asyncio
from typing import Any

import pytest

from poller.domain.errors import AccessDenied, ServiceUnavailable
from poller.domain.invocations import FunctionError, Invocation, Outcome, Throttled, with_payload
from poller.domain.operations import Operation, OperationState
from poller.domain.plan import DaemonPlan, FunctionPlan
from poller.domain.policies import Backoff, BatchPolicy, RetryPolicy
from poller.domain.rows import MappingState
from poller.runtime.daemon import Daemon
from tests.runtime.daemons import FAILED, Site, daemon_plan, now, play, until
from tests.runtime.fakes import STREAM_ARN, FakeDestination, FakeFunction, FakeStream, mapping, records
from tests.runtime.operations.test_seeks import over
from tests.runtime.streams.operations.test_redriving import FakeNotices
from tests.virtual import run_virtual

PLAN = mapping(
    batch=BatchPolicy(records_max=2),
    retry=RetryPolicy(retries_max=0, backoff=Backoff(base_s=0.0, cap_s=0.0)),
    destination=FAILED,
)
BATCHES = [[1, 2], [3, 4], [5, 6], [7, 8]]


class Repairable(FakeFunction):
    """A function that fails until it is repaired."""

    repaired = False
    throttles = False

    async def invoke(self, invocation: Invocation) -> Outcome:
        if self.throttles:
            await asyncio.sleep(1)
            return Throttled("busy")
        outcome = await super().invoke(invocation)
        return outcome if self.repaired else FunctionError("ValueError", "no")


def site() -> Site:
    stream = FakeStream()
    stream.put(*records(*range(1, 9)))
    return Site(
        sources={STREAM_ARN: stream},
        functions={"reader": Repairable(takes_s=0.5)},
        destinations={FAILED: FakeDestination()},
    )


def function_of(place: Site) -> Repairable:
    function = place.functions["reader"]
    assert isinstance(function, Repairable)
    return function


async def given_up(place: Site) -> FakeNotices:
    """Waits until all batches have failed, and repairs the function. Returns their notices."""
    await until(lambda: len(place.destinations[FAILED].notices) == len(BATCHES))
    place.notices[FAILED] = FakeNotices(place.destinations[FAILED].notices, with_payload)
    function_of(place).repaired = True
    function_of(place).calls.clear()
    found: FakeNotices = place.notices[FAILED]
    return found


async def redrive(daemon: Daemon, **members: Any) -> Operation:
    """Asks for a redrive."""
    request = {"action": "redrive", "from": FAILED, **members}
    return await daemon.operations.submit(PLAN.mapping, request, by="ann")


def test_a_redrive_settles_what_was_given_up_and_counts_it() -> None:
    place = site()

    async def script(daemon: Daemon) -> None:
        notices = await given_up(place)
        found = await over(daemon, await redrive(daemon))
        assert (found.state, found.result) == (OperationState.DONE, "4 batches settled (8 records)")
        assert found.progress == {"settled": 4, "records": 8, "failed": 0, "refused": 0}
        assert notices.held == {}

    play(lambda: place.daemon(daemon_plan(PLAN)), script)
    assert function_of(place).calls == BATCHES


def test_a_dry_run_calls_and_removes_nothing() -> None:
    place = site()

    async def script(daemon: Daemon) -> None:
        notices = await given_up(place)
        found = await over(daemon, await redrive(daemon, dry_run=True, limit=3))
        assert (found.state, found.result) == (OperationState.DONE, "would call 3 batches")
        assert len(found.notes["plan"]) == 3
        assert len(notices.held) == 4

    play(lambda: place.daemon(daemon_plan(PLAN)), script)
    assert function_of(place).calls == []


def test_another_worker_goes_on_after_the_first_was_killed() -> None:
    place = site()

    async def main() -> None:
        async with asyncio.TaskGroup() as scope:
            first = place.daemon(daemon_plan(PLAN, worker="worker-1"))
            second = place.daemon(daemon_plan(PLAN, worker="worker-2"), seed=8)
            tasks = [scope.create_task(each.run()) for each in (first, second)]
            notices = await given_up(place)
            asked = await redrive(first)
            await until(lambda: len(function_of(place).calls) == 2)
            tasks[0].cancel()
            notices.opened_again()
            found = await over(second, asked)
            assert found.state is OperationState.DONE
            assert notices.held == {}
            second.stop()

    run_virtual(main())
    assert {tuple(call) for call in function_of(place).calls} == {tuple(batch) for batch in BATCHES}


def test_a_redrive_that_is_cancelled_calls_nothing_more() -> None:
    place = site()

    async def script(daemon: Daemon) -> None:
        notices = await given_up(place)
        asked = await redrive(daemon)
        await until(lambda: len(function_of(place).calls) == 2)
        await daemon.operations.cancel(asked.operation, by="ann")
        await asyncio.sleep(10)
        assert len(function_of(place).calls) <= 3
        assert len(notices.held) >= 1

    play(lambda: place.daemon(daemon_plan(PLAN)), script)


async def waiting(daemon: Daemon, asked: Operation) -> list[str]:
    """What the operation says that it waits for."""
    found: list[str] = (await daemon.operations.operation(asked.operation)).notes.get("waiting", [])
    return found


def test_a_redrive_that_waits_for_its_function_says_so_until_it_goes_on() -> None:
    place = site()

    async def script(daemon: Daemon) -> None:
        await given_up(place)
        function_of(place).throttles = True
        asked = await redrive(daemon)
        await asyncio.sleep(30)
        (said,) = await waiting(daemon, asked)
        assert said.startswith("the function cannot be called: ")
        function_of(place).throttles = False
        assert (await over(daemon, asked)).state is OperationState.DONE
        assert await waiting(daemon, asked) == []

    play(lambda: place.daemon(daemon_plan(PLAN)), script)


def test_a_paused_mapping_holds_its_redrive() -> None:
    place = site()

    async def script(daemon: Daemon) -> None:
        await given_up(place)
        pause = await daemon.operations.submit(PLAN.mapping, {"action": "pause"}, by="ann")
        asked = await redrive(daemon)
        await asyncio.sleep(20)
        assert function_of(place).calls == []
        assert await waiting(daemon, asked) == ["the mapping is paused"]
        await daemon.operations.cancel(pause.operation, by="ann")
        resumed = now()
        assert (await over(daemon, asked)).state is OperationState.DONE
        assert await waiting(daemon, asked) == []
        assert now() - resumed < 5

    play(lambda: place.daemon(daemon_plan(PLAN)), script)


@pytest.mark.parametrize(
    ("place", "said"),
    [
        ("arn:aws:sqs:eu-west-1:111122223333:elsewhere", "KeyError"),
    ],
)
def test_a_place_that_cannot_be_opened_fails_the_operation(place: str, said: str) -> None:
    outside = site()

    async def script(daemon: Daemon) -> None:
        await given_up(outside)
        found = await over(daemon, await redrive(daemon, **{"from": place}))
        assert found.state is OperationState.FAILED
        assert said in found.result

    play(lambda: outside.daemon(daemon_plan(PLAN)), script)


@pytest.mark.parametrize(
    ("trouble", "state", "result", "left"),
    [
        ([ServiceUnavailable("down")] * 5, OperationState.DONE, "4 batches settled (8 records)", 0),
        (
            [ServiceUnavailable("down")] * 8,
            OperationState.FAILED,
            "from: the notices cannot be read: down; "
            "see that the place exists and that the daemon may read it, then ask again",
            2,
        ),
        (
            [AccessDenied("no")] * 2,
            OperationState.FAILED,
            "from: the notices cannot be read: no; "
            "see that the place exists and that the daemon may read it, then ask again",
            1,
        ),
    ],
    ids=["for some time", "for long", "denied"],
)
def test_a_place_in_trouble_is_opened_again_a_few_times(
    trouble: list[Exception], state: OperationState, result: str, left: int
) -> None:
    place = site()

    async def script(daemon: Daemon) -> None:
        await given_up(place)
        troubles = place.opening[FAILED] = list(trouble)
        found = await over(daemon, await redrive(daemon))
        assert (found.state, found.result, len(troubles)) == (state, result, left)

    play(lambda: place.daemon(daemon_plan(PLAN)), script)


def test_notices_that_cannot_be_read_fail_the_operation_after_some_tries() -> None:
    place = site()

    async def script(daemon: Daemon) -> None:
        notices = await given_up(place)
        notices.trouble = [ServiceUnavailable("down")] * 100
        found = await over(daemon, await redrive(daemon))
        assert (found.state, found.result) == (
            OperationState.FAILED,
            "from: the notices cannot be read: down; "
            "see that the place exists and that the daemon may read it, then ask again",
        )

    play(lambda: place.daemon(daemon_plan(PLAN)), script)


class Logged(Repairable):
    """A repaired function that logs by its name when its calls begin and end."""

    def __init__(self, log: list[str], name: str) -> None:
        super().__init__(takes_s=0.5)
        self.repaired = True
        self._log = log
        self._name = name

    async def invoke(self, invocation: Invocation) -> Outcome:
        self._log.append(f"{self._name} begins")
        outcome = await super().invoke(invocation)
        self._log.append(f"{self._name} ends")
        return outcome


def test_a_redrive_goes_on_with_the_changed_function_and_not_with_the_closed_one() -> None:
    place = site()
    log: list[str] = []

    def plan(timeout_s: float) -> DaemonPlan:
        function = FunctionPlan(name="reader", invoker="fake", max_concurrency=1, timeout_s=timeout_s)
        return daemon_plan(PLAN, functions={"reader": function})

    async def main(daemon: Daemon) -> None:
        notices = await given_up(place)
        place.functions["reader"] = Logged(log, "first")
        daemon.replan(plan(11.0))
        await until(lambda: daemon.control.views()[0].state is MappingState.ENABLED)
        operation = await redrive(daemon)
        await until(lambda: len(log) == 3)
        place.functions["reader"] = Logged(log, "second")
        daemon.replan(plan(12.0))
        await until(lambda: daemon.control.views()[0].state is not MappingState.ENABLED)
        assert log[-1] == "first begins", "the mapping does not end before the call of its function"
        await until(lambda: daemon.control.views()[0].state is MappingState.ENABLED)
        assert log[-1] == "first ends"
        notices.opened_again()
        found = await over(daemon, operation)
        assert (found.state, found.progress["settled"]) == (OperationState.DONE, len(BATCHES))
        assert notices.held == {}

    play(lambda: place.daemon(plan(10.0)), main)
    assert log == [
        f"{name} {step}" for name in ("first", "first", "second", "second") for step in ("begins", "ends")
    ]
