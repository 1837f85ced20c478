"""What the page shows of what runs, in a real browser: trouble first, and what changes while somebody looks."""

from dataclasses import replace

import pytest

from poller.domain.functions.waiting_calls import CallsStatus
from poller.domain.operations import Action, OperationState
from poller.domain.records import Epoch
from poller.domain.rows import MappingState
from poller.domain.telemetry.history import MappingHistory, MappingPoint
from poller.domain.telemetry.labels import BreakerState
from poller.testing.telemetry_events import MAPPING
from tests.adapters.control.operation_control import OperationModel
from tests.adapters.control.page.scenes import (
    WELL,
    HistoryModel,
    Room,
    Scene,
    Stage,
    ago,
    blocked_lane,
    breaking,
    everything,
    operation,
    play,
    shard,
    status,
    stream,
)

pytestmark = pytest.mark.acceptance


def test_what_is_blocked_comes_first_then_what_is_paused(room: Room) -> None:
    async def use(scene: Scene) -> list[str]:
        await scene.page.sees("mails ← sqs mails.fifo")
        return await scene.page.texts("#mappings > ul > li > h3")

    assert play(use, Stage(room, token="")) == [
        "mails ← sqs mails.fifo",
        "orders ← kinesis stream/orders",
        "bills ← kinesis stream/orders",
        "audit ← kinesis stream/orders",
    ]


def test_a_blocked_lane_shows_the_record_at_fault_the_error_and_what_comes_next(room: Room) -> None:
    async def use(scene: Scene) -> str:
        await scene.page.sees("is blocked", within=".trouble")
        return await scene.page.text(".trouble", within="#mappings > ul > li", text="orders ←")

    text = play(use, Stage(room, token=""))
    for said in (
        "Lane 0 of shard shardId-000000000000 is blocked",
        "ValueError: no stock for this",
        "For: 4 min, since 20",
        "Attempts: 7",
        "Next try: in ",
        "Record: 49617300281234567890 (the first of 3)",
        "Key: order-7",
        "Arrived: 5 min ago",
        "Removed by the source: in 22 h",
        "Worker: ann",
    ):
        assert said in text, text


def test_a_message_group_shows_its_receives_and_its_worker(room: Room) -> None:
    async def use(scene: Scene) -> str:
        await scene.page.sees("is blocked", within=".trouble")
        return await scene.page.text(".trouble", within="#mappings > ul > li", text="mails ←")

    text = play(use, Stage(room, token=""))
    assert "Message group customer-9 is blocked" in text
    assert "Attempts: receive 7 of 10" in text
    assert "Worker: ann" in text


def test_a_pause_shows_who_made_it_since_when_and_why(room: Room) -> None:
    async def use(scene: Scene) -> list[str]:
        await scene.page.sees("is paused", within=".trouble")
        return await scene.page.texts(".trouble", within="#mappings > ul > li", text="bills ←")

    [text] = play(use, Stage(room, token=""))
    assert "The whole mapping is paused" in text
    assert "For: 10 min, since " in text
    assert "By: carol" in text
    assert "Reason: repair of the database" in text


def test_workers_show_who_is_silent_and_who_holds_what(room: Room) -> None:
    async def use(scene: Scene) -> list[str]:
        await scene.page.sees("bob", within="#workers")
        await scene.page.evaluate(
            "document.querySelectorAll('#workers details').forEach((it) => { it.open = true })"
        )
        await scene.page.sees("orders ← kinesis stream/orders: 1 shard", within="#workers")
        return await scene.page.texts("#workers > ul > li")

    ann, bob = play(use, Stage(room, token=""))
    assert "alive" in ann
    assert "orders ← kinesis stream/orders: 2 shards" in ann
    assert "silent" in bob
    assert "heard 7 s ago" in bob
    assert "mails ← sqs mails.fifo: 2 pollers" in bob


def test_functions_show_where_their_breaker_is_open(room: Room) -> None:
    async def use(scene: Scene) -> str:
        await scene.page.sees("breaker open", within="#functions")
        return await scene.page.text("#functions > ul > li")

    text = play(use, Stage(room, token=""))
    for said in (
        "orders",
        "5 invocations/s, 50 % of it here, 2 waiting",
        "at bob for",
        "9 of 10 calls failed",
    ):
        assert said in text, text


def test_asynchronous_calls_that_wait_are_counted_with_the_error_of_the_first(room: Room) -> None:
    orders = CallsStatus(
        function="orders", calls=1200, seen=1000, waiting=997, running=2, undelivered=1, oldest=ago(180),
        first="c-1", last_error="ValueError: order has no field 'total'",
    )  # fmt: skip
    bills = CallsStatus(function="bills", calls=1, oldest=ago(7200))

    async def use(scene: Scene) -> list[str]:
        await scene.page.sees("Workers")
        scene.view.now = replace(scene.view.now, calls=(orders, bills))
        await scene.page.sees("997", within="#calls")
        found = await scene.page.texts("#calls > ul > li")
        scene.view.now = replace(scene.view.now, calls=())
        await scene.page.wait(gone=True, text="997")
        return found

    first, second = play(use, Stage(room, token=""))
    assert "bills" in first
    assert "1 call, the oldest for 2 h" in first
    assert "waiting: 997, running: 2, over and not delivered: 1, of the first 1,000" in second
    assert "1,200 calls" in second
    assert "ValueError: order has no field 'total'" in second


def test_notes_of_the_daemon_are_shown(room: Room) -> None:
    async def use(scene: Scene) -> str:
        await scene.page.sees("Problems and notes")
        return await scene.page.text("#problems")

    assert "Note: the configuration file was refused" in play(use, Stage(room, token=""))


def test_operations_show_how_far_they_are_and_what_came_of_them(room: Room) -> None:
    model = OperationModel()
    replay = operation(
        "replay-1", Action.REPLAY, wanted=(), parts={}, progress={"shards": 4, "ended": 1, "records": 1200}
    )
    over = operation(
        "retry-1",
        Action.RETRY,
        state=OperationState.DONE,
        ended=Epoch(ago(5)),
        result="the next try is made now",
    )
    model.known = {each.operation: each for each in (replay, operation("pause-1"), over)}

    async def use(scene: Scene) -> tuple[list[str], str]:
        await scene.page.sees("replay of orders", within="#running")
        await scene.page.sees("retry of orders", within="#ended")
        return await scene.page.texts("#running > ul > li"), await scene.page.text("#ended")

    running, ended = play(use, Stage(room, operations=model, token=""))
    [replay_text] = [text for text in running if "replay of" in text]
    [pause_text] = [text for text in running if "pause of" in text]
    assert "1 of 4 shards read, 1,200 records" in replay_text
    assert "by carol: ticket 4711" in replay_text
    assert "in force" in pause_text
    assert "the next try is made now" in ended


def test_what_changes_is_shown_without_a_reload(room: Room) -> None:
    async def use(scene: Scene) -> list[str]:
        page = scene.page
        await page.sees("nothing in trouble")
        scene.view.now = status(stream([shard(0, state="blocked", lanes=(blocked_lane(),)), shard(1)]))
        await page.sees("1 blocked of 1 mapping")
        await page.sees("no stock for this")
        scene.view.now = status(stream([shard(0), shard(1), shard(2)]))
        await page.sees("3 shards: 3 reading")
        assert await page.count(css=".trouble") == 0
        scene.view.now = status(
            stream([shard(0)], state=MappingState.BROKEN, reason="a bug"),
            stream([], mapping=WELL, function="audit"),
        )
        await page.sees("a bug")
        return await page.texts("#mappings > ul > li > h3")

    found = play(use, Stage(room, status=status(stream([shard(0), shard(1)])), token=""))
    assert found == ["orders ← kinesis stream/orders", "audit ← kinesis stream/orders"]


def test_a_breaker_that_closes_is_shown(room: Room) -> None:
    async def use(scene: Scene) -> None:
        await scene.page.sees("breaker open", within="#functions")
        scene.view.now = replace(scene.view.now, functions=(breaking(BreakerState.CLOSED),))
        await scene.page.sees("breaker closed", within="#functions")

    play(use, Stage(room, token=""))


def test_a_shard_opens_to_show_its_position(room: Room) -> None:
    async def use(scene: Scene) -> str:
        page = scene.page
        await page.sees("3 shards: 3 reading")
        await page.ask("click", css=".shards li:nth-child(2) summary")
        await page.sees("AFTER:49001")
        scene.view.now = status(
            stream([shard(0), shard(1, position="AFTER:49999", behind_ms=90_000), shard(2)])
        )
        await page.sees("AFTER:49999")
        return await page.text(".shards li:nth-child(2)")

    text = play(use, Stage(room, status=status(stream([shard(0), shard(1), shard(2)])), token=""))
    assert "shardId-000000000001" in text
    assert "2 min behind" in text


def test_mappings_are_found_by_their_names(room: Room) -> None:
    async def use(scene: Scene) -> list[list[str]]:
        page = scene.page
        await page.sees("mails ← sqs mails.fifo")
        found = []
        for wanted in ("MAILS", str(WELL), "no such thing", ""):
            await page.fill("Find a function, source or id", wanted)
            await page.comes_true(
                "new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(() => done(true))))"
            )
            found.append(await page.texts("#mappings > ul > li > h3"))
        return found

    mails, well, none, every = play(use, Stage(room, token=""))
    assert mails == ["mails ← sqs mails.fifo"]
    assert well == ["audit ← kinesis stream/orders"]
    assert none == []
    assert len(every) == len(everything().mappings)


def test_charts_show_the_last_hour_and_grow_with_each_step(room: Room) -> None:
    history = HistoryModel(
        {
            MAPPING: MappingHistory(
                lag_ms=(None, 5000, 2000), records_per_s=(0.0, 1200.0, 3.5), failures=(None, 0, None)
            )
        }
    )

    async def use(scene: Scene) -> tuple[list[str], list[str]]:
        page = scene.page
        await page.sees("Lag: 2 s, at most 5 s")
        captions = "#mappings figure:not([hidden]) figcaption"
        first = await page.texts(captions)
        history.add(MAPPING, MappingPoint(lag_ms=90_000, records_per_s=0.0, failures=2))
        await page.sees("Lag: 2 min, at most 2 min")
        assert "last hour at worker ann" in await page.text("#figures-note")
        return first, await page.texts(captions)

    first, then = play(use, Stage(room, status=status(stream([shard(0)])), history=history, token=""))
    assert first == [
        "Lag: 2 s, at most 5 s",
        "Records/s: 3.5, at most 1,200",
        "Failures: not known now, at most 0",
    ]
    assert then == ["Lag: 2 min, at most 2 min", "Records/s: 0, at most 1,200", "Failures: 2, at most 2"]


def test_a_daemon_without_mappings_says_so(room: Room) -> None:
    async def use(scene: Scene) -> None:
        await scene.page.sees("There are no mappings.")

    play(use, Stage(room, status=status(), token=""))


def test_without_javascript_the_page_names_the_command(room: Room) -> None:
    async def use(scene: Scene) -> None:
        await scene.page.open(scene.run.url, javascript=False)
        assert "poller status" in await scene.page.text("noscript")

    play(use, Stage(room, token=""))
