"""Owns how a function process is started and ended, by means of the launcher.

The launcher waits until the daemon lets the command begin. Where there is no launcher, the process leads a process group, and
only the processes of that group can be ended.
"""

import os
import signal
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass

from adapters.invokers.function_processes import launcher

LAUNCHED = sys.platform == "linux"
"""Whether the launcher is used. Only Linux has subreapers and a signal at the end of the parent."""


@dataclass(frozen=True, slots=True)
class Start:
    """A command to start, with its variables and descriptors."""

    command: Sequence[str]
    variables: Mapping[str, str]
    descriptors: Sequence[int] = ()
    _begin: int | None = None

    def begin(self) -> None:
        """Lets the launcher run the command."""
        if self._begin is not None:
            with suppress(BrokenPipeError):
                os.write(self._begin, b"\n")


@contextmanager
def start_of(command: Sequence[str], variables: Mapping[str, str]) -> Iterator[Start]:
    """Yields what starts `command` with `variables`. At the end a command that was not let begin can never begin."""
    if not LAUNCHED:
        yield Start(command, variables)
        return
    with ExitStack() as stack:
        waiting, begin = os.pipe()
        stack.callback(os.close, waiting)
        stack.callback(os.close, begin)
        given = os.memfd_create("variables")
        with os.fdopen(given, "wb", closefd=False) as file:
            stack.callback(os.close, given)
            file.writelines(os.fsencode(f"{name}={value}\0") for name, value in variables.items())
        os.lseek(given, 0, os.SEEK_SET)
        words = map(str, (launcher.__file__, os.getpid(), waiting, given))
        yield Start([sys.executable, "-I", "-S", *words, *command], _own_variables(), (waiting, given), begin)


def _own_variables() -> dict[str, str]:
    """Returns the variables of the dynamic linker that the daemon's interpreter needs, since it also runs the launcher."""
    return {name: value for name, value in os.environ.items() if name.startswith("LD_")}


def ask_to_end(pid: int) -> None:
    """Sends SIGTERM to the command and its process group; `pid` is the started process, which must not be reaped yet."""
    with suppress(ProcessLookupError):
        if LAUNCHED:
            os.kill(pid, signal.SIGTERM)
        else:
            os.killpg(pid, signal.SIGTERM)


def end_all(pid: int) -> None:
    """Kills the command and all that it started, in whatever session; without the launcher only its process group."""
    with suppress(ProcessLookupError):
        if LAUNCHED:
            os.kill(pid, launcher.END)
            # A guard that somebody has stopped would not get the signal.
            os.kill(pid, signal.SIGCONT)
        else:
            os.killpg(pid, signal.SIGKILL)
