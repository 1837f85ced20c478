"""Owns how plug-ins are described, found among installed entry points, and opened."""

import asyncio
from collections.abc import Callable, Mapping
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from dataclasses import dataclass, field
from importlib.metadata import entry_points
from typing import Any, Protocol, cast

from pydantic import BaseModel, ValidationError

from poller.errors import InvalidConfiguration
from poller.ports import Clock
from poller.processes import Anonymous, Process
from poller.turns import Turns

GROUPS = {
    "sources": "poller.sources",
    "invokers": "poller.invokers",
    "destinations": "poller.destinations",
    "stores": "poller.stores",
    "observers": "poller.observers",
    "control": "poller.control",
    "checkpoints": "poller.checkpoints",
}
"""Kind of plug-in to entry point group."""


@dataclass(frozen=True, slots=True)
class Plugin[SettingsT: BaseModel, PortT]:
    """A plug-in: its name, the model of its settings, and how to open it.

    `open(settings, env)` returns an async context manager that yields the port; leaving it frees everything.
    `look` is for what `open` would leave traces of, as every store does: it yields something to ask instead, which may be a
    `poller.ports.Probe`, and makes nothing.
    """

    name: str
    settings: type[SettingsT]
    open: Callable[[SettingsT, "Environment"], AbstractAsyncContextManager[PortT]]
    look: Callable[[SettingsT, "Environment"], AbstractAsyncContextManager[object]] | None = None


class Shared:
    """Things that several plug-ins of one daemon use together (an HTTP session, an AWS client), opened once each."""

    def __init__(self) -> None:
        self._stack = AsyncExitStack()
        self._opened: dict[str, Any] = {}
        self._lock = asyncio.Lock()

    async def get[T](self, key: str, opener: Callable[[], AbstractAsyncContextManager[T]]) -> T:
        """What is open under `key`; opened now if nothing is."""
        async with self._lock:
            if key not in self._opened:
                self._opened[key] = await self._stack.enter_async_context(opener())
            return cast("T", self._opened[key])

    async def close(self) -> None:
        """Closes all of it, last opened first."""
        async with self._lock:
            self._opened.clear()
            await self._stack.aclose()


@dataclass(frozen=True, slots=True)
class Environment:
    """What a plug-in may know of the daemon that opens it. `region` None: the AWS variables and profile decide."""

    clock: Clock
    region: str | None = None
    endpoint_url: str | None = None
    endpoint_urls: Mapping[str, str] = field(default_factory=dict)
    """Service name as AWS's clients spell it (kinesis, dynamodbstreams, sqs, sns, s3, lambda, dynamodb) to URL."""
    shared: Shared = field(default_factory=Shared)
    process: Process = field(default_factory=Anonymous)
    turns: Turns = field(default_factory=Turns)
    """Who decodes much at once waits for a turn first, so that the loop comes round."""

    def endpoint(self, service: str) -> str | None:
        """The URL that settings give for a service; None leaves the choice to the AWS variables."""
        return self.endpoint_urls.get(service, self.endpoint_url)


class Registry(Protocol):
    """Where plug-ins are looked up."""

    def plugin(self, kind: str, name: str) -> Plugin[Any, Any]:
        """The plug-in, or InvalidConfiguration that lists the known names."""
        ...


class InstalledPlugins:
    """Plug-ins among the entry points of installed distributions; loaded on first use."""

    def plugin(self, kind: str, name: str) -> Plugin[Any, Any]:
        """The plug-in, or InvalidConfiguration that lists the known names."""
        found = {point.name: point for point in entry_points(group=GROUPS[kind])}
        if name not in found:
            known = ", ".join(sorted(found)) or "none"
            raise InvalidConfiguration([f"no plug-in {name!r} among {kind}; installed: {known}"])
        loaded: Plugin[Any, Any] = found[name].load()
        return loaded


class GivenPlugins:
    """Plug-ins from a table, for tests and simulations."""

    def __init__(self, plugins: Mapping[tuple[str, str], Plugin[Any, Any]]) -> None:
        self._plugins = dict(plugins)

    def plugin(self, kind: str, name: str) -> Plugin[Any, Any]:
        """The plug-in, or InvalidConfiguration that lists the known names."""
        try:
            found: Plugin[Any, Any] = self._plugins[kind, name]
        except KeyError:
            raise InvalidConfiguration([f"no plug-in {name!r} among {kind}"]) from None
        return found


def opened(
    registry: Registry, kind: str, name: str, settings: Mapping[str, Any], env: Environment
) -> AbstractAsyncContextManager[Any]:
    """Validates `settings` by the plug-in's model and opens it; raises InvalidConfiguration with every problem."""
    plugin = registry.plugin(kind, name)
    return plugin.open(validated(plugin, settings, place=f"{kind} {name}"), env)


def validated(plugin: Plugin[Any, Any], settings: Mapping[str, Any], *, place: str) -> BaseModel:
    """The plug-in's settings model; raises InvalidConfiguration that names place and field."""
    try:
        model: BaseModel = plugin.settings.model_validate(dict(settings))
    except ValidationError as error:
        problems = [
            f"{place}: {'.'.join(str(part) for part in each['loc']) or '(whole)'}: {each['msg']}"
            for each in error.errors(include_input=False)
        ]
        raise InvalidConfiguration(problems) from None
    return model
