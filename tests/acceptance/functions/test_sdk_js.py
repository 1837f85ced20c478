"""AWS's SDK for JavaScript calls functions of a daemon that is a process, by nothing but another endpoint URL."""

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from adapters.demo.processes import plain_environment
from tests.acceptance.test_invoke import ARN, CONTEXT, SIGNED, asked
from tests.emulators import NPM, installed, node

pytestmark = pytest.mark.acceptance

PROGRAM = NPM.parent / "invoke.mjs"
CALLS_S_MAX = 60


def called(url: str, *inputs: dict[str, Any], **variables: str) -> list[dict[str, Any]]:
    """What the SDK makes of the answers to these inputs, one after the other."""
    installed("@aws-sdk/client-lambda")
    done = subprocess.run(
        [*node(), str(PROGRAM), url],
        env=plain_environment() | SIGNED | variables,
        input=json.dumps(inputs),
        capture_output=True,
        text=True,
        check=False,
        timeout=CALLS_S_MAX,
    )
    assert done.returncode == 0, done.stderr
    found: list[dict[str, Any]] = json.loads(done.stdout)
    return found


def here(**more: Any) -> dict[str, Any]:
    """An input of Invoke."""
    return {"FunctionName": "here", "Payload": "{}"} | more


def test_the_sdk_for_javascript_calls_a_function_in_every_way(tmp_path: Path) -> None:
    def use(_: Any, url: str) -> None:
        answered, failed, value = called(
            url,
            here(Payload='{"n": 1, "text": "ä\\u2028"}', LogType="Tail", ClientContext=CONTEXT),
            here(Payload='{"fail": "no"}', FunctionName=ARN.format(name="here")),
            here(Payload="7", Qualifier="$LATEST"),
        )
        assert (answered["status"], answered["version"], answered["error"]) == (200, "$LATEST", None)
        payload = json.loads(answered["payload"])
        assert (payload["n"], payload["custom"]) == (1, {"who": "me"})
        assert payload["request"] == answered["request"]
        assert answered["log"].startswith(f"START RequestId: {answered['request']} Version: $LATEST\n")
        assert "called with 1\n" in answered["log"]
        document = json.loads(failed["payload"])
        assert (failed["status"], failed["error"]) == (200, "Unhandled")
        assert (document["errorType"], document["errorMessage"]) == ("ValueError", "no")
        assert (value["status"], value["payload"]) == (200, "7")

    asked(tmp_path, use)


def test_the_sdk_for_javascript_understands_what_is_refused(tmp_path: Path) -> None:
    def use(_: Any, url: str) -> None:
        queued, tried, *refused = called(
            url,
            here(InvocationType="Event"),
            here(InvocationType="DryRun"),
            here(FunctionName="nothing"),
            here(FunctionName="nothing", InvocationType="DryRun"),
            here(Payload="{"),
            here(FunctionName="broken"),
        )
        assert (queued["status"], queued["error"]) == (202, None)
        assert tried["status"] == 204
        assert [(each["name"], each["status"]) for each in refused] == [
            ("ResourceNotFoundException", 404),
            ("ResourceNotFoundException", 404),
            ("InvalidRequestContentException", 400),
            ("ResourceNotReadyException", 502),
        ]
        (wrong,) = called(url, here(), AWS_SECRET_ACCESS_KEY="another")
        assert wrong["status"] == 403

    asked(tmp_path, use)
