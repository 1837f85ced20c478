"""Owns the `python` invoker: functions that live in the daemon's own process.

Asynchronous handlers run on the loop, all others in threads. The time limit cancels an asynchronous handler; one that
refuses to be cancelled holds its caller until it returns. A thread cannot be ended: the outcome is TimedOut at the
limit, and the thread's place stays taken until the handler returns. When every place is taken, calls are Throttled.
"""

import asyncio
import importlib
import inspect
import json
import os
import sys
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from decimal import Decimal
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from adapters.invokers.answers import ANSWER_BYTES_MAX, failed, too_large
from adapters.invokers.context import FunctionContext, context_of
from adapters.invokers.threads import Threads
from poller.errors import InvalidConfiguration
from poller.invocations import Event, FunctionError, Invocation, Outcome, Succeeded, Throttled, TimedOut
from poller.plugins import Environment, Plugin

WORKERS_DEFAULT = 64
"""Threads that one function may have when settings do not say; they are started when they are needed."""
WORKERS_MAX = 1000
MEMORY_MB_DEFAULT = 128

type Handler = Callable[[Any, FunctionContext], Any]


class PythonSettings(BaseModel):
    """Settings of one function; `handler` is `module:attribute`, `workers` the most threads of a sync handler.

    `max_concurrency` is the function's own limit, which the daemon gives; without `workers` there are as many threads.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    function: str
    handler: str
    workers: int | None = Field(default=None, ge=1, le=WORKERS_MAX)
    max_concurrency: int | None = None
    memory_mb: int = Field(default=MEMORY_MB_DEFAULT, ge=1)
    """What the context shows as `memory_limit_in_mb`; nothing enforces it."""

    @property
    def threads(self) -> int:
        """The most threads of a sync handler."""
        return self.workers or min(self.max_concurrency or WORKERS_DEFAULT, WORKERS_MAX)


class PythonInvoker:
    """Calls one handler with (event, context)."""

    def __init__(self, settings: PythonSettings, handler: Handler, threads: Threads) -> None:
        self._settings = settings
        self._handler = handler
        self._threads = threads
        self._on_loop = is_coroutine_function(handler)
        self._stream = uuid.uuid4().hex

    async def invoke(self, invocation: Invocation) -> Outcome:
        """Calls the handler and waits for its answer, `invocation.timeout_s` at most."""
        cancels = _cancels()
        try:
            async with asyncio.timeout(invocation.timeout_s) as limit:
                outcome = await self._called(invocation)
        except TimeoutError:
            return TimedOut(invocation.timeout_s)
        if _cancels() > cancels:
            # The handler swallowed a cancellation that was meant for us.
            raise asyncio.CancelledError
        return TimedOut(invocation.timeout_s) if limit.expired() else outcome

    async def _called(self, invocation: Invocation) -> Outcome:
        context = context_of(
            invocation,
            function=self._settings.function,
            memory_mb=self._settings.memory_mb,
            stream=self._stream,
        )
        if self._on_loop:
            return await settled(called(self._handler, invocation.event, context))
        if self._threads.full:
            return Throttled(
                f"all {self._settings.threads} threads of the function are busy (setting: workers)"
            )
        return await settled(
            await self._threads.run(lambda: called(self._handler, invocation.event, context))
        )


def _cancels() -> int:
    task = asyncio.current_task()
    assert task is not None, "an invoker runs in a task"
    return task.cancelling()


def called(handler: Handler, event: Event, context: FunctionContext) -> Outcome | Awaitable[Any]:
    """The outcome of calling the handler; what it returns is handed on when that still has to be awaited.

    Raises what reading the event raises, which is no fault of the handler.
    """
    given = event.decoded()
    try:
        result = handler(given, context)
    except BaseException as error:  # noqa: BLE001 - user code: whatever it raises, SystemExit too, is its failure
        return raised(error)
    return result if inspect.isawaitable(result) else answered(result)


async def settled(answer: Outcome | Awaitable[Any]) -> Outcome:
    """The outcome of `called`, awaited if need be; a cancellation of this task goes through, the handler's own not."""
    if not inspect.isawaitable(answer):
        return answer
    cancels = _cancels()
    try:
        result = await answer
    except asyncio.CancelledError as error:
        if _cancels() > cancels:
            raise
        return raised(error)
    except BaseException as error:  # noqa: BLE001 - user code: whatever it raises, SystemExit too, is its failure
        return raised(error)
    return answered(result)


def raised(error: BaseException) -> FunctionError:
    """The outcome of a handler that raised, named by type as Lambda's Python runtime does."""
    try:
        message = str(error)
    except Exception:  # noqa: BLE001 - user code: __str__ of an exception may fail like anything else
        message = "(its text could not be made)"
    return failed(type(error).__name__, message)


def answered(result: Any) -> Outcome:
    """The outcome of a handler that returned `result`: its JSON, or Runtime.MarshalError when it has none."""
    if result is None:
        # What most handlers return that report no failures.
        return Succeeded(b"null")
    try:
        payload = json.dumps(result, default=_decimal).encode()
    except (TypeError, ValueError, RecursionError) as error:
        return failed("Runtime.MarshalError", f"Unable to marshal response: {error}")
    return Succeeded(payload) if len(payload) <= ANSWER_BYTES_MAX else too_large(ANSWER_BYTES_MAX)


def _decimal(value: Any) -> float:
    # Numbers that come out of DynamoDB are Decimals in Python; Lambda's runtime answers them as numbers.
    if isinstance(value, Decimal):
        return float(value)
    raise TypeError(f"Object of type {type(value).__name__} is not JSON serializable")


def is_coroutine_function(handler: Handler) -> bool:
    """Whether calling `handler` gives a coroutine; knows objects with an asynchronous `__call__` too."""
    call = getattr(handler, "__call__", None)  # noqa: B004 - its kind is asked for, not whether it exists
    return inspect.iscoroutinefunction(handler) or inspect.iscoroutinefunction(call)


def load_handler(function: str, handler: str) -> Handler:
    """The callable that `module:attribute.path` names; raises InvalidConfiguration that says what to mend.

    The current directory is importable, as under `python -m`.
    """
    module_name, _, path = handler.partition(":")
    if not module_name or not path:
        raise _wrong(function, handler, "has no module and attribute; write it as package.module:function")
    if os.getcwd() not in sys.path and "" not in sys.path:
        sys.path.insert(0, os.getcwd())
    found = _attribute(_module(function, handler, module_name), function, handler, path)
    if not callable(found):
        raise _wrong(function, handler, f"{path} is a {type(found).__name__}; name a function instead")
    return found  # type: ignore[no-any-return]  # what a user's module holds has no type


def _module(function: str, handler: str, name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        remedy = f"no module {error.name!r}; install it or start the daemon where it lies ({os.getcwd()})"
        raise _wrong(function, handler, remedy) from error
    except (Exception, SystemExit) as error:
        # User code: importing a module runs it, and it may raise anything.
        what = f"{type(error).__name__}: {error}"
        raise _wrong(function, handler, f"importing {name} raised {what}; mend the module") from error


def _attribute(found: Any, function: str, handler: str, path: str) -> Any:
    for name in path.split("."):
        if not hasattr(found, name):
            where = getattr(found, "__name__", type(found).__name__)
            raise _wrong(function, handler, f"{where} has no attribute {name!r}; name one that exists")
        found = getattr(found, name)
    return found


def _wrong(function: str, handler: str, what: str) -> InvalidConfiguration:
    return InvalidConfiguration([f"functions.{function}.handler: {handler!r}: {what}"])


@asynccontextmanager
async def open_python(settings: PythonSettings, env: Environment) -> AsyncIterator[PythonInvoker]:
    """Imports the handler and yields its invoker; raises InvalidConfiguration when there is no such handler."""
    handler = load_handler(settings.function, settings.handler)
    threads = Threads(f"function-{settings.function}", settings.threads)
    try:
        yield PythonInvoker(settings, handler, threads)
    finally:
        threads.close()


plugin = Plugin("python", PythonSettings, open_python)
