"""Owns the `python` invoker: functions that run in the daemon's own process.

Asynchronous handlers run on the event loop, each call in a task of its own. All others run in threads. The time limit cancels an
asynchronous handler. A thread cannot be ended, and a handler may ignore its cancellation. Then the outcome is TimedOut at the
limit, but the call keeps its slot until the handler returns. If no slot is free, calls are Throttled.

On Lambda an execution environment runs one invocation at a time, and code relies on that: it keeps data of one invocation in
module variables. So a synchronous handler runs one call at a time, unless `workers` says that its code is safe in threads.
Lambda has no asynchronous handlers. Those are written to run concurrently, so they do.
"""

import asyncio
import logging
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from contextvars import copy_context
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, field_validator, model_validator

from adapters.invokers.function_code.kept_sources import installed_names, is_own
from adapters.invokers.function_code.reloading import Load, RefusedCode, ReloadingInvoker, Version
from adapters.invokers.function_code.versions import ModulesLoader, ProcessesVersion
from adapters.invokers.function_processes.process_settings import PROCESSES_MAX
from adapters.invokers.function_processes.shared_code import SharedCode
from adapters.invokers.handlers.calling import (
    Handler,
    Pending,
    call_and_await,
    call_handler,
    finish_pending,
    is_coroutine_function,
)
from adapters.invokers.handlers.child_processes import ChildFunction, start_processes
from adapters.invokers.handlers.context import FunctionContext, context_of
from adapters.invokers.handlers.loading import IMPORT_S_MAX, pending_imports
from adapters.invokers.handlers.output import function_output
from adapters.invokers.handlers.own_packages import REMEDY, hidden_import
from adapters.invokers.handlers.source import declared_async, handler_name, missing_module
from adapters.invokers.handlers.tasks import HandlerTasks
from adapters.invokers.handlers.threads import Threads
from adapters.invokers.outcomes import for_caller, named_in_document
from adapters.invokers.process import ProcessInvoker
from poller.config_errors.error_messages import FieldError, refused
from poller.domain.errors import InvalidConfiguration
from poller.domain.invocations import Invocation, Outcome, Throttled, TimedOut
from poller.domain.plan import LATEST, CallLimit
from poller.foreign_tasks import FUNCTION_THREADS
from poller.plugins import Environment, Plugin
from poller.ports import Clock
from poller.start_folder import from_start_folder

WORKERS_MAX = 1000
PROCESSES_DEFAULT = 8
"""Child processes of one function if neither `processes` nor `max_concurrency` is set. They are started when needed."""
CALLS_MAX = 10_000
"""Concurrent asynchronous calls of one function if no setting limits them, including those that ignored a cancellation."""
CLOSE_GRACE_S = 1.0
"""How long closing a function waits for asynchronous handlers that it has cancelled."""
MEMORY_MB_DEFAULT = 128
NOT_KNOWN = (
    "one at a time, or any number if the handler is asynchronous, which its source does not tell; "
    "known when the function is loaded (function_opened in the log); workers: N settles it"
)


class PythonSettings(BaseModel):
    """Settings of one function; `handler` is stored as `module:attribute`, in whatever form it was written.

    `workers`: the code is safe to run concurrently, in this many calls. `isolation: process`: calls run in child processes,
    `processes` at most, each with one call at a time. With `code` or `reload` the modules are imported apart from those of other
    functions in the daemon's process. In processes they always are. The daemon sets `max_concurrency` to the function's own limit, and
    `function_version` to the version that is opened.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    function: str
    handler: Annotated[str, AfterValidator(handler_name)] = Field(
        description="module:function, or as on AWS module.function or path/to/module.function.",
        examples=["shop.handlers:orders", "app.handler"],
    )
    workers: int | None = Field(
        default=None, ge=1, le=WORKERS_MAX, description="Calls at once, of code that is safe in threads."
    )
    isolation: Literal["process"] | None = Field(
        default=None, description="process: calls run in child processes, each with one call at a time."
    )
    processes: int | None = Field(
        default=None, ge=1, le=PROCESSES_MAX, description="Child processes at most, with isolation: process."
    )
    code: Path | None = Field(
        default=None,
        description="The folder of the function's own modules, which no other function imports. Default: the folder of the start.",
        examples=["functions/orders"],
    )
    reload: bool = Field(
        default=False, description="Take changed modules of the function up between calls, without a restart."
    )
    max_concurrency: int | None = None
    function_version: str = LATEST
    log_level: Literal["debug", "info", "warning", "error", "critical"] = Field(
        default="info",
        description="The lowest level of what the function logs, unless it or its loggers set another one.",
    )
    memory_mb: int = Field(
        default=MEMORY_MB_DEFAULT,
        ge=1,
        description="The value of memory_limit_in_mb in the context. Nothing enforces it.",
    )

    @field_validator("code")
    @classmethod
    def _check_code(cls, code: Path | None) -> Path | None:
        if code is not None and "\0" in str(code):
            raise ValueError("a path has no NUL characters; write a folder's path")
        return code

    @model_validator(mode="after")
    def _check_combination(self) -> Self:
        reads = ("isolation",)
        found = []
        if self.isolation and self.workers is not None:
            wrong = "is for threads, and isolation: process has none"
            found.append(FieldError("workers", wrong, "write processes: N instead", reads))
        if self.processes is not None and not self.isolation:
            found.append(
                FieldError("processes", "is for isolation: process", "add that, or remove it", reads)
            )
        if found:
            raise refused(found)
        return self

    @property
    def folder(self) -> Path:
        """The absolute path of the folder of the function's own modules. Links are not followed."""
        return from_start_folder(self.code or "")

    @property
    def apart(self) -> bool:
        """Whether the function's modules are imported apart from other functions' in the daemon's process."""
        return not self.isolation and (self.reload or self.code is not None)

    @property
    def processes_max(self) -> int:
        """The largest number of child processes."""
        return self.processes or min(self.max_concurrency or PROCESSES_DEFAULT, PROCESSES_MAX)

    @property
    def threads(self) -> int:
        """The largest number of threads of a synchronous handler."""
        return self.workers or 1

    @property
    def tasks(self) -> int:
        """The largest number of concurrent calls of an asynchronous handler."""
        return self.workers or self.max_concurrency or CALLS_MAX


def call_limit(settings: PythonSettings, *, on_loop: bool | None) -> CallLimit:
    """Returns how many calls of the handler can run at once; `on_loop`: it is asynchronous, None: that is not known."""
    if settings.isolation:
        return CallLimit(settings.processes_max, f"processes: {settings.processes_max}, one call each")
    if settings.workers is not None:
        return CallLimit(settings.workers, f"workers: {settings.workers}")
    if on_loop is None:
        return CallLimit(None, NOT_KNOWN, known=False)
    if on_loop:
        return CallLimit(None, "an asynchronous handler runs beside itself; workers: N bounds it")
    return CallLimit(1, "one at a time, as on Lambda; workers: N says that its code is safe in N threads")


class PythonInvoker:
    """Calls one handler with (event, context)."""

    def __init__(self, settings: PythonSettings, handler: Handler, threads: Threads, clock: Clock) -> None:
        self._settings = settings
        self._handler = handler
        self._threads = threads
        self._clock = clock
        self._on_loop = is_coroutine_function(handler)
        self._tasks = HandlerTasks(f"function {settings.function}", clock.monotonic)
        self._stream = uuid.uuid4().hex

    @property
    def call_limit(self) -> CallLimit:
        """How many calls can run at once, and why."""
        return call_limit(self._settings, on_loop=self._on_loop)

    @property
    def busy(self) -> int:
        """How many calls run, including those that nobody waits for any more."""
        return self._tasks.busy + self._threads.busy

    @property
    def calls_left(self) -> int:
        """How many calls go on although their time is over or they were cancelled."""
        return self._tasks.left + self._threads.left

    async def invoke(self, invocation: Invocation) -> Outcome:
        """Calls the handler and waits for its answer, for `invocation.timeout_s` at most."""
        if self._on_loop:
            outcome = await self._in_task(invocation)
        else:
            outcome = await self._in_thread(invocation)
        return TimedOut(invocation.timeout_s) if outcome is None else for_caller(outcome, invocation)

    async def close(self) -> None:
        """Cancels asynchronous handlers that still run, waits for them for a short time, and lets threads end."""
        self._threads.close()
        await self._tasks.close(CLOSE_GRACE_S)

    async def _in_task(self, invocation: Invocation) -> Outcome | None:
        tasks = self._tasks
        if tasks.busy >= self._settings.tasks and not await tasks.room(self._settings.tasks):
            return _full(self._settings.tasks, "calls")

        context, whole_for = self._context(invocation), named_in_document(invocation)
        return await tasks.run(
            lambda: call_and_await(self._handler, invocation.event, context, whole_for=whole_for),
            invocation.timeout_s,
        )

    async def _in_thread(self, invocation: Invocation) -> Outcome | None:
        if self._threads.full or not await self._tasks.room(self._settings.threads - self._threads.busy):
            return _full(self._settings.threads, "threads")
        deadline = self._clock.monotonic() + invocation.timeout_s
        context, whole_for = self._context(invocation), named_in_document(invocation)
        work = partial(call_handler, self._handler, invocation.event, context, whole_for=whole_for)
        # A traced call has its span in the context of this task, and a thread has a context of its own.
        future = self._threads.start(partial(copy_context().run, work) if invocation.traceparent else work)
        try:
            await asyncio.wait((future,), timeout=invocation.timeout_s)
        finally:
            if not future.done():
                future.cancel()
        if future.cancelled():
            return None
        found = future.result()
        if not isinstance(found, Pending):
            return found
        # A synchronous function returned an awaitable, which is awaited on the loop.
        left_s = max(0.0, deadline - self._clock.monotonic())
        return await self._tasks.run(lambda: finish_pending(found, context, whole_for=whole_for), left_s)

    def _context(self, invocation: Invocation) -> FunctionContext:
        return context_of(
            invocation,
            function=self._settings.function,
            memory_mb=self._settings.memory_mb,
            stream=self._stream,
            version=self._settings.function_version,
        )


def _full(places: int, what: str) -> Throttled:
    return Throttled(f"all {places} {what} of the function are busy (setting: workers)")


def _close_awaitable(found: Any) -> None:
    """Closes a coroutine that nobody will await."""
    if isinstance(found, Pending) and hasattr(found.awaitable, "close"):
        found.awaitable.close()


type OpenFunction = PythonInvoker | ProcessInvoker | Version | ReloadingInvoker


@asynccontextmanager
async def open_python(settings: PythonSettings, env: Environment) -> AsyncIterator[OpenFunction]:
    """Imports the handler and yields its invoker; raises InvalidConfiguration if there is no such handler."""
    if settings.isolation is None:
        output = await function_output(env)
        output.logging_settings(settings.function, getattr(logging, settings.log_level.upper()))
        if not settings.apart:
            async with _in_this_process(settings, env) as invoker:
                yield invoker
            return
    found = await _opened(settings, env)
    try:
        yield found
    finally:
        await found.close()


async def _opened(settings: PythonSettings, env: Environment) -> OpenFunction:
    if settings.isolation and not settings.reload:
        return await start_processes(_child(settings), env)
    load = _versions(settings, env)
    first = await load()
    if isinstance(first, RefusedCode):
        raise InvalidConfiguration([first.reason])
    return ReloadingInvoker(first, load, env.clock) if settings.reload else first


def _versions(settings: PythonSettings, env: Environment) -> Load:
    """Returns what loads a version of the function's code."""
    if settings.isolation is None:
        loader = ModulesLoader(
            settings.function,
            settings.handler,
            folder=str(settings.folder),
            threads=partial(_threads, settings),
            calls=lambda handler, threads: PythonInvoker(settings, handler, threads, env.clock),
        )
        return loader.load
    child = _child(settings)

    async def load() -> ProcessesVersion | RefusedCode:
        shared = SharedCode()
        try:
            return ProcessesVersion(await start_processes(child, env, shared), shared.sources)
        except InvalidConfiguration as error:
            return RefusedCode(error.problems[0], shared.sources)

    return load


def _child(settings: PythonSettings) -> ChildFunction:
    return ChildFunction(
        function=settings.function,
        handler=settings.handler,
        processes=settings.processes_max,
        memory_mb=settings.memory_mb,
        log_level=settings.log_level,
        version=settings.function_version,
        code=settings.folder if settings.code else None,
    )


def _threads(settings: PythonSettings) -> Threads:
    return Threads(f"{FUNCTION_THREADS}{settings.function}", settings.threads, dropped=_close_awaitable)


@asynccontextmanager
async def _in_this_process(settings: PythonSettings, env: Environment) -> AsyncIterator[PythonInvoker]:
    threads = _threads(settings)
    try:
        imports = await pending_imports(env)
        # The thread that imports the module also runs its first call, since the module may keep objects of this thread.
        start = partial(threads.start, name=f"import of {settings.function}")
        handler = await imports.load(settings.function, settings.handler, start, limit_s=IMPORT_S_MAX)
        invoker = PythonInvoker(settings, handler, threads, env.clock)
        try:
            yield invoker
        finally:
            await invoker.close()
    finally:
        threads.close()


def setting_errors(settings: PythonSettings) -> list[FieldError]:
    """Returns an error if an import would not find the module, or would find the daemon's own. Runs nothing of it."""
    module, folder = settings.handler.partition(":")[0], settings.folder
    if not folder.is_dir():
        wrong = f"{str(settings.code)!r} is no directory"
        return [FieldError("code", wrong, "name the folder of the function's modules", here=True)]
    hidden = "" if settings.isolation or settings.apart else hidden_import(module)
    if hidden:
        return [FieldError("handler", hidden, REMEDY)]
    missing = missing_module(module, folder)
    if not missing:
        return [] if _seen(settings, module) else [_unseen(module, folder)]
    remedy = (
        f"install it, or correct code (this is {folder})"
        if settings.code
        else f"install it, or start the daemon where it lies (this is {folder})"
    )
    return [FieldError("handler", f"no module {missing!r}", remedy, here=True)]


def _seen(settings: PythonSettings, module: str) -> bool:
    """Whether changes of the handler's module can be taken up, if they are to be. Processes also see what a library imports."""
    if settings.isolation or not settings.reload:
        return True
    folder = str(settings.folder)
    return is_own(module.partition(".")[0], folder, installed_names(folder))


def _unseen(module: str, folder: Path) -> FieldError:
    wrong = (
        f"would see no change: {module.partition('.')[0]!r} is no module of the function's own in {folder}"
    )
    remedy = "write as code the folder that has it, or remove reload"
    return FieldError("reload", wrong, remedy, ("code", "handler"), here=True, mild=True)


plugin = Plugin(
    "python",
    PythonSettings,
    open_python,
    check=setting_errors,
    call_limit=lambda settings: call_limit(
        settings, on_loop=declared_async(settings.handler, settings.folder)
    ),
)
