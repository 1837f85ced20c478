"""Owns one place for a process of a function: it starts a process, runs calls in it, and kills it when a call takes too long."""

import asyncio
import os
from asyncio.subprocess import Process
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack, suppress

from adapters.invokers.function_processes.output import ProcessOutput
from adapters.invokers.function_processes.process_session import Offer, ProcessSession
from adapters.invokers.function_processes.process_settings import ProcessSettings, environment
from adapters.invokers.function_processes.runtime_api import RuntimeApi, serving
from adapters.invokers.function_processes.shared_code import SharedCode
from adapters.invokers.function_processes.start import ask_to_end, end_all, start_of
from poller.domain.invocations import Invocation, Outcome, TimedOut, Unreachable
from poller.plugins import Environment
from poller.start_folder import folder_of_processes


class Worker:
    """Runs one process after another: their Runtime API, their output, and the present process."""

    def __init__(
        self, settings: ProcessSettings, env: Environment, stdin: int, code: SharedCode | None
    ) -> None:
        self._settings = settings
        self._code = code
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
        self._api = None

    async def _started(self) -> str | None:
        if self._running is not None:
            await self._running.wait()
        if self._api is None:
            served = serving(self._settings.function, self._env.strangers, self._code)
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
