"""Owns what operators have asked of a shard and is in force: pauses of its lanes, and skips whose records are not all settled yet."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace

from poller.domain.operations import OperationTarget, OperatorPause
from poller.domain.records import ShardId
from poller.domain.streams.places import begin_of, is_name, text_of_begin
from poller.rules.operations.pauses import holding
from poller.rules.streams.attempts import BatchState, Discard
from poller.rules.streams.operations.on_batch import CLOSING_PREFIX, id_of, ids_of, skipped

type SkipId = int | str
type Among = Callable[[Iterable[int]], set[int]]
"""Those of these beginnings of records of which something is true."""


class PendingSkip:
    """A skip whose records are not all settled yet.

    `left` has those that are not. The counts say what became of the others: `sent` ones were settled after the destination had their
    notice, `dropped` ones without a notice, and `before` ones by something else. The `gone` ones will not be read any more.
    """

    def __init__(self, records: Iterable[SkipId], *, send: bool) -> None:
        self.left: set[SkipId] = set(records)
        self.send = send
        self.sent = 0
        self.dropped = 0
        self.before = 0
        self.gone = 0

    @property
    def numbers(self) -> list[int]:
        """Where the records begin that are left."""
        return [each for each in self.left if isinstance(each, int)]

    def note(self, settled: Iterable[SkipId], *, sent: bool) -> None:
        """Notes what a skip has settled, which may have been another one than this."""
        mine = self.left.intersection(settled)
        self.left -= mine
        if sent:
            self.sent += len(mine)
        else:
            self.dropped += len(mine)

    def note_before(self, settled: Iterable[SkipId]) -> None:
        """Notes what was settled by anything but a skip."""
        mine = self.left.intersection(settled)
        self.left -= mine
        self.before += len(mine)

    def note_gone(self, gone: Iterable[SkipId]) -> None:
        """Notes what will not be read any more."""
        mine = self.left.intersection(gone)
        self.left -= mine
        self.gone += len(mine)


class Interventions:
    """The pauses and the skips of one shard.

    `busy` says whether there is any. A pause is None while nobody knows yet which pauses are in force.
    """

    def __init__(self) -> None:
        self.busy = False
        self.skips: list[PendingSkip] = []
        self._pauses: Mapping[int, OperatorPause | None] = {}
        self._blocking: set[int] = set()
        """Lanes that are blocked by the delivery of a skip's notice, and were not blocked before."""

    def paused(self, lane: int) -> bool:
        """Whether no call may begin in the lane."""
        return lane in self._pauses

    def pause(self, lane: int) -> OperatorPause | None:
        """The pause of a paused lane; None if it is not known."""
        return self._pauses[lane]

    def set_pauses(self, pauses: Mapping[int, OperatorPause | None]) -> Sequence[int]:
        """Takes the pauses in force by lane. Returns the lanes for which something changed."""
        before, self._pauses = self._pauses, dict(pauses)
        self._note_busy()
        return [lane for lane in sorted({*before, *pauses}) if _state(before, lane) != _state(pauses, lane)]

    def add(self, skip: PendingSkip) -> None:
        """Adds a skip."""
        self.skips.append(skip)
        self._note_busy()

    def withdraw(self, skip: PendingSkip) -> None:
        """Removes a skip, whether it is finished or not."""
        if skip in self.skips:
            self.skips.remove(skip)
        self._note_busy()

    def next_skip(self, work: BatchState | None) -> tuple[Discard, bool] | None:
        """The next discard for a skip in this batch, and whether a notice is to be sent; None if no record of it is to be skipped.

        Records that any skip drops need no notice.
        """
        if work is None or not self.skips:
            return None
        sent = {each for skip in self.skips for each in skip.left if skip.send}
        dropped = {each for skip in self.skips for each in skip.left if not skip.send}
        if (discard := skipped(work, dropped.__contains__, in_runs=False)) is not None:
            return discard, False
        if (discard := skipped(work, (sent - dropped).__contains__, in_runs=True)) is not None:
            return discard, True
        return None

    def undelivered(self, lane: int) -> None:
        """Says that a notice for a skip could not be delivered, and that this has blocked the lane."""
        self._blocking.add(lane)

    def carried_out(self, lane: int, discard: Discard, *, sent: bool) -> bool:
        """Says that a skip's discard was carried out. Returns whether the lane was blocked only by its notice."""
        ids = [id_of(entry) for entry in discard.entries] or ids_of(discard.part)
        for skip in self.skips:
            skip.note(ids, sent=sent)
        blocking = lane in self._blocking
        self._blocking.discard(lane)
        return blocking

    def look(self, settled_among: Among, gone_among: Among, *, is_open: Callable[[str], bool]) -> None:
        """Notes what something else has settled, and what is gone.

        `is_open` says whether the call that closes the open window may be the one that an id means.
        """
        for skip in self.skips:
            skip.note_before([each for each in skip.left if isinstance(each, str) and not is_open(each)])
            if numbers := skip.numbers:
                skip.note_before(settled_among(numbers))
                skip.note_gone(gone_among(skip.numbers))

    def _note_busy(self) -> None:
        self.busy = bool(self._pauses or self.skips)


def by_lane(
    pauses: Sequence[OperatorPause] | None, shard: ShardId, lanes: range
) -> dict[int, OperatorPause | None]:
    """The pause of each paused lane of a shard: the oldest that covers it. With None, all lanes wait until the pauses are known.

    If the shard has another number of lanes than when a lane was paused, the keys of that lane may be in any lane now. Then all are paused.
    """
    if pauses is None:
        return dict.fromkeys(lanes)
    pauses = [_widened(each) if each.lanes not in {None, len(lanes)} else each for each in pauses]
    found: dict[int, OperatorPause | None] = {}
    for lane in lanes:
        target = OperationTarget(shard=shard, lane=lane)
        if (pause := holding(pauses, target)) is not None:
            found[lane] = pause
    return found


def _widened(pause: OperatorPause) -> OperatorPause:
    """The pause of a lane as one of its whole shard."""
    return replace(pause, target=replace(pause.target, lane=None))


def skip_id(text: str) -> SkipId | None:
    """The id that a text stands for: where a record of this name begins, or the text for a call that closes a window. None for any other text."""
    if text.startswith(CLOSING_PREFIX):
        return text
    return begin_of(text) if is_name(text) else None


def text_of(skip: SkipId) -> str:
    """The text that stands for an id."""
    return skip if isinstance(skip, str) else text_of_begin(skip)


def _state(pauses: Mapping[int, OperatorPause | None], lane: int) -> tuple[bool, OperatorPause | None]:
    return lane in pauses, pauses.get(lane)
