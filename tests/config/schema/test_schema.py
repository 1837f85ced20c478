"""The JSON Schema of the configuration file: it takes what the loader takes, and refuses what the loader refuses for its form."""

import copy
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema_rs
import pytest
from typer.testing import CliRunner

from adapters.invokers import http, lambda_api, process, python
from poller.cli import application
from poller.config.members import TABLE
from poller.config.schema.document import DIALECT, described
from poller.config.schema.mapping_schema import at
from poller.config.schema.texts import EXAMPLES, FUNCTIONS, IDENTITIES, MAPPINGS, SETTINGS
from poller.config.settings import Settings
from poller.config.yaml_files import parse_document
from poller.plugins import Plugin
from tests.config.schema.validating import document, refused, seen
from tests.config.test_documentation import YAML, configurations
from tests.config.test_mistakes import sound
from tests.config.test_settings import DESIGNED

ROOT = Path(__file__).parents[3]
STREAM = "arn:aws:kinesis:eu-west-1:111122223333:stream/orders"
TABLE_STREAM = "arn:aws:dynamodb:eu-west-1:111122223333:table/orders/stream/2026-01-01T00:00:00.000"
QUEUE = "arn:aws:sqs:eu-west-1:111122223333:orders"
FAILED = "arn:aws:sqs:eu-west-1:111122223333:failed"


@pytest.fixture(autouse=True)
def _no_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in os.environ:
        if name.upper().startswith("POLLER_"):
            monkeypatch.delenv(name)


INVOKE_CONFIG = {
    "identity": "billing",
    "MaximumRetryAttempts": 1,
    "MaximumEventAgeInSeconds": 3600,
    "DestinationConfig": {
        "OnSuccess": {"Type": "SQS", "Destination": "arn:aws:sqs:eu-west-1:111122223333:orders-done"},
        "OnFailure": {"Type": "SNS", "Destination": "arn:aws:sns:eu-west-1:111122223333:orders-failed"},
    },
}


def full() -> dict[str, Any]:
    """A configuration that has every setting."""
    return {
        "region": "eu-west-1",
        "endpoint_url": "http://127.0.0.1:4566",
        "endpoint_urls": {"sqs": "http://127.0.0.1:9324"},
        "listen": "127.0.0.1:8080",
        "store": "sqlite:state.db",
        "api": {
            "access_keys_file": "keys.yaml",
            "tokens_file": "tokens.yaml",
            "reads": "open",
            "show_payloads": True,
            "page": False,
            "allow_unauthenticated": False,
            "allowed_hosts": ["poller.example.com"],
        },
        "identities": {
            "billing": {
                "role_arn": "arn:aws:iam::444455556666:role/poller",
                "external_id": "x-1",
                "session_name": "poller",
                "profile": "production",
                "region": "eu-west-1",
                "endpoint_url": "http://127.0.0.1:4566",
            }
        },
        "default_invoker": "lambda",
        "functions": {
            "orders": {
                "invoker": "python",
                "handler": "shop.handlers:orders",
                "isolation": "process",
                "processes": 2,
                "code": str(ROOT),
                "reload": True,
                "log_level": "info",
                "memory_mb": 128,
                "timeout_s": 30,
                "max_concurrency": 2,
                "arn": "arn:aws:lambda:eu-west-1:111122223333:function:orders",
                "role": "arn:aws:iam::111122223333:role/orders",
                "rate": {"invocations_per_s": 20, "records_per_s": 100},
                "breaker": {"failures": 0.5, "window_s": 60, "open_s": 30},
                "event_invoke_config": copy.deepcopy(INVOKE_CONFIG),
                "event_invoke_configs": {"live": copy.deepcopy(INVOKE_CONFIG)},
                "dead_letter": "arn:aws:sqs:eu-west-1:111122223333:orders-dead",
                "versions": {
                    "1": {"description": "first"},
                    "2": {"invoker": "process", "command": ["true"], "timeout_s": 3},
                },
                "aliases": {"live": {"version": "1", "weights": {"2": 0.5}, "description": "all"}},
            },
            "threads": {"invoker": "python", "handler": "shop.handlers:orders", "workers": 2},
            "web": {
                "invoker": "http",
                "url": "http://127.0.0.1/",
                "headers": {"Authorization": "Bearer x"},
                "cloud_events": "batched",
                "signature": {"secret_file": "/etc/poller/webhooks"},
                "style": "plain",
                "unix_socket": None,
                "connect_timeout_s": 5,
                "answer_bytes_max": 1024,
                "throttled_statuses": [429],
                "unreachable_statuses": [502],
                "on_no_answer": "unreachable",
                "ca_file": None,
                "client_cert_file": None,
                "client_key_file": None,
                "verify_tls": True,
            },
            "program": {
                "invoker": "process",
                "command": ["cat"],
                "env": {"LEVEL": "INFO"},
                "cwd": "/tmp",
                "handler": "app.handler",
                "processes": 4,
                "init_timeout_s": 10,
                "stop_grace_s": 2,
                "memory_mb": 128,
            },
            "cloud": {"invoker": "lambda", "qualifier": "live", "region": "eu-west-1"},
            "isolated": {
                "invoker": "lambda",
                "identity": "billing",
                "tenant_id": "blue",
                "tenant_id_from": "message_group",
                "client_context": {"stage": "live"},
            },
            "default": {"qualifier": "live"},
        },
        "mappings": [
            {
                "FunctionName": "orders:live",
                "EventSourceArn": STREAM,
                "Enabled": True,
                "BatchSize": 100,
                "MaximumBatchingWindowInSeconds": 1,
                "ParallelizationFactor": 2,
                "StartingPosition": "AT_TIMESTAMP",
                "StartingPositionTimestamp": "2026-01-31T12:00:00Z",
                "MaximumRecordAgeInSeconds": 3600,
                "MaximumRetryAttempts": 5,
                "BisectBatchOnFunctionError": True,
                "TumblingWindowInSeconds": 0,
                "DestinationConfig": {"OnFailure": {"Destination": FAILED}},
                "FunctionResponseTypes": ["ReportBatchItemFailures"],
                "FilterCriteria": {"Filters": [{"Pattern": '{"data": {"n": [1]}}'}]},
                "MetricsConfig": {"Metrics": ["EventCount"]},
                "KMSKeyArn": "arn:aws:kms:eu-west-1:111122223333:key/x",
                "Tags": {"team": "shop"},
                "UUID": "72f76b29-822e-46be-8352-9e75d20ee860",
                "on_destination_failure": "keep",
                "include_payload": True,
                "payload_prefix": "s3://orders-failed/events",
                "destination_identity": "billing",
                "shared_reads": False,
                "source": {"identity": "billing"},
            },
            {"FunctionName": "web", "EventSourceArn": TABLE_STREAM, "StartingPosition": "LATEST"},
            {
                "FunctionName": "web",
                "EventSourceArn": QUEUE,
                "BatchSize": 10,
                "ScalingConfig": {"MaximumConcurrency": 5},
                "extend_visibility": True,
                "retry_backoff": {"base_s": 10, "factor": 2, "cap_s": 900},
            },
            {
                "FunctionName": "cloud",
                "EventSourceArn": QUEUE,
                "ProvisionedPollerConfig": {"MinimumPollers": 2, "MaximumPollers": 10},
                "KmsKeyArn": "",
                "Tags": [{"Key": "team", "Value": "shop"}],
            },
            {
                "FunctionName": "cloud",
                "EventSourceArn": f"{QUEUE}.fifo",
                "one_group_per_batch": True,
                "group_aware_failures": True,
            },
        ],
        "on_destination_failure": "drop",
        "tuning": {
            "idle_poll_s": 1,
            "discovery_s": 30,
            "checkpoint_s": 1,
            "grace_s": 30,
            "read_records_max": 100,
            "memory_mb": 128,
            "look_ahead_records_max": 100,
            "port_backoff": {"base_s": 0.5, "cap_s": 30},
            "async_retry_s": [60, 120],
            "lease_s": 10,
            "heartbeat_s": 1,
        },
        "log": {"level": "INFO", "format": "json"},
        "tracing": {"enabled": True},
        "resources": {
            "enabled": True,
            "namespace": "pipelines",
            "selector": "team=blue",
            "kubeconfig": "/etc/poller/kubeconfig",
            "context": "blue",
            "forget_namespace": "6ba7b810-9dad-11d1-80b4-00c04fd430c8",
        },
        "check": {"lambda_consumers": "warn"},
        "worker": "poller-0",
    }


type Place = tuple[str | int, ...]


def places(value: Any, at_: Place = ()) -> Iterator[Place]:
    """The path of every value inside a configuration."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for name, inner in items:
        yield (*at_, name)
        yield from places(inner, (*at_, name))


def changed(place: Place, value: object) -> dict[str, Any]:
    """The part of the full configuration at a place, with one value in the place of another."""
    found = part_at(place)
    if place[0] == "mappings" and len(place) > 1:
        place = ("mappings", 0, *place[2:])
    node: Any = found
    for part in place[:-1]:
        node = node[part]
    node[place[-1]] = copy.deepcopy(value)
    return found


def part_at(place: Place) -> dict[str, Any]:
    """The part of the full configuration that a place is in, so that reading it takes less time."""
    match place:
        case ("functions" | "mappings" as table, entry, *_):
            inner = full()[table][entry]
            named = {"identities": full()["identities"]}
            return {**named, table: {entry: inner} if table == "functions" else [inner]}
        case (str(name), *_) if name in full():
            return {name: full()[name]}
        case _:
            return {}


def spelled(place: Place) -> str:
    return ".".join(str(each) for each in place)


STRANGERS: tuple[object, ...] = (
    None,
    True,
    "yes",
    "zzz",
    "",
    0,
    -2,
    3,
    2.5,
    10**9,
    [],
    ["zzz"],
    {"zzz": 1},
)
"""Values of every type, in and out of ranges, that are none of the choices."""

ONLY_THE_LOADER = {
    "endpoint_url": "what a host's name may be",
    "endpoint_urls.sqs": "what a host's name may be",
    "listen": "what a host's name may be",
    "store": "what stands behind the scheme",
    "api.access_keys_file": "whether the file can be used",
    "api.tokens_file": "whether the file can be used",
    "api.allow_unauthenticated": "whether listen is loopback",
    "api.allowed_hosts": "what a host's name may be",
    "api.allowed_hosts.0": "what a host's name may be",
    "functions": "a mapping's function that is not there",
    "identities": "whether there is what others name",
    "identities.billing": "whether it says something",
    "identities.billing.role_arn": "external_id without it",
    "identities.billing.endpoint_url": "what a host's name may be",
    "functions.isolated.identity": "whether there is such an identity",
    "mappings.0.destination_identity": "whether there is such an identity",
    "mappings.0.source.identity": "whether there is such an identity",
    "functions.orders.handler": "the form of a handler",
    "functions.orders.event_invoke_config.identity": "whether there is such an identity",
    "functions.orders.event_invoke_configs.live.identity": "whether there is such an identity",
    "functions.orders.event_invoke_config.DestinationConfig.OnSuccess.Destination": "the form of a destination",
    "functions.orders.event_invoke_config.DestinationConfig.OnFailure.Destination": "the form of a destination",
    "functions.orders.event_invoke_configs.live.DestinationConfig.OnSuccess.Destination": "the form of a destination",
    "functions.orders.event_invoke_configs.live.DestinationConfig.OnFailure.Destination": "the form of a destination",
    "functions.orders.dead_letter": "the form of a destination",
    "functions.threads.handler": "the form of a handler",
    "functions.orders.isolation": "processes without isolation: process",
    "functions.orders.rate": "that it limits nothing",
    "functions.orders.versions.2.command": "that a program comes first",
    "functions.orders.versions.2.command.0": "that a program comes first",
    "functions.orders.aliases.live.version": "whether there is such a version",
    "functions.web.url": "the form of a URL",
    "functions.web.headers": "the form of headers",
    "functions.web.unix_socket": "the form of a path",
    "functions.web.client_cert_file": "that url begins with https",
    "functions.web.client_key_file": "that there is a certificate",
    "functions.program.command.0": "that a program comes first",
    "functions.program.command": "that a program comes first",
    "mappings": "two mappings of one source and function",
    "mappings.0.StartingPosition": "a timestamp without AT_TIMESTAMP",
    "mappings.0.StartingPositionTimestamp": "whether it is a moment, in the past",
    "mappings.0.MaximumRecordAgeInSeconds": "the gap in its range",
    "mappings.0.TumblingWindowInSeconds": "a window beside filters or lanes",
    "mappings.0.DestinationConfig": "what include_payload needs",
    "mappings.0.DestinationConfig.OnFailure": "what include_payload needs",
    "mappings.0.DestinationConfig.OnFailure.Destination": "the form of a destination",
    "mappings.0.FilterCriteria.Filters.0.Pattern": "whether the pattern is right",
    "mappings.0.MetricsConfig.Metrics": "metrics of other sources",
    "mappings.0.UUID": "the form of a UUID",
    "mappings.0.include_payload": "payload_prefix without it",
    "mappings.0.payload_prefix": "the form of a prefix",
    "mappings.2.BatchSize": "a batch above 10 needs a window",
    "mappings.3.ProvisionedPollerConfig": "that one of two is there",
    "mappings.2.retry_backoff.base_s": "that cap_s is not below base_s",
    "mappings.2.retry_backoff.cap_s": "that cap_s is not below base_s",
    "mappings.3.ProvisionedPollerConfig.MinimumPollers": "that it is not above MaximumPollers",
    "mappings.3.ProvisionedPollerConfig.MaximumPollers": "that it is not below MinimumPollers",
    "tuning.lease_s": "that three heartbeats fit into it",
    "tuning.heartbeat_s": "a third of lease_s",
}
"""What the schema lets pass although the loader refuses it, and why: forms of texts, files, and rules between settings."""
ONLY_THE_SCHEMA = ("", True, 1, 0, "yes")
"""Values that plug-ins' flags and numbers take for others, or that say nothing. The schema refuses some of them."""
DROPPED = "mappings.3.Tags.0.Key"
"""A tag without a text for its key is left out by the loader."""


def test_a_configuration_with_every_setting_is_right_to_both(tmp_path: Path) -> None:
    assert refused(full(), tmp_path / "poller.yaml") == []
    assert seen(full()) == []


def test_the_full_configuration_has_every_setting() -> None:
    have = {spelled(tuple(each for each in place if isinstance(each, str))) for place in places(full())}
    want = set(SETTINGS) | {f"mappings.{path.replace('[]', '')}" for path in MAPPINGS}
    refused_ones = {
        "mappings.DestinationConfig.OnSuccess",
        "mappings.DestinationConfig.OnSuccess.Destination",
        "mappings.ProvisionedPollerConfig.PollerGroupName",
    }
    assert want - have == refused_ones
    assert {f"functions.orders.{path}" for path in FUNCTIONS} <= have


@pytest.mark.parametrize(
    "plugin", [http.plugin, lambda_api.plugin, process.plugin, python.plugin], ids=lambda each: each.name
)
def test_the_full_configuration_has_every_setting_of_each_invoker(plugin: Plugin[Any, Any]) -> None:
    given = [each for each in full()["functions"].values() if each.get("invoker", "lambda") == plugin.name]
    by_the_daemon = {"function", "max_concurrency", "function_version"}
    assert set(plugin.settings.model_fields) - by_the_daemon <= {name for each in given for name in each}


@pytest.mark.parametrize("place", [pytest.param(each, id=spelled(each)) for each in places(full())])
def test_what_the_loader_refuses_for_its_form_the_schema_refuses_too(place: Place, tmp_path: Path) -> None:
    unseen, overseen = [], []
    for value in STRANGERS:
        configuration = changed(place, value)
        problems = refused(configuration, tmp_path / "poller.yaml")
        errors = seen(configuration)
        if problems and not errors:
            unseen.append((value, problems[0].partition(": ")[2]))
        if errors and not problems:
            overseen.append((value, errors[0]))
    if spelled(place) not in ONLY_THE_LOADER:
        assert unseen == []
    if spelled(place) != DROPPED:
        assert [each for each in overseen if each[0] not in ONLY_THE_SCHEMA] == []


def names() -> Iterator[Place]:
    """Every table of a configuration whose names are settings."""
    free = ("functions", "identities", "endpoint_urls", "headers", "env", "client_context", "Tags", "source")
    for place in ((), *places(full())):
        node: Any = full()
        for part in place:
            node = node[part]
        if isinstance(node, dict) and (not place or place[-1] not in free):
            yield place


@pytest.mark.parametrize("place", [pytest.param(each, id=spelled(each) or "file") for each in names()])
def test_an_unknown_name_is_refused_by_both(place: Place, tmp_path: Path) -> None:
    configuration = changed((*place, "zzz"), "x")
    assert refused(configuration, tmp_path / "poller.yaml")
    assert seen(configuration)


@pytest.mark.parametrize(
    ("text", "right"),
    [
        ("{functions: {a: {qualifier: live}}}", True),
        ("{functions: {a: {handler: a.b}}}", False),
        ("{default_invoker: python, functions: {a: {handler: a.b}}}", True),
        ("{default_invoker: python, functions: {a: {qualifier: live}}}", False),
        ("{default_invoker: python, functions: {a: {invoker: lambda, qualifier: live}}}", True),
        ("{functions: {a: {invoker: null, qualifier: live}}}", True),
        ("{functions: {a: {invoker: http}}}", False),
        ("{functions: {a: {invoker: pyton, handler: a.b}}}", False),
        ("{default_invoker: pyton}", False),
        ("{functions: {a.b: {}}}", False),
        ("{functions: {a: {timeout_s: '30'}}}", True),
        ("{functions: {a: {timeout_s: 30 s}}}", False),
        ("{log: {level: Warning}}", True),
        ("{log: {format: JSON}}", False),
        ("{store: 'postgres://x'}", False),
        ("{listen: 8080}", False),
        ("{}", True),
    ],
)
def test_settings_of_a_function_are_those_of_its_invoker(text: str, right: bool, tmp_path: Path) -> None:
    configuration = parse_document(text, name="example")
    assert (seen(configuration) == []) is right
    assert (refused(configuration, tmp_path / "poller.yaml") == []) is right


_STREAMS = {"FunctionName": "a", "EventSourceArn": STREAM, "StartingPosition": "LATEST"}
_QUEUES = {"FunctionName": "a", "EventSourceArn": QUEUE}
_FIFO = {"FunctionName": "a", "EventSourceArn": f"{QUEUE}.fifo"}


@pytest.mark.parametrize(
    ("mapping", "right"),
    [
        ({**_STREAMS, "BatchSize": 10_000}, True),
        ({**_STREAMS, "BatchSize": 10_001}, False),
        ({**_STREAMS, "ScalingConfig": {"MaximumConcurrency": None}}, True),
        ({**_STREAMS, "extend_visibility": True}, False),
        ({**_STREAMS, "group_aware_failures": True}, False),
        ({**_STREAMS, "shared_reads": False}, True),
        ({**_QUEUES, "shared_reads": False}, False),
        ({"FunctionName": "a", "EventSourceArn": STREAM}, False),
        ({**_STREAMS, "EventSourceArn": TABLE_STREAM, "StartingPosition": "AT_TIMESTAMP"}, False),
        ({**_STREAMS, "EventSourceArn": f"{STREAM}/consumer/c:1"}, True),
        ({**_QUEUES, "StartingPosition": "LATEST"}, False),
        ({**_QUEUES, "ParallelizationFactor": 2}, False),
        ({**_QUEUES, "MaximumRetryAttempts": None}, True),
        ({**_QUEUES, "one_group_per_batch": True}, False),
        ({**_QUEUES, "BatchSize": 20, "MaximumBatchingWindowInSeconds": 1}, True),
        ({**_FIFO, "BatchSize": 11}, False),
        ({**_FIFO, "MaximumBatchingWindowInSeconds": 1}, False),
        ({**_FIFO, "ScalingConfig": {"MaximumConcurrency": 1}}, True),
        ({**_FIFO, "ScalingConfig": {"MaximumConcurrency": 0}}, False),
        ({"FunctionName": "a b", "EventSourceArn": QUEUE}, False),
        ({"FunctionName": "111122223333:function:a:live", "EventSourceArn": QUEUE}, True),
        ({"FunctionName": "a"}, False),
        ({"EventSourceArn": QUEUE}, False),
        ({"FunctionName": "a", "EventSourceArn": "arn:aws:sns:eu-west-1:111122223333:topic"}, False),
        ({"FunctionName": "a", "EventSourceArn": "arn:aws:dynamodb:eu-west-1:1:table/orders"}, False),
        ({**_QUEUES, "source": {"arn": QUEUE}}, False),
        ({**_QUEUES, "FunctionResponseTypes": ["ReportBatchItemFailure"]}, False),
        ({**_QUEUES, "BatchSize": "10"}, True),
        ({**_QUEUES, "Type": "SQS"}, False),
    ],
)
def test_a_mapping_is_judged_by_its_source(mapping: dict[str, Any], right: bool, tmp_path: Path) -> None:
    configuration = {"store": "memory://", "mappings": [mapping]}
    assert (seen(configuration) == []) is right
    assert (refused(configuration, tmp_path / "poller.yaml") == []) is right


@pytest.mark.parametrize("text", [text for _, text in YAML], ids=[name for name, _ in YAML])
def test_an_example_of_the_documentation_is_right(text: str) -> None:
    configured = configurations(parse_document(text, name="example"))
    assert configured is None or seen(configured) == []


FILES = [
    each
    for folder in ("examples", "benchmarks", "tests", "deploy")
    for pattern in ("*.yaml", "*.yml")
    for each in sorted((ROOT / folder).rglob(pattern))
    if "node_modules" not in each.parts and "mappings:" in each.read_text()
]


@pytest.mark.parametrize("path", FILES, ids=[str(each.relative_to(ROOT)) for each in FILES])
def test_a_configuration_of_the_repository_is_right(path: Path, tmp_path: Path) -> None:
    configuration = parse_document(path.read_text(), name=str(path))
    if set(configuration) <= set(Settings.model_fields) and not refused(configuration, tmp_path / "p.yaml"):
        assert seen(configuration) == []


def test_the_configurations_of_other_tests_are_right() -> None:
    for configuration in (sound(), parse_document(DESIGNED, name="designed")):
        assert seen(configuration) == []


def test_every_setting_has_a_description() -> None:
    bare = {path for path, node in described(document()) if not node.get("description")}
    items = document()["properties"]["mappings"]["items"]
    bare |= {f"mappings.{path}" for path, node in described(items) if not node.get("description")}
    for name, entry in document()["$defs"].items():
        bare |= {f"{name}.{path}" for path, node in described(entry) if not node.get("description")}
    assert bare - {"mappings.KmsKeyArn"} == set()


def test_every_text_is_about_a_setting_that_exists() -> None:
    items = document()["properties"]["mappings"]["items"]
    entry = document()["properties"]["functions"]["additionalProperties"]
    identity = document()["properties"]["identities"]["additionalProperties"]
    known = {
        *(path for path in SETTINGS if at(document(), path)),
        *(f"mappings.{path}" for path in MAPPINGS if at(items, path)),
        *(f"functions.NAME.{path}" for path in FUNCTIONS if at(entry, path)),
        *(f"identities.NAME.{path}" for path in IDENTITIES if at(identity, path)),
    }
    assert known == {
        *SETTINGS,
        *(f"mappings.{m}" for m in MAPPINGS),
        *(f"functions.NAME.{f}" for f in FUNCTIONS),
        *(f"identities.NAME.{i}" for i in IDENTITIES),
    }
    assert set(EXAMPLES) <= known


def test_every_member_of_the_table_that_a_file_may_have_is_there() -> None:
    items = document()["properties"]["mappings"]["items"]
    absent = {each.path for each in TABLE if each.requests and at(items, each.path) is None}
    assert absent == {each.path for each in TABLE if each.top and not each.sources and each.requests}


def test_an_example_of_the_schema_is_right_to_the_schema() -> None:
    for path, node in described(document()):
        for each in node.get("examples", ()):
            inner = {name: value for name, value in node.items() if name != "$defs"}
            assert jsonschema_rs.is_valid(inner, each), path


def test_the_command_prints_the_schema() -> None:
    result = CliRunner().invoke(application([]), ["schema"])
    assert result.exit_code == 0
    printed = parse_document(result.stdout, name="schema")
    assert printed == document()
    assert printed["$schema"] == DIALECT
    jsonschema_rs.meta.validate(printed)
