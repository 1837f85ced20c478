"""What is said of the mistakes that people make most: the place, what is wrong, and what to write instead."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from poller.cli import application
from poller.commands.shared import LoadablePlugins
from poller.config.loader import Examined, examine
from poller.config.mapping import source_kind
from poller.config_errors.meant_arns import queue_arn, source_remedy
from tests.adapters.invokers.functions.plain import act

STREAM = "arn:aws:kinesis:eu-west-1:111122223333:stream/orders"
QUEUE = "arn:aws:sqs:eu-west-1:111122223333:orders"
HANDLER = f"{act.__module__}:{act.__name__}"
REGISTRY = LoadablePlugins()
ANY = "arn:aws:kinesis:REGION:ACCOUNT:stream/NAME, arn:aws:dynamodb:REGION:ACCOUNT:table/NAME/stream/LABEL or arn:aws:sqs:REGION:ACCOUNT:NAME"


@pytest.fixture(autouse=True)
def _no_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in os.environ:
        if name.upper().startswith("POLLER_"):
            monkeypatch.delenv(name)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "poller.yaml"


def found(file: Path, **more: Any) -> Examined:
    functions = {"orders": {"invoker": "python", "handler": HANDLER}}
    file.write_text(json.dumps({"store": "memory://", "functions": functions, **more}))
    return examine(file, {}, REGISTRY)


def problems(file: Path, **more: Any) -> list[str]:
    return [each.removeprefix(f"{file}: ") for each in found(file, **more).problems]


def mapping(**members: Any) -> dict[str, Any]:
    return {"FunctionName": "orders", "EventSourceArn": QUEUE} | members


def of_stream(**members: Any) -> dict[str, Any]:
    return mapping(**{"EventSourceArn": STREAM, "StartingPosition": "LATEST"} | members)


def to(destination: str) -> dict[str, Any]:
    return of_stream(DestinationConfig={"OnFailure": {"Destination": destination}})


SOURCES = {
    "https://sqs.eu-west-1.amazonaws.com/111122223333/orders.fifo": f"this is the queue's URL; write its ARN, {QUEUE}.fifo",
    "https://queue.amazonaws.com/111122223333/orders": "this is the queue's URL; write its ARN, arn:aws:sqs:us-east-1:111122223333:orders",
    "https://eu-west-1.queue.amazonaws.com/111122223333/orders": f"this is the queue's URL; write its ARN, {QUEUE}",
    "https://sqs.cn-north-1.amazonaws.com.cn/111122223333/orders": "this is the queue's URL; write its ARN, "
    "arn:aws-cn:sqs:cn-north-1:111122223333:orders",
    "http://localhost:4566/000000000000/orders": "this is the queue's URL; write its ARN, arn:aws:sqs:REGION:000000000000:orders",
    f" {STREAM}": "remove the blanks around it",
    "orders": f"this is a name alone; write {ANY} (`aws kinesis describe-stream-summary`, `aws dynamodb describe-table` and "
    "`aws sqs get-queue-attributes` say it)",
    "stream/orders": f"this is no ARN; write {ANY} (`aws kinesis describe-stream-summary`, `aws dynamodb describe-table` and "
    "`aws sqs get-queue-attributes` say it)",
    "arn:aws:dynamodb:eu-west-1:111122223333:table/orders": "this is a table; write the ARN of its stream, "
    "arn:aws:dynamodb:eu-west-1:111122223333:table/orders/stream/LABEL "
    "(`aws dynamodb describe-table --table-name orders` says it as LatestStreamArn)",
    "arn:aws:kinesis:eu-west-1:111122223333:stream:orders": f"write {STREAM}",
    "arn:aws:kinesis:eu-west-1:111122223333:orders": f"write {STREAM}",
    "arn:aws:sqs:eu-west-1::orders": "it has no region or no account; write arn:aws:sqs:eu-west-1:ACCOUNT:orders",
    "arn:aws:sqs::111122223333:orders": "it has no region or no account; write arn:aws:sqs:REGION:111122223333:orders",
    "arn:aws:sns:eu-west-1:111122223333:orders": f"this is of sns, which is no event source here; write {ANY}",
    "": f"add it: {ANY}",
}


@pytest.mark.parametrize(("text", "remedy"), SOURCES.items())
def test_what_is_no_arn_of_a_source_is_reported_with_the_arn_that_it_means(
    file: Path, text: str, remedy: str
) -> None:
    (line,) = problems(file, mappings=[mapping(EventSourceArn=text)])
    assert line.startswith("mappings[0].EventSourceArn: value ")
    assert line.endswith(f"Unrecognized event source; {remedy}")
    if text:
        assert source_remedy(text) == remedy


@pytest.mark.parametrize("text", [each for each in SOURCES if queue_arn(each) and "localhost" not in each])
def test_the_arn_that_a_url_means_is_one_of_a_queue(text: str) -> None:
    assert source_kind(queue_arn(text) or "") == "sqs"


@pytest.mark.parametrize("blank", [" ", "\t", "\n"])
def test_blanks_around_an_arn_are_reported_as_blanks(file: Path, blank: str) -> None:
    lines = problems(
        file, mappings=[mapping(EventSourceArn=QUEUE + blank), of_stream(EventSourceArn=STREAM + blank)]
    )
    assert [each.partition(":")[0] for each in lines] == [
        "mappings[0].EventSourceArn",
        "mappings[1].EventSourceArn",
    ]
    assert all(each.endswith(": has blanks around it; remove them") for each in lines)


@pytest.mark.parametrize(
    ("destination", "shown", "wrong"),
    [
        (
            "https://sqs.eu-west-1.amazonaws.com/111122223333/failed",
            "https://sqs.eu-west-1.amazonaws.com/[hidden]",
            "is the URL of a queue, which takes no documents; write its ARN, arn:aws:sqs:eu-west-1:111122223333:failed",
        ),
        (f"{QUEUE} ", f"{QUEUE} ", "has blanks around it; remove them"),
        (
            "failed",
            "failed",
            "The provided destination config DestinationConfig is invalid: failed; write the ARN of a standard SQS queue "
            "(arn:aws:sqs:REGION:ACCOUNT:NAME), a standard SNS topic (arn:aws:sns:REGION:ACCOUNT:NAME) or an S3 bucket "
            "(arn:aws:s3:::NAME); or file:///DIRECTORY, https://HOST/PATH, http://HOST/PATH",
        ),
    ],
)
def test_what_is_no_destination_is_reported_with_what_it_may_be(
    file: Path, destination: str, shown: str, wrong: str
) -> None:
    (line,) = problems(file, mappings=[to(destination)])
    assert line == f"mappings[0].DestinationConfig.OnFailure.Destination: value {shown!r}: {wrong}"


@pytest.mark.parametrize(
    "destination", ["http://127.0.0.1:9/x", "https://host/x", "http://localhost:4566/000000000000/x"]
)
def test_web_addresses_of_both_schemes_are_destinations(file: Path, destination: str) -> None:
    assert problems(file, mappings=[to(destination)]) == []


def test_a_setting_of_another_invoker_is_reported_with_that_invoker(file: Path) -> None:
    entries = {
        "forgotten": {"handler": HANDLER},
        "web": {"url": "http://h/"},
        "wrong": {"invoker": "process", "command": ["cat"], "isolation": "process"},
    }
    assert problems(file, functions=entries) == [
        "functions.forgotten.handler: unknown setting; write invoker: process or python, which has it; without an invoker, lambda calls "
        "the function",
        "functions.web.url: unknown setting; write invoker: http, which has it; without an invoker, lambda calls the function",
        "functions.wrong.isolation: unknown setting; remove it, or write invoker: python, which has it; invoker: process has not",
    ]


def test_a_function_s_resource_of_a_template_gets_a_hint(file: Path) -> None:
    entry = {"invoker": "http", "url": "http://h/", "Type": "AWS::Lambda::Function", "Properties": {}}
    hint = "this is a CloudFormation resource; write invoker: and that invoker's settings (docs/use/functions.md)"
    assert problems(file, functions={"web": entry}) == [
        f"functions.web.{name}: unknown setting; {hint}" for name in ("Properties", "Type")
    ]


def test_a_misspelled_default_invoker_is_reported_before_a_function_uses_it(file: Path) -> None:
    (line,) = problems(file, default_invoker="lamda", mappings=[mapping()])
    assert line == (
        "default_invoker: value 'lamda': no plug-in 'lamda' among invokers; did you mean lambda? "
        "(installed: http, lambda, process, python)"
    )


FLAGS: dict[str, Callable[[str], dict[str, Any]]] = {
    "api.allow_unauthenticated": lambda text: {"api": {"allow_unauthenticated": text}},
    "functions.web.verify_tls": lambda text: {
        "functions": {"web": {"invoker": "http", "url": "http://h/", "verify_tls": text}}
    },
    "mappings[0].Enabled": lambda text: {"mappings": [mapping(Enabled=text)]},
    "mappings[0].extend_visibility": lambda text: {"mappings": [mapping(extend_visibility=text)]},
    "mappings[0].shared_reads": lambda text: {"mappings": [of_stream(shared_reads=text)]},
    "mappings[0].include_payload": lambda text: {"mappings": [to(QUEUE) | {"include_payload": text}]},
    "mappings[0].BisectBatchOnFunctionError": lambda text: {
        "mappings": [of_stream(BisectBatchOnFunctionError=text)]
    },
}


@pytest.mark.parametrize("place", FLAGS)
@pytest.mark.parametrize(
    ("text", "meant"), [("false", "false"), ("True", "true"), ("no", "false"), ("on", "true")]
)
def test_a_flag_in_quotes_is_refused_in_a_file(file: Path, place: str, text: str, meant: str) -> None:
    (line,) = problems(file, **FLAGS[place](text))
    where, _, rest = line.partition(": ")
    assert (where, rest.partition(":")[0]) == (place, f"value {text!r}")
    assert rest.endswith(
        (
            f"a text, not true or false; write {meant} without quotes",
            "neither true nor false; write one of them",
        )
    )
    assert problems(file, **FLAGS[place](json.loads(meant))) == []


def test_a_flag_in_quotes_is_what_a_variable_of_the_environment_has(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("POLLER_API__ALLOW_UNAUTHENTICATED", "true")
    monkeypatch.setenv("POLLER_MAPPINGS", json.dumps([mapping(Enabled="false")]))
    settings = found(file).settings
    assert settings is not None
    assert (settings.api.allow_unauthenticated, settings.mappings[0].Enabled) == (True, False)


def test_one_wrong_name_hides_no_mistake_beside_it(file: Path) -> None:
    filters = [{"Pattern": "x"}, {"Patern": "{}"}, {"Pattern": "y"}, {"Pattern": {"a": 1}}, {"Pattern": 5}]
    tags = {"a": 5, "b": [1], "c": "x" * 300}
    pollers = {"MinimumPollers": "two", "MaximumPollers": 1, "Group": 1}
    lines = problems(
        file,
        mappings=[
            of_stream(FilterCriteria={"Filters": filters}, Tags=tags),
            mapping(ProvisionedPollerConfig=pollers, FunctionResponseTypes=[5, "x"]),
        ],
    )
    assert [line.partition(": ")[0] for line in lines] == [
        *[f"mappings[0].FilterCriteria.Filters[{index}].Pattern" for index in (0,)],
        "mappings[0].FilterCriteria.Filters[1].Patern",
        *[f"mappings[0].FilterCriteria.Filters[{index}].Pattern" for index in (2, 3, 4)],
        "mappings[0].Tags",
        "mappings[0].Tags.a",
        "mappings[0].Tags.b",
        "mappings[1].FunctionResponseTypes",
        "mappings[1].FunctionResponseTypes[0]",
        "mappings[1].ProvisionedPollerConfig.Group",
        "mappings[1].ProvisionedPollerConfig.MaximumPollers",
        "mappings[1].ProvisionedPollerConfig.MinimumPollers",
    ]


def test_what_this_machine_lacks_is_a_warning_of_its_own(file: Path, tmp_path: Path) -> None:
    nowhere = tmp_path / "nowhere"
    file.write_text(
        json.dumps(
            {
                "store": f"sqlite://{nowhere}/x.db",
                "functions": {"orders": {"invoker": "python", "handler": HANDLER}},
                "mappings": [to(f"file://{nowhere}"), mapping(FunctionName="order"), mapping(BatchSize=0)],
            }
        )
    )
    answer = json.loads(
        CliRunner().invoke(application([]), ["check", "--config", str(file), "--json"]).stdout
    )
    assert [each.removeprefix(f"{file}: ").partition(": ")[0] for each in answer["problems"]] == [
        "mappings[2].BatchSize"
    ]
    lines = [each.removeprefix(f"{file}: ") for each in answer["warnings"]]
    assert lines[0].startswith("store: value 'sqlite:")
    assert lines[0].endswith(
        f"there is no directory {nowhere}; `poller run` makes it, and begins without positions; is the path right?"
    )
    assert lines[1].startswith("mappings[0].DestinationConfig.OnFailure.Destination: value 'file:")
    assert lines[1].endswith(f"{nowhere} is no directory; make it, or correct the path")
    assert len(lines) == 2


def test_a_function_that_is_nearly_configured_is_asked_about(file: Path) -> None:
    found(file, mappings=[mapping(FunctionName="order:live"), mapping(FunctionName="invoices")])
    answer = CliRunner().invoke(application([]), ["check", "--config", str(file)])
    assert (answer.exit_code, answer.stderr) == (
        0,
        f"poller: warning: {file}: mappings[0].FunctionName: 'order' is not below functions, so that lambda calls it; did you mean orders?\n",
    )


@pytest.mark.parametrize("width", [40, 80, 200])
def test_what_would_run_fits_the_screen(file: Path, width: int, monkeypatch: pytest.MonkeyPatch) -> None:
    long = {"EventSourceArn": f"{STREAM}-{'x' * 100}", "FunctionName": "orders:" + "q" * 100}
    found(file, mappings=[mapping(), to(f"https://host/{'secret-path/' * 9}"), of_stream(**long)])
    monkeypatch.setenv("COLUMNS", str(width))
    out = CliRunner().invoke(application([]), ["check", "--config", str(file)]).stdout
    lines = out.splitlines()
    assert max(map(len, lines)) <= width
    assert "secret-path" not in out
    assert "dead-letter" not in out
    assert lines[-1].endswith("configuration is valid")
    if width >= 80:
        assert f"  {QUEUE}" in lines
        assert "    on failure: retried until retention, then https://host/[hidden]" in lines
