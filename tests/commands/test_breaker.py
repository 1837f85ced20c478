"""`poller breaker close`: what it sends, what it prints, and what it says when it cannot."""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from poller.cli import application
from poller.commands.breaker.close import close as close_breaker
from poller.commands.daemon_client import DaemonClient
from poller.commands.operations.command import Manner, Surroundings
from poller.domain.records import Epoch
from poller.domain.status import BreakerStatus, DaemonStatus, FunctionStatus, WorkerBreaker
from poller.domain.untrusted.rendering import as_json

STATE = {
    "function": "orders",
    "rate": None,
    "breaker": {"state": "closed", "since": 1.0, "reason": "", "next_try": None, "calls": 0, "failed": 0},
}


OPEN, CLOSED = (BreakerStatus(state=state, since=Epoch(1.0)) for state in ("open", "closed"))
PICTURE = DaemonStatus(
    worker="ann",
    mappings=(),
    ready=True,
    alive=True,
    functions=(
        FunctionStatus(
            function="orders",
            breaker=CLOSED,
            breakers=(
                WorkerBreaker(worker="ann", breaker=CLOSED),
                WorkerBreaker(worker="bob", breaker=OPEN),
            ),
        ),
    ),
)
SENTENCE = "close the circuit breaker of function orders at all workers, so that its calls begin at once; it is open at bob"


@dataclass
class Sent:
    """What a server was sent, and what it answers."""

    status: int = 200
    body: bytes = json.dumps(STATE).encode()
    requests: list[tuple[str, str, Any]] = field(default_factory=list)
    picture: bytes = as_json(PICTURE)
    reads: list[tuple[str, str]] = field(default_factory=list)


@contextmanager
def server(sent: Sent) -> Iterator[str]:
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            sent.requests.append((self.path, self.headers.get("Authorization", ""), json.loads(body)))
            self.send_response(sent.status)
            self.send_header("Content-Length", str(len(sent.body)))
            self.end_headers()
            self.wfile.write(sent.body)

        def do_GET(self) -> None:
            sent.reads.append((self.path, self.headers.get("Authorization", "")))
            self.send_response(200)
            self.send_header("Content-Length", str(len(sent.picture)))
            self.end_headers()
            self.wfile.write(sent.picture)

        def log_message(self, format: str, *args: Any) -> None:
            """Says nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as found:
        thread = threading.Thread(target=found.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield f"http://127.0.0.1:{found.server_port}"
        finally:
            found.shutdown()
            thread.join()


def close(url: str, *words: str, token: str = "", yes: bool = True) -> Result:
    words = (*words, "--yes") if yes else words
    env = {"POLLER_TOKEN": token, "NO_COLOR": "1", "TERM": "dumb"}
    return CliRunner().invoke(application([]), ["breaker", "close", *words, "--url", url], env=env)


def test_it_sends_the_name_the_reason_and_the_token() -> None:
    sent = Sent()
    with server(sent) as url:
        result = close(url, "orders", "--reason", "the database is back", token="secret")
    assert result.exit_code == 0
    assert result.output == (
        "function orders: breaker closed here; the other workers of the store close theirs within seconds\n"
    )
    assert sent.requests == [
        ("/v1/functions/orders/breaker/close", "Bearer secret", {"reason": "the database is back"})
    ]


def test_a_name_cannot_lead_to_another_path() -> None:
    sent = Sent(404, b'{"error": "not_found", "message": "nothing"}')
    with server(sent) as url:
        close(url, "../../mappings")
    assert sent.requests[0][0] == "/v1/functions/..%2F..%2Fmappings/breaker/close"


def test_json_is_what_the_daemon_answers() -> None:
    with server(Sent()) as url:
        assert json.loads(close(url, "orders", "--json").output) == STATE


@pytest.mark.parametrize(
    ("status", "body", "said"),
    [
        (
            404,
            b'{"message": "functions that have one: orders"}',
            "functions that have one: orders; name a function",
        ),
        (
            403,
            b'{"message": "this needs the role operate"}',
            "this needs the role operate",
        ),
        (500, b"\x1b[31mno json", "answered status 500; does a daemon"),
        (200, b"[]", "the answer is no state of a function"),
    ],
)
def test_what_is_refused_is_told_with_the_remedy(status: int, body: bytes, said: str) -> None:
    with server(Sent(status, body)) as url:
        result = close(url, "orders")
    assert result.exit_code == 2
    assert said in result.stderr
    assert "\x1b" not in result.stderr


def test_a_daemon_that_does_not_answer_and_a_wrong_url_are_told() -> None:
    assert "no answer" in close("http://127.0.0.1:1", "orders").stderr
    assert close("ftp://host", "orders").exit_code == 2


@pytest.mark.parametrize("answer", ["y", "n"])
def test_it_says_where_the_breaker_is_open_and_asks(answer: str, capsys: pytest.CaptureFixture[str]) -> None:
    sent = Sent()
    around = Surroundings(answer=lambda _: answer)
    with server(sent) as url:
        status = close_breaker(DaemonClient(url, "secret"), "orders", manner=Manner(), around=around)
    assert status == (0 if answer == "y" else 1)
    assert SENTENCE in capsys.readouterr().err
    assert len(sent.requests) == (1 if answer == "y" else 0)
    assert sent.reads == [("/v1/mappings", "Bearer secret")]


def test_without_a_terminal_it_closes_nothing_unless_yes_is_given() -> None:
    sent = Sent()
    with server(sent) as url:
        result = close(url, "orders", yes=False)
    assert result.exit_code == 2
    assert "add --yes to do it" in result.stderr
    assert not sent.requests


def test_a_dry_run_says_what_would_happen_and_sends_nothing() -> None:
    sent = Sent()
    with server(sent) as url:
        assert close(url, "orders", "--dry-run", yes=False).output == f"would do: {SENTENCE}\n"
        found = json.loads(close(url, "orders", "--dry-run", "--json", "--reason", "why", yes=False).output)
        unknown = close(url, "audit", "--dry-run", yes=False)
        assert unknown.exit_code == 2
        assert (
            "no function 'audit' that runs has a breaker; functions that have one: orders" in unknown.output
        )
    assert found == {"function": "orders", "request": {"reason": "why"}, "sentence": SENTENCE}
    assert not sent.requests
