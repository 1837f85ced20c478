"""Owns the operators of a world: what they ask for, of which worker, and what must have come of it at the end."""

import asyncio
import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from random import Random
from typing import Any

from adapters.stores.memory import MemoryStore
from poller.domain.mapping_api import ApiError
from poller.domain.operations import Action, Operation, OperationId, OperationState
from poller.domain.records import SHARD_END, MappingId, ShardId
from poller.domain.status import LaneStatus
from poller.domain.streams.places import name_of
from poller.rules.operations.members import BATCH_COUNT, BATCH_FIRST
from poller.rules.streams.operations.on_batch import CLOSING_PREFIX
from poller.runtime.daemon import Daemon
from poller.runtime.streams.stream_mapping import StreamMapping
from tests.simulation.checks.ledger import Violation
from tests.simulation.checks.stream_checks import StreamChecks
from tests.simulation.services.contents import number_of
from tests.simulation.services.fake_plugins import at_once
from tests.simulation.services.faults import History, Marks, epoch
from tests.simulation.worlds.scenario import Operate

TRIES_MAX = 4
"""How often an operator asks again, of any worker, when one does not answer."""
ANSWER_S = 20.0
AGAIN_S = 0.5
ACCEPTED_S_MAX = 120.0
"""Once everything has healed, how long all workers may refuse. One that has just started refuses until it is open."""
WEIGHTS = {"waiting": 8, "discarding": 20, "invoking": 2, "gathering": 2, "restored": 20}
"""How much rather operators look at a lane in this state than at others."""


@dataclass(frozen=True, slots=True)
class Place:
    """A lane that some worker has."""

    mapping: MappingId
    shard: ShardId
    lane: LaneStatus
    runner: StreamMapping


@dataclass(slots=True)
class Operators:
    """The operators of a world. `daemons` are those of workers that run now."""

    streams: dict[MappingId, StreamChecks]
    store: MemoryStore
    rng: Random
    daemons: Callable[[], Sequence[Daemon]]
    marks: Marks
    history: History
    _asked: int = 0
    _refusal: str = "nobody answers"

    async def ask(self, action: Operate) -> None:
        """Somebody asks for something of a lane or shard that a worker has now, or anybody's. A pause is ended again after its time."""
        if action.anywhere:
            await self._ask_anywhere(action)
            return
        places = [place for daemon in self.daemons() for place in self._places(daemon)]
        if not places:
            return
        place = self.rng.choices(places, [WEIGHTS.get(state_of(each), 1) for each in places])[0]
        state = state_of(place)
        self.marks.saw(f"operator: {action.action} while {state}")
        if place.lane.blocked_since is not None:
            self.marks.saw(f"operator: {action.action} while blocked")
        target: dict[str, Any] = {"shard": place.shard}
        if action.action is Action.PAUSE and not action.one_shard:
            target = {}
        elif action.one_lane:
            target["lane"] = int(place.lane.lane)
        document = {"action": action.action.value, **target}
        if action.action is Action.SKIP:
            send = action.send and self.streams[place.mapping].plan.discard.destination is not None
            document |= {"records": self._records(action, place), "send": send, "discard": not send}
            document |= self._agreed(document["records"], place)
        self.history.tell("operator", lambda: f"{document} while {state}")
        await self.submit(place.mapping, document)
        if action.action is Action.PAUSE:
            await self._resume(place.mapping, target, action.lasts_s)

    async def _ask_anywhere(self, action: Operate) -> None:
        """As `ask`, of any shard that its stream has ever had, whoever has it."""
        mapping, checks = self.rng.choice(list(self.streams.items()))
        shard = self.rng.choice(list(checks.stream.shards))
        self.look(action.action, mapping, [shard])
        send = checks.plan.discard.destination is not None
        skipped = {"records": "first", "send": send, "discard": not send}
        members = skipped if action.action is Action.SKIP else {}
        await self.submit(mapping, {"action": action.action.value, "shard": shard, **members})
        if action.action is Action.PAUSE:
            await self._resume(mapping, {"shard": shard}, action.lasts_s)

    async def _resume(self, mapping: MappingId, target: Mapping[str, Any], lasts_s: float) -> None:
        await asyncio.sleep(lasts_s)
        self.look(Action.RESUME, mapping, [target["shard"]] if "shard" in target else ())
        await self.submit(mapping, {"action": "resume", **target})

    def look(self, action: Action, mapping: MappingId, shards: Collection[ShardId] = ()) -> None:
        """Marks the states of the shards that an action is about: of all if none are named.

        A shard that no running worker reads is moving, or has ended.
        """
        checks = self.streams[mapping]
        places = [place for daemon in self.daemons() for place in self._places(daemon)]
        for place in places:
            if place.mapping == mapping and (not shards or place.shard in shards):
                self.marks.saw(f"operator: {action} while {state_of(place)}")
                if place.lane.blocked_since is not None:
                    self.marks.saw(f"operator: {action} while blocked")
        read = {place.shard for place in places if place.mapping == mapping}
        for shard in shards or tuple(checks.stream.shards):
            if shard not in read:
                saved = checks.saved.get(shard)
                ended = saved is not None and saved.position == SHARD_END
                self.marks.saw(f"operator: {action} while {'ended' if ended else 'moving'}")

    async def cancel(self, operation: OperationId) -> None:
        """Asks one worker after the other to cancel an operation, until one has done so."""
        for daemon in self.daemons():
            try:
                async with asyncio.timeout(ANSWER_S):
                    await daemon.operations.cancel(operation, by="me")
                return
            except ApiError as error:
                self._refused(f"cancel of {operation}", str(error))
            except TimeoutError:
                continue

    async def end(self) -> None:
        """Ends what is paused still: an operator may not have got an answer to a resume. Raises Violation if no worker does it."""
        deadline = epoch() + ACCEPTED_S_MAX
        while paused := self._paused():
            for operation in paused:
                await self.cancel(operation)
            if self._paused():
                await self._wait_for_workers(deadline, f"the end of {paused}")

    def unfinished(self) -> list[str]:
        """Operations that are not over."""
        return [f"{each.operation}: {each.request}" for each in at_once(self.store.operations())]

    def check(self) -> None:
        """At the end every skip has an outcome, and what it says of the destination is true."""
        for operation in at_once(self.store.operations(over=True)):
            if operation.mapping in self.streams and operation.request.action is Action.SKIP:
                self._check_skip(operation)

    def _check_skip(self, operation: Operation) -> None:
        checks, text, members = self.streams[operation.mapping], operation.result, operation.request.members
        noted = operation.notes.get("records", ())
        if noted and BATCH_FIRST in members:
            self.marks.saw("operator: batch that was agreed to")
            if (noted[0], len(noted)) != (members[BATCH_FIRST], members[BATCH_COUNT]):
                raise Violation("skip", f"{noted} are not the batch that was agreed to: {members}")
        if operation.state is OperationState.FAILED:
            self.marks.saw("operator: refused")
            return
        noted = operation.notes.get("records", ())
        ids = [number_of(each) for each in noted if not each.startswith(CLOSING_PREFIX)]
        if lost := checks.open_sequences().intersection(ids):
            raise Violation("skip", f"{lost} are neither skipped nor settled: {text}")
        if found := re.search(r"(\d+) records? skipped, the destination", text):
            self.marks.saw("operator: skipped with a notice")
            there = checks.operated.noticed.intersection(ids)
            if len(there) < int(found[1]):
                raise Violation("skip", f"{text}, but {there} of {ids} are at the destination")
        for part in ("without a notice", "settled before", "gone", "has ended", "closes the window"):
            if part in text:
                self.marks.saw(f"operator: {part}")

    async def submit(self, mapping: MappingId, document: dict[str, Any]) -> OperationId | None:
        """Asks any worker, and another one under the same id if there is no answer. Returns the id; None if nobody accepted it."""
        self._asked += 1
        document = {**document, "id": f"op-{self._asked}"}
        for _ in range(TRIES_MAX):
            if not (daemons := self.daemons()):
                await asyncio.sleep(ANSWER_S)
                continue
            try:
                async with asyncio.timeout(ANSWER_S):
                    await self.rng.choice(daemons).operations.submit(mapping, document, by="me")
                return OperationId(document["id"])
            except TimeoutError:
                self.marks.saw("operator: no answer")
            except ApiError as error:
                self._refused(document["id"], str(error))
                self.marks.saw("operator: not accepted")
                return None
        return None

    async def insist(self, mapping: MappingId, document: dict[str, Any]) -> OperationId:
        """Asks until a worker accepts it, once everything has healed. Raises Violation if none does."""
        deadline = epoch() + ACCEPTED_S_MAX
        while (operation := await self.submit(mapping, document)) is None:
            await self._wait_for_workers(deadline, f"{document}")
        return operation

    async def _wait_for_workers(self, deadline: float, wanted: str) -> None:
        if epoch() > deadline:
            raise Violation("operator", f"no worker accepts {wanted}: {self._refusal}")
        await asyncio.sleep(AGAIN_S)

    def _paused(self) -> list[OperationId]:
        known = at_once(self.store.operations())
        return [each.operation for each in known if each.request.action is Action.PAUSE]

    def _refused(self, wanted: str, reason: str) -> None:
        self._refusal = reason
        self.history.tell("operator", lambda: f"{wanted} refused: {reason}")

    def _places(self, daemon: Daemon) -> Iterator[Place]:
        for mapping in self.streams:
            runner = runner_of(daemon, mapping)
            for shard in () if runner is None else runner.shards():
                for lane in shard.lanes:
                    assert runner is not None
                    yield Place(mapping, shard.shard, lane, runner)

    def _agreed(self, records: str | list[str], place: Place) -> dict[str, Any]:
        """Every second operator says which batch was seen at fault."""
        part = _part(place)
        if records != "batch" or self._asked % 2 or part is None or not part.entries:
            return {}
        return {BATCH_FIRST: name_of(part.entries[0].record.sequence_number), BATCH_COUNT: len(part.entries)}

    def _records(self, action: Operate, place: Place) -> str | list[str]:
        part = _part(place)
        if action.records != "list" or part is None or not part.entries:
            return "batch" if action.records == "batch" else "first"
        there = [name_of(each.record.sequence_number) for each in part.entries]
        return self.rng.sample(there, self.rng.randint(1, len(there)))


def runner_of(daemon: Daemon, mapping: MappingId) -> StreamMapping | None:
    """The running stream mapping of a worker; None if it does not run now."""
    parts = getattr(daemon, "_open_parts", None)
    supervisor = None if parts is None else parts.running.supervisor(mapping)
    runner = None if supervisor is None else supervisor._runner
    return runner if isinstance(runner, StreamMapping) else None


def _part(place: Place) -> Any:
    shard = place.runner._running.get(place.shard)
    return None if shard is None else shard.run._flow.view(int(place.lane.lane)).part


def state_of(place: Place) -> str:
    """The state of a lane. One with a batch of an earlier run, or with the rest of a skip, is restored."""
    part, state = _part(place), place.lane.state
    return (
        "restored" if part is not None and part.resumed and state not in {"discarding", "paused"} else state
    )
