"""poller init: what it asks, what it writes, and what it never does to a file that is there."""

import json
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from poller.cli import application
from poller.commands.init.command import ASKED_MAX, InitOptions, init
from poller.config.starting.questions import INVOKERS, questions
from poller.config.starting.written import MODELINE, SCHEMA_FILE
from poller.config.yaml_files import parse_document, read_document
from tests.config.schema.validating import document, refused, seen
from tests.start_folders import start_in

STREAM = "arn:aws:kinesis:eu-west-1:111122223333:stream/orders"
TABLE = "arn:aws:dynamodb:eu-west-1:111122223333:table/orders/stream/2026-01-01T00:00:00.000"
QUEUE = "arn:aws:sqs:eu-west-1:111122223333:orders"
SETTINGS = {
    "python": {"handler": "shop.handlers:orders"},
    "http": {"url": "http://127.0.0.1:9000/x"},
    "process": {"command": "python -m awslambdaric 'app.handler'"},
    "lambda": {},
}
TEMPLATE = {
    "Resources": {
        "Jobs": {
            "Type": "AWS::Lambda::EventSourceMapping",
            "Properties": {
                "FunctionName": "jobs",
                "EventSourceArn": {"Fn::Sub": "arn:aws:sqs:${AWS::Region}:111122223333:jobs"},
            },
        }
    }
}


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    start_in(tmp_path, monkeypatch)
    for name in os.environ:
        if name.upper().startswith("POLLER_"):
            monkeypatch.delenv(name)


def answers(source: str, invoker: str) -> dict[str, str]:
    found = {
        "source": source,
        "function": "orders",
        "invoker": invoker,
        "store": "memory://",
        **SETTINGS[invoker],
    }
    return found if ":sqs:" in source else {**found, "starting_position": "LATEST"}


def words(given_: dict[str, str]) -> list[str]:
    return [word for name, value in given_.items() for word in (f"--{name.replace('_', '-')}", value)]


def called(*arguments: str) -> Any:
    return CliRunner().invoke(application([]), ["init", *arguments])


def person(*lines: str) -> tuple[Callable[[str], str], list[str]]:
    """Somebody who answers with these lines, and the questions that were asked."""
    asked: list[str] = []

    def ask(text: str) -> str:
        asked.append(text)
        return lines[len(asked) - 1] + "\n"

    return ask, asked


@pytest.mark.parametrize("invoker", INVOKERS)
@pytest.mark.parametrize(
    "source",
    [STREAM, f"{STREAM}/consumer/poller:1700000000", TABLE, QUEUE, f"{QUEUE}.fifo"],
    ids=["kinesis", "fan-out", "dynamodb", "sqs", "fifo"],
)
def test_options_alone_write_what_check_accepts(source: str, invoker: str, tmp_path: Path) -> None:
    result = called(*words(answers(source, invoker)))
    assert (result.exit_code, result.stdout) == (0, "")
    text = Path("poller.yaml").read_text()
    assert text.startswith(MODELINE + "\n")
    configuration = read_document(tmp_path / "poller.yaml")
    assert refused(configuration, tmp_path / "again.yaml") == []
    assert seen(configuration) == []
    assert configuration["region"] == "eu-west-1"
    assert configuration["mappings"][0]["EventSourceArn"] == source
    if invoker == "process":
        assert configuration["functions"]["orders"]["command"] == [
            "python",
            "-m",
            "awslambdaric",
            "app.handler",
        ]


def test_the_schema_lies_where_the_file_says() -> None:
    Path("conf").mkdir()
    assert called(*words(answers(QUEUE, "lambda")), "--output", "conf/mine.yaml").exit_code == 0
    named = re.match(r"# yaml-language-server: \$schema=(\S+)", Path("conf/mine.yaml").read_text())
    assert named is not None
    assert json.loads((Path("conf") / named[1]).read_text()) == document()


def test_a_schema_of_others_is_left_as_it_is() -> None:
    Path(SCHEMA_FILE).write_text('{"title": "another"}')
    result = called(*words(answers(QUEUE, "lambda")))
    assert result.exit_code == 0
    assert "is another file, and is left as it is" in result.stderr
    assert Path(SCHEMA_FILE).read_text() == '{"title": "another"}'


def test_the_terminal_gets_the_file_and_nothing_is_written() -> None:
    result = called(*words(answers(QUEUE, "lambda")), "--output", "-")
    assert result.exit_code == 0
    assert parse_document(result.stdout, name="x")["mappings"]
    assert list(Path.cwd().iterdir()) == []


def test_a_file_that_is_there_is_kept_without_force() -> None:
    Path("poller.yaml").write_text("mine")
    given_ = words(answers(QUEUE, "lambda"))
    result = called(*given_)
    assert result.exit_code == 2
    assert (
        result.stderr
        == "poller: poller.yaml: is there already; choose another name with --output, or --force to replace it\n"
    )
    assert Path("poller.yaml").read_text() == "mine"
    assert called(*given_, "--force").exit_code == 0
    assert read_document(Path("poller.yaml"))["mappings"]


@pytest.mark.parametrize(
    ("given_", "missing"),
    [
        ({}, "--source, --function, --invoker"),
        ({"source": STREAM}, "--starting-position, --function, --invoker"),
        ({"source": QUEUE, "function": "a", "invoker": "http"}, "--url"),
        ({"source": QUEUE, "function": "a", "invoker": "python"}, "--handler"),
    ],
)
def test_without_a_terminal_the_missing_options_are_named(given_: dict[str, str], missing: str) -> None:
    result = called(*words(given_))
    assert result.exit_code == 2
    assert (
        result.stderr == f"poller: init: missing {missing}; give them, or run it on a terminal, which asks\n"
    )
    assert list(Path.cwd().iterdir()) == []


@pytest.mark.parametrize(
    ("wrong", "problem"),
    [
        ({"source": "orders"}, "--source: value 'orders': no source"),
        ({"source": f"{STREAM}/consumer/c"}, "--source: value"),
        ({"source": "arn:aws:dynamodb:eu-west-1:111122223333:table/orders"}, "this is a table"),
        ({"function": "a b"}, "--function: value 'a b'"),
        ({"invoker": "perl"}, "--invoker: value 'perl'"),
        ({"handler": "x"}, "--handler: value 'x'"),
        ({"store": "postgres://x"}, "--store: value 'postgres://x'"),
        ({"url": "http://x/"}, "--url: of no use here"),
        ({"starting_position": "LATEST"}, "--starting-position: of no use here"),
    ],
)
def test_a_wrong_option_is_told_with_its_remedy(wrong: dict[str, str], problem: str) -> None:
    result = called(*words({**answers(QUEUE, "python"), **wrong}))
    assert result.exit_code == 2
    assert problem in result.stderr
    assert list(Path.cwd().iterdir()) == []


def test_questions_are_asked_until_all_is_known() -> None:
    ask, asked = person(STREAM, "", "orders", "", "shop.handlers:orders", "")
    assert init(InitOptions(answers={}), ask) == 0
    assert [each.split(" ")[0] for each in asked] == ["ARN", "Where", "Name", "How", "Python", "Where"]
    configuration = read_document(Path("poller.yaml"))
    assert configuration["store"] == "sqlite:poller.db"
    assert configuration["mappings"][0]["StartingPosition"] == "TRIM_HORIZON"
    assert configuration["functions"] == {
        "orders": {"invoker": "python", "handler": "shop.handlers:orders", "timeout_s": 30}
    }


def test_a_wrong_answer_is_asked_again(capsys: pytest.CaptureFixture[str]) -> None:
    ask, asked = person("orders", QUEUE, "http", "no url", "http://127.0.0.1/", "memory://")
    assert init(InitOptions(answers={"function": "orders"}), ask) == 0
    assert len(asked) == 6
    assert "this is a name alone" in capsys.readouterr().err


def test_somebody_who_never_answers_right_ends_it() -> None:
    assert init(InitOptions(answers={}), lambda _: "nonsense") == 2
    ask, asked = person(*["x"] * ASKED_MAX)
    assert init(InitOptions(answers={}), ask) == 2
    assert len(asked) == ASKED_MAX


def test_nothing_is_asked_where_the_file_could_not_be_written() -> None:
    Path("poller.yaml").write_text("mine")
    ask, asked = person()
    assert init(InitOptions(answers={}), ask) == 2
    assert asked == []


NAMES = st.from_regex(r"[A-Za-z0-9_-]{1,64}", fullmatch=True)
WORDS = st.from_regex(r"[A-Za-z_][A-Za-z0-9_]{0,8}", fullmatch=True)
DRAWN = {
    "source": st.builds("{}{}".format, st.sampled_from([STREAM, QUEUE]), NAMES)
    | st.sampled_from([TABLE, f"{QUEUE}.fifo"]),
    "starting_position": st.sampled_from(["TRIM_HORIZON", "LATEST"]),
    "function": NAMES | NAMES.map(lambda name: f"{name}:prod"),
    "invoker": st.sampled_from(INVOKERS),
    "handler": st.builds("{}.{}:{}".format, WORDS, WORDS, WORDS),
    "url": st.builds("http://127.0.0.1:{}/{}".format, st.integers(1, 65_535), NAMES),
    "command": st.text(
        st.characters(exclude_categories=["Cs", "Cc"], exclude_characters="'\"\\"), min_size=1, max_size=20
    ),
    "store": st.sampled_from(["memory://", "sqlite:state.db", "dynamodb://poller-state"]),
}


@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(data=st.data())
def test_check_accepts_what_is_written_for_drawn_answers(data: st.DataObject, tmp_path: Path) -> None:
    found: dict[str, str] = {}
    while (question := next(questions(found), None)) is not None:
        found[question.name] = data.draw(DRAWN[question.name])
    if found.get("command", "x").strip() == "":
        return
    output = tmp_path / "drawn.yaml"
    assert init(InitOptions(answers=found, output=str(output), force=True), None) == 0
    configuration = read_document(output)
    assert refused(configuration, tmp_path / "again.yaml") == []
    assert seen(configuration) == []


def test_a_template_becomes_a_file() -> None:
    Path("t.json").write_text(json.dumps(TEMPLATE))
    result = called("--from-template", "t.json", "--region", "eu-west-1")
    assert (result.exit_code, result.stderr) == (
        0,
        f"poller.yaml and {SCHEMA_FILE} are written; next: poller check --config poller.yaml\n",
    )
    assert (
        read_document(Path("poller.yaml"))["mappings"][0]["EventSourceArn"]
        == "arn:aws:sqs:eu-west-1:111122223333:jobs"
    )


def test_what_a_template_does_not_tell_is_listed_and_the_status_says_so() -> None:
    Path("t.json").write_text(json.dumps(TEMPLATE))
    result = called("--from-template", "t.json", "--output", "-")
    assert result.exit_code == 1
    assert result.stderr == (
        "poller: not carried over: Resources.Jobs.EventSourceArn: AWS::Region is not known; give --region REGION "
        "(arn:aws:sqs:<AWS::Region>:111122223333:jobs)\n"
    )
    assert "# EventSourceArn: arn:aws:sqs:<AWS::Region>:111122223333:jobs" in result.stdout


def test_two_mappings_of_one_source_and_function_are_told() -> None:
    resources = {"A": TEMPLATE["Resources"]["Jobs"], "B": TEMPLATE["Resources"]["Jobs"]}
    Path("t.json").write_text(json.dumps({"Resources": resources}))
    result = called("--from-template", "t.json", "--region", "eu-west-1")
    assert result.exit_code == 1
    assert "mappings[1].EventSourceArn" in result.stderr


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (["--from-template", "none.yaml"], "none.yaml: cannot be read"),
        (["--from-template", "t.json", "--parameter", "Stage"], "not NAME=VALUE"),
        (["--from-template", "t.json", "--function", "a"], "--function goes without --from-template only"),
        (["--account", "1", "--parameter", "a=b"], "--parameter, --account go with --from-template only"),
    ],
)
def test_options_that_do_not_fit_are_refused(arguments: list[str], problem: str) -> None:
    Path("t.json").write_text(json.dumps(TEMPLATE))
    result = called(*arguments)
    assert result.exit_code == 2
    assert problem in result.stderr
    assert not Path("poller.yaml").exists()


def test_code_is_named_from_the_current_folder() -> None:
    function = {
        "Type": "AWS::Serverless::Function",
        "Properties": {
            "Runtime": "python3.13",
            "Handler": "app.handler",
            "CodeUri": "src",
            "Events": {"E": {"Type": "SQS", "Properties": {"Queue": QUEUE}}},
        },
    }
    Path("infra").mkdir()
    Path("infra/t.json").write_text(json.dumps({"Resources": {"F": function}}))
    for path in ("infra/t.json", str(Path("infra/t.json").absolute()), "./infra/../infra/t.json"):
        assert called("--from-template", path, "--force").exit_code == 0
        function = read_document(Path("poller.yaml"))["functions"]["F"]
        assert (function["handler"], function["code"]) == ("app.handler", "infra/src")
