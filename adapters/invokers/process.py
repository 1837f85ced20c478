"""Owns the `process` invoker: functions as child processes that speak Lambda's Runtime API, such as awslambdaric.

One process runs one invocation at a time. Processes are started when all others are busy, up to a limit, and kept.
As on Lambda the time of starting is apart from the time of a call: the first call of a process may take up to
`init_timeout_s` longer. What a process writes is lines of the function log, with the id of the call that it works on.

How a call ends: its time is over: the process and all that it started are killed, TimedOut. The process ends while it works:
FunctionError Runtime.ExitError. It ends or reports an error before it is ready: Unreachable, and the function rests
for a back-off that grows with each failure in a row. All processes are busy: Throttled.
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
from adapters.invokers.function_processes.runtime_api import Desk, Offer, RuntimeApi, serving
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

PROCESSES_DEFAULT = 64
"""Processes that one function may have when settings do not say; they are started when they are needed."""
PROCESSES_MAX = 1000
INIT_TIMEOUT_S = 10.0
STOP_GRACE_S = 2.0
REST_BASE_S = 0.5
REST_CAP_S = 30.0
_DOUBLINGS_MAX = 16
MEMORY_MB_DEFAULT = 128
_OWN_PREFIX = "poller_"
"""In lower case: the daemon takes its variables in any."""


class ProcessSettings(BaseModel):
    """Settings of one function that runs as child processes; `cwd` None: the daemon's own directory.

    `max_concurrency` is the function's own limit, which the daemon gives; without `processes` there are as many.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    function: str
    command: list[str] = Field(min_length=1, max_length=1000)
    env: dict[str, str] = Field(default_factory=dict)
    """Added to the daemon's environment, of which POLLER_ variables are left out."""
    cwd: Path | None = None
    handler: str = ""
    """What `_HANDLER` says; empty: the last word of the command."""
    processes: int | None = Field(default=None, ge=1, le=PROCESSES_MAX)
    max_concurrency: int | None = None
    init_timeout_s: float = Field(default=INIT_TIMEOUT_S, gt=0, le=900)
    stop_grace_s: float = Field(default=STOP_GRACE_S, ge=0, le=60)

    """Between SIGTERM and SIGKILL when the daemon ends."""
    memory_mb: int = Field(default=MEMORY_MB_DEFAULT, ge=1)
    """What AWS_LAMBDA_FUNCTION_MEMORY_SIZE says; nothing enforces it."""

    @property
    def processes_max(self) -> int:
        """The most processes."""
        return self.processes or min(self.max_concurrency or PROCESSES_DEFAULT, PROCESSES_MAX)

    @field_validator("command")
    @classmethod
    def _words(cls, command: list[str]) -> list[str]:
        if not command or not command[0] or any("\0" in word for word in command):
            raise ValueError(
                "a command starts with a program and has no NUL characters; write [program, argument, …]"
            )
        return command

    @field_validator("cwd")
    @classmethod
    def _a_path(cls, cwd: Path | None) -> Path | None:
        if cwd is not None and "\0" in str(cwd):
            raise ValueError("a path has no NUL characters; write a directory's path")
        return cwd

    @field_validator("env")
    @classmethod
    def _variables(cls, env: dict[str, str]) -> dict[str, str]:
        odd = [name for name, value in env.items() if not name or "=" in name or "\0" in name + value]
        if odd:
            remedy = "remove '=' and NUL characters"
            raise refused(FieldError("", f"{name!r} cannot be a variable", remedy) for name in odd)
        return env


def environment(settings: ProcessSettings, api: str, *, region: str | None) -> dict[str, str]:
    """The variables of a function process: the daemon's, the user's, Lambda's; later ones win."""
    inherited = {
        name: value for name, value in os.environ.items() if not name.lower().startswith(_OWN_PREFIX)
    }
    # `python` in a command should be found even when the daemon's own environment is not activated.
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
        "LAMBDA_TASK_ROOT": str((settings.cwd or Path.cwd()).resolve()),
        "_HANDLER": settings.handler or settings.command[-1],
    }


class Worker:
    """One place for a process: its Runtime API and, while it lives, the process."""

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
        """Whether a process runs here, as far as is known."""
        return self._running is not None and self._running.returncode is None and not self._killed

    async def start(self) -> str | None:
        """Starts a process and waits until it is ready; otherwise says why it is not."""
        ready = False
        try:
            async with asyncio.timeout(self._settings.init_timeout_s):
                problem = await self._started()
            ready = problem is None
        except OSError as error:
            # TimeoutError is one of them; no other comes out of a start that has begun.
            late = isinstance(error, TimeoutError)
            limit = f"it was not ready in {self._settings.init_timeout_s:g} seconds"
            problem = limit if late else f"it could not be started ({error.strerror or type(error).__name__})"
        finally:
            if not ready:
                self._kill()
                self._output.drain()
        return problem

    async def call(self, invocation: Invocation) -> Outcome | None:
        """Runs one invocation in the process, which must have been started; kills it when the time is over.

        None when the process ended without having seen the invocation.
        """
        assert self._api is not None, "a process must be started before it is called"
        desk = self._api.desk
        deadline = self._env.clock.now() + invocation.timeout_s
        self._output.call(invocation.request_id)
        try:
            async with asyncio.timeout(invocation.timeout_s):
                return await self._watched(desk, desk.ask(Offer(invocation, int(deadline * 1000))))
        except TimeoutError:
            return (
                TimedOut(invocation.timeout_s)
                if desk.taken
                else Unreachable("the process took no call in time")
            )
        finally:
            if desk.waiting:
                self._kill()
            self._output.drain()

    async def stop(self) -> None:
        """Asks the process to end, kills it after the grace, and closes its Runtime API."""
        if self._running is not None:
            self._tell(ask_to_end)
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
        desk = self._api.clear()
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
                    cwd=self._settings.cwd,
                    start_new_session=True,
                    pass_fds=start.descriptors,
                )
                # Only now it may begin, so that it is known before it connects.
                self._api.keeper.expect(self._running.pid)
                start.begin()
        finally:
            os.close(writing)
        problem = await self._watched(desk, desk.ready)
        return None if problem is None else f"{problem.error_type}: {problem.message}"

    async def _watched[T](self, desk: Desk, wanted: Awaitable[T]) -> T:
        """What `wanted` gives, which `desk` decides at the latest when the process ends."""
        assert self._running is not None, "there is a process to watch"
        async with asyncio.TaskGroup() as tasks:
            watch = tasks.create_task(_watch(desk, self._running), name="function process")
            found = await wanted
            watch.cancel()
        return found

    def _kill(self) -> None:
        """Ends the process at once, with all that it started; the loop reaps it."""
        self._tell(end_all)
        self._killed = True

    def _tell(self, word: Callable[[int], None]) -> None:
        # Only while the process is not reaped: its number may belong to somebody else afterwards.
        if self._running is not None and self._running.returncode is None:
            word(self._running.pid)


async def _watch(desk: Desk, running: Process) -> None:
    desk.ended(await running.wait())


class ProcessInvoker:
    """Runs one function in as many processes as it has calls at once, up to `settings.processes_max`.

    `stdin` PIPE: the processes' standard input closes when this process ends, however it does.
    """

    def __init__(self, settings: ProcessSettings, env: Environment, *, stdin: int = DEVNULL) -> None:
        self._settings = settings
        self._clock = env.clock
        self._workers = [Worker(settings, env, stdin) for _ in range(settings.processes_max)]
        self._idle = list(self._workers)
        self._failures = 0
        self._rest_until = Monotonic(0.0)

    async def invoke(self, invocation: Invocation) -> Outcome:
        """Runs the function in a free process, for `invocation.timeout_s` at most once that is ready."""
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
        """A process may have to start before it takes a call."""
        return self._settings.init_timeout_s

    @property
    def call_limit(self) -> CallLimit:
        """How many calls can run at once, and why."""
        return call_limit(self._settings)

    async def warm(self) -> str | None:
        """Starts a first process before it is needed; says why that is not ready, if it is not."""
        return await self._workers[0].start()

    async def close(self) -> None:
        """Ends all processes."""
        async with asyncio.TaskGroup() as tasks:
            for number, worker in enumerate(self._workers):
                tasks.create_task(worker.stop(), name=f"stop process {number}")

    async def _run(self, worker: Worker, invocation: Invocation) -> Outcome:
        if worker.alive and (outcome := await worker.call(invocation)):
            return outcome
        return await self._run_anew(worker, invocation)

    async def _run_anew(self, worker: Worker, invocation: Invocation) -> Outcome:
        rest_s = self._rest_until - self._clock.monotonic()
        if rest_s > 0:
            return Unreachable("the function's process did not start; it is tried again soon", rest_s)
        problem = await worker.start()
        if problem is None:
            self._failures = 0
            outcome = await worker.call(invocation)
            if outcome is not None:
                return outcome
            problem = "it ended before it took its first call"
        self._rest()
        reason = f"the function's process did not start: {problem}"
        return Unreachable(line_of(reason, chars_max=ERROR_MESSAGE_CHARS_MAX))

    def _rest(self) -> None:
        now = self._clock.monotonic()
        if now < self._rest_until:
            return  # Several that started together and failed together are one failure.
        rest_s = min(REST_CAP_S, REST_BASE_S * 2.0 ** min(self._failures, _DOUBLINGS_MAX))
        self._failures += 1
        self._rest_until = Monotonic(now + rest_s)


def call_limit(settings: ProcessSettings) -> CallLimit:
    """One call a process."""
    return CallLimit(settings.processes_max, f"processes: {settings.processes_max}, one call each")


def objections(settings: ProcessSettings) -> Iterator[FieldError]:
    """Whether this machine has the program and its directory, and can tell processes apart."""
    if LAUNCHED and not Path("/proc/self/fd").is_dir():
        yield FieldError("command", "function processes need /proc", "mount it", here=True)
    astray = settings.cwd is not None and not settings.cwd.is_dir()
    if astray:
        wrong = f"{str(settings.cwd)!r} is no directory"
        yield FieldError("cwd", wrong, "name one that exists", here=True)
    path = environment(settings, "", region=None)["PATH"]
    program = settings.command[0]
    local = (settings.cwd or Path.cwd()) / program
    if shutil.which(program, path=path) is None and not ("/" in program and os.access(local, os.X_OK)):
        remedy = "install it or write its full path"
        if not astray or "/" not in program:
            yield FieldError("command", f"no program {program!r}", remedy, here=True)


def checked(settings: ProcessSettings) -> None:
    """Raises InvalidConfiguration when the program or its directory does not exist."""
    place = f"functions.{settings.function}"
    problems = [f"{place}.{each.field}: {each.wrong}; {each.remedy}" for each in objections(settings)]
    if problems:
        raise InvalidConfiguration(problems)


@asynccontextmanager
async def open_process(settings: ProcessSettings, env: Environment) -> AsyncIterator[ProcessInvoker]:
    """Yields the invoker; raises InvalidConfiguration when there is no such program. Leaving it ends every process."""
    checked(settings)
    invoker = ProcessInvoker(settings, env)
    try:
        yield invoker
    finally:
        await invoker.close()


plugin = Plugin("process", ProcessSettings, open_process, call_limit=call_limit, check=objections)
