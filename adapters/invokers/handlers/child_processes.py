"""Owns Python functions with `isolation: process`, which run in child processes with one call each at a time.

A child process imports the handler's module, and is kept for further calls. If a call takes too long, the process and all that
it started are killed. The first process is started when the function is opened, so that a wrong handler is reported at once.
"""

import sys
from dataclasses import dataclass
from pathlib import Path
from subprocess import PIPE

from adapters.invokers.function_processes.process_settings import ProcessSettings
from adapters.invokers.function_processes.shared_code import SharedCode
from adapters.invokers.handlers import child_program
from adapters.invokers.handlers.child import WRONG
from adapters.invokers.handlers.loading import IMPORT_S_MAX, too_slow, wrong
from adapters.invokers.process import ProcessInvoker
from poller.domain.errors import InvalidConfiguration
from poller.plugins import Environment


@dataclass(frozen=True, slots=True, kw_only=True)
class ChildFunction:
    """A Python function that runs in child processes. `code` is its folder; None: it is the folder of the start."""

    function: str
    handler: str
    processes: int
    memory_mb: int
    log_level: str
    version: str
    code: Path | None = None


async def start_processes(
    child: ChildFunction, env: Environment, shared: SharedCode | None = None
) -> ProcessInvoker:
    """Returns the invoker when one process has imported the handler; raises InvalidConfiguration if it cannot.

    With `shared` the processes report what they import, and those after the first one import the same.
    """
    # With -P Python does not put the program's own folder on the import path.
    program = [sys.executable, "-u", "-P", child_program.__file__]
    command = [*program, child.function, child.handler, "--log-level", child.log_level.upper()]
    if child.code is not None:
        command += ["--folder", str(child.code)]
    if shared is not None:
        command.append("--reload")
    settings = ProcessSettings(
        function=child.function,
        command=command,
        cwd=child.code,
        handler=child.handler,
        processes=child.processes,
        init_timeout_s=IMPORT_S_MAX,
        memory_mb=child.memory_mb,
        function_version=child.version,
    )
    invoker = ProcessInvoker(settings, env, stdin=PIPE, code=shared)
    try:
        problem = await invoker.warm()
        if problem is not None:
            raise _wrong(child.function, child.handler, problem)
    except BaseException:
        await invoker.close()
        raise
    return invoker


def _wrong(function: str, handler: str, problem: str) -> InvalidConfiguration:
    kind, _, message = problem.partition(": ")
    if kind == WRONG:
        return InvalidConfiguration([message])
    if problem.startswith("it was not ready"):
        return too_slow(function, handler, IMPORT_S_MAX)
    return wrong(function, handler, f"its process did not start: {problem}; mend the module")
