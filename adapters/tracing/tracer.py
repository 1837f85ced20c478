"""Owns the spans of calls, by OpenTelemetry's conventions for messaging and functions.

An attempt of a batch has two spans: `process SOURCE` (CONSUMER), with a link to the context of each sender, and below it
`invoke FUNCTION` (CLIENT). If all messages that have a context have the same, it is the parent besides, so that the trace goes
on and its sender's decision about sampling holds. A call through the Invoke API has the second span alone, below its caller's.

Nothing of an event, an answer or an error's message becomes an attribute.
"""

import logging
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

from opentelemetry import context as contexts
from opentelemetry.context import Context
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.trace import (
    Link,
    NonRecordingSpan,
    Span,
    SpanContext,
    SpanKind,
    Status,
    StatusCode,
    TraceFlags,
    TraceState,
    format_span_id,
    format_trace_id,
    set_span_in_context,
)
from opentelemetry.util.types import AttributeValue

from adapters.tracing.senders import Batch, batch_of
from poller.domain.arns import Arn, FunctionName
from poller.domain.functions.calls import INVOKED
from poller.domain.functions.tracing import TraceContext, of_trace_header, trace_header
from poller.domain.invocations import FunctionError, Invocation, Outcome, Succeeded, Throttled, TimedOut
from poller.domain.plan import FunctionPlan
from poller.domain.records import MappingId

SYSTEMS = {"aws:sqs": "aws_sqs", "aws:kinesis": "aws.kinesis", "aws:dynamodb": "aws.dynamodb"}
TRIGGERS = {"aws:sqs": "pubsub", "aws:kinesis": "pubsub", "aws:dynamodb": "datasource"}
CANCELLED = "cancelled"

type Attributes = dict[str, AttributeValue]

_log = logging.getLogger("poller.tracing")


@dataclass(frozen=True, slots=True)
class _Traced:
    """The spans of a call that begins, the outer one first, and its invocation with the headers of the inner one."""

    spans: tuple[Span, ...]
    context: Context
    invocation: Invocation

    def end(self, outcome: Outcome | None) -> None:
        """Ends the spans. Without an outcome the call was cancelled."""
        ended, error = described(outcome)
        for span in reversed(self.spans):
            span.set_attribute("poller.outcome", ended)
            if error:
                span.set_attribute("error.type", error)
                span.set_status(Status(StatusCode.ERROR))
            if isinstance(outcome, Throttled) and outcome.retry_after_s is not None:
                span.set_attribute("poller.retry_after_s", outcome.retry_after_s)
            span.end()


class OtelTracer:
    """Tracer that makes OpenTelemetry's spans."""

    def __init__(self, provider: TracerProvider) -> None:
        self._tracer = provider.get_tracer("poller")

    async def traced(
        self,
        invocation: Invocation,
        call: Callable[[Invocation], Awaitable[Outcome]],
        *,
        function: FunctionPlan,
        mapping: MappingId,
    ) -> Outcome:
        """Calls `call` inside the spans of the call, and returns what it does. The inner span is the current one meanwhile."""
        traced = self._begun(invocation, function, mapping)
        if traced is None:
            return await call(invocation)
        outcome: Outcome | None = None
        try:
            with _current(traced.context):
                outcome = await call(traced.invocation)
            return outcome
        finally:
            self._end(traced, outcome)

    def _begun(self, invocation: Invocation, function: FunctionPlan, mapping: MappingId) -> _Traced | None:
        try:
            return self._begin(invocation, function, mapping)
        except Exception:  # noqa: BLE001 - a sampler, an id generator or a processor may be the user's
            _log.exception("a call is not traced")
            return None

    def _end(self, traced: _Traced, outcome: Outcome | None) -> None:
        try:
            traced.end(outcome)
        except Exception:  # noqa: BLE001 - a sampler, an id generator or a processor may be the user's
            _log.exception("the spans of a call did not end")

    def _begin(self, invocation: Invocation, function: FunctionPlan, mapping: MappingId) -> _Traced:
        spans: list[Span] = []
        header = invocation.trace_header
        parent = within(of_trace_header(header))
        if mapping != INVOKED:
            batch = batch_of(invocation.payload)
            header = header or batch.header
            parent = within(of_trace_header(invocation.trace_header) or batch.sender)
            outer = self._tracer.start_span(
                f"process {source_name(batch) or function.name}",
                context=parent,
                kind=SpanKind.CONSUMER,
                attributes=batch_attributes(batch, mapping),
                links=[Link(_span_context(each)) for each in batch.senders],
            )
            spans.append(outer)
            parent = set_span_in_context(outer, parent)
        inner = self._tracer.start_span(
            f"invoke {function.name}",
            context=parent,
            kind=SpanKind.CLIENT,
            attributes=call_attributes(invocation, function),
        )
        spans.append(inner)
        own = _own(inner.get_span_context())
        sent = replace(
            invocation,
            trace_header=trace_header(own, header),
            traceparent=own.traceparent,
            tracestate=own.state,
        )
        return _Traced(tuple(spans), set_span_in_context(inner, parent), sent)


def described(outcome: Outcome | None) -> tuple[str, str]:
    """How a call ended, and the type of its error; empty if there is none."""
    match outcome:
        case None:
            return CANCELLED, CANCELLED
        case Succeeded():
            return "succeeded", ""
        case FunctionError():
            return "function_error", outcome.error_type
        case TimedOut():
            return "timed_out", "timeout"
        case Throttled():
            return "throttled", "throttled"
        case _:
            return "unreachable", "unreachable"


def source_name(batch: Batch) -> str:
    """The name of a queue, a stream or a table; empty if the event does not say."""
    arn = Arn.read(batch.arn)
    if arn is None:
        return ""
    resource = batch.arn.split(":", 5)[-1]
    parts = resource.split("/")
    return parts[1] if len(parts) > 1 else resource


def batch_attributes(batch: Batch, mapping: MappingId) -> Attributes:
    """The attributes of the span of a batch."""
    found: Attributes = {
        "messaging.operation.type": "process",
        "messaging.operation.name": "process",
        "messaging.batch.message_count": batch.records,
        "poller.mapping": str(mapping),
    }
    if batch.service:
        found["messaging.system"] = SYSTEMS.get(batch.service, batch.service)
        found["faas.trigger"] = TRIGGERS.get(batch.service, "other")
    if name := source_name(batch):
        found["messaging.destination.name"] = name
        found["poller.source_arn"] = batch.arn
        found["cloud.region"] = batch.arn.split(":")[3]
    return found


def call_attributes(invocation: Invocation, function: FunctionPlan) -> Attributes:
    """The attributes of the span of a call."""
    found: Attributes = {
        "faas.invoked_name": function.name,
        "faas.invocation_id": invocation.request_id,
        "aws.lambda.invoked_arn": invocation.function_arn,
        "poller.invoker": function.invoker,
    }
    region = FunctionName.parse(invocation.function_arn).region
    if region:
        found["faas.invoked_region"] = region
    if function.invoker == "lambda":
        found["faas.invoked_provider"] = "aws"
    return found


def within(context: TraceContext | None) -> Context:
    """The context in which a span has this parent. Without one it begins a trace, whatever is current here."""
    return (
        Context()
        if context is None
        else set_span_in_context(NonRecordingSpan(_span_context(context)), Context())
    )


def _span_context(context: TraceContext) -> SpanContext:
    return SpanContext(
        trace_id=int(context.trace, 16),
        span_id=int(context.span, 16),
        is_remote=True,
        trace_flags=TraceFlags(int(context.sampled)),
        trace_state=TraceState.from_header([context.state]) if context.state else TraceState(),
    )


def _own(context: SpanContext) -> TraceContext:
    return TraceContext(
        format_trace_id(context.trace_id),
        format_span_id(context.span_id),
        context.trace_flags.sampled,
        context.trace_state.to_header(),
    )


@contextmanager
def _current(context: Context) -> Iterator[None]:
    token = contexts.attach(context)
    try:
        yield
    finally:
        contexts.detach(token)
