"""Owns how plug-ins are described, found among installed entry points, and opened."""

import asyncio
from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from dataclasses import dataclass, field
from importlib.metadata import EntryPoint, entry_points
from typing import Any, Protocol, cast

from pydantic import BaseModel, ValidationError

from poller.config_errors.error_messages import FieldError, Layer, complaints, lines
from poller.config_errors.known_names import nearest, question
from poller.domain.errors import InvalidConfiguration
from poller.domain.plan import CallLimit
from poller.loop_turns import LoopTurns
from poller.output.function_log import FunctionLog
from poller.output.last_words import LastWords
from poller.output.queued_output import DroppedLines
from poller.ports import Clock
from poller.process_identity import Anonymous, Process
from poller.refused_requests import Strangers

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
    An invoker with `own_limits` is a `poller.ports.FunctionLookup`: a service ends
    its functions, by time limits that are not in the configuration.
    `call_limit` is for invokers: how many calls can run at once, as far as the settings alone tell.
    `check` tells beforehand what `open` would refuse: it reads the files that the settings name, opens nothing, asks nobody and
    imports no code of users.
    """

    name: str
    settings: type[SettingsT]
    open: Callable[[SettingsT, "Environment"], AbstractAsyncContextManager[PortT]]
    look: Callable[[SettingsT, "Environment"], AbstractAsyncContextManager[object]] | None = None
    own_limits: bool = False
    call_limit: Callable[[SettingsT], CallLimit] | None = None
    check: Callable[[SettingsT], Iterable[FieldError]] | None = None


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
    turns: LoopTurns = field(default_factory=LoopTurns)
    """Who decodes much at once waits for a turn first, so that the loop comes round."""
    function_log: FunctionLog = field(default_factory=FunctionLog)
    """Where invokers hand over what their functions print and log."""
    dropped_lines: DroppedLines = field(default_factory=DroppedLines)
    """Lines of the process's stdout and stderr that nobody took."""
    last_words: LastWords = field(default_factory=LastWords)
    """How a line looks that is told when the log is closed."""
    strangers: Strangers = field(default_factory=Strangers)
    """Where requests are counted that were refused because of who sent them."""

    def endpoint(self, service: str) -> str | None:
        """The URL that settings give for a service; None leaves the choice to the AWS variables."""
        return self.endpoint_urls.get(service, self.endpoint_url)


class Registry(Protocol):
    """Where plug-ins are looked up."""

    def plugin(self, kind: str, name: str) -> Plugin[Any, Any]:
        """The plug-in, or InvalidConfiguration that lists the known names."""
        ...


class InstalledPlugins:
    """Plug-ins among the entry points of installed distributions, which are looked for once; loaded on first use."""

    def __init__(self) -> None:
        self._points: dict[str, dict[str, EntryPoint]] = {}

    def plugin(self, kind: str, name: str) -> Plugin[Any, Any]:
        """The plug-in, or InvalidConfiguration that lists the known names."""
        if kind not in self._points:
            self._points[kind] = {point.name: point for point in entry_points(group=GROUPS[kind])}
        found = self._points[kind]
        if name not in found:
            known = f"installed: {', '.join(sorted(found)) or 'none'}"
            meant = nearest(name, found)
            remedy = f"{question(meant)} ({known})" if meant else known
            raise InvalidConfiguration([f"no plug-in {name!r} among {kind}; {remedy}"])
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
        # What is given is told by its place alone, which has no braces to be filled in.
        layer = Layer(place.replace("{", "{{").replace("}", "}}"), settings)
        raise InvalidConfiguration(lines(complaints(error, plugin.settings), [layer])) from None
    return model
