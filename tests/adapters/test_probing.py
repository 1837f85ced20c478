"""Probes: missing permissions by their IAM names, what is asked of whom, and that nothing is left behind."""

import json
import os
import shutil
import sqlite3
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from aiohttp import web

from adapters.aws import clients
from adapters.demo.processes import free_port
from adapters.destinations import events, file, function, http, s3, sns, sqs
from adapters.invokers import http as http_function
from adapters.invokers import lambda_api
from adapters.sources import dynamodb_streams
from adapters.sources import sqs as queues
from adapters.sources.kinesis import plugin as kinesis
from adapters.stores.dynamodb import store as dynamodb
from adapters.stores.sqlite import store as sqlite
from poller.domain.errors import PortError
from poller.domain.findings import Finding, LambdaConsumer, Severity
from poller.domain.records import Epoch, MappingId
from poller.domain.rows import MappingRow
from poller.plugins import Environment, Plugin
from poller.ports import ConsumerCheck, FunctionProbe, Probe
from tests.adapters.answers import Answer, Service, environment, error, ok, on_a_loop, serving
from tests.conftest import REGION
from tests.emulators import Emulator
from tests.start_folders import start_in

ACCOUNT = "111122223333"
STREAM = f"arn:aws:kinesis:{REGION}:{ACCOUNT}:stream/orders"
TABLE_STREAM = f"arn:aws:dynamodb:{REGION}:{ACCOUNT}:table/stock/stream/2026-01-01T00:00:00.000"
QUEUE = f"arn:aws:sqs:{REGION}:{ACCOUNT}:mails"
TOPIC = f"arn:aws:sns:{REGION}:{ACCOUNT}:failed"
BUS = f"arn:aws:events:{REGION}:{ACCOUNT}:event-bus/failed"
FUNCTION = f"arn:aws:lambda:{REGION}:{ACCOUNT}:function:orders"
DENIED = error("AccessDeniedException", status=400)
MISSING = error("ResourceNotFoundException")
SHARD = {"ShardId": "shardId-000000000007", "SequenceNumberRange": {"StartingSequenceNumber": "1"}}
SHARDS = ok(Shards=[SHARD])
ITERATOR = ok(ShardIterator="i")
PAGE = ok(Records=[], NextShardIterator="j", MillisBehindLatest=0)
SUMMARY = ok(StreamDescriptionSummary={"RetentionPeriodHours": 24})
NO_SUCH_RECEIPT = ok(
    Successful=[], Failed=[{"Id": "0", "Code": "ReceiptHandleIsInvalid", "SenderFault": True}]
)
URL = ok(QueueUrl="http://queue.invalid/mails")
ATTRIBUTES = ok(Attributes={"VisibilityTimeout": "30"})

pytestmark = pytest.mark.usefixtures("account")


@asynccontextmanager
async def looking(
    plugin: Plugin[Any, Any], settings: Mapping[str, Any], url: str | None
) -> AsyncIterator[Any]:
    """What `poller check --live` asks."""
    async with (
        environment(url) as env,
        (plugin.look or plugin.open)(plugin.settings.model_validate(dict(settings)), env) as part,
    ):
        yield part


async def probed(plugin: Plugin[Any, Any], endpoint: str | None = None, /, **settings: Any) -> list[Finding]:
    async with looking(plugin, settings, endpoint) as part:
        assert isinstance(part, Probe)
        return list(await part.probe())


def grades(findings: Sequence[Finding]) -> dict[str, str]:
    return {each.check: each.grade.value for each in findings}


async def of_script(
    plugin: Plugin[Any, Any], arn: str, **script: Sequence[Answer]
) -> tuple[list[Finding], Service]:
    async with serving(script) as service:
        return await probed(plugin, service.url, arn=arn), service


# Streams


@on_a_loop
async def test_a_stream_that_may_be_read_is_read_for_one_record() -> None:
    found, service = await of_script(
        kinesis.plugin,
        STREAM,
        ListShards=[SHARDS],
        GetShardIterator=[ITERATOR],
        GetRecords=[PAGE],
        DescribeStreamSummary=[SUMMARY],
    )
    assert {each.grade for each in found} == {Severity.OK}
    assert service.parameters("GetRecords")[0]["Limit"] == 1
    assert service.parameters("GetShardIterator")[0]["ShardId"] == SHARD["ShardId"]


@on_a_loop
async def test_a_stream_that_gets_no_more_records_is_reported_with_the_remedy() -> None:
    disabled = {"StreamArn": TABLE_STREAM, "StreamStatus": "DISABLED", "Shards": [SHARD]}
    found, _ = await of_script(
        dynamodb_streams.plugin,
        TABLE_STREAM,
        DescribeStream=[ok(StreamDescription=disabled)],
        GetShardIterator=[ITERATOR],
        GetRecords=[PAGE],
    )
    assert (found[-1].check, found[-1].grade) == ("stream status", Severity.WARNING)
    assert found[-1].text.startswith(f"{TABLE_STREAM}: the stream is disabled")
    assert "write its ARN" in found[-1].text
    summary = {"RetentionPeriodHours": 24, "StreamStatus": "DELETING"}
    found, _ = await of_script(
        kinesis.plugin,
        STREAM,
        ListShards=[SHARDS],
        GetShardIterator=[ITERATOR],
        GetRecords=[PAGE],
        DescribeStreamSummary=[ok(StreamDescriptionSummary=summary)],
    )
    assert (found[-1].check, found[-1].grade) == ("stream status", Severity.WARNING)
    assert "being deleted" in found[-1].text


READABLE = {
    "ListShards": [SHARDS],
    "GetShardIterator": [ITERATOR],
    "GetRecords": [PAGE],
    "DescribeStreamSummary": [SUMMARY],
}
CONSUMER = f"{STREAM}/consumer/poller:1700000000"
OWN = {"arn": STREAM, "fan_out": True, "mapping": "0f4b8a5e-8b0c-4a56-9c0e-0d7d6b0c2b11"}
OWN_NAME = f"poller-{OWN['mapping']}"


async def with_consumer(
    settings: Mapping[str, Any], *described: Answer
) -> tuple[dict[str, Finding], list[dict[str, Any]]]:
    """The findings that are about consumers, and what the service was asked for."""
    async with serving({**READABLE, "DescribeStreamConsumer": described}) as service:
        found = await probed(kinesis.plugin, service.url, **settings)
        assert {*service.operations()} == {*READABLE, "DescribeStreamConsumer"}
        others = {"kinesis:" + each for each in READABLE}
        return {each.check: each for each in found if each.check not in others}, service.parameters(
            "DescribeStreamConsumer"
        )


def described(status: str) -> Answer:
    return ok(ConsumerDescription={"ConsumerARN": CONSUMER, "ConsumerStatus": status})


@on_a_loop
async def test_a_consumer_that_a_mapping_names_is_described_and_not_subscribed_with() -> None:
    found, asked = await with_consumer({"arn": CONSUMER}, described("ACTIVE"))
    assert asked == [{"ConsumerARN": CONSUMER}]
    assert grades(list(found.values())) == {
        "kinesis:DescribeStreamConsumer": "ok",
        "kinesis:SubscribeToShard": "untried",
    }
    assert "would end the subscription of a daemon that runs" in found["kinesis:SubscribeToShard"].text
    found, _ = await with_consumer({"arn": CONSUMER}, DENIED)
    assert found["kinesis:DescribeStreamConsumer"].grade is Severity.WARNING
    assert "only this check needs it" in found["kinesis:DescribeStreamConsumer"].text
    found, _ = await with_consumer({"arn": CONSUMER}, MISSING)
    assert found["kinesis:DescribeStreamConsumer"].grade is Severity.PROBLEM
    found, _ = await with_consumer({"arn": CONSUMER}, described("DELETING"))
    assert found["consumer status"].grade is Severity.WARNING
    assert "ConsumerStatus is DELETING" in found["consumer status"].text


@on_a_loop
async def test_a_consumer_of_a_mapping_s_own_is_looked_for_and_not_registered() -> None:
    found, asked = await with_consumer(OWN, MISSING)
    assert asked == [{"StreamARN": STREAM, "ConsumerName": OWN_NAME}]
    assert grades(list(found.values())) == {
        "kinesis:DescribeStreamConsumer": "ok",
        "kinesis:RegisterStreamConsumer": "untried",
        "kinesis:SubscribeToShard": "untried",
    }
    assert "costs money" in found["kinesis:RegisterStreamConsumer"].text
    found, _ = await with_consumer(OWN, described("ACTIVE"))
    assert found["kinesis:RegisterStreamConsumer"].text.endswith("the consumer is there")
    found, _ = await with_consumer(OWN, DENIED)
    assert found["kinesis:DescribeStreamConsumer"].grade is Severity.PROBLEM
    assert found["kinesis:DescribeStreamConsumer"].text.startswith(
        f"kinesis:DescribeStreamConsumer on {OWN_NAME} of {STREAM}: not allowed"
    )


@on_a_loop
async def test_each_missing_permission_of_a_stream_has_its_iam_name() -> None:
    found, service = await of_script(
        kinesis.plugin,
        STREAM,
        ListShards=[DENIED],
        GetShardIterator=[DENIED],
        DescribeStreamSummary=[DENIED],
    )
    assert [(each.check, each.grade) for each in found] == [
        ("kinesis:ListShards", Severity.PROBLEM),
        ("kinesis:GetShardIterator", Severity.PROBLEM),
        ("kinesis:GetRecords", Severity.UNTRIED),
        ("kinesis:DescribeStreamSummary", Severity.WARNING),
    ]
    assert found[0].text == f"kinesis:ListShards on {STREAM}: not allowed"
    assert service.parameters("GetShardIterator")[0]["ShardId"] == "shardId-000000000000"


@on_a_loop
async def test_a_shard_that_is_missing_shows_that_asking_for_it_is_allowed() -> None:
    found, _ = await of_script(
        dynamodb_streams.plugin, TABLE_STREAM, DescribeStream=[DENIED], GetShardIterator=[MISSING]
    )
    assert grades(found) == {
        "dynamodb:DescribeStream": "problem",
        "dynamodb:GetShardIterator": "ok",
        "dynamodb:GetRecords": "untried",
    }


@on_a_loop
async def test_reading_alone_may_be_what_is_missing() -> None:
    found, _ = await of_script(
        dynamodb_streams.plugin,
        TABLE_STREAM,
        DescribeStream=[ok(StreamDescription={"Shards": [SHARD]})],
        GetShardIterator=[ITERATOR],
        GetRecords=[DENIED],
    )
    assert [each.text for each in found if each.text] == [
        f"dynamodb:GetRecords on {TABLE_STREAM}: not allowed"
    ]


@pytest.mark.parametrize(
    ("answer", "check", "grade", "text"),
    [
        (MISSING, "kinesis:ListShards", Severity.PROBLEM, "there is none, or it is hidden"),
        (error("LimitExceededException"), "kinesis:ListShards", Severity.WARNING, "throttled"),
        (error("InternalFailure", status=500), "kinesis:ListShards", Severity.PROBLEM, "InternalFailure"),
        (error("ExpiredTokenException"), "credentials", Severity.PROBLEM, "ExpiredTokenException"),
        (error("KMSAccessDeniedException"), "kms:Decrypt", Severity.PROBLEM, f"on the key of {STREAM}"),
    ],
)
def test_other_trouble_is_kept_apart_from_missing_permissions(
    answer: Answer, check: str, grade: Severity, text: str
) -> None:
    @on_a_loop
    async def run() -> None:
        found, service = await of_script(kinesis.plugin, STREAM, ListShards=[answer])
        assert (found[0].check, found[0].grade) == (check, grade)
        assert text in found[0].text
        assert grades(found)["kinesis:GetRecords"] == "untried"
        assert service.operations() == ["ListShards"]

    run()


@on_a_loop
async def test_without_credentials_nothing_else_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    found = await probed(kinesis.plugin, "http://127.0.0.1:1", arn=STREAM)
    assert [each.check for each in found if each.grade is Severity.PROBLEM] == ["credentials"]
    assert "give AWS credentials" in found[0].text


@on_a_loop
async def test_a_stream_that_has_no_shard_yet_is_no_problem() -> None:
    found, _ = await of_script(
        dynamodb_streams.plugin, TABLE_STREAM, DescribeStream=[ok(StreamDescription={"Shards": []})]
    )
    assert [each.grade for each in found] == [Severity.OK, Severity.UNTRIED, Severity.UNTRIED]


# Queues


@on_a_loop
async def test_a_queue_is_asked_about_a_message_that_does_not_exist_and_receives_none() -> None:
    found, service = await of_script(
        queues.plugin,
        QUEUE,
        GetQueueUrl=[URL],
        GetQueueAttributes=[ATTRIBUTES],
        DeleteMessageBatch=[NO_SUCH_RECEIPT],
        ChangeMessageVisibilityBatch=[NO_SUCH_RECEIPT],
    )
    assert grades(found) == {
        "sqs:GetQueueUrl": "ok",
        "sqs:GetQueueAttributes": "ok",
        "sqs:ReceiveMessage": "untried",
        "sqs:DeleteMessage": "ok",
        "sqs:ChangeMessageVisibility": "ok",
    }
    assert "ReceiveMessage" not in service.operations()


@on_a_loop
async def test_each_missing_permission_of_a_queue_has_its_iam_name() -> None:
    found, _ = await of_script(
        queues.plugin,
        QUEUE,
        GetQueueUrl=[URL],
        GetQueueAttributes=[DENIED],
        DeleteMessageBatch=[DENIED],
        ChangeMessageVisibilityBatch=[DENIED],
    )
    assert [each.text for each in found if each.grade is Severity.PROBLEM] == [
        f"sqs:{action} on {QUEUE}: not allowed"
        for action in ("GetQueueAttributes", "DeleteMessage", "ChangeMessageVisibility")
    ]


@on_a_loop
async def test_the_permission_that_is_named_is_that_of_the_call_that_was_refused() -> None:
    found, service = await of_script(queues.plugin, QUEUE, GetQueueUrl=[DENIED])
    assert found[0].text == f"sqs:GetQueueUrl on {QUEUE}: not allowed"
    assert {each.grade for each in found[1:]} == {Severity.UNTRIED}
    assert service.operations() == ["GetQueueUrl"]


@on_a_loop
async def test_an_odd_answer_about_a_message_is_a_warning() -> None:
    odd = ok(Successful=[], Failed=[{"Id": "0", "Code": "InternalError"}])
    found, _ = await of_script(
        queues.plugin,
        QUEUE,
        GetQueueUrl=[URL],
        GetQueueAttributes=[ATTRIBUTES],
        DeleteMessageBatch=[odd],
        ChangeMessageVisibilityBatch=[NO_SUCH_RECEIPT],
    )
    assert grades(found)["sqs:DeleteMessage"] == "warning"


# Services that are not asked by X-Amz-Target


@asynccontextmanager
async def saying(status: int, body: str, **headers: str) -> AsyncIterator[tuple[str, list[web.Request]]]:
    """A server that gives one answer to every request."""
    asked: list[web.Request] = []

    async def answer(request: web.Request) -> web.Response:
        asked.append(request)
        await request.read()
        text = body if request.method != "HEAD" else None
        return web.Response(
            status=status, text=text, headers={n.replace("_", "-"): v for n, v in headers.items()}
        )

    app = web.Application()
    app.router.add_route("*", "/{path:.*}", answer)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        yield f"http://127.0.0.1:{runner.addresses[0][1]}", asked
    finally:
        await runner.cleanup()


@on_a_loop
async def test_lambda_that_may_not_be_invoked_is_reported_and_runs_nothing() -> None:
    async with (
        saying(403, "{}", x_amzn_errortype="AccessDeniedException") as (url, asked),
        looking(lambda_api.plugin, {"function": "orders"}, url) as invoker,
    ):
        assert isinstance(invoker, FunctionProbe)
        found = await invoker.probe_function(f"{FUNCTION}:prod")
        assert [(each.grade, each.text) for each in found] == [
            (Severity.PROBLEM, f"lambda:InvokeFunction on {FUNCTION}:prod: not allowed"),
            (
                Severity.WARNING,
                f"lambda:GetFunctionConfiguration on {FUNCTION}:prod: not allowed; the daemon then waits 900 s for each"
                " answer, whatever the function's time limit",
            ),
        ]
        assert [(each.method, each.headers.get("X-Amz-Invocation-Type")) for each in asked] == [
            ("POST", "DryRun"),
            ("GET", None),
        ]


@pytest.mark.parametrize(
    ("answer", "checks"),
    [
        ({"Timeout": 3, "State": "Active"}, {}),
        ({"Timeout": 3}, {}),
        (
            {"Timeout": 3, "State": "Failed", "StateReason": "no\x1b[31m such image"},
            {"state": f"{FUNCTION}: its state is Failed (no such image)"},
        ),
        (
            {"Timeout": 3, "State": "Pending", "StateReasonCode": "Creating"},
            {"state": f"{FUNCTION}: its state is Pending (Creating)"},
        ),
        ({"Timeout": 3, "State": "Hibernating"}, {"state": f"{FUNCTION}: its state is Hibernating"}),
        (
            {
                "Timeout": 3,
                "State": "Active",
                "LastUpdateStatus": "Failed",
                "LastUpdateStatusReason": "a key",
            },
            {"state": f"{FUNCTION}: its last update failed, the version before it runs (a key)"},
        ),
    ],
)
@on_a_loop
async def test_what_lambda_says_of_a_functions_state_is_reported(
    answer: Mapping[str, Any], checks: Mapping[str, str]
) -> None:
    async with (
        saying(200, json.dumps(answer)) as (url, _),
        looking(lambda_api.plugin, {"function": "orders"}, url) as invoker,
    ):
        found = await invoker.probe_function(FUNCTION)
        assert {each.check: each.text for each in found if each.grade is not Severity.OK} == checks
        assert {each.check for each in found if each.grade is Severity.OK} == {
            "lambda:InvokeFunction",
            "lambda:GetFunctionConfiguration",
        }


@on_a_loop
async def test_lambdas_own_mappings_of_a_queue_are_listed_page_by_page() -> None:
    pages = {
        "": {
            "EventSourceMappings": [{"UUID": "a", "FunctionArn": FUNCTION, "State": "Enabled"}],
            "NextMarker": "m",
        },
        "m": {"EventSourceMappings": [{"UUID": "b", "FunctionArn": FUNCTION, "State": "Disabled"}]},
    }

    async def answer(request: web.Request) -> web.Response:
        assert request.query["EventSourceArn"] == QUEUE
        return web.json_response(pages[request.query.get("Marker", "")])

    app = web.Application()
    app.router.add_get("/2015-03-31/event-source-mappings", answer)
    app.router.add_get("/2015-03-31/event-source-mappings/", answer)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        url = f"http://127.0.0.1:{runner.addresses[0][1]}"
        async with looking(queues.plugin, {"arn": QUEUE}, url) as queue:
            assert isinstance(queue, ConsumerCheck)
            assert await queue.lambda_consumers() == [
                LambdaConsumer("a", FUNCTION, "Enabled"),
                LambdaConsumer("b", FUNCTION, "Disabled"),
            ]
    finally:
        await runner.cleanup()


NOT_AUTHORIZED = "<ErrorResponse><Error><Type>Sender</Type><Code>AuthorizationError</Code><Message/></Error></ErrorResponse>"


@pytest.mark.parametrize(
    ("plugin", "arn", "action", "sends", "body"),
    [
        (sns.plugin, TOPIC, "sns:GetTopicAttributes", "sns:Publish", NOT_AUTHORIZED),
        (s3.plugin, "arn:aws:s3:::failed", "s3:ListBucket", "s3:PutObject", ""),
        (
            sqs.plugin,
            QUEUE,
            "sqs:GetQueueAttributes",
            "sqs:SendMessage",
            json.dumps({"__type": "com.amazonaws.sqs#AccessDeniedException"}),
        ),
        (
            events.plugin,
            BUS,
            "events:DescribeEventBus",
            "events:PutEvents",
            json.dumps({"__type": "AccessDeniedException"}),
        ),
    ],
)
def test_a_destination_that_may_not_be_asked_is_a_warning(
    plugin: Plugin[Any, Any], arn: str, action: str, sends: str, body: str
) -> None:
    @on_a_loop
    async def run() -> None:
        async with saying(403, body) as (url, asked):
            found = await probed(plugin, url, arn=arn)
            assert grades(found) == {action: "warning", sends: "untried"}
            assert found[0].text.endswith("only this check needs it, whether it exists is not known")
            assert len(asked) == 1

    run()


@on_a_loop
async def test_a_bus_that_does_not_exist_is_a_problem() -> None:
    async with saying(400, json.dumps({"__type": "ResourceNotFoundException"})) as (url, asked):
        found = await probed(events.plugin, url, arn=BUS)
        assert grades(found) == {"events:DescribeEventBus": "problem", "events:PutEvents": "untried"}
        assert len(asked) == 2, "by its ARN, and by its name"


@pytest.mark.parametrize(("status", "grade"), [(204, "ok"), (403, "problem"), (404, "problem")])
def test_a_function_as_a_destination_is_called_with_a_dry_run(status: int, grade: str) -> None:
    @on_a_loop
    async def run() -> None:
        async with saying(status, "") as (url, asked):
            found = await probed(function.plugin, url, arn=FUNCTION)
            assert grades(found) == {"lambda:InvokeFunction": grade}
            assert len(asked) == 1

    run()


@pytest.mark.parametrize(("plugin", "arn"), [(sns.plugin, TOPIC), (sqs.plugin, QUEUE)])
def test_the_bucket_for_large_events_is_looked_at_beside_its_queue_or_topic(
    plugin: Plugin[Any, Any], arn: str
) -> None:
    @on_a_loop
    async def run() -> None:
        async with saying(404, "") as (url, asked):
            found = await probed(plugin, url, arn=arn, include_payload=True, payload_prefix="s3://large/x")
            assert grades(found)["s3:PutObject"] == "untried"
            [bucket] = [each for each in found if each.check == "s3:ListBucket"]
            assert bucket.grade is Severity.PROBLEM
            assert bucket.text.startswith("arn:aws:s3:::large: there is none")
            assert len(asked) == 2
            found = await probed(plugin, url, arn=arn, include_payload=True)
            assert "s3:PutObject" not in grades(found)

    run()


@on_a_loop
async def test_a_bucket_that_does_not_exist_is_a_problem() -> None:
    async with saying(404, "") as (url, _):
        found = await probed(s3.plugin, url, arn="arn:aws:s3:::failed")
    assert found[0].grade is Severity.PROBLEM
    assert found[0].text.startswith("arn:aws:s3:::failed: there is none")


# Addresses and files


@pytest.mark.parametrize(
    ("plugin", "settings"),
    [(http_function.plugin, {"function": "orders", "url": "{url}"}), (http.plugin, {"arn": "{url}"})],
)
def test_a_url_is_connected_to_and_nothing_more(plugin: Plugin[Any, Any], settings: dict[str, str]) -> None:
    @on_a_loop
    async def run() -> None:
        async with saying(200, "") as (url, asked):
            given = {name: value.format(url=url) for name, value in settings.items()}
            assert grades(await probed(plugin, None, **given)) == {"connect": "ok", "POST": "untried"}
            assert asked == []
        given = {
            name: value.format(url=f"http://127.0.0.1:{free_port()}") for name, value in settings.items()
        }
        found = await probed(plugin, None, **given)
        assert found[0].grade is Severity.PROBLEM
        assert "127.0.0.1" in found[0].text

    run()


def test_a_directory_for_documents_has_to_exist(tmp_path: Path) -> None:
    @on_a_loop
    async def run() -> None:
        assert grades(await probed(file.plugin, arn=f"file://{tmp_path}")) == {"directory": "ok"}
        (missing,) = await probed(file.plugin, arn=f"file://{tmp_path}/none")
        assert (missing.grade, missing.text) == (Severity.PROBLEM, f"{tmp_path}/none is no directory")
        assert os.listdir(tmp_path) == []

    run()


async def at(path: Path) -> dict[str, str]:
    return grades(await probed(sqlite.plugin, url=f"sqlite://{path}"))


def test_a_sqlite_file_is_looked_at_and_not_made(tmp_path: Path) -> None:
    @on_a_loop
    async def run() -> None:
        assert await at(tmp_path / "deep" / "er" / "state.db") == {"directory": "ok"}
        assert os.listdir(tmp_path) == []
        (tmp_path / "text").write_text("neither empty nor a database")
        assert await at(tmp_path / "text") == {"directory": "ok", "file": "problem"}
        assert await at(tmp_path / "text" / "state.db") == {"directory": "problem"}
        (tmp_path / "empty").touch(mode=0o600)
        assert await at(tmp_path / "empty") == {"directory": "ok", "file": "ok"}
        (tmp_path / "open").touch(mode=0o604)
        assert await at(tmp_path / "open") == {"directory": "ok", "file": "warning"}
        foreign = sqlite3.connect(tmp_path / "foreign.db")
        foreign.execute("PRAGMA application_id=7")
        foreign.execute("CREATE TABLE others (x)")
        foreign.close()
        assert await at(tmp_path / "foreign.db") == {"directory": "ok", "file": "problem"}

    run()


def test_the_file_of_a_store_that_ran_is_fine(tmp_path: Path) -> None:
    @on_a_loop
    async def run() -> None:
        path = tmp_path / "state.db"
        async with (
            environment(None) as env,
            sqlite.open_sqlite(sqlite.SqliteSettings(url=f"sqlite://{path}"), env),
        ):
            before = sorted(os.listdir(tmp_path))
            assert await at(path) == {"directory": "ok", "file": "ok"}
            assert sorted(os.listdir(tmp_path)) == before
        assert await at(path) == {"directory": "ok", "file": "ok"}

    run()


KNOWN = MappingRow(
    MappingId("0f4b8a5e-0000-4000-8000-000000000001"), Epoch(1.5), seeded=True, document={"a": "b"}
)


@pytest.mark.parametrize("ending", ["runs", "stopped", "was killed"])
def test_a_look_at_a_file_says_which_mappings_the_store_knows_and_makes_nothing(
    tmp_path: Path, ending: str
) -> None:
    @on_a_loop
    async def run() -> None:
        path = tmp_path / "odd name?#.db"
        settings = sqlite.SqliteSettings(url=f"sqlite://{quote(str(path))}")
        async with environment(None) as env, sqlite.look_sqlite(settings, env) as look:
            assert await look.mappings() == []
            assert os.listdir(tmp_path) == []
            async with sqlite.open_sqlite(settings, env) as store:
                await store.create(KNOWN)
                if ending == "runs":
                    assert await look.mappings() == [KNOWN]
                if ending == "was killed":
                    for name in os.listdir(tmp_path):
                        shutil.copy(tmp_path / name, tmp_path.parent / name)
            if ending == "was killed":
                for name in os.listdir(tmp_path.parent):
                    if name.startswith("odd name"):
                        shutil.move(tmp_path.parent / name, tmp_path / name)
            before = sorted(os.listdir(tmp_path))
            assert await look.mappings() == [KNOWN]
            assert sorted(os.listdir(tmp_path)) == before

    run()


@pytest.mark.parametrize(
    "form", ["sqlite:{}", "sqlite://{}", "sqlite:///{}", "sqlite:////{}", "sqlite:{name}"]
)
def test_a_look_and_the_store_find_the_same_file_however_its_url_is_written(
    form: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    start_in(tmp_path, monkeypatch)
    path = tmp_path / "state.db"
    given = {"url": form.format(path, name=path.name)}

    @on_a_loop
    async def run() -> None:
        settings = sqlite.SqliteSettings.model_validate(given)
        assert str(settings.path) == str(path)
        async with environment(None) as env, sqlite.look_sqlite(settings, env) as look:
            async with sqlite.open_sqlite(settings, env) as store:
                await store.create(KNOWN)
                assert await look.mappings() == [KNOWN]
            assert await look.mappings() == [KNOWN]
            assert await at(path) == grades(await look.probe())
        assert path.is_file()

    run()


@pytest.mark.parametrize("content", [b"", b"no database at all, but long enough for a header" * 10])
def test_a_look_at_what_is_no_store_is_a_port_error_or_no_mapping(tmp_path: Path, content: bytes) -> None:
    @on_a_loop
    async def run() -> None:
        path = tmp_path / "state.db"
        path.write_bytes(content)
        settings = sqlite.SqliteSettings(url=f"sqlite://{path}")
        async with environment(None) as env, sqlite.look_sqlite(settings, env) as look:
            try:
                assert await look.mappings() == []
            except PortError:
                assert content

    run()


# The DynamoDB store


@on_a_loop
async def test_a_look_at_a_table_says_which_mappings_the_store_knows() -> None:
    item = {
        "pk": {"S": "mappings"},
        "sk": {"S": KNOWN.mapping},
        "fixed": {"N": "1.5"},
        "seeded": {"BOOL": True},
        "document": {"S": '{"a": "b"}'},
        "revision": {"N": "0"},
    }
    script = {"Query": [ok(Items=[item], Count=1), MISSING]}
    async with serving(script) as service, environment(service.url) as env:
        settings = dynamodb.DynamoSettings(url="dynamodb://state")
        async with dynamodb.look_dynamodb(settings, env) as look:
            assert await look.mappings() == [KNOWN]
            assert await look.mappings() == []


def table(*keys: str) -> Answer:
    return ok(
        Table={
            "TableStatus": "ACTIVE",
            "AttributeDefinitions": [{"AttributeName": name, "AttributeType": "S"} for name in keys],
            "KeySchema": [
                {"AttributeName": name, "KeyType": kind}
                for name, kind in zip(keys, ("HASH", "RANGE"), strict=False)
            ],
        }
    )


NEVER = error("ConditionalCheckFailedException")
ROWS = {
    "Query": [ok(Items=[], Count=0)],
    "GetItem": [ok()],
    "PutItem": [NEVER],
    "UpdateItem": [NEVER],
    "DeleteItem": [NEVER],
}


async def of_table(url: str, /, **script: Sequence[Answer]) -> tuple[list[Finding], Service]:
    async with serving(script) as service:
        return await probed(dynamodb.plugin, service.url, url=url), service


@on_a_loop
async def test_a_table_is_written_only_under_conditions_that_cannot_hold() -> None:
    found, service = await of_table("dynamodb://state", DescribeTable=[table("pk", "sk")], **ROWS)
    assert len(found) == 6
    assert {each.grade for each in found} == {Severity.OK}
    for operation in ("PutItem", "UpdateItem", "DeleteItem"):
        (given,) = service.parameters(operation)
        assert given["ConditionExpression"] == "attribute_exists(pk)"


@on_a_loop
async def test_each_missing_permission_of_a_table_has_its_iam_name() -> None:
    script = {operation: [DENIED] for operation in ("DescribeTable", *ROWS)}
    found, _ = await of_table("dynamodb://state", **script)
    assert [each.text for each in found] == [
        f"dynamodb:{operation} on table state: not allowed" for operation in ("DescribeTable", *ROWS)
    ]


@on_a_loop
async def test_a_table_with_other_keys_is_a_problem() -> None:
    found, _ = await of_table("dynamodb://state", DescribeTable=[table("id")], **ROWS)
    assert [each.check for each in found if each.grade is Severity.PROBLEM] == ["keys"]


@on_a_loop
async def test_a_table_is_never_made() -> None:
    found, service = await of_table("dynamodb://state", DescribeTable=[MISSING])
    assert [(each.grade, each.text) for each in found] == [
        (Severity.PROBLEM, "there is no DynamoDB table state")
    ]
    found, _ = await of_table("dynamodb://state?create=true", DescribeTable=[MISSING])
    assert grades(found)["dynamodb:CreateTable"] == "untried"
    assert Severity.PROBLEM not in {each.grade for each in found}
    assert service.operations() == ["DescribeTable"]


# On an emulator


def test_an_emulators_queue_table_and_bucket_are_found_to_work(ministack: Emulator, account: str) -> None:
    @on_a_loop
    async def run() -> None:
        async with environment(ministack.url) as env:
            made = await _made(env)
        for plugin, settings in (
            (queues.plugin, {"arn": f"arn:aws:sqs:{REGION}:{account}:mails"}),
            (sqs.plugin, {"arn": f"arn:aws:sqs:{REGION}:{account}:mails"}),
            (sns.plugin, {"arn": made["topic"]}),
            (events.plugin, {"arn": made["bus"]}),
            (s3.plugin, {"arn": f"arn:aws:s3:::{made['bucket']}"}),
            (dynamodb_streams.plugin, {"arn": made["stream"]}),
            (dynamodb.plugin, {"url": "dynamodb://state"}),
        ):
            found = await probed(plugin, ministack.url, **settings)
            assert {each.grade for each in found} <= {Severity.OK, Severity.UNTRIED}, found
        async with environment(ministack.url) as env:
            service = await clients.client(env, "sqs", REGION)
            url = (await service.get_queue_url(QueueName="mails"))["QueueUrl"]
            left = await service.receive_message(QueueUrl=url, MaxNumberOfMessages=10)
            assert [each["Body"] for each in left["Messages"]] == ["still here"]
            items = await (await clients.client(env, "dynamodb", REGION)).scan(TableName="state")
            assert items["Count"] == 0

    run()


async def _made(env: Environment) -> dict[str, str]:
    queue, tables = await clients.client(env, "sqs", REGION), await clients.client(env, "dynamodb", REGION)
    url = (await queue.create_queue(QueueName="mails"))["QueueUrl"]
    await queue.send_message(QueueUrl=url, MessageBody="still here")
    topic = await (await clients.client(env, "sns", REGION)).create_topic(Name="failed")
    bus = await (await clients.client(env, "events", REGION)).create_event_bus(Name="failed")
    bucket = f"failed-{os.environ['AWS_ACCESS_KEY_ID']}"
    await (await clients.client(env, "s3", REGION)).create_bucket(
        Bucket=bucket, CreateBucketConfiguration={"LocationConstraint": REGION}
    )
    names = ("pk", "sk")
    made = await tables.create_table(
        TableName="state",
        BillingMode="PAY_PER_REQUEST",
        AttributeDefinitions=[{"AttributeName": name, "AttributeType": "S"} for name in names],
        KeySchema=[
            {"AttributeName": name, "KeyType": kind}
            for name, kind in zip(names, ("HASH", "RANGE"), strict=True)
        ],
        StreamSpecification={"StreamEnabled": True, "StreamViewType": "NEW_IMAGE"},
    )
    return {
        "topic": topic["TopicArn"],
        "bus": bus["EventBusArn"],
        "bucket": bucket,
        "stream": made["TableDescription"]["LatestStreamArn"],
    }
