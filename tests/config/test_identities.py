"""Identities are written once and named where AWS is called; what is wrong with them is said before a start."""

import json
from pathlib import Path
from typing import Any

import pytest

from poller.commands.check_live import CheckResult
from poller.commands.run.command import WAIT_FOR_RESTART
from poller.commands.shared import LoadablePlugins, environment
from poller.config.daemon_plan import daemon_plan
from poller.config.loader import examine, load
from poller.config.plugin_specs import destination_of, function_of, source_of, store_of
from poller.domain.findings import Finding, Severity
from poller.plugins import AwsIdentity

ROLE = "arn:aws:iam::444455556666:role/poller"
STREAM = "arn:aws:kinesis:eu-west-1:444455556666:stream/orders"
QUEUE = "arn:aws:sqs:eu-west-1:444455556666:orders"
FAILED = "arn:aws:sqs:eu-west-1:444455556666:failed"
REGISTRY = LoadablePlugins()
UNKNOWN = "identity 'ops' is not below identities"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "poller.yaml"


def document(**changed: Any) -> dict[str, Any]:
    """A configuration that names an identity at each place that takes one."""
    mapping = {
        "FunctionName": "orders",
        "EventSourceArn": STREAM,
        "StartingPosition": "LATEST",
        "DestinationConfig": {"OnFailure": {"Destination": FAILED}},
        "source": {"identity": "billing"},
        "destination_identity": "billing",
    }
    return {
        "store": "dynamodb://poller-state?identity=billing",
        "identities": {"billing": {"role_arn": ROLE, "external_id": "x-1"}},
        "functions": {"orders": {"identity": "billing"}},
        "mappings": [mapping],
        **changed,
    }


def problems(file: Path, given: dict[str, Any]) -> list[str]:
    """What keeps a daemon from starting with this document, without the file's name."""
    file.write_text(json.dumps(given))
    return [line.removeprefix(f"{file}: ") for line in examine(file, {}, REGISTRY).problems]


def mapped(**changed: Any) -> dict[str, Any]:
    """The configuration with another mapping."""
    given = document()
    return {**given, "mappings": [{**given["mappings"][0], **changed}]}


def test_source_destination_function_and_store_get_the_identity_that_is_named_there(file: Path) -> None:
    assert problems(file, document()) == []
    settings = load(file)
    plan = daemon_plan(settings)
    (mapping,) = plan.mappings
    parts = [
        source_of(mapping),
        destination_of(mapping),
        function_of(plan.functions["orders"]),
        store_of(plan),
    ]
    for part in parts:
        assert part is not None
        model = REGISTRY.plugin(part.kind, part.name).settings
        assert getattr(model.model_validate(part.settings(model)), "identity") == "billing", part.kind  # noqa: B009
    known = environment(settings).identities
    assert known == {"billing": AwsIdentity(name="billing", role_arn=ROLE, external_id="x-1")}
    assert "x-1" not in repr(known)


@pytest.mark.parametrize(
    ("given", "lines"),
    [
        (
            mapped(source={"identity": "ops"}),
            [f"mappings[0].source.identity: value 'ops': {UNKNOWN}; write billing"],
        ),
        (
            mapped(destination_identity="ops"),
            [f"mappings[0].destination_identity: value 'ops': {UNKNOWN}; write billing"],
        ),
        (
            document(functions={"orders": {"identity": "ops"}}),
            [f"functions.orders.identity: value 'ops': {UNKNOWN}; write billing"],
        ),
        (
            mapped(EventSourceArn=QUEUE, StartingPosition=None, DestinationConfig=None),
            [
                "mappings[0].destination_identity: value 'billing': is for streams only: a queue's mapping has no on-failure destination; "
                "remove it: the queue's dead-letter queue gets the messages whole"
            ],
        ),
        (
            mapped(DestinationConfig=None),
            [
                "mappings[0].destination_identity: value 'billing': there is no on-failure destination; add DestinationConfig, or remove it"
            ],
        ),
        (
            mapped(DestinationConfig={"OnFailure": {"Destination": "http://127.0.0.1/failed"}}),
            [
                "mappings[0].destination_identity: value 'billing': has no effect: the plug-in http calls no service of AWS; remove it"
            ],
        ),
    ],
    ids=["source", "destination", "function", "queue", "no destination", "a destination that is not of AWS"],
)
def test_an_identity_that_is_not_there_or_not_used_is_refused(
    file: Path, given: dict[str, Any], lines: list[str]
) -> None:
    assert problems(file, given) == lines


def test_an_identity_of_a_store_is_looked_up_too(file: Path) -> None:
    (line,) = problems(file, document(store="dynamodb://poller-state?identity=ops"))
    assert line.startswith("store: ")
    assert line.endswith(f"{UNKNOWN}; write billing")


def test_a_function_that_calls_no_aws_takes_no_identity(file: Path) -> None:
    (line,) = problems(
        file,
        document(functions={"orders": {"invoker": "process", "command": ["cat"], "identity": "billing"}}),
    )
    assert line.startswith("functions.orders.identity: unknown setting; ")
    assert "write invoker: lambda" in line


@pytest.mark.parametrize(
    ("entry", "field", "text"),
    [
        ({}, "role_arn", "the identity is the process's own; write role_arn, or remove it"),
        ({"role_arn": "arn:aws:iam::444455556666:user/x"}, "role_arn", "not a role's ARN"),
        ({"role_arn": "poller"}, "role_arn", "not a role's ARN"),
        ({"profile": "p", "external_id": "x-1"}, "external_id", "is for an assumed role only; add role_arn"),
        (
            {"profile": "p", "session_name": "orders"},
            "session_name",
            "is for an assumed role only; add role_arn",
        ),
        ({"role_arn": ROLE, "external_id": "a b"}, "external_id", "not an external id"),
        ({"role_arn": ROLE, "session_name": "x"}, "session_name", "not a session's name"),
        ({"role_arn": ROLE, "session_name": "a/b"}, "session_name", "not a session's name"),
        ({"role_arn": ROLE, "region": "EU"}, "region", "has characters that are not allowed"),
        ({"role_arn": ROLE, "endpoint_url": "ftp://x"}, "endpoint_url", ""),
        ({"rolearn": ROLE, "profile": "p"}, "rolearn", "unknown setting; did you mean role_arn?"),
    ],
)
def test_what_is_wrong_with_an_identity_is_told_with_its_field(
    file: Path, entry: dict[str, Any], field: str, text: str
) -> None:
    (line,) = problems(file, document(identities={"billing": entry}))
    assert line.startswith(f"identities.billing.{field}: ")
    assert text in line


def test_changed_identities_wait_for_a_restart() -> None:
    assert "identities" in WAIT_FOR_RESTART


def test_a_check_says_as_whom_a_part_was_tried() -> None:
    denied = Finding("kinesis:GetRecords", Severity.PROBLEM, "not allowed")
    found = CheckResult("mappings[0]", "sources", "kinesis", STREAM, (denied,), "billing")
    assert found.lines(Severity.PROBLEM) == ["mappings[0], as billing: not allowed"]
    assert found.subject == f"{STREAM}, as billing"


DONE = FAILED.replace("failed", "done")


@pytest.mark.parametrize(
    ("entry", "expected"),
    [
        ({"invoker": "lambda", "identity": "billing"}, "billing"),
        ({"invoker": "lambda"}, None),
        ({"invoker": "lambda", "event_invoke_config": {"identity": "billing"}}, "billing"),
        (
            {"invoker": "lambda", "identity": "billing", "event_invoke_config": {"identity": "ops"}},
            "ops",
        ),
    ],
)
def test_destinations_of_asynchronous_calls_take_the_identity_of_the_function_or_the_one_named(
    file: Path, entry: dict[str, Any], expected: str | None
) -> None:
    config = {
        "DestinationConfig": {"OnSuccess": {"Destination": DONE}},
        **entry.get("event_invoke_config", {}),
    }
    given = document(
        identities={"billing": {"role_arn": ROLE}, "ops": {"role_arn": ROLE}},
        functions={"orders": {**entry, "event_invoke_config": config, "dead_letter": FAILED}},
    )
    assert problems(file, given) == []
    function = daemon_plan(load(file)).functions["orders"]
    assert function.async_policy("").identity == expected
    own = entry.get("identity")
    assert function.async_policy("another").identity == own


def test_an_identity_of_asynchronous_calls_that_is_not_there_is_refused(file: Path) -> None:
    config = {"identity": "ops", "DestinationConfig": {"OnSuccess": {"Destination": DONE}}}
    given = document(functions={"orders": {"invoker": "lambda", "event_invoke_config": config}})
    assert problems(file, given) == [
        f"functions.orders.event_invoke_config.identity: value 'ops': {UNKNOWN}; write billing"
    ]
