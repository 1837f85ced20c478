"""Owns the promises of tumbling windows: each record counted once in its window's state, each window closed."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime

from poller.records import Outcome, ShardId, Succeeded
from tests.simulation.faults import Marks
from tests.simulation.functions import Delivery
from tests.simulation.ledger import Flight, Violation, names
from tests.simulation.streams import Held

type WindowId = tuple[ShardId, float]
"""A shard and the epoch second at which the window begins."""


@dataclass(slots=True)
class WindowChecks:
    """The windows of one mapping; functions keep the numbers of the records that they have done as state."""

    length_s: int
    marks: Marks
    closed: set[WindowId] = field(default_factory=set)
    finals_given_up: dict[ShardId, int] = field(default_factory=dict)

    def begins(
        self,
        delivery: Delivery,
        shard: ShardId,
        records: Sequence[Held],
        everything: Sequence[Held],
        due: set[int],
    ) -> None:
        """An event is handed to the function; `everything` is what the shard has, `due` what has to be in the end."""
        start = self._start(delivery)
        inside = [held for held in everything if self._begin_of(held) == start]
        numbers = [int(each) for each in delivery.event["state"].get("numbers", [])]
        if strangers := [each.sequence for each in records if each not in inside]:
            raise Violation(
                "window", f"{names(strangers)} of {shard} do not belong to the window from {start}"
            )
        self._counted_once(numbers, records, inside)
        if delivery.event["isFinalInvokeForWindow"]:
            self._complete(numbers, inside, due)

    def ends(self, flight: Flight, shard: ShardId, outcome: Outcome | None) -> None:
        """The worker has the outcome, or never will."""
        if flight.delivery.event["isFinalInvokeForWindow"] and isinstance(outcome, Succeeded):
            self.closed.add((shard, self._start(flight.delivery)))
            self.marks.saw("window closed")

    def given_up(self, shard: ShardId) -> None:
        """The final call of some window of the shard was given up."""
        self.finals_given_up[shard] = self.finals_given_up.get(shard, 0) + 1

    def left_open(self, shard: ShardId, done: Sequence[Held]) -> list[float]:
        """Windows of these records, all done by the function, that were never closed."""
        windows = sorted({self._begin_of(held) for held in done})
        still = [each for each in windows if (shard, each) not in self.closed]
        return still[self.finals_given_up.get(shard, 0) :]

    def _start(self, delivery: Delivery) -> float:
        window = delivery.event["window"]
        start, end = (datetime.fromisoformat(window[each]).timestamp() for each in ("start", "end"))
        if end - start != self.length_s or start % self.length_s:
            raise Violation("window", f"from {start} to {end}, which is no window of {self.length_s} s")
        return start

    def _begin_of(self, held: Held) -> float:
        return held.arrived // self.length_s * self.length_s

    def _counted_once(self, numbers: Sequence[int], records: Sequence[Held], inside: Sequence[Held]) -> None:
        known = {held.content.number for held in inside}
        twice = {held.content.number for held in records} & set(numbers)
        if twice or len(numbers) != len(set(numbers)):
            raise Violation("window", f"{names(sorted(twice) or numbers)} would be counted twice")
        if foreign := set(numbers) - known:
            raise Violation("window", f"the state has {names(sorted(foreign))} of another window")

    def _complete(self, numbers: Sequence[int], inside: Sequence[Held], due: set[int]) -> None:
        wanted = {held.content.number for held in inside if held.sequence in due}
        if missing := wanted - set(numbers):
            raise Violation("window", f"the final state lacks {names(sorted(missing))}")
