"""`poller status` shows what is paused, and under each blocked line the commands that free it, which can be copied."""

import os
import shlex
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from poller.commands.fitting import Screen, ScreenPage
from poller.commands.operations.naming import close_command, freeing_commands, name_of
from poller.commands.operations.several_workers import newest
from poller.commands.operations.shell import shell_word
from poller.commands.operations.targets import TargetWords, find_target
from poller.commands.status.page import status_page
from poller.domain.operations import OperationId
from poller.domain.records import Epoch, MappingId, ShardId
from poller.domain.status import (
    BreakerStatus,
    DaemonStatus,
    FunctionStatus,
    LaneStatus,
    MappingStatus,
    PauseStatus,
    ShardStatus,
    WorkerBreaker,
)
from poller.domain.untrusted.rendering import as_json
from poller.output.terminal import cells
from tests.commands.test_status import BLOCKED, CALM, JOINERS, NOW, QUEUE, UUIDS, call, daemon, lane
from tests.hostile_texts import HOSTILE

LONG = "shardId-" + "0" * 60
DESTINATION = "arn:aws:sqs:eu-west-1:111122223333:failed"
PAUSE = PauseStatus(
    operation=OperationId("op-1"), by="on-call", since=Epoch(NOW - 7200), reason="repair of the database"
)
BAD = BLOCKED.shards[1]
GROUP = LaneStatus(lane="group 7", state="waiting", blocked_since=Epoch(NOW - 60), attempts=2)
MESSAGE = LaneStatus(lane="m-1", state="waiting", failing_since=Epoch(NOW - 60), attempts=2, last_error="E")


def status(*mappings: MappingStatus) -> DaemonStatus:
    return DaemonStatus(worker="w", mappings=mappings, ready=True, alive=True)


def commands(mapping: MappingStatus, shard: ShardStatus | None, lane: LaneStatus | None) -> tuple[str, ...]:
    return freeing_commands(mapping, name_of(mapping, [mapping]), shard=shard, lane=lane)


def test_a_blocked_shard_is_tried_again_or_skipped() -> None:
    kept = replace(BLOCKED, destination=DESTINATION)
    alone = replace(BAD.lanes[0], records=BAD.lanes[0].records[:1], records_count=1)
    assert commands(kept, BAD, alone) == (
        "poller retry orders --shard shard-bad",
        "poller skip orders --shard shard-bad",
    )
    assert commands(BLOCKED, BAD, alone)[1] == "poller skip orders --shard shard-bad --discard"


def test_where_records_fail_together_the_command_that_shows_them_comes_first() -> None:
    kept = replace(BLOCKED, destination=DESTINATION)
    assert BAD.lanes[0].records_count > 1
    assert commands(kept, BAD, BAD.lanes[0]) == (
        "poller peek orders shard-bad",
        "poller retry orders --shard shard-bad",
        "poller skip orders --shard shard-bad",
    )


def test_while_the_breaker_is_open_the_status_offers_to_close_it_and_not_to_skip() -> None:
    broken = BreakerStatus(state="open", since=Epoch(NOW - 30), reason="5 of 5 calls failed")
    there = WorkerBreaker(worker=BAD.owner or "w", breaker=broken)
    functions = (FunctionStatus(function=BLOCKED.function, breakers=(there,)),)
    picture = replace(status(BLOCKED), functions=functions)
    with daemon(as_json(picture)) as url:
        shown = [line.strip() for line in call("status", "--url", url, columns=200).output.splitlines()]
    close = f"poller breaker close {BLOCKED.function} --url {url}"
    assert shown.count(close) == 2, "below the function, and below what is blocked"
    at = shown.index(close, shown.index(close) + 1)
    assert shown[at + 1] == f"poller retry orders --shard shard-bad --url {url}"
    assert not [line for line in shown if line.startswith("poller skip")]


def test_a_breaker_that_is_open_at_another_worker_only_changes_no_command() -> None:
    broken = BreakerStatus(state="open", since=Epoch(NOW - 30))
    there = WorkerBreaker(worker="elsewhere", breaker=broken)
    functions = (FunctionStatus(function=BLOCKED.function, breakers=(there,)),)
    with daemon(as_json(replace(status(BLOCKED), functions=functions))) as url:
        shown = call("status", "--url", url, columns=200).output
    assert "poller skip orders --shard shard-bad --discard" in shown
    assert shown.count("breaker close") == 1, "the one of the function's own line"


def test_where_a_notice_cannot_be_delivered_a_skip_sends_none() -> None:
    kept = replace(BLOCKED, destination=DESTINATION)
    waiting = replace(BAD, lanes=(replace(BAD.lanes[0], state="discarding"),))
    assert commands(kept, waiting, waiting.lanes[0])[1] == "poller skip orders --shard shard-bad --discard"


def test_a_shard_that_cannot_be_read_shows_the_retry_alone() -> None:
    unread = replace(BAD, state="failing", lanes=(), reason="kinesis GetRecords: AccessDeniedException")
    assert commands(BLOCKED, unread, None) == ("poller retry orders --shard shard-bad",)
    mapping = replace(BLOCKED, shards=(unread,))
    shown = status_page(status(mapping), NOW, 120, commands).lines
    assert shown[-1] == "    poller retry orders --shard shard-bad"
    # Where a lane is blocked too, its commands are shown, and the retry among them reads the shard, too.
    both = status_page(
        status(replace(BLOCKED, shards=(replace(BAD, state="failing"),))), NOW, 120, commands
    ).lines
    assert [line.strip() for line in both].count("poller retry orders --shard shard-bad") == 1


def test_one_of_several_lanes_is_named() -> None:
    several = replace(BAD, lanes=(BAD.lanes[0], lane()))
    assert commands(BLOCKED, several, several.lanes[0])[1] == "poller retry orders --shard shard-bad --lane 0"


def test_groups_and_messages_of_queues_are_named() -> None:
    queue = replace(CALM, mapping=MappingId(UUIDS[1]), function="ship")
    assert commands(queue, None, replace(GROUP, attempts_max=5)) == (
        "poller retry ship --group 'group 7'",
        "poller skip ship --group 'group 7'",
    )
    assert commands(queue, None, MESSAGE) == (
        "poller retry ship",
        "poller skip ship --records m-1 --discard",
    )


@pytest.mark.parametrize(
    ("screen", "lines"),
    [
        (200, [f"poller retry orders --shard {LONG}"]),
        (Screen(None), [f"poller retry orders --shard {LONG}"]),
        (80, ["poller retry orders --shard \\", f"    {LONG}"]),
        (40, ["poller retry orders --shard \\", f"    {LONG[:29]}\\", LONG[29:]]),
    ],
    ids=str,
)
def test_a_command_is_one_line_or_folded_as_a_shell_takes_it(screen: Screen | int, lines: list[str]) -> None:
    mapping = replace(BLOCKED, destination=DESTINATION, shards=(replace(BAD, shard=ShardId(LONG)),))
    page = "\n".join(status_page(status(mapping), NOW, screen, commands).lines)
    text = "\n".join(line if line == LONG[29:] else f"      {line}" for line in lines)
    assert f"\n{text}\n" in page


def test_a_command_with_a_hostile_name_stays_printable() -> None:
    for name in HOSTILE.values():
        page = ScreenPage(80)
        page.command("poller retry " + name * 100)
        assert all(line.translate(JOINERS).isprintable() for line in page.lines)


def test_a_name_that_two_mappings_have_is_made_longer() -> None:
    twin = replace(BLOCKED, mapping=MappingId(UUIDS[0]), source_arn=QUEUE)
    assert name_of(BLOCKED, [BLOCKED]) == "orders"
    assert name_of(BLOCKED, [BLOCKED, twin]) == "stream/orders"
    same = replace(BLOCKED, mapping=MappingId(UUIDS[0]))
    assert name_of(BLOCKED, [BLOCKED, same]) == UUIDS[1]


NAMES = [
    *(text for text in HOSTILE.values() if "\0" not in text and len(text) < 1_000),
    "two words",
    "it's",
    'say "no"',
    "-x",
    "--yes",
    "$HOME `id` $(id) !! #; & | > * ? ~ (a) [b] {c,d}",
    "back\\slash\\",
    "tab\tand\nline",
    "\x1b[31m'red'",
    "注文 " * 30,
    "ß→é" * 40,
    "it's a 'quoted' name " * 12,
]
"""Names that a shell would take apart. No argument of a process has a NUL in it."""


SCREENS = (Screen(None), Screen(40), Screen(80), Screen(40, "ascii"), Screen(80, "iso-8859-1"))


@pytest.mark.parametrize("screen", SCREENS, ids=str)
@pytest.mark.parametrize("name", NAMES, ids=range(len(NAMES)))
def test_a_command_means_the_same_when_it_is_pasted_into_a_shell(name: str, screen: Screen) -> None:
    wanted: list[bytes] = []
    page = ScreenPage(screen)
    written = os.fsencode(name) if name.isprintable() else name.encode("utf-8", "surrogatepass")
    group, message = replace(GROUP, lane=name), replace(MESSAGE, lane=name)
    shard = replace(BAD, shard=ShardId(name))
    for of, failing, option in (
        (None, group, "--group"),
        (None, message, "--records"),
        (shard, shard.lanes[0], "--shard"),
    ):
        line = freeing_commands(CALM, "audit", shard=of, lane=failing, more=" --url " + shell_word(name))[-1]
        page.command(line)
        wanted += [b"poller", b"skip", b"audit", option.encode(), written, b"--discard", b"--url", written]
    page.command(close_command(name, " --url u"))
    wanted += [b"poller", b"breaker", b"close"]
    wanted += [b"--url", b"u", b"--", written] if name.startswith("-") else [written, b"--url", b"u"]
    assert all(line.isprintable() for line in page.lines)
    assert all(cells(line) <= (screen.width or 10**6) for line in page.lines)
    "".join(page.lines).encode(screen.encoding, "surrogateescape" if screen.encoding == "utf-8" else "strict")
    script = "poller() { printf '%s\\0' poller \"$@\"; }\n" + "\n".join(page.lines)
    done = subprocess.run(["bash", "-s"], input=os.fsencode(script), capture_output=True, check=True)
    assert done.stdout.split(b"\0")[:-1] == wanted


def test_a_name_that_begins_with_a_dash_is_no_option() -> None:
    dashed = replace(BLOCKED, function="-f")
    assert name_of(dashed, [dashed]) == "stream/orders"
    same = replace(dashed, mapping=MappingId(UUIDS[0]), function="-g")
    assert name_of(dashed, [dashed, same]) == "function/-f"


def test_what_several_workers_list_is_shown_once_with_the_newest_news() -> None:
    old = replace(GROUP, worker="ann", next_try=Epoch(NOW - 5), attempts=4, attempts_max=9)
    new = replace(old, worker="bob", next_try=Epoch(NOW + 9), attempts=1, last_error="E: new")
    other = replace(old, worker="ann", lane="group 8")
    queue = replace(CALM, lanes=(old, new, other))
    lines = [line.strip() for line in status_page(status(queue), NOW, 120, commands).lines]
    assert lines.count("poller retry audit --group 'group 7'") == 1
    assert "E: new" in lines
    assert lines.count("poller retry audit --group 'group 8'") == 1
    runs = replace(old, state="invoking", next_try=None, last_error="E: runs")
    assert [each.last_error for each in newest((old, runs, new))] == ["E: runs"]
    idle = replace(old, blocked_since=None, last_error="", worker="ann")
    assert newest((idle, replace(idle, worker="bob"))) == (idle, replace(idle, worker="bob")), (
        "pollers at work"
    )
    target = find_target(status(queue), TargetWords(mapping="audit", group="group 7"), one_shard=True)
    assert target.lanes() == [new]


def test_commands_that_are_shown_send_the_token_that_the_status_was_asked_with(tmp_path: Path) -> None:
    file = tmp_path / "my token"
    file.write_text("secret-of-the-test")
    with daemon(as_json(status(BLOCKED))) as url:
        lines = call("status", "--url", url, "--token-file", str(file), columns=200).stdout.splitlines()
    assert f"      poller retry orders --shard shard-bad --url {url} --token-file '{file}'" in lines


def test_the_commands_mean_what_they_stand_under() -> None:
    found = status(CALM, BLOCKED)
    name = name_of(BLOCKED, found.mappings)
    word = shlex.split(freeing_commands(BLOCKED, name, shard=BAD, lane=BAD.lanes[0])[1])
    target = find_target(found, TargetWords(mapping=word[2], shard=word[4]), one_shard=False)
    assert (target.mapping, target.status) == (BLOCKED, BAD)


def test_status_shows_them_with_the_address_that_was_asked() -> None:
    import msgspec

    with daemon(msgspec.json.encode(status(BLOCKED))) as url:
        lines = call("status", "--url", url, columns=120).stdout.splitlines()
    assert f"      poller skip orders --shard shard-bad --discard --url {url}" in lines
    assert f"      poller retry orders --shard shard-bad --url {url}" in lines


def page(*mappings: MappingStatus) -> list[str]:
    return [line.strip() for line in status_page(status(*mappings), NOW, 120).lines]


PAUSED = "paused by on-call for 2 h, since 2025-12-31T22:00:00Z: repair of the database"


def test_a_paused_mapping_says_so_once() -> None:
    shard = replace(BAD, paused=PAUSE, lanes=(lane(paused=PAUSE),))
    assert page(replace(BLOCKED, paused=PAUSE, shards=(shard,))).count(PAUSED) == 1


def test_a_paused_shard_and_a_paused_lane_say_so() -> None:
    shard = page(replace(BLOCKED, shards=(replace(BAD, paused=PAUSE, lanes=(lane(paused=PAUSE),)),)))
    assert shard.count(PAUSED) == 1
    assert shard[shard.index(PAUSED) - 1] == "AFTER:7"
    one = page(replace(BLOCKED, shards=(replace(BAD, lanes=(lane(paused=PAUSE),)),)))
    assert one[one.index(PAUSED) - 1] == "lane 0 is paused"


def test_a_paused_group_says_so() -> None:
    group = LaneStatus(lane="g", state="paused", paused=PAUSE)
    lines = page(replace(CALM, lanes=(group,)))
    assert lines[lines.index(PAUSED) - 1] == "g is paused"
