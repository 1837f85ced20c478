"""Owns the plug-ins of a dry run: those of the daemon, with substitutes for all that would have an effect."""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import replace
from functools import partial
from typing import Any

from pydantic import BaseModel, ConfigDict

from poller.commands.dry_run.polled_source import polled
from poller.commands.dry_run.positions import StoredPositions
from poller.commands.dry_run.queue_source import ReceivedOnly
from poller.commands.dry_run.recorder import Recorder
from poller.domain.errors import InvalidConfiguration
from poller.domain.plan import SourceKind
from poller.plugins import Environment, Plugin, Registry


class AnySettings(BaseModel):
    """Settings of a function that is not called. They were checked before."""

    model_config = ConfigDict(extra="allow", frozen=True)


class DryRunPlugins:
    """A Registry: sources are those of `registry`, functions are `recorder`, and the store begins as a copy of `positions`.

    A queue source does not delete, and a stream is polled. There are no destinations.
    """

    def __init__(self, registry: Registry, recorder: Recorder, positions: StoredPositions) -> None:
        self._registry = registry
        self._recorder = recorder
        self._positions = positions

    def plugin(self, kind: str, name: str) -> Plugin[Any, Any]:
        """The plug-in, or InvalidConfiguration that lists the known names."""
        match kind:
            case "invokers":
                return Plugin(name, AnySettings, self._open_function)
            case "destinations":
                raise InvalidConfiguration(["a dry run has no destinations"])
            case "stores":
                found = self._registry.plugin(kind, name)
                return replace(found, open=partial(self._open_store, found), look=None)
            case "sources" if name == SourceKind.SQS:
                found = self._registry.plugin(kind, name)
                return replace(found, open=partial(self._open_queue, found))
            case "sources":
                found = self._registry.plugin(kind, name)
                return replace(found, open=partial(self._open_stream, found))
            case _:
                return self._registry.plugin(kind, name)

    @asynccontextmanager
    async def _open_function(self, settings: AnySettings, env: Environment) -> AsyncGenerator[Recorder]:
        yield self._recorder

    @asynccontextmanager
    async def _open_store(
        self, plugin: Plugin[Any, Any], settings: BaseModel, env: Environment
    ) -> AsyncGenerator[Any]:
        async with plugin.open(settings, env) as store:
            await self._positions.copy_into(store, store)
            yield store

    @asynccontextmanager
    async def _open_stream(
        self, plugin: Plugin[Any, Any], settings: BaseModel, env: Environment
    ) -> AsyncGenerator[Any]:
        async with plugin.open(settings, env) as source:
            yield polled(source)

    @asynccontextmanager
    async def _open_queue(
        self, plugin: Plugin[Any, Any], settings: BaseModel, env: Environment
    ) -> AsyncGenerator[ReceivedOnly]:
        name = getattr(settings, "arn", "queue")

        def note(text: str) -> None:
            self._recorder.note(f"{name}: {text}")

        async with plugin.open(settings, env) as source:
            queue = ReceivedOnly(source, note)
            try:
                yield queue
            finally:
                await queue.give_back()
