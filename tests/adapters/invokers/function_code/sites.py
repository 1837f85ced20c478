"""Functions in real folders whose code changes while they are open."""

import asyncio
import json
import os
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from adapters.invokers.function_code.reloading import ReloadingInvoker
from adapters.invokers.python import PythonSettings, open_python
from poller.domain.invocations import Outcome, Succeeded
from poller.domain.status import CodeStatus
from poller.plugins import Environment
from poller.testing.invoker import invocation
from tests.contracts.invokers import environment

WAIT_S_MAX = 60.0
WAYS: Mapping[str, Mapping[str, Any]] = {
    "in the daemon": {},
    "in processes": {"isolation": "process", "processes": 2},
}


def write(folder: Path, files: Mapping[str, str]) -> None:
    """Writes files below a folder."""
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)


def replace(path: Path, text: str) -> None:
    """Writes a file beside another and puts it in its place, as editors do."""
    beside = path.with_suffix(".tmp")
    beside.write_text(text)
    os.replace(beside, path)


@dataclass
class Site:
    """An open function with `reload: true`, and what it said of its code."""

    folder: Path
    invoker: ReloadingInvoker
    said: list[CodeStatus] = field(default_factory=list)

    async def outcome(self, event: Any = None, *, timeout_s: float = WAIT_S_MAX) -> Outcome:
        """The outcome of a call."""
        return await self.invoker.invoke(invocation(event, timeout_s=timeout_s))

    async def answer(self, event: Any = None) -> Any:
        """What a call that succeeds returns."""
        found = await self.outcome(event)
        assert isinstance(found, Succeeded), found
        return json.loads(found.payload)

    async def until(self, wanted: Callable[[CodeStatus], bool]) -> CodeStatus:
        """Waits until the code is as wanted."""
        async with asyncio.timeout(WAIT_S_MAX):
            while not wanted(self.invoker.code):  # noqa: ASYNC110 - files have no events
                await asyncio.sleep(0.02)
        return self.invoker.code

    async def taken_up(self, times: int) -> None:
        """Waits until so many changes were taken up."""
        found = await self.until(lambda code: code.taken_up >= times or bool(code.refused))
        assert (found.taken_up, found.refused) == (times, "")

    async def refused(self) -> str:
        """Waits until a change was refused; returns why."""
        return (await self.until(lambda code: bool(code.refused))).refused


@asynccontextmanager
async def site(folder: Path, *, env: Environment | None = None, **settings: Any) -> AsyncIterator[Site]:
    """An open function whose code is in `folder`, in the daemon `env` or in one of its own."""
    async with AsyncExitStack() as stack:
        daemon = await stack.enter_async_context(environment()) if env is None else env
        yield await stack.enter_async_context(_opened(folder, daemon, settings))


@asynccontextmanager
async def _opened(folder: Path, env: Environment, settings: Mapping[str, Any]) -> AsyncIterator[Site]:
    given = PythonSettings.model_validate(
        {"function": "orders", "handler": "app.act", "code": folder, "reload": True} | dict(settings)
    )
    async with open_python(given, env) as invoker:
        assert isinstance(invoker, ReloadingInvoker)
        found = Site(folder, invoker)
        async with asyncio.TaskGroup() as tasks:
            following = tasks.create_task(
                invoker.follow_code(lambda: found.said.append(invoker.code)), name="code"
            )
            try:
                yield found
            finally:
                following.cancel()
