"""The http invoker over Unix sockets, against real servers: what arrives, how it fails, and what a path must be like."""

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from adapters.invokers.http import open_http, plugin
from adapters.invokers.http_settings import HttpSettings
from adapters.invokers.http_unix import PATH_BYTES_MAX
from poller.domain.errors import InvalidConfiguration
from poller.domain.findings import Severity
from poller.domain.invocations import FunctionError, Outcome, Succeeded, Unreachable
from poller.plugins import validated
from poller.testing.invoker import invocation
from tests.contracts.invokers import environment

URL = "http://localhost/2015-03-31/functions/function/invocations"
UNREACHED = "the connection to the function's URL failed before the request was sent"


def settings(path: Path, **given: Any) -> HttpSettings:
    """Settings of a function at a socket."""
    return HttpSettings.model_validate({"function": "orders", "url": URL, "unix_socket": str(path), **given})


@asynccontextmanager
async def serving(path: Path, seen: list[Any]) -> AsyncIterator[None]:
    """A server at a socket that notes path, host and event of its requests, and answers with their number."""

    async def handler(request: web.Request) -> web.Response:
        seen.append((request.path, request.host, await request.json()))
        return web.json_response(len(seen))

    app = web.Application()
    app.router.add_post("/{rest:.*}", handler)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    try:
        await web.UnixSite(runner, str(path)).start()
        yield
    finally:
        await runner.cleanup()


async def called(path: Path, **given: Any) -> Outcome:
    """The outcome of one call."""
    async with environment() as env, open_http(settings(path, **given), env) as invoker:
        return await invoker.invoke(invocation({"Records": []}, timeout_s=5.0))


def test_an_event_arrives_at_the_socket_with_path_and_host_of_the_url(tmp_path: Path) -> None:
    seen: list[Any] = []

    async def run() -> Outcome:
        async with serving(tmp_path / "f.sock", seen):
            return await called(tmp_path / "f.sock")

    assert asyncio.run(run()) == Succeeded(b"1")
    assert seen == [("/2015-03-31/functions/function/invocations", "localhost", {"Records": []})]


def test_functions_of_two_sockets_with_one_url_are_two_functions(tmp_path: Path) -> None:
    first: list[Any] = []
    second: list[Any] = []

    async def run() -> None:
        one, other = tmp_path / "1.sock", tmp_path / "2.sock"
        async with (
            serving(one, first),
            serving(other, second),
            environment() as env,
            open_http(settings(one), env) as a,
            open_http(settings(other), env) as b,
        ):
            for invoker in (a, b, b):
                await invoker.invoke(invocation({}))

    asyncio.run(run())
    assert (len(first), len(second)) == (1, 2)


def test_a_socket_that_is_not_there_yet_is_unreachable_and_then_works(tmp_path: Path) -> None:
    path = tmp_path / "f.sock"

    async def run() -> tuple[Outcome, Outcome]:
        async with environment() as env, open_http(settings(path), env) as invoker:
            early = await invoker.invoke(invocation({}))
            async with serving(path, []):
                return early, await invoker.invoke(invocation({}))

    early, late = asyncio.run(run())
    assert early == Unreachable(f"{UNREACHED}: the socket {path}: No such file or directory")
    assert late == Succeeded(b"1")


def test_a_socket_of_a_server_that_ended_is_unreachable(tmp_path: Path) -> None:
    path = tmp_path / "f.sock"
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(path))
    outcome = asyncio.run(called(path))
    assert outcome == Unreachable(f"{UNREACHED}: the socket {path} refuses connections")


def test_a_function_that_dies_during_a_call_has_failed(tmp_path: Path) -> None:
    path = tmp_path / "f.sock"

    async def dying(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.close()

    async def run() -> Outcome:
        async with await asyncio.start_unix_server(dying, path):
            return await called(path)

    outcome = asyncio.run(run())
    assert isinstance(outcome, FunctionError)
    assert outcome.error_type == "Http.NoAnswer"
    assert f"the socket {path}" in outcome.message


def test_a_live_check_connects_to_the_socket(tmp_path: Path) -> None:
    path = tmp_path / "f.sock"

    async def run() -> list[Severity]:
        seen: list[Any] = []
        async with environment() as env, open_http(settings(path), env) as invoker:
            before = await invoker.probe()
            async with serving(path, seen):
                after = await invoker.probe()
                assert not seen, "a check calls nothing"
                # The server has accepted the connection of the check by then, and ends it.
                assert await invoker.invoke(invocation({})) == Succeeded(b"1")
            return [before[0].grade, after[0].grade]

    assert asyncio.run(run()) == [Severity.PROBLEM, Severity.OK]


@pytest.mark.parametrize(
    ("path", "told"),
    [
        ("run/f.sock", "write the whole path"),
        ("/run/\0", "write the whole path"),
        ("/" + "é" * (PATH_BYTES_MAX // 2) + "é", f"more than {PATH_BYTES_MAX} bytes"),
    ],
)
def test_a_path_that_no_socket_can_have_is_refused(path: str, told: str) -> None:
    with pytest.raises(InvalidConfiguration) as caught:
        validated(plugin, {"function": "orders", "url": URL, "unix_socket": path}, place="functions.orders")
    (problem,) = caught.value.problems
    assert problem.startswith("functions.orders: unix_socket")
    assert told in problem


def test_the_longest_path_that_is_taken_works(tmp_path: Path) -> None:
    """The bound is the kernel's."""
    folder = str(tmp_path)
    path = Path(folder, "x" * (PATH_BYTES_MAX - len(folder) - 1))
    assert len(str(path)) == PATH_BYTES_MAX

    async def run() -> Outcome:
        async with serving(path, []):
            return await called(path)

    assert asyncio.run(run()) == Succeeded(b"1")


def test_tls_over_a_socket_is_refused() -> None:
    with pytest.raises(InvalidConfiguration) as caught:
        validated(
            plugin,
            {"function": "orders", "url": "https://localhost/", "unix_socket": "/run/f.sock"},
            place="functions.orders",
        )
    (problem,) = caught.value.problems
    assert problem.startswith("functions.orders: unix_socket")
    assert "write http:// in url" in problem
