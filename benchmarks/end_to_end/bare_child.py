"""Owns the least that runs a function in a child process: lengths and JSON on standard input and output, one call at a time.

python -m benchmarks.end_to_end.bare_child HANDLER
"""

import asyncio
import importlib
import struct
import sys
from contextlib import suppress
from subprocess import PIPE

import orjson

_LENGTH = struct.Struct(">I")


class BareChild:
    """The parent's end."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        assert process.stdin is not None
        assert process.stdout is not None
        self._input, self._output = process.stdin, process.stdout

    async def call(self, event: bytes) -> None:
        """Runs the function."""
        self._input.write(_LENGTH.pack(len(event)) + event)
        (length,) = _LENGTH.unpack(await self._output.readexactly(_LENGTH.size))
        await self._output.readexactly(length)


async def bare_child(handler: str) -> BareChild:
    """Starts one. It ends when its standard input closes."""
    command = [sys.executable, "-m", "benchmarks.end_to_end.bare_child", handler]
    return BareChild(await asyncio.create_subprocess_exec(*command, stdin=PIPE, stdout=PIPE))


def main() -> None:
    """The command."""
    module, _, name = sys.argv[1].rpartition(".")
    handler = getattr(importlib.import_module(module), name)
    given, taken = sys.stdin.buffer, sys.stdout.buffer
    while head := given.read(_LENGTH.size):
        answer = orjson.dumps(handler(orjson.loads(given.read(_LENGTH.unpack(head)[0])), None))
        taken.write(_LENGTH.pack(len(answer)) + answer)
        taken.flush()


if __name__ == "__main__":
    # At the end of the loop nobody reads the last answer.
    with suppress(BrokenPipeError):
        main()
