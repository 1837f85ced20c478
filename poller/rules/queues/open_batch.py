"""Owns the one batch of a queue mapping that gathers in its window, and which poller closes it.

While a batch gathers and can take more, all receives of its mapping go to it: a second batch opens when the first is closed. The poller
whose messages opened it is its keeper. The keeper receives no longer than the window lasts, and closes the batch when it is over. Other
pollers receive beside it for as long as they like; one that makes the batch full closes it in the keeper's place. Each of them
holds a slot of the function, so whoever closes a batch can run it, and what is left over can open the next one.
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
        self._keeper: int | None = None

    @property
    def letters(self) -> tuple[QueueItem, ...]:
        """The items gathered up to now."""
        return () if self._batch is None else tuple(self._batch.letters)

    def kept_by(self, poller: int) -> bool:
        """Whether this poller is the keeper of the open batch."""
        return self._keeper == poller

    def step(self, poller: int, *, now: Monotonic, wait_s: int, contended: bool) -> ReceiveStep:
        """What this poller must do now; arguments as for `ReceiveBatch.step`. On CloseBatch it calls `close`."""
        if self._batch is None or self._keeper != poller:
            return Receive(min(MESSAGES_MAX, self._policy.records_max), wait_s)
        return self._batch.step(now=now, wait_s=wait_s, contended=contended)

    def received(
        self, poller: int, letters: Sequence[QueueItem], *, drained: bool, now: Monotonic
    ) -> list[QueueItem]:
        """Takes what a receive brought; returns the batch that this poller must run now, empty for none."""
        if self._batch is None:
            if not letters:
                return []
            self._batch, self._keeper = ReceiveBatch(self._policy), poller
        taken = self._batch.room_for(letters)
        self._batch.add(letters[:taken], drained=drained, now=now)
        rest = letters[taken:]
        if not rest and not self._batch.finished(now):
            return []
        return self._completed(poller, rest, drained=drained, now=now)

    def close(self, poller: int) -> list[QueueItem]:
        """Closes the batch if this poller is its keeper; returns the items to run, empty for none."""
        if self._batch is None or self._keeper != poller:
            return []
        letters = self._batch.letters
        self._batch = self._keeper = None
        return letters

    def _completed(
        self, poller: int, rest: Sequence[QueueItem], *, drained: bool, now: Monotonic
    ) -> list[QueueItem]:
        """Closes the batch. What it has no room for opens the next one, under the same keeper.

        It goes with the closed batch, as the event behind it, when the keeper itself has to run it or when no window can be of use.
        """
        assert self._batch is not None, "nothing to complete"
        letters = self._batch.letters
        if rest and self._keeper != poller:
            following = ReceiveBatch(self._policy)
            whole = following.room_for(rest) == len(rest)
            following.add(rest, drained=drained, now=now)
            if whole and not following.finished(now):
                self._batch = following
                return letters
        self._batch = self._keeper = None
        return [*letters, *rest]
