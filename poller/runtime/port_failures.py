"""Owns how calls of ports are reported: those that failed, and those of AWS that a source makes."""

from poller.domain.errors import InvalidConfiguration, PortError
from poller.domain.records import MappingId, ShardId
from poller.domain.telemetry.labels import SourceCall
from poller.domain.telemetry.mapping_events import PortFailed, SourceCalled
from poller.domain.telemetry.observers import Observer
from poller.rules.responses import cut
from poller.source_ports.calls import CountedCalls


def report_failure(
    observer: Observer,
    error: PortError | InvalidConfiguration,
    *,
    mapping: MappingId,
    port: str,
    shard: ShardId | None = None,
    wait_s: float = 0.0,
) -> None:
    """Emits PortFailed for a failed call to `port`; `wait_s` is the time until the next try."""
    observer.on(
        PortFailed(
            mapping=mapping,
            shard=shard,
            port=port,
            error=type(error).__name__,
            reason=failure_reason(error),
            wait_s=wait_s,
        )
    )


def failure_reason(error: PortError | InvalidConfiguration) -> str:
    """The reason of a failure as one line for people."""
    return cut("; ".join(error.problems)) if isinstance(error, InvalidConfiguration) else error.reason


def report_calls(source: object, mapping: MappingId, observer: Observer) -> None:
    """From now on emits SourceCalled for each call of AWS that the mapping's source makes, if it can tell them."""

    def called(call: SourceCall) -> None:
        observer.on(SourceCalled(mapping=mapping, call=call))

    if isinstance(source, CountedCalls):
        source.count_calls(called)
