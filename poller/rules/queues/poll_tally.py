"""Owns the counts for the scaling rule: the results of receives and invocations since the last step."""

from dataclasses import dataclass

from poller.rules.queues.scaling import PollStats


@dataclass(slots=True)
class PollTally:
    """Counts since the last `take`; `PollStats` says what each count means."""

    _full: int = 0
    _some: int = 0
    _empty: int = 0
    _idle: int = 0
    _done: int = 0
    _failed: int = 0
    _refused: int = 0
    _deferred: int = 0

    def count_receive(self, *, messages: int, fresh: int, asked: int) -> None:
        """Counts one receive. A receive with only messages that are already here does not show a backlog."""
        if not messages:
            self._empty += 1
        elif not fresh or messages < asked:
            self._some += 1
        else:
            self._full += 1

    def count_idle(self) -> None:
        """A poller has found nothing for IDLE_S."""
        self._idle += 1

    def count_done(self) -> None:
        """The function processed messages of an event."""
        self._done += 1

    def count_failed(self) -> None:
        """The function failed messages of an event."""
        self._failed += 1

    def count_refused(self) -> None:
        """The queue refused a receive, or the function refused a batch in a way that should slow all pollers."""
        self._refused += 1

    def count_deferred(self) -> None:
        """The function refused a batch again. This shows nothing about other batches."""
        self._deferred += 1

    def take(self, *, waiting: int) -> PollStats:
        """Returns the counts and starts again at zero. `waiting` is how many pollers wait now."""
        stats = PollStats(
            full=self._full,
            some=self._some,
            empty=self._empty,
            idle=self._idle,
            done=self._done,
            failed=self._failed,
            refused=self._refused,
            deferred=self._deferred,
            waiting=waiting,
        )
        self._full = self._some = self._empty = self._idle = 0
        self._done = self._failed = self._refused = self._deferred = 0
        return stats
