"""Commands that ask a server: whatever answers, and whatever the URL is, they say so in one line and have an exit status."""

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import entry_points

import pytest
from typer.testing import CliRunner

from poller.cli import application
from poller.commands.root.plugin_commands import COMMANDS

UUID = "0f4b8a5e-8b0c-4a56-9c0e-0d7d6b0c2b11"
WORDS = [
    ("status",),
    ("status", "--json"),
    ("alias", "status"),
    ("alias", "status", "orders", "live", "--json"),
    ("peek", "orders"),
    ("peek", "orders", "--json"),
    ("mappings", "list"),
    ("mappings", "get", UUID),
]


def _answer(body: bytes, head: bytes = b"") -> bytes:
    return b"HTTP/1.1 200 OK\r\n%bContent-Length: %d\r\n\r\n%b" % (head, len(body), body)


ANSWERS = {
    "nothing": b"",
    "no HTTP": b"garbage\r\n\r\n",
    "no status": b"HTTP/1.1 abc\r\n\r\n",
    "half a body": b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{",
    "no chunk": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
    "half a chunk": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n9\r\n{",
    "many headers": b"HTTP/1.1 200 OK\r\n" + b"A: b\r\n" * 500 + b"\r\n",
    "a long header": b"HTTP/1.1 200 OK\r\nA: " + b"b" * 70_000 + b"\r\n\r\n",
    "a reason with colours": b"HTTP/1.1 404 \x1b[31mred\r\nContent-Length: 0\r\n\r\n",
    "a file elsewhere": b"HTTP/1.1 302 Found\r\nLocation: file:///etc/passwd\r\nContent-Length: 0\r\n\r\n",
    "no UTF-8": _answer(b"\xff\xfe"),
    "half of a surrogate pair": _answer(b'{"worker": "\\ud800"}'),
    "null": _answer(b"null"),
    "a list": _answer(b"[]"),
    "a number": _answer(b"1e400"),
    "a text": _answer(b'"x"'),
    "deep": _answer(b"[" * 100_000),
    "texts for mappings": _answer(b'{"EventSourceMappings": ["x", 1, null], "mappings": ["x"], "worker": 1}'),
    "a text for all mappings": _answer(b'{"EventSourceMappings": "x", "mappings": "x"}'),
    "dates from nowhere": _answer(b'{"EventSourceMappings": [{"LastModified": 1e300}], "LastModified": "x"}'),
    "numbers for texts": _answer(b'{"EventSourceMappings": [{"UUID": 1, "FunctionArn": []}], "UUID": {}}'),
    "an error that is no object": b"HTTP/1.1 400 x\r\nContent-Length: 4\r\n\r\nnull",
    "an error that is no JSON": b"HTTP/1.1 400 x\r\nContent-Length: 2\r\n\r\n\xff\xfe",
}
URLS = (
    "http://127.0.0.1:abc",
    "http://127.0.0.1:99999",
    "http://127.0.0.1:-1",
    "http://127.0.0.1:0",
    "http://[::1",
    "http://[v1.x]/",
    "http://a b",
    "http://127.0.0.1/\n",
    "http://127.0.0.1:1/\x1b[31m",
    "http://",
    "http:///v1",
    "http:127.0.0.1",
    "HTTP//127.0.0.1",
    "file:///etc/passwd",
    "",
)


@contextmanager
def answering(answer: bytes) -> Iterator[str]:
    """A server that gives one answer to every request; yields its URL."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            while True:
                try:
                    client, _ = server.accept()
                except OSError:
                    return
                with client:
                    client.recv(65_536)
                    client.sendall(answer)
                    client.shutdown(socket.SHUT_WR)

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.getsockname()[1]}"
        finally:
            server.shutdown(socket.SHUT_RDWR)
            thread.join()


def call(*words: str) -> tuple[int, str]:
    """The exit status and what is said on stderr. What the command raises is raised here."""
    env = {
        "AWS_ACCESS_KEY_ID": "x",
        "AWS_SECRET_ACCESS_KEY": "x",
        "AWS_DEFAULT_REGION": "eu-west-1",
        "AWS_MAX_ATTEMPTS": "1",
    }
    app = application(entry_points(group=COMMANDS))
    result = CliRunner().invoke(app, list(words), env=env, catch_exceptions=False)
    return result.exit_code, result.stderr


@pytest.mark.parametrize("words", WORDS, ids=" ".join)
@pytest.mark.parametrize("answer", ANSWERS.values(), ids=ANSWERS.keys())
def test_an_answer_that_is_none_is_reported_in_one_line(
    answer: bytes, words: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("adapters.commands.endpoint.TRIES_MAX", 1)
    with answering(answer) as url:
        status, told = call(*words, "--url", url)
    assert status in (0, 2)
    assert (status == 2) == told.startswith("poller: ")
    assert told.count("\n") == (status == 2)
    assert "\x1b" not in told


@pytest.mark.parametrize("words", [("status",), ("mappings", "list")], ids=" ".join)
@pytest.mark.parametrize("url", URLS)
def test_what_is_no_url_of_a_daemon_is_reported_with_the_option(url: str, words: tuple[str, ...]) -> None:
    status, told = call(*words, "--url", url)
    assert status == 2
    assert told.startswith("poller: ")
    assert "--url" in told
    assert told.count("\n") == 1
