"""The command line: what each command prints, where, and with which exit status."""

import asyncio
import json
import os
import random
import signal
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

import msgspec
import pytest
from pydantic import BaseModel, ConfigDict
from typer.testing import CliRunner, Result

from poller.cli import application
from poller.commands.check import check
from poller.commands.parts import LoadablePlugins, control_settings, observer_settings
from poller.commands.run import ConfigurationFile, Engine, again, run_daemon
from poller.commands.status import decode, moment, screen, span, watch_status
from poller.control import MappingControl, TagControl
from poller.errors import AccessDenied, InvalidConfiguration, ServiceUnavailable
from poller.plan import DaemonPlan
from poller.planning import daemon_plan
from poller.plugins import Environment, GivenPlugins, Plugin, Registry
from poller.ports import Exposition
from poller.records import Epoch, MappingId, QueueFacts, Shard, ShardId
from poller.settings import FileMapping, FunctionEntry, Settings
from poller.status import DaemonStatus, FaultyRecord, LaneStatus, MappingStatus, ShardStatus, StatusView
from poller.telemetry import MappingState, Observer

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
        self._diary = diary
        self._error = error

    async def serve(
        self,
        view: StatusView,
        expositions: Sequence[Exposition],
        control: MappingControl | None = None,
        tags: TagControl | None = None,
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
    note = ""

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

    def replan(self, plan: DaemonPlan) -> None:
        self._diary.lines.append(f"replan {plan.worker}")

    def stop(self) -> None:
        self._diary.lines.append("stop")
        self._stopped.set()

    def status(self) -> DaemonStatus:
        return DaemonStatus(worker="w", mappings=(), ready=True, alive=True)


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


def test_run_refuses_what_check_refuses_before_anything_is_open(capsys: pytest.CaptureFixture[str]) -> None:
    diary = Diary()
    settings = full(mapped(), handlr="shop:orders")
    assert run_daemon(settings, plug_ins(diary), FakeEngine(diary, signals=0).make, place="f") == 2
    assert diary.lines == []
    assert "poller: f: functions.orders: handlr: " in capsys.readouterr().err


def test_a_bug_in_the_daemon_is_not_swallowed() -> None:
    diary = Diary()
    with pytest.raises(ExceptionGroup) as caught:
        run_daemon(
            simple(), plug_ins(diary), FakeEngine(diary, signals=0, error=KeyError("x")).make, place="f"
        )
    assert caught.group_contains(KeyError)


def test_a_changed_file_is_taken_over_with_the_worker_and_the_store_that_run(tmp_path: Path) -> None:
    plan = daemon_plan(simple())
    reads: list[Settings | InvalidConfiguration] = [
        simple(listen="127.0.0.1:1", on_destination_failure="drop"),
        InvalidConfiguration(["f: wrong"]),
        full(mapped(), handlr="shop:orders"),
    ]

    def read() -> Settings:
        found = reads.pop(0)
        if isinstance(found, InvalidConfiguration):
            raise found
        return found

    load = again(ConfigurationFile(tmp_path / "f", read), simple(), plan, plug_ins(Diary()))
    loaded = load()
    assert loaded.waiting == ("listen",)
    assert (loaded.plan.worker, loaded.plan.store) == (plan.worker, plan.store)
    assert loaded.plan.on_destination_failure == "drop"
    for problem in ("f: wrong", "functions.orders: handlr: "):
        with pytest.raises(InvalidConfiguration, match=problem):
            load()


def test_observers_and_control_get_their_settings() -> None:
    settings = Settings(listen="127.0.0.1:1")
    assert observer_settings(settings) == {"prometheus": {}, "logs": {"format": "json", "level": "info"}}
    api = {"access_keys_file": None, "tokens_file": None, "allow_unauthenticated": False}
    assert control_settings(settings) == {"listen": "127.0.0.1:1", "api": api}


# check


def test_check_shows_what_would_run_and_opens_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    diary = Diary()
    settings = full(mapped(), mapped(QUEUE), handler="nowhere:nothing")
    assert check(settings, plug_ins(diary), place="f", live=False, as_json=False) == 0
    assert "configuration is valid" in capsys.readouterr().out
    assert diary.lines == []


def test_check_says_what_plug_ins_object_to(capsys: pytest.CaptureFixture[str]) -> None:
    settings = full(mapped(), mapped(QUEUE, FunctionName="other"), handlr="geheim")
    assert check(settings, plug_ins(Diary()), place="f", live=False, as_json=False) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.splitlines() == [
        "poller: f: functions.orders: handler: Field required",
        "poller: f: functions.orders: handlr: Extra inputs are not permitted",
        "poller: f: functions.other: no plug-in 'lambda' among invokers",
    ]


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
    file.write_text("listen: 1")
    wrong = call("check", "--config", str(file))
    assert (wrong.exit_code, wrong.stdout) == (2, "")
    assert wrong.stderr == f"poller: {file}: listen: value 1: not a text; put it in quotes\n"
    as_json = call("check", "--config", str(file), "--json")
    assert as_json.exit_code == 2
    assert json.loads(as_json.stdout)["problems"] == [
        f"{file}: listen: value 1: not a text; put it in quotes"
    ]
    file.write_text("")
    overridden = call("check", "--config", str(file), "--store", "nonsense")
    assert overridden.stderr.startswith(
        "poller: command line: store: value 'nonsense': not the URL of a store;"
    )


def test_check_with_installed_plug_ins_imports_no_handler(tmp_path: Path) -> None:
    file = tmp_path / "poller.yaml"
    file.write_text(
        "store: memory://\nfunctions: {orders: {invoker: python, handler: 'nowhere.at.all:x'}}\n"
        f"mappings: [{{FunctionName: orders, EventSourceArn: '{QUEUE}'}}]\n"
    )
    found = call("check", "--config", str(file))
    assert (found.exit_code, found.stderr) == (0, "")
    assert "configuration is valid" in found.stdout


def test_an_unknown_plug_in_is_named_with_the_known_ones() -> None:
    with pytest.raises(InvalidConfiguration, match=r"no plug-in 'fax' among invokers; installed: .*python"):
        LoadablePlugins().plugin("invokers", "fax")


# status


def lane(**fields: Any) -> LaneStatus:
    return LaneStatus(lane="0", state="waiting", **fields)


BLOCKED = MappingStatus(
    mapping=MappingId("b"),
    function="orders",
    source_arn=STREAM,
    state=MappingState.ENABLED,
    shards=(
        ShardStatus(shard=ShardId("shard-fine"), state="reading", position="AFTER:5", behind_ms=400),
        ShardStatus(
            shard=ShardId("shard-bad"),
            state="failing",
            position="AFTER:7",
            behind_ms=7_200_000,
            lanes=(
                lane(
                    attempts=12,
                    blocked_since=Epoch(NOW - 300),
                    next_try=Epoch(NOW + 12),
                    last_error="ValueError: [red]bad\x1b[31m",
                    records=(FaultyRecord(identifier="8", key="k", arrived=Epoch(NOW - 301)),),
                    records_count=4,
                ),
            ),
        ),
    ),
)
CALM = MappingStatus(
    mapping=MappingId("a"),
    function="audit",
    source_arn=QUEUE,
    state=MappingState.DISABLED,
    reason="switched off",
    pollers=5,
)
PICTURE = DaemonStatus(
    worker="w", mappings=(CALM, BLOCKED), ready=False, alive=True, problems=("not open yet",)
)


class Answering(BaseHTTPRequestHandler):
    """Answers /v1/mappings with the server's body."""

    def do_GET(self) -> None:
        body: bytes = self.server.body  # type: ignore[attr-defined]  # set by `daemon`
        self.send_response(200 if self.path == "/v1/mappings" else 404)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        """Says nothing."""


@contextmanager
def daemon(body: bytes) -> Iterator[str]:
    """The URL of something that answers as a daemon does."""
    with ThreadingHTTPServer(("127.0.0.1", 0), Answering) as server:
        server.body = body  # type: ignore[attr-defined]  # the handler's only way to know
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


def shown(picture: DaemonStatus) -> str:
    from rich.console import Console

    console = Console(width=240, color_system=None)
    with console.capture() as capture:
        console.print(screen(picture, NOW))
    return capture.get()


def test_status_shows_what_is_blocked_first_and_why() -> None:
    text = shown(PICTURE)
    assert text.index("shard-bad") < text.index("shard-fine")
    assert text.index("shard-bad") < text.index("audit")
    for part in (
        "worker w: not ready",
        "not open yet",
        "orders ← stream/orders",
        "0: blocked since 2025-12-31T23:55:00Z (5 min ago), attempt 12",
        "next try 2026-01-01T00:00:12Z (in 12 s)",
        "record 8, key k, from 2025-12-31T23:54:59Z (5 min ago)",
        "and 1 more records",
        "2 h",
        "0.4 s",
        "5 pollers",
        "Disabled: switched off",
    ):
        assert part in text


def test_notes_are_shown_beside_problems() -> None:
    text = shown(replace(PICTURE, notes=("the changed configuration file is refused",)))
    assert "  note: the changed configuration file is refused" in text


def test_a_functions_error_cannot_drive_the_terminal() -> None:
    text = shown(PICTURE)
    assert "\x1b" not in text
    assert "[red]bad\N{REPLACEMENT CHARACTER}[31m" in text


def test_status_asks_a_daemon() -> None:
    with daemon(msgspec.json.encode(PICTURE)) as url:
        table = call("status", "--url", url)
        as_json = call("status", "--url", url + "/", "--json")
    assert table.exit_code == 0
    assert "shard-bad" in table.stdout
    assert decode(as_json.stdout.encode()) == PICTURE


def test_status_ignores_members_it_does_not_know() -> None:
    body = msgspec.json.decode(msgspec.json.encode(PICTURE)) | {"tomorrow": 1}
    assert decode(msgspec.json.encode(body)) == PICTURE


@pytest.mark.parametrize(
    ("url", "text"),
    [
        ("ftp://127.0.0.1", "not an HTTP URL; write http://HOST:PORT"),
        ("http://127.0.0.1:1", "Connection refused; is the daemon running, and --url its address?"),
    ],
)
def test_status_says_why_there_is_none(url: str, text: str) -> None:
    found = call("status", "--url", url)
    assert (found.exit_code, found.stdout) == (2, "")
    assert text in found.stderr


def test_status_of_something_else_than_a_daemon() -> None:
    with daemon(b"<html>") as url:
        wrong_body = call("status", "--url", url)
        wrong_path = call("status", "--url", url + "/other")
    assert (wrong_body.exit_code, wrong_path.exit_code) == (2, 2)
    assert "the answer is no status" in wrong_body.stderr
    assert "answered status 404" in wrong_path.stderr


def test_watching_shows_picture_after_picture(capsys: pytest.CaptureFixture[str]) -> None:
    waits: list[float] = []
    with daemon(msgspec.json.encode(PICTURE)) as url:
        assert watch_status(url, every_s=3.0, pictures=3, sleep=waits.append) == 0
    assert waits == [3.0, 3.0]
    assert capsys.readouterr().out.count("worker w") == 3


def test_watching_outlasts_a_daemon_that_is_away(capsys: pytest.CaptureFixture[str]) -> None:
    assert watch_status("http://127.0.0.1:1", every_s=1.0, pictures=1, sleep=lambda _: None) == 0
    assert "no answer" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.04, "0.0 s"),
        (0.4, "0.4 s"),
        (1, "1 s"),
        (59, "59 s"),
        (60, "1 min"),
        (7200, "2 h"),
        (172_800, "2 d"),
    ],
)
def test_lengths_of_time_are_said_as_people_say_them(seconds: float, text: str) -> None:
    assert span(seconds) == text


def test_moments_are_iso_and_relative() -> None:
    assert moment(NOW, NOW) == "2026-01-01T00:00:00Z (0.0 s ago)"


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


@pytest.mark.parametrize("command", [["run"], ["check"], ["status"], ["filter", "explain"]])
def test_every_command_shows_an_example(command: list[str]) -> None:
    found = call(*command, "--help")
    assert found.exit_code == 0
    assert f"Example: poller {' '.join(command)}" in found.stdout


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


def test_a_real_process_tells_problems_on_stderr(tmp_path: Path) -> None:
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
        assert "Disabled" in running.stderr.readline()
        running.send_signal(signal.SIGTERM)
        _, err = running.communicate(timeout=60)
    assert (running.returncode, err) == (0, "")
