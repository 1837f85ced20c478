"""What `poller mappings` shows at any width, what it says when it cannot do what it was asked to, and how it reads members of requests."""

import json
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from botocore import exceptions
from rich.cells import cell_len
from typer.testing import CliRunner, Result

from adapters.commands.endpoint import lambda_client
from adapters.commands.given_members import wrong_members
from adapters.commands.mappings import app
from adapters.commands.remedies import OF_DAEMON, of_failure
from adapters.control.aws_errors import RejectionType
from adapters.demo.processes import free_port
from poller.domain.mapping_api import ApiErrorType
from tests.hostile_texts import HOSTILE

UUID = "0f4b8a5e-8b0c-4a56-9c0e-0d7d6b0c2b11"


@pytest.fixture(autouse=True)
def plain(monkeypatch: pytest.MonkeyPatch) -> None:
    """No credentials, no region, no settings of the host."""
    for name in [name for name in os.environ if name.startswith(("AWS_", "POLLER_"))]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", os.devnull)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("COLUMNS", "200")


def _botocore_errors() -> list[Exception]:
    return [
        exceptions.NoCredentialsError(),
        exceptions.PartialCredentialsError(provider="env", cred_var="b"),
        exceptions.ParamValidationError(report="no"),
        exceptions.EndpointConnectionError(endpoint_url="http://a"),
        exceptions.ConnectTimeoutError(endpoint_url="http://a"),
        exceptions.ReadTimeoutError(endpoint_url="http://a"),
        exceptions.ConnectionClosedError(endpoint_url="http://a"),
        exceptions.SSLError(endpoint_url="https://a", error=OSError("no")),
        exceptions.UnknownServiceError(service_name="a", known_service_names="b"),
    ]


def call(*words: str) -> Result:
    return CliRunner().invoke(app, list(words))


@pytest.mark.parametrize(
    "words",
    [
        ("list",),
        ("get", UUID),
        ("create", "FunctionName=a"),
        ("update", UUID, "BatchSize=1"),
        ("delete", UUID),
        ("enable", UUID),
        ("disable", UUID),
    ],
)
def test_an_address_where_nobody_answers_is_named(words: tuple[str, ...]) -> None:
    url = f"http://127.0.0.1:{free_port()}"
    done = call(*words, "--endpoint-url", url)
    assert done.exit_code == 2
    assert done.stderr.startswith(f"poller: {url}: Could not connect")
    assert "is the address right" in done.stderr
    assert done.stdout == ""


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (("list", "--aws"), "no region; give --region or set AWS_REGION"),
        (("export",), "of what? give --from-aws"),
        (
            ("list", "--endpoint-url", "nonsense"),
            "--url: value 'nonsense': not an HTTP URL; write http://HOST:PORT",
        ),
        (("update", UUID), "nothing to change; write members as MaximumRetryAttempts=2"),
        (("update", UUID, "BatchSize"), "'BatchSize' is no member; write NAME=VALUE"),
        (("create", "--input", "/nowhere/at/all.yaml"), "/nowhere/at/all.yaml: no such file"),
    ],
)
def test_what_cannot_be_done_is_reported_with_the_remedy(words: tuple[str, ...], text: str) -> None:
    done = call(*words)
    assert done.exit_code == 2
    assert text in done.stderr


@pytest.mark.parametrize("name", ["AWS_REGION", "AWS_DEFAULT_REGION"])
def test_the_region_may_come_from_either_variable(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(name, "eu-west-1")
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{free_port()}")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKID")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "not-a-secret")
    assert "Could not connect" in call("list", "--aws").stderr


def _misspelled(shape: Any) -> Iterator[tuple[str, dict[str, Any]]]:
    """Each name of a structure, however deep, without its third letter; and the request that has it."""
    if shape.type_name == "list":
        yield from ((name, [inner]) for name, inner in _misspelled(shape.member))  # type: ignore[misc]  # JSON
    if shape.type_name != "structure":
        return
    for name, member in shape.members.items():
        yield name, {name[:2] + name[3:]: None}
        yield from ((inside, {name: inner}) for inside, inner in _misspelled(member))


@pytest.mark.parametrize("operation", ["CreateEventSourceMapping", "UpdateEventSourceMapping"])
def test_every_misspelled_member_is_asked_about_however_deep(operation: str) -> None:
    client = lambda_client("http://127.0.0.1:1", "eu-west-1")
    shape = client.meta.service_model.operation_model(operation).input_shape
    found = list(_misspelled(shape))
    assert len(found) > 40
    for name, request in found:
        told = [line for line in wrong_members(client, operation, request) if "unknown member" in line]
        assert len(told) == 1
        assert "did you mean " in told[0]
        assert name in told[0].partition("did you mean ")[2]


@pytest.mark.parametrize(
    ("words", "texts"),
    [
        (("create",), ["no members; write FunctionName=orders EventSourceArn=ARN"]),
        (("create", "BatchSize=1"), ["FunctionName: is missing; write FunctionName=VALUE"]),
        (("create", "FunctionNam=a"), ["FunctionNam: unknown member; did you mean FunctionName?"]),
        (
            ("create", "FunctionName=a", "Batchsize=1", "Queue=b"),
            [
                "Batchsize: unknown member; did you mean BatchSize?",
                "Queue: unknown member; write EventSourceArn; Queue is SAM's name for it",
            ],
        ),
        (
            ("update", UUID, 'ScalingConfig={"MaximumConcurency":3}'),
            ["ScalingConfig.MaximumConcurency: unknown member; did you mean MaximumConcurrency?"],
        ),
        (("update", UUID, "State=x"), ["State: unknown member; remove it; it is part of Lambda's answers"]),
        (("update", UUID, f"UUID={UUID}"), ["UUID: is given as the argument"]),
        (
            ("create", "FunctionName=a", "BatchSize=many"),
            ["BatchSize", "docs/use/configuration.md the members"],
        ),
    ],
)
def test_wrong_members_are_reported_as_such_and_nothing_is_said_of_addresses(
    words: tuple[str, ...], texts: list[str]
) -> None:
    done = call(*words, "--url", f"http://127.0.0.1:{free_port()}")
    assert done.exit_code == 2
    for text in texts:
        assert text in done.stderr
    for other in ("address", "credentials", "connect", "Traceback"):
        assert other not in done.stderr


@pytest.mark.parametrize(
    "uuid", ["nosuch", "orders", UUID[:-1], f"{UUID}0", "arn:aws:sqs:eu-west-1:111122223333:mails", "é"]
)
@pytest.mark.parametrize(
    "words", [("get",), ("update",), ("update", "BatchSize=1"), ("delete",), ("enable",), ("disable",)]
)
def test_what_is_no_uuid_is_reported_before_anything_is_sent(words: tuple[str, ...], uuid: str) -> None:
    done = call(words[0], uuid, *words[1:], "--url", f"http://127.0.0.1:{free_port()}")
    assert done.exit_code == 2
    assert (
        done.stderr == f"poller: {uuid!r} is no UUID; poller mappings list shows the UUIDs that there are\n"
    )


def test_every_error_of_a_daemon_has_a_remedy() -> None:
    kinds = {each.value for each in (*ApiErrorType, *RejectionType)}
    rare = {RejectionType.TOO_LARGE, RejectionType.MEDIA_TYPE, RejectionType.ABSENT}
    assert kinds - rare == set(OF_DAEMON)


@pytest.mark.parametrize("error", _botocore_errors())
def test_credentials_and_addresses_are_spoken_of_where_they_are_the_cause(error: Exception) -> None:
    remedy = of_failure(error)
    assert ("AWS_ACCESS_KEY_ID" in remedy) == isinstance(
        error, exceptions.NoCredentialsError | exceptions.PartialCredentialsError
    )
    assert ("address" in remedy) == isinstance(
        error,
        exceptions.EndpointConnectionError
        | exceptions.ConnectionClosedError
        | exceptions.ConnectTimeoutError,
    )


def test_functions_that_have_no_mapping_are_reported(tmp_path: Path) -> None:
    path = tmp_path / "out.yaml"
    with listing() as url:
        done = call("export", "--url", url, "--function", "nosuch", "--output", str(path))
        every = call("export", "--url", url)
    assert (done.exit_code, done.stdout, path.exists()) == (2, "", False)
    assert f"poller: {url}: there is no mapping of function nosuch" in done.stderr
    assert "nothing is exported" in done.stderr
    assert every.exit_code == 0
    assert f"poller: {url}: there is no mapping\n" in every.stderr


def test_a_member_of_the_wrong_type_is_named(tmp_path: Path) -> None:
    path = tmp_path / "request.yaml"
    path.write_text("BatchSize: many\n")
    done = call("update", UUID, "--input", str(path))
    assert done.exit_code == 2
    assert "BatchSize" in done.stderr
    over = call("update", UUID, "BatchSize=3", "--input", str(path))
    assert "Could not connect" in over.stderr


@pytest.mark.parametrize(
    "command", ["list", "get", "create", "update", "delete", "enable", "disable", "export"]
)
def test_every_command_has_an_example(command: str) -> None:
    done = call(command, "--help")
    assert done.exit_code == 0
    assert f"Example: poller mappings {command}" in done.stdout


MAPPING = {
    "UUID": UUID,
    "FunctionArn": "arn:aws:lambda:eu-west-1:111122223333:function:reader:live",
    "EventSourceArn": "arn:aws:kinesis:eu-west-1:111122223333:stream/orders",
    "State": "Enabled",
    "LastProcessingResult": "PROBLEM: Function call failed",
    "LastModified": 1_767_225_600.0,
}


class Listing(BaseHTTPRequestHandler):
    """Answers as Lambda's API does, with the server's mappings."""

    def do_GET(self) -> None:
        found: list[dict[str, Any]] = self.server.found  # type: ignore[attr-defined]  # set by `listing`
        listed = self.path.partition("?")[0].endswith(("event-source-mappings", "event-source-mappings/"))
        body = json.dumps({"EventSourceMappings": found} if listed else found[0]).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        """Says nothing."""


@contextmanager
def listing(*found: dict[str, Any]) -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Listing) as server:
        server.found = found  # type: ignore[attr-defined]  # the handler's only way to know
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


def test_mappings_can_be_read_at_80_columns(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    with listing(MAPPING, MAPPING | {"State": "Creating", "LastProcessingResult": ""}) as url:
        done = call("list", "--endpoint-url", url)
    assert (done.exit_code, done.stderr) == (0, "")
    assert done.stdout.splitlines() == [
        f"{UUID} Enabled",
        "  reader:live ← arn:aws:kinesis:eu-west-1:111122223333:stream/orders",
        "  last result PROBLEM: Function call failed",
        "  modified 2026-01-01T00:00:00+00:00",
        f"{UUID} Creating",
        "  reader:live ← arn:aws:kinesis:eu-west-1:111122223333:stream/orders",
        "  modified 2026-01-01T00:00:00+00:00",
    ]


@pytest.mark.parametrize("command", ["list", "get"])
@pytest.mark.parametrize("columns", [40, 80, 100])
def test_no_line_is_longer_than_the_screen_and_each_uuid_stands_whole(
    command: str, columns: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    hostile = [
        MAPPING | dict.fromkeys(("FunctionArn", "EventSourceArn", "State", "LastProcessingResult"), text)
        for text in HOSTILE.values()
    ]
    long = MAPPING | {"FunctionArn": f"arn:aws:lambda:eu-west-1:111122223333:function:{'reader' * 30}"}
    given = hostile if command == "list" else hostile[-1:]
    with listing(long, *given) as url:
        words = [UUID] if command == "get" else []
        done = call(command, *words, "--endpoint-url", url)
        whole = call(command, *words, "--endpoint-url", url, "--json")
    assert (done.exit_code, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    assert max(map(cell_len, lines)) <= columns
    assert sum(UUID in line for line in lines) == (len(given) + 1 if command == "list" else 1)
    assert command == "get" or len(lines) <= 8 * len(given) + 10
    assert json.loads(whole.stdout)


def test_that_there_is_no_mapping_is_said() -> None:
    with listing() as url:
        assert call("list", "--endpoint-url", url).stdout == "no event source mappings\n"
