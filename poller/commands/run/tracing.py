"""Owns how the environment of plug-ins is opened for `poller run`: with a tracer only if tracing is asked for."""

from contextlib import AsyncExitStack
from dataclasses import replace

from poller.commands.shared import environment
from poller.config.settings import Settings
from poller.domain.functions.tracing import Tracer
from poller.domain.records import WorkerId
from poller.output.last_words import LastWords
from poller.output.queued_output import DroppedLines
from poller.plugins import Environment, Registry, opened

PLUGIN = "otel"


async def opened_env(
    settings: Settings,
    registry: Registry,
    stack: AsyncExitStack,
    *,
    worker: WorkerId,
    dropped: DroppedLines | None,
    words: LastWords | None,
) -> Environment:
    """The environment with a tracer, if the settings ask for one; `stack` closes both. Raises InvalidConfiguration."""
    env = environment(settings, dropped, words)
    stack.push_async_callback(env.shared.close)
    if not settings.tracing.enabled:
        return env
    given = {"worker": str(worker)}
    tracer: Tracer | None = await stack.enter_async_context(opened(registry, "tracers", PLUGIN, given, env))
    return replace(env, tracer=tracer)
