"""Owns a process's side of the connection to its supervisor: the states of all processes, questions, answers and orders.

Whatever happens to the connection, the process goes on or drains. It never waits for the supervisor without a limit.
"""

import asyncio
import socket
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import count
from typing import Any

from poller.commands.run.engine import Engine
from poller.commands.run.signals import Stopping
from poller.commands.supervise.frames import HEAD_BYTES_MAX, BrokenFrame, Frame, frames
from poller.commands.supervise.place import ProcessPlace
from poller.domain.records import WorkerId
from poller.domain.supervision.processes import ProcessAnswer, ProcessAnswers, ProcessQuestion, ProcessState

ANSWER_S = {ProcessQuestion.HEALTH: 2.0, ProcessQuestion.METRICS: 6.0}
"""How long the answers of the others are awaited."""
ASKED_MAX = 16
"""Questions that wait for their answer. Further ones are not answered; the front does without."""
LOOK_S = 0.2
"""How often the process looks whether it has begun to work, to tell the supervisor."""


@dataclass(slots=True)
class _Asked:
    """A question to the others, and what they have answered."""

    missing: set[int]
    answers: list[ProcessAnswer] = field(default_factory=list)
    complete: asyncio.Event = field(default_factory=asyncio.Event)


def _nothing() -> None:
    return


class OwnProcess:
    """This process among those of its daemon; it implements `Processes`."""

    def __init__(self, place: ProcessPlace) -> None:
        self.place = place
        self.on_cut_short: Callable[[], object] = _nothing
        """Cancels what still runs: the supervisor has got a second signal."""
        self.on_alone: Callable[[], object] = _nothing
        """Drains, because the supervisor has ended."""
        self.works: Callable[[], bool] = bool
        """Whether the process has begun to work."""
        self.grace_s: Callable[[], float] = float
        """How long running invocations may take after a stop."""
        self._socket = socket.socket(fileno=place.link)
        self._writer: asyncio.StreamWriter | None = None
        self._states: tuple[ProcessState, ...] = ()
        self._front = asyncio.Event()
        self._answers: ProcessAnswers = {}
        self._asked: dict[int, _Asked] = {}
        self._questions: asyncio.Queue[Mapping[str, Any]] = asyncio.Queue(ASKED_MAX)
        self._numbers = count()

    @property
    def index(self) -> int:
        """The index of this process."""
        return self.place.index

    def states(self) -> Sequence[ProcessState]:
        """All processes, by index; empty before the supervisor has told them."""
        return self._states

    def notes(self) -> list[str]:
        """One line for each process that does not run."""
        return [f"process {each.index}: {each.ended}" for each in self._states if each.ended]

    def answer_with(self, answers: ProcessAnswers) -> None:
        """Answers questions of the front in this way from now on."""
        self._answers = answers

    async def front(self) -> None:
        """Returns when this process serves the port."""
        await self._front.wait()

    async def ask(self, question: ProcessQuestion) -> Sequence[ProcessAnswer]:
        """Asks all other processes that have begun; those that do not answer in time are missing."""
        others = {each.index for each in self._states if each.begun} - {self.index}
        if not others or self._writer is None:
            return ()
        number, asked = next(self._numbers), _Asked(others)
        self._asked[number] = asked
        try:
            self._send("ask", ask=number, question=question)
            async with asyncio.timeout(ANSWER_S[question]):
                await asked.complete.wait()
        except TimeoutError:
            pass
        finally:
            del self._asked[number]
        return asked.answers

    def draining(self) -> None:
        """Tells the supervisor that this process drains, and how long running invocations may take."""
        self._send("draining", grace_s=self.grace_s())

    async def run(self) -> None:
        """Serves the connection until cancelled. When the supervisor has ended, it calls `on_alone` and waits."""
        reader, self._writer = await asyncio.open_unix_connection(
            sock=self._socket.dup(), limit=HEAD_BYTES_MAX
        )
        self._send("begun")
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._answering(), name="answers to the front")
                tasks.create_task(self._beginning(), name="beginning")
                await self._reading(reader)
                self.on_alone()
                await asyncio.get_running_loop().create_future()
        finally:
            writer, self._writer = self._writer, None
            writer.close()

    async def _reading(self, reader: asyncio.StreamReader) -> None:
        try:
            async for frame in frames(reader):
                self._take(frame)
        except BrokenFrame:
            # The supervisor is as good as gone.
            return

    def _take(self, frame: Frame) -> None:
        members = frame.members
        match members["kind"]:
            case "states":
                self._states = tuple(_state(each) for each in members["states"])
            case "front":
                self._front.set()
            case "end":
                self.on_cut_short()
            case "ask" if not self._questions.full():
                self._questions.put_nowait(members)
            case "answer":
                self._answered(members["ask"], ProcessAnswer(members["index"], frame.body))
            case _:
                pass

    def _answered(self, number: int, answer: ProcessAnswer) -> None:
        asked = self._asked.get(number)
        if asked is None or answer.index not in asked.missing:
            return
        asked.missing.discard(answer.index)
        asked.answers.append(answer)
        if not asked.missing:
            asked.complete.set()

    async def _answering(self) -> None:
        while True:
            asked = await self._questions.get()
            answer = self._answers.get(asked["question"])
            if answer is not None:
                body = await answer()
                self._send("answer", body, ask=asked["ask"], to=asked["to"])
                if self._writer is not None:
                    await self._writer.drain()

    async def _beginning(self) -> None:
        while not self.works():  # noqa: ASYNC110 - the engine has a status, and no event for it
            await asyncio.sleep(LOOK_S)
        self._send("working")

    def _send(self, kind: str, body: bytes = b"", **members: Any) -> None:
        if self._writer is not None:
            self._writer.write(Frame({"kind": kind, **members}, body).encoded())


def _state(members: Mapping[str, Any]) -> ProcessState:
    return ProcessState(**{**members, "worker": WorkerId(members["worker"])})


def joined(process: OwnProcess, stopping: Stopping, engine: Engine, arm: Callable[[], object]) -> None:
    """Connects what the supervisor wants of a process with its daemon. `arm` starts the timer of the process's last resort."""

    def alone() -> None:
        arm()
        stopping.on_signal("the end of its supervisor")

    process.works = lambda: engine.status().complete
    process.on_alone = alone
    process.on_cut_short = lambda: stopping.cut_short("a second signal to its supervisor")
    process.grace_s = lambda: engine.grace_s
    stopping.on_stop = process.draining
