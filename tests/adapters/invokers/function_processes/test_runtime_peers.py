"""Who may speak at the Runtime API of a function's process: the process and what it started, and nobody else of the machine."""

import asyncio
import json
import logging
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import uvloop

from adapters.invokers.function_processes import peers, runtime_entrance
from adapters.invokers.function_processes.process_settings import ProcessSettings
from adapters.invokers.process import START_PAUSE_BASE_S, open_process
from poller.domain.invocations import Outcome, Succeeded, Unreachable
from poller.domain.telemetry.daemon_events import StrangerRefused
from poller.domain.telemetry.labels import Listener, RefusedFor
from poller.domain.telemetry.observers import AnyTelemetryEvent
from poller.output.log_fields import EVENT
from poller.refused_requests import Strangers
from poller.testing.invoker import invocation
from tests.adapters.invokers.function_processes.test_process_invoker import RUNTIME, called
from tests.contracts import invokers

NOBODY = 65534
root = pytest.mark.skipif(os.getuid() != 0, reason="only root can be another user")

WAITING = """
with open(os.environ["PLACE"] + "/address.new", "w") as file:
    file.write(os.environ["AWS_LAMBDA_RUNTIME_API"])
os.rename(file.name, os.environ["PLACE"] + "/address")
while not os.path.exists(os.environ["PLACE"] + "/go"):
    time.sleep(0.01)
headers, event = taken()
answered(headers, "function")
taken()
"""
"""Says where its Runtime API is, and takes its call when it may."""
TAKES = """
import encodings.idna, http.client, os, sys
if len(sys.argv) > 2:
    os.setgroups([])
    os.setuid(int(sys.argv[2]))
PREFIX = "/2018-06-01/runtime/invocation/"
try:
    connection = http.client.HTTPConnection(sys.argv[1], timeout=10)
    connection.request("GET", PREFIX + "next")
    answer = connection.getresponse()
    taken = answer.headers.get("Lambda-Runtime-Aws-Request-Id")
    print(answer.status, end="", flush=True)
    if taken:
        connection.request("POST", PREFIX + taken + "/response", b"null")
        connection.getresponse()
except ConnectionError:
    print("closed", end="")
"""
"""A stranger: takes a call and answers null."""


class Seen:
    """An observer that keeps what it is told."""

    def __init__(self) -> None:
        self.events: list[AnyTelemetryEvent] = []

    def on(self, event: AnyTelemetryEvent) -> None:
        self.events.append(event)


def waited_for(path: Path) -> str:
    """What a file says, as soon as it is there."""
    deadline = time.monotonic() + 20
    while not path.exists():
        assert time.monotonic() < deadline, path
        time.sleep(0.01)
    return path.read_text()


async def with_stranger(
    place: Path, stranger: Callable[[str], Sequence[str]]
) -> tuple[Outcome, str, list[AnyTelemetryEvent]]:
    """The outcome of a call that a stranger tries to take, the stranger's answer, and what observers were told."""
    seen = Seen()
    strangers = Strangers()
    strangers.observer = seen
    settings = ProcessSettings(
        function="orders", command=[sys.executable, "-c", RUNTIME + WAITING], env={"PLACE": str(place)}
    )
    async with invokers.environment(strangers=strangers) as env, open_process(settings, env) as invoker:
        async with asyncio.TaskGroup() as tasks:
            call = tasks.create_task(invoker.invoke(invocation({})))
            address = await asyncio.to_thread(waited_for, place / "address")
            process = await asyncio.create_subprocess_exec(
                *stranger(address), stdout=subprocess.PIPE, start_new_session=True
            )
            said, _ = await process.communicate()
            (place / "go").touch()
        return call.result(), said.decode(), seen.events


def taker(address: str, *user: str) -> list[str]:
    return [sys.executable, "-c", TAKES, address, *user]


STRANGERS = [
    pytest.param(
        asyncio.run, lambda address: taker(address, str(NOBODY)), NOBODY, id="another user", marks=root
    ),
    pytest.param(asyncio.run, taker, os.getuid(), id="another process of the same user"),
    pytest.param(uvloop.run, taker, os.getuid(), id="the same on uvloop"),
    pytest.param(
        asyncio.run,
        lambda address: ["unshare", "--pid", "--fork", "--mount-proc", *taker(address)],
        0,
        id="a container of the pod",
        marks=[
            root,
            pytest.mark.skipif(shutil.which("unshare") is None, reason="there is no unshare"),
        ],
    ),
]


@pytest.mark.parametrize(("runner", "stranger", "uid"), STRANGERS)
def test_a_stranger_takes_no_call(
    runner: Any, stranger: Callable[[str], Sequence[str]], uid: int, tmp_path: Path
) -> None:
    outcome, said, events = runner(with_stranger(tmp_path, stranger))
    assert said in {"403", "closed"}
    assert outcome == Succeeded(b'"function"')
    refused = StrangerRefused(
        listener=Listener.RUNTIME_API, reason=RefusedFor.PEER, function="orders", uid=uid
    )
    assert events == [refused]


def test_many_strangers_do_not_make_the_daemon_search_all_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    socket_in_tables: list[int] = []

    def search(leader: int) -> list[int]:
        socket_in_tables.append(leader)
        return []

    monkeypatch.setattr("adapters.invokers.function_processes.runtime_entrance.session", search)
    monkeypatch.setattr("adapters.invokers.function_processes.runtime_entrance.time.monotonic", lambda: 7.5)
    with subprocess.Popen(["sleep", "60"], start_new_session=True) as other:
        keeper = runtime_entrance.ConnectionGuard("orders", Strangers())
        keeper.expect(other.pid)
        with socket.create_server(("127.0.0.1", 0)) as server:
            for _ in range(2 * runtime_entrance.STRANGERS_PER_SECOND_MAX):
                with socket.create_connection(server.getsockname()) as client:
                    assert not keeper.admits(client.getsockname(), server.getsockname())
        other.kill()
    assert len(socket_in_tables) == runtime_entrance.STRANGERS_PER_SECOND_MAX


def test_a_process_whose_children_the_kernel_does_not_list_is_searched_for_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    socket_in_tables: list[int] = []
    found = peers.session

    def search(leader: int) -> list[int]:
        socket_in_tables.append(leader)
        return found(leader)

    monkeypatch.setattr(
        "adapters.invokers.function_processes.runtime_entrance.tree", lambda leader: iter([leader])
    )
    monkeypatch.setattr("adapters.invokers.function_processes.runtime_entrance.session", search)
    [first, *others] = asyncio.run(called(ECHO, *[{}] * 15))
    assert isinstance(first, Succeeded)
    assert others == [Succeeded(first.payload)] * 14
    assert len(socket_in_tables) == 1


def test_without_roots_rights_another_users_socket_is_refused_without_a_search(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(
        "adapters.invokers.function_processes.runtime_entrance.os.geteuid", lambda: os.getuid() + 1
    )
    monkeypatch.setattr("adapters.invokers.function_processes.runtime_entrance.tree", None)
    seen, strangers = Seen(), Strangers()
    strangers.observer = seen
    keeper = runtime_entrance.ConnectionGuard("orders", strangers)
    keeper.expect(os.getpid())
    with (
        socket.create_server(("127.0.0.1", 0)) as server,
        socket.create_connection(server.getsockname()) as client,
    ):
        assert not keeper.admits(client.getsockname(), server.getsockname())
    assert len(seen.events) == 1


def test_a_process_that_ends_while_it_is_looked_for_is_refused_and_no_stranger(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    seen, strangers = Seen(), Strangers()
    strangers.observer = seen
    keeper = runtime_entrance.ConnectionGuard("orders", strangers)
    keeper.expect(os.getpid())
    with (
        socket.create_server(("127.0.0.1", 0)) as server,
        socket.create_connection(server.getsockname()) as client,
    ):

        def ended(leader: int) -> list[int]:
            client.close()
            return []

        monkeypatch.setattr("adapters.invokers.function_processes.runtime_entrance.tree", ended)
        monkeypatch.setattr("adapters.invokers.function_processes.runtime_entrance.session", ended)
        assert not keeper.admits(client.getsockname(), server.getsockname())
    assert seen.events == []


ECHO = """
while True:
    headers, event = taken()
    answered(headers, event)
"""
BY_CHILD = "headers, event = taken(); answered(headers, sorted(event)); time.sleep(60)"
AS_CHILD = f"child = [sys.executable, '-c', {RUNTIME + BY_CHILD!r}]\nimport subprocess\n"
BY_RAW_SOCKET = """
import socket
host, port = os.environ["AWS_LAMBDA_RUNTIME_API"].split(":")
def ask(path, body=None, headers={}):
    with socket.socket(socket.AF_INET6) as s:
        s.connect(("::ffff:" + host, int(port)))
        head = f"{'GET' if body is None else 'POST'} /2018-06-01/runtime{path} HTTP/1.0\\r\\n"
        s.sendall((head + f"Content-Length: {len(body or b'')}\\r\\n\\r\\n").encode() + (body or b""))
        head, _, body = s.makefile("rb").read().partition(b"\\r\\n\\r\\n")
        lines = head.decode().split("\\r\\n")
        return int(lines[0].split()[1]), dict(line.split(": ", 1) for line in lines[1:]), body
headers, event = taken()
answered(headers, sorted(event))
time.sleep(60)
"""
FRIENDS = {
    "its child": AS_CHILD + "subprocess.run(child)",
    "its child in a session of its own": AS_CHILD + "subprocess.run(child, start_new_session=True)",
    "its child's child, an orphan": AS_CHILD
    + "if os.fork() == 0:\n    subprocess.Popen(child)\n    os._exit(0)\nos.wait(); time.sleep(60)",
    "its thread": f"import threading\nthreading.Thread(target=lambda: exec({BY_CHILD!r}, globals())).start()",
    "its socket of IPv6, without a Host": BY_RAW_SOCKET,
    "its process of another user": f"import encodings.idna\nos.setgroups([]); os.setuid({NOBODY})\n"
    + BY_CHILD,
}


@pytest.mark.parametrize("friend", FRIENDS)
def test_what_the_process_starts_speaks_for_it(friend: str) -> None:
    if "another user" in friend and os.getuid() != 0:
        pytest.skip("only root can be another user")
    assert asyncio.run(outcome_of([sys.executable, "-c", RUNTIME + FRIENDS[friend]])) == Succeeded(b'["a"]')


LEFT = """
import http.client, os, time
place = os.environ["PLACE"]
connection = http.client.HTTPConnection(os.environ["AWS_LAMBDA_RUNTIME_API"], timeout=10)
connection.request("POST", "/2018-06-01/runtime/invocation/none/response", b"")
connection.getresponse().read()
kept = connection.sock
open(place + "/connected", "w").close()
while not os.path.exists(place + "/second"):
    time.sleep(0.01)
try:
    kept.sendall(b"GET /2018-06-01/runtime/invocation/next HTTP/1.1\\r\\nHost: " + connection.host.encode() + b":%d\\r\\n\\r\\n" % connection.port)
    said = kept.recv(100)
except ConnectionError:
    said = b""
with open(place + "/new", "wb") as file:
    file.write(said)
os.rename(file.name, place + "/said")
"""
LEAVES = f"""
import subprocess
place = os.environ["PLACE"]
def there(name):
    while not os.path.exists(place + name):
        time.sleep(0.01)
if not os.path.exists(place + "/connected"):
    subprocess.Popen([sys.executable, "-c", {LEFT!r}], start_new_session=True)
    there("/connected")
    # Both guards at once, or one would end what is to be left behind.
    guard = os.getppid()
    with open("/proc/%d/stat" % guard) as stat:
        other = int(stat.read().rpartition(")")[2].split()[1])
    os.kill(guard, signal.SIGSTOP)
    os.kill(other, signal.SIGKILL)
    os.kill(guard, signal.SIGKILL)
    time.sleep(60)
open(place + "/second", "w").close()
there("/said")
headers, event = taken()
answered(headers, "function")
taken()
"""


def test_what_an_earlier_process_left_behind_takes_no_call_of_the_next(tmp_path: Path) -> None:
    async def run() -> list[Outcome]:
        command = [sys.executable, "-c", RUNTIME + LEAVES]
        settings = ProcessSettings(function="orders", command=command, env={"PLACE": str(tmp_path)})
        async with invokers.environment() as env, open_process(settings, env) as invoker:
            first = await invoker.invoke(invocation({}))
            await asyncio.sleep(START_PAUSE_BASE_S)
            return [first, await invoker.invoke(invocation({}))]

    first, second = asyncio.run(run())
    assert isinstance(first, Unreachable)
    assert second == Succeeded(b'"function"')
    assert (tmp_path / "said").read_bytes() == b""


async def outcome_of(command: list[str]) -> Outcome:
    settings = ProcessSettings(function="orders", command=command, stop_grace_s=0)
    async with invokers.environment() as env, open_process(settings, env) as invoker:
        return await invoker.invoke(invocation({"a": 1}))


BASH = """
API="http://${AWS_LAMBDA_RUNTIME_API}/2018-06-01/runtime/invocation"
while true; do
  head="$(mktemp)"
  event="$(curl -sS -D "$head" "$API/next")"
  id="$(grep -i '^lambda-runtime-aws-request-id:' "$head" | tr -d '[:space:]' | cut -d: -f2)"
  rm "$head"
  curl -sS "$API/$id/response" -d "[$event]" >/dev/null
done
"""
NODE = """
const api = `http://${process.env.AWS_LAMBDA_RUNTIME_API}/2018-06-01/runtime/invocation`;
for (;;) {
  const answer = await fetch(`${api}/next`);
  const event = await answer.text();
  const id = answer.headers.get("lambda-runtime-aws-request-id");
  await fetch(`${api}/${id}/response`, { method: "POST", body: `[${event}]` });
}
"""
RUNTIMES = {"bash": ["bash", "-c", BASH], "node": ["node", "--input-type=module", "-e", NODE]}


@pytest.mark.parametrize("name", RUNTIMES)
def test_runtimes_of_other_languages_speak(name: str) -> None:
    needed = {"bash": ("bash", "curl"), "node": ("node",)}[name]
    if missing := [program for program in needed if shutil.which(program) is None]:
        pytest.skip(f"there is no {missing[0]}")
    assert asyncio.run(outcome_of(RUNTIMES[name])) == Succeeded(b'[{"a": 1}]')


PAGES = [
    ({"Host": "evil.example"}, RefusedFor.HOST),
    ({"Host": "localhost"}, RefusedFor.HOST),
    ({"Host": ""}, RefusedFor.HOST),
    ({"Origin": "http://evil.example"}, RefusedFor.ORIGIN),
    ({"Origin": "null"}, RefusedFor.ORIGIN),
    ({"Sec-Fetch-Site": "cross-site"}, RefusedFor.ORIGIN),
]


def test_a_web_page_in_a_browser_of_the_process_is_refused() -> None:
    program = f"""
pages = {[headers for headers, _ in PAGES]!r}
found = [ask("/invocation/next", None, headers) for headers in pages]
found = [[status, json.loads(body)["errorMessage"]] for status, _, body in found]
headers, event = taken()
answered(headers, found)
taken()
"""
    seen = Seen()

    async def run() -> Outcome:
        strangers = Strangers()
        strangers.observer = seen
        settings = ProcessSettings(function="orders", command=[sys.executable, "-c", RUNTIME + program])
        async with invokers.environment(strangers=strangers) as env, open_process(settings, env) as invoker:
            return await invoker.invoke(invocation({}))

    outcome = asyncio.run(run())
    assert isinstance(outcome, Succeeded)
    found = json.loads(outcome.payload)
    assert [status for status, _ in found] == [403] * len(PAGES)
    for (_, reason), (_, text) in zip(PAGES, found, strict=True):
        # Who has no browser is told what to send.
        remedy = "send Host: 127.0.0.1:" if reason is RefusedFor.HOST else "send neither Origin"
        assert remedy in text
        assert ("web pages" in text) is (reason is RefusedFor.ORIGIN)
    assert [event.reason for event in seen.events if isinstance(event, StrangerRefused)] == [
        reason for _, reason in PAGES
    ]


def test_a_target_with_another_host_is_refused() -> None:
    program = """
import socket
where = os.environ["AWS_LAMBDA_RUNTIME_API"]
def status(target):
    host, port = where.split(":")
    with socket.create_connection((host, int(port))) as s:
        s.sendall(f"POST {target}/2018-06-01/runtime/invocation/none/response HTTP/1.1\\r\\nHost: {where}\\r\\nContent-Length: 0\\r\\n\\r\\n".encode())
        return int(s.recv(100).split()[1])
found = [status(target) for target in ("", "http://" + where, "http://evil.example", "http://localhost:1")]
headers, event = taken()
answered(headers, found)
taken()
"""
    assert asyncio.run(called(program, {})) == [Succeeded(b"[400, 400, 403, 403]")]


@pytest.mark.parametrize("request_text", ["GET / nonsense", "GET /x HTTP/1.1\\r\\nsecret-bytes"])
def test_a_request_that_cannot_be_read_is_told_with_the_functions_name(
    request_text: str, caplog: pytest.LogCaptureFixture
) -> None:
    program = f"""
import socket
host, port = os.environ["AWS_LAMBDA_RUNTIME_API"].split(":")
with socket.create_connection((host, int(port))) as s:
    s.sendall(b"{request_text}\\r\\n\\r\\n")
    said = s.recv(100).decode()
headers, event = taken()
answered(headers, said.split()[1])
taken()
"""
    assert asyncio.run(called(program, {})) == [Succeeded(b'"400"')]
    told = [each for each in caplog.records if each.levelno >= logging.WARNING]
    assert [(each.levelname, getattr(each, EVENT)) for each in told] == [
        ("WARNING", "runtime_request_failed")
    ]
    assert (
        told[0].getMessage().startswith("function orders: its process sent the Runtime API a request that ")
    )
    assert "secret" not in told[0].getMessage()
    assert "\n" not in told[0].getMessage()
    assert told[0].exc_info is None


@pytest.mark.parametrize("family", [socket.AF_INET, socket.AF_INET6])
@pytest.mark.parametrize("find", [peers.socket_of, peers.socket_by_netlink, peers.socket_in_tables])
def test_the_kernel_reports_whose_a_connection_is(family: int, find: Any) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server, socket.socket(family) as client:
        host, port = server.getsockname()
        client.connect((host if family == socket.AF_INET else f"::ffff:{host}", port))
        with server.accept()[0] as accepted:
            found = find(accepted.getpeername(), accepted.getsockname())
        assert found == peers.PeerSocket(os.getuid(), os.fstat(client.fileno()).st_ino)
        assert peers.holds(os.getpid(), found.inode)
        assert not peers.holds(os.getppid(), found.inode)
        assert find(("127.0.0.1", 1), ("127.0.0.1", port)) is None
