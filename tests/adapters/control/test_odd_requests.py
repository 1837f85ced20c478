"""Requests in forms that clients seldom use: each is answered as HTTP/1 says, in the server's own form, or the connection ends."""

import asyncio
import json
import re
from typing import Any

import pytest

from adapters.control.pressure import Limits
from adapters.control.settings import ApiSettings
from tests.adapters.control.mapping_control import MappingModel
from tests.adapters.control.serving import (
    LoopFactory,
    Page,
    Running,
    Setting,
    on_both_loops,
    serving,
    validate,
)

LAMBDA = "/2015-03-31/event-source-mappings/"
PROBE = b"GET /healthz HTTP/1.1\r\nHost: h\r\n\r\n"
CHANGE = b"POST /v1/mappings/x/enable HTTP/1.1\r\nHost: h\r\nContent-Length: 2\r\n\r\n"
AT_ONCE_S = 5.0
"""Far below the time after which a silent connection is closed."""


async def half_closed(run: Running, request: bytes) -> bytes:
    """What comes back for a client that ends its own side behind its request."""
    reader, writer = await asyncio.open_connection(run.server.address.host, run.server.address.port)
    writer.write(request)
    writer.write_eof()
    try:
        async with asyncio.timeout(AT_ONCE_S):
            return await reader.read()
    finally:
        writer.close()


@on_both_loops
@pytest.mark.parametrize(
    ("request_bytes", "statuses"),
    [
        (PROBE, [200]),
        (PROBE * 3, [200] * 3),
        (PROBE * 9, [200] * 9),
        (CHANGE + b"{}", [404]),
        (PROBE + CHANGE + b"{}" + PROBE, [200, 404, 200]),
        (b"GET /nothing HTTP/1.0\r\n\r\n", [404]),
        (PROBE + b"GET /healthz HTTP/2.0\r\n\r\n", [200, 505]),
        (b"", []),
        (b"GET /hea", []),
        (PROBE[:-2], []),
        (CHANGE + b"{", []),
        (b"POST /v1/mappings/x/enable HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{", []),
    ],
)
def test_who_ends_its_side_gets_all_answers_and_then_the_end(
    loop_factory: LoopFactory, request_bytes: bytes, statuses: list[int]
) -> None:
    async def use(run: Running) -> tuple[bytes, bytes]:
        found = await half_closed(run, request_bytes)
        return found, (await run.get("/metrics"))[1]

    api = ApiSettings(allow_unauthenticated=True, allowed_hosts=("h",))
    found, metrics = serving(use, Setting(loop_factory=loop_factory, api=api, control=MappingModel()))
    assert [int(status) for status in re.findall(rb"HTTP/1\.[01] ([0-9]{3}) ", found)] == statuses
    # The client of the metrics is the only one that is left.
    assert b"\npoller_http_connections 1.0\n" in metrics


@on_both_loops
def test_who_ends_its_side_gets_a_long_answer_to_its_end(loop_factory: LoopFactory) -> None:
    request = PROBE.replace(b"/healthz", b"/metrics")
    pages = (Page(b"a" * 6_000_000 + b"\n"),)
    found = serving(
        lambda run: half_closed(run, request), Setting(loop_factory=loop_factory, expositions=pages)
    )
    head, _, body = found.partition(b"\r\n\r\n")
    assert f"Content-Length: {len(body)}".encode() in head
    assert len(body) > 6_000_000


@pytest.mark.parametrize("path", ["/healthz", "/nothing", LAMBDA])
def test_another_version_of_http_is_refused_in_the_form_of_this_one(path: str) -> None:
    async def use(run: Running) -> list[tuple[str, bytes]]:
        versions = [f" HTTP/{number // 10}.{number % 10}" for number in range(100)]
        lines = "\r\nHost: h\r\nConnection: close\r\n\r\n"
        return [(each, await run.raw(f"GET {path}{each}{lines}".encode())) for each in versions]

    free = Limits(requests_per_s=1e9, requests_at_once=1e9)
    for version, answer in serving(use, Setting(limits=free)):
        form, status, *_ = answer.split()
        assert form in {b"HTTP/1.0", b"HTTP/1.1"}
        if version in {" HTTP/1.0", " HTTP/1.1"}:
            assert status not in {b"505", b"400"}
            continue
        # What the parser does not take for HTTP at all is a bad request.
        assert status in {b"505", b"400"}
        head, _, body = answer.partition(b"\r\n\r\n")
        assert json.loads(body)
        assert form == b"HTTP/1.0" or b"Connection: close\r\n" in head


@on_both_loops
@pytest.mark.parametrize("line", ["GET / HTTP/2.0", "GET /healthz HTTP/0.9", "GET /healthz"])
def test_the_versions_before_and_after_are_named_in_the_refusal(loop_factory: LoopFactory, line: str) -> None:
    # A request of HTTP/0.9 has no headers.
    headers = "" if line.endswith("z") else "Host: h\r\n"
    found = serving(
        lambda run: run.raw(f"{line}\r\n{headers}\r\n".encode()), Setting(loop_factory=loop_factory)
    )
    head, _, body = found.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 505 HTTP Version Not Supported\r\n")
    message = json.loads(body)
    validate(message, "Error")
    assert "HTTP/1.1" in message["message"]


@on_both_loops
@pytest.mark.parametrize("path", ["/healthz", "/nothing", LAMBDA])
@pytest.mark.parametrize("expected", ["nothing", "100-continue, more", "x" * 5000, "\xff", "100"])
def test_what_cannot_be_expected_is_refused_in_json(
    loop_factory: LoopFactory, path: str, expected: str
) -> None:
    request = f"GET {path} HTTP/1.1\r\nHost: h\r\nExpect: {expected}\r\n\r\n".encode("latin-1")
    found = serving(lambda run: run.raw(request), Setting(loop_factory=loop_factory))
    head, _, body = found.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 417 Expectation Failed\r\n")
    assert b"\r\nContent-Type: application/json\r\n" in head
    assert b"\r\nConnection: close\r\n" in head
    message = json.loads(body)
    if path == LAMBDA:
        assert b"\r\nx-amzn-errortype: SerializationException\r\n" in head
        assert "100-continue" in message["message"]
    else:
        validate(message, "Error")
    assert b"xxx" not in body


@pytest.mark.parametrize(("expected", "first"), [("100-continue", 100), ("100-Continue", 100), ("", 200)])
def test_what_can_be_expected_is_met(expected: str, first: int) -> None:
    request = f"GET /healthz HTTP/1.1\r\nHost: h\r\nConnection: close\r\nExpect: {expected}\r\n\r\n"
    found = serving(lambda run: run.raw(request.encode()))
    assert found.startswith(f"HTTP/1.1 {first} ".encode())
    assert b"HTTP/1.1 200 OK\r\n" in found


@pytest.mark.parametrize(
    "request_line", ["GET /v1/mappings HTTP/2.0", "GET /v1/mappings HTTP/1.1\r\nExpect: a"]
)
def test_odd_requests_count_like_others(request_line: str) -> None:
    async def use(run: Running) -> list[Any]:
        request = f"{request_line}\r\nHost: h\r\n\r\n".encode()
        return [(await run.raw(request)).split()[1] for _ in range(7)]

    found = serving(use, Setting(limits=Limits(requests_per_s=0.001, requests_at_once=5)))
    assert found[5:] == [b"429", b"429"]
    assert set(found[:5]) <= {b"505", b"417"}
