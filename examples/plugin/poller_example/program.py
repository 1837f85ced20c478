"""Owns the `program` invoker: a program that is started for each call, with the event as stdin and the answer as stdout.

A program that ends with another status than 0 has failed. If the last line that it wrote to stderr is a JSON object with
`errorType` and `errorMessage`, these are the error; otherwise the line itself is the message.
"""

import asyncio
import json
import os
import signal
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from poller.domain.invocations import FunctionError, Invocation, Outcome, Succeeded, TimedOut, Unreachable
from poller.plugins import Environment, Plugin

ANSWER_BYTES_MAX = 6 * 1024 * 1024
"""What a synchronous function may answer, as on Lambda."""
STDERR_BYTES_MAX = 64 * 1024
"""How much is kept of the end of stderr."""
CHUNK_BYTES = 64 * 1024


class ProgramSettings(BaseModel):
    """An entry of `functions`: `function` is the entry's name, which the daemon adds."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    function: str
    command: Annotated[list[str], Field(min_length=1)]


class ProgramInvoker:
    """Runs one program per call."""

    def __init__(self, command: list[str]) -> None:
        self._command = command

    async def invoke(self, invocation: Invocation) -> Outcome:
        """What the program made of the event; a program that cannot be started is Unreachable."""
        try:
            process = await asyncio.create_subprocess_exec(
                *self._command,
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.PIPE,
                start_new_session=True,
            )
        except OSError as error:
            return Unreachable(f"cannot start {self._command[0]}: {error.strerror}")
        try:
            async with asyncio.timeout(None if invocation.open_ended else invocation.timeout_s):
                return await _outcome(process, invocation.payload)
        except TimeoutError:
            return TimedOut(invocation.timeout_s)
        finally:
            await _end(process)


async def _outcome(process: asyncio.subprocess.Process, event: bytes) -> Outcome:
    answer, words = bytearray(), bytearray()
    too_large = asyncio.Event()

    def answered(chunk: bytes) -> None:
        answer.extend(chunk)
        if len(answer) > ANSWER_BYTES_MAX:
            too_large.set()
            answer.clear()

    def said(chunk: bytes) -> None:
        words.extend(chunk)
        del words[:-STDERR_BYTES_MAX]

    assert process.stdin is not None
    assert process.stdout is not None
    assert process.stderr is not None
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(_write(process.stdin, event), name="stdin")
        tasks.create_task(_read(process.stdout, answered), name="stdout")
        tasks.create_task(_read(process.stderr, said), name="stderr")
    status = await process.wait()
    if too_large.is_set():
        message = f"the answer has more than {ANSWER_BYTES_MAX} bytes"
        return FunctionError("Function.ResponseSizeTooLarge", message)
    return Succeeded(bytes(answer)) if status == 0 else _failure(bytes(words), status)


async def _write(pipe: asyncio.StreamWriter, event: bytes) -> None:
    # A program may end without reading its event.
    with suppress(ConnectionError):
        pipe.write(event)
        await pipe.drain()
    pipe.close()
    with suppress(ConnectionError):
        await pipe.wait_closed()


async def _read(pipe: asyncio.StreamReader, take: Callable[[bytes], None]) -> None:
    while chunk := await pipe.read(CHUNK_BYTES):
        take(chunk)


def _failure(words: bytes, status: int) -> FunctionError:
    lines = words.decode(errors="replace").splitlines() or [f"ended with status {status}"]
    try:
        said = json.loads(lines[-1])
        return FunctionError(str(said["errorType"]), str(said["errorMessage"]))
    except (ValueError, TypeError, KeyError):
        return FunctionError("Program.ExitStatus", lines[-1])


async def _end(process: asyncio.subprocess.Process) -> None:
    """Ends the program and what it started; a call that is cancelled or out of time leaves nothing behind."""
    if process.returncode is None:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        await process.wait()


@asynccontextmanager
async def open_program(settings: ProgramSettings, env: Environment) -> AsyncIterator[ProgramInvoker]:
    """Yields the invoker; no program runs before the first call."""
    del env
    yield ProgramInvoker(settings.command)


plugin = Plugin("program", ProgramSettings, open_program)
