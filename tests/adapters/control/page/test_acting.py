"""Operations by buttons: what the page says before, what it asks for, and what it does when the daemon says no."""

from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any

import pytest

from poller.domain.mapping_api import ApiError, ApiErrorType
from poller.domain.operations import OperationState
from poller.domain.rows import MappingState
from poller.testing.telemetry_events import MAPPING, QUEUE
from tests.adapters.control.operation_control import OperationModel
from tests.adapters.control.page.browser import Browser
from tests.adapters.control.page.scenes import (
    DESTINATION,
    HELD,
    TOKENS,
    Room,
    Scene,
    Stage,
    blocked_lane,
    operation,
    play,
    shard,
    status,
    stream,
)

pytestmark = pytest.mark.acceptance

REASON = "Reason, for others to read"
AGREE = "I know that these records will not be processed"
SHARD = "shardId-000000000000"
RECORD = "49617300281234567890"
ORDERS, MAILS, BILLS = (
    {"within": f'[role=group][aria-label="{name}"]'} for name in ("orders", "mails", "bills")
)
STREAM_TROUBLE = {"within": ".trouble", "text": "Lane 0"}
GROUP_TROUBLE = {"within": ".trouble", "text": "customer-9"}

type Filling = Callable[[Browser], Awaitable[None]]


async def nothing(_page: Browser) -> None:
    """A dialog whose fields are good as they are."""


def filled(**values: str) -> Filling:
    """Writes values into fields, by their labels with _ for a blank."""

    async def fill(page: Browser) -> None:
        for label, value in values.items():
            await page.fill(label.replace("_", " "), value)

    return fill


async def drop(page: Browser) -> None:
    """Ticks that records are dropped, and agrees."""
    await page.check("Drop them without a notice")
    await page.check(AGREE)


async def by_ids(page: Browser) -> None:
    """Names the records of a skip."""
    await page.choose("Records", "ids")
    await page.fill("Sequence numbers or message ids, one a line", "495\n496")


async def whole_batch(page: Browser) -> None:
    """Means all records of the batch."""
    await page.choose("Records", "batch")


async def leave_out(page: Browser) -> None:
    """A seek forward that leaves records out."""
    await page.fill("Go on at", "LATEST")
    await page.check("Records that were not processed may be left out")
    await page.check(AGREE)


# The button, where it is, how its dialog is filled in, what the dialog says, the button that confirms, what is asked for.
ACTIONS: dict[str, tuple[str, dict[str, str], Filling, str, str, tuple[str, dict[str, Any]]]] = {
    "retry of a lane": (
        "Retry", STREAM_TROUBLE, nothing, "7 attempts: ValueError: no stock for this); no attempt is used up.",
        "Retry now", (MAPPING, {"action": "retry", "shard": SHARD}),
    ),
    "reset of a lane": (
        "Reset", STREAM_TROUBLE, nothing, "Attempts and age of what fails in lane 0 of shard",
        "Reset attempts and age", (MAPPING, {"action": "reset", "shard": SHARD}),
    ),
    "skip of the first record": (
        "Skip", STREAM_TROUBLE, nothing,
        "Record 49617300281234567890 (the first of 3 that fail together, key order-7, 5 min old, 7 attempts) of lane 0 of shard "
        f"{SHARD} of orders ({MAPPING}) is given up, and the notice goes to {DESTINATION}.",
        "Skip", (MAPPING, {"action": "skip", "shard": SHARD, "records": [RECORD]}),
    ),
    "skip of the batch": (
        "Skip", STREAM_TROUBLE, whole_batch, "All 3 records of the batch at fault, from 49617300281234567890 on",
        "Skip", (MAPPING, {"action": "skip", "shard": SHARD, "records": "batch", "batch_first": RECORD, "batch_count": 3}),
    ),
    "skip of named records": (
        "Skip", STREAM_TROUBLE, by_ids, "2 records, 495, 496, of lane 0",
        "Skip", (MAPPING, {"action": "skip", "shard": SHARD, "records": ["495", "496"]}),
    ),
    "skip without a notice": (
        "Skip", STREAM_TROUBLE, drop, "is given up and lost: no notice is sent.",
        "Skip", (MAPPING, {"action": "skip", "shard": SHARD, "records": [RECORD], "discard": True}),
    ),
    "pause of a lane": (
        "Pause", STREAM_TROUBLE, nothing, "No call begins for lane 0 of shard",
        "Pause", (MAPPING, {"action": "pause", "shard": SHARD}),
    ),
    "retry of a group": (
        "Retry", GROUP_TROUBLE, nothing, "The next try of message group customer-9 of mails",
        "Retry now", (QUEUE, {"action": "retry", "group": "customer-9"}),
    ),
    "skip of a group": (
        "Skip", GROUP_TROUBLE, nothing, "is moved to the queue's dead-letter queue.",
        "Skip", (QUEUE, {"action": "skip", "group": "customer-9", "records": [RECORD]}),
    ),
    "pause of a mapping": (
        "Pause", ORDERS, nothing, "until somebody resumes it; a call that runs finishes and counts.",
        "Pause", (MAPPING, {"action": "pause"}),
    ),
    "resume of a mapping": (
        "Resume", BILLS, nothing, "The pauses of the whole mapping of bills", "Resume", (HELD, {"action": "resume"}),
    ),
    "seek of a mapping": (
        "Seek", ORDERS, filled(Go_on_at="TRIM_HORIZON"), "which goes on at TRIM_HORIZON",
        "Move the position", (MAPPING, {"action": "seek", "to": "TRIM_HORIZON"}),
    ),
    "seek that leaves records out": (
        "Seek", ORDERS, leave_out, "records before that place that were not processed are left out.",
        "Move the position", (MAPPING, {"action": "seek", "to": "LATEST", "skip": True}),
    ),
    "replay of a mapping": (
        "Replay", ORDERS,
        filled(From="TRIM_HORIZON", To="2026-01-31T08:00:00Z", Another_function="audit", Records_a_second_at_most="2.5"),
        "processed once more by audit, 2.5 a second at most; a batch that fails ends it; the mapping's own position",
        "Begin the replay",
        (
            MAPPING,
            {
                "action": "replay", "from": "TRIM_HORIZON", "to": "2026-01-31T08:00:00Z", "function": "audit",
                "records_per_s": 2.5, "on_failure": "stop",
            },
        ),
    ),
    "redrive of a queue": (
        "Redrive", MAILS, filled(Where_the_notices_are="s3://failed/orders", Notices_at_most="5"),
        "The batches, 5 at most, whose notices are in s3://failed/orders are called again for",
        "Begin the redrive", (QUEUE, {"action": "redrive", "from": "s3://failed/orders", "limit": 5}),
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", ACTIONS)
def test_an_operation_says_what_it_will_do_and_is_asked_for_with_its_reason(name: str, room: Room) -> None:
    button, where, fill, said, confirm, (mapping, request) = ACTIONS[name]

    async def use(scene: Scene) -> tuple[str, list[Any]]:
        page = scene.page
        await page.click(button, **where)
        await fill(page)
        await page.fill(REASON, "ticket 4711")
        sentence = await page.text("dialog .what")
        assert scene.asked() == []
        await page.click(confirm, within="dialog")
        await page.sees("Accepted: ")
        assert await page.count(css="dialog") == 0
        return sentence, scene.asked()

    sentence, asked = play(use, Stage(room, token=TOKENS["operate"]))
    assert said in sentence
    assert asked == [(mapping, {**request, "reason": "ticket 4711"})]


def test_a_closed_dialog_asks_for_nothing(room: Room) -> None:
    async def use(scene: Scene) -> list[Any]:
        for closing in ("button", "key"):
            await scene.page.click("Pause", **ORDERS)
            await (
                scene.page.click("Close", within="dialog")
                if closing == "button"
                else scene.page.press("Escape")
            )
            await scene.page.wait(css="dialog", gone=True)
        return scene.asked()

    assert play(use, Stage(room)) == []


def test_records_are_dropped_only_when_somebody_agrees(room: Room) -> None:
    async def use(scene: Scene) -> list[Any]:
        await scene.page.click("Skip", **STREAM_TROUBLE)
        await scene.page.check("Drop them without a notice")
        await scene.page.click("Skip", within="dialog")
        assert await scene.page.evaluate("document.activeElement.id") == "agree"
        return scene.asked()

    assert play(use, Stage(room)) == []


def test_what_is_refused_stays_open_with_the_reason_and_comes_again_with_the_same_id(room: Room) -> None:
    model = OperationModel(refusal=ApiError(ApiErrorType.CONFLICT, "shard: it is held by <b>nobody</b>"))

    async def use(scene: Scene) -> list[Any]:
        page = scene.page
        await page.click("Retry", **STREAM_TROUBLE)
        await page.click("Retry now", within="dialog")
        await page.sees("shard: it is held by <b>nobody</b>", within="dialog [role=alert]")
        model.refusal = None
        await page.click("Retry now", within="dialog")
        await page.wait(css="dialog", gone=True)
        return [value[1]["id"] for verb, value in model.asked if verb == "submit"]

    first, second = play(use, Stage(room, operations=model))
    assert first == second


def test_an_operation_is_cancelled(room: Room) -> None:
    model = OperationModel()
    model.known = {each.operation: each for each in (operation("pause/1?#"),)}

    async def use(scene: Scene) -> None:
        await scene.page.click("Cancel the pause of orders")
        assert "what was done stays done" in await scene.page.text("dialog .what")
        await scene.page.click("Cancel the operation", within="dialog")
        await scene.page.sees("cancelled", within="#ended")

    play(use, Stage(room, operations=model, token=TOKENS["operate"]))
    assert [each.state for each in model.known.values()] == [OperationState.CANCELLED]


def test_a_breaker_is_closed(room: Room) -> None:
    async def use(scene: Scene) -> list[tuple[str, Any]]:
        await scene.page.click("Close breaker of orders")
        await scene.page.fill(REASON, "the database is back")
        await scene.page.click("Close the breaker", within="dialog")
        await scene.page.sees("Accepted: ")
        return scene.mappings.asked

    assert play(use, Stage(room, token=TOKENS["operate"])) == [("close_breaker", "orders")]


@pytest.mark.parametrize(
    ("state", "button", "enabled"), [("Enabled", "Disable", False), ("Disabled", "Enable", True)]
)
def test_an_admin_switches_a_mapping(state: str, button: str, enabled: bool, room: Room) -> None:
    async def use(scene: Scene) -> list[tuple[str, Any]]:
        await scene.page.click(button, **ORDERS)
        await scene.page.click(button, within="dialog")
        await scene.page.sees("resource you requested does not exist", within="dialog [role=alert]")
        return scene.mappings.asked

    given = status(stream([shard(0)], state=MappingState(state)))
    assert play(use, Stage(room, status=given)) == [("update", (MAPPING, {"Enabled": enabled}))]


def test_records_of_a_shard_are_looked_at(room: Room) -> None:
    async def use(scene: Scene) -> str:
        await scene.page.click("Look at records", **STREAM_TROUBLE)
        await scene.page.sees("4959033827149, the first at fault")
        text = await scene.page.text("dialog")
        await scene.page.choose("From", "TRIM_HORIZON")
        await scene.page.comes_true("document.querySelectorAll('dialog li').length > 0")
        await scene.page.click("More", within="dialog")
        await scene.page.comes_true("document.querySelectorAll('dialog li').length > 4")
        return text

    stage = Stage(room)
    text = play(use, stage)
    assert "payloads are not shown: this daemon shows none" in text
    assert "data.state: none of the values satisfies it" in text
    assert [(request.shard, request.start) for _, request in stage.peeking.asked] == [
        (SHARD, ""),
        (SHARD, "TRIM_HORIZON"),
        (SHARD, "AFTER:4959033827152"),
    ]


def test_payloads_are_shown_where_they_may_be(room: Room) -> None:
    async def use(scene: Scene) -> str:
        await scene.page.click("Look at records", **STREAM_TROUBLE)
        await scene.page.sees('{"state": "paid"}')
        return await scene.page.text("dialog")

    assert "New image" in play(use, Stage(room, api={"show_payloads": True}, token=TOKENS["operate"]))


def test_a_message_of_a_standard_queue_is_skipped_by_its_id(room: Room) -> None:
    lane = replace(
        blocked_lane(lane="m-1", blocked_since=None, error=None, attempts_max=None),
        failing_since=blocked_lane().blocked_since,
    )
    mapping = replace(
        stream([], source_arn="arn:aws:sqs:eu-west-1:111122223333:orders", pollers=1), lanes=(lane,)
    )

    async def use(scene: Scene) -> list[Any]:
        await scene.page.click("Skip", within=".trouble")
        await scene.page.check(AGREE)
        await scene.page.click("Skip", within="dialog")
        await scene.page.sees("Accepted: ")
        return scene.asked()

    assert play(use, Stage(room, status=status(mapping))) == [
        (MAPPING, {"action": "skip", "records": ["m-1"], "discard": True})
    ]
