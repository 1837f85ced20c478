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
    with handled(
        stopping.on_signal, at_once, afterwards=early_signals.disregard if stopping.supervised else None
    ):
        yield


@contextmanager
def handled(
    on_signal: Callable[[str], None],
    at_once: Callable[[int, FrameType | None], None] = early_signals.disregard,
    *,
    afterwards: Callable[[int, FrameType | None], None] | None = None,
) -> Iterator[None]:
    """On a signal, calls `on_signal` with its name on the loop, and `at_once` immediately.

    Then `afterwards` handles signals in a process that is the program itself; None: as `early_signals.after`.
    """
    loop = asyncio.get_running_loop()

    def taken(number: int, frame: FrameType | None) -> None:
        at_once(number, frame)
        loop.call_soon_threadsafe(on_signal, signal.Signals(number).name)

    # Python's own handlers: when the loop's are removed, the default is in place for a moment, and a signal in that moment would
    # end a process that has drained.
    before = {each: signal.signal(each, taken) for each in SIGNALS}
    for each in SIGNALS:
        signal.siginterrupt(each, False)
    try:
        yield
    finally:
        for each, earlier in before.items():
            # None means that the handler was not set from Python; Python cannot restore such a handler.
            if earlier is not None:
                own = earlier is early_signals.leave and afterwards is not None
                signal.signal(each, afterwards if own else early_signals.after(earlier))
