"""Owns what becomes of a command whose output cannot be written or encoded.

A full disk, a closed descriptor or an encoding without some characters must end in one line and an exit status, or in replaced
characters, and never in a trace. That a reader has gone (`poller status | head -1`) needs no line.
"""

import io
import os
import sys
from collections.abc import Callable

from poller.commands.root.problems import FAILED, print_problems

READER_GONE = 1
"""Exit status of a command whose reader has gone, as of other programs in a pipe."""


class _Output(io.TextIOWrapper):
    """Standard output that remembers why it could not be written."""

    failure: OSError | None = None

    def write(self, text: str, /) -> int:
        try:
            return super().write(text)
        except OSError as error:
            self.failure = error
            raise

    def flush(self) -> None:
        try:
            super().flush()
        except OSError as error:
            self.failure = error
            raise


def with_output(command: Callable[[], None]) -> None:
    """Carries out a command, which may raise SystemExit. Raises SystemExit if its output was not written."""
    if not isinstance(sys.stdout, io.TextIOWrapper):
        command()
        return
    output = sys.stdout = _own(sys.stdout)
    try:
        try:
            command()
        finally:
            output.flush()
    except OSError:
        if output.failure is None:
            raise
        _drop(output)
        if isinstance(output.failure, BrokenPipeError):
            raise SystemExit(READER_GONE) from None
        reason = output.failure.strerror or type(output.failure).__name__
        print_problems([f"standard output: cannot be written: {reason}; make room, or write elsewhere"])
        raise SystemExit(FAILED) from None


def _own(stream: io.TextIOWrapper) -> _Output:
    encoding, buffering, through = stream.encoding, stream.line_buffering, stream.write_through
    errors = "backslashreplace" if stream.errors == "strict" else stream.errors
    return _Output(
        stream.detach(),
        encoding,
        errors,
        line_buffering=buffering,
        write_through=through,
    )


def _drop(output: _Output) -> None:
    """Lets the interpreter drop what is in the buffer. It would try once more at its end, and write a trace."""
    nowhere = os.open(os.devnull, os.O_WRONLY | os.O_CLOEXEC)
    os.dup2(nowhere, output.fileno())
    os.close(nowhere)
