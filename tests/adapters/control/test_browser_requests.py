"""Web pages in the browsers of people who reach the server: their requests, on every route, change and read nothing."""

import re
import string
from collections.abc import Sequence
from functools import partial
from itertools import batched
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from adapters.control.access.browser_requests import Names, names_of
from adapters.control.live.page_files import page_files
from adapters.control.openapi.document import document
from adapters.control.settings import ApiSettings, ServerSettings
from adapters.request_targets import host_of_target
from poller.config.field_types import Address
from poller.domain.telemetry.daemon_events import StrangerRefused
from poller.domain.telemetry.labels import Listener, RefusedFor
from poller.domain.telemetry.observers import AnyTelemetryEvent
from poller.refused_requests import Strangers
from tests.adapters.control.serving import Running, Setting, on_both_loops, serving
from tests.adapters.control.test_access import model_with_one
from tests.adapters.control.test_lambda_api import ARN, ID

OPEN = ApiSettings(allow_unauthenticated=True)
ROUTES = [
    (method.upper(), re.sub(r"\{\w+\}", lambda name: ARN if name[0] == "{Arn}" else ID, path))
    for path, methods in document()["paths"].items()
    for method in methods
    if method != "parameters"
] + [("GET", file.path) for file in page_files()]
READS = [route for route in ROUTES if route[0] == "GET"]
CHANGES = [route for route in ROUTES if route[0] != "GET"]
FOREIGN = [
    "evil.example",
    "evil.example:8080",
    "127.0.0.1.evil.example",
    "localhost.evil.example:80",
    "",
    "10.0.0.7",
]
OWN = ["localhost", "LOCALHOST:1", "localhost.", "127.0.0.1", "127.8.9.1:8080", "[::1]", "[::1]:8080"]


AT_ONCE = 100
"""Requests to one server, which refuses an address that asks too often."""


class Seen:
    """An observer that keeps what it is told."""

    def __init__(self) -> None:
        self.reasons: list[RefusedFor] = []

    def on(self, event: AnyTelemetryEvent) -> None:
        assert isinstance(event, StrangerRefused)
        assert event.listener is Listener.PORT
        self.reasons.append(event.reason)


def statuses(
    requests: list[tuple[str, str, dict[str, str]]], *, api: ApiSettings = OPEN, **more: Any
) -> tuple[list[int], list[RefusedFor], int]:
    """The statuses of requests, why some were refused, and how many changes were asked for."""
    model, seen, strangers = model_with_one(), Seen(), Strangers()
    strangers.observer = seen

    async def use(run: Running, some: Sequence[tuple[str, str, dict[str, str]]]) -> list[int]:
        found = []
        for method, path, headers in some:
            status, body, answered = await run.ask(method, path, headers=headers)
            if status == 403 and method != "GET" and path.startswith("/20"):
                assert answered["x-amzn-errortype"] == "AccessDeniedException"
                assert body["Message"]
            found.append(status)
        return found

    setting = Setting(api=api, control=model, tags=model, strangers=strangers, **more)
    found: list[int] = []
    for some in batched(requests, AT_ONCE, strict=False):
        found += serving(partial(use, some=some), setting)
    return found, seen.reasons, len(model.asked)


def test_the_routes_of_these_tests_are_all() -> None:
    assert len(READS) == 27 + len(page_files())
    assert len(CHANGES) == 22
    assert not any("{" in path for _, path in ROUTES)


@on_both_loops
def test_no_route_answers_a_page_whose_name_leads_here(loop_factory: Any) -> None:
    requests = [(method, path, {"Host": host}) for method, path in ROUTES for host in FOREIGN]
    found, reasons, changes = statuses(requests, loop_factory=loop_factory)
    assert found == [403] * len(requests)
    assert reasons == [RefusedFor.HOST] * len(requests)
    assert changes == 0


def test_reads_answer_to_every_name_of_loopback() -> None:
    requests = [(method, path, {"Host": host}) for method, path in READS for host in OWN]
    found, reasons, _ = statuses(requests)
    assert set(found) <= {200, 404, 501}
    assert reasons == []


PAGES = [
    {"Origin": "http://evil.example"},
    {"Origin": "null"},
    {"Origin": "http://localhost:1"},
    {"Sec-Fetch-Site": "cross-site"},
    {"Sec-Fetch-Site": "same-site"},
]
OWN_PAGES = [
    {"Host": "localhost:1", "Origin": "http://localhost:1"},
    {"Host": "localhost:1", "Origin": "http://localhost:1", "Sec-Fetch-Site": "same-origin"},
]


@pytest.mark.parametrize("api", [OPEN, ApiSettings()], ids=["open changes", "changes with a credential"])
def test_no_page_of_another_site_changes_anything(api: ApiSettings) -> None:
    requests = [(method, path, page) for method, path in CHANGES for page in PAGES]
    found, reasons, changes = statuses(requests, api=api)
    assert found == [403] * len(requests)
    assert reasons == [RefusedFor.ORIGIN] * len(requests)
    assert changes == 0


def test_changes_without_a_credential_are_for_no_page_at_all() -> None:
    requests = [(method, path, page) for method, path in CHANGES for page in OWN_PAGES]
    found, _, changes = statuses(requests)
    assert found == [403] * len(requests)
    assert changes == 0


def test_a_page_of_the_same_address_needs_a_credential_like_everybody() -> None:
    requests = [("POST", f"/v1/mappings/{ID}/disable", page) for page in OWN_PAGES]
    found, reasons, changes = statuses(requests, api=ApiSettings())
    assert (found, reasons, changes) == ([401, 401], [], 0)


@pytest.mark.parametrize("api", [OPEN, ApiSettings()], ids=["open changes", "changes with a credential"])
def test_updates_are_for_the_daemons_own_page_and_for_no_other(api: ApiSettings) -> None:
    """A page of another site could not read them, but it could take the places of all readers."""
    paths = ["/v1/updates", "/v1/%75pdates", "/v1/updates?x"]
    requests = [("GET", path, page) for path in paths for page in PAGES]
    found, reasons, _ = statuses(requests, api=api)
    assert found == [403] * len(requests)
    assert reasons == [RefusedFor.ORIGIN] * len(requests)
    own = [("GET", path, page) for path in paths for page in ({}, *OWN_PAGES)]
    assert statuses(own, api=api)[0] == [200] * len(own)


def test_with_a_token_the_daemons_own_page_may_act_and_no_other(tmp_path: Path) -> None:
    tokens = tmp_path / "tokens.yaml"
    tokens.write_text("ann: {token: run-1, role: admin}\n")
    tokens.chmod(0o600)
    api, path, token = (
        ApiSettings(tokens_file=tokens),
        f"/v1/mappings/{ID}/disable",
        {"Authorization": "Bearer run-1"},
    )
    own, others = ([("POST", path, page | token) for page in pages] for pages in (OWN_PAGES, PAGES))
    assert statuses(own, api=api)[::2] == ([202] * len(own), len(own))
    assert statuses(others, api=api)[::2] == ([403] * len(others), 0)


def test_pages_may_read_what_everybody_may() -> None:
    found, _, _ = statuses([("GET", "/healthz", page) for page in PAGES])
    assert found == [200] * len(PAGES)


@pytest.mark.parametrize(
    "kind", ["text/plain", "application/x-www-form-urlencoded; charset=utf-8", "multipart/form-data"]
)
def test_a_form_switches_nothing(kind: str) -> None:
    found, _, changes = statuses([("POST", f"/v1/mappings/{ID}/disable", {"Content-Type": kind})])
    assert (found, changes) == ([415], 0)


def test_a_program_without_a_credential_may_change_where_everybody_may() -> None:
    model = model_with_one()

    async def use(run: Running) -> list[int]:
        made = await run.ask("PUT", f"/2015-03-31/event-source-mappings/{ID}", json={"BatchSize": 5})
        off = await run.ask("POST", f"/v1/mappings/{ID}/disable", headers={"Host": "localhost:9"})
        return [made[0], off[0]]

    assert serving(use, Setting(api=OPEN, control=model, tags=model)) == [202, 202]


@pytest.mark.parametrize(
    ("listen", "allowed", "host", "status"),
    [
        ("127.0.0.1:0", [], "poller.example", 403),
        ("127.0.0.1:0", ["Poller.example"], "poller.EXAMPLE.:443", 200),
        ("127.0.0.1:0", ["10.0.0.7"], "10.0.0.7:80", 200),
        ("localhost:0", [], "localhost", 200),
        ("0.0.0.0:0", [], "poller.namespace.svc:8080", 200),
        ("0.0.0.0:0", ["poller.example"], "evil.example", 403),
        ("0.0.0.0:0", ["poller.example"], "10.1.2.3:8080", 200),
        ("0.0.0.0:0", ["poller.example"], "poller.example", 200),
        ("[::]:0", ["poller.example"], "[2001:db8::1]:8080", 200),
    ],
)
def test_which_names_are_expected_goes_by_the_address_and_the_setting(
    listen: str, allowed: list[str], host: str, status: int
) -> None:
    api = ApiSettings.model_validate({"allowed_hosts": allowed, "reads": "open"})
    found, _, _ = statuses([("GET", "/v1/mappings", {"Host": host})], api=api, listen=listen)
    assert found == [status]


def test_two_hosts_and_none() -> None:
    async def use(run: Running) -> list[bytes]:
        lines = ["HTTP/1.1\r\nHost: localhost\r\nHost: evil.example\r\n", "HTTP/1.0\r\n"]
        return [await run.raw(f"GET /healthz {each}Connection: close\r\n\r\n".encode()) for each in lines]

    two, none = serving(use)
    assert re.match(rb"HTTP/1.[01] 40[03] ", two)
    assert none.startswith(b"HTTP/1.0 200 ")


async def in_absolute_form(
    run: Running, method: str, url: str, *, host: str = "localhost:1", more: str = ""
) -> int:
    """The status for a request line that has a whole URL, as for a proxy."""
    found = await run.raw(
        f"{method} {url} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n{more}\r\n".encode()
    )
    return int(found.split()[1])


@on_both_loops
def test_no_route_answers_a_target_with_another_host(loop_factory: Any) -> None:
    model, seen, strangers = model_with_one(), Seen(), Strangers()
    strangers.observer = seen

    async def use(run: Running) -> list[int]:
        return [await in_absolute_form(run, method, f"http://evil.example{path}") for method, path in ROUTES]

    setting = Setting(api=OPEN, control=model, tags=model, strangers=strangers, loop_factory=loop_factory)
    assert serving(use, setting) == [403] * len(ROUTES)
    assert seen.reasons == [RefusedFor.HOST] * len(ROUTES)
    assert model.asked == []


@pytest.mark.parametrize(
    ("url", "status"),
    [
        *((f"http://{own}/healthz", 200) for own in OWN),
        *((f"http://{foreign}/healthz", 403) for foreign in FOREIGN if foreign),
        ("https://evil.example/healthz", 403),
        ("HTTP://EVIL.EXAMPLE/healthz", 403),
        ("http://localhost@evil.example/healthz", 403),
        ("http://evil.example@localhost/healthz", 403),
        ("http://evil.example?@localhost/healthz", 403),
        ("http://localhost:1/healthz?u=http://evil.example/", 200),
        ("/healthz?u=http://evil.example/", 200),
    ],
)
def test_the_host_of_a_target_counts_as_that_of_the_header(url: str, status: int) -> None:
    assert serving(lambda run: in_absolute_form(run, "GET", url)) == status


def test_a_host_of_the_header_counts_beside_that_of_the_target() -> None:
    url = "http://localhost/healthz"
    assert serving(lambda run: in_absolute_form(run, "GET", url, host="evil.example")) == 403


def test_a_page_is_of_this_server_by_the_targets_host() -> None:
    url, more = f"http://localhost:2/v1/mappings/{ID}/disable", "Origin: http://localhost:1\r\n"
    setting = Setting(control=model_with_one())
    assert serving(lambda run: in_absolute_form(run, "POST", url, more=more), setting) == 403
    assert (
        serving(lambda run: in_absolute_form(run, "POST", url.replace(":2", ":1"), more=more), setting) == 401
    )


@given(
    host=st.text(string.ascii_letters + string.digits + "@:[].%\\", max_size=30),
    path=st.sampled_from(["", "/", "/healthz", "?a", "#a", "/a://b/c", "?//"]),
)
def test_the_host_of_a_target_is_all_that_stands_before_the_path(host: str, path: str) -> None:
    assert host_of_target(f"http://{host}{path}") == host
    assert host_of_target("/" + host + path) is None


LOOPBACK = names_of(Address("127.0.0.1", 1), Address("127.0.0.1", 1), ["poller.example"])
NAME = st.text(string.ascii_letters + string.digits + ".-_[]:@%/é \t", max_size=30)


@given(host=NAME | st.sampled_from(OWN).flatmap(lambda own: NAME.map(lambda more: more + own)))
@example("poller.example.evil")
@example("evil@localhost")
@example("[::1].evil")
@example("127.1")
@example("0")
def test_on_loopback_nothing_is_known_but_its_names(host: str) -> None:
    name = re.sub(r":[0-9]{0,5}$", "", host.lower()).removesuffix(".")
    own = name in {"localhost", "poller.example", "[::1]"} or re.fullmatch(
        r"127(\.(0|[1-9][0-9]?|1[0-9]{2}|2[0-4][0-9]|25[0-5])){3}", name
    )
    assert LOOPBACK.includes(host) == bool(own)


@pytest.mark.parametrize("host", ["http://a", "a:80", "a b", "[::1]", "", "-a", "*"])
def test_a_wrong_name_is_refused_with_the_remedy(host: str) -> None:
    with pytest.raises(ValueError, match="without scheme and port"):
        ServerSettings.model_validate({"listen": "127.0.0.1:1", "api": {"allowed_hosts": [host]}})


def test_without_a_setting_a_reachable_server_knows_any_name() -> None:
    assert Names(loopback=False).includes("anything")
