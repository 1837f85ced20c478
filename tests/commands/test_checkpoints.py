"""Positions as lines of JSON, and what an import makes of them."""

import asyncio
import json
import sqlite3
from collections.abc import Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner, Result

from adapters.stores.memory import MemoryStore
from adapters.stores.sqlite import store as sqlite
from poller.cli import application
from poller.clock import LoopClock
from poller.commands.checkpoint_file import (
    PROBLEMS_MAX,
    ImportSteps,
    Kept,
    mapping_lines,
    read,
    steps,
    with_ancestors,
)
from poller.commands.checkpoints import NOTHING_WRITTEN, UNKNOWN, CommandContext, alive, import_mapping
from poller.domain.errors import InvalidConfiguration
from poller.domain.plan import DaemonPlan
from poller.domain.policies import Backoff, BatchPolicy, RetryPolicy
from poller.domain.records import SHARD_END, Epoch, MappingId, Position, Rank, Shard, ShardId, WorkerId
from poller.domain.rows import REPLAY_PREFIX, Checkpoint, Lease, MappingRow
from poller.plugins import Environment, GivenPlugins
from poller.runtime.stopping import Reason, Stop
from poller.runtime.streams.stream_mapping import StreamMapping
from tests.runtime.fakes import FakeFunction, FakeStream, mapping, poison, records, stream_parts
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
        Position.after("50:7"),
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
    assert read("\n".join(mapping_lines(row, leases))) == {MAPPING: Kept(row.fixed, by_shard(*leases))}


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("nonsense", "malformed"),
        ('{"mapping": "m"}', "neither fixed nor shard"),
        ('{"mapping": "m", "shard": "a"}', "no position"),
        ('{"mapping": "m", "shard": "a", "position": "LATEST"}', "not a position"),
        ('{"mapping": "m", "shard": "a", "position": "SHARD_END", "memo": "?"}', "base64"),
        ('{"mapping": "m", "shard": "a", "position": "SHARD_END", "owner": "x"}', "owner"),
        ('{"mapping": "m", "shard": "a", "position": "AFTER:-5"}', "decimal digits"),
        ('{"mapping": "m", "shard": "a", "position": "AFTER:"}', "decimal digits"),
        ('{"mapping": "m", "shard": "a", "position": "AFTER:5:"}', "decimal digits"),
        ('{"mapping": "m", "shard": "a", "position": "AFTER:5:2/3"}', "decimal digits"),
        (
            '{"mapping": "m", "shard": "a", "position": "AT_TIMESTAMP:0"}',
            "epoch seconds nor milli.*TRIM_HORIZON",
        ),
        (
            '{"mapping": "m", "shard": "a", "position": "AT_TIMESTAMP:-1"}',
            "position 'AT_TIMESTAMP:-1'.*write epoch",
        ),
        (
            '{"mapping": "m", "shard": "a", "position": "AT_TIMESTAMP:1767225600000000"}',
            "epoch seconds nor milli",
        ),
        ('{"mapping": "m", "shard": "a", "position": "AT_TIMESTAMP:nan"}', "epoch seconds nor milli"),
        ('{"mapping": "m", "shard": "a", "position": "AT_TIMESTAMP:yesterday"}', "2026-01-01T00:00:00Z"),
        (
            '{"mapping": "m", "shard": "a", "position": "AT_TIMESTAMP:2026-01-01T00:00:00"}',
            "its zone is missing",
        ),
        ('{"mapping": "m", "fixed": 17}', "fixed is 17, which is neither"),
    ],
)
def test_a_wrong_line_is_named_with_its_number(line: str, problem: str) -> None:
    good = '{"mapping": "m", "shard": "b", "position": "SHARD_END"}'
    with pytest.raises(InvalidConfiguration, match=r"line 2: .*" + problem):
        read(f"{good}\n{line}\n")


def test_of_a_file_of_another_kind_the_first_wrong_lines_are_reported() -> None:
    with pytest.raises(InvalidConfiguration) as caught:
        read("store: memory://\n" * 100_000)
    *told, rest = caught.value.problems
    assert [each.partition(": JSON is malformed")[0] for each in told] == [
        f"FILE: line {number}" for number in range(1, PROBLEMS_MAX + 1)
    ]
    assert rest == "FILE: no further line was read; mend these first"


@pytest.mark.parametrize(
    "moment",
    [
        "1767225600",
        "1767225600.0",
        "1767225600000",
        "2026-01-01T00:00:00Z",
        "2026-01-01T02:00:00+02:00",
        "20260101T000000Z",
    ],
)
def test_a_moment_may_be_given_as_people_have_it(moment: str) -> None:
    kept = read(f'{{"mapping": "m", "shard": "a", "position": "AT_TIMESTAMP:{moment}"}}')
    (found,) = kept[MappingId("m")].leases.values()
    assert found.checkpoint.position == Position.at(Epoch(1_767_225_600.0))


@pytest.mark.parametrize("fixed", [1_767_225_600, 1_767_225_600_000])
def test_the_moment_of_latest_may_be_given_in_milliseconds(fixed: int) -> None:
    assert read(f'{{"mapping": "m", "fixed": {fixed}}}')[MappingId("m")].fixed == 1_767_225_600.0


@given(st.integers(100_000_000_000, 4_102_444_800_000))
def test_every_millisecond_is_read_as_it_was_written(since_ms: int) -> None:
    position = Position(Rank.START, since_ms=since_ms)
    lines = mapping_lines(MappingRow(MAPPING, Epoch(1_700_000_000.0)), [lease("a", position)])
    assert read("\n".join(lines))[MAPPING].leases[ShardId("a")].checkpoint.position == position


def test_a_memo_counts_only_at_the_position_with_which_it_was_written() -> None:
    row, there = MappingRow(MAPPING, Epoch(1_700_000_000.25)), Checkpoint(Position.after("49"), b"settled")
    text = "\n".join(mapping_lines(row, [replace(lease("a", SHARD_END), checkpoint=there)]))
    assert read(text)[MAPPING].leases[ShardId("a")].checkpoint == there
    for position in ("AFTER:40", "AFTER:50", "TRIM_HORIZON", "AT_TIMESTAMP:1767225600000"):
        edited = text.replace('"position":"AFTER:49"', f'"position":"{position}"')
        assert read(edited)[MAPPING].leases[ShardId("a")].checkpoint.memo == b""


def test_a_shard_that_is_put_back_loses_its_memo_also_where_it_stands_already() -> None:
    there = replace(lease("a", SHARD_END), checkpoint=Checkpoint(Position.after("9"), b"settled"))
    back = replace(there, checkpoint=Checkpoint(Position.after("5"), b"older"))
    same = replace(there, checkpoint=Checkpoint(Position.after("9")))
    for wanted in (back, same):
        found = steps(by_shard(wanted), by_shard(there), busy=(), force=True)
        assert found.rewind == ((there, Checkpoint(wanted.checkpoint.position)),)
    assert steps(by_shard(there), by_shard(there), busy=(), force=True).same == 1
    assert steps(by_shard(same), by_shard(there), busy=(), force=False).same == 1


def test_a_shard_that_is_given_twice_is_refused() -> None:
    good = '{"mapping": "m", "shard": "b", "position": "SHARD_END"}'
    with pytest.raises(InvalidConfiguration, match="given twice"):
        read(f"{good}\n{good}\n")


def test_new_shards_are_seeded_and_known_ones_move_on() -> None:
    new, later, same = lease("a", SHARD_END), lease("b", Position.after("9")), lease("c", Position.after("7"))
    there = by_shard(lease("b", Position.after("5"), epoch=4), lease("c", Position.after("7"), owner=ANN))
    assert steps(by_shard(new, later, same), there, busy={ANN}, force=False) == ImportSteps(
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
        desk = CommandContext(
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


def test_a_replay_that_runs_is_not_exported(tmp_path: Path) -> None:
    filled(tmp_path, "old", [lease("a", Position.after("0050"))])
    with closing(sqlite3.connect(tmp_path / "old.db")) as file, file:
        file.execute(
            "INSERT INTO mappings (mapping, fixed, seeded, revision, document) VALUES (?, 0.5, 1, 0, '{}')",
            (f"{REPLAY_PREFIX}1",),
        )
    done = call("export", "--config", configured(tmp_path, "old"))
    assert done.exit_code == 0
    assert {json.loads(line)["mapping"] for line in done.stdout.splitlines()} == {MAPPING}


def test_a_damaged_row_keeps_no_other_mapping_from_being_exported(tmp_path: Path) -> None:
    filled(tmp_path, "old", [lease("a", Position.after("0050"))])
    with closing(sqlite3.connect(tmp_path / "old.db")) as file, file:
        for damaged in ("", "zzz"):
            file.execute(
                "INSERT INTO mappings (mapping, fixed, seeded, revision, document) VALUES (?, 0.5, 1, 0, '{')",
                (damaged,),
            )
    done = call("export", "--config", configured(tmp_path, "old"))
    assert done.exit_code == 2
    assert {json.loads(line)["mapping"] for line in done.stdout.splitlines()} == {MAPPING}
    assert '"AFTER:0050"' in done.stdout
    assert done.stderr.count("not exported: the row of") == 2


@pytest.mark.parametrize("text", ["", "\n", " \n\n"])
def test_a_file_without_checkpoints_is_refused(tmp_path: Path, text: str) -> None:
    done = call("import", "--config", configured(tmp_path, "new"), "-", text=text)
    assert (done.exit_code, done.stdout) == (2, "")
    assert done.stderr == f"poller: {NOTHING_WRITTEN}\n"


def test_a_mapping_that_nobody_knows_is_reported(tmp_path: Path) -> None:
    other = "00000000-0000-4000-8000-000000000000"
    lines = [f'{{"mapping":"{each}","shard":"a","position":"AFTER:12"}}' for each in (MAPPING, other)]
    config = configured(tmp_path, "new")
    done = call("import", "--config", config, "-", text="\n".join(lines))
    assert (done.exit_code, done.stderr) == (0, "")
    known, strange, told = done.stdout.splitlines()
    assert (known.partition(":")[0], strange.partition(":")[0]) == (f"mapping {MAPPING}", f"mapping {other}")
    assert told == f"mapping {other}: {UNKNOWN}"
    again = call("import", "--config", config, "-", text=lines[1])
    assert again.stdout == f"mapping {other}: 0 shards set, 0 put back, 1 there already\n"


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


def test_all_records_behind_a_position_that_was_set_come_again() -> None:
    """Ten of sixty records wait behind a poison in their lanes; the other fifty are settled beyond the position."""

    async def main() -> tuple[set[int], set[int]]:
        store, stream = MemoryStore(), FakeStream()
        for number in range(1, 61):
            stream.put(*records(number, key=f"key-{number % 6}"))
        plan = mapping(batch=BatchPolicy(1), retry=RetryPolicy(backoff=Backoff(1000, 1000)), lanes=6)

        async def delivered(function: FakeFunction) -> set[int]:
            stop = Stop()
            parts = stream_parts(stream, function, plan=plan, store=store)
            async with asyncio.TaskGroup() as scope:
                scope.create_task(StreamMapping(parts, stop).run())
                await asyncio.sleep(20)
                stop.request(Reason.REQUESTED)
            return {number for call in function.calls for number in call}

        await delivered(FakeFunction(poison(7)))
        (row,), told = await store.mappings(), await store.leases(plan.mapping)
        assert told[0].checkpoint.memo
        position = told[0].checkpoint.position.encode()
        assert position == "AFTER:6"
        there, begun = f'"position":"{position}"', '"position":"TRIM_HORIZON"'
        lines = [line.replace(there, begun) for line in mapping_lines(row, told)]
        desk = CommandContext(
            store,
            DaemonPlan(worker=CAT, store="memory"),
            GivenPlugins({}),
            Environment(virtual_clock()),
            print,
        )
        for found, kept in read("\n".join(lines)).items():
            await import_mapping(desk, found, kept, force=True)
        return await delivered(FakeFunction()), set(range(1, 61))

    again, everything = run_virtual(main())
    assert again == everything


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
