"""A redrive of a dead-letter queue in drawn worlds: the function has no room for a time, the mapping is paused, and calls to SQS fail or are slow."""

from contextlib import nullcontext
from dataclasses import replace
from random import Random

from hypothesis import given, settings
from hypothesis import strategies as st

from poller.domain.errors import ServiceThrottled
from poller.domain.invocations import FunctionError, Outcome, Succeeded, Throttled
from poller.rules.operations.redriving import RedriveTally
from poller.runtime.operations.long.redriving import HELD_BY_OTHERS, NoticeKept, Redrive
from poller.runtime.queues.operations.redriving import opened_letters
from poller.runtime.stopping import Stop
from tests.runtime.queues.queue_fakes import (
    Handler,
    Service,
    fifo,
    function_of,
    parts,
    plan,
    seconds,
    standard,
)
from tests.runtime.queues.test_redriving import LETTERS, unsaid, unseen
from tests.virtual import run_virtual, virtual_clock


class Drawn:
    """One world. The hold of a message is long enough for its call, as it is in a daemon."""

    def __init__(self, chance: Random) -> None:
        self.made = chance.choice((standard, fifo))
        self.letters: Service = self.made(chance.choice((5, 30)))
        self.letters.latency_s = chance.choice((0.0, 0.05))
        self.numbers = range(1, chance.randint(2, 7))
        for number in self.numbers:
            self.letters.send(number, group=chance.choice("ab") if self.made is fifo else None)
        self.bad = {number for number in self.numbers if chance.random() < 0.2}
        self.takes_s = chance.uniform(0.0, 3.0)
        self.hold_s = round(self.takes_s) + chance.randint(6, 40)
        self.full = self._windows(chance)
        self.paused = self._windows(chance)
        self.limit = chance.choice((None, None, 1, 3))
        self.broken = chance.random() < 0.3
        if self.broken:
            for call, most in (("extend", 3), ("delete", 4), ("receive", 2)):
                self.letters.trouble[call] = [ServiceThrottled("busy")] * chance.randint(0, most)

    def _windows(self, chance: Random) -> list[tuple[float, float]]:
        starts = [chance.uniform(-5.0, 25.0) for _ in range(chance.randint(0, 3))]
        return [(start, start + chance.uniform(1.0, 200.0)) for start in starts]

    def answer(self, got: list[int]) -> Outcome:
        """The function has no room at times, and fails some messages."""
        if _inside(self.full):
            return Throttled("no room")
        return FunctionError("ValueError", "bad") if set(got) & self.bad else Succeeded(b"")

    async def redriven(self, handler: Handler) -> RedriveTally | None:
        """Redrives once."""
        own = self.made()
        own.queue.facts = replace(own.queue.facts, dead_letter_arn=LETTERS)
        context, opened = parts(own, function_of(handler), plan(own)), nullcontext(self.letters)
        async with opened_letters(
            context, LETTERS, lambda *_, **__: opened, hold_s=self.hold_s, look=False
        ) as place:
            redrive = Redrive(
                place.redrivable,
                place.notices,
                Stop(),
                clock=virtual_clock(),
                wait_s=lambda tries: min(30.0, 0.5 * 2**tries),
                held=lambda: _inside(self.paused),
                changed=unseen,
                waits=unsaid,
                hold_s=self.hold_s,
            )
            return await redrive.run(limit=self.limit, per_s=None)


def _inside(windows: list[tuple[float, float]]) -> bool:
    return any(begin <= seconds() < end for begin, end in windows)


@settings(max_examples=150, deadline=None)
@given(seed=st.integers(0, 2**32 - 1))
def test_what_is_settled_is_gone_and_was_called_once_and_the_rest_stays(seed: int) -> None:
    world = Drawn(Random(seed))
    handler = Handler(takes_s=world.takes_s, answer=world.answer)
    try:
        tally = run_virtual(world.redriven(handler))
    except NoticeKept:
        assert world.broken, "its hold was over although all calls to SQS succeeded"
        return
    assert tally is not None
    left = set(world.letters.left)
    assert sorted(handler.done) == sorted(set(world.numbers) - left), "settled once, and gone"
    assert tally.settled == len(handler.done)
    if world.limit is None and world.made is standard:
        said = HELD_BY_OTHERS in dict(tally.reasons)
        assert not said or world.broken, "nobody else reads"
        assert left <= world.bad or said, "nothing stays that the function takes, without a word of it"
    for group in {letter.group for letter in world.letters.queue.letters.values()}:
        members = [
            letter.content.number
            for letter in world.letters.queue.letters.values()
            if group is not None and letter.group == group
        ]
        ahead = members[: next((at for at, each in enumerate(members) if each in left), len(members))]
        assert [each for each in handler.done if each in members] == ahead, "in the order of its group"
