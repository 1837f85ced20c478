"""What is told of a wrong configuration: every mistake at once, by its full name, with a remedy, by every command alike."""

import json
import os
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any, TypeAliasType, get_args

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import BaseModel, SecretStr
from typer.testing import CliRunner

from poller.cli import application
from poller.commands.run.command import ConfigurationFile, again
from poller.commands.shared import LoadablePlugins
from poller.config.daemon_plan import daemon_plan
from poller.config.loader import Examined, examine, load_all
from poller.config.settings import FileMapping, FunctionEntry, Settings
from poller.config_errors.error_messages import MANUAL, spelled
from poller.config_errors.hints import hint
from poller.config_errors.known_names import known_names, one_letter_apart
from poller.domain.errors import InvalidConfiguration
from tests.adapters.invokers.functions.plain import act
from tests.start_folders import start_in

STREAM = "arn:aws:kinesis:eu-west-1:111122223333:stream/orders"
QUEUE = "arn:aws:sqs:eu-west-1:111122223333:orders"
FIFO = f"{QUEUE}.fifo"
FAILED = "arn:aws:sqs:eu-west-1:111122223333:failed"
HANDLER = f"{act.__module__}:{act.__name__}"
REGISTRY = LoadablePlugins()
INVOKERS: dict[str, dict[str, Any]] = {
    "python": {"handler": HANDLER},
    "http": {"url": "http://127.0.0.1/"},
    "process": {"command": ["cat"]},
    "lambda": {},
}
STORES = {
    "sqlite": "sqlite:state.db",
    "dynamodb": "dynamodb://poller",
    "postgresql": "postgresql://h/poller",
    "memory": "memory://",
}


@pytest.fixture(autouse=True)
def _no_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in os.environ:
        if name.upper().startswith("POLLER_"):
            monkeypatch.delenv(name)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "poller.yaml"


def sound() -> dict[str, Any]:
    """A configuration with one part of each kind and nothing wrong."""
    failed = {"OnFailure": {"Destination": FAILED}}
    stream: dict[str, Any] = {
        "FunctionName": "python",
        "EventSourceArn": STREAM,
        "StartingPosition": "LATEST",
    }
    return {
        "store": "memory://",
        "listen": "127.0.0.1:0",
        "functions": {name: {"invoker": name} | given for name, given in INVOKERS.items()},
        "mappings": [
            stream | {"DestinationConfig": failed},
            {"FunctionName": "http", "EventSourceArn": QUEUE},
            {"FunctionName": "process", "EventSourceArn": FIFO},
        ],
    }


def examined(file: Path, document: dict[str, Any]) -> Examined:
    file.write_text(json.dumps(document))
    return examine(file, {}, REGISTRY)


def told(file: Path, document: dict[str, Any]) -> list[str]:
    """What keeps a daemon from starting with this document, without the file's name."""
    found = examined(file, document)
    return [line.removeprefix(f"{file}: ") for line in (*found.problems, *found.lacking)]


def test_a_sound_configuration_has_no_mistakes(file: Path) -> None:
    assert told(file, sound()) == []


# Names.


def section(document: Any, place: tuple[str | int, ...]) -> dict[str, Any]:
    """The table at `place`, made if it is not there."""
    for part in place:
        if isinstance(document, dict):
            document = document.setdefault(part, [{}] if part == "Filters" else {})
        else:
            document = document[part]
    found: dict[str, Any] = document
    return found


def spelled_ids(cases: Sequence[tuple[Any, ...]]) -> list[str]:
    return [spelled(place) or "file" for place, *_ in cases]


GIVEN = {"function", "max_concurrency", "function_version"}
"""Settings of invokers that the daemon gives them."""


def names() -> Iterator[tuple[tuple[str | int, ...], list[str]]]:
    """Every table of a configuration and the names that it may have."""
    yield (), list(Settings.model_fields)
    sections = ("api", "log", "tracing", "resources", "check", "tuning")
    for place in [*((each,) for each in sections), ("tuning", "port_backoff")]:
        yield place, known_names(Settings, place)
    mapping: list[tuple[str | int, ...]] = [
        (),
        ("DestinationConfig",),
        ("DestinationConfig", "OnFailure"),
        ("FilterCriteria",),
        ("FilterCriteria", "Filters", 0),
        ("ScalingConfig",),
        ("ProvisionedPollerConfig",),
        ("MetricsConfig",),
    ]
    for below in mapping:
        yield ("mappings", 1, *below), known_names(Settings, ("mappings", 1, *below))
    for name in INVOKERS:
        model = REGISTRY.plugin("invokers", name).settings
        own = [each for each in model.model_fields if each not in GIVEN]
        yield ("functions", name), [*FunctionEntry.model_fields, *own]


def typos(name: str) -> list[str]:
    """Names that differ from `name` by one letter, one of each way to mistype."""
    middle = len(name) // 2
    dropped = name[:middle] + name[middle + 1 :]
    doubled = name[:middle] + name[middle] + name[middle:]
    replaced = name[:middle] + "x" + name[middle + 1 :]
    swapped = name[: middle - 1] + name[middle] + name[middle - 1] + name[middle + 1 :]
    return sorted({dropped, doubled, replaced, swapped} - {name, ""})


AT_ONCE = 20
"""Names of one table whose typos are looked at in one document, so that all fit into what is told at once."""
NAMES = [
    (place, known[at : at + AT_ONCE], known)
    for place, known in names()
    for at in range(0, len(known), AT_ONCE)
]


@pytest.mark.parametrize(("place", "chosen", "known"), NAMES, ids=spelled_ids(NAMES))
def test_a_name_with_one_wrong_letter_is_asked_about(
    file: Path, place: tuple[str | int, ...], chosen: list[str], known: list[str]
) -> None:
    wrong = {
        typo: name
        for name in chosen
        for typo in typos(name)
        if typo not in known and hint((*place, typo), None) is None
    }
    assert set(wrong.values()) == set(chosen)
    document = sound()
    section(document, place).update(dict.fromkeys(wrong))
    lines = told(file, document)
    for typo, name in wrong.items():
        (line,) = [each for each in lines if each.startswith(f"{spelled((*place, typo))}: unknown setting; ")]
        question = line.partition("did you mean ")[2].removesuffix("?")
        assert name in question.split(" or "), line


@pytest.mark.parametrize(
    "name",
    sorted(
        {
            name
            for kind in ("kinesis", "dynamodb")
            for name in REGISTRY.plugin("sources", kind).settings.model_fields
        }
        - {"arn", "mapping"}
    ),
)
def test_a_setting_of_a_source_beside_it_is_told_its_place(file: Path, name: str) -> None:
    document = sound()
    section(document, ("mappings", 0))[name] = True
    (line,) = [each for each in told(file, document) if f"mappings[0].{name}: " in each]
    assert line.endswith("unknown setting; write it below the mapping's `source:`")


def test_shared_reads_below_the_source_is_told_its_place() -> None:
    remedy = hint(("mappings", 0, "source", "shared_reads"), False)
    assert remedy == "write it beside EventSourceArn, not below `source:`"


@pytest.mark.parametrize("store", ["sqlite", "dynamodb", "postgresql"])
def test_an_option_of_a_store_with_one_wrong_letter_is_asked_about(file: Path, store: str) -> None:
    options = [name for name in REGISTRY.plugin("stores", store).settings.model_fields if name != "url"]
    for name in options:
        for typo in typos(name):
            (line,) = told(file, sound() | {"store": f"{STORES[store]}?{typo}=1"})
            assert line == f"store.{typo}: unknown setting; did you mean {name}?"


@pytest.mark.parametrize(
    ("place", "typo", "line"),
    [
        (
            ("functions", "python", "invoker"),
            "pyton",
            "functions.python.invoker: value 'pyton': no plug-in 'pyton' among invokers; did you mean python? "
            "(installed: http, lambda, process, python)",
        ),
        (
            ("default_invoker",),
            "lamda",
            "default_invoker: value 'lamda': no plug-in 'lamda' among invokers; did you mean lambda? (installed: http, lambda, process, python)",
        ),
    ],
)
def test_a_plug_in_with_one_wrong_letter_is_asked_about(
    file: Path, place: tuple[str, ...], typo: str, line: str
) -> None:
    document = sound()
    document["mappings"][1]["FunctionName"] = "bare"
    section(document, place[:-1])[place[-1]] = typo
    assert line in told(file, document)


@given(st.text("abcd_", min_size=1, max_size=6), st.text("abcd_", min_size=1, max_size=6))
def test_one_letter_apart_is_what_an_editor_would_say(one: str, other: str) -> None:
    letters = "abcd_"
    near = {one}
    for at in range(len(one) + 1):
        near |= {one[:at] + letter + one[at:] for letter in letters}
        near |= {one[:at] + letter + one[at + 1 :] for letter in (*letters, "")}
        near |= {one[:at] + one[at + 1 : at + 2] + one[at : at + 1] + one[at + 2 :]}
    assert one_letter_apart(one, other) is (other in near)


# Texts, and values of every other kind.


def leaves() -> Iterator[tuple[tuple[str | int, ...], object]]:
    """Every setting of a configuration with the type that its model gives it."""
    models: list[tuple[tuple[str | int, ...], type]] = [((), Settings), (("mappings", 1), FileMapping)]
    for name in INVOKERS:
        place: tuple[str | int, ...] = ("functions", name)
        models += [(place, FunctionEntry), (place, REGISTRY.plugin("invokers", name).settings)]
    for place, model in models:
        yield from _leaves(place, model)


def _leaves(place: tuple[str | int, ...], model: type) -> Iterator[tuple[tuple[str | int, ...], object]]:
    if is_dataclass(model):
        members = {each.name: each.type for each in fields(model)}
    else:
        assert issubclass(model, BaseModel)
        members = {name: field.annotation for name, field in model.model_fields.items()}
    for name, annotation in members.items():
        inner = [
            each
            for each in parts_of(annotation)
            if isinstance(each, type) and (is_dataclass(each) or _is_model(each))
        ]
        if name in {"functions", "mappings"} or (name in GIVEN and "functions" in place):
            continue
        if name in {"identities", "event_invoke_configs", "aliases", "versions"}:
            key = "1" if name == "versions" else "billing"
            yield from _leaves((*place, name, key), inner[0])
        elif inner and name != "FilterCriteria":
            yield from _leaves((*place, name), inner[0])
        else:
            yield (*place, name), annotation


def _is_model(each: object) -> bool:
    return isinstance(each, type) and issubclass(each, BaseModel)


def parts_of(annotation: object) -> list[Any]:
    """The plain types that an annotation is made of."""
    if isinstance(annotation, TypeAliasType):
        return parts_of(annotation.__value__)
    inner = [each for arg in get_args(annotation) for each in parts_of(arg)]
    return inner or [annotation]


LEAVES = dict(leaves())
TEXTS = [
    place
    for place, annotation in LEAVES.items()
    # The version of an alias may be written as a number, and weights are a table of numbers.
    if place[-1] not in {"source", "client_context", "weights"}
    and place[-3::2] != ("aliases", "version")
    and {str, SecretStr, Path} & {each for each in parts_of(annotation) if isinstance(each, type)}
]


def wrapped(place: tuple[str | int, ...], value: object) -> object:
    """A value for a setting that is a text, a list or a table of texts."""
    table = {"headers", "env", "endpoint_urls", "Tags"}
    name = place[-1]
    if name in table:
        return {"sqs": value}
    return [value] if name in {"allowed_hosts", "command", "FunctionResponseTypes", "Metrics"} else value


ALONE = {"invoker", "default_invoker", "EventSourceArn", "store", "listen", "source", "handler"}
"""Settings that decide what is looked at elsewhere."""


def together(places: Iterable[tuple[str | int, ...]]) -> list[list[tuple[str | int, ...]]]:
    """Settings that can be wrong in one document without hiding each other: those of one table."""
    tables: dict[tuple[str | int, ...], list[tuple[str | int, ...]]] = {}
    for place in places:
        tables.setdefault(place if place[-1] in ALONE else place[:-1], []).append(place)
    return list(tables.values())


def given_all(places: Iterable[tuple[str | int, ...]], value: object, *, inside: bool) -> dict[str, Any]:
    """A document with one value at all places; with `inside` within the list or the table that a setting is."""
    document = sound()
    for place in places:
        section(document, place[:-1])[str(place[-1])] = wrapped(place, value) if inside else value
    return document


GROUPS = [(places[0][:-1], places) for places in together(TEXTS)]


@pytest.mark.parametrize(("table", "places"), GROUPS, ids=spelled_ids(GROUPS))
def test_a_text_that_is_read_as_something_else_is_reported_to_need_quotes(
    file: Path, table: tuple[str | int, ...], places: list[tuple[str | int, ...]]
) -> None:
    del table
    for text in ("123456789012", "1e3", "1.10", "true"):
        file.write_text(json.dumps(given_all(places, "VALUE", inside=True)).replace('"VALUE"', text))
        problems = examine(file, {}, REGISTRY).problems
        for place in places:
            (line,) = [
                each
                for each in problems
                if re.match(rf"{re.escape(spelled(place))}[.\[:]", each.removeprefix(f"{file}: "))
            ]
            if spelled(place) == "listen":
                assert ": not HOST:PORT; write 127.0.0.1:8080" in line, "in quotes it would be refused again"
            else:
                assert line.endswith("not a text; put it in quotes") or "not one of the choices" in line, line


@pytest.mark.parametrize("text", ["000123456789", "012", "yes", "2026-01-01", "0x1f", "1_000", "on", "12:30"])
def test_what_only_looks_like_something_else_is_the_text_that_it_is(file: Path, text: str) -> None:
    file.write_text(f"functions: {{a: {{invoker: process, command: [cat], env: {{A: {text}}}}}}}\n")
    assert load_all(file, {}, REGISTRY).functions["a"].model_extra == {"command": ["cat"], "env": {"A": text}}


def test_every_name_that_is_no_text_is_reported_beside_all_other_mistakes(file: Path) -> None:
    file.write_text(
        "1: a\nnull: b\nlisten: 8080\ntuning: {4: 5}\n"
        "functions: {orders: {invoker: python, handler: app.handler, 5: 6, true: 7}, 1.5: {}}\n"
        "mappings: [{FunctionName: orders, EventSourceArn: nothing, ScalingConfig: {3: 4}, Tags: {2: x}}]\n"
    )
    problems = [each.removeprefix(f"{file}: ") for each in examine(file, {}, REGISTRY).problems]
    odd = [each.partition(": ")[0] for each in problems if each.endswith("put the name in quotes")]
    assert odd == [
        *["[1]", "[null]", "tuning[4]", "functions.orders[5]", "functions.orders[true]", "functions[1.5]"],
        *["mappings[0].ScalingConfig[3]", "mappings[0].Tags[2]"],
    ]
    assert any(each.startswith("listen: ") for each in problems)
    assert any(each.startswith("mappings[0].EventSourceArn: ") for each in problems)


@pytest.mark.parametrize("table", ["functions", "endpoint_urls"])
def test_a_name_that_is_read_as_a_number_is_reported_to_need_quotes(file: Path, table: str) -> None:
    file.write_text(f"{table}:\n  123456789012: {{}}\n")
    problems = examine(file, {}, REGISTRY).problems
    assert f"{file}: {table}[123456789012]: its name is not a text; put the name in quotes" in problems


ODD: list[object] = [
    None,
    True,
    -1,
    10**30,
    1.5,
    "",
    "x y",
    "\u0000",
    [],
    [[]],
    {},
    {"a": {}},
    [1, {"a": 2}],
    "ftp://[x",
]


ALL = [(places[0][:-1], places) for places in together(LEAVES)]


@pytest.mark.parametrize(("table", "places"), ALL, ids=spelled_ids(ALL))
def test_whatever_a_setting_is_given_is_reported_in_our_words(
    file: Path, table: tuple[str | int, ...], places: list[tuple[str | int, ...]]
) -> None:
    del table
    raw = [
        "nput should",
        "Value error",
        "Field required",
        "Extra inputs",
        "Path does",
        "extra_forbidden",
        MANUAL,
    ]
    for value in ODD:
        for line in told(file, given_all(places, value, inside=False)):
            where, _, rest = line.partition(": ")
            assert where[0].isalpha(), line
            what, semicolon, remedy = rest.rpartition("; ")
            assert (bool(what), semicolon, bool(remedy)) == (True, "; ", True), line
            assert [each for each in raw if each in line] == [], line


# All at once, by every command alike.

type Mistake = Callable[[dict[str, Any]], None]


def setting(*place: str | int, value: object) -> Mistake:
    def make(document: dict[str, Any]) -> None:
        section(document, place[:-1])[str(place[-1])] = value

    return make


def removed(*place: str | int) -> Mistake:
    def make(document: dict[str, Any]) -> None:
        del section(document, place[:-1])[str(place[-1])]

    return make


def twin(document: dict[str, Any]) -> None:
    document["mappings"].append({"FunctionName": "http", "EventSourceArn": QUEUE})


def open_to_all(document: dict[str, Any]) -> None:
    document |= {"listen": "0.0.0.0:0"}
    section(document, ("api",))["allow_unauthenticated"] = True


MISTAKES: dict[str, Mistake] = {
    "an unknown setting": setting("regin", value="eu"),
    "a wrong url": setting("endpoint_url", value="ftp://x"),
    "a choice": setting("log", "level", value="loud"),
    "a rhythm that is no number": setting("tuning", "idle_poll_s", value="often"),
    "a rhythm that is a flag": setting("tuning", "discovery_s", value=True),
    "a rhythm out of range": setting("tuning", "grace_s", value=-1),
    "heartbeats too far apart": setting("tuning", "heartbeat_s", value=9),
    "changes by everybody": open_to_all,
    "a file of secrets with spaces": setting("api", "access_keys_file", value="spaces.yaml"),
    "no file of secrets": setting("api", "tokens_file", value="nowhere.yaml"),
    "an unknown setting of the api": setting("api", "token", value="x"),
    "an option of the store": setting("store", value="sqlite:state.db?synchronus=full"),
    "a function's own setting": setting("functions", "python", "timeout_s", value=0),
    "a misspelled setting of a function": setting("functions", "python", "timout_s", value=3),
    "a setting of an invoker": setting("functions", "python", "memory_mb", value="much"),
    "settings that contradict": setting("functions", "python", "processes", value=2),
    "a handler that is no name": setting("functions", "python", "handler", value="app"),
    "no url": removed("functions", "http", "url"),
    "a header": setting("functions", "http", "headers", value={"Authorization": "Bearer …"}),
    "no certificates": setting("functions", "http", "ca_file", value="/nowhere.pem"),
    "no program": setting("functions", "process", "command", value=["no-such-program"]),
    "a name of the daemon's": setting("functions", "process", "function", value="x"),
    "an unknown invoker": setting("functions", "lambda", "invoker", value="lamda"),
    "a type in a mapping": setting("mappings", 0, "BatchSize", value="many"),
    "a range in a mapping": setting("mappings", 0, "TumblingWindowInSeconds", value=9999),
    "an unknown member": setting("mappings", 0, "StartingPositon", value="x"),
    "a missing member": removed("mappings", 0, "StartingPosition"),
    "a setting of the source": setting("mappings", 0, "source", value={"fan_out": "perhaps"}),
    "an unknown destination": setting(
        "mappings", 0, "DestinationConfig", value={"OnFailure": {"Destination": "kafka://x"}}
    ),
    "a member for streams": setting("mappings", 1, "ParallelizationFactor", value=2),
    "a window that is missing": setting("mappings", 1, "BatchSize", value=50),
    "a setting of ours": setting("mappings", 1, "one_group_per_batch", value=True),
    "a uuid": setting("mappings", 1, "UUID", value=5),
    "a window for fifo": setting("mappings", 2, "MaximumBatchingWindowInSeconds", value=5),
    "no function": removed("mappings", 2, "FunctionName"),
    "two of a kind": twin,
}
NOT_BOTH = {"an unknown member", "a missing member"}
"""What one says follows from what the other has wrong."""


def with_mistakes(folder: Path, *chosen: str) -> dict[str, Any]:
    (folder / "spaces.yaml").write_text("AKID: a long random text\nOTHER: 5\n")
    document = sound()
    for each in chosen:
        MISTAKES[each](document)
    return document


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[str]]:
    """What is told of each mistake when it is the only one."""
    folder = tmp_path_factory.mktemp("alone")
    with pytest.MonkeyPatch.context() as patch:
        start_in(folder, patch)
        return {each: told(folder / "f.yaml", with_mistakes(folder, each)) for each in MISTAKES}


def test_each_mistake_is_reported_by_the_full_name_of_its_setting(alone: dict[str, list[str]]) -> None:
    assert [each for each, lines in alone.items() if not lines] == []
    places = {each: sorted({line.partition(":")[0] for line in lines}) for each, lines in alone.items()}
    assert places["a file of secrets with spaces"] == ["api.access_keys_file"]
    assert places["no file of secrets"] == ["api.tokens_file"]
    assert places["settings that contradict"] == ["functions.python.processes"]
    assert places["an unknown invoker"] == ["functions.lambda.invoker"]
    assert places["a setting of the source"] == ["mappings[0].source.fan_out"]
    assert places["an unknown destination"] == ["mappings[0].DestinationConfig.OnFailure.Destination"]


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(chosen=st.sets(st.sampled_from(sorted(MISTAKES)), min_size=2, max_size=12))
def test_mistakes_together_are_reported_as_each_is_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, alone: dict[str, list[str]], chosen: set[str]
) -> None:
    if chosen >= NOT_BOTH:
        chosen -= {min(NOT_BOTH)}
    start_in(tmp_path, monkeypatch)
    lines = told(tmp_path / "f.yaml", with_mistakes(tmp_path, *sorted(chosen)))
    assert sorted(lines) == sorted(line for each in chosen for line in alone[each])


SEVEN = f"""
regin: eu-west-1
functions:
  orders: {{invoker: python, handlr: shop.orders, timeout_s: 0}}
  invoices: {{invoker: http, url: "http://invoices", header: {{Authorization: x}}}}
mappings:
  - {{FunctionName: orders, EventSourceArn: "{STREAM}", BatchSize: 0, StartingPosition: LATEST}}
  - {{FunctionName: invoices, EventSourceArn: "{QUEUE}", BatchSise: 5, ParallelizationFactor: 2}}
"""


def test_seven_mistakes_take_one_round_and_every_command_reports_the_same(file: Path) -> None:
    file.write_text(SEVEN)
    runner = CliRunner()
    check = runner.invoke(application([]), ["check", "--config", str(file)])
    run = runner.invoke(application([]), ["run", "--config", str(file)])
    as_json = runner.invoke(application([]), ["check", "--config", str(file), "--json"])
    assert (check.exit_code, run.exit_code, as_json.exit_code) == (2, 2, 2)
    assert check.stdout == ""
    assert check.stderr == run.stderr
    lines = [line.removeprefix(f"poller: {file}: ") for line in check.stderr.splitlines()]
    assert [line.partition(";")[0] for line in lines] == [
        "functions.invoices.header: unknown setting",
        "functions.orders.handlr: unknown setting",
        "functions.orders.timeout_s: value 0: too small",
        "mappings[0].BatchSize: value 0: 1 validation error detected: Value '0' at 'batchSize' failed to satisfy "
        "constraint: Member must have value greater than or equal to 1",
        "mappings[1].BatchSise: unknown setting",
        "mappings[1].ParallelizationFactor: value 2: Unsupported ParallelizationFactor parameter for given event "
        "source mapping type",
        "regin: unknown setting",
    ]
    problems = [line.removeprefix("poller: ") for line in check.stderr.splitlines()]
    assert json.loads(as_json.stdout) == {"ok": False, "problems": problems, "warnings": []}
    file.write_text("mappings: []\n")
    running = load_all(file, {}, REGISTRY)
    reload = again(
        ConfigurationFile(file, lambda: load_all(file, {}, REGISTRY)), running, daemon_plan(running)
    )
    file.write_text(SEVEN)
    with pytest.raises(InvalidConfiguration) as refused:
        reload()
    assert refused.value.problems == problems
