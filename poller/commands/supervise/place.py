"""Owns what a process is told at its start: which of the processes it is, and the descriptors that it has inherited.

It also owns what this changes in the settings: the worker's name, and its share of the memory.
"""

import ctypes
import json
import os
import signal
import sys
from dataclasses import asdict, dataclass, replace

from poller.config.settings import Settings
from poller.domain.errors import InvalidConfiguration
from poller.rules.supervision.shares import MEMORY_MB_MIN, memory_share_mb
from poller.runtime.memory.limits import fitting_mb

NAME_CHARS_MAX = 128
"""Of the name of a worker."""
_PR_SET_PDEATHSIG = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class ProcessPlace:
    """The place of one process among those of a daemon."""

    index: int
    processes: int
    worker: str
    link: int
    """The descriptor of the socket to the supervisor."""
    listening: int
    """The descriptor of the socket that listens at the port."""
    supervisor: int
    """The process id of the supervisor."""

    def as_option(self) -> str:
        """The text for the command line."""
        return json.dumps(asdict(self), separators=(",", ":"))


def place_of_option(text: str) -> ProcessPlace:
    """The place that a supervisor wrote with `as_option`. Raises InvalidConfiguration for another text."""
    try:
        place = ProcessPlace(**json.loads(text))
        os.fstat(place.link), os.fstat(place.listening)
    except (ValueError, TypeError, OSError) as error:
        raise InvalidConfiguration(["--as-process is for poller run itself; use --processes"]) from error
    return place


def settings_of_process(settings: Settings, place: ProcessPlace) -> Settings:
    """The settings of one process. Raises InvalidConfiguration if its share of the memory is too small."""
    tuning = replace(settings.tuning, memory_mb=_memory_mb(settings, place.processes))
    return settings.model_copy(update={"tuning": tuning, "worker": place.worker})


def _memory_mb(settings: Settings, processes: int) -> int:
    given = settings.tuning.memory_mb
    share = memory_share_mb(given or fitting_mb(), processes, given=given is not None)
    if share is None:
        least = MEMORY_MB_MIN * processes
        raise InvalidConfiguration(
            [
                f"tuning.memory_mb: {given} is for all {processes} processes together, and each needs {MEMORY_MB_MIN};"
                f" write {least} or more, or start fewer processes"
            ]
        )
    return share


def worker_of(base: str, index: int) -> str:
    """The name of the worker that a process is. It stays when the process is started again."""
    return f"{base}-{index}"


def stay_with_supervisor(place: ProcessPlace) -> None:
    """Makes the end of the supervisor a SIGTERM to this process, so that it drains. Ends the process if that came before.

    Only Linux has this. Elsewhere the process notices that the socket to the supervisor has ended.
    """
    for descriptor in (place.link, place.listening):
        # A function's processes must not have them.
        os.set_inheritable(descriptor, False)
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM.value, 0, 0, 0)
    if os.getppid() != place.supervisor:
        os._exit(0)
