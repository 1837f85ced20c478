"""Owns the `otel` tracer as a plug-in. It imports OpenTelemetry only when it is opened, since that is an extra."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from pydantic import BaseModel, ConfigDict

from poller.domain.errors import InvalidConfiguration
from poller.domain.functions.tracing import Tracer
from poller.plugins import Environment, Plugin


class TracingSettings(BaseModel):
    """Who traces. Everything else is in OpenTelemetry's own variables."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    worker: str = ""


@asynccontextmanager
async def open_tracer(settings: TracingSettings, _env: Environment) -> AsyncIterator[Tracer | None]:
    """Yields the tracer; None if OTEL_SDK_DISABLED turns it off. Raises InvalidConfiguration."""
    try:
        from adapters.tracing.provider import open_provider
        from adapters.tracing.tracer import OtelTracer
    except ImportError as error:
        raise InvalidConfiguration(
            [
                f"tracing.enabled needs OpenTelemetry, which cannot be imported ({error}); "
                "install esm-poller[otel], or set tracing.enabled: false"
            ]
        ) from error
    async with open_provider(worker=settings.worker) as provider:
        yield None if provider is None else OtelTracer(provider)


plugin = Plugin("otel", TracingSettings, open_tracer)
