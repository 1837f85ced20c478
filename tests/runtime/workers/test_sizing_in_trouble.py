"""The recommendation how many workers there should be, while the store is away, workers leave, and operators hold shards back."""

import asyncio
from dataclasses import replace

from poller.domain.policies import Backoff
from poller.domain.sizing.fleet_size import Pressure
from poller.rules.workers.sizing.meter import DOWN_AFTER_S, UP_AFTER_S
from poller.rules.workers.sizing.samples import LATE_S
from poller.runtime.mappings.fleet import REFRESH_S_MAX
from poller.runtime.workers.fleet_sizing import SETTLE_S
from tests.runtime.daemons import STEADY, now
from tests.runtime.workers.test_fleet import ANN, BOB, CID, STREAM, Fleet, own, play
from tests.runtime.workers.test_fleet_sizing import MINUTE_S, SLACK_S, answers, slow, wanted

PATIENT = replace(STEADY, port_backoff=Backoff(base_s=0.5, cap_s=30.0))
"""Waits after failed calls, as the daemon has them. Without a wait, a store that refuses would be asked again and again at one moment."""


def test_a_store_that_is_away_for_long_changes_nothing_and_afterwards_all_goes_on() -> None:
    fleet = Fleet(ANN, BOB, tuning=PATIENT)
    fleet.bad.clear()

    async def script(fleet: Fleet) -> None:
        await asyncio.sleep(SETTLE_S + SLACK_S)
        assert wanted(await answers(fleet)) == [2, 2]
        for door in fleet.doors.values():
            door.away = True
        await asyncio.sleep(2 * DOWN_AFTER_S)
        found = await answers(fleet)
        assert [(each.wanted_workers, each.workers, each.complete) for each in found] == [(2, 2, False)] * 2
        for door in fleet.doors.values():
            door.away = False
        await asyncio.sleep(SLACK_S)
        found = await answers(fleet)
        assert [(each.workers, each.complete) for each in found] == [(2, True)] * 2
        await asyncio.sleep(DOWN_AFTER_S)
        assert wanted(await answers(fleet)) == [1, 1], (
            "calm workers are given up once it is known that all are"
        )

    play(fleet, script)


def test_many_who_ask_while_the_store_hangs_are_answered_within_the_time_of_one() -> None:
    fleet = Fleet(ANN, BOB)
    fleet.bad.clear()

    async def script(fleet: Fleet) -> None:
        await asyncio.sleep(SETTLE_S + SLACK_S)
        assert wanted(await answers(fleet)) == [2, 2]
        fleet.doors[ANN].hangs = True
        await asyncio.sleep(2.0)
        began = now()
        found = await asyncio.gather(*(fleet.daemons[ANN].fleet_size() for _ in range(20)))
        assert now() - began <= REFRESH_S_MAX
        assert {None if each is None else each.wanted_workers for each in found} == {2}

    play(fleet, script)


def test_a_worker_that_leaves_repeats_the_recommendation_and_makes_none() -> None:
    """Its function is slow, so that it drains for long."""
    fleet = Fleet(ANN, BOB)
    slow(fleet, 400.0)

    async def script(fleet: Fleet) -> None:
        await asyncio.sleep(SETTLE_S + SLACK_S)
        assert wanted(await answers(fleet)) == [2, 2]
        fleet.daemons[ANN].stop()
        await asyncio.sleep(10.0)
        found = await fleet.daemons[ANN].fleet_size()
        assert found is not None
        assert (found.wanted_workers, found.workers, [each.worker for each in found.pressures]) == (
            2,
            1,
            [BOB],
        )
        there = await fleet.daemons[BOB].fleet_size()
        assert there is not None
        assert (there.wanted_workers, there.workers) == (2, 1), "who goes is not counted before it has gone"

    play(fleet, script)


def test_a_paused_mapping_asks_for_nobody_however_far_it_is_behind() -> None:
    fleet = Fleet(ANN, BOB)
    fleet.bad.clear()
    slow(fleet, 20.0)

    async def script(fleet: Fleet) -> None:
        await fleet.even()
        pause = await fleet.daemons[ANN].operations.submit(STREAM.mapping, {"action": "pause"}, by="ann")
        await asyncio.sleep(SETTLE_S + LATE_S + 2 * UP_AFTER_S)
        found = await answers(fleet)
        assert wanted(found) == [2, 2]
        assert [(each.pressure, each.shards) for each in found[0].pressures] == [(Pressure.STEADY, 0)] * 2
        await fleet.daemons[ANN].operations.cancel(pause.operation, by="ann")
        await asyncio.sleep(UP_AFTER_S + SLACK_S)
        found = await answers(fleet)
        assert min(wanted(found)) > 2, "what came meanwhile is work again"
        assert sum(each.shards for each in found[0].pressures) == 6

    play(fleet, script)


def test_workers_whose_only_mapping_is_paused_for_long_are_given_up_but_one() -> None:
    fleet = Fleet(ANN, BOB, CID)
    fleet.bad.clear()

    async def script(fleet: Fleet) -> None:
        await fleet.even()
        await fleet.daemons[ANN].operations.submit(STREAM.mapping, {"action": "pause"}, by="ann")
        await asyncio.sleep(DOWN_AFTER_S - MINUTE_S)
        assert wanted(await answers(fleet)) == [3, 3, 3]
        await asyncio.sleep(2 * MINUTE_S)
        found = await answers(fleet)
        assert (wanted(found), found[0].workers_max) == ([1, 1, 1], 1)
        assert all(own(each) for each in fleet.daemons.values()), "they keep their shards until they go"

    play(fleet, script)
