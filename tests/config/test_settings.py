"""Settings: where they come from, which wins, and how everything that is wrong is told."""

import json
import os
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from poller.config.daemon_plan import daemon_plan
from poller.config.field_types import Address, store_name
from poller.config.loader import load
from poller.config.mapping import mapping_id
from poller.config.settings import FunctionEntry, LogLevel, Settings
from poller.config.yaml_files import DEPTH_MAX, FILE_BYTES_MAX, parse_document, read_document
from poller.config_errors.known_names import known_names
from poller.domain.errors import InvalidConfiguration
from poller.domain.plan import DaemonPlan, OnDestinationFailure, Tuning
from poller.domain.policies import Backoff
from poller.domain.records import WorkerId

ROOT = Path(__file__).parents[2]
STREAM = "arn:aws:kinesis:eu-west-1:111122223333:stream/orders"
QUEUE = "arn:aws:sqs:eu-west-1:111122223333:orders"
DESIGNED = """
region: eu-west-1
endpoint_url: null
listen: 0.0.0.0:8080
store: sqlite:///var/lib/poller/state.db
api:
  access_keys_file: null
  tokens_file: null
  reads: token
  allow_unauthenticated: false
default_invoker: lambda
functions:
  orders:
    invoker: python
    handler: shop.handlers:orders
    timeout_s: 30
    max_concurrency: 50
  invoices: {invoker: http, url: "http://invoices.default.svc/2015-03-31/functions/function/invocations"}
  audit: {invoker: process, command: ["python", "-m", "awslambdaric", "app.handler"], max_concurrency: 4}
mappings:
  - FunctionName: orders
    EventSourceArn: arn:aws:kinesis:eu-west-1:111122223333:stream/orders
    StartingPosition: TRIM_HORIZON
    BatchSize: 100
    BisectBatchOnFunctionError: true
    MaximumRetryAttempts: 5
    DestinationConfig: {OnFailure: {Destination: "arn:aws:sqs:eu-west-1:111122223333:orders-failed"}}
"""


@pytest.fixture(autouse=True)
def _no_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    """Settings of whoever runs the tests stay out of them."""
    for name in os.environ:
        if name.upper().startswith("POLLER_"):
            monkeypatch.delenv(name)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "poller.yaml"


def problems(file: Path, text: str, overrides: dict[str, Any] | None = None) -> list[str]:
    """What is wrong with a file, without its name at the beginning of the lines that have it."""
    file.write_text(text)
    with pytest.raises(InvalidConfiguration) as caught:
        load(file, overrides)
    return [line.removeprefix(f"{file}: ") for line in caught.value.problems]


def loaded(file: Path, text: str, overrides: dict[str, Any] | None = None) -> Settings:
    file.write_text(text)
    return load(file, overrides)


def mapped(**fields: object) -> dict[str, object]:
    base = {"FunctionName": "orders", "EventSourceArn": STREAM, "StartingPosition": "LATEST"}
    return base | fields


def document(**sections: object) -> str:
    return yaml.safe_dump(sections)


def test_the_designed_file_becomes_the_plan_it_says(file: Path) -> None:
    plan = daemon_plan(loaded(file, DESIGNED, {"worker": "w"}))
    assert (plan.worker, plan.store) == ("w", "sqlite")
    assert plan.store_settings == {"url": "sqlite:///var/lib/poller/state.db"}
    assert {name: (each.invoker, each.max_concurrency) for name, each in plan.functions.items()} == {
        "orders": ("python", 50),
        "invoices": ("http", None),
        "audit": ("process", 4),
    }
    assert plan.functions["orders"].settings == {"handler": "shop.handlers:orders"}
    assert plan.functions["audit"].settings == {"command": ["python", "-m", "awslambdaric", "app.handler"]}
    (mapping,) = plan.mappings
    assert mapping.function_arn == "arn:aws:lambda:eu-west-1:111122223333:function:orders"
    assert mapping.mapping == mapping_id(STREAM, mapping.function_arn)
    assert (mapping.retry.retries_max, mapping.retry.bisect) == (5, True)


def test_an_empty_file_has_the_defaults(file: Path) -> None:
    found = loaded(file, "")
    assert (found.listen, found.store) == ("127.0.0.1:8080", "sqlite:///var/lib/poller/state.db")
    assert (found.default_invoker, found.tuning, found.mappings) == ("lambda", Tuning(), ())
    assert (found.log.level, found.log.format) == (LogLevel.INFO, "json")
    assert not found.api.allow_unauthenticated


def test_a_worker_without_a_name_gets_one_of_its_own() -> None:
    first, second = daemon_plan(Settings()).worker, daemon_plan(Settings()).worker
    assert first != second
    assert daemon_plan(Settings(worker="a-1")) == DaemonPlan(
        worker=WorkerId("a-1"), store="sqlite", store_settings={"url": "sqlite:///var/lib/poller/state.db"}
    )


def test_a_function_without_an_entry_goes_to_the_default_invoker(file: Path) -> None:
    text = document(default_invoker="process", mappings=[mapped(FunctionName="orders:prod")])
    plan = daemon_plan(loaded(file, text))
    assert plan.functions["orders"].invoker == "process"
    assert plan.mappings[0].function == "orders"
    assert plan.mappings[0].function_arn.endswith(":function:orders:prod")


def test_the_command_line_wins_over_the_environment_over_the_file(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = document(
        listen="127.0.0.1:1", store="memory://", region="eu-west-1", tuning={"grace_s": 1, "discovery_s": 1}
    )
    monkeypatch.setenv("POLLER_LISTEN", "127.0.0.1:2")
    monkeypatch.setenv("POLLER_STORE", "sqlite:///b")
    monkeypatch.setenv("POLLER_TUNING__GRACE_S", "2")
    found = loaded(file, text, {"listen": "127.0.0.1:3"})
    assert (found.listen, found.store, found.region) == ("127.0.0.1:3", "sqlite:///b", "eu-west-1")
    assert (found.tuning.grace_s, found.tuning.discovery_s, found.tuning.idle_poll_s) == (2.0, 1.0, 5.0)


def test_the_environment_reaches_nested_settings(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {
        "POLLER_ENDPOINT_URLS__SQS": "http://127.0.0.1:9324",
        "POLLER_TUNING__PORT_BACKOFF__CAP_S": "9",
        "POLLER_LOG__LEVEL": "WARNING",
        "POLLER_FUNCTIONS__ORDERS__TIMEOUT_S": "7",
        "POLLER_API__ALLOW_UNAUTHENTICATED": "true",
        "POLLER_MAPPINGS": json.dumps([mapped()]),
        "POLLER_REGION": "",
    }.items():
        monkeypatch.setenv(name, value)
    found = loaded(file, document(region="eu-west-1", functions={"orders": {"invoker": "python"}}))
    assert found.endpoint_urls == {"sqs": "http://127.0.0.1:9324"}
    assert found.tuning.port_backoff == Backoff(base_s=0.5, cap_s=9.0)
    assert found.log.level is LogLevel.WARNING
    assert found.functions["orders"] == FunctionEntry(invoker="python", timeout_s=7.0)
    assert found.api.allow_unauthenticated
    assert len(found.mappings) == 1
    assert found.region == "eu-west-1"


def test_constructing_settings_looks_at_no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("POLLER_LISTEN", "127.0.0.1:2")
    assert Settings().listen == "127.0.0.1:8080"


def test_a_wrong_variable_is_named(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("POLLER_TUNING__GRACE_S", "soon")
    assert problems(file, "") == [
        "environment POLLER_TUNING__GRACE_S: tuning.grace_s: value 'soon': not a number; write digits, without unit"
    ]


@pytest.mark.parametrize(
    ("variable", "meant"),
    [
        ("POLLER_REGON", "POLLER_REGION"),
        ("POLLER_ENDPOINT_URLL", "POLLER_ENDPOINT_URL"),
        ("POLLER_TUNING_GRACE_S", "POLLER_TUNING__GRACE_S"),
        ("POLLER_API_TOKENS_FILE", "POLLER_API__TOKENS_FILE"),
    ],
)
def test_a_variable_that_nearly_names_a_setting_is_refused(
    file: Path, monkeypatch: pytest.MonkeyPatch, variable: str, meant: str
) -> None:
    monkeypatch.setenv(variable, "1")
    assert problems(file, "") == [f"environment {variable}: unknown setting; did you mean {meant}?"]


def test_variables_that_kubernetes_sets_for_a_service_are_left_alone(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in (
        "POLLER_PORT",
        "POLLER_SERVICE_HOST",
        "POLLER_PORT_8080_TCP_ADDR",
        "POLLER_API_SERVICE_PORT",
    ):
        monkeypatch.setenv(name, "tcp://10.0.0.1:8080")
    monkeypatch.setenv("POLLER_CONFIG", str(file))
    assert loaded(file, "") == Settings()


def test_a_variable_that_is_not_json_is_named_without_its_value(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("POLLER_FUNCTIONS", "{geheim")
    monkeypatch.setenv("POLLER_TUNING", "[geheim")
    monkeypatch.setenv("POLLER_LOG__LEVEL", "loud")
    *unread, level = problems(file, "")
    assert [each.partition(":")[0] for each in unread] == [
        "environment POLLER_FUNCTIONS",
        "environment POLLER_TUNING",
    ]
    assert level.startswith("environment POLLER_LOG__LEVEL: log.level: value 'loud'")
    assert "geheim" not in "".join(unread)


def test_a_wrong_option_is_named(file: Path) -> None:
    (line,) = problems(file, "", {"log": {"level": "loud"}})
    assert line == (
        "command line: log.level: value 'loud': not one of the choices; write 'debug', 'info', 'warning' or 'error'"
    )


def test_everything_that_is_wrong_is_reported_at_once(file: Path) -> None:
    text = document(
        regin="eu-west-1",
        listen=8080,
        store="postgres://db",
        default_invoker="Python!",
        api={"tokens": "geheim"},
        functions={"a b": {}, "b": {"timeout_s": 0, "max_concurrency": -1}, "c": 5},
        tuning={"idle_poll_s": "often", "idle_polls": 1},
        on_destination_failure="ignore",
        mappings=[
            {"FunctionName": "orders", "EventSourceArn": QUEUE, "BatchSise": 5},
            mapped(BatchSize=10_001, MaximumRecordAgeInSeconds=5),
            mapped(FunctionName="orders:v2", FilterCriteria={"Filters": [{"Pattern": '{"a": 1}'}]}),
        ],
    )
    assert sorted(problems(file, text)) == sorted(
        [
            "regin: unknown setting; did you mean region?",
            "listen: value 8080: not HOST:PORT; write 127.0.0.1:8080, 0.0.0.0:8080 or [::1]:8080",
            "store: value 'postgres://db': not the URL of a store; write sqlite:///var/lib/poller/state.db, memory://, "
            "dynamodb://TABLE or postgresql://HOST/DATABASE (known schemes: dynamodb, memory, postgresql, sqlite)",
            "default_invoker: value 'Python!': has characters that are not allowed; "
            "write text like ^[a-z][a-z0-9_-]{0,63}$",
            "api.tokens: unknown setting; did you mean tokens_file?",
            "functions.a b: not a function's bare name; write letters, digits, - and _, 64 at most",
            "functions.b.timeout_s: value 0: too small; write more than 0",
            "functions.b.max_concurrency: value -1: too small; write 1 or more",
            "functions.c: value 5: not a mapping; write lines like `name: value` below it",
            "tuning.idle_poll_s: value 'often': not a number; write digits, without unit",
            "tuning.idle_polls: unknown setting; did you mean idle_poll_s?",
            "on_destination_failure: value 'ignore': not one of the choices; write 'keep' or 'drop'",
            "mappings[0].BatchSise: unknown setting; did you mean BatchSize?",
            "mappings[1].BatchSize: value 10001: 1 validation error detected: Value '10001' at 'batchSize' failed to "
            "satisfy constraint: Member must have value less than or equal to 10000; write 1 to 10000",
            "mappings[1].MaximumRecordAgeInSeconds: value 5: MaximumRecordAgeInSeconds must be either -1 (forever) or "
            "between 60 and 604800 (inclusive); write -1 or 60 to 604800",
            "mappings[2].FilterCriteria.Filters[0].Pattern: value '{\"a\": 1}': Invalid filter pattern definition; "
            '"a" must be an object or an array',
        ]
    )


@pytest.mark.parametrize(
    ("sections", "secret"),
    [
        ({"endpoint_url": "http://me:geheim@host"}, "geheim"),
        ({"store": "postgres://me:geheim@host/db"}, "geheim"),
        ({"api": {"token": "geheim"}}, "geheim"),
        ({"endpoint_urls": {"sqs": "geheim://me:geheim@x"}}, "me:geheim"),
        ({"functions": {"a": {"timeout_s": {"token": "geheim"}}}}, "geheim"),
        ({"mappings": [mapped(Tags={"token": ["geheim"]})]}, "geheim"),
    ],
)
def test_no_secret_is_echoed(file: Path, sections: dict[str, Any], secret: str) -> None:
    found = problems(file, document(**sections))
    assert found
    assert all(secret not in line for line in found)


def test_a_hundred_problems_are_reported_and_the_rest_is_counted(file: Path) -> None:
    found = problems(file, document(**{f"setting{number}": 1 for number in range(150)}))
    assert len(found) == 101
    assert found[-1] == "and 50 more; mend these first"


def test_long_values_are_cut(file: Path) -> None:
    (line,) = problems(file, document(region="x" * 5000))
    assert len(line) < 300


@pytest.mark.parametrize(
    ("section", "text"),
    [
        ({"idle_poll_s": 0}, "tuning.idle_poll_s: value 0: out of range; write more than 0, at most 86400"),
        ({"grace_s": 86_401}, "tuning.grace_s: value 86401: out of range; write more than 0, at most 86400"),
        (
            {"heartbeat_s": 4},
            "tuning.heartbeat_s: value 4: more than a third of lease_s; write 3.33333 or less, or a longer lease_s",
        ),
        ({"grace_s": True}, "tuning.grace_s: value true: not a number; write digits, without unit"),
        (
            {"read_records_max": 0},
            "tuning.read_records_max: value 0: out of range; write more than 0, at most 1000000",
        ),
        (
            {"memory_mb": 63},
            "tuning.memory_mb: value 63: out of range; write 64 or more, at most 1000000",
        ),
        (
            {"port_backoff": {"base_s": -1}},
            "tuning.port_backoff.base_s: value -1: out of range; write more than 0, at most 86400",
        ),
        ({"port_backoff": {"base": 1}}, "tuning.port_backoff.base: unknown setting; did you mean base_s?"),
    ],
)
def test_the_rhythm_is_bounded(file: Path, section: dict[str, Any], text: str) -> None:
    assert problems(file, document(tuning=section)) == [text]


@pytest.mark.parametrize(
    ("text", "host", "port", "loopback"),
    [
        ("127.0.0.1:0", "127.0.0.1", 0, True),
        ("127.8.8.8:1", "127.8.8.8", 1, True),
        ("localhost:80", "localhost", 80, True),
        ("[::1]:65535", "::1", 65535, True),
        ("0.0.0.0:8080", "0.0.0.0", 8080, False),
        ("[::]:8080", "::", 8080, False),
        ("poller.local:8080", "poller.local", 8080, False),
    ],
)
def test_addresses_to_listen_at(text: str, host: str, port: int, *, loopback: bool) -> None:
    found = Address.parse(text)
    assert (found, str(found), found.loopback) == (Address(host, port), text, loopback)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "8080",
        ":8080",
        "::1:8080",
        "[::1]",
        "[x]:1",
        "[a:1",
        "a:b",
        "a:65536",
        "a:-1",
        "a:",
        "[]:1",
        "http://a:1",
        "a b:1",
    ],
)
def test_other_texts_are_no_addresses(text: str) -> None:
    with pytest.raises(ValueError, match="; write "):
        Address.parse(text)


@pytest.mark.parametrize(
    ("url", "name"),
    [
        ("sqlite:///var/lib/poller/state.db", "sqlite"),
        ("sqlite:state.db", "sqlite"),
        ("sqlite:///a?synchronous=normal", "sqlite"),
        ("memory://", "memory"),
        ("dynamodb://poller-state", "dynamodb"),
    ],
)
def test_the_scheme_of_the_store_is_its_plug_in(url: str, name: str) -> None:
    assert store_name(url) == name


@pytest.mark.parametrize(
    "url",
    ["", "sqlite", "sqlite://", "sqlite:///", "dynamodb://", "dynamodb://a b", "memory://x", "redis://x"],
)
def test_other_urls_are_no_stores(url: str) -> None:
    with pytest.raises(ValueError, match="; write "):
        store_name(url)


def test_anybody_may_change_things_only_on_loopback(file: Path) -> None:
    api = {"allow_unauthenticated": True}
    for listen in ("127.0.0.1:1", "localhost:1", "[::1]:1"):
        assert loaded(file, document(listen=listen, api=api)).api.allow_unauthenticated
    (line,) = problems(file, document(listen="0.0.0.0:1", api=api))
    assert line.startswith(
        "api.allow_unauthenticated: value true: anybody who reaches 0.0.0.0:1 could change mappings;"
    )


def test_two_mappings_of_one_source_and_qualifier_are_refused(file: Path) -> None:
    arn = "arn:aws:lambda:eu-west-1:111122223333:function:orders"
    (line,) = problems(file, document(mappings=[mapped(), mapped(FunctionName=arn)]))
    assert line.startswith("mappings[1].EventSourceArn: ")
    assert "as mappings[0] does" in line
    different = [mapped(), mapped(FunctionName="orders:1"), mapped(FunctionName="orders:$LATEST")]
    assert len(loaded(file, document(mappings=different)).mappings) == 3


def test_two_mappings_with_one_uuid_are_refused(file: Path) -> None:
    uuid = "0F4B8A5E-8b0c-4a56-9c0e-0d7d6b0c2b11"
    (line,) = problems(
        file, document(mappings=[mapped(UUID=uuid), mapped(FunctionName="b", UUID=uuid.lower())])
    )
    assert line.startswith("mappings[1].UUID: ")
    (mapping,) = daemon_plan(loaded(file, document(mappings=[mapped(UUID=uuid)]))).mappings
    assert mapping.mapping == uuid.lower()


def test_what_becomes_of_undeliverable_batches_has_a_default_and_exceptions(file: Path) -> None:
    mappings = [mapped(), mapped(FunctionName="b", on_destination_failure="keep")]
    plan = daemon_plan(loaded(file, document(on_destination_failure="drop", mappings=mappings)))
    assert [each.discard.on_destination_failure for each in plan.mappings] == [
        OnDestinationFailure.DROP,
        OnDestinationFailure.KEEP,
    ]


def test_a_mapping_passes_settings_to_its_source(file: Path) -> None:
    (mapping,) = daemon_plan(loaded(file, document(mappings=[mapped(source={"a": 1})]))).mappings
    assert mapping.source_settings == {"a": 1}
    assert problems(file, document(mappings=[mapped(source={"arn": "x"})])) == [
        "mappings[0].source.arn: value 'x': the source's ARN has its own place; write it at EventSourceArn"
    ]


def test_a_file_may_ask_for_strictly_serial_work(file: Path) -> None:
    queue = {"FunctionName": "a", "EventSourceArn": QUEUE, "ScalingConfig": {"MaximumConcurrency": 1}}
    (mapping,) = daemon_plan(loaded(file, document(mappings=[queue]))).mappings
    assert mapping.scaling.concurrency_max == 1


@pytest.mark.parametrize(
    ("entry", "text"),
    [
        ({"arn": "orders"}, "not a function's ARN"),
        ({"arn": "arn:aws:lambda:eu-west-1:111122223333:function:a:1"}, "has a qualifier"),
        ({"role": "arn:aws:s3:::b"}, "not a role's ARN"),
    ],
)
def test_a_functions_arns_are_checked(file: Path, entry: dict[str, str], text: str) -> None:
    (line,) = problems(file, document(functions={"orders": entry}))
    assert text in line


def test_a_whole_cloudformation_resource_gets_a_hint(file: Path) -> None:
    found = problems(
        file, document(mappings=[{"Type": "AWS::Lambda::EventSourceMapping", "Properties": mapped()}])
    )
    assert any("write only what stands below its Properties" in line for line in found)


FAILED = "arn:aws:sqs:eu-west-1:111122223333:failed"
RESOURCE = "this is the whole CloudFormation resource; write only what stands below its Properties"


@pytest.mark.parametrize(
    ("given", "place", "remedy"),
    [
        (
            {"DestinationConfig": {"OnFailure": {"Type": "SQS", "Destination": FAILED}}},
            "DestinationConfig.OnFailure.Type",
            "remove it; Type is SAM's, and the ARN at Destination says of which kind the destination is",
        ),
        (
            {"DestinationConfig": {"OnFailure": {"QueueArn": FAILED}}},
            "DestinationConfig.OnFailure.QueueArn",
            "write Destination with the queue's ARN",
        ),
        (
            {"DestinationConfig": {"OnFailure": {"Destination": FAILED}, "Ref": "Failed"}},
            "DestinationConfig.Ref",
            "CloudFormation's Ref is not resolved here; write the value itself",
        ),
        (
            {"Queues": []},
            "Queues",
            "remove this line, which says nothing here; the setting is for message brokers (Amazon MQ)",
        ),
        (
            {"Queues": ["orders"]},
            "Queues",
            "remove the mapping; message brokers (Amazon MQ) are not supported",
        ),
        ({"Topics": None}, "Topics", "remove this line, which says nothing here; the setting is for Kafka"),
        ({"Topics": []}, "Topics", "remove this line, which says nothing here; the setting is for Kafka"),
        ({"Cluster": "arn"}, "Cluster", "remove the mapping; DocumentDB is not supported"),
        ({"Stream": STREAM}, "Stream", "write EventSourceArn; Stream is SAM's name for it"),
        ({"Queue": QUEUE}, "Queue", "write EventSourceArn; Queue is SAM's name for it"),
        ({"LoggingConfig": {"SystemLogLevel": "INFO"}}, "LoggingConfig", "remove it; it is for Kafka only"),
        ({"State": "Enabled"}, "State", "remove it; it is part of Lambda's answers, and no setting"),
        ({"DependsOn": "Role"}, "DependsOn", RESOURCE),
    ],
)
def test_names_from_elsewhere_say_where_they_are_from_and_what_to_do(
    file: Path, given: dict[str, Any], place: str, remedy: str
) -> None:
    (line,) = problems(file, document(mappings=[mapped(**given)]))
    assert line == f"mappings[0].{place}: unknown setting; {remedy}"


@pytest.mark.parametrize(
    ("given", "line"),
    [
        (
            {"FunctionResponseTypes": "ReportBatchItemFailures"},
            "FunctionResponseTypes: value 'ReportBatchItemFailures': not a list; write [ReportBatchItemFailures]",
        ),
        (
            {"BatchSize": {"Ref": "Size"}},
            "BatchSize: CloudFormation's Ref is not resolved here; write the value itself",
        ),
        (
            {"EventSourceArn": {"Fn::GetAtt": ["Orders", "Arn"]}},
            "EventSourceArn: CloudFormation's Fn::GetAtt is not resolved here; write the value itself",
        ),
        (
            {"FilterCriteria": {"Filters": [{"Pattern": {"data": {"a": ["b"]}}}]}},
            "FilterCriteria.Filters[0].Pattern: not a text; write the pattern as JSON text, in quotes",
        ),
    ],
)
def test_values_as_templates_have_them_say_what_to_write(
    file: Path, given: dict[str, Any], line: str
) -> None:
    assert problems(file, document(mappings=[mapped(**given)])) == [f"mappings[0].{line}"]


NAMED = {"Type": "AWS::Lambda::EventSourceMapping", "Properties": mapped()}
BELOW = (
    "this is a CloudFormation resource; write what stands below its Properties as an item below `mappings:`"
)


@pytest.mark.parametrize(
    ("given", "lines"),
    [
        (NAMED, [f"{name}: unknown setting; {BELOW}" for name in ("Properties", "Type")]),
        ({"Orders": NAMED}, [f"Orders: unknown setting; {BELOW}"]),
        (
            {"mappings": [mapped() | {"Orders": NAMED}]},
            [
                "mappings[0].Orders: unknown setting; this is a CloudFormation resource with its name; "
                "write only what stands below its Properties"
            ],
        ),
        (
            {"mappings": [mapped() | {"Properties": mapped()}]},
            [f"mappings[0].Properties: unknown setting; {RESOURCE}"],
        ),
    ],
)
def test_a_resource_of_a_template_gets_a_hint_wherever_it_is_pasted(
    file: Path, given: dict[str, Any], lines: list[str]
) -> None:
    assert problems(file, document(**given)) == lines


def test_a_whole_template_gets_a_hint(file: Path) -> None:
    (line,) = problems(file, document(Resources={"Orders": {"Type": "AWS::Lambda::EventSourceMapping"}}))
    assert line == (
        "resources.Orders: unknown setting; this is a CloudFormation template; "
        "write each mapping's Properties as an item below `mappings:`"
    )


@pytest.mark.parametrize(
    ("given", "lines"),
    [
        (
            {"ProvisionedPollerConfig": {"MinimumPollers": 2, "PollerGroupName": "g"}},
            [
                "ProvisionedPollerConfig.PollerGroupName: value 'g': Unsupported PollerGroupName parameter for given "
                "event source mapping type; remove it; it is for Kafka only"
            ],
        ),
        (
            {"MetricsConfig": {"Metrics": ["EventCount", "ErrorCount", "KafkaMetrics"]}},
            [
                f"MetricsConfig.Metrics: Unsupported metric for given event source mapping type: {metric}; "
                f"write EventCount; {metric} is for Kafka only"
                for metric in ("ErrorCount", "KafkaMetrics")
            ],
        ),
    ],
)
def test_what_is_for_kafka_only_is_refused(file: Path, given: dict[str, Any], lines: list[str]) -> None:
    queue = {"FunctionName": "orders", "EventSourceArn": QUEUE}
    assert problems(file, document(mappings=[queue | given])) == [f"mappings[0].{line}" for line in lines]


def test_sources_that_are_not_supported_say_so(file: Path) -> None:
    (line,) = problems(file, document(mappings=[mapped(Topics=["a"])]))
    assert line == "mappings[0].Topics: unknown setting; remove the mapping; Kafka is not supported"


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("a: 1\nb: 2\na: 3", "line 3, column 1: the key 'a' is there twice; remove one"),
        (
            "a: [1,\n",
            "line 2, column 1: expected the node content, but found '<stream end>' (while parsing a flow node);"
            " close the bracket or brace that is still open",
        ),
        (
            "a: !Sub '${x}'",
            "line 1, column 4: CloudFormation's !Sub is not resolved here; write the value itself",
        ),
        (
            "a:\n  - !GetAtt S.Arn",
            "line 2, column 5: CloudFormation's !GetAtt is not resolved here; write the value itself",
        ),
        (
            "a: !!python/name:os.system",
            "line 1, column 4: the tag !!python/name:os.system is not supported; write the value itself",
        ),
        ("a: &x [*x]", "line 1, column 4: an alias contains itself; write the value out"),
        ("a: *x", "line 1, column 4: found undefined alias 'x'; put a text that begins with * in quotes"),
        ("- a", "holds no settings; write lines like `name: value` at the top level"),
        ("just text", "holds no settings; write lines like `name: value` at the top level"),
        ("1: a", "[1]: its name is not a text; put the name in quotes"),
        ("a: [{b: 1}, {~: 2}]", "a[1][null]: its name is not a text; put the name in quotes"),
        (
            "[" * (DEPTH_MAX + 1),
            f"line 1, column {DEPTH_MAX + 1}: nested deeper than {DEPTH_MAX} levels; flatten it",
        ),
        ('a: "\\UFFFFFFFF"', "an escape like \\U stands for no character; write it out"),
        ('a: "\\uD800"', "line 1, column 4: half a surrogate pair is no text; write the character itself"),
        ("a: \x00", "not YAML: special characters are not allowed; save the file as plain text"),
    ],
)
def test_wrong_yaml_is_reported_with_its_place(text: str, line: str) -> None:
    with pytest.raises(InvalidConfiguration) as caught:
        parse_document(text, name="f")
    assert caught.value.problems == [f"f: {line}"]


def test_aliases_cannot_blow_a_document_up() -> None:
    levels = [f"a{n}: &a{n} [{','.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 8)]
    with pytest.raises(InvalidConfiguration, match="more than 1000000 values, aliases included"):
        parse_document("\n".join(["a0: &a0 [1,1,1,1,1,1,1,1,1,1]", *levels]), name="f")


def test_yaml_has_no_surprises() -> None:
    text = "a: on\nb: 012\nc: 12:30\nd: 2026-01-01\ne: 1_000\nf: ~\ng: -1\nh: 1.5\ni: true\nj: 1e3\nk: NO"
    assert parse_document(text, name="f") == {
        "a": "on",
        "b": "012",
        "c": "12:30",
        "d": "2026-01-01",
        "e": "1_000",
        "f": None,
        "g": -1,
        "h": 1.5,
        "i": True,
        "j": 1000.0,
        "k": "NO",
    }


def test_merged_keys_may_be_written_over() -> None:
    text = "a: &a {x: 1, y: 2}\nb: {<<: *a, x: 3}\nc: *a"
    assert parse_document(text, name="f") == {
        "a": {"x": 1, "y": 2},
        "b": {"x": 3, "y": 2},
        "c": {"x": 1, "y": 2},
    }


def test_files_that_cannot_be_read_are_reported(tmp_path: Path) -> None:
    latin = tmp_path / "latin.yaml"
    latin.write_bytes("a: ü".encode("latin-1"))
    large = tmp_path / "large.yaml"
    large.write_bytes(b"#" * (FILE_BYTES_MAX + 1))
    for path, text in [
        (tmp_path / "none.yaml", "no such file; give the path of a file with --config"),
        (tmp_path, "is a directory; give the path of a file with --config"),
        (latin, "byte 3 is not UTF-8; save the file as UTF-8"),
        (large, f"larger than {FILE_BYTES_MAX} bytes; is it the right file?"),
    ]:
        with pytest.raises(InvalidConfiguration, match=re.escape(f"{path}: {text}")):
            read_document(path)


def test_a_byte_order_mark_is_no_trouble(tmp_path: Path) -> None:
    path = tmp_path / "bom.yaml"
    path.write_bytes(b"\xef\xbb\xbfregion: eu-west-1")
    assert load(path).region == "eu-west-1"


def test_the_example_loads() -> None:
    plan = daemon_plan(load(ROOT / "examples" / "poller.yaml"))
    assert [each.kind.value for each in plan.mappings] == ["kinesis", "dynamodb", "sqs"]


def test_every_example_of_the_documentation_loads(file: Path) -> None:
    text = (ROOT / "docs" / "use" / "configuration.md").read_text()
    examples = re.findall(r"```yaml\n(.*?)```", text, re.DOTALL)
    assert len(examples) >= 3
    for each in examples:
        daemon_plan(loaded(file, each))


SECTIONS = {"api", "check", "log", "resources", "tracing", "tuning"}


def test_every_setting_is_documented() -> None:
    text = (ROOT / "docs" / "use" / "configuration.md").read_text()
    nested = {
        name if not inner else f"{name}.{inner}"
        for name in Settings.model_fields
        for inner in (known_names(Settings, (name,)) if name in SECTIONS else [""])
    }
    entries = {f"functions.NAME.{name}" for name in FunctionEntry.model_fields}
    fields = set(known_names(Settings, ("mappings", 0)))
    assert [name for name in sorted(nested | entries | fields) if f"`{name}`" not in text] == []


scalars = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text()
    | st.sampled_from([STREAM, QUEUE, "orders"])
)
names = st.sampled_from([*Settings.model_fields, *known_names(Settings, ("mappings", 0))]) | st.text(
    max_size=5
)
values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(names, inner, max_size=4),
    max_leaves=20,
)


def told(file: Path, content: bytes) -> list[str]:
    """Loads and plans, or says what is wrong; anything else is a bug."""
    file.write_bytes(content)
    try:
        daemon_plan(load(file))
    except InvalidConfiguration as error:
        return error.problems or ["nothing was told"]
    return []


def well_or_invalid(file: Path, content: bytes) -> None:
    """Every line that is told names the file, and is one line."""
    lines = told(file, content)
    assert [line for line in lines if not line.startswith(f"{file}: ")] == []
    assert [line for line in lines if not line.isprintable()] == []


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(st.dictionaries(names, values, max_size=6))
@example({"[key]": 1})
@example({"functions": {"[key]": 1, " ": {}}})
@example({"\xad": {0.0: None}})
def test_any_document_loads_or_is_reported_wrong(file: Path, sections: dict[str, Any]) -> None:
    well_or_invalid(file, yaml.safe_dump(sections, allow_unicode=True).encode("utf-8", "surrogatepass"))


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(st.lists(st.sampled_from([mapped(), mapped(EventSourceArn=QUEUE)]), max_size=3), names, values)
def test_any_mapping_loads_or_is_reported_wrong(
    file: Path, given_mappings: list[dict[str, Any]], name: str, value: Any
) -> None:
    text = yaml.safe_dump({"mappings": [each | {name: value} for each in given_mappings]}, allow_unicode=True)
    well_or_invalid(file, text.encode("utf-8", "surrogatepass"))


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(
    st.binary(max_size=300) | st.text(alphabet="a:-[]{}&*!?|>'\"%@`#, \n\t<", max_size=200).map(str.encode)
)
@example(b"? \n")
@example(b"a: 'x\n")
@example(b"a: !")
@example(b"%TAG ! x\n---\na")
@example(b"<<: 1")
@example(b"a: {<<: [1]}")
def test_any_bytes_load_or_are_reported_wrong(file: Path, content: bytes) -> None:
    well_or_invalid(file, content)


@pytest.mark.parametrize(
    ("arn", "field", "fits"),
    [
        ("arn:aws:sqs:eu-west-1:111122223333:mails", "extend_visibility", True),
        ("arn:aws:sqs:eu-west-1:111122223333:mails.fifo", "extend_visibility", True),
        ("arn:aws:sqs:eu-west-1:111122223333:mails.fifo", "one_group_per_batch", True),
        ("arn:aws:sqs:eu-west-1:111122223333:mails.fifo", "group_aware_failures", True),
        ("arn:aws:sqs:eu-west-1:111122223333:mails", "one_group_per_batch", False),
        ("arn:aws:sqs:eu-west-1:111122223333:mails", "group_aware_failures", False),
        ("arn:aws:kinesis:eu-west-1:111122223333:stream/s", "extend_visibility", False),
        ("arn:aws:kinesis:eu-west-1:111122223333:stream/s", "shared_reads", True),
        ("arn:aws:sqs:eu-west-1:111122223333:mails", "shared_reads", False),
    ],
)
def test_settings_of_one_kind_of_source_reach_the_plan_and_are_refused_elsewhere(
    tmp_path: Path, arn: str, field: str, fits: bool
) -> None:
    start = "" if ":sqs:" in arn else "\n    StartingPosition: LATEST"
    path = tmp_path / "poller.yaml"
    path.write_text(f"mappings:\n  - FunctionName: f\n    EventSourceArn: {arn}\n    {field}: true{start}\n")
    if fits:
        (mapping,) = daemon_plan(load(path, {})).mappings
        assert getattr(mapping.queue if ":sqs:" in arn else mapping.stream, field) is True
    else:
        with pytest.raises(InvalidConfiguration, match=field):
            load(path, {})
