"""The live look of `poller check`: what is opened and asked, how trouble is graded, and that all of it is bounded."""

import asyncio
import json
import re
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel, ConfigDict

from poller.commands.check import check
from poller.commands.check_live import LOOK_S_MAX, LOOKS_MAX, CheckResult, looks
from poller.commands.shared import LoadablePlugins
from poller.config.daemon_plan import daemon_plan
from poller.config.loader import examine, load
from poller.config.mapping import mapping_id
from poller.config.plugin_specs import destination_spec
from poller.config.settings import FileMapping, FunctionEntry, Settings
from poller.domain.errors import (
    AccessDenied,
    InvalidConfiguration,
    PortError,
    ResourceMissing,
    ServiceUnavailable,
)
from poller.domain.findings import Finding, LambdaConsumer, Severity
from poller.domain.function_facts import FunctionFacts
from poller.domain.plan import DaemonPlan
from poller.domain.records import Epoch, QueueFacts
from poller.domain.rows import MappingRow
from poller.plugins import Environment, GivenPlugins, Plugin
from poller.rules.continued_mapping import Connection, described
from poller.rules.queues.queue_checks import LambdaConsumers
from tests.virtual import run_virtual

STREAM = "arn:aws:kinesis:eu-west-1:111122223333:stream/orders"
QUEUE = "arn:aws:sqs:eu-west-1:111122223333:orders"
FUNCTION = "arn:aws:lambda:eu-west-1:111122223333:function:orders"
DENIED = Finding(
    "kinesis:GetRecords", Severity.PROBLEM, f"kinesis:GetRecords on {STREAM}: not allowed", "allow it"
)
SOUND = QueueFacts(visibility_timeout_s=180, fifo=False, redrive_receives_max=5)


class Anything(BaseModel):
    model_config = ConfigDict(extra="allow")


class Nothing:
    """A part that only opens."""


class Probed:
    """A part that answers a probe with findings, after `wait_s`."""

    def __init__(self, *findings: Finding, wait_s: float = 0.0) -> None:
        self.findings = findings
        self.now = self.most = 0
        self._wait_s = wait_s

    async def probe(self) -> Sequence[Finding]:
        self.now += 1
        self.most = max(self.most, self.now)
        await asyncio.sleep(self._wait_s)
        self.now -= 1
        return self.findings


class Shards:
    """A stream of somebody else's plug-in, which knows no probe."""

    def __init__(self, error: Exception | None = None) -> None:
        self._error = error

    async def shards(self) -> Sequence[object]:
        if self._error:
            raise self._error
        return []


class Queue:
    """A queue; `consumers` are AWS Lambda's."""

    def __init__(
        self, facts: QueueFacts | Exception = SOUND, consumers: Sequence[str] | Exception = ()
    ) -> None:
        self._facts = facts
        self._consumers = consumers

    async def describe(self) -> QueueFacts:
        if isinstance(self._facts, Exception):
            raise self._facts
        return self._facts

    async def lambda_consumers(self) -> Sequence[LambdaConsumer]:
        if isinstance(self._consumers, Exception):
            raise self._consumers
        return [LambdaConsumer("u", FUNCTION, state) for state in self._consumers]


class ProbedQueue(Queue):
    async def probe(self) -> Sequence[Finding]:
        return [Finding("sqs:GetQueueAttributes", Severity.OK)]


class Functions:
    """An invoker that is asked about ARNs."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    async def probe_function(self, function_arn: str) -> Sequence[Finding]:
        self.asked.append(function_arn)
        return [Finding("lambda:InvokeFunction", Severity.OK)]


def plug_in(name: str, port: object, *, look: object = None) -> Plugin[Any, Any]:
    def opener(what: object) -> Any:
        @asynccontextmanager
        async def open_it(settings: BaseModel, env: Environment) -> AsyncIterator[object]:
            if isinstance(what, Exception):
                raise what
            yield what

        return open_it

    return Plugin(name, Anything, opener(port), None if look is None else opener(look))


def found(
    settings: Settings, *, store: Plugin[Any, Any] | None = None, **ports: object
) -> dict[str, tuple[Finding, ...]]:
    """Findings by place; a part that is not given only opens."""
    registry = plugins(store=store, **ports)
    return {
        each.place: each.findings for each in run_virtual(live(daemon_plan(settings), registry, settings))
    }


def plugins(*, store: Plugin[Any, Any] | None = None, **ports: object) -> GivenPlugins:
    kinds = {
        "python": "invokers",
        "kinesis": "sources",
        "sqs": "sources",
        "s3": "destinations",
        "file": "destinations",
    }
    made = {(kind, name): plug_in(name, ports.get(name, Nothing())) for name, kind in kinds.items()}
    return GivenPlugins({**made, ("stores", "memory"): store or plug_in("memory", Nothing(), look=Nothing())})


async def live(plan: DaemonPlan, registry: GivenPlugins, settings: Settings) -> list[CheckResult]:
    class NoClock:
        def monotonic(self) -> Any:
            raise NotImplementedError

        def now(self) -> Any:
            raise NotImplementedError

    env = Environment(NoClock())
    return await looks(plan, registry, env, consumers=settings.check.lambda_consumers)


def mapped(arn: str, **fields: Any) -> FileMapping:
    start = {"StartingPosition": "LATEST"} if arn == STREAM else {}
    return FileMapping.model_validate({"FunctionName": "orders", "EventSourceArn": arn} | start | fields)


def configured(*mappings: FileMapping, **more: Any) -> Settings:
    functions = {"orders": FunctionEntry(invoker="python", timeout_s=30)}
    return Settings(**{"store": "memory://", "functions": functions, "mappings": mappings} | more)


def to(destination: str) -> dict[str, Any]:
    return {"OnFailure": {"Destination": destination}}


def test_what_a_probe_finds_is_reported_with_its_place() -> None:
    stream = mapped(STREAM, DestinationConfig=to("arn:aws:s3:::failed"))
    seen = found(configured(stream), kinesis=Probed(DENIED), s3=Probed(Finding("s3:ListBucket", Severity.OK)))
    assert seen == {
        "functions.orders": (Finding("opens", Severity.OK),),
        "mappings[0]": (DENIED,),
        "mappings[0].DestinationConfig": (Finding("s3:ListBucket", Severity.OK),),
        "store": (Finding("opens", Severity.OK),),
    }


def test_a_line_names_place_text_and_remedy() -> None:
    handler = Finding("opens", Severity.PROBLEM, "functions.a.handler: no module")
    look = CheckResult("functions.a", "invokers", "python", "a", (DENIED, handler, Finding("x", Severity.OK)))
    assert look.lines(Severity.PROBLEM) == [
        f"functions.a: kinesis:GetRecords on {STREAM}: not allowed; allow it",
        "functions.a.handler: no module",
    ]
    assert (look.lines(Severity.OK), look.checks(Severity.OK)) == (["functions.a: x"], "x")


def test_one_trouble_that_answers_several_questions_is_reported_once() -> None:
    assert found(configured(mapped(STREAM)), kinesis=Probed(DENIED, DENIED))["mappings[0]"] == (DENIED,)


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (InvalidConfiguration(["no region", "no endpoint"]), ["no region", "no endpoint"]),
        (ServiceUnavailable("kinesis ListShards: no answer"), ["kinesis ListShards: no answer"]),
    ],
)
def test_a_part_that_cannot_be_opened_is_a_problem(error: Exception, text: list[str]) -> None:
    for ports in ({"kinesis": error}, {"kinesis": Shards(error)}):
        seen = found(configured(mapped(STREAM)), **ports)["mappings[0]"]
        assert [(each.grade, each.text) for each in seen] == [(Severity.PROBLEM, each) for each in text]


def test_a_stream_that_knows_no_probe_is_asked_for_its_shards() -> None:
    assert found(configured(mapped(STREAM)), kinesis=Shards())["mappings[0]"] == (
        Finding("shards", Severity.OK),
    )


def test_a_look_takes_a_minute_at_most() -> None:
    async def main() -> float:
        settings = configured(mapped(STREAM))
        registry = plugins(kinesis=Probed(wait_s=1e6))
        (_, stream, _) = await live(daemon_plan(settings), registry, settings)
        assert stream.lines(Severity.PROBLEM) == [
            "mappings[0]: not done within 60 s; is the endpoint right and reachable?"
        ]
        return asyncio.get_running_loop().time()

    assert run_virtual(main()) == LOOK_S_MAX


def test_parts_are_looked_at_side_by_side_a_few_at_a_time() -> None:
    stream = Probed(Finding("ok", Severity.OK), wait_s=1.0)
    mappings = [mapped(STREAM, FunctionName=f"orders:{index}") for index in range(3 * LOOKS_MAX)]
    seen = found(configured(*mappings), kinesis=stream)
    assert list(seen) == ["functions.orders", *(f"mappings[{n}]" for n in range(3 * LOOKS_MAX)), "store"]
    assert stream.most == LOOKS_MAX


def test_a_destination_that_mappings_share_is_looked_at_once() -> None:
    bucket = Probed(Finding("s3:ListBucket", Severity.OK), wait_s=1.0)
    shared = [
        mapped(STREAM, FunctionName=f"orders:{n}", DestinationConfig=to("arn:aws:s3:::a")) for n in "ab"
    ]
    seen = found(configured(*shared), kinesis=Shards(), s3=bucket)
    assert [place for place in seen if "Destination" in place] == ["mappings[0].DestinationConfig"]


def test_a_queue_that_gets_events_and_one_that_does_not_are_looked_at_apart() -> None:
    failed = to("arn:aws:sns:eu-west-1:111122223333:failed")
    uses: list[dict[str, Any]] = [
        {},
        {"include_payload": True},
        {},
        {"include_payload": True, "payload_prefix": "s3://large/x"},
    ]
    mappings = [
        mapped(STREAM, FunctionName=f"orders:{n}", DestinationConfig=failed, **use)
        for n, use in enumerate(uses)
    ]
    topic = Probed(Finding("sns:GetTopicAttributes", Severity.OK))
    seen = found(configured(*mappings), kinesis=Shards(), sns=topic)
    assert [place for place in seen if "Destination" in place] == [
        f"mappings[{index}].DestinationConfig" for index in (0, 1, 3)
    ]


@pytest.mark.parametrize(
    ("more", "end"),
    [
        ({}, ""),
        ({"include_payload": True}, " with the event"),
        (
            {"include_payload": True, "payload_prefix": "s3://large/x"},
            " with the event, which goes to s3://large/x when it is too large",
        ),
    ],
)
def test_it_is_said_whether_notices_have_their_event(
    more: dict[str, Any], end: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    settings = configured(mapped(STREAM, DestinationConfig=to(QUEUE), **more)).model_copy(
        update={"functions": {}}
    )
    assert check(settings, LoadablePlugins(), place="f", live=False, as_json=False) == 0
    assert f"    on failure: retried until retention, then {QUEUE}{end}\n" in capsys.readouterr().out
    assert check(settings, LoadablePlugins(), place="f", live=False, as_json=True) == 0
    [row] = json.loads(capsys.readouterr().out)["mappings"]
    assert (row["include_payload"], row["payload_prefix"]) == (bool(more), more.get("payload_prefix"))


def test_a_store_is_never_opened() -> None:
    error = InvalidConfiguration(["opened"])
    assert found(configured(), store=plug_in("memory", error, look=Probed(DENIED)))["store"] == (DENIED,)
    (unseen,) = found(configured(), store=plug_in("memory", error))["store"]
    assert unseen.grade is Severity.UNTRIED


class KnownMappings(Nothing):
    """A look at a store that knows mappings, or cannot tell."""

    def __init__(self, *rows: MappingRow, error: PortError | None = None) -> None:
        self._rows = rows
        self._error = error

    async def mappings(self) -> Sequence[MappingRow]:
        if self._error is not None:
            raise self._error
        return self._rows


def row(qualifier: str) -> MappingRow:
    arn = f"{FUNCTION}:{qualifier}"
    document = described(Connection(STREAM, "orders", arn))
    return MappingRow(mapping_id(STREAM, arn), Epoch(1.0), seeded=True, document=document)


@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        ([], "mappings[0] is new and begins at its StartingPosition"),
        (["v2"], "mappings[0] goes on where it stopped"),
        (["v1"], f"mappings[0] goes on where {FUNCTION}:v1 stopped"),
        (
            ["v1", "v0"],
            "mappings[0]: begins where the one that is furthest behind stopped: it is not clear which mapping it continues "
            f"({FUNCTION}:v0, {FUNCTION}:v1)",
        ),
    ],
)
def test_it_is_said_where_each_stream_mapping_begins(rows: list[str], expected: str) -> None:
    look = KnownMappings(*map(row, rows))
    settings = configured(mapped(STREAM, FunctionName="orders:v2"), mapped(QUEUE))
    seen = found(settings, store=plug_in("memory", look, look=look), kinesis=Shards(), sqs=Queue())
    (place,) = [each for each in seen["store"] if each.check != "opens"]
    text = place.text or place.check
    # Several are named in the order of their ids.
    assert sorted(re.split(r"[(), ]+", text)) == sorted(re.split(r"[(), ]+", expected))
    assert place.grade is (Severity.WARNING if "not clear" in expected else Severity.OK)


def test_a_store_that_cannot_tell_its_mappings_is_a_warning() -> None:
    look = KnownMappings(error=ServiceUnavailable("no route"))
    seen = found(configured(mapped(STREAM)), store=plug_in("memory", look, look=look), kinesis=Shards())
    assert seen["store"][-1] == Finding(
        "positions", Severity.WARNING, "where new mappings begin is not known: no route"
    )


def test_an_invoker_is_asked_about_each_arn_that_mappings_use() -> None:
    invoker = Functions()
    names = ["orders:prod", "orders:test"]
    found(
        configured(*(mapped(STREAM, FunctionName=each) for each in names), mapped(QUEUE)),
        kinesis=Shards(),
        sqs=Queue(),
        python=invoker,
    )
    assert invoker.asked == [FUNCTION, f"{FUNCTION}:prod", f"{FUNCTION}:test"]
    (unused,) = found(configured(), python=invoker)["functions.orders"]
    assert (unused.grade, unused.line) == (
        Severity.UNTRIED,
        "the function was not tried: no mapping names it",
    )


@pytest.mark.parametrize("kind", [Queue, ProbedQueue])
def test_a_queue_is_warned_about_by_what_it_says_of_itself(kind: type[Queue]) -> None:
    seen = found(configured(mapped(QUEUE)), sqs=kind(QueueFacts(visibility_timeout_s=29, fifo=False)))
    assert [(each.check, each.grade) for each in seen["mappings[0]"] if each.grade is not Severity.OK] == [
        ("VisibilityTimeout", Severity.WARNING),
        ("RedrivePolicy", Severity.WARNING),
    ]


class OwnLimits(Functions):
    """An invoker whose functions have a time limit of their own, or do not tell it."""

    def __init__(self, own_s: float | None) -> None:
        super().__init__()
        self._own_s = own_s

    async def describe_function(self, function_arn: str) -> FunctionFacts:
        if self._own_s is None:
            raise AccessDenied("no")
        return FunctionFacts(timeout_s=self._own_s)


@pytest.mark.parametrize(
    ("own_s", "configured_s", "visibility_s", "warned"),
    [
        (5.0, None, 5, []),
        (60.0, None, 30, ["VisibilityTimeout"]),
        (60.0, None, 60, []),
        (5.0, 60.0, 5, []),
        (60.0, 30.0, 30, ["timeout_s", "VisibilityTimeout"]),
        (None, None, 5, []),
        (None, 30.0, 29, ["VisibilityTimeout"]),
    ],
)
def test_a_queue_is_compared_with_the_functions_own_limit(
    own_s: float | None, configured_s: float | None, visibility_s: int, warned: list[str]
) -> None:
    settings = configured(
        mapped(QUEUE), functions={"orders": FunctionEntry(invoker="python", timeout_s=configured_s)}
    )
    queue = Queue(QueueFacts(visibility_timeout_s=visibility_s, fifo=False, redrive_receives_max=5))
    seen = found(settings, sqs=queue, python=OwnLimits(own_s))
    findings = [*seen["functions.orders"], *seen["mappings[0]"]]
    assert [each.check for each in findings if each.grade is Severity.WARNING] == warned


def test_a_configured_limit_that_is_too_short_is_reported_with_what_happens() -> None:
    settings = configured(mapped(STREAM), functions={"orders": FunctionEntry(invoker="python", timeout_s=30)})
    seen = found(settings, kinesis=Shards(), python=OwnLimits(60.0))["functions.orders"]
    assert [each.line for each in seen if each.grade is Severity.WARNING] == [
        f"timeout_s: 30 s is shorter than the own limit of {FUNCTION}, 60 s; the daemon waits 60 s; remove it"
    ]


def test_a_queue_that_cannot_be_described_is_a_problem_once() -> None:
    (told,) = found(configured(mapped(QUEUE)), sqs=Queue(ResourceMissing("no queue")))["mappings[0]"]
    assert (told.grade, told.text) == (Severity.PROBLEM, "no queue")
    probed = found(configured(mapped(QUEUE)), sqs=ProbedQueue(ResourceMissing("no queue")))["mappings[0]"]
    assert [each.check for each in probed] == ["sqs:GetQueueAttributes"]


@pytest.mark.parametrize(
    ("policy", "enabled", "grades"),
    [
        (LambdaConsumers.REFUSE, True, [Severity.OK, Severity.PROBLEM]),
        (LambdaConsumers.REFUSE, False, [Severity.OK, Severity.WARNING]),
        (LambdaConsumers.WARN, True, [Severity.OK, Severity.WARNING]),
        (LambdaConsumers.IGNORE, True, [Severity.OK]),
    ],
)
def test_a_queue_that_lambda_consumes_too_is_refused_by_setting(
    policy: LambdaConsumers, enabled: bool, grades: list[Severity]
) -> None:
    settings = configured(mapped(QUEUE, Enabled=enabled), check={"lambda_consumers": policy})
    seen = found(settings, sqs=ProbedQueue(consumers=["Enabled"]))["mappings[0]"]
    assert [each.grade for each in seen] == grades


def test_lambda_that_cannot_be_asked_is_a_warning() -> None:
    denied = AccessDenied("lambda ListEventSourceMappings: AccessDeniedException (HTTP 403)")
    seen = found(configured(mapped(QUEUE)), sqs=ProbedQueue(consumers=denied))["mappings[0]"]
    assert (seen[-1].check, seen[-1].grade) == ("lambda:ListEventSourceMappings", Severity.WARNING)


@pytest.mark.parametrize(
    ("url", "plugin"),
    [("file:///var/lib/poller/failed", "file"), ("https://failed.example.com/x", "http")],
)
def test_a_destination_by_url_reaches_its_plug_in(tmp_path: Path, url: str, plugin: str) -> None:
    part = destination_spec(url)
    assert (part.kind, part.name, part.own, part.given) == ("destinations", plugin, {}, {"arn": url})
    file = tmp_path / "poller.yaml"
    file.write_text(
        f"store: memory://\nmappings: [{{FunctionName: orders, EventSourceArn: '{STREAM}', StartingPosition: LATEST,"
        f" DestinationConfig: {{OnFailure: {{Destination: '{url}'}}}}}}]\n"
    )
    assert check(load(file), LoadablePlugins(), place="f", live=False, as_json=True) == 0


@pytest.mark.parametrize(
    ("url", "text"),
    [
        ("file://host/failed", "names no directory; write file:///path/of/directory"),
        ("https://somebody:geheim@host/", "must not hold a user or password"),
        (
            "kafka://failed",
            "no plug-in 'kafka' among destinations; installed: events, file, http, lambda, s3, sns, sqs",
        ),
    ],
)
def test_a_wrong_url_of_a_destination_is_reported(tmp_path: Path, url: str, text: str) -> None:
    file = tmp_path / "poller.yaml"
    failed = {"OnFailure": {"Destination": url}}
    mapping = {"FunctionName": "other", "EventSourceArn": STREAM, "StartingPosition": "LATEST"}
    file.write_text(json.dumps({"store": "memory://", "mappings": [mapping | {"DestinationConfig": failed}]}))
    found = examine(file, {}, LoadablePlugins())
    assert (found.settings, found.lacking) == (None, [])
    (line,) = found.problems
    assert line.startswith(f"{file}: mappings[0].DestinationConfig.OnFailure.Destination: value ")
    assert text in line
    assert "geheim" not in line


def test_of_a_url_only_the_host_is_shown(capsys: pytest.CaptureFixture[str]) -> None:
    stream = mapped(STREAM, DestinationConfig=to("https://host/hooks/geheim?key=geheim"))
    settings = configured(stream).model_copy(update={"functions": {}})
    for as_json in (True, False):
        assert check(settings, LoadablePlugins(), place="f", live=False, as_json=as_json) == 0
        out = capsys.readouterr().out
        assert "https://host/[hidden]" in out.replace("\n", "")
        assert "geheim" not in out


def test_it_is_said_how_a_stream_is_read(capsys: pytest.CaptureFixture[str]) -> None:
    stream = mapped(
        STREAM,
        StartingPosition="LATEST",
        TumblingWindowInSeconds=60,
        shared_reads=False,
        source={"fan_out": True, "deaggregate": True},
    )
    settings = configured(stream, mapped(QUEUE)).model_copy(update={"functions": {}})
    assert check(settings, LoadablePlugins(), place="f", live=False, as_json=False) == 0
    out = " ".join(capsys.readouterr().out.split())
    assert "tumbling windows of 60 s, reads not shared, source settings: deaggregate, fan_out" in out
    assert check(settings, LoadablePlugins(), place="f", live=False, as_json=True) == 0
    of_stream, of_queue = json.loads(capsys.readouterr().out)["mappings"]
    told = ("tumbling_window_s", "shared_reads", "source_settings")
    assert [of_stream[each] for each in told] == [60, False, ["deaggregate", "fan_out"]]
    assert [of_queue[each] for each in told] == [None, None, []]
