"""Owns how plug-ins are described, found among installed entry points, and opened."""

import asyncio
from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from dataclasses import dataclass, field, replace
from importlib.metadata import EntryPoint, entry_points
from typing import Any, Protocol, cast

from pydantic import BaseModel, ValidationError

from poller.config_errors.error_messages import FieldError, Layer, complaints, lines
from poller.config_errors.known_names import nearest, question
from poller.domain.errors import InvalidConfiguration
from poller.domain.functions.tracing import Tracer
from poller.domain.plan import CallLimit, EventContent
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
    "notices": "poller.notices",
    "stores": "poller.stores",
    "observers": "poller.observers",
    "control": "poller.control",
    "checkpoints": "poller.checkpoints",
    "pacers": "poller.pacers",
    "tracers": "poller.tracers",
    "resources": "poller.resources",
}
"""The entry point group of each kind of plug-in."""


@dataclass(frozen=True, slots=True)
class Plugin[SettingsT: BaseModel, PortT]:
    """A plug-in: its name, the model of its settings, and how to open it.

    `open(settings, env)` returns an async context manager that yields the port. Leaving the context frees everything.
    `look` replaces `open` in checks, for plug-ins whose `open` creates something outside, as every store does. It creates nothing.
    What it yields may be a `poller.ports.Probe`.
    `own_limits` is set for an invoker whose service ends functions at time limits that are not in the configuration. Such an
    invoker is a `poller.ports.FunctionLookup`.
    `call_limit` is for invokers. It gives how many calls can run at once, as far as the settings alone say. If they do not,
    its result is not `known`.
    `check` finds in advance the problems that `open` would raise. It may read files that the settings name. It opens no connection
    and imports no user code.
    `misfits` is for invokers. It finds what keeps a mapping with such events from calling the function; the fields of its errors are
    members of the mapping.
    """

    name: str
    settings: type[SettingsT]
    open: Callable[[SettingsT, "Environment"], AbstractAsyncContextManager[PortT]]
    look: Callable[[SettingsT, "Environment"], AbstractAsyncContextManager[object]] | None = None
    own_limits: bool = False
    call_limit: Callable[[SettingsT], CallLimit] | None = None
    check: Callable[[SettingsT], Iterable[FieldError]] | None = None
    misfits: Callable[[SettingsT, EventContent], Iterable[FieldError]] | None = None


class Shared:
    """Resources that several plug-ins of one daemon use together, such as an HTTP session or an AWS client. Each is opened once."""

    def __init__(self) -> None:
        self._stack = AsyncExitStack()
        self._opened: dict[str, Any] = {}
        self._lock = asyncio.Lock()

    async def get[T](self, key: str, opener: Callable[[], AbstractAsyncContextManager[T]]) -> T:
        """The resource under `key`. Opens it if it is not open yet."""
        async with self._lock:
            if key not in self._opened:
                self._opened[key] = await self._stack.enter_async_context(opener())
            return cast("T", self._opened[key])

    async def close(self) -> None:
        """Closes all resources, the last opened first."""
        async with self._lock:
            self._opened.clear()
            await self._stack.aclose()


@dataclass(frozen=True, slots=True, kw_only=True)
class AwsIdentity:
    """By which credentials, and where, a plug-in calls AWS. Members that are None are as without an identity.

    The credentials are those of `profile`, or the process's own. They assume `role_arn`, if there is one. `region` is for
    services whose resources do not name it.
    """

    name: str
    role_arn: str | None = None
    external_id: str | None = field(default=None, repr=False)
    session_name: str | None = None
    profile: str | None = None
    region: str | None = None
    endpoint_url: str | None = None


@dataclass(frozen=True, slots=True)
class Environment:
    """What a plug-in may know of the daemon that opens it. If `region` is None, AWS's environment variables and profile give it."""

    clock: Clock
    region: str | None = None
    endpoint_url: str | None = None
    endpoint_urls: Mapping[str, str] = field(default_factory=dict)
    """The URL of each service, by its name in AWS's clients (kinesis, dynamodbstreams, sqs, sns, s3, events, lambda, dynamodb)."""
    shared: Shared = field(default_factory=Shared)
    process: Process = field(default_factory=Anonymous)
    turns: LoopTurns = field(default_factory=LoopTurns)
    """A plug-in that decodes a large answer waits for a turn first, so that other tasks of the loop are not delayed."""
    function_log: FunctionLog = field(default_factory=FunctionLog)
    """Takes what functions print and log; invokers pass it on."""
    dropped_lines: DroppedLines = field(default_factory=DroppedLines)
    """Counts lines of the process's stdout and stderr that were dropped because their reader was too slow."""
    last_words: LastWords = field(default_factory=LastWords)
    """Formats a line that is written after the log has been closed."""
    strangers: Strangers = field(default_factory=Strangers)
    """Counts requests that were refused because of their sender."""
    identities: Mapping[str, AwsIdentity] = field(default_factory=dict)
    """The configured identities by name. They stay the same as long as the daemon runs."""
    identity: AwsIdentity | None = None
    """As whom AWS is called; None: as the process."""
    tracer: Tracer | None = None
    """Traces calls of functions; None: they are not traced."""

    def endpoint(self, service: str) -> str | None:
        """The configured URL of a service; None if AWS's environment variables decide."""
        if self.identity is not None and self.identity.endpoint_url is not None:
            return self.identity.endpoint_url
        return self.endpoint_urls.get(service, self.endpoint_url)

    def acting_as(self, name: str | None) -> "Environment":
        """The same, with the identity of this name (None: the process's own). Raises InvalidConfiguration for an unknown one."""
        if name is None:
            return self
        if name not in self.identities:
            known = ", ".join(sorted(self.identities)) or "none"
            raise InvalidConfiguration([f"identity {name!r} is not below identities; known: {known}"])
        return replace(self, identity=self.identities[name])


class Registry(Protocol):
    """Where plug-ins are looked up."""

    def plugin(self, kind: str, name: str) -> Plugin[Any, Any]:
        """The plug-in, or InvalidConfiguration that lists the known names."""
        ...


class InstalledPlugins:
    """Plug-ins among the entry points of installed distributions. The entry points are listed once; a plug-in is loaded on first use."""

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
    """Validates `settings` by the plug-in's model and opens the plug-in. Raises InvalidConfiguration with every problem."""
    plugin = registry.plugin(kind, name)
    return plugin.open(validated(plugin, settings, place=f"{kind} {name}"), env)


def validated(plugin: Plugin[Any, Any], settings: Mapping[str, Any], *, place: str) -> BaseModel:
    """The plug-in's settings as its model; raises InvalidConfiguration with the place and field of each problem."""
    try:
        model: BaseModel = plugin.settings.model_validate(dict(settings))
    except ValidationError as error:
        # `Layer` treats its name as a format string. The place is plain text, so its braces are escaped.
        layer = Layer(place.replace("{", "{{").replace("}", "}}"), settings)
        raise InvalidConfiguration(lines(complaints(error, plugin.settings), [layer])) from None
    return model
