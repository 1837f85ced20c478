"""Positions as lines of JSON, and what an import makes of them."""

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner, Result

from adapters.stores import sqlite
from adapters.stores.memory import MemoryStore
from poller.cli import application
from poller.clock import LoopClock
from poller.commands.checkpoint_lines import Kept, Steps, read, steps, with_ancestors, written
from poller.commands.checkpoints import Desk, alive
from poller.errors import InvalidConfiguration
from poller.plan import DaemonPlan
from poller.plugins import Environment, GivenPlugins
from poller.records import SHARD_END, Epoch, MappingId, Position, Shard, ShardId, WorkerId
from poller.rows import Checkpoint, Lease, MappingRow
from tests.virtual import run_virtual, virtual_clock

MAPPING = MappingId("5d1f3a52-7f0e-4b52-9d9f-0c1c8a1b6a01")
STREAM = "arn:aws:kinesis:eu-west-1:111122223333:stream/orders"
ANN, BOB, CAT = WorkerId("ann"), WorkerId("bob"), WorkerId("cat")


def lease(
    name: str, position: Position, *parents: str, owner: WorkerId | None = None, epoch: int = 0
) -> Lease:
    return Lease(ShardId(name), tuple(map(ShardId, parents)), Checkpoint(position), owner, epoch)


def by_shard(*leases: Lease) -> dict[ShardId, Lease]:
    return {each.shard: each for each in leases}


POSITIONS = st.sampled_from(
    [
        Position.horizon(),
        Position.at(Epoch(1_700_000_000.5)),
        Position.after("0049"),
        Position.after("50"),
        SHARD_END,
    ]
)
LEASES = st.builds(
    lambda name, parents, position, memo: Lease(
        ShardId(name), tuple(map(ShardId, parents)), Checkpoint(position, memo)
    ),
    st.text(min_size=1, max_size=5),
    st.lists(st.text(min_size=1, max_size=5), max_size=2),
    POSITIONS,
    st.binary(max_size=20),
)


@given(st.lists(LEASES, unique_by=lambda each: each.shard))
def test_what_was_exported_reads_as_what_it_was(leases: list[Lease]) -> None:
    row = MappingRow(MAPPING, Epoch(1_700_000_000.25))
    assert read("\n".join(written(row, leases))) == {MAPPING: Kept(row.fixed, by_shard(*leases))}


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("nonsense", "malformed"),
        ('{"mapping": "m"}', "neither fixed nor shard"),
        ('{"mapping": "m", "shard": "a"}', "no position"),
        ('{"mapping": "m", "shard": "a", "position": "LATEST"}', "not a position"),
        ('{"mapping": "m", "shard": "a", "position": "SHARD_END", "memo": "?"}', "base64"),
        ('{"mapping": "m", "shard": "a", "position": "SHARD_END", "owner": "x"}', "owner"),
    ],
)
def test_a_wrong_line_is_named_with_its_number(line: str, problem: str) -> None:
    good = '{"mapping": "m", "shard": "b", "position": "SHARD_END"}'
    with pytest.raises(InvalidConfiguration, match=r"line 2: .*" + problem):
        read(f"{good}\n{line}\n")


def test_a_shard_that_is_given_twice_is_refused() -> None:
    good = '{"mapping": "m", "shard": "b", "position": "SHARD_END"}'
    with pytest.raises(InvalidConfiguration, match="given twice"):
        read(f"{good}\n{good}\n")


def test_new_shards_are_seeded_and_known_ones_move_on() -> None:
    new, later, same = lease("a", SHARD_END), lease("b", Position.after("9")), lease("c", Position.after("7"))
    there = by_shard(lease("b", Position.after("5"), epoch=4), lease("c", Position.after("7"), owner=ANN))
    assert steps(by_shard(new, later, same), there, busy={ANN}, force=False) == Steps(
        seed=(new,), advance=((there[ShardId("b")], later.checkpoint),), same=1
    )


def test_a_position_does_not_go_back_unless_it_is_forced() -> None:
    wanted, there = (
        by_shard(lease("a", Position.after("5"))),
        by_shard(lease("a", Position.after("9"), epoch=4)),
    )
    (problem,) = steps(wanted, there, busy=(), force=False).refused
    assert "AFTER:9 already" in problem
    assert "--force" in problem
    forced = steps(wanted, there, busy=(), force=True)
    assert forced.rewind == ((there[ShardId("a")], Checkpoint(Position.after("5"))),)


@pytest.mark.parametrize("force", [False, True])
def test_nothing_is_set_under_a_living_worker(force: bool) -> None:
    there = by_shard(lease("a", Position.after("9"), owner=ANN), lease("b", Position.after("1"), owner=BOB))
    wanted = by_shard(lease("a", Position.after("5")), lease("b", Position.after("5")))
    found = steps(wanted, there, busy={ANN}, force=force)
    assert [problem.partition(":")[0] for problem in found.refused] == ["shard a"]


def test_ancestors_of_what_is_taken_over_are_done() -> None:
    listed = [
        Shard(ShardId("old"), (), closed=True),
        Shard(ShardId("parent"), (ShardId("old"),), closed=True),
        Shard(ShardId("child"), (ShardId("parent"),)),
        Shard(ShardId("later"), (ShardId("child"),)),
        Shard(ShardId("apart")),
    ]
    found = with_ancestors(by_shard(lease("child", Position.after("7"), "parent")), listed)
    assert {shard: each.checkpoint.position for shard, each in found.items()} == {
        "child": Position.after("7"),
        "parent": SHARD_END,
        "old": SHARD_END,
    }
    assert found[ShardId("parent")].parents == ("old",)


def test_ancestors_that_the_table_has_keep_their_positions() -> None:
    leases = by_shard(lease("child", Position.horizon(), "parent"), lease("parent", Position.after("3")))
    listed = [Shard(ShardId("parent"), (), closed=True), Shard(ShardId("child"), (ShardId("parent"),))]
    assert with_ancestors(leases, listed) == leases


def test_who_beats_lives_and_who_stands_still_for_the_lease_time_does_not() -> None:
    store = MemoryStore()

    async def main() -> tuple[frozenset[WorkerId], float]:
        for worker in (ANN, BOB):
            await store.beat(worker, 1, facts={})
        desk = Desk(
            store,
            DaemonPlan(worker=CAT, store="memory"),
            GivenPlugins({}),
            Environment(virtual_clock()),
            print,
        )
        async with asyncio.TaskGroup() as scope:
            beating = scope.create_task(_beats(store))
            found = await alive(desk, {ANN, BOB, CAT})
            beating.cancel()
        return found, asyncio.get_running_loop().time()

    found, ended = run_virtual(main())
    assert found == {ANN}
    assert ended == 10.0


async def _beats(store: MemoryStore) -> None:
    counter = 1
    while True:
        await asyncio.sleep(1.5)
        counter += 1
        await store.beat(ANN, counter, facts={})


def configured(folder: Path, name: str) -> Path:
    """A configuration whose store is a file of this name."""
    config = folder / f"{name}.yaml"
    config.write_text(
        f"listen: 127.0.0.1:0\nstore: sqlite://{folder}/{name}.db\nregion: eu-west-1\n"
        "functions: {f: {invoker: process, command: ['true']}}\n"
        f"mappings: [{{UUID: {MAPPING}, FunctionName: f, EventSourceArn: '{STREAM}', StartingPosition: LATEST}}]\n"
    )
    return config


def filled(folder: Path, name: str, leases: Sequence[Lease], *, owner: WorkerId | None = None) -> None:
    """Puts leases into a file."""

    async def fill() -> None:
        async with sqlite.plugin.open(
            sqlite.SqliteSettings(url=f"sqlite://{folder}/{name}.db"), Environment(LoopClock())
        ) as store:
            await store.create(MappingRow(MAPPING, Epoch(1_700_000_000.25), seeded=True))
            await store.seed(MAPPING, leases)
            for each in leases if owner else ():
                await store.take(MAPPING, each, owner=owner or ANN)

    asyncio.run(fill())


def held(folder: Path, name: str) -> tuple[MappingRow, list[Lease]]:
    """What a file has."""

    async def look() -> tuple[MappingRow, list[Lease]]:
        async with sqlite.plugin.open(
            sqlite.SqliteSettings(url=f"sqlite://{folder}/{name}.db"), Environment(LoopClock())
        ) as store:
            (row,) = await store.mappings()
            return row, list(await store.leases(MAPPING))

    return asyncio.run(look())


def call(*words: Any, text: str | None = None) -> Result:
    """Runs `poller checkpoints`."""
    return CliRunner().invoke(application([]), ["checkpoints", *map(str, words)], input=text)


def test_positions_move_from_one_store_to_another(tmp_path: Path) -> None:
    leases = [lease("a", SHARD_END), lease("b", Position.after("0050"), "a")]
    filled(tmp_path, "old", leases)
    exported = call("export", "--config", configured(tmp_path, "old"))
    assert exported.exit_code == 0
    imported = call("import", "--config", configured(tmp_path, "new"), "-", text=exported.stdout)
    assert (imported.exit_code, imported.stderr) == (0, "")
    assert imported.stdout == f"mapping {MAPPING}: 2 shards set, 0 put back, 0 there already\n"
    row, found = held(tmp_path, "new")
    assert (row.fixed, row.seeded) == (Epoch(1_700_000_000.25), True)
    assert found == leases


def test_an_import_goes_back_only_by_force_and_fences_who_was_there(tmp_path: Path) -> None:
    filled(tmp_path, "new", [lease("a", Position.after("9"))], owner=ANN)
    line = f'{{"mapping":"{MAPPING}","shard":"a","position":"AFTER:5"}}'
    config = configured(tmp_path, "new")
    refused = call("import", "--config", config, "-", text=line)
    assert refused.exit_code == 2
    assert "would go back: --force does so" in refused.stderr
    forced = call("import", "--config", config, "--force", "-", text=line)
    assert (forced.exit_code, forced.stderr) == (0, "")
    assert held(tmp_path, "new")[1] == [lease("a", Position.after("5"), epoch=2)]


def test_an_import_moves_a_shard_on_that_nobody_living_has(tmp_path: Path) -> None:
    filled(tmp_path, "new", [lease("a", Position.after("9"))], owner=ANN)
    line = f'{{"mapping":"{MAPPING}","shard":"a","position":"AFTER:12"}}'
    done = call("import", "--config", configured(tmp_path, "new"), "-", text=line)
    assert (done.exit_code, done.stderr) == (0, "")
    assert held(tmp_path, "new")[1] == [lease("a", Position.after("12"), epoch=2)]


@pytest.mark.parametrize("words", [(), ("file.jsonl", "--from-kcl", "table")])
def test_a_file_or_a_table_is_named_and_not_both(words: tuple[str, ...], tmp_path: Path) -> None:
    found = call("import", "--config", configured(tmp_path, "new"), *words)
    assert found.exit_code == 2
    assert "name a file or --from-kcl, one of them" in found.stderr


def test_an_unknown_mapping_is_named_with_those_there_are(tmp_path: Path) -> None:
    filled(tmp_path, "old", [])
    found = call("export", "--config", configured(tmp_path, "old"), "--mapping", "x")
    assert found.exit_code == 2
    assert f"--mapping: value 'x': not in the store, which has {MAPPING}" in found.stderr
