"""A whole daemon on virtual time: how it starts, keeps mappings apart, heals, and takes another configuration."""

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from functools import partial

import pytest

from adapters.stores.memory import MemoryStore
from poller.domain.errors import AccessDenied, InvalidConfiguration, ServiceThrottled, ServiceUnavailable
from poller.domain.plan import DiscardPolicy, FunctionPlan
from poller.domain.policies import BatchPolicy, RetryPolicy
from poller.domain.records import MappingId, Position
from poller.domain.rows import MappingRow, MappingState
from poller.domain.telemetry.daemon_events import StoreFailed
from poller.domain.telemetry.mapping_events import PortFailed
from poller.runtime.daemon import Daemon
from tests.runtime.daemons import FAILED, STEADY, Site, daemon_plan, now, play, until
from tests.runtime.fakes import (
    STREAM_ARN,
    FakeDestination,
    FakeFunction,
    FakeStream,
    mapping,
    poison,
    records,
)
from tests.runtime.streams.test_stream_mapping import position_of

OTHER_ARN = "arn:aws:kinesis:eu-west-1:111122223333:stream/orders"
FIRST = mapping()
SECOND = mapping(
    mapping=MappingId("1f4b8a5e-8b0c-4a56-9c0e-0d7d6b0c2b22"), source_arn=OTHER_ARN, function="writer"
)
S = MappingState


def site(*, reader: FakeFunction | None = None) -> Site:
    """Two streams with five records each, and two functions."""
    found = Site(
        sources={STREAM_ARN: FakeStream(), OTHER_ARN: FakeStream()},
        functions={"reader": reader or FakeFunction(), "writer": FakeFunction()},
    )
    for stream in found.sources.values():
        assert isinstance(stream, FakeStream)
        stream.put(*records(1, 2, 3, 4, 5))
    return found


def calls(place: Site, name: str) -> list[list[int]]:
    """What a function was called with."""
    function = place.functions[name]
    assert isinstance(function, FakeFunction)
    return function.calls


async def ready(daemon: Daemon) -> None:
    await until(lambda: daemon.status().ready)


def test_a_daemon_opens_its_parts_runs_them_and_closes_them() -> None:
    place = site()

    async def script(daemon: Daemon) -> None:
        assert daemon.status().problems == ("not everything is open yet",)
        await ready(daemon)
        assert sorted(place.open_now) == sorted(["memory", STREAM_ARN, OTHER_ARN, "reader", "writer"])

    play(lambda: place.daemon(daemon_plan(FIRST, SECOND)), script)
    assert place.open_now == []
    assert calls(place, "reader") == calls(place, "writer") == [[1, 2, 3, 4, 5]]
    assert place.states(FIRST.mapping) == [S.CREATING, S.ENABLED]


def test_a_wrong_part_of_the_file_refuses_the_start_before_anything_is_read() -> None:
    place = site()
    place.opening["writer"] = [InvalidConfiguration(["functions.writer.handler: no such module"])]
    place.opening[STREAM_ARN] = [InvalidConfiguration(["region: none is set"])]

    async def script(_: Daemon) -> None:
        await asyncio.sleep(60)

    with pytest.raises(ExceptionGroup) as caught:
        play(lambda: place.daemon(daemon_plan(FIRST, SECOND)), script)
    (error,) = caught.value.exceptions
    assert isinstance(error, InvalidConfiguration)
    assert sorted(error.problems) == ["functions.writer.handler: no such module", "region: none is set"]
    assert calls(place, "reader") == []
    assert place.open_now == []


def test_trouble_at_opening_one_mapping_leaves_the_others_alone_and_heals() -> None:
    place = site()
    place.opening[OTHER_ARN] = [ServiceUnavailable("no connection")] * 3

    async def script(daemon: Daemon) -> None:
        await until(lambda: calls(place, "reader") != [])
        assert now() < 1
        (problem,) = daemon.status().problems
        assert problem == f"mapping {SECOND.mapping} ({OTHER_ARN}): no connection"
        await until(lambda: daemon.status().ready)
        assert now() == pytest.approx(3.0, abs=0.15)

    play(lambda: place.daemon(daemon_plan(FIRST, SECOND)), script)
    assert calls(place, "writer") == [[1, 2, 3, 4, 5]]
    failed = [event for event in place.seen.of(PortFailed) if event.mapping == SECOND.mapping]
    assert [(event.port, event.error, event.wait_s) for event in failed] == [
        ("source", "ServiceUnavailable", 1.0)
    ] * 3


def test_a_bug_breaks_its_mapping_alone_which_starts_again() -> None:
    place = site()
    place.opening[OTHER_ARN] = [RuntimeError("a bug of a plug-in")]

    async def script(daemon: Daemon) -> None:
        await until(lambda: calls(place, "reader") != [])
        assert "broken: RuntimeError: a bug of a plug-in" in daemon.status().problems[0]
        await ready(daemon)

    play(lambda: place.daemon(daemon_plan(FIRST, SECOND)), script)
    assert place.states(SECOND.mapping) == [S.CREATING, S.BROKEN, S.ENABLED]
    assert calls(place, "writer") == [[1, 2, 3, 4, 5]]


def test_a_store_that_is_busy_or_away_is_waited_for() -> None:
    place = site()
    place.opening["memory"] = [ServiceThrottled("slow down"), ServiceUnavailable("no answer")]

    async def script(daemon: Daemon) -> None:
        await ready(daemon)

    play(lambda: place.daemon(daemon_plan(FIRST)), script)
    assert [event.error for event in place.seen.of(StoreFailed)] == ["ServiceThrottled", "ServiceUnavailable"]
    assert calls(place, "reader") == [[1, 2, 3, 4, 5]]


def test_a_store_that_denies_access_refuses_the_start() -> None:
    place = site()
    place.opening["memory"] = [AccessDenied("not yours")]

    async def script(_: Daemon) -> None:
        await asyncio.sleep(60)

    with pytest.raises(ExceptionGroup) as caught:
        play(lambda: place.daemon(daemon_plan(FIRST)), script)
    assert caught.group_contains(AccessDenied)


def test_a_stop_while_the_store_is_away_ends_the_daemon() -> None:
    place = site()
    place.opening["memory"] = [ServiceUnavailable("no answer")] * 1000
    tuning = replace(STEADY, port_backoff=replace(STEADY.port_backoff, base_s=100.0, cap_s=100.0))

    async def script(_: Daemon) -> None:
        await asyncio.sleep(0.5)

    play(lambda: place.daemon(daemon_plan(FIRST, tuning=tuning)), script)
    assert calls(place, "reader") == []


def test_a_daemon_knows_all_mappings_from_its_opening_until_it_drains() -> None:
    place = site()

    async def script(daemon: Daemon) -> None:
        assert not daemon.status().complete
        await ready(daemon)
        assert daemon.status().complete
        daemon.stop()
        assert not daemon.status().complete

    play(lambda: place.daemon(daemon_plan(FIRST)), script)


def test_a_daemon_does_not_know_all_mappings_before_its_store_has_answered() -> None:
    class Silent(MemoryStore):
        """A store that does not give its mappings at first."""

        refusals = 2

        async def mappings(self) -> Sequence[MappingRow]:
            if self.refusals:
                self.refusals -= 1
                raise ServiceUnavailable("no answer")
            return await super().mappings()

    place = site()

    async def script(daemon: Daemon) -> None:
        await ready(daemon)
        assert not daemon.status().complete
        await until(lambda: daemon.status().complete)

    # A mapping that runs lists, too.
    disabled = replace(FIRST, enabled=False)
    play(lambda: place.daemon(daemon_plan(disabled), store=Silent()), script)
    assert len(place.seen.of(StoreFailed)) == 2


def test_mappings_of_one_function_share_its_slots() -> None:
    function = FakeFunction(takes_s=1.0)
    place = site(reader=function)
    both = (FIRST, replace(SECOND, function="reader"))
    functions = {"reader": FunctionPlan(name="reader", invoker="fake", max_concurrency=1)}

    async def script(_: Daemon) -> None:
        await until(lambda: len(function.calls) == 2)

    play(lambda: place.daemon(daemon_plan(*both, functions=functions)), script)
    assert function.in_flight_max == 1


def test_another_configuration_changes_only_what_it_changes() -> None:
    place = site()
    changed = replace(SECOND, batch=BatchPolicy(records_max=2))

    async def script(daemon: Daemon) -> None:
        await until(lambda: calls(place, "writer") != [])
        daemon.replan(daemon_plan(FIRST, changed))
        stream = place.sources[OTHER_ARN]
        assert isinstance(stream, FakeStream)
        stream.put(*records(6, 7, 8))
        await until(lambda: len(calls(place, "writer")) == 3)

    play(lambda: place.daemon(daemon_plan(FIRST, SECOND)), script)
    assert calls(place, "writer") == [[1, 2, 3, 4, 5], [6, 7], [8]]
    assert place.states(FIRST.mapping) == [S.CREATING, S.ENABLED]
    assert place.states(SECOND.mapping) == [S.CREATING, S.ENABLED, S.UPDATING, S.ENABLED]


def test_a_mapping_that_leaves_the_file_drains_and_keeps_its_position() -> None:
    place = site(reader=FakeFunction(takes_s=5.0))

    async def script(daemon: Daemon) -> None:
        await until(lambda: calls(place, "reader") != [])
        daemon.replan(daemon_plan(SECOND))
        await asyncio.sleep(1)
        assert [each.state for each in daemon.status().mappings] == [S.ENABLED, S.DELETING]
        await until(lambda: len(daemon.status().mappings) == 1)
        assert now() == pytest.approx(5.0, abs=0.2)
        assert await position_of(place.store) == Position.after("5")

    play(lambda: place.daemon(daemon_plan(FIRST, SECOND)), script)
    assert place.states(FIRST.mapping)[-1] is S.DELETING


def test_a_changed_function_waits_until_all_calls_of_the_old_one_are_done() -> None:
    """The cap of a function holds across its change."""
    function = FakeFunction(takes_s=4.0)
    place = site(reader=function)
    both = (FIRST, replace(SECOND, function="reader"))

    def plan(timeout_s: float) -> dict[str, FunctionPlan]:
        return {"reader": FunctionPlan(name="reader", invoker="fake", max_concurrency=1, timeout_s=timeout_s)}

    async def script(daemon: Daemon) -> None:
        await until(lambda: len(function.calls) == 1)
        daemon.replan(daemon_plan(*both, functions=plan(20)))
        await until(lambda: len(function.calls) == 2)

    play(lambda: place.daemon(daemon_plan(*both, functions=plan(10))), script)
    assert function.in_flight_max == 1
    assert function.calls == [[1, 2, 3, 4, 5]] * 2


def test_a_rehearsal_finds_what_cannot_be_opened_and_changes_nothing() -> None:
    place = site()
    changed = replace(SECOND, discard=DiscardPolicy(FAILED))
    place.destinations[FAILED] = FakeDestination()

    async def script(daemon: Daemon) -> None:
        await ready(daemon)
        place.opening[FAILED] = [InvalidConfiguration(["no such queue"])]
        place.opening[STREAM_ARN] = [InvalidConfiguration(["never opened: nothing changes there"])]
        assert await daemon.rehearse(daemon_plan(FIRST, changed)) == ["no such queue"]
        place.opening[OTHER_ARN] = [ServiceUnavailable("the outside is in trouble")]
        assert await daemon.rehearse(daemon_plan(FIRST, changed)) == []

    play(lambda: place.daemon(daemon_plan(FIRST, SECOND)), script)
    assert place.states(SECOND.mapping) == [S.CREATING, S.ENABLED]


@pytest.mark.parametrize("retries", [0, 1])
def test_an_endless_retry_ends_at_once_when_the_configuration_says_so(retries: int) -> None:
    place = site(reader=FakeFunction(poison(3)))
    endless = replace(FIRST, retry=RetryPolicy(backoff=replace(RetryPolicy().backoff, base_s=30.0)))
    bounded = replace(FIRST, retry=replace(endless.retry, retries_max=retries, backoff=STEADY.port_backoff))

    async def script(daemon: Daemon) -> None:
        await until(lambda: any(each.blocked for each in daemon.status().mappings))
        daemon.replan(daemon_plan(bounded))
        await asyncio.sleep(2)
        assert await position_of(place.store) == Position.after("5")

    play(partial(place.daemon, daemon_plan(endless)), script)
