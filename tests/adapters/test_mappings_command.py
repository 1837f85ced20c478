"""What `poller mappings` says when it cannot do what it was asked to, and how it reads members of requests."""

import os
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from adapters.commands.mappings import app
from tests.emulators import free_port

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
        (("list", "--endpoint-url", "nonsense"), "no client of nonsense"),
        (("update", UUID), "nothing to change; write members as MaximumRetryAttempts=2"),
        (("update", UUID, "BatchSize"), "'BatchSize' is no member; write NAME=VALUE"),
        (("create", "--input", "/nowhere/at/all.yaml"), "/nowhere/at/all.yaml: no such file"),
    ],
)
def test_what_cannot_be_done_is_told_with_the_remedy(words: tuple[str, ...], text: str) -> None:
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
