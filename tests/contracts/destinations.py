"""Owns what the destinations' contract suite needs of each kind: where notices go, and how to read them back."""

import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from aiohttp import web

from adapters.destinations import file, http, s3, sns, sqs
from poller.invocations import Notice
from poller.plugins import GivenPlugins, opened
from poller.ports import Destination
from poller.records import MappingId, ShardId
from tests.contracts.invokers import environment, served

MAPPING = MappingId("11111111-2222-4333-8444-555555555555")
REGION = "eu-west-1"
DOCUMENT = b'{"requestContext":{"requestId":"r"},"version":"1.0","timestamp":"2026-01-01T00:00:09.314Z","x":"\xc3\xa4"}'
PAYLOAD = b'{"Records":[{"body":"\xc3\xa4 \\"quoted\\""}]}'


def notice(number: int = 1, *, payload: bytes = PAYLOAD) -> Notice:
    """A notice with an id of its own for each `number`."""
    return Notice(
        notice_id=f"9b8fa9f0-5a7f-4000-8000-{number:012d}",
        mapping=MAPPING,
        shard=ShardId("shardId-000000000000"),
        document=DOCUMENT,
        payload=payload,
        timestamp="2026-01-01T00:00:09.314Z",
    )


@dataclass
class Server:
    """A server that keeps what it gets and answers with `status` and `body`."""

    status: int = 200
    body: str = ""
    headers: dict[str, str] = field(default_factory=dict)
    requests: list[tuple[str, dict[str, str], bytes]] = field(default_factory=list)

    async def answer(self, request: web.Request) -> web.Response:
        """Answers any request."""
        self.requests.append((request.path, dict(request.headers), await request.read()))
        return web.Response(status=self.status, text=self.body, headers=self.headers)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[str]:
        """Serves; yields the URL."""
        app = web.Application(client_max_size=2**25)
        app.router.add_route("*", "/{path:.*}", self.answer)
        async with served(app) as url:
            yield url


def json_error(server: Server, code: str, status: int) -> None:
    """An error of a JSON service."""
    server.status, server.body = status, json.dumps({"__type": code, "message": "no"})
    server.headers = {"x-amzn-errortype": code, "Content-Type": "application/x-amz-json-1.0"}


def query_error(server: Server, code: str, status: int) -> None:
    """An error of a query service."""
    server.status = status
    server.body = f"<ErrorResponse><Error><Code>{code}</Code><Message>no</Message></Error></ErrorResponse>"


def rest_error(server: Server, code: str, status: int) -> None:
    """An error of S3."""
    server.status, server.body = status, f"<Error><Code>{code}</Code><Message>no</Message></Error>"


ERRORS: dict[str, Callable[[Server, str, int], None]] = {
    "sqs": json_error,
    "sns": query_error,
    "s3": rest_error,
}
ARNS = {
    "sqs": "arn:aws:sqs:eu-west-1:111122223333:failed",
    "sns": "arn:aws:sns:eu-west-1:111122223333:failed",
    "s3": "arn:aws:s3:::failed",
}


PLUGINS = GivenPlugins(
    {("destinations", each.plugin.name): each.plugin for each in (file, http, s3, sns, sqs)}
)


@asynccontextmanager
async def destination(kind: str, arn: str, endpoint: str | None = None) -> AsyncIterator[Destination]:
    """An open destination of a kind."""
    async with (
        environment(region=REGION, endpoint_url=endpoint) as env,
        opened(PLUGINS, "destinations", kind, {"arn": arn}, env) as found,
    ):
        yield found


def lines(directory: Path) -> list[Any]:
    """The documents in a file destination."""
    return [json.loads(line) for line in (directory / f"{MAPPING}.jsonl").read_bytes().splitlines()]
