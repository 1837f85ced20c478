"""Runs a command in a real terminal: a pseudo-terminal with a window, whose output a terminal emulator draws."""

import fcntl
import os
import pty
import signal
import struct
import subprocess
import sys
import termios
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pyte
from pyte.screens import Char
from wcwidth import wcwidth

END_S = 120.0
READ_BYTES = 65_536
POLLER = (sys.executable, "-m", "poller")


class Window(pyte.Screen):
    """The emulator's screen, which draws character by character: in a longer text it leaves out what follows one without width.

    Behind a full line, it would begin a new one for a mark that belongs to the last character; other terminals do not.
    """

    def draw(self, data: str) -> None:
        """Draws a text at the cursor."""
        for char in data:
            if self.cursor.x < self.columns or wcwidth(char) > 0:
                super().draw(char)


@dataclass(frozen=True, slots=True)
class Seen:
    """What a terminal shows in the end, all that was written to it, standard output where it is no terminal, and the exit status."""

    lines: Sequence[str]
    cells: Sequence[Sequence[Char]]
    written: bytes
    stdout: bytes
    status: int

    @property
    def text(self) -> str:
        """The lines that are not empty."""
        return "\n".join(line for line in self.lines if line)


def in_terminal(
    words: Sequence[str],
    *,
    columns: int = 80,
    lines: int = 500,
    environ: Mapping[str, str] | None = None,
    stdout_piped: bool = False,
    folder: Path | None = None,
    until: Callable[[bytes], bool] | None = None,
    encoding: str = "utf-8",
) -> Seen:
    """Runs `poller` with `words` in a window. `environ` is added to a bare environment; `until` ends it by an interrupt."""
    own, its = pty.openpty()
    fcntl.ioctl(its, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))
    bare = {
        name: os.environ[name] for name in ("PATH", "HOME", "TMPDIR", "VIRTUAL_ENV") if name in os.environ
    }
    process = subprocess.Popen(
        [*POLLER, *words],
        stdin=its,
        stdout=subprocess.PIPE if stdout_piped else its,
        stderr=its,
        cwd=folder,
        env={**bare, "TERM": "xterm-256color", "LANG": "C.UTF-8", **(environ or {})},
        start_new_session=True,
    )
    os.close(its)
    piped: list[bytes] = []
    reader = threading.Thread(target=lambda: piped.append(process.stdout.read() if process.stdout else b""))
    reader.start()
    deadline = threading.Timer(END_S, process.kill)
    deadline.start()
    written = bytearray()
    try:
        while part := _read(own):
            written += part
            if until is not None and until(bytes(written)):
                until = None
                process.send_signal(signal.SIGINT)
        status = process.wait(END_S)
    finally:
        deadline.cancel()
        process.kill()
        process.wait()
        reader.join()
        os.close(own)
        if process.stdout is not None:
            process.stdout.close()
    window = drawn(bytes(written).decode(encoding), columns=columns, lines=lines)
    found = [[window.buffer[row][column] for column in range(columns)] for row in range(lines)]
    return Seen([line.rstrip() for line in window.display], found, bytes(written), piped[0], status)


def drawn(text: str, *, columns: int, lines: int = 500) -> Window:
    """What a terminal makes of a text."""
    window = Window(columns, lines)
    pyte.Stream(window).feed(text)
    return window


def _read(own: int) -> bytes:
    try:
        return os.read(own, READ_BYTES)
    except OSError:
        # The last process that had the terminal has ended.
        return b""
