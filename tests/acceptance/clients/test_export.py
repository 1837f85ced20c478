"""`poller mappings export` of an account's mappings as Lambda's API of the emulator has them, and what `poller check` says of the file."""

import io
import json
import os
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.acceptance.clients.test_aws_clients import World, a_queue, a_stream, a_table_stream, gone, until
from tests.acceptance.daemons import Ended, command
from tests.conftest import REGION, fresh_account
from tests.emulators import Emulator

pytestmark = pytest.mark.acceptance

FORGET_S_MAX = 15.0


@dataclass
class Account:
    """An account of the emulator with two functions, and the mappings that a test makes in it."""

    world: World
    made: list[str] = field(default_factory=list)

    @property
    def api(self) -> Any:
        """Lambda's API."""
        return self.world.aws("lambda")

    def function(self, name: str) -> None:
        """A function that takes everything."""
        code = io.BytesIO()
        with zipfile.ZipFile(code, "w") as archive:
            archive.writestr("app.py", "def handler(event, context):\n    return None\n")
        self.api.create_function(
            FunctionName=name,
            Runtime="python3.13",
            Role=f"arn:aws:iam::{self.world.account}:role/reader",
            Handler="app.handler",
            Code={"ZipFile": code.getvalue()},
        )

    def mapping(self, function: str, source: str, **members: Any) -> str:
        """Makes a mapping and returns its id."""
        made = self.api.create_event_source_mapping(FunctionName=function, EventSourceArn=source, **members)
        uuid: str = made["UUID"]
        self.made.append(uuid)
        return uuid

    def poller(self, *words: str) -> Ended:
        """Runs `poller` as somebody with this account's credentials does."""
        env = {
            "AWS_ACCESS_KEY_ID": self.world.account,
            "AWS_SECRET_ACCESS_KEY": "not-a-secret",
            "AWS_REGION": REGION,
            "AWS_ENDPOINT_URL": self.world.emulator,
            "AWS_CONFIG_FILE": os.devnull,
            "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
            "AWS_EC2_METADATA_DISABLED": "true",
            "POLLER_STORE": f"sqlite://{self.world.folder / 'state.db'}",
            "COLUMNS": "200",
        }
        return command(*words, env=env)

    def exported(self, *words: str) -> tuple[Path, dict[str, dict[str, Any]], str]:
        """The file that the export writes, its mappings by id, and what it says beside."""
        path = self.world.folder / "poller.yaml"
        done = self.poller("mappings", "export", "--from-aws", "--output", str(path), "--force", *words)
        assert (done.status, done.out) == (0, ""), done.err
        content = yaml.safe_load(path.read_text())
        assert content["region"] == REGION
        return path, {each.pop("UUID"): each for each in content["mappings"]}, done.err


@pytest.fixture
def account(ministack: Emulator, tmp_path: Path) -> Iterator[Account]:
    there = Account(World(ministack.url, fresh_account(), tmp_path))
    for name in ("orders", "mails"):
        there.function(name)
    yield there
    for uuid in there.made:
        there.api.delete_event_source_mapping(UUID=uuid)
    until(lambda: all(gone(there.api, uuid) for uuid in there.made), within_s=FORGET_S_MAX)


def filters(**pattern: Any) -> dict[str, Any]:
    """FilterCriteria with one pattern."""
    return {"Filters": [{"Pattern": json.dumps(pattern)}]}


def test_mappings_of_all_sources_become_a_file_that_check_takes(account: Account) -> None:
    failed = a_queue(account.world, "failed")
    stream = {
        "StartingPosition": "TRIM_HORIZON",
        "BatchSize": 50,
        "MaximumBatchingWindowInSeconds": 5,
        "ParallelizationFactor": 2,
        "BisectBatchOnFunctionError": True,
        "MaximumRetryAttempts": 3,
        "MaximumRecordAgeInSeconds": 3600,
        "DestinationConfig": {"OnFailure": {"Destination": failed}},
        "FilterCriteria": filters(data={"kind": ["order", None]}),
        "FunctionResponseTypes": ["ReportBatchItemFailures"],
    }
    queue = {
        "BatchSize": 20,
        "MaximumBatchingWindowInSeconds": 2,
        "ScalingConfig": {"MaximumConcurrency": 5},
        "FilterCriteria": filters(body={"größe": [{"numeric": [">", 3]}]}),
        "FunctionResponseTypes": ["ReportBatchItemFailures"],
        "Enabled": False,
    }
    readings, mails = a_stream(account.world), a_queue(account.world, "mails")
    serial, stock = a_queue(account.world, "serial.fifo"), a_table_stream(account.world)
    ids = [
        account.mapping("orders", readings, **stream),
        account.mapping("mails", mails, **queue),
        account.mapping("mails", serial, BatchSize=10),
        account.mapping("orders", stock, StartingPosition="LATEST", BatchSize=100),
    ]

    path, found, beside = account.exported()

    assert beside == ""
    assert found == dict(
        zip(
            ids,
            [
                {"FunctionName": "orders", "EventSourceArn": readings, **stream},
                {"FunctionName": "mails", "EventSourceArn": mails, **queue},
                {"FunctionName": "mails", "EventSourceArn": serial},
                {"FunctionName": "orders", "EventSourceArn": stock, "StartingPosition": "LATEST"},
            ],
            strict=True,
        )
    )
    checked = account.poller("check", "--config", str(path))
    assert checked.status == 0, checked.err
    assert "configuration is valid" in checked.out


def test_only_the_named_functions_mappings_are_written(account: Account) -> None:
    account.mapping("orders", a_queue(account.world, "orders"))
    kept = account.mapping("mails", a_queue(account.world, "mails"))
    _, found, _ = account.exported("--function", "mails")
    assert list(found) == [kept]


def test_what_cannot_be_carried_over_is_named_and_the_rest_is_written(account: Account) -> None:
    # The emulator does not keep the moment, without which this position says nothing.
    moment = account.mapping(
        "orders",
        a_stream(account.world),
        StartingPosition="AT_TIMESTAMP",
        StartingPositionTimestamp=1_767_225_600,
    )
    kept = account.mapping("mails", a_queue(account.world, "mails"))
    path, found, beside = account.exported()
    assert list(found) == [kept]
    assert f"mapping {moment} of function orders" in beside
    assert "StartingPositionTimestamp" in beside
    assert account.poller("check", "--config", str(path)).status == 0


def test_a_live_check_takes_the_file_once_lambda_reads_the_queue_no_more(account: Account) -> None:
    uuid = account.mapping("mails", a_queue(account.world, "mails", VisibilityTimeout="180"))
    path, _, _ = account.exported()

    both = account.poller("check", "--live", "--config", str(path))
    assert both.status != 0
    assert f"AWS Lambda consumes this queue too, by the event source mapping {uuid}" in both.err

    account.api.update_event_source_mapping(UUID=uuid, Enabled=False)
    alone = account.poller("check", "--live", "--config", str(path))
    assert alone.status == 0, alone.err
    assert account.exported()[1][uuid]["Enabled"] is False
