"""Answers of the store that arrive late and in any order: what a worker knows of an operation only goes on, and an end is final."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from random import Random
from typing import Any

from hypothesis import example, given, settings
from hypothesis import strategies as st

from adapters.stores.memory import MemoryStore
from poller.domain.operations import Action, Operation, OperationId, OperationRequest
from poller.domain.records import Epoch
from poller.rules.operations import lifecycle
from poller.runtime.operations.open_operations import CALL_S_MAX, OpenOperations
from tests.runtime.fakes import Seen
from tests.runtime.operations.workers import (
    DONE,
    ONE,
    STREAM,
    FakeOperable,
    Outcome,
    play,
    running,
    stream_of,
    two_shards,
)
from tests.virtual import virtual_clock

IDS = tuple(map(OperationId, "abc"))
LATE_S = 4.3
"""Nearly the longest that a call of the store may take."""


def test_a_pause_that_holds_is_not_lifted_by_a_late_answer_that_it_is_not_there() -> None:
    async def script() -> None:
        _, a, b = await two_shards()
        async with running(a, b):
            await asyncio.sleep(1.0)
            a.door.answer_s = LATE_S
            look = asyncio.ensure_future(a.control.operation(OperationId("mine")))
            await asyncio.sleep(0)
            a.door.answer_s = 0.3
            await a.ask("pause", id="mine")
            await asyncio.sleep(2.0)
            stored = await a.site.store.operation(OperationId("mine"))
            assert stored is not None
            assert stored.parts[ONE].state is DONE
            await asyncio.gather(look, return_exceptions=True)
            for _ in range(60):
                assert stream_of(a).paused == ["mine"]
                await asyncio.sleep(0.1)

    play(script)


def test_what_was_cancelled_does_not_come_back_by_a_late_answer_that_it_is_open() -> None:
    async def nothing_yet(_operable: FakeOperable, _unit: str, _operation: Operation) -> Outcome:
        return None

    async def script() -> None:
        _, a, b = await two_shards(script=nothing_yet)
        async with running(a, b):
            retry = await a.ask("retry", shard="1")
            a.door.answer_s = LATE_S
            look = asyncio.ensure_future(a.control.operation(retry.operation))
            await asyncio.sleep(0.1)
            a.door.answer_s = 0.3
            await a.control.cancel(retry.operation, by="ann")
            for _ in range(60):
                assert a.control.known_open() == ()
                await asyncio.sleep(0.1)
            assert not (await look).state.over

    play(script)


@dataclass(frozen=True)
class Step:
    """Something that a worker does, or that another one has done: when, of which operation, and how long its call is on the way."""

    what: str
    of: int = 0
    pause_s: float = 0.0
    there_s: float = 0.0
    back_s: float = 0.0


class SlowStore:
    """A store whose next call reaches it after `there_s`, and is answered `back_s` later."""

    def __init__(self, store: MemoryStore) -> None:
        self.store = store
        self.there_s = self.back_s = 0.0

    def __getattr__(self, name: str) -> Callable[..., Awaitable[Any]]:
        async def call(*given: Any, **more: Any) -> Any:
            there_s, back_s = self.there_s, self.back_s
            await asyncio.sleep(there_s)
            try:
                return await getattr(self.store, name)(*given, **more)
            finally:
                await asyncio.sleep(back_s)

        return call


SHORT_S = st.sampled_from([0.0, 0.2, 0.7, 1.1, 2.3])
STEPS = st.lists(
    st.builds(
        Step,
        what=st.sampled_from(["read", "find", "add", "begin", "end", "other adds", "other ends", "other begins"]),
        of=st.integers(0, len(IDS) - 1),
        pause_s=SHORT_S,
        there_s=SHORT_S,
        back_s=SHORT_S,
    ),
    max_size=20,
)  # fmt: skip


def asked(number: int) -> Operation:
    return Operation(
        operation=IDS[number],
        mapping=STREAM,
        request=OperationRequest(action=Action.PAUSE),
        created=Epoch(float(number + 1)),
    )


def begun(operation: Operation) -> Operation:
    return lifecycle.count(operation, {"begun": operation.progress.get("begun", 0) + 1})


def ended(operation: Operation) -> Operation:
    return lifecycle.finish(operation, now=Epoch(99.0))


@dataclass
class Witness:
    """What was known at each moment. It fails when that goes back, or when something is forgotten that the store has open."""

    operations: OpenOperations
    store: MemoryStore

    def __post_init__(self) -> None:
        self.revisions: dict[OperationId, int] = {}
        self.left: set[OperationId] = set()

    async def look(self) -> None:
        known = self.operations.known or {}
        there = {each.operation for each in await self.store.operations()}
        for operation, found in known.items():
            assert operation not in self.left, f"{operation} came back"
            assert found.revision >= self.revisions.get(operation, 0), f"{operation} went back"
            self.revisions[operation] = found.revision
        for operation in self.revisions.keys() - known.keys():
            assert operation not in there, f"{operation} was forgotten"
            self.left.add(operation)


async def other(store: MemoryStore, step: Step) -> None:
    """What another worker does."""
    if step.what == "other adds":
        await store.add(asked(step.of))
        return
    found = await store.operation(IDS[step.of])
    if found is not None and not found.state.over:
        await store.change((ended if step.what == "other ends" else begun)(found))


async def own(operations: OpenOperations, step: Step) -> None:
    """What this worker does."""
    known = operations.get(IDS[step.of])
    if step.what == "read":
        await operations.read()
    elif step.what == "find":
        await operations.find(IDS[step.of])
    elif step.what == "add":
        await operations.add(asked(step.of))
    elif known is not None:
        await operations.change(known, ended if step.what == "end" else begun)


@settings(max_examples=80, deadline=None)
@example([Step("find", back_s=2.3), Step("other adds", pause_s=0.2), Step("read", pause_s=0.2), Step("read", pause_s=2.3)])  # fmt: skip
@example(
    [
        Step("read"),
        Step("other adds"),
        Step("find", back_s=2.3),
        Step("other ends"),
        Step("read", pause_s=0.7),
    ]
)
@example([Step("add", back_s=1.1), Step("read", there_s=0.2), Step("other ends", pause_s=0.7), Step("read", back_s=1.1)])  # fmt: skip
@example([Step("read", there_s=1.1, back_s=0.2, pause_s=0.2), Step("read", there_s=0.2, back_s=2.3, pause_s=0.7), Step("other adds")])  # fmt: skip
@given(STEPS)
def test_what_is_known_of_an_operation_only_goes_on_whenever_answers_arrive(steps: Sequence[Step]) -> None:
    async def script() -> None:
        store = MemoryStore()
        slow = SlowStore(store)
        given_to: Any = slow
        operations = OpenOperations(given_to, given_to, clock=virtual_clock(), observer=Seen(), rng=Random(1))
        witness = Witness(operations, store)
        async with asyncio.TaskGroup() as scope:
            for step in steps:
                if step.what.startswith("other"):
                    await other(store, step)
                else:
                    slow.there_s, slow.back_s = step.there_s, step.back_s
                    scope.create_task(own(operations, step), name=step.what)
                    await asyncio.sleep(0)
                for _ in range(round(step.pause_s * 10)):
                    await witness.look()
                    await asyncio.sleep(0.1)
            slow.there_s = slow.back_s = 0.0
            for _ in range(round(2 * CALL_S_MAX * 10)):
                await witness.look()
                await asyncio.sleep(0.1)
        await operations.read()
        await witness.look()
        assert list((operations.known or {}).values()) == list(await store.operations())

    play(script)


def test_an_operation_that_the_history_has_lost_is_not_known_any_more() -> None:
    async def script() -> None:
        store: Any = MemoryStore()
        operations = OpenOperations(store, store, clock=virtual_clock(), observer=Seen(), rng=Random(1))
        await operations.read()
        for lost_as in ("missing", "changed"):
            added = await operations.add(replace(asked(0), operation=OperationId(lost_as)))
            newer = begun(added) if lost_as == "changed" else added
            if lost_as == "changed":
                newer = await store.change(newer)
            await store.change(ended(newer))
            await store.prune([added.operation])
            assert operations.get(added.operation) == added
            assert await operations.change(added, begun) is None
            assert operations.get(added.operation) is None

    play(script)
