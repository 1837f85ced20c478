"""What is said of a plug-in's settings before it is opened is what opening it says: real plug-ins, opened for real."""

import asyncio
from pathlib import Path
from typing import Any

import pytest
from botocore.utils import is_valid_endpoint_url, is_valid_ipv6_endpoint_url
from hypothesis import given, settings
from hypothesis import strategies as st

from adapters.invokers.handlers.source import handler_name, missing_module
from poller.clock import LoopClock
from poller.commands.shared import LoadablePlugins
from poller.config.field_types import http_url
from poller.config.plugin_settings import NamedPlugin, plugin_errors
from poller.config.plugin_specs import PluginSpec
from poller.domain.errors import InvalidConfiguration
from poller.plugins import Environment, opened
from tests.start_folders import start_in

REGISTRY = LoadablePlugins()
ME = __name__
KINESIS = "arn:aws:kinesis:eu-west-1:111122223333:stream/orders"
SQS = "arn:aws:sqs:eu-west-1:111122223333:orders"


def function(event: object, context: object) -> None:
    """A handler."""


def python(handler: object, **more: Any) -> tuple[str, str, dict[str, Any]]:
    return "invokers", "python", {"function": "f", "handler": handler, **more}


def http(url: object = "http://127.0.0.1/", **more: Any) -> tuple[str, str, dict[str, Any]]:
    return "invokers", "http", {"function": "f", "url": url, **more}


def process(command: object = ("cat",), **more: Any) -> tuple[str, str, dict[str, Any]]:
    return "invokers", "process", {"function": "f", "command": command, **more}


def control(listen: str = "127.0.0.1:0", **api: Any) -> tuple[str, str, dict[str, Any]]:
    return "control", "http", {"listen": listen, "api": api}


def files(folder: Path) -> None:
    """What the settings below name."""
    texts = {
        "keys": "AKID: secret\n",
        "spaces": "AKID: a long random text\n",
        "number": "AKID: 000123\nB: 1e3\n",
        "numbered": "123: secret\n",
        "empty": "",
        "list": "- a\n",
        "text": "no certificates\n",
    }
    for name, text in texts.items():
        (folder / name).write_text(text)
    (folder / "folder").mkdir()


SOUND: list[tuple[str, str, dict[str, Any]]] = [
    python(f"{ME}:function"),
    python(f"{ME}.function"),
    python(f"{ME.replace('.', '/')}.function", workers=2),
    http(),
    http("https://[::1]:8443/x", headers={"Authorization": "Bearer x"}, verify_tls=False),
    process(),
    process(["cat", "-"], cwd="folder"),
    ("invokers", "lambda", {"function": "f"}),
    ("invokers", "lambda", {"function": "f", "qualifier": "live", "region": "eu-west-1"}),
    control(),
    control(access_keys_file="keys"),
    control("[::1]:0", allow_unauthenticated=True),
    ("stores", "memory", {"url": "memory://"}),
    ("stores", "sqlite", {"url": "sqlite:state.db?synchronous=normal"}),
    ("stores", "sqlite", {"url": "sqlite:new/state.db"}),
    ("sources", "kinesis", {"arn": KINESIS}),
    ("sources", "sqs", {"arn": SQS}),
    ("destinations", "sqs", {"arn": SQS}),
    ("destinations", "file", {"arn": "file:///var/lib"}),
    ("destinations", "http", {"arn": "https://host/failed?key=x"}),
    ("observers", "logs", {"format": "console"}),
]
WRONG: list[tuple[str, str, dict[str, Any]]] = [
    python("function"),
    python("fn.logs.handler"),
    python(f"{ME}:"),
    python(":function"),
    python("a..b:c"),
    python("a b:c"),
    python("nowhere:function"),
    python(f"{ME}.nowhere:function"),
    python(f"{ME}:function", workers=1, isolation="process"),
    python(f"{ME}:function", processes=1),
    python(f"{ME}:function", nonsense=1),
    python(7),
    http("ftp://x"),
    http("http://host:99999/"),
    http("http://[x/"),
    http(ca_file="text"),
    http(ca_file="nowhere"),
    http(ca_file="folder"),
    http(headers={"a b": "x"}),
    http(headers={"Authorization": "Bearer …"}),
    http(throttled_statuses=[200]),
    process([]),
    process([""]),
    process(["no-such-program"]),
    process(["./no-such-program"]),
    process(cwd="nowhere"),
    process(cwd="keys"),
    process(env={"A=B": "x"}),
    process(env={"A": 1}),
    ("invokers", "lambda", {"function": "f", "qualifier": "not one"}),
    control(access_keys_file="spaces"),
    control(access_keys_file="number"),
    control(access_keys_file="keys", tokens_file="empty"),
    control(tokens_file="numbered"),
    control(tokens_file="list"),
    control(tokens_file="nowhere"),
    control(tokens_file="folder"),
    control("0.0.0.0:0", allow_unauthenticated=True),
    control(token="x"),
    ("stores", "memory", {"url": "memory://x"}),
    ("stores", "sqlite", {"url": "sqlite:state.db?synchronous=half"}),
    ("stores", "sqlite", {"url": "sqlite:state.db?nonsense=1"}),
    ("stores", "sqlite", {"url": "sqlite:state.db?bytes_max=1048576&bytes_max=2097152"}),
    ("stores", "sqlite", {"url": "sqlite:folder"}),
    ("stores", "sqlite", {"url": "sqlite:keys/state.db"}),
    ("stores", "dynamodb", {"url": "dynamodb://x"}),
    ("sources", "kinesis", {"arn": SQS}),
    ("sources", "sqs", {"arn": SQS, "nonsense": 1}),
    ("destinations", "sqs", {"arn": f"{SQS}.fifo"}),
    ("destinations", "file", {"arn": "file://host/x"}),
    ("destinations", "http", {"arn": "https://user@host/"}),
    ("observers", "logs", {"level": "loud"}),
]


def refusals(kind: str, name: str, given: dict[str, Any]) -> list[str]:
    """What opening says."""

    async def run() -> None:
        env = Environment(clock=LoopClock(), region="eu-west-1")
        try:
            async with opened(REGISTRY, kind, name, given, env):
                pass
        finally:
            await env.shared.close()

    try:
        asyncio.run(run())
    except InvalidConfiguration as error:
        return error.problems
    return []


def said(kind: str, name: str, given: dict[str, Any]) -> list[str]:
    """What is said beforehand."""
    hidden = {"function", "max_concurrency"} if kind == "invokers" else set()
    own = {key: value for key, value in given.items() if key not in hidden}
    told = {key: value for key, value in given.items() if key in hidden}
    part = NamedPlugin(spec=PluginSpec(kind, name, own, told), named_at=(), under=())
    return [
        f"{each.path}: {each.wrong}; {each.remedy}" for each in plugin_errors(part, REGISTRY) if not each.mild
    ]


@pytest.mark.parametrize(("kind", "name", "given"), [*SOUND, *WRONG])
def test_it_is_said_beforehand_exactly_when_opening_refuses(
    kind: str, name: str, given: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files(tmp_path)
    start_in(tmp_path, monkeypatch)
    beforehand = said(kind, name, given)
    refused = refusals(kind, name, given)
    assert bool(beforehand) == bool(refused), (beforehand, refused)
    assert bool(refused) == ((kind, name, given) in WRONG)


@given(
    st.text("aZ0-_.:[]%/ é\t", max_size=12)
    | st.sampled_from(["local_stack:4566", "[::1]:4566", "localhost", "a" * 64])
)
@settings(max_examples=300)
def test_an_endpoint_that_is_taken_is_one_that_the_clients_of_aws_take(host: str) -> None:
    url = f"http://{host}"
    try:
        http_url(url)
    except ValueError:
        return
    assert is_valid_endpoint_url(url) or is_valid_ipv6_endpoint_url(url)


def test_endpoints_that_people_have_are_taken_and_one_with_an_underscore_is_reported() -> None:
    for url in (
        "http://localhost:4566",
        "https://vpce-1.kinesis.eu-west-1.vpce.amazonaws.com",
        "http://[::1]:1",
        "http://10.0.0.1",
    ):
        assert http_url(url) == url
    with pytest.raises(
        ValueError, match=r"its host is none that AWS's clients take; write an IP address, or a name"
    ):
        http_url("http://local_stack:4566")


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("app.handler", "app:handler"),
        ("app:handler", "app:handler"),
        ("shop.handlers.orders", "shop.handlers:orders"),
        ("shop.handlers:orders.handle", "shop.handlers:orders.handle"),
        ("path/to/mod.handler", "path.to.mod:handler"),
        ("my-function.handler", "my-function:handler"),
    ],
)
def test_a_handler_may_be_written_as_on_aws(text: str, name: str) -> None:
    assert handler_name(text) == name


@pytest.mark.parametrize(
    "text",
    [
        "",
        "app",
        "app.",
        ".handler",
        "app:",
        "a b.c",
        "app.hand ler",
        "app.py/handler",
        "../app.handler",
        "/app.handler",
        "app.1",
    ],
)
def test_other_texts_are_no_handlers(text: str) -> None:
    with pytest.raises(ValueError, match=r"; write module:function, or as on AWS module\.function"):
        handler_name(text)


def test_looking_for_a_module_runs_nothing_of_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    start_in(tmp_path, monkeypatch)
    for name in ("shouting", "shouting/inner"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text("raise SystemExit\n")
    (tmp_path / "plain").mkdir()
    (tmp_path / "plain" / "loud.py").write_text("raise SystemExit\n")
    (tmp_path / "plain" / "deep" / "deeper").mkdir(parents=True)
    (tmp_path / "plain" / "deep" / "deeper" / "loud.py").write_text("raise SystemExit\n")
    deep = "plain.deep.deeper.loud"
    there = [
        "shouting",
        "shouting.inner",
        "plain.loud",
        deep,
        "os.path",
        "json.decoder",
        "adapters.invokers.http",
    ]
    assert [each for each in there if missing_module(each)] == []
    gone = {
        "nowhere.at.all": "nowhere",
        "shouting.outer.x": "shouting.outer",
        "plain.x": "plain.x",
        "plain.deep.deeper.x": "plain.deep.deeper.x",
        "json.x": "json.x",
    }
    assert {each: missing_module(each) for each in gone} == gone
