"""Owns what the processes of one daemon know of each other, and what they ask each other.

The supervisor tells every process the states of all. One of them, the *front*, serves the port. It asks the others for what it
cannot know itself: their metrics, and whether they are alive and ready.
"""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

from poller.domain.records import WorkerId


class ProcessQuestion(StrEnum):
    """What a process can be asked."""

    METRICS = "metrics"
    """Its page of metrics, in Prometheus' text format."""
    HEALTH = "health"
    """A JSON object with its `alive`, `ready`, `problems` and `notes`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ProcessState:
    """One process. `index` counts from 0 and stays when the process is started again."""

    index: int
    worker: WorkerId
    pid: int | None = None
    """None: it does not run now."""
    begun: bool = False
    """It can be asked. Before, it loads its modules."""
    restarts: int = 0
    """How often it was started again."""
    ended: str = ""
    """One line: why it does not run, and when it is tried again. Empty while it runs."""


@dataclass(frozen=True, slots=True)
class ProcessAnswer:
    """What a process has answered."""

    index: int
    body: bytes


type ProcessAnswers = Mapping[ProcessQuestion, Callable[[], Awaitable[bytes]]]
"""How this process answers the questions of the front."""


class Processes(Protocol):
    """The processes of this daemon, as one of them sees them."""

    @property
    def index(self) -> int:
        """The index of this process."""
        ...

    def states(self) -> Sequence[ProcessState]:
        """All processes, by index."""
        ...

    def answer_with(self, answers: ProcessAnswers) -> None:
        """Answers questions of the front in this way from now on."""
        ...

    async def ask(self, question: ProcessQuestion) -> Sequence[ProcessAnswer]:
        """Asks all other processes that have begun. Those that do not answer in time are missing in the result."""
        ...

    async def front(self) -> None:
        """Returns when this process is the one that serves the port; it stays so until it ends."""
        ...
