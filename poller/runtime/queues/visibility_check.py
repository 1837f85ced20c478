"""Owns the comparison of a queue's visibility timeout with its function's time limit. Both may change while the mapping runs.

AWS refuses a mapping whose visibility timeout is shorter than its function's time limit. A mapping that runs already, or that is in
the configuration file, goes on, and people get a warning.
"""

from poller.domain.telemetry.mapping_events import VisibilityTooShort
from poller.rules.queues.queue_checks import short_visibility_text
from poller.runtime.queues.context import QueueContext


class VisibilityCheck:
    """The comparison for one mapping. Each change for the worse is reported once."""

    def __init__(self, parts: QueueContext, visibility_s: int) -> None:
        self._parts = parts
        self._visibility_s = visibility_s
        self._reported: tuple[int, float] | None = None
        self.compare()

    @property
    def notes(self) -> tuple[str, ...]:
        """Notes for people, one line each."""
        if self._reported is None:
            return ()
        return (f"mapping {self._parts.plan.mapping}: {short_visibility_text(*self._reported)}",)

    def queue_changed(self, visibility_s: int) -> None:
        """Takes the queue's present visibility timeout."""
        self._visibility_s = visibility_s
        self.compare()

    def compare(self) -> None:
        """Compares both values. It is called when the function's limit may have changed."""
        timeout_s = self._parts.function.known_limit_s(self._parts.plan.function_arn)
        short = timeout_s is not None and self._visibility_s < timeout_s
        found = (self._visibility_s, timeout_s) if timeout_s is not None and short else None
        if found is not None and found != self._reported:
            self._parts.observer.on(
                VisibilityTooShort(
                    mapping=self._parts.plan.mapping, visibility_s=found[0], timeout_s=found[1]
                )
            )
        self._reported = found
