"""The http invoker: the table of answers, what is sent, and every way in which a connection fails."""

import asyncio
import gzip
import json
import socket
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from adapters.demo.processes import free_port
from adapters.invokers.http import open_http, plugin
from adapters.invokers.http_answers import Answer, outcome_of
from adapters.invokers.http_settings import HttpSettings
from adapters.invokers.outcomes import retry_after_s
from poller.domain.errors import InvalidConfiguration
from poller.domain.invocations import FunctionError, Outcome, Succeeded, Throttled, TimedOut, Unreachable
from poller.domain.records import Epoch
from poller.plugins import validated
from poller.testing.invoker import ARN, REQUEST_ID, invocation
from tests.adapters.tls import certificate_in
from tests.contracts.invokers import environment, served

NOW = Epoch(1_767_225_600.0)
ERROR = b'{"errorType": "Bad", "errorMessage": "no", "stackTrace": []}'
FLAG = {"x-amz-function-error": "Unhandled"}
BUSY = "the function's URL answered"

type Talk = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


def settings(**given: Any) -> HttpSettings:
    """Settings of a function at an address."""
    return HttpSettings.model_validate({"function": "orders", "url": "http://127.0.0.1/x", **given})


TABLE: list[tuple[str, Answer, Outcome]] = [
    ("a 200 is a success", Answer(200, {}, b"[1]"), Succeeded(b"[1]")),
    ("a 204 is a success of nothing", Answer(204, {}, b""), Succeeded(b"")),
    ("a flagged 200 is a function error", Answer(200, FLAG, ERROR), FunctionError("Bad", "no")),
    (
        "a flagged 200 without a document is a function error",
        Answer(200, FLAG, b"oops"),
        FunctionError("Unhandled", "the function failed: oops"),
    ),
    (
        "a flagged 200 of nothing is a function error",
        Answer(200, FLAG, b""),
        FunctionError("Unhandled", "the function failed and did not say how"),
    ),
    ("an error document is a function error", Answer(200, {}, ERROR), FunctionError("Bad", "no")),
    (
        "half a document is a success",
        Answer(200, {}, b'{"errorType": "x"}'),
        Succeeded(b'{"errorType": "x"}'),
    ),
    (
        "a document inside an answer is a success",
        Answer(200, {}, b"[" + ERROR + b"]"),
        Succeeded(b"[" + ERROR + b"]"),
    ),
    (
        "the emulator's line is a time-out",
        Answer(200, {}, b"Task timed out after 3.00 seconds"),
        TimedOut(3.0),
    ),
    ("a 302 is a function error", Answer(302, {}, b""), FunctionError("Http.302", f"{BUSY} 302 Found")),
    (
        "a 400 is a function error",
        Answer(400, {}, b"x"),
        FunctionError("Http.400", f"{BUSY} 400 Bad Request: x"),
    ),
    ("a 500 with a document says so", Answer(500, {}, ERROR), FunctionError("Bad", "no")),
    (
        "a status without a name",
        Answer(599, {}, b""),
        FunctionError("Http.599", f"{BUSY} 599 unknown status"),
    ),
    (
        "a 429 is throttled",
        Answer(429, {"Retry-After": "9"}, b""),
        Throttled(f"{BUSY} 429 Too Many Requests", 9.0),
    ),
    ("a 502 is unreachable", Answer(502, {}, b"<html>"), Unreachable(f"{BUSY} 502 Bad Gateway")),
    ("a 502 of a dead function is its error", Answer(502, {}, ERROR), FunctionError("Bad", "no")),
    (
        "a 503 is unreachable",
        Answer(503, {"Retry-After": "100000"}, b""),
        Unreachable(f"{BUSY} 503 Service Unavailable", 300.0),
    ),
    (
        "a page is told without its tags",
        Answer(502, {}, b"<html>\r\n<head><title>502 Bad Gateway</title></head>\r\n<hr>nginx\r\n</html>"),
        Unreachable(f"{BUSY} 502 Bad Gateway: 502 Bad Gateway nginx"),
    ),
    (
        "a JSON object is told as it is",
        Answer(422, {}, b'{"detail": "no\\norder"}'),
        FunctionError("Http.422", f'{BUSY} 422 Unprocessable Content: {{"detail": "no\\norder"}}'),
    ),
    (
        "bytes are only counted",
        Answer(500, {}, b"\x00\xff\x80PNG\x01"),
        FunctionError("Http.500", f"{BUSY} 500 Internal Server Error: (7 bytes that are no text)"),
    ),
    ("a 504 is unreachable", Answer(504, {}, b""), Unreachable(f"{BUSY} 504 Gateway Timeout")),
]


@pytest.mark.parametrize(("answer", "outcome"), [row[1:] for row in TABLE], ids=[row[0] for row in TABLE])
def test_the_table_of_answers(answer: Answer, outcome: Outcome) -> None:
    assert outcome_of(answer, settings(), NOW) == outcome


@pytest.mark.parametrize("body", [ERROR, b"Task timed out after 3.00 seconds"])
def test_the_body_of_a_plain_answer_means_nothing(body: bytes) -> None:
    assert outcome_of(Answer(200, {}, body), settings(style="plain"), NOW) == Succeeded(body)


def test_settings_say_which_statuses_are_throttles_and_which_unreachable() -> None:
    given = settings(throttled_statuses=[400], unreachable_statuses=[])
    assert isinstance(outcome_of(Answer(400, {}, b""), given, NOW), Throttled)
    assert isinstance(outcome_of(Answer(429, {}, b""), given, NOW), FunctionError)
    assert isinstance(outcome_of(Answer(503, {}, b""), given, NOW), FunctionError)


@pytest.mark.parametrize(
    ("header", "wait_s"),
    [
        (None, None),
        ("0", 0.0),
        (" 12 ", 12.0),
        ("9" * 30, 300.0),
        ("-3", None),
        ("1.5", None),
        ("²", None),
        ("Thu, 01 Jan 2026 00:00:30 GMT", 30.0),
        ("Thu, 01 Jan 2026 00:00:30", 30.0),
        ("Wed, 31 Dec 2025 00:00:00 GMT", 0.0),
        ("Thu, 01 Jan 2099 00:00:00 GMT", 300.0),
        ("soon", None),
        ("", None),
    ],
)
def test_a_retry_hint_is_seconds_or_a_date_and_bounded(header: str | None, wait_s: float | None) -> None:
    assert retry_after_s(header, NOW) == wait_s


async def called(url: str, *, timeout_s: float = 5.0, **given: Any) -> Outcome:
    """The outcome of one call of a URL."""
    async with environment() as env, open_http(settings(url=url, **given), env) as invoker:
        return await invoker.invoke(invocation({"Records": []}, timeout_s=timeout_s))


@asynccontextmanager
async def talking(talk: Talk) -> AsyncIterator[str]:
    """A server that reads a request's head and then does what it likes."""

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        await talk(reader, writer)
        writer.close()

    server = await asyncio.start_server(connected, "127.0.0.1", 0)
    async with server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/"


def talked(talk: Talk, **given: Any) -> Outcome:
    """The outcome of one call of such a server."""

    async def run() -> Outcome:
        async with talking(talk) as url:
            return await called(url, **given)

    return asyncio.run(run())


def test_a_request_says_who_it_is_for_and_until_when() -> None:
    seen: dict[str, Any] = {}

    async def handler(request: web.Request) -> web.Response:
        seen.update(headers=dict(request.headers), body=await request.json())
        return web.Response()

    async def run() -> tuple[Outcome, float]:
        app = web.Application()
        app.router.add_post("/", handler)
        async with served(app) as url, environment() as env:
            headers = {"Authorization": "Bearer hidden"}
            async with open_http(settings(url=url, headers=headers), env) as invoker:
                now = env.clock.now()
                return await invoker.invoke(invocation({"Records": []}, timeout_s=30)), now

    outcome, now = asyncio.run(run())
    assert outcome == Succeeded(b"")
    assert seen["body"] == {"Records": []}
    assert seen["headers"]["Content-Type"] == "application/json"
    assert seen["headers"]["Authorization"] == "Bearer hidden"
    assert seen["headers"]["x-amzn-requestid"] == REQUEST_ID
    assert seen["headers"]["x-amz-invoked-function-arn"] == ARN
    assert -0.01 < int(seen["headers"]["x-amz-deadline-ms"]) / 1000 - now - 30 < 2


def test_a_redirect_is_not_followed() -> None:
    async def handler(request: web.Request) -> web.Response:
        return web.Response(status=307, headers={"Location": "/other"})

    async def run() -> Outcome:
        app = web.Application()
        app.router.add_post("/", handler)
        async with served(app) as url:
            return await called(url)

    assert asyncio.run(run()) == FunctionError("Http.307", f"{BUSY} 307 Temporary Redirect")


UNREACHED = "the connection to the function's URL failed before the request was sent"


def test_a_port_that_nobody_serves_is_unreachable_before_the_request() -> None:
    port = free_port()
    outcome = asyncio.run(called(f"http://127.0.0.1:{port}/secret-path?key=secret"))
    assert outcome == Unreachable(f"{UNREACHED}: 127.0.0.1:{port} refuses connections")


def test_a_name_that_does_not_resolve_is_unreachable() -> None:
    outcome = asyncio.run(called("http://nowhere.invalid/secret-path"))
    assert isinstance(outcome, Unreachable)
    assert outcome.reason.startswith(f"{UNREACHED}: the name nowhere.invalid has no address (DNS: ")
    assert "secret" not in outcome.reason


def test_a_server_that_takes_no_connection_in_time_is_unreachable() -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        port = listener.getsockname()[1]
        fillers = [socket.socket() for _ in range(4)]
        try:
            for filler in fillers:
                filler.setblocking(False)
                filler.connect_ex(("127.0.0.1", port))
            url = f"http://127.0.0.1:{port}/"
            slow = asyncio.run(called(url, timeout_s=5, connect_timeout_s=0.2))
            short = asyncio.run(called(url, timeout_s=0.2))
        finally:
            for filler in fillers:
                filler.close()
    assert slow == short == Unreachable(f"no connection to 127.0.0.1:{port} in time")


def test_a_server_that_is_silent_has_timed_out() -> None:
    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()

    assert talked(talk, timeout_s=0.2) == TimedOut(0.2)


def test_an_answer_that_stops_halfway_has_timed_out() -> None:
    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf")
        await reader.read()

    assert talked(talk, timeout_s=0.3) == TimedOut(0.3)


def test_an_endless_answer_is_cut_off_at_the_limit() -> None:
    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        while not writer.is_closing():
            writer.write(b"10000\r\n" + b"x" * 65_536 + b"\r\n")
            try:
                await writer.drain()
            except ConnectionError:
                return

    outcome = talked(talk, answer_bytes_max=1_000_000)
    assert isinstance(outcome, FunctionError)
    assert outcome.error_type == "Function.ResponseSizeTooLarge"


def test_an_answer_counts_as_long_as_it_is_unpacked() -> None:
    packed = gzip.compress(b"x" * 2_000_000)

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: %d\r\n\r\n"
        writer.write(head % len(packed) + packed)
        await reader.read()

    outcome = talked(talk, answer_bytes_max=1_000_000)
    assert isinstance(outcome, FunctionError)
    assert outcome.error_type == "Function.ResponseSizeTooLarge"


def test_a_server_whose_certificate_nobody_signed_is_unreachable(tmp_path: Path) -> None:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate_in(tmp_path))

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.close()

    async def run() -> tuple[int, Outcome]:
        server = await asyncio.start_server(talk, "127.0.0.1", 0, ssl=context)
        async with server:
            port = server.sockets[0].getsockname()[1]
            return port, await called(f"https://127.0.0.1:{port}/secret")

    port, outcome = asyncio.run(run())
    assert outcome == Unreachable(f"{UNREACHED}: TLS with 127.0.0.1:{port} failed: self-signed certificate")


def test_a_server_without_tls_is_unreachable_by_https() -> None:
    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        await writer.drain()
        writer.close()

    async def run() -> tuple[int, Outcome]:
        server = await asyncio.start_server(talk, "127.0.0.1", 0)
        async with server:
            port = server.sockets[0].getsockname()[1]
            return port, await called(f"https://127.0.0.1:{port}/secret")

    port, outcome = asyncio.run(run())
    assert isinstance(outcome, Unreachable)
    assert outcome.reason.startswith(f"{UNREACHED}: TLS with 127.0.0.1:{port} failed: ")
    assert "secret" not in outcome.reason


def test_authorities_that_cannot_be_read_are_refused_at_once(tmp_path: Path) -> None:
    path = tmp_path / "ca.pem"
    for make in (lambda: None, lambda: path.write_text("no certificate")):
        make()
        with pytest.raises(
            InvalidConfiguration, match=r"functions\.orders\.ca_file: .*ca\.pem.* name a readable"
        ):
            asyncio.run(called("https://127.0.0.1/", ca_file=str(path)))
    assert issubclass(ssl.SSLError, OSError)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"url": "ftp://host/"}, "write http://host:port/path"),
        ({"url": "https://user:hidden@host/"}, "put them into headers"),
        ({"url": "http://host:99999/"}, "Port out of range"),
        ({"headers": {"a b": "hidden"}}, "no header name"),
        ({"headers": {"a": "hidden\r\nb: c"}}, "line breaks"),
        ({"headers": {"X-Amzn-RequestId": "hidden"}}, "is the invoker's own; remove it"),
        ({"throttled_statuses": [200]}, "200 is no status of a failure"),
        ({"answer_bytes_max": 0}, "write 1 or more"),
        ({"nonsense": 1}, "unknown setting"),
    ],
)
def test_wrong_settings_are_refused_without_showing_secrets(given: dict[str, Any], words: str) -> None:
    with pytest.raises(InvalidConfiguration) as raised:
        validated(plugin, {"function": "orders", "url": "http://host/"} | given, place="functions.orders")
    [problem] = raised.value.problems
    assert problem.startswith("functions.orders: ")
    assert words in problem
    assert "hidden" not in problem.replace("[hidden]", "")


def test_secret_headers_do_not_show() -> None:
    given = settings(headers={"Authorization": "hidden"})
    assert "hidden" not in repr(given)
    assert "hidden" not in json.dumps(given.model_dump(mode="json"))
