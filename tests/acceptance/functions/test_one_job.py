"""The same thousand records through every invoker, with a real daemon each: what settles, in which order, and what is given up is the same."""

import base64
import io
import json
import sys
import zipfile
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from adapters.demo.processes import free_port, plain_environment, running
from tests.acceptance.clients.test_aws_clients import World, answers, until
from tests.acceptance.functions import one_job
from tests.acceptance.functions.job_server import RUNTIME_INTERFACE
from tests.conftest import fresh_account
from tests.emulators import Emulator

pytestmark = pytest.mark.acceptance

LIMIT_S = 3
LATE_S = 3.5
VISIBILITY_S = 5
RECEIVES_MAX = 5
SHARDS = {"a": "0", "b": str(2**127)}
"""The stream's two shards, by the hash key that leads to each."""
EACH = 300
GROUPS, IN_GROUP = 20, 20
SETTLED_S_MAX = 240.0
READY_S_MAX = 30.0
STREAM_DOES = {
    "a": {60: "raise once", 120: "late once", 170: "report once", 217: "raise"},
    "b": {10: "report", 205: "late once"},
}
QUEUE_DOES = {
    "q03": {7: "raise once"},
    "q08": {5: "late once"},
    "q11": {2: "report once"},
    "q15": {19: "report"},
}
QUEUE_POISON = "q15:019"


@dataclass
class Account:
    """What the journal says of one run."""

    calls: dict[str, list[tuple[str, str, str]]] = field(default_factory=dict)
    """For each shard its calls in order: the first record, the last one, and how the call ended."""
    done: dict[str, list[str]] = field(default_factory=dict)
    """For each key its records in the order in which they were done."""
    tries: Counter[str] = field(default_factory=Counter)

    @property
    def settled(self) -> set[str]:
        """Records that were done."""
        return {name for names in self.done.values() for name in names}


def account_of(journal: Path) -> Account:
    """Reads a journal."""
    found = Account()
    for line in map(json.loads, journal.read_text().splitlines() if journal.exists() else ()):
        found.tries.update(line["got"])
        shard = line["got"][0].split(":")[0]
        if shard in SHARDS:
            found.calls.setdefault(shard, []).append((line["got"][0], line["got"][-1], line["how"]))
        for name in line["done"]:
            found.done.setdefault(name.split(":")[0], []).append(name)
    return found


def tasks(keys: list[str], count: int, does: dict[str, dict[int, str]]) -> list[dict[str, Any]]:
    """Records of these keys, in turns."""
    return [
        {"key": key, "n": number, "do": does.get(key, {}).get(number, "")}
        for number in range(count)
        for key in keys
    ]


STREAM = tasks(list(SHARDS), EACH, STREAM_DOES)
QUEUE = tasks([f"q{group:02d}" for group in range(GROUPS)], IN_GROUP, QUEUE_DOES)
TASKS = STREAM + QUEUE


def _name(task: dict[str, Any]) -> str:
    return f"{task['key']}:{task['n']:03d}"


NAMES = set(map(_name, TASKS))


@contextmanager
def served(folder: Path, environment: dict[str, str]) -> Iterator[str]:
    """Serves the job; yields the server's URL."""
    port = free_port()
    command = [sys.executable, "-m", "tests.acceptance.functions.job_server", str(port)]
    with running("server", command, plain_environment() | environment, folder) as process:
        url = f"http://127.0.0.1:{port}"
        until(lambda: answers(url), within_s=READY_S_MAX, told=process.tail)
        yield url


def deploy(world: World, environment: dict[str, str]) -> None:
    """Makes the job a function of the emulator's Lambda."""
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as zipped:
        zipped.writestr("one_job.py", Path(one_job.__file__).read_text())
    world.aws("lambda").create_function(
        FunctionName="job",
        Runtime="python3.13",
        Role="arn:aws:iam::111122223333:role/job",
        Handler="one_job.handler",
        Timeout=LIMIT_S,
        Environment={"Variables": environment},
        Code={"ZipFile": archive.getvalue()},
    )


HANDLER = "tests.acceptance.functions.one_job:handler"
RIC = [sys.executable, "-m", "awslambdaric", "tests.acceptance.functions.one_job.handler"]
WAYS: dict[str, Callable[[str], dict[str, Any]]] = {
    "python": lambda _: {"invoker": "python", "handler": HANDLER, "workers": 4},
    "python in processes": lambda _: {
        "invoker": "python",
        "handler": HANDLER,
        "isolation": "process",
        "processes": 4,
    },
    "process": lambda _: {"invoker": "process", "command": RIC, "processes": 4},
    "http plain": lambda url: {"invoker": "http", "url": f"{url}/plain", "style": "plain"},
    "http runtime-interface": lambda url: {"invoker": "http", "url": url + RUNTIME_INTERFACE},
    "http CloudEvents": lambda url: {
        "invoker": "http",
        "url": f"{url}/cloud-events",
        "cloud_events": "batched",
    },
    "lambda": lambda _: {"invoker": "lambda"},
}


@contextmanager
def entry(way: str, world: World, environment: dict[str, str]) -> Iterator[dict[str, Any]]:
    """What the configuration says of the function, which can be called inside the block."""
    common = {"max_concurrency": 4, **({} if way == "lambda" else {"timeout_s": LIMIT_S})}
    if way == "lambda":
        deploy(world, environment)
    if not way.startswith("http"):
        yield WAYS[way]("") | common
        return
    with served(world.folder, environment) as url:
        yield WAYS[way](url) | common


def fill(world: World) -> tuple[str, str, str]:
    """Makes stream, queue and dead-letter queue and writes all records; returns the ARNs of the sources and the URL of the last."""
    kinesis, sqs = world.aws("kinesis"), world.aws("sqs")
    kinesis.create_stream(StreamName="job", ShardCount=len(SHARDS))
    kinesis.get_waiter("stream_exists").wait(StreamName="job", WaiterConfig={"Delay": 1})
    for start in range(0, len(STREAM), 100):
        records = [
            {
                "Data": json.dumps(task).encode(),
                "PartitionKey": task["key"],
                "ExplicitHashKey": SHARDS[task["key"]],
            }
            for task in STREAM[start : start + 100]
        ]
        assert not kinesis.put_records(StreamName="job", Records=records)["FailedRecordCount"]
    dead = sqs.create_queue(QueueName="dead.fifo", Attributes={"FifoQueue": "true"})["QueueUrl"]
    redrive = {
        "deadLetterTargetArn": world.arn("sqs", "dead.fifo"),
        "maxReceiveCount": str(RECEIVES_MAX),
    }
    attributes = {
        "FifoQueue": "true",
        "VisibilityTimeout": str(VISIBILITY_S),
        "RedrivePolicy": json.dumps(redrive),
    }
    queue = sqs.create_queue(QueueName="job.fifo", Attributes=attributes)["QueueUrl"]
    for start in range(0, len(QUEUE), 10):
        entries = [
            {
                "Id": str(place),
                "MessageBody": json.dumps(task),
                "MessageGroupId": task["key"],
                "MessageDeduplicationId": f"{task['key']}-{task['n']}",
            }
            for place, task in enumerate(QUEUE[start : start + 10])
        ]
        assert len(sqs.send_message_batch(QueueUrl=queue, Entries=entries)["Successful"]) == len(entries)
    return world.arn("kinesis", "stream/job"), world.arn("sqs", "job.fifo"), dead


def mappings(world: World, stream: str, queue: str) -> list[dict[str, Any]]:
    """The two mappings of the job."""
    common = {
        "FunctionName": world.arn("lambda", "function:job"),
        "FunctionResponseTypes": ["ReportBatchItemFailures"],
    }
    of_stream = {
        "EventSourceArn": stream,
        "StartingPosition": "TRIM_HORIZON",
        "BatchSize": 50,
        "MaximumRetryAttempts": 2,
        "BisectBatchOnFunctionError": True,
        "DestinationConfig": {"OnFailure": {"Destination": (world.folder / "failed").as_uri()}},
    }
    return [common | of_stream, common | {"EventSourceArn": queue, "BatchSize": 10}]


def documents(folder: Path) -> dict[str, dict[str, Any]]:
    """The documents at the on-failure destination without ids and times, by the record that they are about."""
    lines = [line for each in sorted(folder.iterdir()) for line in each.read_text().splitlines()]
    found = {}
    for document in map(json.loads, lines):
        records = json.loads(document["payload"])["Records"]
        names = [_name(json.loads(base64.b64decode(record["kinesis"]["data"]))) for record in records]
        about = document["KinesisBatchInfo"]
        document["requestContext"].pop("requestId")
        assert about["startSequenceNumber"] == records[0]["kinesis"]["sequenceNumber"]
        assert about["endSequenceNumber"] == records[-1]["kinesis"]["sequenceNumber"]
        found[names[0]] = {
            "context": document["requestContext"],
            "response": document.get("responseContext"),
            "version": document["version"],
            "batch": (about["batchSize"], about["shardId"], about["streamArn"]),
            "names": names,
            "members": list(document),
        }
    assert len(found) == len(lines), "a document came twice"
    return found


CALLS = {
    "a": [
        ("a:000", "a:049", "done"),
        ("a:050", "a:099", "raised"),  # A raise halves the batch.
        ("a:050", "a:074", "done"),
        ("a:075", "a:099", "done"),
        ("a:100", "a:149", "late"),  # So does the end of its time.
        ("a:100", "a:124", "done"),
        ("a:125", "a:149", "done"),
        ("a:150", "a:199", "partial"),  # After a report the stream goes on at the first record that failed.
        ("a:170", "a:199", "done"),
        ("a:200", "a:249", "raised"),
        ("a:200", "a:224", "raised"),
        ("a:200", "a:211", "done"),
        ("a:212", "a:224", "raised"),
        ("a:212", "a:217", "raised"),
        ("a:212", "a:214", "done"),
        ("a:215", "a:217", "raised"),
        ("a:215", "a:215", "done"),
        ("a:216", "a:217", "raised"),
        ("a:216", "a:216", "done"),
        ("a:217", "a:217", "raised"),
        ("a:217", "a:217", "raised"),
        ("a:217", "a:217", "raised"),
        ("a:218", "a:224", "done"),
        ("a:225", "a:249", "done"),
        ("a:250", "a:299", "done"),
    ],
    "b": [
        ("b:000", "b:049", "partial"),
        ("b:010", "b:049", "partial"),
        ("b:010", "b:029", "partial"),
        ("b:010", "b:019", "partial"),
        ("b:010", "b:014", "partial"),
        ("b:010", "b:011", "partial"),
        ("b:010", "b:010", "partial"),
        ("b:010", "b:010", "partial"),
        ("b:010", "b:010", "partial"),
        ("b:011", "b:011", "done"),
        ("b:012", "b:014", "done"),
        ("b:015", "b:019", "done"),
        ("b:020", "b:029", "done"),
        ("b:030", "b:049", "done"),
        ("b:050", "b:099", "done"),
        ("b:100", "b:149", "done"),
        ("b:150", "b:199", "done"),
        ("b:200", "b:249", "late"),
        ("b:200", "b:224", "done"),
        ("b:225", "b:249", "done"),
        ("b:250", "b:299", "done"),
    ],
}
"""Each call of the two shards, whoever makes it: its first record, its last one, and how it ended."""
GIVEN_UP = {"a:217": ("shardId-000000000000", "Unhandled"), "b:010": ("shardId-000000000001", None)}
"""The records that get a document, with their shard and the `functionError` of their last call."""


def document_of(name: str, world: World) -> dict[str, Any]:
    """The document that a record that was given up must have, as `documents` shows it."""
    shard, error = GIVEN_UP[name]
    return {
        "context": {
            "functionArn": world.arn("lambda", "function:job"),
            "condition": "RetryAttemptsExhausted",
            "approximateInvokeCount": 3,
        },
        "response": {"statusCode": 200, "executedVersion": "$LATEST", "functionError": error},
        "version": "1.0",
        "batch": (1, shard, world.arn("kinesis", "stream/job")),
        "names": [name],
        "members": [
            "requestContext",
            "responseContext",
            "version",
            "payload",
            "timestamp",
            "KinesisBatchInfo",
        ],
    }


@dataclass
class Watch:
    """Looks at what a run has done so far, by clients that are made once."""

    world: World
    dead: str
    given_up: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._sqs = self.world.aws("sqs")

    @property
    def journal(self) -> Path:
        """The job's journal; the daemon's own function, which nobody calls, has another one."""
        return self.world.folder / "job"

    def over(self) -> bool:
        """Whether every record is done or given up."""
        answer = self._sqs.receive_message(QueueUrl=self.dead, WaitTimeSeconds=1)
        for message in answer.get("Messages", ()):
            self.given_up.append(_name(json.loads(message["Body"])))
            self._sqs.delete_message(QueueUrl=self.dead, ReceiptHandle=message["ReceiptHandle"])
        done = account_of(self.journal).settled
        return done == NAMES - {*GIVEN_UP, QUEUE_POISON} and len(self.given_up) == 1 and self.noticed

    @property
    def noticed(self) -> bool:
        """Whether the documents are there."""
        files = list((self.world.folder / "failed").iterdir())
        return sum(len(each.read_text().splitlines()) for each in files) == len(GIVEN_UP)


@pytest.mark.parametrize("way", WAYS)
def test_a_thousand_records_end_in_the_same_way_behind_every_invoker(
    way: str, ministack: Emulator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = World(ministack.url, fresh_account(), tmp_path)
    (tmp_path / "failed").mkdir()
    stream, queue, dead = fill(world)
    watch = Watch(world, dead)
    environment = {
        one_job.JOURNAL: str(watch.journal),
        one_job.LATE_S: str(LATE_S),
        "PYTHONPATH": str(Path(__file__).parents[3]),
    }
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    with (
        entry(way, world, environment) as function,
        world.daemon(mappings(world, stream, queue), functions={"job": function}),
    ):
        until(watch.over, within_s=SETTLED_S_MAX, told=lambda: str(account_of(watch.journal)))
    found = account_of(watch.journal)
    assert found.calls == CALLS
    assert found.settled == NAMES - {*GIVEN_UP, QUEUE_POISON}
    in_order = {
        key: sorted(found.settled & {_name(task) for task in TASKS if task["key"] == key})
        for key in found.done
    }
    assert found.done == in_order, "a key's records were done twice or out of order"
    assert watch.given_up == [QUEUE_POISON]
    assert found.tries[QUEUE_POISON] == RECEIVES_MAX
    assert documents(tmp_path / "failed") == {name: document_of(name, world) for name in GIVEN_UP}
