"""An answer that comes before its request was read leaves a connection that nobody waits on."""

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from adapters.invokers.lambda_api import LambdaInvoker, open_lambda
from adapters.invokers.lambda_calls.settings import LambdaSettings
from poller.domain.invocations import Outcome, Succeeded, Throttled
from poller.testing.invoker import invocation
from tests.adapters.answers import environment
from tests.adapters.aws.test_request_templates import without_the_library
from tests.adapters.control.serving import LoopFactory, on_both_loops, on_loop
from tests.adapters.tls import certificate_in

pytestmark = pytest.mark.usefixtures("account")

DONE = b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\ntrue"
BUSY = b"HTTP/1.1 429 x\r\nx-amzn-ErrorType: TooManyRequestsException\r\nContent-Length: 2\r\n\r\n{}"
LONG_BYTES = 6_000_000
PATIENCE_S = 5.0


@dataclass(slots=True)
class Hasty:
    """A server that answers a long request with `early` when it has its head, and reads no more of that connection."""

    early: bytes
    url: str = ""
    connections: int = 0
    over: asyncio.Event = field(default_factory=asyncio.Event)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        try:
            while await self._once(reader, writer):
                pass
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.transport.abort()

    async def _once(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        length = next(line for line in head.split("\r\n") if line.lower().startswith("content-length:"))
        expected = int(length.partition(":")[2])
        if expected >= LONG_BYTES:
            writer.write(self.early)
            await self.over.wait()
            return False
        body = await reader.readexactly(expected)
        writer.write(BUSY if b"busy" in body else DONE)
        return True


@asynccontextmanager
async def hasty(early: bytes, certificate: Path | None) -> AsyncIterator[tuple[LambdaInvoker, Hasty]]:
    """A running server, and an invoker that has learnt how it is asked."""
    tls = None
    if certificate is not None:
        tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        tls.load_cert_chain(certificate)
    found = Hasty(early)
    server = await asyncio.start_server(found.serve, "127.0.0.1", 0, ssl=tls)
    found.url = f"http{'s' if tls else ''}://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    async with environment(found.url) as env, open_lambda(LambdaSettings(function="orders"), env) as invoker:
        assert await invoker.invoke(invocation({})) == Succeeded(b"true")
        try:
            with without_the_library():
                yield invoker, found
        finally:
            found.over.set()
            server.close()


async def called(invoker: LambdaInvoker, text: str) -> Outcome:
    """What a call gives, which has to come soon."""
    async with asyncio.timeout(PATIENCE_S):
        return await invoker.invoke(invocation({"text": text}))


@pytest.mark.parametrize("secure", [False, True], ids=["plain", "tls"])
@on_both_loops
def test_a_call_after_an_early_refusal_does_not_wait_behind_the_refused_request(
    loop_factory: LoopFactory, secure: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    certificate = certificate_in(tmp_path) if secure else None
    if certificate is not None:
        monkeypatch.setenv("AWS_CA_BUNDLE", str(certificate))

    async def scenario() -> None:
        async with hasty(BUSY, certificate) as (invoker, server):
            assert isinstance(await called(invoker, "x" * LONG_BYTES), Throttled)
            assert await called(invoker, "short") == Succeeded(b"true")
            assert server.connections == 2

    on_loop(loop_factory, scenario())


@on_both_loops
def test_a_call_after_an_early_success_does_not_wait_behind_the_rest_of_its_request(
    loop_factory: LoopFactory,
) -> None:
    async def scenario() -> None:
        async with hasty(DONE, None) as (invoker, server):
            assert await called(invoker, "x" * LONG_BYTES) == Succeeded(b"true")
            assert await called(invoker, "short") == Succeeded(b"true")
            assert server.connections == 2

    on_loop(loop_factory, scenario())


@on_both_loops
def test_a_short_request_that_is_refused_keeps_its_connection(loop_factory: LoopFactory) -> None:
    async def scenario() -> None:
        async with hasty(BUSY, None) as (invoker, server):
            assert isinstance(await called(invoker, "busy"), Throttled)
            assert await called(invoker, "short") == Succeeded(b"true")
            assert server.connections == 1

    on_loop(loop_factory, scenario())
