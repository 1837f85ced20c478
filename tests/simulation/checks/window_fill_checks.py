"""Owns the promise that a window fills one batch of a mapping before a second one opens."""

from collections.abc import Iterable
from dataclasses import dataclass, field

from poller.domain.plan import MappingPlan
from tests.simulation.checks.ledger import Violation
from tests.simulation.services.faults import Marks

EVENT_BYTES_LARGE = 1_000_000
"""Mappings with smaller events are not looked at: theirs may be cut in many parts, which run one after the other."""
PRECISION_S = 0.001


@dataclass(slots=True)
class _Gathered:
    """One event: who ran it, by which receives and when its first message arrived there, when it was decided on, and how full it was."""

    worker: str
    receives: frozenset[int]
    opened: float
    closed: float
    records: int
    payload_bytes: int


@dataclass(slots=True)
class WindowFillChecks:
    """The batches of one mapping of a standard queue; others have no window."""

    plan: MappingPlan
    marks: Marks
    held: bool = False
    """Whether the function has a breaker or a rate. Then batches that are closed wait, and when they were closed is not known."""
    _receives: int = 0
    _arrived: dict[tuple[str, str], tuple[float, int]] = field(default_factory=dict)
    """When, and by which receive, a worker got a message last."""
    _before: dict[tuple[str, str], int] = field(default_factory=dict)
    """By which receive it got a message before that, since it last ran it. A queue may give out what a worker holds."""
    _decided: dict[str, float] = field(default_factory=dict)
    """When each request was first tried; a batch that was refused is handed over later."""
    _events: list[_Gathered] = field(default_factory=list)

    def arrives(self, worker: str, message_ids: Iterable[str], now: float) -> None:
        """A receive has brought a worker these messages."""
        self._receives += 1
        for message_id in message_ids:
            if (earlier := self._arrived.get((worker, message_id))) is not None:
                self._before.setdefault((worker, message_id), earlier[1])
            self._arrived[worker, message_id] = now, self._receives

    def tries(self, request_id: str, now: float) -> None:
        """A batch is closed, and tried for the first time."""
        self._decided[request_id] = now

    def runs(self, worker: str, message_ids: Iterable[str], request_id: str, *, payload_bytes: int) -> None:
        """An event is handed to the function."""
        batch = self.plan.batch
        at = self._decided.pop(request_id, None)
        names = [(worker, each) for each in message_ids]
        earlier = {each: self._before.pop(each) for each in names if each in self._before}
        if at is None or self.held or not batch.window_s or batch.payload_bytes_max < EVENT_BYTES_LARGE:
            return
        arrivals = [self._arrived[each] for each in names]
        receives = frozenset(receive for _, receive in arrivals)
        before = frozenset(earlier.get(each, self._arrived[each][1]) for each in names)
        opened = min(arrived for arrived, _ in arrivals)
        closed = min(self._closed(worker, each, at) for each in (receives, before))
        event = _Gathered(worker, receives, opened, closed, len(arrivals), payload_bytes)
        for other in self._events:
            if other.worker == worker and not self._full(other) and not self._full(event):
                self._one_after_the_other(other, event)
        self._events.append(event)
        if event.records > 1:
            self.marks.saw("batch filled in a window")

    def _closed(self, worker: str, receives: frozenset[int], at: float) -> float:
        """What a full batch had no room for goes behind it, and is first tried only when that has run; it was closed with it."""
        if len(receives) > 1:
            return at
        return min(
            [
                at,
                *(
                    each.closed
                    for each in self._events
                    if each.worker == worker and receives <= each.receives
                ),
            ]
        )

    def _full(self, event: _Gathered) -> bool:
        batch = self.plan.batch
        return event.records >= batch.records_max or event.payload_bytes * 1.5 > batch.payload_bytes_max

    def _one_after_the_other(self, one: _Gathered, other: _Gathered) -> None:
        if max(one.opened, other.opened) < min(one.closed, other.closed) - PRECISION_S:
            raise Violation(
                "window fill",
                f"{one.records} and {other.records} messages of {self.plan.source_arn} gathered apart at"
                f" {other.opened:.3f}",
            )
