"""The command line: what each command prints, where, and with which exit status."""

import asyncio
import json
import os
import random
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from importlib.metadata import EntryPoint, entry_points, version
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import typer
from pydantic import BaseModel, ConfigDict
from typer import Typer
from typer.testing import CliRunner, Result

from poller.cli import application
from poller.commands.check import check
from poller.commands.root.plugin_commands import COMMANDS
from poller.commands.run.command import ConfigurationFile, again, run_daemon
from poller.commands.run.engine import Engine
from poller.commands.shared import LoadablePlugins, control_settings, observer_settings
from poller.config.daemon_plan import daemon_plan
from poller.config.field_types import Address
from poller.config.settings import FileMapping, FunctionEntry, Settings
from poller.domain.errors import AccessDenied, InvalidConfiguration, ServiceUnavailable
from poller.domain.mapping_api import MappingControl, TagControl
from poller.domain.operations import OperationControl
from poller.domain.plan import DaemonPlan
from poller.domain.records import Epoch, MappingId, QueueFacts, Shard, ShardId
from poller.domain.rows import MappingState
from poller.domain.status import DaemonStatus, MappingStatus, StatusView, idle_note
from poller.domain.telemetry.observers import Observer
from poller.plugins import Environment, GivenPlugins, Plugin, Registry
from poller.ports import Exposition

STREAM = "arn:aws:kinesis:eu-west-1:111122223333:stream/orders"
QUEUE = "arn:aws:sqs:eu-west-1:111122223333:orders"
NOW = Epoch(1_767_225_600.0)
WIDE = {"COLUMNS": "240", "NO_COLOR": "1", "TERM": "dumb"}


class Anything(BaseModel):
    model_config = ConfigDict(extra="allow")


class OnlyHandler(BaseModel):
    model_config = ConfigDict(extra="forbid")

    function: str
    handler: str


class Diary:
    """What happened, in order."""

    def __init__(self) -> None:
        self.lines: list[str] = []


class FakeObserver:
    def on(self, event: object) -> None:
        """Takes one event."""


class FakeExposition(FakeObserver):
    def exposition(self) -> tuple[bytes, str]:
        return b"", "text/plain"


class FakeControl:
    """Serves until cancelled, or cannot listen."""

    def __init__(self, diary: Diary, error: OSError | None) -> None:
        self.address = Address("127.0.0.1", 8080)
        self._diary = diary
        self._error = error

    async def serve(
        self,
        view: StatusView,
        expositions: Sequence[Exposition],
        control: MappingControl | None = None,
        tags: TagControl | None = None,
        observer: Observer | None = None,
        operations: OperationControl | None = None,
        **_: object,
    ) -> None:
        if self._error:
            raise self._error
        self._diary.lines.append(f"serving {view.status().worker}, {len(expositions)} expositions")
        try:
            await asyncio.get_running_loop().create_future()
        finally:
            self._diary.lines.append("served")


class FakeStream:
    def __init__(self, error: Exception | None) -> None:
        self._error = error

    async def shards(self) -> Sequence[Shard]:
        if self._error:
            raise self._error
        return [Shard(ShardId("a"))]


class FakeQueue:
    def __init__(self, visibility_s: int) -> None:
        self._facts = QueueFacts(visibility_timeout_s=visibility_s, fifo=False)

    async def describe(self) -> QueueFacts:
        return self._facts


def plug_in(name: str, port: object, diary: Diary, model: type[BaseModel] = Anything) -> Plugin[Any, Any]:
    @asynccontextmanager
    async def open_fake(settings: BaseModel, env: Environment) -> AsyncIterator[object]:
        diary.lines.append(f"open {name}")
        if isinstance(port, InvalidConfiguration):
            raise port
        yield port
        diary.lines.append(f"close {name}")

    return Plugin(name, model, open_fake)


def plug_ins(
    diary: Diary,
    *,
    listen_error: OSError | None = None,
    stream_error: Exception | None = None,
    visibility_s: int = 30,
    handler: object = None,
) -> GivenPlugins:
    ports: dict[tuple[str, str], object] = {
        ("observers", "prometheus"): FakeExposition(),
        ("observers", "logs"): FakeObserver(),
        ("control", "http"): FakeControl(diary, listen_error),
        ("stores", "memory"): None,
        ("sources", "kinesis"): FakeStream(stream_error),
        ("sources", "sqs"): FakeQueue(visibility_s),
        ("invokers", "python"): handler,
        ("destinations", "sqs"): None,
    }
    return GivenPlugins(
        {
            (kind, name): plug_in(name, port, diary, OnlyHandler if kind == "invokers" else Anything)
            for (kind, name), port in ports.items()
        }
    )


class FakeEngine:
    """Ends its own process's patience: sends itself `signals`, and drains when asked unless it is `stubborn`."""

    control = None
    operations = None
    note = ""
    grace_s = 30.0

    def __init__(
        self, diary: Diary, *, signals: int, stubborn: bool = False, error: Exception | None = None
    ) -> None:
        self._diary = diary
        self._signals = signals
        self._stubborn = stubborn
        self._error = error
        self._stopped = asyncio.Event()

    def make(
        self,
        plan: DaemonPlan,
        *,
        registry: Registry,
        env: Environment,
        observer: Observer,
        rng: random.Random,
    ) -> Engine:
        self._diary.lines.append(f"make {plan.worker} in {env.region}")
        return self

    async def run(self) -> None:
        self._diary.lines.append("run")
        if self._error:
            raise self._error
        for _ in range(self._signals):
            self._stopped.clear()
            os.kill(os.getpid(), signal.SIGTERM)
            await self._stopped.wait()
        if self._stubborn:
            await asyncio.get_running_loop().create_future()
        self._diary.lines.append("drained")

    async def rehearse(self, plan: DaemonPlan) -> list[str]:
        return []

    def replan(self, plan: DaemonPlan) -> tuple[str, ...]:
        self._diary.lines.append(f"replan {plan.worker}")
        return ()

    def stop(self) -> None:
        self._diary.lines.append("stop")
        self._stopped.set()

    def status(self) -> DaemonStatus:
        return DaemonStatus(worker="w", mappings=(), ready=True, alive=True)

    async def fleet(
        self, *, only: str = "", mapping: MappingId | None = None, ask: bool = True
    ) -> DaemonStatus:
        return self.status()

    async def refresh(self) -> None:
        return


def simple(**more: Any) -> Settings:
    return Settings(store="memory://", worker="w", region="eu-west-1", **more)


def mapped(arn: str = STREAM, **fields: Any) -> FileMapping:
    start = {"StartingPosition": "LATEST"} if arn == STREAM else {}
    return FileMapping.model_validate({"FunctionName": "orders", "EventSourceArn": arn} | start | fields)


def full(*mappings: FileMapping, **entry: Any) -> Settings:
    return simple(functions={"orders": FunctionEntry(invoker="python", **entry)}, mappings=mappings)


def call(*arguments: str, points: Sequence[EntryPoint] = (), text: bytes | None = None) -> Result:
    return CliRunner().invoke(application(points), list(arguments), input=text, env=WIDE)


# run


def test_run_opens_everything_and_ends_with_zero_after_one_signal() -> None:
    diary = Diary()
    engine = FakeEngine(diary, signals=1)
    assert run_daemon(simple(), plug_ins(diary), engine.make, place="f") == 0
    assert diary.lines == [
        "open prometheus",
        "open logs",
        "open http",
        "make w in eu-west-1",
        "run",
        "serving w, 1 expositions",
        "stop",
        "drained",
        "served",
        "close http",
        "close logs",
        "close prometheus",
    ]


def test_a_second_signal_cancels_and_ends_with_one() -> None:
    diary = Diary()
    engine = FakeEngine(diary, signals=2, stubborn=True)
    assert run_daemon(simple(), plug_ins(diary), engine.make, place="f") == 1
    assert "drained" not in diary.lines
    assert diary.lines[-1] == "served"


@pytest.mark.parametrize("handler", [signal.default_int_handler, signal.SIG_IGN], ids=["python", "ignored"])
def test_run_restores_the_signal_handlers(handler: signal.Handlers) -> None:
    """An ignored SIGINT is what a shell gives to jobs in the background."""
    found = signal.signal(signal.SIGINT, handler)
    try:
        before = signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)
        diary = Diary()
        run_daemon(simple(), plug_ins(diary), FakeEngine(diary, signals=1).make, place="f")
        assert (signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)) == before
    finally:
        signal.signal(signal.SIGINT, found)


def test_a_port_that_is_taken_ends_with_two(capsys: pytest.CaptureFixture[str]) -> None:
    diary = Diary()
    registry = plug_ins(diary, listen_error=OSError("127.0.0.1:8080 is taken; choose another with --listen"))
    assert run_daemon(simple(), registry, FakeEngine(diary, signals=0, stubborn=True).make, place="f") == 2
    assert capsys.readouterr().err == "poller: 127.0.0.1:8080 is taken; choose another with --listen\n"


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (
            InvalidConfiguration(["functions.a.handler: no module"]),
            "poller: f: functions.a.handler: no module\n",
        ),
        (ServiceUnavailable("the store does not answer"), "poller: the store does not answer\n"),
    ],
)
def test_a_daemon_that_cannot_start_says_why(
    capsys: pytest.CaptureFixture[str], error: Exception, line: str
) -> None:
    diary = Diary()
    assert (
        run_daemon(simple(), plug_ins(diary), FakeEngine(diary, signals=0, error=error).make, place="f") == 2
    )
    assert capsys.readouterr().err == line


def test_a_bug_in_the_daemon_is_reported_and_fails(capsys: pytest.CaptureFixture[str]) -> None:
    engine = FakeEngine(Diary(), signals=0, error=KeyError("x"))
    assert run_daemon(simple(), plug_ins(Diary()), engine.make, place="f") == 1
    assert (
        "poller: the daemon was ended by a fault of its own, KeyError: 'x'; start it again"
        in capsys.readouterr().err
    )


def test_a_changed_file_is_taken_over_with_the_worker_and_the_store_that_run(tmp_path: Path) -> None:
    plan = daemon_plan(simple())
    reads: list[Settings | InvalidConfiguration] = [
        simple(listen="127.0.0.1:1", on_destination_failure="drop"),
        InvalidConfiguration(["f: wrong"]),
    ]

    def read() -> Settings:
        found = reads.pop(0)
        if isinstance(found, InvalidConfiguration):
            raise found
        return found

    (tmp_path / "f").write_text("mappings: []\n")
    load = again(ConfigurationFile(tmp_path / "f", read), simple(), plan)
    loaded = load()
    assert loaded.waiting == ("listen",)
    assert (loaded.plan.worker, loaded.plan.store) == (plan.worker, plan.store)
    assert loaded.plan.on_destination_failure == "drop"
    with pytest.raises(InvalidConfiguration, match="f: wrong"):
        load()


@pytest.mark.parametrize("text", ["", "# all of it\n# is gone\n", "---\n", "~\n"])
def test_an_empty_file_is_not_taken_over(text: str, tmp_path: Path) -> None:
    file = tmp_path / "f"
    load = again(ConfigurationFile(file, simple), simple(), daemon_plan(simple()))
    file.write_text(text)
    with pytest.raises(InvalidConfiguration) as refused:
        load()
    assert refused.value.problems == [f"{file}: is empty; write `mappings: []` to run none"]
    file.write_text("mappings: []\n")
    assert load().plan.mappings == ()


def test_observers_and_control_get_their_settings() -> None:
    settings = Settings(listen="127.0.0.1:1")
    logs = {"format": "json", "level": "info", "process": None}
    assert observer_settings(settings) == {"prometheus": {}, "logs": logs}
    api = {
        "access_keys_file": None,
        "tokens_file": None,
        "reads": None,
        "show_payloads": False,
        "page": True,
        "allow_unauthenticated": False,
        "allowed_hosts": (),
    }
    assert control_settings(settings) == {"listen": "127.0.0.1:1", "api": api, "listening": None}


# check


def test_check_shows_what_would_run_and_opens_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    diary = Diary()
    settings = full(mapped(), mapped(QUEUE), handler="nowhere:nothing")
    assert check(settings, plug_ins(diary), place="f", live=False, as_json=False) == 0
    assert "configuration is valid" in capsys.readouterr().out
    assert diary.lines == []


def test_check_as_json_is_for_machines(capsys: pytest.CaptureFixture[str]) -> None:
    settings = full(mapped(BatchSize=7), handler="geheim:geheim")
    assert check(settings, plug_ins(Diary()), place="f", live=False, as_json=True) == 0
    out = capsys.readouterr().out
    found = json.loads(out)
    assert (found["ok"], found["problems"], found["store"]) == (True, [], "memory")
    assert found["functions"] == [
        {
            "name": "orders",
            "invoker": "python",
            "timeout_s": 30.0,
            "max_concurrency": None,
            "settings": ["handler"],
        }
    ]
    assert [(each["source"], each["batch"], each["start"]) for each in found["mappings"]] == [
        (STREAM, 7, "LATEST")
    ]
    assert "geheim" not in out


@pytest.mark.parametrize(
    ("mappings", "why"),
    [
        ((), "there is none"),
        ((mapped(Enabled=False), mapped(QUEUE, Enabled=False)), "every mapping has Enabled: false"),
    ],
)
def test_that_nothing_would_run_is_said(
    mappings: tuple[FileMapping, ...],
    why: str,
    capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    settings = full(*mappings, handler="a:b")
    assert check(settings, plug_ins(Diary()), place="f", live=False, as_json=False) == 0
    said = f"mappings: {why}, so that nothing of this file will run; write one"
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"poller: warning: f: {said}")
    assert check(settings, plug_ins(Diary()), place="f", live=False, as_json=True) == 0
    (warning,) = json.loads(capsys.readouterr().out)["warnings"]
    assert warning.startswith(f"f: {said}")
    diary = Diary()
    assert run_daemon(settings, plug_ins(diary), FakeEngine(diary, signals=1).make, place="f") == 0
    assert [each for each in caplog.messages if each.startswith(said)]


def test_what_this_machine_lacks_is_a_warning_and_a_problem_of_a_live_check(tmp_path: Path) -> None:
    file = tmp_path / "poller.yaml"
    file.write_text(
        "store: memory://\nfunctions: {orders: {invoker: python, handler: 'nowhere.at.all:x'}}\n"
        f"mappings: [{{FunctionName: orders, EventSourceArn: '{QUEUE}'}}]\n"
    )
    line = f"{file}: functions.orders.handler: value 'nowhere.at.all:x': no module 'nowhere'; install it, or start"
    found = call("check", "--config", str(file))
    assert found.exit_code == 0
    assert found.stderr.startswith(f"poller: warning: {line}")
    assert "configuration is valid" in found.stdout
    for words in (["check", "--live"], ["run"]):
        refused = call(*words, "--config", str(file))
        assert (refused.exit_code, refused.stderr.startswith(f"poller: {line}")) == (2, True)


@pytest.mark.parametrize(
    ("states", "note"),
    [
        ([], "no mapping runs: there is none in the configuration, and none was made through the API"),
        (["Disabled", "Disabled"], "nothing runs: every mapping is disabled"),
        (["Disabled", "Enabled"], ""),
        (["Creating"], ""),
    ],
)
def test_a_daemon_that_runs_nothing_says_so(states: list[str], note: str) -> None:
    mappings = [
        MappingStatus(mapping=MappingId(str(at)), function="f", source_arn=QUEUE, state=MappingState(state))
        for at, state in enumerate(states)
    ]
    assert idle_note(mappings) == note


def test_a_live_check_opens_sources_functions_and_destinations_only() -> None:
    diary = Diary()
    failed = {"OnFailure": {"Destination": QUEUE}}
    settings = full(mapped(DestinationConfig=failed), handler="a:b")
    assert check(settings, plug_ins(diary), place="f", live=True, as_json=True) == 0
    assert diary.lines == [
        "open python",
        "close python",
        "open kinesis",
        "close kinesis",
        "open sqs",
        "close sqs",
    ]


def test_a_live_check_reports_every_trouble(capsys: pytest.CaptureFixture[str]) -> None:
    registry = plug_ins(
        Diary(),
        stream_error=AccessDenied("kinesis ListShards: denied; grant it"),
        visibility_s=2,
        handler=InvalidConfiguration(["functions.orders.handler: 'a:b': no module 'a'"]),
    )
    settings = full(mapped(), mapped(QUEUE), handler="a:b", timeout_s=3)
    assert check(settings, registry, place="f", live=True, as_json=False) == 2
    assert capsys.readouterr().err.splitlines() == [
        "poller: warning: f: mappings[1]: VisibilityTimeout: 2 s is shorter than the function's limit of 3 s;"
        " set it to 3 s or more (AWS refuses such a mapping, six times the limit is its advice)",
        "poller: warning: f: mappings[1]: RedrivePolicy: none, so a message that always fails comes again until it"
        " expires; give the queue a dead-letter queue",
        "poller: f: functions.orders.handler: 'a:b': no module 'a'",
        "poller: f: mappings[0]: kinesis ListShards: denied; grant it",
    ]


def test_warnings_are_no_reason_to_fail() -> None:
    settings = full(mapped(QUEUE), handler="a:b", timeout_s=3)
    assert check(settings, plug_ins(Diary(), visibility_s=2), place="f", live=True, as_json=True) == 0


def test_check_on_the_command_line(tmp_path: Path) -> None:
    file = tmp_path / "poller.yaml"
    file.write_text("store: 1")
    wrong = call("check", "--config", str(file))
    assert (wrong.exit_code, wrong.stdout) == (2, "")
    assert wrong.stderr == f"poller: {file}: store: value 1: not a text; put it in quotes\n"
    as_json = call("check", "--config", str(file), "--json")
    assert as_json.exit_code == 2
    assert json.loads(as_json.stdout)["problems"] == [f"{file}: store: value 1: not a text; put it in quotes"]
    file.write_text("")
    overridden = call("check", "--config", str(file), "--store", "nonsense")
    assert overridden.stderr.startswith(
        "poller: command line: store: value 'nonsense': not the URL of a store;"
    )


def test_an_unknown_plug_in_is_named_with_the_known_ones() -> None:
    with pytest.raises(InvalidConfiguration, match=r"no plug-in 'fax' among invokers; installed: .*python"):
        LoadablePlugins().plugin("invokers", "fax")


# filter explain


def test_filter_explain_says_whether_and_why_not(tmp_path: Path) -> None:
    event = tmp_path / "event.json"
    event.write_text('{"a": 2}')
    matching = call("filter", "explain", "--pattern", '{"a": [2]}', "--event", f"@{event}")
    assert (matching.exit_code, matching.stdout) == (0, "matches\n")
    other = call("filter", "explain", "--pattern", '{"a": [1]}', "--event", "@-", text=b'{"a": 2}')
    assert other.exit_code == 1
    assert "does not match" in other.stdout
    wrong = call("filter", "explain", "--pattern", '{"a": 1}', "--event", "{}")
    assert (wrong.exit_code, wrong.stdout) == (2, "")
    assert "Invalid filter pattern definition." in wrong.stderr
    missing = call("filter", "explain", "--pattern", "{}", "--event", "@/no/such/file")
    assert missing.exit_code == 2
    assert "--event: value '@/no/such/file': cannot be read" in missing.stderr


# plug-in commands and the root


def test_a_plug_in_command_gets_its_arguments(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "plugged_in.py").write_text(
        "import typer\n"
        "def hello(name: str, *, loud: bool = False) -> None:\n"
        "    '''Greets.'''\n"
        "    print(name.upper() if loud else name)\n"
        "    raise typer.Exit(7)\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    points = [EntryPoint("hello", "plugged_in:hello", "poller.commands")]
    found = call("hello", "you", "--loud", points=points)
    assert (found.exit_code, found.stdout) == (7, "YOU\n")
    assert "Greets." in call("hello", "--help", points=points).stdout


def test_help_works_when_a_plug_in_command_cannot_be_imported() -> None:
    points = [EntryPoint("demo", "no_such_package.demo:demo", "poller.commands")]
    overview = call("--help", points=points)
    assert overview.exit_code == 0
    assert "demo" in overview.stdout
    broken = call("demo", points=points)
    assert broken.exit_code == 2
    assert "No module named 'no_such_package'; install what it needs" in broken.stderr


def test_the_overview_says_what_our_own_plug_in_commands_do() -> None:
    points = [each for each in entry_points(group=COMMANDS) if each.value.startswith("adapters.")]
    assert {each.name for each in points} == {"consumers", "demo", "mappings"}
    overview = " ".join(call("--help", points=points).stdout.split())
    for point in points:
        loaded = point.load()
        text = loaded.info.help if isinstance(loaded, Typer) else loaded.__doc__
        assert text
        assert f"{point.name} {text.partition('\n')[0]}" in overview


@pytest.mark.parametrize(
    "command",
    [
        ["run"],
        ["dry-run"],
        ["checkpoints", "import"],
        ["consumers", "remove"],
        ["demo"],
        ["mappings", "create"],
    ],
)
def test_lines_of_a_help_text_are_filled(command: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(WIDE, "COLUMNS", "80")
    monkeypatch.setenv("COLUMNS", "80")
    points = entry_points(group=COMMANDS)
    prose = call(*command, "--help", points=list(points)).stdout.partition("╭")[0]
    lines = [each.strip() for each in prose.splitlines()]
    assert "Example:" in prose or command == ["demo"]
    for line, following in pairwise(lines):
        assert not line or not following or len(f"{line} {following.split()[0]}") > 78


def test_an_unreadable_file_is_reported_as_it_was_written(tmp_path: Path) -> None:
    config = tmp_path / "poller.yaml"
    config.write_text("store: memory://\n")
    found = call("checkpoints", "import", "--config", str(config), "no-such-file")
    assert found.exit_code == 2
    assert "FILE: value 'no-such-file': cannot be read" in found.stderr


def every_command() -> Iterator[tuple[str, ...]]:
    """The words of each command and group, with those of plug-ins of ours."""
    todo: list[tuple[tuple[str, ...], Any]] = [
        ((), typer.main.get_command(application(entry_points(group=COMMANDS))))
    ]
    while todo:
        words, command = todo.pop()
        if words:
            yield words
        if words in {("consumers",), ("demo",), ("mappings",)}:
            # A plug-in is loaded when it is called.
            loaded = next(each for each in entry_points(group=COMMANDS) if each.name == words[0]).load()
            command = typer.main.get_command(loaded) if isinstance(loaded, Typer) else command
        todo += [((*words, name), each) for name, each in getattr(command, "commands", {}).items()]


@pytest.mark.parametrize("command", sorted(every_command()), ids=" ".join)
def test_every_command_shows_an_example(command: tuple[str, ...]) -> None:
    found = call(*command, "--help", points=list(entry_points(group=COMMANDS)))
    assert found.exit_code == 0
    assert f"Example: poller {' '.join(command)}" in " ".join(found.stdout.split())


def test_the_version() -> None:
    found = call("--version")
    assert found.exit_code == 0
    assert found.stdout.startswith("poller ")


def test_a_missing_option_ends_with_two() -> None:
    found = call("check")
    assert found.exit_code == 2
    assert "--config" in found.stderr


def process(*arguments: str, variables: Mapping[str, str] | None = None) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "poller", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, **(variables or {})},
    )


def test_a_real_process_reports_problems_on_stderr(tmp_path: Path) -> None:
    with process("run", "--config", str(tmp_path / "none.yaml")) as running:
        out, err = running.communicate(timeout=60)
    assert (running.returncode, out) == (2, "")
    assert err == f"poller: {tmp_path / 'none.yaml'}: no such file; give the path of a file with --config\n"


def test_a_real_daemon_drains_on_sigterm(tmp_path: Path) -> None:
    file = tmp_path / "poller.yaml"
    file.write_text(
        "store: memory://\nlisten: 127.0.0.1:0\nfunctions: {orders: {invoker: python, handler: 'json:dumps'}}\n"
        f"mappings: [{{FunctionName: orders, EventSourceArn: '{QUEUE}', Enabled: false}}]\n"
    )
    with process("run", "--config", str(file), variables={"POLLER_LOG__FORMAT": "json"}) as running:
        assert running.stderr is not None
        begins = json.loads(running.stderr.readline())
        line = running.stderr.readline()
        while line and "Disabled" not in line:
            line = running.stderr.readline()
        assert "Disabled" in line
        running.send_signal(signal.SIGTERM)
        _, err = running.communicate(timeout=60)
    (ends,) = map(json.loads, err.splitlines())
    assert (running.returncode, ends["exit_status"], ends["event"]) == (0, 0, "daemon_ended")
    assert (ends["reason"], ends["calls"], ends["calls_cut_off"]) == ("SIGTERM", 0, 0)
    listen = begins.pop("listen")
    assert listen.startswith("127.0.0.1:")
    assert listen != "127.0.0.1:0"
    assert begins.pop("version") == version("esm-poller")
    assert begins.pop("worker")
    del begins["timestamp"]
    assert begins == {
        "level": "info",
        "event": "daemon_starting",
        "configuration": str(file),
        "store": "memory://",
        "mappings": 1,
        "functions": ["orders: python, 1 call at once"],
    }
