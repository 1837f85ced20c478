"""The Runtime API answers usual requests by itself and leaves all others to the web library; a process sees no difference.

The process is this one, over real connections.
"""

import asyncio
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass

import pytest

from adapters.invokers.function_processes.process_session import Offer
from adapters.invokers.function_processes.runtime_api import RuntimeApi, serving
from adapters.invokers.function_processes.usual_requests import UsualHead, usual_head
from poller.domain.invocations import EncodedEvent, Invocation, Outcome, Succeeded
from poller.refused_requests import Strangers

ADDRESS = "127.0.0.1:1234"
ODD = "X-Odd: 1\r\n"
"""With it a request is the library's."""
FORMS = pytest.mark.parametrize("more", ["", ODD], ids=["usual", "odd"])
SOON_S = 5.0


def next_request(address: str, more: str = "") -> bytes:
    return f"GET /2018-06-01/runtime/invocation/next HTTP/1.1\r\nHost: {address}\r\n{more}\r\n".encode()


def answer(address: str, body: bytes, *, request_id: str = "one", more: str = "") -> bytes:
    head = f"POST /2018-06-01/runtime/invocation/{request_id}/response HTTP/1.1\r\nHost: {address}\r\n"
    return f"{head}{more}Content-Length: {len(body)}\r\n\r\n".encode() + body


def test_a_usual_head_is_read() -> None:
    asks = next_request(ADDRESS, "Accept: */*\r\nUser-Agent: aws-lambda-python/3.13.0-4.2.2\r\n")
    assert usual_head(asks, ADDRESS) == UsualHead(None, len(asks), 0)
    answers = answer(ADDRESS, b"null", request_id="8f5a-1", more="content-type: application/json\r\n")
    assert usual_head(answers, ADDRESS) == UsualHead("8f5a-1", len(answers) - 4, 4)


@pytest.mark.parametrize(
    "request_bytes",
    [
        next_request("localhost:1234"),
        next_request(ADDRESS, f"Host: {ADDRESS}\r\n"),
        next_request(ADDRESS, "Origin: null\r\n"),
        next_request(ADDRESS, "Sec-Fetch-Site: cross-site\r\n"),
        next_request(ADDRESS, "Connection: close\r\n"),
        next_request(ADDRESS, "Content-Length: 1\r\n"),
        next_request(ADDRESS, "Accept: a\r\n b\r\n"),
        next_request(ADDRESS, "Accept : a\r\n"),
        next_request(ADDRESS, "nonsense\r\n"),
        next_request(ADDRESS).replace(b"HTTP/1.1", b"HTTP/1.0"),
        next_request(ADDRESS).replace(b"GET /", b"GET http://127.0.0.1:1234/"),
        next_request(ADDRESS).replace(b"/next", b"/next?x"),
        next_request(ADDRESS).replace(b"Host", b"Hosts"),
        next_request(ADDRESS)[:-1],
        next_request(ADDRESS, "Accept: " + "a" * 5_000 + "\r\n"),
        answer(ADDRESS, b"", more="Transfer-Encoding: chunked\r\n"),
        answer(ADDRESS, b"", more="Expect: 100-continue\r\n"),
        answer(ADDRESS, b"", more="Content-Encoding: gzip\r\n"),
        answer(ADDRESS, b"", request_id=""),
        answer(ADDRESS, b"", request_id="a/b"),
        answer(ADDRESS, b"", request_id="a%41"),
        answer(ADDRESS, b"", request_id="\u00e9"),
        answer(ADDRESS, b"").replace(b"/response", b"/error"),
        answer(ADDRESS, b"").replace(b"POST", b"PUT"),
        answer(ADDRESS, b"").replace(b"Content-Length: 0", b"Content-Length: -1"),
        answer(ADDRESS, b"").replace(b"Content-Length: 0", "Content-Length: \u00b2".encode("latin-1")),
        answer(ADDRESS, b"").replace(b"Content-Length: 0", b"Content-Length: 0\r\nContent-Length: 0"),
        answer(ADDRESS, b"").replace(b"Content-Length: 0", b"Content-Length: 99999999"),
        answer(ADDRESS, b"").replace(b"Content-Length: 0", b"Content-Length: 999999999999"),
    ],
)
def test_any_other_head_is_left_to_the_library(request_bytes: bytes) -> None:
    assert usual_head(request_bytes, ADDRESS) is None


@dataclass(frozen=True, slots=True)
class Connected:
    """A connection of the process."""

    address: str
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    async def said(self) -> tuple[int, dict[str, str], bytes]:
        """The next answer: status, headers and body."""
        first, *lines = (await self.reader.readuntil(b"\r\n\r\n")).decode().rstrip().split("\r\n")
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        body = await self.reader.readexactly(int(headers["content-length"]))
        return int(first.split(" ")[1]), headers, body


type Connect = Callable[[], Awaitable[Connected]]


@asynccontextmanager
async def runtime() -> AsyncIterator[tuple[RuntimeApi, Connect]]:
    """A Runtime API for this process, and what connects to it."""
    writers: list[asyncio.StreamWriter] = []
    async with asyncio.timeout(SOON_S), serving("orders", Strangers()) as api:
        api.guard.expect(os.getpid())

        async def connect() -> Connected:
            host, port = api.address.split(":")
            reader, writer = await asyncio.open_connection(host, int(port))
            writers.append(writer)
            return Connected(api.address, reader, writer)

        try:
            yield api, connect
        finally:
            for each in writers:
                each.close()
                with suppress(ConnectionError):
                    await each.wait_closed()


def offer(request_id: str = "one", *, trace_header: str = "") -> Offer:
    invocation = Invocation(
        "arn:aws:lambda:eu-west-1:111122223333:function:orders",
        request_id,
        EncodedEvent(b'{"n":1}'),
        30.0,
        trace_header=trace_header,
    )
    return Offer(invocation, 1_000)


async def asked(api: RuntimeApi, given: Offer) -> asyncio.Task[Outcome | None]:
    """An invocation that is offered, and waits for its outcome."""
    task = asyncio.create_task(api.session.ask(given))
    await asyncio.sleep(0)
    return task


@FORMS
def test_an_invocation_is_given_and_answered(more: str) -> None:
    async def run() -> None:
        async with runtime() as (api, connect):
            process = await connect()
            for number in range(3):
                outcome = await asked(api, offer(f"call-{number}"))
                process.writer.write(next_request(api.address, more))
                status, headers, event = await process.said()
                assert (status, event) == (200, b'{"n":1}')
                assert headers["lambda-runtime-aws-request-id"] == f"call-{number}"
                assert headers["lambda-runtime-deadline-ms"] == "1000"
                assert headers["lambda-runtime-invoked-function-arn"].endswith(":function:orders")
                assert headers["content-type"] == "application/json"
                process.writer.write(answer(api.address, b'"done"', request_id=f"call-{number}", more=more))
                assert (await process.said())[::2] == (202, b'{"status": "OK"}')
                assert await outcome == Succeeded(b'"done"')

    asyncio.run(run())


@FORMS
def test_a_process_waits_for_its_invocation(more: str) -> None:
    async def run() -> None:
        async with runtime() as (api, connect):
            process = await connect()
            process.writer.write(next_request(api.address, more))
            assert await api.session.ready is None
            await asked(api, offer())
            assert (await process.said())[2] == b'{"n":1}'

    asyncio.run(run())


@FORMS
def test_a_connection_that_ended_takes_no_invocation(more: str) -> None:
    async def run() -> None:
        async with runtime() as (api, connect):
            first, second = await connect(), await connect()
            first.writer.write(next_request(api.address, more))
            await api.session.ready
            first.writer.close()
            await first.writer.wait_closed()
            await asyncio.sleep(0.05)
            await asked(api, offer())
            second.writer.write(next_request(api.address, more))
            assert (await second.said())[2] == b'{"n":1}'

    asyncio.run(run())


@FORMS
def test_of_two_that_wait_each_gets_one_invocation(more: str) -> None:
    async def run() -> None:
        async with runtime() as (api, connect):
            both = [await connect(), await connect()]
            for each in both:
                each.writer.write(next_request(api.address, more))
            await api.session.ready
            outcome = await asked(api, offer())
            texts = {asyncio.create_task(each.said()): each for each in both}
            done, rest = await asyncio.wait(texts, return_when=asyncio.FIRST_COMPLETED)
            assert len(done) == 1
            process = texts[done.pop()]
            process.writer.write(answer(api.address, b"1", more=more))
            await process.said()
            assert await outcome == Succeeded(b"1")
            await asked(api, offer("two"))
            (_, headers, _) = await rest.pop()
            assert headers["lambda-runtime-aws-request-id"] == "two"

    asyncio.run(run())


def test_an_answer_may_come_in_pieces() -> None:
    async def run() -> None:
        async with runtime() as (api, connect):
            process = await connect()
            outcome = await asked(api, offer())
            process.writer.write(next_request(api.address))
            await process.said()
            body = b'"' + b"x" * 1_000_000 + b'"'
            whole = answer(api.address, body)
            head = len(whole) - len(body)
            for piece in (whole[:head], whole[head : head + 1], whole[head + 1 :]):
                process.writer.write(piece)
                await process.writer.drain()
                await asyncio.sleep(0.02)
            assert (await process.said())[0] == 202
            assert await outcome == Succeeded(body)

    asyncio.run(run())


@pytest.mark.parametrize("at", [1, 30, -3, -1])
def test_a_head_in_pieces_is_read_too(at: int) -> None:
    async def run() -> None:
        async with runtime() as (api, connect):
            process = await connect()
            await asked(api, offer())
            text = next_request(api.address)
            process.writer.write(text[:at])
            await process.writer.drain()
            await asyncio.sleep(0.02)
            process.writer.write(text[at:])
            assert (await process.said())[2] == b'{"n":1}'

    asyncio.run(run())


def test_what_is_sent_while_the_process_waits_is_answered_behind_the_invocation() -> None:
    async def run() -> None:
        async with runtime() as (api, connect):
            process = await connect()
            process.writer.write(next_request(api.address))
            await api.session.ready
            process.writer.write(answer(api.address, b"7"))
            await asyncio.sleep(0.02)
            outcome = await asked(api, offer())
            assert (await process.said())[0] == 200
            assert (await process.said())[0] == 202
            assert await outcome == Succeeded(b"7")

    asyncio.run(run())


@FORMS
def test_a_second_invocation_before_the_answer_to_the_first_is_refused(more: str) -> None:
    async def run() -> None:
        async with runtime() as (api, connect):
            process = await connect()
            await asked(api, offer())
            process.writer.write(next_request(api.address, more))
            await process.said()
            process.writer.write(next_request(api.address, more))
            status, _, body = await process.said()
            assert status == 403
            assert b"InvalidStateTransition" in body

    asyncio.run(run())


@FORMS
def test_an_answer_that_nobody_waits_for_is_refused(more: str) -> None:
    async def run() -> None:
        async with runtime() as (api, connect):
            process = await connect()
            process.writer.write(answer(api.address, b"1", request_id="other", more=more))
            status, _, body = await process.said()
            assert status == 400
            assert b"InvalidRequestID" in body

    asyncio.run(run())


@FORMS
def test_the_connections_of_a_process_end_before_the_next_one_starts(more: str) -> None:
    async def run() -> None:
        async with runtime() as (api, connect):
            idle, waits = await connect(), await connect()
            waits.writer.write(next_request(api.address, more))
            await api.session.ready
            session = api.clear()
            assert await idle.reader.read() == b""
            assert await waits.reader.read() == b""
            assert not session.ready.done()

    asyncio.run(run())


@FORMS
def test_a_value_outside_ascii_reaches_the_process(more: str) -> None:
    async def run() -> None:
        async with runtime() as (api, connect):
            process = await connect()
            process.writer.write(next_request(api.address, more))
            await api.session.ready
            await asked(api, offer(trace_header="Root=\u00fc"))
            _, headers, _ = await process.said()
            assert headers["lambda-runtime-trace-id"] == "Root=\u00fc"

    asyncio.run(run())


@FORMS
def test_a_value_with_a_line_break_is_never_written(more: str) -> None:
    async def run() -> None:
        async with runtime() as (api, connect):
            process = await connect()
            process.writer.write(next_request(api.address, more))
            await api.session.ready
            await asked(api, offer(trace_header="Root=1\r\nX-More: 2"))
            assert await process.reader.read() == b""

    asyncio.run(run())
