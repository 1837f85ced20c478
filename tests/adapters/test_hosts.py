"""Hosts that can be no names, where the checks of settings were passed by: no connection, and never a failure of the function."""

import asyncio
from collections.abc import Awaitable, Callable

import pytest
from aiohttp import web

from adapters.aws.permission_checks import connected
from adapters.control.server import listening
from adapters.destinations import http as http_destination
from adapters.invokers.http import open_http
from adapters.invokers.http_settings import HttpSettings
from poller.config.field_types import Address
from poller.domain.errors import InvalidConfiguration, ServiceUnavailable
from poller.domain.findings import Severity
from poller.domain.invocations import FunctionError, Outcome, Succeeded, Unreachable
from poller.testing.destination import notice
from poller.testing.invoker import invocation
from tests.contracts.invokers import environment, served

NO_HOSTS = ["a..b", "a" * 64, ".a", "\u3002", "\u200b", "1.2.3", "a" * 300]
bad = pytest.mark.parametrize("host", NO_HOSTS)


async def called(url: str) -> Outcome:
    settings = HttpSettings.model_construct(function="orders", url=url)
    async with environment() as env, open_http(settings, env) as invoker:
        return await invoker.invoke(invocation({}))


async def sent(url: str) -> None:
    settings = http_destination.HttpSettings.model_construct(arn=url)
    async with environment() as env, http_destination.open_http(settings, env) as destination:
        await destination.send(notice())


@bad
def test_a_function_at_such_a_host_is_unreachable(host: str) -> None:
    outcome = asyncio.run(called(f"http://{host}/secret"))
    assert isinstance(outcome, Unreachable)
    assert outcome.reason.startswith(
        "the connection to the function's URL failed before the request was sent: "
    )
    assert "secret" not in outcome.reason


@bad
def test_a_destination_at_such_a_host_is_unavailable(host: str) -> None:
    with pytest.raises(ServiceUnavailable):
        asyncio.run(sent(f"http://{host}/secret"))


@pytest.mark.parametrize("host", sorted({*NO_HOSTS} - {"1.2.3"}))
def test_a_check_of_such_a_host_finds_that_there_is_no_connection(host: str) -> None:
    finding = asyncio.run(connected(f"http://{host}/"))
    assert finding.grade is Severity.PROBLEM
    assert finding.text.startswith("no connection to ")


@pytest.mark.parametrize("host", ["a..b", "a" * 64, ".a", "\u3002"])
def test_listening_at_such_a_host_is_refused_with_a_remedy(host: str) -> None:
    with pytest.raises(InvalidConfiguration, match=r"listen: .*no name has this form\); write an IP address"):
        asyncio.run(listening(Address(host, 0)))


def app(encoding: str) -> web.Application:
    """A server whose answers are in an encoding that nobody asked for."""

    async def answer(_request: web.Request) -> web.Response:
        return web.Response(body=b"abcd", headers={"Content-Encoding": encoding})

    found = web.Application()
    found.add_routes([web.post("/", answer)])
    return found


async def at_server[T](encoding: str, use: Callable[[str], Awaitable[T]]) -> tuple[str, T]:
    """The server's host and port, and what `use` finds there."""
    async with served(app(encoding)) as url:
        return url.removeprefix("http://"), await use(f"{url}/")


@pytest.mark.parametrize("encoding", ["br", "zstd"])
def test_an_answer_in_an_unknown_encoding_is_told_as_that(encoding: str) -> None:
    place, outcome = asyncio.run(at_server(encoding, called))
    how = f"the content encoding {encoding} of the answer is not understood; the server may send gzip, deflate or none"
    assert outcome == FunctionError("Http.NoAnswer", f"after the request was sent to {place}, {how}")


def test_an_answer_in_no_encoding_is_the_result() -> None:
    assert asyncio.run(at_server("identity", called))[1] == Succeeded(b"abcd")


@pytest.mark.parametrize("encoding", ["br", "zstd", "gzip", "deflate", "identity"])
def test_a_notice_is_delivered_in_whatever_encoding_the_answer_comes(encoding: str) -> None:
    asyncio.run(at_server(encoding, sent))
