"""Owns the start and the end of a function process on Linux: nothing that it started outlives it or the daemon.

This is a program of its own: `launcher.py DAEMON BEGIN VARIABLES COMMAND…`. Between fork and exec of a process with threads only
a few calls are safe, and none of Python's. So a new interpreter does the work that is needed there. The command begins when the
daemon writes a byte to the descriptor BEGIN. By then the daemon knows the process whose requests it may answer. The command's
variables are in the file VARIABLES, so that none of them, such as LD_LIBRARY_PATH, affects this interpreter.

The launcher stays as the guard of the command. It is a subreaper: a descendant that loses its parent becomes its child, even if it
is in a session of its own. The guard kills all descendants when the command has ended, when the daemon sends the signal END,
and when the daemon ends, for which the kernel sends the same signal. Then it ends as the command did. It does nothing between
two calls: background work of a handler goes on as long as its process is kept.

There are two guards, one as a child of the other, so that one is left if somebody kills the other. The kernel sends its signal
when the *thread* that started a process ends. That is the thread of the daemon's event loop.
"""

import ctypes
import os
import signal
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from typing import Never

PR_SET_PDEATHSIG = 1
PR_SET_DUMPABLE = 4
PR_SET_CHILD_SUBREAPER = 36
NOT_STARTED = 127
"""Exit status of a command that could not be executed, as in a shell."""
END = signal.SIGUSR1
"""The signal that makes a guard kill all descendants at once."""
END_S_MAX = 5.0
"""How long a guard tries to kill all descendants. It may not kill a process of another user, and cannot kill one that waits for
a disk."""
LISTINGS_MAX = 100
"""How often one attempt lists the processes again while it still finds new ones."""
PAUSE_S = 0.01
_SIGNALS = {signal.SIGCHLD, signal.SIGTERM, END}


def variables(descriptor: int) -> dict[bytes, bytes]:
    """Reads variables from a file, each as `NAME=VALUE` and a NUL character; closes the descriptor."""
    with open(descriptor, "rb") as file:
        given = [variable.partition(b"=") for variable in file.read().split(b"\0")]
    return {name: value for name, _, value in given if name}


def control(option: int, value: int) -> None:
    """Sets an option of this process (prctl); raises OSError if the kernel refuses."""
    if ctypes.CDLL(None, use_errno=True).prctl(option, value, 0, 0, 0):
        raise OSError(ctypes.get_errno(), "the kernel does not let a guard of processes be made")


def guard(start: Callable[[], Never], *, parents_end: signal.Signals) -> Never:
    """Runs `start` in a child and guards it; kills all descendants at the end.

    The kernel sends the signal `parents_end` to the child if this guard ends first.
    """
    control(PR_SET_CHILD_SUBREAPER, 1)
    own = os.getpid()
    child = os.fork()
    if not child:
        control(PR_SET_PDEATHSIG, parents_end)
        if os.getppid() != own:
            os._exit(NOT_STARTED)
        start()
    _release_files()
    status = _wait_for_end(child)
    end_all()
    _end_as(os.waitstatus_to_exitcode(status))


def end_all() -> None:
    """Kills all descendants until none is left. They are stopped first, so that they cannot start others meanwhile."""
    ends = time.monotonic() + END_S_MAX
    while _any_left() and time.monotonic() < ends:
        for pid in _stop_descendants():
            _send(pid, signal.SIGKILL)
        signal.sigtimedwait({signal.SIGCHLD}, PAUSE_S)


def descendants(ancestor: int) -> set[int]:
    """Returns all processes that descend from `ancestor`, as listed in /proc."""
    children: dict[int, list[int]] = {}
    for pid, parent in _parents():
        children.setdefault(parent, []).append(pid)
    found, left = set[int](), [ancestor]
    while left:
        fresh = [child for child in children.get(left.pop(), ()) if child not in found]
        found.update(fresh)
        left += fresh
    return found


def _parents() -> Iterator[tuple[int, int]]:
    for name in os.listdir("/proc"):
        if name.isdigit():
            with suppress(OSError, IndexError), open(f"/proc/{name}/stat", "rb") as file:
                # The name stands in parentheses, and may contain blanks and parentheses itself.
                yield int(name), int(file.read().rpartition(b")")[2].split()[1])


def _stop_descendants() -> set[int]:
    """Stops all descendants. Lists them again until no new one is found, since some may be started meanwhile."""
    found = set[int]()
    for _ in range(LISTINGS_MAX):
        fresh = descendants(os.getpid()) - found
        if not fresh:
            break
        for pid in fresh:
            _send(pid, signal.SIGSTOP)
        found |= fresh
    return found


def _send(pid: int, number: signal.Signals) -> None:
    with suppress(ProcessLookupError, PermissionError):
        os.kill(pid, number)


def _wait_for_end(child: int) -> int:
    """Waits for the end of the child; returns its wait status, or SIGKILL if it is to be killed."""
    while True:
        match signal.sigwait(_SIGNALS):
            case signal.SIGTERM:
                _ask_to_end(child)
            case signal.SIGCHLD:
                status = _reap(child)
                if status is not None:
                    return status
            case _:
                return int(signal.SIGKILL)


def _ask_to_end(child: int) -> None:
    """Passes SIGTERM on, to the command and its process group, or to the other guard, which leads no group."""
    try:
        os.killpg(child, signal.SIGTERM)
    except ProcessLookupError:
        _send(child, signal.SIGTERM)
    except PermissionError:
        return


def _reap(child: int) -> int | None:
    """Reaps all children that have ended; returns the wait status of `child` if it is one of them."""
    status = None
    with suppress(ChildProcessError):
        while (found := os.waitpid(-1, os.WNOHANG))[0]:
            status = found[1] if found[0] == child else status
    return status


def _any_left() -> bool:
    """Whether any descendant is left. One that has lost its parent is our own child, so children are enough to check."""
    try:
        while os.waitpid(-1, os.WNOHANG)[0]:
            continue
    except ChildProcessError:
        return False
    return True


def _release_files() -> None:
    """Gives up the standard streams and the directory, which belong to the command."""
    nothing = os.open(os.devnull, os.O_RDWR)
    for descriptor in range(3):
        os.dup2(nothing, descriptor)
    os.close(nothing)
    os.chdir("/")


def _end_as(code: int) -> Never:
    """Ends with an exit status, or by a signal if the code is negative."""
    if code < 0:
        # No second core file: the command has already left one if core files are enabled.
        control(PR_SET_DUMPABLE, 0)
        with suppress(OSError):
            signal.signal(-code, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_SETMASK, ())
        os.kill(os.getpid(), -code)
    os._exit(code if code >= 0 else NOT_STARTED)


def execute(command: list[str], given: dict[bytes, bytes], mask: Iterable[int]) -> Never:
    """Executes the command in a session of its own, with the signals of `mask` blocked."""
    os.setsid()
    for ignored in (signal.SIGPIPE, signal.SIGXFSZ):
        # Python ignores these signals, and exec would keep that.
        signal.signal(ignored, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, mask)
    try:
        os.execvpe(command[0], command, given)
    except OSError as error:
        _report(command, error)
        os._exit(NOT_STARTED)


def launch(daemon: int, begin: int, given: int, command: list[str]) -> None:
    """Runs the command with two guards.

    Returns if the daemon ended before the command began; raises OSError if a guard cannot be made.
    """
    control(PR_SET_PDEATHSIG, END)
    go = os.read(begin, 1)
    os.close(begin)
    # Until the signal is blocked it ends this process. The daemon may have ended before PR_SET_PDEATHSIG was set.
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
    if not go or os.getppid() != daemon:
        return
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    read = variables(given)

    def start() -> Never:
        execute(command, read, mask)

    def inner() -> Never:
        guard(start, parents_end=signal.SIGKILL)

    guard(inner, parents_end=END)


def _report(command: list[str], error: OSError) -> None:
    print(f"{command[0]}: cannot be started: {error.strerror}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    try:
        launch(int(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), sys.argv[4:])
    except OSError as error:
        _report(sys.argv[4:], error)
        sys.exit(NOT_STARTED)
