"""The lease table of the Kinesis Client Library, by its rows and on an emulator."""

import asyncio
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from adapters.aws import clients
from adapters.checkpoints.kcl import Inside, KclTable, leases_of
from adapters.stores.sqlite import store as sqlite
from poller.cli import application
from poller.clock import LoopClock
from poller.domain.errors import InvalidConfiguration
from poller.domain.records import SHARD_END, MappingId, Position, ShardId
from poller.domain.rows import Checkpoint, Lease
from poller.plugins import Environment
from tests.conftest import REGION
from tests.emulators import Emulator

SEQUENCE = "49590338271490256608559692538361571095921575989136588898"
MAPPING = MappingId("5d1f3a52-7f0e-4b52-9d9f-0c1c8a1b6a01")


def row(key: str, checkpoint: str, **more: Any) -> dict[str, Any]:
    """A row as every version writes it."""
    return {
        "leaseKey": {"S": key},
        "leaseOwner": {"S": "worker-1"},
        "leaseCounter": {"N": "17"},
        "ownerSwitchesSinceCheckpoint": {"N": "0"},
        "checkpoint": {"S": checkpoint},
        "checkpointSubSequenceNumber": {"N": "0"},
        **more,
    }


def position(checkpoint: str, inside: Inside = Inside.REFUSE, **more: Any) -> Position:
    """What one row's checkpoint means."""
    (found,) = leases_of([row("shardId-000000000000", checkpoint, **more)], "orders", inside)
    return found.checkpoint.position


def test_checkpoints_are_places_behind_records() -> None:
    assert position(SEQUENCE) == Position.after(SEQUENCE)
    assert position("TRIM_HORIZON") == Position.horizon()
    assert position("SHARD_END") == SHARD_END


def test_sequence_numbers_keep_their_zeros() -> None:
    assert position("000000000000000000123").encode() == "AFTER:000000000000000000123"


def test_parents_come_along() -> None:
    parents = {"parentShardId": {"SS": ["shardId-000000000001", "shardId-000000000000"]}}
    (found,) = leases_of([row("shardId-000000000002", "TRIM_HORIZON", **parents)], "orders", Inside.REFUSE)
    assert found.parents == ("shardId-000000000000", "shardId-000000000001")


def test_rows_of_several_streams_are_kept_apart() -> None:
    rows = [
        row("111122223333:orders:1700000000:shardId-000000000000", SEQUENCE),
        row("111122223333:stock:1700000000:shardId-000000000000", "TRIM_HORIZON"),
    ]
    (found,) = leases_of(rows, "orders", Inside.REFUSE)
    assert found == Lease(ShardId("shardId-000000000000"), (), Checkpoint(Position.after(SEQUENCE)))


def test_of_a_stream_that_was_made_again_the_newest_counts() -> None:
    rows = [
        row("111122223333:orders:1800000000:shardId-000000000000", SEQUENCE),
        row("111122223333:orders:1700000000:shardId-000000000000", "TRIM_HORIZON"),
        row("111122223333:orders:1700000000:shardId-000000000001", "LATEST"),
        row("111122223333:stock:1900000000:shardId-000000000000", "TRIM_HORIZON"),
    ]
    (found,) = leases_of(rows, "orders", Inside.REFUSE)
    assert found == Lease(ShardId("shardId-000000000000"), (), Checkpoint(Position.after(SEQUENCE)))


@pytest.mark.parametrize("word", ["LATEST", "AT_TIMESTAMP"])
def test_a_lease_that_never_processed_anything_has_no_place(word: str) -> None:
    with pytest.raises(
        InvalidConfiguration, match=f"lease shardId-000000000000: checkpoint {word} says when"
    ):
        position(word)


@pytest.mark.parametrize("text", ["9" * 130, "9" * 200_000, "\N{ARABIC-INDIC DIGIT THREE}", "-5", "4_9"])
def test_what_is_no_sequence_number_is_reported_in_a_few_words(text: str) -> None:
    with pytest.raises(InvalidConfiguration, match="lease shardId-000000000000: checkpoint ") as told:
        position(text)
    assert len(str(told.value)) < 400


def test_a_place_inside_a_record_has_to_be_decided_on() -> None:
    inside: dict[str, Any] = {"checkpointSubSequenceNumber": {"N": "3"}}
    with pytest.raises(InvalidConfiguration, match="--inside-record done"):
        position(SEQUENCE, **inside)
    assert position(SEQUENCE, Inside.DONE, **inside) == Position.after(SEQUENCE)
    assert position(SEQUENCE, Inside.PART, **inside) == Position.after(f"{SEQUENCE}:3")
    again = position(SEQUENCE, Inside.AGAIN, **inside)
    assert again < Position.after(SEQUENCE)
    assert again.sequence == int(SEQUENCE) - 1


def test_the_first_part_of_a_record_is_not_taken_for_the_whole_record_where_parts_count() -> None:
    assert position(SEQUENCE, Inside.PART) == Position.after(f"{SEQUENCE}:0")
    assert position("SHARD_END", Inside.PART) == SHARD_END


def test_the_table_of_several_streams_is_read_for_a_consumer_of_one_of_them(account: str) -> None:
    client = TableOf(
        row(f"{account}:orders:1700000000:shardId-000000000000", SEQUENCE),
        row(f"{account}:others:1700000000:shardId-000000000000", "TRIM_HORIZON"),
    )
    stream = f"arn:aws:kinesis:{REGION}:{account}:stream/orders"
    for arn in (stream, f"{stream}/consumer/app:1700000000"):
        (found,) = asyncio.run(KclTable(client, "orders-app", Inside.REFUSE).leases(arn))
        assert found.checkpoint.position == Position.after(SEQUENCE)


class TableOf:
    """A client that scans a table of these rows."""

    def __init__(self, *rows: dict[str, Any]) -> None:
        self._rows = rows

    async def scan(self, **_: Any) -> dict[str, Any]:
        """All rows in one page."""
        return {"Items": list(self._rows)}


def test_an_application_is_taken_over_where_it_stands(
    ministack: Emulator, account: str, tmp_path: Path
) -> None:
    stream = f"arn:aws:kinesis:{REGION}:{account}:stream/orders"
    env = Environment(LoopClock(), region=REGION, endpoint_url=ministack.url)
    shards = asyncio.run(_prepared(env))
    config = tmp_path / "poller.yaml"
    config.write_text(
        f"listen: 127.0.0.1:0\nstore: sqlite://{tmp_path}/state.db\nregion: {REGION}\nendpoint_url: {ministack.url}\n"
        "functions: {f: {invoker: process, command: ['true']}}\n"
        f"mappings: [{{UUID: {MAPPING}, FunctionName: f, EventSourceArn: '{stream}', StartingPosition: LATEST}}]\n"
    )
    words = ["checkpoints", "import", "--config", str(config), "--from-kcl", "orders-app"]
    done = CliRunner().invoke(application([]), words)
    assert (done.exit_code, done.stderr) == (0, "")
    assert done.stdout == f"mapping {MAPPING}: 3 shards set, 0 put back, 0 there already\n"
    assert asyncio.run(_held(tmp_path, env)) == {
        shards[0]: Position.after(SEQUENCE),
        shards[1]: Position.horizon(),
        "shardId-000000000900": SHARD_END,
    }
    missing = CliRunner().invoke(application([]), [*words[:-1], "no-such-app"])
    assert missing.exit_code == 2
    assert "dynamodb Scan" in missing.stderr


async def _prepared(env: Environment) -> list[str]:
    """A stream of two shards, and the table of an application that reads it."""
    kinesis = await clients.client(env, "kinesis", REGION)
    await kinesis.create_stream(StreamName="orders", ShardCount=2)
    shards = [each["ShardId"] for each in (await kinesis.list_shards(StreamName="orders"))["Shards"]]
    dynamo = await clients.client(env, "dynamodb", REGION)
    await dynamo.create_table(
        TableName="orders-app",
        KeySchema=[{"AttributeName": "leaseKey", "KeyType": "HASH"}],
        AttributeDefinitions=[{"AttributeName": "leaseKey", "AttributeType": "S"}],
        BillingMode="PAY_PER_REQUEST",
    )
    parent = {"parentShardId": {"SS": ["shardId-000000000900"]}}
    for item in (
        row(shards[0], SEQUENCE, **parent, throughputKBps={"N": "1.5"}),
        row(shards[1], "TRIM_HORIZON"),
        {"leaseKey": {"S": "worker-1"}, "entityType": {"S": "WORKER_METRIC_STATS"}},
    ):
        await dynamo.put_item(TableName="orders-app", Item=item)
    await env.shared.close()
    return shards


async def _held(folder: Path, env: Environment) -> dict[ShardId, Position]:
    async with sqlite.plugin.open(sqlite.SqliteSettings(url=f"sqlite://{folder}/state.db"), env) as store:
        (mapping,) = await store.mappings()
        assert mapping.seeded
        return {each.shard: each.checkpoint.position for each in await store.leases(MAPPING)}
