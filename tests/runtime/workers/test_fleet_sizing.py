"""The recommendation how many workers there should be, on virtual time: daemons on one store, and what each of them answers."""

import asyncio
from collections import Counter

from poller.domain.records import ShardId
from poller.domain.sizing.fleet_size import FleetScaling, Pressure
from poller.domain.status import ShardStatus
from poller.domain.telemetry.daemon_events import FleetSized
from poller.rules.workers.sizing.meter import DOWN_AFTER_S, UP_AFTER_S
from poller.rules.workers.sizing.samples import LATE_S
from poller.runtime.workers.fleet_sizing import LOOK_S, SETTLE_S
from poller.runtime.workers.status_digests import REWRITE_S
from tests.runtime.daemons import daemon_plan, until
from tests.runtime.fakes import STREAM_ARN, FakeFunction, FakeStream, records
from tests.runtime.workers.test_fleet import ANN, BOB, CID, SHARDS, STREAM, DigestDoor, Fleet, own, play

MINUTE_S = 60.0
SLACK_S = 45.0
"""Samples, looks and digests take some seconds each."""


def slow(fleet: Fleet, takes_s: float, count: int = 40) -> None:
    """Puts records into every shard, for each of which the function takes so long."""
    fleet.site.functions["reader"] = FakeFunction(takes_s=takes_s)
    stream = fleet.site.sources[STREAM_ARN]
    assert isinstance(stream, FakeStream)
    for number, shard in enumerate(SHARDS):
        first = 1000 * (number + 1)
        stream.put(*records(*range(first, first + count)), shard=shard)


async def answers(fleet: Fleet, *names: str) -> list[FleetScaling]:
    """What these workers answer, or all; each of them answers."""
    found = [await fleet.daemons[name].fleet_size() for name in names or fleet.daemons]
    assert None not in found
    return [each for each in found if each is not None]


def wanted(found: list[FleetScaling]) -> list[int]:
    return [each.wanted_workers for each in found]


def test_nothing_is_answered_before_the_workers_know_each_other() -> None:
    fleet = Fleet(ANN, BOB)

    async def script(fleet: Fleet) -> None:
        assert await fleet.daemons[ANN].fleet_size() is None
        await asyncio.sleep(SETTLE_S - 5.0)
        assert await fleet.daemons[ANN].fleet_size() is None
        await asyncio.sleep(10.0)
        assert wanted(await answers(fleet)) == [2, 2]

    play(fleet, script)


def test_every_worker_gives_the_same_answer_and_says_what_it_rests_on() -> None:
    fleet = Fleet(ANN, BOB, CID)
    fleet.bad.clear()

    async def script(fleet: Fleet) -> None:
        await asyncio.sleep(SETTLE_S + SLACK_S)
        found = await answers(fleet)
        assert wanted(found) == [3, 3, 3]
        assert found[0] == found[1] == found[2]
        assert (found[0].complete, found[0].workers, found[0].workers_max) == (True, 3, len(SHARDS))
        assert [(each.worker, each.pressure, each.shards) for each in found[0].pressures] == [
            (name, Pressure.STEADY, 2) for name in (ANN, BOB, CID)
        ]

    play(fleet, script)


def test_workers_that_fall_behind_ask_for_more_and_whichever_is_asked_says_so() -> None:
    fleet = Fleet(ANN, BOB)
    slow(fleet, 20.0)

    async def script(fleet: Fleet) -> None:
        await asyncio.sleep(SETTLE_S + UP_AFTER_S - 10.0)
        assert wanted(await answers(fleet)) == [2, 2], "it must last"
        await asyncio.sleep(LATE_S + SLACK_S)
        found = await answers(fleet)
        assert wanted(found) == [4, 4]
        assert {each.pressure for each in found[0].pressures} == {Pressure.BUSY}
        assert found[0].reason.endswith("is behind")
        await asyncio.sleep(2 * UP_AFTER_S)
        assert wanted(await answers(fleet)) == [4, 4], "it waits for those that it asked for"

    play(fleet, script)
    told = [(each.wanted, each.workers) for each in fleet.site.seen.of(FleetSized)]
    assert Counter(told) == {(2, 2): 2, (4, 2): 2}


def test_a_worker_that_has_just_come_takes_the_recommendation_over() -> None:
    fleet = Fleet(ANN, BOB)
    slow(fleet, 20.0)

    async def script(fleet: Fleet) -> None:
        await asyncio.sleep(SETTLE_S + UP_AFTER_S + LATE_S + SLACK_S)
        assert wanted(await answers(fleet)) == [4, 4]
        cid = fleet.site.daemon(daemon_plan(STREAM, worker=CID), store=DigestDoor(fleet.store))
        async with asyncio.TaskGroup() as scope:
            scope.create_task(cid.run(), name=CID)
            await asyncio.sleep(10.0)
            found = await cid.fleet_size()
            assert found is not None
            assert (found.wanted_workers, found.workers) == (4, 3)
            assert wanted(await answers(fleet)) == [4, 4]
            cid.stop()

    play(fleet, script)


def test_a_blocked_shard_asks_for_nobody_and_calm_workers_are_given_up_after_ten_minutes() -> None:
    fleet = Fleet(ANN, BOB)

    async def script(fleet: Fleet) -> None:
        await asyncio.sleep(DOWN_AFTER_S - 10.0)
        assert wanted(await answers(fleet)) == [2, 2]
        await asyncio.sleep(SLACK_S)
        found = await answers(fleet)
        assert wanted(found) == [1, 1]
        assert found[0].workers_max == len(SHARDS) - 1
        fleet.daemons[BOB].stop()
        await asyncio.sleep(SLACK_S)
        assert wanted(await answers(fleet, ANN)) == [1]

    play(fleet, script)


def test_without_an_answer_of_the_store_the_last_recommendation_stays() -> None:
    fleet = Fleet(ANN, BOB)
    fleet.bad.clear()

    async def script(fleet: Fleet) -> None:
        await asyncio.sleep(SETTLE_S + SLACK_S)
        assert wanted(await answers(fleet)) == [2, 2]
        for door in fleet.doors.values():
            door.hangs = True
        await asyncio.sleep(8.0)
        found = await answers(fleet)
        assert [(each.wanted_workers, each.complete) for each in found] == [(2, False)] * 2

    play(fleet, script)


def test_a_worker_that_never_reached_the_store_recommends_nothing() -> None:
    fleet = Fleet(ANN)
    fleet.doors[ANN].away = True

    async def script(fleet: Fleet) -> None:
        await asyncio.sleep(SETTLE_S + SLACK_S)
        assert await fleet.daemons[ANN].fleet_size() is None

    play(fleet, script)


def test_workers_that_write_no_digests_are_never_given_up() -> None:
    fleet = Fleet(ANN, BOB, digests=False)
    fleet.bad.clear()

    async def script(fleet: Fleet) -> None:
        await asyncio.sleep(DOWN_AFTER_S + SLACK_S)
        found = await answers(fleet)
        assert [(each.wanted_workers, each.workers_max, each.complete) for each in found] == [
            (2, None, False)
        ] * 2

    play(fleet, script)


def test_a_lone_worker_reads_and_writes_nothing_for_it_and_answers_one() -> None:
    fleet = Fleet(ANN)

    async def script(fleet: Fleet) -> None:
        await asyncio.sleep(2 * MINUTE_S)
        (found,) = await answers(fleet)
        assert (found.wanted_workers, found.workers, found.complete) == (1, 1, True)
        assert fleet.store.calls["digests"] == fleet.store.calls["put_digest"] == 0

    play(fleet, script)


def test_what_is_measured_costs_few_writes_and_one_read_in_half_a_minute() -> None:
    fleet = Fleet(ANN, BOB)
    fleet.bad.clear()

    async def script(fleet: Fleet) -> None:
        await asyncio.sleep(1.5 * MINUTE_S)
        fleet.store.calls.clear()
        await asyncio.sleep(5 * MINUTE_S)
        calls = fleet.store.calls
        assert calls["put_digest"] <= 2 * (5 * MINUTE_S / REWRITE_S + 1), "one a minute, as without it"
        assert calls["digests"] <= 2 * (5 * MINUTE_S / LOOK_S + 1)

    play(fleet, script)


def test_a_worker_that_has_shards_in_trouble_only_is_known_by_what_it_reads() -> None:
    fleet = Fleet(ANN)
    fleet.bad |= set(range(200))

    async def script(fleet: Fleet) -> None:
        def blocked() -> list[ShardStatus]:
            shards = fleet.daemons[ANN].status().mappings[0].shards if own(fleet.daemons[ANN]) else ()
            return [each for each in shards if each.blocked]

        await until(lambda: len(blocked()) == len(SHARDS))
        await asyncio.sleep(SETTLE_S)
        (found,) = await answers(fleet)
        assert [each.shards for each in found.pressures] == [0]
        assert {ShardId(each.shard) for each in blocked()} == set(SHARDS)

    play(fleet, script)
