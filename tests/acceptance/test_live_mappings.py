"""Mappings that change while a real daemon works: by `poller mappings`, by the configuration file, under load."""

import json
import os
import threading
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.acceptance import api_function
from tests.acceptance.clients.test_aws_clients import (
    EFFECT_S_MAX,
    KEY,
    SECRET,
    SOON_S,
    World,
    a_queue,
    a_stream,
    becomes,
    gone,
    put,
    send,
    until,
)
from tests.acceptance.daemons import Ended, command
from tests.conftest import REGION, fresh_account
from tests.emulators import Emulator

pytestmark = pytest.mark.acceptance

RELOAD_S_MAX = 6.0
"""The file is looked at every two seconds where nothing tells of its changes."""
LOAD = 120
POISONED = 40
"""From this record on the load has one that the function never takes."""


CHANGES: list[dict[str, Any]] = [{"Enabled": False}, {"Enabled": True}, {"BatchSize": 3}]


@pytest.fixture
def world(ministack: Emulator, tmp_path: Path) -> World:
    return World(ministack.url, fresh_account(), tmp_path)


def mappings(world: World, *words: str) -> Ended:
    """What `poller mappings ...` does against the world's daemon, as an operator would call it."""
    env = {
        "POLLER_URL": world.url,
        "AWS_ACCESS_KEY_ID": KEY,
        "AWS_SECRET_ACCESS_KEY": SECRET,
        "AWS_CONFIG_FILE": os.devnull,
        "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
        "AWS_EC2_METADATA_DISABLED": "true",
        "COLUMNS": "200",
    }
    return command("mappings", *words, env=env)


def told(world: World, *words: str) -> Any:
    """The JSON that a command prints; fails when the command does."""
    done = mappings(world, *words, "--json")
    assert done.status == 0, done.err
    return json.loads(done.out)


def readiness(world: World) -> Any:
    with urllib.request.urlopen(f"{world.url}/readyz", timeout=5) as answer:
        return json.load(answer)


def metric(world: World, name: str) -> float:
    with urllib.request.urlopen(f"{world.url}/metrics", timeout=5) as answer:
        lines = answer.read().decode().splitlines()
    return next(float(line.rpartition(" ")[2]) for line in lines if line.startswith(f"{name} "))


def configured(world: World, *given: dict[str, Any], **more: Any) -> str:
    """The text of a configuration file with these mappings."""
    return yaml.safe_dump(world.configuration(list(given)) | more)


def test_the_command_leads_a_mapping_through_its_life(world: World) -> None:
    stream = a_stream(world)
    with world.daemon():
        made = told(
            world,
            "create",
            "FunctionName=reader",
            f"EventSourceArn={stream}",
            "StartingPosition=TRIM_HORIZON",
            "BatchSize=2",
        )
        mapping = made["UUID"]
        assert (made["State"], made["BatchSize"]) == ("Creating", 2)
        becomes(world.api(), mapping, "Enabled")
        put(world, "one")
        until(lambda: world.texts() == ["one"], within_s=SOON_S)
        assert told(world, "disable", mapping)["State"] == "Disabling"
        becomes(world.api(), mapping, "Disabled", within_s=EFFECT_S_MAX)
        assert told(world, "update", mapping, "BatchSize=7", "FilterCriteria={}")["BatchSize"] == 7
        becomes(world.api(), mapping, "Disabled")
        assert told(world, "enable", mapping)["State"] == "Enabling"
        put(world, "two")
        until(lambda: world.texts() == ["one", "two"], within_s=SOON_S)
        listed = mappings(world, "list", "--function", "reader")
        assert (listed.status, mapping in listed.out, "Enabled" in listed.out) == (0, True, True)
        assert [each["UUID"] for each in told(world, "list", "--source", stream)] == [mapping]
        assert told(world, "get", mapping)["BatchSize"] == 7
        assert told(world, "delete", mapping)["State"] == "Deleting"
        until(lambda: gone(world.api(), mapping), within_s=SOON_S)
        missing = mappings(world, "get", mapping)
        assert missing.status == 2
        assert "ResourceNotFoundException: The resource you requested does not exist" in missing.err


def test_an_export_of_a_daemon_is_a_file_that_check_accepts(world: World) -> None:
    stream, queue = a_stream(world), a_queue(world)
    path = world.folder / "exported.yaml"
    with world.daemon():
        for source, start in ((stream, ["StartingPosition=LATEST"]), (queue, [])):
            told(world, "create", "FunctionName=reader", f"EventSourceArn={source}", *start)
        done = mappings(
            world, "export", "--endpoint-url", world.url, "--region", REGION, "--output", str(path)
        )
        assert done.status == 0, done.err
    found = yaml.safe_load(path.read_text())
    assert {each["EventSourceArn"] for each in found["mappings"]} == {stream, queue}
    checked = command("check", "--config", str(path))
    assert checked.status == 0, checked.err


def test_a_changed_file_is_taken_over_and_a_bad_one_changes_nothing(world: World) -> None:
    queue, other = a_queue(world), a_queue(world, "others")
    first = {"FunctionName": "reader", "EventSourceArn": queue}
    second = {"FunctionName": "writer", "EventSourceArn": other}
    config = world.folder / "poller.yaml"
    with world.daemon([first]):
        send(world, "one")
        until(lambda: world.texts() == ["one"], within_s=SOON_S)
        fresh = world.folder / "poller.yaml.new"
        fresh.write_text(configured(world, first, second))
        fresh.rename(config)
        send(world, "two", queue="others")
        until(lambda: "two" in world.texts(), within_s=SOON_S)
        until(
            lambda: metric(world, 'poller_configuration_reloads_total{result="success"}') == 1,
            within_s=SOON_S,
        )  # A page is reused for a moment.

        config.write_text(configured(world, first, {**second, "BatchSize": 99_999}))
        until(lambda: readiness(world)["notes"], within_s=RELOAD_S_MAX)
        (note,) = readiness(world)["notes"]
        assert "mappings[1].BatchSize" in note
        until(
            lambda: metric(world, 'poller_configuration_reloads_total{result="failure"}') == 1,
            within_s=SOON_S,
        )  # A page is reused for a moment.
        until(
            lambda: metric(world, "poller_configuration_last_reload_successful") == 0, within_s=SOON_S
        )  # A page is reused for a moment.
        send(world, "three", queue="others")
        until(lambda: "three" in world.texts(), within_s=SOON_S)

        config.write_text(configured(world, first, listen="127.0.0.1:1"))
        until(lambda: "listen" in "".join(readiness(world)["notes"]), within_s=RELOAD_S_MAX)
        until(
            lambda: metric(world, "poller_configuration_last_reload_successful") == 1, within_s=SOON_S
        )  # A page is reused for a moment.
        listed = told(world, "list")
        assert [each["EventSourceArn"] for each in listed] == [queue]


def test_a_swapped_link_is_taken_over_as_kubernetes_swaps_it(world: World) -> None:
    queue = a_queue(world)
    config = world.folder / "poller.yaml"
    with world.daemon():
        for name, given in (("..one", []), ("..two", [{"FunctionName": "reader", "EventSourceArn": queue}])):
            (world.folder / name).mkdir()
            (world.folder / name / "poller.yaml").write_text(configured(world, *given))
        (world.folder / "..data").symlink_to("..one")
        config.unlink()
        config.symlink_to("..data/poller.yaml")
        (world.folder / "..tmp").symlink_to("..two")
        (world.folder / "..tmp").rename(world.folder / "..data")
        send(world, "one")
        until(lambda: world.texts() == ["one"], within_s=SOON_S)


def test_changes_under_load_with_a_failing_function_lose_nothing_and_keep_the_order(world: World) -> None:
    """A poison record blocks the stream; the mapping is changed all the time, and at last freed and deleted."""
    stream = a_stream(world)
    texts = [f"record-{number:04d}" for number in range(LOAD)]
    with world.daemon():
        api = world.api()
        made = api.create_event_source_mapping(
            FunctionName="reader",
            EventSourceArn=stream,
            StartingPosition="TRIM_HORIZON",
            BatchSize=5,
            BisectBatchOnFunctionError=True,
        )
        mapping = made["UUID"]
        with loaded(world, [*texts[:POISONED], api_function.POISON, *texts[POISONED:]]):
            for turn in range(12):
                changed(api, mapping, CHANGES[turn % len(CHANGES)])
                time.sleep(0.2)
        changed(api, mapping, {"Enabled": True})
        until(
            lambda: world.texts()[-1:] == [texts[POISONED - 1]],
            within_s=2 * SOON_S,
            told=lambda: str(world.status(mapping)) + str(world.texts()[-9:]),
        )
        changed(api, mapping, {"MaximumRetryAttempts": 0})
        until(
            lambda: set(world.texts()) == set(texts),
            within_s=SOON_S,
            told=lambda: str(len(set(world.texts()))),
        )
        assert first_times(world.texts()) == texts
        becomes(api, mapping, "Enabled")
        assert api.delete_event_source_mapping(UUID=mapping)["State"] == "Deleting"
        until(lambda: gone(api, mapping), within_s=SOON_S)
        before = len(world.texts())
        put(world, "after")
        time.sleep(2.0)
        assert len(world.texts()) == before


@contextmanager
def loaded(world: World, texts: list[str]) -> Iterator[None]:
    """Puts these records beside the block, one after the other; all are there when it ends."""
    writer = threading.Thread(target=lambda: put(world, *texts))
    writer.start()
    try:
        yield
    finally:
        writer.join()


def changed(api: Any, mapping: str, request: dict[str, Any]) -> None:
    """An update, tried again while the last one is not applied yet, as AWS's clients do."""

    def accepted() -> bool:
        try:
            api.update_event_source_mapping(UUID=mapping, **request)
        except api.exceptions.ResourceInUseException:
            return False
        return True

    until(accepted, within_s=SOON_S)


def first_times(texts: list[str]) -> list[str]:
    """Each text where it came first: what is delivered again after a change does not count."""
    return list(dict.fromkeys(texts))
