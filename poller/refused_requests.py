"""Owns the count of requests that are turned away because of who sent them, on their way to the daemon's observers.

Adapters that take requests count here. Where nobody observes, in commands that only look, nothing is told.
"""

from poller.domain.telemetry import Listener, Observer, RefusedFor, StrangerRefused


class Strangers:
    """Takes each refusal; the observers throttle what they log of them."""

    def __init__(self) -> None:
        self.observer: Observer | None = None

    def refused(
        self, listener: Listener, reason: RefusedFor, *, function: str = "", uid: int | None = None
    ) -> None:
        """One request or connection was refused; `uid` is the user at the other end, if that is known."""
        if self.observer is not None:
            self.observer.on(StrangerRefused(listener=listener, reason=reason, function=function, uid=uid))
