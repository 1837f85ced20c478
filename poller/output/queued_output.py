"""Owns an output that never waits: what is written goes through a bounded queue to a thread that writes it to the descriptor.

Whoever started the daemon may read its stderr slowly, or not at all; a pipe that is full then stops whoever writes to it, and a
disk that is full refuses. Neither may stop the daemon: lines are dropped instead, counted, and the next line that gets through is
preceded by one that says how many. This is the one thread in `poller`, since a descriptor cannot be written without waiting
unless everybody who shares the open file agrees to that.
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

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

BYTES_MAX = 4 * 1024 * 1024
"""What is kept for a reader that is late."""
PIECE_BYTES = 100
"""What a piece in the queue costs beside its bytes."""
CHUNK_BYTES_MAX = 64 * 1024
"""What is written at once, unless a single piece has more."""
DRAIN_S_MAX = 2.0
"""How long the end of the process waits for what is still in the queue."""
STREAMS = ("stdout", "stderr")


def plain_notice(lines: int) -> str:
    """Says how many lines were dropped, where there is no log whose form it could have."""
    return f"poller: {lines} lines dropped: nobody read them, or they could not be written\n"


@dataclass(slots=True)
class DroppedLines:
    """How many lines were dropped so far, and how that is said in the place where they are missing."""

    counts: Counter[int] = field(default_factory=Counter)
    """By descriptor: each output writes its own."""
    notice: Callable[[int], str] = plain_notice
    """From a number of lines to a whole line; called by a thread."""

    @property
    def count(self) -> int:
        """Of all outputs."""
        return self.counts.total()

    def told(self, lines: int) -> bytes:
        """The notice; whatever else its maker does, there is one."""
        try:
            text = self.notice(lines)
        except Exception:  # noqa: BLE001 - a line about lines must not end the thread that writes all others
            text = plain_notice(lines)
        return text.encode("utf-8", "backslashreplace")


class QueuedOutput(io.BufferedIOBase):
    """The binary stream of a descriptor; safe in threads. `write` returns at once, always."""

    def __init__(self, descriptor: int, dropped: DroppedLines, *, bytes_max: int = BYTES_MAX) -> None:
        self._descriptor = descriptor
        self._dropped = dropped
        self._bytes_max = bytes_max
        self._pending: deque[bytes] = deque()
        self._held = 0
        self._full = False
        self._untold = 0
        self._torn = False
        self._writing = False
        self._started = False
        self._process = os.getpid()
        # May be entered again: by a signal handler, or by what is finalised meanwhile.
        self._change = threading.Condition(threading.RLock())

    def writable(self) -> bool:
        """True."""
        return True

    def isatty(self) -> bool:
        """Whether the descriptor is a terminal."""
        return os.isatty(self._descriptor)

    def fileno(self) -> int:
        """The descriptor; who writes to it himself may wait."""
        return self._descriptor

    def flush(self) -> None:
        """Nothing, since that would wait; `drain` does."""

    def close(self) -> None:
        """Nothing: the descriptor is the process's own."""

    def write(self, given: "ReadableBuffer", /) -> int:
        """Takes all of it. Once the queue is full, what comes is dropped until all that is in it has been written."""
        piece = bytes(given)
        if os.getpid() != self._process:
            # A child that was forked has no thread, and nobody whom it could hold up.
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
        """Waits until all is written, for so long at most; whether it is."""
        with self._change:
            return self._change.wait_for(lambda: not (self._held or self._full or self._writing), within_s)

    def _running(self) -> bool:
        if not self._started:
            # As a daemon it does not hold up the end of the process, though it may wait for ever.
            thread = threading.Thread(target=self._run, name=f"output {self._descriptor}", daemon=True)
            with suppress(RuntimeError):
                thread.start()
                self._started = True
        return self._started

    def _drop(self, piece: bytes) -> None:
        lines = piece.count(b"\n")
        self._dropped.counts[self._descriptor] += lines
        self._untold += lines

    def _run(self) -> None:
        while True:
            pieces, untold = self._next()
            text = b"".join(pieces)
            head = self._dropped.told(untold) if untold else b""
            if self._torn and head + text:
                head = b"\n" + head
            done = _write(self._descriptor, head + text)
            if 0 < done < len(head + text):
                self._torn = (head + text)[done - 1 : done] != b"\n"
            elif done:
                self._torn = False
            with self._change:
                self._untold -= untold if done >= len(head) else 0
                self._drop(text[max(0, done - len(head)) :])
                self._held -= sum(map(_cost, pieces))
                self._writing = False
                self._change.notify_all()

    def _next(self) -> tuple[Sequence[bytes], int]:
        """Waits for something to write; and how many lines are missing in front of it, where that is to be said now."""
        with self._change:
            while not self._pending and not self._full:
                self._change.wait()
            self._writing = True
            if not self._pending:
                # All that was taken before the gap is written.
                self._full = False
                return (), self._untold
            pieces = [self._pending.popleft()]
            size = len(pieces[0])
            while self._pending and size + len(self._pending[0]) <= CHUNK_BYTES_MAX:
                size += len(self._pending[0])
                pieces.append(self._pending.popleft())
            return pieces, 0 if self._full else self._untold


def _cost(piece: bytes) -> int:
    return len(piece) + PIECE_BYTES


def _write(descriptor: int, text: bytes) -> int:
    """How many bytes the descriptor took; fewer than all when it failed. Waits, also where the descriptor does not."""
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
    """The process's stdout and stderr as long as they are queued."""

    def __init__(self) -> None:
        self.dropped = DroppedLines()
        self._outputs: dict[str, QueuedOutput] = {}

    @contextmanager
    def installed(self) -> Iterator[None]:
        """Puts queued streams in the place of the process's own; what a program has put there stays."""
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
        """Waits for what is in the queues, with a limit; whether all is written."""
        stuck = [output for output in self._outputs.values() if not output.drain()]
        return not stuck

    def _queued(self, name: str, stream: TextIO | None) -> TextIO:
        # Without a stream the descriptor is closed, or another file's.
        descriptor = stream.fileno() if stream is not None else os.open(os.devnull, os.O_WRONLY)
        output = self._outputs[name] = QueuedOutput(descriptor, self.dropped)
        buffer: Any = (
            output  # typeshed wants attributes that the class asks for no more than BufferedIOBase has them
        )
        return io.TextIOWrapper(buffer, encoding="utf-8", errors="backslashreplace", write_through=True)


def keep_standard_descriptors() -> None:
    """Puts the null device where stdin, stdout or stderr is closed, so that no other file gets its number, and its output."""
    for descriptor in range(3):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)


def unwaiting(descriptor: int) -> int:
    """A descriptor of the same pipe or terminal on which writes fail instead of waiting; `descriptor` where none can be had."""
    try:
        mode = os.fstat(descriptor).st_mode
        if stat.S_ISFIFO(mode) or stat.S_ISCHR(mode):
            return os.open(f"/proc/self/fd/{descriptor}", os.O_WRONLY | os.O_NONBLOCK | os.O_NOCTTY)
    except OSError:
        pass
    return descriptor
