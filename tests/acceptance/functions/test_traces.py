"""Traces of a real daemon, as an OTLP receiver gets them over HTTP and gRPC, and the contexts that its functions get."""

import asyncio
import json
import os
import signal
import sys
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import botocore.session
import grpc
import pytest
import yaml
from aiohttp import web
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2_grpc
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from adapters.demo.processes import HOST, Running, free_port, plain_environment, running
from tests.acceptance.test_invoke import END_S_MAX, KEY, READY_S_MAX, SECRET, SIGNED
from tests.emulators import ministack

pytestmark = pytest.mark.acceptance

HANDLER = "tests.acceptance.functions.traced_function.handler"
FUNCTIONS = ("inside", "child", "web")
TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
SENDERS = {"inside": "1" * 16, "child": "2" * 16, "web": "3" * 16}
SPANS_S_MAX = 60.0


class Receiver(trace_service_pb2_grpc.TraceServiceServicer):
    """A collector that keeps what it gets."""

    def __init__(self) -> None:
        self.requests: list[ExportTraceServiceRequest] = []

    def Export(self, request: ExportTraceServiceRequest, _: Any) -> ExportTraceServiceResponse:  # noqa: N802 - gRPC's
        self.requests.append(request)
        return ExportTraceServiceResponse()

    async def post(self, request: web.Request) -> web.Response:
        self.Export(ExportTraceServiceRequest.FromString(await request.read()), None)
        return web.Response(body=b"", content_type="application/x-protobuf")

    def spans(self) -> dict[str, Span]:
        return {
            f"{span.span_id.hex()}": span
            for request in self.requests
            for resource in request.resource_spans
            for scope in resource.scope_spans
            for span in scope.spans
        }


@asynccontextmanager
async def receiving(protocol: str) -> AsyncIterator[tuple[Receiver, str]]:
    receiver, port = Receiver(), free_port()
    if protocol == "grpc":
        server = grpc.server(ThreadPoolExecutor(2))
        trace_service_pb2_grpc.add_TraceServiceServicer_to_server(receiver, server)  # type: ignore[no-untyped-call]  # generated code
        server.add_insecure_port(f"{HOST}:{port}")
        server.start()
        try:
            yield receiver, f"http://{HOST}:{port}"
        finally:
            server.stop(None).wait()
        return
    async with serving(port, {"/v1/traces": receiver.post}):
        yield receiver, f"http://{HOST}:{port}"


@asynccontextmanager
async def serving(port: int, routes: dict[str, Any]) -> AsyncIterator[None]:
    app = web.Application()
    for path, answer in routes.items():
        app.router.add_post(path, answer)
    runner = web.AppRunner(app)
    await runner.setup()
    try:
        await web.TCPSite(runner, HOST, port).start()
        yield
    finally:
        await runner.cleanup()


def queues(url: str) -> Any:
    session = botocore.session.Session()
    session.set_credentials(KEY, SECRET)
    return session.create_client("sqs", "eu-west-1", endpoint_url=url)


def send_all(url: str) -> dict[str, str]:
    """Makes a queue for each function, with one message that has a context of its sender; returns the ARNs."""
    client, arns = queues(url), {}
    try:
        for name, sender in SENDERS.items():
            queue = client.create_queue(QueueName=name)["QueueUrl"]
            asked = client.get_queue_attributes(QueueUrl=queue, AttributeNames=["QueueArn"])
            arns[name] = asked["Attributes"]["QueueArn"]
            given: dict[str, Any] = {
                "MessageAttributes": {
                    "traceparent": {"DataType": "String", "StringValue": f"00-{TRACE}-{sender}-01"}
                }
            }
            if name == "child":
                header = f"Root=1-{TRACE[:8]}-{TRACE[8:]};Parent={sender};Sampled=1"
                given = {
                    "MessageSystemAttributes": {
                        "AWSTraceHeader": {"DataType": "String", "StringValue": header}
                    }
                }
            client.send_message(QueueUrl=queue, MessageBody=f"secret of {name}", **given)
    finally:
        client.close()
    return arns


def configuration(endpoint: str, web_url: str, arns: dict[str, str], folder: Path) -> dict[str, Any]:
    python = {"invoker": "python", "handler": HANDLER, "timeout_s": 20}
    return {
        "region": "eu-west-1",
        "endpoint_url": endpoint,
        "store": f"sqlite://{folder}/state.db",
        "tracing": {"enabled": True},
        "functions": {
            "inside": python,
            "child": python | {"isolation": "process", "processes": 1},
            "web": {"invoker": "http", "url": web_url, "timeout_s": 20},
        },
        "mappings": [{"FunctionName": name, "EventSourceArn": arn} for name, arn in arns.items()],
    }


async def until(done: Any, process: Running) -> None:
    try:
        async with asyncio.timeout(SPANS_S_MAX):
            while not done():
                await asyncio.sleep(0.1)
    except TimeoutError:
        raise AssertionError(f"not all came in time: {process.tail()}") from None


@pytest.mark.parametrize("protocol", ["http/protobuf", "grpc"])
def test_spans_arrive_and_functions_get_their_contexts(protocol: str, tmp_path: Path) -> None:
    asyncio.run(scenario(protocol, tmp_path))


async def scenario(protocol: str, folder: Path) -> None:
    journal, requests = folder / "journal", []

    async def take(request: web.Request) -> web.Response:
        requests.append(request.headers)
        return web.json_response(None)

    web_port, port = free_port(), free_port()
    with ministack(folder) as emulator:
        arns = await asyncio.to_thread(send_all, emulator.url)
        given = configuration(emulator.url, f"http://{HOST}:{web_port}/", arns, folder)
        (folder / "poller.yaml").write_text(yaml.safe_dump(given))
        async with serving(web_port, {"/": take}), receiving(protocol) as (receiver, endpoint):
            env = plain_environment() | SIGNED | {"PYTHONPATH": os.getcwd(), "JOURNAL": str(journal)}
            env |= {"AWS_ACCESS_KEY_ID": KEY, "AWS_SECRET_ACCESS_KEY": SECRET}
            env |= {"OTEL_EXPORTER_OTLP_PROTOCOL": protocol, "OTEL_EXPORTER_OTLP_ENDPOINT": endpoint}
            env |= {"OTEL_RESOURCE_ATTRIBUTES": "deployment.environment.name=test"}
            words = [sys.executable, "-m", "poller", "run", "--config", str(folder / "poller.yaml")]
            words += ["--worker", "w-1", "--listen", f"{HOST}:{port}"]
            with running("daemon", words, env, folder) as process:
                await process.answers(f"http://{HOST}:{port}/readyz", READY_S_MAX)

                def called() -> bool:
                    lines = journal.read_text().splitlines() if journal.exists() else []
                    return len(lines) == 2 and len(requests) == 1

                await until(called, process)
                process.signal(signal.SIGTERM)
                assert await process.ended(END_S_MAX) == 0
    check_spans(receiver)
    check_contexts(receiver, [json.loads(each) for each in journal.read_text().splitlines()], requests[0])


def check_spans(receiver: Receiver) -> None:
    spans = receiver.spans()
    assert sorted(each.name for each in spans.values()) == sorted(
        [f"invoke {name}" for name in FUNCTIONS] + [f"process {name}" for name in FUNCTIONS]
    )
    for span in spans.values():
        kind, _, name = span.name.partition(" ")
        assert span.trace_id.hex() == TRACE
        if kind == "process":
            assert span.kind == Span.SPAN_KIND_CONSUMER
            assert span.parent_span_id.hex() == SENDERS[name]
            assert [each.span_id.hex() for each in span.links] == [SENDERS[name]]
        else:
            assert span.kind == Span.SPAN_KIND_CLIENT
            assert spans[span.parent_span_id.hex()].name == f"process {name}"
    told = {
        each.key: each.value.string_value
        for request in receiver.requests
        for resource in request.resource_spans
        for each in resource.resource.attributes
    }
    assert told["service.name"] == "poller"
    assert told["service.instance.id"] == "w-1"
    assert told["deployment.environment.name"] == "test"
    assert b"secret" not in b"".join(each.SerializeToString() for each in receiver.requests)


def check_contexts(receiver: Receiver, found: list[dict[str, Any]], headers: Any) -> None:
    own = {
        span.name.partition(" ")[2]: span.span_id.hex()
        for span in receiver.spans().values()
        if span.name.startswith("invoke")
    }
    parents = {each["function"]: each["w3c"]["traceparent"] for each in found}
    assert parents == {name: f"00-{TRACE}-{own[name]}-01" for name in ("inside", "child")}
    in_child = next(each["header"] for each in found if each["function"] == "child")
    root = f"Root=1-{TRACE[:8]}-{TRACE[8:]}"
    assert in_child == f"{root};Parent={own['child']};Sampled=1"
    assert headers["traceparent"] == f"00-{TRACE}-{own['web']}-01"
    assert headers["X-Amzn-Trace-Id"] == f"{root};Parent={own['web']};Sampled=1"
