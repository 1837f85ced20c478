"""Owns what signals do to a daemon: the first one stops it, each further one cancels it.

A process of a supervisor is stopped by any signal and cancelled by none. The supervisor says when it shall be cut short, since
a signal may come twice: from the terminal or the service manager to all processes, and from the supervisor.
"""

import asyncio
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

from poller.commands.run import early_signals
from poller.commands.run.early_signals import SIGNALS
from poller.commands.run.ending import CancelledFromInside


class Stopping:
    """Handles signals. `supervised`: the daemon is a process of a supervisor."""

    def __init__(
        self,
        stop: Callable[[], None],
        cancel: Callable[[], object],
        signalled: Callable[[str], None],
        *,
        supervised: bool = False,
    ) -> None:
        self.supervised = supervised
        self.on_stop: Callable[[], object] = bool
        """Called after each stop."""
        self._signalled = signalled
        self._stop = stop
        self._cancel = cancel
        self._asked = False
        self._cancelled = False

    @contextmanager
    def known(self) -> Iterator[None]:
        """Raises CancelledFromInside in place of a cancellation that no signal asked for."""
        try:
            yield
        except asyncio.CancelledError:
            if self._cancelled:
                raise
            raise CancelledFromInside from None

    def on_signal(self, name: str) -> None:
        """Takes one signal, SIGTERM or SIGINT."""
        if self._asked and self.supervised:
            return
        self._signalled(name)
        if self._asked:
            self._cancelled = True
            self._cancel()
        self._asked = True
        self._stop()
        self.on_stop()

    def cut_short(self, name: str) -> None:
        """Cancels what still runs, as the supervisor wants; `name` says why."""
        self._signalled(name)
        self._asked = self._cancelled = True
        self._stop()
        self._cancel()


@contextmanager
def signals_taken(stopping: Stopping, at_once: Callable[[int, FrameType | None], None]) -> Iterator[None]:
    """On a signal, calls `stopping.on_signal` on the loop, and `at_once` immediately, even while the loop is blocked."""
    loop = asyncio.get_running_loop()
    before = {each: signal.getsignal(each) for each in SIGNALS}
    for each in SIGNALS:
        loop.add_signal_handler(each, stopping.on_signal, each.name)
        # The loop gets signals through a file descriptor, so Python's own handler can be used for `at_once`.
        signal.signal(each, at_once)
        signal.siginterrupt(each, False)
    try:
        yield
    finally:
        for each in SIGNALS:
            loop.remove_signal_handler(each)
            # The loop does not restore the earlier handler, not even if the signal was ignored. None means that the handler
            # was not set from Python; Python cannot restore such a handler.
            if before[each] is not None:
                after = early_signals.after(before[each])
                signal.signal(each, early_signals.disregard if stopping.supervised else after)
