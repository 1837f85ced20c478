"""docs/operate/on-call.md shows what the commands print now, and it and the runbooks name commands that exist."""

import re
import shlex
from collections.abc import Iterator
from importlib.metadata import entry_points
from pathlib import Path

import pytest
import typer

from poller.cli import COMMANDS, application
from poller.commands.operations.naming import freeing_commands, name_of
from poller.commands.operations.sentences import sentence
from poller.commands.operations.targets import TargetWords, find_target
from poller.commands.status_page import moment, status_page
from poller.domain.operations import Action
from poller.domain.records import Epoch, MappingId, ShardId
from poller.domain.rows import MappingState
from poller.domain.status import (
    DaemonStatus,
    FaultyRecord,
    LaneStatus,
    MappingStatus,
    ShardStatus,
    WorkerState,
    WorkerStatus,
)
from tests.config.test_documentation import read_by

OPERATE = Path(__file__).parents[3] / "docs" / "operate"
PAGE = OPERATE / "on-call.md"
RUNBOOKS = sorted((OPERATE / "runbooks").glob("*.md"))
DESTINATION = "arn:aws:sqs:eu-west-1:111122223333:orders-failed"
SHARD = ShardId("shardId-000000000000")
SINCE = Epoch(1_796_090_354.4)
NOW = Epoch(SINCE + 12.2)
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
            position="AFTER:000000017960899958380000000091",
            owner="poller-1",
            lanes=(
                LaneStatus(
                    lane="0",
                    state="waiting",
                    attempts=6,
                    blocked_since=SINCE,
                    next_try=Epoch(NOW + 7.0),
                    last_error="ValueError: order has no field 'total'",
                    records=(
                        FaultyRecord(
                            identifier="000000017960903548290000000104",
                            key="customer-7",
                            arrived=SINCE,
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


def test_a_blocked_shard_is_shown_as_poller_status_shows_it() -> None:
    assert moment(SINCE) == "2026-12-01T01:59:14Z"
    first = blocks()[0].removeprefix("$ poller status\n").partition("…")[0]
    assert status_page(STATUS, NOW, 80, freeing).lines[: len(first.splitlines())] == first.splitlines()


def test_a_skip_is_announced_as_the_command_announces_it() -> None:
    target = find_target(STATUS, TargetWords(mapping="orders"), one_shard=True)
    members = {"records": ["000000017960903548370000000107"]}
    said = sentence(Action.SKIP, target, members, now=NOW)
    assert f"would do: {said}\n" in "".join(blocks())


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
