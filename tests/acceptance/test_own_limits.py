"""Functions on Lambda, as an emulator has it: their own time limit and role count, whatever the configuration says."""

import io
import time
import zipfile
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError

from tests.acceptance.clients.test_aws_clients import World, a_queue, a_stream, put, until
from tests.conftest import fresh_account
from tests.emulators import Emulator

pytestmark = pytest.mark.acceptance

TAKES_S = 8
"""Longer than `SHORT_S` and the five seconds after which every other call is given up."""
SHORT_S = 1
CODE = f"""
import time
def act(event, context):
    time.sleep({TAKES_S})
    with open(JOURNAL, "a") as journal:
        journal.write(repr([record["invokeIdentityArn"] for record in event["Records"]]) + "\\n")
"""
ROLE = "arn:aws:iam::111122223333:role/slow"


@pytest.fixture
def world(ministack: Emulator, tmp_path: Path) -> World:
    return World(ministack.url, fresh_account(), tmp_path)


def deployed(world: World, name: str, *, timeout_s: int) -> Path:
    """A function that takes TAKES_S; returns where it writes down the roles that it saw."""
    journal = world.folder / f"{name}.txt"
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as zipped:
        zipped.writestr("app.py", f"JOURNAL = {str(journal)!r}\n{CODE}")
    world.aws("lambda").create_function(
        FunctionName=name,
        Runtime="python3.13",
        Role=ROLE,
        Handler="app.act",
        Timeout=timeout_s,
        Code={"ZipFile": archive.getvalue()},
    )
    return journal


def refused(change: Any) -> str:
    with pytest.raises(ClientError) as caught:
        change()
    text: str = caught.value.response["Error"]["Message"]
    return text


def test_a_slow_function_runs_each_batch_once_and_sees_its_own_role(world: World) -> None:
    stream = a_stream(world)
    journal = deployed(world, "slow", timeout_s=60)
    put(world, "a", "b")
    mapping = {
        "FunctionName": "slow",
        "EventSourceArn": stream,
        "StartingPosition": "TRIM_HORIZON",
        "MaximumRetryAttempts": 1,
    }
    # Too short a limit, as the default of 30 s is for a function of a minute.
    entry = {"invoker": "lambda", "timeout_s": SHORT_S}
    with world.daemon([mapping], functions={"slow": entry}):
        until(journal.exists, within_s=30)
        time.sleep(TAKES_S + 3)
    assert journal.read_text().splitlines() == [repr([ROLE, ROLE])]


def test_a_queue_is_compared_with_the_limit_that_lambda_has(world: World) -> None:
    short, long = (
        a_queue(world, "short", VisibilityTimeout="5"),
        a_queue(world, "long", VisibilityTimeout="30"),
    )
    deployed(world, "quick", timeout_s=5)
    deployed(world, "slow", timeout_s=60)
    with world.daemon():
        api = world.api()
        made = api.create_event_source_mapping(FunctionName="quick", EventSourceArn=short, Enabled=False)
        text = "Queue visibility timeout: 30 seconds is less than Function timeout: 60 seconds"
        create = {"FunctionName": "slow", "EventSourceArn": long, "Enabled": False}
        assert refused(lambda: api.create_event_source_mapping(**create)) == text
        assert "less than Function timeout: 60 seconds" in refused(
            lambda: api.update_event_source_mapping(UUID=made["UUID"], FunctionName="slow")
        )
        world.aws("lambda").update_function_configuration(FunctionName="slow", Timeout=30)
        assert api.create_event_source_mapping(**create)["FunctionArn"].endswith(":slow")


def test_check_live_compares_a_queue_of_the_file_too(world: World) -> None:
    queue = a_queue(world, "long", VisibilityTimeout="30")
    deployed(world, "slow", timeout_s=60)
    found = world.checked([{"FunctionName": "slow", "EventSourceArn": queue}])
    (warned,) = [each for each in found["warnings"] if "VisibilityTimeout" in each]
    assert "30 s is shorter than the function's limit of 60 s" in warned
    assert [each["timeout_s"] for each in found["functions"] if each["name"] == "slow"] == [None]
    looked = next(each for each in found["live"] if each["place"] == "functions.slow")
    assert {each["check"]: each["grade"] for each in looked["findings"]} == {
        "lambda:InvokeFunction": "ok",
        "lambda:GetFunctionConfiguration": "ok",
    }
