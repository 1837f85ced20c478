"""`poller status` shows what is paused, and under each blocked line the commands that free it, which can be copied."""

import shlex
from dataclasses import replace

import pytest

from poller.commands.fitting import ScreenPage
from poller.commands.operations.naming import freeing_commands, name_of
from poller.commands.operations.targets import TargetWords, find_target
from poller.commands.status_page import status_page
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
from tests.commands.test_status import BLOCKED, CALM, NOW, QUEUE, UUIDS, call, daemon, lane
from tests.hostile_texts import HOSTILE

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
    assert commands(kept, BAD, BAD.lanes[0]) == (
        "poller retry orders --shard shard-bad",
        "poller skip orders --shard shard-bad",
    )
    assert commands(BLOCKED, BAD, BAD.lanes[0])[1] == "poller skip orders --shard shard-bad --discard"


def test_while_the_breaker_is_open_the_status_offers_to_close_it_and_not_to_skip() -> None:
    broken = BreakerStatus(state="open", since=Epoch(NOW - 30), reason="5 of 5 calls failed")
    there = WorkerBreaker(worker=BAD.owner or "w", breaker=broken)
    functions = (FunctionStatus(function=BLOCKED.function, breakers=(there,)),)
    picture = replace(status(BLOCKED), functions=functions)
    with daemon(as_json(picture)) as url:
        shown = [line.strip() for line in call("status", "--url", url, columns=200).output.splitlines()]
    at = shown.index(f"poller breaker close {BLOCKED.function} --url {url}")
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
    assert commands(BLOCKED, several, several.lanes[0])[0] == "poller retry orders --shard shard-bad --lane 0"


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


def test_a_command_is_one_line_on_any_screen() -> None:
    long = replace(BAD, shard=ShardId("shardId-" + "0" * 60))
    mapping = replace(BLOCKED, destination=DESTINATION, shards=(long,))
    for width in (40, 80, 200):
        lines = [line.strip() for line in status_page(status(mapping), NOW, width, commands).lines]
        assert f"poller retry orders --shard {long.shard}" in lines
        assert f"poller skip orders --shard {long.shard}" in lines


def test_a_command_with_a_hostile_name_stays_one_printable_line() -> None:
    for name in HOSTILE.values():
        page = ScreenPage(80)
        page.command("poller retry " + name * 100)
        [line] = page.lines
        assert line.isprintable()


def test_a_name_that_two_mappings_have_is_made_longer() -> None:
    twin = replace(BLOCKED, mapping=MappingId(UUIDS[0]), source_arn=QUEUE)
    assert name_of(BLOCKED, [BLOCKED]) == "orders"
    assert name_of(BLOCKED, [BLOCKED, twin]) == "stream/orders"
    same = replace(BLOCKED, mapping=MappingId(UUIDS[0]))
    assert name_of(BLOCKED, [BLOCKED, same]) == UUIDS[1]


@pytest.mark.parametrize("text", HOSTILE)
def test_a_command_with_a_hostile_name_is_one_word_for_a_shell(text: str) -> None:
    lane = replace(GROUP, lane=text)
    retry, skip = commands(CALM, None, lane)
    assert shlex.split(skip)[:4] == ["poller", "skip", "audit", "--group"]
    assert shlex.split(retry) == ["poller", "retry", "audit", "--group", text]


def test_the_commands_mean_what_they_stand_under() -> None:
    found = status(CALM, BLOCKED)
    name = name_of(BLOCKED, found.mappings)
    word = shlex.split(freeing_commands(BLOCKED, name, shard=BAD, lane=BAD.lanes[0])[0])
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
