"""`poller consumers` on an emulator: it shows what mappings have of their own, and removes what no mapping wants, and nothing else."""

import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner, Result

from adapters.commands.consumers.command import ConsumersAsked, remove_consumers
from adapters.commands.consumers.declared import app
from adapters.commands.consumers.registered import _members
from poller.commands.operations.command import NOT_DONE, Manner, Surroundings
from poller.commands.root.problems import FAILED
from poller.commands.shared import LoadablePlugins
from poller.config.loader import load
from tests.acceptance.clients.test_aws_clients import client
from tests.conftest import REGION, fresh_account
from tests.emulators import Emulator

KEPT = "0f4b8a5e-8b0c-4a56-9c0e-0d7d6b0c2b11"
FORMER = "1f4b8a5e-8b0c-4a56-9c0e-0d7d6b0c2b12"
GONE = "2f4b8a5e-8b0c-4a56-9c0e-0d7d6b0c2b13"
OTHERS = "analytics"


@dataclass
class Account:
    """One account of the emulator with two streams, and a configuration that names only the first."""

    api: Any
    number: str
    file: Path

    def arn(self, stream: str) -> str:
        return f"arn:aws:kinesis:{REGION}:{self.number}:stream/{stream}"

    def there(self, stream: str = "orders") -> set[str]:
        """The names of a stream's consumers."""
        found = self.api.list_stream_consumers(StreamARN=self.arn(stream))
        return {each["ConsumerName"] for each in found["Consumers"]}

    def call(self, *words: str) -> Result:
        return CliRunner().invoke(app, [*words, "--config", str(self.file)])


@pytest.fixture
def account(ministack: Emulator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Account]:
    for name in [name for name in os.environ if name.startswith(("AWS_", "POLLER_"))]:
        monkeypatch.delenv(name)
    number = fresh_account()
    for name, value in (("AWS_ACCESS_KEY_ID", number), ("AWS_SECRET_ACCESS_KEY", "not-a-secret")):
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("COLUMNS", "300")
    found = Account(
        client("kinesis", ministack.url, number, "not-a-secret"), number, tmp_path / "poller.yaml"
    )
    for stream in ("orders", "left"):
        found.api.create_stream(StreamName=stream, ShardCount=1)
        found.api.get_waiter("stream_exists").wait(
            StreamName=stream, WaiterConfig={"Delay": 1, "MaxAttempts": 10}
        )
    for name in (f"poller-{KEPT}", f"poller-{FORMER}", f"poller-{GONE}", OTHERS):
        found.api.register_stream_consumer(StreamARN=found.arn("orders"), ConsumerName=name)
    found.api.register_stream_consumer(StreamARN=found.arn("left"), ConsumerName=f"poller-{GONE}")
    mapping = {"EventSourceArn": found.arn("orders"), "StartingPosition": "TRIM_HORIZON"}
    found.file.write_text(
        yaml.safe_dump(
            {
                "endpoint_url": ministack.url,
                "store": "memory://",
                "functions": {"reader": {"invoker": "http", "url": "http://127.0.0.1:1/"}},
                "mappings": [
                    {**mapping, "UUID": KEPT, "FunctionName": "reader", "source": {"fan_out": True}},
                    {**mapping, "UUID": FORMER, "FunctionName": "reader:1"},
                ],
            }
        )
    )
    yield found
    for stream in ("orders", "left"):
        found.api.delete_stream(StreamName=stream, EnforceConsumerDeletion=True)


def test_a_list_has_the_mapping_of_each_consumer_and_no_consumer_of_others(account: Account) -> None:
    shown = account.call("list", "--json")
    assert shown.exit_code == 0, shown.output
    found = json.loads(shown.stdout)
    assert {each["name"]: (each["mapping"], each["fan_out"]) for each in found} == {
        f"poller-{KEPT}": (KEPT, True),
        f"poller-{FORMER}": (FORMER, False),
        f"poller-{GONE}": (None, False),
    }
    assert {(each["stream"], each["status"]) for each in found} == {(account.arn("orders"), "ACTIVE")}
    assert all(each["since"].startswith("20") for each in found)
    table = account.call("list", "--stream", account.arn("left")).stdout
    assert f"poller-{KEPT} ACTIVE" in table
    assert f"mapping {FORMER}, which has no fan_out" in table
    assert table.count("no mapping") == 2
    assert f"stream/left in {REGION}, since 20" in table
    assert OTHERS not in table


def test_a_consumer_that_a_mapping_wants_and_one_of_others_are_not_removed(account: Account) -> None:
    before = account.there()
    for words, told in (
        ([f"poller-{KEPT}", "--yes"], f"is the consumer of mapping {KEPT}, which has fan_out: true"),
        ([OTHERS, "--yes"], "their names begin with poller-"),
        (["poller-nobody", "--yes"], "no stream of the configuration has this consumer"),
        ([], "write the NAME of a consumer"),
        ([f"poller-{GONE}", "--orphans"], "write the NAME of a consumer"),
        ([f"poller-{GONE}"], "nobody can be asked here: add --yes"),
        (["--orphans", "--stream", "orders"], "--stream: 'orders' is not the ARN of a Kinesis stream"),
        (["--orphans", "--identity", "nobody"], "--identity: 'nobody' is no entry below identities"),
    ):
        refused = account.call("remove", *words)
        assert refused.exit_code == FAILED, words
        assert told in refused.stderr, refused.stderr
    assert account.there() == before


def test_a_dry_run_says_what_would_be_removed_and_removes_nothing(account: Account) -> None:
    before = account.there()
    said = account.call("remove", "--orphans", "--dry-run")
    assert said.exit_code == 0, said.output
    assert said.stdout.startswith(
        "would do: remove 2 consumers that no mapping of this configuration wants: "
    )
    assert "a daemon with another configuration may have it" in said.stdout
    planned = json.loads(account.call("remove", f"poller-{GONE}", "--dry-run", "--json").stdout)
    assert [each["name"] for each in planned["consumers"]] == [f"poller-{GONE}"]
    assert account.there() == before


def test_orphans_are_those_that_no_mapping_wants(account: Account) -> None:
    gone = account.call("remove", "--orphans", "--yes", "--stream", account.arn("left"))
    assert gone.exit_code == 0, gone.output
    assert gone.stdout.count("is being removed") == 3
    assert account.there() == {f"poller-{KEPT}", OTHERS}
    assert account.there("left") == set()
    again = account.call("remove", "--orphans", "--yes")
    assert (again.exit_code, again.stdout.strip()) == (0, "no consumer without a mapping")


@pytest.mark.parametrize(("answer", "status"), [("y", 0), ("n", NOT_DONE)])
def test_it_asks_before_it_removes(account: Account, answer: str, status: int) -> None:
    asked = ConsumersAsked(settings=load(account.file), registry=LoadablePlugins())
    around = Surroundings(answer=lambda _: answer)
    found = remove_consumers(asked, f"poller-{GONE}", orphans=False, manner=Manner(), around=around)
    assert found == status
    assert (f"poller-{GONE}" in account.there()) is (status == NOT_DONE)


def test_a_stream_that_cannot_be_asked_is_told_and_the_others_are_shown(account: Account) -> None:
    shown = account.call("list", "--stream", account.arn("nobody"))
    assert shown.exit_code == FAILED
    assert f"{account.arn('nobody')}: kinesis ListStreamConsumers: ResourceNotFoundException" in shown.stderr
    assert f"poller-{KEPT}" in shown.stdout


@pytest.mark.parametrize(
    "arn",
    ["consumer/analytics:1", "consumer/poller-a-b:1", "consumer/poller-", "stream/poller-a", "poller-a:1"],
)
def test_a_consumer_whose_arn_is_anothers_is_not_shown_to_be_removed(arn: str) -> None:
    wire = {"ConsumerName": "poller-a", "ConsumerStatus": "ACTIVE", "ConsumerCreationTimestamp": 1.0}
    stream = "arn:aws:kinesis:eu-west-1:111122223333:stream/orders"
    assert _members({**wire, "ConsumerARN": f"{stream}/consumer/poller-a:1"})["name"] == "poller-a"
    assert _members({**wire, "ConsumerARN": f"{stream}/consumer/poller-a"})["name"] == "poller-a"
    with pytest.raises(ValueError, match="not that of the name"):
        _members({**wire, "ConsumerARN": f"{stream}/{arn}"})
