"""Clients of the control server that go away at a bad moment leave nothing in the log, and nothing behind."""

import asyncio
import json
import logging
import random
import socket
import struct
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import pytest

from adapters.control.settings import ApiSettings
from poller.domain.mapping_api import MappingView
from tests.adapters.control.mapping_control import MappingModel
from tests.adapters.control.serving import LoopFactory, Page, Running, Setting, on_both_loops, serving

LARGE = b"a" * 20_000_000
BODY_BYTES = 4000
CREATE = "/2015-03-31/event-source-mappings/"
TURN_S = 0.05
REQUEST = {
    "FunctionName": "orders",
    "EventSourceArn": "arn:aws:kinesis:eu-west-1:000000000000:stream/orders",
    "StartingPosition": "LATEST",
}
type Leaves = Callable[[Running], Awaitable[None]]


class SlowModel(MappingModel):
    """Changes that take their time."""

    async def create(self, request: Mapping[str, Any]) -> MappingView:
        await asyncio.sleep(4 * TURN_S)
        return await super().create(request)


async def _connected(run: Running, *sent: bytes) -> socket.socket:
    sock = socket.create_connection((run.server.address.host, run.server.address.port))
    sock.setblocking(False)
    for part in sent:
        await asyncio.get_running_loop().sock_sendall(sock, part)
        await asyncio.sleep(TURN_S)
    return sock


def _reset(sock: socket.socket) -> None:
    """Ends the connection as that of a killed client ends: nothing is waited for."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    sock.close()


def _create(body: bytes) -> bytes:
    head = f"POST {CREATE} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    return head.encode() + body


WHOLE = _create(json.dumps(REQUEST).encode())
METRICS = b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n"


async def _in_the_head(run: Running) -> None:
    _reset(await _connected(run, WHOLE[:30]))


async def _in_the_body(run: Running) -> None:
    _reset(await _connected(run, WHOLE[:-20]))


async def _ends_in_the_body(run: Running) -> None:
    (await _connected(run, WHOLE[:-20])).close()


async def _before_the_answer(run: Running) -> None:
    _reset(await _connected(run, WHOLE))


async def _ends_before_the_answer(run: Running) -> None:
    (await _connected(run, WHOLE)).close()


async def _at_once(run: Running) -> None:
    sock = await _connected(run)
    sock.send(METRICS)
    _reset(sock)


async def _in_the_answer(run: Running) -> None:
    sock = await _connected(run, METRICS)
    await asyncio.get_running_loop().sock_recv(sock, 1000)
    _reset(sock)


async def _ends_in_the_answer(run: Running) -> None:
    sock = await _connected(run, METRICS)
    sock.shutdown(socket.SHUT_WR)
    await asyncio.get_running_loop().sock_recv(sock, 1000)
    sock.close()


async def _in_a_row_of_requests(run: Running) -> None:
    sock = await _connected(run, METRICS * 5)
    await asyncio.get_running_loop().sock_recv(sock, 1000)
    _reset(sock)


async def _anywhere(run: Running) -> None:
    rng = random.Random(7)
    for _ in range(20):
        request = rng.choice((WHOLE, METRICS, METRICS * 3))
        sock = await _connected(run)
        sock.send(request[: rng.randint(1, len(request))])
        await asyncio.sleep(rng.choice((0.0, 0.001, TURN_S)))
        _reset(sock) if rng.random() < 0.5 else sock.close()


@on_both_loops
@pytest.mark.parametrize(
    "leaves",
    [
        _in_the_head,
        _in_the_body,
        _ends_in_the_body,
        _before_the_answer,
        _ends_before_the_answer,
        _at_once,
        _in_the_answer,
        _ends_in_the_answer,
        _in_a_row_of_requests,
        _anywhere,
    ],
)
def test_a_client_that_goes_away_leaves_no_error_in_the_log(
    leaves: Leaves, loop_factory: LoopFactory, caplog: pytest.LogCaptureFixture
) -> None:
    async def use(run: Running) -> int:
        complaints: list[dict[str, Any]] = []
        asyncio.get_running_loop().set_exception_handler(lambda _, context: complaints.append(context))
        await leaves(run)
        await asyncio.sleep(8 * TURN_S)
        status, *_ = await run.get("/healthz")
        assert complaints == []
        return status

    setting = Setting(
        expositions=(Page(LARGE),),
        loop_factory=loop_factory,
        api=ApiSettings(allow_unauthenticated=True),
        control=SlowModel(),
    )
    with caplog.at_level(logging.INFO):
        assert serving(use, setting) == 200
    assert [each for each in caplog.records if each.levelno >= logging.WARNING or each.exc_info] == []
