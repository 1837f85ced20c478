"""`poller dry-run` as a process on real emulators, beside a running daemon: it shows the calls and leaves nothing changed."""

import hashlib
import json
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.acceptance.clients.test_aws_clients import World, a_queue, a_stream, put, send, until
from tests.acceptance.daemons import Ended, command
from tests.conftest import fresh_account
from tests.emulators import Emulator

pytestmark = pytest.mark.acceptance

SOON_S = 20.0
ENDS_S_MAX = 5.0
FAR = "http://127.0.0.1:1"


@pytest.fixture
def world(ministack: Emulator, tmp_path: Path) -> World:
    return World(ministack.url, fresh_account(), tmp_path)


def dry_run(world: World, *words: str, mappings: list[dict[str, Any]], **changes: Any) -> Ended:
    """What the command does with these mappings, in a file of its own on the daemon's store."""
    config = world.folder / "dry.yaml"
    config.write_text(yaml.safe_dump(world.configuration(mappings) | changes))
    return command("dry-run", "--config", str(config), *words, env=world.environment)


def documents(done: Ended, kind: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = [json.loads(line) for line in done.out.splitlines()]
    return [each for each in found if each["type"] == kind]


def of_stream(arn: str, **more: Any) -> dict[str, Any]:
    return {"FunctionName": "reader", "EventSourceArn": arn, "StartingPosition": "TRIM_HORIZON", **more}


def of_queue(arn: str, **more: Any) -> dict[str, Any]:
    return {"FunctionName": "writer", "EventSourceArn": arn, **more}


def sums(folder: Path) -> Mapping[str, str]:
    """A checksum of each file of the store."""
    return {
        path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(folder.glob("state.db*"))
    }


def visible(world: World, queue: str = "orders") -> tuple[int, int]:
    """How many messages of a queue are visible and how many are in flight."""
    sqs = world.aws("sqs")
    names = ["ApproximateNumberOfMessages", "ApproximateNumberOfMessagesNotVisible"]
    url = sqs.get_queue_url(QueueName=queue)["QueueUrl"]
    found = sqs.get_queue_attributes(QueueUrl=url, AttributeNames=names)["Attributes"]
    return int(found[names[0]]), int(found[names[1]])


def test_a_stopped_daemon_s_store_stays_byte_for_byte_and_gives_the_place(world: World) -> None:
    arn = a_stream(world)
    with world.daemon([of_stream(arn, BatchSize=2)]):
        put(world, "one", "two")
        until(lambda: world.texts() == ["one", "two"], within_s=SOON_S)
    put(world, "three", "four", "five")
    before = sums(world.folder)
    assert before
    done = dry_run(world, "--json", "--events", mappings=[of_stream(arn, BatchSize=2)])
    assert done.status == 0, done.err
    assert [each["records"] for each in documents(done, "call")] == [2, 1]
    (begins,) = {each["begins"] for each in documents(done, "summary")[0]["sources"]}
    assert begins.startswith("AFTER:")
    (first, *_) = documents(done, "call")
    assert first["event"]["Records"][0]["kinesis"]["sequenceNumber"] == first["first"]
    assert sums(world.folder) == before
    with world.daemon([of_stream(arn, BatchSize=2)]):
        until(lambda: len(world.texts()) >= 5, within_s=SOON_S)
    assert world.texts() == ["one", "two", "three", "four", "five"]


def test_no_store_is_made_where_there_is_none(world: World) -> None:
    arn = a_stream(world)
    put(world, "one")
    done = dry_run(world, mappings=[of_stream(arn)])
    assert (done.status, "1 record," in done.out) == (0, True), done.err
    assert sums(world.folder) == {}


def test_a_daemon_beside_it_is_not_disturbed(world: World) -> None:
    arn = a_stream(world)
    with world.daemon([of_stream(arn)]):
        put(world, "one")
        until(lambda: world.texts() == ["one"], within_s=SOON_S)
        done = dry_run(world, "--json", "--fresh", mappings=[of_stream(arn)])
        beside = dry_run(world, "--json", mappings=[of_stream(arn)])
        put(world, "two")
        until(lambda: world.texts() == ["one", "two"], within_s=SOON_S)
        with_daemon = json.loads(_get(f"{world.url}/v1/mappings"))
    assert [each["records"] for each in documents(done, "call")] == [1]
    assert (beside.status, documents(beside, "problem")) == (0, [])
    assert sum(each["records"] for each in documents(beside, "call")) <= 1
    (shown,) = with_daemon["mappings"]
    assert {each["owner"] for each in shown["shards"]} == {with_daemon["worker"]}


def _get(url: str) -> str:
    import urllib.request

    with urllib.request.urlopen(url, timeout=5) as answer:
        text: str = answer.read().decode()
        return text


def test_messages_are_in_the_queue_afterwards_and_without_the_flag_none_is_received(world: World) -> None:
    arn = a_queue(world, VisibilityTimeout="120")
    send(world, *(f"text-{number}" for number in range(12)))
    refused = dry_run(world, mappings=[of_queue(arn)])
    assert refused.status == 2
    assert "add --receive" in refused.err
    assert visible(world) == (12, 0)
    done = dry_run(world, "--json", "--receive", mappings=[of_queue(arn)])
    assert done.status == 0, done.out
    assert sum(each["records"] for each in documents(done, "call")) == 12
    assert visible(world) == (12, 0)


def test_a_missing_module_is_a_warning_because_no_function_is_imported(world: World) -> None:
    arn = a_stream(world)
    put(world, "one")
    functions = {"reader": {"invoker": "python", "handler": "no_such_module:handler"}}
    done = dry_run(world, mappings=[of_stream(arn)], functions=functions)
    assert done.status == 0
    assert "no function is imported" in done.out
    assert "warning" in done.err
    assert "no_such_module" in done.err


def test_an_endpoint_that_cannot_be_reached_is_named_with_status_one(world: World) -> None:
    arn = a_stream(world)
    done = dry_run(world, mappings=[of_stream(arn)], endpoint_url=FAR)
    assert done.status == 1
    assert "stream/readings" in done.err
    assert "is the endpoint right and reachable?" in done.err


def test_an_empty_configuration_runs_nothing_and_a_wrong_one_ends_as_check_does(world: World) -> None:
    done = dry_run(world, mappings=[])
    assert (done.status, "mappings: there is none" in done.err) == (0, True)
    (end,) = documents(dry_run(world, "--json", mappings=[]), "summary")
    assert (end["ok"], end["sources"]) == (True, [])
    arn = a_stream(world)
    wrong = [of_stream(arn, BatchSize=0)]
    done = dry_run(world, mappings=wrong)
    checked = command("check", "--config", str(world.folder / "dry.yaml"), env=world.environment)
    assert (done.status, done.err) == (checked.status, checked.err) == (2, checked.err)
    unknown = dry_run(world, "--mapping", "nobody", mappings=[of_stream(arn)])
    assert (unknown.status, "reader from stream/readings" in unknown.err) == (2, True)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_it_at_once_with_status_zero(world: World, number: signal.Signals) -> None:
    arn, other = a_stream(world), a_stream(world, "others")
    put(world, "one")
    put(world, "two", stream="others")
    config = world.folder / "dry.yaml"
    waiting = of_stream(arn, MaximumBatchingWindowInSeconds=300, BatchSize=10)
    config.write_text(yaml.safe_dump(world.configuration([waiting, of_stream(other)])))
    words = [sys.executable, "-m", "poller", "dry-run", "--config", str(config)]
    with subprocess.Popen(words, env=world.environment, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        while not process.stdout.readline().startswith("call 1: reader from stream/others"):
            assert process.poll() is None
        process.send_signal(number)
        began = time.monotonic()
        out, _ = process.communicate(timeout=SOON_S)
    assert (process.returncode, "interrupted" in out) == (0, True)
    assert time.monotonic() - began < ENDS_S_MAX


def test_a_reader_that_goes_away_ends_it_without_a_trace(world: World) -> None:
    arn = a_stream(world)
    put(world, *(str(number) for number in range(30)))
    config = world.folder / "dry.yaml"
    config.write_text(yaml.safe_dump(world.configuration([of_stream(arn, BatchSize=1)])))
    words = f"{sys.executable} -m poller dry-run --config {config} | head -1; exit ${{PIPESTATUS[0]}}"
    done = subprocess.run(
        ["bash", "-c", words], env=world.environment, capture_output=True, text=True, check=False, timeout=60
    )
    assert (done.returncode, len(done.stdout.splitlines())) == (1, 1)
    assert "Traceback" not in done.stderr
    assert "Broken pipe" not in done.stderr
