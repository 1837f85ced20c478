"""Owns the open batch of a queue mapping, which gathers messages during its batching window, and which poller closes it.

A mapping has at most one open batch. All its receives go into this batch until it is closed; then the next one is opened. The poller
whose messages opened the batch is its opener. The opener's receives end with the window, and then it closes the batch. Receives of
other pollers may take longer. If another poller makes the batch full, it closes the batch in place of the opener. Every poller holds
a slot of the function, so the one that closes a batch can run it. Messages that do not fit open the next batch.
"""

from collections.abc import Sequence

from poller.domain.policies import BatchPolicy
from poller.domain.records import Monotonic
from poller.rules.queues.polling import MESSAGES_MAX
from poller.rules.queues.receive_batch import QueueItem, Receive, ReceiveBatch, ReceiveStep


class OpenBatch:
    """The open batch of one mapping, if there is one. Pollers are identified by their numbers."""

    def __init__(self, policy: BatchPolicy) -> None:
        self._policy = policy
        self._batch: ReceiveBatch | None = None
        self._opener: int | None = None

    @property
    def items(self) -> tuple[QueueItem, ...]:
        """The items that the batch has now."""
        return () if self._batch is None else tuple(self._batch.items)

    def opened_by(self, poller: int) -> bool:
        """Whether this poller opened the present batch."""
        return self._opener == poller

    def step(self, poller: int, *, now: Monotonic, wait_s: int, contended: bool) -> ReceiveStep:
        """What this poller must do now. The arguments are those of `ReceiveBatch.step`. On CloseBatch the poller calls `close`."""
        if self._batch is None or self._opener != poller:
            return Receive(min(MESSAGES_MAX, self._policy.records_max), wait_s)
        return self._batch.step(now=now, wait_s=wait_s, contended=contended)

    def received(
        self, poller: int, items: Sequence[QueueItem], *, drained: bool, now: Monotonic
    ) -> list[QueueItem]:
        """Takes the items of a receive. Returns the batch that this poller must run now, empty for none."""
        if self._batch is None:
            if not items:
                return []
            self._batch, self._opener = ReceiveBatch(self._policy), poller
        taken = self._batch.room_for(items)
        self._batch.add(items[:taken], drained=drained, now=now)
        rest = items[taken:]
        if not rest and not self._batch.finished(now):
            return []
        return self._completed(poller, rest, drained=drained, now=now)

    def close(self, poller: int) -> list[QueueItem]:
        """Closes the batch if this poller opened it. Returns the items to run, empty for none."""
        if self._batch is None or self._opener != poller:
            return []
        items = self._batch.items
        self._batch = self._opener = None
        return items

    def _completed(
        self, poller: int, rest: Sequence[QueueItem], *, drained: bool, now: Monotonic
    ) -> list[QueueItem]:
        """Closes the batch. Items that do not fit (`rest`) open the next batch, with the same opener.

        They run together with the closed batch, as a further event, if the opener itself closes it or if a new batch would be full at once.
        """
        assert self._batch is not None, "nothing to complete"
        items = self._batch.items
        if rest and self._opener != poller:
            following = ReceiveBatch(self._policy)
            whole = following.room_for(rest) == len(rest)
            following.add(rest, drained=drained, now=now)
            if whole and not following.finished(now):
                self._batch = following
                return items
        self._batch = self._opener = None
        return [*items, *rest]
