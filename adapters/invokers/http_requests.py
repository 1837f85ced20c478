"""Owns what is sent to a function's URL: the body, and the headers that say who it is for and until when."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from adapters.invokers.cloud_events.requests import Refused, request_of
from adapters.invokers.http_settings import HttpSettings
from adapters.invokers.http_signature import Signer, webhook_id_of
from poller.domain.invocations import Invocation
from poller.domain.records import Epoch


@dataclass(frozen=True, slots=True)
class Outgoing:
    """One request. `identifiers` are those of the records by the ids of their CloudEvents, where an answer may use these."""

    body: bytes
    headers: Mapping[str, str]
    identifiers: Mapping[str, str] = field(default_factory=dict)


def outgoing(
    invocation: Invocation, settings: HttpSettings, *, signer: Signer | None, now: Epoch
) -> Outgoing | Refused:
    """Returns the request for an invocation, or why there can be none."""
    payload = invocation.payload
    found = _unsigned(payload, invocation, settings, now=now)
    if signer is None or isinstance(found, Refused):
        return found
    webhook_id = webhook_id_of(payload, function_arn=invocation.function_arn)
    return replace(found, headers={**found.headers, **signer.headers(webhook_id, found.body, now=now)})


def trace_of(invocation: Invocation) -> dict[str, str]:
    """W3C's headers of a traced call, which CloudEvents have as attributes of the same names; none without a trace."""
    given = {"traceparent": invocation.traceparent, "tracestate": invocation.tracestate}
    return {name: value for name, value in given.items() if value}


def _unsigned(
    payload: bytes, invocation: Invocation, settings: HttpSettings, *, now: Epoch
) -> Outgoing | Refused:
    deadline = now + invocation.timeout_s
    headers = {
        "Accept-Encoding": "identity",
        **{name: value.get_secret_value() for name, value in settings.headers.items()},
        "x-amzn-requestid": invocation.request_id,
        "x-amz-invoked-function-arn": invocation.function_arn,
        "x-amz-deadline-ms": str(int(deadline * 1000)),
    }
    if invocation.trace_header:
        headers["X-Amzn-Trace-Id"] = invocation.trace_header
    trace = trace_of(invocation)
    headers |= trace
    if settings.cloud_events is None:
        return Outgoing(payload, {**headers, "Content-Type": "application/json"})
    found = request_of(payload, settings.cloud_events, function_arn=invocation.function_arn, extensions=trace)
    if isinstance(found, Refused):
        return found
    return Outgoing(found.body, {**headers, **found.headers}, found.identifiers)
