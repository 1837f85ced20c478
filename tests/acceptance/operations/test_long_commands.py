"""`poller redrive` on the dead-letter queue of a source, and `poller seek` on a table's stream: each asked of a worker that need not have the target."""

import json
from collections.abc import Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest

from tests.acceptance.daemons import Ended, command
from tests.acceptance.operations.fleet import MAPPING, Fleet, fleet, in_order, until
from tests.emulators import Emulator

pytestmark = pytest.mark.acceptance

TABLE = "items"
S_MAX = 60.0
GROUPS = ("a", "b")


def asked(found: Fleet, worker: str, *words: str) -> Ended:
    """Runs a command against a worker."""
    return command(words[0], MAPPING, *words[1:], "--url", found.urls[worker])


# Dead-letter queues.


def a_queue(found: Fleet, *, fifo: bool) -> str:
    """A queue whose messages are moved after one failed receive; returns the ARN of its dead-letter queue."""
    end = ".fifo" if fifo else ""
    kind = {"FifoQueue": "true"} if fifo else {}
    dead = found.arn("sqs", f"dead{end}")
    policy = json.dumps({"deadLetterTargetArn": dead, "maxReceiveCount": "1"})
    sqs = found.aws("sqs")
    sqs.create_queue(QueueName=f"dead{end}", Attributes=kind)
    attributes = {"VisibilityTimeout": "5", "RedrivePolicy": policy, **kind}
    sqs.create_queue(QueueName=f"work{end}", Attributes=attributes)
    found.mapping = {"EventSourceArn": found.arn("sqs", f"work{end}"), "BatchSize": 1}
    return dead


def send(found: Fleet, bodies: Sequence[str], *, fifo: bool) -> None:
    """Sends messages; in a FIFO queue the first word of each is its group."""
    sqs = found.aws("sqs")
    url = sqs.get_queue_url(QueueName="work.fifo" if fifo else "work")["QueueUrl"]
    for body in bodies:
        more = {"MessageGroupId": body.split(" ")[0], "MessageDeduplicationId": body} if fifo else {}
        sqs.send_message(QueueUrl=url, MessageBody=body, **more)


def left(found: Fleet, name: str) -> int:
    """How many messages a queue has, hidden ones too."""
    sqs = found.aws("sqs")
    names = ["ApproximateNumberOfMessages", "ApproximateNumberOfMessagesNotVisible"]
    url = sqs.get_queue_url(QueueName=name)["QueueUrl"]
    return sum(map(int, sqs.get_queue_attributes(QueueUrl=url, AttributeNames=names)["Attributes"].values()))


@pytest.mark.timeout(240)
@pytest.mark.parametrize("fifo", [False, True], ids=["standard", "fifo"])
def test_the_command_redrives_the_dead_letters_of_a_queue_through_either_worker(
    tmp_path: Path, ministack: Emulator, fifo: bool
) -> None:
    end = ".fifo" if fifo else ""
    bodies = [f"{group} {number}" for number in range(3) for group in GROUPS]
    with fleet(tmp_path, {"sqs": ministack.url}) as found:
        dead = a_queue(found, fifo=fifo)
        found.fail(True)
        found.start("w1")
        found.start("w2")
        send(found, bodies, fifo=fifo)
        until(lambda: left(found, f"dead{end}") == len(bodies), within_s=S_MAX, told=found.tails)
        assert found.taken() == []

        planned = asked(found, "w2", "redrive", "--from", dead, "--dry-run")
        assert planned.status == 0, planned
        again = asked(found, "w2", "redrive", "--from", dead, "--limit", "1", "--yes")
        assert again.status == 1, "the function still fails"
        found.fail(False)
        assert (found.taken(), left(found, f"dead{end}")) == ([], len(bodies))

        assert asked(found, "w2", "redrive", "--from", dead).status == 2, "nobody can be asked"
        first = asked(found, "w2", "redrive", "--from", dead, "--limit", "2", "--yes", "--reason", "a test")
        assert first.status == 0, (first, found.tails())
        assert len(found.taken()) == 2
        rest = asked(found, "w1", "redrive", "--from", dead, "--yes", "--json")
        assert rest.status == 0, (rest, found.tails())
        assert json.loads(rest.out)["state"] == "done"
        assert sorted(found.taken()) == sorted(bodies)
        assert (left(found, f"dead{end}"), left(found, f"work{end}")) == (0, 0)
        if fifo:
            assert in_order(found.taken(), key=_group, number=_number) == []


# A table's stream.


def a_table(folder: Path, ministack: Emulator) -> AbstractContextManager[Fleet]:
    return fleet(folder, dict.fromkeys(("dynamodb", "dynamodbstreams"), ministack.url))


def make(found: Fleet) -> None:
    """A table with a stream, which the mapping reads."""
    described = found.aws("dynamodb").create_table(
        TableName=TABLE,
        KeySchema=[{"AttributeName": "pk", "KeyType": "HASH"}],
        AttributeDefinitions=[{"AttributeName": "pk", "AttributeType": "S"}],
        BillingMode="PAY_PER_REQUEST",
        StreamSpecification={"StreamEnabled": True, "StreamViewType": "NEW_IMAGE"},
    )
    arn = described["TableDescription"]["LatestStreamArn"]
    found.mapping = {"EventSourceArn": arn, "StartingPosition": "TRIM_HORIZON", "BatchSize": 5}


def put(found: Fleet, numbers: Sequence[int]) -> None:
    for number in numbers:
        found.aws("dynamodb").put_item(TableName=TABLE, Item={"pk": {"S": f"k {number}"}})


def keys(numbers: Sequence[int]) -> list[str]:
    return [f"k {number}" for number in numbers]


def takes(found: Fleet, expected: list[str]) -> None:
    until(
        lambda: found.taken() == expected,
        within_s=S_MAX,
        told=lambda: f"{found.taken()} is not {expected}\n{found.tails()}",
    )


@pytest.mark.timeout(240)
def test_the_command_moves_a_tables_stream_through_either_worker(tmp_path: Path, ministack: Emulator) -> None:
    with a_table(tmp_path, ministack) as found:
        make(found)
        found.start("w1")
        found.start("w2")
        put(found, range(6))
        takes(found, keys(range(6)))

        planned = asked(found, "w2", "seek", "--to", "TRIM_HORIZON", "--dry-run")
        assert planned.status == 0, planned
        assert planned.out.count("- shard ") == 1
        assert asked(found, "w2", "seek", "--to", "TRIM_HORIZON").status == 2, "nobody can be asked"
        # Either worker is asked; the shard has one owner, so that one of them is not it.
        expected = keys(range(6))
        for worker in ("w1", "w2"):
            moved = asked(found, worker, "seek", "--to", "TRIM_HORIZON", "--yes", "--reason", "a test")
            assert (moved.status, moved.out) == (0, "seek done: 1 shard moved to TRIM_HORIZON\n"), moved
            expected += keys(range(6))
            takes(found, expected)

        found.fail(True)
        put(found, range(6, 9))
        until(lambda: _blocked(found), within_s=S_MAX, told=found.tails)
        refused = asked(found, "w1", "seek", "--to", "LATEST", "--yes")
        assert refused.status == 1, refused
        assert "add --skip" in refused.out
        skipped = asked(found, "w2", "seek", "--to", "LATEST", "--skip", "--yes")
        assert skipped.status == 0, skipped
        found.fail(False)
        put(found, range(9, 12))
        takes(found, expected + keys(range(9, 12)))


def _blocked(found: Fleet) -> bool:
    """Whether some worker shows the shard as blocked."""
    shards: list[dict[str, Any]] = found.status("w1")["shards"]
    return any(each["state"] == "blocked" for each in shards)


def _group(body: str) -> str:
    return body.split(" ")[0]


def _number(body: str) -> int:
    return int(body.split(" ")[1])
