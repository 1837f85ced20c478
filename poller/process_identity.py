"""Owns how a process finds out whether another process of the same machine has ended.

A restarted daemon can then take over from its predecessor at once and need not wait for the lease time.
"""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

from poller.domain.untrusted.numbers import whole

_STARTED_MAX = 2**63
_STARTED_FIELD = 19
"""The field of /proc/PID/stat, counted from the command's name on, that has the process's start in ticks since the boot."""


class Process(Protocol):
    """How this process identifies itself to others of the same machine, and how it checks them."""

    def identity(self) -> Mapping[str, Any]:
        """What identifies this process, as JSON values; empty if nothing does."""
        ...

    def gone(self, identity: Mapping[str, Any]) -> bool:
        """Whether the process with this identity has certainly ended. False if that is not known."""
        ...

    def runs(self, identity: Mapping[str, Any]) -> bool:
        """Whether the process with this identity certainly runs. False if that is not known."""
        ...


class Anonymous:
    """A process that others cannot identify, as in tests."""

    def identity(self) -> Mapping[str, Any]:
        """Nothing."""
        return {}

    def gone(self, identity: Mapping[str, Any]) -> bool:
        """Never known."""
        return False

    def runs(self, identity: Mapping[str, Any]) -> bool:
        """Never known."""
        return False


class LocalProcess:
    """This process by its entry in /proc. A process id identifies a process only within one boot and one PID namespace."""

    def __init__(self, proc: Path = Path("/proc")) -> None:
        self._proc = proc
        self._space = _space(proc)

    def identity(self) -> Mapping[str, Any]:
        """Boot id, PID namespace, process id and start time; empty where there is no /proc."""
        started = self._started(os.getpid())
        if self._space is None or started is None:
            return {}
        return {"space": self._space, "pid": os.getpid(), "started": started}

    def gone(self, identity: Mapping[str, Any]) -> bool:
        """Whether the process ran on this boot and in this PID namespace, and has ended."""
        pid = self._neighbour(identity)
        return pid is not None and self._started(pid) != identity.get("started")

    def runs(self, identity: Mapping[str, Any]) -> bool:
        """Whether the process runs on this boot and in this PID namespace."""
        pid = self._neighbour(identity)
        started = None if pid is None else self._started(pid)
        return started is not None and started == identity.get("started")

    def _neighbour(self, identity: Mapping[str, Any]) -> int | None:
        """The process's id, if it is of this boot and this PID namespace; else None."""
        pid = identity.get("pid")
        known = self._space is not None and identity.get("space") == self._space
        return pid if known and isinstance(pid, int) else None

    def _started(self, pid: int) -> int | None:
        """The start time of a running process; None if there is no such process, or if it has ended and its parent has not reaped it."""
        try:
            fields = (self._proc / str(pid) / "stat").read_text().rpartition(")")[2].split()
        except OSError:
            return None
        return None if fields[0] in "ZX" else whole(fields[_STARTED_FIELD], most=_STARTED_MAX, default=None)


def _space(proc: Path) -> str | None:
    try:
        boot = (proc / "sys/kernel/random/boot_id").read_text().strip()
        return f"{os.uname().nodename}/{boot}/{os.readlink(proc / 'self/ns/pid')}"
    except OSError:
        return None
