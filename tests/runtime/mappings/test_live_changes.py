"""Mappings that are changed while they run: states, running invocations, positions, replicas, trouble (aws-behaviour#states, aws-behaviour#stopping-a-mapping)."""

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import pytest

from poller.domain.errors import AccessDenied, InvalidConfiguration, PortError, ResourceMissing
from poller.domain.invocations import FunctionError, Outcome, Succeeded, Throttled
from poller.domain.mapping_api import ApiErrorType, MappingView
from poller.domain.records import Position
from poller.rules.queues.polling import LONG_POLL_S
from poller.runtime.daemon import Daemon
from poller.runtime.mappings.mapping_service import MappingService
from tests.runtime.daemons import now, play, until
from tests.runtime.fakes import STREAM_ARN, FakeStream, poison, records
from tests.runtime.mappings.controlled import (
    QUEUE_REQUEST,
    STREAM_REQUEST,
    S,
    controlled,
    plan,
    reaches,
    reader,
    refusal,
    site,
    view,
)


def test_states_of_a_stream_mapping_from_creation_to_deletion() -> None:
    place = site()

    async def script(control: MappingService, daemon: Daemon) -> None:
        made = await control.create(STREAM_REQUEST)
        answers = []
        for request, settled in (
            ({"BatchSize": 3}, S.ENABLED),
            ({"Enabled": False}, S.DISABLED),
            ({"BatchSize": 4}, S.DISABLED),
            ({"Enabled": True}, S.ENABLED),
        ):
            await until(lambda: control.views()[0].state in {S.ENABLED, S.DISABLED})
            answers.append((await control.update(made.mapping, request)).state)
            await reaches(control, made.mapping, settled)
        assert answers == [S.UPDATING, S.DISABLING, S.UPDATING, S.ENABLING]
        assert (await control.delete(made.mapping)).state is S.DELETING
        await until(lambda: control.views() == ())
        assert daemon.status().mappings == ()
        assert await place.store.mappings() == []
        assert await place.store.leases(made.mapping) == []
        told = place.states(made.mapping)
        assert [told[0], told[-1]] == [S.CREATING, S.DELETING]

    controlled(place, script)


def test_a_disabled_queue_mapping_stays_disabled_when_other_settings_change() -> None:
    async def script(control: MappingService, _: Daemon) -> None:
        made = await control.create(QUEUE_REQUEST | {"Enabled": False})
        assert (await control.update(made.mapping, {"BatchSize": 3})).state is S.DISABLED

    controlled(site(), script)


def test_changes_are_refused_while_a_running_invocation_holds_up_the_last_one() -> None:
    place = site(takes_s=10.0)

    async def script(control: MappingService, _: Daemon) -> None:
        made = await control.create(STREAM_REQUEST)
        await until(lambda: reader(place).calls != [])
        began = now()
        await control.update(made.mapping, {"BatchSize": 3})
        await asyncio.sleep(5)
        assert (await view(control, made.mapping)).state is S.UPDATING
        assert await refusal(control.update(made.mapping, {"BatchSize": 4})) == (
            ApiErrorType.IN_USE,
            "Cannot update the event source mapping because it is in use.",
        )
        assert await refusal(control.delete(made.mapping)) == (
            ApiErrorType.IN_USE,
            "Cannot delete the event source mapping because it is in use.",
        )
        await reaches(control, made.mapping, S.ENABLED)
        assert now() - began == pytest.approx(10.0, abs=0.2)

    controlled(place, script)


def test_a_running_invocation_finishes_and_counts_when_its_mapping_is_disabled() -> None:
    place = site(takes_s=3.0)

    async def script(control: MappingService, _: Daemon) -> None:
        made = await control.create(STREAM_REQUEST)
        await until(lambda: reader(place).calls != [])
        assert (await control.update(made.mapping, {"Enabled": False})).state is S.DISABLING
        assert await reaches(control, made.mapping, S.DISABLED) == pytest.approx(3.0, abs=0.2)
        (lease,) = await place.store.leases(made.mapping)
        assert lease.checkpoint.position == Position.after("5")
        assert lease.owner is None
        await asyncio.sleep(20)
        assert len(reader(place).calls) == 1

    controlled(place, script)


@pytest.mark.parametrize("request_", [{"Enabled": False}, {"BatchSize": 1}, None])
def test_a_change_takes_effect_within_two_seconds_in_an_endless_retry(
    request_: Mapping[str, Any] | None,
) -> None:
    place = site(lambda _: FunctionError("ValueError", "never"))

    async def script(control: MappingService, daemon: Daemon) -> None:
        made = await control.create(STREAM_REQUEST)
        await until(lambda: len(reader(place).calls) >= 9, within_s=600)
        assert daemon.status().mappings[0].blocked
        if request_ is None:
            await control.delete(made.mapping)
            assert await until(lambda: control.views() == ()) < 2
            return
        await control.update(made.mapping, request_)
        settled = S.ENABLED if request_.get("Enabled", True) else S.DISABLED
        assert await reaches(control, made.mapping, settled) < 2

    controlled(place, script)


def test_an_enabled_again_mapping_goes_on_where_it_was() -> None:
    place = site()

    async def script(control: MappingService, _: Daemon) -> None:
        made = await control.create(STREAM_REQUEST)
        await until(lambda: reader(place).calls != [])
        await control.update(made.mapping, {"Enabled": False})
        await reaches(control, made.mapping, S.DISABLED)
        stream = place.sources[STREAM_ARN]
        assert isinstance(stream, FakeStream)
        stream.put(*records(6, 7))
        await asyncio.sleep(30)
        assert reader(place).calls == [[1, 2, 3, 4, 5]]
        await control.update(made.mapping, {"Enabled": True})
        await until(lambda: len(reader(place).calls) == 2)

    controlled(place, script)
    assert reader(place).calls == [[1, 2, 3, 4, 5], [6, 7]]


def test_a_new_mapping_does_not_inherit_the_position_of_a_deleted_one() -> None:
    place = site()

    async def script(control: MappingService, _: Daemon) -> None:
        whole: list[list[int]] = []
        for _turn in range(2):
            whole.append([1, 2, 3, 4, 5])
            made = await control.create(STREAM_REQUEST)
            await until(lambda: reader(place).calls == whole)
            await reaches(control, made.mapping, S.ENABLED)
            await control.delete(made.mapping)
            await until(lambda: control.views() == ())

    controlled(place, script)
    assert reader(place).calls == [[1, 2, 3, 4, 5]] * 2


def test_mappings_survive_a_restart_with_state_tags_and_position() -> None:
    place = site()
    kept: list[MappingView] = []

    async def before(control: MappingService, _: Daemon) -> None:
        made = await control.create(STREAM_REQUEST | {"Tags": {"a": "1"}})
        await control.create(QUEUE_REQUEST | {"Enabled": False})
        await until(lambda: reader(place).calls != [])
        await reaches(control, made.mapping, S.ENABLED)
        kept.extend(control.views())

    async def after(control: MappingService, _: Daemon) -> None:
        await reaches(control, kept[0].mapping, S.ENABLED)
        assert [replace(each, last_result="") for each in control.views()] == [
            replace(each, last_result="") for each in kept
        ]
        await asyncio.sleep(5)

    controlled(place, before)
    told = len(place.states(kept[0].mapping))
    controlled(place, after)
    assert reader(place).calls == [[1, 2, 3, 4, 5]]
    # A change that was applied long ago is no news: nothing is Creating again, which would refuse updates.
    assert S.CREATING not in place.states(kept[0].mapping)[told:]
    assert place.states(kept[0].mapping)[told] is S.ENABLED


def test_a_change_at_one_replica_is_seen_by_another_within_five_seconds() -> None:
    place = site()
    elsewhere: list[Daemon] = []

    def other() -> Daemon:
        elsewhere.append(place.daemon(plan(worker="worker-2")))
        return elsewhere[0]

    async def script(daemon: Daemon) -> None:
        control = daemon.control
        await until(lambda: daemon.status().ready and elsewhere[0].status().ready)
        made = await control.create(QUEUE_REQUEST)
        theirs = elsewhere[0].control
        assert await reaches(theirs, made.mapping, S.ENABLED) < 5
        await reaches(control, made.mapping, S.ENABLED)
        await theirs.update(made.mapping, {"Enabled": False})
        assert await reaches(control, made.mapping, S.DISABLING) < 5
        # The polls under way are left to answer.
        assert await reaches(control, made.mapping, S.DISABLED) < LONG_POLL_S + 1
        await control.delete(made.mapping)
        assert await reaches(theirs, made.mapping, S.DELETING) < 5
        assert await until(lambda: theirs.views() == ()) < 15
        assert await place.store.mappings() == []

    play(lambda: place.daemon(plan()), script, other)


RESULTS: list[tuple[Callable[[list[int]], Outcome], str]] = [
    (lambda _: Succeeded(b""), "OK"),
    (lambda _: FunctionError("E", "no"), "PROBLEM: Function call failed"),
    (lambda _: Throttled("no room"), "PROBLEM: Function call failed"),
    (lambda _: Succeeded(b'{"batchItemFailures":[{"itemIdentifier":"3"}]}'), "OK"),
    (lambda _: Succeeded(b'{"batchItemFailures":[{"itemIdentifier":"x"}]}'), "PROBLEM: Function call failed"),
]


@pytest.mark.parametrize(("answer", "result"), RESULTS)
def test_the_last_processing_result_reports_the_last_call(
    answer: Callable[[list[int]], Outcome], result: str
) -> None:
    place = site(answer)

    async def script(control: MappingService, _: Daemon) -> None:
        await control.create(STREAM_REQUEST | {"FunctionResponseTypes": ["ReportBatchItemFailures"]})
        await until(lambda: reader(place).calls != [])
        assert control.views()[0].last_result == result

    controlled(place, script)


def test_a_discard_does_not_rewrite_the_last_processing_result() -> None:
    place = site(poison(3))

    async def script(control: MappingService, _: Daemon) -> None:
        made = await control.create(STREAM_REQUEST | {"MaximumRetryAttempts": 0})
        await until(lambda: reader(place).calls != [])
        await asyncio.sleep(5)
        assert (await view(control, made.mapping)).last_result == "PROBLEM: Function call failed"

    controlled(place, script)


@pytest.mark.parametrize(
    "trouble", [ResourceMissing("kinesis ListShards: gone"), AccessDenied("kinesis ListShards: gone")]
)
def test_trouble_of_the_source_is_a_problem_until_it_heals_and_never_touches_another(
    trouble: PortError,
) -> None:
    place = site()

    async def script(control: MappingService, daemon: Daemon) -> None:
        made = await control.create(STREAM_REQUEST)
        other = await control.create(QUEUE_REQUEST)
        stream = place.sources[STREAM_ARN]
        assert isinstance(stream, FakeStream)
        await until(lambda: reader(place).calls != [])
        stream.trouble = [trouble] * 3
        await until(lambda: control.views()[0].last_result == "PROBLEM: kinesis ListShards: gone")
        assert (await view(control, other.mapping)).state is S.ENABLED
        assert daemon.status().ready
        await until(lambda: control.views()[0].last_result == "OK")
        assert (await view(control, made.mapping)).state is S.ENABLED

    controlled(place, script)


def test_a_part_that_cannot_be_opened_later_is_a_note_and_may_be_mended() -> None:
    place = site()

    async def script(control: MappingService, daemon: Daemon) -> None:
        made = await control.create(STREAM_REQUEST | {"Enabled": False})
        place.opening["reader"] = [InvalidConfiguration(["functions.reader.handler: gone"])] * 1000
        await until(lambda: daemon.status().notes == ("nothing runs: every mapping is disabled",))
        await control.update(made.mapping, {"Enabled": True})
        await until(lambda: any("gone" in note for note in daemon.status().notes))
        (note,) = daemon.status().notes
        assert note == f"mapping {made.mapping} ({STREAM_ARN}): functions.reader.handler: gone"
        assert daemon.status().ready
        shown = await view(control, made.mapping)
        assert (shown.state, shown.last_result) == (S.ENABLED, "PROBLEM: functions.reader.handler: gone")
        assert (await control.update(made.mapping, {"BatchSize": 3})).state is S.UPDATING
        place.opening.clear()
        await until(lambda: reader(place).calls != [])

    controlled(place, script)


def test_a_broken_mapping_is_enabled_with_a_problem_for_awss_clients() -> None:
    place = site()

    async def script(control: MappingService, daemon: Daemon) -> None:
        made = await control.create(STREAM_REQUEST | {"Enabled": False})
        place.opening["reader"] = [RuntimeError("a bug")] * 1000
        await control.update(made.mapping, {"Enabled": True})
        await until(lambda: any(each.state is S.BROKEN for each in daemon.status().mappings))
        shown = await view(control, made.mapping)
        assert shown.state is S.ENABLED
        assert shown.last_result.startswith("PROBLEM: RuntimeError: a bug")
        await control.delete(made.mapping)
        await until(lambda: control.views() == ())

    controlled(place, script)
