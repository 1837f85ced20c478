"""The commands that take long, against a real control server: what they ask, and how they show plan, progress and end."""

import json
from itertools import pairwise
from typing import Any

import pytest

from poller.commands.operations import command
from poller.commands.operations.sentences import sentence
from poller.commands.operations.targets import Target
from poller.domain.operations import Action, OperationState
from poller.domain.records import Epoch
from tests.adapters.control.serving import STREAM
from tests.commands.operations.test_commands import Carried, asked, called

S = OperationState
FAILED = "arn:aws:sqs:eu-west-1:111122223333:orders-failed"
SEEK = ("seek", "stream/orders", "--to", "2026-11-29T08:00:00Z")
REDRIVE = ("redrive", "stream/orders", "--from", FAILED)


@pytest.fixture(autouse=True)
def looks_often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(command, "LOOK_S", 0.01)


def done(**changes: Any) -> dict[str, Any]:
    """The last step of an operation."""
    return {"state": S.DONE, "ended": Epoch(1.0), **changes}


@pytest.mark.parametrize(
    ("words", "request_"),
    [
        (SEEK, {"action": "seek", "to": "2026-11-29T08:00:00Z"}),
        (
            (*SEEK, "--shard", "0", "--shard", "shardId-7", "--skip", "--reason", "why"),
            {
                "action": "seek",
                "to": "2026-11-29T08:00:00Z",
                "shards": ["0", "shardId-7"],
                "skip": True,
                "reason": "why",
            },
        ),
        (REDRIVE, {"action": "redrive", "from": FAILED}),
        (
            (*REDRIVE, "--limit", "5", "--messages-per-s", "0.5"),
            {"action": "redrive", "from": FAILED, "limit": 5, "messages_per_s": 0.5},
        ),
    ],
)
def test_a_command_asks_for_what_its_options_say(words: tuple[str, ...], request_: dict[str, Any]) -> None:
    model = Carried(steps=[done(result="well")])
    found = called(*words, "--yes", model=model)
    assert (found.exit_code, found.stdout) == (0, f"{words[0]} done: well\n")
    assert asked(model) == [request_]


def test_a_dry_run_asks_nobody_and_lists_the_moves_that_the_daemon_planned() -> None:
    lines = ["shard shardId-0 from AFTER 5 to TRIM_HORIZON (back)", "shard shardId-1 stays"]
    model = Carried(steps=[{"state": S.RUNNING, "notes": {"plan": lines}}, done(result="would move two")])
    found = called(*SEEK, "--dry-run", model=model)
    assert found.exit_code == 0
    assert found.stdout.splitlines() == [f"- {each}" for each in lines]
    assert asked(model)[0]["dry_run"] is True


def test_a_dry_run_of_a_redrive_also_says_how_many_there_are() -> None:
    notes = {"plan": ["2 records of shard 0, from 1 to 2: the event in the notice", "it is no JSON"]}
    model = Carried(steps=[done(notes=notes, result="would call 1 batch; 1 could not be called")])
    found = called(*REDRIVE, "--dry-run", model=model)
    assert found.stdout.splitlines() == [
        "- 2 records of shard 0, from 1 to 2: the event in the notice",
        "- it is no JSON",
        "would call 1 batch; 1 could not be called",
    ]


def test_a_dry_run_that_is_refused_says_why() -> None:
    result = "shards: 9 is no shard of this mapping"
    found = called(*SEEK, "--dry-run", model=Carried(steps=[done(state=S.FAILED, result=result)]))
    assert (found.exit_code, found.stdout) == (1, "--shard: 9 is no shard of this mapping\n")


@pytest.mark.usefixtures("each_step_shown")
def test_the_move_of_shards_is_shown_and_who_still_has_one() -> None:
    waiting = [f"shard shardId-{number} is still read by w2" for number in range(4)]
    steps: list[dict[str, Any]] = [
        {"state": S.RUNNING, "progress": {"shards": 5, "moved": 1}, "notes": {"waiting": waiting}},
        {"progress": {"shards": 5, "moved": 5}, "notes": {"waiting": []}},
        done(result="5 shards moved"),
    ]
    found = called(*SEEK, "--yes", model=Carried(steps=steps))
    assert "running, 1 of 5 shards moved; shard shardId-0 is still read by w2" in found.stderr
    assert "; and 2 more\n" in found.stderr
    assert "running, 5 of 5 shards moved\n" in found.stderr


@pytest.mark.usefixtures("each_step_shown")
def test_the_notices_of_a_redrive_are_counted_while_it_runs() -> None:
    counts = {"settled": 12, "records": 40, "failed": 0, "refused": 3}
    model = Carried(steps=[{"state": S.RUNNING, "progress": counts}, done(result="all")])
    assert "running, 12 settled, 3 refused\n" in called(*REDRIVE, "--yes", model=model).stderr


@pytest.mark.usefixtures("each_step_shown")
def test_what_a_redrive_waits_for_is_shown_while_it_waits() -> None:
    counts = {"settled": 12, "records": 40, "failed": 0, "refused": 0}
    notes = {"waiting": ["the mapping is paused"]}
    model = Carried(
        steps=[{"state": S.RUNNING, "progress": counts, "notes": notes}, done(result="all", notes=notes)]
    )
    shown = called(*REDRIVE, "--yes", model=model)
    assert "running, 12 settled; the mapping is paused\n" in shown.stderr
    assert shown.stderr.count("paused") == 1


def test_nobody_has_to_be_waited_for() -> None:
    found = called(*REDRIVE, "--yes", "--no-wait")
    assert found.exit_code == 0
    assert found.stdout.startswith("redrive accepted: it is not over yet; ")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (
            SEEK,
            f"All workers let go of the whole mapping of orders ({STREAM.mapping}), which goes on at 2026-11-29T08:00:00Z: what is behind that place"
            " is processed, also if it was before; no record that was not processed is left out.",
        ),
        (
            (*SEEK, "--shard", "0", "--skip"),
            f"All workers let go of shard 0 of orders ({STREAM.mapping}), which goes on at 2026-11-29T08:00:00Z: what is behind that place"
            " is processed, also if it was before; records before that place that were not processed are left out.",
        ),
        (
            (*REDRIVE, "--limit", "5"),
            f"The batches, 5 at most, whose notices are in {FAILED} are called again for the whole mapping of orders ({STREAM.mapping});"
            " the notice of each that succeeds is removed.",
        ),
    ],
)
def test_a_command_says_what_will_happen_before_anybody_agrees(words: tuple[str, ...], said: str) -> None:
    model = Carried()
    assert sentence_of(words) == said
    found = called(*words, model=model)
    assert found.exit_code == 2, "there is nobody to ask"
    assert model.asked == []


def sentence_of(words: tuple[str, ...]) -> str:
    """The sentence of a command, by its own words."""
    members: dict[str, Any] = {}
    for name, value in pairwise(words):
        match name:
            case "--to" | "--from":
                members[name[2:]] = value
            case "--shard":
                members.setdefault("shards", []).append(value)
            case "--limit":
                members["limit"] = int(value)
    if "--skip" in words:
        members["skip"] = True
    return sentence(Action(words[0]), Target(mapping=STREAM), members, now=Epoch(0.0))


def test_the_operation_can_be_printed_for_programs() -> None:
    model = Carried(steps=[done(result="well", progress={"settled": 1})])
    found = json.loads(called(*REDRIVE, "--yes", "--json", model=model).stdout)
    assert (found["state"], found["progress"]) == ("done", {"settled": 1})
