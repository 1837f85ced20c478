"""Owns Python functions with `isolation: process`, which run in child processes with one call each at a time.

A child process imports the handler's module, and is kept for further calls. If a call takes too long, the process and all that
it started are killed. The first process is started when the function is opened, so that a wrong handler is reported at once.
"""

import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from subprocess import PIPE

from adapters.invokers.handlers import child_program
from adapters.invokers.handlers.child import WRONG
from adapters.invokers.handlers.loading import IMPORT_S_MAX, too_slow, wrong
from adapters.invokers.process import ProcessInvoker, ProcessSettings
from poller.domain.errors import InvalidConfiguration
from poller.plugins import Environment


@asynccontextmanager
async def open_processes(
    *, function: str, handler: str, processes: int, memory_mb: int, log_level: str, env: Environment
) -> AsyncIterator[ProcessInvoker]:
    """Yields the invoker when one process has imported the handler; raises InvalidConfiguration if it cannot."""
    # With -P Python does not put the program's own folder on the import path.
    program = [sys.executable, "-u", "-P", child_program.__file__]
    command = [*program, function, handler, "--log-level", log_level.upper()]
    settings = ProcessSettings(
        function=function,
        command=command,
        handler=handler,
        processes=processes,
        init_timeout_s=IMPORT_S_MAX,
        memory_mb=memory_mb,
    )
    invoker = ProcessInvoker(settings, env, stdin=PIPE)
    try:
        problem = await invoker.warm()
        if problem is not None:
            raise _wrong(function, handler, problem)
        yield invoker
    finally:
        await invoker.close()


def _wrong(function: str, handler: str, problem: str) -> InvalidConfiguration:
    kind, _, message = problem.partition(": ")
    if kind == WRONG:
        return InvalidConfiguration([message])
    if problem.startswith("it was not ready"):
        return too_slow(function, handler, IMPORT_S_MAX)
    return wrong(function, handler, f"its process did not start: {problem}; mend the module")
