"""Owns the `otel` tracer as a plug-in. It imports OpenTelemetry only when it is opened, since that is an extra."""

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from importlib import import_module

from pydantic import BaseModel, ConfigDict

from poller.config_errors.error_messages import FieldError
from poller.domain.errors import InvalidConfiguration
from poller.domain.functions.tracing import Tracer
from poller.domain.untrusted.texts import line_of
from poller.plugins import Environment, Plugin

NEEDS = "needs OpenTelemetry, which cannot be imported ({})"
SAID_CHARS_MAX = 300
REMEDY = "install esm-poller[otel], or set tracing.enabled: false"


class TracingSettings(BaseModel):
    """Who traces. Everything else is in OpenTelemetry's own variables."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    worker: str = ""


def setting_errors(_: TracingSettings) -> Iterator[FieldError]:
    """What keeps the daemon from tracing on this machine."""
    if (found := _obstacle()) is not None:
        yield FieldError("enabled", *found[1:], here=True)


def _obstacle() -> tuple[Exception, str, str] | None:
    """Why OpenTelemetry cannot be imported, with the remedy. It reads some of its variables when it is imported."""
    try:
        for module in ("provider", "tracer"):
            import_module(f"adapters.tracing.{module}")
    except ImportError as error:
        return error, NEEDS.format(error), REMEDY
    except ValueError as error:
        said = line_of(str(error), chars_max=SAID_CHARS_MAX)
        return error, f"OpenTelemetry refuses one of its variables: {said}", "correct it, or remove it"
    return None


@asynccontextmanager
async def open_tracer(settings: TracingSettings, _env: Environment) -> AsyncIterator[Tracer | None]:
    """Yields the tracer; None if OTEL_SDK_DISABLED turns it off. Raises InvalidConfiguration."""
    if (found := _obstacle()) is not None:
        error, wrong, remedy = found
        raise InvalidConfiguration([f"tracing.enabled: {wrong}; {remedy}"]) from error
    from adapters.tracing.provider import open_provider
    from adapters.tracing.tracer import OtelTracer

    async with open_provider(worker=settings.worker) as provider:
        yield None if provider is None else OtelTracer(provider)


plugin = Plugin("otel", TracingSettings, open_tracer, check=setting_errors)
