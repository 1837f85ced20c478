"""The spans of calls, and what the functions are told of them."""

import asyncio
import json
import logging
import logging.handlers
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import ALWAYS_ON, ParentBased, Sampler
from opentelemetry.trace import SpanKind, StatusCode

from adapters.invokers.python import PythonSettings, open_python
from adapters.tracing.senders import LINKS_MAX, batch_of
from adapters.tracing.tracer import OtelTracer, _span_context
from poller.clock import LoopClock
from poller.domain.functions.calls import INVOKED
from poller.domain.functions.tracing import of_trace_header, of_traceparent, trace_header
from poller.domain.invocations import (
    EncodedEvent,
    FunctionError,
    Invocation,
    Outcome,
    Succeeded,
    Throttled,
    TimedOut,
    Unreachable,
)
from poller.domain.plan import FunctionPlan
from poller.domain.records import MappingId
from poller.plugins import Environment
from poller.rules.functions.lineage import extended, rounds_of
from poller.runtime.functions.traced_function import TracedFunction, made_function
from poller.runtime.invoking import Function
from tests.adapters.tracing import handlers

ARN = "arn:aws:lambda:eu-west-1:111122223333:function:orders"
QUEUE = "arn:aws:sqs:eu-central-1:111122223333:incoming"
MAPPING = MappingId("b6a1c3f0-0000-4000-8000-000000000001")
PLAN = FunctionPlan(name="orders", invoker="lambda")
TRACE, SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
PARENT = f"00-{TRACE}-{SPAN}-01"
HEADER = f"Root=1-{TRACE[:8]}-{TRACE[8:]};Parent={SPAN};Sampled=1"


@dataclass
class World:
    """A tracer, and the spans that it made."""

    sampler: Sampler = field(default_factory=lambda: ParentBased(ALWAYS_ON))
    exporter: InMemorySpanExporter = field(default_factory=InMemorySpanExporter)
    sent: list[Invocation] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.provider = TracerProvider(sampler=self.sampler, shutdown_on_exit=False)
        self.provider.add_span_processor(SimpleSpanProcessor(self.exporter))
        self.tracer = OtelTracer(self.provider)

    def call(
        self,
        event: Any,
        *,
        outcome: Outcome | BaseException | None = None,
        mapping: MappingId = MAPPING,
        header: str = "",
    ) -> Outcome:
        async def call(invocation: Invocation) -> Outcome:
            self.sent.append(invocation)
            if isinstance(outcome, BaseException):
                raise outcome
            return outcome or Succeeded(b"null")

        payload = event if isinstance(event, bytes) else json.dumps(event).encode()
        invocation = Invocation(ARN, "r-1", EncodedEvent(payload), 3.0, trace_header=header)
        return asyncio.run(self.tracer.traced(invocation, call, function=PLAN, mapping=mapping))

    def spans(self) -> tuple[ReadableSpan, ReadableSpan]:
        """The span of the batch, and that of the call."""
        inner, outer = self.exporter.get_finished_spans()
        return outer, inner


def message(header: str | None = None, parent: Any = None, **attributes: Any) -> dict[str, Any]:
    found: dict[str, Any] = {
        "messageId": "m",
        "body": "secret",
        "attributes": {} if header is None else {"AWSTraceHeader": header},
        "messageAttributes": attributes,
        "eventSource": "aws:sqs",
        "eventSourceARN": QUEUE,
    }
    if parent is not None:
        found["messageAttributes"] = {"traceparent": {"stringValue": parent, "dataType": "String"}}
    return found


def test_an_attempt_has_a_span_for_the_batch_and_one_for_the_call() -> None:
    world = World()
    assert world.call({"Records": [message(), message()]}) == Succeeded(b"null")
    outer, inner = world.spans()
    assert (outer.name, outer.kind) == ("process incoming", SpanKind.CONSUMER)
    assert (inner.name, inner.kind) == ("invoke orders", SpanKind.CLIENT)
    assert inner.parent is not None
    assert inner.parent.span_id == outer.context.span_id
    assert outer.parent is None
    assert not outer.links
    assert dict(outer.attributes or {}) == {
        "messaging.operation.type": "process",
        "messaging.operation.name": "process",
        "messaging.batch.message_count": 2,
        "messaging.system": "aws_sqs",
        "messaging.destination.name": "incoming",
        "poller.source_arn": QUEUE,
        "cloud.region": "eu-central-1",
        "faas.trigger": "pubsub",
        "poller.mapping": MAPPING,
        "poller.outcome": "succeeded",
    }
    assert dict(inner.attributes or {}) == {
        "faas.invoked_name": "orders",
        "faas.invoked_provider": "aws",
        "faas.invoked_region": "eu-west-1",
        "faas.invocation_id": "r-1",
        "aws.lambda.invoked_arn": ARN,
        "poller.invoker": "lambda",
        "poller.outcome": "succeeded",
    }


@pytest.mark.parametrize("sent", [{"header": HEADER}, {"parent": PARENT}])
def test_the_one_sender_of_a_batch_is_linked_and_is_the_parent(sent: dict[str, str]) -> None:
    world = World()
    world.call({"Records": [message(**sent), message()]})
    outer, _ = world.spans()
    assert [f"{each.context.trace_id:032x} {each.context.span_id:016x}" for each in outer.links] == [
        f"{TRACE} {SPAN}"
    ]
    assert outer.parent is not None
    assert f"{outer.context.trace_id:032x}" == TRACE
    assert f"{outer.parent.span_id:016x}" == SPAN


def test_several_senders_are_linked_and_none_is_the_parent() -> None:
    world = World()
    other = PARENT.replace(SPAN, "1" * 16)
    world.call({"Records": [message(HEADER), message(parent=other)]})
    outer, _ = world.spans()
    assert {f"{each.context.span_id:016x}" for each in outer.links} == {SPAN, "1" * 16}
    assert outer.parent is None


def test_links_are_bounded_and_each_sender_has_one() -> None:
    records = [message(parent=f"00-{TRACE}-{1 + number // 2:016x}-01") for number in range(1000)]
    batch = batch_of(json.dumps({"Records": records}).encode())
    assert len(batch.senders) == LINKS_MAX
    assert batch.records == 1000
    assert len(set(batch.senders)) == LINKS_MAX


@pytest.mark.parametrize(
    "wrong",
    [
        "",
        "x" * 5000,
        f"00-{'0' * 32}-{SPAN}-01",
        f"00-{TRACE}-{'0' * 16}-01",
        f"ff-{TRACE}-{SPAN}-01",
        f"00-{TRACE}-{SPAN}-01-more",
        f"00-{TRACE.upper()}-{SPAN}-01",
        f"{PARENT}\n",
        "٠٠-٤",
        "\ud800",
    ],
)
def test_a_hostile_context_counts_as_none(wrong: str) -> None:
    assert of_traceparent(wrong) is None
    assert of_trace_header(wrong) is None
    world = World()
    world.call({"Records": [message(parent=wrong), message(header=wrong)]})
    outer, _ = world.spans()
    assert not outer.links
    assert outer.name == "process incoming"


STATES = st.lists(
    st.sampled_from(
        ["", "a=1", "a=2", " b@v=2 ", "A=1", "a", "=", "a=", "a=b=c", "k=" + "v" * 257, "٤=1", "\ud800=1"]
    )
    | st.integers(0, 99).map(lambda number: f"k{number}=1")
    | st.text("ab=@,- \t\n", max_size=12),
    max_size=60,
).map(",".join)


@given(state=STATES)
def test_any_tracestate_is_passed_on_or_dropped_and_no_message_is_worth_a_line_in_the_log(state: str) -> None:
    context = of_traceparent(PARENT, state)
    assert context is not None
    assert context.state in {state, ""}
    lines = logging.handlers.BufferingHandler(1000)
    logger = logging.getLogger("opentelemetry")
    logger.addHandler(lines)
    try:
        sent = _span_context(context)
    finally:
        logger.removeHandler(lines)
    assert lines.buffer == []
    assert bool(sent.trace_state) == bool(context.state.strip(", \t"))


@pytest.mark.parametrize(
    "event", [b"", b"[" * 100_000, b'{"Records":5}', b"null", b'{"Records":[]}', b"\xff"]
)
def test_an_event_of_another_form_is_traced_without_its_source(event: bytes) -> None:
    world = World()
    world.call(event)
    outer, _ = world.spans()
    assert outer.name == "process orders"


def test_the_function_gets_the_context_of_the_call_in_both_forms_and_the_lineage_stays() -> None:
    world = World()
    header = extended(HEADER, ARN, root="")
    world.call({"Records": [message(header)]})
    _, inner = world.spans()
    (sent,) = world.sent
    own = of_traceparent(sent.traceparent)
    assert own is not None
    assert own == of_trace_header(sent.trace_header)
    assert (own.trace, own.span, own.sampled) == (TRACE, f"{inner.context.span_id:016x}", True)
    assert rounds_of(sent.trace_header, ARN) == 1


def test_a_sender_that_is_not_sampled_is_kept_to() -> None:
    world = World()
    world.call({"Records": [message(HEADER.replace("Sampled=1", "Sampled=0"))]})
    assert not world.exporter.get_finished_spans()
    (sent,) = world.sent
    assert sent.traceparent.startswith(f"00-{TRACE}-")
    assert sent.traceparent.endswith("-00")
    assert ";Sampled=0" in sent.trace_header


def test_a_call_of_the_invoke_api_has_one_span_below_its_callers() -> None:
    world = World()
    world.call({"Records": [message(PARENT)]}, mapping=INVOKED, header=HEADER)
    (inner,) = world.exporter.get_finished_spans()
    assert inner.name == "invoke orders"
    assert inner.parent is not None
    assert f"{inner.parent.span_id:016x}" == SPAN


@pytest.mark.parametrize(
    ("outcome", "ended", "error"),
    [
        (FunctionError("ValueError", "the secret 4711"), "function_error", "ValueError"),
        (TimedOut(3.0), "timed_out", "timeout"),
        (Throttled("no room", 2.0), "throttled", "throttled"),
        (Unreachable("no"), "unreachable", "unreachable"),
    ],
)
def test_a_failure_is_told_by_its_type_and_not_by_its_text(outcome: Outcome, ended: str, error: str) -> None:
    world = World()
    assert world.call({"Records": [message()]}, outcome=outcome) == outcome
    for span in world.spans():
        found = dict(span.attributes or {})
        assert (found["poller.outcome"], found["error.type"]) == (ended, error)
        assert span.status.status_code is StatusCode.ERROR
        assert "secret" not in span.to_json()


def test_the_spans_of_a_cancelled_call_end() -> None:
    world = World()
    with pytest.raises(asyncio.CancelledError):
        world.call({"Records": []}, outcome=asyncio.CancelledError())
    for span in world.spans():
        assert dict(span.attributes or {})["poller.outcome"] == "cancelled"


def test_a_sampler_that_fails_harms_no_call(caplog: pytest.LogCaptureFixture) -> None:
    class Broken(Sampler):
        def should_sample(self, *_: Any, **__: Any) -> Any:
            raise RuntimeError("no")

        def get_description(self) -> str:
            return "broken"

    world = World(sampler=Broken())
    assert world.call({"Records": []}) == Succeeded(b"null")
    assert not world.sent[0].traceparent
    assert "a call is not traced" in caplog.text


def test_members_that_others_wrote_into_the_header_are_kept() -> None:
    context = of_traceparent(PARENT, "a=1")
    assert context is not None
    assert trace_header(context, "Root=1-1-1;Self=x;Lineage=0:1") == f"{HEADER};Self=x;Lineage=0:1"


@pytest.mark.parametrize("handler", [handlers.plain, handlers.waits])
def test_a_handler_in_the_daemon_runs_in_the_span_of_its_call(handler: Callable[..., Any]) -> None:
    world = World()

    async def run() -> Outcome:
        settings = PythonSettings(function="orders", handler=f"{handlers.__name__}:{handler.__name__}")
        async with open_python(settings, Environment(LoopClock())) as invoker:
            return await world.tracer.traced(
                Invocation(ARN, "r-1", EncodedEvent(b'{"Records":[]}'), 5.0),
                invoker.invoke,
                function=PLAN,
                mapping=MAPPING,
            )

    outcome = asyncio.run(run())
    assert isinstance(outcome, Succeeded), outcome
    _, inner = world.spans()
    found = json.loads(outcome.payload)
    assert found["span"] == f"{inner.context.span_id:016x}"
    assert found["w3c"]["traceparent"].split("-")[2] == found["span"]
    assert trace.get_current_span() is trace.INVALID_SPAN


def test_without_a_tracer_a_function_is_the_plain_one() -> None:
    class Answers:
        async def invoke(self, _: Invocation) -> Outcome:
            return Succeeded(b"null")

    class Seen:
        def on(self, event: object) -> None:
            raise AssertionError(event)

    plain = made_function(PLAN, Answers(), Seen(), flow=None, tracer=None)
    assert type(plain) is Function
    assert type(plain).call is Function.call
    traced = made_function(PLAN, Answers(), Seen(), flow=None, tracer=World().tracer)
    assert type(traced) is TracedFunction
