"""Owns DynamoDB stores on emulators, and clients whose calls go wrong."""

from collections.abc import AsyncGenerator, Callable, Coroutine
from contextlib import asynccontextmanager
from itertools import count
from typing import Any

from botocore.exceptions import ClientError, ReadTimeoutError

from adapters.aws import clients
from adapters.stores.dynamodb.store import DynamoStore
from adapters.stores.dynamodb.table import ROOM_BYTES, ready
from poller.clock import LoopClock
from poller.plugins import Environment
from tests.conftest import REGION

TABLES = count()


def environment(url: str) -> Environment:
    """What a plug-in gets from a daemon on this emulator."""
    return Environment(LoopClock(), region=REGION, endpoint_url=url)


class Meddler:
    """A client whose next calls of an operation go wrong: `before` they are sent, or `after` they took effect."""

    def __init__(self, client: Any) -> None:
        self.client = client
        self.calls: list[str] = []
        self.before: dict[str, list[Exception | None]] = {}
        self.after: dict[str, list[Exception | None]] = {}

    def __getattr__(self, operation: str) -> Callable[..., Coroutine[Any, Any, Any]]:
        async def call(**arguments: Any) -> Any:
            self.calls.append(operation)
            self._raise_next(self.before, operation)
            answer = await getattr(self.client, operation)(**arguments)
            self._raise_next(self.after, operation)
            return answer

        return call

    def _raise_next(self, planned: dict[str, list[Exception | None]], operation: str) -> None:
        if planned.get(operation) and (error := planned[operation].pop(0)) is not None:
            raise error


@asynccontextmanager
async def meddled(url: str, *, room: int = ROOM_BYTES) -> AsyncGenerator[tuple[DynamoStore, Meddler]]:
    """A store on a table of its own through a Meddler; `room` as in DynamoStore."""
    env, name = environment(url), f"meddled-{next(TABLES)}"
    try:
        client = await clients.client(env, "dynamodb", REGION)
        await ready(client, name, create=True)
        meddler = Meddler(client)
        yield DynamoStore(meddler, name, call_timeout_s=5, room=room), meddler
    finally:
        await env.shared.close()


def lost_answer() -> Exception:
    """An answer that did not come in time."""
    return ReadTimeoutError(endpoint_url="http://dynamodb")


def refusal(code: str) -> Exception:
    """An error that the service answers with."""
    return ClientError({"Error": {"Code": code, "Message": "no"}}, "UpdateItem")
