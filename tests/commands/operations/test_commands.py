"""The commands that do something to what runs, against a real control server: what they ask, print and return."""

import asyncio
import json
import re
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from adapters.control.settings import ApiSettings
from poller.cli import application
from poller.commands.daemon_client import DaemonClient
from poller.commands.operations import command
from poller.commands.operations.command import Manner, Surroundings, operate
from poller.commands.operations.daemon_api import DaemonApi
from poller.commands.operations.targets import TargetWords
from poller.domain.mapping_api import ApiError, ApiErrorType
from poller.domain.operations import Action, Operation, OperationId, OperationState, PartResult
from poller.domain.records import Epoch
from poller.domain.status import DaemonStatus, FaultyRecord
from tests.adapters.control.operation_control import OperationModel
from tests.adapters.control.serving import LANE, QUEUED, STATUS, STREAM, Running, Setting, View, serving
from tests.adapters.control.test_access import write

S = OperationState
DESTINATION = "arn:aws:sqs:eu-west-1:111122223333:failed"
BLOCKED = replace(STATUS, mappings=(replace(STREAM, destination=DESTINATION), QUEUED))


@dataclass
class Carried(OperationModel):
    """Operations that somebody carries out: each time that one is read, it is a step further."""

    steps: list[dict[str, Any]] = field(default_factory=list)

    async def operation(self, operation: OperationId) -> Operation:
        found = await super().operation(operation)
        if self.steps:
            found = self.known[operation] = replace(found, **self.steps.pop(0))
        return found


def called(
    *words: str,
    model: OperationModel | None = None,
    status: DaemonStatus = BLOCKED,
    token: str | None = None,
    api: ApiSettings | None = None,
) -> Result:
    """What a command says about a daemon with this status."""
    setting = Setting(
        view=View(status),
        operations=model if model is not None else Carried(),
        api=api or ApiSettings(allow_unauthenticated=True),
    )
    env = {"NO_COLOR": "1", "TERM": "dumb", "COLUMNS": "200", "POLLER_TOKEN": token}

    async def use(run: Running) -> Result:
        given = [*words, "--url", run.url]
        return await asyncio.to_thread(lambda: CliRunner().invoke(application([]), given, env=env))

    return serving(use, setting)


def asked(model: OperationModel) -> list[dict[str, Any]]:
    """The documents that the daemon got, without their ids."""
    found = [given[1] for verb, given in model.asked if verb == "submit"]
    return [{name: value for name, value in each.items() if name != "id"} for each in found]


def test_a_skip_says_which_record_where_its_notice_goes_and_sends_nothing_when_dry() -> None:
    model = Carried()
    found = called("skip", "stream/orders", "--dry-run", model=model)
    assert found.exit_code == 0
    assert found.stdout.startswith("would do: Record 495 (key a, ")
    assert found.stdout.endswith(
        f" old, 4 attempts) of shard shardId-0 of orders ({STREAM.mapping}) is given up, and the notice goes to {DESTINATION}.\n"
    )
    assert model.asked == []


def test_a_dry_run_for_programs_has_the_request() -> None:
    words = ("skip", "stream/orders", "--records", "495,496", "--discard", "--lane", "3", "--reason", "why")
    found = json.loads(called(*words, "--dry-run", "--json").stdout)
    assert found["mapping"] == STREAM.mapping
    assert found["request"] == {
        "action": "skip",
        "shard": "shardId-0",
        "lane": 3,
        "records": ["495", "496"],
        "discard": True,
        "reason": "why",
    }
    assert found["sentence"] == (
        f"2 records, 495, 496, of lane 3 of shard shardId-0 of orders ({STREAM.mapping}) "
        "are given up and lost: no notice is sent."
    )


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (
            ("retry", "stream/orders", "--shard", "shardId-0"),
            "The next try of shard shardId-0 of orders",
        ),
        (("reset", "stream/orders"), "Attempts and age of what fails in the whole mapping of orders"),
        (("pause", "queue/orders"), "No call begins for the whole mapping of orders"),
        (("pause", "queue/orders", "--group", "g"), "No call begins for message group g of orders"),
        (("resume", "queue/orders"), "The pauses of the whole mapping of orders"),
        (("skip", "queue/orders", "--records", "m-1"), f"Record m-1 of orders ({QUEUED.mapping}) is moved"),
    ],
)
def test_each_command_says_what_will_happen(words: tuple[str, ...], sentence: str) -> None:
    found = called(*words, "--dry-run")
    assert found.exit_code == 0
    assert found.stdout.startswith(f"would do: {sentence}")


def test_a_replay_says_what_it_reads_and_from_where_to_where_on_each_shard() -> None:
    model = Carried()
    words = ("replay", "stream/orders", "--from", "2026-01-31T08:00:00Z", "--function", "audit")
    found = called(*words, "--records-per-s", "50", "--dry-run", model=model)
    assert found.stdout.splitlines()[0] == (
        f"would do: The records of the whole mapping of orders ({STREAM.mapping}) from 2026-01-31T08:00:00Z to LATEST are "
        "processed once more by audit, 50 a second at most; a batch that fails ends it; the mapping's own position does not move."
    )
    lines = [f"shard {each.shard}: from 2026-01-31T08:00:00Z to LATEST" for each in STREAM.shards]
    assert found.stdout.splitlines()[1:] == sorted(lines)
    assert lines
    assert model.asked == []
    for_programs = json.loads(called(*words, "--dry-run", "--json").stdout)
    assert for_programs["ranges"] == sorted(lines)


@pytest.mark.usefixtures("each_step_shown")
def test_a_replay_shows_how_far_it_is() -> None:
    steps: list[dict[str, Any]] = [
        {
            "state": S.RUNNING,
            "progress": {"shards": 2, "ended": 0, "records": 120, "failed": 0, "at": 1_767_225_600},
        },
        {"state": S.DONE, "result": "500 records replayed", "ended": Epoch(1.0)},
    ]
    words = ("replay", "stream/orders", "--from", "TRIM_HORIZON", "--filter", "{}", "--on-failure", "skip")
    model = Carried(steps=steps)
    found = called(*words, "--yes", model=model)
    assert (found.exit_code, found.stdout) == (0, "replay done: 500 records replayed\n")
    assert "running: 2 shards, 120 records, at 2026-01-01T00:00:00+00:00\n" in found.stderr
    assert asked(model) == [
        {"action": "replay", "from": "TRIM_HORIZON", "to": "LATEST", "filter": "{}", "on_failure": "skip"}
    ]


@pytest.mark.usefixtures("each_step_shown")
def test_no_progress_is_among_what_programs_read() -> None:
    steps: list[dict[str, Any]] = [{"state": S.RUNNING}, {"state": S.DONE, "ended": Epoch(1.0)}]
    found = called("retry", "stream/orders", "--yes", "--json", model=Carried(steps=steps))
    assert (found.exit_code, found.stderr) == (0, "")
    assert json.loads(found.stdout)["state"] == S.DONE


@pytest.mark.usefixtures("each_step_shown")
def test_a_command_waits_until_its_operation_is_done() -> None:
    steps: list[dict[str, Any]] = [
        {"state": S.RUNNING, "wanted": ("a", "b"), "parts": {"a": PartResult(state=S.DONE)}},
        {"state": S.DONE, "result": "1 record skipped", "ended": Epoch(1.0)},
    ]
    model = Carried(steps=steps)
    found = called("skip", "stream/orders", "--yes", "--reason", "ticket 4711", model=model)
    assert (found.exit_code, found.stdout) == (0, "skip done: 1 record skipped\n")
    assert asked(model) == [
        {"action": "skip", "shard": "shardId-0", "records": "first", "reason": "ticket 4711"}
    ]
    assert "running, 1 of 2 parts" in found.stderr


@pytest.mark.parametrize("state", [S.FAILED, S.CANCELLED])
def test_an_operation_that_fails_is_exit_status_1(state: OperationState) -> None:
    model = Carried(steps=[{"state": state, "result": "no batch fails here"}])
    found = called("retry", "stream/orders", "--yes", model=model)
    assert (found.exit_code, found.stdout) == (1, f"retry {state}: no batch fails here\n")


def test_an_operation_that_is_not_over_in_time_is_exit_status_1(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(command, "LOOK_S", 0.05)
    found = called("retry", "stream/orders", "--yes", "--wait-s", "1")
    assert found.exit_code == 1
    said = re.fullmatch(
        r"retry accepted: it is not over yet; poller operations show (\S+) says what it waits for, "
        r"poller operations cancel (\S+) ends it\n",
        found.stdout,
    )
    assert said is not None
    assert said[1] == said[2]


def test_without_waiting_it_is_enough_that_it_is_accepted() -> None:
    model = Carried()
    found = called("retry", "stream/orders", "--yes", "--no-wait", "--json", model=model)
    assert found.exit_code == 0
    assert json.loads(found.stdout)["state"] == "accepted"
    assert [verb for verb, _ in model.asked] == ["submit"]


def test_a_pause_is_done_when_it_holds_everywhere() -> None:
    held = {"state": S.RUNNING, "parts": {"shardId-0": PartResult(state=S.DONE, result="paused")}}
    model = Carried(steps=[held])
    found = called("pause", "stream/orders", "--yes", model=model)
    assert found.exit_code == 0
    assert found.stdout == "pause in force; it lasts until poller resume stream/orders\n"
    narrow = called("pause", "queue/orders", "--group", "two words", "--yes", model=Carried(steps=[held]))
    assert narrow.stdout == "pause in force; it lasts until poller resume queue/orders --group 'two words'\n"


@pytest.mark.parametrize(("owner", "status"), [("worker-2", 1), ("", 0)])
def test_a_pause_has_failed_if_a_shard_that_somebody_has_does_not_hold_in_time(
    monkeypatch: pytest.MonkeyPatch, owner: str, status: int
) -> None:
    """As with a worker that stands still, or is of an older version. A shard that nobody has is not waited for."""
    monkeypatch.setattr("poller.commands.operations.command.PAUSED_S", 0.1)
    mappings = tuple(
        replace(each, shards=tuple(replace(shard, owner=owner) for shard in each.shards))
        for each in BLOCKED.mappings
    )
    shown = replace(BLOCKED, mappings=mappings)
    found = called("pause", "stream/orders", "--yes", "--wait-s", "1", model=Carried(), status=shown)
    assert (found.exit_code, "not yet on shardId-0" in found.stdout) == (status, True)


def test_what_the_daemon_refuses_is_said_in_its_words() -> None:
    text = "shard: shard shardId-0 is not held by anybody; shards of this mapping: shardId-0 (held by nobody)"
    model = Carried(refusal=ApiError(ApiErrorType.PARAMETER, text))
    found = called("retry", "stream/orders", "--yes", model=model)
    assert (found.exit_code, found.stdout, found.stderr) == (2, "", f"poller: --{text}\n"), (
        "with the option's name"
    )


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("retry", "order"), "'order' is no mapping; mappings: "),
        (("retry", "orders"), "'orders' may be any of 2 mappings: "),
        (
            ("retry", "stream/orders", "--shard", "9"),
            "'9' is no shard of this mapping; its shards: shardId-0",
        ),
    ],
)
def test_a_name_that_fits_nothing_or_several_says_what_there_is(words: tuple[str, ...], says: str) -> None:
    model = Carried()
    found = called(*words, "--yes", model=model)
    assert found.exit_code == 2
    assert found.stderr.startswith(f"poller: {says}")
    assert model.asked == []


def test_a_skip_without_a_shard_takes_the_only_one_that_is_blocked() -> None:
    shards = (STREAM.shards[0], replace(STREAM.shards[0], shard=type(STREAM.shards[0].shard)("shardId-1")))
    two = replace(BLOCKED, mappings=(replace(STREAM, shards=shards),))
    refused = called("skip", "orders", "--yes", status=two)
    assert refused.exit_code == 2
    assert "2 blocked shards; name one with --shard: shardId-0, shardId-1" in refused.stderr
    free = replace(shards[1], lanes=(), state="reading")
    one = replace(BLOCKED, mappings=(replace(STREAM, shards=(shards[0], free)),))
    model = Carried()
    called("skip", "orders", "--yes", "--no-wait", status=one, model=model)
    assert asked(model)[0]["shard"] == "shardId-0"


def test_a_batch_is_described_by_its_first_record() -> None:
    record = FaultyRecord(identifier="m-7", key="", arrived=Epoch(0.0))
    lane = replace(LANE, records=(record,), records_count=12, attempts=1)
    shard = replace(STREAM.shards[0], lanes=(lane,))
    status = replace(BLOCKED, mappings=(replace(STREAM, shards=(shard,)),))
    found = called("skip", "orders", "--records", "batch", "--dry-run", status=status)
    assert "All 12 records of the batch at fault, from m-7 on (" in found.stdout
    assert "old, 1 attempt), of shard shardId-0" in found.stdout
    assert "are given up if the mapping has an on-failure destination" in found.stdout


def test_the_first_of_several_records_is_not_called_the_one_at_fault() -> None:
    lane = replace(LANE, records_count=12)
    status = replace(BLOCKED, mappings=(replace(STREAM, shards=(replace(STREAM.shards[0], lanes=(lane,)),)),))
    found = called("skip", "orders", "--dry-run", status=status)
    assert "Record 495 (the first of 12 that fail together, key a, " in found.stdout
    alone = called("skip", "orders", "--dry-run")
    assert "that fail together" not in alone.stdout


def test_a_token_is_needed_and_its_role_must_suffice(tmp_path: Path) -> None:
    file = tmp_path / "tokens.yaml"
    write(file, "see: {token: t-view, role: view}\ncall: {token: t-operate, role: operate}\n")
    api = ApiSettings(tokens_file=file)
    words = ("retry", "stream/orders", "--yes", "--no-wait")
    without = called(*words, api=api)
    assert without.exit_code == 2
    assert without.stderr.startswith("poller: the daemon needs a token; set POLLER_TOKEN, or")
    low = called(*words, api=api, token="t-view")
    assert low.exit_code == 2
    assert "this needs the role operate, and the token see has the role view" in low.stderr
    assert called(*words, api=api, token="t-operate").exit_code == 0


def test_no_daemon_is_told_with_the_remedy() -> None:
    words = ["retry", "orders", "--yes", "--url", "http://127.0.0.1:1"]
    found = CliRunner().invoke(application([]), words)
    assert found.exit_code == 2
    assert "is the daemon running, and --url its address?" in found.stderr


class Lost(Carried):
    """A daemon whose first answer to a request is lost."""

    lost = False

    async def submit(self, *given: Any, **more: Any) -> Operation:
        operation = await super().submit(*given, **more)
        if not self.lost:
            self.lost = True
            await asyncio.sleep(3600.0)
        return operation


def test_a_request_without_an_answer_is_sent_again_as_the_same_operation(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from poller.commands import daemon_client

    monkeypatch.setattr(daemon_client, "ANSWER_S", 1.0)
    model = Lost()
    found = called("retry", "stream/orders", "--yes", "--no-wait", model=model)
    assert found.exit_code == 0
    assert len([verb for verb, _ in model.asked if verb == "submit"]) == 2
    assert len(model.known) == 1


def answering(text: str | None) -> Surroundings:
    def answer(_question: str) -> str:
        if text is None:
            raise EOFError
        return text

    return Surroundings(answer=answer)


@pytest.mark.parametrize(
    ("around", "exit_status", "asks"),
    [
        (answering("y"), 0, 1),
        (answering("Yes "), 0, 1),
        (answering(""), 1, 0),
        (answering("n"), 1, 0),
        (answering(None), 1, 0),
        (Surroundings(answer=None), 2, 0),
    ],
)
def test_nothing_happens_unless_somebody_agrees(
    around: Surroundings, exit_status: int, asks: int, capsys: pytest.CaptureFixture[str]
) -> None:
    model = Carried()
    setting = Setting(view=View(BLOCKED), operations=model, api=ApiSettings(allow_unauthenticated=True))

    async def use(run: Running) -> int:
        words, manner = TargetWords(mapping="stream/orders"), Manner(wait=False)
        work: Callable[[], int] = lambda: operate(  # noqa: E731 - it runs in a thread
            DaemonApi(DaemonClient(run.url)), Action.RETRY, words, {}, manner=manner, around=around
        )
        return await asyncio.to_thread(work)

    assert serving(use, setting) == exit_status
    assert len(asked(model)) == asks
    said = capsys.readouterr().err
    if around.answer is None:
        assert "nobody can be asked here: add --yes to do it, or --dry-run to see" in said
    else:
        assert said.startswith("The next try of the whole mapping of orders")


@dataclass
class Away(Carried):
    """Operations of a daemon that cannot say how far they are, the first times that it is asked."""

    times: int = 0
    fault: ApiErrorType = ApiErrorType.SERVICE

    async def operation(self, operation: OperationId) -> Operation:
        if self.times:
            self.times -= 1
            raise ApiError(self.fault, "the daemon is starting or stopping; try again later")
        return await super().operation(operation)


OVER: dict[str, Any] = {"state": S.DONE, "result": "tried again", "ended": Epoch(1.0)}


@pytest.mark.parametrize("fault", [ApiErrorType.SERVICE, ApiErrorType.THROTTLED])
def test_a_command_waits_on_while_the_daemon_gives_no_answer(
    fault: ApiErrorType, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As while it is restarted: the operation goes on."""
    monkeypatch.setattr(command, "LOOK_S", 0.01)
    found = called("retry", "stream/orders", "--yes", model=Away(steps=[OVER], times=3, fault=fault))
    assert (found.exit_code, found.stdout) == (0, "retry done: tried again\n")


@pytest.mark.parametrize("fault", [ApiErrorType.SERVICE, ApiErrorType.MISSING])
def test_a_command_that_gets_no_answer_for_good_names_its_operation(
    fault: ApiErrorType, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(command, "LOOK_S", 0.01)
    monkeypatch.setattr(command, "SILENT_S", 0.1)
    model = Away(times=1_000, fault=fault)
    found = called("retry", "stream/orders", "--yes", "--json", model=model)
    assert (found.exit_code, found.stdout) == (2, "")
    (operation,) = model.known
    assert found.stderr.endswith(
        f"the operation was accepted and goes on: poller operations show {operation}\n"
    )
    if fault is ApiErrorType.MISSING:
        assert model.times == 999


SKIPPED = ("records", "batch_first", "batch_count")


def skipping(records: str, *, status: DaemonStatus, later: DaemonStatus) -> tuple[int, list[Any]]:
    """The exit status of a skip that somebody agrees to while the status becomes `later`; which records it asks for."""
    model, view = Carried(), View(status)

    def answer(_question: str) -> str:
        view.now = later
        return "y"

    async def use(run: Running) -> int:
        words, manner = TargetWords(mapping="stream/orders"), Manner(wait=False)
        work: Callable[[], int] = lambda: operate(  # noqa: E731 - it runs in a thread
            DaemonApi(DaemonClient(run.url)), Action.SKIP, words, {"records": records},
            manner=manner, around=Surroundings(answer=answer),
        )  # fmt: skip
        return await asyncio.to_thread(work)

    setting = Setting(view=view, operations=model, api=ApiSettings(allow_unauthenticated=True))
    exit_status = serving(use, setting)
    return exit_status, [{name: each[name] for name in SKIPPED if name in each} for each in asked(model)]


def failing(*identifiers: str, count: int | None = None) -> DaemonStatus:
    """One lane fails with these records, of `count` that fail together."""
    records = tuple(FaultyRecord(identifier=each, key="", arrived=Epoch(0.0)) for each in identifiers)
    lane = replace(LANE, records=records, records_count=len(records) if count is None else count)
    return replace(
        BLOCKED, mappings=(replace(STREAM, shards=(replace(STREAM.shards[0], lanes=(lane,)),)), QUEUED)
    )


@pytest.mark.parametrize(
    ("records", "status", "later", "exit_status", "skipped"),
    [
        ("first", failing("7", "8"), failing("8", "9"), 0, [{"records": ["7"]}]),
        ("first", failing("7", count=500), failing("8", count=500), 0, [{"records": ["7"]}]),
        ("first", failing(), failing("8"), 0, [{"records": "first"}]),
        ("batch", failing("7", "8"), failing("8", "9"), 0, [{"records": ["7", "8"]}]),
        ("batch", failing("7", count=500), failing("7", count=500), 0, [{"records": "batch", "batch_first": "7", "batch_count": 500}]),
        ("batch", failing("7", count=500), failing("8", count=500), 2, []),
        ("batch", failing("7", count=500), failing("7", count=250), 2, []),
        ("batch", failing("7", count=500), failing(), 2, []),
        ("batch", failing(), failing("8"), 0, [{"records": "batch"}]),
    ],
)  # fmt: skip
def test_a_skip_gives_up_no_others_than_those_that_somebody_agreed_to(
    records: str, status: DaemonStatus, later: DaemonStatus, exit_status: int, skipped: list[Any]
) -> None:
    assert skipping(records, status=status, later=later) == (exit_status, skipped)


def with_two() -> Carried:
    model = Carried()
    called("pause", "stream/orders", "--yes", "--no-wait", "--reason", "repair", model=model)
    called("retry", "queue/orders", "--yes", "--no-wait", model=model)
    first, second = model.known
    model.known[first] = replace(model.known[first], state=S.RUNNING)
    model.known[second] = replace(
        model.known[second], state=S.DONE, result="all tried", ended=Epoch(model.now + 3.0)
    )
    return model


def test_operations_are_listed_newest_first() -> None:
    model = with_two()
    first, second = model.known
    found = called("operations", model=model)
    assert found.exit_code == 0
    lines = found.stdout.splitlines()
    assert lines[0] == f"{second} done"
    assert lines[1] == f"  retry the whole mapping of orders ({QUEUED.mapping})"
    assert "  all tried" in lines
    assert f"{first} running, not yet in force" in lines
    assert "  because: repair" in lines


def test_operations_are_filtered_and_shown_to_programs() -> None:
    model = with_two()
    words = ("operations", "--mapping", "stream/orders", "--state", "running", "--json")
    (found,) = json.loads(called(*words, model=model).stdout)["operations"]
    assert (found["action"], found["reason"]) == ("pause", "repair")
    wrong = called("operations", "--state", "open", model=model)
    assert (wrong.exit_code, "write one of accepted, running" in wrong.stderr) == (2, True)


def test_one_operation_is_shown_and_cancelled() -> None:
    model = with_two()
    first, second = model.known
    shown = called("operations", "show", first, model=model)
    assert shown.exit_code == 0
    assert f"{first} running" in shown.stdout
    assert "shardId-0 nothing yet" in shown.stdout
    cancelled = called("operations", "cancel", first, "--json", model=model)
    assert json.loads(cancelled.stdout)["state"] == "cancelled"
    again = called("operations", "cancel", second, model=model)
    assert (again.exit_code, again.stderr) == (2, "poller: the operation is over\n")
    assert called("operations", "show", "none", model=model).exit_code == 2
