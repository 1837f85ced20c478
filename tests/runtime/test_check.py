"""The live look of `poller check`: what is opened and asked, how trouble is graded, and that all of it is bounded."""

import asyncio
import io
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel, ConfigDict

from poller.commands.check import check
from poller.commands.live import LOOK_S_MAX, LOOKS_MAX, Look, Progress, looks
from poller.commands.parts import LoadablePlugins
from poller.errors import AccessDenied, InvalidConfiguration, ResourceMissing, ServiceUnavailable
from poller.findings import Finding, Grade, LambdaConsumer
from poller.loading import load
from poller.plan import DaemonPlan
from poller.planning import daemon_plan
from poller.plugins import Environment, GivenPlugins, Plugin
from poller.records import QueueFacts
from poller.rules.queue_checks import LambdaConsumers
from poller.runtime.workshop import destination_of
from poller.settings import FileMapping, FunctionEntry, Settings
from tests.virtual import run_virtual

STREAM = "arn:aws:kinesis:eu-west-1:111122223333:stream/orders"
QUEUE = "arn:aws:sqs:eu-west-1:111122223333:orders"
FUNCTION = "arn:aws:lambda:eu-west-1:111122223333:function:orders"
DENIED = Finding(
    "kinesis:GetRecords", Grade.PROBLEM, f"kinesis:GetRecords on {STREAM}: not allowed", "allow it"
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
        return [Finding("sqs:GetQueueAttributes", Grade.OK)]


class Functions:
    """An invoker that is asked about ARNs."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    async def probe_function(self, function_arn: str) -> Sequence[Finding]:
        self.asked.append(function_arn)
        return [Finding("lambda:InvokeFunction", Grade.OK)]


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


async def live(plan: DaemonPlan, registry: GivenPlugins, settings: Settings) -> list[Look]:
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
    return Settings(store="memory://", functions=functions, mappings=mappings, **more)


def to(destination: str) -> dict[str, Any]:
    return {"OnFailure": {"Destination": destination}}


def test_what_a_probe_finds_is_told_with_its_place() -> None:
    stream = mapped(STREAM, DestinationConfig=to("arn:aws:s3:::failed"))
    seen = found(configured(stream), kinesis=Probed(DENIED), s3=Probed(Finding("s3:ListBucket", Grade.OK)))
    assert seen == {
        "functions.orders": (Finding("opens", Grade.OK),),
        "mappings[0]": (DENIED,),
        "mappings[0].DestinationConfig": (Finding("s3:ListBucket", Grade.OK),),
        "store": (Finding("opens", Grade.OK),),
    }


def test_a_line_names_place_text_and_remedy() -> None:
    handler = Finding("opens", Grade.PROBLEM, "functions.a.handler: no module")
    look = Look("functions.a", "invokers", "python", "a", (DENIED, handler, Finding("x", Grade.OK)))
    assert look.lines(Grade.PROBLEM) == [
        f"functions.a: kinesis:GetRecords on {STREAM}: not allowed; allow it",
        "functions.a.handler: no module",
    ]
    assert (look.lines(Grade.OK), look.checks(Grade.OK)) == (["functions.a: x"], "x")


def test_one_trouble_that_answers_several_questions_is_told_once() -> None:
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
        assert [(each.grade, each.text) for each in seen] == [(Grade.PROBLEM, each) for each in text]


def test_a_stream_that_knows_no_probe_is_asked_for_its_shards() -> None:
    assert found(configured(mapped(STREAM)), kinesis=Shards())["mappings[0]"] == (
        Finding("shards", Grade.OK),
    )


def test_a_look_takes_a_minute_at_most() -> None:
    async def main() -> float:
        settings = configured(mapped(STREAM))
        registry = plugins(kinesis=Probed(wait_s=1e6))
        (_, stream, _) = await live(daemon_plan(settings), registry, settings)
        assert stream.lines(Grade.PROBLEM) == [
            "mappings[0]: not done within 60 s; is the endpoint right and reachable?"
        ]
        return asyncio.get_running_loop().time()

    assert run_virtual(main()) == LOOK_S_MAX


def test_parts_are_looked_at_side_by_side_a_few_at_a_time() -> None:
    stream = Probed(Finding("ok", Grade.OK), wait_s=1.0)
    mappings = [mapped(STREAM, FunctionName=f"orders:{index}") for index in range(3 * LOOKS_MAX)]
    seen = found(configured(*mappings), kinesis=stream)
    assert list(seen) == ["functions.orders", *(f"mappings[{n}]" for n in range(3 * LOOKS_MAX)), "store"]
    assert stream.most == LOOKS_MAX


def test_a_destination_that_mappings_share_is_looked_at_once() -> None:
    bucket = Probed(Finding("s3:ListBucket", Grade.OK), wait_s=1.0)
    shared = [
        mapped(STREAM, FunctionName=f"orders:{n}", DestinationConfig=to("arn:aws:s3:::a")) for n in "ab"
    ]
    seen = found(configured(*shared), kinesis=Shards(), s3=bucket)
    assert [place for place in seen if "Destination" in place] == ["mappings[0].DestinationConfig"]


def test_a_store_is_never_opened() -> None:
    error = InvalidConfiguration(["opened"])
    assert found(configured(), store=plug_in("memory", error, look=Probed(DENIED)))["store"] == (DENIED,)
    (unseen,) = found(configured(), store=plug_in("memory", error))["store"]
    assert unseen.grade is Grade.UNTRIED


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
        Grade.UNTRIED,
        "the function was not tried: no mapping names it",
    )


@pytest.mark.parametrize("kind", [Queue, ProbedQueue])
def test_a_queue_is_warned_about_by_what_it_says_of_itself(kind: type[Queue]) -> None:
    seen = found(configured(mapped(QUEUE)), sqs=kind(QueueFacts(visibility_timeout_s=29, fifo=False)))
    assert [(each.check, each.grade) for each in seen["mappings[0]"] if each.grade is not Grade.OK] == [
        ("VisibilityTimeout", Grade.WARNING),
        ("RedrivePolicy", Grade.WARNING),
    ]


def test_a_queue_that_cannot_be_described_is_a_problem_once() -> None:
    (told,) = found(configured(mapped(QUEUE)), sqs=Queue(ResourceMissing("no queue")))["mappings[0]"]
    assert (told.grade, told.text) == (Grade.PROBLEM, "no queue")
    probed = found(configured(mapped(QUEUE)), sqs=ProbedQueue(ResourceMissing("no queue")))["mappings[0]"]
    assert [each.check for each in probed] == ["sqs:GetQueueAttributes"]


@pytest.mark.parametrize(
    ("policy", "enabled", "grades"),
    [
        (LambdaConsumers.REFUSE, True, [Grade.OK, Grade.PROBLEM]),
        (LambdaConsumers.REFUSE, False, [Grade.OK, Grade.WARNING]),
        (LambdaConsumers.WARN, True, [Grade.OK, Grade.WARNING]),
        (LambdaConsumers.IGNORE, True, [Grade.OK]),
    ],
)
def test_a_queue_that_lambda_consumes_too_is_refused_by_setting(
    policy: LambdaConsumers, enabled: bool, grades: list[Grade]
) -> None:
    settings = configured(mapped(QUEUE, Enabled=enabled), check={"lambda_consumers": policy})
    seen = found(settings, sqs=ProbedQueue(consumers=["Enabled"]))["mappings[0]"]
    assert [each.grade for each in seen] == grades


def test_lambda_that_cannot_be_asked_is_a_warning() -> None:
    denied = AccessDenied("lambda ListEventSourceMappings: AccessDeniedException (HTTP 403)")
    seen = found(configured(mapped(QUEUE)), sqs=ProbedQueue(consumers=denied))["mappings[0]"]
    assert (seen[-1].check, seen[-1].grade) == ("lambda:ListEventSourceMappings", Grade.WARNING)


def test_progress_is_for_terminals() -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    for stream, text in [(io.StringIO(), ""), (Terminal(), "looked at 1 of 2, last store")]:
        progress = Progress(2, stream)
        progress.step("store")
        assert stream.getvalue().rpartition("poller: ")[2] == text
        progress.end()
    assert stream.getvalue().endswith("\r\x1b[K")


@pytest.mark.parametrize(
    ("url", "plugin"),
    [("file:///var/lib/poller/failed", "file"), ("https://failed.example.com/x", "http")],
)
def test_a_destination_by_url_reaches_its_plug_in(tmp_path: Path, url: str, plugin: str) -> None:
    part = destination_of(url)
    assert (part.kind, part.name, part.settings) == ("destinations", plugin, {"arn": url})
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
        ("kafka://failed", "no plug-in 'kafka' among destinations; installed: file, http, s3, sns, sqs"),
    ],
)
def test_a_wrong_url_of_a_destination_is_told(
    url: str, text: str, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = configured(mapped(STREAM, FunctionName="other", DestinationConfig=to(url)))
    settings = settings.model_copy(update={"functions": {}})
    assert check(settings, LoadablePlugins(), place="f", live=False, as_json=False) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("poller: f: mappings[0].DestinationConfig: ")
    assert text in line
    assert "geheim" not in line


def test_a_url_is_shown_without_its_query(capsys: pytest.CaptureFixture[str]) -> None:
    stream = mapped(STREAM, DestinationConfig=to("https://host/failed?key=geheim"))
    settings = configured(stream).model_copy(update={"functions": {}})
    for as_json in (True, False):
        assert check(settings, LoadablePlugins(), place="f", live=False, as_json=as_json) == 0
        out = capsys.readouterr().out
        assert "host/failed" in out.replace("\n", "")
        assert "geheim" not in out
