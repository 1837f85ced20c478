"""Owns an output that never blocks: text goes into a bounded queue, and a thread writes it to the file descriptor.

The reader of the daemon's stderr may be slow or may not read at all. Then the pipe is full, and a write to it blocks. A write to a
full disk fails. Neither may stop the daemon, so lines are dropped and counted, and the next line that is written is preceded by
a line with their number. This is the only thread in `poller`. A descriptor cannot be made non-blocking instead, because that would
also affect all other processes that share the open file.
"""

import io
import os
import select
import stat
import sys
import threading
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TextIO

from poller.domain.wording.numbers_of import inflected, number_of

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

BYTES_MAX = 4 * 1024 * 1024
"""Bytes that are queued for a slow reader."""
PIECE_BYTES = 100
"""Bytes that a queued piece counts in addition to its own."""
CHUNK_BYTES_MAX = 64 * 1024
"""Bytes that are written in one call, unless a single piece has more."""
DRAIN_S_MAX = 2.0
"""How long the process waits at its end until the queue is written."""
STREAMS = ("stdout", "stderr")


def plain_notice(lines: int) -> str:
    """The notice about dropped lines if there is no log that gives a format."""
    return f"poller: {number_of(lines, 'line')} dropped: nobody read {inflected(lines, 'it', 'them')}, or {inflected(lines, 'it', 'they')} could not be written\n"


@dataclass(slots=True)
class DroppedLines:
    """Counts dropped lines, and makes the notice that is written in their place."""

    counts: Counter[int] = field(default_factory=Counter)
    """The counts by file descriptor."""
    notice: Callable[[int], str] = plain_notice
    """Makes the notice about a number of lines, as a whole line. It is called from a thread."""

    @property
    def count(self) -> int:
        """The number of dropped lines of all outputs."""
        return self.counts.total()

    def notice_bytes(self, lines: int) -> bytes:
        """The notice. If `notice` raises, it is the plain one."""
        try:
            text = self.notice(lines)
        except Exception:  # noqa: BLE001 - a line about lines must not end the thread that writes all others
            text = plain_notice(lines)
        return text.encode("utf-8", "backslashreplace")


class QueuedOutput(io.BufferedIOBase):
    """The binary stream of a file descriptor. It is thread-safe, and `write` always returns at once."""

    def __init__(self, descriptor: int, dropped: DroppedLines, *, bytes_max: int = BYTES_MAX) -> None:
        self._descriptor = descriptor
        self._dropped = dropped
        self._bytes_max = bytes_max
        self._pending: deque[bytes] = deque()
        self._held = 0
        self._full = False
        self._unreported = 0
        self._torn = False
        self._writing = False
        self._started = False
        self._process = os.getpid()
        # The lock is reentrant: a signal handler or a finalizer may write while the same thread holds it.
        self._change = threading.Condition(threading.RLock())

    def writable(self) -> bool:
        """True."""
        return True

    def isatty(self) -> bool:
        """Whether the descriptor is a terminal."""
        return os.isatty(self._descriptor)

    def fileno(self) -> int:
        """The file descriptor. A direct write to it may block."""
        return self._descriptor

    def flush(self) -> None:
        """Does nothing, because it would have to wait. Use `drain`."""

    def close(self) -> None:
        """Does nothing: the descriptor belongs to the process."""

    def write(self, given: "ReadableBuffer", /) -> int:
        """Takes the whole text. When the queue is full, new text is dropped until the queue has been written."""
        piece = bytes(given)
        if os.getpid() != self._process:
            # A forked child has no writer thread. It may block, because it holds up only itself.
            _write(self._descriptor, piece)
            return len(piece)
        with self._change:
            self._full = not self._running() or self._full or self._held + _cost(piece) > self._bytes_max
            if self._full:
                self._drop(piece)
            else:
                self._pending.append(piece)
                self._held += _cost(piece)
            self._change.notify_all()
        return len(piece)

    def drain(self, within_s: float = DRAIN_S_MAX) -> bool:
        """Waits until the queue is written, `within_s` seconds at most. Returns whether it is."""
        with self._change:
            return self._change.wait_for(lambda: not (self._held or self._full or self._writing), within_s)

    def _running(self) -> bool:
        if not self._started:
            # A daemon thread does not delay the end of the process, although its write may block for ever.
            thread = threading.Thread(target=self._run, name=f"output {self._descriptor}", daemon=True)
            with suppress(RuntimeError):
                thread.start()
                self._started = True
        return self._started

    def _drop(self, piece: bytes) -> None:
        lines = piece.count(b"\n")
        self._dropped.counts[self._descriptor] += lines
        self._unreported += lines

    def _run(self) -> None:
        while True:
            pieces, unreported = self._next()
            text = b"".join(pieces)
            head = self._dropped.notice_bytes(unreported) if unreported else b""
            if self._torn and head + text:
                head = b"\n" + head
            done = _write(self._descriptor, head + text)
            if 0 < done < len(head + text):
                self._torn = (head + text)[done - 1 : done] != b"\n"
            elif done:
                self._torn = False
            with self._change:
                self._unreported -= unreported if done >= len(head) else 0
                self._drop(text[max(0, done - len(head)) :])
                self._held -= sum(map(_cost, pieces))
                self._writing = False
                self._change.notify_all()

    def _next(self) -> tuple[Sequence[bytes], int]:
        """Waits for pieces to write. Also returns how many lines were dropped before them, if a notice is due now."""
        with self._change:
            while not self._pending and not self._full:
                self._change.wait()
            self._writing = True
            if not self._pending:
                # Everything that was queued before the gap is written.
                self._full = False
                return (), self._unreported
            pieces = [self._pending.popleft()]
            size = len(pieces[0])
            while self._pending and size + len(self._pending[0]) <= CHUNK_BYTES_MAX:
                size += len(self._pending[0])
                pieces.append(self._pending.popleft())
            return pieces, 0 if self._full else self._unreported


def _cost(piece: bytes) -> int:
    return len(piece) + PIECE_BYTES


def _write(descriptor: int, text: bytes) -> int:
    """Writes a text; returns how many bytes were written, fewer than all if it failed. It waits even if the descriptor is non-blocking."""
    view = memoryview(text)
    done = 0
    while done < len(text):
        try:
            done += os.write(descriptor, view[done:])
        except BlockingIOError:
            room = select.poll()
            room.register(descriptor, select.POLLOUT)
            room.poll()
        except OSError:
            break
    return done


class QueuedStreams:
    """Replaces the process's stdout and stderr by queued outputs."""

    def __init__(self) -> None:
        self.dropped = DroppedLines()
        self._outputs: dict[str, QueuedOutput] = {}

    @contextmanager
    def installed(self) -> Iterator[None]:
        """Replaces stdout and stderr inside the block. Streams that a program has replaced before are left alone."""
        before = {name: getattr(sys, name) for name in STREAMS}
        own = [name for name in STREAMS if before[name] is getattr(sys, f"__{name}__")]
        put = {name: self._queued(name, before[name]) for name in own}
        for name, stream in put.items():
            setattr(sys, name, stream)
        try:
            yield
        finally:
            if self.drain():
                for name, stream in put.items():
                    if getattr(sys, name) is stream:
                        setattr(sys, name, before[name])

    def drain(self) -> bool:
        """Waits until the queues are written, with a limit. Returns whether they are."""
        stuck = [output for output in self._outputs.values() if not output.drain()]
        return not stuck

    def _queued(self, name: str, stream: TextIO | None) -> TextIO:
        # If there is no stream, the descriptor is closed or belongs to another file.
        descriptor = stream.fileno() if stream is not None else os.open(os.devnull, os.O_WRONLY)
        output = self._outputs[name] = QueuedOutput(descriptor, self.dropped)
        buffer: Any = (
            output  # typeshed wants attributes that the class asks for no more than BufferedIOBase has them
        )
        return io.TextIOWrapper(buffer, encoding="utf-8", errors="backslashreplace", write_through=True)


def keep_standard_descriptors() -> None:
    """Opens the null device for each closed one of stdin, stdout and stderr, so that no other file gets its number and its output."""
    for descriptor in range(3):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)


def unwaiting(descriptor: int) -> int:
    """A non-blocking descriptor of the same pipe or terminal; `descriptor` itself if there can be none."""
    try:
        mode = os.fstat(descriptor).st_mode
        if stat.S_ISFIFO(mode) or stat.S_ISCHR(mode):
            return os.open(f"/proc/self/fd/{descriptor}", os.O_WRONLY | os.O_NONBLOCK | os.O_NOCTTY)
    except OSError:
        pass
    return descriptor
