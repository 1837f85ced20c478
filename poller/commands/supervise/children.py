"""Owns how a process of the daemon is started: with the same command line, and with a socket to the supervisor."""

import asyncio
import socket
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from poller.commands.supervise.frames import HEAD_BYTES_MAX, UNSENT_BYTES_MAX, Frame
from poller.commands.supervise.place import ProcessPlace
from poller.domain.records import WorkerId
from poller.domain.supervision.processes import ProcessState
from poller.rules.supervision.restarts import Restarts

AS_PROCESS = "--as-process"


def same_command() -> list[str]:
    """The command line of this process, with the interpreter's own options."""
    return [sys.executable, *sys.orig_argv[1:]]


@dataclass(slots=True, eq=False)
class Child:
    """A running process and the connection to it."""

    process: asyncio.subprocess.Process
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    begun: bool = False
    """It reads from the connection."""
    kill_at: float | None = None
    """When it is killed, because it was asked to end and has not; a time of the loop."""

    def send(self, kind: str, body: bytes = b"", **members: Any) -> None:
        """Sends a frame."""
        self.writer.write(Frame({"kind": kind, **members}, body).encoded())

    @property
    def reads(self) -> bool:
        """Whether it has read nearly all that was sent to it."""
        return self.begun and self.writer.transport.get_write_buffer_size() < UNSENT_BYTES_MAX


@dataclass(slots=True, eq=False)
class Slot:
    """The place of one process, which stays when the process ends."""

    index: int
    worker: WorkerId
    child: Child | None = None
    restarts: Restarts = field(default_factory=Restarts)
    ended: str = ""
    status: int = 0
    """The exit status of its last process."""

    @property
    def state(self) -> ProcessState:
        """What the others are told."""
        return ProcessState(
            index=self.index,
            worker=self.worker,
            pid=self.child.process.pid if self.child is not None else None,
            begun=self.child is not None and self.child.begun,
            restarts=self.restarts.count,
            ended=self.ended,
        )


async def start_child(command: Sequence[str], place: ProcessPlace) -> Child:
    """Starts a process; `place` has no descriptor of the connection yet. Raises OSError."""
    ours, theirs = socket.socketpair()
    with theirs:
        option = ProcessPlace(
            index=place.index,
            processes=place.processes,
            worker=place.worker,
            link=theirs.fileno(),
            listening=place.listening,
            supervisor=place.supervisor,
        ).as_option()
        try:
            process = await asyncio.create_subprocess_exec(
                *command, AS_PROCESS, option, pass_fds=(theirs.fileno(), place.listening)
            )
        except OSError:
            ours.close()
            raise
    reader, writer = await asyncio.open_unix_connection(sock=ours, limit=HEAD_BYTES_MAX)
    return Child(process, reader, writer)
