"""How asynchronous calls are tried, as set through the API: validated, kept in the store, and known to all workers."""

import asyncio
from typing import Any

import pytest

from poller.domain.functions.queued_calls import AsyncPolicy
from poller.domain.mapping_api import ApiError, ApiErrorType
from poller.domain.plan import DaemonPlan, FunctionPlan
from poller.runtime.daemon import Daemon
from tests.runtime.daemons import FAILED, daemon_plan, play
from tests.runtime.fakes import mapping
from tests.runtime.functions.test_queued_calls import ARN, Called, Place, put, ready

QUEUE = {"Destination": FAILED}


def plan(worker: str = "worker-1", **changes: Any) -> DaemonPlan:
    function = FunctionPlan(name="alone", invoker="fake", **changes)
    return daemon_plan(mapping(), functions={"alone": function}, worker=worker)


def test_what_is_put_is_shown_merged_replaced_and_removed() -> None:
    async def script(daemon: Daemon) -> None:
        await ready(daemon)
        configs = daemon.control.calls.configs
        made = await configs.put("alone", "", {"MaximumRetryAttempts": 1}, merge=False)
        assert made.arn == f"{ARN}:$LATEST"
        both: dict[str, Any] = {"OnSuccess": {}, "OnFailure": {}}
        assert made.parameters == {"MaximumRetryAttempts": 1, "DestinationConfig": both}
        targets = {"DestinationConfig": {"OnFailure": QUEUE}}
        changed = await configs.put("alone", "$LATEST", targets, merge=True)
        assert changed.parameters == {
            "MaximumRetryAttempts": 1,
            "DestinationConfig": {"OnSuccess": {}, "OnFailure": QUEUE},
        }
        assert configs.get(ARN, "") == changed
        assert list(configs.list("alone")) == [changed]
        replaced = await configs.put("alone", "", {"MaximumEventAgeInSeconds": 60}, merge=False)
        assert replaced.parameters == {"MaximumEventAgeInSeconds": 60, "DestinationConfig": both}
        await configs.delete("alone", "")
        assert list(configs.list("alone")) == []
        for name in ("alone", "nobody"):
            with pytest.raises(ApiError) as refused:
                configs.get(name, "")
            assert refused.value.fault is ApiErrorType.MISSING
        with pytest.raises(ApiError, match=r"alone:\$LATEST doesn't have an EventInvokeConfig"):
            await configs.delete("alone", "")

    place = Place(Called())
    play(lambda: place.daemon(plan()), script)


def at(destination: object) -> dict[str, Any]:
    """A request for this destination of calls that fail."""
    return {"DestinationConfig": {"OnFailure": {"Destination": destination}}}


WRONG: list[tuple[dict[str, Any], ApiErrorType, str]] = [
    ({}, ApiErrorType.PARAMETER, "at least one of"),
    ({"MaximumRetryAttempts": 3}, ApiErrorType.VALIDATION, "less than or equal to 2"),
    ({"MaximumRetryAttempts": -1}, ApiErrorType.VALIDATION, "greater than or equal to 0"),
    ({"MaximumEventAgeInSeconds": 59}, ApiErrorType.VALIDATION, "greater than or equal to 60"),
    ({"MaximumEventAgeInSeconds": 21601}, ApiErrorType.VALIDATION, "less than or equal to 21600"),
    (at("nowhere"), ApiErrorType.VALIDATION, "Value 'nowhere' at 'destinationConfig.onFailure.destination'"),
    (at("file:///tmp"), ApiErrorType.VALIDATION, "must satisfy regular expression pattern"),
    (at(7), ApiErrorType.VALIDATION, "Value '7'"),
    (at(FAILED + "x" * 350), ApiErrorType.VALIDATION, "length less than or equal to 350"),
    (at(FAILED + ".fifo"), ApiErrorType.PARAMETER, r"The destination ARN arn:aws:sqs:\S+\.fifo is invalid\."),
    (at(FAILED.replace("sqs", "sns") + ".fifo"), ApiErrorType.PARAMETER, "is invalid"),
    (at("arn:aws:kinesis:eu-west-1:111122223333:stream/s"), ApiErrorType.PARAMETER, "is invalid"),
    ({"DestinationConfig": 7}, ApiErrorType.PARAMETER, "not an object"),
]


@pytest.mark.parametrize(("parameters", "fault", "said"), WRONG)
def test_wrong_members_are_refused_and_change_nothing(
    parameters: dict[str, Any], fault: ApiErrorType, said: str
) -> None:
    async def script(daemon: Daemon) -> None:
        await ready(daemon)
        configs = daemon.control.calls.configs
        with pytest.raises(ApiError, match=said) as refused:
            await configs.put("alone", "", parameters, merge=False)
        assert refused.value.fault is fault
        assert list(configs.list("alone")) == []

    place = Place(Called())
    play(lambda: place.daemon(plan()), script)


def test_what_the_file_has_is_shown_and_cannot_be_changed() -> None:
    policies = {"": AsyncPolicy(retries_max=0, on_failure=FAILED)}

    async def script(daemon: Daemon) -> None:
        await ready(daemon)
        configs = daemon.control.calls.configs
        shown = configs.get("alone", "")
        assert shown.parameters["MaximumRetryAttempts"] == 0
        assert shown.parameters["DestinationConfig"]["OnFailure"] == QUEUE
        with pytest.raises(ApiError, match="configuration file") as refused:
            await configs.put("alone", "", {"MaximumRetryAttempts": 1}, merge=False)
        assert refused.value.fault is ApiErrorType.CONFLICT

    place = Place(Called())
    play(lambda: place.daemon(plan(async_policies=policies)), script)


def test_all_workers_follow_what_one_was_told_and_a_start_reads_it_again() -> None:
    function = Called()
    place = Place(function)

    async def script(daemon: Daemon) -> None:
        await ready(daemon)
        targets = {"DestinationConfig": {"OnSuccess": QUEUE}}
        await daemon.control.calls.configs.put("alone", "", targets, merge=False)
        calls = [await put(daemon, n=number) for number in range(40)]
        await asyncio.sleep(20)
        assert sorted(place.sent(FAILED)) == sorted(calls)
        other = place.daemon(plan("worker-3"))
        async with asyncio.TaskGroup() as scope:
            scope.create_task(other.run())
            await ready(other)
            assert (
                other.control.calls.configs.get("alone", "").parameters["DestinationConfig"]["OnSuccess"]
                == QUEUE
            )
            other.stop()

    play(lambda: place.daemon(plan()), script, lambda: place.daemon(plan("worker-2")))


def test_two_workers_that_change_at_once_lose_no_change() -> None:
    place = Place(Called())
    daemons: list[Daemon] = []

    def other() -> Daemon:
        daemons.append(place.daemon(plan("worker-2")))
        return daemons[0]

    async def script(daemon: Daemon) -> None:
        await ready(daemon)
        await ready(daemons[0])
        await asyncio.gather(
            daemon.control.calls.configs.put("alone", "", {"MaximumRetryAttempts": 1}, merge=True),
            daemons[0].control.calls.configs.put("alone", "", {"MaximumEventAgeInSeconds": 99}, merge=True),
        )
        await asyncio.sleep(10)
        for each in (daemon, daemons[0]):
            found = each.control.calls.configs.get("alone", "").parameters
            assert (found["MaximumRetryAttempts"], found["MaximumEventAgeInSeconds"]) == (1, 99)

    play(lambda: place.daemon(plan()), script, other)
