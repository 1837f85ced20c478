"""Hosts: what nobody could look up is refused wherever a host or a URL is configured, and what is accepted can be looked up."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from yarl import URL

from poller.commands.shared import LoadablePlugins, url_problem
from poller.config.field_types import Address, host_name, is_host, web_url
from poller.config.loader import examine
from tests.adapters.invokers.functions.plain import act

REGISTRY = LoadablePlugins()
HANDLER = f"{act.__module__}:{act.__name__}"
STREAM = "arn:aws:kinesis:eu-west-1:111122223333:stream/orders"
NO_HOSTS = {
    "an empty label": "a..b",
    "an empty label at the beginning": ".a",
    "dots alone": "..",
    "a label of 64 characters": "a" * 64,
    "a long label at the end": f"a.b.{'c' * 64}",
    "a label that IDNA makes too long": "é" * 60,
    "more than 255 characters": ".".join(["a" * 63] * 5),
    "a dot of another script": "\u3002",
    "two dots of another script": "a\u3002\u3002b",
    "no width": "\u200b",
    "a hyphen that does not show": "x\u00ad.invalid",
    "a joiner that does not show": "x\u034f.invalid",
    "a filler of Hangul": "a\u3164",
    "a character that IDNA forbids": "a\u2028b",
    "a blank": "a b",
    "an escape": "a%20b",
    "a dash at the beginning": "-a",
}
HOSTS = [
    "localhost",
    "127.0.0.1",
    "poller.local",
    "poller.local.",
    "a_b",
    "fn-1.default.svc.cluster.local",
    "bücher.example",
    "xn--bcher-kva.example",
    "a\u3002b",
    "a" * 63,
]
bad = pytest.mark.parametrize("host", NO_HOSTS.values(), ids=NO_HOSTS)


@bad
def test_what_cannot_be_looked_up_is_no_host(host: str) -> None:
    assert not is_host(host)


@pytest.mark.parametrize("host", HOSTS)
def test_addresses_and_names_are_hosts(host: str) -> None:
    assert is_host(host)
    assert web_url(f"http://{host}:80/x", credentials="")
    assert Address.parse(f"{host}:80").host == host
    assert url_problem(f"http://{host}:80") == ""


@pytest.mark.parametrize("host", ["1.2.3", "256.1.1.1", "a.1", "1"])
def test_urls_have_no_hosts_that_look_like_an_address_and_are_none(host: str) -> None:
    with pytest.raises(ValueError, match="neither an address nor a name"):
        web_url(f"http://{host}/", credentials="")


@pytest.mark.parametrize(
    "url", [" http://a/", "http://a/ ", "http://a\nb/", "http://a/\tx", "http://a/\u200b"]
)
def test_urls_have_no_characters_that_do_not_show(url: str) -> None:
    with pytest.raises(ValueError, match="do not show; remove them"):
        web_url(url, credentials="")


def test_a_half_of_a_surrogate_pair_is_no_host() -> None:
    assert not is_host("\ud800")


LABELS = st.sampled_from(
    ["a", "-", "_", "1", "é", "ß", "☃", "x" * 63, "x" * 64, "\u0301", "\u00ad", "\u200d", "\u0660", "½", "ſ"]
)
NAMES = st.lists(LABELS | st.sampled_from([".", "\u3002", "\uff0e"]) | st.characters(), max_size=8).map(
    "".join
)


@given(NAMES)
@example("a..b")
@example("x\u034f.invalid")
@settings(max_examples=500, deadline=None)
def test_the_host_of_a_url_that_is_accepted_can_be_looked_up(host: str) -> None:
    try:
        url = web_url(f"http://{host}:80/", credentials="")
    except ValueError:
        return
    # The HTTP client encodes the host once, and the resolver encodes the result.
    name = URL(url).raw_host
    assert name
    assert name.encode("idna")


@given(NAMES)
@settings(max_examples=500, deadline=None)
def test_an_address_to_listen_on_that_is_accepted_can_be_looked_up(host: str) -> None:
    try:
        address = Address.parse(f"{host}:80")
    except ValueError:
        return
    assert address.host.encode("idna")


def function(url: str) -> dict[str, Any]:
    return {"functions": {"orders": {"invoker": "http", "url": url}}}


def mapping(destination: str) -> dict[str, Any]:
    given = {"FunctionName": "orders", "EventSourceArn": STREAM, "StartingPosition": "LATEST"}
    return {
        "functions": {"orders": {"invoker": "python", "handler": HANDLER}},
        "mappings": [given | {"DestinationConfig": {"OnFailure": {"Destination": destination}}}],
    }


PLACES: dict[str, tuple[str, Callable[[str], dict[str, Any]]]] = {
    "listen": ("listen", lambda host: {"listen": f"{host}:80"}),
    "endpoint_url": ("endpoint_url", lambda host: {"endpoint_url": f"http://{host}:80"}),
    "endpoint_urls": ("endpoint_urls.sqs", lambda host: {"endpoint_urls": {"sqs": f"http://{host}/"}}),
    "allowed_hosts": ("api.allowed_hosts[0]", lambda host: {"api": {"allowed_hosts": [host]}}),
    "a function": ("functions.orders.url", lambda host: function(f"http://{host}/x")),
    "a destination": (
        "mappings[0].DestinationConfig.OnFailure.Destination",
        lambda host: mapping(f"http://{host}/x"),
    ),
}


@bad
@pytest.mark.parametrize(("field", "made"), PLACES.values(), ids=PLACES)
def test_no_place_of_a_file_takes_it(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    host: str,
    field: str,
    made: Callable[[str], dict[str, Any]],
) -> None:
    for name in os.environ:
        if name.upper().startswith("POLLER_"):
            monkeypatch.delenv(name)
    file = tmp_path / "poller.yaml"
    file.write_text(json.dumps({"store": "memory://", **made(host)}))
    lines = [each.removeprefix(f"{file}: ") for each in examine(file, {}, REGISTRY).problems]
    (line,) = [each for each in lines if not each.startswith("mappings: there is none")]
    assert line.startswith(f"{field}: ")
    assert "; " in line


@bad
def test_no_url_on_the_command_line_takes_it(host: str) -> None:
    assert url_problem(f"http://{host}:80").endswith("not an HTTP URL; write http://HOST:PORT")


@pytest.mark.parametrize("text", ["a..b", "http:", ""])
def test_a_name_that_a_request_may_have_is_a_host(text: str) -> None:
    with pytest.raises(ValueError, match="no host name; write"):
        host_name(text)


@pytest.mark.parametrize("given", [["--listen", "a..b:80"], []])
def test_a_daemon_that_cannot_listen_there_ends_with_the_field_and_the_remedy(
    tmp_path: Path, given: list[str]
) -> None:
    file = tmp_path / "poller.yaml"
    file.write_text("store: memory://\n" + ("" if given else "listen: a..b:80\n"))
    env = {name: value for name, value in os.environ.items() if not name.upper().startswith("POLLER_")}
    command = [sys.executable, "-m", "poller", "run", "--config", str(file), *given]
    ended = subprocess.run(command, capture_output=True, text=True, env=env, timeout=60, check=False)
    assert ended.returncode == 2
    assert (
        "listen: value 'a..b:80': what stands before the port is no host; write an IP address"
        in ended.stderr.replace("--listen", "listen")
    )
    assert "Traceback" not in ended.stderr
