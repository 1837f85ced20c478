"""The HTTP server over real sockets: what it answers, and what it does to clients that misbehave."""

import asyncio
import json
import logging
import re
import socket
import time
from pathlib import Path
from typing import Any

import jsonschema_rs
import pytest
from pydantic import ValidationError

from adapters.control import (
    connections,
    functions_api,
    lambda_api,
    operations_api,
    records_api,
    responses,
    v1_api,
)
from adapters.control.access.audit import Audit
from adapters.control.access.authentication import Guard
from adapters.control.access.replay_cache import ReplayCache
from adapters.control.aliases import alias_api, v1_aliases
from adapters.control.calls import calls_api
from adapters.control.invoke import invoke_api, invoke_config_api
from adapters.control.live import updates_api
from adapters.control.live.readers import Readers
from adapters.control.openapi.document import document
from adapters.control.server import CLOSE_S, listening, open_server, plugin, setting_errors
from adapters.control.settings import ServerSettings
from adapters.control.sizing import scaling_api
from adapters.observers.metrics import Figures
from adapters.observers.prometheus import PrometheusObserver
from poller.clock import LoopClock
from poller.config.field_types import Address
from poller.domain.errors import InvalidConfiguration
from poller.domain.records import MappingId
from poller.domain.status import DaemonStatus
from poller.plugins import Environment, InstalledPlugins, validated
from poller.testing.telemetry_events import MAPPING, QUEUE, SetClock, changed
from tests.adapters.control.serving import (
    PATIENCE_S,
    LoopFactory,
    Page,
    Running,
    Setting,
    View,
    on_both_loops,
    on_loop,
    serving,
    validate,
)

PATHS = (
    "/healthz",
    "/readyz",
    "/metrics",
    "/v1/mappings",
    f"/v1/mappings/{MAPPING}",
    "/v1/openapi.json",
    "/v1/scaling",
)


def test_a_live_daemon_is_healthy() -> None:
    status, body, _ = serving(lambda run: run.get("/healthz"))
    assert (status, body) == (200, {"alive": True, "ready": True, "problems": [], "notes": []})


def test_a_daemon_that_is_not_alive_says_why() -> None:
    view = View(DaemonStatus(worker="w", mappings=(), ready=False, alive=False, problems=("stuck",)))
    status, body, _ = serving(lambda run: run.get("/healthz"), Setting(view))
    assert (status, body) == (503, {"alive": False, "ready": False, "problems": ["stuck"], "notes": []})


def test_a_daemon_that_is_not_ready_is_still_healthy() -> None:
    async def use(run: Running) -> list[int]:
        return [(await run.get(path))[0] for path in ("/healthz", "/readyz")]

    view = View(DaemonStatus(worker="w", mappings=(), ready=False, alive=True, problems=("m: no stream",)))
    assert serving(use, Setting(view)) == [200, 503]


def test_probes_follow_the_status_of_the_moment() -> None:
    async def use(run: Running) -> list[int]:
        before, _, _ = await run.get("/readyz")
        run.view.now = DaemonStatus(worker="w", mappings=(), ready=False, alive=True)
        return [before, (await run.get("/readyz"))[0]]

    assert serving(use) == [200, 503]


def test_metrics_are_the_pages_of_all_observers() -> None:
    pages = (Page(b"a 1\n"), Page(b"b 2"), Page(b""), Page(b"c 3\n", "text/html"))
    status, body, headers = serving(lambda run: run.get("/metrics"), Setting(expositions=pages))
    assert status == 200
    assert body.startswith(b"a 1\nb 2\nc 3\n# HELP poller_http_connections ")
    assert headers["Content-Type"] == "text/plain; version=0.0.4; charset=utf-8"


def test_without_observers_the_metrics_page_has_the_servers_own() -> None:
    status, body, _ = serving(lambda run: run.get("/metrics"))
    assert status == 200
    assert b"\npoller_http_connections 1.0\n" in body


def test_the_status_has_the_fields_names_and_epoch_seconds() -> None:
    _, body, _ = serving(lambda run: run.get("/v1/mappings"))
    assert list(body) == [
        "worker",
        "mappings",
        "ready",
        "alive",
        "problems",
        "notes",
        "complete",
        "workers",
        "only",
        "functions",
        "calls",
    ]
    assert body["mappings"][0]["shards"][0]["lanes"][0] == {
        "lane": "3",
        "state": "waiting",
        "attempts": 4,
        "attempts_max": None,
        "blocked_since": 1_700_000_000.5,
        "failing_since": None,
        "next_try": 1_700_000_030.0,
        "last_error": "ValueError: no",
        "error": {"errorType": "ValueError", "errorMessage": "no", "stackTrace": ["  File a", "    b"]},
        "records": [{"identifier": "495", "key": "a", "arrived": 1_699_999_000.25}],
        "records_count": 1,
        "retained_until": 1_700_085_400.25,
        "paused": None,
        "worker": "",
    }


def test_one_worker_alone_is_shown_by_its_name_and_an_unknown_one_refused() -> None:
    async def use(run: Running) -> list[Any]:
        paths = ("/v1/mappings", f"/v1/mappings/{QUEUE}")
        return [await run.get(f"{path}?worker={name}") for path in paths for name in ("w", "nob%0aody")]

    (status, body, _), *others = serving(use)
    assert (status, body["only"]) == (200, "w")
    assert [each[0] for each in others] == [404, 200, 404]
    assert others[0][1]["message"] == "no worker is called 'nob ody'; workers: w"
    validate(others[0][1], "Error")


def test_one_mapping_is_found_by_its_id_in_any_case() -> None:
    status, body, _ = serving(lambda run: run.get(f"/v1/mappings/{QUEUE.upper()}"))
    assert (status, body["mapping"], body["state"]) == (200, QUEUE, "Broken")


def test_an_unknown_mapping_is_not_found() -> None:
    status, body, _ = serving(lambda run: run.get("/v1/mappings/nothing"))
    assert (status, body["error"]) == (404, "not_found")
    validate(body, "Error")


def test_the_answers_are_what_the_document_says() -> None:
    async def use(run: Running) -> list[Any]:
        return [(await run.get(path))[1] for path in (*PATHS, "/nothing")]

    health, ready, _, everything, one, described, scaling, missing = serving(use)
    validate(scaling, "FleetScaling")
    for body, schema in (
        (health, "Probe"),
        (ready, "Probe"),
        (everything, "DaemonStatus"),
        (one, "MappingStatus"),
        (described, "Document"),
        (missing, "Error"),
    ):
        validate(body, schema)
    assert described == document()


def test_the_document_does_not_let_everything_through() -> None:
    with pytest.raises(jsonschema_rs.ValidationError):
        validate(
            {"worker": "w", "mappings": [{}], "ready": True, "alive": True, "problems": []}, "DaemonStatus"
        )
    with pytest.raises(jsonschema_rs.ValidationError):
        validate({"alive": True, "ready": True, "problems": [], "more": 1}, "Probe")


def test_the_document_lists_exactly_what_is_answered() -> None:
    paths = document()["paths"]
    described = {
        (method.upper(), named(path))
        for path, item in paths.items()
        for method in item
        if method != "parameters"
    }
    allowed = Guard(SetClock(), ReplayCache())
    table = [
        *v1_api.read_routes(allowed, View(), v1_api.Probes(View(), ())),
        *lambda_api.routes(allowed, View(), None, None, Audit(None)),
        *v1_api.change_routes(allowed, None, Audit(None)),
        *operations_api.routes(allowed, None, Audit(None)),
        *records_api.routes(allowed, None, None, show_payloads=False),
        *functions_api.routes(allowed, None, Audit(None)),
        *calls_api.routes(allowed, None, None, show_payloads=False),
        *invoke_api.routes(allowed, None, Audit(None)),
        *invoke_config_api.routes(allowed, None, Audit(None)),
        *alias_api.routes(allowed, None, Audit(None)),
        *v1_aliases.routes(allowed, None, Audit(None)),
        *updates_api.routes(allowed, Readers(), None, page="a version"),
        *scaling_api.routes(allowed, View()),
    ]
    assert described == {(route.method, named(route.path.rstrip("/"))) for route in table}


def named(path: str) -> str:
    """A path whose parameters have no names."""
    return re.sub(r"\{\w+\}", "{}", path)


def test_the_document_says_whether_changes_need_a_credential() -> None:
    secured, everybody = document(), document(everybody=True)
    assert secured["paths"]["/v1/mappings/{id}/enable"]["post"]["security"] == [{"token": []}]
    assert everybody["paths"]["/v1/mappings/{id}/enable"]["post"]["security"] == [{}, {"token": []}]
    create = "/2015-03-31/event-source-mappings"
    assert secured["paths"][create]["post"]["security"] == [{"signature": []}]
    assert everybody["paths"][create]["post"]["security"] == [{}, {"signature": []}]


def test_the_document_says_whether_reads_need_a_credential() -> None:
    lambda_paths = {path: "signature" for path in document()["paths"] if path.startswith("/20")}
    v1_paths = dict.fromkeys(
        ("/v1/mappings", "/v1/mappings/{id}", "/v1/openapi.json", "/v1/scaling"), "token"
    )
    for path, scheme in (lambda_paths | v1_paths).items():
        if "get" not in document()["paths"][path]:
            continue
        assert "security" not in document()["paths"][path]["get"], path
        assert document(open_reads=False)["paths"][path]["get"]["security"] == [{scheme: []}], path
    for path in ("/healthz", "/readyz", "/metrics"):
        assert "security" not in document(open_reads=False)["paths"][path]["get"]


@pytest.mark.parametrize("path", PATHS)
def test_head_has_the_headers_of_get_and_no_body(path: str) -> None:
    async def use(run: Running) -> tuple[Any, Any]:
        return await run.get(path), await run.ask("HEAD", path)

    got, head = serving(use, Setting(expositions=(Page(b"a 1\n"),)))
    assert (head[0], head[1]) == (200, b"")
    assert head[2]["Content-Length"] == got[2]["Content-Length"]
    assert head[2]["Content-Type"] == got[2]["Content-Type"]


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE"])
def test_other_methods_are_refused_with_those_allowed(method: str, path: str) -> None:
    status, body, headers = serving(lambda run: run.ask(method, path))
    assert (status, headers["Allow"], body["error"]) == (405, "GET,HEAD", "method_not_allowed")


@pytest.mark.parametrize(
    "path", ["/nothing", "/v1", "/v1/mappings/", "/healthz/", "/v1/mappings/a/b", "//metrics"]
)
def test_an_unknown_path_is_not_found(path: str) -> None:
    async def use(run: Running) -> bytes:
        return await run.raw(f"GET {path} HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n".encode())

    answer = serving(use)
    assert answer.startswith(b"HTTP/1.1 404 ")
    validate(json.loads(answer.partition(b"\r\n\r\n")[2]), "Error")


@pytest.mark.parametrize("path", [*PATHS, "/nothing"])
def test_every_answer_has_the_security_headers_and_no_version(path: str) -> None:
    _, _, headers = serving(lambda run: run.get(path))
    assert headers["Server"] == "poller"
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert headers["Cache-Control"] == "no-store"


@on_both_loops
@pytest.mark.parametrize(
    "request_bytes",
    [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n",
        b"GET /healthz HTTP/9.9.9\r\n\r\n",
        b"GET /healthz HTTP/1.1\r\nHost: h\r\nNo colon\r\n\r\n",
        b"GET /healthz HTTP/1.1\r\nHost: h\r\nX: " + b"a" * 20_000 + b"\r\n\r\n",
        b"GET /" + b"a" * 20_000 + b" HTTP/1.1\r\nHost: h\r\n\r\n",
        b"GET /healthz HTTP/1.1\r\nHost: h\r\n" + b"X: a\r\n" * 200 + b"\r\n",
        b"POST /healthz HTTP/1.1\r\nHost: h\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"POST /healthz HTTP/1.1\r\nHost: h\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n{}",
        b"GET /healthz HTTP/1.1\r\nHost: h\r\nHost: i\r\n\r\n",
    ],
    ids=[
        "tls",
        "version",
        "header",
        "long-header",
        "long-line",
        "many-headers",
        "two-framings",
        "two-lengths",
        "two-hosts",
    ],
)
def test_a_broken_request_is_refused_in_json_without_a_line_in_the_log(
    loop_factory: LoopFactory, request_bytes: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    answer = serving(lambda run: run.raw(request_bytes), Setting(loop_factory=loop_factory))
    head, _, body = answer.partition(b"\r\n\r\n")
    assert answer.startswith((b"HTTP/1.1 400 ", b"HTTP/1.0 400 "))
    assert b"Server: poller\r\n" in head
    assert b"aaaa" not in body
    validate(json.loads(body), "Error")
    assert [record for record in caplog.records if record.levelno >= logging.WARNING] == []


def test_a_fault_is_answered_in_json_and_its_cause_is_only_logged(caplog: pytest.LogCaptureFixture) -> None:
    class Broken:
        """A view with a bug."""

        async def fleet(self, **_: Any) -> DaemonStatus:
            raise RuntimeError("hunter2")

    async def use(run: Running) -> Any:
        return await run.get("/v1/mappings")

    status, body, headers = serving(use, Setting(Broken()))  # type: ignore[arg-type]  # any view will do
    assert (status, body["error"], headers["Server"]) == (500, "internal_server_error", "poller")
    assert "hunter2" not in json.dumps(body)
    assert "hunter2" in caplog.text


@on_both_loops
def test_a_client_that_sends_its_headers_slowly_is_cut(
    loop_factory: LoopFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connections, "SILENT_S", 0.3)

    async def drip(run: Running) -> int:
        reader, writer = await asyncio.open_connection(run.server.address.host, run.server.address.port)
        writer.write(b"GET /healthz HTTP/1.1\r\n")
        sent = 0
        while not reader.at_eof() and not writer.is_closing() and sent < 100:
            writer.write(b"X: a\r\n")
            sent += 1
            await asyncio.sleep(0.05)
        writer.close()
        return sent

    assert serving(drip, Setting(loop_factory=loop_factory)) < 40


@on_both_loops
@pytest.mark.parametrize("first", [b"", b"GET /healthz HTTP/1.1\r\nHost: h\r\n\r\n"], ids=["new", "used"])
def test_a_silent_connection_is_closed(
    loop_factory: LoopFactory, first: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connections, "SILENT_S", 0.3)
    answer = serving(lambda run: run.raw(first), Setting(loop_factory=loop_factory))
    assert answer.startswith(b"HTTP/1.1 200 ") is bool(first)


@on_both_loops
def test_a_body_that_never_comes_does_not_hold_the_connection(
    loop_factory: LoopFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connections, "BODY_LEFT_S", 0.2)
    answer = serving(
        lambda run: run.raw(b"GET /healthz HTTP/1.1\r\nHost: h\r\nContent-Length: 9\r\n\r\n"),
        Setting(loop_factory=loop_factory),
    )
    assert answer.startswith(b"HTTP/1.1 200 ")


@on_both_loops
def test_a_client_that_does_not_take_the_answer_is_cut(
    loop_factory: LoopFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(responses, "SEND_S", 0.3)

    async def stall(run: Running) -> int:
        reader, writer = await asyncio.open_connection(
            run.server.address.host, run.server.address.port, limit=1024
        )
        writer.write(b"GET /metrics HTTP/1.1\r\nHost: h\r\n\r\n")
        await asyncio.sleep(0.8)
        taken = 0
        try:
            while part := await reader.read(65536):
                taken += len(part)
        except ConnectionResetError:
            pass
        writer.close()
        return taken

    size = 50_000_000
    assert serving(stall, Setting(loop_factory=loop_factory, expositions=(Page(b"a" * size),))) < size


@on_both_loops
def test_many_scrapes_at_once_are_all_answered(loop_factory: LoopFactory) -> None:
    clock = LoopClock(steady=time.monotonic)
    observer = PrometheusObserver(Figures(clock), clock)
    for number in range(50):
        observer.on(changed(MappingId(f"m{number}")))

    async def use(run: Running) -> list[tuple[int, bool]]:
        async with asyncio.TaskGroup() as tasks:
            asked = [tasks.create_task(run.get("/metrics"), name=f"scrape {n}") for n in range(60)]
        return [(task.result()[0], b"poller_mapping_info" in task.result()[1]) for task in asked]

    assert serving(use, Setting(loop_factory=loop_factory, expositions=(observer,))) == [(200, True)] * 60


@on_both_loops
def test_a_running_request_finishes_when_the_server_is_cancelled(loop_factory: LoopFactory) -> None:
    class Slow(View):
        """A view whose server is cancelled while it is asked."""

        def status(self) -> DaemonStatus:
            served.cancel()
            return self.now

    served: asyncio.Task[None]

    async def run() -> bytes:
        nonlocal served
        async with (
            open_server(ServerSettings(listen="127.0.0.1:0"), Environment(clock=SetClock())) as server,
            asyncio.timeout(PATIENCE_S),
            asyncio.TaskGroup() as tasks,
        ):
            served = tasks.create_task(server.serve(Slow(), ()), name="serve")
            where = await server.bound()
            reader, writer = await asyncio.open_connection(where.host, where.port)
            writer.write(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
            answer = await reader.read()
            writer.close()
        # Until then the port is kept, for a server that starts again.
        with pytest.raises(OSError, match="Errno 111"):
            await asyncio.open_connection(where.host, where.port)
        return answer

    assert on_loop(loop_factory, run()).startswith(b"HTTP/1.1 200 ")


@on_both_loops
def test_idle_connections_do_not_delay_the_end(loop_factory: LoopFactory) -> None:
    async def run() -> float:
        loop = asyncio.get_running_loop()
        async with open_server(ServerSettings(listen="127.0.0.1:0"), Environment(clock=SetClock())) as server:
            async with asyncio.timeout(PATIENCE_S), asyncio.TaskGroup() as tasks:
                served = tasks.create_task(server.serve(View(), ()), name="serve")
                where = await server.bound()
                held = [await asyncio.open_connection(where.host, where.port) for _ in range(20)]
                began = loop.time()
                served.cancel()
            ended = loop.time()
            for _, writer in held:
                writer.close()
            return ended - began

    assert on_loop(loop_factory, run()) < CLOSE_S


def test_a_taken_port_is_a_wrong_configuration_that_names_it() -> None:
    async def run(taken: socket.socket) -> str:
        port = taken.getsockname()[1]
        with pytest.raises(InvalidConfiguration) as caught:
            await listening(Address("127.0.0.1", port))
        assert str(port) in str(caught.value)
        return str(caught.value)

    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        problem = asyncio.run(run(taken))
    assert "Address already in use; choose another address or port" in problem


def test_a_name_without_an_address_is_a_wrong_configuration() -> None:
    with pytest.raises(InvalidConfiguration, match=r"no\.such\.name\.invalid.*write an IP address"):
        asyncio.run(listening(Address("no.such.name.invalid", 0)))


def test_the_server_listens_on_ipv6() -> None:
    status, _, _ = serving(lambda run: run.get("/healthz"), Setting(listen="[::1]:0"))
    assert status == 200


@on_both_loops
def test_all_of_ipv6_takes_ipv4_too(loop_factory: LoopFactory) -> None:
    async def use(run: Running) -> bytes:
        reader, writer = await asyncio.open_connection("127.0.0.1", run.server.address.port)
        writer.write(b"GET /healthz HTTP/1.1\r\nHost: h\r\n\r\n")
        line = await reader.readline()
        writer.close()
        return line

    assert serving(use, Setting(loop_factory=loop_factory, listen="[::]:0")).startswith(b"HTTP/1.1 200 ")


@pytest.mark.parametrize("text", ["8080", "a:65536", "[a]:1"])
def test_what_is_no_address_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(ValidationError, match="; write "):
        ServerSettings(listen=text)


@pytest.mark.parametrize("listen", ["0.0.0.0:8080", "[::]:8080", "10.0.0.1:1", "poller.local:1"])
def test_open_changes_beyond_loopback_are_refused_with_a_remedy(listen: str) -> None:
    settings = {"listen": listen, "api": {"allow_unauthenticated": True}}
    with pytest.raises(InvalidConfiguration, match=r"listen on 127\.0\.0\.1 .* or set api\.access_keys_file"):
        validated(plugin, settings, place="control http")


@pytest.mark.parametrize("listen", ["127.0.0.1:0", "127.8.8.8:0", "[::1]:0", "localhost:0"])
def test_open_changes_on_loopback_are_allowed(listen: str) -> None:
    async def run() -> bool:
        settings = ServerSettings.model_validate({"listen": listen, "api": {"allow_unauthenticated": True}})
        async with open_server(settings, Environment(clock=SetClock())) as server:
            return server.address.loopback

    assert asyncio.run(run())


def test_a_file_of_keys_must_exist(tmp_path: Path) -> None:
    settings = {"listen": "127.0.0.1:0", "api": {"tokens_file": str(tmp_path / "none.yaml")}}
    (objection,) = setting_errors(ServerSettings.model_validate(settings))
    assert (objection.field, objection.wrong) == ("api.tokens_file", "No such file or directory")


def test_the_plugin_is_installed() -> None:
    assert InstalledPlugins().plugin("control", "http") is plugin
