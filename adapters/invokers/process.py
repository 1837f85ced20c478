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
import sys
import uuid
from asyncio.subprocess import DEVNULL, Process
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, field_validator

from adapters.invokers.function_processes.output import ProcessOutput
from adapters.invokers.function_processes.runtime_api import Offer, ProcessSession, RuntimeApi, serving
from adapters.invokers.function_processes.start import LAUNCHED, ask_to_end, end_all, start_of
from poller.config_errors.error_messages import FieldError, refused
from poller.domain.errors import InvalidConfiguration
from poller.domain.invocations import (
    ERROR_MESSAGE_CHARS_MAX,
    Invocation,
    Outcome,
    Throttled,
    TimedOut,
    Unreachable,
)
from poller.domain.plan import CallLimit
from poller.domain.records import Monotonic
from poller.domain.untrusted.texts import line_of
from poller.plugins import Environment, Plugin
from poller.start_folder import folder_of_processes, from_start_folder

PROCESSES_DEFAULT = 64
"""Processes that one function may have if no setting limits them. They are started when needed."""
PROCESSES_MAX = 1000
INIT_TIMEOUT_S = 10.0
STOP_GRACE_S = 2.0
START_PAUSE_BASE_S = 0.5
START_PAUSE_MAX_S = 30.0
_DOUBLINGS_MAX = 16
MEMORY_MB_DEFAULT = 128
_OWN_PREFIX = "poller_"
"""The prefix of the daemon's own variables, in lower case: the daemon accepts them in any case."""


class ProcessSettings(BaseModel):
    """Settings of one function that runs as child processes; `cwd` None: the folder in which the daemon was started.

    The daemon sets `max_concurrency` to the function's own limit. Without `processes` there are as many processes.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    function: str
    command: list[str] = Field(
        min_length=1, max_length=1000, description="The program, which speaks Lambda's Runtime API."
    )
    env: dict[str, str] = Field(default_factory=dict, description="Added to the daemon's variables.")
    cwd: Path | None = Field(default=None, description="The directory in which the command is started.")
    handler: str = Field(default="", description="_HANDLER. Default: the last word of the command.")
    processes: int | None = Field(
        default=None, ge=1, le=PROCESSES_MAX, description="Processes at most, one call each."
    )
    max_concurrency: int | None = None
    init_timeout_s: float = Field(
        default=INIT_TIMEOUT_S, gt=0, le=900, description="Seconds until a started process must be ready."
    )
    stop_grace_s: float = Field(
        default=STOP_GRACE_S, ge=0, le=60, description="Seconds from SIGTERM to SIGKILL at the end."
    )
    memory_mb: int = Field(
        default=MEMORY_MB_DEFAULT, ge=1, description="AWS_LAMBDA_FUNCTION_MEMORY_SIZE. Nothing enforces it."
    )

    @property
    def processes_max(self) -> int:
        """The largest number of processes."""
        return self.processes or min(self.max_concurrency or PROCESSES_DEFAULT, PROCESSES_MAX)

    @property
    def folder(self) -> Path:
        """The absolute path of the directory in which the command is started."""
        return from_start_folder(self.cwd or "")

    @field_validator("command")
    @classmethod
    def _check_command(cls, command: list[str]) -> list[str]:
        if not command or not command[0] or any("\0" in send for send in command):
            raise ValueError(
                "a command starts with a program and has no NUL characters; write [program, argument, …]"
            )
        return command

    @field_validator("cwd")
    @classmethod
    def _check_cwd(cls, cwd: Path | None) -> Path | None:
        if cwd is not None and "\0" in str(cwd):
            raise ValueError("a path has no NUL characters; write a directory's path")
        return cwd

    @field_validator("env")
    @classmethod
    def _check_variables(cls, env: dict[str, str]) -> dict[str, str]:
        odd = [name for name, value in env.items() if not name or "=" in name or "\0" in name + value]
        if odd:
            remedy = "remove '=' and NUL characters"
            raise refused(FieldError("", f"{name!r} cannot be a variable", remedy) for name in odd)
        return env


def environment(settings: ProcessSettings, api: str, *, region: str | None) -> dict[str, str]:
    """Returns the variables of a function process: the daemon's, then the user's, then Lambda's. Later ones win."""
    inherited = {
        name: value for name, value in os.environ.items() if not name.lower().startswith(_OWN_PREFIX)
    }
    # A command should find `python` even if the daemon's virtual environment is not activated.
    path = os.pathsep.join(filter(None, [inherited.get("PATH"), os.path.dirname(sys.executable)]))
    regions = {"AWS_REGION": region, "AWS_DEFAULT_REGION": region} if region else {}
    return {
        **regions,
        **inherited,
        "PATH": path,
        **settings.env,
        "AWS_LAMBDA_RUNTIME_API": api,
        "AWS_LAMBDA_FUNCTION_NAME": settings.function,
        "AWS_LAMBDA_FUNCTION_VERSION": "$LATEST",
        "AWS_LAMBDA_FUNCTION_MEMORY_SIZE": str(settings.memory_mb),
        "AWS_LAMBDA_LOG_GROUP_NAME": f"/aws/lambda/{settings.function}",
        "AWS_LAMBDA_LOG_STREAM_NAME": uuid.uuid4().hex,
        "AWS_LAMBDA_INITIALIZATION_TYPE": "on-demand",
        "LAMBDA_TASK_ROOT": str(settings.folder.resolve()),
        "_HANDLER": settings.handler or settings.command[-1],
    }


class Worker:
    """Runs one process after another: their Runtime API, their output, and the present process."""

    def __init__(self, settings: ProcessSettings, env: Environment, stdin: int) -> None:
        self._settings = settings
        self._env = env
        self._stdin = stdin
        self._stack = AsyncExitStack()
        self._api: RuntimeApi | None = None
        self._running: Process | None = None
        self._killed = False
        self._output = ProcessOutput(settings.function, env.function_log)

    @property
    def alive(self) -> bool:
        """Whether the process runs, as far as is known."""
        return self._running is not None and self._running.returncode is None and not self._killed

    async def start(self) -> str | None:
        """Starts a process and waits until it is ready; returns why it is not, or None."""
        ready = False
        try:
            async with asyncio.timeout(self._settings.init_timeout_s):
                problem = await self._started()
            ready = problem is None
        except OSError as error:
            # TimeoutError is an OSError. Any other OSError means that the process could not be started at all.
            late = isinstance(error, TimeoutError)
            limit = f"it was not ready in {self._settings.init_timeout_s:g} seconds"
            problem = limit if late else f"it could not be started ({error.strerror or type(error).__name__})"
        finally:
            if not ready:
                self._kill()
                self._output.drain()
        return problem

    async def call(self, invocation: Invocation) -> Outcome | None:
        """Runs one invocation in the started process; kills the process if the time limit is over.

        Returns None if the process ended before it took the invocation.
        """
        assert self._api is not None, "a process must be started before it is called"
        session = self._api.session
        deadline = self._env.clock.now() + invocation.timeout_s
        self._output.call(invocation.request_id)
        try:
            async with asyncio.timeout(invocation.timeout_s):
                return await self._until_ended(session, session.ask(Offer(invocation, int(deadline * 1000))))
        except TimeoutError:
            return (
                TimedOut(invocation.timeout_s)
                if session.taken
                else Unreachable("the process took no call in time")
            )
        finally:
            if session.waiting:
                self._kill()
            self._output.drain()

    async def stop(self) -> None:
        """Sends SIGTERM, kills the process after the grace, and closes its Runtime API."""
        if self._running is not None:
            self._signal(ask_to_end)
            with suppress(TimeoutError):
                async with asyncio.timeout(self._settings.stop_grace_s):
                    await self._running.wait()
            self._kill()
            await self._running.wait()
        self._output.close()
        await self._stack.aclose()

    async def _started(self) -> str | None:
        if self._running is not None:
            await self._running.wait()
        if self._api is None:
            served = serving(self._settings.function, self._env.strangers)
            self._api = await self._stack.enter_async_context(served)
        session = self._api.clear()
        self._killed = False
        writing = self._output.open()
        variables = environment(self._settings, self._api.address, region=self._env.region)
        try:
            with start_of(self._settings.command, variables) as start:
                self._running = await asyncio.create_subprocess_exec(
                    *start.command,
                    stdin=self._stdin,
                    stdout=writing,
                    stderr=writing,
                    env=start.variables,
                    cwd=self._settings.folder if self._settings.cwd else folder_of_processes(),
                    start_new_session=True,
                    pass_fds=start.descriptors,
                )
                # The process begins only now, so that its id is known before it connects.
                self._api.guard.expect(self._running.pid)
                start.begin()
        finally:
            os.close(writing)
        problem = await self._until_ended(session, session.ready)
        return None if problem is None else f"{problem.error_type}: {problem.message}"

    async def _until_ended[T](self, session: ProcessSession, wanted: Awaitable[T]) -> T:
        """Awaits `wanted`, which the session ends at the latest when the process ends."""
        assert self._running is not None, "there is a process to watch"
        async with asyncio.TaskGroup() as tasks:
            watch = tasks.create_task(_watch(session, self._running), name="function process")
            found = await wanted
            watch.cancel()
        return found

    def _kill(self) -> None:
        """Kills the process and everything that it started. The event loop reaps it."""
        self._signal(end_all)
        self._killed = True

    def _signal(self, send: Callable[[int], None]) -> None:
        # Only before the process is reaped: afterwards another process may get its id.
        if self._running is not None and self._running.returncode is None:
            send(self._running.pid)


async def _watch(session: ProcessSession, running: Process) -> None:
    session.ended(await running.wait())


class ProcessInvoker:
    """Runs one function in as many processes as it has concurrent calls, up to `settings.processes_max`.

    `stdin` PIPE: the standard input of the processes closes when the daemon ends, in whatever way.
    """

    def __init__(self, settings: ProcessSettings, env: Environment, *, stdin: int = DEVNULL) -> None:
        self._settings = settings
        self._clock = env.clock
        self._workers = [Worker(settings, env, stdin) for _ in range(settings.processes_max)]
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
            return await self._run(worker, invocation)
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

    async def warm(self) -> str | None:
        """Starts a first process before it is needed; returns why it is not ready, or None."""
        return await self._workers[0].start()

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
