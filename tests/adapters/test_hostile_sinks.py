"""Every place that shows texts, with every text that somebody outside could send: it is shown, it is of the place's form, it has an
end, and nobody sees the credential in it.

Texts come in by the ways that they come in by: what a function answers, what a port says, what a record or a library holds.
"""

import asyncio
import io
import json
import logging
import sys
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from adapters.control.aws_errors import fault
from adapters.control.mappings import mapping_document
from adapters.control.pressure import Limits
from adapters.control.responses import answer
from adapters.invokers.outcomes import failed
from adapters.observers.log_observer import LogObserver
from adapters.observers.logs import LogSettings, open_logs
from adapters.observers.metrics import Figures
from adapters.observers.prometheus import PrometheusObserver
from poller.commands.daemon_client import DaemonClient
from poller.commands.root.problems import print_problems
from poller.commands.status.command import show_status
from poller.domain.errors import AccessDenied, InvalidConfiguration, ServiceUnavailable
from poller.domain.invocations import Condition, Ended, FunctionError, Throttled, with_payload
from poller.domain.mapping_api import ApiError, ApiErrorType, MappingView
from poller.domain.policies import BatchPolicy, RetryPolicy
from poller.domain.records import Epoch, Message, Position, ShardId
from poller.domain.rows import MappingState
from poller.domain.status import DaemonStatus, MappingStatus
from poller.domain.telemetry.daemon_events import Capacity, FunctionChanged, ObserverFailed
from poller.domain.telemetry.mapping_events import Blocked, LeaseMoved, PortFailed, ShardStarted
from poller.domain.telemetry.observers import AnyTelemetryEvent
from poller.output.function_log import FunctionLog
from poller.output.log_fields import fields_of_record
from poller.plugins import Environment
from poller.rules.reconciling import problem_of
from poller.rules.responses import Deferred, Rejected, ResponseReading, parse
from poller.rules.streams.attempts import BatchPart, Discard
from poller.rules.streams.failure_document import Context, notice
from poller.runtime.queues.queue_mapping import QueueMapping
from poller.runtime.stopping import Stop
from poller.runtime.streams.stream_mapping import StreamMapping
from poller.testing.telemetry_events import MAPPING, SHARD, STREAM_ARN, SetClock, changed, finished
from tests.adapters.control.serving import Running, Setting, View, serving
from tests.hostile_texts import CREDENTIALS, HOSTILE, fit
from tests.runtime import fakes
from tests.runtime.queues import queue_fakes
from tests.runtime.streams.test_stream_mapping import run_mapping

CORPUS: dict[str, str] = HOSTILE | {name: text for name, (text, _) in CREDENTIALS.items()}
LINE_BYTES_MAX = 64 * 1024
PAGE_BYTES_MAX = 256 * 1024


def hides(shown: str, name: str) -> bool:
    """Whether nothing is left of the credential that the text of this name holds."""
    secret = CREDENTIALS[name][1] if name in CREDENTIALS else ""
    return not secret or (secret not in shown and secret not in shown.replace('\\"', '"'))


def verdict(text: str) -> Rejected:
    """What the engine makes of a function's error with this text in every part."""
    outcome = failed(text, text, stack_trace=[text, text], executed_version=text)
    found = parse(outcome, ["1"], ResponseReading())
    assert isinstance(found, Rejected)
    return found


# The log.


@dataclass
class Log:
    """What writes to a log: its observer and the environment of plug-ins."""

    observer: LogObserver
    env: Environment

    @property
    def functions(self) -> FunctionLog:
        return self.env.function_log


def an_error(log: Log, text: str) -> None:
    found = verdict(text)
    assert found.cause is not None
    event = finished(
        Ended.FUNCTION_ERROR,
        shard=ShardId(f"shard-{id(found)}"),
        error=found.error,
        error_type=found.cause.error_type,
        stack_trace=found.cause.stack_trace,
    )
    log.observer.on(event)


def a_third_party_s_error(log: Log, text: str) -> None:
    found = parse(Throttled(text), ["1"], ResponseReading())
    assert isinstance(found, Deferred)
    log.observer.on(finished(Ended.THROTTLED, shard=ShardId(f"shard-{id(found)}"), error=found.error))


def a_port_s_reason(log: Log, text: str) -> None:
    error = ServiceUnavailable(text)
    shard = ShardId(f"shard-{id(error)}")
    log.observer.on(
        PortFailed(mapping=MAPPING, shard=shard, port="source", error="X", reason=error.reason, wait_s=1.0)
    )


def a_shard_s_name(log: Log, text: str) -> None:
    log.observer.on(LeaseMoved(mapping=MAPPING, shard=ShardId(text), held=True))


def a_function_s_state(log: Log, text: str) -> None:
    log.observer.on(FunctionChanged(function=text, function_arn=text, limit_s=3.0, known=True, reason=text))


def a_line_of_a_function(log: Log, text: str) -> None:
    log.functions.write("orders", f"{text}.", request_id="r-1", logger=text[:50])


def fields_of_a_line(log: Log, text: str) -> None:
    extra = {"why": text, "more": {"deep": [text, 1, None]}, text[:99] or "_": 1, "event": "forged"}
    record = logging.getLogger("shop").makeRecord("shop", 20, "f", 1, "said", (), None, extra=extra)
    log.functions.write("orders", "said", fields=fields_of_record(record))


def a_line_of_a_library(log: Log, text: str) -> None:
    logging.getLogger("aiohttp.server").warning("%s", text, extra={"why": text})


def an_exception_in_a_library(log: Log, text: str) -> None:
    try:
        raise ValueError(text)
    except ValueError:
        logging.getLogger("aiohttp.server").exception("no request")


def a_warning(log: Log, text: str) -> None:
    warnings.warn(text, RuntimeWarning, stacklevel=1)


IN_THE_LOG: tuple[Callable[[Log, str], None], ...] = (
    an_error,
    a_third_party_s_error,
    a_port_s_reason,
    a_shard_s_name,
    a_function_s_state,
    a_line_of_a_function,
    fields_of_a_line,
    a_line_of_a_library,
    an_exception_in_a_library,
    a_warning,
)


@pytest.mark.parametrize("write", IN_THE_LOG, ids=lambda write: write.__name__)
@pytest.mark.parametrize("form", ["json", "console"])
def test_the_log_has_one_clean_line_for_each_text(
    write: Callable[[Log, str], None], form: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown: dict[str, bytes] = {}

    async def run(name: str, stream: io.BytesIO) -> None:
        monkeypatch.setattr(sys, "stderr", io.TextIOWrapper(stream, "utf-8", write_through=True))
        env = Environment(clock=SetClock())
        async with open_logs(LogSettings.model_validate({"format": form}), env) as observer:
            write(Log(observer, env), CORPUS[name])
        shown[name] = stream.getvalue()

    with warnings.catch_warnings(), asyncio.Runner() as runner:
        warnings.simplefilter("always")
        for name in CORPUS:
            runner.run(run(name, io.BytesIO()))
    for name, page in shown.items():
        line = page.decode()
        assert line.count("\n") == 1, name
        assert len(page) < LINE_BYTES_MAX, name
        assert hides(line, name), (name, line)
        if form == "json":
            found = json.loads(line)
            assert list(found)[:3] == ["timestamp", "level", "event"], name
            assert found["event"] != "forged"
            assert all(fit(text.replace("\n", " ")) for text in texts_in(found)), name
        else:
            assert fit(line.replace("\x1b", "").rstrip("\n")), name


def texts_in(value: Any) -> Iterator[str]:
    """All texts of a JSON value, names included."""
    match value:
        case str():
            yield value
        case list():
            for each in value:
                yield from texts_in(each)
        case dict():
            for name, each in value.items():
                yield name
                yield from texts_in(each)


def test_a_stream_that_does_not_take_every_character_gets_json_all_the_same(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    page = io.BytesIO()
    monkeypatch.setattr(
        sys, "stderr", io.TextIOWrapper(page, "ascii", errors="backslashreplace", write_through=True)
    )

    async def run() -> None:
        env = Environment(clock=SetClock())
        async with open_logs(LogSettings(), env):
            env.function_log.write("orders", "näßt 😀")

    asyncio.run(run())
    assert json.loads(page.getvalue())["message"] == "näßt 😀"


# What runs: /v1 and `poller status`.


def of_a_stream(text: str) -> MappingStatus:
    """The status of a mapping whose record has the text as its key, and whose function fails with it."""
    stream, shown = fakes.FakeStream(), list[MappingStatus]()
    stream.put(*fakes.records(1, key=text))

    async def look(runner: StreamMapping, _: Stop) -> None:
        await asyncio.sleep(0.5)
        shown.append(status(shards=runner.shards(), reason=runner.reason))

    function = fakes.FakeFunction(lambda _: FunctionError(text, text, text, text, stack_trace=(text,) * 50))
    plan = fakes.mapping(retry=RetryPolicy())
    run_mapping(lambda: fakes.stream_parts(stream, function, plan=plan), for_s=0.5, during=look)
    return shown[0]


def of_a_stream_that_cannot_be_listed(text: str) -> MappingStatus:
    """The status of a mapping whose source says the text."""
    stream, shown = fakes.FakeStream(listing_trouble=[AccessDenied(text)] * 2), list[MappingStatus]()

    async def look(runner: StreamMapping, _: Stop) -> None:
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        shown.append(status(shards=runner.shards(), reason=runner.reason))

    run_mapping(lambda: fakes.stream_parts(stream, fakes.FakeFunction()), for_s=0.1, during=look)
    return shown[0]


def of_a_queue(text: str) -> MappingStatus:
    """The status of a mapping of a queue, whose message group has the text as its name, and whose function fails with it."""
    service, shown = queue_fakes.fifo(30), list[MappingStatus]()
    service.send(0, group=text or "g")

    async def script(mapping: QueueMapping, _: Stop) -> None:
        await asyncio.sleep(5.0)
        shown.append(status(lanes=mapping.lanes()))

    handler = queue_fakes.Handler(answer=lambda _: FunctionError(text, text, stack_trace=(text,) * 50))
    plan = queue_fakes.plan(service, batch=BatchPolicy(1))
    queue_fakes.play(queue_fakes.parts(service, queue_fakes.function_of(handler), plan), script)
    return shown[0]


def of_an_unreadable_message(text: str) -> MappingStatus:
    """The status of a mapping of a queue that gives what nobody can read."""
    service, shown = Unreadable(queue_fakes.standard(30).queue, text=text), list[MappingStatus]()
    service.send(0)

    async def script(mapping: QueueMapping, _: Stop) -> None:
        await asyncio.sleep(5.0)
        shown.append(status(lanes=mapping.lanes()))

    plan = queue_fakes.plan(service)
    queue_fakes.play(queue_fakes.parts(service, queue_fakes.function_of(queue_fakes.Handler()), plan), script)
    return shown[0]


@dataclass
class Unreadable(queue_fakes.Service):
    """A queue whose messages cannot be read for the reason `text`."""

    text: str = ""

    async def receive(self, *, messages_max: int, wait_s: float) -> list[Message]:
        found = await super().receive(messages_max=messages_max, wait_s=wait_s)
        return [
            Message(
                message_id=self.text,
                receipt=each.receipt,
                body=None,
                attributes={"MessageGroupId": self.text},
                message_attributes={},
                md5_of_body=None,
                received=each.received,
                unreadable=self.text or "no reason",
            )
            for each in found
        ]


def status(**more: Any) -> MappingStatus:
    given: dict[str, Any] = {"function": "f", "source_arn": STREAM_ARN, "state": MappingState.ENABLED}
    return MappingStatus(mapping=MAPPING, **(given | more))


OF_A_MAPPING = (of_a_stream, of_a_stream_that_cannot_be_listed, of_a_queue, of_an_unreadable_message)


@pytest.mark.parametrize("make", OF_A_MAPPING, ids=lambda make: make.__name__)
def test_what_runs_can_be_read_whatever_is_in_it(
    make: Callable[[str], MappingStatus], capsys: pytest.CaptureFixture[str]
) -> None:
    made = {name: make(text) for name, text in CORPUS.items()}
    for name, mapping in made.items():
        body = answer(DaemonStatus(worker="w", mappings=(mapping,), ready=True, alive=True)).body
        assert isinstance(body, bytes)
        assert len(body) < PAGE_BYTES_MAX, name
        found = json.loads(body.decode())
        assert all(fit(text) for text in texts_in(found)), name
        assert hides(body.decode(), name), (name, body)

    async def ask(running: Running) -> None:
        for name, mapping in made.items():
            running.view.now = DaemonStatus(worker="w", mappings=(mapping,), ready=True, alive=True)
            code, found, _ = await running.get("/v1/mappings")
            assert (code, len(found["mappings"])) == (200, 1), name
            assert await asyncio.to_thread(show_status, DaemonClient(running.url), as_json=False) == 0, name
            shown = capsys.readouterr().out
            assert fit(shown.replace("\n", "")), name
            assert hides("".join(shown.split()), name), (name, shown)

    # The corpus has more texts than one address may send requests.
    serving(ask, Setting(view=View(), patience_s=60.0, limits=Limits(requests_at_once=1e9)))


def test_one_text_that_nobody_cleaned_costs_no_page() -> None:
    async def ask(running: Running) -> None:
        for text in HOSTILE.values():
            running.view.now = DaemonStatus(
                worker=text, mappings=(status(reason=text),), ready=True, alive=True, notes=(text,)
            )
            for path in ("/v1/mappings", f"/v1/mappings/{MAPPING}", "/healthz", "/readyz"):
                code, _, _ = await running.get(path)
                assert code == 200

    serving(ask, Setting(view=View()))


# Lambda's API.


def view(destination: str = "arn:aws:sqs:eu-west-1:111122223333:dlq", **more: Any) -> MappingView:
    given: dict[str, Any] = {
        "mapping": MAPPING,
        "parameters": {
            "EventSourceArn": STREAM_ARN,
            "DestinationConfig": {"OnFailure": {"Destination": destination}},
        },
        "function_arn": "arn:aws:lambda:eu-west-1:111122223333:function:orders",
        "state": MappingState.ENABLED,
        "reason": "",
        "last_modified": Epoch(0.0),
    }
    return MappingView(**(given | more))


def test_lambda_s_api_shows_clean_texts() -> None:
    for name, text in CORPUS.items():
        reason = ServiceUnavailable(text).reason
        document = answer(mapping_document.mapping(view(reason=reason, last_result=problem_of(reason)))).body
        refused = fault(ApiError(ApiErrorType.PARAMETER, text)).body
        for body in (document, refused):
            assert isinstance(body, bytes)
            assert len(body) < LINE_BYTES_MAX, name
            assert all(fit(each.replace("\n", " ")) for each in texts_in(json.loads(body.decode()))), name
            assert hides(body.decode(), name), name


def test_a_destination_s_url_shows_its_place_only() -> None:
    shown = mapping_document.mapping(view("https://bob:hunter2@alerts.example.com/hook/9f8e?token=hunter2"))
    assert shown["DestinationConfig"]["OnFailure"] == {"Destination": "https://alerts.example.com/[hidden]"}
    arn = "arn:aws:sns:eu-west-1:111122223333:failed"
    assert mapping_document.mapping(view(arn))["DestinationConfig"]["OnFailure"] == {"Destination": arn}


# Metrics.


def test_no_name_breaks_the_page_of_metrics() -> None:
    for name, text in CORPUS.items():
        observer = PrometheusObserver(Figures(SetClock()), SetClock())
        shard = ShardId(text)
        events: list[AnyTelemetryEvent] = [
            changed(function=text, source_arn=text),
            LeaseMoved(mapping=MAPPING, shard=shard, held=True),
            ShardStarted(mapping=MAPPING, shard=shard, position=Position.horizon()),
            Blocked(mapping=MAPPING, shard=shard, lane=0, blocked=True),
            Capacity(function=text, in_flight=1, limit=2),
            ObserverFailed(observer=text, reason=text),
            PortFailed(mapping=MAPPING, shard=shard, port=text, error=text, reason=text, wait_s=1.0),
        ]
        for event in events:
            observer.on(event)
        page = observer.exposition()[0].decode()
        assert len(page) < PAGE_BYTES_MAX, name
        families = {each.name: each for each in text_string_to_metric_families(page)}
        assert not any("forged" in family for family in families)
        [blocked] = families["poller_shard_blocked_since_timestamp_seconds"].samples
        assert fit(blocked.labels["shard"]), name
        assert hides(page, name), name


# Documents for on-failure destinations.


def test_a_document_is_json_of_one_line_with_the_event_as_it_was() -> None:
    for name, text in CORPUS.items():
        found = verdict(text)
        event = json.dumps({"Records": [{"data": text}]}).encode()
        discard = Discard(BatchPart((), "r"), (), Condition.RETRIES, 1, "r", found.response)
        context = Context(MAPPING, SHARD, STREAM_ARN, "arn:f", "KinesisBatchInfo")
        made = notice(discard, context, payload=event, now=Epoch(0.0), notice_id="n")
        line = with_payload(made)
        assert b"\n" not in line
        document = json.loads(line.decode())
        assert json.loads(document["payload"]) == {"Records": [{"data": text}]}, "the event is told in full"
        told = document["responseContext"]
        assert set(told) == {"statusCode", "executedVersion", "functionError"}
        assert fit(told["executedVersion"] + told["functionError"]), name
        assert hides(json.dumps(told, ensure_ascii=False), name), name
        assert len(made.document) < LINE_BYTES_MAX, name


# What commands say.


def test_a_problem_is_one_line_on_stderr(capsys: pytest.CaptureFixture[str]) -> None:
    for name, text in CORPUS.items():
        print_problems(InvalidConfiguration([f"poller.yaml: {text}"]).problems)
        shown = capsys.readouterr().err
        assert shown.count("\n") == 1, name
        assert fit(shown.rstrip("\n")), name
        assert len(shown) < LINE_BYTES_MAX
        assert hides(shown, name), name
