"""Owns OpenTelemetry's SDK in this daemon: it is set up by OpenTelemetry's own variables, and shut down within a limit of time.

The SDK exports spans in a thread of its own, from a queue that drops spans when it is full. So an exporter that fails, or a
collector that does not answer, delays no call.
"""

import asyncio
import logging
import os
import threading
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from importlib.metadata import version

from opentelemetry import trace
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, ConsoleSpanExporter, SpanExporter

from poller.domain.errors import InvalidConfiguration
from poller.domain.untrusted.texts import line_of

FLUSH_S_MAX = 5.0
"""How long the spans that are left at the stop may take to be sent."""
SAID_CHARS_MAX = 300
PROTOCOLS = ("http/protobuf", "grpc")
EXPORTERS = ("otlp", "console", "none")

_log = logging.getLogger("poller.tracing")


@asynccontextmanager
async def open_provider(*, worker: str) -> AsyncIterator[TracerProvider | None]:
    """Yields the provider by which spans are made; None if OTEL_SDK_DISABLED is true. Raises InvalidConfiguration.

    It becomes the provider of the process, so that handlers in the daemon make spans with it.
    """
    if _variable(os.environ, "OTEL_SDK_DISABLED", "false").lower() == "true":
        yield None
        return
    provider = _made(worker)
    trace.set_tracer_provider(provider)
    try:
        yield provider
    finally:
        await shut_down(provider)


def _made(worker: str) -> TracerProvider:
    """The provider as the variables describe it. Raises InvalidConfiguration."""
    try:
        exporters = span_exporters(os.environ)
        provider = TracerProvider(resource=resource(worker, os.environ), shutdown_on_exit=False)
        for exporter in exporters:
            provider.add_span_processor(BatchSpanProcessor(exporter))
    except InvalidConfiguration:
        raise
    except Exception as error:
        # The SDK has errors of several kinds for its variables, and some name no variable.
        given = ", ".join(sorted(name for name in os.environ if name.startswith("OTEL_")))
        said = line_of(str(error), chars_max=SAID_CHARS_MAX)
        raise InvalidConfiguration(
            [f"OpenTelemetry refuses one of its variables ({given}): {said}; correct it, or remove it"]
        ) from error
    return provider


def span_exporters(variables: Mapping[str, str]) -> list[SpanExporter]:
    """The exporters that OTEL_TRACES_EXPORTER names. Raises InvalidConfiguration for one that is not known."""
    names = [
        each.strip()
        for each in _variable(variables, "OTEL_TRACES_EXPORTER", "otlp").split(",")
        if each.strip()
    ]
    wrong = [each for each in names if each not in EXPORTERS]
    if wrong:
        raise InvalidConfiguration(
            [
                f"OTEL_TRACES_EXPORTER={wrong[0]!r} is no exporter of this daemon; write one of {', '.join(EXPORTERS)}"
            ]
        )
    found: list[SpanExporter] = []
    if "otlp" in names:
        found.append(_otlp(variables))
    if "console" in names:
        found.append(ConsoleSpanExporter())
    return found


def resource(worker: str, variables: Mapping[str, str]) -> Resource:
    """What all spans say of this process. OTEL_SERVICE_NAME and OTEL_RESOURCE_ATTRIBUTES come first."""
    own = {
        "service.name": "poller",
        "service.version": version("esm-poller"),
        "service.instance.id": worker,
    }
    told = {
        each.partition("=")[0].strip() for each in variables.get("OTEL_RESOURCE_ATTRIBUTES", "").split(",")
    }
    told |= {"service.name"} if variables.get("OTEL_SERVICE_NAME") else set()
    # The SDK makes a name and an id of its own where nobody has given one.
    given = Resource.create().attributes
    kept = {name: value for name, value in given.items() if name not in own or name in told}
    return Resource({**own, **kept})


async def shut_down(provider: TracerProvider) -> None:
    """Sends the spans that are left, and ends the SDK's thread. After FLUSH_S_MAX it goes on without them."""
    loop, done = asyncio.get_running_loop(), asyncio.Event()

    def work() -> None:
        try:
            provider.shutdown()
        finally:
            try:
                loop.call_soon_threadsafe(done.set)
            except RuntimeError:
                # The loop is closed: nobody waits any more.
                return

    threading.Thread(target=work, name="end of tracing", daemon=True).start()
    try:
        async with asyncio.timeout(FLUSH_S_MAX):
            await done.wait()
    except TimeoutError:
        _log.warning("spans that were left at the stop could not be sent within %g s", FLUSH_S_MAX)


def _otlp(variables: Mapping[str, str]) -> SpanExporter:
    everything = _variable(variables, "OTEL_EXPORTER_OTLP_PROTOCOL", PROTOCOLS[0])
    protocol = _variable(variables, "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", everything)
    if protocol == "grpc":
        from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter as GrpcExporter

        return GrpcExporter()
    if protocol != "http/protobuf":
        raise InvalidConfiguration(
            [f"OTEL_EXPORTER_OTLP_PROTOCOL={protocol!r} is not known; write one of {', '.join(PROTOCOLS)}"]
        )
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter as HttpExporter

    return HttpExporter()


def _variable(variables: Mapping[str, str], name: str, default: str) -> str:
    return variables.get(name, "").strip() or default
