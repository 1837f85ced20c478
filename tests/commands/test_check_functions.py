"""What `poller check` says of versions, aliases and asynchronous calls, and of a file without mappings."""

import json
from pathlib import Path

import pytest

from poller.config.settings import FunctionEntry
from poller.domain.findings import Severity
from poller.domain.records import QueueFacts
from tests.commands.test_check import QUEUE, Queue, configured, found, mapped
from tests.commands.test_cli import call

FILE = """
store: memory://
functions:
  orders:
    invoker: python
    handler: app.handler
    versions:
      "1": {code: releases/1}
      "2": {code: releases/2, timeout_s: 60}
    aliases:
      live: {version: "1"}
      trial: {version: "1", weights: {"2": 0.125}}
    event_invoke_config:
      MaximumRetryAttempts: 1
      DestinationConfig: {OnFailure: {Destination: "arn:aws:sqs:eu-west-1:111122223333:failed"}}
    event_invoke_configs: {live: {MaximumEventAgeInSeconds: 60}}
    dead_letter: arn:aws:sqs:eu-west-1:111122223333:dead
  plain:
    invoker: python
    handler: app.handler
"""
SAID = """\
    versions: 1, 2
    aliases of the file: live to 1, trial to 1 (12.5 % to 2)
    asynchronous calls: 1 retry, 21600 s of age, on failure arn:aws:sqs:eu-west-1:111122223333:failed, dead letter arn:aws:sqs:eu-west-1:111122223333:dead
    asynchronous calls of live: 2 retries, 60 s of age, dead letter arn:aws:sqs:eu-west-1:111122223333:dead
  plain
"""


def test_versions_aliases_and_asynchronous_calls_are_shown(tmp_path: Path) -> None:
    file = tmp_path / "poller.yaml"
    file.write_text(FILE)
    shown = call("check", "--config", str(file)).stdout
    assert SAID in shown
    assert shown.count("versions:") == shown.count("asynchronous calls:") == 1
    orders, plain = json.loads(call("check", "--config", str(file), "--json").stdout)["functions"]
    assert orders["versions"] == ["1", "2"]
    assert orders["aliases"]["trial"] == {"version": "1", "weights": {"2": 0.125}}
    assert orders["asynchronous_calls"]["live"] == {
        "retries_max": 2,
        "age_s_max": 60,
        "dead_letter": "arn:aws:sqs:eu-west-1:111122223333:dead",
    }
    assert not {"versions", "aliases", "asynchronous_calls"} & set(plain)


@pytest.mark.parametrize(
    ("api", "warned"),
    [
        ("", True),
        ("api: {access_keys_file: keys.yaml}", False),
        ("api: {allow_unauthenticated: true}", False),
    ],
)
def test_a_file_without_mappings_may_be_for_calls_alone(tmp_path: Path, api: str, warned: bool) -> None:
    file, keys = tmp_path / "poller.yaml", tmp_path / "keys.yaml"
    keys.write_text("AKIDOPERATOR: a-long-random-text-without-spaces\n")
    keys.chmod(0o600)
    file.write_text(f"{FILE}\n{api.replace('keys.yaml', str(keys))}\n")
    result = call("check", "--config", str(file))
    assert result.exit_code == 0
    assert "mappings: none\n" in result.stdout
    assert ("there is none" in result.stderr) is warned
    assert ("called with a key of api.access_keys_file (docs/use/invoke.md)" in result.stderr) is warned


def test_what_opening_a_function_warns_of_is_a_warning_of_the_check(tmp_path: Path) -> None:
    file, secret = tmp_path / "poller.yaml", tmp_path / "secret"
    secret.write_text("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLASRMfKQ9r8GKYq=\n")
    secret.chmod(0o644)
    file.write_text(
        "store: memory://\napi: {allow_unauthenticated: true}\nfunctions:\n  orders: {invoker: http, url: 'http://127.0.0.1:9/', "
        f"signature: {{secret_file: '{secret}'}}}}\n"
    )
    result = call("check", "--config", str(file), "--live")
    wanted = f"{file}: functions.orders.signature.secret_file: every user of this machine may open it (mode 0644); make it 0600"
    assert f"poller: warning: {wanted}\n" in result.stderr
    assert wanted in json.loads(call("check", "--config", str(file), "--live", "--json").stdout)["warnings"]


@pytest.mark.parametrize(("visibility_s", "warned"), [(60, False), (59, True)])
def test_a_queue_is_compared_with_the_longest_limit_of_all_versions(visibility_s: int, warned: bool) -> None:
    versions = {"1": {}, "2": {"timeout_s": 60}}
    entry = FunctionEntry.model_validate({"invoker": "python", "timeout_s": 30, "versions": versions})
    queue = Queue(QueueFacts(visibility_timeout_s=visibility_s, fifo=False, redrive_receives_max=5))
    seen = found(configured(mapped(QUEUE), functions={"orders": entry}), sqs=queue)["mappings[0]"]
    assert [each.check for each in seen if each.grade is Severity.WARNING] == ["VisibilityTimeout"] * warned
