"""What Terraform's aws_lambda_event_source_mapping does, call for call, against a daemon that is a real process.

After every apply the mapping is read back, and a plan must find no difference: what is read equals the configuration, or the
provider's own default where the configuration is silent.
"""

import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.acceptance.clients.test_aws_clients import (
    SOON_S,
    World,
    a_queue,
    a_stream,
    a_table_stream,
    becomes,
    until,
)
from tests.conftest import REGION, fresh_account
from tests.emulators import Emulator

pytestmark = pytest.mark.acceptance

POLL_S = 0.05
CREATING = {"Creating", "Enabling", "Disabling"}
UPDATING = {"Updating", "Enabling", "Disabling"}
"""What the waits for a new and for a changed mapping sit through; any other state but Enabled and Disabled ends them badly."""
PARALLEL = 10
"""Terraform's own default."""
MAPPINGS = 20

type Config = Mapping[str, Any]
"""A resource's arguments by AWS's names; what is not in it is not configured."""

ZEROS: dict[str, Any] = {
    "BatchSize": 0,
    "BisectBatchOnFunctionError": False,
    "DestinationConfig": {"OnFailure": {"Destination": ""}},
    "FilterCriteria": {},
    "FunctionResponseTypes": [],
    "KMSKeyArn": "",
    "MaximumBatchingWindowInSeconds": 0,
    "MetricsConfig": {},
    "ProvisionedPollerConfig": {},
    "ScalingConfig": {},
    "TumblingWindowInSeconds": 0,
}
"""Optional arguments: what stands for one that is not configured, in a plan and in the update that removes it."""
COMPUTED = ("MaximumRecordAgeInSeconds", "MaximumRetryAttempts", "ParallelizationFactor")
"""Arguments that keep what the API says as long as they are not configured."""
FIXED = ("EventSourceArn", "StartingPosition", "StartingPositionTimestamp")
"""Arguments that need another mapping when they differ."""


@dataclass
class Resource:
    """One mapping under Terraform's hand; `state` is what it read last."""

    api: Any
    uuid: str
    state: dict[str, Any]

    @classmethod
    def created(cls, api: Any, config: Config) -> "Resource":
        """Creates, waits, reads."""
        made = api.create_event_source_mapping(**{"Enabled": True} | dict(config))
        settled(api, made["UUID"], CREATING)
        return cls(api, made["UUID"], read(api, made["UUID"]))

    def apply(self, config: Config) -> None:
        """Changes what differs, tags first; reads back, by the id alone as an import does too."""
        different = differences(config, self.state)
        assert not set(different) & set(FIXED), different
        if "Tags" in different:
            self._retag(config.get("Tags", {}))
            del different["Tags"]
        self.api.update_event_source_mapping(UUID=self.uuid, **different)
        settled(self.api, self.uuid, UPDATING)
        self.state = read(self.api, self.uuid)

    def _retag(self, wanted: Mapping[str, str]) -> None:
        arn, had = self.state["EventSourceMappingArn"], self.state["Tags"]
        if removed := sorted(had.keys() - wanted.keys()):
            self.api.untag_resource(Resource=arn, TagKeys=removed)
        if changed := {name: text for name, text in wanted.items() if had.get(name) != text}:
            self.api.tag_resource(Resource=arn, Tags=changed)

    def delete(self) -> None:
        """Deletes, again as long as the mapping is in use, and waits until it is gone."""
        until(self._deleted, within_s=SOON_S)
        while (state := state_of(self.api, self.uuid)) is not None:
            assert state == "Deleting"
            time.sleep(POLL_S)

    def _deleted(self) -> bool:
        try:
            self.api.delete_event_source_mapping(UUID=self.uuid)
        except self.api.exceptions.ResourceInUseException:
            return False
        return True


def state_of(api: Any, uuid: str) -> str | None:
    """The mapping's state; None when there is no such mapping."""
    try:
        state: str = api.get_event_source_mapping(UUID=uuid)["State"]
    except api.exceptions.ResourceNotFoundException:
        return None
    return state


def settled(api: Any, uuid: str, pending: set[str]) -> None:
    """Waits as the resource does: a state that is neither expected on the way nor at its end is a failure."""
    deadline = time.monotonic() + SOON_S
    while (state := state_of(api, uuid)) in pending:
        assert time.monotonic() < deadline, state
        time.sleep(POLL_S)
    assert state in {"Enabled", "Disabled"}, state


def read(api: Any, uuid: str) -> dict[str, Any]:
    """The mapping as the resource keeps it: nothing is what stands for nothing, the states are one switch, tags belong to it."""
    found = api.get_event_source_mapping(UUID=uuid)
    found.pop("ResponseMetadata")
    state = ZEROS | {name: value for name, value in found.items() if value is not None}
    if "OnFailure" not in state["DestinationConfig"] or not state["DestinationConfig"]["OnFailure"]:
        state["DestinationConfig"] = ZEROS["DestinationConfig"]
    state["Enabled"] = state.pop("State") in {"Enabled", "Enabling"}
    state["Tags"] = api.list_tags(Resource=state["EventSourceMappingArn"])["Tags"]
    return state


def differences(config: Config, state: Config) -> dict[str, Any]:
    """A plan: by name what has to be sent, from what is configured and what was read."""
    wanted: dict[str, Any] = {"Enabled": True, "Tags": {}} | ZEROS | dict(config)
    default = 10 if ":sqs:" in config["EventSourceArn"] else 100
    if "BatchSize" not in config and state["BatchSize"] == default:
        del wanted["BatchSize"]
    if state["FunctionArn"] in {wanted["FunctionName"], _arn_of(wanted["FunctionName"], state)}:
        del wanted["FunctionName"]
    return {
        name: value for name, value in wanted.items() if name == "FunctionName" or state.get(name) != value
    }


def _arn_of(name: str, state: Config) -> str:
    """The resource takes a bare name and the ARN that it stands for as the same."""
    return str(state["FunctionArn"]).partition(":function:")[0] + f":function:{name}"


def changed(config: Config, step: Config) -> dict[str, Any]:
    """The configuration with some arguments set, or taken out where the step says None."""
    merged = dict(config) | dict(step)
    return {name: value for name, value in merged.items() if value is not None}


def led_through(api: Any, config: Config, steps: list[dict[str, Any]]) -> None:
    """Creates, applies step after step, deletes; no plan after any of it finds a difference."""
    resource = Resource.created(api, config)
    assert differences(config, resource.state) == {}
    for step in steps:
        config = changed(config, step)
        resource.apply(config)
        assert differences(config, resource.state) == {}, step
        assert read(api, resource.uuid) | {"LastProcessingResult": ""} == resource.state | {
            "LastProcessingResult": ""
        }
    resource.delete()
    with pytest.raises(api.exceptions.ResourceNotFoundException):
        api.delete_event_source_mapping(UUID=resource.uuid)


@pytest.fixture
def world(ministack: Emulator, tmp_path: Path) -> World:
    return World(ministack.url, fresh_account(), tmp_path)


def in_turn(name: str, *values: Any) -> list[dict[str, Any]]:
    return [{name: value} for value in values]


def filters(*patterns: str) -> dict[str, Any]:
    return {"Filters": [{"Pattern": pattern} for pattern in patterns]}


def failing_to(arn: str) -> dict[str, Any]:
    return {"OnFailure": {"Destination": arn}}


def both(world: World) -> tuple[str, str]:
    """The ARNs of the two functions."""
    return world.arn("lambda", "function:reader"), world.arn("lambda", "function:writer")


def common_steps(world: World) -> list[dict[str, Any]]:
    """What streams and queues have in common."""
    reader, writer = both(world)
    return [
        *in_turn("FunctionResponseTypes", ["ReportBatchItemFailures"], None),
        *in_turn("KMSKeyArn", world.arn("kms", "key/0f4b8a5e"), None),
        *in_turn("MetricsConfig", {"Metrics": ["EventCount"]}, None),
        *in_turn("Tags", {"team": "a", "a b": "ü+/=&?"}, {"team": "b", "x:y/z": ""}, None),
        {"Enabled": False},
        {"Tags": {"team": "a"}},
        {"BatchSize": 5},
        {"Enabled": True, "Tags": None},
        {"FunctionName": writer, "Enabled": False, "BatchSize": 7},
        {"FunctionName": reader, "Enabled": None},
        {"FunctionName": "reader"},
        {"FunctionName": f"{reader}:live"},
    ]


def stream_steps(world: World, failed: list[str]) -> list[dict[str, Any]]:
    """Each argument of a stream's mapping set, changed and taken out, alone and then together."""
    one, two = filters('{"data":{"a":["b"]}}'), filters('{"data":{"a":["c"]}}', '{"data":{"a":["d"]}}')
    together = {
        "BatchSize": 50,
        "BisectBatchOnFunctionError": True,
        "DestinationConfig": failing_to(failed[0]),
        "FilterCriteria": one,
        "FunctionResponseTypes": ["ReportBatchItemFailures"],
        "MaximumBatchingWindowInSeconds": 1,
        "MaximumRecordAgeInSeconds": 600,
        "MaximumRetryAttempts": 3,
        "ParallelizationFactor": 2,
        "MetricsConfig": {"Metrics": ["EventCount"]},
        "Tags": {"team": "a"},
    }
    return [
        *in_turn("BatchSize", 200, 100, None),
        *in_turn("BisectBatchOnFunctionError", True, False, True, None),
        *in_turn("DestinationConfig", *map(failing_to, failed), None),
        *in_turn("FilterCriteria", one, two, None, two, None),
        *in_turn("MaximumBatchingWindowInSeconds", 5, 10, None),
        *in_turn("MaximumRecordAgeInSeconds", 604_800, 3600, -1, None),
        *in_turn("MaximumRetryAttempts", 10_000, 0, 100, -1, 0, None, -1),
        *in_turn("ParallelizationFactor", 5, 1, None),
        *in_turn("TumblingWindowInSeconds", 30, 300, None),
        together,
        dict.fromkeys(together) | {"BatchSize": 100, "Tags": None},
        *common_steps(world),
    ]


@pytest.mark.parametrize("make", [a_stream, a_table_stream])
def test_every_argument_of_a_streams_mapping_leaves_no_difference(
    world: World, make: Callable[[World], str]
) -> None:
    topic = world.aws("sns").create_topic(Name="failures")["TopicArn"]
    bucket = f"failures-{world.account}"
    world.aws("s3").create_bucket(Bucket=bucket, CreateBucketConfiguration={"LocationConstraint": REGION})
    failed = [a_queue(world, "failed"), topic, f"arn:aws:s3:::{bucket}"]
    config = {
        "EventSourceArn": make(world),
        "FunctionName": both(world)[0],
        "StartingPosition": "TRIM_HORIZON",
    }
    with world.daemon():
        led_through(world.api(), config, stream_steps(world, failed))


def test_every_argument_of_a_queues_mapping_leaves_no_difference(world: World) -> None:
    one, two = '{"Region": [{"prefix": "us-"}]}', '{"Location": ["New York"], "Day": ["Monday"]}'
    pollers = [{"MinimumPollers": 2, "MaximumPollers": 5}, {"MinimumPollers": 3, "MaximumPollers": 9}]
    steps = [
        *in_turn("BatchSize", 10, None, 5, 10, None),
        {"BatchSize": 100, "MaximumBatchingWindowInSeconds": 1},
        {"BatchSize": 10},
        *in_turn("MaximumBatchingWindowInSeconds", None, 100, None),
        *in_turn("FilterCriteria", filters(one), filters(one, two), None, filters(one), None),
        *in_turn(
            "ScalingConfig",
            {"MaximumConcurrency": 10},
            {"MaximumConcurrency": 2},
            None,
            {"MaximumConcurrency": 5},
        ),
        {"ScalingConfig": None, "ProvisionedPollerConfig": pollers[0]},
        *in_turn("ProvisionedPollerConfig", pollers[1], None, pollers[0]),
        {"ScalingConfig": {"MaximumConcurrency": 5}, "ProvisionedPollerConfig": None},
        {"ScalingConfig": None, "BatchSize": 10},
        *common_steps(world),
    ]
    with world.daemon():
        led_through(world.api(), {"EventSourceArn": a_queue(world), "FunctionName": both(world)[0]}, steps)


def test_a_fifo_queues_mapping_leaves_no_difference(world: World) -> None:
    steps = [
        *in_turn("BatchSize", 10, None),
        *in_turn("ScalingConfig", {"MaximumConcurrency": 3}, None),
        *in_turn("FunctionResponseTypes", ["ReportBatchItemFailures"], None),
    ]
    config = {"EventSourceArn": a_queue(world, "a.fifo"), "FunctionName": both(world)[0], "BatchSize": 5}
    with world.daemon():
        led_through(world.api(), config, steps)


def test_mappings_that_begin_with_everything_or_disabled_leave_no_difference(world: World) -> None:
    stream, queue, failed = a_stream(world), a_queue(world), a_queue(world, "failed")
    reader, _ = both(world)
    full = {
        "FunctionName": f"{reader}:1",
        "EventSourceArn": stream,
        "StartingPosition": "AT_TIMESTAMP",
        "StartingPositionTimestamp": int(time.time()),
        "BatchSize": 50,
        "BisectBatchOnFunctionError": True,
        "DestinationConfig": failing_to(failed),
        "FilterCriteria": filters('{"data":{"kind":["alarm"]}}'),
        "FunctionResponseTypes": ["ReportBatchItemFailures"],
        "KMSKeyArn": world.arn("kms", "key/0f4b8a5e"),
        "MaximumBatchingWindowInSeconds": 1,
        "MaximumRecordAgeInSeconds": 600,
        "MaximumRetryAttempts": 0,
        "MetricsConfig": {"Metrics": ["EventCount"]},
        "ParallelizationFactor": 2,
        "Tags": {"team": "a"},
    }
    quiet = {"FunctionName": reader, "Enabled": False}
    with world.daemon():
        api = world.api()
        resource = Resource.created(api, full)
        resource.state["StartingPositionTimestamp"] = int(
            resource.state["StartingPositionTimestamp"].timestamp()
        )
        assert differences(full, resource.state) == {}
        resource.delete()
        led_through(
            api,
            {**quiet, "EventSourceArn": stream, "StartingPosition": "LATEST"},
            [{"BatchSize": 3}, {"Enabled": None}],
        )
        led_through(api, {**quiet, "EventSourceArn": queue}, [{"BatchSize": 3}, {"Enabled": None}])


def test_many_mappings_at_once_are_made_changed_listed_and_deleted(world: World) -> None:
    queue, (reader, _) = a_queue(world), both(world)
    configs = [{"EventSourceArn": queue, "FunctionName": f"{reader}:{n}"} for n in range(1, MAPPINGS + 1)]
    more = {"BatchSize": 5, "Tags": {"team": "a"}}
    with world.daemon(), ThreadPoolExecutor(PARALLEL) as pool:
        api = world.api()
        resources = list(pool.map(lambda config: Resource.created(api, config), configs))
        list(pool.map(lambda resource, config: resource.apply(config | more), resources, configs))
        for resource, config in zip(resources, configs, strict=True):
            assert differences(config | more, resource.state) == {}
        pages = api.get_paginator("list_event_source_mappings").paginate(PaginationConfig={"PageSize": 7})
        listed = [each["UUID"] for page in pages for each in page["EventSourceMappings"]]
        assert sorted(listed) == sorted(resource.uuid for resource in resources)
        list(pool.map(lambda resource: resource.delete(), resources))


@contextmanager
def watched(url: str) -> Iterator[set[int]]:
    """The statuses of the answers at `url`, asked for all the time until the block ends; 0 is no answer."""
    found: set[int] = set()
    ended = threading.Event()

    def watch() -> None:
        while not ended.wait(0.005):
            try:
                with urllib.request.urlopen(url, timeout=5) as answer:
                    found.add(answer.status)
            except urllib.error.HTTPError as error:
                found.add(error.code)
            except OSError:
                found.add(0)

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield found
    finally:
        ended.set()
        thread.join()


def test_no_mapping_is_said_to_be_missing_while_the_daemon_drains_or_starts(world: World) -> None:
    """Terraform would drop it from its state and make another one; a fault of the server it asks again after."""
    with world.daemon():
        api = world.api()
        resource = Resource.created(api, {"EventSourceArn": a_queue(world), "FunctionName": both(world)[0]})
    url = f"{world.url}/2015-03-31/event-source-mappings/{resource.uuid}"
    with watched(url) as statuses, world.daemon():
        becomes(world.api(), resource.uuid, "Enabled")
    assert 200 in statuses
    assert statuses <= {0, 200, 500}
