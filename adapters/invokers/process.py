"""Owns the `process` invoker: functions as child processes that use Lambda's Runtime API, for example with awslambdaric.

One process runs one invocation at a time. A new process is started if all others are busy, up to a limit, and is kept. As on
Lambda, the time to start does not count as time of the call: the first call of a process may take `init_timeout_s` longer.
What a process writes becomes lines of the function log with the request id of its current call.

How a call ends:
- The time limit is over: the process and everything that it started are killed; TimedOut.
- The process ends during the call: FunctionError Runtime.ExitError.
- The process ends or reports an error before it is ready: Unreachable. No other start is tried for a back-off that grows with
  each failure in a row.
- All processes are busy: Throttled.
"""

import asyncio
import os
import shutil
from asyncio.subprocess import DEVNULL
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

from adapters.invokers.function_processes.process_settings import ProcessSettings, environment
from adapters.invokers.function_processes.shared_code import SharedCode
from adapters.invokers.function_processes.start import LAUNCHED
from adapters.invokers.function_processes.worker import Worker
from adapters.invokers.outcomes import for_caller
from poller.config_errors.error_messages import FieldError
from poller.domain.errors import InvalidConfiguration
from poller.domain.invocations import (
    ERROR_MESSAGE_CHARS_MAX,
    Invocation,
    Outcome,
    Throttled,
    Unreachable,
)
from poller.domain.plan import CallLimit
from poller.domain.records import Monotonic
from poller.domain.untrusted.texts import line_of
from poller.plugins import Environment, Plugin

START_PAUSE_BASE_S = 0.5
START_PAUSE_MAX_S = 30.0
_DOUBLINGS_MAX = 16


class ProcessInvoker:
    """Runs one function in as many processes as it has concurrent calls, up to `settings.processes_max`.

    `stdin` PIPE: the standard input of the processes closes when the daemon ends, in whatever way. `code` is what the processes
    share of their function's code.
    """

    def __init__(
        self,
        settings: ProcessSettings,
        env: Environment,
        *,
        stdin: int = DEVNULL,
        code: SharedCode | None = None,
    ) -> None:
        self._settings = settings
        self._clock = env.clock
        self._workers = [Worker(settings, env, stdin, code) for _ in range(settings.processes_max)]
        self._idle = list(self._workers)
        self._failures = 0
        self._no_start_before = Monotonic(0.0)

    async def invoke(self, invocation: Invocation) -> Outcome:
        """Runs the function in a free process, for `invocation.timeout_s` at most from the moment it is ready."""
        if not self._idle:
            return Throttled(
                f"all {self._settings.processes_max} processes of the function are busy (setting: processes)"
            )
        worker = next((one for one in reversed(self._idle) if one.alive), self._idle[-1])
        self._idle.remove(worker)
        try:
            return for_caller(await self._run(worker, invocation), invocation)
        finally:
            self._idle.append(worker)

    @property
    def start_s_max(self) -> float:
        """How long starting a process may take before a call."""
        return self._settings.init_timeout_s

    @property
    def call_limit(self) -> CallLimit:
        """How many calls can run at once, and why."""
        return call_limit(self._settings)

    @property
    def busy(self) -> int:
        """How many calls run."""
        return len(self._workers) - len(self._idle)

    @property
    def waiting(self) -> int:
        """How many processes run that have no call."""
        return sum(worker.alive for worker in self._idle)

    async def warm(self) -> str | None:
        """Starts a process before it is needed; returns why it is not ready, or None. Without a place for one it starts none."""
        worker = next((one for one in self._idle if not one.alive), None)
        if worker is None:
            return None
        self._idle.remove(worker)
        try:
            return await worker.start()
        finally:
            self._idle.append(worker)

    async def stop_one(self) -> None:
        """Ends a process that has no call, if there is one."""
        worker = next((one for one in self._idle if one.alive), None)
        if worker is None:
            return
        self._idle.remove(worker)
        try:
            await worker.stop()
        finally:
            self._idle.append(worker)

    async def close(self) -> None:
        """Ends all processes."""
        async with asyncio.TaskGroup() as tasks:
            for number, worker in enumerate(self._workers):
                tasks.create_task(worker.stop(), name=f"stop process {number}")

    async def _run(self, worker: Worker, invocation: Invocation) -> Outcome:
        if worker.alive and (outcome := await worker.call(invocation)):
            return outcome
        return await self._run_in_new_process(worker, invocation)

    async def _run_in_new_process(self, worker: Worker, invocation: Invocation) -> Outcome:
        pause_s = self._no_start_before - self._clock.monotonic()
        if pause_s > 0:
            return Unreachable("the function's process did not start; it is tried again soon", pause_s)
        problem = await worker.start()
        if problem is None:
            self._failures = 0
            outcome = await worker.call(invocation)
            if outcome is not None:
                return outcome
            problem = "it ended before it took its first call"
        self._pause_starts()
        reason = f"the function's process did not start: {problem}"
        return Unreachable(line_of(reason, chars_max=ERROR_MESSAGE_CHARS_MAX))

    def _pause_starts(self) -> None:
        now = self._clock.monotonic()
        if now < self._no_start_before:
            return  # Processes that were started together and failed together count as one failure.
        pause_s = min(START_PAUSE_MAX_S, START_PAUSE_BASE_S * 2.0 ** min(self._failures, _DOUBLINGS_MAX))
        self._failures += 1
        self._no_start_before = Monotonic(now + pause_s)


def call_limit(settings: ProcessSettings) -> CallLimit:
    """Returns the limit: one call per process."""
    return CallLimit(settings.processes_max, f"processes: {settings.processes_max}, one call each")


def setting_errors(settings: ProcessSettings) -> Iterator[FieldError]:
    """Yields an error if this machine lacks the program, its directory, or /proc."""
    if LAUNCHED and not Path("/proc/self/fd").is_dir():
        yield FieldError("command", "function processes need /proc", "mount it", here=True)
    missing_directory = settings.cwd is not None and not settings.folder.is_dir()
    if missing_directory:
        wrong = f"{str(settings.cwd)!r} is no directory"
        yield FieldError("cwd", wrong, "name one that exists", here=True)
    program = settings.command[0]
    if _program(settings) is None and not (missing_directory and "/" in program):
        yield FieldError("command", f"no program {program!r}", "install it or write its full path", here=True)


def _program(settings: ProcessSettings) -> str | None:
    """Returns the file that the command's first word means where it is started; None if there is none to execute."""
    program = settings.command[0]
    if "/" in program:
        return shutil.which(str(settings.folder / program))
    # An entry of PATH may be relative, too.
    places = environment(settings, "", region=None)["PATH"].split(os.pathsep)
    return shutil.which(program, path=os.pathsep.join(str(settings.folder / each) for each in places))


def check_machine(settings: ProcessSettings) -> None:
    """Raises InvalidConfiguration if the program or its directory does not exist."""
    place = f"functions.{settings.function}"
    problems = [f"{place}.{each.field}: {each.wrong}; {each.remedy}" for each in setting_errors(settings)]
    if problems:
        raise InvalidConfiguration(problems)


@asynccontextmanager
async def open_process(settings: ProcessSettings, env: Environment) -> AsyncIterator[ProcessInvoker]:
    """Yields the invoker; raises InvalidConfiguration if there is no such program. Ends all processes at the end."""
    check_machine(settings)
    invoker = ProcessInvoker(settings, env)
    try:
        yield invoker
    finally:
        await invoker.close()


plugin = Plugin("process", ProcessSettings, open_process, call_limit=call_limit, check=setting_errors)
