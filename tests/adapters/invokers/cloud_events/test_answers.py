"""Answers to CloudEvents: results inside of answering events, and reports that name records by the ids of their events."""

import asyncio
import json
from typing import Any

import pytest
from aiohttp import web

from adapters.invokers.cloud_events.answers import result_of, with_identifiers
from adapters.invokers.http import open_http
from adapters.invokers.http_settings import HttpSettings
from poller.domain.invocations import EncodedEvent, FunctionError, Invocation, Outcome, Succeeded, Unreachable
from poller.rules.responses import Accepted, Partial, Rejected, ResponseReading, parse
from poller.testing.invoker import ARN, REQUEST_ID
from tests.adapters.invokers.cloud_events.plain_events import change, event, kinesis, message
from tests.contracts.invokers import environment, served

STRUCTURED = "application/cloudevents+json; charset=utf-8"


@pytest.mark.parametrize(
    ("body", "content_type", "result"),
    [
        (b'{"batchItemFailures": []}', "application/json", b'{"batchItemFailures": []}'),
        (b'{"data": {"a": 1}}', "application/json", b'{"data": {"a": 1}}'),
        (b'{"specversion": "1.0", "data": {"a": 1}}', STRUCTURED, b'{"a": 1}'),
        (b'{"specversion": "1.0", "data": {"a": 1}}', "Application/CloudEvents+JSON", b'{"a": 1}'),
        (b'{"specversion": "1.0", "data_base64": "e30="}', STRUCTURED, b"{}"),
        (b'{"specversion": "1.0"}', STRUCTURED, b""),
        (b'{"data_base64": "?"}', STRUCTURED, b'{"data_base64": "?"}'),
        (b"oops", STRUCTURED, b"oops"),
        (b"[" * 100_000, STRUCTURED, b"[" * 100_000),
    ],
)
def test_the_result_is_the_data_of_an_answering_event(body: bytes, content_type: str, result: bytes) -> None:
    assert result_of(body, content_type) == result


IDS = {"shardId-000000000000:495": "495"}


@pytest.mark.parametrize(
    ("result", "named"),
    [
        ({"batchItemFailures": [{"itemIdentifier": "shardId-000000000000:495"}]}, ["495"]),
        ({"batchItemFailures": [{"itemIdentifier": "495"}]}, ["495"]),
        ({"batchItemFailures": [{"itemIdentifier": "another"}]}, ["another"]),
        ({"batchItemFailures": [{"itemIdentifier": 7}]}, [7]),
        ({"batchItemFailures": [{}]}, [None]),
    ],
)
def test_a_report_may_name_the_ids_of_events(result: Any, named: list[Any]) -> None:
    found = json.loads(with_identifiers(json.dumps(result).encode(), IDS))
    assert [each.get("itemIdentifier") for each in found["batchItemFailures"]] == named


def test_a_report_keeps_what_else_it_says_of_a_record() -> None:
    report = b'{"batchItemFailures": [{"itemIdentifier": "e", "retryAfterSeconds": 9}]}'
    found = json.loads(with_identifiers(report, {"e": "m"}))
    assert found == {"batchItemFailures": [{"itemIdentifier": "m", "retryAfterSeconds": 9}]}


@pytest.mark.parametrize(
    "result",
    [
        b"",
        b"null",
        b'"batchItemFailures"',
        b'{"batchItemFailures": 7}',
        b'{"batchItemFailures": ["shardId-000000000000:495"]}',
        b'{"batchItemFailures": [' + b"[" * 100_000,
    ],
)
def test_what_is_no_report_stays_as_it_is(result: bytes) -> None:
    assert with_identifiers(result, IDS) == result


def answered(payload: bytes, answer: web.Response, **given: Any) -> Outcome:
    """The outcome of one call of a server that gives this answer."""

    async def handler(request: web.Request) -> web.Response:
        await request.read()
        return answer

    async def run() -> Outcome:
        app = web.Application()
        app.router.add_post("/", handler)
        async with served(app) as url, environment() as env:
            settings = HttpSettings.model_validate({"function": "orders", "url": f"{url}/", **given})
            async with open_http(settings, env) as invoker:
                return await invoker.invoke(Invocation(ARN, REQUEST_ID, EncodedEvent(payload), 5.0))

    return asyncio.run(run())


REPORTS = ResponseReading(report_failures=True)


@pytest.mark.parametrize(
    ("records", "event_id", "identifiers"),
    [
        ([message("m-1"), message("m-2")], "m-2", ["m-1", "m-2"]),
        ([kinesis("494"), kinesis("495")], "shardId-000000000000:495", ["494", "495"]),
        ([change("a", number="100"), change("b", number="200")], "b", ["100", "200"]),
    ],
    ids=["SQS", "Kinesis", "DynamoDB"],
)
def test_a_batched_answer_reports_the_failure_of_one_event(
    records: list[bytes], event_id: str, identifiers: list[str]
) -> None:
    answer = web.json_response({"batchItemFailures": [{"itemIdentifier": event_id}]})
    outcome = answered(event(*records), answer, cloud_events="batched")
    verdict = parse(outcome, identifiers, REPORTS)
    assert isinstance(verdict, Partial)
    assert verdict.failed == {1}


def test_an_answering_event_reports_as_well() -> None:
    reply = {"specversion": "1.0", "data": {"batchItemFailures": [{"itemIdentifier": "m-1"}]}}
    answer = web.Response(body=json.dumps(reply), content_type="application/cloudevents+json")
    verdict = parse(answered(event(message("m-1")), answer, cloud_events="structured"), ["m-1"], REPORTS)
    assert isinstance(verdict, Partial)


def test_an_answering_event_with_an_error_document_is_a_function_error() -> None:
    reply = {"specversion": "1.0", "data": {"errorType": "Bad", "errorMessage": "no"}}
    answer = web.Response(body=json.dumps(reply), content_type="application/cloudevents+json")
    assert answered(event(message()), answer, cloud_events="binary") == FunctionError("Bad", "no")


def test_a_list_of_answering_events_is_no_report() -> None:
    answer = web.Response(body=b'[{"specversion": "1.0"}]', content_type="application/cloudevents-batch+json")
    outcome = answered(event(message()), answer, cloud_events="batched")
    assert isinstance(parse(outcome, ["m-1"], REPORTS), Rejected)
    assert parse(outcome, ["m-1"], ResponseReading()) == Accepted()


def test_202_of_a_broker_is_a_success() -> None:
    assert answered(event(message()), web.Response(status=202), cloud_events="binary") == Succeeded(b"")


def test_a_batch_of_several_records_is_not_called_in_binary_mode_and_loses_nothing() -> None:
    outcome = answered(event(message(), message()), web.Response(), cloud_events="binary")
    assert isinstance(outcome, Unreachable)
    assert "set BatchSize: 1 in the mapping" in outcome.reason


def test_without_cloud_events_the_answer_is_the_result_whatever_its_type() -> None:
    answer = web.Response(body=b'{"data": 1}', content_type="application/cloudevents+json")
    assert answered(event(message()), answer) == Succeeded(b'{"data": 1}')


def test_a_hostile_key_arrives_in_a_header_of_binary_mode() -> None:
    seen: dict[str, str] = {}

    async def handler(request: web.Request) -> web.Response:
        seen.update(request.headers)
        return web.Response()

    async def run() -> None:
        app = web.Application()
        app.router.add_post("/", handler)
        async with served(app) as url, environment() as env:
            given = {
                "function": "orders",
                "url": f"{url}/",
                "cloud_events": "binary",
                "headers": {"ce-team": "x"},
            }
            async with open_http(HttpSettings.model_validate(given), env) as invoker:
                payload = event(kinesis(key="\U0001f600" * 600 + "\r\nx: y"))
                await invoker.invoke(Invocation(ARN, REQUEST_ID, EncodedEvent(payload), 5.0))

    asyncio.run(run())
    assert seen["ce-subject"] == "%F0%9F%98%80" * 512
    assert seen["ce-team"] == "x"
    assert seen["x-amzn-requestid"] == REQUEST_ID
