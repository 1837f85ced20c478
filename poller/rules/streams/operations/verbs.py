"""Owns an operator's actions on one shard: retry, reset, skip and pause. It changes the lanes of the shard's flow.

The runtime calls `retry`, `reset` and `resolve` for a lane only while no call of the lane runs and no notice of it is delivered. A
skip is added at any time; the flow carries it out when it is asked for the lane's next step. Texts are one line for people.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from poller.domain.operations import OperatorPause
from poller.domain.policies import Backoff
from poller.domain.records import Epoch, Monotonic, ShardId
from poller.domain.untrusted.texts import line_of
from poller.rules.streams.blocked_since import BlockedSince
from poller.rules.streams.lanes import LaneState
from poller.rules.streams.operations import on_batch
from poller.rules.streams.operations.interventions import (
    Interventions,
    PendingSkip,
    SkipId,
    by_lane,
    skip_id,
    text_of,
)
from poller.rules.streams.tracking import RecordTracker
from poller.rules.streams.windowed_batches import WindowedBatches

NAMED_MAX = 10
"""Lanes or ids that a text names."""
ID_CHARACTERS_MAX = 64


@dataclass(frozen=True, slots=True)
class Refused:
    """The action cannot be carried out. `reason` says what there is."""

    reason: str


@dataclass(frozen=True, slots=True)
class Resolved:
    """The ids of the records that a skip means."""

    records: tuple[str, ...]


class OperatorVerbs:
    """What operators may do to the lanes of one shard."""

    def __init__(
        self,
        lanes: Sequence[LaneState],
        tracker: RecordTracker,
        blocked: BlockedSince,
        *,
        windowed: WindowedBatches | None,
        backoff: Backoff,
    ) -> None:
        self.interventions = Interventions()
        self._lanes = lanes
        self._tracker = tracker
        self._blocked = blocked
        self._windowed = windowed
        self._backoff = backoff

    @property
    def restored(self) -> bool:
        """Whether the batches of an earlier run are there again. Until then, nothing is found in them."""
        return self._tracker.restored

    def pause(self, pauses: Sequence[OperatorPause] | None, shard: ShardId) -> Sequence[int]:
        """Takes all pauses in force, None if they are not known yet. Returns the lanes for which something changed."""
        return self.interventions.set_pauses(by_lane(pauses, shard, range(len(self._lanes))))

    def lane(self, named: int | None) -> int | Refused:
        """The lane that is meant: the named one, else the only blocked one."""
        if named is not None:
            last = len(self._lanes) - 1
            if 0 <= named <= last:
                return named
            there = "only lane 0" if not last else f"lanes 0 to {last}"
            return Refused(f"lane {named} does not exist: this shard has {there}")
        blocked = [lane for lane in range(len(self._lanes)) if self._blocked.of(lane) is not None]
        if len(blocked) == 1:
            return blocked[0]
        if not blocked:
            return Refused("no lane is blocked: name the lane whose batch is meant, or the records")
        return Refused(f"several lanes are blocked, name one of them: {_named(map(str, blocked))}")

    def has_batch(self, lane: int) -> bool:
        """Whether the lane has a batch that is not settled."""
        return self._lanes[lane].batch is not None

    def retry(self, lane: int, *, now: Monotonic, epoch: Epoch) -> bool:
        """The lane's batch is tried now, and the back-off begins again. Returns whether there is a batch."""
        state = self._lanes[lane]
        if state.batch is None:
            return False
        state.adjust(on_batch.retried(state.batch, now=now))
        self._blocked.due(lane, epoch)
        return True

    def reset(self, lane: int, *, now: Monotonic, epoch: Epoch) -> bool:
        """Attempts and age of the lane's batch count from now. Returns whether there is a batch."""
        state = self._lanes[lane]
        if state.batch is None:
            return False
        work = on_batch.reset(state.batch, self._backoff, now=now, epoch=epoch)
        state.hold(work)
        self._blocked.due(lane, Epoch(epoch + max(0.0, work.resume_at - now)))
        return True

    def resolve(self, lane: int, records: str) -> Resolved | Refused:
        """The ids of the `first` record of the part that the lane tries now, or of the whole `batch`, which is that part."""
        work = self._lanes[lane].batch
        if work is None:
            return Refused(f"lane {lane} tries no batch now")
        part = work.parts[0]
        ids = on_batch.names_of(part)
        if records == "batch":
            return Resolved(ids)
        if part.final:
            return Refused("the call that closes a window has no records: skip it as a batch")
        return Resolved(ids[:1])

    def listed(self, named: int | None, records: Sequence[str]) -> Resolved | Refused:
        """These sequence numbers, if each is in a batch that is tried now, of the named lane or of any, or is settled already."""
        lanes = range(len(self._lanes)) if named is None else (named,)
        there = {
            each
            for lane in lanes
            if (work := self._lanes[lane].batch) is not None
            for part in work.parts
            for each in on_batch.ids_of(part)
        }
        wanted = {text: skip_id(text) for text in records}
        numbers = [each for each in wanted.values() if isinstance(each, int) and each not in there]
        settled = self._tracker.settled_among(numbers)
        unknown = [text for text, each in wanted.items() if each not in there and each not in settled]
        if unknown:
            where = "this shard's batches" if named is None else f"lane {named}'s batch"
            has = f"they have {_named(sorted(map(text_of, there)))}" if there else "nothing is tried now"
            return Refused(f"{_named(unknown)} is not in {where}; {has}")
        return Resolved(tuple(wanted))

    def skip(self, records: Iterable[str], *, send: bool) -> PendingSkip:
        """Begins to skip these records: each as soon as it is in a lane's batch, and no call of that lane runs."""
        ids: list[SkipId] = [each for text in records if (each := skip_id(text)) is not None]
        pending = PendingSkip(ids, send=send)
        self.interventions.add(pending)
        self._tracker.expect_skips()
        self.look()
        return pending

    def withdraw(self, pending: PendingSkip) -> None:
        """Ends a skip. What it has settled stays settled."""
        self.interventions.withdraw(pending)

    def look(self) -> None:
        """Notes records of skips that something else has settled, or that are gone."""
        tracker = self._tracker
        self.interventions.look(tracker.settled_among, tracker.gone_among, is_open=self._is_open)

    def _is_open(self, closing: str) -> bool:
        """Whether the call that closes the open window may be the one that an id means."""
        windowed = self._windowed
        if windowed is None or windowed.end is None:
            return False
        return on_batch.may_close(closing, ends=windowed.end, counted=windowed.counted)


def _named(texts: Iterable[str]) -> str:
    """Some of these texts, for people."""
    every = [line_of(text, chars_max=ID_CHARACTERS_MAX) for text in texts]
    more = f" and {len(every) - NAMED_MAX} more" if len(every) > NAMED_MAX else ""
    return ", ".join(every[:NAMED_MAX]) + more
