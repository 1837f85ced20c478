"""Owns the stories of worlds in which an operation meets each state: what is asked for and cancelled, and what must have come of it.

A cancelled operation has had no effect on what no worker had begun, and what was done stays done.
"""

import asyncio
from dataclasses import dataclass, field
from functools import partial
from random import Random
from typing import Any, Self

import pytest

from poller.domain.mapping_api import ApiError, ApiErrorType
from poller.domain.operations import Action, Operation, OperationId, OperationState
from poller.domain.records import ShardId
from poller.rules.operations import lifecycle
from tests.simulation.services.fake_plugins import seeded
from tests.simulation.services.faults import Port
from tests.simulation.services.queues import Letter
from tests.simulation.worlds.operating import Place
from tests.simulation.worlds.operation_states import (
    KNOWN_S,
    MAPPING,
    SHORT_S,
    Obstacle,
    Source,
    StatesWorld,
    Story,
    Way,
)
from tests.simulation.worlds.world import Worker

DISABLED = "the mapping is disabled; enable it, then ask again"
ON_STREAMS_ALONE: tuple[tuple[dict[str, Any], str], ...] = (
    ({"action": "reset"}, "a queue has nothing to reset"),
    ({"action": "seek", "to": "LATEST"}, "seek is for streams"),
    ({"action": "replay", "from": "TRIM_HORIZON", "to": "LATEST"}, "replay is for streams"),
)
"""What is refused of a queue, and what is said then."""


@dataclass(slots=True)
class Before:
    """What waits at a worker: lanes with their attempts and next tries, or messages with their receives and until when they are hidden."""

    worker: Worker
    lanes: dict[tuple[ShardId, str], tuple[int, float | None]] = field(default_factory=dict)
    letters: dict[str, tuple[int, float, bool]] = field(default_factory=dict)

    @classmethod
    def of(cls, world: StatesWorld, worker: Worker) -> Self:
        """What waits there now."""
        if world.case.source is Source.STREAM:
            lanes = {(each.shard, each.lane.lane): _lane(each) for each in world.failing(worker)}
            return cls(worker, lanes=lanes)
        return cls(worker, letters={each.message_id: _letter(each) for each in world.hidden(worker)})

    def unchanged(self, world: StatesWorld) -> None:
        """Nothing has happened to it."""
        now = {
            (each.shard, each.lane.lane): _lane(each) for each in world.operators._places(self.worker.daemon)
        }
        assert {place: now.get(place) for place in self.lanes} == self.lanes
        if self.letters:
            letters = world.queue.letters
            assert {each: _letter(letters[each]) for each in self.letters} == self.letters
        assert self.lanes or self.letters, "something waits"


def _lane(place: Place) -> tuple[int, float | None]:
    return place.lane.attempts, place.lane.next_try


def _letter(letter: Letter) -> tuple[int, float, bool]:
    return letter.receives, letter.visible_at, letter.here


async def carried_out(world: StatesWorld) -> None:
    """Nothing is in the way."""
    await world.ready()
    if world.case.source is not Source.STREAM:
        await _refused_of_a_queue(world)
    match world.case.action:
        case Action.PAUSE | Action.RESUME:
            pause = await _paused(world)
            resume = await world.is_over(await world.ask(Action.RESUME))
            assert (resume.state, resume.result) == (OperationState.DONE, "1 pause has ended"), resume
            assert (await world.is_over(pause)).result == "resumed by me"
        case action:
            await _done_at_once(world, action)


async def _done_at_once(world: StatesWorld, action: Action) -> None:
    before = Before.of(world, world.other)
    operation = await world.is_over(await world.ask(action, **_members(world)))
    assert operation.state is OperationState.DONE, operation
    for message_id, (receives, _, _) in before.letters.items():
        letter = world.queue.letters[message_id]
        if action is Action.RETRY:
            again = partial(_received_more_often, letter, receives)
            await world.until(again, f"another try of {message_id}", within_s=SHORT_S)
        else:
            assert letter.deleted


def _received_more_often(letter: Letter, receives: int) -> bool:
    return letter.receives > receives


async def _refused_of_a_queue(world: StatesWorld) -> None:
    for request, text in ON_STREAMS_ALONE:
        with pytest.raises(ApiError, match=text) as refused:
            await world.asked.daemon.operations.submit(MAPPING, request, by="me")
        assert refused.value.fault is ApiErrorType.PARAMETER


async def failed(world: StatesWorld) -> None:
    """It cannot be carried out."""
    await world.ready()
    match world.case.source, world.case.action:
        case _, Action.RESUME:
            await _deleted_before_a_resume(world)
        case Source.STREAM, action:
            await _disabled_before_it_was_taken(world, action)
        case _, Action.RETRY:
            pause = await _paused(world)
            operation = await world.is_over(await world.ask(Action.RETRY))
            assert operation.state is OperationState.FAILED, operation
            assert "the mapping is paused; resume it first" in operation.result
            await world.end_pause(pause)
        case _:
            before = Before.of(world, world.other)
            operation = await world.is_over(await world.ask(Action.SKIP, records=list(before.letters)))
            assert operation.state is OperationState.FAILED, operation
            assert "this source cannot move messages" in operation.result
            before.unchanged(world)


async def _disabled_before_it_was_taken(world: StatesWorld, action: Action) -> None:
    """The owner stands still for so long that others take it for dead, and the mapping is disabled at the others."""
    before = Before.of(world, world.other)
    async with world.standing_still(world.other):
        operation = await world.ask(action, **_members(world))
        world.enable(world.asked, enabled=False)
        over = await world.is_over(operation)
    assert (over.state, over.result, over.parts) == (OperationState.FAILED, DISABLED, {}), over
    world.enable(world.asked, enabled=True)
    if action is Action.RESET:
        attempts = {(each.shard, each.lane.lane): each.lane.attempts for each in await _all_lanes(world)}
        assert all(attempts[place] >= had for place, (had, _) in before.lanes.items())


async def _all_lanes(world: StatesWorld) -> list[Place]:
    """The lanes of all shards that fail, once all of them are known again."""

    def failing() -> list[Place]:
        return [each for worker in world._workers for each in world.failing(worker)]

    shards = set(world.court.streams[MAPPING].stream.shards)
    await world.until(lambda: {each.shard for each in failing()} == shards, "all shards fail", within_s=100.0)
    return failing()


async def _deleted_before_a_resume(world: StatesWorld) -> None:
    """The worker that accepted it dies, and the mapping is deleted before another one has read it."""
    pause = await _paused(world)
    asked, other = world.asked, world.other
    resume = await world.ask(Action.RESUME)
    world.kill(asked)
    parts = other.daemon._open_parts
    assert parts is not None
    await parts.follower.delete(MAPPING)
    over = world.stored(resume)
    assert (over.state, over.result) == (OperationState.FAILED, "the mapping was deleted"), over
    assert world.stored(pause).state is OperationState.DONE
    world.start()


async def untaken(world: StatesWorld) -> None:
    """It is cancelled before any worker has begun. It has had no effect."""
    await world.ready()
    pause = await _paused(world) if world.case.action is Action.RESUME else None
    other, before = world.other, Before.of(world, world.other)
    ended = await _cancelled(world, other)
    if world.case.action is Action.PAUSE:
        assert (ended.state, ended.result) == (OperationState.DONE, "resumed by me"), ended
    else:
        assert (ended.state, ended.result) == (OperationState.CANCELLED, _cancelled_after(0, ended)), ended
    assert (ended.parts, lifecycle.settled(ended)) == ({}, []), ended
    assert ended.request.action is not Action.SKIP or ended.notes.get("records") in (
        None,
        list(before.letters),
    )
    await asyncio.sleep(KNOWN_S)
    if pause is None:
        before.unchanged(world)
        assert other.daemon.operations.known_open() == ()
    else:
        assert world.stored(pause).state is OperationState.RUNNING, "a resume that was cancelled ends nothing"
        await world.end_pause(pause)
    if len(world._workers) < 2:
        world.start()


async def _cancelled(world: StatesWorld, other: Worker) -> Operation:
    members, chance = _members(world), _chance(world)
    if world.case.obstacle is Obstacle.DIES:
        asked, operation = world.asked, await world.ask(world.case.action, **members)
        world.kill(asked)
        return await world.cancel(operation, of=other)
    still = world.case.obstacle is Obstacle.STANDS_STILL
    async with world.standing_still(other) if still else world.cut_off(other, Port.STORE):
        operation = await world.ask(world.case.action, **members)
        await asyncio.sleep(chance.uniform(0.0, SHORT_S))
        return await world.cancel(operation, of=world.asked)


async def begun(world: StatesWorld) -> None:
    """It is cancelled when some of it is done. That stays done, and nothing more of it happens."""
    await world.ready()
    if (world.case.source, world.case.action) == (Source.STREAM, Action.SKIP):
        await _waits_for_its_destination(world)
    elif world.case.action is Action.SKIP:
        await _some_messages_are_skipped(world)
    else:
        await _some_parts_are_done(world)


async def _some_parts_are_done(world: StatesWorld) -> None:
    other, before = world.other, Before.of(world, world.other)
    async with world.standing_still(other):
        operation = await world.ask(world.case.action)
        done = len(await _parts_done(world, operation))
        ended = await world.cancel(operation, of=world.asked)
    assert (ended.state, ended.result) == (OperationState.CANCELLED, _cancelled_after(done, ended)), ended
    assert 0 < done < len(ended.wanted)
    await asyncio.sleep(KNOWN_S)
    before.unchanged(world)


async def _parts_done(world: StatesWorld, operation: OperationId) -> list[str]:
    """The parts that the worker which was asked has carried out."""

    def done() -> list[str]:
        parts = world.stored(operation).parts
        return [part for part, result in parts.items() if result.state is OperationState.DONE]

    wanted = world.stored(operation).wanted
    mine = wanted
    if world.case.source is Source.STREAM:
        mine = tuple({each.shard for each in world.operators._places(world.asked.daemon)})
    else:
        mine = (world.asked.line.name,)
    await world.until(lambda: set(mine) <= set(done()), f"parts of {operation}")
    assert world.stored(operation).state is OperationState.RUNNING
    return done()


async def _waits_for_its_destination(world: StatesWorld) -> None:
    """It is running, with its records named, and its notice cannot be delivered. Then it does not happen."""
    checks = world.court.streams[MAPPING]
    async with world.cut_off(world.other, Port.DESTINATION):
        operation = await world.ask(Action.SKIP, **_members(world))
        await world.until(lambda: "records" in world.stored(operation).notes, "records of the skip")
        await asyncio.sleep(_chance(world).uniform(0.0, SHORT_S))
        ended = await world.cancel(operation, of=world.asked)
        await asyncio.sleep(KNOWN_S)
    assert (ended.state, ended.result) == (OperationState.CANCELLED, _cancelled_after(0, ended)), ended
    (record,) = ended.notes["records"]
    assert int(record) in {each.sequence for each in checks.unsettled()}, (
        "it is neither skipped nor processed"
    )
    world.repair()
    await world.until(lambda: not checks.unsettled(), "all is processed")
    assert (checks.operated.noticed, world.notices) == (set(), [])


async def _some_messages_are_skipped(world: StatesWorld) -> None:
    mine, other = world.hidden(world.asked)[0], world.other
    before = Before.of(world, other)
    async with world.standing_still(other):
        records = [mine.message_id, *before.letters]
        operation = await world.ask(Action.SKIP, records=records, discard=True)
        await world.until(lambda: lifecycle.settled(world.stored(operation)), "a message that is skipped")
        assert world.stored(operation).state is OperationState.RUNNING
        ended = await world.cancel(operation, of=world.asked)
    assert (ended.state, lifecycle.settled(ended)) == (OperationState.CANCELLED, [mine.message_id]), ended
    assert mine.deleted
    await asyncio.sleep(KNOWN_S)
    before.unchanged(world)


async def _paused(world: StatesWorld) -> OperationId:
    """Pauses the whole mapping; returns when all have confirmed it."""
    pause = await world.ask(Action.PAUSE)
    await world.until(lambda: not lifecycle.missing(world.stored(pause)), "a pause that holds everywhere")
    assert world.stored(pause).state is OperationState.RUNNING
    return pause


def _members(world: StatesWorld) -> dict[str, Any]:
    """What the request of a world has besides its action: it is about something that the other worker has."""
    action, stream = world.case.action, world.case.source is Source.STREAM
    if action in {Action.PAUSE, Action.RESUME}:
        return {}
    if not stream:
        ids = [each.message_id for each in world.hidden(world.other)]
        return {"records": ids, "discard": True} if action is Action.SKIP else {}
    shard = {"shard": world.failing(world.other)[0].shard}
    return {**shard, "records": "first"} if action is Action.SKIP else shard


def _cancelled_after(done: int, operation: Operation) -> str:
    """What is said of an operation that was cancelled when so many of its parts were done."""
    wanted = len(operation.wanted)
    parts = f" after {done} of {wanted} part{'s' if wanted > 1 else ''}" if wanted else ""
    return f"cancelled by me{parts}"


def _chance(world: StatesWorld) -> Random:
    return seeded(world.case.seed, "operation states")


STORIES: dict[Way, Story] = {
    Way.DONE: carried_out,
    Way.FAILED: failed,
    Way.UNTAKEN: untaken,
    Way.BEGUN: begun,
}
