"""AWS's own clients against a daemon that is a real process: botocore's lambda client and the AWS CLI, sources on an emulator."""

import json
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import boto3.session
import pytest
import yaml
from botocore.config import Config
from botocore.exceptions import ClientError

from adapters.control.mappings.mapping_document import MEMBERS
from adapters.demo.processes import free_port, plain_environment, running
from tests.acceptance import api_function
from tests.conftest import REGION, fresh_account
from tests.emulators import Emulator

pytestmark = pytest.mark.acceptance

KEY = "AKIDPOLLER"
SECRET = "a-secret-of-the-test"
READY_S_MAX = 30.0
SOON_S = 15.0
EFFECT_S_MAX = 2.0
"""Within which a change of a mapping takes effect."""
POLL_S = 0.05


@dataclass
class World:
    """An account of the emulator, its resources, and the daemon's files."""

    emulator: str
    account: str
    folder: Path
    listen: str = field(default_factory=lambda: f"127.0.0.1:{free_port()}")

    @property
    def url(self) -> str:
        return f"http://{self.listen}"

    @property
    def journal(self) -> Path:
        return self.folder / "journal"

    def aws(self, service: str) -> Any:
        """A client for the emulator."""
        return client(service, self.emulator, self.account, "not-a-secret")

    def api(self, secret: str = SECRET) -> Any:
        """A client of AWS's Lambda that speaks to the daemon."""
        return client("lambda", self.url, KEY, secret)

    def arn(self, service: str, rest: str) -> str:
        return f"arn:aws:{service}:{REGION}:{self.account}:{rest}"

    def cli(self, *words: str) -> Any:
        """What the AWS CLI prints for `aws lambda ...`, parsed; raises CalledProcessError when it fails."""
        env = plain_environment() | {
            "AWS_ACCESS_KEY_ID": KEY,
            "AWS_SECRET_ACCESS_KEY": SECRET,
            "AWS_CONFIG_FILE": os.devnull,
            "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
            "AWS_PAGER": "",
        }
        program = [sys.executable, "-m", "awscli", "lambda", *words]
        options = ["--endpoint-url", self.url, "--region", REGION, "--output", "json"]
        done = subprocess.run(
            [*program, *options], env=env, capture_output=True, text=True, check=True, timeout=60
        )
        return json.loads(done.stdout) if done.stdout.strip() else None

    def texts(self) -> list[str]:
        """Everything that the function took without failing, in order."""
        lines = self.journal.read_text().splitlines() if self.journal.exists() else []
        calls = [json.loads(line) for line in lines if line.endswith("}")]
        return [text for call in calls if not call["fails"] for text in call["texts"]]

    def status(self, mapping: str) -> Any:
        """What /v1/mappings says of one mapping."""
        with urllib.request.urlopen(f"{self.url}/v1/mappings/{mapping}", timeout=5) as answer:
            return json.load(answer)

    @contextmanager
    def daemon(
        self, mappings: list[dict[str, Any]] | None = None, *, functions: dict[str, Any] | None = None
    ) -> Iterator[None]:
        """A daemon on this account until the block ends; it drains then."""
        config = self._written(mappings or [], functions or {})
        env = self.environment | {api_function.JOURNAL: str(self.journal)}
        command = [sys.executable, "-m", "poller", "run", "--config", str(config)]
        with running("poller", command, env, self.folder) as process:
            until(
                lambda: answers(f"{self.url}/readyz") or process.exit_status is not None,
                within_s=READY_S_MAX,
                told=process.tail,
            )
            assert process.exit_status is None, process.tail()
            yield
            process.signal(signal.SIGTERM)
            until(lambda: process.exit_status is not None, within_s=SOON_S)
            assert process.exit_status == 0, process.tail()

    def checked(self, mappings: list[dict[str, Any]]) -> Any:
        """What `poller check --live --json` says of these mappings."""
        config = self._written(mappings, {})
        words = ["check", "--config", str(config), "--live", "--json"]
        done = subprocess.run(
            [sys.executable, "-m", "poller", *words],
            env=self.environment,
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )
        return json.loads(done.stdout)

    @property
    def environment(self) -> dict[str, str]:
        """Of processes that work with this account."""
        return plain_environment() | {
            "AWS_ACCESS_KEY_ID": self.account,
            "AWS_SECRET_ACCESS_KEY": "not-a-secret",
            "AWS_EC2_METADATA_DISABLED": "true",
            "PYTHONPATH": str(Path(__file__).parents[3]),
        }

    def _written(self, mappings: list[dict[str, Any]], functions: dict[str, Any]) -> Path:
        document = self.configuration(mappings)
        document["functions"] |= functions
        config = self.folder / "poller.yaml"
        config.write_text(yaml.safe_dump(document))
        keys = self.folder / "keys.yaml"
        keys.write_text(f"{KEY}: {SECRET}\n")
        keys.chmod(0o600)
        return config

    def configuration(self, mappings: list[dict[str, Any]]) -> dict[str, Any]:
        function = {"invoker": "python", "handler": "tests.acceptance.api_function:handler", "timeout_s": 5}
        return {
            "region": REGION,
            "endpoint_url": self.emulator,
            "listen": self.listen,
            "store": f"sqlite://{self.folder / 'state.db'}",
            "api": {"access_keys_file": str(self.folder / "keys.yaml")},
            "default_invoker": "lambda",
            "functions": {name: dict(function) for name in ("reader", "writer")},
            "mappings": mappings,
            "tuning": {"idle_poll_s": 0.2, "grace_s": 5},
        }


def client(service: str, url: str, key: str, secret: str) -> Any:
    session = boto3.session.Session(aws_access_key_id=key, aws_secret_access_key=secret, region_name=REGION)
    config = Config(retries={"max_attempts": 0}, read_timeout=20)
    return session.client(service, endpoint_url=url, config=config)


def answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=5):
            return True
    except (urllib.error.URLError, ConnectionError, TimeoutError):
        return False


def until(holds: Callable[[], object], *, within_s: float, told: Callable[[], str] = str) -> float:
    """Seconds until `holds()`; fails, with what is `told` then, when it does not come true."""
    began = time.monotonic()
    while not holds():
        assert time.monotonic() - began < within_s, f"did not come true within {within_s:g} s\n{told()}"
        time.sleep(POLL_S)
    return time.monotonic() - began


@pytest.fixture
def world(ministack: Emulator, tmp_path: Path) -> World:
    return World(ministack.url, fresh_account(), tmp_path)


def a_queue(world: World, name: str = "orders", **attributes: str) -> str:
    if name.endswith(".fifo"):
        attributes["FifoQueue"] = "true"
    world.aws("sqs").create_queue(QueueName=name, Attributes=attributes)
    return world.arn("sqs", name)


def a_stream(world: World, name: str = "readings") -> str:
    kinesis = world.aws("kinesis")
    kinesis.create_stream(StreamName=name, ShardCount=1)
    kinesis.get_waiter("stream_exists").wait(StreamName=name, WaiterConfig={"Delay": 1, "MaxAttempts": 10})
    return world.arn("kinesis", f"stream/{name}")


def a_table_stream(world: World, name: str = "stock") -> str:
    made = world.aws("dynamodb").create_table(
        TableName=name,
        AttributeDefinitions=[{"AttributeName": "pk", "AttributeType": "S"}],
        KeySchema=[{"AttributeName": "pk", "KeyType": "HASH"}],
        BillingMode="PAY_PER_REQUEST",
        StreamSpecification={"StreamEnabled": True, "StreamViewType": "NEW_IMAGE"},
    )
    arn: str = made["TableDescription"]["LatestStreamArn"]
    return arn


def send(world: World, *texts: str, queue: str = "orders") -> None:
    sqs = world.aws("sqs")
    url = sqs.get_queue_url(QueueName=queue)["QueueUrl"]
    for text in texts:
        sqs.send_message(QueueUrl=url, MessageBody=text)


def put(world: World, *texts: str, stream: str = "readings") -> None:
    kinesis = world.aws("kinesis")
    for text in texts:
        kinesis.put_record(StreamName=stream, Data=text.encode(), PartitionKey="k")


def becomes(api: Any, mapping: str, state: str, *, within_s: float = SOON_S) -> float:
    return until(lambda: api.get_event_source_mapping(UUID=mapping)["State"] == state, within_s=within_s)


def gone(api: Any, mapping: str) -> bool:
    try:
        api.get_event_source_mapping(UUID=mapping)
    except api.exceptions.ResourceNotFoundException:
        return True
    return False


def test_the_sdk_leads_a_queue_mapping_through_its_life(world: World) -> None:
    queue = a_queue(world, VisibilityTimeout="6")
    with world.daemon():
        api = world.api()
        made = api.create_event_source_mapping(
            FunctionName="reader", EventSourceArn=queue, Tags={"team": "a"}
        )
        mapping, arn = made["UUID"], made["EventSourceMappingArn"]
        assert (made["State"], made["StateTransitionReason"], made["BatchSize"]) == (
            "Creating",
            "USER_INITIATED",
            10,
        )
        assert made["FunctionArn"] == world.arn("lambda", "function:reader")
        assert arn == world.arn("lambda", f"event-source-mapping:{mapping}")
        becomes(api, mapping, "Enabled")
        send(world, "one", "two")
        until(lambda: sorted(world.texts()) == ["one", "two"], within_s=SOON_S)

        changed = api.update_event_source_mapping(UUID=mapping, BatchSize=5)
        assert (changed["State"], changed["BatchSize"]) == ("Updating", 5)
        becomes(api, mapping, "Enabled")
        assert api.update_event_source_mapping(UUID=mapping, Enabled=False)["State"] == "Disabling"
        becomes(api, mapping, "Disabled", within_s=EFFECT_S_MAX)
        send(world, "three")
        time.sleep(1.0)
        assert "three" not in world.texts()
        assert api.update_event_source_mapping(UUID=mapping, Enabled=True)["State"] == "Enabling"
        until(lambda: "three" in world.texts(), within_s=SOON_S)

        api.tag_resource(Resource=arn, Tags={"a b": "ü+/="})
        api.untag_resource(Resource=arn, TagKeys=["team"])
        assert api.list_tags(Resource=arn)["Tags"] == {"a b": "ü+/="}
        assert api.delete_event_source_mapping(UUID=mapping)["State"] == "Deleting"
        until(lambda: gone(api, mapping), within_s=SOON_S)
        assert api.list_event_source_mappings()["EventSourceMappings"] == []


def test_the_cli_leads_a_stream_mapping_through_its_life(world: World) -> None:
    stream = a_stream(world)
    with world.daemon():
        words = [
            "--function-name",
            "reader:live",
            "--event-source-arn",
            stream,
            "--starting-position",
            "TRIM_HORIZON",
        ]
        made = world.cli(
            "create-event-source-mapping", *words, "--maximum-retry-attempts", "2", "--tags", "team=a"
        )
        mapping = made["UUID"]
        assert (made["State"], made["StateTransitionReason"]) == ("Creating", "User action")
        assert made["FunctionArn"] == world.arn("lambda", "function:reader:live")
        assert made["DestinationConfig"] == {"OnFailure": {}}
        assert made["LastProcessingResult"] == "No records processed"
        api = world.api()
        becomes(api, mapping, "Enabled")
        put(world, "one", "two")
        until(lambda: world.texts() == ["one", "two"], within_s=SOON_S)
        until(
            lambda: api.get_event_source_mapping(UUID=mapping)["LastProcessingResult"] == "OK",
            within_s=SOON_S,
        )

        listed = world.cli("list-event-source-mappings", "--function-name", "reader:live")
        assert [each["UUID"] for each in listed["EventSourceMappings"]] == [mapping]
        assert (
            world.cli("list-event-source-mappings", "--function-name", "reader")["EventSourceMappings"] == []
        )
        changed = world.cli("update-event-source-mapping", "--uuid", mapping, "--no-enabled")
        assert changed["State"] == "Disabling"
        becomes(api, mapping, "Disabled", within_s=EFFECT_S_MAX)
        assert world.cli("list-tags", "--resource", made["EventSourceMappingArn"]) == {"Tags": {"team": "a"}}
        assert world.cli("delete-event-source-mapping", "--uuid", mapping)["State"] == "Deleting"
        with pytest.raises(subprocess.CalledProcessError) as caught:
            until(lambda: world.cli("get-event-source-mapping", "--uuid", mapping) is None, within_s=SOON_S)
        assert "(ResourceNotFoundException)" in caught.value.stderr


def test_mappings_of_the_api_survive_a_restart(world: World) -> None:
    stream = a_stream(world)
    with world.daemon():
        api = world.api()
        made = api.create_event_source_mapping(
            FunctionName="reader", EventSourceArn=stream, StartingPosition="TRIM_HORIZON", Tags={"a": "b"}
        )
        becomes(api, made["UUID"], "Enabled")
        put(world, "one")
        until(lambda: world.texts() == ["one"], within_s=SOON_S)
    with world.daemon():
        api = world.api()
        becomes(api, made["UUID"], "Enabled")
        assert api.list_tags(Resource=made["EventSourceMappingArn"])["Tags"] == {"a": "b"}
        put(world, "two")
        until(lambda: world.texts() == ["one", "two"], within_s=SOON_S)


def test_an_update_frees_a_shard_that_a_poison_record_blocks(world: World) -> None:
    stream = a_stream(world)
    with world.daemon():
        api = world.api()
        made = api.create_event_source_mapping(
            FunctionName="reader", EventSourceArn=stream, StartingPosition="TRIM_HORIZON", BatchSize=1
        )
        mapping = made["UUID"]
        becomes(api, mapping, "Enabled")
        put(world, api_function.POISON, "behind")

        def blocked() -> list[Any]:
            lanes = [lane for shard in world.status(mapping)["shards"] for lane in shard["lanes"]]
            return [lane for lane in lanes if lane["blocked_since"] is not None and lane["attempts"] >= 2]

        until(blocked, within_s=SOON_S)
        (lane,) = blocked()
        assert "poison record" in lane["last_error"]
        assert [record["key"] for record in lane["records"]] == ["k"]
        assert (
            api.get_event_source_mapping(UUID=mapping)["LastProcessingResult"]
            == "PROBLEM: Function call failed"
        )
        assert world.texts() == []
        api.update_event_source_mapping(UUID=mapping, MaximumRetryAttempts=1)
        took_s = until(lambda: world.texts() == ["behind"], within_s=SOON_S)
        assert took_s < EFFECT_S_MAX + 1.0
        assert blocked() == []


def test_mappings_of_the_file_are_shown_and_refuse_changes(world: World) -> None:
    queue = a_queue(world)
    with world.daemon([{"FunctionName": "reader", "EventSourceArn": queue}]):
        api = world.api()
        (shown,) = api.list_event_source_mappings(FunctionName="reader")["EventSourceMappings"]
        changes: list[Callable[[], Any]] = [
            lambda: api.update_event_source_mapping(UUID=shown["UUID"], BatchSize=1),
            lambda: api.delete_event_source_mapping(UUID=shown["UUID"]),
        ]
        for change in changes:
            with pytest.raises(ClientError) as caught:
                change()
            assert caught.value.response["ResponseMetadata"]["HTTPStatusCode"] == 409
            assert "configuration file" in caught.value.response["Error"]["Message"]


def test_refusals_have_the_words_of_aws(world: World) -> None:
    queue, fifo, stream, table = (
        a_queue(world),
        a_queue(world, "a.fifo"),
        a_stream(world),
        a_table_stream(world),
    )
    short = a_queue(world, "short", VisibilityTimeout="2")
    with world.daemon():
        api = world.api()
        made = {source: create(api, source) for source in (queue, stream)}
        for given, code, text in refusals(
            world, queue=queue, fifo=fifo, stream=stream, table=table, short=short
        ):
            with pytest.raises(ClientError) as caught:
                api.create_event_source_mapping(**given)
            error = caught.value.response["Error"]
            wanted = text.format(**{"queue_id": made[queue], "stream_id": made[stream]})
            assert (error["Code"], error["Message"]) == (code, wanted)


def create(api: Any, source: str) -> str:
    """The id of a new mapping of the function `reader`."""
    start = {} if ":sqs:" in source else {"StartingPosition": "LATEST"}
    mapping: str = api.create_event_source_mapping(FunctionName="reader", EventSourceArn=source, **start)[
        "UUID"
    ]
    return mapping


def refusals(
    world: World, *, queue: str, fifo: str, stream: str, table: str, short: str
) -> list[tuple[dict[str, Any], str, str]]:
    """Requests, and the error and the text that AWS answers (aws-behaviour#error-texts)."""
    parameter, validation, conflict = (
        "InvalidParameterValueException",
        "ValidationException",
        "ResourceConflictException",
    )
    no_queue, no_stream = world.arn("sqs", "nothing"), world.arn("kinesis", "stream/nothing")
    on_queue = {"FunctionName": "writer", "EventSourceArn": queue}
    on_stream = {"FunctionName": "writer", "EventSourceArn": stream, "StartingPosition": "LATEST"}
    detected = "1 validation error detected: Value"
    return [
        ({"FunctionName": "writer"}, parameter, "Unrecognized event source."),
        ({**on_queue, "FunctionName": "nobody"}, parameter, "Function does not exist"),
        (
            {**on_queue, "DestinationConfig": {"OnFailure": {"Destination": queue}}},
            parameter,
            "Unsupported DestinationConfig parameter for given event source mapping type.",
        ),
        ({**on_stream, "EventSourceArn": no_stream}, parameter, f"Stream not found: {no_stream}"),
        (
            {**on_queue, "EventSourceArn": no_queue},
            parameter,
            "Error occurred while ReceiveMessage. SQS Error Code: AWS.SimpleQueueService.NonExistentQueue. "
            "SQS Error Message: The specified queue does not exist.",
        ),
        (
            {**on_queue, "BatchSize": 11},
            parameter,
            "Maximum batch window in seconds must be greater than 0 if maximum batch size is greater than 10",
        ),
        (
            {**on_queue, "FilterCriteria": {"Filters": [{"Pattern": "{"}]}},
            parameter,
            "Invalid filter pattern definition.",
        ),
        (
            {"FunctionName": "writer", "EventSourceArn": stream},
            parameter,
            f"{detected} null at 'startingPosition' failed to satisfy constraint: Member must not be null.",
        ),
        (
            {**on_stream, "StartingPosition": "invalid"},
            validation,
            f"{detected} 'invalid' at 'startingPosition' failed to satisfy constraint: "
            "Member must satisfy enum value set: [LATEST, AT_TIMESTAMP, TRIM_HORIZON]",
        ),
        (
            {
                **on_stream,
                "EventSourceArn": table,
                "StartingPosition": "AT_TIMESTAMP",
                "StartingPositionTimestamp": 1,
            },
            parameter,
            f"Unsupported starting position for arn type: {table}",
        ),
        (
            {"FunctionName": "reader", "EventSourceArn": queue},
            conflict,
            f'An event source mapping with SQS arn (" {queue} ") and function (" reader ") already exists. '
            "Please update or delete the existing mapping with UUID {queue_id}",
        ),
        (
            {"FunctionName": "reader", "EventSourceArn": stream, "StartingPosition": "LATEST"},
            conflict,
            f'The event source arn (" {stream} ") and function (" reader ") provided mapping already exists. '
            "Please update or delete the existing mapping with UUID {stream_id}",
        ),
        (
            {**on_queue, "EventSourceArn": short},
            parameter,
            "Queue visibility timeout: 2 seconds is less than Function timeout: 5 seconds",
        ),
        (
            {**on_queue, "EventSourceArn": fifo, "MaximumBatchingWindowInSeconds": 1},
            parameter,
            "Batching window is not supported for FIFO queues",
        ),
        (
            {**on_stream, "MaximumRecordAgeInSeconds": 59},
            parameter,
            "MaximumRecordAgeInSeconds must be either -1 (forever) or between 60 and 604800 (inclusive)",
        ),
    ]


def test_a_table_streams_mapping_is_made_by_the_sdk(world: World) -> None:
    table = a_table_stream(world)
    with world.daemon():
        api = world.api()
        made = api.create_event_source_mapping(
            FunctionName="writer", EventSourceArn=table, StartingPosition="TRIM_HORIZON", Enabled=True
        )
        becomes(api, made["UUID"], "Enabled")
        world.aws("dynamodb").put_item(TableName="stock", Item={"pk": {"S": "a"}})
        until(lambda: world.texts() == ["a"], within_s=SOON_S)


@pytest.mark.parametrize(("queue", "state"), [(True, "Disabled"), (False, "Creating")])
def test_a_mapping_that_is_made_disabled_reads_nothing(world: World, queue: bool, state: str) -> None:
    source = a_queue(world) if queue else a_stream(world)
    start = {} if queue else {"StartingPosition": "TRIM_HORIZON"}
    with world.daemon():
        api = world.api()
        made = api.create_event_source_mapping(
            FunctionName="reader", EventSourceArn=source, Enabled=False, **start
        )
        assert made["State"] == state
        becomes(api, made["UUID"], "Disabled")
        if queue:
            send(world, "one")
        else:
            put(world, "one")
        time.sleep(1.0)
        assert world.texts() == []


def test_the_answers_on_the_wire_have_all_members_and_a_wrong_secret_none(world: World) -> None:
    queue = a_queue(world)
    with world.daemon():
        made = world.api().create_event_source_mapping(FunctionName="reader", EventSourceArn=queue)
        path = f"{world.url}/2015-03-31/event-source-mappings/{made['UUID']}"
        with urllib.request.urlopen(path, timeout=5) as answer:
            body = json.load(answer)
        assert tuple(body) == MEMBERS
        assert body["FunctionResponseTypes"] == []
        with pytest.raises(ClientError) as caught:
            world.api("guess").delete_event_source_mapping(UUID=made["UUID"])
        assert caught.value.response["Error"]["Code"] == "InvalidSignatureException"
        log = (world.folder / "poller.log").read_text()
        assert SECRET not in log
        assert "guess" not in log
