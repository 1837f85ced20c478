"""`poller peek` as a process against a daemon that is one, on real emulators: what is shown from where, and to whom."""

import gzip
import json
import threading
import urllib.error
import urllib.request
from dataclasses import dataclass
from http.client import HTTPResponse
from pathlib import Path
from typing import Any

import pytest

from tests.acceptance.clients.test_aws_clients import World, a_queue, a_stream, a_table_stream, until
from tests.acceptance.daemons import Ended, command
from tests.conftest import fresh_account
from tests.emulators import Emulator
from tests.rules.peeking.aggregated import aggregated

pytestmark = pytest.mark.acceptance

SOON_S = 20.0
TOKENS = {"looker": "view", "carer": "operate"}
PAID = json.dumps({"data": {"state": ["paid"]}})

TRIES_MAX = 5


@dataclass
class Peeked(World):
    """A world whose daemon has tokens, and shows payloads or not."""

    show: bool = True

    def configuration(self, mappings: list[dict[str, Any]]) -> dict[str, Any]:
        tokens = self.folder / "tokens.yaml"
        tokens.write_text(
            "".join(f"{name}: {{token: {name}-1, role: {role}}}\n" for name, role in TOKENS.items())
        )
        tokens.chmod(0o600)
        found = super().configuration(mappings)
        found["api"] |= {"tokens_file": str(tokens), "show_payloads": self.show}
        return found

    def peek(self, *words: str, token: str = "carer-1") -> Ended:
        """What the command does."""
        env = self.environment | {"POLLER_TOKEN": token, "COLUMNS": "100"}
        return command("peek", "--url", self.url, *words, env=env)

    def answer(self, *words: str, token: str = "carer-1") -> Any:
        """What the command prints as JSON. An emulator under load may answer later than a peek waits, which then says to try again."""
        done = self.peek(*words, "--json", token=token)
        for _ in range(TRIES_MAX):
            if "no answer within" not in done.err:
                break
            done = self.peek(*words, "--json", token=token)
        assert done.status == 0, done.err
        assert done.out.isascii()
        return json.loads(done.out)


@pytest.fixture
def kinesis(kinesis_local: Emulator, tmp_path: Path) -> Peeked:
    return Peeked(kinesis_local.url, fresh_account(), tmp_path)


@pytest.fixture
def world(ministack: Emulator, tmp_path: Path) -> Peeked:
    return Peeked(ministack.url, fresh_account(), tmp_path)


def of_stream(arn: str, **more: Any) -> dict[str, Any]:
    return {"FunctionName": "reader", "EventSourceArn": arn, "StartingPosition": "TRIM_HORIZON", **more}


def put(world: World, *data: bytes) -> list[str]:
    """Writes records; returns their sequence numbers."""
    client = world.aws("kinesis")
    return [
        client.put_record(StreamName="readings", Data=each, PartitionKey="k")["SequenceNumber"]
        for each in data
    ]


def arn_of(world: World) -> str:
    client = world.aws("kinesis")
    arn: str = client.describe_stream_summary(StreamName="readings")["StreamDescriptionSummary"]["StreamARN"]
    return arn


def texts(answer: Any) -> list[str]:
    return [record["payload"]["text"] for record in answer["records"]]


def test_a_stream_is_shown_from_each_position_decoded_and_with_the_verdict_of_the_filters(
    kinesis: Peeked,
) -> None:
    a_stream(kinesis)
    arn = arn_of(kinesis)
    numbers = put(
        kinesis,
        b'{"state": "paid"}',
        b'{"state": "open"}',
        gzip.compress(b"packed"),
        aggregated([("inner", b"one"), ("inner", b"two")]),
        b"\xff\x00",
        b"\x1b[2J\x1b]0;owned\x07",
    )
    criteria = {"Filters": [{"Pattern": PAID}]}
    with kinesis.daemon([of_stream(arn, FilterCriteria=criteria)]):
        until(lambda: kinesis.texts() == ['{"state": "paid"}'], within_s=SOON_S)
        answer = kinesis.answer("readings", "--from", "TRIM_HORIZON")
        records = answer["records"]
        assert [record["sequence_number"] for record in records] == numbers
        assert [record["verdict"] for record in records] == ["passes"] + ["filtered"] * 5
        assert records[0]["pattern"] == 1
        assert records[1]["reasons"] == ['data.state: none of the values satisfies it (condition: ["paid"])']
        assert (records[2]["payload"]["gzip"], records[2]["payload"]["text"]) == (True, "packed")
        assert [user["payload"]["text"] for user in records[3]["user_records"]] == ["one", "two"]
        assert (records[4]["payload"]["form"], records[4]["payload"]["text"]) == ("base64", "/wA=")
        assert records[5]["payload"]["text"] == "\x1b[2J\x1b]0;owned\x07"
        at = kinesis.answer("stream/readings", "0", "--from", numbers[1], "--limit", "1")
        assert texts(at) == ['{"state": "open"}']
        behind = kinesis.answer("reader", "--from", at["next"], "--limit", "1")
        assert behind["records"][0]["sequence_number"] == numbers[2]
        assert kinesis.answer("readings", "--from", "LATEST")["records"] == []
        assert len(kinesis.answer("readings", "--from", "2020-01-01T00:00:00Z")["records"]) == 6
        table = kinesis.peek("readings", "--from", "TRIM_HORIZON")
        assert table.status == 0
        assert "passes by pattern 1" in table.out
        assert "\x1b" not in table.out
        assert kinesis.texts() == ['{"state": "paid"}']


def test_the_batch_that_blocks_a_shard_is_shown_without_a_position(kinesis: Peeked) -> None:
    a_stream(kinesis)
    arn = arn_of(kinesis)
    put(kinesis, b"one", b"two")
    with kinesis.daemon([of_stream(arn, BatchSize=2)]):
        until(lambda: kinesis.texts() == ["one", "two"], within_s=SOON_S)
        numbers = put(kinesis, b"poison", b"three", b"four")
        until(lambda: kinesis.answer("readings")["fault"] is not None, within_s=SOON_S)
        answer = kinesis.answer("readings")
        assert answer["fault"]["first"] == numbers[0]
        assert numbers[0] in [record["sequence_number"] for record in answer["records"]]
        assert "poison" in texts(answer)
        assert {record["lane"] for record in answer["records"]} == {0}
        table = kinesis.peek("readings", "--from", "fault")
        assert "at fault" in table.out
        assert "poison" in table.out
        position = kinesis.answer("readings", "--from", "position")
        assert texts(position)[0] == "poison"


def test_changes_of_a_table_are_shown_with_keys_and_images(world: Peeked) -> None:
    arn = a_table_stream(world)
    table = world.aws("dynamodb")
    for name in ("a", "b", "c"):
        table.put_item(TableName="stock", Item={"pk": {"S": name}, "n": {"N": "1"}})
    with world.daemon([of_stream(arn)]):
        until(lambda: world.texts() == ["a", "b", "c"], within_s=SOON_S)
        answer = world.answer("table/stock", "--from", "TRIM_HORIZON")
        assert [json.loads(record["keys"]["text"]) for record in answer["records"]] == [
            {"pk": {"S": name}} for name in "abc"
        ]
        first, second, _ = answer["records"]
        assert first["event_name"] == "INSERT"
        assert json.loads(first["new_image"]["text"]) == {"pk": {"S": "a"}, "n": {"N": "1"}}
        at = world.answer("stock", "--from", f"AT:{second['sequence_number']}", "--limit", "1")
        assert json.loads(at["records"][0]["keys"]["text"]) == {"pk": {"S": "b"}}
        behind = world.answer("stock", "--from", f"AFTER:{second['sequence_number']}")
        assert [json.loads(record["keys"]["text"]) for record in behind["records"]] == [{"pk": {"S": "c"}}]


def test_a_batch_of_a_table_at_fault_is_shown(world: Peeked) -> None:
    arn = a_table_stream(world)
    table = world.aws("dynamodb")
    with world.daemon([of_stream(arn)]):
        for name in ("poison", "z"):
            table.put_item(TableName="stock", Item={"pk": {"S": name}})
        until(lambda: world.answer("stock")["fault"] is not None, within_s=SOON_S)
        answer = world.answer("stock")
        assert json.loads(answer["records"][0]["keys"]["text"]) == {"pk": {"S": "poison"}}


def test_without_the_role_or_the_setting_records_are_listed_without_data(world: Peeked) -> None:
    arn = a_stream(world)
    put(world, b"secret-data")
    mappings = [of_stream(arn, Enabled=False)]
    with world.daemon(mappings):
        listed = world.answer("readings", token="looker-1")
        assert (listed["payloads"], len(listed["records"])) == (False, 1)
        assert "needs the role operate" in listed["missing"]
        assert "secret-data" not in json.dumps(listed)
        assert "secret-data" in json.dumps(world.answer("readings"))
    world.show = False
    with world.daemon(mappings):
        listed = world.answer("readings")
        assert "api.show_payloads" in listed["missing"]
        assert "secret-data" not in json.dumps(listed)
        assert "secret-data" not in world.peek("readings").out


def test_what_cannot_be_shown_is_refused_in_one_line_with_the_remedy(world: Peeked) -> None:
    arn, queue = a_stream(world), a_queue(world, VisibilityTimeout="30")
    mappings = [of_stream(arn), {"FunctionName": "writer", "EventSourceArn": queue}]
    with world.daemon(mappings):
        for words, text in (
            (("orders",), "--receive` does that"),
            (("nothing",), "stream/readings"),
            (("readings", "77"), "is no shard of this mapping; its shards: "),
            (("readings", "--from", "yesterday"), "is no place in a shard; write TRIM_HORIZON"),
            (("readings", "--from", "fault"), "no batch of shard"),
        ):
            done = world.peek(*words)
            assert (done.status, done.out) == (2, ""), done.out
            assert text in done.err
            assert len(done.err.splitlines()) == 1


def test_peeks_beside_each_other_do_not_stop_the_mapping(kinesis: Peeked) -> None:
    a_stream(kinesis)
    arn = arn_of(kinesis)
    put(kinesis, b"zero")
    with kinesis.daemon([of_stream(arn)]):
        until(lambda: kinesis.texts() == ["zero"], within_s=SOON_S)
        found: list[int] = []

        def ask() -> None:
            request = urllib.request.Request(
                f"{kinesis.url}/v1/mappings/readings/records?from=TRIM_HORIZON",
                headers={"Authorization": "Bearer carer-1"},
            )
            try:
                answer: HTTPResponse
                with urllib.request.urlopen(request, timeout=15) as answer:
                    found.append(answer.status)
            except urllib.error.HTTPError as error:
                found.append(error.code)

        threads = [threading.Thread(target=ask) for _ in range(6)]
        for thread in threads:
            thread.start()
        put(kinesis, b"one", b"two")
        until(lambda: kinesis.texts() == ["zero", "one", "two"], within_s=SOON_S)
        for thread in threads:
            thread.join()
        assert set(found) == {200}
