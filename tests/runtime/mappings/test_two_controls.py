"""Two workers that change mappings of one store at the same moment: nothing is lost, brought back or made twice."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from typing import Any

from adapters.stores.memory import MemoryStore
from poller.domain.errors import RowChanged
from poller.domain.mapping_api import ApiError, ApiErrorType, MappingView
from poller.domain.member_changes import changes_between
from poller.domain.records import Epoch, MappingId, WorkerId
from poller.domain.rows import API_PREFIX, MappingRow
from poller.domain.telemetry.mapping_events import PortFailed
from poller.runtime.daemon import Daemon
from poller.runtime.mappings.definitions import Definition
from poller.runtime.mappings.mapping_service import TRIES_MAX, MappingService
from tests.runtime.daemons import Site, play, until
from tests.runtime.fakes import mapping
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
from tests.virtual import EPOCH_BASE

IDLE = QUEUE_REQUEST | {"Enabled": False}
"""A mapping that is never busy: it may be updated again at once."""
ANSWER_S = 0.01
"""The store's answer takes so long."""


class Door(MemoryStore):
    """One worker's way to a store that others share. The next write of a definition can be held up before its effect."""

    def __init__(self, store: MemoryStore) -> None:
        super().__init__()
        self.__dict__.update(store.__dict__)
        self._gate: Gate | None = None

    def hold(self) -> "Gate":
        """Closes the door for the next write of a definition."""
        self._gate = Gate()
        return self._gate

    async def create(self, row: MappingRow) -> MappingRow:
        """Keeps `row` unless the mapping is known."""
        await self._pass(row)
        kept = await super().create(row)
        await asyncio.sleep(ANSWER_S)
        return kept

    async def update(self, row: MappingRow) -> None:
        """Replaces the row at its revision."""
        await self._pass(row)
        await super().update(row)
        await asyncio.sleep(ANSWER_S)

    async def _pass(self, row: MappingRow) -> None:
        if self._gate is not None and row.mapping.startswith(API_PREFIX):
            gate, self._gate = self._gate, None
            gate.reached.set()
            await gate.opened.wait()


class Gate:
    """Where a write waits."""

    def __init__(self) -> None:
        self.reached = asyncio.Event()
        self.opened = asyncio.Event()


@dataclass
class Pair:
    """Two workers' controls, each with its own door to the store."""

    place: Site
    doors: tuple[Door, Door]
    daemons: list[Daemon]

    @property
    def controls(self) -> tuple[MappingService, MappingService]:
        """Ann's and Bob's."""
        ann, bob = self.daemons
        return ann.control, bob.control

    async def overtaken(self, late: Awaitable[Any], *early: Callable[[], Awaitable[Any]]) -> Any:
        """What Ann's change `late` comes to, when all of `early` happens before its write; refusals are returned."""
        return (await self.at_once(late, *early))[0]

    async def at_once(self, late: Awaitable[Any], *early: Callable[[], Awaitable[Any]]) -> list[Any]:
        """The same with the outcomes of all."""
        gate = self.doors[0].hold()
        async with asyncio.TaskGroup() as scope:
            task = scope.create_task(outcome(late))
            await gate.reached.wait()
            await asyncio.sleep(0.1)
            first = [await outcome(each()) for each in early]
            gate.opened.set()
        return [task.result(), *first]

    async def seen_by_both(self, identity: MappingId) -> None:
        """Waits until both workers know a mapping."""
        await until(lambda: all(identity in known(control) for control in self.controls))

    def definitions(self) -> dict[MappingId, Definition]:
        """What the store has."""
        rows = [row for name, row in self.doors[0]._rows.items() if name.startswith(API_PREFIX)]
        return {found.mapping: found for found in map(Definition.of, rows)}


type Script = Callable[[Pair], Awaitable[None]]


def together(script: Script, *, seeds: tuple[int, int] = (7, 8)) -> None:
    """Runs the script with two daemons that are ready."""
    place = site()
    pair = Pair(place, (Door(place.store), Door(place.store)), [])

    def made(number: int) -> Daemon:
        name = ("ann", "bob")[number]
        daemon = place.daemon(
            replace(plan(), worker=WorkerId(name)), store=pair.doors[number], seed=seeds[number]
        )
        pair.daemons.append(daemon)
        return daemon

    async def main(_: Daemon) -> None:
        await until(lambda: all(daemon.status().ready for daemon in pair.daemons))
        await script(pair)

    play(lambda: made(0), main, lambda: made(1))


async def outcome(change: Awaitable[Any]) -> Any:
    """What a change returns, or its refusal."""
    try:
        return await change
    except ApiError as refused:
        return refused.fault, refused.text


def known(control: MappingService) -> set[MappingId]:
    return {each.mapping for each in control.views()}


def shown_by(control: MappingService, identity: MappingId) -> MappingView:
    return next(each for each in control.views() if each.mapping == identity)


def conflict(outcome: Any, twin: MappingId) -> bool:
    """Whether a change was refused because of `twin`."""
    fault, text = outcome
    return fault is ApiErrorType.CONFLICT and text.endswith(f"with UUID {twin}")


def test_updates_of_different_fields_are_both_kept() -> None:
    async def script(pair: Pair) -> None:
        ann, bob = pair.controls
        made = await ann.create(IDLE)
        late = ann.update(made.mapping, {"BatchSize": 3})
        answer = await pair.overtaken(
            late, lambda: bob.update(made.mapping, {"ScalingConfig": {"MaximumConcurrency": 4}})
        )
        assert answer.parameters["BatchSize"] == 3
        assert answer.parameters["ScalingConfig"] == {"MaximumConcurrency": 4}
        # What the other worker changed is told by that worker.
        assert changes_between(answer.before, answer.parameters) == ("BatchSize: 10 -> 3",)
        stored = pair.definitions()[made.mapping]
        assert (stored.parameters["BatchSize"], stored.revision) == (3, 2)
        assert stored.parameters["ScalingConfig"] == {"MaximumConcurrency": 4}

    together(script)


def test_an_update_is_refused_while_another_workers_update_is_not_applied_and_may_be_sent_again() -> None:
    async def script(pair: Pair) -> None:
        ann, bob = pair.controls
        made = await ann.create(STREAM_REQUEST)
        await reaches(ann, made.mapping, S.ENABLED)
        await reaches(bob, made.mapping, S.ENABLED)
        answer = await pair.overtaken(
            ann.update(made.mapping, {"BatchSize": 3}),
            lambda: bob.update(made.mapping, {"MaximumRetryAttempts": 5}),
        )
        assert answer == (ApiErrorType.IN_USE, "Cannot update the event source mapping because it is in use.")
        await reaches(ann, made.mapping, S.ENABLED)
        shown = (await ann.update(made.mapping, {"BatchSize": 3})).parameters
        assert (shown["BatchSize"], shown["MaximumRetryAttempts"]) == (3, 5)

    together(script)


def test_tags_of_two_workers_are_both_kept() -> None:
    async def script(pair: Pair) -> None:
        ann, bob = pair.controls
        made = await ann.create(IDLE | {"Tags": {"old": "1"}})
        await pair.overtaken(
            ann.tag(made.mapping, {"a": "1"}),
            lambda: bob.tag(made.mapping, {"b": "2"}),
            lambda: bob.untag(made.mapping, ("old",)),
        )
        assert (await view(ann, made.mapping)).tags == {"a": "1", "b": "2"}

    together(script)


def test_an_update_does_not_bring_a_deleted_mapping_back() -> None:
    async def script(pair: Pair) -> None:
        ann, bob = pair.controls
        made = await ann.create(IDLE)
        await pair.seen_by_both(made.mapping)
        answer = await pair.overtaken(
            ann.update(made.mapping, {"BatchSize": 3}), lambda: bob.delete(made.mapping)
        )
        assert answer == (ApiErrorType.IN_USE, "Cannot update the event source mapping because it is in use.")
        await until(lambda: known(ann) == known(bob) == set())
        assert await pair.doors[0].mappings() == []

    together(script)


def test_an_update_of_a_mapping_that_is_gone_meanwhile_finds_none() -> None:
    async def script(pair: Pair) -> None:
        ann, bob = pair.controls
        made = await ann.create(IDLE)
        await pair.seen_by_both(made.mapping)

        async def gone() -> None:
            await until(lambda: pair.definitions() == {})

        answer = await pair.overtaken(
            ann.update(made.mapping, {"BatchSize": 3}), lambda: bob.delete(made.mapping), gone
        )
        assert answer == (ApiErrorType.MISSING, "The resource you requested does not exist.")
        await asyncio.sleep(10)
        assert await pair.doors[0].mappings() == []

    together(script)


def test_a_deletion_outlives_an_update_that_was_faster() -> None:
    async def script(pair: Pair) -> None:
        ann, bob = pair.controls
        made = await ann.create(IDLE)
        answer = await pair.overtaken(
            ann.delete(made.mapping), lambda: bob.update(made.mapping, {"BatchSize": 3})
        )
        assert (answer.state, answer.parameters["BatchSize"]) == (S.DELETING, 3)
        await until(lambda: known(ann) == known(bob) == set())

    together(script)


def test_of_two_creations_the_one_that_was_written_and_seen_first_stays() -> None:
    async def script(pair: Pair) -> None:
        ann, bob = pair.controls
        late, early = await pair.at_once(ann.create(IDLE), lambda: bob.create(IDLE))
        assert isinstance(early, MappingView)
        assert conflict(late, early.mapping)
        assert pair.definitions().keys() == {early.mapping}
        await until(lambda: known(ann) == known(bob) == {early.mapping})
        assert [row.mapping for row in await pair.doors[0].mappings()] == [
            early.mapping,
            f"{API_PREFIX}{early.mapping}",
        ]

    together(script)


def test_of_two_creations_that_see_each_other_the_first_stays() -> None:
    async def script(pair: Pair) -> None:
        ann, bob = pair.controls
        gates = [door.hold() for door in pair.doors]
        async with asyncio.TaskGroup() as scope:
            tasks = []
            for control, gate in zip(pair.controls, gates, strict=True):
                tasks.append(scope.create_task(outcome(control.create(STREAM_REQUEST))))
                await gate.reached.wait()
                await asyncio.sleep(0.1)
            for gate in reversed(gates):
                gate.opened.set()
        first, second = (task.result() for task in tasks)
        assert isinstance(first, MappingView)
        assert conflict(second, first.mapping)
        assert pair.definitions().keys() == {first.mapping}
        await until(lambda: known(ann) == known(bob) == {first.mapping})
        await until(lambda: reader(pair.place).calls != [])
        await asyncio.sleep(10)
        assert reader(pair.place).calls == [[1, 2, 3, 4, 5]]

    together(script)


def test_of_two_mappings_that_are_pointed_at_one_function_one_stays_as_it_was() -> None:
    async def script(pair: Pair) -> None:
        ann, bob = pair.controls
        one, two = [
            await ann.create(IDLE | {"FunctionName": f"worker:{number}", "BatchSize": number})
            for number in (1, 2)
        ]
        await pair.seen_by_both(two.mapping)
        request = {"FunctionName": "worker", "BatchSize": 9}
        late, early = await pair.at_once(
            ann.update(one.mapping, request), lambda: bob.update(two.mapping, request)
        )
        assert early.function_arn.endswith(":worker")
        assert conflict(late, two.mapping)
        await until(lambda: shown_by(bob, one.mapping).parameters["BatchSize"] == 1)
        for control in pair.controls:
            shown = shown_by(control, one.mapping)
            assert (shown.function_arn, shown.last_modified) == (one.function_arn, one.last_modified)
            assert shown_by(control, two.mapping).parameters["BatchSize"] == 9

    together(script)


def test_an_update_that_is_taken_back_leaves_what_others_changed_since() -> None:
    async def script(pair: Pair) -> None:
        ann, bob = pair.controls
        one = await ann.create(IDLE | {"FunctionName": "worker:1"})
        two = await ann.create(IDLE | {"FunctionName": "worker:2"})
        await pair.seen_by_both(two.mapping)
        gate = pair.doors[0].hold()
        async with asyncio.TaskGroup() as scope:
            late = scope.create_task(outcome(ann.update(one.mapping, {"FunctionName": "worker"})))
            await gate.reached.wait()
            await bob.update(two.mapping, {"FunctionName": "worker"})
            gate.opened.set()
            await until(lambda: pair.definitions()[one.mapping].revision == 1, step_s=0.01)
            await bob.tag(one.mapping, {"a": "1"})
        assert conflict(late.result(), two.mapping)
        shown = await view(ann, one.mapping)
        assert (shown.function_arn, shown.tags) == (one.function_arn, {"a": "1"})

    together(script)


def test_an_id_that_two_workers_draw_is_given_once() -> None:
    async def script(pair: Pair) -> None:
        ann, bob = pair.controls
        first = await ann.create(IDLE)
        second = await bob.create(IDLE | {"FunctionName": "worker:1"})
        assert first.mapping != second.mapping
        assert pair.definitions().keys() == {first.mapping, second.mapping}

    together(script, seeds=(7, 7))


def test_a_change_that_always_comes_too_late_is_throttled() -> None:
    place = site()
    store = Hurried(place.store)

    async def script(daemon: Daemon) -> None:
        await until(lambda: daemon.status().ready)
        made = await daemon.control.create(IDLE)
        store.late = TRIES_MAX
        refused = await refusal(daemon.control.update(made.mapping, {"BatchSize": 3}))
        assert refused == (ApiErrorType.THROTTLED, "Rate exceeded")
        store.late = TRIES_MAX - 1
        answer = await daemon.control.update(made.mapping, {"BatchSize": 3})
        assert answer.parameters["BatchSize"] == 3

    play(lambda: place.daemon(plan(), store=store), script)


class Hurried(Door):
    """A store in which somebody else is faster so many times."""

    late = 0

    async def update(self, row: MappingRow) -> None:
        """Replaces the row, unless somebody was faster."""
        if self.late:
            self.late -= 1
            raise RowChanged("another revision")
        await super().update(row)


def test_of_twins_in_the_store_only_the_first_runs() -> None:
    place = site()
    twins = [
        Definition(
            mapping=MappingId(f"00000000-0000-4000-8000-00000000000{number}"),
            parameters=STREAM_REQUEST | {"BatchSize": number},
            created=Epoch(EPOCH_BASE + created),
            modified=Epoch(EPOCH_BASE),
        )
        for number, created in ((1, 5.0), (2, 2.0))
    ]

    async def script(control: MappingService, daemon: Daemon) -> None:
        for each in twins:
            await place.store.create(each.row())
        await reaches(control, twins[1].mapping, S.ENABLED)
        await until(lambda: len(reader(place).calls) == 3)
        assert (await view(control, twins[0].mapping)).state is S.DISABLED
        text = f"mapping {twins[1].mapping} connects the same; delete one of them"
        assert daemon.status().notes == (f"mapping {twins[0].mapping}: {text}",)
        await control.delete(twins[1].mapping)
        await reaches(control, twins[0].mapping, S.ENABLED)
        await until(lambda: daemon.status().notes == ())

    controlled(place, script)
    assert reader(place).calls[:3] == [[1, 2], [3, 4], [5]]


def test_a_worker_goes_on_when_another_one_has_marked_its_mapping_as_seeded() -> None:
    place = site()
    given = replace(plan(), mappings=(mapping(),))
    theirs = MappingRow(mapping().mapping, Epoch(1.5), seeded=True, revision=1)

    class Seeding(MemoryStore):
        """A store in which another worker makes the mapping anew before the first update."""

        async def update(self, row: MappingRow) -> None:
            """Replaces the row, which is no longer the one that was read."""
            self._rows[row.mapping] = theirs
            await super().update(row)

    store = Seeding()

    async def script(daemon: Daemon) -> None:
        await until(lambda: reader(place).calls != [])
        await asyncio.sleep(60)
        (kept,) = await store.mappings()
        assert (kept.fixed, kept.seeded) == (theirs.fixed, True)

    play(lambda: place.daemon(given, store=store), script)
    assert reader(place).calls == [[1, 2, 3, 4, 5]]
    assert place.seen.of(PortFailed) == []
