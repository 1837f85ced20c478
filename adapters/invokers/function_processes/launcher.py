"""Owns the first steps of a function process on Linux, and its end: nothing that it started outlives it, or the daemon.

Run as a program of its own: `launcher.py DAEMON BEGIN VARIABLES COMMAND…`. Between fork and exec of a process with threads
only few calls are safe, none of them Python's; so a fresh interpreter does what is to be done there. The command begins
when the daemon has written a byte to the descriptor BEGIN: by then it knows whose requests it may answer. Its variables stand in
the file VARIABLES, so that none of them, such as LD_LIBRARY_PATH, changes how this interpreter runs.

The launcher stays as the command's guard. It is a subreaper: the kernel makes it the parent of whatever loses its parent below
it, so that a session of its own, or a parent that is gone, hides nobody. It ends all of them when the command has ended, when the
daemon says so (END), and when the daemon is gone, of which the kernel tells it by the same signal. Then it ends as the command did.
Between two calls it does nothing: what a handler leaves at work goes on, as long as its process is kept.

There are two guards, one around the other, so that one of them is there when somebody kills the other. The kernel
sends its signal when the *thread* that started a process ends, which is the one that runs the daemon's event loop.
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
"""Exit status of a command that could not be executed, as of a shell."""
END = signal.SIGUSR1
"""Tells a guard to end everybody at once."""
END_S_MAX = 5.0
"""How long a guard tries to end everybody: a process of another user may not be killed, and one that waits for a disk cannot be."""
FREEZES_MAX = 100
"""How often the processes are looked for in one try, while new ones are still found."""
LOOK_S = 0.01
_HEARD = {signal.SIGCHLD, signal.SIGTERM, END}


def variables(descriptor: int) -> dict[bytes, bytes]:
    """The variables in a file, `NAME=VALUE` each, with a NUL character behind it; closes the descriptor."""
    with open(descriptor, "rb") as file:
        given = [variable.partition(b"=") for variable in file.read().split(b"\0")]
    return {name: value for name, _, value in given if name}


def control(option: int, value: int) -> None:
    """Asks the kernel for something about this process; raises OSError when it refuses."""
    if ctypes.CDLL(None, use_errno=True).prctl(option, value, 0, 0, 0):
        raise OSError(ctypes.get_errno(), "the kernel does not let a guard of processes be made")


def guard(start: Callable[[], Never], *, parents_end: signal.Signals) -> Never:
    """Runs `start` in a child, which gets the signal `parents_end` when this guard is gone; at the end ends all that came of it."""
    control(PR_SET_CHILD_SUBREAPER, 1)
    own = os.getpid()
    child = os.fork()
    if not child:
        control(PR_SET_PDEATHSIG, parents_end)
        if os.getppid() != own:
            os._exit(NOT_STARTED)
        start()
    _let_go()
    status = _watched(child)
    end_all()
    _end_as(os.waitstatus_to_exitcode(status))


def end_all() -> None:
    """Kills all descendants until none is left: they are stopped first, so that nobody starts others meanwhile."""
    ends = time.monotonic() + END_S_MAX
    while _any_left() and time.monotonic() < ends:
        for pid in _frozen():
            _send(pid, signal.SIGKILL)
        signal.sigtimedwait({signal.SIGCHLD}, LOOK_S)


def descendants(ancestor: int) -> set[int]:
    """All processes that come from `ancestor`, as /proc has them now."""
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
                # The name in brackets may have blanks and brackets of its own.
                yield int(name), int(file.read().rpartition(b")")[2].split()[1])


def _frozen() -> set[int]:
    """Stops all descendants; who was started while others were being stopped is found by looking again."""
    found = set[int]()
    for _ in range(FREEZES_MAX):
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


def _watched(child: int) -> int:
    """How the child ended, or is going to."""
    while True:
        match signal.sigwait(_HEARD):
            case signal.SIGTERM:
                _ask_to_end(child)
            case signal.SIGCHLD:
                status = _reaped(child)
                if status is not None:
                    return status
            case _:
                return int(signal.SIGKILL)


def _ask_to_end(child: int) -> None:
    """Hands SIGTERM on: to the command and its process group, or to the other guard, which leads none."""
    try:
        os.killpg(child, signal.SIGTERM)
    except ProcessLookupError:
        _send(child, signal.SIGTERM)
    except PermissionError:
        return


def _reaped(child: int) -> int | None:
    """How the child ended, if it did; whoever else has ended is cleared away."""
    status = None
    with suppress(ChildProcessError):
        while (found := os.waitpid(-1, os.WNOHANG))[0]:
            status = found[1] if found[0] == child else status
    return status


def _any_left() -> bool:
    """Whether there are descendants, except those that have ended. One without a parent would be our own child."""
    try:
        while os.waitpid(-1, os.WNOHANG)[0]:
            continue
    except ChildProcessError:
        return False
    return True


def _let_go() -> None:
    """Holds none of the command's files and directories."""
    nothing = os.open(os.devnull, os.O_RDWR)
    for descriptor in range(3):
        os.dup2(nothing, descriptor)
    os.close(nothing)
    os.chdir("/")


def _end_as(code: int) -> Never:
    """Ends with an exit status, or by a signal if it is below zero."""
    if code < 0:
        # The command has left a core file if one is wanted.
        control(PR_SET_DUMPABLE, 0)
        with suppress(OSError):
            signal.signal(-code, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_SETMASK, ())
        os.kill(os.getpid(), -code)
    os._exit(code if code >= 0 else NOT_STARTED)


def become(command: list[str], given: dict[bytes, bytes], mask: Iterable[int]) -> Never:
    """Becomes the command, in a session of its own, with the signals blocked that `mask` has."""
    os.setsid()
    for ignored in (signal.SIGPIPE, signal.SIGXFSZ):
        # Python ignores them, and what is ignored stays so across exec.
        signal.signal(ignored, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, mask)
    try:
        os.execvpe(command[0], command, given)
    except OSError as error:
        _tell(command, error)
        os._exit(NOT_STARTED)


def launch(daemon: int, begin: int, given: int, command: list[str]) -> None:
    """Runs the command under guard; returns when the daemon is gone before it began, raises OSError when no guard can be made."""
    control(PR_SET_PDEATHSIG, END)
    go = os.read(begin, 1)
    os.close(begin)
    # As long as a signal is not blocked, it ends us; the daemon may have ended before its signal was asked for.
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, _HEARD)
    if not go or os.getppid() != daemon:
        return
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    read = variables(given)

    def start() -> Never:
        become(command, read, mask)

    def inner() -> Never:
        guard(start, parents_end=signal.SIGKILL)

    guard(inner, parents_end=END)


def _tell(command: list[str], error: OSError) -> None:
    print(f"{command[0]}: cannot be started: {error.strerror}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    try:
        launch(int(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), sys.argv[4:])
    except OSError as error:
        _tell(sys.argv[4:], error)
        sys.exit(NOT_STARTED)
