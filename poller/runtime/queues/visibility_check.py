"""Owns the comparison of a queue's visibility timeout with its function's time limit while both may change.

AWS refuses a mapping whose queue shows messages again before the function has to be done. One that runs already, or that
stands in the configuration file, goes on, and people are told.
"""

from poller.domain.telemetry import VisibilityTooShort
from poller.rules.queues.queue_checks import short_visibility_text
from poller.runtime.queues.context import QueueContext


class VisibilityCheck:
    """The comparison for one mapping; each change to the worse is told once."""

    def __init__(self, parts: QueueContext, visibility_s: int) -> None:
        self._parts = parts
        self._visibility_s = visibility_s
        self._told: tuple[int, float] | None = None
        self.look()

    @property
    def notes(self) -> tuple[str, ...]:
        """What people should know now, one line each."""
        if self._told is None:
            return ()
        return (f"mapping {self._parts.plan.mapping}: {short_visibility_text(*self._told)}",)

    def queue_says(self, visibility_s: int) -> None:
        """Takes what the queue says of itself."""
        self._visibility_s = visibility_s
        self.look()

    def look(self) -> None:
        """Compares; called when the function's limit may be another."""
        timeout_s = self._parts.function.known_limit_s(self._parts.plan.function_arn)
        short = timeout_s is not None and self._visibility_s < timeout_s
        found = (self._visibility_s, timeout_s) if timeout_s is not None and short else None
        if found is not None and found != self._told:
            self._parts.observer.on(
                VisibilityTooShort(
                    mapping=self._parts.plan.mapping, visibility_s=found[0], timeout_s=found[1]
                )
            )
        self._told = found
