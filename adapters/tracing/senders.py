"""Owns what a tracer reads of an event: its source, how many records it has, and the contexts that senders of messages gave.

A message of a queue may have X-Ray's header in AWSTraceHeader, and W3C's in its message attributes. Records of streams have no
such place. Senders can write any text there, so a context that cannot be read counts as none.
"""

from dataclasses import dataclass

import msgspec

from adapters.aws.request_templates import decoded
from poller.domain.functions.tracing import TraceContext, of_trace_header, of_traceparent

LINKS_MAX = 128
"""Contexts of senders that are kept of one event, each once. OpenTelemetry's limit of links is the same."""


class _Value(msgspec.Struct, frozen=True, gc=False):
    text: str | None = msgspec.field(name="stringValue", default=None)


_NONE = _Value()


class _Context(msgspec.Struct, frozen=True, gc=False):
    parent: _Value = msgspec.field(name="traceparent", default=_NONE)
    state: _Value = msgspec.field(name="tracestate", default=_NONE)


class _Attributes(msgspec.Struct, frozen=True, gc=False):
    header: str | None = msgspec.field(name="AWSTraceHeader", default=None)


class _Record(msgspec.Struct, frozen=True, gc=False):
    service: str = msgspec.field(name="eventSource", default="")
    arn: str = msgspec.field(name="eventSourceARN", default="")
    attributes: _Attributes = _Attributes()
    given: _Context = msgspec.field(name="messageAttributes", default=_Context())


class _Event(msgspec.Struct, frozen=True, gc=False):
    records: list[_Record] = msgspec.field(name="Records", default_factory=list)


_decoder = msgspec.json.Decoder(_Event)


@dataclass(frozen=True, slots=True)
class Batch:
    """What an event says of itself. `header` is the X-Ray header that all its messages with one have, or empty."""

    records: int = 0
    service: str = ""
    arn: str = ""
    senders: tuple[TraceContext, ...] = ()
    header: str = ""

    @property
    def sender(self) -> TraceContext | None:
        """The one sender of all messages that name one; None if there are several, or none."""
        return self.senders[0] if len(self.senders) == 1 else None


def batch_of(payload: bytes) -> Batch:
    """Reads an event of a mapping. An event of another form says nothing."""
    try:
        records = decoded(_decoder, payload).records
    except (ValueError, RecursionError):
        return Batch()
    if not records:
        return Batch()
    senders: dict[TraceContext, None] = {}
    headers: set[str] = set()
    for record in records:
        if (header := record.attributes.header) is not None and len(headers) < 2:
            headers.add(header)
        if len(senders) < LINKS_MAX and (sender := _sender(record)) is not None:
            senders[sender] = None
    return Batch(
        records=len(records),
        service=records[0].service,
        arn=records[0].arn,
        senders=tuple(senders),
        header=headers.pop() if len(headers) == 1 else "",
    )


def _sender(record: _Record) -> TraceContext | None:
    """The context in a record. W3C's goes before X-Ray's, which may be a service's on the way."""
    found = None
    if record.given.parent.text is not None:
        found = of_traceparent(record.given.parent.text, record.given.state.text or "")
    if found is None and record.attributes.header is not None:
        found = of_trace_header(record.attributes.header)
    return found
