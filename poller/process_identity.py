"""Owns how processes of one machine tell whether a neighbour is still there, so that a restart need not wait for its predecessor."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

from poller.domain.untrusted.numbers import whole

_STARTED_MAX = 2**63
_STARTED_FIELD = 19
"""Of /proc/PID/stat, counted behind the command's name: when the process started, in ticks since the machine did."""


class Process(Protocol):
    """This process among those of its machine."""

    def facts(self) -> Mapping[str, Any]:
        """What identifies it, as JSON values; empty when nothing does."""
        ...

    def gone(self, facts: Mapping[str, Any]) -> bool:
        """Whether the process with these facts has surely ended; False when that cannot be known."""
        ...

    def runs(self, facts: Mapping[str, Any]) -> bool:
        """Whether the process with these facts surely runs; False when that cannot be known."""
        ...


class Anonymous:
    """A process that nobody can look for, as in tests."""

    def facts(self) -> Mapping[str, Any]:
        """Nothing."""
        return {}

    def gone(self, facts: Mapping[str, Any]) -> bool:
        """Never known."""
        return False

    def runs(self, facts: Mapping[str, Any]) -> bool:
        """Never known."""
        return False


class LocalProcess:
    """This process as /proc has it. Ids mean something within one boot and one namespace of process ids only."""

    def __init__(self, proc: Path = Path("/proc")) -> None:
        self._proc = proc
        self._space = _space(proc)

    def facts(self) -> Mapping[str, Any]:
        """Boot, namespace, id and start; empty where there is no /proc."""
        started = self._started(os.getpid())
        if self._space is None or started is None:
            return {}
        return {"space": self._space, "pid": os.getpid(), "started": started}

    def gone(self, facts: Mapping[str, Any]) -> bool:
        """Whether the process lived here and is no more."""
        pid = self._neighbour(facts)
        return pid is not None and self._started(pid) != facts.get("started")

    def runs(self, facts: Mapping[str, Any]) -> bool:
        """Whether the process lives here."""
        pid = self._neighbour(facts)
        started = None if pid is None else self._started(pid)
        return started is not None and started == facts.get("started")

    def _neighbour(self, facts: Mapping[str, Any]) -> int | None:
        """The process's id if it means something here."""
        pid = facts.get("pid")
        known = self._space is not None and facts.get("space") == self._space
        return pid if known and isinstance(pid, int) else None

    def _started(self, pid: int) -> int | None:
        """Start of a process that runs; None when there is none, or one that has ended and was not yet waited for."""
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
