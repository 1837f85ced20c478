"""Owns the operators that redrive: what was given up is called again at any moment, and all of it once everything is repaired."""

import asyncio
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from random import Random
from typing import Any

from poller.domain.operations import Action as OperatorAction
from poller.domain.operations import Operation, OperationId
from poller.domain.plan import MappingPlan, SourceKind
from poller.domain.records import QueueFacts
from poller.rules.streams.lanes import lane_of
from tests.simulation.checks.checker import Checker
from tests.simulation.checks.ledger import Violation, names
from tests.simulation.services.dead_letters import SimDeadLetters
from tests.simulation.services.fake_plugins import Places, at_once, seeded
from tests.simulation.services.faults import Line, Marks, epoch
from tests.simulation.services.functions import FakeFunction
from tests.simulation.services.notices import Form, Kept, NoticePlace, Reader
from tests.simulation.services.queues import FakeQueue
from tests.simulation.services.streams import FakeStream
from tests.simulation.services.wires import Shapes, Writer
from tests.simulation.worlds.operating import Operators
from tests.simulation.worlds.scenario import (
    DESTINATION,
    HEALED_S,
    Crash,
    Join,
    Pause,
    Redrive,
    Restart,
    Scenario,
    Setup,
)
from tests.virtual import EPOCH_BASE

REDRIVEN_CHANCE = 0.4
MANY_WORKERS_CHANCE = 0.15
REPAIRED_CHANCE = 0.6
TROUBLE_CHANCE = 0.5
DEAD_LETTER_VISIBILITY_S = 30
LAST_TRIES_MAX = 10
"""How often everything is redriven in the end. Some messages can be read only the second time, and those behind them wait for that."""
OVER_S_MAX = 1500.0
LOOK_S = 0.5


def redrives(scenario: Scenario) -> Scenario:
    """A scenario whose operators redrive, too, where something may be given up."""
    rng = seeded(scenario.seed, "redrives")
    given_up = [place for place, each in enumerate(scenario.setups) if gives_up(each)]
    if not given_up or rng.random() > REDRIVEN_CHANCE:
        return scenario
    moments = [each.at for each in scenario.actions if isinstance(each, Crash | Restart | Join | Pause)]
    asked = tuple(_redrives(rng, given_up, moments))
    troubles = tuple(_troubles(rng, asked)) if moments else ()
    actions = tuple(sorted((*scenario.actions, *asked, *troubles), key=lambda each: each.at))
    setups = tuple(_repaired(rng, each) for each in scenario.setups)
    workers = rng.choice((4, 8)) if rng.random() < MANY_WORKERS_CHANCE else scenario.workers
    return replace(scenario, actions=actions, setups=setups, workers=workers)


def gives_up(setup: Setup) -> bool:
    """Whether there is a place for what a mapping cannot settle."""
    if setup.plan.kind is SourceKind.SQS:
        return setup.facts is not None and setup.facts.redrive_receives_max is not None
    return setup.plan.discard.destination is not None


def _repaired(rng: Random, setup: Setup) -> Setup:
    """A function that is repaired before everything else heals, so that a redrive settles what it failed."""
    if setup.script.poison_heals_at is not None or rng.random() > REPAIRED_CHANCE:
        return setup
    return replace(setup, script=replace(setup.script, poison_heals_at=EPOCH_BASE + rng.uniform(8.0, 50.0)))


def _redrives(rng: Random, given_up: Sequence[int], moments: Sequence[float]) -> Iterator[Redrive]:
    for _ in range(rng.choice((1, 2, 3, 5))):
        at = rng.uniform(3.0, HEALED_S - 1.0)
        if moments and rng.random() < 0.5:
            at = min(max(3.0, rng.choice(moments) - rng.uniform(0.0, 6.0)), HEALED_S - 1.0)
        yield Redrive(
            at=at,
            setup=rng.choice(given_up),
            limit=rng.choice((None, None, None, 1, 3)),
            per_s=rng.choice((None, None, None, 0.5, 5.0)),
            dry_run=rng.random() < 0.1,
            cancelled_s=rng.choice((None, None, None, 0.0, 2.0, 8.0)),
        )


def _troubles(rng: Random, asked: Sequence[Redrive]) -> Iterator[Crash | Restart | Pause | Join]:
    """What happens to workers while one of them redrives. It is another one that goes on, or the same one later."""
    for each in asked:
        if rng.random() < TROUBLE_CHANCE:
            at, pick = min(each.at + rng.uniform(0.5, 9.0), HEALED_S - 0.5), rng.random()
            match rng.choice(("crash", "crash", "restart", "pause", "join")):
                case "crash":
                    yield Crash(at, rng.choice((0.5, 5.0, 30.0)), pick)
                case "restart":
                    yield Restart(at, pick)
                case "pause":
                    yield Pause(at, rng.uniform(5.0, 40.0), rng.choice((None, 3.0)), pick)
                case _:
                    yield Join(at)


def dead_letters_of(source_arn: str) -> str:
    """The ARN of the dead-letter queue of a queue."""
    name, fifo, _ = source_arn.partition(".fifo")
    return f"{name}-dead{fifo}"


@dataclass(slots=True)
class Redrivers:
    """The operators of a world that redrive, and the places of what was given up."""

    scenario: Scenario
    sources: Mapping[str, FakeStream | FakeQueue]
    functions: Mapping[str, FakeFunction]
    court: Checker
    operators: Operators
    marks: Marks
    notices: NoticePlace = field(init=False)
    dead: dict[str, FakeQueue] = field(default_factory=dict)

    def __post_init__(self) -> None:
        rng = seeded(self.scenario.seed, "places of notices")
        forms = rng.choice((tuple(Form), tuple(Form), (Form.PLAIN,), (Form.PAYLOAD,)))
        self.notices = NoticePlace(rng=rng, forms=forms, strays=rng.choice((0.0, 0.0, 0.1)))
        unreadable = rng.choice((0.0, 0.0, 0.1))
        for setup in self.scenario.setups:
            queue = self.sources[setup.plan.source_arn]
            if isinstance(queue, FakeQueue) and gives_up(setup):
                facts = QueueFacts(DEAD_LETTER_VISIBILITY_S, queue.facts.fifo)
                writer = Writer(Shapes(unreadable=unreadable), seed=self.scenario.seed, saw=self.marks.saw)
                queue.dead_letters = FakeQueue(facts, seed=self.scenario.seed, writer=writer)
                there = dead_letters_of(setup.plan.source_arn)
                queue.facts = replace(queue.facts, dead_letter_arn=there)
                self.dead[there] = queue.dead_letters
        self.court.redrives.notices, self.court.redrives.dead = self.notices, self.dead

    def places(self) -> Places:
        """What workers open."""
        makers = {
            dead_letters_of(setup.plan.source_arn): self._maker(setup.plan)
            for setup in self.scenario.setups
            if dead_letters_of(setup.plan.source_arn) in self.dead
        }
        return Places(self.notices, self.court, makers)

    async def ask(self, action: Redrive) -> None:
        """Somebody asks for a redrive, and cancels it after its time."""
        plan = self.scenario.setups[action.setup].plan
        members = {"limit": action.limit, "messages_per_s": action.per_s, "dry_run": action.dry_run or None}
        given = {name: value for name, value in members.items() if value is not None}
        if plan.mapping in self.operators.streams:
            self.operators.look(OperatorAction.REDRIVE, plan.mapping)
        operation = await self.operators.submit(plan.mapping, _document(plan) | given)
        if operation is not None and action.cancelled_s is not None:
            await asyncio.sleep(action.cancelled_s)
            await self.operators.cancel(operation)

    async def finish(self, judge: Callable[[], None]) -> None:
        """All functions are repaired, and everything is redriven: what stays cannot be called."""
        if not any(isinstance(each, Redrive) for each in self.scenario.actions):
            return
        for function in self.functions.values():
            function.script = replace(function.script, poison_heals_at=epoch())
        for setup in self.scenario.setups:
            if gives_up(setup):
                await self._finish(setup.plan, judge)

    async def _finish(self, plan: MappingPlan, judge: Callable[[], None]) -> None:
        text = ""
        for _ in range(LAST_TRIES_MAX):
            if not (left := self._left(plan)):
                return
            await self._all_visible(judge)
            operation = await self.operators.insist(plan.mapping, _document(plan))
            text = (await self._over(operation, judge)).result
        if left := self._left(plan):
            raise Violation("redrive", f"{names(left)} of {plan.mapping} stay: {text}")

    async def _all_visible(self, judge: Callable[[], None]) -> None:
        """Waits for what a reader could not show again when it ended. It may have hidden it for longer than one waits now."""
        while any(until > epoch() for until in self._hidden_until()):
            judge()
            await asyncio.sleep(LOOK_S)

    def _hidden_until(self) -> Iterator[float]:
        yield from (each.hidden_until for each in self.notices.left())
        for queue in self.dead.values():
            yield from (each.visible_at for each in queue.letters.values() if each.here)

    async def _over(self, operation: OperationId, judge: Callable[[], None]) -> Operation:
        deadline = epoch() + OVER_S_MAX
        while epoch() < deadline:
            judge()
            for each in at_once(self.operators.store.operations(over=True)):
                if each.operation == operation:
                    return each
            await asyncio.sleep(LOOK_S)
        raise Violation("redrive", f"{operation} is not over")

    def _maker(self, plan: MappingPlan) -> Callable[[Line], SimDeadLetters]:
        arn, mapping = dead_letters_of(plan.source_arn), plan.mapping
        return lambda line: SimDeadLetters(self.dead[arn], Reader(line, arn, mapping), self.court)

    def _left(self, plan: MappingPlan) -> list[str]:
        """What is left of a mapping although it could be called."""
        if plan.kind is SourceKind.SQS:
            queue = self.dead[dead_letters_of(plan.source_arn)]
            return [each.message_id for each in queue.letters.values() if each.here]
        return [each.name for each in self.notices.left() if self._callable(plan, each)]

    def _callable(self, plan: MappingPlan, kept: Kept) -> bool:
        if kept.notice is None or kept.notice.mapping != plan.mapping:
            return False
        if len(kept.notice.payload) > plan.batch.payload_bytes_max:
            return False
        wanted = self.court.redrives.batch_of(kept)
        return bool(wanted) and (kept.form is not Form.PLAIN or self._there(plan, kept, wanted))

    def _there(self, plan: MappingPlan, kept: Kept, wanted: Sequence[int]) -> bool:
        """Whether the stream still has exactly these records between the first and the last one, in their lane."""
        stream = self.sources[plan.source_arn]
        assert isinstance(stream, FakeStream)
        assert kept.notice is not None
        state = stream.shards.get(kept.notice.shard)
        records = [] if state is None else state.records[state.trimmed :]
        between = [each for each in records if wanted[0] <= each.sequence <= wanted[-1]]
        passing = [each for each in between if each.content.keep or not plan.filters]
        if len(passing) > len(wanted):
            lane = lane_of(passing[0].key, plan.stream.lanes)
            passing = [each for each in passing if lane_of(each.key, plan.stream.lanes) == lane]
        return [each.sequence for each in passing] == list(wanted)


def _document(plan: MappingPlan) -> dict[str, Any]:
    """A request to redrive all that a mapping gave up."""
    place = dead_letters_of(plan.source_arn) if plan.kind is SourceKind.SQS else DESTINATION
    return {"action": "redrive", "from": place}
