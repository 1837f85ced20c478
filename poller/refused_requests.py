"""Owns how adapters report requests that they refused because of their sender.

Adapters that take requests report here, and the daemon passes the reports on to its observers. Commands such as `check` have no
observers, so reports have no effect there.
"""

from poller.domain.telemetry.daemon_events import StrangerRefused
from poller.domain.telemetry.labels import Listener, RefusedFor
from poller.domain.telemetry.observers import Observer


class Strangers:
    """Takes one report for each refused request. Observers limit how many of them they log."""

    def __init__(self) -> None:
        self.observer: Observer | None = None

    def refused(
        self, listener: Listener, reason: RefusedFor, *, function: str = "", uid: int | None = None
    ) -> None:
        """One request or connection was refused; `uid` is the user at the other end, if that is known."""
        if self.observer is not None:
            self.observer.on(StrangerRefused(listener=listener, reason=reason, function=function, uid=uid))
