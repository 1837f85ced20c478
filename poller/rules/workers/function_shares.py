"""Owns how workers share the rate of a function, and how a breaker that was closed by hand is closed by all of them.

A worker that has a function with a rate open claims a part of that rate in its heartbeat, in millionths. The parts are equal. It
uses no more than it claimed before it listed the others, and no more than their claims leave; a worker that has just come has
nothing at first. So the parts of all workers never add up to more than the whole. A worker that is gone leaves its part unused
until the others take it for dead. A worker whose heartbeat is late has no part, because the others may have taken it over.

Who closes a breaker by hand announces it in its heartbeats for ANNOUNCED_S seconds, with a number that is another one for each
closing. A worker that sees a number which it has not seen of that worker closes its own breaker, too.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from poller.domain.records import Monotonic, WorkerId
from poller.rules.workers import quota
from poller.rules.workers.worker_report import WorkerReport, short

WHOLE = 1_000_000
"""The whole rate, in the unit of claims."""
ANNOUNCED_S = 60.0
"""How long a closing is announced; a worker that reads no heartbeat for so long does not hear of it."""
SEEN_MAX = 1000
"""Workers whose closings are remembered; those that announced nothing for longest go first."""
ANNOUNCED_MAX = 100
"""Closings that are announced at once; the oldest go first."""


@dataclass(frozen=True, slots=True)
class SharesListed:
    """What a listing has shown: functions whose breaker was closed by hand elsewhere, and whether the next heartbeat should not wait."""

    closed: tuple[str, ...] = ()
    beat_soon: bool = False


@dataclass(slots=True)
class _Own:
    """A function that is open here. `claimed` is this worker's claim before the last listing, in millionths."""

    name: str
    claimed: int = 0


@dataclass(slots=True)
class _Closing:
    function: str
    number: int
    until: Monotonic


class FunctionShares:
    """What one worker knows of the functions that it shares with others. `now` is its monotonic clock."""

    def __init__(self, worker: WorkerId) -> None:
        self._worker = worker
        self._own: dict[str, _Own] = {}
        self._closings: dict[str, _Closing] = {}
        self._shown: Mapping[str, int] = {}
        self._others: Mapping[WorkerId, WorkerReport] | None = None
        self._seen: dict[WorkerId, Mapping[str, int]] = {}

    # Verbs.

    def join(self, function: str) -> None:
        """The function is open here from now on."""
        self._own[function] = _Own(short(function))

    def leave(self, function: str) -> None:
        """The function is closed here."""
        del self._own[function]

    def announce_closed(self, function: str, *, number: int, now: Monotonic) -> None:
        """Somebody closed the function's breaker by hand, at this worker. `number` is higher than that of any closing before."""
        name = short(function)
        self._closings.pop(name, None)
        self._closings[name] = _Closing(function, number, Monotonic(now + ANNOUNCED_S))
        while len(self._closings) > ANNOUNCED_MAX:
            del self._closings[next(iter(self._closings))]

    def report(self, now: Monotonic) -> tuple[dict[str, int], dict[str, int]]:
        """The claims and the closings for the next heartbeat."""
        self._closings = {name: each for name, each in self._closings.items() if each.until > now}
        return self._claims(), {name: each.number for name, each in self._closings.items()}

    def written(self, claims: Mapping[str, int]) -> None:
        """The store has taken the heartbeat with these claims."""
        self._shown = claims

    def listed(self, others: Mapping[WorkerId, WorkerReport]) -> SharesListed:
        """Takes in the reports of the other live workers, which were listed after that heartbeat."""
        self._others = others
        for own in self._own.values():
            own.claimed = self._shown.get(own.name, 0)
        fresh = {
            name
            for worker, report in others.items()
            for name, number in report.closed.items()
            if self._seen.get(worker, {}).get(name) != number
        }
        self._remember(others)
        closed = tuple(function for function, own in self._own.items() if own.name in fresh)
        return SharesListed(closed, beat_soon=self._claims() != self._shown)

    def _remember(self, others: Mapping[WorkerId, WorkerReport]) -> None:
        """Keeps the numbers of closings, also those of workers that are not heard now: one that stood still announces them again."""
        for worker, report in others.items():
            if report.closed:
                self._seen[worker] = {**self._seen.pop(worker, {}), **report.closed}
        while len(self._seen) > SEEN_MAX:
            del self._seen[next(iter(self._seen))]

    # Questions.

    def share(self, function: str) -> float:
        """This worker's share of the function's rate, 0 to 1, as long as its heartbeats are not late."""
        own = self._own.get(function)
        if own is None or self._others is None:
            return 0.0
        theirs = sum(report.functions.get(own.name, 0) for report in self._others.values())
        return quota.allowed(WHOLE, share=self._part(own.name), mine=own.claimed, others=theirs) / WHOLE

    def _claims(self) -> dict[str, int]:
        return {own.name: self._part(own.name) for own in self._own.values()}

    def _part(self, name: str) -> int:
        """This worker's equal part; 0 before it has listed the others."""
        if self._others is None:
            return 0
        sharing = [worker for worker, report in self._others.items() if name in report.functions]
        return quota.share_among(name, WHOLE, worker=self._worker, others=sharing)
