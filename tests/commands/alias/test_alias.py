"""`poller alias` against a real control server: what it asks, sends, prints and returns."""

import asyncio
import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from adapters.control.settings import ApiSettings
from poller.cli import application
from poller.commands.alias.client import AliasClient
from poller.commands.alias.command import (
    NO_INTERVAL,
    NO_PERCENT,
    NO_STRATEGY,
    NOTHING,
    TWO_STRATEGIES,
    ShiftWords,
    roll_back,
    shift,
)
from poller.commands.alias.sentences import (
    calls_line,
    course,
    named,
    origin,
    percent,
    rollback_sentence,
    shares,
)
from poller.commands.daemon_client import DaemonClient
from poller.commands.operations.command import NO_TERMINAL, Manner, Surroundings
from poller.domain.functions.alias_control import AliasChange, AliasView, ShiftRequest
from poller.domain.functions.shift_strategies import own_strategy, strategy
from poller.domain.functions.shifts import ShiftState, ShiftStrategy
from poller.domain.records import Epoch
from tests.adapters.control.invoke.callers import ARN, CallerModel
from tests.adapters.control.serving import Running, Setting, serving

CANARY = ("--to", "2", "--strategy", "Canary10Percent5Minutes")
SENTENCE = "move the calls of alias live of function orders from version 1 to version 2: 10 % at once, the rest after 5 min"
BACK = "poller alias shift orders live --to 1 --strategy AllAtOnce"


def caller(*, shifting: bool = False) -> CallerModel:
    """Functions with three versions, and the alias `live` of orders to the first."""

    async def make() -> CallerModel:
        found = CallerModel(versions=("1", "2", "3"))
        await found.aliases.create(
            "orders", "live", AliasChange(version="1", description="what customers use")
        )
        if shifting:
            asked = ShiftRequest(
                to="2",
                strategy=strategy("Canary10Percent5Minutes"),
                shift="mine",
                by="ann",
                reason="release 2",
            )
            await found.aliases.shift("orders", "live", asked)
        return found

    return asyncio.run(make())


def setting(model: CallerModel | None) -> Setting:
    return Setting(calls=model, api=ApiSettings(allow_unauthenticated=True))


def called(*words: str, model: CallerModel | None = None) -> Result:
    """What a command says."""
    env = {"NO_COLOR": "1", "TERM": "dumb", "COLUMNS": "200", "POLLER_TOKEN": None}

    async def use(run: Running) -> Result:
        given = ["alias", *words, "--url", run.url]
        return await asyncio.to_thread(lambda: CliRunner().invoke(application([]), given, env=env))

    return serving(use, setting(model))


class Beside:
    """Surroundings whose clock moves when somebody waits; `happens` is called then."""

    def __init__(self, happens: Callable[[], None] = lambda: None, answer: str = "y") -> None:
        self.clock = 1_767_225_600.0
        self.asked: list[str] = []
        self._happens = happens
        self._answer = answer

    def around(self) -> Surroundings:
        return Surroundings(now=lambda: self.clock, sleep=self._sleep, answer=self._say)

    def _sleep(self, seconds: float) -> None:
        self.clock += seconds
        self._happens()

    def _say(self, question: str) -> str:
        self.asked.append(question)
        return self._answer


def shifted(model: CallerModel, words: ShiftWords, manner: Manner, beside: Beside) -> int:
    """The exit status of a shift with these surroundings."""

    async def use(run: Running) -> int:
        client = AliasClient(DaemonClient(run.url))
        return await asyncio.to_thread(
            lambda: shift(client, "orders", "live", words, manner=manner, around=beside.around())
        )

    return serving(use, setting(model))


def test_status_shows_all_functions_with_their_aliases_shifts_and_versions() -> None:
    found = called("status", model=caller(shifting=True))
    assert (found.exit_code, found.stderr) == (0, "")
    assert found.stdout == (
        "alias live of function orders: version 1 90 %, version 2 10 %\n"
        "  what customers use\n"
        "  shift from version 1 to 2: shifting, Canary10Percent5Minutes, since 2026-01-01T00:00:00Z, by ann: release 2\n"
        "  version $LATEST: python app.handler\n"
        "  version 1: python app1.handler, release 1, has run\n"
        "  version 2: python app2.handler, release 2\n"
        "  version 3: python app3.handler, release 3; cannot be called: its settings changed; give it a new number\n"
        "function zebra: no aliases\n"
        "  version $LATEST: python app.handler\n"
        "  version 1: python app1.handler, release 1, has run\n"
        "  version 2: python app2.handler, release 2\n"
        "  version 3: python app3.handler, release 3; cannot be called: its settings changed; give it a new number\n"
    )


def test_status_shows_one_function_or_one_alias_and_json_is_what_the_daemon_answers() -> None:
    model = caller()
    assert called("status", "orders", model=model).stdout.count("\n") == 6
    assert called("status", "orders", "live", model=model).stdout == (
        "alias live of function orders: version 1\n  what customers use\n"
    )
    one = json.loads(called("status", ARN, "live", "--json", model=model).stdout)
    assert (one["arn"], one["version"]) == (f"{ARN}:live", "1")
    assert json.loads(called("status", "--json", model=model).stdout)["functions"][0]["aliases"] == [one]
    assert called("status", model=CallerModel()).stdout == f"{NOTHING}\n"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("status", "nothing"), "Function not found: nothing"),
        (("status", "orders", "beta"), f"Cannot find alias arn: {ARN}:beta"),
        (("shift", "orders", "beta", *CANARY, "--yes"), f"Cannot find alias arn: {ARN}:beta"),
        (("shift", "orders", "live", "--to", "9", *CANARY[2:], "--yes"), f"Function not found: {ARN}:9"),
        (("shift", "orders", "live", "--to", "2", "--yes"), NO_STRATEGY),
        (("shift", "orders", "live", "--to", "2", "--percent", "10", "--yes"), NO_INTERVAL),
        (("shift", "orders", "live", "--to", "2", "--interval-s", "10", "--yes"), NO_PERCENT),
        (("shift", "orders", "live", *CANARY, "--percent", "10", "--yes"), TWO_STRATEGIES),
        (("shift", "orders", "live", "--to", "2", "--strategy", "Quick", "--yes"), "--strategy: "),
        (("shift", "orders", "live", *CANARY), NO_TERMINAL),
        (
            ("shift", "orders", "live", *CANARY, "--before", "a b", "--yes"),
            "before: is no name of a function",
        ),
        (
            ("rollback", "orders", "live", "--yes"),
            "no shift of alias live of function orders runs; version 1 gets the calls",
        ),
        (("rollback", "orders", "beta", "--yes"), f"Cannot find alias arn: {ARN}:beta"),
    ],
)
def test_what_is_refused_is_told_and_changes_nothing(words: tuple[str, ...], said: str) -> None:
    model = caller()
    found = called(*words, model=model)
    assert (found.exit_code, found.stdout) == (2, "")
    assert said in found.stderr
    assert model.alias_model.asked == []


def test_a_shift_says_what_will_happen_and_asks(capsys: pytest.CaptureFixture[str]) -> None:
    model, beside = caller(), Beside(answer="n")
    words = ShiftWords(
        to="2", strategy="LambdaCanary10Percent5Minutes", before="check", after="audit", failure_rate=0.05
    )
    assert shifted(model, words, Manner(wait=False), beside) == 1
    assert model.alias_model.asked == []
    assert capsys.readouterr().err == (
        f"{SENTENCE}; before it begins, function check has to answer Succeeded; after it, function audit has to answer Succeeded; "
        "more than 5 % failed calls of version 2 roll it back\n"
        "poller: nothing was done\n"
    )
    assert shifted(model, words, Manner(wait=False, reason="release 2"), Beside()) == 0
    (asked,) = model.alias_model.asked
    assert (asked.to, asked.before, asked.after, asked.failure_rate) == ("2", "check", "audit", 0.05)
    assert (asked.reason, asked.by) == ("release 2", "unauthenticated")
    assert asked.strategy == strategy("Canary10Percent5Minutes")
    assert len(asked.shift) == 36


def test_a_shift_that_is_not_waited_for_says_how_to_look() -> None:
    found = called("shift", "orders", "live", *CANARY, "--yes", model=caller())
    assert found.exit_code == 0
    assert found.stdout == (
        "alias live of function orders: version 1 90 %, version 2 10 %; shift from version 1 to 2: shifting, "
        "Canary10Percent5Minutes, since 2026-01-01T00:00:00Z, by unauthenticated; it is not over: "
        "poller alias status orders live says how far it is\n"
    )


def test_own_numbers_go_to_the_daemon_and_a_dry_run_sends_nothing() -> None:
    model = caller()
    words = ("shift", "orders", "live", "--to", "2", "--percent", "20", "--interval-s", "30", "--linear")
    said = SENTENCE.partition(": ")[0] + ": 20 % at once and 20 % more every 30 s"
    assert called(*words, "--dry-run", model=model).stdout == f"would do: {said}\n"
    assert json.loads(called(*words, "--dry-run", "--json", model=model).stdout) == {
        "request": {"to": "2", "percent": 20.0, "interval_s": 30.0, "linear": True},
        "sentence": said,
    }
    assert model.alias_model.asked == []
    assert json.loads(called(*words, "--yes", "--json", model=model).stdout)["weights"] == {"2": 0.2}
    assert model.alias_model.asked[0].strategy == own_strategy(20.0, 30.0, True)


@pytest.mark.usefixtures("each_step_shown")
def test_a_shift_that_is_waited_for_shows_how_far_it_is_until_it_is_done(
    capsys: pytest.CaptureFixture[str],
) -> None:
    model = caller()
    beside = Beside(happens=lambda: model.alias_model.finish("orders", "live"))
    words = ShiftWords(to="2", strategy="Canary10Percent5Minutes")
    assert shifted(model, words, Manner(yes=True, wait_s=600), beside) == 0
    out, err = capsys.readouterr()
    assert err == "poller: alias live of function orders: shifting, version 1 90 %, version 2 10 %\n"
    assert out == (
        "alias live of function orders: version 2; shift from version 1 to 2: done, Canary10Percent5Minutes, since "
        "2026-01-01T00:00:00Z, ended 2026-01-01T00:00:00Z, by unauthenticated\n"
    )


def test_a_shift_that_is_rolled_back_or_not_over_in_time_has_exit_status_1(
    capsys: pytest.CaptureFixture[str],
) -> None:
    words = ShiftWords(to="2", strategy="Canary10Percent5Minutes")
    model = caller()

    def fail() -> None:
        asyncio.run(model.aliases.roll_back("orders", "live", by="worker-0", reason="6 of 20 calls failed"))

    assert shifted(model, words, Manner(yes=True, wait_s=600), Beside(happens=fail)) == 1
    assert "rolled back" in (said := capsys.readouterr().out)
    assert said.endswith("because: by worker-0: 6 of 20 calls failed\n")
    assert shifted(caller(), words, Manner(yes=True, wait_s=3), Beside()) == 1
    assert "it is not over: poller alias status orders live says" in capsys.readouterr().out


def test_a_rollback_says_what_will_happen_asks_and_names_the_version(
    capsys: pytest.CaptureFixture[str],
) -> None:
    model = caller(shifting=True)
    manners = [Manner(), Manner(reason="errors since the release")]

    async def use(run: Running) -> list[int]:
        client = AliasClient(DaemonClient(run.url))
        pairs = zip(manners, ("", "y"), strict=True)
        return [
            await asyncio.to_thread(
                roll_back, client, "orders", "live", manner=manner, around=Beside(answer=answer).around()
            )
            for manner, answer in pairs
        ]

    assert serving(use, setting(model)) == [1, 0]
    out, err = capsys.readouterr()
    sentence = "send all calls of alias live of function orders to version 1 at once; version 2 gets 10 % of them now\n"
    assert err == f"{sentence}poller: nothing was done\n{sentence}"
    assert out == "alias live of function orders: all calls go to version 1\n"
    view = model.aliases.alias("orders", "live")
    assert view.shift is not None
    assert (view.shift.state, view.shift.ended_because) == (
        ShiftState.ROLLED_BACK,
        "by unauthenticated: errors since the release",
    )


@pytest.mark.parametrize("words", [(), ("--yes",), ("--dry-run",)])
def test_a_rollback_of_a_shift_that_is_done_says_how_to_go_back(words: tuple[str, ...]) -> None:
    model = caller(shifting=True)
    model.alias_model.finish("orders", "live")
    found = called("rollback", "orders", "live", *words, model=model)
    assert (found.exit_code, found.stdout) == (2, "")
    assert found.stderr.strip() == (
        f"poller: no shift of alias live of function orders runs, the last one is done; {BACK} goes back to version 1"
    )


def test_a_rollback_for_programs_is_the_alias() -> None:
    found = called("rollback", "orders", "live", "--yes", "--json", model=caller(shifting=True))
    assert (found.exit_code, json.loads(found.stdout)["shift"]["state"]) == (0, "rolled_back")


def test_a_daemon_without_aliases_and_one_that_does_not_answer_are_told() -> None:
    assert "changes nothing" in called("status").stderr
    result = CliRunner().invoke(application([]), ["alias", "status", "--url", "http://127.0.0.1:1"])
    assert (result.exit_code, "no answer" in result.stderr) == (2, True)


@pytest.mark.parametrize(
    ("found", "said"),
    [
        (ShiftStrategy("AllAtOnce"), "all at once"),
        (ShiftStrategy("x", 10, 300), "10 % at once, the rest after 5 min"),
        (ShiftStrategy("x", 12.5, 60, linear=True), "12.5 % at once and 12.5 % more every 1 min"),
    ],
)
def test_the_course_of_a_shift_is_said(found: ShiftStrategy, said: str) -> None:
    assert course(found) == said


def test_shares_are_said_in_percent_and_one_of_nothing_is_left_out() -> None:
    given: dict[str, Any] = {
        "function": "f",
        "name": "a",
        "arn": "x",
        "revision_id": "r",
        "modified": Epoch(0),
    }
    assert shares(AliasView(version="1", weights={"2": 0.0}, **given)) == "version 1"
    assert (
        shares(AliasView(version="1", weights={"2": 0.005}, **given)) == "version 1 99.5 %, version 2 0.5 %"
    )
    assert percent(1 / 3) == "33.3 %"


def test_an_alias_of_the_file_that_a_shift_has_moved_is_said_to_be_moved() -> None:
    view = caller(shifting=True).aliases.alias("orders", "live")
    assert view.shift is not None
    assert origin(view) == ""
    running = replace(view, from_file=True)
    assert origin(running) == ", of the configuration file"
    done = replace(running, version="2", shift=replace(view.shift, state=ShiftState.DONE))
    assert origin(done) == ", of the configuration file, moved by the shift"
    assert origin(replace(done, version="1")) == ", of the configuration file"


PAGE = Path(__file__).parents[3] / "docs" / "operate" / "on-call.md"


def test_the_on_call_page_shows_what_the_commands_print() -> None:
    view = caller(shifting=True).aliases.alias("orders", "live")
    assert view.shift is not None
    back = replace(view, weights={})
    text = PAGE.read_text()
    assert rollback_sentence(view, view.shift) in text
    assert f"{named(back)}: all calls go to {shares(back)}" in text
    assert f"{named(view)}: {shares(view)}, of the configuration file" in text
    counted = replace(view, calls={"1": (181, 0), "2": (19, 7)})
    pattern = re.sub(
        r"[0-9]+(?= (?:of [0-9]+ )?calls)|(?<=of )[0-9]+(?= calls)", "[0-9]+", calls_line(counted)
    )
    assert re.search(pattern, text)
