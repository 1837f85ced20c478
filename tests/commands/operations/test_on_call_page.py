"""docs/operate/on-call.md shows what the commands print now, and it and the runbooks name commands that exist."""

import re
import shlex
from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import datetime
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

import pytest
import typer
from botocore.exceptions import ClientError

from adapters.aws.clients import translate
from poller.cli import application
from poller.commands.breaker.close import _said, _sentence
from poller.commands.operations.naming import freeing_commands, name_of
from poller.commands.operations.sentences import sentence
from poller.commands.operations.targets import TargetWords, find_target
from poller.commands.root.plugin_commands import COMMANDS
from poller.commands.status.page import status_page
from poller.commands.status.times import moment
from poller.domain.operations import Action
from poller.domain.records import Epoch, MappingId, ShardId
from poller.domain.rows import MappingState
from poller.domain.status import (
    BreakerStatus,
    DaemonStatus,
    FaultyRecord,
    FunctionStatus,
    LaneStatus,
    MappingStatus,
    ShardStatus,
    WorkerBreaker,
    WorkerState,
    WorkerStatus,
)
from poller.domain.telemetry.labels import BreakerState
from poller.rules.streams.operations.notice_reading import StreamNotice, described
from tests.config.test_documentation import read_by

OPERATE = Path(__file__).parents[3] / "docs" / "operate"
PAGE = OPERATE / "on-call.md"
RUNBOOKS = sorted((OPERATE / "runbooks").glob("*.md"))
DESTINATION = "arn:aws:sqs:eu-west-1:111122223333:orders-failed"
SHARD = ShardId("shardId-000000000000")
ARRIVED = Epoch(1_796_107_622.3)
SINCE = Epoch(1_796_107_655.4)
NOW = Epoch(SINCE + 39.2)
ORDERS = MappingStatus(
    mapping=MappingId("b898608c-004a-5b0f-a73f-cdcd7d3a31ba"),
    function="orders",
    source_arn="arn:aws:kinesis:eu-west-1:111122223333:stream/orders",
    state=MappingState.ENABLED,
    destination=DESTINATION,
    shards=(
        ShardStatus(
            shard=SHARD,
            state="blocked",
            position="AFTER:000000017961076074350000000007",
            owner="poller-1",
            lanes=(
                LaneStatus(
                    lane="0",
                    state="waiting",
                    attempts=4,
                    blocked_since=SINCE,
                    next_try=Epoch(NOW + 2.0),
                    last_error="ValueError: order has no field 'total'",
                    records=(
                        FaultyRecord(
                            identifier="000000017961076222820000000009",
                            key="customer-7",
                            arrived=ARRIVED,
                        ),
                    ),
                    records_count=8,
                ),
            ),
        ),
    ),
)
STATUS = DaemonStatus(
    worker="poller-0",
    mappings=(ORDERS,),
    ready=True,
    alive=True,
    workers=tuple(WorkerStatus(worker=name, state=WorkerState.ALIVE) for name in ("poller-0", "poller-1")),
)


def freeing(mapping: MappingStatus, shard: ShardStatus | None, lane: LaneStatus | None) -> tuple[str, ...]:
    return freeing_commands(mapping, name_of(mapping, STATUS.mappings), shard=shard, lane=lane)


def blocks() -> list[str]:
    return re.findall(r"^```console\n(.*?)^```$", PAGE.read_text(), re.DOTALL | re.MULTILINE)


def shown(command: str, among: str) -> list[str]:
    """The lines below a command of the page, where a block with `among` has it."""
    (block,) = [each for each in blocks() if among in each and f"$ poller {command}" in each]
    return block.partition(f"$ poller {command}")[2].partition("\n$ ")[0].splitlines()[1:]


def contains(lines: Sequence[str], page: Sequence[str]) -> bool:
    """Whether `page` is `lines` with parts cut out, each marked with `…`."""
    found = "\n".join(lines) + "\n"
    at = 0
    for part in re.split(r"^…$\n?", "\n".join(page) + "\n", flags=re.MULTILINE):
        at = found.find(part, at)
        if at < 0:
            return False
        at += len(part)
    return True


def test_a_blocked_shard_is_shown_as_poller_status_shows_it() -> None:
    assert moment(SINCE) == "2026-12-01T06:47:35Z"
    page = shown("status", "poller peek orders")
    assert contains(status_page(STATUS, NOW, 80, freeing).lines, page), page


def test_a_changed_line_of_the_page_would_be_found() -> None:
    page = shown("status", "poller peek orders")
    for number, line in enumerate(page):
        if line != "…":
            assert not contains(
                status_page(STATUS, NOW, 80, freeing).lines, [*page[:number], f"{line}!", *page[number + 1 :]]
            )


def test_a_destination_that_is_gone_is_shown_with_its_name_as_poller_status_shows_it() -> None:
    page = shown("status", "did not take the batch")
    text = "\n".join(page)
    (since,) = re.findall(r"since (\S+), ", text)
    (attempts,) = re.findall(r"attempt (\d+), next try in 1 s", text)
    (blocked_s,) = re.findall(r"blocked for (\d+) s", text)
    blocked = Epoch(datetime.fromisoformat(since).timestamp())
    now = Epoch(blocked + float(blocked_s))
    records = tuple(
        FaultyRecord(identifier=number, key="customer-7", arrived=Epoch(now - float(age)))
        for number, age in re.findall(r"record (\d+), (\d+) s old", text)
    )
    code = "AWS.SimpleQueueService.NonExistentQueue"
    answer: Any = {"Error": {"Code": code}, "ResponseMetadata": {"HTTPStatusCode": 400}}
    answered = ClientError(answer, "SendMessage")
    reason = translate(answered, "sqs SendMessage to orders-failed").reason
    lane = replace(
        ORDERS.shards[0].lanes[0],
        state="discarding",
        blocked_since=blocked,
        attempts=int(attempts),
        next_try=Epoch(now + 1.0),
        last_error=f"the on-failure destination did not take the batch: {reason}",
        records=records,
    )
    shard = replace(ORDERS.shards[0], lanes=(lane,))
    status = replace(STATUS, mappings=(replace(ORDERS, shards=(shard,)),))
    lines = status_page(status, now, 80, freeing).lines
    assert contains(lines, page), (lines, page)


def test_a_breaker_is_shown_and_closed_as_the_commands_say_it() -> None:
    reason = "5 of 5 calls failed within 30 s: the connection to the function's URL failed before the request was sent: 127.0.0.1:18099 refuses connections"
    since = Epoch(1_796_107_691.0)
    open_ = BreakerStatus(state=BreakerState.OPEN, since=since, reason=reason, next_try=Epoch(since + 60.0))
    closed = BreakerStatus(state=BreakerState.CLOSED, since=since)
    breakers = tuple(
        WorkerBreaker(worker=name, breaker=each) for name, each in (("poller-0", closed), ("poller-1", open_))
    )
    function = FunctionStatus(function="stock", breaker=closed, breakers=breakers)
    status = replace(STATUS, functions=(function,))
    page = shown("status", "breaker open")
    assert contains(status_page(status, Epoch(since + 20.0), 80, freeing).lines, page), page
    said = [_sentence(status, "stock"), "Do it? [y/N] y", _said(function)]
    assert shown("breaker close stock", "breaker open") == said


def test_a_skip_is_announced_as_the_command_announces_it() -> None:
    target = find_target(STATUS, TargetWords(mapping="orders"), one_shard=True)
    members = {"records": ["000000017961076222820000000012"]}
    said = sentence(Action.SKIP, target, members, now=NOW)
    assert f"would do: {said}\n" in "".join(blocks())


def page_of(name: str) -> str:
    return (OPERATE / name).read_text()


def test_the_dry_run_of_a_redrive_lists_notices_as_the_command_does() -> None:
    line = r"^- (\d+) records? of shard (\S+), from (\d+) to (\d+): .*$"
    found = list(re.finditer(line, page_of("redrive.md"), re.MULTILINE))
    assert found
    for each in found:
        notice = StreamNotice(
            shard=ShardId(each[2]),
            first=each[3],
            last=each[4],
            records=int(each[1]),
            since=SINCE,
        )
        assert each[0] == f"- {described(notice)}"


def test_a_seek_is_announced_as_the_command_announces_it() -> None:
    target = find_target(STATUS, TargetWords(mapping="orders"), one_shard=False)
    page = page_of("seek.md")
    to = re.findall(r"^\$ poller seek orders --to (\S+)", page, re.MULTILINE)
    said = sentence(Action.SEEK, target, {"to": to[-1]}, now=NOW)
    assert f"\n{said}\nDo it? [y/N] y\n" in page


def test_a_replay_is_announced_as_the_command_announces_it() -> None:
    target = find_target(STATUS, TargetWords(mapping="orders"), one_shard=False)
    page = page_of("replay.md")
    since, until = re.findall(r"^\$ poller replay stream/orders --from (\S+) --to (\S+)", page, re.MULTILINE)[
        0
    ]
    members = {"from": since, "to": until, "on_failure": "stop"}
    dry = sentence(Action.REPLAY, target, members, now=NOW)
    real = sentence(Action.REPLAY, target, members | {"function": "audit", "records_per_s": 200.0}, now=NOW)
    assert f"\nwould do: {dry}\n" in page
    assert f"\n{real}\nDo it? [y/N] y\n" in page


def named(text: str) -> Iterator[list[str]]:
    """The words of each command in running text, and of those that stand in output to be copied."""
    for code in re.findall(r"`poller ([^`]+)`", text):
        yield shlex.split(code)
    for block in re.findall(r"^```console\n(.*?)^```$", text, re.DOTALL | re.MULTILINE):
        for code in re.findall(r"^ +poller (.*)", block, re.MULTILINE):
            # A line of the output may also say what to read: "poller status --json has all of …".
            yield shlex.split(code)


def read(words: list[str]) -> None:
    """Reads a command. A name alone, as in "then `poller retry` reads again", must be that of a command."""
    command = typer.main.get_command(application(entry_points(group=COMMANDS)))
    bare = all(not word.startswith("-") for word in words) and len(words) <= 2
    try:
        read_by(command, words, "poller")
    except Exception as error:
        if not (bare and "Missing parameter" in str(error)):
            raise


@pytest.mark.parametrize("page", [PAGE, *RUNBOOKS], ids=lambda page: page.stem)
def test_every_command_that_it_names_exists(page: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("POLLER_CONFIG", "poller.yaml")
    for words in named(page.read_text()):
        read(words)


@pytest.mark.parametrize("page", RUNBOOKS, ids=lambda page: page.stem)
def test_a_runbook_names_a_command_below_what_to_do(page: Path) -> None:
    _, _, remedy = page.read_text().partition("## What to do\n")
    assert list(named(remedy))


def test_a_command_that_does_not_exist_is_found() -> None:
    for words in (["retri", "orders"], ["skip", "orders", "--record", "x"], ["breaker", "open", "x"]):
        with pytest.raises(Exception, match="No such"):
            read(words)
