"""Texts from outside stay texts on the page, whatever they are: in names, keys, errors, reasons, results and payloads."""

from dataclasses import replace
from typing import Any

import pytest

from poller.domain.functions.waiting_calls import CallsStatus
from poller.domain.operations import OperationId, OperationState
from poller.domain.records import MappingId, ShardId
from poller.domain.status import (
    DaemonStatus,
    ErrorDocument,
    FaultyRecord,
    FunctionStatus,
    LaneStatus,
    MappingStatus,
    WorkerState,
    WorkerStatus,
)
from poller.domain.telemetry.labels import BreakerState
from tests.adapters.control.operation_control import OperationModel
from tests.adapters.control.page.browser import NARROW
from tests.adapters.control.page.scenes import (
    Room,
    Scene,
    Stage,
    ago,
    blocked_lane,
    breaking,
    operation,
    pause,
    play,
    queue,
    shard,
    status,
    stream,
)
from tests.adapters.control.peeked import HOSTILE_TEXT, RECORDS, PeekModel, payload
from tests.hostile_texts import HOSTILE

pytestmark = pytest.mark.acceptance

MARKUP = (
    '<img src=x onerror=alert(1)><script>alert(2)</script><b style="position:fixed">"\'`&lt;</b>{{7*7}}${7*7}'
)
TEXTS = {
    **{name: text for name, text in HOSTILE.items() if len(text) < 10_000},
    **{name: text[:10_000] for name, text in HOSTILE.items() if len(text) >= 10_000},
    "more markup": MARKUP,
    "a link of code": "javascript:alert(1)",
    "a name of JavaScript's own": "__proto__",
}
OPEN_ALL = "document.querySelectorAll('main details').forEach((it) => { it.open = true })"
FOREIGN = "document.querySelectorAll('main :is(img, script, b, iframe, style, link, a, object, [style], [onerror])').length"
# What has no shape, or changes how its neighbours look, may stand in no text of the page; lines and blanks may.
UNSEEN = r"(document.body.textContent.match(/(?![\n\t])[\p{Cc}\p{Cf}\p{Cs}\p{Zl}\p{Zp}]/gu) ?? []).length"
OVERFLOW = "document.documentElement.scrollWidth - document.documentElement.clientWidth"


def hostile(*texts: str) -> DaemonStatus:
    """A status that has each text wherever a text may be; the first one also where there is room for one alone."""
    numbered = list(enumerate(texts))
    return status(
        *(stream_of(text, number) for number, text in numbered),
        *(queue_of(text, number) for number, text in numbered),
        worker=texts[0], problems=texts, notes=texts,
        functions=tuple(function_of(text) for text in texts),
        calls=tuple(
            CallsStatus(function=text, calls=2, seen=1, waiting=1, oldest=ago(9), first=text, last_error=text) for text in texts
        ),
        workers=tuple(WorkerStatus(worker=text, state=WorkerState.SILENT, note=text) for text in texts),
    )  # fmt: skip


def stream_of(text: str, number: int) -> MappingStatus:
    """A paused mapping of a stream with a blocked shard."""
    lane = blocked_lane(
        last_error=text,
        error=ErrorDocument(errorType=text, errorMessage=text, stackTrace=(text, text)),
        records=(FaultyRecord(identifier=text, key=text, arrived=ago(9)),) * 2,
    )
    held = replace(pause(text, text), by=text)
    shards = [
        shard(1, shard=ShardId(text), state="blocked", owner=text, reason=text, position=text, lanes=(lane,)),
        shard(2, state=text, paused=replace(held, operation=f"{text}'")),
    ]
    given = {"function": text, "source_arn": text, "destination": text, "reason": text, "last_result": text}
    return stream(shards, mapping=MappingId(f"{number}"), paused=held, **given)


def queue_of(text: str, number: int) -> MappingStatus:
    """A mapping of a queue with a blocked group; the text is also its id."""
    held = replace(pause(text, text), by=text)
    group = LaneStatus(lane=text, state=text, worker=text, paused=held, last_error=text, blocked_since=ago(5))
    function = f"arn:aws:lambda:eu-west-1:1:function:{text}"
    return queue([group], mapping=MappingId(f"{text}{number}"), function=function)


def function_of(text: str) -> FunctionStatus:
    """A function whose breaker is open."""
    function = breaking(BreakerState.OPEN)
    [at] = function.breakers[1:]
    broken = replace(at, worker=text, breaker=replace(at.breaker, reason=text))
    return replace(function, function=text, breakers=(broken,))


def operations(*texts: str) -> OperationModel:
    """Operations that have a text wherever a text may be."""
    model = OperationModel()
    for number, text in enumerate(texts):
        more: dict[str, Any] = {
            "by": text,
            "progress": {text: 3},
            "notes": {"plan": [text], "waiting": [text]},
            "parts": {},
        }
        open_one = operation(f"open-{number}", wanted=(text,), **more)
        asked = replace(open_one.request, reason=text)
        open_one = replace(open_one, request=asked)
        over = replace(
            open_one,
            operation=OperationId(f"over-{number}"),
            state=OperationState.FAILED,
            ended=ago(1),
            result=text,
        )
        model.known |= {each.operation: each for each in (open_one, over)}
    return model


async def looked_at(scene: Scene, mappings: int) -> list[Any]:
    """Opens all that opens; returns elements that are not ours, characters without a shape, and how much too wide it is."""
    page = scene.page
    await page.comes_true(f"document.querySelectorAll('#mappings .trouble').length >= {mappings}")
    await page.evaluate(OPEN_ALL)
    await page.comes_true("document.querySelectorAll('main details .body, main details pre').length > 3")
    return [await page.evaluate(each) for each in (FOREIGN, UNSEEN, OVERFLOW)]


def test_every_hostile_text_shows_as_text(room: Room) -> None:
    texts = list(TEXTS.values())

    async def use(scene: Scene) -> list[Any]:
        return await looked_at(scene, 2 * len(texts))

    stage = Stage(room, status=hostile(*texts), operations=operations(*texts), width=NARROW)
    assert play(use, stage) == [0, 0, 0]


@pytest.mark.parametrize(
    "name", ["nothing", "more markup", "colours", "long", "many lines", "combined without end"]
)
def test_a_worker_with_a_hostile_name_shows_as_text(name: str, room: Room) -> None:
    text = TEXTS[name]

    async def use(scene: Scene) -> list[Any]:
        return await looked_at(scene, 2)

    stage = Stage(room, status=hostile(text), operations=operations(text), width=NARROW)
    assert play(use, stage) == [0, 0, 0]


def test_markup_is_read_as_it_was_written(room: Room) -> None:
    async def use(scene: Scene) -> str:
        await scene.page.comes_true("document.querySelectorAll('#mappings .trouble').length > 1")
        return await scene.page.text("#mappings")

    assert MARKUP in play(use, Stage(room, status=hostile(MARKUP)))


def test_a_hostile_payload_shows_as_text(room: Room) -> None:
    texts = [HOSTILE_TEXT, MARKUP, "x" * 100_000]
    records = tuple(replace(RECORDS[0], key=each[:256], payload=payload(each)) for each in texts)

    async def use(scene: Scene) -> list[Any]:
        await scene.page.click("Look at records", within=".trouble")
        await scene.page.sees("<script>alert(2)</script>", within="dialog pre")
        return [
            await scene.page.evaluate(each.replace("main", "dialog")) for each in (FOREIGN, UNSEEN, OVERFLOW)
        ]

    given = status(stream([shard(0, state="blocked", lanes=(blocked_lane(),))]))
    stage = Stage(room, status=given, peeking=PeekModel(records), api={"show_payloads": True}, width=NARROW)
    assert play(use, stage) == [0, 0, 0]


def test_the_dialog_of_an_action_shows_hostile_names_as_text(room: Room) -> None:
    async def use(scene: Scene) -> list[Any]:
        await scene.page.comes_true("document.querySelectorAll('#mappings .trouble').length > 1")
        await scene.page.click("Skip", within=".trouble")
        await scene.page.wait(css="dialog")
        return [
            await scene.page.evaluate(each.replace("main", "dialog")) for each in (FOREIGN, UNSEEN, OVERFLOW)
        ]

    assert play(use, Stage(room, status=hostile(MARKUP), width=NARROW)) == [0, 0, 0]
